//! From what the nodes answered to who is what: the rules of failover and lag, without any I/O.
//!
//! `running` calls `Board::judge` after every answer or failure, under its lock, and publishes the result. Invariants: at most
//! one primary; never one on a lower timeline than a primary seen before, nor of another system; a replica is usable only in
//! recovery, on the primary's timeline and system, and within the lag limit; the era grows whenever the primary's incarnation
//! is not the one of the view before. Nothing here waits; time comes in with the observations.

use super::{
    lag::{Gate, History},
    node_id::NodeId,
    settings::LagLimit,
    view::{NotUsable, Role, Sample},
};
use crate::protocol::lsn::Lsn;
use std::time::{Duration, Instant};

/// A primary that took part in a conflict still counts in it for this many failed polls: a node that we merely cannot reach has
/// not yielded, but one that is gone for good must not forbid writes for ever.
const CLAIM_FAILURES_MAX: u32 = 5;

/// What one node answered to one poll.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Observation {
    /// `pg_is_in_recovery()`.
    pub in_recovery: bool,
    /// `pg_control_system().system_identifier`.
    pub system_identifier: u64,
    /// A primary's own; a replica's received timeline, or else its last restartpoint's.
    pub timeline: u32,
    /// `pg_postmaster_start_time()` in microseconds of the epoch.
    pub started_at: i64,
    /// Which of this process's control connections to the node answered: another one means that the last was lost.
    pub connection: u64,
    /// Replayed on a replica, flushed on a primary.
    pub sample: Sample,
    /// Age of the last replayed commit by the replica's clock.
    pub replay_age: Option<Duration>,
    /// Whether the control user may see the WAL receiver's timeline.
    pub reads_all_stats: bool,
}

/// The latest about one node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Seen {
    /// Nothing yet.
    NotAsked,
    /// It answered.
    Answered(Observation),
    /// It did not; how often in a row, and why.
    Failed {
        /// Polls that failed since the last answer.
        times: u32,
        /// The last error.
        error: String,
    },
}

/// The judgement of one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judged {
    /// What it is.
    pub role: Role,
    /// `None`: usable.
    pub why_not: Option<NotUsable>,
    /// Bytes and time behind the primary; replicas on its timeline only.
    pub lag: Option<(u64, Duration)>,
}

/// The judgement of all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// See `ClusterView::era`.
    pub era: u64,
    /// Who takes writes.
    pub primary: Option<NodeId>,
    /// The cluster's identity, once known.
    pub system_identifier: Option<u64>,
    /// The highest timeline that a primary of this cluster was seen on.
    pub timeline: u32,
    /// Primaries of equal timeline.
    pub conflict: Vec<NodeId>,
    /// By node id.
    pub nodes: Vec<Judged>,
}

/// A primary between two restarts, as this process has known it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Incarnation {
    node: NodeId,
    timeline: u32,
    started_at: i64,
    connection: u64,
}

/// All observations, and what must be remembered between judgements.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Board {
    seen: Vec<Seen>,
    gates: Vec<Gate>,
    limit: LagLimit,
    history: History,
    era: u64,
    system_identifier: Option<u64>,
    timeline: u32,
    incarnation: Option<Incarnation>,
    conflict: Vec<NodeId>,
}

impl Board {
    /// A board for this many nodes, none of which has been asked.
    pub fn new(nodes: usize, limit: LagLimit) -> Self {
        Self {
            seen: vec![Seen::NotAsked; nodes],
            gates: vec![Gate::In; nodes],
            limit,
            history: History::default(),
            era: 1,
            system_identifier: None,
            timeline: 0,
            incarnation: None,
            conflict: Vec::new(),
        }
    }

    /// The latest about a node.
    pub fn seen(&self, node: NodeId) -> &Seen {
        &self.seen[node.index()]
    }

    /// The era, if the answer came from the very primary, neither restarted nor replaced, that the era is about.
    pub fn era_of(&self, node: NodeId, answer: &Observation) -> Option<u64> {
        let known = self.incarnation?;
        let same = known.node == node
            && known.timeline == answer.timeline
            && known.started_at == answer.started_at
            && self.system_identifier == Some(answer.system_identifier)
            && !answer.in_recovery;
        same.then_some(self.era)
    }

    /// A node answered.
    pub fn answered(&mut self, node: NodeId, observation: Observation) -> Decision {
        self.seen[node.index()] = Seen::Answered(observation);
        self.judge(Some(node))
    }

    /// A node did not answer.
    pub fn failed(&mut self, node: NodeId, error: String) -> Decision {
        let times = match &self.seen[node.index()] {
            Seen::Failed { times, .. } => times.saturating_add(1),
            _ => 1,
        };
        self.seen[node.index()] = Seen::Failed { times, error };
        self.judge(None)
    }

    /// The era, and a position of its primary that lies behind everything written there before that moment.
    pub fn written_as_of(&self, at: Instant) -> Option<(u64, Lsn)> {
        Some((self.era, self.history.written_as_of(at)?))
    }

    /// The judgement; `fresh` is the node whose answer is new, so that each sample counts once towards its lag gate.
    pub fn judge(&mut self, fresh: Option<NodeId>) -> Decision {
        if self.system_identifier.is_none() {
            self.system_identifier = self.elect_system();
        }
        let primary = self.elect_primary();
        self.turn_era(primary.as_ref());
        if let Some((id, observation)) = &primary
            && fresh == Some(*id)
        {
            let sample = &observation.sample;
            self.history.note(sample.sent_at, sample.lsn, sample.written);
        }
        let primary = primary.map(|(id, _)| id);
        let nodes = (0u16..).map(NodeId).take(self.seen.len());
        let nodes = nodes
            .map(|id| self.judge_node(id, primary, fresh == Some(id)))
            .collect();
        Decision {
            era: self.era,
            primary,
            system_identifier: self.system_identifier,
            timeline: self.timeline,
            conflict: self.conflict.clone(),
            nodes,
        }
    }

    fn answers(&self) -> impl Iterator<Item = (NodeId, &Observation)> {
        (0u16..)
            .map(NodeId)
            .zip(&self.seen)
            .filter_map(|(id, seen)| match seen {
                Seen::Answered(observation) => Some((id, observation)),
                _ => None,
            })
    }

    /// The system served is that of most nodes that answered, of the first listed when they tie; fixed once every node was
    /// asked and one of that system is a primary, so that the order of the first answers does not decide.
    fn elect_system(&self) -> Option<u64> {
        if self.seen.iter().any(|seen| matches!(seen, Seen::NotAsked)) {
            return None;
        }
        let votes = |system: u64| {
            self.answers()
                .filter(|(_, o)| o.system_identifier == system)
                .count()
        };
        let primaries: Vec<u64> = self
            .answers()
            .filter(|(_, o)| !o.in_recovery)
            .map(|(_, o)| o.system_identifier)
            .collect();
        let best = primaries.iter().map(|system| votes(*system)).max()?;
        primaries.into_iter().find(|system| votes(*system) == best)
    }

    /// The one primary on the highest timeline ever seen; sets `timeline` and `conflict`.
    fn elect_primary(&mut self) -> Option<(NodeId, Observation)> {
        let system = self.system_identifier?;
        let claims: Vec<(NodeId, Observation)> = self
            .answers()
            .filter(|(_, o)| !o.in_recovery && o.system_identifier == system)
            .map(|(id, o)| (id, o.clone()))
            .collect();
        let highest = claims.iter().map(|(_, o)| o.timeline).max().unwrap_or(0);
        if highest > self.timeline {
            self.timeline = highest;
            self.conflict.clear();
        }
        let mut current: Vec<_> = claims
            .into_iter()
            .filter(|(_, o)| o.timeline == self.timeline)
            .collect();
        let mut rivals: Vec<NodeId> = current.iter().map(|(id, _)| *id).collect();
        rivals.extend(self.conflict.iter().copied().filter(
            |id| matches!(self.seen(*id), Seen::Failed { times, .. } if *times < CLAIM_FAILURES_MAX),
        ));
        rivals.sort_unstable();
        self.conflict = if rivals.len() > 1 { rivals } else { Vec::new() };
        if self.conflict.is_empty() {
            current.pop()
        } else {
            None
        }
    }

    /// Opens a new era when the primary is not the very one of the judgement before.
    fn turn_era(&mut self, primary: Option<&(NodeId, Observation)>) {
        let incarnation = primary.map(|(node, o)| Incarnation {
            node: *node,
            timeline: o.timeline,
            started_at: o.started_at,
            connection: o.connection,
        });
        if incarnation.is_some() && incarnation != self.incarnation {
            self.era += 1;
            self.history.clear();
        }
        self.incarnation = incarnation;
    }

    fn judge_node(&mut self, id: NodeId, primary: Option<NodeId>, fresh: bool) -> Judged {
        let out = |role, why| Judged {
            role,
            why_not: Some(why),
            lag: None,
        };
        let o = match &self.seen[id.index()] {
            Seen::NotAsked => return out(Role::Unknown, NotUsable::NotAsked),
            Seen::Failed { error, .. } => return out(Role::Unknown, NotUsable::Unreachable(error.clone())),
            Seen::Answered(observation) => observation,
        };
        let role = if o.in_recovery {
            Role::Replica
        } else {
            Role::Primary
        };
        if let Some(expected) = self.system_identifier
            && o.system_identifier != expected
        {
            return out(
                role,
                NotUsable::OtherSystem {
                    found: o.system_identifier,
                    expected,
                },
            );
        }
        if self.timeline != 0 && o.timeline != self.timeline {
            return out(
                role,
                NotUsable::OtherTimeline {
                    found: o.timeline,
                    expected: self.timeline,
                },
            );
        }
        if primary == Some(id) {
            return Judged {
                role,
                why_not: None,
                lag: None,
            };
        }
        if !self.conflict.is_empty() && !o.in_recovery {
            return out(role, NotUsable::Conflict);
        }
        if primary.is_none() || !o.in_recovery {
            return out(role, NotUsable::NoPrimary);
        }
        let lag = self.history.lag(o.sample.sent_at, o.sample.lsn, o.replay_age);
        if fresh && let Some((bytes, time)) = lag {
            self.gates[id.index()] = self.gates[id.index()].after(bytes, time, &self.limit);
        }
        let why_not = (self.gates[id.index()] != Gate::In).then_some(NotUsable::Lagging);
        Judged { role, why_not, lag }
    }
}

#[cfg(test)]
mod tests;
