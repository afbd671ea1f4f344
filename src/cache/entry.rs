//! An entry: an answer as the server encoded it, and what it takes to know whether it still holds.
//!
//! Made by the session at the end of a fill, kept by `store`, read by every hit. Immutable: a newer answer is another
//! entry. Its age is monotonic and counts from before the query was sent.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::answer::Answer;
use crate::freshness::clocks::Note;

/// Bytes that an entry costs besides its key and its answer: map slots, list links, reference counts.
pub const OVERHEAD_BYTES: usize = 256;

/// One cached answer.
#[derive(Debug)]
pub struct Entry {
    /// The encoded messages.
    pub answer: Answer,
    /// Clocks under which it was read.
    pub note: Note,
    /// Address of the node that made it.
    pub node: Arc<str>,
    /// When the query that made it was sent.
    pub asked_at: Instant,
    /// How long it may be served.
    pub ttl: Duration,
    /// How long a server took to make it.
    pub cost: Duration,
}

impl Entry {
    /// Bytes of the budget that it uses, its key left out.
    pub fn size(&self) -> usize {
        let notes = self.note.tables().count() * 16;
        self.answer.size() + notes + OVERHEAD_BYTES
    }

    /// Its age at `now`.
    pub fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.asked_at)
    }

    /// May it be served at `now`, as far as time goes?
    pub fn in_time(&self, now: Instant) -> bool {
        self.age(now) < self.ttl
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::answer::Room;
    use crate::freshness::clocks::Clocks;

    #[test]
    fn time_ends_an_entry_at_its_ttl() {
        let asked_at = Instant::now();
        let answer = Room::new(0).answer(b"D");
        let size = answer.size();
        let (ttl, cost) = (Duration::from_secs(5), Duration::ZERO);
        let entry = Entry {
            answer,
            note: Clocks::new(1, 0).note(&[1]),
            node: "db1:5432".into(),
            asked_at,
            ttl,
            cost,
        };
        assert!(entry.in_time(asked_at + Duration::from_millis(4_999)));
        assert!(!entry.in_time(asked_at + ttl));
        assert_eq!(entry.age(asked_at + ttl), ttl);
        assert_eq!(entry.size(), size + 16 + OVERHEAD_BYTES);
    }
}
