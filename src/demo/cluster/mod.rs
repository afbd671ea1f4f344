//! A PostgreSQL primary with streaming replicas in one temporary directory, that leaves nothing behind.
//!
//! Used by `pgladder demo` and by the integration tests. Node 0 starts as the primary, 1 and up as its replicas. The
//! cluster listens on 127.0.0.1 only; the harness itself logs in over a socket inside its private directory, whatever
//! `pg_hba.conf` a caller gave. Every process and the directory end with `shut_down`, with `Drop`, also in a panic, or
//! with the next `sweep_leftovers`. It does no failover by itself.
//! A dropped future may leave a node stopped or half started; the cluster still ends it.

mod account;
mod directory;
mod error;
mod launch;
mod postmaster;
mod process;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use parking_lot::Mutex;
use tokio::task::{JoinSet, spawn_blocking};
use tokio_postgres::{Client, Config, NoTls};

pub use directory::{DIRECTORY_PREFIX, OWNER_FILE, sweep_leftovers};
pub use error::ClusterError;
pub use process::Process;

use launch::Running;
use postmaster::Postmaster;

/// The superuser of every throw-away cluster.
pub const SUPERUSER: &str = "postgres";

/// How long a node may take to do what it is told.
const PATIENCE: Duration = Duration::from_secs(30);
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// What to start.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// How many streaming replicas.
    pub replicas: usize,
    /// Settings for `postgresql.conf` of every node; they win over the harness's own.
    pub settings: Vec<(String, String)>,
    /// The rules of `pg_hba.conf` for TCP; `None` trusts everybody on the loopback interface.
    pub hba: Option<String>,
    /// A word for the directory's name, after `DIRECTORY_PREFIX`.
    pub label: String,
}

/// A running cluster. All methods take `&self`, so that a test can hold clients of it while it kills a node.
#[derive(Debug)]
pub struct ThrowAwayCluster {
    running: Running,
    primary: AtomicUsize,
    /// The connection drivers of `connect`'s clients.
    drivers: Mutex<JoinSet<()>>,
}

impl ThrowAwayCluster {
    /// Sweeps leftovers, then starts the primary and its replicas; every node accepts queries when this returns.
    pub async fn start(options: Options) -> Result<Self, ClusterError> {
        Ok(Self {
            running: Running::start(options).await?,
            primary: AtomicUsize::new(0),
            drivers: Mutex::new(JoinSet::new()),
        })
    }

    /// The directory that holds everything of the cluster.
    pub fn directory(&self) -> &Path {
        self.running.directory()
    }

    /// How many nodes it has, running or not.
    pub fn node_count(&self) -> usize {
        self.running.nodes.len()
    }

    /// The node that is the primary: 0, or the one that was promoted last.
    pub fn primary(&self) -> usize {
        self.primary.load(Ordering::Relaxed)
    }

    /// The node's port on 127.0.0.1; a restart keeps it.
    pub fn port(&self, node: usize) -> u16 {
        self.running.nodes[node].port
    }

    /// The node's TCP address.
    pub fn address(&self, node: usize) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port(node)))
    }

    /// The node's server process; `None` while it is stopped or killed.
    pub fn process(&self, node: usize) -> Option<Process> {
        let server = self.running.nodes[node].server.lock();
        server.as_ref().map(|server| server.process().clone())
    }

    /// A client of the node, logged in as the superuser over the private socket, whatever the `hba` rules say.
    ///
    /// Its driver belongs to the cluster: no need to spawn one.
    pub async fn connect(&self, node: usize, database: &str) -> Result<Client, ClusterError> {
        let config = launch::socket_config(self.directory(), self.port(node), database);
        self.connect_with(node, &config).await
    }

    /// A client over TCP with the caller's configuration, driven by the cluster.
    pub async fn connect_with(&self, node: usize, config: &Config) -> Result<Client, ClusterError> {
        let (client, connection) = config.connect(NoTls).await.map_err(self.query_error(node))?;
        let mut drivers = self.drivers.lock();
        while drivers.try_join_next().is_some() {}
        // A driver's error also reaches every call on its client.
        drivers.spawn(async move { drop(connection.await) });
        Ok(client)
    }

    /// SIGKILL to the node's server and all its processes, as a crash of its machine would look.
    pub async fn kill_hard(&self, node: usize) -> Result<(), ClusterError> {
        self.end(node, "killed", |server| server.kill(Instant::now() + PATIENCE))
            .await
    }

    /// Stops the node as an operator would: connections are ended, transactions rolled back ("fast").
    pub async fn stop(&self, node: usize) -> Result<(), ClusterError> {
        let fast = |server: &mut Postmaster| {
            server.signal(Signal::SIGINT);
            server.wait(Instant::now() + PATIENCE)
        };
        self.end(node, "stopped", fast).await
    }

    async fn end(
        &self,
        node: usize,
        awaited: &'static str,
        end: impl FnOnce(&mut Postmaster) -> bool + Send + 'static,
    ) -> Result<(), ClusterError> {
        let Some(server) = self.running.nodes[node].server.lock().take() else {
            return Ok(());
        };
        let (server, ended) = spawn_blocking(move || {
            let mut server = server;
            let ended = end(&mut server);
            (server, ended)
        })
        .await
        .expect("ending a server does not panic");
        if ended {
            return Ok(());
        }
        *self.running.nodes[node].server.lock() = Some(server);
        Err(ClusterError::TimedOut {
            node: self.name(node),
            awaited,
        })
    }

    /// Starts the node again on its port, after `kill_hard` or `stop`; a running node is stopped first.
    pub async fn restart(&self, node: usize) -> Result<(), ClusterError> {
        self.stop(node).await?;
        self.running
            .launch_on_its_port(node, Instant::now() + PATIENCE)
            .await
    }

    /// Promotes a replica. The old primary is left as it is, and so are the other replicas: see `follow`.
    pub async fn promote(&self, node: usize) -> Result<(), ClusterError> {
        let client = self.connect(node, "postgres").await?;
        let wait_seconds = i32::try_from(PATIENCE.as_secs()).expect("half a minute");
        let row = client
            .query_one("SELECT pg_promote(true, $1)", &[&wait_seconds])
            .await;
        if !row.map_err(self.query_error(node))?.get::<_, bool>(0) {
            return Err(ClusterError::TimedOut {
                node: self.name(node),
                awaited: "promoted",
            });
        }
        self.primary.store(node, Ordering::Relaxed);
        Ok(())
    }

    /// Makes a replica stream from another node, such as the one that was promoted.
    pub async fn follow(&self, node: usize, upstream: usize) -> Result<(), ClusterError> {
        let conninfo = launch::upstream(self.directory(), self.port(upstream), &self.name(node));
        let set = format!(
            "ALTER SYSTEM SET primary_conninfo = '{}'",
            conninfo.replace('\'', "''")
        );
        let client = self.connect(node, "postgres").await?;
        client.batch_execute(&set).await.map_err(self.query_error(node))?;
        client
            .batch_execute("SELECT pg_reload_conf()")
            .await
            .map_err(self.query_error(node))
    }

    /// Stops replay on a replica; it keeps receiving. Returns when it has stopped: nothing later shows up there.
    pub async fn pause_replay(&self, node: usize) -> Result<(), ClusterError> {
        let client = self.connect(node, "postgres").await?;
        client
            .batch_execute("SELECT pg_wal_replay_pause()")
            .await
            .map_err(self.query_error(node))?;
        // The function only asks; before the state is `paused` a record may still be replayed. Up to 13 there is no state to
        // ask for, and replay looks before each record whether it is to pause.
        let question = "SELECT to_regproc('pg_get_wal_replay_pause_state') IS NOT NULL";
        let row = client.query_one(question, &[]).await;
        let tells: bool = row.map_err(self.query_error(node))?.get(0);
        let paused = if tells {
            "SELECT pg_get_wal_replay_pause_state() = 'paused'"
        } else {
            "SELECT pg_is_wal_replay_paused()"
        };
        self.until(node, &client, "paused", paused).await
    }

    /// Lets replay go on.
    pub async fn resume_replay(&self, node: usize) -> Result<(), ClusterError> {
        let client = self.connect(node, "postgres").await?;
        client
            .batch_execute("SELECT pg_wal_replay_resume()")
            .await
            .map_err(self.query_error(node))
    }

    /// Waits until every running replica has replayed what the primary had flushed at the time of the call.
    ///
    /// A replica whose replay is paused, or that follows a dead primary, makes this fail at its deadline.
    pub async fn wait_caught_up(&self) -> Result<(), ClusterError> {
        let primary = self.primary();
        let client = self.connect(primary, "postgres").await?;
        let row = client
            .query_one("SELECT pg_current_wal_flush_lsn()::text", &[])
            .await;
        let flushed: String = row.map_err(self.query_error(primary))?.get(0);
        for node in (0..self.node_count()).filter(|node| *node != primary) {
            if self.process(node).is_some() {
                let client = self.connect(node, "postgres").await?;
                let replayed = format!(
                    "SELECT NOT pg_is_in_recovery() OR coalesce(pg_last_wal_replay_lsn() >= '{flushed}', false)"
                );
                self.until(node, &client, "caught up", &replayed).await?;
            }
        }
        Ok(())
    }

    /// Ends every process, removes the directory, and says so when something stayed.
    pub async fn shut_down(self) -> Result<(), ClusterError> {
        let Self { running, drivers, .. } = self;
        let path: PathBuf = running.directory().to_owned();
        drivers.into_inner().shutdown().await;
        spawn_blocking(move || drop(running))
            .await
            .expect("ending servers does not panic");
        if path.exists() {
            Err(ClusterError::LeftBehind { path })
        } else {
            Ok(())
        }
    }

    async fn until(
        &self,
        node: usize,
        client: &Client,
        awaited: &'static str,
        question: &str,
    ) -> Result<(), ClusterError> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            let row = client
                .query_one(question, &[])
                .await
                .map_err(self.query_error(node))?;
            if row.get(0) {
                return Ok(());
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
        Err(ClusterError::TimedOut {
            node: self.name(node),
            awaited,
        })
    }

    fn name(&self, node: usize) -> String {
        self.running.nodes[node].name.clone()
    }

    fn query_error(&self, node: usize) -> impl FnOnce(tokio_postgres::Error) -> ClusterError {
        let node = self.name(node);
        |source| ClusterError::Query { node, source }
    }
}
