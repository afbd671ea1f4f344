//! The store: entries in order of use, under a budget of bytes and a limit of entries.
//!
//! Called by the session on every cacheable read, and by the console. Invariant: the bytes counted are the bytes held, and never exceed the
//! budget after an insertion. One short lock; nothing is decoded, copied or compared under it but the key.
//! Truth is not its business: a caller checks an entry's note and time, and removes what no longer holds.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use lru::LruCache;
use parking_lot::Mutex;

use super::answer::{Answer, Room};
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
    held: Mutex<Held>,
    room: Arc<Room>,
}

#[derive(Debug)]
struct Held {
    limits: Limits,
    entries: LruCache<Key, Kept, State>,
    by_table: HashMap<Oid, HashSet<Key, State>, State>,
    bytes: usize,
}

#[derive(Debug)]
struct Kept {
    entry: Arc<Entry>,
    found: u64,
}

/// An entry as the console lists it.
#[derive(Debug)]
pub struct Listed {
    /// Its key.
    pub key: Key,
    /// The entry.
    pub entry: Arc<Entry>,
    /// How often it was found.
    pub found: u64,
}

impl Store {
    /// An empty store.
    pub fn new(limits: Limits) -> Self {
        let entries = LruCache::unbounded_with_hasher(State::default());
        Self {
            room: Room::new(limits.bytes_max),
            held: Mutex::new(Held {
                limits,
                entries,
                by_table: HashMap::default(),
                bytes: 0,
            }),
        }
    }

    /// An answer that an entry may be made of.
    pub fn answer(&self, messages: &[u8]) -> Answer {
        self.room.answer(messages)
    }

    /// The entry of a key, which becomes the most recently used.
    pub fn find(&self, key: &Key) -> Option<Arc<Entry>> {
        let mut held = self.held.lock();
        let kept = held.entries.get_mut(key)?;
        kept.found += 1;
        Some(Arc::clone(&kept.entry))
    }

    /// Stores an entry, in place of an older one of its key, and evicts the least recently used ones over the limits.
    pub fn insert(&self, key: Key, entry: Arc<Entry>) -> Inserted {
        let size = key.size() + entry.size();
        let mut held = self.held.lock();
        let limits = held.limits;
        if size > limits.entry_bytes_max.min(limits.bytes_max) || limits.entries_max == 0 {
            return Inserted::TooLarge;
        }
        held.remove(&key);
        for table in entry.note.tables() {
            held.by_table.entry(table).or_default().insert(key.clone());
        }
        held.entries.put(key, Kept { entry, found: 0 });
        held.bytes += size;
        Inserted::Stored {
            evicted: held.evict(),
        }
    }

    /// Other limits from now on; what is over them is evicted. Returns how many entries were.
    pub fn change_limits(&self, limits: Limits) -> usize {
        let mut held = self.held.lock();
        held.limits = limits;
        let evicted = held.evict();
        self.room.change_limit(limits.bytes_max);
        evicted
    }

    /// The limits of now.
    pub fn limits(&self) -> Limits {
        self.held.lock().limits
    }

    /// So many entries, the most recently used first.
    pub fn recent(&self, most: usize) -> Vec<Listed> {
        let held = self.held.lock();
        let listed = held.entries.iter().take(most).map(|(key, kept)| Listed {
            key: key.clone(),
            entry: Arc::clone(&kept.entry),
            found: kept.found,
        });
        listed.collect()
    }

    /// Removes a key's entry if it is this very one: a newer one may have taken its place.
    pub fn remove(&self, key: &Key, entry: &Arc<Entry>) -> bool {
        let mut held = self.held.lock();
        let same = held
            .entries
            .peek(key)
            .is_some_and(|kept| Arc::ptr_eq(&kept.entry, entry));
        same && held.remove(key)
    }

    /// Drops the entries that read any of these tables of a database; returns how many there were.
    pub fn invalidate(&self, database: &str, tables: &[Oid]) -> usize {
        let mut held = self.held.lock();
        let mut keys: HashSet<Key, State> = HashSet::default();
        for table in tables {
            // Tables of several databases may have one number.
            let readers = held.by_table.get(table).into_iter().flatten();
            keys.extend(
                readers
                    .filter(|key| key.database() == database.as_bytes())
                    .cloned(),
            );
        }
        keys.iter().map(|key| usize::from(held.remove(key))).sum()
    }

    /// Drops the entries of a database; returns how many there were. Looks at every key.
    pub fn clear_database(&self, database: &str) -> usize {
        let mut held = self.held.lock();
        let entries = held.entries.iter().map(|(key, _)| key);
        let keys: Vec<Key> = entries
            .filter(|key| key.database() == database.as_bytes())
            .cloned()
            .collect();
        keys.iter().map(|key| usize::from(held.remove(key))).sum()
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
    /// Removes the least recently used entries over the limits; returns how many there were.
    fn evict(&mut self) -> usize {
        let mut evicted = 0;
        while self.bytes > self.limits.bytes_max || self.entries.len() > self.limits.entries_max {
            let Some((key, _)) = self.entries.peek_lru() else {
                break;
            };
            let key = key.clone();
            self.remove(&key);
            evicted += 1;
        }
        evicted
    }

    fn remove(&mut self, key: &Key) -> bool {
        let Some(Kept { entry, .. }) = self.entries.pop(key) else {
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
