//! What all sessions share: cluster, pools, databases, the cache, cancel keys, counters.
//!
//! Made once by `serve`. Everything in it is shared by reference and locked, where at all, for a moment only. Invariant: when the
//! cluster begins a new era, clocks come first, then the cache and the pools, so that nothing of the old era is stored or lent
//! after. It holds no session.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, Guard};
use bytes::Bytes;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::cancel::Cancels;
use super::costs::Costs;
use super::last::ServedBy;
use super::login::Base;
use super::reasons::Reasons;
use super::refresh::Refreshes;
use super::registry::Registry;
use super::sample::Samples;
use super::unit;
use crate::cache::doorkeeper::Doorkeeper;
use crate::cache::flight::Flights;
use crate::cache::rules::Rules;
use crate::cache::store::Store;
use crate::cluster::{Cluster, NodeId};
use crate::freshness::database::{Database, Writes};
use crate::freshness::databases::Databases;
use crate::freshness::level::Level;
use crate::pool::Pools;
use crate::stream::Streams;
use crate::telemetry::histogram::{Histogram, LATENCIES_US};

/// How long the facts of a login are used for further ones: a client that connects for one query pays no round trip.
const LOGIN_FACTS_KEPT: Duration = Duration::from_secs(10);
/// Logins kept.
const LOGINS_MAX: usize = 4_096;

/// What sessions need to be told.
#[derive(Debug, Clone)]
pub struct SessionSettings {
    /// The level of a read for which nobody asked for another.
    pub level: Level,
    /// Longest wait for a server connection.
    pub lease_wait: Duration,
    /// Longest wait for a primary.
    pub primary_wait: Duration,
    /// Limits of what a client may send.
    pub unit_limits: unit::Limits,
    /// What is cached.
    pub cache: CacheSettings,
    /// Exceptions from that.
    pub rules: Arc<Rules>,
}

/// What is cached, and for how long.
#[derive(Debug, Clone, Copy)]
pub struct CacheSettings {
    /// Off: nothing is.
    pub enabled: bool,
    /// Every read that may be, not only aggregations.
    pub all_reads: bool,
    /// How long an entry is served.
    pub ttl: Duration,
    /// Cheaper answers are not stored.
    pub min_cost: Duration,
    /// Bytes of one entry.
    pub entry_bytes_max: usize,
    /// Entries that are renewed in the background at a time.
    pub refreshes_max: usize,
    /// Each hit of so many is compared with the primary; 0: none.
    pub sample_every: u64,
}

/// What happened, since the start.
#[derive(Debug, Default)]
pub struct Counters {
    /// Reads answered from the cache.
    pub hits: AtomicU64,
    /// Reads answered by another client's execution.
    pub shared: AtomicU64,
    /// Cacheable reads that were not there.
    pub misses: AtomicU64,
    /// Answers stored.
    pub stored: AtomicU64,
    /// Entries renewed in the background.
    pub refreshed: AtomicU64,
    /// Entries that were to be renewed while too many others were.
    pub refreshes_dropped: AtomicU64,
    /// Strict reads that asked how far the primary had written.
    pub read_index: AtomicU64,
    /// Reads that a replica refused or dropped, and the primary answered.
    pub retried: AtomicU64,
    /// Clients logged in now.
    pub clients: AtomicU64,
    /// Clients logged in since the start.
    pub logins: AtomicU64,
}

impl Counters {
    /// Adds one.
    pub fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// Shared by all sessions.
#[derive(Debug)]
pub struct Proxy {
    /// The nodes.
    pub cluster: Cluster,
    /// Server connections.
    pub pools: Arc<Pools>,
    /// Clocks and catalogs.
    pub databases: Arc<Databases>,
    /// What the primary's log tells.
    pub streams: Arc<Streams>,
    /// Entries.
    pub store: Store,
    /// Executions that several readers wait for.
    pub flights: Flights,
    /// Entries that are being renewed.
    pub refreshes: Refreshes,
    /// Entries that are being compared.
    pub samples: Samples,
    /// Admission at the second miss, where it is on.
    pub doorkeeper: Option<Doorkeeper>,
    /// Cancel keys.
    pub cancels: Arc<Cancels>,
    settings: ArcSwap<SessionSettings>,
    /// Counters.
    pub counters: Counters,
    /// Why units were answered where they were.
    pub reasons: Reasons,
    /// What freshness costs.
    pub costs: Costs,
    latencies: [Histogram; 4],
    /// Who is connected.
    pub registry: Arc<Registry>,
    /// For work that outlives its session: watching a lost commit, cancelling what nobody waits for.
    pub tasks: TaskTracker,
    /// Ends that work when nobody is served any more.
    pub(super) stop: CancellationToken,
    pub(super) sessions: AtomicU64,
    node_names: Vec<Arc<str>>,
    logins: Mutex<Logins>,
}

/// What logins showed.
#[derive(Debug, Default)]
struct Logins {
    generation: u64,
    by_key: HashMap<LoginKey, (Instant, Arc<Base>)>,
}

/// User, database and startup parameters, each with its length.
pub(super) type LoginKey = Bytes;

/// The parts of a proxy that `serve` has made.
#[derive(Debug)]
pub struct Parts {
    /// The nodes.
    pub cluster: Cluster,
    /// Server connections.
    pub pools: Arc<Pools>,
    /// Clocks and catalogs.
    pub databases: Arc<Databases>,
    /// What the primary's log tells.
    pub streams: Arc<Streams>,
    /// The cache.
    pub store: Store,
    /// Admission at the second miss.
    pub doorkeeper: Option<Doorkeeper>,
    /// Settings.
    pub settings: SessionSettings,
    /// Where background work runs.
    pub tasks: TaskTracker,
}

impl Proxy {
    /// Puts the parts together and begins to follow the cluster's eras, until the token stops it.
    pub fn start(parts: Parts, stop: &CancellationToken) -> Arc<Self> {
        let nodes = &parts.cluster.view().nodes;
        let proxy = Arc::new(Self {
            node_names: nodes.iter().map(|node| node.address.to_string().into()).collect(),
            cluster: parts.cluster,
            pools: parts.pools,
            databases: parts.databases,
            streams: parts.streams,
            store: parts.store,
            flights: Flights::default(),
            refreshes: Refreshes::default(),
            samples: Samples::default(),
            doorkeeper: parts.doorkeeper,
            cancels: Arc::default(),
            settings: ArcSwap::from_pointee(parts.settings),
            counters: Counters::default(),
            reasons: Reasons::default(),
            costs: Costs::default(),
            latencies: std::array::from_fn(|_| Histogram::new(&LATENCIES_US)),
            registry: Arc::default(),
            tasks: parts.tasks,
            stop: stop.clone(),
            sessions: AtomicU64::new(0),
            logins: Mutex::default(),
        });
        let following = Arc::clone(&proxy).follow_eras(stop.clone());
        proxy.tasks.spawn(following);
        proxy
    }

    /// The settings of now. They may be others the next time: a session asks once for each unit.
    pub fn settings(&self) -> Guard<Arc<SessionSettings>> {
        self.settings.load()
    }

    /// Other settings, for every unit from now on.
    pub fn change_settings(&self, mut settings: SessionSettings) {
        let rules = Arc::unwrap_or_clone(settings.rules);
        settings.rules = Arc::new(rules.after(&self.settings.load().rules));
        self.settings.store(Arc::new(settings));
    }

    /// How long units took that this one answered.
    pub fn latency(&self, by: ServedBy) -> &Histogram {
        &self.latencies[by as usize]
    }

    /// A node's address, as people know it.
    pub fn node_name(&self, node: NodeId) -> Arc<str> {
        Arc::clone(&self.node_names[node.index()])
    }

    /// Cancels what the session with this key runs now; returns when its server has taken the request, which goes on its way also
    /// when nobody waits for that.
    pub async fn cancel(&self, process: i32, secret: &[u8]) {
        if let Some(request) = self.cancels.cancel(process, secret) {
            let pools = Arc::clone(&self.pools);
            let forwarded = self.tasks.spawn(async move { request.end(&pools).await });
            if let Err(error) = forwarded.await {
                tracing::error!(%error, "forwarding a cancel request failed");
            }
        }
    }

    async fn follow_eras(self: Arc<Self>, stop: CancellationToken) {
        let mut versions = self.cluster.watch();
        let mut era = self.cluster.view().era;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                changed = versions.changed() => if changed.is_err() { return },
            }
            let view = self.cluster.view();
            if view.era == era {
                continue;
            }
            era = view.era;
            self.databases.begin_era(era);
            self.store.clear();
            self.forget_logins();
        }
    }

    /// These writes, made in `database`, may have been committed. To be called before it is acknowledged to anybody.
    pub(super) fn acknowledge(&self, database: &Database, writes: &Writes) {
        self.databases.acknowledge(database, writes);
        if writes.is_global() {
            // A role's or a database's settings reach new server connections only.
            self.forget_logins();
        }
    }

    /// What logins showed may hold no longer: the next ones ask anew, on new connections.
    fn forget_logins(&self) {
        {
            let mut logins = self.logins.lock();
            logins.generation += 1;
            logins.by_key.clear();
        }
        for node in &self.cluster.view().nodes {
            self.pools.retire(node.id);
        }
    }

    pub(super) fn known_login(&self, key: &LoginKey) -> Option<Arc<Base>> {
        let logins = self.logins.lock();
        let (learnt_at, base) = logins.by_key.get(key)?;
        (learnt_at.elapsed() < LOGIN_FACTS_KEPT).then(|| Arc::clone(base))
    }

    /// The number that grows when what logins showed is forgotten.
    pub(super) fn login_generation(&self) -> u64 {
        self.logins.lock().generation
    }

    /// Keeps what a login showed that began under this generation.
    pub(super) fn keep_login(&self, key: LoginKey, base: Arc<Base>, generation: u64) {
        let mut logins = self.logins.lock();
        if logins.by_key.len() >= LOGINS_MAX {
            logins
                .by_key
                .retain(|_, (learnt_at, _)| learnt_at.elapsed() < LOGIN_FACTS_KEPT);
        }
        if logins.by_key.len() < LOGINS_MAX && logins.generation == generation {
            logins.by_key.insert(key, (Instant::now(), base));
        }
    }
}
