//! Which tables of a database the stream carries, up to when it is current, and which ones readers would have carried.
//!
//! Written by the stream through `database`, read at every hit. Invariants: a table is listed only after the clocks were raised for
//! it, and is taken off the list after they were raised again, so that what is current over listed tables was read while nothing
//! of them could be missed. Without a stream the list is absent and costs one load.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::catalog::verdict::Oid;

/// Tables that readers may ask for, at most; one more is not carried.
const WANTED_MAX: usize = 10_000;

/// What the stream does for one database.
#[derive(Debug)]
pub(super) struct Coverage {
    carried: ArcSwapOption<BTreeSet<Oid>>,
    /// Milliseconds from `origin`: until then the stream counts as current.
    current_until: AtomicU64,
    origin: Instant,
    /// Somebody would carry what readers want.
    open: AtomicBool,
    wanted: Mutex<BTreeSet<Oid>>,
    /// More is wanted, or the catalog changed.
    news: Notify,
}

impl Default for Coverage {
    fn default() -> Self {
        Self {
            carried: ArcSwapOption::empty(),
            current_until: AtomicU64::new(0),
            origin: Instant::now(),
            open: AtomicBool::new(false),
            wanted: Mutex::default(),
            news: Notify::new(),
        }
    }
}

impl Coverage {
    /// Readers may say what they want from now on.
    pub fn open(&self) {
        self.open.store(true, Ordering::Relaxed);
    }

    /// May they?
    pub fn is_open(&self) -> bool {
        self.open.load(Ordering::Relaxed)
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
    fn what_is_wanted_is_kept_once_somebody_would_carry_it() {
        let coverage = Coverage::default();
        coverage.want(&[1]);
        assert!(coverage.wanted().is_empty());
        coverage.open();
        coverage.want(&[1, 2]);
        coverage.carry(BTreeSet::from([3]));
        coverage.want(&[3]);
        coverage.forget(&[1]);
        assert_eq!(coverage.wanted(), [2]);
    }
}
