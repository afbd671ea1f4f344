//! How often each kind of something happened: a plain array of counters, one for each kind.
//!
//! Written by sessions, read by the console and `/metrics`. Invariant: a kind's place is its own, as its enum numbers it; a counter
//! never falls.

use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};

/// What is told apart.
pub trait Kind: Copy + 'static {
    /// All of them, in the order of their places.
    const ALL: &'static [Self];

    /// Its place in `ALL`.
    fn place(self) -> usize;

    /// Its name, as a label of a metric has it.
    fn word(self) -> &'static str;
}

/// Counters, one for each kind.
#[derive(Debug)]
pub struct Tally<K> {
    counters: Box<[AtomicU64]>,
    kinds: PhantomData<K>,
}

impl<K: Kind> Default for Tally<K> {
    fn default() -> Self {
        Self {
            counters: K::ALL.iter().map(|_| AtomicU64::new(0)).collect(),
            kinds: PhantomData,
        }
    }
}

impl<K: Kind> Tally<K> {
    /// It happened once more.
    pub fn count(&self, kind: K) {
        self.counters[kind.place()].fetch_add(1, Ordering::Relaxed);
    }

    /// How often it happened.
    pub fn of(&self, kind: K) -> u64 {
        self.counters[kind.place()].load(Ordering::Relaxed)
    }

    /// All kinds, with how often they happened.
    pub fn all(&self) -> impl Iterator<Item = (K, u64)> + '_ {
        K::ALL.iter().map(|kind| (*kind, self.of(*kind)))
    }
}

/// Declares an enum of kinds, with a word for each.
macro_rules! kinds {
    ($(#[$about:meta])* pub enum $name:ident { $($(#[$doc:meta])* $kind:ident = $word:literal,)+ }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name {
            $($(#[$doc])* $kind,)+
        }

        impl $crate::telemetry::tally::Kind for $name {
            const ALL: &'static [Self] = &[$(Self::$kind,)+];

            fn place(self) -> usize {
                self as usize
            }

            fn word(self) -> &'static str {
                match self {
                    $(Self::$kind => $word,)+
                }
            }
        }
    };
}
pub(crate) use kinds;

#[cfg(test)]
mod tests {
    use super::*;

    kinds! {
        /// For the test.
        pub enum Fruit {
            /// One.
            Apple = "apple",
            /// Another.
            Pear = "pear",
        }
    }

    #[test]
    fn each_kind_is_counted_by_itself() {
        let tally = Tally::default();
        tally.count(Fruit::Pear);
        tally.count(Fruit::Pear);
        let all: Vec<_> = tally.all().map(|(kind, count)| (kind.word(), count)).collect();
        assert_eq!(all, [("apple", 0), ("pear", 2)]);
        assert_eq!(tally.of(Fruit::Pear), 2);
    }
}
