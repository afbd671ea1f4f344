//! The bound on what is written past the proxy: of entries and of replicas, also where the stream is late, or carries nothing.
//!
//! A test fails when an old answer outlives its bound by far; how far is a matter of the machine, and `LIMIT` leaves room for a busy
//! one. Where nothing bounds a read but the lag limit of the replicas, or the TTL of an entry, these are an hour long.

use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pgladder::config::Config;

use crate::setup::Setup;
use crate::stream::{SUM, TABLE, until_carried, until_read, with_stream};

const BOUND: Duration = Duration::from_millis(400);
/// The longest that an old answer may be seen here.
const LIMIT: Duration = Duration::from_secs(9);
const HOUR: Duration = Duration::from_secs(3_600);

fn bounded(config: &mut Config) {
    with_stream(config);
    config.stream.delay_max = BOUND;
    config.cluster.lag_max = HOUR;
    config.cluster.lag_bytes_max = None;
    config.cache.ttl = HOUR;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_does_not_wait_for_the_disk_is_within_the_bound_too() {
    let setup = Setup::start_with(0, &[("wal_writer_delay", "10s")], bounded).await;
    let mut reader = setup.proxy.client().await;
    reader.run_all(TABLE).await;
    for n in 1..6 {
        until_carried(&setup, &mut reader, SUM).await;
        // Nothing flushes it for seconds, so for as long the stream cannot tell of it.
        setup
            .direct(&format!("SET synchronous_commit = off; UPDATE t SET n = {n}"))
            .await;
        let written = Instant::now();
        until_read(&mut reader, SUM, &n.to_string()).await;
        assert!(written.elapsed() < LIMIT, "{n}: {:?}", written.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_the_stream_does_not_carry_is_read_from_replicas_within_the_bound() {
    let setup = Setup::start_with(1, &[], bounded).await;
    let mut reader = setup.proxy.client().await;
    reader.run_all(TABLE).await;
    reader
        .run("CREATE TABLE audit (n bigint); INSERT INTO audit VALUES (0)")
        .await;
    let plain = "SELECT n FROM audit";
    until_carried(&setup, &mut reader, SUM).await;
    reader.until_served_by("replica", plain).await;
    setup.cluster.pause_replay(1).await.expect("replay waits");
    setup.direct("UPDATE audit SET n = 1").await;
    let written = Instant::now();
    until_read(&mut reader, plain, "1").await;
    assert!(written.elapsed() < LIMIT, "{:?}", written.elapsed());
    for _ in 0..5 {
        assert_eq!(reader.served(plain).await.1.served_by, "primary");
    }
    setup.cluster.resume_replay(1).await.expect("replay goes on");
    assert_eq!(reader.until_served_by("replica", plain).await, "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_stream_is_late_replicas_are_held_to_the_bound() {
    let setup = Setup::start_with(1, &[], bounded).await;
    let mut reader = setup.proxy.client().await;
    reader.run_all(TABLE).await;
    let plain = "SELECT n FROM t WHERE id = 1";
    until_carried(&setup, &mut reader, SUM).await;
    reader.until_served_by("replica", plain).await;
    let logical = "SELECT active_pid FROM pg_replication_slots";
    let walsender = setup.direct_value(0, logical).await;
    let walsender = Pid::from_raw(walsender.parse().expect("a number"));
    kill(walsender, Signal::SIGSTOP).expect("it stops");
    setup.cluster.pause_replay(1).await.expect("replay waits");
    setup.direct("UPDATE t SET n = 1").await;
    let written = Instant::now();
    until_read(&mut reader, plain, "1").await;
    assert!(written.elapsed() < LIMIT, "{:?}", written.elapsed());
    setup.cluster.resume_replay(1).await.expect("replay goes on");
    kill(walsender, Signal::SIGCONT).expect("it goes on");
    assert_eq!(reader.until_served_by("replica", plain).await, "1");
}
