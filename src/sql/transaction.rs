//! Recognises transaction control: BEGIN, COMMIT, ROLLBACK, savepoints and their modes.
//!
//! Called by `utility` and, for the modes, by `settings`. Invariant: the whole statement fits PostgreSQL's grammar, because
//! the proxy answers some of these itself; what does not fit is `None` and goes to the server, which refuses it.

use super::statement::{Isolation, Kind, TransactionModes};
use super::utility::Cursor;

pub(crate) fn recognise(first: &str, mut at: Cursor<'_, '_>) -> Option<Kind> {
    let kind = match first {
        "begin" => {
            at.eat_any(&["work", "transaction"]);
            Kind::Begin(modes(&mut at)?)
        }
        "start" => {
            if !at.eat(&["transaction"]) {
                return None;
            }
            Kind::Begin(modes(&mut at)?)
        }
        "commit" if at.eat(&["prepared"]) => {
            at.next().filter(|t| t.is_string())?;
            Kind::CommitPrepared
        }
        "rollback" if at.eat(&["prepared"]) => {
            at.next().filter(|t| t.is_string())?;
            Kind::RollbackPrepared
        }
        "commit" | "end" => {
            at.eat_any(&["work", "transaction"]);
            Kind::Commit {
                chain: chain(&mut at)?,
            }
        }
        "rollback" | "abort" => {
            at.eat_any(&["work", "transaction"]);
            if first == "rollback" && at.eat(&["to"]) {
                savepoint_word(&mut at);
                Kind::RollbackTo(at.ident()?)
            } else {
                Kind::Rollback {
                    chain: chain(&mut at)?,
                }
            }
        }
        "savepoint" => Kind::Savepoint(at.ident()?),
        "release" => {
            savepoint_word(&mut at);
            Kind::Release(at.ident()?)
        }
        _ => return None,
    };
    at.done().then_some(kind)
}

/// The optional word SAVEPOINT, which may itself be a savepoint's name.
fn savepoint_word(at: &mut Cursor<'_, '_>) {
    if at.rest().len() > 1 {
        at.eat(&["savepoint"]);
    }
}

fn chain(at: &mut Cursor<'_, '_>) -> Option<bool> {
    if !at.eat(&["and"]) {
        return Some(false);
    }
    let no = at.eat(&["no"]);
    at.eat(&["chain"]).then_some(!no)
}

/// Transaction modes up to the end of the statement, with or without commas. The later mode wins, as in PostgreSQL.
pub(crate) fn modes(at: &mut Cursor<'_, '_>) -> Option<TransactionModes> {
    let mut modes = TransactionModes::default();
    let mut first = true;
    while !at.done() {
        if !first {
            at.eat_mark(",");
        }
        first = false;
        if at.eat(&["isolation", "level"]) {
            modes.isolation = Some(isolation(at)?);
        } else if at.eat(&["read", "only"]) {
            modes.read_only = Some(true);
        } else if at.eat(&["read", "write"]) {
            modes.read_only = Some(false);
        } else if at.eat(&["not", "deferrable"]) {
            modes.deferrable = Some(false);
        } else if at.eat(&["deferrable"]) {
            modes.deferrable = Some(true);
        } else {
            return None;
        }
    }
    Some(modes)
}

fn isolation(at: &mut Cursor<'_, '_>) -> Option<Isolation> {
    if at.eat(&["read", "committed"]) || at.eat(&["read", "uncommitted"]) {
        Some(Isolation::ReadCommitted)
    } else if at.eat(&["repeatable", "read"]) {
        Some(Isolation::RepeatableRead)
    } else if at.eat(&["serializable"]) {
        Some(Isolation::Serializable)
    } else {
        None
    }
}
