//! The stream's decisions against a small world: a primary whose commits are logged before they are visible, a replica that
//! lags, and the real clocks. Each remedy is also taken away, to see that the world finds what it is against.
//!
//! Steps are drawn by a seed, which a failure names. Tables, transactions and the log are plain values; only clocks and state are real.

use std::collections::BTreeSet;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use super::*;
use crate::freshness::clocks::{Clocks, Mark, Note, Scope};

/// What a run does without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Without {
    Nothing,
    /// A commit that was streamed counts as visible at once.
    Ledger,
    /// A table counts as carried as soon as it is published.
    Barrier,
    /// What the walsender keeps of before a table was published is not put right.
    Renewal,
    /// A replica may fill whatever it has replayed.
    Fences,
    /// The stream counts as current whenever it says anything.
    Currency,
}

#[derive(Debug)]
struct Transaction {
    xid: u64,
    wrote: BTreeSet<Oid>,
    /// What the stream will tell of it: what it wrote once that was published.
    told: BTreeSet<Oid>,
    end: Option<Lsn>,
    visible_at: Option<Instant>,
}

#[derive(Debug)]
struct Fill {
    table: Oid,
    note: Note,
    may_store: bool,
    /// The transactions whose rows the answer shows.
    shows: BTreeSet<u64>,
}

#[derive(Debug, Clone, Copy)]
enum Logged {
    /// Of the transaction at this place.
    Commit(usize),
    /// This table was published anew.
    Renewal(Oid),
}

struct World {
    random: StdRng,
    without: Without,
    /// Does the walsender go by what was before a table was published?
    forgets: bool,
    now: Instant,
    tick: u64,
    next_xid: u64,
    transactions: Vec<Transaction>,
    logged: Vec<Logged>,
    log_end: Lsn,
    streamed: usize,
    replayed: Lsn,
    snapshots: Vec<(u64, Snapshot)>,
    published: BTreeSet<Oid>,
    carried: BTreeSet<Oid>,
    /// Tables whose commits the walsender does not tell.
    blind: BTreeSet<Oid>,
    clocks: Clocks,
    state: State<Mark>,
    fills: Vec<Fill>,
    entries: Vec<Fill>,
    hits: usize,
}

const TABLES: [Oid; 2] = [1, 2];

impl World {
    fn new(seed: u64, without: Without) -> Self {
        let latest = "100:100:".parse().expect("a snapshot");
        let forgets = seed.is_multiple_of(2);
        Self {
            random: StdRng::seed_from_u64(seed),
            without,
            forgets,
            now: Instant::now(),
            tick: 1,
            next_xid: 100,
            transactions: Vec::new(),
            logged: Vec::new(),
            log_end: Lsn(1_000),
            streamed: 0,
            replayed: Lsn(1_000),
            snapshots: Vec::new(),
            published: BTreeSet::new(),
            carried: BTreeSet::new(),
            blind: BTreeSet::new(),
            clocks: Clocks::new(1, 0),
            state: State::new(Lsn(1_000), latest, forgets && without != Without::Renewal),
            fills: Vec::new(),
            entries: Vec::new(),
            hits: 0,
        }
    }

    /// A step; false when a hit has shown what it must not.
    fn step(&mut self) -> bool {
        self.now += Duration::from_millis(1);
        self.tick += 1;
        let table = *TABLES.choose(&mut self.random).expect("two");
        match self.random.random_range(0..13) {
            0 => self.write(table),
            1 => self.log(),
            2 => self.show_one(),
            3 if self.random.random_ratio(1, 4) => self.publish(table),
            4 | 5 => self.stream(),
            6 => {
                let number = self.state.ask();
                let snapshot = self.snapshot();
                self.snapshots.push((number, snapshot));
            }
            7 if !self.snapshots.is_empty() => {
                let (number, snapshot) = self.snapshots.remove(0);
                self.shown(number, snapshot);
            }
            7 => self.renew(),
            8 => self.fill_on_primary(table),
            9 => {
                self.replayed = Lsn(self.replayed.0 + 10).min(self.log_end);
                self.fill_on_replica(table);
            }
            10 if !self.fills.is_empty() => {
                let at = self.random.random_range(0..self.fills.len());
                let fill = self.fills.swap_remove(at);
                if fill.may_store && self.clocks.may_share(&fill.note) {
                    self.entries.push(fill);
                }
            }
            11 => {
                self.state.polled(self.now, self.log_end);
                self.clocks.settle(1, self.tick, self.log_end);
            }
            _ => return self.hit(),
        }
        true
    }

    fn write(&mut self, table: Oid) {
        let mut running = self.transactions.iter_mut().filter(|one| one.end.is_none());
        let told = self.published.contains(&table);
        if let Some(older) = running.next()
            && self.random.random()
        {
            older.wrote.insert(table);
            if told {
                older.told.insert(table);
            }
            return;
        }
        self.transactions.push(Transaction {
            xid: self.next_xid,
            wrote: BTreeSet::from([table]),
            told: told.then_some(table).into_iter().collect(),
            end: None,
            visible_at: None,
        });
        self.next_xid += 1;
    }

    fn log(&mut self) {
        let running = (0..self.transactions.len()).filter(|at| self.transactions[*at].end.is_none());
        if let Some(at) = running.collect::<Vec<_>>().choose(&mut self.random) {
            self.log_end = Lsn(self.log_end.0 + 10);
            self.transactions[*at].end = Some(self.log_end);
            self.logged.push(Logged::Commit(*at));
        }
    }

    /// Publishes anew what is to be.
    fn renew(&mut self) {
        let stale: Vec<Oid> = self.state.stale().collect();
        self.logged
            .extend(stale.iter().map(|table| Logged::Renewal(*table)));
        self.state.renewed(&stale);
    }

    fn show_one(&mut self) {
        let now = self.now;
        let mut hidden: Vec<_> = self.transactions.iter_mut().collect();
        hidden.retain(|one| one.end.is_some() && one.visible_at.is_none());
        if !hidden.is_empty() {
            let at = self.random.random_range(0..hidden.len());
            hidden[at].visible_at = Some(now);
        }
    }

    fn publish(&mut self, table: Oid) {
        if self.published.insert(table) {
            self.state.publish(&[table]);
            if self.without == Without::Barrier {
                for _ in 0..2 {
                    let all = format!("{0}:{0}:", self.next_xid).parse().expect("a snapshot");
                    let number = self.state.ask();
                    self.shown(number, all);
                    self.renew();
                }
            }
        }
    }

    fn stream(&mut self) {
        let Some(logged) = self.logged.get(self.streamed) else {
            return;
        };
        self.streamed += 1;
        let one = match logged {
            Logged::Commit(at) => &self.transactions[*at],
            Logged::Renewal(table) => {
                self.blind.remove(table);
                return;
            }
        };
        // What it wrote of a table before that was published keeps the walsender from seeing all that follows there.
        if self.forgets {
            let missed = one.wrote.difference(&one.told);
            self.blind
                .extend(missed.filter(|table| self.published.contains(table)));
        }
        let committed = Committed {
            xid: u32::try_from(one.xid).expect("small"),
            end: one.end.expect("logged"),
            tables: one.told.difference(&self.blind).copied().collect(),
        };
        if !committed.tables.is_empty() {
            let mark = self
                .clocks
                .announce(Scope::Tables(committed.tables.clone().into()));
            self.clocks
                .witness(1, &committed.tables, committed.end, self.tick);
            if self.without == Without::Ledger {
                self.clocks.land(mark);
            } else {
                self.state.commit(&committed, mark).expect("room");
            }
        }
        self.state.advance(committed.end);
    }

    fn snapshot(&self) -> Snapshot {
        let running = self.transactions.iter().filter(|one| one.visible_at.is_none());
        let running: Vec<u64> = running.map(|one| one.xid).collect();
        let xmin = running.iter().min().copied().unwrap_or(self.next_xid);
        let list: Vec<String> = running.iter().map(u64::to_string).collect();
        let text = format!("{xmin}:{}:{}", self.next_xid, list.join(","));
        text.parse().expect("a snapshot")
    }

    fn shown(&mut self, number: u64, snapshot: Snapshot) {
        let shown = self.state.show(number, snapshot);
        for mark in shown.landed {
            self.clocks.land(mark);
        }
        if !shown.carried.is_empty() {
            let scope = Scope::Tables(shown.carried.clone().into());
            self.clocks.acknowledge(&scope, self.tick);
            self.carried.extend(shown.carried);
        }
    }

    fn begin(&self, table: Oid, shows: BTreeSet<u64>) -> Fill {
        Fill {
            table,
            note: self.clocks.note(&[table]),
            may_store: !self.clocks.in_flight(&[table]),
            shows,
        }
    }

    fn fill_on_primary(&mut self, table: Oid) {
        let visible = self.transactions.iter().filter(|one| one.visible_at.is_some());
        let shows = visible.map(|one| one.xid).collect();
        self.fills.push(self.begin(table, shows));
    }

    fn fill_on_replica(&mut self, table: Oid) {
        if self.without != Without::Fences && !self.clocks.fence(&[table]).admits(self.replayed) {
            return;
        }
        let replayed = self.replayed;
        let seen = self.transactions.iter();
        let seen = seen.filter(|one| one.end.is_some_and(|end| end <= replayed));
        let shows = seen.map(|one| one.xid).collect();
        self.fills.push(self.begin(table, shows));
    }

    /// Every entry that would be served misses nothing that was acknowledged before the stream was current.
    fn hit(&mut self) -> bool {
        let as_of = match self.without {
            Without::Currency => Some(self.now),
            _ => self.state.as_of(),
        };
        let Some(as_of) = as_of else { return true };
        for entry in &self.entries {
            if !self.carried.contains(&entry.table) || !self.clocks.is_current(&entry.note) {
                continue;
            }
            self.hits += 1;
            let missed = self.transactions.iter().any(|one| {
                one.wrote.contains(&entry.table)
                    && one.visible_at.is_some_and(|at| at < as_of)
                    && !entry.shows.contains(&one.xid)
            });
            if missed {
                return false;
            }
        }
        true
    }
}

/// Runs until a hit lies; the number of honest ones, and the seed that found a lie.
fn explore(without: Without, worlds: u64) -> (usize, Option<u64>) {
    let mut hits = 0;
    for seed in 0..worlds {
        let mut world = World::new(seed, without);
        for _ in 0..500 {
            if !world.step() {
                return (hits, Some(seed));
            }
        }
        hits += world.hits;
    }
    (hits, None)
}

#[test]
fn no_entry_over_carried_tables_misses_what_the_stream_has_passed() {
    let (hits, lie) = explore(Without::Nothing, 6_000);
    assert_eq!(lie, None, "the seed of a world with a lie");
    assert!(hits > 10_000, "only {hits} hits: the worlds say nothing");
}

#[test]
fn each_remedy_is_needed() {
    for without in [
        Without::Ledger,
        Without::Barrier,
        Without::Renewal,
        Without::Fences,
        Without::Currency,
    ] {
        let (hits, lie) = explore(without, 1_500);
        assert!(lie.is_some(), "{hits} hits without {without:?} and no lie");
    }
}

fn snapshot(text: &str) -> Snapshot {
    text.parse().expect("a snapshot")
}

fn state() -> State<u8> {
    State::new(Lsn(100), snapshot("50:50:"), false)
}

#[test]
fn a_barrier_waits_for_all_that_ran_when_it_was_raised() {
    let mut state = state();
    let early = state.ask();
    state.publish(&[1, 2]);
    // It was asked for before: it may have been taken before.
    assert_eq!(state.show(early, snapshot("60:60:")).carried, [0; 0]);
    let number = state.ask();
    assert_eq!(state.show(number, snapshot("55:60:55")).carried, [0; 0]);
    let number = state.ask();
    assert_eq!(state.show(number, snapshot("58:70:58,69")).carried, [0; 0]);
    assert_eq!(state.withdraw(&[2, 3]), [2]);
    let number = state.ask();
    assert_eq!(state.show(number, snapshot("60:71:60")).carried, [1]);
    assert!(state.carried().eq([1]) && !state.wants_snapshot());
    state.publish(&[1]);
    assert!(!state.wants_snapshot(), "what is carried needs no barrier again");
}

#[test]
fn what_is_to_be_published_anew_passes_a_second_barrier() {
    let mut state = State::<u8>::new(Lsn(100), snapshot("50:50:"), true);
    state.publish(&[1, 2]);
    let number = state.ask();
    assert_eq!(state.show(number, snapshot("50:50:")).carried, [0; 0]);
    assert!(state.stale().eq([1, 2]) && !state.wants_snapshot());
    state.withdraw(&[2]);
    let early = state.ask();
    state.renewed(&[1, 2, 3]);
    assert_eq!(state.show(early, snapshot("60:60:")).carried, [0; 0]);
    let number = state.ask();
    assert_eq!(state.show(number, snapshot("60:61:60")).carried, [0; 0]);
    let number = state.ask();
    assert_eq!(state.show(number, snapshot("61:61:")).carried, [1]);
    assert!(state.published().eq([1]) && state.stale().next().is_none());
}

#[test]
fn a_commit_leaves_the_ledger_when_it_is_visible() {
    let mut state = state();
    let committed = |xid| Committed {
        xid,
        end: Lsn(200),
        tables: vec![1],
    };
    for xid in [51, 52] {
        let mark = u8::try_from(xid).expect("small");
        assert_eq!(state.commit(&committed(xid), mark), Ok(()));
    }
    let number = state.ask();
    assert_eq!(state.show(number, snapshot("51:53:51")).landed, [52]);
    assert!(state.wants_snapshot());
    assert_eq!(state.end(), [51]);
}

#[test]
fn a_ledger_has_an_end() {
    let mut state = state();
    let committed = Committed {
        xid: 51,
        end: Lsn(200),
        tables: vec![1],
    };
    for _ in 0..LEDGER_MAX {
        assert_eq!(state.commit(&committed, 0), Ok(()));
    }
    assert_eq!(state.commit(&committed, 7), Err((LedgerFull, 7)));
}

#[test]
fn it_is_current_as_of_the_latest_poll_that_it_has_passed() {
    let mut state = state();
    let start = Instant::now();
    let at = |ms| start + Duration::from_millis(ms);
    state.polled(at(10), Lsn(150));
    assert_eq!((state.as_of(), state.is_behind()), (None, true));
    state.polled(at(20), Lsn(160));
    state.advance(Lsn(155));
    assert_eq!(state.as_of(), Some(at(10)));
    // A keepalive with an unmoved position proves nothing.
    state.advance(Lsn(155));
    assert_eq!(state.as_of(), Some(at(10)));
    state.advance(Lsn(160));
    assert_eq!((state.as_of(), state.is_behind()), (Some(at(20)), false));
    // An idle primary: each poll is passed at once.
    state.polled(at(30), Lsn(160));
    assert_eq!(state.as_of(), Some(at(30)));
    for ms in 0..2 * POLLS_MAX as u64 {
        state.polled(at(40 + ms), Lsn(1_000));
    }
    assert!(state.polls.len() <= POLLS_MAX);
}
