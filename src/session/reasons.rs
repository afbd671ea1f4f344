//! How often units were answered by whom, for which reason: why reads go to the primary, over all sessions.
//!
//! Counted by the session where it notes `last`; read by the console and the metrics. A plain array of atomics. Invariant: each
//! reason has a place of its own, and there are no more of them than the program names: what only one statement has, an SQLSTATE
//! or a level, is left out. What the proxy answers by itself, or refuses, is not counted here.

use std::sync::atomic::{AtomicU64, Ordering};

use super::last::{Reason, ServedBy};
use crate::catalog::verdict::Why;
use crate::freshness::level::Level;
use crate::route::{Because, Pin};

/// Who answers what is counted.
const BY: [ServedBy; 3] = [ServedBy::Cache, ServedBy::Replica, ServedBy::Primary];
const PINS: [Pin; 6] = [
    Pin::Listens,
    Pin::Temporary,
    Pin::AdvisoryLock,
    Pin::HeldCursor,
    Pin::SqlPrepare,
    Pin::UnknownState,
];
/// Reasons that are one word each.
const SINGLE: usize = 18;
const PLACES: usize = SINGLE + PINS.len() + Why::ALL.len();

/// The counters.
#[derive(Debug)]
pub struct Reasons([[AtomicU64; PLACES]; BY.len()]);

impl Default for Reasons {
    fn default() -> Self {
        Self(std::array::from_fn(|_| {
            std::array::from_fn(|_| AtomicU64::new(0))
        }))
    }
}

impl Reasons {
    /// A unit was answered.
    pub(super) fn count(&self, by: ServedBy, reason: &Reason) {
        if let Some(counters) = self.0.get(by as usize) {
            counters[place(reason)].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many units this one has answered, whatever the reason.
    pub fn answered_by(&self, by: ServedBy) -> u64 {
        let counters = self.0.get(by as usize);
        let counters = counters.into_iter().flatten();
        counters.map(|counter| counter.load(Ordering::Relaxed)).sum()
    }

    /// What has been counted at all: who answered, why, and how often.
    pub fn counted(&self) -> Vec<(ServedBy, String, u64)> {
        let mut counted = Vec::new();
        for (by, counters) in BY.into_iter().zip(&self.0) {
            for (reason, counter) in all().zip(counters) {
                let count = counter.load(Ordering::Relaxed);
                if count > 0 {
                    counted.push((by, words(&reason), count));
                }
            }
        }
        counted
    }
}

/// One of each, in the order of their places.
fn all() -> impl Iterator<Item = Reason> {
    let single = [
        Reason::Hit,
        Reason::Shared,
        Reason::Route(Because::PlainRead),
        Reason::Route(Because::InTransaction),
        Reason::Route(Because::Asked),
        Reason::Route(Because::Isolation),
        Reason::Route(Because::TemporarySchema),
        Reason::Route(Because::OddStrings),
        Reason::ReplicasBehind,
        Reason::FencePending,
        Reason::NoReplica,
        Reason::CatalogChanging,
        Reason::Level(Level::Strict),
        Reason::Retried(None),
        Reason::ReplicaBlocked,
        Reason::Own,
        Reason::StaleHit,
        Reason::ReadIndex,
    ];
    let pins = PINS.into_iter().map(Because::Pinned);
    let statements = Why::ALL.iter().copied().map(Because::Statement);
    single
        .into_iter()
        .chain(pins.chain(statements).map(Reason::Route))
}

fn place(reason: &Reason) -> usize {
    match reason {
        Reason::Hit => 0,
        Reason::Shared => 1,
        Reason::Route(Because::PlainRead) => 2,
        Reason::Route(Because::InTransaction) => 3,
        Reason::Route(Because::Asked) => 4,
        Reason::Route(Because::Isolation) => 5,
        Reason::Route(Because::TemporarySchema) => 6,
        Reason::Route(Because::OddStrings) => 7,
        Reason::ReplicasBehind => 8,
        Reason::FencePending => 9,
        Reason::NoReplica => 10,
        Reason::CatalogChanging => 11,
        Reason::Level(_) => 12,
        Reason::Retried(_) => 13,
        Reason::ReplicaBlocked => 14,
        Reason::Own => 15,
        Reason::StaleHit => 16,
        Reason::ReadIndex => 17,
        Reason::Route(Because::Pinned(pin)) => SINGLE + *pin as usize,
        Reason::Route(Because::Statement(why)) => SINGLE + PINS.len() + *why as usize,
    }
}

/// The words of `SHOW pgladder.last`, where they are the same for all units of a place.
fn words(reason: &Reason) -> String {
    match reason {
        Reason::Retried(_) => "a replica refused it or was lost".to_owned(),
        reason => reason.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn each_reason_has_a_place_and_words_of_its_own() {
        let places: Vec<usize> = all().map(|reason| place(&reason)).collect();
        assert_eq!(places, (0..PLACES).collect::<Vec<_>>());
        let words: HashSet<String> = all().map(|reason| words(&reason)).collect();
        assert_eq!(words.len(), PLACES);
        assert!(BY.into_iter().map(|by| by as usize).eq(0..BY.len()));
    }

    #[test]
    fn what_happened_is_told_and_nothing_else() {
        let reasons = Reasons::default();
        assert!(reasons.counted().is_empty());
        let statement = Reason::Route(Because::Statement(Why::Trivial));
        reasons.count(ServedBy::Primary, &statement);
        reasons.count(ServedBy::Primary, &Reason::Retried(Some("40001".into())));
        reasons.count(ServedBy::Primary, &Reason::Retried(None));
        reasons.count(ServedBy::Cache, &Reason::Hit);
        reasons.count(ServedBy::Proxy, &Reason::Own);
        let counted = reasons.counted();
        let told: Vec<_> = counted
            .iter()
            .map(|(by, words, count)| (*by, words.as_str(), *count))
            .collect();
        assert_eq!(
            told,
            [
                (ServedBy::Cache, "cache hit", 1),
                (ServedBy::Primary, "a replica refused it or was lost", 2),
                (ServedBy::Primary, "statement: Trivial", 1),
            ]
        );
    }
}
