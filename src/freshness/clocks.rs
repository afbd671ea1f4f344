//! The clocks of one database: for each table an epoch, a fence, and the commits in flight; for all of them a floor.
//!
//! Called under one lock by everything that reads or writes through the proxy. Pure: time enters as ticks, positions as
//! arguments. Invariants: an epoch never falls; a clock is raised, never dropped without the floor covering it; a note
//! taken before an acknowledged write of its tables is never current after it.
//! It keeps no entry of the cache: an entry carries its note, and is as good as the note is current.

use std::collections::BTreeMap;

use super::fence::{Fence, Tick};
use super::guards::Guards;
use crate::catalog::verdict::{Oid, WriteSet};
use crate::protocol::lsn::Lsn;

/// What a commit may have changed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Rows of these tables.
    Tables(Box<[Oid]>),
    /// Anything: the write set is unknown, or the catalog changed.
    Everything,
}

impl Scope {
    /// The scope of a write set, or `None` where nothing can have changed.
    pub fn of(writes: &WriteSet) -> Option<Self> {
        match writes {
            WriteSet::None => None,
            WriteSet::Tables(tables) => Some(Self::Tables(tables.clone())),
            WriteSet::Unknown(_) | WriteSet::Catalog { .. } => Some(Self::Everything),
        }
    }

    /// Both together.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        match (self, other) {
            (Self::Tables(a), Self::Tables(b)) => {
                let mut all = [a, b].concat();
                all.sort_unstable();
                all.dedup();
                Self::Tables(all.into())
            }
            _ => Self::Everything,
        }
    }
}

/// Proof that a commit was announced as in flight; given back to `Clocks::land`, once. Cloned only together with its clocks.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[must_use = "a commit that never lands forbids its tables to the cache for ever"]
pub struct Mark {
    scope: Scope,
    /// The stream told of it, and the primary need not show it yet.
    is_unseen: bool,
}

/// The state of the clocks that a fill or a flight began under.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Note {
    /// A commit that the stream told of was not seen on the primary yet: it may be acknowledged any time, and the clocks not move.
    is_unseen: bool,
    floor: u64,
    epochs: Box<[(Oid, u64)]>,
}

impl Note {
    /// The floor's epoch.
    pub fn floor(&self) -> u64 {
        self.floor
    }

    /// Its tables with their epochs.
    pub fn epochs(&self) -> impl Iterator<Item = (Oid, u64)> + '_ {
        self.epochs.iter().copied()
    }

    /// The tables that it speaks of.
    pub fn tables(&self) -> impl Iterator<Item = Oid> + '_ {
        self.epochs.iter().map(|(table, _)| *table)
    }

    /// Was this taken at or after the other, as far as writes of their tables go? What was read under it then misses nothing
    /// that was acknowledged before the other was taken. Both must speak of the same tables.
    pub fn covers(&self, other: &Self) -> bool {
        !self.is_unseen
            && self.floor >= other.floor
            && self.epochs.len() == other.epochs.len()
            && self
                .epochs
                .iter()
                .zip(&other.epochs)
                .all(|((table, mine), (same, theirs))| table == same && mine >= theirs)
    }
}

/// What a read notes before it begins, all at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Begun {
    /// The epochs of what it reads.
    pub note: Note,
    /// What a replica must have replayed to serve it.
    pub fence: Fence,
    /// The era that the fence belongs to.
    pub era: u64,
    /// A commit on its tables is in flight: its answer must not be stored.
    pub in_flight: bool,
    /// Such a commit is known to write one of them: whoever has read from the primary may have seen it.
    pub known_in_flight: bool,
}

/// How an entry's note stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Currency {
    /// Nothing was written since.
    Current,
    /// Nothing was acknowledged since, but a known write of its tables is on its way.
    InFlight,
    /// A write was acknowledged since.
    Outdated,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Clock {
    epoch: u64,
    fence: Fence,
    in_flight: u32,
    /// Of these, those that the stream told of.
    unseen: u32,
}

/// A clock, as the console shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shown {
    /// Whose it is; `None` for the floor.
    pub table: Option<Oid>,
    /// Its epoch.
    pub epoch: u64,
    /// What a replica must have replayed.
    pub fence: Fence,
    /// Commits on their way.
    pub in_flight: u32,
}

/// The clocks of one database. Epochs, of the floor and of tables, are drawn from one counter, so that a table which
/// was forgotten and comes back never shows an epoch that it had before.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Clocks {
    guards: Guards,
    era: u64,
    drawn: u64,
    floor_epoch: u64,
    floor_fence: Fence,
    everything_in_flight: u32,
    tables: BTreeMap<Oid, Clock>,
}

impl Clocks {
    /// The clocks at the proxy's start: what was acknowledged before is not known, so the floor is pending.
    pub fn new(era: u64, now: Tick) -> Self {
        Self {
            guards: Guards::default(),
            era,
            drawn: 0,
            floor_epoch: 0,
            floor_fence: Fence::Pending(now),
            everything_in_flight: 0,
            tables: BTreeMap::new(),
        }
    }

    /// The same under other guards.
    #[doc(hidden)]
    #[must_use]
    pub fn under(self, guards: Guards) -> Self {
        Self { guards, ..self }
    }

    /// The guards that are on.
    #[doc(hidden)]
    pub fn guards(&self) -> Guards {
        self.guards
    }

    /// Announces that a commit over `scope` is about to be sent.
    pub fn announce(&mut self, scope: Scope) -> Mark {
        let scope = if self.guards.in_flight {
            scope
        } else {
            Scope::Tables(Box::default())
        };
        self.mark(scope, false)
    }

    fn mark(&mut self, scope: Scope, is_unseen: bool) -> Mark {
        match &scope {
            Scope::Tables(tables) => {
                for table in tables {
                    let clock = self.clock(*table);
                    clock.in_flight += 1;
                    clock.unseen += u32::from(is_unseen);
                }
            }
            Scope::Everything => self.everything_in_flight += 1,
        }
        Mark { scope, is_unseen }
    }

    /// A commit over `scope` may have happened. To be called before anything that acknowledges it is forwarded.
    pub fn acknowledge(&mut self, scope: &Scope, now: Tick) {
        self.drawn += 1;
        let epoch = self.drawn;
        match scope {
            Scope::Tables(tables) => {
                for table in tables {
                    let clock = self.clock(*table);
                    clock.epoch = epoch;
                    clock.fence = Fence::Pending(now);
                }
            }
            Scope::Everything => {
                self.floor_epoch = epoch;
                self.floor_fence = Fence::Pending(now);
                // The floor is now at or above all of them; only what is in flight has more to say.
                self.tables.retain(|_, clock| clock.in_flight > 0);
            }
        }
    }

    /// As `witness`, for a commit that need not be visible on the primary yet: it is in flight until it is.
    pub fn witness_unseen(&mut self, era: u64, tables: &[Oid], end: Lsn, now: Tick) -> Mark {
        let unseen: &[Oid] = if self.guards.visibility { tables } else { &[] };
        let mark = self.mark(Scope::Tables(unseen.into()), true);
        self.witness(era, tables, end, now);
        mark
    }

    /// The stream of `era` has shown a commit of these tables, which ends at `end`. Its position is known, so no probe is needed.
    pub fn witness(&mut self, era: u64, tables: &[Oid], end: Lsn, now: Tick) {
        if era != self.era {
            return self.acknowledge(&Scope::Tables(tables.into()), now);
        }
        self.drawn += 1;
        let epoch = self.drawn;
        for table in tables {
            let clock = self.clock(*table);
            clock.epoch = epoch;
            clock.fence = clock.fence.max(Fence::At(end));
        }
    }

    /// The commit that `mark` announced is over: its unit ended, or its server process is gone.
    pub fn land(&mut self, mark: Mark) {
        match mark.scope {
            Scope::Tables(tables) => {
                for table in &tables {
                    let clock = self
                        .tables
                        .get_mut(table)
                        .expect("a clock in flight is never forgotten");
                    clock.in_flight -= 1;
                    clock.unseen -= u32::from(mark.is_unseen);
                }
            }
            Scope::Everything => self.everything_in_flight -= 1,
        }
    }

    /// Another primary, another timeline, or the primary restarted after a crash: positions of before mean nothing, and
    /// what was acknowledged lies at or after now on the new timeline.
    pub fn begin_era(&mut self, era: u64, now: Tick) {
        self.era = era;
        self.acknowledge(&Scope::Everything, now);
        for clock in self.tables.values_mut() {
            clock.fence = Fence::OPEN;
        }
        if !self.guards.eras {
            self.floor_fence = Fence::OPEN;
        }
    }

    /// A probe of the primary of `era`, sent when the counter stood at `covers`, returned `lsn`.
    pub fn settle(&mut self, era: u64, covers: Tick, lsn: Lsn) {
        if era != self.era {
            return;
        }
        self.floor_fence = self.floor_fence.settled(covers, lsn);
        for clock in self.tables.values_mut() {
            clock.fence = clock.fence.settled(covers, lsn);
        }
    }

    /// The floor, and so many of the tables.
    pub fn shown(&self, most: usize) -> Vec<Shown> {
        let floor = Shown {
            table: None,
            epoch: self.floor_epoch,
            fence: self.floor_fence,
            in_flight: self.everything_in_flight,
        };
        let tables = self.tables.iter().map(|(table, clock)| Shown {
            table: Some(*table),
            epoch: clock.epoch,
            fence: clock.fence,
            in_flight: clock.in_flight,
        });
        std::iter::once(floor).chain(tables.take(most)).collect()
    }

    /// The epoch that was drawn last.
    pub fn latest(&self) -> u64 {
        self.drawn
    }

    /// The era whose positions its fences are.
    pub fn era(&self) -> u64 {
        self.era
    }

    /// What a replica must have replayed to serve a read of these tables at `fresh`.
    pub fn fence(&self, tables: &[Oid]) -> Fence {
        let known = tables.iter().filter_map(|table| self.tables.get(table));
        known.map(|clock| clock.fence).fold(self.floor_fence, Fence::max)
    }

    /// Notes all that a read of these tables must know, before it is sent. `past_the_proxy`: what a replica must have replayed
    /// because of writes that were not seen here.
    pub fn begin(&self, tables: &[Oid], past_the_proxy: Fence) -> Begun {
        Begun {
            note: self.note(tables),
            fence: if self.guards.fences {
                self.fence(tables).max(past_the_proxy)
            } else {
                Fence::OPEN
            },
            era: self.era,
            in_flight: self.in_flight(tables),
            known_in_flight: self.known_in_flight(tables.iter().copied()),
        }
    }

    /// Is a commit on any of these tables, or one whose set is unknown, on its way? Then no fill of them is stored, and
    /// no flight of them is joined.
    pub fn in_flight(&self, tables: &[Oid]) -> bool {
        self.everything_in_flight > 0 || self.known_in_flight(tables.iter().copied())
    }

    /// Is a commit that is known to write one of these tables on its way? A session that has read from the primary
    /// meanwhile may have seen it, and is not served older entries.
    pub fn known_in_flight(&self, tables: impl IntoIterator<Item = Oid>) -> bool {
        let mut tables = tables.into_iter();
        tables.any(|table| self.tables.get(&table).is_some_and(|clock| clock.in_flight > 0))
    }

    /// Notes the epochs of the tables that a read is about to see.
    pub fn note(&self, tables: &[Oid]) -> Note {
        let epochs = tables.iter().map(|table| (*table, self.epoch(*table))).collect();
        let is_unseen = |table: &Oid| self.tables.get(table).is_some_and(|clock| clock.unseen > 0);
        Note {
            is_unseen: tables.iter().any(is_unseen),
            floor: self.floor_epoch,
            epochs,
        }
    }

    /// Has no write of the note's tables been acknowledged since it was taken?
    pub fn is_current(&self, note: &Note) -> bool {
        note.floor == self.floor_epoch
            && note
                .epochs
                .iter()
                .all(|(table, epoch)| self.epoch(*table) == *epoch)
    }

    /// How an answer that was read under `note` stands.
    pub fn currency(&self, note: &Note) -> Currency {
        if self.guards.epochs && !self.is_current(note) {
            Currency::Outdated
        } else if self.known_in_flight(note.tables()) {
            Currency::InFlight
        } else {
            Currency::Current
        }
    }

    /// May an answer that was read under `note` be stored, or a flight that began under it be joined?
    pub fn may_share(&self, note: &Note) -> bool {
        if !self.guards.epochs {
            return true;
        }
        let in_flight = self.everything_in_flight > 0
            || note
                .tables()
                .any(|table| self.tables.get(&table).is_some_and(|clock| clock.in_flight > 0));
        !in_flight && self.is_current(note)
    }

    fn epoch(&self, table: Oid) -> u64 {
        self.tables
            .get(&table)
            .map_or(self.floor_epoch, |clock| clock.epoch)
    }

    fn clock(&mut self, table: Oid) -> &mut Clock {
        let fresh = Clock {
            epoch: self.floor_epoch,
            fence: Fence::OPEN,
            in_flight: 0,
            unseen: 0,
        };
        self.tables.entry(table).or_insert(fresh)
    }
}

#[cfg(test)]
mod tests;
