//! The WAL stream on real servers: what is written past the proxy ends entries, what cannot be told is said, nothing is left behind.
//!
//! Each test waits for what the console shows, never for time. The writes that matter are made on the primary itself.

use std::time::Duration;

use pgladder::config::{Config, StreamUse};
use pgladder::freshness::guards::Guards;
use tokio::task::JoinSet;

use crate::client::Client;
use crate::setup::{Proxy, Setup, addresses, eventually};

pub const SUM: &str = "SELECT sum(n) FROM t";
pub const TABLE: &[&str] = &[
    "CREATE TABLE t (id int PRIMARY KEY, n bigint NOT NULL)",
    "INSERT INTO t VALUES (1, 0)",
];
pub const PUBLICATIONS: &str = "SELECT count(*) FROM pg_publication";
pub const SLOTS: &str = "SELECT count(*) FROM pg_replication_slots";

pub fn with_stream(config: &mut Config) {
    config.stream.enabled = StreamUse::Auto;
    config.stream.delay_max = Duration::from_secs(10);
    config.cluster.catalog_interval = Duration::from_millis(200);
}

/// A column of the one row that the console shows of the database.
pub async fn shown(console: &mut Client, column: usize) -> String {
    let answer = console.query("SHOW STREAM").await.expect("the console");
    let of_database = |row: &&Vec<Option<bytes::Bytes>>| row[0].as_deref() == Some(b"postgres");
    let row = answer.rows.iter().find(of_database).expect("a row");
    let value = row[column].clone().unwrap_or_default();
    String::from_utf8_lossy(&value).into_owned()
}

pub const MODE: usize = 1;
pub const WHY_NOT: usize = 2;
pub const CARRIED: usize = 6;
pub const NOT_CARRIED: usize = 8;
pub const TRANSACTIONS: usize = 10;
pub const BEGUN: usize = 12;

pub async fn until_shown(console: &mut Client, column: usize, wanted: &str) {
    eventually(
        &format!("column {column} of SHOW STREAM is {wanted}"),
        async || {
            let seen = shown(console, column).await;
            if seen == wanted { Ok(()) } else { Err(seen) }
        },
    )
    .await;
}

/// What keeps the entry of this statement true, as `SHOW CACHE` says; `None`: there is no entry.
pub async fn kept_by(console: &mut Client, sql: &str) -> Option<String> {
    let cache = console.query("SHOW CACHE").await.expect("the console");
    let text = |value: &Option<bytes::Bytes>| {
        String::from_utf8_lossy(value.as_deref().unwrap_or_default()).into_owned()
    };
    let kept = cache.rows.iter().find(|row| text(&row[9]) == sql);
    kept.map(|row| text(&row[8]))
}

/// Reads until the entry is there and the stream carries all that it reads.
pub async fn until_carried(setup: &Setup, reader: &mut Client, sql: &str) {
    let mut console = setup.proxy.client_of("postgres", "pgladder").await;
    eventually(&format!("carried: {sql}"), async || {
        // First whether it is carried: what is served from the cache afterwards was read since.
        let kept = kept_by(&mut console, sql).await;
        let (_, last) = reader.served(sql).await;
        let carried = kept.as_deref() == Some("stream") && last.served_by == "cache";
        if carried { Ok(()) } else { Err((last, kept)) }
    })
    .await;
}

/// Reads until this is the answer; what is stale for ever fails.
pub async fn until_read(reader: &mut Client, sql: &str, wanted: &str) {
    eventually(&format!("{wanted} of {sql}"), async || {
        let (value, last) = reader.served(sql).await;
        if value == wanted {
            Ok(())
        } else {
            Err((value, last))
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_past_the_proxy_ends_an_entry_and_only_where_it_wrote() {
    let setup = Setup::start_with(1, &[], with_stream).await;
    let mut reader = setup.proxy.client().await;
    reader.run_all(TABLE).await;
    reader
        .run("CREATE TABLE other (id int PRIMARY KEY, n bigint); INSERT INTO other VALUES (1, 7)")
        .await;
    let other = "SELECT sum(n) FROM other";
    until_carried(&setup, &mut reader, SUM).await;
    until_carried(&setup, &mut reader, other).await;
    let mut untouched = 0;
    for n in 1..20 {
        setup.direct(&format!("UPDATE t SET n = {n}")).await;
        until_read(&mut reader, SUM, &n.to_string()).await;
        let (value, last) = reader.served(other).await;
        assert_eq!(value, "7");
        untouched += u32::from(last.served_by == "cache");
        reader.until_served_by("cache", SUM).await;
    }
    // A poll that is late on a busy machine may end a stream, and with it all that it carried.
    assert!(
        untouched > 10,
        "only {untouched} of 19 reads of the other table came from its entry"
    );
    let count = "SELECT count(*) FROM t";
    reader.until_served_by("cache", count).await;
    setup.direct("TRUNCATE t").await;
    until_read(&mut reader, count, "0").await;
    setup
        .direct("COPY t FROM PROGRAM 'echo 3,6' WITH (FORMAT csv)")
        .await;
    until_read(&mut reader, count, "1").await;
    until_read(&mut reader, SUM, "6").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_stream_cannot_carry_is_never_published_and_says_so() {
    let setup = Setup::start_with(0, &[], with_stream).await;
    let mut reader = setup.proxy.client().await;
    reader
        .run_all(&[
            "CREATE TABLE audit (n bigint)",
            "INSERT INTO audit VALUES (1)",
            "CREATE MATERIALIZED VIEW daily AS SELECT sum(n) AS n FROM audit",
            "CREATE TABLE parted (id int, n bigint) PARTITION BY RANGE (id)",
            "CREATE TABLE parted_1 PARTITION OF parted (id PRIMARY KEY) FOR VALUES FROM (0) TO (10)",
            "CREATE TABLE parted_2 PARTITION OF parted FOR VALUES FROM (10) TO (20)",
            "INSERT INTO parted VALUES (1, 0)",
        ])
        .await;
    reader.run_all(TABLE).await;
    until_carried(&setup, &mut reader, SUM).await;
    let bare = [
        "SELECT sum(n) FROM audit",
        "SELECT sum(n) FROM daily",
        "SELECT sum(n) FROM parted",
    ];
    for sql in bare {
        reader.until_served_by("cache", sql).await;
    }
    let mut console = setup.proxy.client_of("postgres", "pgladder").await;
    let wanted = "public.audit (no replica identity), public.daily (not a permanent table), \
        public.parted (no replica identity)";
    until_shown(&mut console, NOT_CARRIED, wanted).await;
    for sql in bare {
        reader.until_served_by("cache", sql).await;
        assert_eq!(
            kept_by(&mut console, sql).await.as_deref(),
            Some("observed"),
            "{sql}"
        );
    }
    // The application writes them as before: a published table without identity would refuse.
    setup
        .direct("UPDATE audit SET n = 2; INSERT INTO parted VALUES (12, 1); UPDATE parted SET n = 2")
        .await;
    let published = "SELECT string_agg(tablename, ' ') FROM pg_publication_tables";
    assert_eq!(setup.direct_value(0, published).await, "t");
    // A key of each partition gives none to the next one, which would refuse updates.
    setup.direct("ALTER TABLE parted_2 ADD PRIMARY KEY (id)").await;
    let wanted = "public.audit (no replica identity), public.daily (not a permanent table), \
        public.parted (partitioned without a primary key)";
    until_shown(&mut console, NOT_CARRIED, wanted).await;
    setup
        .direct(
            "CREATE TABLE parted_3 PARTITION OF parted FOR VALUES FROM (20) TO (30); \
             INSERT INTO parted VALUES (25, 1); UPDATE parted SET n = 2",
        )
        .await;
    // With a key of its own it is carried, by its root, and a partition made later is, too.
    setup.direct("ALTER TABLE parted ADD PRIMARY KEY (id)").await;
    until_carried(&setup, &mut reader, bare[2]).await;
    setup.direct("UPDATE parted_2 SET n = 9").await;
    until_read(&mut reader, bare[2], "13").await;
    setup
        .direct(
            "CREATE TABLE parted_4 PARTITION OF parted FOR VALUES FROM (30) TO (40); \
             INSERT INTO parted VALUES (35, 1); UPDATE parted SET n = 3",
        )
        .await;
    until_read(&mut reader, bare[2], "12").await;
    until_carried(&setup, &mut reader, bare[2]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_loses_its_identity_leaves_the_publication() {
    let setup = Setup::start_with(0, &[], with_stream).await;
    let mut reader = setup.proxy.client().await;
    reader.run_all(TABLE).await;
    until_carried(&setup, &mut reader, SUM).await;
    setup.direct("ALTER TABLE t DROP CONSTRAINT t_pkey").await;
    let mut console = setup.proxy.client_of("postgres", "pgladder").await;
    until_shown(&mut console, CARRIED, "0").await;
    eventually("an update is let through", async || {
        let client = setup.cluster.connect(0, "postgres").await.expect("a connection");
        client.batch_execute("UPDATE t SET n = 3").await
    })
    .await;
    reader.run("UPDATE t SET n = 4").await;
    assert_eq!(reader.value(SUM).await, "4");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_the_stream_shows_before_the_primary_does_leaves_no_old_answer() {
    let setup = Setup::start_with(0, &[], with_stream).await;
    let mut reader = setup.proxy.client().await;
    reader.run_all(TABLE).await;
    until_carried(&setup, &mut reader, SUM).await;
    let mut console = setup.proxy.client_of("postgres", "pgladder").await;
    // It is logged and streamed, and waits for a standby that there is not.
    setup.wait_for_standby("nobody").await;
    let client = setup.cluster.connect(0, "postgres").await.expect("a connection");
    let mut waiting = JoinSet::new();
    waiting.spawn(async move { client.batch_execute("UPDATE t SET n = 1").await });
    until_shown(&mut console, 9, "1").await;
    for _ in 0..5 {
        let (value, last) = reader.served(SUM).await;
        assert_eq!(value, "0", "it is not visible");
        assert_eq!(last.served_by, "primary", "and no answer of now is kept");
    }
    setup.wait_for_standby("").await;
    let committed = waiting.join_next().await.expect("it runs").expect("no panic");
    committed.expect("it is committed");
    assert_eq!(setup.direct_value(0, SUM).await, "1");
    until_read(&mut reader, SUM, "1").await;
    until_carried(&setup, &mut reader, SUM).await;
    assert_eq!(reader.value(SUM).await, "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_from_before_the_publication_is_not_missed() {
    let setup = Setup::start_with(0, &[], with_stream).await;
    let mut reader = setup.proxy.client().await;
    reader.run_all(TABLE).await;
    reader.run("CREATE TABLE first (id int PRIMARY KEY)").await;
    let first = "SELECT count(*) FROM first";
    until_carried(&setup, &mut reader, first).await;
    let writer = setup.cluster.connect(0, "postgres").await.expect("a connection");
    writer
        .batch_execute("BEGIN; UPDATE t SET n = 1")
        .await
        .expect("a write");
    let mut console = setup.proxy.client_of("postgres", "pgladder").await;
    reader.until_served_by("cache", SUM).await;
    // Published, and not to be relied upon: its barrier waits for the writer.
    until_shown(&mut console, 7, "1").await;
    assert_eq!(shown(&mut console, CARRIED).await, "1");
    writer.batch_execute("COMMIT").await.expect("it commits");
    until_carried(&setup, &mut reader, SUM).await;
    assert_eq!(reader.value(SUM).await, "1");
    // A walsender may go by what that transaction saw for all that follow.
    setup.direct("UPDATE t SET n = 2").await;
    until_read(&mut reader, SUM, "2").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_walsender_and_a_promotion_end_what_it_carried_and_it_begins_anew() {
    let setup = Setup::start_with(1, &[], with_stream).await;
    let mut reader = setup.proxy.client().await;
    reader.run_all(TABLE).await;
    until_carried(&setup, &mut reader, SUM).await;
    let mut console = setup.proxy.client_of("postgres", "pgladder").await;
    let kill = "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots";
    setup.direct(kill).await;
    setup.direct("UPDATE t SET n = 1").await;
    until_shown(&mut console, BEGUN, "2").await;
    until_read(&mut reader, SUM, "1").await;
    until_carried(&setup, &mut reader, SUM).await;
    setup.direct("UPDATE t SET n = 2").await;
    until_read(&mut reader, SUM, "2").await;

    setup
        .cluster
        .wait_caught_up()
        .await
        .expect("the replica has all of it");
    setup.cluster.kill_hard(0).await.expect("it dies");
    setup.cluster.promote(1).await.expect("a new primary");
    let mut reader = eventually("a client of the new primary", async || {
        let mut client = Client::connect(&setup.proxy.tcp, "postgres", "postgres").await?;
        client.query(SUM).await.map(|_| client)
    })
    .await;
    setup.direct("UPDATE t SET n = 3").await;
    until_read(&mut reader, SUM, "3").await;
    until_carried(&setup, &mut reader, SUM).await;
    setup.direct("UPDATE t SET n = 4").await;
    until_read(&mut reader, SUM, "4").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_left_after_a_stop_and_what_a_killed_proxy_left_goes_at_the_next_start() {
    let Setup { proxy, cluster } = Setup::start_with(0, &[], with_stream).await;
    let setup = Setup { proxy, cluster };
    let mut reader = setup.proxy.client().await;
    reader.run_all(TABLE).await;
    until_carried(&setup, &mut reader, SUM).await;
    for count in [PUBLICATIONS, SLOTS] {
        assert_eq!(setup.direct_value(0, count).await, "1", "{count}");
    }
    // Of a proxy that was killed, whose connections are gone.
    setup
        .direct("CREATE PUBLICATION pgladder_0123456789abcdef FOR TABLE t")
        .await;
    // Of somebody else's, or of a proxy that lives.
    setup
        .direct("CREATE PUBLICATION pgladder_mine; CREATE PUBLICATION reports FOR TABLE t")
        .await;
    let second = Proxy::start(addresses(&setup.cluster), Guards::default(), with_stream).await;
    let mut other = second.client().await;
    other.value(SUM).await;
    let names = "SELECT count(*) FROM pg_publication WHERE pubname ~ '^pgladder_[0-9a-f]{16}$' \
        AND pubname <> 'pgladder_0123456789abcdef'";
    let leftover = "SELECT count(*) FROM pg_publication WHERE pubname = 'pgladder_0123456789abcdef'";
    eventually("the second proxy streams, and has swept", async || {
        other.value(SUM).await;
        let seen = (
            setup.direct_value(0, names).await,
            setup.direct_value(0, leftover).await,
        );
        if seen == ("2".to_owned(), "0".to_owned()) {
            Ok(())
        } else {
            Err(seen)
        }
    })
    .await;
    drop(other);
    drop(reader);
    second.end().await;
    let Setup { proxy, cluster } = setup;
    proxy.end().await;
    let client = cluster.connect(0, "postgres").await.expect("a connection");
    let left = "SELECT string_agg(pubname, ' ' ORDER BY 1) FROM pg_publication";
    let row = client.query_one(left, &[]).await.expect("an answer");
    assert_eq!(row.get::<_, &str>(0), "pgladder_mine reports");
    // The server drops a slot once it has noticed that its connection is gone.
    eventually("no slot is left", async || {
        let row = client.query_one(SLOTS, &[]).await.expect("an answer");
        match row.get::<_, i64>(0) {
            0 => Ok(()),
            seen => Err(seen),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_log_says_too_little_it_is_said_and_all_goes_on_as_before() {
    let setup = Setup::start_with(0, &[("wal_level", "replica")], with_stream).await;
    let mut reader = setup.proxy.client().await;
    reader.run_all(TABLE).await;
    reader.until_served_by("cache", SUM).await;
    let mut console = setup.proxy.client_of("postgres", "pgladder").await;
    let why = "wal_level is replica: set it to logical and restart the primary";
    until_shown(&mut console, WHY_NOT, why).await;
    assert_eq!(shown(&mut console, MODE).await, "observed");
    reader.run("UPDATE t SET n = 1").await;
    assert_eq!(reader.value(SUM).await, "1");
    assert_eq!(setup.direct_value(0, PUBLICATIONS).await, "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publication_of_the_configuration_is_used_as_it_is() {
    let setup = Setup::start_with(0, &[], |config| {
        with_stream(config);
        config.stream.publication = Some("Their \"own\"".to_owned());
    })
    .await;
    let mut reader = setup.proxy.client().await;
    reader.run_all(TABLE).await;
    reader.run("CREATE TABLE other (id int PRIMARY KEY)").await;
    reader.until_served_by("cache", SUM).await;
    let mut console = setup.proxy.client_of("postgres", "pgladder").await;
    let why = "there is no publication \"Their \"own\"\" in this database";
    until_shown(&mut console, WHY_NOT, why).await;
    setup
        .direct("CREATE PUBLICATION \"Their \"\"own\"\"\" FOR TABLE t")
        .await;
    until_carried(&setup, &mut reader, SUM).await;
    reader
        .until_served_by("cache", "SELECT count(*) FROM other")
        .await;
    until_shown(&mut console, NOT_CARRIED, "public.other (not in the publication)").await;
    setup.direct("UPDATE t SET n = 5").await;
    until_read(&mut reader, SUM, "5").await;
    // Whoever keeps it may take a table out for a moment, which nobody sees who only looks from time to time.
    until_carried(&setup, &mut reader, SUM).await;
    let theirs = "ALTER PUBLICATION \"Their \"\"own\"\"\"";
    setup
        .direct(&format!(
            "{theirs} DROP TABLE t; UPDATE t SET n = 6; {theirs} ADD TABLE t"
        ))
        .await;
    until_read(&mut reader, SUM, "6").await;
    until_shown(&mut console, BEGUN, "2").await;
    until_carried(&setup, &mut reader, SUM).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_publication_of_the_configuration_filters_is_not_carried() {
    let setup = Setup::start_with(0, &[], |config| {
        with_stream(config);
        config.stream.publication = Some("theirs".to_owned());
    })
    .await;
    let version = setup.direct_value(0, "SHOW server_version_num").await;
    if version.parse::<u32>().expect("a number") < 150_000 {
        return; // It knows no filters.
    }
    let mut reader = setup.proxy.client().await;
    reader
        .run_all(&[
            "CREATE TABLE parted (id int PRIMARY KEY, n bigint) PARTITION BY RANGE (id)",
            "CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (0) TO (10)",
            "CREATE TABLE parted_2 PARTITION OF parted FOR VALUES FROM (10) TO (20)",
            "CREATE TABLE plain (id int PRIMARY KEY)",
            TABLE[0],
            TABLE[1],
            "CREATE PUBLICATION theirs FOR TABLE t, plain WHERE (id > 5), parted, parted_1 WHERE (id > 5)",
        ])
        .await;
    until_carried(&setup, &mut reader, SUM).await;
    let filtered = ["SELECT count(*) FROM parted", "SELECT count(*) FROM plain"];
    for sql in filtered {
        reader.until_served_by("cache", sql).await;
    }
    let mut console = setup.proxy.client_of("postgres", "pgladder").await;
    let wanted = "public.parted (not in the publication), public.plain (not in the publication)";
    until_shown(&mut console, NOT_CARRIED, wanted).await;
    for sql in filtered {
        reader.until_served_by("cache", sql).await;
        assert_eq!(
            kept_by(&mut console, sql).await.as_deref(),
            Some("observed"),
            "{sql}"
        );
    }
}
