//! What is known of the nodes at one moment, as values.
//!
//! Made by `decide`, read by `pool`, `freshness`, `route`, the console and `/readyz`. A view is immutable once published; only
//! the counters behind its `Arc`s move. Invariant: `primary` is `Some` only if that node is usable and its role is `Primary`.
//! LSNs of two nodes may be compared only while both are on the view's timeline, which `usable` includes.

use super::node_id::{NodeAddress, NodeId};
use crate::protocol::lsn::Lsn;
use std::{
    fmt,
    sync::Arc,
    sync::atomic::{AtomicU64, AtomicUsize},
    time::{Duration, Instant},
};

/// What a node is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It accepts writes.
    Primary,
    /// It is in recovery.
    Replica,
    /// It does not answer.
    Unknown,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Primary => "primary",
            Self::Replica => "replica",
            Self::Unknown => "unknown",
        })
    }
}

/// Why a node must not be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotUsable {
    /// It has not been asked yet.
    NotAsked,
    /// No connection, or no answer; the text is the system's or the server's.
    Unreachable(String),
    /// It belongs to another cluster.
    OtherSystem {
        /// Its own system identifier.
        found: u64,
        /// The identifier of the cluster that is served.
        expected: u64,
    },
    /// A replica of another history than the primary's, or a former primary.
    OtherTimeline {
        /// Its own timeline.
        found: u32,
        /// The primary's.
        expected: u32,
    },
    /// Another node accepts writes on the same timeline.
    Conflict,
    /// A replica while no primary is known: its history cannot be checked.
    NoPrimary,
    /// A replica past the lag limit, or not long enough back under it.
    Lagging,
}

impl fmt::Display for NotUsable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAsked => f.write_str("not asked yet"),
            Self::Unreachable(error) => write!(f, "unreachable: {error}"),
            Self::OtherSystem { found, expected } => {
                write!(
                    f,
                    "another cluster: system identifier {found}, expected {expected}"
                )
            }
            Self::OtherTimeline { found, expected } => {
                write!(f, "on timeline {found}, the primary is on {expected}")
            }
            Self::Conflict => f.write_str("two primaries on one timeline"),
            Self::NoPrimary => f.write_str("no primary to compare it with"),
            Self::Lagging => f.write_str("lags behind the limit"),
        }
    }
}

/// A right that the control user lacks on a node, and what that costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MissingRight {
    /// `pg_read_all_stats`, of which `pg_monitor` is a member: a replica's timeline is known late.
    ReadAllStats,
}

impl fmt::Display for MissingRight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ReadAllStats => f.write_str(
                "the control user is not in pg_monitor: after a failover a replica may be used only once its control file \
                 shows the new timeline, which can take until its next restartpoint",
            ),
        }
    }
}

/// A position read from a node. A replica's is what it has replayed, and a lower bound **only for server connections that were
/// open before it was sent for**: a standby whose backend crashed replays again from an earlier point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Sample {
    /// Replayed on a replica, flushed on the primary.
    pub lsn: Lsn,
    /// On the primary, what was written by then, flushed or not: at least all that was acknowledged. Never below `lsn`.
    pub written: Lsn,
    /// Grows with every sample of the node; 0: there is none.
    pub number: u64,
    /// When it was asked for.
    pub sent_at: Instant,
}

/// Requests a node has been given since the start, and how they ended.
#[derive(Debug, Default)]
pub struct ServedCounters {
    /// All that were begun on it.
    pub requests: AtomicU64,
}

/// One node in a view.
#[derive(Clone, Debug)]
pub struct NodeView {
    /// Its index.
    pub id: NodeId,
    /// Where it listens.
    pub address: NodeAddress,
    /// What it is.
    pub role: Role,
    /// Up, of this cluster, on the primary's timeline and within the lag limit.
    pub usable: bool,
    /// The reason when it is not usable.
    pub why_not: Option<NotUsable>,
    /// What the control user may not see there; the node is used all the same.
    pub missing_right: Option<MissingRight>,
    /// Its timeline; 0 when it was never reached.
    pub timeline: u32,
    /// Its latest position.
    pub sample: Sample,
    /// WAL between the primary's latest known flush position and the sample; replicas only.
    pub lag_bytes: Option<u64>,
    /// How long ago the primary was last known to be no further than the sample; replicas only. An over-estimate by up to one
    /// poll interval, never an under-estimate of what is known.
    pub lag: Option<Duration>,
    /// Its configured share of reads.
    pub weight: u32,
    /// Requests that run on it now; kept by `Cluster::track`.
    pub outstanding: Arc<AtomicUsize>,
    /// Totals.
    pub served: Arc<ServedCounters>,
}

/// All nodes at one moment.
#[derive(Clone, Debug)]
pub struct ClusterView {
    /// Grows at every published view.
    pub version: u64,
    /// Grows at the start, when the primary or its timeline changes, and when the primary restarted or its control connection
    /// was lost: whatever was learnt under an earlier era proves nothing.
    pub era: u64,
    /// The node that takes writes.
    pub primary: Option<NodeId>,
    /// Of the cluster served; fixed by the first primary.
    pub system_identifier: Option<u64>,
    /// Of the latest primary; 0 before the first.
    pub timeline: u32,
    /// All configured nodes, by id.
    pub nodes: Vec<NodeView>,
    /// Says which nodes claim to be the primary of one timeline; while it is set there is no primary.
    pub conflict: Option<String>,
}

impl ClusterView {
    /// The node with this id.
    pub fn node(&self, id: NodeId) -> Option<&NodeView> {
        self.nodes.get(id.index())
    }

    /// The primary's view, when there is one.
    pub fn primary_node(&self) -> Option<&NodeView> {
        self.primary.and_then(|id| self.node(id))
    }
}

/// A position on the primary that covers every commit acknowledged up to a tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The era it was taken in; under another one it proves nothing.
    pub era: u64,
    /// The primary's timeline.
    pub timeline: u32,
    /// Covers all events whose tick is at most this.
    pub covers: u64,
    /// A replica that has replayed this has all those commits.
    pub lsn: Lsn,
}
