//! How often each table's entries were made untrue, and by what: counted where its clock is raised.
//!
//! Kept by `database`, read by `/metrics`. It decides nothing. Invariant: its room is bounded: tables beyond the first so many are
//! counted as one.

use std::collections::HashMap;

use super::clocks::Scope;
use crate::catalog::verdict::Oid;
use crate::telemetry::tally::kinds;

/// Tables that are counted apart.
const TABLES: usize = 1_000;

kinds! {
    /// What raised a clock.
    #[derive(PartialOrd, Ord, Hash)]
    pub enum Source {
        /// A write through the proxy.
        Write = "write",
        /// A change of the catalog through the proxy.
        Schema = "schema",
        /// A commit that the stream told of.
        Stream = "stream",
        /// What was known ended: another primary, or a stream that began or ended to carry the table.
        Restart = "restart",
    }
}

/// What was invalidated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Invalidated {
    /// Every entry of the database.
    Everything,
    /// Those over a table.
    Table(Oid),
    /// Those over a table that is not counted apart.
    Other,
}

/// Counts since the start.
#[derive(Debug, Default)]
pub(super) struct Invalidations(HashMap<(Invalidated, Source), u64>);

impl Invalidations {
    /// The clocks of `scope` were raised.
    pub(super) fn count(&mut self, scope: &Scope, source: Source) {
        match scope {
            Scope::Everything => self.add(Invalidated::Everything, source),
            Scope::Tables(tables) => {
                for table in tables {
                    self.add(Invalidated::Table(*table), source);
                }
            }
        }
    }

    fn add(&mut self, what: Invalidated, source: Source) {
        let is_new = !self.0.contains_key(&(what, source));
        let what = if is_new && self.0.len() >= TABLES {
            Invalidated::Other
        } else {
            what
        };
        *self.0.entry((what, source)).or_default() += 1;
    }

    /// All of them, in a fixed order.
    pub(super) fn all(&self) -> Vec<(Invalidated, Source, u64)> {
        let counts = self.0.iter();
        let mut all: Vec<_> = counts
            .map(|((what, source), count)| (*what, *source, *count))
            .collect();
        all.sort_unstable();
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_counted_by_source_and_those_beyond_the_bound_together() {
        let mut counts = Invalidations::default();
        counts.count(&Scope::Everything, Source::Schema);
        for table in 1..=u32::try_from(TABLES).expect("small") + 7 {
            counts.count(&Scope::Tables([table].into()), Source::Write);
        }
        counts.count(&Scope::Tables([1].into()), Source::Write);
        let all = counts.all();
        assert_eq!(all[0], (Invalidated::Everything, Source::Schema, 1));
        assert_eq!(all[1], (Invalidated::Table(1), Source::Write, 2));
        assert_eq!(all.last(), Some(&(Invalidated::Other, Source::Write, 8)));
        assert_eq!(all.len(), TABLES + 1);
    }
}
