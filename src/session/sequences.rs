//! `currval` and `lastval`: they speak of what this session drew last, and must never tell another's number.
//!
//! Called by `perform` once a connection is in hand. Invariant: they run only where this session alone has drawn numbers, or
//! where nobody has, in which case PostgreSQL answers 55000 as it would. The connection on which the session drew last is looked
//! for among the idle ones; where another has drawn on it since, the numbers are forgotten before this one draws or asks. What
//! may draw is the catalog's to say. Not cancel safe: a dropped future leaves a dirty connection, which is closed.

use std::sync::Arc;

use super::exchange::Until;
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

    /// Sees to it that the unit is told no number of another session's, and notes that it may draw some itself.
    ///
    /// What the session draws is its own only where those of others are forgotten before it. A batch without a Sync may ask or
    /// draw later, when a query of the proxy's own would commit what came before.
    pub(super) async fn forget_others_numbers(
        &mut self,
        held: &mut Held,
        work: &Work<'_>,
    ) -> Result<(), AskError> {
        let draws = work.verdicts.iter().any(|verdict| verdict.may_draw);
        let matters = draws || work.until == Until::Answered || asks(&work.verdicts);
        // In a block that has failed nothing is evaluated, and the server would refuse to forget.
        if matters && has_others(held.lease.drawn, self.id) && held.status != Status::Failed {
            held.ask("DISCARD SEQUENCES").await?;
            held.lease.drawn = Drawn::ByNobody;
        }
        if draws {
            self.drew = Some(held.lease.id);
            held.lease.drawn = after_drawing(held.lease.drawn, self.id);
        }
        Ok(())
    }
}

/// Are there numbers of others?
fn has_others(drawn: Drawn, session: u64) -> bool {
    match drawn {
        Drawn::ByNobody => false,
        Drawn::By(other) => other != session,
        Drawn::BySeveral => true,
    }
}

fn after_drawing(drawn: Drawn, session: u64) -> Drawn {
    if has_others(drawn, session) {
        Drawn::BySeveral
    } else {
        Drawn::By(session)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::judge_without_catalog;
    use crate::sql::analyze;

    fn verdict(sql: &str) -> Arc<Verdict> {
        Arc::new(judge_without_catalog(Arc::new(
            analyze(sql.as_bytes()).expect("short"),
        )))
    }

    #[test]
    fn the_number_drawn_last_is_asked_for_by_name() {
        assert!(asks(&[verdict("SELECT 1"), verdict("SELECT lastval()")]));
        assert!(asks(&[verdict("SELECT 1; SELECT currval('s')")]));
        assert!(!asks(&[verdict("SELECT nextval('s')")]));
    }

    #[test]
    fn numbers_are_a_sessions_own_only_where_no_other_has_drawn() {
        let (me, other) = (7, 8);
        assert!(!has_others(Drawn::ByNobody, me) && !has_others(Drawn::By(me), me));
        assert!(has_others(Drawn::By(other), me) && has_others(Drawn::BySeveral, me));
        assert_eq!(after_drawing(Drawn::ByNobody, me), Drawn::By(me));
        assert_eq!(after_drawing(Drawn::By(me), me), Drawn::By(me));
        assert_eq!(after_drawing(Drawn::By(other), me), Drawn::BySeveral);
        assert_eq!(after_drawing(Drawn::BySeveral, me), Drawn::BySeveral);
    }
}
