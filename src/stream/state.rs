//! What a stream is known to carry, and up to when: the decisions of one stream from its slot's creation to its end.
//!
//! Driven by `running` with what it hears. Pure: time and marks are the caller's. Invariants: a table counts as carried only once
//! every transaction that the stream might have missed is visible on the primary; a commit stays in the ledger until the primary has
//! been seen to show it; the stream is current as of a poll only when it has passed that poll's position. A stream that ends takes
//! all of this with it: the next one begins anew.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use super::pgoutput::Committed;
use super::snapshot::Snapshot;
use crate::catalog::verdict::Oid;
use crate::freshness::guards::Guards;
use crate::protocol::lsn::Lsn;

/// Commits that were streamed and not seen on the primary. Each is a session there that waits for a replica's confirmation, or
/// came since the last snapshot was asked for.
pub const LEDGER_MAX: usize = 65_536;
/// Polls whose positions the stream has still to pass.
const POLLS_MAX: usize = 256;

/// Where a published table stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// The stream may have missed transactions: its barrier has not been passed.
    Waiting,
    /// Its first barrier has been passed, and it is to be published anew.
    Stale,
    /// It misses none.
    Carried,
}

/// Tables that were published together.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Barrier {
    tables: Vec<Oid>,
    /// Only snapshots asked for after this one were taken after the publication.
    after: u64,
    /// Of the first such snapshot: all transactions that the stream might miss are below.
    xmax: Option<u64>,
    /// Behind it nothing is missed.
    is_last: bool,
}

/// What a snapshot has shown.
#[derive(Debug, PartialEq, Eq)]
pub struct Shown<M> {
    /// These tables are carried from now on: what was read of them before may miss what the stream missed.
    pub carried: Vec<Oid>,
    /// Commits that every later read on the primary sees.
    pub landed: Vec<M>,
}

/// More commits than `LEDGER_MAX` wait to be seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LedgerFull;

/// One stream. `M` is what the caller keeps for a commit until it is visible.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State<M> {
    renews: bool,
    guards: Guards,
    tables: BTreeMap<Oid, Standing>,
    barriers: Vec<Barrier>,
    ledger: VecDeque<(u64, M)>,
    latest: Snapshot,
    asked: u64,
    position: Lsn,
    polls: VecDeque<(Instant, Lsn)>,
    as_of: Option<Instant>,
}

impl<M> State<M> {
    /// A stream that begins at its slot's consistent point; `latest`: a snapshot of the same server. `renews`: what is published has
    /// to be published anew once it has passed its barrier.
    pub fn new(position: Lsn, latest: Snapshot, renews: bool) -> Self {
        Self {
            renews,
            guards: Guards::default(),
            tables: BTreeMap::new(),
            barriers: Vec::new(),
            ledger: VecDeque::new(),
            latest,
            asked: 0,
            position,
            polls: VecDeque::new(),
            as_of: None,
        }
    }

    /// The same under other guards.
    #[doc(hidden)]
    #[must_use]
    pub fn under(self, guards: Guards) -> Self {
        Self { guards, ..self }
    }

    /// These tables are published since just now, with the slot ready. Those that were before stay as they are.
    pub fn publish(&mut self, tables: &[Oid]) {
        let mut new = tables.to_vec();
        new.retain(|table| !self.tables.contains_key(table));
        self.tables
            .extend(new.iter().map(|table| (*table, Standing::Waiting)));
        self.raise(new, !self.renews);
    }

    /// These tables have been published anew just now.
    pub fn renewed(&mut self, tables: &[Oid]) {
        let mut stale = tables.to_vec();
        stale.retain(|table| self.tables.get(table) == Some(&Standing::Stale));
        self.tables
            .extend(stale.iter().map(|table| (*table, Standing::Waiting)));
        self.raise(stale, true);
    }

    fn raise(&mut self, tables: Vec<Oid>, is_last: bool) {
        if !tables.is_empty() {
            self.barriers.push(Barrier {
                tables,
                after: self.asked,
                xmax: None,
                is_last,
            });
        }
    }

    /// Tables to be published anew.
    pub fn stale(&self) -> impl Iterator<Item = Oid> + '_ {
        self.standing(Standing::Stale)
    }

    /// These tables are not published any more. Returns which of them were.
    pub fn withdraw(&mut self, tables: &[Oid]) -> Vec<Oid> {
        let mut known = tables.to_vec();
        known.retain(|table| self.tables.remove(table).is_some());
        for barrier in &mut self.barriers {
            barrier.tables.retain(|table| !known.contains(table));
        }
        self.barriers.retain(|barrier| !barrier.tables.is_empty());
        known
    }

    /// Is this table published?
    pub fn knows(&self, table: Oid) -> bool {
        self.tables.contains_key(&table)
    }

    /// All published tables.
    pub fn published(&self) -> impl Iterator<Item = Oid> + '_ {
        self.tables.keys().copied()
    }

    /// The tables of which it misses nothing.
    pub fn carried(&self) -> impl Iterator<Item = Oid> + '_ {
        self.standing(Standing::Carried)
    }

    fn standing(&self, wanted: Standing) -> impl Iterator<Item = Oid> + '_ {
        let tables = self.tables.iter();
        tables.filter_map(move |(table, standing)| (*standing == wanted).then_some(*table))
    }

    /// A commit has arrived, and `mark` shall come back once it is visible.
    pub fn commit(&mut self, committed: &Committed, mark: M) -> Result<(), (LedgerFull, M)> {
        if self.ledger.len() >= LEDGER_MAX {
            return Err((LedgerFull, mark));
        }
        self.ledger.push_back((self.latest.widen(committed.xid), mark));
        Ok(())
    }

    /// Commits that have not been seen on the primary.
    pub fn unseen(&self) -> usize {
        self.ledger.len()
    }

    /// Is there anything that a snapshot might settle?
    pub fn wants_snapshot(&self) -> bool {
        !self.ledger.is_empty() || !self.barriers.is_empty()
    }

    /// A snapshot is about to be asked for on the primary; its number is given back with it.
    pub fn ask(&mut self) -> u64 {
        self.asked += 1;
        self.asked
    }

    /// The primary has answered with a snapshot.
    pub fn show(&mut self, number: u64, snapshot: Snapshot) -> Shown<M> {
        let mut carried = Vec::new();
        for barrier in &mut self.barriers {
            if number > barrier.after {
                let xmax = *barrier.xmax.get_or_insert(snapshot.xmax);
                if snapshot.xmin >= xmax || !self.guards.barrier {
                    let passed = std::mem::take(&mut barrier.tables);
                    let standing = if barrier.is_last {
                        carried.extend(&passed);
                        Standing::Carried
                    } else {
                        Standing::Stale
                    };
                    self.tables
                        .extend(passed.into_iter().map(|table| (table, standing)));
                }
            }
        }
        self.barriers.retain(|barrier| !barrier.tables.is_empty());
        let (landed, unseen) = std::mem::take(&mut self.ledger)
            .into_iter()
            .partition::<Vec<_>, _>(|(xid, _)| snapshot.shows(*xid));
        self.ledger = unseen.into();
        self.latest = snapshot;
        Shown {
            carried,
            landed: landed.into_iter().map(|(_, mark)| mark).collect(),
        }
    }

    /// All of the log before `position` has been looked at, and what concerns us has arrived.
    pub fn advance(&mut self, position: Lsn) {
        self.position = self.position.max(position);
        self.pass_polls();
    }

    /// A poll of the primary, sent at this moment, said that its log is flushed up to `flushed`.
    pub fn polled(&mut self, sent_at: Instant, flushed: Lsn) {
        if self.polls.back().is_some_and(|(known, _)| *known >= sent_at) {
            return;
        }
        if self.polls.len() >= POLLS_MAX {
            // The stream stands still: the oldest says least, and to forget one only makes the stream look older.
            self.polls.pop_front();
        }
        self.polls.push_back((sent_at, flushed));
        self.pass_polls();
    }

    fn pass_polls(&mut self) {
        while let Some((sent_at, _)) = self.polls.front().filter(|poll| poll.1 <= self.position) {
            self.as_of = Some(*sent_at);
            self.polls.pop_front();
        }
    }

    /// Has it still to pass a poll's position?
    pub fn is_behind(&self) -> bool {
        !self.polls.is_empty()
    }

    /// How far it has come.
    pub fn position(&self) -> Lsn {
        self.position
    }

    /// What was committed on the primary before this moment has arrived; `None`: nothing is known.
    pub fn as_of(&self) -> Option<Instant> {
        self.as_of
    }

    /// Ends it: returns what was kept for commits that were never seen.
    pub fn end(self) -> Vec<M> {
        self.ledger.into_iter().map(|(_, mark)| mark).collect()
    }
}

#[cfg(test)]
mod tests;
