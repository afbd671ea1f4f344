//! How far a run is, and whether it goes on.
//!
//! Shared by the checker's sessions and by who disturbs them. Operations are the run's only clock: everything that is to last a
//! while lasts for so many of them. Every wait is bounded, because the operations may wait for the one who waits.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

/// Longest wait for operations.
const WAIT_MAX: Duration = Duration::from_secs(2);
/// Operations of others during which an answer is left unread.
const LEFT_UNREAD: u64 = 30;

#[derive(Debug)]
pub struct Progress {
    limit: u64,
    begun: AtomicU64,
    done: watch::Sender<u64>,
    over: AtomicBool,
}

impl Progress {
    pub fn new(limit: u64) -> Self {
        Self {
            limit,
            begun: AtomicU64::new(0),
            done: watch::Sender::new(0),
            over: AtomicBool::new(false),
        }
    }

    /// May another operation begin? Counts it.
    pub fn begin(&self) -> bool {
        !self.is_over() && self.begun.fetch_add(1, Ordering::Relaxed) < self.limit
    }

    /// One has ended.
    pub fn end(&self) {
        self.done.send_modify(|done| *done += 1);
    }

    pub fn done(&self) -> u64 {
        *self.done.borrow()
    }

    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed) || self.done() >= self.limit
    }

    /// Ends the run before its time.
    pub fn stop(&self) {
        self.over.store(true, Ordering::Relaxed);
        self.done.send_modify(|_| {});
    }

    /// Waits until so many have ended in all, or the run is over.
    pub async fn reach(&self, number: u64) {
        let mut done = self.done.subscribe();
        while *done.borrow_and_update() < number && !self.is_over() {
            if done.changed().await.is_err() {
                return;
            }
        }
    }

    /// Waits for so many more, but not for long.
    pub async fn pass(&self, more: u64) {
        // Too slow is as good as done.
        drop(timeout(WAIT_MAX, self.reach(self.done() + more)).await);
    }

    /// Lets the other sessions work for a moment.
    pub async fn of_others(&self) {
        self.pass(LEFT_UNREAD).await;
    }
}
