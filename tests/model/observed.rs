//! The world without a stream: two writers, two tables, two sessions that read, replicas, a lost connection, a new start of the proxy.
//!
//! A write is announced, completed before or after its commit, told to its client, over; or it fails, or loses its connection and is
//! committed later. A commit that its client was not told of may be visible on the primary before; a replica may be as far behind as
//! its fence lets it. The contract: no read misses what was acknowledged before it began, and no session that was shown a known
//! write by the primary is shown less afterwards.

use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Instant;

use pgladder::cluster::NodeId;
use pgladder::freshness::clocks::{Begun, Mark};
use pgladder::freshness::fence::Fence;
use pgladder::freshness::guards::Guards;
use pgladder::protocol::lsn::Lsn;
use stateright::{Model, Property};

use crate::cluster::{Cluster, NODES, OLD};
use crate::proxy::{Event, HOLDS, Image, KEYS, Met, PENDING, Proxy, Reader, Set, Wait, oids, scope, small};

pub const WRITERS: usize = 2;

/// What one write changes, and whether its text tells.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Write {
    pub tables: Set,
    pub is_known: bool,
}

/// How far a write is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum At {
    Rest,
    Sent,
    /// Its statement is complete, and not yet committed.
    Completed,
    /// Committed, and its client was told, before the clocks were.
    Unheard,
    /// Committed, and its client was told; its unit is not over.
    Told,
    /// Its connection was lost. It may be committed yet.
    Lost,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Writer {
    pub over: u8,
    pub at: At,
    /// CommandComplete came before the commit.
    pub is_completed: bool,
    /// The primary shows it, though nobody was told.
    pub is_visible: bool,
    /// Where it was sent.
    pub node: NodeId,
    pub mark: Option<Mark>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct State {
    /// Acknowledged writes, in the order of the log.
    pub log: Vec<Set>,
    pub writers: [Writer; WRITERS],
    pub proxy: Proxy,
    pub restarts: u8,
    pub breaks: u8,
    /// Where a failover may come.
    pub cluster: Option<Box<Cluster>>,
}

#[derive(Debug, Clone)]
pub struct Observed {
    pub guards: Guards,
    /// The clocks hear of a write after its client does.
    pub is_late: bool,
    pub scripts: [Vec<Write>; WRITERS],
    /// What each key reads.
    pub keys: Vec<Set>,
    pub restarts: u8,
    pub breaks: u8,
    /// The standby may take the primary's place.
    pub fails_over: bool,
    pub met: Arc<Met>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Action {
    Send(usize),
    Complete(usize),
    Show(usize),
    Commit(usize),
    Hear(usize),
    End(usize),
    Fail(usize),
    Break(usize),
    Gone(usize),
    Probe,
    Peek(usize),
    Read(usize, usize),
    Wake(usize),
    Finish(usize),
    Abandon(usize),
    Restart,
    FailOver,
    Poll(NodeId),
    BeginEra,
}

impl Hash for State {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        let mut image = Image::new();
        for writer in &self.writers {
            image.put(
                writer.over << 5
                    | u8::from(writer.is_completed) << 4
                    | u8::from(writer.is_visible) << 3
                    | writer.at as u8,
            );
        }
        image.put(self.restarts << 2 | self.breaks);
        let committed = self.committed();
        self.proxy.image(&mut image, committed, &|fence| match fence {
            Fence::At(lsn) => committed & !self.up_to(lsn),
            Fence::Pending(_) => PENDING,
        });
        if let Some(cluster) = &self.cluster {
            self.image_of(cluster, &mut image);
        }
        hasher.write(image.bytes());
    }
}

impl Writer {
    fn new() -> Self {
        Self {
            over: 0,
            at: At::Rest,
            is_completed: false,
            is_visible: false,
            node: OLD,
            mark: None,
        }
    }
}

impl State {
    fn image_of(&self, cluster: &Cluster, image: &mut Image) {
        cluster.image(image);
        let missing = |lsn: Lsn| self.committed() & !self.up_to(lsn);
        image.put(cluster.left_behind().map_or(0, missing));
        image.put(u8::from(cluster.era == self.proxy.clocks.era()));
        for writer in &self.writers {
            image.put(u8::from(writer.node == OLD));
        }
    }

    fn acknowledged(&self) -> Set {
        self.up_to(Lsn(self.log.len() as u64))
    }

    /// What a read that begins so is answered, at the least; `None`: nobody is there to answer it.
    fn answer(&self, begun: &Begun, met: &Met) -> Option<Set> {
        let Some(cluster) = &self.cluster else {
            return Some(match begun.fence {
                Fence::At(lsn) => {
                    met.note(Event::Replica);
                    self.up_to(lsn)
                }
                Fence::Pending(_) => self.committed(),
            });
        };
        if let Fence::At(lsn) = begun.fence
            && begun.era == cluster.era
            && let Some(replayed) = cluster.replayed(lsn)
        {
            met.note(Event::Replica);
            return Some(self.up_to(replayed));
        }
        let primary = cluster.primary?;
        Some(match cluster.fork {
            Some(fork) if primary == OLD => self.up_to(fork),
            _ => self.committed(),
        })
    }

    fn has_primary(&self) -> bool {
        self.cluster
            .as_ref()
            .is_none_or(|cluster| cluster.primary.is_some())
    }

    /// Was the write sent to a node that is no primary any more?
    fn is_deposed(&self, w: usize) -> bool {
        let node = self.writers[w].node;
        self.cluster
            .as_ref()
            .is_some_and(|cluster| cluster.is_deposed(node))
    }

    /// What the primary shows.
    fn committed(&self) -> Set {
        let mut all = self.acknowledged();
        for (w, writer) in self.writers.iter().enumerate() {
            if writer.is_visible {
                all |= bit(w, writer.over);
            }
        }
        all
    }

    /// What has been written up to there.
    fn up_to(&self, lsn: Lsn) -> Set {
        let mut all = 0;
        for write in &self.log[..usize::from(small(lsn.0))] {
            all |= write;
        }
        all
    }
}

fn bit(w: usize, number: u8) -> Set {
    1 << (4 * w + usize::from(number))
}

impl Observed {
    fn write(&self, state: &State, w: usize) -> Write {
        self.scripts[w][usize::from(state.writers[w].over)]
    }

    /// The writes that change these tables.
    fn of(&self, tables: Set) -> Set {
        let mut all = 0;
        for (w, script) in self.scripts.iter().enumerate() {
            for (at, write) in script.iter().enumerate() {
                if write.tables & tables != 0 {
                    all |= 1 << (4 * w + at);
                }
            }
        }
        all
    }

    /// What the primary shows of known writes that are not acknowledged.
    fn known_on_their_way(&self, state: &State) -> Set {
        let mut all = 0;
        for (w, writer) in state.writers.iter().enumerate() {
            if writer.is_visible && self.write(state, w).is_known {
                all |= bit(w, writer.over);
            }
        }
        all
    }

    fn raise(&self, state: &mut State, w: usize) {
        let write = self.write(state, w);
        state.proxy.acknowledge(&scope(write.tables, write.is_known));
    }

    fn commit(state: &mut State, w: usize) {
        state.writers[w].is_visible = false;
        state.log.push(bit(w, state.writers[w].over));
    }

    fn land(state: &mut State, w: usize) {
        let writer = &mut state.writers[w];
        if let Some(mark) = writer.mark.take() {
            state.proxy.clocks.land(mark);
        }
        *writer = Writer {
            over: writer.over + 1,
            ..Writer::new()
        };
    }

    fn send(&self, state: &mut State, w: usize) {
        let primary = state.cluster.as_ref().and_then(|cluster| cluster.primary);
        let write = self.write(state, w);
        let mark = state.proxy.clocks.announce(scope(write.tables, write.is_known));
        let writer = &mut state.writers[w];
        (writer.at, writer.node, writer.mark) = (At::Sent, primary.unwrap_or(OLD), Some(mark));
    }

    fn step_writer(&self, state: &mut State, w: usize, action: Action) {
        let at = state.writers[w].at;
        match action {
            Action::Send(_) => self.send(state, w),
            Action::Complete(_) => {
                self.raise(state, w);
                (state.writers[w].at, state.writers[w].is_completed) = (At::Completed, true);
            }
            Action::Show(_) => state.writers[w].is_visible = true,
            Action::Commit(_) => {
                Self::commit(state, w);
                if self.is_late {
                    state.writers[w].at = At::Unheard;
                } else {
                    self.raise(state, w);
                    state.writers[w].at = At::Told;
                }
            }
            Action::Hear(_) => {
                self.raise(state, w);
                state.writers[w].at = At::Told;
            }
            Action::End(_) => {
                if at != At::Told {
                    Self::commit(state, w);
                }
                if self.guards.ready {
                    self.raise(state, w);
                }
                Self::land(state, w);
            }
            Action::Fail(_) => {
                // What cannot be told may have committed before it failed.
                let is_unknown = !self.write(state, w).is_known;
                if is_unknown {
                    Self::commit(state, w);
                }
                if is_unknown || at == At::Completed && self.guards.ready {
                    self.raise(state, w);
                }
                Self::land(state, w);
            }
            Action::Break(_) => {
                if !state.is_deposed(w) {
                    state.breaks -= 1;
                }
                self.raise(state, w);
                state.writers[w].at = At::Lost;
                if at == At::Told {
                    self.raise(state, w);
                    Self::land(state, w);
                }
            }
            _ => {
                // A standby that has taken over may have it; the primary that was replaced shows it to nobody.
                if !state.is_deposed(w)
                    || state
                        .cluster
                        .as_ref()
                        .is_some_and(|cluster| cluster.timeline == 2)
                {
                    Self::commit(state, w);
                }
                self.raise(state, w);
                Self::land(state, w);
            }
        }
    }

    fn look(&self, next: &mut State) {
        let mut keys = [0; KEYS];
        for (of_key, tables) in keys.iter_mut().zip(&self.keys) {
            *of_key = self.of(*tables);
        }
        let acknowledged = next.acknowledged();
        next.proxy.look(acknowledged, keys, &self.met);
    }

    fn of_writers(&self, state: &State, actions: &mut Vec<Action>) {
        for (w, writer) in state.writers.iter().enumerate() {
            if state.is_deposed(w) {
                match writer.at {
                    At::Rest => {}
                    At::Sent | At::Completed => actions.push(Action::Break(w)),
                    At::Told => actions.extend([Action::End(w), Action::Break(w)]),
                    At::Unheard => actions.push(Action::Hear(w)),
                    At::Lost => actions.push(Action::Gone(w)),
                }
                if writer.at != At::Rest {
                    continue;
                }
            }
            match writer.at {
                At::Rest if usize::from(writer.over) < self.scripts[w].len() && state.has_primary() => {
                    actions.push(Action::Send(w));
                }
                At::Rest => {}
                At::Sent => {
                    actions.push(Action::Commit(w));
                    if !writer.is_visible {
                        actions.extend([Action::Complete(w), Action::Fail(w)]);
                    }
                }
                At::Completed => {
                    actions.push(Action::End(w));
                    if !writer.is_visible {
                        actions.push(Action::Fail(w));
                    }
                }
                At::Unheard => actions.push(Action::Hear(w)),
                At::Told => actions.push(Action::End(w)),
                At::Lost => actions.push(Action::Gone(w)),
            }
            // What was shown and then lost in a failover was promised to nobody.
            let may_show = !self.fails_over && !writer.is_visible;
            if may_show && matches!(writer.at, At::Sent | At::Completed | At::Lost) {
                actions.push(Action::Show(w));
            }
            if state.breaks > 0 && matches!(writer.at, At::Sent | At::Completed | At::Told) {
                actions.push(Action::Break(w));
            }
        }
    }

    fn of_readers(&self, state: &State, actions: &mut Vec<Action>) {
        let on_their_way = self.known_on_their_way(state);
        for (r, reader) in state.proxy.readers.iter().enumerate() {
            match reader {
                Reader::Rest => {
                    if on_their_way != 0 && state.proxy.shown[r] != on_their_way {
                        actions.push(Action::Peek(r));
                    }
                    for key in 0..self.keys.len() {
                        if state.proxy.entries[key].is_none() {
                            actions.push(Action::Read(r, key));
                        }
                    }
                }
                Reader::Leads { .. } => {
                    actions.push(Action::Finish(r));
                    // Where nobody waits, it might as well never have begun.
                    if matches!(state.proxy.readers[1 - r], Reader::Waits { .. }) {
                        actions.push(Action::Abandon(r));
                    }
                }
                Reader::Waits { .. } => {}
                Reader::Wakes(_) => actions.push(Action::Wake(r)),
            }
        }
    }

    fn step_cluster(state: &mut State, action: Action) -> Option<()> {
        let written = Lsn(state.log.len() as u64);
        let (cluster, proxy) = (state.cluster.as_mut()?, &mut state.proxy);
        match action {
            Action::FailOver => cluster.fail_over(written),
            Action::Poll(node) => cluster.poll(node),
            Action::BeginEra => proxy.begin_era(cluster.era),
            _ => {
                let probe = cluster.ask(proxy.tick, written)?;
                proxy.clocks.settle(probe.era, probe.covers, probe.lsn);
            }
        }
        Some(())
    }

    /// A read that leads is answered by a replica that has replayed what it must and nothing else, or, where no replica may, by what
    /// is committed now.
    fn seat(&self, state: &mut State, r: usize, wait: Wait) -> Option<()> {
        let tables = self.keys[wait.key];
        let begun = state.proxy.clocks.begin(oids(tables), Fence::OPEN);
        if begun.known_in_flight && state.proxy.shown[r] != 0 {
            // The primary answers this reader, and nobody shares that.
            return None;
        }
        let answer = state.answer(&begun, &self.met)?;
        state
            .proxy
            .seat(r, wait, (begun, answer & self.of(tables)), &self.met);
        Some(())
    }
}

impl Model for Observed {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let cluster = Cluster::new(Instant::now());
        let era = if self.fails_over { cluster.era } else { 1 };
        vec![State {
            log: Vec::new(),
            writers: [Writer::new(), Writer::new()],
            proxy: Proxy::new(era, 1, self.guards),
            restarts: self.restarts,
            breaks: self.breaks,
            cluster: self.fails_over.then(|| Box::new(cluster)),
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.proxy.lie.is_some() {
            return;
        }
        self.of_writers(state, actions);
        self.of_readers(state, actions);
        if let Some(cluster) = &state.cluster {
            let awaits = state.proxy.awaits_probe() && cluster.primary.is_some();
            let may = [
                (awaits, Action::Probe),
                (cluster.fork.is_none(), Action::FailOver),
                (cluster.era != state.proxy.clocks.era(), Action::BeginEra),
            ];
            actions.extend(may.into_iter().filter(|(may, _)| *may).map(|(_, action)| action));
            let nodes = (0..NODES).map(NodeId).filter(|node| cluster.has_news(*node));
            actions.extend(nodes.map(Action::Poll));
        } else if state.proxy.awaits_probe() {
            actions.push(Action::Probe);
        }
        if state.restarts > 0 {
            actions.push(Action::Restart);
        }
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let mut next = state.clone();
        match action {
            Action::Send(w)
            | Action::Complete(w)
            | Action::Show(w)
            | Action::Commit(w)
            | Action::Hear(w)
            | Action::End(w)
            | Action::Fail(w)
            | Action::Break(w)
            | Action::Gone(w) => self.step_writer(&mut next, w, action),
            Action::Probe if next.cluster.is_none() => {
                let (covers, written) = (next.proxy.tick, Lsn(next.log.len() as u64));
                next.proxy.clocks.settle(1, covers, written);
            }
            Action::Peek(r) => next.proxy.shown[r] = self.known_on_their_way(&next),
            Action::Read(r, key) => {
                let tables = self.keys[key];
                let must = (next.acknowledged() | next.proxy.shown[r]) & self.of(tables);
                let arrived = next.proxy.clocks.note(oids(tables));
                self.seat(&mut next, r, Wait { key, must, arrived })?;
            }
            Action::Wake(r) => {
                let Reader::Wakes(wait) = next.proxy.readers[r].clone() else {
                    return None;
                };
                if next.proxy.entries[wait.key].is_some() {
                    // What is there is right for who comes now, and so for who came before.
                    next.proxy.readers[r] = Reader::Rest;
                } else {
                    self.seat(&mut next, r, wait)?;
                }
            }
            Action::Probe | Action::FailOver | Action::Poll(_) | Action::BeginEra => {
                Self::step_cluster(&mut next, action)?;
            }
            Action::Finish(r) => next.proxy.finish(r, &self.met),
            Action::Abandon(r) => next.proxy.abandon(r, &self.met),
            Action::Restart => {
                next.restarts -= 1;
                next.proxy.restart(1);
                if let Some(cluster) = &mut next.cluster {
                    cluster.forget();
                }
                for writer in &mut next.writers {
                    // Nobody will be told of it.
                    if writer.at != At::Rest {
                        *writer = Writer {
                            over: writer.over + 1,
                            ..Writer::new()
                        };
                    }
                }
            }
        }
        self.look(&mut next);
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![Property::always(HOLDS, |_, state: &State| {
            state.proxy.lie.is_none()
        })]
    }
}
