//! Renewing an entry in the background, so that no reader of one that is asked for waits.
//!
//! Begun by a hit, under the entry's own key: its role, settings, text and parameters. Invariants: at most one refresh of an entry
//! runs, and no more of all than `cache.refreshes_max`; it is a fill like any other, that loses to a write and misses nothing
//! acknowledged before it began. It serves nobody: whoever hits is served what is there. It ends with the proxy.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::acquire::{Refusal, ask_admitted, candidate};
use super::cached::Filling;
use super::held::Held;
use super::last::Reason;
use super::perform::{Cacheable, Work};
use super::proxy::{Counters, Proxy};
use super::rerun::Rerun;
use super::run::Session;
use crate::cache::entry::Entry;
use crate::cache::flight::Seat;
use crate::catalog::verdict::Oid;
use crate::freshness::database::Begun;
use crate::freshness::level::Level;
use crate::route::Route;

/// An entry is renewed for a write only when it is so many times as old as its answer took: one that is written all the time costs
/// a tenth of a connection.
const COSTS: u32 = 9;
/// A refresh that failed is not tried again before.
const PAUSE: Duration = Duration::from_secs(1);

/// What runs now.
#[derive(Debug, Default)]
pub struct Refreshes(AtomicUsize);

/// The right to run one.
struct Running(Arc<Proxy>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.refreshes.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Refreshes {
    fn begin(proxy: &Arc<Proxy>, most: usize) -> Option<Running> {
        let next = |running: usize| (running < most).then_some(running + 1);
        let begun = proxy
            .refreshes
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        begun.is_ok().then(|| Running(Arc::clone(proxy)))
    }
}

/// An entry that is renewed.
struct Refresh {
    rerun: Rerun,
    ttl: Duration,
    min_cost: Duration,
    may_use_replicas: bool,
}

impl Session {
    /// Begins to renew an entry that has been hit, if it is time.
    pub(super) fn refresh(
        &self,
        (entry, now): (&Arc<Entry>, Instant),
        work: &Work<'_>,
        wanted: &Cacheable,
        reason: &Reason,
    ) {
        let lifetime = match work.level {
            Level::Ttl(age) => age,
            _ => wanted.ttl.min(entry.ttl),
        };
        let for_a_write = *reason == Reason::StaleHit
            && matches!(work.level, Level::Bounded(_))
            && entry.age(now) >= entry.cost * COSTS;
        if !(for_a_write || entry.is_to_end(now, lifetime)) || !entry.renewal.begin(entry.age(now)) {
            return;
        }
        let Some(running) = Refreshes::begin(&self.proxy, self.policy.cache.refreshes_max) else {
            Counters::count(&self.proxy.counters.refreshes_dropped);
            entry.renewal.put_off(entry.age(now) + PAUSE);
            return;
        };
        let refresh = Refresh {
            rerun: self.rerun(entry, wanted),
            ttl: wanted.ttl,
            min_cost: self.policy.cache.min_cost,
            may_use_replicas: matches!(self.route(work), Route::Replica(_)),
        };
        let stop = self.proxy.stop.clone();
        self.proxy.tasks.spawn(async move {
            let _running = running;
            stop.run_until_cancelled(refresh.run()).await;
        });
    }
}

impl Refresh {
    async fn run(self) {
        let Rerun {
            proxy,
            database,
            key,
            entry,
            ..
        } = &self.rerun;
        let tables: Vec<Oid> = entry.note.tables().collect();
        let begun = database.begin(&tables);
        // Somebody who has missed it fills it already.
        if let Seat::Lead(permit) = proxy.flights.seat(key, &begun.note, &begun.note)
            && key.request().generation == database.generation()
        {
            let filling = Filling {
                key: key.clone(),
                ttl: self.ttl,
                min_cost: self.min_cost,
                permit,
                database: Arc::clone(database),
                begun,
            };
            match self.fill(filling).await {
                Ok(true) => Counters::count(&proxy.counters.refreshed),
                Ok(false) => {}
                Err(refusal) => tracing::debug!(?refusal, "a refresh failed"),
            }
        }
        // It has been replaced; unless it was not: then again, but not at once.
        entry.renewal.put_off(entry.age(Instant::now()) + PAUSE);
    }

    async fn fill(&self, filling: Filling) -> Result<bool, Refusal> {
        let mut held = self.connection(&filling.begun).await?;
        self.rerun.prepare(&mut held).await?;
        let asked_at = Instant::now();
        let answered = self.rerun.run_on(&mut held).await?;
        Ok(filling.finish(&self.rerun.proxy, &held.address, answered, asked_at))
    }

    /// Where a reader at `fresh` would ask.
    async fn connection(&self, begun: &Begun) -> Result<Box<Held>, Refusal> {
        let Rerun { proxy, place, .. } = &self.rerun;
        if self.may_use_replicas
            && let Ok(node) = candidate(proxy, begun)
            && let Ok(held) = place.lease(proxy, node, true).await
            && let Ok(held) = ask_admitted(held, proxy, begun).await
        {
            return Ok(held);
        }
        place.primary(proxy).await
    }
}
