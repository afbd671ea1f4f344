//! Where a unit runs: the decision between replica and primary, and the borrowed connection that comes of it.
//!
//! Called by `perform`, and by `block` for a transaction that has to begin. Invariants: what comes back is in the session's
//! settings; a replica only for what `route` allows, and only past the fence of what is read; every choice has its reason.
//! A connection at hand costs no wait, no wake and no room for either; the rest is boxed. A dropped choice leaves nothing behind.

use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::Instant;

use super::acquire::{Refusal, ask_admitted, bring_to, candidate, is_admitted, is_brought_to};
use super::costs::Wait;
use super::exchange::{AHEAD_BYTES_MAX, Until};
use super::held::Held;
use super::last::Reason;
use super::perform::Work;
use super::proxy::Counters;
use super::run::{Goodbye, Session};
use super::sequences;
use super::strict::ReadIndex;
use crate::catalog::verdict::Verdict;
use crate::cluster::NodeId;
use crate::freshness::database::Begun;
use crate::freshness::level::Level;
use crate::pool::{Admitted, Entry, InLine, PoolError};
use crate::route::{Because, Route, SessionFacts, route};

/// So many connections in a row may turn out to be dead before a unit is given up.
const DEAD_CONNECTIONS_MAX: u32 = 3;

/// What came of borrowing a connection.
enum Borrowed {
    Held(Box<Held>),
    Refused(PoolError),
    Cancelled,
}

/// What a wait in a pool's line ended with.
enum Waited {
    Admitted(Admitted),
    Refused(PoolError),
    Cancelled,
}

/// Where a unit runs.
pub(super) enum Chosen {
    Held(Box<Held>, Reason),
    Refused(Refusal),
}

impl Session {
    /// Where the unit may run, by what it is.
    pub(super) fn route(&self, work: &Work<'_>) -> Route {
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
        decided
    }

    /// Decides between replica and primary, and borrows a connection there.
    pub(super) async fn choose(&mut self, work: &Work<'_>, begun: &Begun) -> Result<Chosen, Goodbye> {
        let reason = match self.route(work) {
            Route::Primary(because) => Reason::Route(because),
            Route::Replica(_) if work.verdicts.is_empty() => Reason::Route(Because::InTransaction),
            // What the client may execute further has to stay where it is, and a replica is not kept from unit to unit.
            Route::Replica(_) if work.until == Until::Answered && work.leaves_portals() => {
                Reason::Route(Because::InTransaction)
            }
            Route::Replica(_) if self.database.catalog_is_changing() => Reason::CatalogChanging,
            Route::Replica(_) if begun.known_in_flight && self.saw_primary => Reason::FencePending,
            Route::Replica(_) if work.level == Level::Strict => match self.read_index(begun).await? {
                ReadIndex::Cancelled => return Ok(Chosen::Refused(self.cancelled())),
                ReadIndex::Unknown => Reason::Level(work.level),
                ReadIndex::Known(begun) => match self.replica(Reason::ReadIndex, &begun).await? {
                    Ok(chosen) => return Ok(chosen),
                    Err(reason) => reason,
                },
            },
            Route::Replica(because) => match self.replica(Reason::Route(because), begun).await? {
                Ok(chosen) => return Ok(chosen),
                Err(reason) => reason,
            },
        };
        self.choose_primary(reason, work).await
    }

    /// A connection to a replica that may serve; else why the primary has to.
    async fn replica(&mut self, reason: Reason, begun: &Begun) -> Result<Result<Chosen, Reason>, Goodbye> {
        match candidate(&self.proxy, begun) {
            Ok(node) => self.choose_replica(node, reason, begun).await,
            Err(reason) => Ok(Err(reason)),
        }
    }

    /// A connection to this replica; else why the primary has to do it.
    async fn choose_replica(
        &mut self,
        node: NodeId,
        reason: Reason,
        begun: &Begun,
    ) -> Result<Result<Chosen, Reason>, Goodbye> {
        let held = match self.borrow(node, true).await? {
            Borrowed::Held(held) => held,
            Borrowed::Cancelled => return Ok(Ok(Chosen::Refused(self.cancelled()))),
            Borrowed::Refused(_) => return Ok(Err(Reason::NoReplica)),
        };
        if is_admitted(&held, &self.proxy, begun) && is_brought_to(&held, self.id, &self.wanted) {
            return Ok(Ok(Chosen::Held(held, reason)));
        }
        Box::pin(self.prepare_replica(held, reason, begun)).await
    }

    /// A replica that has to be asked something, or told the session's settings, first.
    async fn prepare_replica(
        &mut self,
        held: Box<Held>,
        reason: Reason,
        begun: &Begun,
    ) -> Result<Result<Chosen, Reason>, Goodbye> {
        let proxy = Arc::clone(&self.proxy);
        Ok(
            match self
                .waiting(Wait::Position, ask_admitted(held, &proxy, begun))
                .await?
            {
                None => Ok(Chosen::Refused(self.cancelled())),
                Some(Ok(held)) => match self.bring(held, reason).await {
                    // Nothing of the unit was sent yet: what this replica cannot do, the primary may.
                    Chosen::Refused(_) => {
                        Counters::count(&self.proxy.counters.retried);
                        Err(Reason::Retried(None))
                    }
                    held @ Chosen::Held(..) => Ok(held),
                },
                Some(Err(reason)) => Err(reason),
            },
        )
    }

    pub(super) async fn choose_primary(
        &mut self,
        reason: Reason,
        work: &Work<'_>,
    ) -> Result<Chosen, Goodbye> {
        let looks = self.drew.is_some() && sequences::asks(&work.verdicts);
        let primary = self.proxy.cluster.primary();
        let mut first = None;
        if !looks && let Some(primary) = primary {
            match self.borrow(primary, false).await? {
                Borrowed::Held(held) if is_brought_to(&held, self.id, &self.wanted) => {
                    return Ok(Chosen::Held(held, reason));
                }
                Borrowed::Held(held) => first = Some(held),
                Borrowed::Cancelled => return Ok(Chosen::Refused(self.cancelled())),
                Borrowed::Refused(error) => return Ok(Chosen::Refused(error.into())),
            }
        }
        Box::pin(self.prepare_primary(first, reason, looks)).await
    }

    /// The primary where it has to be waited for, or told the session's settings, first. `looks`: preferably on the connection on
    /// which the session drew.
    async fn prepare_primary(
        &mut self,
        mut first: Option<Box<Held>>,
        reason: Reason,
        looks: bool,
    ) -> Result<Chosen, Goodbye> {
        let (proxy, place) = (Arc::clone(&self.proxy), self.place.clone());
        let mut lost = 0;
        loop {
            let leased = if let Some(held) = first.take() {
                Some(Ok(held))
            } else if looks {
                let drew_on = self.drew_on();
                self.waiting(Wait::Connection, place.primary_where(&proxy, drew_on))
                    .await?
            } else {
                self.waiting(Wait::Connection, place.primary(&proxy)).await?
            };
            let held = match leased {
                None => return Ok(Chosen::Refused(self.cancelled())),
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

    /// Borrows a connection to a node: one that is at hand, or that comes back when it is this session's turn.
    async fn borrow(&mut self, node: NodeId, is_replica: bool) -> Result<Borrowed, Goodbye> {
        // Who waits counts as outstanding.
        let outstanding = self.proxy.cluster.track(node);
        let mut deadline = None;
        let admitted = match self.proxy.pools.enter(&self.place.key(node)) {
            Ok(Entry::Admitted(admitted)) => Waited::Admitted(admitted),
            Ok(Entry::Line(line)) => {
                let until = *deadline.insert(self.lease_deadline());
                self.in_line(line, until).await?
            }
            Err(error) => Waited::Refused(error),
        };
        let lease = match admitted {
            Waited::Admitted(Admitted::Lease(lease)) => lease,
            Waited::Admitted(Admitted::Vacancy(vacancy)) => {
                let deadline = deadline.unwrap_or_else(|| self.lease_deadline());
                match Box::pin(self.waiting(Wait::Connection, vacancy.fill(deadline.into()))).await? {
                    Some(Ok(lease)) => lease,
                    Some(Err(error)) => return Ok(Borrowed::Refused(error)),
                    None => return Ok(Borrowed::Cancelled),
                }
            }
            Waited::Refused(error) => return Ok(Borrowed::Refused(error)),
            Waited::Cancelled => return Ok(Borrowed::Cancelled),
        };
        let address = self.proxy.node_name(node);
        Ok(Borrowed::Held(Box::new(Held::new(
            lease,
            address,
            is_replica,
            outstanding,
        ))))
    }

    /// When the unit's `statement_timeout` is over, which counts from its arrival.
    pub(super) fn statement_until(&self) -> Option<Instant> {
        Some(self.unit_began + self.derived.statement_max?)
    }

    /// Why waiting for a connection, or for another's answer, has ended before that came.
    pub(super) fn cancelled(&self) -> Refusal {
        if self
            .statement_until()
            .is_some_and(|until| until <= Instant::now())
        {
            Refusal::timed_out()
        } else {
            Refusal::cancelled()
        }
    }

    /// One for all the lines that a unit waits in, one after the other.
    fn lease_deadline(&mut self) -> Instant {
        *self
            .lease_until
            .get_or_insert_with(|| Instant::now() + self.policy.lease_wait)
    }

    /// Waits in a pool's line, and watches the client meanwhile.
    async fn in_line(&mut self, mut line: InLine, deadline: Instant) -> Result<Waited, Goodbye> {
        self.presence.wait(true);
        let began = Instant::now();
        let statement_until = self.statement_until();
        self.patience
            .set(statement_until.map_or(deadline, |until| until.min(deadline)));
        let input_max = self.unit_bytes + AHEAD_BYTES_MAX;
        let (wire, patience, cancel) = (&mut self.wire, &mut self.patience, self.cancel.wait());
        let waited = std::future::poll_fn(|cx| {
            if let Poll::Ready(admitted) = line.poll(cx) {
                return Poll::Ready(Ok(Waited::Admitted(admitted)));
            }
            if cancel.poll_stopped(cx).is_ready() {
                return Poll::Ready(Ok(Waited::Cancelled));
            }
            if patience.poll(cx).is_ready() {
                return Poll::Ready(Ok(if statement_until.is_some_and(|until| until < deadline) {
                    Waited::Cancelled
                } else {
                    Waited::Refused(PoolError::TimedOut)
                }));
            }
            while !wire.gone && wire.input.len() < input_max {
                ready!(wire.poll_read(cx));
                if wire.gone {
                    return Poll::Ready(Err(Goodbye));
                }
            }
            Poll::Pending
        })
        .await;
        self.waited(Wait::Connection, began);
        waited
    }

    fn waited(&self, wait: Wait, began: Instant) {
        self.presence.wait(false);
        let waits = self.proxy.costs.waited_for(wait);
        waits.add(self.id, began.elapsed());
    }

    /// Runs something that waits, and watches the client meanwhile; `None` when a cancel request came.
    pub(super) async fn waiting<T>(
        &mut self,
        wait: Wait,
        work: impl Future<Output = T>,
    ) -> Result<Option<T>, Goodbye> {
        let (wire, cancel) = (&mut self.wire, &self.cancel);
        self.presence.wait(true);
        let began = Instant::now();
        let mut work = std::pin::pin!(cancel.unless_cancelled(work));
        loop {
            let hear = !wire.gone && wire.input.len() < self.unit_bytes + AHEAD_BYTES_MAX;
            tokio::select! {
                biased;
                done = &mut work => {
                    self.waited(wait, began);
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
