//! The cluster in the model: a primary, a standby that takes its place once, a replica that follows late, and what the proxy knows.
//!
//! Who is primary, which era it is and which replica may be used is the crate's own `Board`'s decision, from polls that come in any
//! order and as late as can be. The primary that was replaced is alive and sure of itself: it goes on answering polls,
//! probes and reads with what it had; one that is dead could only answer less. Invariant: what was acknowledged before the standby took over is there after it, as synchronous
//! replication sees to; one failover happens at most.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Instant;

use pgladder::cluster::decide::{Board, Decision, Observation, Seen};
use pgladder::cluster::{LagLimit, NodeId, Role, Sample};
use pgladder::freshness::fence::Tick;
use pgladder::protocol::lsn::Lsn;

use crate::proxy::Image;

pub const NODES: u16 = 3;
pub const OLD: NodeId = NodeId(0);
const NEW: NodeId = NodeId(1);
const FOLLOWER: NodeId = NodeId(2);

/// What the primary answered when it was asked how far it had written.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Probe {
    pub era: u64,
    pub covers: Tick,
    pub lsn: Lsn,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Cluster {
    board: Arc<Board>,
    /// Stands for the board.
    digest: u64,
    /// When everything happens.
    now: Instant,
    pub era: u64,
    pub timeline: u32,
    pub primary: Option<NodeId>,
    usable: [bool; NODES as usize],
    /// Where the new timeline begins.
    pub fork: Option<Lsn>,
    follows: bool,
}

impl Cluster {
    /// All nodes are known.
    pub fn new(now: Instant) -> Self {
        let mut cluster = Self {
            board: Arc::new(Board::new(NODES.into(), LagLimit::default())),
            digest: 0,
            now,
            era: 1,
            timeline: 0,
            primary: None,
            usable: [false; NODES as usize],
            fork: None,
            follows: false,
        };
        for node in 0..NODES {
            cluster.poll(NodeId(node));
        }
        cluster
    }

    /// The proxy starts anew and has asked nobody.
    pub fn forget(&mut self) {
        (self.board, self.digest) = (Arc::new(Board::new(NODES.into(), LagLimit::default())), 0);
        (self.era, self.timeline, self.primary) = (1, 0, None);
        self.usable = [false; NODES as usize];
    }

    pub fn fail_over(&mut self, written: Lsn) {
        self.fork = Some(written);
    }

    fn truth(&self, node: NodeId) -> Observation {
        let has_failed = self.fork.is_some();
        let (in_recovery, timeline) = match node {
            OLD => (false, 1),
            NEW => (!has_failed, 1 + u32::from(has_failed)),
            _ => (true, 1 + u32::from(self.follows)),
        };
        Observation {
            in_recovery,
            system_identifier: 1,
            timeline,
            started_at: 0,
            connection: 1,
            sample: Sample {
                lsn: Lsn(0),
                written: Lsn(0),
                number: 1,
                sent_at: self.now,
            },
            replay_age: None,
            reads_all_stats: true,
        }
    }

    /// Would a poll tell anything new?
    pub fn has_news(&self, node: NodeId) -> bool {
        let is_late = node == FOLLOWER && self.fork.is_some() && !self.follows;
        is_late || !matches!(self.board.seen(node), Seen::Answered(known) if *known == self.truth(node))
    }

    /// A node is asked who it is. The replica has found a new primary only just now.
    pub fn poll(&mut self, node: NodeId) {
        self.follows |= node == FOLLOWER && self.fork.is_some();
        let truth = self.truth(node);
        let decision = Arc::make_mut(&mut self.board).answered(node, truth);
        self.take(&decision);
        let mut hasher = DefaultHasher::new();
        self.board.hash(&mut hasher);
        self.digest = hasher.finish();
    }

    fn take(&mut self, decision: &Decision) {
        (self.era, self.timeline, self.primary) = (decision.era, decision.timeline, decision.primary);
        for (usable, judged) in self.usable.iter_mut().zip(&decision.nodes) {
            *usable = judged.role == Role::Replica && judged.why_not.is_none();
        }
    }

    /// Has the node that a write was sent to lost its place?
    pub fn is_deposed(&self, node: NodeId) -> bool {
        self.fork.is_some() && node == OLD
    }

    /// What a replica has that is known to have replayed up to there, the one that has least; `None`: there is none to be used.
    pub fn replayed(&self, lsn: Lsn) -> Option<Lsn> {
        let of_old = self.fork.filter(|_| !self.follows);
        if self.usable[FOLLOWER.index()] {
            Some(of_old.map_or(lsn, |fork| fork.min(lsn)))
        } else {
            self.usable[NEW.index()].then_some(lsn)
        }
    }

    /// How far the node has written that is asked as the primary, when `written` is the truth.
    pub fn written(&self, node: NodeId, written: Lsn) -> Lsn {
        match self.fork {
            Some(fork) if node == OLD => fork,
            _ => written,
        }
    }

    /// The prober asks, and nothing has changed when the answer comes. That it comes at once leaves nothing out: what is raised
    /// between question and answer, such as by a new era, the question does not cover.
    pub fn ask(&self, covers: Tick, written: Lsn) -> Option<Probe> {
        let node = self.primary?;
        let era = self.board.era_of(node, &self.truth(node))?;
        let lsn = self.written(node, written);
        Some(Probe { era, covers, lsn })
    }

    /// What the new timeline begins with, while anybody is asked who may have no more.
    pub fn left_behind(&self) -> Option<Lsn> {
        self.fork.filter(|_| self.timeline < 2 || !self.follows)
    }

    pub fn image(&self, image: &mut Image) {
        for byte in self.digest.to_le_bytes() {
            image.put(byte);
        }
        image.put(u8::from(self.fork.is_some()) << 1 | u8::from(self.follows));
    }
}
