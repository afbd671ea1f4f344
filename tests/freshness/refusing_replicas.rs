//! Replicas that refuse a read, drop it, hold it up, or are set up otherwise: the client hears nothing of that.
//!
//! A recovery conflict, a killed server, a lock that was replayed and not yet its release, other defaults than the primary's.
//! Where a block could notice, it must not.

use crate::setup::{Setup, eventually};

const SUM: &str = "SELECT sum(n) FROM t";
const PLAIN: &str = "SELECT n FROM t WHERE id = 1";
const TABLE: &[&str] = &[
    "CREATE TABLE t (id int PRIMARY KEY, n bigint NOT NULL)",
    "INSERT INTO t VALUES (1, 0)",
];
/// A plain read that takes its time and still needs rows that a VACUUM has removed.
const SLOW: &str = "SELECT n FROM t, generate_series(1, 3000000) g ORDER BY g DESC LIMIT 1";

#[tokio::test(flavor = "multi_thread")]
async fn a_recovery_conflict_is_the_proxys_to_mend() {
    let impatient = [("max_standby_streaming_delay", "0"), ("autovacuum", "off")];
    let setup = Setup::start_with(1, &impatient, |_| {}).await;
    setup.prepare(TABLE, PLAIN).await;
    let mut reader = setup.proxy.client().await;
    let mut writer = setup.proxy.client().await;
    let activity = setup.cluster.connect(1, "postgres").await.expect("a connection");
    let mut round = 0;
    eventually("a conflict", async || {
        round += 1;
        reader.until_served_by("replica", PLAIN).await;
        // Alone, and inside a block that has only read so far.
        let in_block = round % 2 == 0;
        if in_block {
            reader.run("BEGIN").await;
        }
        reader.put_query(SLOW);
        reader.send().await.expect("sent");
        eventually("it runs on the replica", async || {
            let running =
                "SELECT 1 FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'SELECT n FROM t, g%'";
            let rows = activity.query(running, &[]).await.expect("a superuser");
            rows.first().map(drop).ok_or("not yet")
        })
        .await;
        writer.run("UPDATE t SET n = n + 1").await;
        writer.run("VACUUM t").await;
        let value = reader.ready().await.expect("no conflict reaches a client").text();
        let value: u64 = value.parse().expect("a number");
        assert!(value + 1 >= round, "{value} in round {round}");
        let last = reader.last().await.expect("known");
        if in_block {
            reader.run("COMMIT").await;
        }
        if in_block && last.reason.contains("40001") {
            return Ok(());
        }
        Err(last)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_that_only_the_replica_still_holds_keeps_nobody_waiting() {
    let setup = Setup::start(1).await;
    setup.prepare(TABLE, PLAIN).await;
    let primary = setup.cluster.connect(0, "postgres").await.expect("a connection");
    primary
        .batch_execute("BEGIN; LOCK t IN ACCESS EXCLUSIVE MODE")
        .await
        .expect("it locks");
    // Another commit takes the lock's record along to the replica.
    setup
        .direct("SELECT pg_logical_emit_message(true, 'test', '')")
        .await;
    let replica = setup.cluster.connect(1, "postgres").await.expect("a connection");
    eventually("the replica holds it", async || {
        let held = "SELECT 1 FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND granted AND relation = 't'::regclass";
        let rows = replica.query(held, &[]).await.expect("a superuser");
        rows.first().map(drop).ok_or("not yet")
    })
    .await;
    setup.cluster.pause_replay(1).await.expect("it runs");
    primary.batch_execute("ROLLBACK").await.expect("it unlocks");
    let mut client = setup.proxy.client().await;
    for sql in [PLAIN, SUM] {
        let (value, last) = client.served(sql).await;
        assert_eq!((value.as_str(), last.served_by.as_str()), ("0", "primary"));
    }
    client.run("BEGIN").await;
    assert_eq!(client.value(PLAIN).await, "0");
    client.run("COMMIT").await;
    setup.cluster.resume_replay(1).await.expect("it runs");
    client.until_served_by("replica", PLAIN).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_read_that_waits_for_no_lock_stays_on_its_replica() {
    let setup = Setup::start(1).await;
    setup.prepare(TABLE, PLAIN).await;
    let mut client = setup.proxy.client().await;
    let long = "SELECT n FROM t, generate_series(1, 8000000) g ORDER BY g DESC LIMIT 1";
    let (value, last) = client.served(long).await;
    assert_eq!((value.as_str(), last.served_by.as_str()), ("0", "replica"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_is_killed_in_the_middle_of_a_read_costs_no_error() {
    let setup = Setup::start(2).await;
    setup.prepare(TABLE, PLAIN).await;
    for node in [1, 2] {
        let mut clients = Vec::new();
        for _ in 0..4 {
            let mut client = setup.proxy.client().await;
            client.until_served_by("replica", PLAIN).await;
            clients.push(client);
        }
        for client in &mut clients {
            client.put_query(SLOW);
            client.send().await.expect("sent");
        }
        setup.cluster.kill_hard(node).await.expect("it ends");
        for client in &mut clients {
            assert_eq!(client.ready().await.expect("an answer").text(), "0");
        }
        setup.cluster.restart(node).await.expect("it starts");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn serializable_transactions_run_on_the_primary() {
    let setup = Setup::start(1).await;
    setup.prepare(TABLE, PLAIN).await;
    let mut client = setup.proxy.client().await;
    for begin in [
        "BEGIN ISOLATION LEVEL SERIALIZABLE",
        "BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY",
        "BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY DEFERRABLE",
    ] {
        client.run(begin).await;
        for sql in [PLAIN, SUM] {
            let (value, last) = client.served(sql).await;
            assert_eq!(
                (value.as_str(), last.served_by.as_str()),
                ("0", "primary"),
                "{begin}"
            );
        }
        client.run("COMMIT").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_with_other_defaults_answers_as_the_primary_would() {
    let setup = Setup::start(1).await;
    let made = [
        "CREATE SCHEMA elsewhere",
        "CREATE TABLE elsewhere.t AS SELECT 1 AS id, 99::bigint AS n",
        "CREATE TABLE moments AS SELECT '2020-01-01 12:00:00+00'::timestamptz AS at, '\\x00ff'::bytea AS b",
    ];
    let statements: Vec<&str> = TABLE.iter().chain(&made).copied().collect();
    let replica = setup.cluster.connect(1, "postgres").await.expect("a connection");
    for set in [
        "ALTER SYSTEM SET search_path = 'elsewhere'",
        "ALTER SYSTEM SET TimeZone = 'Asia/Tokyo'",
        "ALTER SYSTEM SET DateStyle = 'German'",
        "ALTER SYSTEM SET bytea_output = 'escape'",
        "SELECT pg_reload_conf()",
    ] {
        replica.batch_execute(set).await.expect("a superuser");
    }
    setup.prepare(&statements, PLAIN).await;
    let mut client = setup.proxy.client().await;
    for sql in ["SELECT at FROM moments", "SELECT b FROM moments", PLAIN] {
        let direct = setup.direct_value(0, sql).await;
        assert_eq!(client.until_served_by("replica", sql).await, direct, "{sql}");
    }
    for sql in ["SELECT max(at) FROM moments", SUM] {
        let direct = setup.direct_value(0, sql).await;
        assert_eq!(client.until_served_by("cache", sql).await, direct, "{sql}");
    }
}
