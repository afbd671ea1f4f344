//! Brings the nodes of a throw-away cluster up, and ends all of them when it is dropped.
//!
//! Used by `ThrowAwayCluster` alone. `Running` owns the directory from the moment it exists and every server from the
//! moment it is spawned, so that a start that fails, panics or is dropped half way leaves nothing behind. It keeps no
//! connection open and decides nothing about roles.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use parking_lot::Mutex;
use tokio::task::spawn_blocking;
use tokio_postgres::{Config, NoTls};

use super::account::Account;
use super::directory::{self, sweep_leftovers};
use super::error::ClusterError;
use super::postmaster::{Postmaster, Programs};
use super::{Options, POLL_INTERVAL, SUPERUSER};
use crate::demo::binaries::Binaries;

/// Below the ports that Linux and macOS hand to outgoing connections: one of those must not take a stopped node's port.
const PORTS: std::ops::Range<u16> = 15_000..32_000;
const PORT_ATTEMPTS: usize = 5;
const START_WAIT_MAX: Duration = Duration::from_secs(60);
const END_WAIT_MAX: Duration = Duration::from_secs(6);

const TRUST_LOOPBACK: &str = "host all all 127.0.0.1/32 trust\nhost replication all 127.0.0.1/32 trust\n";
/// The socket lies in a directory of mode 0700: who reaches it is the owner already.
const TRUST_OWN_SOCKET: &str = "local all postgres trust\nlocal replication postgres trust\n";

/// Durable it need not be; what a replica may still need is kept without slots, so that any node can follow any other.
/// Shared memory lies in the data directory, where it goes away with it also after a SIGKILL.
/// Passwords are kept as 14 and later keep them, also by 13.
const SETTINGS: [(&str, &str); 13] = [
    ("wal_level", "logical"),
    ("hot_standby", "on"),
    ("max_wal_senders", "16"),
    ("max_replication_slots", "16"),
    ("max_connections", "400"),
    ("wal_keep_size", "2GB"),
    ("wal_retrieve_retry_interval", "200ms"),
    ("fsync", "off"),
    ("shared_buffers", "64MB"),
    ("dynamic_shared_memory_type", "mmap"),
    ("password_encryption", "scram-sha-256"),
    ("log_line_prefix", "%m [%p] %q%a "),
    ("lc_messages", "C"),
];

/// One node: what it is called, where it lives, and its server while there is one.
#[derive(Debug)]
pub(super) struct Node {
    pub name: String,
    pub port: u16,
    pub server: Mutex<Option<Postmaster>>,
    data: PathBuf,
}

impl Node {
    /// Why its server has ended by itself; `None` while it runs.
    fn failure(&self) -> Option<ClusterError> {
        let mut server = self.server.lock();
        let failure = server
            .as_mut()
            .and_then(|server| server.has_ended().then(|| server.failure()));
        if failure.is_some() {
            *server = None;
        }
        failure
    }
}

/// The directory and the servers in it; dropping it ends both.
#[derive(Debug)]
pub(super) struct Running {
    pub nodes: Vec<Node>,
    programs: Programs,
}

impl Running {
    /// Sweeps leftovers, then brings up the primary and its replicas.
    pub async fn start(options: Options) -> Result<Self, ClusterError> {
        let binaries = Binaries::find()?;
        let account = Account::choose()?;
        spawn_blocking(sweep_leftovers)
            .await
            .expect("a sweep does not panic")?;
        let directory = directory::create(&options.label, &account)?;
        let mut running = Self {
            nodes: Vec::new(),
            programs: Programs {
                binaries,
                account,
                directory,
            },
        };
        running.create_primary(&options).await?;
        for number in 1..=options.replicas {
            running.create_replica(number).await?;
        }
        Ok(running)
    }

    pub fn directory(&self) -> &Path {
        &self.programs.directory
    }

    async fn create_primary(&mut self, options: &Options) -> Result<(), ClusterError> {
        let data = self.directory().join("primary");
        let path = data.display().to_string();
        let arguments = [
            "-D",
            &path,
            "-U",
            SUPERUSER,
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--locale=C",
            "--no-sync",
        ];
        self.programs.run("initdb", &arguments).await?;
        append(&data.join("postgresql.conf"), &self.settings(&options.settings))?;
        let rules = options.hba.as_deref().unwrap_or(TRUST_LOOPBACK);
        let hba = data.join("pg_hba.conf");
        std::fs::write(&hba, format!("{TRUST_OWN_SOCKET}{rules}\n")).map_err(ClusterError::file(&hba))?;
        self.launch_on_a_free_port("primary".to_owned(), data).await
    }

    async fn create_replica(&mut self, number: usize) -> Result<(), ClusterError> {
        let name = format!("replica_{number}");
        let data = self.directory().join(&name);
        let source = upstream(self.directory(), self.nodes[0].port, &name);
        let path = data.display().to_string();
        let arguments = [
            "-D",
            &path,
            "-d",
            &source,
            "-R",
            "-X",
            "stream",
            "-c",
            "fast",
            "--no-sync",
        ];
        self.programs.run("pg_basebackup", &arguments).await?;
        self.launch_on_a_free_port(name, data).await
    }

    fn settings(&self, of_the_caller: &[(String, String)]) -> String {
        let mut text = String::from("\n# The throw-away cluster's own settings, then its caller's.\n");
        if self.programs.binaries.has_library("pg_stat_statements") {
            text.push_str("shared_preload_libraries = 'pg_stat_statements'\n");
        }
        let of_the_caller = of_the_caller
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()));
        for (key, value) in SETTINGS.into_iter().chain(of_the_caller) {
            writeln!(text, "{key} = '{}'", value.replace('\'', "''")).expect("a String takes everything");
        }
        text
    }

    /// Starts a new node. Between finding a free port and listening on it another process may take it: then the next.
    async fn launch_on_a_free_port(&mut self, name: String, data: PathBuf) -> Result<(), ClusterError> {
        let number = self.nodes.len();
        self.nodes.push(Node {
            name,
            port: 0,
            server: Mutex::new(None),
            data,
        });
        let mut attempts = 0;
        loop {
            self.nodes[number].port = free_port()?;
            attempts += 1;
            match self.launch(number).await {
                Err(ClusterError::PortTaken { .. }) if attempts < PORT_ATTEMPTS => {}
                result => return result,
            }
        }
    }

    /// Starts a node that has a port, and tries again while another process holds that port.
    pub async fn launch_on_its_port(&self, number: usize, deadline: Instant) -> Result<(), ClusterError> {
        loop {
            match self.launch(number).await {
                Err(ClusterError::PortTaken { .. }) if Instant::now() < deadline => {
                    tokio::time::sleep(POLL_INTERVAL).await;
                }
                result => return result,
            }
        }
    }

    async fn launch(&self, number: usize) -> Result<(), ClusterError> {
        let node = &self.nodes[number];
        *node.server.lock() = Some(self.programs.spawn(&node.name, &node.data, node.port)?);
        let config = socket_config(self.directory(), node.port, "postgres");
        let deadline = Instant::now() + START_WAIT_MAX;
        loop {
            // Ready means that a login succeeds: a replica listens long before it is consistent.
            if config.connect(NoTls).await.is_ok() {
                return Ok(());
            }
            match node.failure() {
                Some(failure) => return Err(failure),
                None if Instant::now() >= deadline => {
                    return Err(ClusterError::TimedOut {
                        node: node.name.clone(),
                        awaited: "ready",
                    });
                }
                None => tokio::time::sleep(POLL_INTERVAL).await,
            }
        }
    }
}

impl Drop for Running {
    /// "Immediate" shutdown first, with which a server frees its shared memory; then SIGKILL by process number.
    fn drop(&mut self) {
        let mut servers: Vec<Postmaster> = self
            .nodes
            .iter()
            .filter_map(|node| node.server.lock().take())
            .collect();
        for server in &servers {
            server.signal(Signal::SIGQUIT);
            // A test may have stopped it with SIGSTOP, and then it cannot hear the first signal.
            server.signal(Signal::SIGCONT);
        }
        let deadline = Instant::now() + END_WAIT_MAX;
        for server in &mut servers {
            if !server.wait(deadline) {
                server.kill(Instant::now() + END_WAIT_MAX);
            }
        }
        directory::remove(self.directory());
    }
}

/// How the harness itself logs in: over the socket inside the cluster's directory.
pub(super) fn socket_config(directory: &Path, port: u16, database: &str) -> Config {
    let mut config = Config::new();
    config
        .host_path(directory)
        .port(port)
        .user(SUPERUSER)
        .dbname(database)
        .application_name("pgladder-demo");
    config.connect_timeout(START_WAIT_MAX);
    config
}

/// The connection string with which a replica streams from a node.
pub(super) fn upstream(directory: &Path, port: u16, name: &str) -> String {
    format!(
        "host='{}' port={port} user={SUPERUSER} application_name={name}",
        directory.display()
    )
}

fn append(path: &Path, text: &str) -> Result<(), ClusterError> {
    let file = OpenOptions::new().append(true).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(ClusterError::file(path))
}

fn free_port() -> Result<u16, ClusterError> {
    let mut last = 0;
    for _ in 0..1_000 {
        last = rand::random_range(PORTS);
        if TcpListener::bind((Ipv4Addr::LOCALHOST, last)).is_ok() {
            return Ok(last);
        }
    }
    Err(ClusterError::PortTaken { port: last })
}
