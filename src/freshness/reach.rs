//! How far a replica must have replayed to miss no write that is older than the stream's bound, whoever made it.
//!
//! Fed by the stream with each poll of the primary, asked by `database` for reads of what the stream does not carry, or carries
//! too late. Invariant: a position is given only if it was asked for within the bound: whoever has replayed up to there misses
//! nothing acknowledged before. Without such a poll there is none, and no replica serves.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::protocol::lsn::Lsn;

/// Into so many steps the bound is divided; of the polls in one step, the first is kept.
const STEPS: u32 = 64;

#[derive(Debug, Default)]
pub(super) struct Reach(Mutex<Polls>);

#[derive(Debug, Default)]
struct Polls {
    era: u64,
    bound: Duration,
    /// When each was asked for, and what the primary had written by then.
    kept: VecDeque<(Instant, Lsn)>,
}

impl Reach {
    /// A poll of the primary of this era, sent at that moment, has answered.
    pub fn polled(&self, era: u64, sent_at: Instant, written: Lsn, bound: Duration) {
        let mut polls = self.0.lock();
        if polls.era != era {
            *polls = Polls {
                era,
                ..Polls::default()
            };
        }
        polls.bound = bound;
        polls.forget(sent_at);
        let due = polls.kept.back().map(|(last, _)| *last + bound / STEPS);
        if due.is_none_or(|due| due <= sent_at) {
            polls.kept.push_back((sent_at, written));
        }
    }

    /// What a replica must have replayed, now, to be within the bound.
    pub fn within(&self, era: u64, now: Instant) -> Option<Lsn> {
        let mut polls = self.0.lock();
        if polls.era != era {
            return None;
        }
        polls.forget(now);
        polls.kept.front().map(|(_, written)| *written)
    }

    /// There is no stream any more.
    pub fn end(&self) {
        *self.0.lock() = Polls::default();
    }
}

impl Polls {
    fn forget(&mut self, now: Instant) {
        while self
            .kept
            .front()
            .is_some_and(|(sent_at, _)| *sent_at + self.bound < now)
        {
            self.kept.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_poll_within_the_bound_tells_how_far_to_go() {
        let (reach, start) = (Reach::default(), Instant::now());
        let at = |ms: u64| start + Duration::from_millis(ms);
        let bound = Duration::from_secs(1);
        assert_eq!(reach.within(1, start), None);
        for (ms, lsn) in [(0, 10), (5, 11), (500, 20), (900, 30)] {
            reach.polled(1, at(ms), Lsn(lsn), bound);
        }
        for (ms, wanted) in [
            (900, Some(10)),
            (1_000, Some(10)),
            (1_001, Some(20)),
            (1_600, Some(30)),
            (1_901, None),
        ] {
            assert_eq!(reach.within(1, at(ms)), wanted.map(Lsn), "{ms}");
        }
    }

    #[test]
    fn positions_of_another_era_or_of_a_stream_that_ended_say_nothing() {
        let (reach, now) = (Reach::default(), Instant::now());
        let bound = Duration::from_secs(1);
        reach.polled(1, now, Lsn(10), bound);
        assert_eq!(reach.within(2, now), None);
        reach.polled(2, now, Lsn(5), bound);
        assert_eq!((reach.within(1, now), reach.within(2, now)), (None, Some(Lsn(5))));
        reach.end();
        assert_eq!(reach.within(2, now), None);
    }

    #[test]
    fn a_long_bound_keeps_few_polls() {
        let (reach, start) = (Reach::default(), Instant::now());
        for ms in 0..20_000 {
            let sent_at = start + Duration::from_millis(ms);
            reach.polled(1, sent_at, Lsn(ms), Duration::from_secs(10));
        }
        assert!(reach.0.lock().kept.len() <= STEPS as usize + 1);
    }
}
