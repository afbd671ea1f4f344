//! Reads that fill the cache, and reads beside them: what must not be stored, and what must not be shared.
//!
//! One test for each way in which an answer was once found to be good for one session, or one moment, and bad for the next.

use crate::client::Heard;
use crate::setup::{Setup, eventually};

const SUM: &str = "SELECT sum(n) FROM t";
const PLAIN: &str = "SELECT n FROM t WHERE id = 1";
const TABLE: &[&str] = &[
    "CREATE TABLE t (id int PRIMARY KEY, n bigint NOT NULL)",
    "INSERT INTO t VALUES (1, 0)",
];

#[tokio::test(flavor = "multi_thread")]
async fn what_a_transaction_reads_is_never_stored() {
    let setup = Setup::start(0).await;
    let (mut writer, mut reader) = (setup.proxy.client().await, setup.proxy.client().await);
    for sql in TABLE {
        writer.run(sql).await;
    }
    for sql in ["BEGIN", "UPDATE t SET n = 5"] {
        writer.run(sql).await;
    }
    for _ in 0..3 {
        assert_eq!(writer.value(SUM).await, "5", "its own rows");
        assert_eq!(reader.value(SUM).await, "0", "which nobody else sees");
    }
    writer.run("ROLLBACK").await;
    assert_eq!(writer.value(SUM).await, "0");

    writer.run("BEGIN ISOLATION LEVEL REPEATABLE READ").await;
    assert_eq!(writer.value(SUM).await, "0");
    reader.run("UPDATE t SET n = 1").await;
    for _ in 0..3 {
        assert_eq!(writer.value(SUM).await, "0", "its old snapshot");
        assert_eq!(reader.value(SUM).await, "1");
    }
    writer.run("COMMIT").await;
    assert_eq!(writer.value(SUM).await, "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_roles_own_isolation_level_is_kept_and_its_reads_are_not_cached() {
    let setup = Setup::start(1).await;
    setup.prepare(TABLE, PLAIN).await;
    let mut writer = setup.proxy.client().await;
    for sql in [
        "CREATE ROLE careful LOGIN",
        "GRANT SELECT ON t TO careful",
        "ALTER ROLE careful SET default_transaction_isolation = 'repeatable read'",
    ] {
        writer.run(sql).await;
    }
    let mut careful = setup.proxy.client_of("careful", "postgres").await;
    careful.run("BEGIN").await;
    assert_eq!(careful.value(SUM).await, "0");
    writer.run("UPDATE t SET n = 1").await;
    assert_eq!(careful.value(SUM).await, "0", "its snapshot");
    careful.run("COMMIT").await;
    for _ in 0..3 {
        let (value, last) = careful.served(SUM).await;
        assert_eq!((value.as_str(), last.served_by.as_str()), ("1", "primary"));
    }
    // The same set by the session itself.
    let mut session = setup.proxy.client().await;
    session
        .run("SET default_transaction_isolation = 'serializable'")
        .await;
    session.run("BEGIN").await;
    assert_eq!(session.value(PLAIN).await, "1");
    writer.run("UPDATE t SET n = 2").await;
    assert_eq!(session.value(PLAIN).await, "1");
    session.run("COMMIT").await;
    for sql in [SUM, PLAIN] {
        let (value, last) = session.served(sql).await;
        assert_eq!((value.as_str(), last.served_by.as_str()), ("2", "primary"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_an_early_read_the_isolation_level_can_no_longer_be_set() {
    let setup = Setup::start(1).await;
    setup.prepare(TABLE, PLAIN).await;
    let mut client = setup.proxy.client().await;
    client.until_served_by("cache", SUM).await;
    for (read, from) in [(SUM, "cache"), (PLAIN, "replica")] {
        for set in [
            "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ",
            "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE",
        ] {
            client.run("BEGIN").await;
            assert_eq!(client.served(read).await.1.served_by, from);
            let failed = client.query(set).await.expect_err("a query ran");
            assert_eq!(failed.code(), "25001", "{failed}");
            client.run("ROLLBACK").await;
            // Nothing that reads came before it.
            client.run("BEGIN").await;
            client.query("").await.expect("an empty query");
            client.run(set).await;
            assert_eq!(client.served(read).await.1.served_by, "primary");
            client.run("COMMIT").await;
        }
    }
    client.run("BEGIN").await;
    client.value(PLAIN).await;
    client.run("UPDATE t SET n = n + 1").await;
    client.run("COMMIT").await;
    assert_eq!(client.value(SUM).await, "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exported_snapshot_is_found_by_who_imports_it() {
    let setup = Setup::start(1).await;
    setup.prepare(TABLE, PLAIN).await;
    let (mut exporter, mut importer) = (setup.proxy.client().await, setup.proxy.client().await);
    for begin in [
        "BEGIN ISOLATION LEVEL REPEATABLE READ",
        "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
        "BEGIN",
    ] {
        exporter.run(begin).await;
        let before = exporter.value(SUM).await;
        let snapshot = exporter.value("SELECT pg_export_snapshot()").await;
        let mut writer = setup.proxy.client().await;
        writer.run("UPDATE t SET n = n + 1").await;
        importer
            .run("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            .await;
        importer
            .run(&format!("SET TRANSACTION SNAPSHOT '{snapshot}'"))
            .await;
        assert_eq!(importer.value(SUM).await, before, "{begin}");
        importer.run("COMMIT").await;
        exporter.run("COMMIT").await;
        assert_ne!(importer.value(SUM).await, before, "{begin}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_shares_an_execution_that_began_before_a_write_they_know_of() {
    let setup = Setup::start(0).await;
    let (mut first, mut second) = (setup.proxy.client().await, setup.proxy.client().await);
    for sql in TABLE {
        first.run(sql).await;
    }
    let slow =
        "SELECT sum(n) FROM t, (SELECT count(*) AS many FROM generate_series(1, 6000000)) g WHERE many > 0";
    let direct = setup.cluster.connect(0, "postgres").await.expect("a connection");
    let mut writer = setup.proxy.client().await;
    writer.until_served_by("cache", SUM).await;
    first.put_query(slow);
    first.send().await.expect("sent");
    eventually("it runs", async || {
        let running =
            "SELECT 1 FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'SELECT sum(n) FROM t, %'";
        let rows = direct.query(running, &[]).await.expect("a superuser");
        rows.first().map(drop).ok_or("not yet")
    })
    .await;
    writer.run("UPDATE t SET n = 1").await;
    assert_eq!(second.value(slow).await, "1");
    assert_eq!(
        first.ready().await.expect("an answer").text(),
        "0",
        "it ran before"
    );
    assert_eq!(first.value(slow).await, "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_strict_read_sees_what_was_written_past_the_proxy() {
    let setup = Setup::start(1).await;
    setup.prepare(TABLE, PLAIN).await;
    let mut client = setup.proxy.client().await;
    client.until_served_by("cache", SUM).await;
    let mut strict = setup.proxy.client().await;
    strict.run("SET pgladder.freshness = strict").await;
    setup.cluster.pause_replay(1).await.expect("it runs");
    for value in ["1", "2", "3"] {
        setup.direct(&format!("UPDATE t SET n = {value}")).await;
        for sql in [SUM, PLAIN] {
            assert_eq!(strict.value(sql).await, value);
            let hinted = format!("/* pgladder: freshness=strict */ {sql}");
            assert_eq!(client.value(&hinted).await, value);
        }
    }
    setup.cluster.resume_replay(1).await.expect("it runs");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_word_that_reads_the_clock_is_not_cached_however_it_is_written() {
    let setup = Setup::start(1).await;
    let table = ["CREATE TABLE days AS SELECT '2020-01-01'::date AS day, '2020-01-01'::timestamptz AS at"];
    setup.prepare(&table, "SELECT day FROM days").await;
    let mut client = setup.proxy.client().await;
    let bound = "SELECT count(*) FROM days WHERE day <= $1::date";
    let untyped = "SELECT count(*) FROM days WHERE at < $1";
    for (sql, value) in [(bound, "2021-01-01"), (untyped, "2021-01-01")] {
        client.extended(sql, &[value], false).await.expect("a row");
        client.extended(sql, &[value], false).await.expect("a row");
        assert_eq!(client.last().await.expect("known").served_by, "cache");
        for word in ["today", "ToDay", "tomorrow", "now", " yesterday "] {
            for _ in 0..3 {
                client.extended(sql, &[word], false).await.expect("a row");
                let last = client.last().await.expect("known");
                assert_ne!(last.served_by, "cache", "{sql}: {word}");
            }
        }
    }
    // The same but for its literal: what is known of the one is not known of the other.
    for literal in ["2021-01-01", "today", "2022-01-01", "TOMORROW", "now"] {
        let sql = format!("SELECT count(*) FROM days WHERE day <= '{literal}'");
        let clock = !literal.starts_with('2');
        client.value(&sql).await;
        let (_, last) = client.served(&sql).await;
        assert_eq!(last.served_by == "cache", !clock, "{sql}");
    }
    for sql in [
        "SELECT count(*) FROM days WHERE day <= 'today'",
        "SELECT count(*) FROM days WHERE day = ANY ('{yesterday,today}')",
        "SELECT count(*) FROM days WHERE at <@ '[epoch,tomorrow)'::tstzrange",
        "SELECT count(*) FROM days WHERE at < now()",
        "SELECT count(*) FROM days WHERE at < current_timestamp",
        "SELECT max(age(at)) FROM days",
        "SELECT count(*) FROM days WHERE day <= ('to' || 'day')::date",
    ] {
        for _ in 0..3 {
            let (_, last) = client.served(sql).await;
            assert_ne!(last.served_by, "cache", "{sql}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_notified_reads_what_was_committed_with_the_notification() {
    let setup = Setup::start(1).await;
    setup.prepare(TABLE, PLAIN).await;
    let (mut listener, mut other) = (setup.proxy.client().await, setup.proxy.client().await);
    listener.run("LISTEN news").await;
    setup.cluster.pause_replay(1).await.expect("it runs");
    for n in 1..=20 {
        other.value(SUM).await;
        // Past the proxy, which hears of it by the notification alone.
        setup
            .direct(&format!("BEGIN; UPDATE t SET n = {n}; NOTIFY news; COMMIT"))
            .await;
        while !matches!(listener.hear().await.expect("the news"), Heard::Notified) {}
        for sql in [SUM, PLAIN] {
            assert_eq!(listener.value(sql).await, n.to_string());
        }
    }
    setup.cluster.resume_replay(1).await.expect("it runs");
}
