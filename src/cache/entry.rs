//! An entry: an answer as the server encoded it, and what it takes to know whether it still holds.
//!
//! Made by the session at the end of a fill, kept by `store`, read by every hit. Immutable: a newer answer is another
//! entry. Its age is monotonic and counts from before the query was sent.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::answer::Answer;
use crate::freshness::clocks::Note;

/// Bytes that an entry costs besides its key and its answer: map slots, list links, reference counts.
pub const OVERHEAD_BYTES: usize = 256;

/// Bytes that an entry costs for each table that it reads: its epoch, and its key's place in the list of the table's entries, which
/// is a hash table that is half empty at worst.
pub const TABLE_BYTES: usize = 16 + 2 * (size_of::<super::key::Key>() + 1);

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
    /// Whether it is being renewed.
    pub renewal: Renewal,
}

/// Whether an entry is being renewed: the age, in milliseconds, from which on that may be begun.
#[derive(Debug, Default)]
pub struct Renewal(AtomicU64);

impl Renewal {
    /// Begins it at this age, unless it was begun or put off: one succeeds.
    pub fn begin(&self, age: Duration) -> bool {
        let from = self.0.load(Ordering::Relaxed);
        from <= milliseconds(age)
            && self
                .0
                .compare_exchange(from, u64::MAX, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }

    /// It came to nothing, and may be begun again at this age.
    pub fn put_off(&self, age: Duration) {
        self.0.store(milliseconds(age), Ordering::Relaxed);
    }
}

fn milliseconds(age: Duration) -> u64 {
    u64::try_from(age.as_millis()).unwrap_or(u64::MAX - 1)
}

impl Entry {
    /// Bytes of the budget that it uses, its key left out.
    pub fn size(&self) -> usize {
        let notes = self.note.tables().count() * TABLE_BYTES;
        self.answer.size() + notes + OVERHEAD_BYTES
    }

    /// Its age at `now`.
    pub fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.asked_at)
    }

    /// Is the end of its life near? Where that begins differs from entry to entry, so that those that were filled together are not
    /// renewed together: between four fifths and nearly all of it.
    pub fn is_to_end(&self, now: Instant, lifetime: Duration) -> bool {
        // The nanoseconds that an execution took are as good as random.
        let chance = f64::from(self.cost.subsec_nanos() % 1000) / 1000.0;
        self.age(now) >= lifetime.mul_f64(0.8 + 0.15 * chance)
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
    fn one_at_a_time_renews_an_entry() {
        let (renewal, age) = (Renewal::default(), Duration::from_secs);
        assert!(renewal.begin(age(1)));
        assert!(!renewal.begin(age(9)));
        renewal.put_off(age(10));
        assert!(!renewal.begin(age(9)));
        assert!(renewal.begin(age(10)));
    }

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
            renewal: Renewal::default(),
        };
        assert!(entry.in_time(asked_at + Duration::from_millis(4_999)));
        assert!(!entry.in_time(asked_at + ttl));
        assert_eq!(entry.age(asked_at + ttl), ttl);
        assert!(!entry.is_to_end(asked_at + ttl * 7 / 10, ttl) && entry.is_to_end(asked_at + ttl, ttl));
        assert_eq!(entry.size(), size + TABLE_BYTES + OVERHEAD_BYTES);
    }
}
