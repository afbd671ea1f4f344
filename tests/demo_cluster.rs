//! The throw-away cluster keeps its promises: real replicas, repeatable data, and nothing left behind.
//!
//! It starts PostgreSQL itself and fails loudly where PostgreSQL is not installed.

use std::path::Path;

use pgladder::demo::cluster::{
    ClusterError, OWNER_FILE, Options, Process, ThrowAwayCluster, sweep_leftovers,
};
use pgladder::demo::data::{self, DASHBOARD, HOTELS};
use tokio::net::TcpStream;

const DEALS: u64 = 20_000;
const CHECKSUM: &str = "SELECT (SELECT md5(string_agg(h::text, '|' ORDER BY id)) FROM hotels h) \
     || (SELECT md5(string_agg(d::text, '|' ORDER BY id)) FROM deals d)";

async fn start(replicas: usize) -> ThrowAwayCluster {
    let options = Options {
        replicas,
        label: "test-".to_owned(),
        ..Options::default()
    };
    ThrowAwayCluster::start(options).await.expect("a cluster")
}

async fn text(cluster: &ThrowAwayCluster, node: usize, query: &str) -> String {
    let client = cluster.connect(node, "postgres").await.expect("a connection");
    client
        .batch_execute("SET TimeZone = 'UTC'")
        .await
        .expect("a setting");
    client.query_one(query, &[]).await.expect("a row").get(0)
}

async fn run(cluster: &ThrowAwayCluster, node: usize, sql: &str) {
    let client = cluster.connect(node, "postgres").await.expect("a connection");
    client.batch_execute(sql).await.expect("it runs");
}

/// Every process of the cluster: the servers and what they forked.
fn processes(cluster: &ThrowAwayCluster) -> Vec<Process> {
    let servers: Vec<Process> = (0..cluster.node_count())
        .filter_map(|node| cluster.process(node))
        .collect();
    let children: Vec<Process> = servers.iter().flat_map(Process::descendants).collect();
    servers.into_iter().chain(children).collect()
}

fn assert_nothing_left(directory: &Path, processes: &[Process]) {
    assert!(processes.len() > 3, "a server has children: {processes:?}");
    let alive: Vec<&Process> = processes.iter().filter(|process| process.is_alive()).collect();
    assert!(alive.is_empty(), "{alive:?}");
    assert!(!directory.exists());
}

#[tokio::test]
async fn data_is_repeatable_and_equal_on_all_nodes() {
    let cluster = start(2).await;
    let mut client = cluster.connect(0, "postgres").await.expect("a connection");
    let mut sums = Vec::new();
    for _ in 0..2 {
        let mut heard = Vec::new();
        data::load(&mut client, DEALS, |sent| heard.push(sent))
            .await
            .expect("a load");
        assert_eq!(heard, [10_000, 20_000]);
        sums.push(text(&cluster, 0, CHECKSUM).await);
    }
    assert_eq!(sums[0], sums[1]);

    cluster.wait_caught_up().await.expect("replicas that stream");
    for replica in [1, 2] {
        assert_eq!(text(&cluster, replica, CHECKSUM).await, sums[0]);
        assert_eq!(
            text(&cluster, replica, "SELECT pg_is_in_recovery()::text").await,
            "true"
        );
    }
    let names = "SELECT string_agg(application_name, ' ' ORDER BY application_name) FROM pg_stat_replication";
    assert_eq!(text(&cluster, 0, names).await, "replica_1 replica_2");

    let counts =
        "SELECT (SELECT count(*) FROM hotels)::text || ' ' || (SELECT count(DISTINCT city) FROM hotels)";
    assert_eq!(text(&cluster, 0, counts).await, format!("{HOTELS} 50"));
    let rows = client.query(DASHBOARD, &[]).await.expect("the dashboard");
    assert_eq!(rows.len(), 50);
    assert!(rows.iter().any(|row| row.get::<_, &str>(0) == "Toronto"));
    let next = "INSERT INTO deals (hotel_id, price_per_night, is_available, checkin_date) \
         VALUES (1, 99.90, true, '2026-06-01') RETURNING id::text";
    assert_eq!(text(&cluster, 0, next).await, (DEALS + 1).to_string());
    cluster.shut_down().await.expect("nothing stays");
}

#[tokio::test]
async fn a_paused_replica_hides_a_write_until_it_goes_on() {
    let cluster = start(1).await;
    run(&cluster, 0, "CREATE TABLE t (a int)").await;
    cluster.wait_caught_up().await.expect("it streams");
    cluster.pause_replay(1).await.expect("a replica");
    run(&cluster, 0, "INSERT INTO t VALUES (1)").await;
    // The replica has received the write, and still does not show it.
    let flushed = text(&cluster, 0, "SELECT pg_current_wal_flush_lsn()::text").await;
    let received = format!("SELECT (pg_last_wal_receive_lsn() >= '{flushed}')::text");
    while text(&cluster, 1, &received).await != "true" {
        tokio::task::yield_now().await;
    }
    assert_eq!(text(&cluster, 1, "SELECT count(*)::text FROM t").await, "0");
    cluster.resume_replay(1).await.expect("a replica");
    cluster.wait_caught_up().await.expect("it replays again");
    assert_eq!(text(&cluster, 1, "SELECT count(*)::text FROM t").await, "1");
    cluster.shut_down().await.expect("nothing stays");
}

#[tokio::test]
async fn a_killed_node_is_unreachable_until_its_restart() {
    let cluster = start(1).await;
    run(&cluster, 0, "CREATE TABLE t (a int)").await;
    for node in [1, 0] {
        let before = cluster.process(node).expect("it runs");
        let with_children: Vec<Process> = before.descendants().into_iter().chain([before.clone()]).collect();
        TcpStream::connect(cluster.address(node))
            .await
            .expect("it listens");
        cluster.kill_hard(node).await.expect("it dies");
        assert!(with_children.iter().all(|process| !process.is_alive()));
        assert!(cluster.process(node).is_none());
        TcpStream::connect(cluster.address(node))
            .await
            .expect_err("nobody listens");
        assert!(matches!(
            cluster.connect(node, "postgres").await,
            Err(ClusterError::Query { .. })
        ));

        cluster.restart(node).await.expect("crash recovery");
        TcpStream::connect(cluster.address(node))
            .await
            .expect("it listens on the same port");
        assert_ne!(cluster.process(node).expect("it runs"), before);
    }
    run(&cluster, 0, "INSERT INTO t VALUES (1)").await;
    cluster.wait_caught_up().await.expect("it streams again");
    assert_eq!(text(&cluster, 1, "SELECT count(*)::text FROM t").await, "1");
    cluster.shut_down().await.expect("nothing stays");
}

#[tokio::test]
async fn a_promoted_replica_takes_writes_and_the_other_follows_it() {
    let cluster = start(2).await;
    run(&cluster, 0, "CREATE TABLE t (a int)").await;
    cluster.wait_caught_up().await.expect("both stream");
    cluster.stop(0).await.expect("it stops");
    cluster.promote(1).await.expect("a replica");
    assert_eq!(cluster.primary(), 1);
    run(&cluster, 1, "INSERT INTO t VALUES (1)").await;
    cluster.follow(2, 1).await.expect("a replica");
    cluster
        .wait_caught_up()
        .await
        .expect("it follows the new timeline");
    assert_eq!(text(&cluster, 2, "SELECT count(*)::text FROM t").await, "1");
    cluster.shut_down().await.expect("nothing stays");
}

#[tokio::test]
async fn nothing_is_left_after_a_shut_down() {
    let cluster = start(1).await;
    let (directory, processes) = (cluster.directory().to_owned(), processes(&cluster));
    let client = cluster.connect(0, "postgres").await.expect("a connection");
    cluster.shut_down().await.expect("nothing stays");
    assert_nothing_left(&directory, &processes);
    assert!(client.is_closed());
}

#[tokio::test]
async fn nothing_is_left_after_a_panic() {
    let cluster = start(0).await;
    let (directory, processes) = (cluster.directory().to_owned(), processes(&cluster));
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
        let _owned = cluster;
        panic!("a failing test");
    }));
    assert!(panicked.is_err());
    assert_nothing_left(&directory, &processes);
}

#[tokio::test]
async fn a_sweep_ends_the_cluster_of_a_dead_owner_and_spares_a_living_ones() {
    let living = start(0).await;
    let abandoned = start(1).await;
    let (directory, processes) = (abandoned.directory().to_owned(), processes(&abandoned));
    let swept = sweep_leftovers().expect("a sweep");
    assert!(!swept.contains(&directory), "its owner, this process, lives");

    // The record of an owner that is dead: the number is alive, but started at another time.
    let record = std::fs::read_to_string(directory.join(OWNER_FILE)).expect("the record");
    let mut lines: Vec<&str> = record.lines().collect();
    assert_eq!(lines[0], std::process::id().to_string());
    lines[1] = "1";
    std::fs::write(directory.join(OWNER_FILE), lines.join("\n")).expect("it is ours");
    // A killed owner runs no destructors.
    std::mem::forget(abandoned);
    sweep_leftovers().expect("a sweep");
    assert_nothing_left(&directory, &processes);
    assert_eq!(text(&living, 0, "SELECT 'here'").await, "here");
    living.shut_down().await.expect("nothing stays");
}

#[tokio::test]
async fn callers_rules_and_settings_hold_over_tcp() {
    let options = Options {
        settings: vec![("work_mem".to_owned(), "7MB".to_owned())],
        hba: Some("host all all 127.0.0.1/32 scram-sha-256".to_owned()),
        ..Options::default()
    };
    let cluster = ThrowAwayCluster::start(options).await.expect("a cluster");
    run(&cluster, 0, "CREATE ROLE app LOGIN PASSWORD 'right'").await;
    assert_eq!(text(&cluster, 0, "SHOW work_mem").await, "7MB");
    let mut config = tokio_postgres::Config::new();
    config
        .host("127.0.0.1")
        .port(cluster.port(0))
        .user("app")
        .dbname("postgres")
        .password("wrong");
    assert!(cluster.connect_with(0, &config).await.is_err());
    config.password("right");
    cluster
        .connect_with(0, &config)
        .await
        .expect("the password is right");
    cluster.shut_down().await.expect("nothing stays");
}
