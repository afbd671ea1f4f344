//! Writes, from their sending to the moment when everybody may rely on them.
//!
//! One test for each way in which a write was once found to be forgotten: acknowledged too early, lost with its connection, hidden
//! behind an error, or unknown to a replica.

use std::time::Duration;

use pgladder::freshness::guards::Guards;
use tokio::time::timeout;

use crate::client::{Client, Heard};
use crate::forwarder::Forwarder;
use crate::setup::{Proxy, Setup, addresses, endpoint, eventually, servers};

const SUM: &str = "SELECT sum(n) FROM t";
const TABLE: &[&str] = &[
    "CREATE TABLE t (id int PRIMARY KEY, n bigint NOT NULL)",
    "INSERT INTO t VALUES (1, 0)",
];
const PLAIN: &str = "SELECT n FROM t WHERE id = 1";

/// So many reads, none of which may come from the cache.
async fn never_cached(client: &mut Client, sql: &str, value: &str) {
    for _ in 0..20 {
        let (read, last) = client.served(sql).await;
        assert_eq!(read, value);
        assert_ne!(last.served_by, "cache", "{last:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_extended_write_is_in_flight_until_ready_for_query() {
    let setup = Setup::start(0).await;
    let (mut writer, mut reader) = (setup.proxy.client().await, setup.proxy.client().await);
    for sql in TABLE {
        writer.run(sql).await;
    }
    reader.until_served_by("cache", SUM).await;
    writer.put_parse("", "UPDATE t SET n = 1");
    writer.put_bind("", "", &[], false);
    writer.put_execute("");
    writer.put_flush();
    writer.send().await.expect("sent");
    while !matches!(writer.hear().await.expect("an answer"), Heard::Complete(_)) {}
    // Complete, but not committed: what is read now must not be kept beyond the commit.
    never_cached(&mut reader, SUM, "0").await;
    writer.put_sync();
    writer.ready().await.expect("committed");
    assert_eq!(reader.value(SUM).await, "1");
    reader.until_served_by("cache", SUM).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sync_that_comes_long_after_its_write_is_the_commit() {
    let setup = Setup::start(1).await;
    setup.prepare(TABLE, PLAIN).await;
    let mut writer = setup.proxy.client().await;
    writer.put_parse("", "UPDATE t SET n = 1");
    writer.put_bind("", "", &[], false);
    writer.put_execute("");
    writer.put_flush();
    writer.send().await.expect("sent");
    while !matches!(writer.hear().await.expect("an answer"), Heard::Complete(_)) {}
    // The fence settles at a position before the commit, and the replica passes it, but never comes to the commit. Who has read
    // from the primary meanwhile is kept from the replica.
    let mut reader = eventually("read from the replica", async || {
        let mut reader = setup.proxy.client().await;
        let (value, last) = reader.served(PLAIN).await;
        if last.served_by == "replica" {
            assert_eq!(value, "0");
            Ok(reader)
        } else {
            Err(last)
        }
    })
    .await;
    setup.cluster.pause_replay(1).await.expect("it runs");
    writer.put_sync();
    writer.ready().await.expect("committed");
    assert_eq!(reader.value(PLAIN).await, "1");
    assert_eq!(writer.value(PLAIN).await, "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_after_a_commit_inside_a_procedure_hides_no_write() {
    let setup = Setup::start(0).await;
    let mut writer = setup.proxy.client().await;
    let procedure = "CREATE PROCEDURE p() LANGUAGE plpgsql AS \
         'BEGIN UPDATE t SET n = n + 1; COMMIT; RAISE EXCEPTION ''boom''; END'";
    for sql in TABLE.iter().chain([&procedure]) {
        writer.run(sql).await;
    }
    let mut reader = setup.proxy.client().await;
    for round in ["0", "1", "2"] {
        assert_eq!(reader.until_served_by("cache", SUM).await, round);
        let failed = writer.query("CALL p()").await.expect_err("it fails");
        assert_eq!(failed.code(), "P0001");
    }
    assert_eq!(reader.value(SUM).await, "3");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_call_that_writes_is_a_write() {
    let setup = Setup::start(1).await;
    setup.prepare(TABLE, PLAIN).await;
    let (mut writer, mut reader) = (setup.proxy.client().await, setup.proxy.client().await);
    let raises =
        "CREATE FUNCTION raises() RETURNS bigint LANGUAGE sql AS 'UPDATE t SET n = n + 1 RETURNING n'";
    writer.run(raises).await;
    let number = setup.direct_value(0, "SELECT 'raises'::regproc::oid").await;
    let number: u32 = number.parse().expect("a number");
    for n in 1..=10 {
        reader.until_served_by("cache", SUM).await;
        reader.until_served_by("replica", PLAIN).await;
        writer.put_function(number);
        writer.ready().await.expect("called");
        assert_eq!(reader.value(SUM).await, n.to_string());
        assert_eq!(reader.value(PLAIN).await, n.to_string());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_connection_was_lost_is_in_flight_until_its_backend_is_gone() {
    let cluster = servers(0, &[]).await;
    let line = Forwarder::start(cluster.address(0)).await;
    let proxy = Proxy::start(vec![endpoint(line.port)], Guards::default(), |_| {}).await;
    let (mut writer, mut reader) = (proxy.client().await, proxy.client().await);
    for sql in TABLE {
        writer.run(sql).await;
    }
    reader.until_served_by("cache", SUM).await;

    let blocker = cluster.connect(0, "postgres").await.expect("a connection");
    let lock = "BEGIN; SELECT FROM t FOR UPDATE";
    blocker.batch_execute(lock).await.expect("it locks");
    writer.put_query("UPDATE t SET n = 1");
    writer.send().await.expect("sent");
    let direct = cluster.connect(0, "postgres").await.expect("a connection");
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
    let count = async || -> i64 { direct.query_one(waiting, &[]).await.expect("a row").get(0) };
    eventually("the writer waits", async || match count().await {
        1 => Ok(()),
        other => Err(other),
    })
    .await;

    // The server does not notice, and the proxy's own connections are lost as well.
    line.cut();
    let failed = writer.ready().await.expect_err("the connection is lost");
    assert_eq!(failed.code(), "08006");
    eventually("the proxy is back", async || reader.query(SUM).await.map(drop)).await;
    never_cached(&mut reader, SUM, "0").await;
    assert_eq!(count().await, 1, "the backend goes on");

    blocker.batch_execute("COMMIT").await.expect("it unlocks");
    eventually("it is committed", async || {
        let row = direct.query_one("SELECT n FROM t", &[]).await.expect("a row");
        if row.get::<_, i64>(0) == 1 {
            Ok(())
        } else {
            Err(())
        }
    })
    .await;
    assert_eq!(reader.value(SUM).await, "1");
    assert_eq!(reader.until_served_by("cache", SUM).await, "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_runs_for_long_keeps_what_is_stored_and_forbids_only_to_store_more() {
    let setup = Setup::start(0).await;
    let (mut writer, mut reader) = (setup.proxy.client().await, setup.proxy.client().await);
    let procedure = "CREATE PROCEDURE p() LANGUAGE plpgsql AS 'BEGIN LOCK held; UPDATE t SET n = 1; END'";
    for sql in TABLE.iter().chain([&"CREATE TABLE held ()", &procedure]) {
        writer.run(sql).await;
    }
    reader.until_served_by("cache", SUM).await;
    let blocker = setup.cluster.connect(0, "postgres").await.expect("a connection");
    blocker.batch_execute("BEGIN; LOCK held").await.expect("it locks");
    writer.put_query("CALL p()");
    writer.send().await.expect("sent");
    eventually("it waits", async || {
        let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
        match setup.direct_value(0, waiting).await.as_str() {
            "1" => Ok(()),
            other => Err(other.to_owned()),
        }
    })
    .await;
    for _ in 0..20 {
        let (value, last) = reader.served(SUM).await;
        assert_eq!((value.as_str(), last.served_by.as_str()), ("0", "cache"));
    }
    never_cached(&mut reader, "SELECT max(n) FROM t", "0").await;
    blocker.batch_execute("COMMIT").await.expect("it unlocks");
    writer.ready().await.expect("it is done");
    assert_eq!(reader.value(SUM).await, "1");
    reader.until_served_by("cache", "SELECT max(n) FROM t").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_asynchronous_commit_on_an_idle_primary_reaches_a_replica_soon() {
    let lazy = [("synchronous_commit", "off"), ("wal_writer_delay", "10s")];
    let setup = Setup::start_with(1, &lazy, |_| {}).await;
    setup.prepare(TABLE, PLAIN).await;
    let mut client = setup.proxy.client().await;
    for value in ["1", "2", "3"] {
        client.run(&format!("UPDATE t SET n = {value}")).await;
        let read = client.until_served_by("replica", PLAIN);
        let read = timeout(Duration::from_secs(9), read).await;
        assert_eq!(read.expect("long before the WAL writer's turn"), value);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_lost_its_right_reads_neither_a_paused_replica_nor_the_cache() {
    let setup = Setup::start(1).await;
    let mut owner = setup.proxy.client().await;
    for sql in TABLE.iter().chain(&[
        "CREATE ROLE bob LOGIN",
        "CREATE ROLE readers",
        "GRANT SELECT ON t TO readers",
    ]) {
        owner.run(sql).await;
    }
    for (give, take, seen) in [
        ("GRANT SELECT ON t TO bob", "REVOKE SELECT ON t FROM bob", None),
        ("GRANT readers TO bob", "REVOKE readers FROM bob", None),
        (
            "GRANT SELECT ON t TO bob",
            "ALTER TABLE t ENABLE ROW LEVEL SECURITY",
            Some("0"),
        ),
    ] {
        owner.run(give).await;
        let mut bob = setup.proxy.client_of("bob", "postgres").await;
        let (plain, count) = ("SELECT count(n) OVER () FROM t", "SELECT count(*) FROM t");
        bob.until_served_by("replica", PLAIN).await;
        bob.until_served_by("cache", count).await;
        setup.cluster.pause_replay(1).await.expect("it runs");
        owner.run(take).await;
        if let Some(seen) = seen {
            assert_eq!(bob.value(count).await, seen, "{take}");
            assert!(bob.query(plain).await.expect("allowed").rows.is_empty());
        } else {
            for sql in [PLAIN, plain, count] {
                let failed = bob.query(sql).await.expect_err("not allowed any more");
                assert_eq!(failed.code(), "42501", "{take}: {sql}");
            }
        }
        setup.cluster.resume_replay(1).await.expect("it runs");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_table_is_found_while_the_replica_does_not_have_it() {
    let setup = Setup::start(1).await;
    setup.prepare(TABLE, PLAIN).await;
    setup.cluster.pause_replay(1).await.expect("it runs");
    let (mut owner, mut other) = (setup.proxy.client().await, setup.proxy.client().await);
    owner.run("CREATE TABLE made AS SELECT 1 AS n").await;
    assert_eq!(other.value("SELECT n FROM made").await, "1");
    assert_eq!(other.value("SELECT max(n) FROM made").await, "1");
    setup.cluster.resume_replay(1).await.expect("it runs");
    other.until_served_by("replica", "SELECT n FROM made").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_proxy_does_not_trust_a_replica_that_misses_what_an_earlier_one_acknowledged() {
    let Setup { proxy, cluster } = Setup::start(1).await;
    let mut client = proxy.client().await;
    for sql in TABLE {
        client.run(sql).await;
    }
    client.until_served_by("replica", PLAIN).await;
    cluster.pause_replay(1).await.expect("it runs");
    client.run("UPDATE t SET n = 1").await;
    drop(client);
    proxy.end().await;

    let proxy = Proxy::start(addresses(&cluster), Guards::default(), |_| {}).await;
    let mut client = proxy.client().await;
    for _ in 0..50 {
        let (value, last) = client.served(PLAIN).await;
        assert_eq!((value.as_str(), last.served_by.as_str()), ("1", "primary"));
    }
    cluster.resume_replay(1).await.expect("it runs");
    assert_eq!(client.until_served_by("replica", PLAIN).await, "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_promotion_a_replica_that_missed_the_last_writes_serves_nothing() {
    let setup = Setup::start(2).await;
    setup.prepare(TABLE, PLAIN).await;
    let cluster = &setup.cluster;
    let mut client = setup.proxy.client().await;
    cluster.pause_replay(2).await.expect("it runs");
    client.run("UPDATE t SET n = 1").await;
    eventually("one replica has it", async || {
        match setup.direct_value(1, PLAIN).await.as_str() {
            "1" => Ok(()),
            other => Err(other.to_owned()),
        }
    })
    .await;
    cluster.kill_hard(0).await.expect("it ends");
    cluster.promote(1).await.expect("it is promoted");
    cluster.follow(2, 1).await.expect("it follows");
    eventually("the new primary is found", async || client.query(PLAIN).await).await;
    for _ in 0..50 {
        let (value, last) = client.served(PLAIN).await;
        assert_eq!((value.as_str(), last.served_by.as_str()), ("1", "primary"));
    }
    assert_eq!(setup.direct_value(2, PLAIN).await, "0", "it still misses it");
    cluster.resume_replay(2).await.expect("it runs");
    assert_eq!(client.until_served_by("replica", PLAIN).await, "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_written_all_the_time_is_still_read_from_a_replica() {
    let setup = Setup::start_with(1, &[], |config| {
        config.cluster.poll_interval = Duration::from_secs(5);
    })
    .await;
    setup.prepare(TABLE, PLAIN).await;
    let mut client = setup.proxy.client().await;
    // The replica's latest sample is always older than the write: it is asked itself.
    let all = async {
        for value in 1..=50 {
            client.run(&format!("UPDATE t SET n = {value}")).await;
            let read = client.until_served_by("replica", PLAIN).await;
            assert_eq!(read, value.to_string());
        }
    };
    timeout(Duration::from_secs(30), all)
        .await
        .expect("not one poll for each");
}
