//! Opens the doors that load goes through: each a proxy of its own process, or the primary itself.
//!
//! Used by the main loop. Invariant: a door is only measured while it answers from where it is said to: a read that should come
//! from a cache, a replica or the primary is asked for until it does, or the benchmark fails. pgladder tells by
//! `SHOW pgladder.last`, Pgpool-II by `SHOW pool_cache`. Asking is cancel safe.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use nix::sys::signal::Signal;
use pgladder::demo::cluster::{SUPERUSER, ThrowAwayCluster};
use tokio::task::JoinSet;
use tokio_postgres::{Config, NoTls, SimpleQueryMessage};

use super::daemon::Daemon;
use super::place::Place;
use super::programs::Programs;
use super::results::{Door, Protocol, Workload};
use super::{own, pgbouncer, pgpool};

/// Connections to each server that every pooler may hold.
pub const SERVER_CONNECTIONS: u32 = 16;
/// The database that everything runs in.
pub const DATABASE: &str = "postgres";

/// Ports below those of outgoing connections.
const PORTS: std::ops::Range<u16> = 15_000..32_000;
const PATIENCE: Duration = Duration::from_secs(30);
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Who has to answer before a door counts as open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Served {
    /// Anybody.
    Somehow,
    /// pgladder says so in this word.
    By(&'static str),
    /// Pgpool-II's cache.
    PoolCache,
}

/// An open door.
pub struct Opened {
    /// Where, on 127.0.0.1.
    pub port: u16,
    /// The proxy; none for the primary itself.
    pub daemon: Option<Daemon>,
    served: Served,
}

/// What doors are opened with.
pub struct Site<'a> {
    /// The servers.
    pub cluster: &'a ThrowAwayCluster,
    /// The proxies.
    pub programs: &'a Programs,
    /// Where they write.
    pub place: &'a Place,
}

impl Site<'_> {
    /// Why a workload cannot be measured through a door; `None` where it can.
    pub fn obstacle(&self, workload: Workload, door: Door) -> Option<&'static str> {
        match (door, &self.programs.pgbouncer, &self.programs.pgpool) {
            (Door::PgBouncer, None, _) | (Door::Pgpool, _, None) => Some("not installed"),
            (Door::PgBouncer, Some(program), _)
                if workload.protocol == Protocol::Prepared && !pgbouncer::is_comparable(program) =>
            {
                Some("not comparable")
            }
            _ => None,
        }
    }

    /// Opens a door, with the proxy's cache in use or not. Only for one that has no obstacle.
    pub fn open(&self, door: Door, cached: bool, clients_max: u32) -> anyhow::Result<Opened> {
        let primary = self.cluster.primary();
        let mut nodes = vec![self.cluster.port(primary)];
        let all = (0..self.cluster.node_count()).filter(|node| *node != primary);
        nodes.extend(all.map(|node| self.cluster.port(node)));
        let (port, control) = (free_port()?, free_port()?);
        let missing = "a door with an obstacle is not opened";
        let proxy = &self.programs.pgladder.path;
        let (mut command, stop, served) = match door {
            Door::Direct => {
                return Ok(Opened {
                    port: nodes[0],
                    daemon: None,
                    served: Served::Somehow,
                });
            }
            Door::PgladderOneNode => {
                let command = own::command(proxy, port, &nodes[..1], cached, clients_max);
                (command, Signal::SIGTERM, Served::By("primary"))
            }
            Door::Pgladder => {
                let command = own::command(proxy, port, &nodes, cached, clients_max);
                let served = if cached { "cache" } else { "replica" };
                (command, Signal::SIGTERM, Served::By(served))
            }
            Door::PgBouncer => {
                let program = self.programs.pgbouncer.as_ref().context(missing)?;
                let command = pgbouncer::command(program, self.place, port, nodes[0], clients_max)?;
                (command, Signal::SIGINT, Served::Somehow)
            }
            Door::Pgpool => {
                let program = self.programs.pgpool.as_ref().context(missing)?;
                let ports = pgpool::Ports { sql: port, control };
                let command = pgpool::command(program, self.place, ports, &nodes, cached)?;
                let served = if cached {
                    Served::PoolCache
                } else {
                    Served::Somehow
                };
                (command, Signal::SIGINT, served)
            }
        };
        let log = self.place.path(&format!("{port}.log"));
        Ok(Opened {
            port,
            daemon: Some(Daemon::start(&mut command, stop, &log)?),
            served,
        })
    }
}

impl Opened {
    /// Asks this until it is answered from where it should be.
    pub async fn until_served(&mut self, sql: &str) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(daemon) = &mut self.daemon {
                daemon.check()?;
            }
            let found = match self.attempt(sql).await {
                Ok(None) => return Ok(()),
                Ok(Some(found)) => found,
                Err(error) => format!("{error:#}"),
            };
            if Instant::now() > deadline {
                let words = self.daemon.as_ref().map(Daemon::last_words).unwrap_or_default();
                bail!(
                    "port {}: wanted {:?}, found {found}\n{words}",
                    self.port,
                    self.served
                );
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// Asks once: `None` where it was served as it should be, else by whom it was.
    async fn attempt(&self, sql: &str) -> anyhow::Result<Option<String>> {
        let mut config = Config::new();
        config.host("127.0.0.1").port(self.port);
        config.user(SUPERUSER).dbname(DATABASE);
        config.connect_timeout(PATIENCE);
        let (client, connection) = config.connect(NoTls).await?;
        let mut driver = JoinSet::new();
        // A driver's error also reaches every call on its client.
        driver.spawn(async move { drop(connection.await) });
        client.simple_query(sql).await?;
        let (question, column, wanted) = match self.served {
            Served::Somehow => return Ok(None),
            Served::By(wanted) => ("SHOW pgladder.last", "served_by", Some(wanted)),
            Served::PoolCache => ("SHOW pool_cache", "num_cache_hits", None),
        };
        for message in client.simple_query(question).await? {
            if let SimpleQueryMessage::Row(row) = message {
                let found = row.try_get(column)?.unwrap_or_default();
                let is_wanted = wanted.map_or(found != "0", |wanted| found == wanted);
                return Ok((!is_wanted).then(|| format!("{column} {found}")));
            }
        }
        bail!("no row from {question}")
    }
}

fn free_port() -> anyhow::Result<u16> {
    for _ in 0..1_000 {
        let port = rand::random_range(PORTS);
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no free port on 127.0.0.1")
}
