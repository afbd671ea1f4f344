//! How far a replica is behind, and whether that is too far.
//!
//! Called by `decide`. Time lag is measured on the proxy's clock alone: a replica that has replayed R is as current as the last
//! moment at which the primary was known to be at or before R. Invariant: leaving takes one sample, returning several, so that
//! a replica at its limit does not flap. Pure; it keeps a bounded history.

use super::settings::LagLimit;
use crate::protocol::lsn::Lsn;
use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// Distinct positions of the primary that are remembered.
const HISTORY_MAX: usize = 4096;

/// The primary's flush positions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct History(VecDeque<Found>);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Found {
    /// The last moment at which it was asked for and still found there.
    at: Instant,
    flushed: Lsn,
    /// What was written by then, flushed or not.
    written: Lsn,
}

impl History {
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    pub(super) fn note(&mut self, at: Instant, flushed: Lsn, written: Lsn) {
        let found = Found { at, flushed, written };
        match self.0.back_mut() {
            Some(last) if last.flushed == flushed => *last = found,
            Some(last) if last.flushed > flushed => {}
            _ => {
                if self.0.len() == HISTORY_MAX {
                    self.0.pop_front();
                }
                self.0.push_back(found);
            }
        }
    }

    /// A position that lies behind everything written before that moment, the lowest that is known.
    pub(super) fn written_as_of(&self, at: Instant) -> Option<Lsn> {
        let earlier = self.0.partition_point(|found| found.at < at);
        self.0.get(earlier).map(|found| found.written)
    }

    /// Lag of a replica that has replayed `replayed`, seen at `at`. `age` is what the replica says of its last replayed commit;
    /// it counts only where the history does not reach back far enough.
    pub(super) fn lag(&self, at: Instant, replayed: Lsn, age: Option<Duration>) -> Option<(u64, Duration)> {
        let newest = self.0.back()?;
        let bytes = newest.flushed.0.saturating_sub(replayed.0);
        if bytes == 0 {
            return Some((0, Duration::ZERO));
        }
        let passed = self.0.partition_point(|found| found.flushed <= replayed);
        let time = match passed.checked_sub(1).and_then(|index| self.0.get(index)) {
            Some(found) => at.saturating_duration_since(found.at),
            None => at
                .saturating_duration_since(self.0.front().map_or(at, |first| first.at))
                .max(age.unwrap_or_default()),
        };
        Some((bytes, time))
    }
}

/// Whether a replica is out for its lag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Gate {
    In,
    /// Out; it has been under the lower limit for this many samples.
    Out {
        good: u32,
    },
}

impl Gate {
    /// The gate after one more sample.
    #[must_use]
    pub(super) fn after(self, bytes: u64, time: Duration, limit: &LagLimit) -> Self {
        let within = |percent: u32| {
            time <= limit.lag_max * percent / 100
                && limit
                    .lag_bytes_max
                    .is_none_or(|max| u128::from(bytes) * 100 <= u128::from(max) * u128::from(percent))
        };
        match self {
            Self::In if within(100) => Self::In,
            Self::Out { good } if within(limit.return_percent.clamp(1, 100)) => {
                if good + 1 >= limit.return_samples {
                    Self::In
                } else {
                    Self::Out { good: good + 1 }
                }
            }
            Self::In | Self::Out { .. } => Self::Out { good: 0 },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lag_counts_from_the_last_moment_the_primary_was_no_further() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut history = History::default();
        assert_eq!(history.lag(at(0), Lsn(5), None), None);
        for (ms, lsn) in [(0, 100), (100, 100), (200, 150), (300, 180)] {
            history.note(at(ms), Lsn(lsn), Lsn(lsn));
        }
        // (replayed, the replica's own word in ms, bytes, lag in ms seen at 400)
        for (replayed, age, bytes, lag) in [
            (180, None, 0, 0),
            (190, None, 0, 0),
            (150, None, 30, 200),
            (149, None, 31, 300),
            (100, None, 80, 300),
            (100, Some(9000), 80, 300),
            (99, None, 81, 300),
            (99, Some(9000), 81, 9000),
            (99, Some(1), 81, 300),
        ] {
            let expected = Some((bytes, Duration::from_millis(lag)));
            assert_eq!(
                history.lag(at(400), Lsn(replayed), age.map(Duration::from_millis)),
                expected,
                "{replayed}"
            );
        }
    }

    #[test]
    fn what_was_written_as_of_a_moment_is_what_the_next_poll_found() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut history = History::default();
        assert_eq!(history.written_as_of(at(0)), None);
        // The second poll finds nothing flushed and more written, the third comes out of order.
        for (ms, flushed, written) in [(0, 100, 100), (100, 100, 130), (90, 90, 95), (200, 150, 150)] {
            history.note(at(ms), Lsn(flushed), Lsn(written));
        }
        for (ms, written) in [
            (0, Some(130)),
            (100, Some(130)),
            (101, Some(150)),
            (200, Some(150)),
            (201, None),
        ] {
            assert_eq!(history.written_as_of(at(ms)), written.map(Lsn), "{ms}");
        }
    }

    #[test]
    fn a_history_is_bounded() {
        let mut history = History::default();
        for lsn in 0..10_000 {
            history.note(Instant::now(), Lsn(lsn), Lsn(lsn));
        }
        assert_eq!(history.0.len(), HISTORY_MAX);
    }

    #[test]
    fn a_replica_leaves_at_the_limit_and_returns_below_it() {
        let limit = LagLimit {
            lag_max: Duration::from_secs(10),
            lag_bytes_max: Some(1000),
            return_percent: 50,
            return_samples: 2,
        };
        let mut gate = Gate::In;
        for (bytes, seconds, expected) in [
            (1000, 10, Gate::In),
            (1001, 0, Gate::Out { good: 0 }),
            (501, 0, Gate::Out { good: 0 }),
            (500, 5, Gate::Out { good: 1 }),
            (500, 6, Gate::Out { good: 0 }),
            (0, 0, Gate::Out { good: 1 }),
            (0, 0, Gate::In),
            (0, 11, Gate::Out { good: 0 }),
        ] {
            gate = gate.after(bytes, Duration::from_secs(seconds), &limit);
            assert_eq!(gate, expected, "{bytes} bytes, {seconds} s");
        }
        let unlimited = LagLimit {
            lag_bytes_max: None,
            ..limit
        };
        assert_eq!(Gate::In.after(u64::MAX, Duration::ZERO, &unlimited), Gate::In);
    }
}
