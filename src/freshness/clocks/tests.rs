//! Interleavings that a clock must survive, each with the wrong answer that its rule prevents.
//!
//! Run by `cargo test`. A database is modelled beside the clocks as a list of committed rows, so that a test can say what
//! a snapshot saw; the last test draws random interleavings and compares with that model.

use proptest::prelude::*;

use super::*;

const DEALS: Oid = 1;
const HOTELS: Oid = 2;

fn tables(oids: &[Oid]) -> Scope {
    Scope::Tables(oids.into())
}

fn settled() -> Clocks {
    let mut clocks = Clocks::new(1, 0);
    clocks.settle(1, 0, Lsn(100));
    clocks
}

#[test]
fn at_the_start_no_replica_serves_before_a_probe_was_sent() {
    let mut clocks = Clocks::new(1, 5);
    assert_eq!(clocks.fence(&[DEALS]), Fence::Pending(5));
    clocks.settle(1, 4, Lsn(100));
    assert_eq!(
        clocks.fence(&[DEALS]),
        Fence::Pending(5),
        "a probe sent before the start covers nothing"
    );
    clocks.settle(1, 5, Lsn(100));
    assert_eq!(
        clocks.fence(&[DEALS]),
        Fence::At(Lsn(100)),
        "a table never written has the floor"
    );
}

#[test]
fn a_write_raises_its_own_tables_only() {
    let mut clocks = settled();
    let (deals, hotels) = (clocks.note(&[DEALS]), clocks.note(&[HOTELS]));
    clocks.acknowledge(&tables(&[DEALS]), 1);
    assert!(!clocks.is_current(&deals));
    assert!(clocks.is_current(&hotels));
    assert_eq!(clocks.fence(&[DEALS]), Fence::Pending(1));
    assert_eq!(clocks.fence(&[HOTELS]), Fence::At(Lsn(100)));
    assert_eq!(
        clocks.fence(&[DEALS, HOTELS]),
        Fence::Pending(1),
        "a join is as late as its latest table"
    );
}

#[test]
fn a_fill_that_straddles_a_commit_is_not_shared() {
    let mut clocks = settled();
    let before = clocks.note(&[DEALS]);
    let mark = clocks.announce(tables(&[DEALS]));
    let during = clocks.note(&[DEALS]);
    assert!(
        !clocks.may_share(&before),
        "the commit may be visible to somebody already"
    );
    clocks.acknowledge(&tables(&[DEALS]), 1);
    clocks.land(mark);
    assert!(!clocks.may_share(&before));
    assert!(
        !clocks.may_share(&during),
        "it may have read the row's old version"
    );
    assert!(clocks.may_share(&clocks.note(&[DEALS])));
}

#[test]
fn a_command_complete_before_the_commit_does_not_let_old_rows_in() {
    // In the extended protocol CommandComplete precedes the commit, which happens at Sync.
    let mut clocks = settled();
    let mark = clocks.announce(tables(&[DEALS]));
    clocks.acknowledge(&tables(&[DEALS]), 1);
    let between = clocks.note(&[DEALS]);
    assert!(!clocks.may_share(&between), "the commit is still in flight");
    clocks.acknowledge(&tables(&[DEALS]), 2);
    clocks.land(mark);
    assert!(
        !clocks.may_share(&between),
        "its snapshot was older than the commit"
    );
    clocks.settle(1, 1, Lsn(150));
    assert_eq!(
        clocks.fence(&[DEALS]),
        Fence::Pending(2),
        "a probe between the two may precede the commit"
    );
}

#[test]
fn an_unknown_write_counts_for_every_table() {
    let mut clocks = settled();
    let note = clocks.note(&[HOTELS]);
    let mark = clocks.announce(Scope::Everything);
    assert!(clocks.in_flight(&[HOTELS]) && !clocks.may_share(&note));
    assert!(
        !clocks.known_in_flight([HOTELS]),
        "a nightly procedure must not disable hits"
    );
    clocks.acknowledge(&Scope::Everything, 3);
    clocks.land(mark);
    assert!(!clocks.is_current(&note));
    assert_eq!(clocks.fence(&[HOTELS]), Fence::Pending(3));
}

#[test]
fn a_failover_raises_all_fences_and_drops_none() {
    let mut clocks = settled();
    clocks.acknowledge(&tables(&[DEALS]), 1);
    clocks.settle(1, 1, Lsn(200));
    let note = clocks.note(&[DEALS]);
    clocks.begin_era(2, 2);
    assert!(!clocks.is_current(&note));
    assert_eq!(clocks.fence(&[DEALS]), Fence::Pending(2));
    clocks.settle(1, 9, Lsn(999));
    assert_eq!(
        clocks.fence(&[DEALS]),
        Fence::Pending(2),
        "a position of the old timeline proves nothing"
    );
    clocks.settle(2, 2, Lsn(150));
    assert_eq!(
        clocks.fence(&[DEALS]),
        Fence::At(Lsn(150)),
        "the old timeline's position is forgotten"
    );
}

#[test]
fn a_table_that_was_forgotten_never_shows_an_old_epoch() {
    let mut clocks = settled();
    clocks.acknowledge(&tables(&[DEALS]), 1);
    let note = clocks.note(&[DEALS]);
    clocks.acknowledge(&Scope::Everything, 2);
    clocks.acknowledge(&tables(&[DEALS]), 3);
    assert!(!clocks.is_current(&note));
}

#[test]
fn marks_survive_a_write_of_everything() {
    let mut clocks = settled();
    let mark = clocks.announce(tables(&[DEALS]));
    clocks.acknowledge(&Scope::Everything, 1);
    clocks.begin_era(2, 2);
    assert!(clocks.known_in_flight([DEALS]));
    clocks.land(mark);
    assert!(!clocks.in_flight(&[DEALS]));
}

#[test]
fn scopes_join() {
    assert_eq!(tables(&[1, 3]).union(tables(&[2, 3])), tables(&[1, 2, 3]));
    assert_eq!(tables(&[1]).union(Scope::Everything), Scope::Everything);
    assert_eq!(Scope::of(&WriteSet::None), None);
    assert_eq!(
        Scope::of(&WriteSet::Catalog { global: false }),
        Some(Scope::Everything)
    );
}

/// One step of a random history over the tables 0, 1 and 2.
#[derive(Debug, Clone)]
enum Act {
    Send(Vec<Oid>),
    Commit(usize),
    Answer(usize),
    Note(Vec<Oid>),
    Snapshot(usize),
    Everything,
    Era,
}

fn act() -> impl Strategy<Value = Act> {
    let some = || proptest::sample::subsequence(vec![0, 1, 2], 1..=3);
    prop_oneof![
        3 => some().prop_map(Act::Send),
        4 => (0_usize..8).prop_map(Act::Commit),
        4 => (0_usize..8).prop_map(Act::Answer),
        4 => some().prop_map(Act::Note),
        4 => (0_usize..8).prop_map(Act::Snapshot),
        1 => Just(Act::Everything),
        1 => Just(Act::Era),
    ]
}

/// A write on its way: its tables, its mark, and whether the server has committed it.
struct Write {
    scope: Vec<Oid>,
    mark: Mark,
    committed: bool,
}

/// A fill on its way: its tables, its note, and the versions of the tables that its snapshot saw.
struct Fill {
    tables: Vec<Oid>,
    note: Note,
    seen: Option<[u32; 3]>,
}

/// The clocks beside a model of the server: the version of each table, committed and acknowledged.
struct World {
    clocks: Clocks,
    committed: [u32; 3],
    acknowledged: [u32; 3],
    writes: Vec<Write>,
    fills: Vec<Fill>,
    now: Tick,
}

impl World {
    fn take(&mut self, act: Act) {
        self.now += 1;
        match act {
            Act::Send(scope) => {
                let mark = self.clocks.announce(tables(&scope));
                self.writes.push(Write {
                    scope,
                    mark,
                    committed: false,
                });
            }
            Act::Commit(at) => {
                let Some(write) = self.writes.get_mut(at).filter(|write| !write.committed) else {
                    return;
                };
                write.committed = true;
                write
                    .scope
                    .iter()
                    .for_each(|table| self.committed[*table as usize] += 1);
            }
            Act::Answer(at) => {
                if self.writes.get(at).is_none_or(|write| !write.committed) {
                    return;
                }
                let write = self.writes.swap_remove(at);
                self.clocks.acknowledge(&tables(&write.scope), self.now);
                self.clocks.land(write.mark);
                // Everything committed by now is a lower bound for what later reads must see of these tables.
                write
                    .scope
                    .iter()
                    .for_each(|table| self.acknowledged[*table as usize] += 1);
            }
            Act::Note(tables) => {
                let note = self.clocks.note(&tables);
                self.fills.push(Fill {
                    tables,
                    note,
                    seen: None,
                });
            }
            Act::Snapshot(at) => {
                let committed = self.committed;
                if let Some(fill) = self.fills.get_mut(at).filter(|fill| fill.seen.is_none()) {
                    fill.seen = Some(committed);
                }
            }
            Act::Everything => self.clocks.acknowledge(&Scope::Everything, self.now),
            Act::Era => self.clocks.begin_era(self.now, self.now),
        }
    }

    /// The promise: an answer that may be shared now misses nothing that was acknowledged before now.
    fn stale(&self) -> Option<&Fill> {
        self.fills.iter().find(|fill| {
            let misses = |seen: [u32; 3]| {
                fill.tables
                    .iter()
                    .any(|table| seen[*table as usize] < self.acknowledged[*table as usize])
            };
            self.clocks.may_share(&fill.note) && fill.seen.is_some_and(misses)
        })
    }
}

proptest! {
    #[test]
    fn no_history_shares_an_answer_that_misses_an_acknowledged_write(
        history in proptest::collection::vec(act(), 0..60),
    ) {
        let mut world = World {
            clocks: settled(),
            committed: [0; 3],
            acknowledged: [0; 3],
            writes: Vec::new(),
            fills: Vec::new(),
            now: 0,
        };
        for act in history {
            world.take(act.clone());
            prop_assert!(world.stale().is_none(), "stale after {:?}: {:?}", act, world.clocks);
        }
    }
}

#[test]
fn a_note_covers_those_that_were_taken_before_its_writes() {
    let mut clocks = Clocks::new(1, 0);
    let write = Scope::Tables([1].into());
    let first = clocks.note(&[1, 2]);
    clocks.acknowledge(&write, 1);
    let second = clocks.note(&[1, 2]);
    clocks.acknowledge(&Scope::Everything, 2);
    let third = clocks.note(&[1, 2]);
    assert!(first.covers(&first) && second.covers(&first) && third.covers(&second));
    assert!(!first.covers(&second) && !second.covers(&third));
    assert!(!second.covers(&clocks.note(&[1])), "of other tables");
}

#[test]
fn a_commit_that_the_stream_shows_ends_entries_and_keeps_replicas_until_its_end() {
    let mut clocks = Clocks::new(1, 0);
    clocks.settle(1, 0, Lsn(10));
    let note = clocks.note(&[1]);
    clocks.witness(1, &[1], Lsn(50), 1);
    assert!(!clocks.is_current(&note));
    assert_eq!(clocks.fence(&[1]), Fence::At(Lsn(50)));
    // An older one, or one of which more is known already, lowers nothing.
    clocks.witness(1, &[1], Lsn(40), 2);
    assert_eq!(clocks.fence(&[1]), Fence::At(Lsn(50)));
    clocks.acknowledge(&Scope::Tables([1].into()), 3);
    clocks.witness(1, &[1], Lsn(60), 4);
    assert_eq!(clocks.fence(&[1]), Fence::Pending(3));
    // Of another era its position says nothing.
    clocks.witness(2, &[2], Lsn(70), 5);
    assert_eq!(clocks.fence(&[2]), Fence::Pending(5));
}

#[test]
fn what_was_read_while_a_streamed_commit_was_unseen_covers_nobody_who_comes_later() {
    let mut clocks = Clocks::new(1, 0);
    let mark = clocks.witness_unseen(1, &[1], Lsn(5), 1);
    let during = clocks.note(&[1]);
    assert!(!during.covers(&during), "it may be acknowledged at any time");
    assert!(clocks.note(&[2]).covers(&clocks.note(&[2])), "of another table");
    clocks.land(mark);
    let after = clocks.note(&[1]);
    assert!(!during.covers(&after) && after.covers(&during) && after.covers(&after));
}
