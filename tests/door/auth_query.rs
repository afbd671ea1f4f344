//! Logins whose verifiers stand in PostgreSQL itself, and the way on to its servers with the keys that such a login proves.
//!
//! A real server is started that lets nobody in without SCRAM, except the harness over its private socket.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use pgladder::auth::{AuthSettings, DEFAULT_QUERY, PrimaryVerifiers, QuerySettings};
use pgladder::cluster::NodeId;
use pgladder::demo::cluster::{Options, ThrowAwayCluster};
use pgladder::pool::{
    Address, Credentials, PoolError, PoolKey, PoolSettings, Pools, SampleNumbers, Secret, ServerTls, TlsMode,
};
use tokio::time::Instant;
use tokio_postgres::NoTls;
use tokio_util::task::TaskTracker;

use crate::listening::Listening;

struct Fixed(Secret);

impl Credentials for Fixed {
    fn secret(&self, _user: &str, _database: &str, _host: &str, _port: u16) -> Option<Secret> {
        Some(self.0.clone())
    }
}

struct NoSamples;

impl SampleNumbers for NoSamples {
    fn next_sample_number(&self, _node: NodeId) -> u64 {
        0
    }
}

async fn cluster() -> ThrowAwayCluster {
    let options = Options {
        hba: Some("host all all 127.0.0.1/32 scram-sha-256".to_owned()),
        label: "door-".to_owned(),
        ..Options::default()
    };
    let cluster = ThrowAwayCluster::start(options).await.expect("a cluster");
    run(
        &cluster,
        "CREATE ROLE reader LOGIN PASSWORD 'reads'; GRANT SELECT ON pg_authid TO reader;
         CREATE ROLE ann LOGIN PASSWORD 'secret'; CREATE ROLE late LOGIN PASSWORD 'secret' VALID UNTIL '2001-01-01';
         CREATE ROLE bare LOGIN; CREATE ROLE staff PASSWORD 'secret';
         SET password_encryption = 'md5'; CREATE ROLE old LOGIN PASSWORD 'secret'",
    )
    .await;
    cluster
}

async fn run(cluster: &ThrowAwayCluster, sql: &str) {
    let admin = cluster.connect(0, "postgres").await.expect("a connection");
    admin.batch_execute(sql).await.expect("it runs");
}

fn address(cluster: &ThrowAwayCluster) -> Address {
    Address::Tcp {
        host: "127.0.0.1".into(),
        port: cluster.port(0),
    }
}

fn tls() -> ServerTls {
    ServerTls::new(TlsMode::Prefer, None).expect("TLS needs no files")
}

async fn door(cluster: &ThrowAwayCluster, query: &str, ttl: Duration) -> Listening {
    let primary = address(cluster);
    let verifiers = PrimaryVerifiers::new(QuerySettings {
        query: query.to_owned(),
        user: "reader".to_owned(),
        database: "postgres".to_owned(),
        timeout: Duration::from_secs(5),
        primary: Arc::new(move || Some(primary.clone())),
        credentials: Arc::new(Fixed(Secret::Password("reads".to_owned().into()))),
        tls: tls(),
        tasks: TaskTracker::new(),
    });
    let settings = AuthSettings {
        query: Some(Arc::new(verifiers)),
        query_ttl: ttl,
        ..AuthSettings::default()
    };
    Listening::start(settings, |_| {}).await
}

async fn log_in(door: &Listening, user: &str, password: &str) -> Result<(), tokio_postgres::Error> {
    let mut config = tokio_postgres::Config::new();
    config.host("127.0.0.1").port(door.port("127.0.0.1")).user(user);
    config.password(password).connect(NoTls).await.map(drop)
}

fn code(result: Result<(), tokio_postgres::Error>) -> String {
    let error = result.expect_err("refused");
    error.code().expect("told by the door").code().to_owned()
}

#[tokio::test]
async fn the_keys_that_a_login_proves_open_the_servers_too() {
    let cluster = cluster().await;
    let door = door(&cluster, DEFAULT_QUERY, Duration::from_secs(5)).await;
    log_in(&door, "ann", "secret").await.expect("logged in");
    let keys = door.next_client().await.identity.keys.expect("keys");
    assert!(matches!(keys, Secret::ScramKeys { .. }));
    let node = NodeId(0);
    let pools = Pools::new(
        PoolSettings::default(),
        HashMap::from([(node, address(&cluster))]),
        tls(),
        Arc::new(Fixed(keys)),
        Arc::new(NoSamples),
    );
    let key = |user: &str| PoolKey {
        node,
        database: "postgres".into(),
        user: user.into(),
    };
    let deadline = Instant::now() + Duration::from_secs(30);
    let lease = pools
        .lease(&key("ann"), deadline)
        .await
        .expect("let in without a password");
    assert_eq!(&*lease.login.session_user, "ann");
    drop(lease);
    let other = pools.lease(&key("reader"), deadline).await;
    assert!(matches!(other, Err(PoolError::Refused(refused)) if &*refused.sqlstate == "28P01"));
    cluster.shut_down().await.expect("nothing stays");
}

#[tokio::test]
async fn who_cannot_log_in_to_the_server_cannot_log_in_here() {
    let cluster = cluster().await;
    let door = door(&cluster, DEFAULT_QUERY, Duration::from_secs(5)).await;
    for user in ["late", "bare", "staff", "old", "nobody"] {
        assert_eq!(code(log_in(&door, user, "secret").await), "28P01", "{user}");
    }
    assert_eq!(code(log_in(&door, "ann", "guess").await), "28P01");
    assert!(door.no_client_came());
    cluster.shut_down().await.expect("nothing stays");
}

#[tokio::test]
async fn a_changed_password_counts_after_one_refusal_and_a_restart_is_survived() {
    let cluster = cluster().await;
    // In the form that PgBouncer's users have.
    let query = "SELECT usename, passwd FROM pg_catalog.pg_shadow WHERE usename = $1";
    run(&cluster, "GRANT SELECT ON pg_shadow TO reader").await;
    let door = door(&cluster, query, Duration::from_secs(3600)).await;
    log_in(&door, "ann", "secret").await.expect("logged in");
    run(&cluster, "ALTER ROLE ann PASSWORD 'changed'").await;
    assert_eq!(
        code(log_in(&door, "ann", "changed").await),
        "28P01",
        "the old verifier is still known"
    );
    log_in(&door, "ann", "changed").await.expect("asked again");

    cluster.stop(0).await.expect("stopped");
    assert_eq!(code(log_in(&door, "reader", "reads").await), "57P03");
    cluster.restart(0).await.expect("started");
    log_in(&door, "reader", "reads").await.expect("connected again");
    cluster.shut_down().await.expect("nothing stays");
}
