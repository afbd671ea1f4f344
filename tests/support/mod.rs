//! The stage of the integration tests: a throw-away cluster, and the proxy in front of it, in this very process.
//!
//! Included by test programs with `mod support;`. A test starts a `Stage`, makes the databases that it needs and talks to
//! them twice: directly to the primary, and through the proxy. Everything ends with `shut_down`; after a panic the proxy's
//! task ends with its set, and the cluster with its own `Drop`. The tests must run on a runtime of several threads where
//! they wait for programs.

pub mod compare;
pub mod program;
pub mod python;

use std::time::Duration;

use pgladder::config::{AuthConfig, AuthMethod, Config, Endpoint, ListenConfig, NodeConfig, StreamUse};
use pgladder::demo::cluster::{Options, SUPERUSER, ThrowAwayCluster};
use pgladder::listener::Bound;
use pgladder::serve::{ServeError, serve_and_tell};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Nothing on the stage takes longer, unless something hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits for something, and fails with its name when it takes too long.
pub async fn within<T>(what: &str, work: impl Future<Output = T>) -> T {
    let done = timeout(PATIENCE, work).await;
    done.unwrap_or_else(|_| panic!("{what}: nothing for {PATIENCE:?}"))
}

/// A cluster, and the proxy in front of it.
pub struct Stage {
    /// The servers; node 0 is the primary.
    pub cluster: ThrowAwayCluster,
    proxy_port: u16,
    stop: CancellationToken,
    serving: JoinSet<Result<(), ServeError>>,
}

/// Two databases of equal content: what is done in one directly is done in the other through the proxy.
#[derive(Debug, Clone)]
pub struct Pair {
    /// To be used directly.
    pub direct: String,
    /// To be used through the proxy.
    pub proxied: String,
}

impl Stage {
    /// Starts a primary with so many replicas, and the proxy with its default configuration but trusting its clients.
    pub async fn start(replicas: usize) -> Self {
        Self::start_with(replicas, |_| {}).await
    }

    /// As `start`; `change` has the last word on the configuration.
    pub async fn start_with(replicas: usize, change: impl FnOnce(&mut Config)) -> Self {
        let options = Options {
            replicas,
            label: "test-".to_owned(),
            settings: vec![("max_connections".to_owned(), "200".to_owned())],
            ..Options::default()
        };
        let cluster = ThrowAwayCluster::start(options).await.expect("a cluster");
        let nodes = (0..cluster.node_count()).map(|node| NodeConfig {
            address: loopback(cluster.port(node)),
            weight: 1,
        });
        let mut config = Config {
            listen: ListenConfig {
                addresses: vec![loopback(0)],
            },
            nodes: nodes.collect(),
            auth: AuthConfig {
                method: AuthMethod::Trust,
                ..AuthConfig::default()
            },
            ..Config::default()
        };
        SUPERUSER.clone_into(&mut config.cluster.control_user);
        // What a stream does is tested where it is meant.
        config.stream.enabled = StreamUse::Off;
        change(&mut config);
        let (tell, bound) = oneshot::channel();
        let (stop, mut serving) = (CancellationToken::new(), JoinSet::new());
        serving.spawn(serve_and_tell(config, stop.clone(), tell));
        let served = within("the proxy that starts", bound).await.expect("it serves");
        let proxy_port = match served.clients[..] {
            [Bound::Tcp(address)] => address.port(),
            ref other => panic!("one TCP address was asked for: {other:?}"),
        };
        Self {
            cluster,
            proxy_port,
            stop,
            serving,
        }
    }

    /// The proxy's port on 127.0.0.1.
    pub fn proxy_port(&self) -> u16 {
        self.proxy_port
    }

    /// The primary's port on 127.0.0.1.
    pub fn primary_port(&self) -> u16 {
        self.cluster.port(self.cluster.primary())
    }

    /// Makes two databases with the same content, named alike, and waits until every replica has them.
    ///
    /// Their names are of the same length, so that what a client lays out in columns looks the same.
    pub async fn databases(&self, name: &str, content: &str) -> Pair {
        within("two databases to be made", self.make_databases(name, content)).await
    }

    async fn make_databases(&self, name: &str, content: &str) -> Pair {
        let pair = Pair {
            direct: format!("{name}_plain"),
            proxied: format!("{name}_proxy"),
        };
        let administrator = self.cluster.connect(0, "postgres").await.expect("a connection");
        let create = format!("CREATE DATABASE {}", pair.direct);
        administrator.batch_execute(&create).await.expect("a database");
        let first = self.cluster.connect(0, &pair.direct).await.expect("a connection");
        first.batch_execute(content).await.expect("its content");
        drop(first);
        // A template must have no connections. CREATE DATABASE waits a while until they are gone, and they were told to go.
        let leave = format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{}'",
            pair.direct
        );
        administrator.batch_execute(&leave).await.expect("they leave");
        let copy = format!("CREATE DATABASE {} TEMPLATE {}", pair.proxied, pair.direct);
        administrator.batch_execute(&copy).await.expect("its copy");
        self.cluster.wait_caught_up().await.expect("replicas");
        pair
    }

    /// Ends the proxy and the cluster; nothing of them is left.
    pub async fn shut_down(mut self) {
        self.stop.cancel();
        while let Some(ended) = within("the proxy that stops", self.serving.join_next()).await {
            ended.expect("no panic").expect("a clean end");
        }
        self.cluster.shut_down().await.expect("nothing is left");
    }
}

fn loopback(port: u16) -> Endpoint {
    Endpoint::Tcp {
        host: "127.0.0.1".to_owned(),
        port,
    }
}
