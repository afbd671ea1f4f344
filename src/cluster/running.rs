//! The cluster as it runs: starts the loops, holds the latest view, and answers the layers above.
//!
//! Called by everything above `cluster`. Judging and publishing happen under one short lock, so that versions, eras and views
//! come out in order; reading a view takes no lock. Invariant: a subscriber that sees a version finds that view or a later one.
//! Every future here is cancel safe.

use super::{
    choose::{Outstanding, choose},
    connect::{Connector, Control, ControlError},
    decide::{Board, Decision, Observation, Seen},
    node_id::NodeId,
    poll, probe,
    settings::ClusterSettings,
    ticks::Ticks,
    view::{ClusterView, MissingRight, NodeView, Position, Role, Sample},
};
use crate::protocol::lsn::Lsn;
use arc_swap::ArcSwap;
use parking_lot::Mutex;
use std::{
    sync::Arc,
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
    time::Instant,
};
use tokio::sync::{Notify, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// What the loops and the handles share.
#[derive(Debug)]
pub(super) struct Shared {
    pub settings: ClusterSettings,
    pub ticks: Arc<Ticks>,
    pub nodes: Vec<NodeState>,
    pub view: ArcSwap<ClusterView>,
    pub versions: watch::Sender<u64>,
    pub wanted: Notify,
    pub probes: AtomicU64,
    positions: watch::Sender<Position>,
    board: Mutex<Board>,
    turn: AtomicUsize,
}

/// What is kept per node outside the views.
#[derive(Debug)]
pub(super) struct NodeState {
    pub connector: Connector,
    /// The number of the sample sent last.
    pub samples: AtomicU64,
    /// Ends the poller's pause.
    pub poke: Notify,
}

impl Shared {
    /// Opens a control connection to the node.
    pub(super) async fn connect(&self, node: NodeId) -> Result<Control, ControlError> {
        self.nodes[node.index()].connector.open(&self.settings).await
    }

    /// See `Board::era_of`.
    pub(super) fn era_of(&self, node: NodeId, answer: &Observation) -> Option<u64> {
        self.board.lock().era_of(node, answer)
    }

    /// Judges under the lock and publishes what came out.
    pub(super) fn publish(&self, judge: impl FnOnce(&mut Board) -> Decision) -> Arc<ClusterView> {
        let mut board = self.board.lock();
        let decision = judge(&mut board);
        let old = self.view.load();
        let view = Arc::new(next_view(&old, &decision, &board));
        tell_changes(&old, &view);
        self.view.store(Arc::clone(&view));
        self.versions.send_replace(view.version);
        view
    }

    /// Publishes a position unless a better one is known: the poller and the prober may finish out of order.
    pub(super) fn offer(&self, position: Position) {
        self.positions.send_if_modified(|known| {
            let better = (position.era, position.covers) >= (known.era, known.covers) && position != *known;
            if better {
                *known = position;
            }
            better
        });
    }
}

fn next_view(old: &ClusterView, decision: &Decision, board: &Board) -> ClusterView {
    let mut nodes = old.nodes.clone();
    for (node, judged) in nodes.iter_mut().zip(&decision.nodes) {
        node.role = judged.role;
        node.usable = judged.why_not.is_none();
        node.why_not.clone_from(&judged.why_not);
        node.lag_bytes = judged.lag.map(|lag| lag.0);
        node.lag = judged.lag.map(|lag| lag.1);
        if let Seen::Answered(observation) = board.seen(node.id) {
            node.timeline = observation.timeline;
            node.sample = observation.sample;
            node.missing_right = (!observation.reads_all_stats).then_some(MissingRight::ReadAllStats);
        }
    }
    let rivals = decision
        .conflict
        .iter()
        .filter_map(|id| old.node(*id))
        .map(|node| node.address.to_string());
    let rivals: Vec<String> = rivals.collect();
    ClusterView {
        version: old.version + 1,
        era: decision.era,
        primary: decision.primary,
        system_identifier: decision.system_identifier,
        timeline: decision.timeline,
        nodes,
        conflict: (!rivals.is_empty()).then(|| {
            format!(
                "{} are primaries of timeline {}",
                rivals.join(" and "),
                decision.timeline
            )
        }),
    }
}

fn tell_changes(old: &ClusterView, new: &ClusterView) {
    if old.era != new.era || old.primary != new.primary {
        let primary = new.primary_node().map(|node| node.address.to_string());
        tracing::info!(
            era = new.era,
            timeline = new.timeline,
            ?primary,
            "the primary changed"
        );
    }
    if let Some(conflict) = &new.conflict
        && old.conflict != new.conflict
    {
        tracing::error!(conflict, "two primaries: writes are refused until one yields");
    }
    for (before, now) in old.nodes.iter().zip(&new.nodes) {
        if before.role != now.role || before.why_not != now.why_not {
            let why_not = now.why_not.as_ref().map(ToString::to_string);
            tracing::info!(node = %now.address, role = %now.role, why_not, "a node changed");
        }
        if let Some(missing) = &now.missing_right
            && before.missing_right != now.missing_right
        {
            tracing::warn!(node = %now.address, %missing, "the control user lacks a right");
        }
    }
}

/// A handle on the running cluster.
#[derive(Clone, Debug)]
pub struct Cluster(Arc<Shared>);

impl Cluster {
    /// Starts polling; returns at once, also when every node is down. The loops end at `stop`.
    pub fn start(
        settings: ClusterSettings,
        ticks: Arc<Ticks>,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Self {
        let first = ClusterView {
            version: 0,
            era: 1,
            primary: None,
            system_identifier: None,
            timeline: 0,
            nodes: settings.nodes.iter().map(first_view).collect(),
            conflict: None,
        };
        let nodes = settings.nodes.iter().map(|node| NodeState {
            connector: Connector::new(node),
            samples: AtomicU64::new(0),
            poke: Notify::new(),
        });
        let shared = Arc::new(Shared {
            nodes: nodes.collect(),
            board: Mutex::new(Board::new(settings.nodes.len(), settings.lag)),
            ticks,
            view: ArcSwap::from_pointee(first),
            versions: watch::Sender::new(0),
            wanted: Notify::new(),
            probes: AtomicU64::new(0),
            positions: watch::Sender::new(Position {
                era: 0,
                timeline: 0,
                covers: 0,
                lsn: Lsn(0),
            }),
            turn: AtomicUsize::new(0),
            settings,
        });
        for node in &shared.settings.nodes {
            tasks.spawn(poll::run(Arc::clone(&shared), node.id, stop.clone()));
        }
        tasks.spawn(probe::run(Arc::clone(&shared), stop.clone()));
        Self(shared)
    }

    /// The latest view.
    pub fn view(&self) -> Arc<ClusterView> {
        self.0.view.load_full()
    }

    /// The primary of the latest view.
    pub fn primary(&self) -> Option<NodeId> {
        self.0.view.load().primary
    }

    /// The version of the latest view, as it grows.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.0.versions.subscribe()
    }

    /// The primary, now or as soon as there is one; `None` at the deadline.
    pub async fn wait_for_primary(&self, deadline: Instant) -> Option<NodeId> {
        let mut versions = self.watch();
        let found = async {
            loop {
                versions.borrow_and_update();
                if let Some(primary) = self.view().primary {
                    return Some(primary);
                }
                versions.changed().await.ok()?;
            }
        };
        tokio::time::timeout_at(deadline.into(), found)
            .await
            .ok()
            .flatten()
    }

    /// The era, and a position of its primary that lies behind everything written there before that moment; `None` where the
    /// primary was not polled since.
    pub fn written_as_of(&self, at: Instant) -> Option<(u64, Lsn)> {
        self.0.board.lock().written_as_of(at)
    }

    /// A moment in the order of events: a position that covers it was asked for afterwards.
    pub fn tick(&self) -> u64 {
        self.0.ticks.raise()
    }

    /// How often the primary was probed.
    pub fn probes(&self) -> u64 {
        self.0.probes.load(Ordering::Relaxed)
    }

    /// Asks for a probe of the primary, sent after this call; callers share it. Watch `positions` for one that covers the tick
    /// in question. While there is no primary, the request stays open.
    pub fn request_probe(&self) {
        self.0.wanted.notify_one();
    }

    /// Positions on the primary, from probes and from polls that found all WAL flushed. Era 0: none yet.
    pub fn positions(&self) -> watch::Receiver<Position> {
        self.0.positions.subscribe()
    }

    /// The number of the latest sample sent to the node: samples with a **greater** number were sent after this call.
    pub fn next_sample_number(&self, node: NodeId) -> u64 {
        self.0.nodes[node.index()].samples.load(Ordering::SeqCst)
    }

    /// The usable node with the fewest requests per weight among those that `ok` admits; ties take turns.
    pub fn pick(&self, view: &ClusterView, ok: impl Fn(&NodeView) -> bool) -> Option<NodeId> {
        choose(view, self.0.turn.fetch_add(1, Ordering::Relaxed), ok)
    }

    /// Counts a request on the node until the guard is dropped.
    pub fn track(&self, node: NodeId) -> Outstanding {
        Outstanding::begin(&self.0.view.load().nodes[node.index()])
    }
}

fn first_view(node: &super::settings::NodeConfig) -> NodeView {
    NodeView {
        id: node.id,
        address: node.address(),
        role: Role::Unknown,
        usable: false,
        why_not: Some(super::view::NotUsable::NotAsked),
        missing_right: None,
        timeline: 0,
        sample: Sample {
            lsn: Lsn(0),
            written: Lsn(0),
            number: 0,
            sent_at: Instant::now(),
        },
        lag_bytes: None,
        lag: None,
        weight: node.weight,
        outstanding: Arc::default(),
        served: Arc::default(),
    }
}
