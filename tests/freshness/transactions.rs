//! Writes whose transaction and whose commit reach the proxy in unusual pieces.
//!
//! Run against one primary; what is cached must never outlive a commit that was acknowledged.

use pgladder::demo::cluster::SUPERUSER;

use crate::client::Client;
use crate::setup::{Setup, eventually};

const SUM: &str = "SELECT sum(n) FROM t";
const TABLE: &[&str] = &[
    "CREATE TABLE t (id int PRIMARY KEY, n bigint NOT NULL)",
    "INSERT INTO t VALUES (1, 0)",
];

/// A primary without replicas, a table, and its sum in the cache.
async fn cached_sum() -> Setup {
    let setup = Setup::start(0).await;
    let mut client = setup.proxy.client().await;
    for sql in TABLE {
        client.run(sql).await;
    }
    client.until_served_by("cache", SUM).await;
    setup
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_begun_together_with_its_write_is_known_at_its_commit() {
    let setup = cached_sum().await;
    let (mut writer, mut reader) = (setup.proxy.client().await, setup.proxy.client().await);
    writer.run("BEGIN; UPDATE t SET n = 1").await;
    assert_eq!(reader.until_served_by("cache", SUM).await, "0");
    writer.run("COMMIT").await;
    assert_eq!(reader.value(SUM).await, "1");

    for sql in ["BEGIN", "UPDATE t SET n = 2"] {
        writer.put_parse("", sql);
        writer.put_bind("", "", &[], false);
        writer.put_execute("");
    }
    writer.put_sync();
    writer.ready().await.expect("a block with a write");
    assert_eq!(writer.status, b'T');
    assert_eq!(reader.until_served_by("cache", SUM).await, "1");
    writer.run("COMMIT").await;
    assert_eq!(reader.value(SUM).await, "2");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_portal_was_bound_earlier_is_a_commit() {
    let setup = cached_sum().await;
    let (mut writer, mut reader) = (setup.proxy.client().await, setup.proxy.client().await);
    writer.run("BEGIN").await;
    writer.run("UPDATE t SET n = 1").await;
    writer.put_parse("", "COMMIT");
    writer.put_bind("end", "", &[], false);
    writer.put_sync();
    writer.ready().await.expect("bound");
    assert_eq!(reader.until_served_by("cache", SUM).await, "0");
    writer.put_execute("end");
    writer.put_sync();
    writer.ready().await.expect("committed");
    assert_eq!(reader.value(SUM).await, "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_taken_back_leaves_the_cache_as_it_was() {
    let setup = cached_sum().await;
    let (mut writer, mut reader) = (setup.proxy.client().await, setup.proxy.client().await);
    writer.run("BEGIN").await;
    writer.run("UPDATE t SET n = 1").await;
    writer.run("ROLLBACK").await;
    let failed = writer
        .query("INSERT INTO t VALUES (1, 7)")
        .await
        .expect_err("a duplicate");
    assert_eq!(failed.code(), "23505");
    writer.run("BEGIN").await;
    writer.run("UPDATE t SET n = 2").await;
    let failed = writer.query("SELECT 1 / 0").await.expect_err("no result");
    assert_eq!(failed.code(), "22012");
    let ended = writer.query("COMMIT").await.expect("the block ends");
    assert_eq!(ended.tags, ["ROLLBACK"]);
    let (value, last) = reader.served(SUM).await;
    assert_eq!((value.as_str(), last.served_by.as_str()), ("0", "cache"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_committed_before_an_error_in_the_same_text_counts() {
    let setup = cached_sum().await;
    let (mut writer, mut reader) = (setup.proxy.client().await, setup.proxy.client().await);
    let text = "BEGIN; UPDATE t SET n = 1; COMMIT; SELECT 1 / 0";
    assert_eq!(writer.query(text).await.expect_err("no result").code(), "22012");
    assert_eq!(reader.value(SUM).await, "1");
    reader.until_served_by("cache", SUM).await;
    // A savepoint that was rolled back does not take the commit along.
    for sql in [
        "BEGIN",
        "UPDATE t SET n = 2",
        "SAVEPOINT s",
        "UPDATE t SET n = 3",
        "ROLLBACK TO s",
        "COMMIT AND CHAIN",
    ] {
        writer.run(sql).await;
    }
    assert_eq!(reader.value(SUM).await, "2");
    reader.until_served_by("cache", SUM).await;
    writer.run("UPDATE t SET n = 4").await;
    assert_eq!(reader.value(SUM).await, "2");
    writer.run("COMMIT").await;
    assert_eq!(reader.value(SUM).await, "4");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_seen_a_commit_on_the_primary_is_not_shown_less_before_it_is_acknowledged() {
    let setup = cached_sum().await;
    // Over a Unix socket, whose buffers are small: what the writer does not read stays with the proxy, and keeps it from hearing
    // that the server has committed.
    let writer = Client::connect(&setup.proxy.unix, SUPERUSER, "postgres").await;
    let mut writer = writer.expect("a login");
    let (mut reader, mut other) = (setup.proxy.client().await, setup.proxy.client().await);
    let on_primary = "/* pgladder: route=primary */ SELECT n FROM t WHERE id = 1";
    for n in 1..=3 {
        other.until_served_by("cache", SUM).await;
        writer.put_query(&format!("UPDATE t SET n = {n} RETURNING repeat('x', 1000000)"));
        writer.send().await.expect("sent");
        eventually("it is seen", async || {
            let seen = reader.value(on_primary).await;
            if seen == n.to_string() { Ok(()) } else { Err(seen) }
        })
        .await;
        for _ in 0..20 {
            assert_eq!(reader.value(SUM).await, n.to_string());
        }
        writer.ready().await.expect("an answer");
        assert_eq!(other.value(SUM).await, n.to_string());
    }
}
