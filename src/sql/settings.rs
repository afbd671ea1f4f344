//! Recognises SET, RESET and SHOW in all their spellings.
//!
//! Called by `utility`. Invariant: each spelling ends under its parameter's own name (`SET TIME ZONE` is `timezone`), and a
//! value is given only where it is one plain constant. Which parameters exist, and what a value means, it does not know.

use super::lexer::Lexeme;
use super::statement::{Kind, TransactionModes};
use super::transaction::modes;
use super::utility::Cursor;

/// What follows SET.
pub(crate) fn set(mut at: Cursor<'_, '_>) -> Option<Kind> {
    if at.eat(&["constraints"]) {
        return Some(Kind::SetConstraints);
    }
    if at.eat(&["session", "characteristics", "as", "transaction"]) {
        return Some(Kind::SetCharacteristics(some_modes(&mut at)?));
    }
    let whole = at;
    let local = at.eat(&["local"]);
    let authorization = at.rest().get(1).is_some_and(|t| t.is_word("authorization"));
    if !local && !authorization {
        at.eat(&["session"]);
    }
    if at
        .rest()
        .get(1)
        .is_some_and(|t| t.is("=") || t.is_word("to") || t.is("."))
    {
        return generic(at, local);
    }
    if at.eat(&["transaction", "snapshot"]) {
        return at.next()?.is_string().then(|| {
            Kind::SetTransaction(TransactionModes {
                snapshot: true,
                ..TransactionModes::default()
            })
        });
    }
    if at.eat(&["transaction"]) {
        // `SET LOCAL TRANSACTION` means the same; `SET SESSION TRANSACTION` too, which is a well-known surprise.
        return Some(Kind::SetTransaction(some_modes(&mut at)?));
    }
    let (name, empty_allowed) = if at.eat(&["time", "zone"]) {
        ("timezone", false)
    } else if at.eat(&["names"]) {
        ("client_encoding", true)
    } else if at.eat(&["role"]) {
        ("role", false)
    } else if at.eat(&["session", "authorization"]) {
        ("session_authorization", false)
    } else if at.eat(&["schema"]) {
        ("search_path", false)
    } else if at.eat(&["xml", "option"]) {
        ("xmloption", false)
    } else {
        return generic(whole_or(at, whole), local);
    };
    if at.done() && !empty_allowed {
        return None;
    }
    Some(Kind::Set {
        local,
        name: name.into(),
        value: constant(at),
    })
}

/// `SET session TO 1` would name a parameter called `session`: only then is the first word not a keyword.
fn whole_or<'t, 'a>(at: Cursor<'t, 'a>, whole: Cursor<'t, 'a>) -> Cursor<'t, 'a> {
    if at.done() { whole } else { at }
}

fn some_modes(at: &mut Cursor<'_, '_>) -> Option<TransactionModes> {
    if at.done() { None } else { modes(at) }
}

fn generic(mut at: Cursor<'_, '_>, local: bool) -> Option<Kind> {
    let name = dotted(&mut at)?;
    if at.eat(&["from", "current"]) {
        return at.done().then_some(Kind::Set {
            local,
            name,
            value: None,
        });
    }
    if !at.eat_mark("=") && !at.eat(&["to"]) {
        return None;
    }
    if at.done() {
        return None;
    }
    Some(Kind::Set {
        local,
        name,
        value: constant(at),
    })
}

/// A parameter's name in lower case, `a.b` for an extension's.
fn dotted(at: &mut Cursor<'_, '_>) -> Option<Box<str>> {
    let mut name = at.ident()?.to_ascii_lowercase();
    while at.eat_mark(".") {
        name.push('.');
        name.push_str(&at.ident()?.to_ascii_lowercase());
    }
    Some(name.into())
}

/// The value, where the rest of the statement is one plain constant.
fn constant(mut at: Cursor<'_, '_>) -> Option<Box<str>> {
    let negative = at.eat_mark("-");
    let sign = if negative { "-" } else { "" };
    let token = at.next()?;
    if !at.done() {
        return None;
    }
    match token.lexeme {
        Lexeme::Word if negative || token.is_word("default") => None,
        Lexeme::Word => Some(token.text.to_ascii_lowercase().into()),
        Lexeme::Number => Some(format!("{sign}{}", token.text).into()),
        _ if negative => None,
        _ => token.content().map(Into::into),
    }
}

/// What follows RESET.
pub(crate) fn reset(mut at: Cursor<'_, '_>) -> Option<Kind> {
    let name = parameter(&mut at)?;
    at.done().then(|| Kind::Reset((&*name != "all").then_some(name)))
}

/// What follows SHOW.
pub(crate) fn show(mut at: Cursor<'_, '_>) -> Option<Kind> {
    let name = parameter(&mut at)?;
    at.done().then_some(Kind::Show(name))
}

fn parameter(at: &mut Cursor<'_, '_>) -> Option<Box<str>> {
    if at.eat(&["time", "zone"]) {
        Some("timezone".into())
    } else if at.eat(&["transaction", "isolation", "level"]) {
        Some("transaction_isolation".into())
    } else if at.eat(&["session", "authorization"]) {
        Some("session_authorization".into())
    } else {
        dotted(at)
    }
}
