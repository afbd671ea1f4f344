//! The store against a naive list, and its limits.
//!
//! Run by `cargo test`. The naive list keeps order of use, tables and sizes, and is obviously right because it is slow.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;
use crate::cache::entry::Renewal;
use crate::cache::key::{Form, Identity, Request};
use crate::freshness::clocks::Clocks;

fn key(number: u32) -> Key {
    key_in("shop", number)
}

fn key_in(database: &str, number: u32) -> Key {
    let sql = number.to_be_bytes();
    let identity = Identity {
        database: database.as_bytes(),
        role: b"",
        session_user: b"",
        settings: &[],
    };
    Key::of(&Request {
        identity: &identity.encode(),
        generation: 1,
        form: Form::Simple,
        sql: &sql,
        types: b"",
        bind: b"",
    })
}

fn entry(tables: &[Oid], bytes: usize) -> Arc<Entry> {
    Arc::new(Entry {
        answer: Room::new(0).answer(&vec![0; bytes]),
        note: Clocks::new(1, 0).note(tables),
        node: "db1:5432".into(),
        asked_at: Instant::now(),
        ttl: Duration::from_secs(300),
        cost: Duration::ZERO,
        renewal: Renewal::default(),
    })
}

fn store(bytes_max: usize, entries_max: usize) -> Store {
    Store::new(Limits {
        bytes_max,
        entries_max,
        entry_bytes_max: bytes_max,
    })
}

#[test]
fn a_write_drops_the_entries_of_its_tables_only() {
    let store = store(1 << 20, 100);
    store.insert(key(1), entry(&[1, 2], 10));
    store.insert(key(2), entry(&[2], 10));
    store.insert(key(3), entry(&[3], 10));
    assert_eq!(store.invalidate("shop", &[1, 4]), 1);
    assert!(store.find(&key(1)).is_none() && store.find(&key(2)).is_some());
    assert_eq!(
        store.invalidate("shop", &[2]),
        1,
        "the join is no longer listed under its other table"
    );
    assert_eq!(store.size().0, 1);
    assert_eq!(store.clear(), 1);
    assert_eq!(store.size(), (0, 0));
}

#[test]
fn a_database_is_flushed_by_itself() {
    let store = store(1 << 20, 100);
    for database in ["shop", "shop2"] {
        store.insert(key_in(database, 1), entry(&[1], 10));
        store.insert(key_in(database, 2), entry(&[2], 10));
    }
    assert_eq!(store.invalidate("shop2", &[1]), 1);
    assert!(store.find(&key_in("shop", 1)).is_some());
    assert_eq!(store.clear_database("shop"), 2);
    assert_eq!(store.size().0, 1);
    assert!(store.find(&key_in("shop2", 2)).is_some());
}

#[test]
fn what_is_over_new_limits_is_evicted_and_the_list_begins_with_the_latest() {
    let store = store(1 << 20, 100);
    for number in 1..=4 {
        store.insert(key(number), entry(&[1], 10));
    }
    assert!(store.find(&key(2)).is_some());
    let listed = |most| {
        let listed = store.recent(most);
        listed
            .iter()
            .map(|one| (one.key == key(2), one.found))
            .collect::<Vec<_>>()
    };
    assert_eq!(listed(2), [(true, 1), (false, 0)]);
    let fewer = Limits {
        entries_max: 1,
        ..store.limits()
    };
    assert_eq!(store.change_limits(fewer), 3);
    assert_eq!(listed(9), [(true, 1)]);
    assert_eq!(store.size().0, 1);
}

#[test]
fn the_least_recently_used_goes_first() {
    let store = store(1 << 20, 2);
    store.insert(key(1), entry(&[1], 10));
    store.insert(key(2), entry(&[1], 10));
    assert!(store.find(&key(1)).is_some());
    assert_eq!(
        store.insert(key(3), entry(&[1], 10)),
        Inserted::Stored { evicted: 1 }
    );
    assert!(store.find(&key(2)).is_none() && store.find(&key(1)).is_some());
}

#[test]
fn an_entry_over_the_limit_is_refused_and_takes_nothing_away() {
    let store = store(4_096, 100);
    store.insert(key(1), entry(&[1], 1_000));
    assert_eq!(store.insert(key(2), entry(&[1], 4_096)), Inserted::TooLarge);
    assert!(store.find(&key(1)).is_some());
}

#[test]
fn only_the_very_entry_is_removed() {
    let store = store(1 << 20, 100);
    store.insert(key(1), entry(&[1], 10));
    let old = store.find(&key(1)).expect("stored");
    store.insert(key(1), entry(&[1], 20));
    assert!(!store.remove(&key(1), &old));
    let new = store.find(&key(1)).expect("still there");
    assert!(store.remove(&key(1), &new));
    assert_eq!(store.size(), (0, 0));
}

#[derive(Debug, Clone)]
enum Act {
    Insert(u32, Vec<Oid>, usize),
    Find(u32),
    Invalidate(Vec<Oid>),
}

fn act() -> impl Strategy<Value = Act> {
    let some = || proptest::collection::vec(0_u32..4, 1..3);
    prop_oneof![
        (0_u32..12, some(), 0_usize..2_000).prop_map(|(key, tables, bytes)| Act::Insert(key, tables, bytes)),
        (0_u32..12).prop_map(Act::Find),
        some().prop_map(Act::Invalidate),
    ]
}

proptest! {
    #[test]
    fn it_agrees_with_a_naive_list(acts in proptest::collection::vec(act(), 0..80)) {
        const BYTES_MAX: usize = 6_000;
        let store = store(BYTES_MAX, 5);
        // Oldest first: key, tables, bytes counted.
        let mut naive: Vec<(u32, Vec<Oid>, usize)> = Vec::new();
        for act in acts {
            match act {
                Act::Insert(number, tables, bytes) => {
                    let size = entry(&tables, bytes).size() + key(number).size();
                    store.insert(key(number), entry(&tables, bytes));
                    naive.retain(|(other, ..)| *other != number);
                    naive.push((number, tables, size));
                    while naive.len() > 5 || naive.iter().map(|(.., size)| size).sum::<usize>() > BYTES_MAX {
                        naive.remove(0);
                    }
                }
                Act::Find(number) => {
                    let at = naive.iter().position(|(other, ..)| *other == number);
                    prop_assert_eq!(store.find(&key(number)).is_some(), at.is_some());
                    if let Some(at) = at {
                        let used = naive.remove(at);
                        naive.push(used);
                    }
                }
                Act::Invalidate(tables) => {
                    let before = naive.len();
                    naive.retain(|(_, reads, _)| !reads.iter().any(|table| tables.contains(table)));
                    prop_assert_eq!(store.invalidate("shop", &tables), before - naive.len());
                }
            }
            let bytes = naive.iter().map(|(.., size)| size).sum::<usize>();
            prop_assert_eq!(store.size(), (naive.len(), bytes));
        }
    }
}
