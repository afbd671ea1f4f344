//! `currval` and `lastval`: they speak of what this session drew last, and must never tell another's number.
//!
//! Called by `perform` once a connection is in hand. Invariant: they run only where this session alone has drawn numbers, or
//! where nobody has, in which case PostgreSQL answers 55000 as it would. The connection on which the session drew last is looked
//! for among the idle ones; where somebody else has drawn on it since, or has it, the numbers are forgotten first.

use std::sync::Arc;

use super::answers::{For, Sent};
use super::held::{AskError, Held};
use super::perform::Work;
use super::run::Session;
use crate::catalog::verdict::Verdict;
use crate::pool::Drawn;
use crate::protocol::backend::Status;
use crate::sql::statement::Kind;

/// Most connections that are looked at for the one on which the session drew.
pub(super) const LOOKS_MAX: usize = 64;

/// Does a text ask for the number drawn last?
pub(super) fn asks(verdicts: &[Arc<Verdict>]) -> bool {
    let statements = verdicts.iter().flat_map(|verdict| &verdict.script.statements);
    let mut calls = statements.flat_map(|statement| &statement.calls);
    calls.any(|call| matches!(&*call.name.name, "currval" | "lastval"))
}

impl Session {
    /// Tells whether it is this connection on which the session drew last, and nobody else has drawn there since.
    pub(super) fn drew_on(&self) -> impl Fn(&Held) -> bool + use<> {
        let (drew, session) = (self.drew, self.id);
        move |held| drew == Some(held.lease.id) && held.lease.drawn == Drawn::By(session)
    }

    /// Sees to it that the unit, if it asks for the number drawn last, is told its own or none.
    pub(super) async fn forget_others_numbers(
        &self,
        held: &mut Held,
        work: &Work<'_>,
    ) -> Result<(), AskError> {
        let others = match held.lease.drawn {
            Drawn::ByNobody => false,
            Drawn::By(session) => session != self.id,
            Drawn::BySeveral => true,
        };
        // In a block that has failed nothing is evaluated, and the server would refuse to forget.
        if others && held.status != Status::Failed && asks(&work.verdicts) {
            held.ask("DISCARD SEQUENCES").await?;
            held.lease.drawn = Drawn::ByNobody;
        }
        Ok(())
    }

    /// Notes that the unit may draw numbers on the connection. Those of others are forgotten first, in the same breath, so that
    /// what the session asks for afterwards is its own.
    pub(super) fn note_drawing(&mut self, held: &mut Held, work: &Work<'_>) {
        if !work.verdicts.iter().any(|verdict| may_draw(verdict)) {
            return;
        }
        self.drew = Some(held.lease.id);
        // In the middle of a batch without a Sync a query of the proxy's own would commit what came before it.
        let between_units = held.status == Status::InTransaction || !held.lease.dirty;
        held.lease.drawn = match held.lease.drawn {
            Drawn::ByNobody => Drawn::By(self.id),
            Drawn::By(session) if session == self.id => Drawn::By(session),
            Drawn::By(_) | Drawn::BySeveral if between_units => {
                held.put_query(b"DISCARD SEQUENCES");
                held.unnamed = None;
                held.answers.sent(Sent::Query, For::Proxy);
                Drawn::By(self.id)
            }
            Drawn::By(_) | Drawn::BySeveral => Drawn::BySeveral,
        };
    }
}

/// May a text draw from a sequence, by itself, a default or a trigger?
fn may_draw(verdict: &Verdict) -> bool {
    let can = |kind: &Kind| match kind {
        Kind::Delete => verdict.leaves_state,
        Kind::Empty
        | Kind::Begin(_)
        | Kind::Commit { .. }
        | Kind::Rollback { .. }
        | Kind::Savepoint(_)
        | Kind::Release(_)
        | Kind::RollbackTo(_)
        | Kind::Set { .. }
        | Kind::SetTransaction(_)
        | Kind::SetCharacteristics(_)
        | Kind::SetConstraints
        | Kind::Reset(_)
        | Kind::Show(_)
        | Kind::Discard(_)
        | Kind::Deallocate(_)
        | Kind::CloseCursor
        | Kind::Listen
        | Kind::Unlisten
        | Kind::Notify
        | Kind::Lock
        | Kind::Truncate
        | Kind::Maintenance => false,
        _ => true,
    };
    let mut kinds = verdict.script.statements.iter().map(|statement| &statement.kind);
    let nothing_known = verdict.script.statements.is_empty();
    verdict.replica.is_err() && (nothing_known || kinds.any(can))
}
