//! Writes whose transaction and whose commit reach the proxy in unusual pieces.
//!
//! Run against one primary; what is cached must never outlive a commit that was acknowledged.

use crate::setup::Setup;

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
