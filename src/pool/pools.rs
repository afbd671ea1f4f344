//! All pools of server connections: one per node, database and role, made when first asked for.
//!
//! Called by sessions. The line of a pool is first come, first served, bounded in length and by each caller's deadline; a failed
//! attempt to connect is reported at once. `lease` is cancel safe: dropped at any point it leaves no place in the line and no
//! connection behind; an attempt to connect that was begun for it ends as an idle connection.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bb8::{PooledConnection, QueueStrategy, RunError};
use foldhash::fast::RandomState;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use crate::cluster::NodeId;
use crate::pool::address::Address;
use crate::pool::connect;
use crate::pool::connection::{CancelTarget, PoolKey};
use crate::pool::credentials::Credentials;
use crate::pool::demand::Demand;
use crate::pool::error::{CancelError, ConnectError, PoolError};
use crate::pool::lease::Lease;
use crate::pool::manager::{Connector, Shared};
use crate::pool::shelf::{Counted, Shelf};
use crate::pool::tls::ServerTls;

/// bb8 keeps one wake-up when two connections come back at once, so a waiter looks again this often.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// bb8's own timeout is never the one that counts: each caller has a deadline.
const BB8_TIMEOUT: Duration = Duration::from_secs(24 * 3600);
/// From this many pools on, unused ones are dropped when another one is made.
const POOLS_KEPT: usize = 256;

/// The numbers of replay samples, which the cluster's prober gives.
pub trait SampleNumbers: Send + Sync {
    /// The number such that every greater one belongs to a sample sent from now on.
    fn next_sample_number(&self, node: NodeId) -> u64;
}

/// Limits; all of them hold per process.
#[derive(Clone, Debug)]
pub struct PoolSettings {
    /// Connections of one pool (node, database, role).
    pub size: u32,
    /// Connections to one node over all pools.
    pub node_connections_max: usize,
    /// Callers that may wait for one pool beside those being served.
    pub queue_max: usize,
    /// Connecting, TLS, login and first facts together; also how long a cancel request may take.
    pub connect_timeout: Duration,
    /// An idle connection is closed after this time.
    pub idle_timeout: Duration,
    /// A connection is closed when it comes back, or idles, after this time.
    pub lifetime: Duration,
    /// Prepared statements kept on one connection.
    pub prepared_statements_max: usize,
    /// What `pg_stat_activity` shows until a client says otherwise.
    pub application_name: Box<str>,
}

impl Default for PoolSettings {
    fn default() -> Self {
        Self {
            size: 16,
            node_connections_max: 64,
            queue_max: 1024,
            connect_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(600),
            lifetime: Duration::from_secs(3600),
            prepared_statements_max: 200,
            application_name: "pgladder".into(),
        }
    }
}

/// One line of `SHOW POOLS`.
#[derive(Clone, Debug)]
pub struct PoolSnapshot {
    /// The pool.
    pub key: PoolKey,
    /// Connections lent, or being made for a caller.
    pub lent: usize,
    /// Idle connections.
    pub idle: usize,
    /// Callers in line.
    pub waiting: usize,
    /// The most connections it may have.
    pub size: usize,
    /// Leases granted since start.
    pub leases: u64,
}

struct Pool {
    inner: bb8::Pool<Connector>,
    gate: Arc<Semaphore>,
    queued: AtomicUsize,
    demand: Arc<Demand>,
    shelf: Arc<Shelf>,
    leases: AtomicU64,
}

struct Node {
    address: Address,
    shelf: Arc<Shelf>,
}

/// All pools of the process.
pub struct Pools {
    shared: Arc<Shared>,
    nodes: HashMap<NodeId, Node>,
    by_key: Mutex<HashMap<PoolKey, Arc<Pool>, RandomState>>,
}

impl std::fmt::Debug for Pools {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pools").finish_non_exhaustive()
    }
}

impl Pools {
    /// No connection is made yet.
    pub fn new(
        settings: PoolSettings,
        nodes: HashMap<NodeId, Address>,
        tls: ServerTls,
        credentials: Arc<dyn Credentials>,
        samples: Arc<dyn SampleNumbers>,
    ) -> Arc<Self> {
        let cap = settings.node_connections_max.max(1);
        let node = |(id, address)| {
            (
                id,
                Node {
                    address,
                    shelf: Arc::new(Shelf::new(cap)),
                },
            )
        };
        Arc::new(Self {
            nodes: nodes.into_iter().map(node).collect(),
            shared: Arc::new(Shared {
                settings,
                tls,
                credentials,
                samples,
                connection_ids: AtomicU64::new(1),
            }),
            by_key: Mutex::default(),
        })
    }

    /// A connection for exclusive use, by `deadline` at the latest. Runs on a tokio runtime.
    pub async fn lease(&self, key: &PoolKey, deadline: Instant) -> Result<Lease, PoolError> {
        if let Some(lease) = self.lease_now(key) {
            return Ok(lease);
        }
        // Waiting and connecting need far more room than a lease that is there; who needs neither pays for neither.
        Box::pin(async {
            let pool = self.pool(key)?;
            let gate = pool.enter(self.shared.settings.queue_max, deadline).await?;
            // Whoever leaves gives the connection back before the place at the gate.
            let seat = match pool.seat_now(key) {
                Some(seat) => seat,
                None => Box::pin(pool.seat(deadline)).await?,
            };
            pool.leases.fetch_add(1, Ordering::Relaxed);
            Ok(Lease { seat, _gate: gate })
        })
        .await
    }

    /// A connection for exclusive use, if an idle one is at hand and nobody waits for it.
    pub fn lease_now(&self, key: &PoolKey) -> Option<Lease> {
        let pool = self.pool(key).ok()?;
        let gate = Arc::clone(&pool.gate).try_acquire_owned().ok()?;
        let seat = pool.seat_now(key)?;
        pool.leases.fetch_add(1, Ordering::Relaxed);
        Some(Lease { seat, _gate: gate })
    }

    /// Closes a node's idle connections now and its lent ones when they come back: after a failover none is used again.
    pub fn retire(&self, node: NodeId) {
        if let Some(node) = self.nodes.get(&node) {
            node.shelf.retire();
        }
    }

    /// Cancels what runs on a connection; returns when the server has taken the request. The caller keeps the lease until then.
    pub async fn cancel(&self, target: &CancelTarget) -> Result<(), CancelError> {
        let node = self
            .nodes
            .get(&target.node)
            .ok_or(CancelError::UnknownNode(target.node))?;
        let limit = self.shared.settings.connect_timeout;
        let request = Box::pin(connect::cancel(&node.address, &self.shared.tls, target));
        match tokio::time::timeout(limit, request).await {
            Ok(done) => Ok(done?),
            Err(_) => Err(CancelError::TimedOut(limit)),
        }
    }

    /// Every pool now, in the order of their keys.
    pub fn snapshot(&self) -> Vec<PoolSnapshot> {
        let pools: Vec<_> = self
            .by_key
            .lock()
            .iter()
            .map(|(key, pool)| (key.clone(), Arc::clone(pool)))
            .collect();
        let size = self.shared.settings.size.max(1) as usize;
        let mut all: Vec<_> = pools
            .into_iter()
            .map(|(key, pool)| PoolSnapshot {
                lent: size - pool.gate.available_permits(),
                idle: pool.shelf.idle(&key),
                waiting: pool.queued.load(Ordering::Relaxed),
                leases: pool.leases.load(Ordering::Relaxed),
                size,
                key,
            })
            .collect();
        all.sort_by(|a, b| a.key.cmp(&b.key));
        all
    }

    fn pool(&self, key: &PoolKey) -> Result<Arc<Pool>, PoolError> {
        let mut pools = self.by_key.lock();
        if let Some(pool) = pools.get(key) {
            return Ok(Arc::clone(pool));
        }
        let node = self
            .nodes
            .get(&key.node)
            .ok_or(PoolError::UnknownNode(key.node))?;
        if pools.len() >= POOLS_KEPT {
            // A pool is unused when nobody else holds it and all that it may lend is here.
            let size = self.shared.settings.size.max(1) as usize;
            pools.retain(|key, pool| {
                Arc::strong_count(pool) > 1
                    || pool.gate.available_permits() < size
                    || pool.shelf.idle(key) > 0
            });
        }
        let pool = Arc::new(Pool::new(key, node, &self.shared));
        pools.insert(key.clone(), Arc::clone(&pool));
        Ok(pool)
    }
}

impl Pool {
    fn new(key: &PoolKey, node: &Node, shared: &Arc<Shared>) -> Self {
        let demand = Arc::new(Demand::default());
        let size = shared.settings.size.max(1);
        let connector = Connector {
            key: key.clone(),
            address: node.address.clone(),
            shared: Arc::clone(shared),
            shelf: Arc::clone(&node.shelf),
            demand: Arc::clone(&demand),
        };
        let inner = bb8::Pool::builder()
            .max_size(size)
            .test_on_check_out(true)
            .retry_connection(false)
            .connection_timeout(BB8_TIMEOUT)
            .idle_timeout(Some(shared.settings.idle_timeout.max(Duration::from_secs(1))))
            .max_lifetime(Some(shared.settings.lifetime.max(Duration::from_secs(1))))
            .queue_strategy(QueueStrategy::Lifo)
            .error_sink(Box::new(crate::pool::demand::DemandSink(Arc::clone(&demand))))
            .build_unchecked(connector);
        let gate = Arc::new(Semaphore::new(size as usize));
        let shelf = Arc::clone(&node.shelf);
        Self {
            inner,
            gate,
            queued: AtomicUsize::new(0),
            demand,
            shelf,
            leases: AtomicU64::new(0),
        }
    }

    /// First come, first served: bb8 alone lets a late caller pass a waiting one.
    async fn enter(&self, queue_max: usize, deadline: Instant) -> Result<OwnedSemaphorePermit, PoolError> {
        if let Ok(gate) = Arc::clone(&self.gate).try_acquire_owned() {
            return Ok(gate);
        }
        let _queued = Counted::new(&self.queued);
        if self.queued.load(Ordering::Acquire) > queue_max {
            return Err(PoolError::QueueFull { waiting: queue_max });
        }
        match timeout_at(deadline, Arc::clone(&self.gate).acquire_owned()).await {
            Ok(Ok(gate)) => Ok(gate),
            _ => Err(PoolError::TimedOut),
        }
    }

    /// An idle connection, if there is one. Asked once, without waiting: bb8 hands it out at the first poll.
    fn seat_now(&self, key: &PoolKey) -> Option<PooledConnection<'static, Connector>> {
        if self.shelf.idle(key) == 0 {
            return None;
        }
        let get = pin!(self.inner.get_owned());
        match get.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(seat)) => Some(seat),
            _ => None,
        }
    }

    /// A connection from bb8, an error as soon as an attempt failed, or the deadline.
    async fn seat(&self, deadline: Instant) -> Result<PooledConnection<'static, Connector>, PoolError> {
        let mut node_full = false;
        loop {
            // In line before bb8 begins to connect, so that an instant failure finds its waiter.
            let mut waiting = self.demand.wait();
            let mut get = pin!(self.inner.get_owned());
            loop {
                tokio::select! {
                    biased;
                    got = &mut get => match got {
                        Ok(seat) => return Ok(seat),
                        Err(RunError::User(error)) => return Err(error.into()),
                        Err(RunError::TimedOut) => return Err(PoolError::TimedOut),
                    },
                    failed = &mut waiting.failed => match failed {
                        Ok(ConnectError::NodeFull) | Err(_) => { node_full = true; break; }
                        Ok(error) => return Err(error.into()),
                    },
                    () = tokio::time::sleep_until(deadline) => {
                        let limit = self.shelf.slots_max();
                        return Err(if node_full || self.shelf.is_full() {
                            PoolError::TooManyConnections { limit }
                        } else {
                            PoolError::TimedOut
                        });
                    }
                    () = tokio::time::sleep(LOOK_AGAIN) => {
                        if self.inner.state().idle_connections > 0 { break; }
                    }
                }
            }
        }
    }
}
