//! `currval` and `lastval`: they speak of what this session drew last, and must never tell another's number.
//!
//! Called by `perform` once a connection is in hand. Invariant: they run only where this session alone has drawn numbers, or
//! where nobody has, in which case PostgreSQL answers 55000 as it would. The connection on which the session drew last is looked
//! for among the idle ones; where somebody else has drawn on it since, or has it, the numbers are forgotten first.

use std::sync::Arc;

use super::held::{AskError, Held};
use super::perform::Work;
use super::run::Session;
use crate::catalog::verdict::Verdict;
use crate::pool::Drawn;
use crate::protocol::backend::Status;

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

    /// Notes that the unit may draw numbers on the connection: everything but a plain read may.
    pub(super) fn note_drawing(&mut self, held: &mut Held, work: &Work<'_>) {
        if work.verdicts.iter().all(|verdict| verdict.replica.is_ok()) {
            return;
        }
        self.drew = Some(held.lease.id);
        held.lease.drawn = match held.lease.drawn {
            Drawn::ByNobody => Drawn::By(self.id),
            Drawn::By(session) if session == self.id => Drawn::By(session),
            Drawn::By(_) | Drawn::BySeveral => Drawn::BySeveral,
        };
    }
}
