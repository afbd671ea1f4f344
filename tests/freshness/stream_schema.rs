//! The stream beside changes of the schema: no write is refused because of what the proxy publishes, and no new table is missed.
//!
//! Each change is made at a moment at which the table is published for sure: its entry is carried, and the server lists it. What
//! has to succeed is run once, at once; a publication that leaves later fails it.

use std::time::Duration;

use tokio::task::JoinSet;

use crate::client::Client;
use crate::setup::{Setup, eventually};
use crate::stream::{
    BEGUN, CARRIED, NOT_CARRIED, SUM, TABLE, TRANSACTIONS, shown, until_carried, until_read, until_shown,
    with_stream,
};

const PUBLISHED: &str = "SELECT count(*) FROM pg_publication_tables WHERE tablename = 't'";

async fn until_published(setup: &Setup, reader: &mut Client) {
    until_carried(setup, reader, SUM).await;
    assert_eq!(setup.direct_value(0, PUBLISHED).await, "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_leaves_before_a_statement_of_a_client_takes_its_identity() {
    let setup = Setup::start_with(0, &[], with_stream).await;
    let mut reader = setup.proxy.client().await;
    let mut writer = setup.proxy.client().await;
    writer.run_all(TABLE).await;
    for (taken, back) in [
        (
            "ALTER TABLE t DROP CONSTRAINT t_pkey",
            "ALTER TABLE t ADD PRIMARY KEY (id)",
        ),
        (
            "ALTER TABLE t REPLICA IDENTITY NOTHING",
            "ALTER TABLE t REPLICA IDENTITY DEFAULT",
        ),
        (
            "DO $$ BEGIN ALTER TABLE t DROP CONSTRAINT t_pkey; END $$",
            "ALTER TABLE t ADD PRIMARY KEY (id)",
        ),
        ("ALTER TABLE t SET UNLOGGED", "ALTER TABLE t SET LOGGED"),
    ] {
        // In a block, as two units, and all in one text.
        until_published(&setup, &mut reader).await;
        for sql in ["BEGIN", taken, "UPDATE t SET n = n + 1", "COMMIT"] {
            writer.run(sql).await;
        }
        writer.run(back).await;
        until_published(&setup, &mut reader).await;
        writer.run(taken).await;
        writer.run("UPDATE t SET n = n + 1").await;
        writer.run(back).await;
        until_published(&setup, &mut reader).await;
        writer
            .run(&format!("{taken}; UPDATE t SET n = n + 1; {back}"))
            .await;
    }
    until_read(&mut reader, SUM, "12").await;
    // A change that is rolled back leaves all as it was.
    until_published(&setup, &mut reader).await;
    for sql in ["BEGIN", "ALTER TABLE t DROP CONSTRAINT t_pkey", "ROLLBACK"] {
        writer.run(sql).await;
    }
    until_published(&setup, &mut reader).await;
    setup.direct("UPDATE t SET n = 100").await;
    until_read(&mut reader, SUM, "100").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_cannot_leave_by_itself_leaves_with_the_whole_publication() {
    let setup = Setup::start_with(0, &[], with_stream).await;
    let mut reader = setup.proxy.client().await;
    let mut writer = setup.proxy.client().await;
    writer.run_all(TABLE).await;
    until_published(&setup, &mut reader).await;
    // The writer's own lock keeps the table in the publication.
    writer
        .run_all(&[
            "BEGIN",
            "LOCK TABLE t IN SHARE ROW EXCLUSIVE MODE",
            "ALTER TABLE t DROP CONSTRAINT t_pkey",
            "UPDATE t SET n = 1",
            "COMMIT",
        ])
        .await;
    assert_eq!(reader.value(SUM).await, "1");
    writer.run("ALTER TABLE t ADD PRIMARY KEY (id)").await;
    let mut console = setup.proxy.client_of("postgres", "pgladder").await;
    until_shown(&mut console, BEGUN, "2").await;
    until_published(&setup, &mut reader).await;
    setup.direct("UPDATE t SET n = 2").await;
    until_read(&mut reader, SUM, "2").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_cannot_be_published_does_not_keep_the_others_from_the_cache() {
    let setup = Setup::start_with(0, &[], with_stream).await;
    let mut reader = setup.proxy.client().await;
    reader.run_all(TABLE).await;
    reader.run("CREATE TABLE busy (id int PRIMARY KEY)").await;
    until_carried(&setup, &mut reader, SUM).await;
    let vacuum = setup.cluster.connect(0, "postgres").await.expect("a connection");
    let lock = "BEGIN; LOCK TABLE busy IN SHARE UPDATE EXCLUSIVE MODE";
    vacuum
        .batch_execute(lock)
        .await
        .expect("a lock, as VACUUM holds it");
    reader.until_served_by("cache", "SELECT count(*) FROM busy").await;
    let mut console = setup.proxy.client_of("postgres", "pgladder").await;
    let why = "public.busy (canceling statement due to lock timeout (55P03))";
    until_shown(&mut console, NOT_CARRIED, why).await;
    for n in 1..5 {
        setup.direct(&format!("UPDATE t SET n = {n}")).await;
        until_read(&mut reader, SUM, &n.to_string()).await;
        until_carried(&setup, &mut reader, SUM).await;
    }
    until_shown(&mut console, NOT_CARRIED, why).await;
    vacuum.batch_execute("COMMIT").await.expect("it is done");
    until_shown(&mut console, CARRIED, "2").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parent_that_loses_its_identity_leaves_without_its_heirs() {
    let setup = Setup::start_with(0, &[], with_stream).await;
    let mut reader = setup.proxy.client().await;
    reader.run_all(TABLE).await;
    reader.run("CREATE TABLE heir () INHERITS (t)").await;
    reader.until_served_by("cache", SUM).await;
    let mut console = setup.proxy.client_of("postgres", "pgladder").await;
    until_shown(&mut console, NOT_CARRIED, "public.heir (no replica identity)").await;
    until_shown(&mut console, CARRIED, "1").await;
    assert_eq!(setup.direct_value(0, PUBLISHED).await, "1");
    setup.direct("ALTER TABLE t DROP CONSTRAINT t_pkey").await;
    eventually("an update is let through", async || {
        let client = setup.cluster.connect(0, "postgres").await.expect("a connection");
        client.batch_execute("UPDATE t SET n = 3").await
    })
    .await;
    assert_eq!(setup.direct_value(0, PUBLISHED).await, "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_of_generated_columns_is_no_reason_to_refuse_an_update() {
    let setup = Setup::start_with(0, &[], with_stream).await;
    let mut reader = setup.proxy.client().await;
    reader.run_all(TABLE).await;
    reader
        .run_all(&[
            "CREATE TABLE whole (id int, twice int GENERATED ALWAYS AS (id * 2) STORED)",
            "ALTER TABLE whole REPLICA IDENTITY FULL",
            "CREATE TABLE keyed (id int, twice int GENERATED ALWAYS AS (id * 2) STORED PRIMARY KEY)",
            "INSERT INTO whole VALUES (1)",
            "INSERT INTO keyed VALUES (1)",
        ])
        .await;
    let both = "SELECT sum(w.twice + k.twice) FROM whole w, keyed k";
    reader.until_served_by("cache", both).await;
    until_carried(&setup, &mut reader, SUM).await;
    let mut console = setup.proxy.client_of("postgres", "pgladder").await;
    // Since PostgreSQL 18 such tables are not published; before, they are.
    eventually("both are decided upon", async || {
        let refused = shown(&mut console, NOT_CARRIED).await;
        let carried = shown(&mut console, CARRIED).await;
        let all = refused
            == "public.whole (a generated column in its replica identity), \
            public.keyed (a generated column in its replica identity)"
            || carried == "3";
        if all { Ok(()) } else { Err((refused, carried)) }
    })
    .await;
    setup
        .direct("UPDATE whole SET id = 2; UPDATE keyed SET id = 2; DELETE FROM whole; DELETE FROM keyed")
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_new_partition_holds_is_not_missed_until_the_catalog_is_looked_at() {
    let setup = Setup::start_with(0, &[], |config| {
        with_stream(config);
        config.cluster.catalog_interval = Duration::from_secs(3_600);
    })
    .await;
    let mut reader = setup.proxy.client().await;
    reader
        .run_all(&[
            "CREATE TABLE parted (id int PRIMARY KEY, n bigint) PARTITION BY RANGE (id)",
            "CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (0) TO (10)",
            "INSERT INTO parted VALUES (1, 1)",
        ])
        .await;
    let sum = "SELECT sum(n) FROM parted";
    until_carried(&setup, &mut reader, sum).await;
    setup
        .direct("CREATE TABLE parted_2 PARTITION OF parted FOR VALUES FROM (10) TO (20)")
        .await;
    setup.direct("INSERT INTO parted VALUES (11, 1)").await;
    until_read(&mut reader, sum, "2").await;
    // Made and filled by a commit that is streamed before anybody can see it.
    until_carried(&setup, &mut reader, sum).await;
    let mut console = setup.proxy.client_of("postgres", "pgladder").await;
    let before: u64 = shown(&mut console, TRANSACTIONS).await.parse().expect("a number");
    setup.wait_for_standby("nobody").await;
    let client = setup.cluster.connect(0, "postgres").await.expect("a connection");
    let mut waiting = JoinSet::new();
    waiting.spawn(async move {
        let both = "CREATE TABLE parted_3 PARTITION OF parted FOR VALUES FROM (20) TO (30); \
            INSERT INTO parted VALUES (21, 1)";
        client.batch_execute(both).await
    });
    // The walsender of PostgreSQL 13 waits for the lock on the new table.
    let waits =
        "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'walsender' AND wait_event_type = 'Lock'";
    eventually("it is streamed", async || {
        let seen: u64 = shown(&mut console, TRANSACTIONS).await.parse().expect("a number");
        if seen > before || setup.direct_value(0, waits).await == "1" {
            Ok(())
        } else {
            Err(seen)
        }
    })
    .await;
    setup.wait_for_standby("").await;
    waiting
        .join_next()
        .await
        .expect("it runs")
        .expect("no panic")
        .expect("it is committed");
    until_read(&mut reader, sum, "3").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publication_that_somebody_drops_ends_the_stream() {
    let setup = Setup::start_with(0, &[], with_stream).await;
    let mut reader = setup.proxy.client().await;
    reader.run_all(TABLE).await;
    until_published(&setup, &mut reader).await;
    let name = setup.direct_value(0, "SELECT pubname FROM pg_publication").await;
    setup.direct(&format!("DROP PUBLICATION {name}")).await;
    let mut console = setup.proxy.client_of("postgres", "pgladder").await;
    until_shown(&mut console, BEGUN, "2").await;
    until_published(&setup, &mut reader).await;
    setup.direct("UPDATE t SET n = 1").await;
    until_read(&mut reader, SUM, "1").await;
}
