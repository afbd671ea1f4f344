//! The cache of verdicts: parsing a text costs tens of microseconds, finding its verdict again a few hundred nanoseconds.
//!
//! Called by `freshness::Database` for each text that a session sends. Invariant: a verdict is returned only for the whole text
//! and search path that it was made for; its generation is checked by the caller. Bounded in bytes: each of the shards holds at
//! most its share, least recently used out first. It judges nothing itself.

use std::hash::BuildHasher;
use std::sync::Arc;

use bytes::Bytes;
use foldhash::fast::RandomState;
use lru::LruCache;
use parking_lot::Mutex;

use super::verdict::Verdict;

const SHARDS: usize = 16;
/// What a verdict costs besides its text: facts, names, sets, the slot.
const VERDICT_BYTES: usize = 1_500;

/// What a verdict was made for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Subject {
    /// The search path, as the session encodes it.
    pub path: Arc<str>,
    /// The exact text.
    pub sql: Bytes,
}

#[derive(Debug)]
struct Shard {
    verdicts: LruCache<Subject, Arc<Verdict>, RandomState>,
    bytes: usize,
}

/// Verdicts by text and search path.
#[derive(Debug)]
pub struct Verdicts {
    hasher: RandomState,
    shards: [Mutex<Shard>; SHARDS],
    shard_bytes_max: usize,
}

impl Verdicts {
    /// Holds nothing yet, and at most about `bytes_max`.
    pub fn new(bytes_max: usize) -> Self {
        let hasher = RandomState::default();
        let shard = |_| {
            Mutex::new(Shard {
                verdicts: LruCache::unbounded_with_hasher(hasher.clone()),
                bytes: 0,
            })
        };
        Self {
            shards: std::array::from_fn(shard),
            hasher,
            shard_bytes_max: bytes_max / SHARDS,
        }
    }

    /// The verdict of a subject, whatever its generation.
    pub fn find(&self, subject: &Subject) -> Option<Arc<Verdict>> {
        self.shard(subject).lock().verdicts.get(subject).cloned()
    }

    /// Keeps a verdict, in place of an older one of its subject.
    pub fn insert(&self, subject: Subject, verdict: Arc<Verdict>) {
        let size = size(&subject);
        let mut shard = self.shard(&subject).lock();
        let before = shard.verdicts.push(subject, verdict);
        shard.bytes += size;
        if let Some((before, _)) = before {
            shard.bytes -= self::size(&before);
        }
        while shard.bytes > self.shard_bytes_max {
            let Some((gone, _)) = shard.verdicts.pop_lru() else {
                break;
            };
            shard.bytes -= self::size(&gone);
        }
    }

    fn shard(&self, subject: &Subject) -> &Mutex<Shard> {
        let hash = self.hasher.hash_one(subject);
        let place = usize::try_from(hash >> 60).expect("four bits");
        &self.shards[place]
    }
}

fn size(subject: &Subject) -> usize {
    subject.path.len() + subject.sql.len() + VERDICT_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::judge_without_catalog;
    use crate::sql::analyze;

    fn subject(path: &str, sql: &str) -> Subject {
        Subject {
            path: path.into(),
            sql: Bytes::copy_from_slice(sql.as_bytes()),
        }
    }

    fn verdict(sql: &str) -> Arc<Verdict> {
        let script = analyze(sql.as_bytes()).expect("short");
        Arc::new(judge_without_catalog(Arc::new(script)))
    }

    #[test]
    fn a_verdict_is_found_for_its_own_text_and_path_only() {
        let verdicts = Verdicts::new(1 << 20);
        verdicts.insert(subject("public", "select 1"), verdict("select 1"));
        assert!(verdicts.find(&subject("public", "select 1")).is_some());
        assert!(verdicts.find(&subject("other", "select 1")).is_none());
        assert!(verdicts.find(&subject("public", "select 2")).is_none());
    }

    #[test]
    fn a_flood_stays_within_the_budget() {
        let budget = 64 * 1024;
        let verdicts = Verdicts::new(budget);
        let one = verdict("select 1");
        for number in 0..2_000 {
            verdicts.insert(subject("public", &format!("select {number}")), Arc::clone(&one));
            verdicts.insert(subject("public", &format!("select {number}")), Arc::clone(&one));
        }
        let held: usize = verdicts.shards.iter().map(|shard| shard.lock().bytes).sum();
        let counted: usize = verdicts
            .shards
            .iter()
            .flat_map(|shard| {
                shard
                    .lock()
                    .verdicts
                    .iter()
                    .map(|(subject, _)| size(subject))
                    .collect::<Vec<_>>()
            })
            .sum();
        assert!(held <= budget, "{held}");
        assert_eq!(held, counted);
    }
}
