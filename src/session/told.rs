//! What a client was told of a prepared statement's columns, and whether that still holds.
//!
//! Called by `exchange` when a description arrives and by `perform` before a unit is sent. Invariant: rows whose columns are other
//! than the client was told reach it only together with their description; PostgreSQL refuses the statement then, and so does the
//! proxy, which may have to prepare it anew on another connection where nothing is known of the old columns.
//! `verify` is not cancel safe: a dropped one leaves a dirty connection, which is closed.

use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::Arc;

use foldhash::fast::FixedState;

use super::held::{AskError, Held, Unnamed};
use super::message::{Binding, Message};
use super::perform::{Messages, Work};
use super::run::Session;
use super::statements::ClientStatement;
use crate::protocol::backend::Status;
use crate::protocol::error::Report;
use crate::protocol::sqlstate;

/// Bytes of a column's description after its name: table, column, type, size, modifier and format.
const COLUMN_BYTES: usize = 18;
/// Of these the type, its size and its modifier make another result.
const TYPE_BYTES: std::ops::Range<usize> = 6..16;

/// What was told, and under which catalog.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Told {
    /// The generation when it was asked.
    pub generation: u64,
    /// It was found to hold after this change by the session's own transaction, as `Pending::changes` counts; 0: after none.
    pub change: u64,
    /// The columns.
    pub shape: u64,
}

/// Names and types of the columns of a RowDescription's body, or of a NoData's.
pub fn shape(body: &[u8]) -> u64 {
    let mut hasher = FixedState::default().build_hasher();
    let mut rest = body.get(2..).unwrap_or_default();
    while let Some(end) = memchr::memchr(0, rest) {
        let column = rest.get(end + 1..end + 1 + COLUMN_BYTES).unwrap_or_default();
        rest[..end].hash(&mut hasher);
        column.get(TYPE_BYTES).unwrap_or_default().hash(&mut hasher);
        rest = rest.get(end + 1 + COLUMN_BYTES..).unwrap_or_default();
    }
    hasher.finish()
}

impl ClientStatement {
    /// May rows be sent without a description? Not before it is certain that what was told still holds.
    pub fn is_as_told(&self, generation: u64) -> bool {
        self.told.lock().is_none_or(|told| told.generation == generation)
    }
}

impl Held {
    /// Does the server have the statement from before its transaction changed the catalog, if it did? Then it sees for itself whether
    /// the columns are others.
    fn has_of_before(&self, statement: &ClientStatement) -> bool {
        self.unnamed == Unnamed::Is(statement.serial) || self.lease.prepared.is_settled(&statement.parsed)
    }

    /// The server has described a statement, or a portal of it, to the client: columns of this shape.
    pub(super) fn note_told(&mut self, shape: u64) {
        if let Some(Some((statement, generation))) = self.describing.pop_front() {
            *statement.told.lock() = Some(Told {
                generation,
                change: 0,
                shape,
            });
        }
    }
}

impl Session {
    /// Has the catalog changed since the client was told the columns of a statement that the unit executes without describing it?
    pub(super) fn must_verify(&self, held: &Held, work: &Work<'_>) -> bool {
        let Messages::Batch(messages) = &work.messages else {
            return false;
        };
        let generation = self.database.generation();
        undescribed(messages)
            .any(|statement| self.told_before(held, messages, statement, generation).is_some())
    }

    /// What the client was told of a statement under another catalog, or before its transaction changed the catalog, unless the
    /// server would tell.
    fn told_before(
        &self,
        held: &Held,
        messages: &[Message],
        statement: &ClientStatement,
        generation: u64,
    ) -> Option<Told> {
        // A Parse of the same text makes the server's statement anew: the server would refuse this one behind it, the proxy refuses both.
        let is_made_anew = || {
            let parses = messages.iter();
            parses
                .filter_map(|message| match message {
                    Message::Parse(parsing) => Some(parsing),
                    _ => None,
                })
                .any(|parsing| !parsing.name.is_empty() && parsing.statement.parsed == statement.parsed)
        };
        let may_differ = |told: &Told| {
            let changed = self.pending.changed();
            changed.is_some_and(|newest| statement.serial <= newest)
                && told.change != self.pending.changes()
                && (!held.has_of_before(statement) || is_made_anew())
        };
        let told = *statement.told.lock();
        told.filter(|told| told.generation != generation || may_differ(told))
    }

    /// Makes sure, where the catalog has changed since, that each statement which the unit executes without describing it
    /// still has the columns that the client was told; false where one has others.
    pub(super) async fn verify_told(&mut self, held: &mut Held, work: &Work<'_>) -> Result<bool, AskError> {
        let between_units = held.status == Status::InTransaction || !held.lease.dirty;
        let Messages::Batch(messages) = &work.messages else {
            return Ok(true);
        };
        if !between_units {
            return Ok(true);
        }
        let generation = self.database.generation();
        for statement in undescribed(messages) {
            let Some(told) = self.told_before(held, messages, statement, generation) else {
                continue;
            };
            match held.describe(statement).await {
                Ok(body) if shape(&body) == told.shape => {
                    let change = self.pending.changes();
                    *statement.told.lock() = Some(Told {
                        generation,
                        change,
                        ..told
                    });
                }
                Ok(_) => return Ok(false),
                // The unit itself is told what is wrong with it.
                Err(AskError::Refused(_)) if held.status == Status::Idle => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}

/// What PostgreSQL says when a statement has other columns than before.
pub(super) fn changed() -> Report {
    Report::error(
        sqlstate::FEATURE_NOT_SUPPORTED,
        "cached plan must not change result type",
    )
    // By this drivers know that preparing it anew helps.
    .routine("RevalidateCachedQuery")
}

/// Statements that are bound and not described in the batch.
pub(super) fn undescribed(messages: &[Message]) -> impl Iterator<Item = &Arc<ClientStatement>> {
    let is_described = |statement: &Arc<ClientStatement>| {
        messages.iter().any(|message| match message {
            Message::DescribePortal { bound, .. } => bound
                .as_ref()
                .is_some_and(|bound| Arc::ptr_eq(&bound.statement, statement)),
            Message::DescribeStatement {
                statement: Some(described),
                ..
            } => Arc::ptr_eq(described, statement),
            _ => false,
        })
    };
    let bound = messages.iter().filter_map(|message| match message {
        Message::Bind(Binding {
            bound: Some(bound), ..
        }) => Some(&bound.statement),
        _ => None,
    });
    bound.filter(move |statement| statement.own.is_none() && !is_described(statement))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(name: &str, table: u32, kind: u32, format: u8) -> Vec<u8> {
        let (table, kind) = (table.to_be_bytes(), kind.to_be_bytes());
        [
            name.as_bytes(),
            b"\0",
            &table,
            b"\0\x01",
            &kind,
            b"\0\x04",
            b"\xff\xff\xff\xff",
            &[0, format],
        ]
        .concat()
    }

    fn described(columns: &[Vec<u8>]) -> u64 {
        let count = u16::try_from(columns.len()).expect("few").to_be_bytes();
        shape(&[&count[..], &columns.concat()].concat())
    }

    #[test]
    fn names_and_types_make_the_shape_and_formats_and_tables_do_not() {
        let one = described(&[column("a", 7, 23, 0)]);
        assert_eq!(one, described(&[column("a", 8, 23, 1)]));
        assert_ne!(one, described(&[column("b", 7, 23, 0)]));
        assert_ne!(one, described(&[column("a", 7, 25, 0)]));
        assert_ne!(one, described(&[column("a", 7, 23, 0), column("b", 7, 23, 0)]));
        assert_ne!(one, shape(b""), "no data");
        assert_eq!(shape(b"\0\x01a"), shape(b"\0\x01a"), "cut short");
    }
}
