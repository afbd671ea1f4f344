//! The store: entries in order of use, under a budget of bytes and a limit of entries.
//!
//! Called by the session on every cacheable read. Invariant: the bytes counted are the bytes held, and never exceed the
//! budget after an insertion. One short lock; nothing is decoded, copied or compared under it but the key.
//! Truth is not its business: a caller checks an entry's note and time, and removes what no longer holds.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use lru::LruCache;
use parking_lot::Mutex;

use super::entry::Entry;
use super::key::Key;
use crate::catalog::verdict::Oid;

type State = foldhash::fast::RandomState;

/// Limits of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of keys, answers and overhead together.
    pub bytes_max: usize,
    /// Number of entries.
    pub entries_max: usize,
    /// Bytes of one entry; larger ones are refused.
    pub entry_bytes_max: usize,
}

/// What became of an insertion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inserted {
    /// Stored; so many others were evicted for space.
    Stored {
        /// Number of entries evicted.
        evicted: usize,
    },
    /// Larger than one entry, or the whole store, may be.
    TooLarge,
}

/// Entries by key.
#[derive(Debug)]
pub struct Store {
    limits: Limits,
    held: Mutex<Held>,
}

#[derive(Debug)]
struct Held {
    entries: LruCache<Key, Arc<Entry>, State>,
    by_table: HashMap<Oid, HashSet<Key, State>, State>,
    bytes: usize,
}

impl Store {
    /// An empty store.
    pub fn new(limits: Limits) -> Self {
        let entries = LruCache::unbounded_with_hasher(State::default());
        Self {
            limits,
            held: Mutex::new(Held {
                entries,
                by_table: HashMap::default(),
                bytes: 0,
            }),
        }
    }

    /// The entry of a key, which becomes the most recently used.
    pub fn find(&self, key: &Key) -> Option<Arc<Entry>> {
        self.held.lock().entries.get(key).cloned()
    }

    /// Stores an entry, in place of an older one of its key, and evicts the least recently used ones over the limits.
    pub fn insert(&self, key: Key, entry: Entry) -> Inserted {
        let size = key.size() + entry.size();
        if size > self.limits.entry_bytes_max.min(self.limits.bytes_max) || self.limits.entries_max == 0 {
            return Inserted::TooLarge;
        }
        let mut held = self.held.lock();
        held.remove(&key);
        for table in entry.note.tables() {
            held.by_table.entry(table).or_default().insert(key.clone());
        }
        held.entries.put(key, Arc::new(entry));
        held.bytes += size;
        let mut evicted = 0;
        while held.bytes > self.limits.bytes_max || held.entries.len() > self.limits.entries_max {
            let Some((key, _)) = held.entries.peek_lru() else {
                break;
            };
            let key = key.clone();
            held.remove(&key);
            evicted += 1;
        }
        Inserted::Stored { evicted }
    }

    /// Removes a key's entry if it is this very one: a newer one may have taken its place.
    pub fn remove(&self, key: &Key, entry: &Arc<Entry>) -> bool {
        let mut held = self.held.lock();
        let same = held
            .entries
            .peek(key)
            .is_some_and(|found| Arc::ptr_eq(found, entry));
        same && held.remove(key)
    }

    /// Drops the entries that read any of these tables; returns how many there were.
    pub fn invalidate(&self, tables: &[Oid]) -> usize {
        let mut held = self.held.lock();
        let mut dropped = 0;
        for table in tables {
            for key in held.by_table.remove(table).unwrap_or_default() {
                dropped += usize::from(held.remove(&key));
            }
        }
        dropped
    }

    /// Drops everything; returns how many entries there were.
    pub fn clear(&self) -> usize {
        let mut held = self.held.lock();
        let dropped = held.entries.len();
        held.entries.clear();
        held.by_table.clear();
        held.bytes = 0;
        dropped
    }

    /// Entries and bytes held now.
    pub fn size(&self) -> (usize, usize) {
        let held = self.held.lock();
        (held.entries.len(), held.bytes)
    }
}

impl Held {
    fn remove(&mut self, key: &Key) -> bool {
        let Some(entry) = self.entries.pop(key) else {
            return false;
        };
        self.bytes -= key.size() + entry.size();
        for table in entry.note.tables() {
            if let Some(keys) = self.by_table.get_mut(&table) {
                keys.remove(key);
                if keys.is_empty() {
                    self.by_table.remove(&table);
                }
            }
        }
        true
    }
}

#[cfg(test)]
mod tests;
