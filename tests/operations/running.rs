//! A throw-away cluster with the proxy in front, and the clients that the cases use.
//!
//! The proxy runs as `serve` runs it, on free ports. Everything ends with the value; a proxy that failed fails its case.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use pgladder::config::{AuthMethod, Config, Endpoint, NodeConfig, StreamUse};
use pgladder::demo::cluster::{Options, SUPERUSER, ThrowAwayCluster};
use pgladder::listener::Bound;
use pgladder::serve::{self, Origins, ServeError, Served};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};
use tokio_util::sync::CancellationToken;

pub const PATIENCE: Duration = Duration::from_secs(30);

/// Of every client, where it is asked for one.
pub const PASSWORD: &str = "secret";

/// The proxy and what is behind it.
pub struct Running {
    pub cluster: ThrowAwayCluster,
    pub clients: SocketAddr,
    pub http: Option<SocketAddr>,
    pub stop: CancellationToken,
    serving: JoinSet<Result<(), ServeError>>,
    drivers: parking_lot::Mutex<JoinSet<()>>,
}

/// Two tables of a few rows, and a view.
const SCHEMA: &str = "CREATE TABLE hotels (id int PRIMARY KEY, city text);
    CREATE TABLE deals (id int PRIMARY KEY, hotel_id int, price int);
    CREATE VIEW cheap AS SELECT id FROM deals WHERE price < 100;
    INSERT INTO hotels SELECT i, 'city ' || i % 5 FROM generate_series(1, 20) i;
    INSERT INTO deals SELECT i, 1 + i % 20, i FROM generate_series(1, 200) i;
    CREATE ROLE guest LOGIN";

pub fn loopback(port: u16) -> Endpoint {
    Endpoint::Tcp {
        host: "127.0.0.1".to_owned(),
        port,
    }
}

/// A cluster with the schema, caught up.
pub async fn cluster(replicas: usize) -> ThrowAwayCluster {
    let options = Options {
        replicas,
        label: "operations-".to_owned(),
        ..Options::default()
    };
    let cluster = ThrowAwayCluster::start(options).await.expect("a cluster");
    let primary = cluster.connect(0, "postgres").await.expect("a connection");
    primary.batch_execute(SCHEMA).await.expect("the schema");
    cluster.wait_caught_up().await.expect("replicas follow");
    cluster
}

/// The defaults in front of a cluster, on free ports, where everybody is trusted.
pub fn configuration(cluster: &ThrowAwayCluster) -> Config {
    let nodes = (0..cluster.node_count()).map(|node| NodeConfig {
        address: loopback(cluster.port(node)),
        weight: 1,
    });
    let mut config = Config {
        nodes: nodes.collect(),
        ..Config::default()
    };
    SUPERUSER.clone_into(&mut config.cluster.control_user);
    config.auth.method = AuthMethod::Trust;
    // A poll that is late on a busy machine makes no node unusable.
    config.cluster.poll_timeout = Duration::from_secs(10);
    // An entry that the cases count must not end because a stream begins.
    config.stream.enabled = StreamUse::Off;
    with_free_ports(config)
}

pub fn with_free_ports(mut config: Config) -> Config {
    config.listen.addresses = vec![loopback(0)];
    config.http.listen = Some(loopback(0));
    config
}

impl Running {
    pub async fn start(replicas: usize) -> Self {
        Self::start_with(replicas, |_| {}).await
    }

    /// As `start`; `change` has the last word on the configuration.
    pub async fn start_with(replicas: usize, change: impl FnOnce(&mut Config)) -> Self {
        let cluster = cluster(replicas).await;
        let mut config = configuration(&cluster);
        change(&mut config);
        Self::serve(cluster, config, None).await
    }

    pub async fn serve(cluster: ThrowAwayCluster, config: Config, origins: Option<Origins>) -> Self {
        let (bound, served) = oneshot::channel();
        let stop = CancellationToken::new();
        let mut serving = JoinSet::new();
        match origins {
            Some(origins) => serving.spawn(serve::serve_reloadable(config, origins, stop.clone(), bound)),
            None => serving.spawn(serve::serve_and_tell(config, stop.clone(), bound)),
        };
        let Served { clients, http } = served.await.expect("the proxy serves");
        let [Bound::Tcp(clients)] = clients[..] else {
            panic!("one address: {clients:?}");
        };
        Self {
            cluster,
            clients,
            http,
            stop,
            serving,
            drivers: parking_lot::Mutex::default(),
        }
    }

    /// A client of the proxy.
    pub async fn try_connect(&self, user: &str, database: &str) -> Result<Client, tokio_postgres::Error> {
        let mut config = tokio_postgres::Config::new();
        config.host("127.0.0.1").port(self.clients.port());
        config.user(user).dbname(database).password(PASSWORD);
        let (client, connection) = config.connect(NoTls).await?;
        self.drivers.lock().spawn(async move { drop(connection.await) });
        Ok(client)
    }

    pub async fn connect(&self, database: &str) -> Client {
        self.try_connect(SUPERUSER, database).await.expect("a session")
    }

    pub async fn console(&self) -> Client {
        self.connect("pgladder").await
    }

    /// Drains the proxy, and ends the cluster.
    pub async fn shut_down(mut self) {
        self.stop.cancel();
        let ended = self.serving.join_next().await.expect("it runs");
        ended.expect("no panic").expect("no error");
        self.cluster.shut_down().await.expect("nothing is left");
    }
}

/// The rows of a simple query, by column.
pub async fn simple(client: &Client, sql: &str) -> Vec<Vec<(String, Option<String>)>> {
    let messages = client.simple_query(sql).await.expect(sql);
    let rows = messages.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    rows.map(|row| {
        let names = row.columns().iter().map(|column| column.name().to_owned());
        names
            .enumerate()
            .map(|(at, name)| (name, row.get(at).map(str::to_owned)))
            .collect()
    })
    .collect()
}

/// One column of all rows.
pub async fn column(client: &Client, sql: &str, name: &str) -> Vec<Option<String>> {
    let rows = simple(client, sql).await;
    let value = |row: &Vec<(String, Option<String>)>| {
        let found = row.iter().find(|(column, _)| column == name);
        found
            .unwrap_or_else(|| panic!("{sql} has no column {name}"))
            .1
            .clone()
    };
    rows.iter().map(value).collect()
}

/// Who served a session's latest statement.
pub async fn served_by(client: &Client) -> String {
    let served = column(client, "SHOW pgladder.last", "served_by").await;
    served[0].clone().expect("somebody")
}

/// Asks until the answer is as wanted.
pub async fn eventually<T: std::fmt::Debug>(
    what: &str,
    mut ask: impl AsyncFnMut() -> T,
    wanted: impl Fn(&T) -> bool,
) -> T {
    let end = Instant::now() + PATIENCE;
    let mut tick = tokio::time::interval(Duration::from_millis(20));
    loop {
        let answer = ask().await;
        if wanted(&answer) {
            return answer;
        }
        assert!(Instant::now() < end, "{what} did not come true: {answer:?}");
        tick.tick().await;
    }
}
