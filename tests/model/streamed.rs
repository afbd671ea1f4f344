//! The world with a stream: one writer through the proxy, one past it, and what the stream tells, late and in the order of the log.
//!
//! A commit stands in the log before the primary shows it, and may be streamed before either, or long after its client was told. What a
//! stream carries, and up to when it is current, is the crate's own `State`'s decision. The contract: no read misses what was
//! acknowledged through the proxy before it began; nor, of what the stream carries, anything acknowledged to anybody before the
//! moment as of which the stream is current. A stream may end at any time, and another begin.

use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::{Duration, Instant};

use pgladder::freshness::clocks::Mark;
use pgladder::freshness::fence::Fence;
use pgladder::freshness::guards::Guards;
use pgladder::protocol::lsn::Lsn;
use pgladder::stream::pgoutput::Committed;
use pgladder::stream::snapshot::Snapshot;
use pgladder::stream::state::State as Stream;
use stateright::{Model, Property};

use crate::proxy::{Event, HOLDS, Image, KEYS, Met, PENDING, Proxy, Reader, Set, Wait, oids, scope, small};

pub const THROUGH: usize = 0;
pub const PAST: usize = 1;

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum At {
    Rest,
    /// It has written, and has a number.
    Sent,
    /// It stands in the log, and the primary does not show it.
    Logged,
    /// Its client was told; its unit is not over.
    Told,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Writer {
    over: u8,
    at: At,
    xid: u32,
    /// It wrote after its tables were published.
    is_published: bool,
    mark: Option<Mark>,
}

/// A commit in the log.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Logged {
    write: Set,
    tables: Set,
    xid: u32,
    is_published: bool,
}

/// A stream that runs, and what was acknowledged to anybody when a poll was sent whose position it has still to pass, or has passed.
#[derive(Debug, Clone, PartialEq)]
struct Running {
    state: Stream<Mark>,
    /// Commits of the log that it has been through.
    heard: u8,
    polled: Option<Set>,
    current: Option<Set>,
    /// The barrier is being asked for.
    barrier: Option<u64>,
    /// Streamed commits that were seen on the primary.
    seen: Set,
}

#[derive(Debug, Clone, PartialEq)]
pub struct State {
    log: Vec<Logged>,
    writers: [Writer; 2],
    /// What anybody was told of.
    told: [Set; 2],
    next: u32,
    proxy: Proxy,
    stream: Option<Running>,
    streams: u8,
    restarts: u8,
    polls: u32,
}

#[derive(Debug, Clone)]
pub struct Streamed {
    pub guards: Guards,
    pub scripts: [Vec<Set>; 2],
    pub keys: Vec<Set>,
    /// Streams that may begin.
    pub streams: u8,
    pub restarts: u8,
    pub origin: Instant,
    pub met: Arc<Met>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Action {
    Send(usize),
    Log(usize),
    Show(usize),
    End,
    Probe,
    Begin,
    Hear,
    Look,
    Poll,
    Cease,
    Read(usize, usize),
    Finish(usize),
    Restart,
}

impl Hash for State {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        let mut image = Image::new();
        for writer in &self.writers {
            let facts = u8::from(writer.is_published) << 2;
            image.put(writer.over << 4 | facts | writer.at as u8);
        }
        image.put(self.streams << 4 | self.restarts);
        let logged = self.logged(self.log.len());
        let in_play = self.proxy.image(&mut image, logged, &|fence| match fence {
            Fence::At(lsn) => logged & !self.up_to(lsn),
            Fence::Pending(_) => PENDING,
        });
        if let Some(stream) = &self.stream {
            self.image_of(stream, &mut image, in_play);
        }
        hasher.write(image.bytes());
    }
}

impl State {
    fn image_of(&self, stream: &Running, image: &mut Image, in_play: Set) {
        let heard = usize::from(stream.heard);
        let is_carried = stream.state.carried().next().is_some();
        image.put(u8::from(is_carried) << 1 | u8::from(stream.barrier.is_some()));
        if let Some(xmax) = stream.barrier.filter(|_| !is_carried) {
            let is_below =
                |writer: &Writer| matches!(writer.at, At::Sent | At::Logged) && u64::from(writer.xid) < xmax;
            image.put(u8::from(is_below(&self.writers[0])) << 1 | u8::from(is_below(&self.writers[1])));
        }
        image.put(stream.polled.map_or(PENDING, |told| told & in_play));
        image.put(stream.current.unwrap_or_default() & in_play);
        // Of the ledger, and still to come.
        image.put(self.logged(heard) & !stream.seen);
        for commit in &self.log[heard..] {
            image.put(commit.write);
            image.put(u8::from(commit.is_published));
        }
    }

    fn logged(&self, length: usize) -> Set {
        let mut all = 0;
        for commit in &self.log[..length] {
            all |= commit.write;
        }
        all
    }

    fn up_to(&self, lsn: Lsn) -> Set {
        self.logged(small(lsn.0).into())
    }

    /// What a read on the primary shows.
    fn visible(&self) -> Set {
        let mut all = self.logged(self.log.len());
        for (w, writer) in self.writers.iter().enumerate() {
            if writer.at == At::Logged {
                all &= !bit(w, writer.over);
            }
        }
        all
    }

    /// The primary's snapshot.
    fn snapshot(&self) -> Snapshot {
        let is_running = |writer: &&Writer| matches!(writer.at, At::Sent | At::Logged);
        let mut running: Vec<u32> = self
            .writers
            .iter()
            .filter(is_running)
            .map(|writer| writer.xid)
            .collect();
        running.sort_unstable();
        let xmin = running.first().copied().unwrap_or(self.next);
        let listed: Vec<String> = running.iter().map(u32::to_string).collect();
        let text = format!("{xmin}:{}:{}", self.next, listed.join(","));
        text.parse().expect("a snapshot")
    }

    /// What a read of all tables must show.
    fn must(&self) -> Set {
        let current = self
            .stream
            .as_ref()
            .filter(|stream| stream.state.carried().next().is_some());
        self.told[THROUGH] | current.and_then(|stream| stream.current).unwrap_or_default()
    }
}

fn bit(w: usize, number: u8) -> Set {
    1 << (4 * w + usize::from(number))
}

impl Writer {
    fn new(over: u8) -> Self {
        Self {
            over,
            at: At::Rest,
            xid: 0,
            is_published: false,
            mark: None,
        }
    }
}

impl Running {
    fn pass(&mut self) {
        if !self.state.is_behind() && self.polled.is_some() {
            self.current = self.polled.take();
        }
    }
}

impl Streamed {
    fn of(&self, tables: Set) -> Set {
        let mut all = 0;
        for (w, script) in self.scripts.iter().enumerate() {
            for (number, written) in (0..).zip(script) {
                if written & tables != 0 {
                    all |= bit(w, number);
                }
            }
        }
        all
    }

    fn tables(&self, state: &State, w: usize) -> Set {
        self.scripts[w][usize::from(state.writers[w].over)]
    }

    fn raise(&self, state: &mut State) {
        let scope = scope(self.tables(state, THROUGH), true);
        state.proxy.acknowledge(&scope);
    }

    fn end(&self, state: &mut State) {
        self.raise(state);
        if let Some(mark) = state.writers[THROUGH].mark.take() {
            state.proxy.clocks.land(mark);
        }
        state.writers[THROUGH] = Writer::new(state.writers[THROUGH].over + 1);
    }

    fn step_writer(&self, state: &mut State, action: Action) {
        match action {
            Action::Send(w) => {
                let scope = scope(self.tables(state, w), true);
                let is_published = state.stream.is_some();
                let writer = &mut state.writers[w];
                (writer.at, writer.xid, writer.is_published) = (At::Sent, state.next, is_published);
                state.next += 1;
                if w == THROUGH {
                    writer.mark = Some(state.proxy.clocks.announce(scope));
                }
            }
            Action::Log(w) => {
                let tables = self.tables(state, w);
                let writer = &mut state.writers[w];
                writer.at = At::Logged;
                let Writer {
                    over,
                    xid,
                    is_published,
                    ..
                } = *writer;
                state.log.push(Logged {
                    write: bit(w, over),
                    tables,
                    xid,
                    is_published,
                });
            }
            Action::Show(w) => {
                state.told[w] |= bit(w, state.writers[w].over);
                if w == PAST {
                    state.writers[w] = Writer::new(state.writers[w].over + 1);
                } else {
                    self.raise(state);
                    state.writers[w].at = At::Told;
                }
            }
            _ => self.end(state),
        }
    }

    fn step_stream(&self, state: &mut State, action: Action) -> Option<()> {
        match action {
            Action::Begin => {
                let mut stream =
                    Stream::new(Lsn(state.log.len() as u64), state.snapshot(), false).under(self.guards);
                stream.publish(oids(3));
                let heard = small(state.log.len());
                state.stream = Some(Running {
                    state: stream,
                    heard,
                    polled: None,
                    current: None,
                    barrier: None,
                    seen: 0,
                });
                state.streams -= 1;
            }
            Action::Hear => Self::hear(state)?,
            Action::Look => Self::look_at_primary(state)?,
            Action::Poll => {
                state.polls += 1;
                let told = state.told[0] | state.told[1];
                let written = Lsn(state.log.len() as u64);
                let stream = state.stream.as_mut()?;
                stream.polled = Some(told);
                stream
                    .state
                    .polled(self.origin + Duration::from_secs(state.polls.into()), written);
                stream.pass();
            }
            _ => Self::cease(state)?,
        }
        Some(())
    }

    /// The next commit of the log is decoded, and told if it is published.
    fn hear(state: &mut State) -> Option<()> {
        let stream = state.stream.as_mut()?;
        let commit = *state.log.get(usize::from(stream.heard))?;
        stream.heard += 1;
        let end = Lsn(stream.heard.into());
        if commit.is_published {
            let (proxy, tables) = (&mut state.proxy, oids(commit.tables));
            proxy.tick += 1;
            let mark = proxy
                .clocks
                .witness_unseen(proxy.clocks.era(), tables, end, proxy.tick);
            let committed = Committed {
                xid: commit.xid,
                tables: tables.to_vec(),
                end,
            };
            stream.state.commit(&committed, mark).ok()?;
        } else {
            stream.seen |= commit.write;
        }
        stream.state.advance(end);
        stream.pass();
        Some(())
    }

    /// The primary is asked for a snapshot; `None`: it tells nothing.
    fn look_at_primary(state: &mut State) -> Option<()> {
        let (snapshot, visible) = (state.snapshot(), state.visible());
        let heard = state.logged(state.stream.as_ref()?.heard.into());
        let stream = state.stream.as_mut()?;
        let before = (stream.barrier, stream.state.unseen());
        let number = stream.state.ask();
        let xmax = snapshot.xmax;
        let shown = stream.state.show(number, snapshot);
        stream.barrier.get_or_insert(xmax);
        stream.seen |= heard & visible;
        if shown.carried.is_empty() && before == (stream.barrier, stream.state.unseen()) {
            return None;
        }
        for mark in shown.landed {
            state.proxy.clocks.land(mark);
        }
        if !shown.carried.is_empty() {
            state.proxy.acknowledge(&scope(3, true));
        }
        Some(())
    }

    fn cease(state: &mut State) -> Option<()> {
        let stream = state.stream.take()?;
        state.proxy.acknowledge(&scope(3, true));
        for mark in stream.state.end() {
            state.proxy.clocks.land(mark);
        }
        Self::unpublish(state);
        Some(())
    }

    fn unpublish(state: &mut State) {
        for writer in &mut state.writers {
            writer.is_published = false;
        }
        for commit in &mut state.log {
            commit.is_published = false;
        }
    }

    fn restart(state: &mut State) {
        state.restarts -= 1;
        state.proxy.restart(1);
        state.stream = None;
        Self::unpublish(state);
        // What is not in the log never will be; what is, nobody will be told of.
        if state.writers[THROUGH].at != At::Rest {
            state.writers[THROUGH] = Writer::new(state.writers[THROUGH].over + 1);
        }
    }

    fn seat(&self, state: &mut State, r: usize, wait: Wait) {
        let tables = self.keys[wait.key];
        let begun = state.proxy.clocks.begin(oids(tables), Fence::OPEN);
        let answer = match begun.fence {
            Fence::At(lsn) => {
                self.met.note(Event::Replica);
                // Either may serve; what one of both misses counts as missed.
                state.up_to(lsn) & state.visible()
            }
            Fence::Pending(_) => state.visible(),
        };
        state
            .proxy
            .seat(r, wait, (begun, answer & self.of(tables)), &self.met);
    }
}

impl Streamed {
    fn of_writers(&self, state: &State, actions: &mut Vec<Action>) {
        for (w, writer) in state.writers.iter().enumerate() {
            match writer.at {
                At::Rest if usize::from(writer.over) < self.scripts[w].len() => actions.push(Action::Send(w)),
                At::Rest => {}
                At::Sent => actions.push(Action::Log(w)),
                At::Logged => actions.push(Action::Show(w)),
                At::Told => actions.push(Action::End),
            }
        }
    }

    fn of_stream(state: &State, actions: &mut Vec<Action>) {
        let Some(stream) = &state.stream else {
            if state.streams > 0 {
                actions.push(Action::Begin);
            }
            return;
        };
        if stream.state.carried().next().is_some() {
            actions.push(Action::Cease);
        }
        if usize::from(stream.heard) < state.log.len() {
            actions.push(Action::Hear);
        }
        if stream.state.wants_snapshot() {
            actions.push(Action::Look);
        }
        if stream.polled.is_none() && stream.current != Some(state.told[0] | state.told[1]) {
            actions.push(Action::Poll);
        }
    }
}

impl Model for Streamed {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            log: Vec::new(),
            writers: [Writer::new(0), Writer::new(0)],
            told: [0; 2],
            next: 10,
            proxy: Proxy::new(1, 1, self.guards),
            stream: None,
            streams: self.streams,
            restarts: self.restarts,
            polls: 0,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.proxy.lie.is_some() {
            return;
        }
        self.of_writers(state, actions);
        Self::of_stream(state, actions);
        if state.proxy.awaits_probe() {
            actions.push(Action::Probe);
        }
        for (r, reader) in state.proxy.readers.iter().enumerate() {
            match reader {
                Reader::Rest => {
                    let keys = 0..self.keys.len();
                    let missed = keys.filter(|key| state.proxy.entries[*key].is_none());
                    actions.extend(missed.map(|key| Action::Read(r, key)));
                }
                Reader::Leads { .. } => actions.push(Action::Finish(r)),
                Reader::Waits { .. } | Reader::Wakes(_) => {}
            }
        }
        if state.restarts > 0 {
            actions.push(Action::Restart);
        }
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let mut next = state.clone();
        match action {
            Action::Send(_) | Action::Log(_) | Action::Show(_) | Action::End => {
                self.step_writer(&mut next, action);
            }
            Action::Begin | Action::Hear | Action::Look | Action::Poll | Action::Cease => {
                self.step_stream(&mut next, action)?;
            }
            Action::Probe => {
                let (covers, written) = (next.proxy.tick, Lsn(next.log.len() as u64));
                next.proxy.clocks.settle(1, covers, written);
            }
            Action::Read(r, key) => {
                let must = next.must() & self.of(self.keys[key]);
                let arrived = next.proxy.clocks.note(oids(self.keys[key]));
                self.seat(&mut next, r, Wait { key, must, arrived });
            }
            Action::Finish(r) => next.proxy.finish(r, &self.met),
            Action::Restart => Self::restart(&mut next),
        }
        let mut keys = [0; KEYS];
        for (of_key, tables) in keys.iter_mut().zip(&self.keys) {
            *of_key = self.of(*tables);
        }
        let must = next.must();
        next.proxy.drop_futile();
        next.proxy.look(must, keys, &self.met);
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![Property::always(HOLDS, |_, state: &State| {
            state.proxy.lie.is_none()
        })]
    }
}
