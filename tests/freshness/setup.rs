//! What every test here stands on: real servers, the proxy in this process, and clients of either.
//!
//! Used by all files here. A setup ends its servers when it is dropped, also in a panic; its proxy when its token is. Waiting is
//! for a condition, asked for again and again, and fails at a deadline with what was seen last.

use std::collections::HashMap;
use std::time::Duration;

use pgladder::config::{AuthConfig, AuthMethod, Config, Endpoint, ListenConfig, NodeConfig, StreamUse};
use pgladder::demo::cluster::{Options, SUPERUSER, ThrowAwayCluster};
use pgladder::freshness::guards::Guards;
use pgladder::listener::Bound;
use pgladder::serve::serve_with_guards;
use tokio::sync::oneshot;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::client::{Client, Failed};

/// A bound on waiting, not a measure.
pub const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Waits until `look` says `Ok`; what it says last is shown when it never does.
pub async fn eventually<T, E: std::fmt::Debug>(what: &str, mut look: impl AsyncFnMut() -> Result<T, E>) -> T {
    let deadline = Instant::now() + PATIENCE;
    let mut again = interval(LOOK_AGAIN);
    again.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        again.tick().await;
        match look().await {
            Ok(found) => return found,
            Err(seen) => assert!(Instant::now() < deadline, "{what}: {seen:?}"),
        }
    }
}

/// A proxy that runs in this process.
pub struct Proxy {
    pub tcp: Bound,
    pub unix: Bound,
    stop: CancellationToken,
    tasks: TaskTracker,
    _ends: DropGuard,
    _sockets: tempfile::TempDir,
}

impl Proxy {
    /// In front of these nodes; `change` has the last word on the configuration.
    pub async fn start(nodes: Vec<Endpoint>, guards: Guards, change: impl FnOnce(&mut Config)) -> Self {
        let sockets = tempfile::tempdir().expect("a directory");
        let tcp = Endpoint::Tcp {
            host: "127.0.0.1".to_owned(),
            port: 0,
        };
        let unix = Endpoint::Unix {
            directory: sockets.path().to_path_buf(),
            port: 6432,
        };
        let mut config = Config {
            listen: ListenConfig {
                addresses: vec![tcp, unix],
            },
            nodes: nodes
                .into_iter()
                .map(|address| NodeConfig { address, weight: 1 })
                .collect(),
            auth: AuthConfig {
                method: AuthMethod::Trust,
                ..AuthConfig::default()
            },
            ..Config::default()
        };
        SUPERUSER.clone_into(&mut config.cluster.control_user);
        // A poll that is late on a busy machine makes no node unusable.
        config.cluster.poll_timeout = Duration::from_secs(10);
        // A stream waits for transactions, and once it carries a table what was read of it before is read anew: a test that says
        // where something is read has none, unless it is about that. That no read misses a write beside one the checker shows.
        config.stream.enabled = StreamUse::Off;
        change(&mut config);
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let (bound, told) = oneshot::channel();
        let serving = Box::pin(serve_with_guards(config, stop.clone(), bound, guards));
        tasks.spawn(async move { serving.await.expect("the proxy serves") });
        let served = timeout(PATIENCE, told)
            .await
            .expect("in time")
            .expect("it serves");
        let bound = |unix: bool| {
            let mut all = served.clients.iter();
            let found = all.find(|bound| matches!(bound, Bound::Unix(_)) == unix);
            found.expect("it listens on both").clone()
        };
        Self {
            tcp: bound(false),
            unix: bound(true),
            _ends: stop.clone().drop_guard(),
            stop,
            tasks,
            _sockets: sockets,
        }
    }

    pub async fn client(&self) -> Client {
        self.client_of(SUPERUSER, "postgres").await
    }

    pub async fn client_of(&self, user: &str, database: &str) -> Client {
        let client = timeout(PATIENCE, Client::connect(&self.tcp, user, database)).await;
        client.expect("in time").expect("a login")
    }

    /// Ends it, as SIGTERM would, and waits for that.
    pub async fn end(self) {
        self.stop.cancel();
        self.tasks.close();
        timeout(PATIENCE, self.tasks.wait()).await.expect("it ends");
    }
}

/// Servers, and a proxy in front of them.
pub struct Setup {
    pub proxy: Proxy,
    pub cluster: ThrowAwayCluster,
}

impl Setup {
    /// A primary and so many replicas.
    pub async fn start(replicas: usize) -> Self {
        Self::start_with(replicas, &[], |_| {}).await
    }

    pub async fn start_with(
        replicas: usize,
        settings: &[(&str, &str)],
        change: impl FnOnce(&mut Config),
    ) -> Self {
        let cluster = servers(replicas, settings).await;
        let proxy = Proxy::start(addresses(&cluster), Guards::default(), change).await;
        Self { proxy, cluster }
    }

    /// Runs statements on the primary itself, past the proxy.
    pub async fn direct(&self, sql: &str) {
        let client = self.cluster.connect(self.cluster.primary(), "postgres").await;
        let client = client.expect("a connection");
        client.batch_execute(sql).await.expect("it runs");
    }

    /// The first value, as text, that a node itself answers.
    pub async fn direct_value(&self, node: usize, sql: &str) -> String {
        let client = self.cluster.connect(node, "postgres").await;
        let rows = client.expect("a connection").simple_query(sql).await;
        let rows = rows.expect("it runs");
        let row = rows.iter().find_map(|message| match message {
            tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0),
            _ => None,
        });
        row.expect("a value").to_owned()
    }

    /// From now on commits wait for the confirmation of this standby; of none where it has no name.
    pub async fn wait_for_standby(&self, name: &str) {
        let setting = format!("ALTER SYSTEM SET synchronous_standby_names = '{name}'");
        // It is a commit of nothing, and waits for nobody.
        self.direct(&setting).await;
        self.direct("SELECT pg_reload_conf()").await;
        eventually("the setting", async || {
            let value = self.direct_value(0, "SHOW synchronous_standby_names").await;
            if value == name { Ok(()) } else { Err(value) }
        })
        .await;
    }

    /// Runs statements through the proxy, each as a query of its own, then waits until a replica serves this plain read again.
    pub async fn prepare(&self, statements: &[&str], read: &str) {
        let mut client = self.proxy.client().await;
        client.run_all(statements).await;
        client.until_served_by("replica", read).await;
    }
}

/// The servers alone.
pub async fn servers(replicas: usize, settings: &[(&str, &str)]) -> ThrowAwayCluster {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    let options = Options {
        replicas,
        settings: settings.iter().map(owned).collect(),
        label: "fresh-".to_owned(),
        ..Options::default()
    };
    ThrowAwayCluster::start(options).await.expect("a cluster")
}

/// Where the nodes of a cluster listen.
pub fn addresses(cluster: &ThrowAwayCluster) -> Vec<Endpoint> {
    let nodes = 0..cluster.node_count();
    nodes.map(|node| endpoint(cluster.port(node))).collect()
}

/// A port of this machine.
pub fn endpoint(port: u16) -> Endpoint {
    Endpoint::Tcp {
        host: "127.0.0.1".to_owned(),
        port,
    }
}

/// Where a session's latest statement was answered, and why there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Last {
    pub served_by: String,
    pub node: String,
    pub reason: String,
    /// Of an answer from the cache, in milliseconds.
    pub age: String,
}

/// What most tests do with a client: they expect it to succeed.
impl Client {
    pub async fn run(&mut self, sql: &str) {
        if let Err(failed) = timeout(PATIENCE, self.query(sql)).await.expect("in time") {
            panic!("{sql}: {failed}");
        }
    }

    /// Each as a query of its own.
    pub async fn run_all(&mut self, statements: &[&str]) {
        for sql in statements {
            self.run(sql).await;
        }
    }

    /// The first value of a simple query, as text.
    pub async fn value(&mut self, sql: &str) -> String {
        match timeout(PATIENCE, self.query(sql)).await.expect("in time") {
            Ok(answer) => answer.text(),
            Err(failed) => panic!("{sql}: {failed}"),
        }
    }

    pub async fn last(&mut self) -> Result<Last, Failed> {
        let answer = self.query("SHOW pgladder.last").await?;
        let column = |at: usize| {
            let value = answer.rows.first().and_then(|row| row.get(at)).cloned();
            let value = value.flatten().unwrap_or_default();
            String::from_utf8_lossy(&value).into_owned()
        };
        Ok(Last {
            served_by: column(0),
            node: column(1),
            reason: column(2),
            age: column(3),
        })
    }

    /// The first value of a simple query, and who served it.
    pub async fn served(&mut self, sql: &str) -> (String, Last) {
        let value = self.value(sql).await;
        (value, self.last().await.expect("the proxy's own statement"))
    }

    /// Reads again and again until this one serves it; returns what that answered.
    pub async fn until_served_by(&mut self, wanted: &str, sql: &str) -> String {
        eventually(&format!("served by {wanted}: {sql}"), async || {
            let (value, last) = self.served(sql).await;
            if last.served_by == wanted {
                Ok(value)
            } else {
                Err(last)
            }
        })
        .await
    }
}

/// The numbers of SHOW STATS.
pub async fn stats(proxy: &Proxy) -> HashMap<String, u64> {
    let mut console = proxy.client_of("postgres", "pgladder").await;
    let answer = console.query("SHOW STATS").await.expect("the console");
    let text = |value: &Option<bytes::Bytes>| {
        String::from_utf8_lossy(value.as_deref().unwrap_or_default()).into_owned()
    };
    let rows = answer.rows.iter();
    rows.map(|row| (text(&row[0]), text(&row[1]).parse().expect("a number")))
        .collect()
}
