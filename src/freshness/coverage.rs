//! Which tables of a database the stream carries, up to when it is current, and which ones readers would have carried.
//!
//! Written by the stream through `database`, read at every hit. Invariants: a table is listed only after the clocks were raised for
//! it, and is taken off the list after they were raised again, so that what is current over listed tables was read while nothing
//! of them could be missed. Without a stream the list is absent and costs one load.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::catalog::verdict::Oid;
use crate::protocol::lsn::Lsn;

/// Tables that readers may ask for, at most; one more is not carried.
const WANTED_MAX: usize = 10_000;

/// What somebody who would carry what readers want brings along.
pub struct Opened {
    /// Nothing past the proxy may be missed for longer.
    pub bound: Duration,
    /// An era, and a position of its primary that lies behind everything written there before that moment; `None` where it was not
    /// asked since.
    pub written_as_of: Box<dyn Fn(Instant) -> Option<(u64, Lsn)> + Send + Sync>,
}

impl std::fmt::Debug for Opened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opened")
            .field("bound", &self.bound)
            .finish_non_exhaustive()
    }
}

/// What the stream does for one database.
#[derive(Debug)]
pub(super) struct Coverage {
    carried: ArcSwapOption<BTreeSet<Oid>>,
    /// Milliseconds from `origin`: until then the stream counts as current.
    current_until: AtomicU64,
    origin: Instant,
    /// Is there somebody who would carry what readers want?
    opened: OnceLock<Opened>,
    wanted: Mutex<BTreeSet<Oid>>,
    /// More is wanted, or the catalog changed.
    news: Notify,
}

/// What a replica must have replayed because of writes past the proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Required {
    /// Nothing: the fences of the tables tell all, or there is no stream and no promise.
    Nothing,
    /// At least this position.
    At(Lsn),
    /// It is not known, so none may serve.
    Unknown,
}

impl Default for Coverage {
    fn default() -> Self {
        Self {
            carried: ArcSwapOption::empty(),
            current_until: AtomicU64::new(0),
            origin: Instant::now(),
            opened: OnceLock::new(),
            wanted: Mutex::default(),
            news: Notify::new(),
        }
    }
}

impl Coverage {
    /// Readers may say what they want from now on.
    pub fn open(&self, opened: Opened) {
        // Nobody opens it twice; the first would remain.
        self.opened.get_or_init(|| opened);
    }

    /// May they?
    pub fn is_open(&self) -> bool {
        self.opened.get().is_some()
    }

    /// These shall be carried, if they can be.
    pub fn want(&self, tables: &[Oid]) {
        if !self.is_open() || self.carries(tables.iter().copied()) {
            return;
        }
        let mut wanted = self.wanted.lock();
        let before = wanted.len();
        for table in tables {
            if wanted.len() < WANTED_MAX {
                wanted.insert(*table);
            }
        }
        if wanted.len() > before {
            self.news.notify_one();
        }
    }

    /// All that was wanted since the start.
    pub fn wanted(&self) -> Vec<Oid> {
        self.wanted.lock().iter().copied().collect()
    }

    /// These are not wanted any more: they are gone.
    pub fn forget(&self, tables: &[Oid]) {
        self.wanted.lock().retain(|table| !tables.contains(table));
    }

    /// The catalog changed: what can be carried may have.
    pub fn tell(&self) {
        self.news.notify_one();
    }

    /// Waits until more is wanted, or the catalog changed. Cancel safe.
    pub async fn news(&self) {
        self.news.notified().await;
    }

    /// Are all of these carried? No tables are carried by nobody.
    pub fn carries(&self, tables: impl Iterator<Item = Oid>) -> bool {
        let carried = self.carried.load();
        let Some(carried) = carried.as_deref() else {
            return false;
        };
        let mut tables = tables.peekable();
        tables.peek().is_some() && tables.all(|table| carried.contains(&table))
    }

    /// Are all of these carried, by a stream that is further behind than it may be?
    pub fn is_late(&self, tables: impl Iterator<Item = Oid>, now: impl FnOnce() -> Instant) -> bool {
        self.carried.load().is_some()
            && self.millis(now()) >= self.current_until.load(Ordering::Relaxed)
            && self.carries(tables)
    }

    /// What a replica must have replayed for a read of these tables, so that it misses no write past the proxy for longer than
    /// the bound. Of what the stream carries, and carries in time, the fences tell.
    pub fn required(&self, tables: &[Oid], era: u64, now: impl FnOnce() -> Instant) -> Required {
        if tables.is_empty() || self.carried.load().is_none() {
            return Required::Nothing;
        }
        let now = now();
        let in_time = self.millis(now) < self.current_until.load(Ordering::Relaxed);
        if in_time && self.carries(tables.iter().copied()) {
            return Required::Nothing;
        }
        let opened = self.opened.get();
        let written = opened.and_then(|opened| (opened.written_as_of)(now.checked_sub(opened.bound)?));
        match written {
            Some((known, written)) if known == era => Required::At(written),
            _ => Required::Unknown,
        }
    }

    /// These tables are carried from now on, and no others.
    pub fn carry(&self, tables: BTreeSet<Oid>) {
        self.carried.store(Some(Arc::new(tables)));
    }

    /// Nothing is carried any more.
    pub fn end(&self) {
        self.carried.store(None);
        self.current_until.store(0, Ordering::Relaxed);
    }

    /// The stream is current as of this moment, which is good for so long.
    pub fn current(&self, as_of: Instant, bound: Duration) {
        self.current_until
            .store(self.millis(as_of + bound), Ordering::Relaxed);
    }

    fn millis(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.origin).as_millis();
        u64::try_from(since).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_carried_as_a_whole_is_carried_and_only_that_can_be_late() {
        let coverage = Coverage::default();
        let now = Instant::now();
        let carries = |coverage: &Coverage, tables: &[Oid]| coverage.carries(tables.iter().copied());
        let is_late = |tables: &[Oid], ms: u64| {
            let at = now + Duration::from_millis(ms);
            coverage.is_late(tables.iter().copied(), || at)
        };
        assert!(!carries(&coverage, &[]) && !is_late(&[1], 0));
        coverage.carry(BTreeSet::from([1, 2]));
        assert!(carries(&coverage, &[1, 2]) && !carries(&coverage, &[1, 3]) && !carries(&coverage, &[]));
        assert!(is_late(&[1], 0), "it was never current");
        coverage.current(now, Duration::from_secs(1));
        assert!(!is_late(&[1], 990) && is_late(&[1], 1_001));
        assert!(!is_late(&[1, 3], 9_000), "what it does not carry cannot be late");
        coverage.end();
        assert!(!carries(&coverage, &[1]) && !is_late(&[1], 9_000));
    }

    #[test]
    fn what_is_not_carried_in_time_needs_a_replica_that_is_within_the_bound() {
        let (coverage, now) = (Coverage::default(), Instant::now());
        let bound = Duration::from_secs(1);
        let required = |tables: &[Oid], era: u64, ms: u64| {
            coverage.required(tables, era, || now + Duration::from_millis(ms))
        };
        // It was last asked just now.
        coverage.open(Opened {
            bound,
            written_as_of: Box::new(move |at| (at <= now).then_some((1, Lsn(10)))),
        });
        assert_eq!(required(&[1], 1, 0), Required::Nothing, "there is no stream");
        coverage.carry(BTreeSet::from([1]));
        assert_eq!(
            required(&[1], 1, 0),
            Required::At(Lsn(10)),
            "it was never current"
        );
        coverage.current(now, bound);
        assert_eq!(required(&[1], 1, 0), Required::Nothing);
        assert_eq!(required(&[1, 2], 1, 0), Required::At(Lsn(10)));
        assert_eq!(required(&[2], 2, 0), Required::Unknown, "of another era");
        assert_eq!(required(&[], 1, 0), Required::Nothing);
        coverage.current(now + bound, bound);
        assert_eq!(
            required(&[2], 1, 1_001),
            Required::Unknown,
            "no poll within the bound"
        );
    }

    #[test]
    fn what_is_wanted_is_kept_once_somebody_would_carry_it() {
        let coverage = Coverage::default();
        coverage.want(&[1]);
        assert!(coverage.wanted().is_empty());
        coverage.open(Opened {
            bound: Duration::ZERO,
            written_as_of: Box::new(|_| None),
        });
        coverage.want(&[1, 2]);
        coverage.carry(BTreeSet::from([3]));
        coverage.want(&[3]);
        coverage.forget(&[1]);
        assert_eq!(coverage.wanted(), [2]);
    }
}
