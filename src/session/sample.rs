//! Checking the cache while it runs: hits, each so-manieth, are read again on the primary and compared.
//!
//! Begun by a hit that misses no write, where `cache.sample_every` asks for it. Invariants: it serves nobody; an entry that differs is
//! dropped, whatever the cause; it counts as wrong only where every write of its tables is known here and none explains it.
//! It ends with the proxy.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use super::acquire::Refusal;
use super::costs::Sampled;
use super::held::sqlstate;
use super::perform::Cacheable;
use super::proxy::Proxy;
use super::rerun::Rerun;
use super::run::Session;
use crate::cache::entry::Entry;
use crate::catalog::verdict::Oid;
use crate::freshness::database::Currency;
use crate::protocol::frame;

/// So many run at a time.
const RUNNING_MAX: usize = 2;
/// Longest run: what waits for a lock is given up.
const RUN_LIMIT: Duration = Duration::from_secs(60);
/// Longest wait for the stream to tell of all that was written before the comparison.
const TOLD_WAIT: Duration = Duration::from_secs(5);
/// Between two looks at the stream.
const TOLD_PAUSE: Duration = Duration::from_millis(20);

/// Hits since the start, where they are sampled, and samples that run.
#[derive(Debug, Default)]
pub struct Samples {
    hits: AtomicU64,
    running: AtomicUsize,
}

/// The right to run one.
struct Running(Arc<Proxy>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.samples.running.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Session {
    /// Begins to compare an entry that has been hit, if it is its turn.
    pub(super) fn sample(&self, entry: &Arc<Entry>, wanted: &Cacheable) {
        let every = self.policy.cache.sample_every;
        if every == 0 {
            return;
        }
        let samples = &self.proxy.samples;
        if !samples.hits.fetch_add(1, Ordering::Relaxed).is_multiple_of(every) {
            return;
        }
        let next = |running: usize| (running < RUNNING_MAX).then_some(running + 1);
        let running = &samples.running;
        if running
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, next)
            .is_err()
        {
            self.proxy.costs.samples.count(Sampled::Dropped);
            return;
        }
        let running = Running(Arc::clone(&self.proxy));
        let rerun = self.rerun(entry, wanted);
        let stop = self.proxy.stop.clone();
        self.proxy.tasks.spawn(async move {
            let compared = tokio::time::timeout(RUN_LIMIT, rerun.compare());
            if let Some(sampled) = stop.run_until_cancelled(compared).await {
                running.0.costs.samples.count(sampled.unwrap_or(Sampled::Failed));
            }
        });
    }
}

impl Rerun {
    async fn compare(self) -> Sampled {
        let asked = match self.ask().await {
            Ok(asked) => asked,
            Err(refusal) => {
                tracing::debug!(?refusal, "a sample failed");
                return Sampled::Failed;
            }
        };
        let mut stored = BytesMut::new();
        self.entry.answer.append_to(&mut stored);
        let differs = match &asked {
            Ok(answer) => !is_same(&stored, answer),
            // Where the statement itself is refused now, its answer is another.
            Err(Some(refused)) if sqlstate(refused).starts_with(b"42") => true,
            Err(_) => return Sampled::Failed,
        };
        if !differs {
            return Sampled::Same;
        }
        let sampled = self.explain(Instant::now()).await;
        self.proxy.store.remove(&self.key, &self.entry);
        if sampled == Sampled::Wrong {
            let query = String::from_utf8_lossy(self.key.sql());
            tracing::error!(
                database = %self.database.name, node = %self.entry.node, age = ?self.entry.age(Instant::now()), %query,
                "a cached answer differs from the primary's, and no write explains it"
            );
        }
        sampled
    }

    async fn ask(&self) -> Result<Result<BytesMut, Option<Bytes>>, Refusal> {
        let mut held = self.place.primary(&self.proxy).await?;
        self.prepare(&mut held).await?;
        self.run_on(&mut held).await
    }

    /// Why the primary answered otherwise at `compared`, or before.
    async fn explain(&self, compared: Instant) -> Sampled {
        let until = compared + TOLD_WAIT;
        loop {
            if self.is_written() {
                return Sampled::Written;
            }
            let carried = self.database.stream_carries(&self.entry.note);
            let told = self.proxy.streams.status(&self.database.name).as_of;
            if !carried || Instant::now() >= until {
                return Sampled::Unknown;
            }
            if told.is_some_and(|as_of| as_of > compared) {
                break;
            }
            tokio::time::sleep(TOLD_PAUSE).await;
        }
        // The stream tells nothing of the schema. A comparison that ends may have begun before: the next one has not.
        for _ in 0..2 {
            let asked = Instant::now();
            self.database.compare_catalog();
            while self.database.checked_at().is_none_or(|at| at <= asked) {
                if Instant::now() >= until {
                    return Sampled::Unknown;
                }
                tokio::time::sleep(TOLD_PAUSE).await;
            }
        }
        if self.is_written() {
            Sampled::Written
        } else {
            Sampled::Wrong
        }
    }

    /// Was a write of the entry's tables acknowledged, or is one on its way, or is it of another catalog?
    fn is_written(&self) -> bool {
        let tables: Vec<Oid> = self.entry.note.tables().collect();
        self.database.is_current(&self.entry.note) != Currency::Current
            || self.database.begin(&tables).in_flight
            || self.key.request().generation != self.database.generation()
    }
}

/// Are both the same rows under the same columns? Their order is not part of most questions.
fn is_same(stored: &[u8], asked: &[u8]) -> bool {
    let parts = |messages: &[u8]| {
        let (mut rows, mut others, mut at) = (Vec::new(), Vec::new(), 0);
        while let Ok(Some(found)) = frame::next(messages, at, messages.len()) {
            let whole = messages[at..found.end()].to_vec();
            if found.tag == b'D' { &mut rows } else { &mut others }.push(whole);
            at = found.end();
        }
        rows.sort_unstable();
        (rows, others)
    };
    stored == asked || parts(stored) == parts(asked)
}

#[cfg(test)]
mod tests {
    use super::is_same;

    fn message(tag: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).expect("short").to_be_bytes();
        [&[tag][..], &length, body].concat()
    }

    #[test]
    fn rows_may_come_in_another_order_and_nothing_else_may_differ() {
        let answer = |rows: [&[u8]; 2], tag: &[u8]| {
            let rows = rows.map(|row| message(b'D', row)).concat();
            [message(b'T', b"columns"), rows, message(b'C', tag)].concat()
        };
        let stored = answer([b"one", b"two"], b"SELECT 2\0");
        assert!(is_same(&stored, &answer([b"two", b"one"], b"SELECT 2\0")));
        assert!(!is_same(&stored, &answer([b"two", b"two"], b"SELECT 2\0")));
        assert!(!is_same(&stored, &answer([b"one", b"two"], b"SELECT 3\0")));
        assert!(!is_same(&stored, &stored[..stored.len() - 14]));
    }
}
