//! From a text to its facts: splits it, reads hints, and has each statement recognised or parsed.
//!
//! Called by `catalog` and `session`, behind a cache of verdicts. Invariant: every statement of the text is in the script, in
//! order; one that is not understood is `Kind::Other`. Bounded work: longer texts are refused, deeper ones are not parsed.
//! It assumes `standard_conforming_strings = on`; the session does not ask when it is off.

use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::parser::Parser;

use super::functions::is_aggregate;
use super::hints::hints;
use super::ident::fold;
use super::lexer::{Lexeme, Token, lex};
use super::statement::{Call, Doubt, Kind, Script, Statement};
use super::utility::{Utility, recognise};
use super::walk::Walk;

/// Longest text that is classified, in bytes. Longer ones go to the primary.
pub const CLASSIFIED_BYTES_MAX: usize = 32 * 1024;

/// Most operators and other links of left-deep chains that the general parser is given: a tree that deep must be dropped,
/// recursively, on a worker's stack.
const LINKS_MAX: usize = 2_000;

/// EXPLAIN, PREPARE and the like inside each other.
const NESTING_MAX: u32 = 4;

/// Why a text was not read at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unclassified {
    /// Longer than `CLASSIFIED_BYTES_MAX`.
    #[error("the statement is longer than {CLASSIFIED_BYTES_MAX} bytes")]
    TooLong,
    /// Not UTF-8: another `client_encoding`, whose bytes the proxy passes on but does not read.
    #[error("the statement is not UTF-8")]
    NotUtf8,
}

/// The facts of a text.
pub fn analyze(sql: &[u8]) -> Result<Script, Unclassified> {
    if sql.len() > CLASSIFIED_BYTES_MAX {
        return Err(Unclassified::TooLong);
    }
    let sql = std::str::from_utf8(sql).map_err(|_| Unclassified::NotUtf8)?;
    let Some(lexed) = lex(sql) else {
        return Ok(Script {
            statements: vec![unknown(first_word(sql))],
            hints: hints(&[]),
        });
    };
    let statements = match split(&lexed.tokens) {
        Some(parts) => parts.into_iter().map(|tokens| facts(sql, tokens, 0)).collect(),
        None => vec![unknown(first_word(sql))],
    };
    Ok(Script {
        statements,
        hints: hints(&lexed.comments),
    })
}

/// The statements' tokens, without the semicolons; `None` when brackets do not match, so that no end can be trusted.
fn split<'t, 'a>(tokens: &'t [Token<'a>]) -> Option<Vec<&'t [Token<'a>]>> {
    let mut parts = Vec::new();
    let mut start = 0;
    let mut depth = 0usize;
    let mut blocks = 0usize;
    for (at, token) in tokens.iter().enumerate() {
        if token.is("(") || token.is("[") {
            depth += 1;
        } else if token.is(")") || token.is("]") {
            depth = depth.checked_sub(1)?;
        } else if opens_block(tokens, at, blocks) {
            blocks += 1;
        } else if blocks > 0 && token.is_word("end") {
            blocks -= 1;
        } else if token.is(";") && depth == 0 && blocks == 0 {
            if at > start {
                parts.push(&tokens[start..at]);
            }
            start = at + 1;
        }
    }
    if start < tokens.len() {
        parts.push(&tokens[start..]);
    }
    (depth == 0 && blocks == 0).then_some(parts)
}

/// BEGIN ATOMIC of an SQL function's body, or a CASE inside it, which also ends with END.
fn opens_block(tokens: &[Token<'_>], at: usize, blocks: usize) -> bool {
    let atomic = tokens[at].is_word("begin") && tokens.get(at + 1).is_some_and(|t| t.is_word("atomic"));
    atomic || (blocks > 0 && tokens[at].is_word("case"))
}

fn first_word(sql: &str) -> &str {
    let text = sql.trim_start();
    let len = text
        .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .unwrap_or(text.len());
    &text[..len]
}

pub(crate) fn blank(kind: Kind) -> Statement {
    Statement {
        kind,
        reads: Vec::new(),
        writes: Vec::new(),
        calls: Vec::new(),
        types: Vec::new(),
        operators: Vec::new(),
        time_columns: Vec::new(),
        aggregates: false,
        doubts: Vec::new(),
    }
}

fn unknown(word: &str) -> Statement {
    blank(Kind::Other(fold(word)))
}

/// One statement's facts.
fn facts(sql: &str, tokens: &[Token<'_>], nesting: u32) -> Statement {
    let mut statement = match recognise(tokens) {
        Some(utility) => with_inner(sql, utility, nesting),
        None => parsed(sql, tokens).unwrap_or_else(|| unknown(tokens.first().map_or("", |t| t.text))),
    };
    settle(&mut statement);
    statement
}

/// A recognised statement, with the facts of the statement inside it.
fn with_inner(sql: &str, utility: Utility<'_, '_>, nesting: u32) -> Statement {
    let mut statement = match utility.inner {
        None => blank(utility.kind),
        Some(tokens) if tokens.is_empty() || nesting >= NESTING_MAX => Statement {
            doubts: vec![Doubt::Opaque],
            ..blank(utility.kind)
        },
        Some(tokens) => {
            let mut inner = facts(sql, tokens, nesting + 1);
            if !matches!(
                inner.kind,
                Kind::Select | Kind::Insert | Kind::Update | Kind::Delete | Kind::Merge
            ) {
                inner.doubts.push(Doubt::Opaque);
            }
            inner.kind = utility.kind;
            inner
        }
    };
    statement.reads.extend(utility.reads);
    statement.writes.extend(utility.writes);
    if utility.opaque {
        statement.doubts.push(Doubt::Opaque);
    }
    statement
}

/// A query or row change, by the general parser; `None` where it fails or is not asked.
fn parsed(sql: &str, tokens: &[Token<'_>]) -> Option<Statement> {
    let first = tokens.first()?;
    let known = ["select", "with", "values", "insert", "update", "delete", "merge"];
    if !first.is("(") && !known.iter().any(|word| first.is_word(word)) {
        return None;
    }
    if links(tokens) > LINKS_MAX {
        return None;
    }
    let end = tokens.last()?.end();
    let mut text = sql[first.start..end].to_owned();
    let mut doubts = token_doubts(tokens);
    for token in only_tokens(tokens) {
        // Read without ONLY, `FROM ONLY t` is t with its children, which is no less than what is read.
        let at = token.start - first.start;
        text.replace_range(at..at + token.text.len(), "    ");
        doubts.push(Doubt::OnlyName);
    }
    for token in key_tokens(tokens) {
        let at = token.start - first.start;
        text.replace_range(at..at + token.text.len(), &" ".repeat(token.text.len()));
    }
    let parsed = Parser::parse_sql(&PostgreSqlDialect {}, &text).ok()?;
    let [ast] = parsed.as_slice() else { return None };
    let mut walk = Walk::default();
    let kind = walk.statement(ast)?;
    let mut statement = walk.into_statement(kind);
    statement.doubts.extend(doubts);
    Some(statement)
}

/// Tokens that may each make the tree one level deeper without the parser's recursion limit noticing.
fn links(tokens: &[Token<'_>]) -> usize {
    let words = [
        "and",
        "or",
        "not",
        "is",
        "union",
        "except",
        "intersect",
        "like",
        "ilike",
        "between",
        "in",
        "at",
        "collate",
    ];
    tokens
        .iter()
        .filter(|t| match t.lexeme {
            Lexeme::Operator => true,
            Lexeme::Punctuation => t.is("[") || t.is("::") || t.is("(") || t.is("."),
            Lexeme::Word => words.iter().any(|word| t.is_word(word)),
            _ => false,
        })
        .count()
}

/// The words ONLY in front of a relation.
fn only_tokens<'t, 'a>(tokens: &'t [Token<'a>]) -> impl Iterator<Item = &'t Token<'a>> {
    tokens.windows(3).filter_map(|three| {
        let before = &three[0];
        let leads = before.is(",")
            || before.is("(")
            || ["from", "join", "update", "into", "using"]
                .iter()
                .any(|word| before.is_word(word));
        let names = matches!(three[2].lexeme, Lexeme::Word | Lexeme::Quoted) && !three[2].is_word("as");
        (leads && three[1].is_word("only") && (names || three[2].is("("))).then(|| &three[1])
    })
}

/// What makes a row lock weaker, which the general parser does not know: `NO KEY` of FOR NO KEY UPDATE, `KEY` of FOR KEY SHARE.
fn key_tokens<'t, 'a>(tokens: &'t [Token<'a>]) -> impl Iterator<Item = &'t Token<'a>> {
    let clauses: [&[&str]; 2] = [&["for", "no", "key", "update"], &["for", "key", "share"]];
    clauses.into_iter().flat_map(move |words| {
        let found = tokens
            .windows(words.len())
            .filter(move |window| window.iter().zip(words).all(|(token, word)| token.is_word(word)));
        found.flat_map(|window| &window[1..window.len() - 1])
    })
}

/// Doubts that are read off the tokens, so that no reading of the general parser can hide them.
fn token_doubts(tokens: &[Token<'_>]) -> Vec<Doubt> {
    let mut doubts = Vec::new();
    let word = |at: usize, words: &[&str]| {
        tokens
            .get(at)
            .is_some_and(|t: &Token<'_>| words.iter().any(|word| t.is_word(word)))
    };
    let inserts = tokens.iter().any(|t| t.is_word("insert") || t.is_word("merge"));
    for (at, token) in tokens.iter().enumerate() {
        let labelled = at > 0 && (tokens[at - 1].is(".") || tokens[at - 1].is_word("as"));
        if token.is_string() {
            let next_is_string = tokens.get(at + 1).is_some_and(Token::is_string);
            if next_is_string || token.lexeme == Lexeme::OddString {
                // Literals continued on the next line, and escapes that are not resolved here.
                doubts.push(Doubt::Opaque);
            }
            match token.content() {
                Some(content) if has_clock_word(&content) => doubts.push(Doubt::ClockWord),
                Some(_) => {}
                None => doubts.push(Doubt::ClockWord),
            }
        } else if matches!(token.lexeme, Lexeme::UnicodeQuoted | Lexeme::Unknown) {
            doubts.push(Doubt::Opaque);
        } else if token.is_word("for") && word(at + 1, &["update", "share", "no", "key"]) {
            doubts.push(Doubt::LocksRows);
        } else if token.is_word("into") && !inserts && !labelled {
            doubts.push(Doubt::SelectsInto);
        } else if token.is("(") && word(at + 1, &["insert", "update", "delete", "merge"]) {
            let call_like = tokens
                .get(at + 2)
                .is_some_and(|t| t.is(")") || t.is(",") || t.lexeme == Lexeme::Operator);
            if !call_like {
                doubts.push(Doubt::WritesInCte);
            }
        } else if token.is_word("tablesample") && !labelled {
            doubts.push(Doubt::Sample);
        }
    }
    doubts
}

/// A literal that reads the clock when it is taken for a date or time: `now`, `{today}`, `[yesterday,)`.
pub(super) fn has_clock_word(literal: &str) -> bool {
    literal.split(|c: char| !c.is_ascii_alphabetic()).any(|word| {
        ["now", "today", "tomorrow", "yesterday"]
            .iter()
            .any(|clock| word.eq_ignore_ascii_case(clock))
    })
}

/// Sorts and counts once what was collected in the order of the text.
fn settle(statement: &mut Statement) {
    statement.reads.sort();
    statement.reads.dedup();
    statement.writes.sort();
    statement.writes.dedup();
    statement.calls.sort();
    statement.calls.dedup();
    statement.types.sort();
    statement.types.dedup();
    statement.operators.sort();
    statement.operators.dedup();
    statement.doubts.sort();
    statement.doubts.dedup();
    let aggregate = |call: &Call| {
        call.name
            .schema
            .as_deref()
            .is_none_or(|schema| schema == "pg_catalog")
            && is_aggregate(&call.name.name)
    };
    statement.aggregates |= statement.calls.iter().any(aggregate);
}

#[cfg(test)]
mod tests;
