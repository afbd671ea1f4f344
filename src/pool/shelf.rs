//! The idle connections of one node over all its pools, and the cap on how many there may be.
//!
//! Called by the bb8 connector: bb8 keeps tickets, the shelf keeps the sockets behind them. Therefore the oldest idle connection
//! of any pool can be closed when another one needs its place, and a retired node's idle ones at once. Ticket numbers grow, so
//! their order is their age. Connections are dropped outside the lock.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::pool::connection::{PoolKey, ServerConnection};
use crate::pool::demand::Demand;

/// One node's places.
pub(crate) struct Shelf {
    slots: Arc<Semaphore>,
    slots_max: usize,
    generation: AtomicU64,
    /// Attempts to connect that wait for a place.
    starving: AtomicUsize,
    tickets: AtomicU64,
    parked: Mutex<BTreeMap<u64, Parked>>,
}

struct Parked {
    connection: Box<ServerConnection>,
    demand: Arc<Demand>,
}

impl Shelf {
    pub(crate) fn new(slots_max: usize) -> Self {
        Self {
            slots: Arc::new(Semaphore::new(slots_max)),
            slots_max,
            generation: AtomicU64::new(0),
            starving: AtomicUsize::new(0),
            tickets: AtomicU64::new(0),
            parked: Mutex::new(BTreeMap::new()),
        }
    }

    pub(crate) fn slots_max(&self) -> usize {
        self.slots_max
    }

    /// True while every place is taken and somebody waits for one.
    pub(crate) fn is_full(&self) -> bool {
        self.starving.load(Ordering::Acquire) > 0
    }

    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// A place for a new connection: a free one, that of the oldest idle connection of another pool, or the next one that a
    /// pool without waiting callers gives back. `None` after `patience`.
    pub(crate) async fn slot(&self, own: &PoolKey, patience: Duration) -> Option<OwnedSemaphorePermit> {
        if let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned() {
            return Some(slot);
        }
        // Counted before looking: whoever parks after our look sees the count under the same lock and closes instead.
        let _starving = Counted::new(&self.starving);
        self.evict_oldest(own);
        tokio::time::timeout(patience, Arc::clone(&self.slots).acquire_owned())
            .await
            .ok()?
            .ok()
    }

    fn evict_oldest(&self, own: &PoolKey) {
        let mut parked = self.parked.lock();
        let spare = |other: &Parked| other.connection.key != *own && !other.demand.is_waited_for();
        let oldest = parked
            .iter()
            .find(|(_, other)| spare(other))
            .map(|(ticket, _)| *ticket);
        let evicted = oldest.and_then(|ticket| parked.remove(&ticket));
        drop(parked);
        drop(evicted);
    }

    /// Parks an idle connection and returns its ticket; `None` when it was closed because another pool needs the place.
    pub(crate) fn park(&self, connection: Box<ServerConnection>, demand: &Arc<Demand>) -> Option<u64> {
        let mut parked = self.parked.lock();
        let wanted_elsewhere = self.starving.load(Ordering::Acquire) > 0 && !demand.is_waited_for();
        if wanted_elsewhere || connection.generation != self.generation() {
            drop(parked);
            return None;
        }
        let ticket = self.tickets.fetch_add(1, Ordering::Relaxed);
        parked.insert(
            ticket,
            Parked {
                connection,
                demand: Arc::clone(demand),
            },
        );
        Some(ticket)
    }

    /// Takes a connection back; `None` when it was evicted or retired meanwhile.
    pub(crate) fn take(&self, ticket: u64) -> Option<Box<ServerConnection>> {
        self.parked.lock().remove(&ticket).map(|parked| parked.connection)
    }

    /// A new generation: idle connections are closed now, lent ones when they come back.
    pub(crate) fn retire(&self) {
        let mut parked = self.parked.lock();
        self.generation.fetch_add(1, Ordering::AcqRel);
        let retired = std::mem::take(&mut *parked);
        drop(parked);
        drop(retired);
    }

    /// How many connections a pool has parked here.
    pub(crate) fn idle(&self, key: &PoolKey) -> usize {
        self.parked
            .lock()
            .values()
            .filter(|parked| parked.connection.key == *key)
            .count()
    }
}

/// Counts one while it lives, so that a dropped future leaves no count behind.
pub(crate) struct Counted<'a>(&'a AtomicUsize);

impl<'a> Counted<'a> {
    pub(crate) fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::AcqRel);
        Self(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}
