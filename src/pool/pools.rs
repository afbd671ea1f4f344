//! All pools of server connections: one per node, database and role, made when first asked for.
//!
//! Called by sessions. The line of a pool is first come, first served, bounded in length and by each caller's deadline; a failed
//! attempt to connect is reported at once. `lease` is cancel safe: dropped at any point it leaves no place in the line and no
//! connection behind; an attempt to connect that was begun for it ends as an idle connection.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bb8::{PooledConnection, QueueStrategy, RunError};
use foldhash::fast::RandomState;
use parking_lot::Mutex;
use tokio::time::{Instant, timeout_at};

use crate::cluster::NodeId;
use crate::pool::address::Address;
use crate::pool::connect;
use crate::pool::connection::{CancelTarget, PoolKey, ServerConnection};
use crate::pool::credentials::Credentials;
use crate::pool::demand::Demand;
use crate::pool::error::{CancelError, ConnectError, PoolError};
use crate::pool::lease::Lease;
use crate::pool::line::{Entered, Line, Place, Waiting};
use crate::pool::manager::{Connector, Shared};
use crate::pool::shelf::Shelf;
use crate::pool::tls::ServerTls;

/// While another pool waits for a place on the node, a connection goes from caller to caller for so long.
const TURN: Duration = Duration::from_secs(1);
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

/// A connection in bb8's books.
pub(crate) type Seated = PooledConnection<'static, Connector>;

/// What a caller is given when its turn comes.
pub enum Admitted {
    /// A connection.
    Lease(Lease),
    /// The right to one, which has to be made, or to come back, first.
    Vacancy(Vacancy),
}

/// What asking for a connection gives at once.
pub enum Entry {
    /// It is the caller's turn.
    Admitted(Admitted),
    /// All connections are lent.
    Line(InLine),
}

/// The right to a connection that is not there yet.
pub struct Vacancy {
    pool: Arc<Pool>,
    place: Place<Seated>,
}

/// A caller that waits for its turn. Dropping it leaves the line.
pub struct InLine {
    pool: Arc<Pool>,
    waiting: Waiting<Seated>,
}

impl InLine {
    /// Ready when its turn has come.
    pub fn poll(&mut self, cx: &Context<'_>) -> Poll<Admitted> {
        self.waiting
            .poll(cx)
            .map(|(place, seat)| Pool::admit(&self.pool, place, seat))
    }
}

pub(crate) struct Pool {
    key: PoolKey,
    inner: bb8::Pool<Connector>,
    line: Arc<Line<Seated>>,
    lifetime: Duration,
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
        let admitted = match self.enter(key)? {
            Entry::Admitted(admitted) => admitted,
            Entry::Line(mut line) => {
                let turn = timeout_at(deadline, std::future::poll_fn(|cx| line.poll(cx)));
                turn.await.map_err(|_| PoolError::TimedOut)?
            }
        };
        match admitted {
            Admitted::Lease(lease) => Ok(lease),
            Admitted::Vacancy(vacancy) => vacancy.fill(deadline).await,
        }
    }

    /// A connection if one is at hand, the right to one, or a place at the end of the line. Runs on a tokio runtime.
    pub fn enter(&self, key: &PoolKey) -> Result<Entry, PoolError> {
        let pool = self.pool(key)?;
        let waiting = self.shared.settings.queue_max;
        match pool.line.enter(waiting) {
            Entered::Place(place) => Ok(Entry::Admitted(Pool::admit(&pool, place, None))),
            Entered::Line(waiting) => Ok(Entry::Line(InLine { pool, waiting })),
            Entered::Full => Err(PoolError::QueueFull { waiting }),
        }
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
                lent: size - pool.line.free(),
                idle: pool.shelf.idle(&key),
                waiting: pool.line.waiting(),
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
                Arc::strong_count(pool) > 1 || pool.line.free() < size || pool.shelf.idle(key) > 0
            });
        }
        let pool = Arc::new(Pool::new(key, node, &self.shared));
        pools.insert(key.clone(), Arc::clone(&pool));
        Ok(pool)
    }
}

impl Vacancy {
    /// A connection from bb8, which makes one where none is idle, by `deadline` at the latest.
    pub async fn fill(self, deadline: Instant) -> Result<Lease, PoolError> {
        let Self { pool, place } = self;
        let seat = Box::pin(pool.seat(deadline)).await?;
        Ok(Lease::new(pool, seat, place))
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
        let shelf = Arc::clone(&node.shelf);
        Self {
            key: key.clone(),
            inner,
            line: Line::new(size as usize),
            lifetime: shared.settings.lifetime,
            demand,
            shelf,
            leases: AtomicU64::new(0),
        }
    }

    /// Whoever has a place gets the connection that came with it, if it is still good, or an idle one.
    fn admit(pool: &Arc<Self>, place: Place<Seated>, seat: Option<Seated>) -> Admitted {
        let pool = Arc::clone(pool);
        let is_good = |connection: &ServerConnection| {
            connection.generation == pool.shelf.generation() && connection.stream.is_silent()
        };
        let handed = seat.filter(|seat| is_good(seat.connection()));
        match handed.or_else(|| pool.seat_now()) {
            Some(seat) => Admitted::Lease(Lease::new(pool, seat, place)),
            None => Admitted::Vacancy(Vacancy { pool, place }),
        }
    }

    /// May a connection that comes back go to the next caller at once? Else bb8 sees to it: it is to be closed, or somebody who was
    /// let in before waits for it.
    pub(crate) fn may_hand_over(&self, connection: &ServerConnection) -> bool {
        !connection.dirty
            && connection.input.is_empty()
            && connection.output.is_empty()
            && self.line.waiting() > 0
            && !self.demand.is_waited_for()
            && connection.opened_at.elapsed() < self.lifetime
            && !self.is_others_turn(connection)
    }

    /// Does another pool wait for a place on the node, while this one's callers have had it for a while?
    fn is_others_turn(&self, connection: &ServerConnection) -> bool {
        self.shelf.is_full() && connection.opened_at.elapsed() >= TURN
    }

    pub(crate) fn count_lease(&self) {
        self.leases.fetch_add(1, Ordering::Relaxed);
    }

    /// An idle connection, if there is one. Asked once, without waiting: bb8 hands it out at the first poll.
    fn seat_now(&self) -> Option<Seated> {
        if self.shelf.idle(&self.key) == 0 {
            return None;
        }
        let get = pin!(self.inner.get_owned());
        match get.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(seat)) => Some(seat),
            _ => None,
        }
    }

    /// A connection from bb8, an error as soon as an attempt failed, or the deadline.
    async fn seat(&self, deadline: Instant) -> Result<Seated, PoolError> {
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
