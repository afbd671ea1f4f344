//! `currval` and `lastval`: they speak of what this session drew last, and must never tell another's number.
//!
//! Called by `perform` once a connection is in hand. Invariant: they run only where this session alone has drawn numbers, or
//! where nobody has, in which case PostgreSQL answers 55000 as it would. The connection on which the session drew last is looked
//! for among the idle ones; elsewhere the numbers are forgotten before it draws or asks. What
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

/// May the unit draw a number?
fn draws(work: &Work<'_>) -> bool {
    work.verdicts.iter().any(|verdict| verdict.may_draw)
}

/// Does the unit ask for the number drawn last, or may it draw one? A batch without a Sync may do so later.
pub(super) fn concerns(work: &Work<'_>) -> bool {
    draws(work) || work.until == Until::Answered || asks(&work.verdicts)
}

impl Session {
    /// Tells whether it is this connection on which the session drew last, and nobody else has drawn there since.
    pub(super) fn drew_on(&self) -> impl Fn(&Held) -> bool + use<> {
        let (drew, session) = (self.drew, self.id);
        move |held| numbers(held.lease.drawn, session, drew == Some(held.lease.id)) == Numbers::Own
    }

    /// Sees to it that the unit, which concerns numbers, is told none but the session's own newest, and notes that it may draw.
    ///
    /// What the session draws is its own only where those of others are forgotten before it. A batch without a Sync may ask or
    /// draw later, when a query of the proxy's own would commit what came before.
    pub(super) async fn forget_others_numbers(
        &mut self,
        held: &mut Held,
        work: &Work<'_>,
    ) -> Result<(), AskError> {
        let draws = draws(work);
        let here_last = self.drew == Some(held.lease.id);
        let mut wrong = numbers(held.lease.drawn, self.id, here_last) == Numbers::Wrong;
        // In a block that has failed nothing is evaluated, and the server would refuse to forget.
        if wrong && held.status != Status::Failed {
            held.ask("DISCARD SEQUENCES").await?;
            held.lease.drawn = Drawn::ByNobody;
            wrong = false;
        }
        if draws {
            self.drew = Some(held.lease.id);
            held.lease.drawn = if wrong {
                Drawn::BySeveral
            } else {
                Drawn::By(self.id)
            };
        }
        Ok(())
    }
}

/// Whose numbers a session would be told on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Numbers {
    None,
    /// Its own, and it has drawn nowhere else since.
    Own,
    /// Another's, or its own of before it drew on another connection.
    Wrong,
}

fn numbers(drawn: Drawn, session: u64, drew_here_last: bool) -> Numbers {
    match drawn {
        Drawn::ByNobody => Numbers::None,
        Drawn::By(by) if by == session && drew_here_last => Numbers::Own,
        Drawn::By(_) | Drawn::BySeveral => Numbers::Wrong,
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
    fn numbers_are_right_only_where_the_session_alone_has_drawn_and_drew_last() {
        let (me, other) = (7, 8);
        assert_eq!(numbers(Drawn::ByNobody, me, false), Numbers::None);
        assert_eq!(numbers(Drawn::By(me), me, true), Numbers::Own);
        assert_eq!(
            numbers(Drawn::By(me), me, false),
            Numbers::Wrong,
            "it has drawn elsewhere since"
        );
        assert_eq!(numbers(Drawn::By(other), me, true), Numbers::Wrong);
        assert_eq!(numbers(Drawn::BySeveral, me, true), Numbers::Wrong);
    }
}
