//! The logical clock that orders acknowledged writes and probes of the primary.
//!
//! Shared by `freshness`, which raises it at every acknowledged write, and by the prober, which reads it before it sends.
//! Invariant: an event with tick `t` happened before every probe that read `now() >= t` was sent. It tells no time of day.

use std::sync::atomic::{AtomicU64, Ordering};

/// A counter that only grows. All accesses are sequentially consistent: its order is the whole point.
#[derive(Debug, Default)]
pub struct Ticks(AtomicU64);

impl Ticks {
    /// Takes the next tick, for an event that happens now.
    pub fn raise(&self) -> u64 {
        self.0.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// The tick of the latest event.
    pub fn now(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_raised_tick_is_covered_by_a_later_now() {
        let ticks = Ticks::default();
        let before = ticks.now();
        let event = ticks.raise();
        assert!(before < event);
        assert_eq!(ticks.now(), event);
    }
}
