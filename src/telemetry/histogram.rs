//! Durations, counted in buckets that any thread may add to without waiting.
//!
//! Written by sessions: how long units took and waited, how stale answers were; read by `/metrics`. The counts are spread over shards, so that workers seldom
//! write the same cache line; a reader adds the shards up. Invariant: a bucket never falls. A reading while others write is not
//! one moment's truth: its sum may be a few units ahead of its counts.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of the buckets in microseconds, inclusive; what is longer is in the last bucket, which has none.
pub type Bounds = [u64; 18];
/// For what takes a request's time.
pub const LATENCIES_US: Bounds = [
    10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
    1_000_000, 2_500_000, 10_000_000,
];
/// For the age of what is served: a millisecond to an hour.
pub const AGES_US: Bounds = [
    1_000,
    5_000,
    10_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    30_000_000,
    60_000_000,
    120_000_000,
    300_000_000,
    600_000_000,
    900_000_000,
    3_600_000_000,
];
const BUCKETS: usize = LATENCIES_US.len() + 1;
const SHARDS: usize = 8;

/// A cache line of its own, also where lines are fetched in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Shard {
    counts: [AtomicU64; BUCKETS],
    sum_us: AtomicU64,
}

/// Durations since the start.
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static Bounds,
    shards: [Shard; SHARDS],
}

/// What a histogram held when it was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// How many fell into each bucket, or a lower one: one count for each bound, and the count of all.
    pub cumulative: [u64; BUCKETS],
    /// Sum of all durations in microseconds.
    pub sum_us: u64,
}

impl Histogram {
    /// None yet.
    pub fn new(bounds: &'static Bounds) -> Self {
        Self {
            bounds,
            shards: Default::default(),
        }
    }

    /// Where its buckets end.
    pub fn bounds(&self) -> &'static Bounds {
        self.bounds
    }

    /// Adds a duration. `from` is any number of the caller's own that spreads callers over the shards.
    pub fn add(&self, from: u64, took: Duration) {
        let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = self.bounds.partition_point(|bound| *bound < took_us);
        let shard = &self.shards[usize::try_from(from % SHARDS as u64).unwrap_or_default()];
        shard.counts[bucket].fetch_add(1, Ordering::Relaxed);
        shard.sum_us.fetch_add(took_us, Ordering::Relaxed);
    }

    /// What it holds.
    pub fn read(&self) -> Reading {
        let mut reading = Reading::default();
        for shard in &self.shards {
            for (sum, count) in reading.cumulative.iter_mut().zip(&shard.counts) {
                *sum += count.load(Ordering::Relaxed);
            }
            reading.sum_us += shard.sum_us.load(Ordering::Relaxed);
        }
        let mut below = 0;
        for count in &mut reading.cumulative {
            below += *count;
            *count = below;
        }
        reading
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_in_its_bucket_and_in_all_above() {
        let latency = Histogram::new(&LATENCIES_US);
        for (from, took_us) in [(0, 10), (1, 11), (9, 1_000_000), (3, 60_000_000)] {
            latency.add(from, Duration::from_micros(took_us));
        }
        let reading = latency.read();
        assert_eq!(reading.sum_us, 61_000_021);
        assert_eq!(reading.cumulative[0], 1, "a bound is inclusive");
        assert_eq!(reading.cumulative[1], 2);
        assert_eq!(reading.cumulative[14], 2, "half a second");
        assert_eq!(reading.cumulative[15], 3, "a second");
        assert_eq!(reading.cumulative[17], 3, "ten seconds");
        assert_eq!(reading.cumulative[18], 4, "all");
    }

    #[test]
    fn bounds_grow() {
        assert!(LATENCIES_US.is_sorted() && AGES_US.is_sorted());
    }
}
