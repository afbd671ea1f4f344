//! Where a unit runs: the decision between replica and primary, and the borrowed connection that comes of it.
//!
//! Called by `perform`, and by `block` for a transaction that has to begin. Invariants: what comes back is in the session's
//! settings; a replica only for what `route` allows, and only past the fence of what is read; every choice has its reason.
//! A connection at hand costs no wait, no wake and no room for either; the rest is boxed. A dropped choice leaves nothing behind.

use std::sync::Arc;

use super::acquire::{Refusal, bring_to, candidate, is_brought_to};
use super::exchange::Until;
use super::held::Held;
use super::last::Reason;
use super::perform::Work;
use super::proxy::Counters;
use super::run::{Goodbye, Session};
use super::sequences;
use crate::catalog::verdict::Verdict;
use crate::cluster::NodeId;
use crate::freshness::database::Begun;
use crate::freshness::level::Level;
use crate::route::{Because, Route, SessionFacts, route};

/// So many connections in a row may turn out to be dead before a unit is given up.
const DEAD_CONNECTIONS_MAX: u32 = 3;

/// Where a unit runs.
pub(super) enum Chosen {
    Held(Box<Held>, Reason),
    Refused(Refusal),
}

impl Session {
    /// Decides between replica and primary, and borrows a connection there.
    pub(super) async fn choose(&mut self, work: &Work<'_>, begun: &Begun) -> Result<Chosen, Goodbye> {
        let hinted = |verdict: &Arc<Verdict>| verdict.script.hints.route;
        let facts = SessionFacts {
            asked: work.verdicts.iter().find_map(hinted).or(self.asked.route),
            read_committed: self.derived.read_committed,
            ..SessionFacts::default()
        };
        let routes = work.verdicts.iter().map(|verdict| route(verdict, &facts));
        let mut decided = Route::Replica(Because::PlainRead);
        for one in routes {
            decided = one;
            if matches!(one, Route::Primary(_)) {
                break;
            }
        }
        let reason = match decided {
            Route::Primary(because) => Reason::Route(because),
            Route::Replica(_) if work.level == Level::Strict => Reason::Level(work.level),
            Route::Replica(_) if work.verdicts.is_empty() => Reason::Route(Because::InTransaction),
            // What the client may execute further has to stay where it is, and a replica is not kept from unit to unit.
            Route::Replica(_) if work.until == Until::Answered && work.leaves_portals() => {
                Reason::Route(Because::InTransaction)
            }
            Route::Replica(_) if self.database.catalog_is_changing() => Reason::CatalogChanging,
            Route::Replica(_) if begun.known_in_flight && self.saw_primary => Reason::FencePending,
            Route::Replica(because) => {
                let reason = Reason::Route(because);
                match candidate(&self.proxy, begun) {
                    Ok(node) => {
                        if let Some(held) = self.place.replica_now(&self.proxy, node, begun)
                            && is_brought_to(&held, self.id, &self.wanted)
                        {
                            return Ok(Chosen::Held(held, reason));
                        }
                        match Box::pin(self.await_replica(node, reason, begun)).await? {
                            Ok(chosen) => return Ok(chosen),
                            Err(reason) => reason,
                        }
                    }
                    Err(reason) => reason,
                }
            }
        };
        self.choose_primary(reason, work).await
    }

    /// A replica that has to be waited for, or asked something first; else why the primary has to do it.
    async fn await_replica(
        &mut self,
        node: NodeId,
        reason: Reason,
        begun: &Begun,
    ) -> Result<Result<Chosen, Reason>, Goodbye> {
        let (proxy, place) = (Arc::clone(&self.proxy), self.place.clone());
        Ok(match self.waiting(place.replica(&proxy, node, begun)).await? {
            None => Ok(Chosen::Refused(Refusal::cancelled())),
            Some(Ok(held)) => match self.bring(held, reason).await {
                // Nothing of the unit was sent yet: what this replica cannot do, the primary may.
                Chosen::Refused(_) => {
                    Counters::count(&self.proxy.counters.retried);
                    Err(Reason::Retried(None))
                }
                held @ Chosen::Held(..) => Ok(held),
            },
            Some(Err(reason)) => Err(reason),
        })
    }

    pub(super) async fn choose_primary(
        &mut self,
        reason: Reason,
        work: &Work<'_>,
    ) -> Result<Chosen, Goodbye> {
        let looks = self.drew.is_some() && sequences::asks(&work.verdicts);
        if !looks
            && let Some(held) = self.place.primary_now(&self.proxy)
            && is_brought_to(&held, self.id, &self.wanted)
        {
            return Ok(Chosen::Held(held, reason));
        }
        Box::pin(self.await_primary(reason, looks)).await
    }

    /// The primary that has to be waited for; `looks`: preferably on the connection on which the session drew.
    async fn await_primary(&mut self, reason: Reason, looks: bool) -> Result<Chosen, Goodbye> {
        let (proxy, place) = (Arc::clone(&self.proxy), self.place.clone());
        let mut lost = 0;
        loop {
            let leased = if looks {
                let drew_on = self.drew_on();
                self.waiting(place.primary_where(&proxy, drew_on)).await?
            } else {
                self.waiting(place.primary(&proxy)).await?
            };
            let held = match leased {
                None => return Ok(Chosen::Refused(Refusal::cancelled())),
                Some(Err(refusal)) => return Ok(Chosen::Refused(refusal)),
                Some(Ok(held)) => held,
            };
            match self.bring(held, reason.clone()).await {
                // It was dead when it was lent, and nothing of the unit was sent yet.
                Chosen::Refused(Refusal::Proxy(_)) if lost < DEAD_CONNECTIONS_MAX => lost += 1,
                chosen => return Ok(chosen),
            }
        }
    }

    /// Brings a borrowed connection to the session's settings.
    async fn bring(&mut self, mut held: Box<Held>, reason: Reason) -> Chosen {
        if is_brought_to(&held, self.id, &self.wanted) {
            return Chosen::Held(held, reason);
        }
        match Box::pin(bring_to(&mut held, self.id, &self.wanted, &self.base.facts)).await {
            Ok(()) => Chosen::Held(held, reason),
            Err(error) => Chosen::Refused(error.into()),
        }
    }

    /// Runs something that waits, and watches the client meanwhile; `None` when a cancel request came.
    pub(super) async fn waiting<T>(&mut self, work: impl Future<Output = T>) -> Result<Option<T>, Goodbye> {
        let (wire, cancel) = (&mut self.wire, &self.cancel);
        self.presence.wait(true);
        let mut work = std::pin::pin!(cancel.unless_cancelled(work));
        loop {
            let hear = !wire.gone && wire.input.len() < self.unit_bytes + super::exchange::AHEAD_BYTES_MAX;
            tokio::select! {
                biased;
                done = &mut work => {
                    self.presence.wait(false);
                    return Ok(done);
                }
                () = wire.read(), if hear => {
                    if wire.gone {
                        return Err(Goodbye);
                    }
                }
            }
        }
    }
}
