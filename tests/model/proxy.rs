//! The proxy in the model: the crate's own clocks and flights, with the readers and entries that hang on them.
//!
//! Driven by the worlds, which say what an answer holds and what it must hold. What a session does between two decisions of the crate
//! is written down here once more, in few lines; an entry that is outdated is dropped at once, and one that somebody may be given is
//! looked at in every state, as if it were asked for. Invariant: nothing here is time, or grows with the length of a way.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};

use pgladder::cache::flight::{Flights, Seat};
use pgladder::cache::key::{Form, Key, Request};
use pgladder::catalog::verdict::Oid;
use pgladder::freshness::clocks::{Begun, Clocks, Currency, Note, Scope};
use pgladder::freshness::fence::Fence;
use pgladder::freshness::guards::Guards;

/// Tables, or writes, as bits.
pub type Set = u8;

/// The contract, as a property of a state.
pub const HOLDS: &str = "no read misses what was acknowledged before it began";

pub const A: Set = 1;
pub const B: Set = 2;
pub const KEYS: usize = 2;
pub const READERS: usize = 2;

static NAMES: LazyLock<[Key; KEYS]> = LazyLock::new(|| {
    [b"0", b"1"].map(|sql| {
        Key::of(&Request {
            identity: b"",
            generation: 1,
            form: Form::Simple,
            sql,
            types: b"",
            bind: b"",
        })
    })
});

/// The tables of a set, as the crate knows them.
pub fn oids(tables: Set) -> &'static [Oid] {
    match tables {
        A => &[1],
        B => &[2],
        _ => &[1, 2],
    }
}

fn oids_of(note: &Note) -> &'static [Oid] {
    let mut tables = 0;
    for table in note.tables() {
        tables |= small(table);
    }
    oids(tables)
}

pub fn scope(tables: Set, is_known: bool) -> Scope {
    if is_known {
        Scope::Tables(oids(tables).into())
    } else {
        Scope::Everything
    }
}

#[derive(Debug, Clone, PartialEq)]
pub enum Reader {
    Rest,
    /// It runs what its key stands for, and will be given this answer.
    Leads {
        key: usize,
        begun: Begun,
        answer: Set,
    },
    /// It waits for the flight of its key.
    Waits {
        wait: Wait,
        shares: bool,
    },
    /// The flight that it waited for is over, and was none for it.
    Wakes(Wait),
}

/// A reader without an answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Wait {
    pub key: usize,
    /// Writes that were acknowledged when it came.
    pub must: Set,
    pub arrived: Note,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    pub note: Note,
    pub answer: Set,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Proxy {
    pub clocks: Clocks,
    pub tick: u64,
    pub readers: [Reader; READERS],
    pub entries: [Option<Entry>; KEYS],
    /// A reader was given less than it was promised.
    pub lie: Option<&'static str>,
    /// What the primary has shown to each reader's session of known writes that are not acknowledged yet.
    pub shown: [Set; READERS],
}

/// What a search has come across: one that never met what it is about has shown nothing.
#[derive(Debug, Default)]
pub struct Met([AtomicBool; 6]);

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Event {
    Hit,
    HeldBack,
    Replica,
    Shared,
    Queued,
    Refused,
}

impl Met {
    pub fn note(&self, event: Event) {
        self.0[event as usize].store(true, Ordering::Relaxed);
    }

    /// What it has not come across.
    pub fn missing(&self) -> Vec<Event> {
        use Event::{HeldBack, Hit, Queued, Refused, Replica, Shared};
        let mut all = vec![Hit, HeldBack, Replica, Shared, Queued, Refused];
        all.retain(|event| !self.0[*event as usize].load(Ordering::Relaxed));
        all
    }
}

impl Proxy {
    pub fn new(era: u64, tick: u64, guards: Guards) -> Self {
        Self {
            clocks: Clocks::new(era, tick).under(guards),
            tick,
            readers: [Reader::Rest, Reader::Rest],
            entries: [None, None],
            lie: None,
            shown: [0; READERS],
        }
    }

    /// It starts anew and knows nothing.
    pub fn restart(&mut self, era: u64) {
        let (lie, guards) = (self.lie, self.clocks.guards());
        *self = Self {
            lie,
            ..Self::new(era, self.tick + 1, guards)
        };
    }

    /// The cluster's era is another one.
    pub fn begin_era(&mut self, era: u64) {
        self.tick += 1;
        self.clocks.begin_era(era, self.tick);
        self.entries = [None, None];
    }

    pub fn acknowledge(&mut self, scope: &Scope) {
        self.tick += 1;
        self.clocks.acknowledge(scope, self.tick);
    }

    /// A seat for a reader; `answer`: what it gets if it leads.
    pub fn seat(&mut self, r: usize, wait: Wait, (begun, answer): (Begun, Set), met: &Met) {
        let (flights, name) = (Flights::default(), &NAMES[wait.key]);
        let mut running = None;
        for reader in &self.readers {
            if let Reader::Leads { key, begun, .. } = reader
                && *key == wait.key
            {
                running = Some(flights.seat(name, &begun.note, &begun.note));
            }
        }
        let guards = self.clocks.guards();
        let seat = flights.seat(name, &begun.note, &wait.arrived);
        self.readers[r] = match seat {
            Seat::Lead(_) => {
                if wait.must & !answer != 0 {
                    self.lie = Some("its own answer");
                }
                Reader::Leads {
                    key: wait.key,
                    begun,
                    answer,
                }
            }
            Seat::Share(_) => Reader::Waits { wait, shares: true },
            Seat::Queue(_) => {
                met.note(Event::Queued);
                Reader::Waits {
                    wait,
                    shares: !guards.join,
                }
            }
        };
        drop(running);
    }

    /// The leader has its answer.
    pub fn finish(&mut self, r: usize, met: &Met) {
        if let Reader::Leads { key, begun, answer } = std::mem::replace(&mut self.readers[r], Reader::Rest) {
            if !begun.in_flight && self.clocks.may_share(&begun.note) {
                self.entries[key] = Some(Entry {
                    note: begun.note,
                    answer,
                });
            } else {
                met.note(Event::Refused);
            }
            self.end_flight(key, Some(answer), met);
        }
    }

    /// The leader is gone.
    pub fn abandon(&mut self, r: usize, met: &Met) {
        if let Reader::Leads { key, .. } = std::mem::replace(&mut self.readers[r], Reader::Rest) {
            self.end_flight(key, None, met);
        }
    }

    fn end_flight(&mut self, key: usize, answer: Option<Set>, met: &Met) {
        for reader in &mut self.readers {
            let Reader::Waits { wait, shares } = reader else {
                continue;
            };
            if wait.key != key {
                continue;
            }
            *reader = match answer {
                Some(answer) if *shares => {
                    met.note(Event::Shared);
                    if wait.must & !answer != 0 {
                        self.lie = Some("a shared answer");
                    }
                    Reader::Rest
                }
                _ => Reader::Wakes(wait.clone()),
            };
        }
    }

    /// Drops entries that nobody will be given any more, and looks at those that somebody may be given now. `acknowledged`: the
    /// writes that each key must show.
    pub fn look(&mut self, acknowledged: Set, keys: [Set; KEYS], met: &Met) {
        for shown in &mut self.shown {
            *shown &= !acknowledged;
        }
        for (entry, of_key) in self.entries.iter_mut().zip(keys) {
            let Some(there) = entry else { continue };
            let currency = self.clocks.currency(&there.note);
            if currency == Currency::Outdated {
                *entry = None;
                continue;
            }
            for shown in self.shown {
                // Whoever has seen nothing of it may be given what a write on its way is going to end.
                if currency == Currency::InFlight && shown != 0 {
                    met.note(Event::HeldBack);
                    continue;
                }
                if acknowledged != 0 {
                    met.note(Event::Hit);
                }
                if (acknowledged | shown) & of_key & !there.answer != 0 {
                    self.lie = Some("an entry");
                }
            }
        }
    }

    /// A leader for whom nobody waits, whose answer will not be stored, and whom nobody may join any more, might as well be gone.
    pub fn drop_futile(&mut self) {
        for r in 0..READERS {
            let Reader::Leads { key, begun, .. } = &self.readers[r] else {
                continue;
            };
            let is_stored = !begun.in_flight && self.clocks.may_share(&begun.note);
            let is_joined = begun.note.covers(&self.clocks.note(oids_of(&begun.note)));
            let waits = |reader: &Reader| matches!(reader, Reader::Waits { wait, .. } if wait.key == *key);
            if !is_stored && !is_joined && !self.readers.iter().any(waits) {
                self.readers[r] = Reader::Rest;
            }
        }
    }

    pub fn awaits_probe(&self) -> bool {
        self.clocks.fence(oids(A | B)) > Fence::At(pgladder::protocol::lsn::Lsn(u64::MAX))
    }
}

/// A number of the model, all of which are small.
pub fn small<N: TryInto<u8>>(number: N) -> u8 {
    number.try_into().unwrap_or(u8::MAX)
}

/// A fence whose position is not known, in an image.
pub const PENDING: u8 = 0xFF;

/// What decides how a state can go on, as bytes.
pub struct Image {
    bytes: [u8; 96],
    length: usize,
}

impl Image {
    pub fn new() -> Self {
        Self {
            bytes: [0; 96],
            length: 0,
        }
    }

    pub fn put(&mut self, byte: u8) {
        self.bytes[self.length] = byte;
        self.length += 1;
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl Proxy {
    /// `missing`: what a fence leaves out of all that is committed. Returns what anything leaves out; the rest nobody can miss any more.
    pub fn image(&self, image: &mut Image, committed: Set, missing: &dyn Fn(Fence) -> u8) -> Set {
        for one in self.clocks.shown(usize::MAX) {
            image.put(small(one.table.unwrap_or_default()) << 4 | small(one.in_flight));
        }
        let mut in_play = 0;
        for tables in [&[][..], &[1], &[2]] {
            let missing = missing(self.clocks.fence(tables));
            image.put(missing);
            in_play |= if missing == PENDING { 0 } else { missing };
        }
        for entry in &self.entries {
            let missing = entry.as_ref().map(|entry| committed & !entry.answer);
            image.put(missing.unwrap_or(0xFF));
            in_play |= missing.unwrap_or_default();
        }
        for reader in &self.readers {
            if let Reader::Leads { answer, .. } = reader {
                in_play |= committed & !answer;
            }
        }
        let mut readers = [[0; 4]; READERS];
        for (r, out) in readers.iter_mut().enumerate() {
            let [kind, set, facts] = match &self.readers[r] {
                Reader::Rest => [0; 3],
                Reader::Leads { key, begun, answer } => {
                    let note = &begun.note;
                    let other = match &self.readers[1 - r] {
                        Reader::Waits { wait, .. } | Reader::Wakes(wait) => {
                            wait.key == *key && note.covers(&wait.arrived)
                        }
                        _ => false,
                    };
                    let is_current = self.clocks.is_current(note);
                    let may_cover = note.covers(note);
                    let facts = u8::from(may_cover) << 3
                        | u8::from(begun.in_flight) << 2
                        | u8::from(is_current) << 1
                        | u8::from(other);
                    [0x10 | small(*key), committed & !answer, facts]
                }
                Reader::Waits { wait, shares } => {
                    let is_current = self.clocks.is_current(&wait.arrived);
                    let facts = u8::from(*shares) << 1 | u8::from(is_current);
                    [0x20 | small(wait.key), wait.must & in_play, facts]
                }
                Reader::Wakes(wait) => {
                    let is_current = self.clocks.is_current(&wait.arrived);
                    [0x30 | small(wait.key), wait.must & in_play, u8::from(is_current)]
                }
            };
            *out = [kind, set, facts, self.shown[r]];
        }
        if readers[0] > readers[1] {
            readers.swap(0, 1);
        }
        for byte in readers.as_flattened() {
            image.put(*byte);
        }
        image.put(u8::from(self.lie.is_some()));
        in_play
    }
}
