//! Recognises statements by their leading words: all but queries and row changes, which the general parser reads.
//!
//! Called by `analyze` for each statement. Invariant: a statement that is known here is known by PostgreSQL's own grammar of
//! its first words; what does not fit that grammar is `None`, and ends as `Kind::Other`. It resolves no names.

use super::ident::{fold, truncated};
use super::lexer::{Lexeme, Token};
use super::statement::{Discard, Kind, Name};
use super::{settings, transaction};

/// A place in a statement's tokens.
#[derive(Clone, Copy)]
pub(crate) struct Cursor<'t, 'a> {
    tokens: &'t [Token<'a>],
    at: usize,
}

impl<'t, 'a> Cursor<'t, 'a> {
    pub(crate) fn new(tokens: &'t [Token<'a>]) -> Self {
        Self { tokens, at: 0 }
    }

    pub(crate) fn peek(&self) -> Option<&'t Token<'a>> {
        self.tokens.get(self.at)
    }

    pub(crate) fn next(&mut self) -> Option<&'t Token<'a>> {
        let token = self.tokens.get(self.at)?;
        self.at += 1;
        Some(token)
    }

    pub(crate) fn done(&self) -> bool {
        self.at >= self.tokens.len()
    }

    pub(crate) fn rest(&self) -> &'t [Token<'a>] {
        &self.tokens[self.at..]
    }

    /// Steps over these words if all of them follow.
    pub(crate) fn eat(&mut self, words: &[&str]) -> bool {
        let fits = words
            .iter()
            .enumerate()
            .all(|(i, w)| self.tokens.get(self.at + i).is_some_and(|t| t.is_word(w)));
        if fits {
            self.at += words.len();
        }
        fits
    }

    pub(crate) fn eat_any(&mut self, words: &[&str]) -> bool {
        words.iter().any(|word| self.eat(&[word]))
    }

    pub(crate) fn eat_mark(&mut self, mark: &str) -> bool {
        let fits = self.peek().is_some_and(|t| t.is(mark));
        if fits {
            self.at += 1;
        }
        fits
    }

    /// Steps over a parenthesised group, if one begins here.
    pub(crate) fn skip_group(&mut self) -> bool {
        if !self.peek().is_some_and(|t| t.is("(")) {
            return false;
        }
        let mut depth = 0usize;
        while let Some(token) = self.next() {
            if token.is("(") {
                depth += 1;
            } else if token.is(")") {
                depth -= 1;
                if depth == 0 {
                    return true;
                }
            }
        }
        false
    }

    /// One identifier, folded.
    pub(crate) fn ident(&mut self) -> Option<Box<str>> {
        let token = self.peek()?;
        let ident = match token.lexeme {
            Lexeme::Word => fold(token.text),
            Lexeme::Quoted => truncated(&token.content()?),
            _ => return None,
        };
        self.at += 1;
        Some(ident)
    }

    /// A name of one to three parts; a database in front is dropped, because it can only be the current one.
    pub(crate) fn name(&mut self) -> Option<Name> {
        let mut name = Name {
            schema: None,
            name: self.ident()?,
        };
        for _ in 0..2 {
            if !self.eat_mark(".") {
                break;
            }
            name = Name {
                schema: Some(name.name),
                name: self.ident()?,
            };
        }
        Some(name)
    }
}

/// What was recognised: the kind, the relations it names, and the tokens of a statement inside it.
#[derive(Debug)]
pub(crate) struct Utility<'t, 'a> {
    pub(crate) kind: Kind,
    pub(crate) reads: Vec<Name>,
    pub(crate) writes: Vec<Name>,
    /// Not all that it touches could be listed.
    pub(crate) opaque: bool,
    /// The query or row change inside EXPLAIN, PREPARE, DECLARE, COPY or CREATE TEMP TABLE AS.
    pub(crate) inner: Option<&'t [Token<'a>]>,
}

impl From<Kind> for Utility<'_, '_> {
    fn from(kind: Kind) -> Self {
        Self {
            kind,
            reads: Vec::new(),
            writes: Vec::new(),
            opaque: false,
            inner: None,
        }
    }
}

/// The statement, if its first words say what it is.
pub(crate) fn recognise<'t, 'a>(tokens: &'t [Token<'a>]) -> Option<Utility<'t, 'a>> {
    let mut at = Cursor::new(tokens);
    let first = at
        .next()
        .filter(|t| t.lexeme == Lexeme::Word)?
        .text
        .to_ascii_lowercase();
    let kind = match first.as_str() {
        "begin" | "start" | "commit" | "end" | "rollback" | "abort" | "savepoint" | "release" => {
            transaction::recognise(&first, at)?
        }
        "prepare" if at.eat(&["transaction"]) => Kind::PrepareTransaction,
        "prepare" => return prepare(at),
        "set" => settings::set(at)?,
        "reset" => settings::reset(at)?,
        "show" => settings::show(at)?,
        "discard" => discard(at)?,
        "execute" => Kind::Execute(at.ident()?),
        "deallocate" => deallocate(at)?,
        "declare" => return declare(at),
        "fetch" | "move" => Kind::Fetch,
        "close" => Kind::CloseCursor,
        "listen" => Kind::Listen,
        "unlisten" => Kind::Unlisten,
        "notify" => Kind::Notify,
        "lock" => Kind::Lock,
        "vacuum" | "analyze" | "analyse" | "checkpoint" | "cluster" | "reindex" => Kind::Maintenance,
        "call" => Kind::Call,
        "do" => Kind::Do,
        "explain" => return explain(at),
        "copy" => return copy(at),
        "truncate" => return truncate(at),
        "refresh" => return refresh(at),
        "table" => return table(at),
        "create" => return Some(create(at)),
        "alter" | "drop" | "comment" | "grant" | "revoke" | "reassign" | "security" | "import" => Kind::Ddl {
            global: is_global(&first, at.rest()),
        },
        _ => return None,
    };
    Some(kind.into())
}

fn discard(mut at: Cursor<'_, '_>) -> Option<Kind> {
    let what = match &*at.ident()? {
        "all" => Discard::All,
        "plans" => Discard::Plans,
        "sequences" => Discard::Sequences,
        "temp" | "temporary" => Discard::Temp,
        _ => return None,
    };
    at.done().then_some(Kind::Discard(what))
}

fn deallocate(mut at: Cursor<'_, '_>) -> Option<Kind> {
    if at.rest().len() > 1 {
        at.eat(&["prepare"]);
    }
    let all = at.peek()?.is_word("all");
    let name = at.ident()?;
    at.done().then_some(Kind::Deallocate((!all).then_some(name)))
}

fn prepare<'t, 'a>(mut at: Cursor<'t, 'a>) -> Option<Utility<'t, 'a>> {
    let name = at.ident()?;
    at.skip_group();
    if !at.eat(&["as"]) {
        return None;
    }
    Some(Utility {
        inner: Some(at.rest()),
        ..Kind::Prepare(name).into()
    })
}

fn declare<'t, 'a>(mut at: Cursor<'t, 'a>) -> Option<Utility<'t, 'a>> {
    at.ident()?;
    while at.eat_any(&["binary", "insensitive", "asensitive", "no", "scroll"]) {}
    if !at.eat(&["cursor"]) {
        return None;
    }
    let hold = at.eat(&["with", "hold"]);
    if !hold {
        at.eat(&["without", "hold"]);
    }
    if !at.eat(&["for"]) {
        return None;
    }
    Some(Utility {
        inner: Some(at.rest()),
        ..Kind::Declare { hold }.into()
    })
}

fn explain<'t, 'a>(mut at: Cursor<'t, 'a>) -> Option<Utility<'t, 'a>> {
    let mut analyze = false;
    let options = at;
    if at.peek()?.is("(") {
        // `((SELECT 1))` is a query, not a list of options.
        let mut inside = options;
        inside.next();
        let query = inside.peek().is_some_and(|t| {
            t.is("(")
                || ["select", "with", "values", "table"]
                    .iter()
                    .any(|word| t.is_word(word))
        });
        if !query {
            analyze = explain_analyzes(inside);
            at.skip_group();
        }
    } else {
        analyze = at.eat_any(&["analyze", "analyse"]);
        at.eat(&["verbose"]);
    }
    Some(Utility {
        inner: Some(at.rest()),
        ..Kind::Explain { analyze }.into()
    })
}

/// ANALYZE is among the options, and is not switched off; the last one counts.
fn explain_analyzes(mut at: Cursor<'_, '_>) -> bool {
    let mut analyzes = false;
    while let Some(token) = at.next() {
        if token.is_word("analyze") || token.is_word("analyse") {
            analyzes = !at.peek().is_some_and(|value| {
                let text = value
                    .content()
                    .unwrap_or_else(|| value.text.to_owned())
                    .to_ascii_lowercase();
                matches!(text.as_str(), "false" | "off" | "0")
            });
        } else if token.is(")") {
            break;
        }
    }
    analyzes
}

fn copy<'t, 'a>(mut at: Cursor<'t, 'a>) -> Option<Utility<'t, 'a>> {
    if at.peek()?.is("(") {
        let group = at.rest();
        if !at.skip_group() || !at.eat(&["to"]) {
            return None;
        }
        let len = group.len() - at.rest().len() - 1;
        return Some(Utility {
            inner: Some(&group[1..len - 1]),
            ..Kind::CopyOut.into()
        });
    }
    if at.peek()?.is_word("binary") && !at.rest().get(1)?.is(".") {
        at.next();
    }
    let name = at.name()?;
    at.skip_group();
    if at.eat(&["to"]) {
        return Some(Utility {
            reads: vec![name],
            ..Kind::CopyOut.into()
        });
    }
    if !at.eat(&["from"]) {
        return None;
    }
    // A WHERE clause may call any function.
    let opaque = at.rest().iter().any(|t| t.is_word("where"));
    Some(Utility {
        writes: vec![name],
        opaque,
        ..Kind::CopyIn.into()
    })
}

fn truncate<'t, 'a>(mut at: Cursor<'t, 'a>) -> Option<Utility<'t, 'a>> {
    if at.rest().len() > 1 {
        at.eat(&["table"]);
    }
    let mut writes = Vec::new();
    loop {
        if at.rest().len() > 1 && !at.rest()[1].is(",") {
            at.eat(&["only"]);
        }
        writes.push(at.name()?);
        at.eat_mark("*");
        if !at.eat_mark(",") {
            break;
        }
    }
    let _ = at.eat(&["restart", "identity"]) || at.eat(&["continue", "identity"]);
    // Which tables CASCADE reaches is the catalog's knowledge.
    let opaque = at.eat(&["cascade"]);
    at.eat(&["restrict"]);
    at.done().then(|| Utility {
        writes,
        opaque,
        ..Kind::Truncate.into()
    })
}

fn refresh<'t, 'a>(mut at: Cursor<'t, 'a>) -> Option<Utility<'t, 'a>> {
    if !at.eat(&["materialized", "view"]) {
        return None;
    }
    at.eat(&["concurrently"]);
    let name = at.name()?;
    Some(Utility {
        writes: vec![name],
        ..Kind::RefreshView.into()
    })
}

/// `TABLE t`, which the general parser does not know.
fn table<'t, 'a>(mut at: Cursor<'t, 'a>) -> Option<Utility<'t, 'a>> {
    let name = at.name()?;
    at.done().then(|| Utility {
        reads: vec![name],
        ..Kind::Select.into()
    })
}

fn create<'t, 'a>(mut at: Cursor<'t, 'a>) -> Utility<'t, 'a> {
    let all = at.rest();
    at.eat(&["or", "replace"]);
    let _ = at.eat(&["local"]) || at.eat(&["global"]);
    let head_len = all
        .iter()
        .position(|t| t.is("(") || t.is_word("as"))
        .unwrap_or(all.len());
    let head = &all[..head_len];
    let in_temp_schema = head.windows(2).any(|pair| {
        pair[1].is(".")
            && matches!(
                pair[0]
                    .content()
                    .as_deref()
                    .unwrap_or(pair[0].text)
                    .to_ascii_lowercase()
                    .as_str(),
                "pg_temp"
            )
    });
    if !in_temp_schema && !at.eat_any(&["temp", "temporary"]) {
        return Kind::Ddl {
            global: is_global("create", all),
        }
        .into();
    }
    let body = all.windows(2).position(|pair| {
        pair[0].is_word("as")
            && (pair[1].is("(")
                || ["select", "with", "values", "table", "execute"]
                    .iter()
                    .any(|w| pair[1].is_word(w)))
    });
    let view = head.iter().any(|t| t.is_word("view"));
    let mut inner = body.filter(|_| !view).map(|at| &all[at + 1..]);
    if let Some(tokens) = inner {
        // WITH [NO] DATA belongs to CREATE TABLE AS, not to the query.
        let data = tokens
            .len()
            .checked_sub(2)
            .filter(|at| tokens[*at].is_word("with") && tokens[at + 1].is_word("data"));
        let no_data = tokens
            .len()
            .checked_sub(3)
            .filter(|at| tokens[*at].is_word("with") && tokens[at + 1].is_word("no"));
        inner = Some(&tokens[..data.or(no_data).unwrap_or(tokens.len())]);
    }
    Utility {
        inner,
        ..Kind::CreateTemp.into()
    }
}

/// The statement concerns objects that all databases share.
fn is_global(first: &str, rest: &[Token<'_>]) -> bool {
    let word = |at: usize, words: &[&str]| words.iter().any(|w| rest.get(at).is_some_and(|t| t.is_word(w)));
    match first {
        "create" | "alter" | "drop" => {
            (word(0, &["user"]) && !word(1, &["mapping"]))
                || word(0, &["role", "group", "database", "tablespace", "system", "owned"])
        }
        "reassign" => true,
        "comment" | "security" => {
            let on = rest.iter().position(|t| t.is_word("on")).map_or(0, |at| at + 1);
            word(on, &["role", "database", "tablespace"])
        }
        "grant" | "revoke" => match rest.iter().position(|t| t.is_word("on")) {
            Some(on) => word(on + 1, &["database", "tablespace", "parameter"]),
            None => true,
        },
        _ => false,
    }
}
