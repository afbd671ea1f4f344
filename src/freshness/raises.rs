//! When clocks were raised: since when an answer has missed a write.
//!
//! Kept by `database` beside the clocks, under their lock, and asked by reads that may miss what is young. Pure: time is an argument.
//! Invariant: the moment that is told is never later than the true one. It may be earlier, by less than the time since: raises that
//! lie close together are kept as one, so that a table that is written all the time takes no more room than any other.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::clocks::{Note, Scope};
use crate::catalog::verdict::Oid;

/// Raises of one clock that are kept apart.
const RAISES: usize = 48;
/// Raises within so long of each other are one.
const ONE: Duration = Duration::from_millis(2);
/// Tables whose raises are kept.
const TABLES: usize = 10_000;

/// Raises of the floor and of each table, oldest first.
#[derive(Debug, Default)]
pub(super) struct Raises {
    floor: Log,
    tables: HashMap<Oid, Log>,
    /// Of tables that are not listed, nothing is known up to this epoch.
    forgotten: Option<(u64, Instant)>,
}

#[derive(Debug, Default)]
struct Log(VecDeque<Group>);

/// Raises that are kept as one.
#[derive(Debug, Clone, Copy)]
struct Group {
    first_at: Instant,
    last_epoch: u64,
}

impl Raises {
    /// The clocks of `scope` were raised to this epoch.
    pub(super) fn raised(&mut self, scope: &Scope, epoch: u64, at: Instant) {
        match scope {
            Scope::Everything => self.floor.raised(epoch, at),
            Scope::Tables(tables) => {
                for table in tables {
                    if self.tables.len() >= TABLES && !self.tables.contains_key(table) {
                        self.forget(at);
                    }
                    self.tables.entry(*table).or_default().raised(epoch, at);
                }
            }
        }
    }

    /// The first moment, or an earlier one, at which a clock of the note was raised beyond it; `None` where none was.
    pub(super) fn first_after(&self, note: &Note) -> Option<Instant> {
        let of_tables = note.epochs().filter_map(|(table, epoch)| {
            let forgotten = self.forgotten.filter(|(known, _)| *known > epoch);
            let listed = self.tables.get(&table).and_then(|log| log.first_after(epoch));
            earlier(forgotten.map(|(_, at)| at), listed)
        });
        earlier(self.floor.first_after(note.floor()), of_tables.min())
    }

    /// Gives up all tables: what was noted before counts as missed since the oldest raise that is forgotten with them.
    fn forget(&mut self, at: Instant) {
        let groups = || self.tables.values().flat_map(|log| &log.0);
        let oldest = groups().map(|group| group.first_at).min().unwrap_or(at);
        let newest = groups().map(|group| group.last_epoch).max().unwrap_or_default();
        let before = self.forgotten.map_or(oldest, |(_, before)| before.min(oldest));
        self.forgotten = Some((newest, before));
        self.tables.clear();
    }
}

fn earlier(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    one.into_iter().chain(other).min()
}

impl Log {
    fn raised(&mut self, epoch: u64, at: Instant) {
        if let Some(last) = self.0.back_mut()
            && at.saturating_duration_since(last.first_at) < ONE
        {
            last.last_epoch = epoch;
            return;
        }
        if self.0.len() >= RAISES {
            self.join(at);
        }
        self.0.push_back(Group {
            first_at: at,
            last_epoch: epoch,
        });
    }

    /// Makes one of the two neighbours that differ least in their age.
    fn join(&mut self, now: Instant) {
        let ages = |at: usize| {
            let age = |group: &Group| (now - group.first_at).as_secs_f64();
            age(&self.0[at]) / age(&self.0[at + 1])
        };
        let least = (0..self.0.len() - 1).min_by(|one, other| ages(*one).total_cmp(&ages(*other)));
        if let Some(at) = least
            && let Some(joined) = self.0.remove(at + 1)
        {
            self.0[at].last_epoch = joined.last_epoch;
        }
    }

    fn first_after(&self, epoch: u64) -> Option<Instant> {
        let at = self.0.partition_point(|group| group.last_epoch <= epoch);
        self.0.get(at).map(|group| group.first_at)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::freshness::clocks::Clocks;

    fn tables(tables: &[Oid]) -> Scope {
        Scope::Tables(tables.into())
    }

    #[test]
    fn an_answer_misses_its_first_write_and_not_those_of_other_tables() {
        let (mut clocks, mut raises, start) = (Clocks::new(1, 0), Raises::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        let raise = |clocks: &mut Clocks, raises: &mut Raises, scope: &Scope, seconds| {
            clocks.acknowledge(scope, 1);
            raises.raised(scope, clocks.latest(), at(seconds));
        };
        raise(&mut clocks, &mut raises, &tables(&[1]), 1);
        let note = clocks.note(&[1, 2]);
        raise(&mut clocks, &mut raises, &tables(&[3]), 2);
        assert_eq!(raises.first_after(&note), None);
        raise(&mut clocks, &mut raises, &tables(&[2, 3]), 3);
        raise(&mut clocks, &mut raises, &tables(&[1]), 4);
        raise(&mut clocks, &mut raises, &Scope::Everything, 5);
        assert_eq!(raises.first_after(&note), Some(at(3)));
        assert_eq!(raises.first_after(&clocks.note(&[1, 2])), None);
    }

    #[test]
    fn tables_without_end_take_a_bounded_room_and_are_forgotten_to_the_safe_side() {
        let (mut clocks, mut raises, start) = (Clocks::new(1, 0), Raises::default(), Instant::now());
        let first = clocks.note(&[1]);
        for table in 1..=u32::try_from(TABLES).expect("small") + 1 {
            clocks.acknowledge(&tables(&[table]), 1);
            raises.raised(&tables(&[table]), clocks.latest(), start + ONE * table);
        }
        assert!(raises.tables.len() < TABLES);
        assert_eq!(raises.first_after(&first), Some(start + ONE));
        assert_eq!(
            raises.first_after(&clocks.note(&[1])),
            Some(start + ONE),
            "not known any more"
        );
        clocks.acknowledge(&tables(&[1]), 1);
        raises.raised(&tables(&[1]), clocks.latest(), start);
        assert_eq!(raises.first_after(&clocks.note(&[1])), None);
    }

    proptest! {
        #[test]
        fn what_is_told_is_never_later_and_hardly_earlier(
            gaps in proptest::collection::vec((0_u64..5_000, 1_u32..3), 1..400),
            noted in 0_usize..400,
        ) {
            let (mut clocks, mut raises, start) = (Clocks::new(1, 0), Raises::default(), Instant::now());
            let (mut now, mut note, mut truth) = (start, clocks.note(&[1]), None);
            for (number, (gap, table)) in gaps.into_iter().enumerate() {
                now += Duration::from_millis(gap);
                clocks.acknowledge(&tables(&[table]), 1);
                raises.raised(&tables(&[table]), clocks.latest(), now);
                if number <= noted {
                    (note, truth) = (clocks.note(&[1]), None);
                } else if table == 1 {
                    truth = truth.or(Some(now));
                }
            }
            let told = raises.first_after(&note);
            prop_assert_eq!(told.is_some(), truth.is_some());
            if let (Some(told), Some(truth)) = (told, truth) {
                prop_assert!(told <= truth);
                let (told, truth) = (now - told, now - truth);
                prop_assert!(told <= truth * 2 + ONE * 2, "{:?} for {:?}", told, truth);
            }
        }
    }
}
