//! Server connections against a real server: they are lent again, closed when dirty, and refused with the real reason.
//!
//! It starts PostgreSQL itself and fails loudly where PostgreSQL is not installed. Deadlines bound every wait.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use pgladder::cluster::NodeId;
use pgladder::demo::cluster::{Options, ThrowAwayCluster};
use pgladder::pool::{FirstOf, PoolError, PoolKey, PoolSettings, Pools, SampleNumbers, ServerTls, TlsMode};

struct Zero;

impl SampleNumbers for Zero {
    fn next_sample_number(&self, _: NodeId) -> u64 {
        0
    }
}

fn pools(port: u16, size: u32, queue_max: usize) -> Arc<Pools> {
    let settings = PoolSettings {
        size,
        queue_max,
        ..PoolSettings::default()
    };
    let nodes = HashMap::from([(
        NodeId(0),
        format!("127.0.0.1:{port}").parse().expect("an address"),
    )]);
    let tls = ServerTls::new(TlsMode::Disable, None).expect("no files to read");
    Pools::new(settings, nodes, tls, Arc::new(FirstOf::default()), Arc::new(Zero))
}

fn key(user: &str) -> PoolKey {
    PoolKey {
        node: NodeId(0),
        database: "postgres".into(),
        user: user.into(),
    }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_lent_and_refused() {
    let options = Options {
        replicas: 0,
        label: "pool-".to_owned(),
        ..Options::default()
    };
    let cluster = ThrowAwayCluster::start(options).await.expect("a server");
    let pools = pools(cluster.port(0), 1, 0);

    let lease = pools.lease(&key("postgres"), soon()).await.expect("a connection");
    let first = lease.id;
    assert_eq!(&*lease.login.default_transaction_isolation, "read committed");
    assert!(!lease.login.in_recovery && lease.parameters.contains_key("server_version"));
    let full = pools.lease(&key("postgres"), soon()).await;
    assert!(
        matches!(full, Err(PoolError::QueueFull { .. })),
        "one connection, lent, and no queue: {full:?}"
    );
    drop(lease);

    let mut lease = pools.lease(&key("postgres"), soon()).await.expect("a connection");
    assert_eq!(lease.id, first, "a clean connection is lent again");
    lease.dirty = true;
    drop(lease);
    let lease = pools.lease(&key("postgres"), soon()).await.expect("a connection");
    assert_ne!(lease.id, first, "a dirty connection is closed");
    drop(lease);

    let refused = pools
        .lease(&key("nobody_of_that_name"), soon())
        .await
        .expect_err("no such role");
    assert_eq!(
        refused.sqlstate(),
        "28000",
        "the server's own reason, at once: {refused}"
    );
    cluster.shut_down().await.expect("it ends");
    let dead = pools
        .lease(&key("somebody_else"), soon())
        .await
        .expect_err("the server is gone");
    assert!(
        !matches!(dead, PoolError::TimedOut),
        "the connect error, not a timeout: {dead}"
    );
}
