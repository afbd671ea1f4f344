//! The doorkeeper: an answer is admitted at its second miss, so that one-off queries do not push out what is used.
//!
//! Called by the session before it captures an answer. It remembers hashes only: a collision admits an answer one miss
//! early and can do no other harm. Bounded by the number of hashes.

use std::num::NonZeroUsize;

use lru::LruCache;
use parking_lot::Mutex;

/// Remembers the keys that missed lately.
#[derive(Debug)]
pub struct Doorkeeper(Mutex<LruCache<u64, ()>>);

impl Doorkeeper {
    /// Remembers up to `hashes_max` misses.
    pub fn new(hashes_max: NonZeroUsize) -> Self {
        Self(Mutex::new(LruCache::new(hashes_max)))
    }

    /// Has this hash missed before? Remembers that it has now.
    pub fn admits(&self, hash: u64) -> bool {
        self.0.lock().put(hash, ()).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_miss_is_admitted_and_old_ones_are_forgotten() {
        let doorkeeper = Doorkeeper::new(NonZeroUsize::new(2).expect("not zero"));
        assert!(!doorkeeper.admits(1));
        assert!(doorkeeper.admits(1));
        assert!(!doorkeeper.admits(2));
        assert!(!doorkeeper.admits(3));
        assert!(!doorkeeper.admits(1), "two others have pushed it out");
    }
}
