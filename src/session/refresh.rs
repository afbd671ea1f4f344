//! Renewing an entry in the background, so that no reader of one that is asked for waits.
//!
//! Begun by a hit, under the entry's own key: its role, settings, text and parameters. Invariants: at most one refresh of an entry
//! runs, and no more of all than `cache.refreshes_max`; it is a fill like any other, that loses to a write and misses nothing
//! acknowledged before it began. It serves nobody: whoever hits is served what is there. It ends with the proxy.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use super::acquire::{Place, Refusal, ask_admitted, bring_to, candidate};
use super::cached::Filling;
use super::deliver::put_request;
use super::exchange::Capture;
use super::held::{Held, ServerLost};
use super::last::Reason;
use super::login::Base;
use super::perform::{Cacheable, Work};
use super::proxy::{Counters, Proxy};
use super::run::Session;
use super::settings::Values;
use crate::cache::entry::Entry;
use crate::cache::flight::Seat;
use crate::cache::key::Key;
use crate::catalog::verdict::Oid;
use crate::freshness::database::{Begun, Database};
use crate::freshness::level::Level;
use crate::protocol::frame::HEADER_BYTES;
use crate::protocol::scanner::Step;
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

/// All that a refresh needs of the session that began it.
struct Refresh {
    proxy: Arc<Proxy>,
    database: Arc<Database>,
    place: Place,
    base: Arc<Base>,
    wanted: Arc<Values>,
    session: u64,
    key: Key,
    ttl: Duration,
    min_cost: Duration,
    entry_bytes_max: usize,
    entry: Arc<Entry>,
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
            proxy: Arc::clone(&self.proxy),
            database: Arc::clone(&self.database),
            place: self.place.clone(),
            base: Arc::clone(&self.base),
            wanted: Arc::clone(&self.wanted),
            session: self.id,
            key: wanted.key.clone(),
            ttl: wanted.ttl,
            min_cost: self.policy.cache.min_cost,
            entry_bytes_max: self.policy.cache.entry_bytes_max,
            entry: Arc::clone(entry),
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
        let tables: Vec<Oid> = self.entry.note.tables().collect();
        let begun = self.database.begin(&tables);
        let entry = Arc::clone(&self.entry);
        // Somebody who has missed it fills it already.
        if let Seat::Lead(permit) = self.proxy.flights.seat(&self.key, &begun.note, &begun.note)
            && self.key.request().generation == self.database.generation()
        {
            let filling = Filling {
                key: self.key.clone(),
                ttl: self.ttl,
                min_cost: self.min_cost,
                permit,
                database: Arc::clone(&self.database),
                begun,
            };
            match self.fill(filling).await {
                Ok(true) => Counters::count(&self.proxy.counters.refreshed),
                Ok(false) => {}
                Err(refusal) => tracing::debug!(?refusal, "a refresh failed"),
            }
        }
        // It has been replaced; unless it was not: then again, but not at once.
        entry.renewal.put_off(entry.age(Instant::now()) + PAUSE);
    }

    async fn fill(&self, filling: Filling) -> Result<bool, Refusal> {
        let mut held = self.connection(&filling.begun).await?;
        bring_to(&mut held, self.session, &self.wanted, &self.base.facts).await?;
        let asked_at = Instant::now();
        put_request(&mut held, &self.key.request());
        let captured = held.capture(self.entry_bytes_max).await;
        let answered = captured.map_err(|lost| Refusal::lost(&lost))?;
        Ok(filling.finish(&self.proxy, &held.address, answered, asked_at))
    }

    /// Where a reader at `fresh` would ask.
    async fn connection(&self, begun: &Begun) -> Result<Box<Held>, Refusal> {
        if self.may_use_replicas
            && let Ok(node) = candidate(&self.proxy, begun)
            && let Ok(held) = self.place.lease(&self.proxy, node, true).await
            && let Ok(held) = ask_admitted(held, &self.proxy, begun).await
        {
            return Ok(held);
        }
        self.place.primary(&self.proxy).await
    }
}

impl Held {
    /// Writes what stands in the output, and returns the answer's messages; else the ErrorResponse, or nothing where they are not to
    /// be kept.
    async fn capture(&mut self, bytes_max: usize) -> Result<Result<BytesMut, Option<Bytes>>, ServerLost> {
        self.lease.dirty = true;
        let (mut capture, mut error) = (Capture::new(bytes_max), None);
        loop {
            if self.capture_all(&mut capture, &mut error)? {
                return Ok(capture.answer().ok_or(error));
            }
            self.turn(None).await?;
        }
    }

    /// Takes all whole steps of the server's input; true at ReadyForQuery.
    fn capture_all(&mut self, capture: &mut Capture, error: &mut Option<Bytes>) -> Result<bool, ServerLost> {
        let (mut at, mut over) = (0, false);
        while !over {
            match self.step(at)? {
                Step::Incomplete => break,
                Step::Rows { end, tag, .. } => {
                    capture.take(tag, &self.lease.input[at..end]);
                    at = end;
                }
                Step::Message(frame) => {
                    let whole = frame.bytes(&self.lease.input);
                    capture.take(frame.tag, whole);
                    match frame.tag {
                        b'E' => *error = Some(Bytes::copy_from_slice(whole)),
                        b'S' => {
                            let body = whole[HEADER_BYTES..].to_vec();
                            self.note_parameter(&body);
                        }
                        b'Z' => {
                            let status = whole.get(HEADER_BYTES).copied();
                            self.note_status(status.as_slice())?;
                            over = true;
                        }
                        _ => {}
                    }
                    at = frame.end();
                }
            }
        }
        self.consume(at);
        Ok(over)
    }
}
