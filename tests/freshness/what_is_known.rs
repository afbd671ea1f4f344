//! What the proxy knows of tables, names and nodes, where knowing less than PostgreSQL would make it lie.
//!
//! One test for each: temporary and unlogged tables, names that change their meaning, functions that hide a write, a replica that
//! goes back, and a server that is another than it was.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pgladder::freshness::guards::Guards;

use crate::client::Heard;
use crate::forwarder::Forwarder;
use crate::setup::{Proxy, Setup, addresses, endpoint, eventually, servers};

const TABLE: &[&str] = &[
    "CREATE TABLE t (id int PRIMARY KEY, n bigint NOT NULL)",
    "INSERT INTO t VALUES (1, 0)",
];
const SUM: &str = "SELECT sum(n) FROM t";
const PLAIN: &str = "SELECT n FROM t WHERE id = 1";

#[tokio::test(flavor = "multi_thread")]
async fn a_session_with_a_temporary_table_of_the_same_name_reads_that_one_alone() {
    let setup = Setup::start(1).await;
    setup.prepare(TABLE, PLAIN).await;
    let makes = "CREATE FUNCTION makes() RETURNS void LANGUAGE sql AS \
         'CREATE TEMP TABLE t AS SELECT 1 AS id, 7::bigint AS n'";
    let mut other = setup.proxy.client().await;
    other.run(makes).await;
    for hides in [
        "CREATE TEMP TABLE t AS SELECT 1 AS id, 7::bigint AS n",
        "SELECT 1 AS id, 7::bigint AS n INTO TEMP t",
        "CREATE TABLE pg_temp.t AS SELECT 1 AS id, 7::bigint AS n",
        "CREATE TEMPORARY VIEW t AS SELECT 1 AS id, 7::bigint AS n",
        "SELECT makes()",
        "DO 'BEGIN CREATE TEMP TABLE t AS SELECT 1 AS id, 7::bigint AS n; END'",
        "BEGIN; CREATE TEMP TABLE t AS SELECT 1 AS id, 7::bigint AS n; COMMIT",
    ] {
        other.until_served_by("cache", SUM).await;
        other.until_served_by("replica", PLAIN).await;
        let mut session = setup.proxy.client().await;
        session.run(hides).await;
        for sql in [SUM, PLAIN, SUM, PLAIN] {
            assert_eq!(session.value(sql).await, "7", "{hides}: {sql}");
            assert_eq!(other.value(sql).await, "0", "{hides}: {sql}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_replica_does_not_have_is_read_on_the_primary_and_never_cached() {
    let setup = Setup::start(1).await;
    let made = [
        "CREATE UNLOGGED TABLE u (n int)",
        "INSERT INTO u VALUES (1)",
        "CREATE VIEW over_u AS SELECT n FROM u",
        "CREATE TABLE parts (n int) PARTITION BY LIST (n)",
        "CREATE UNLOGGED TABLE leaf PARTITION OF parts FOR VALUES IN (1)",
        "INSERT INTO parts VALUES (1)",
        "CREATE SEQUENCE s",
        "SELECT nextval('s')",
    ];
    setup.prepare(TABLE, PLAIN).await;
    let mut client = setup.proxy.client().await;
    for sql in made {
        client.run(sql).await;
    }
    client.run("DISCARD ALL").await;
    let mut client = setup.proxy.client().await;
    client.until_served_by("replica", PLAIN).await;
    for sql in [
        "SELECT max(n) FROM u",
        "SELECT n FROM u",
        "SELECT max(n) FROM over_u",
        "SELECT max(n) FROM parts",
        "SELECT last_value FROM s",
        "SELECT max(last_value) FROM s",
        "SELECT count(*) FROM pg_class WHERE relname = 't'",
        "SELECT count(*) FROM pg_stat_replication",
        "SELECT count(*) FROM information_schema.tables WHERE table_name = 't'",
    ] {
        for _ in 0..3 {
            let (value, last) = client.served(sql).await;
            assert_eq!(
                (value.as_str(), last.served_by.as_str()),
                ("1", "primary"),
                "{sql}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prepared_statement_follows_two_tables_that_swap_their_names() {
    let setup = Setup::start(1).await;
    let (mut owner, mut reader) = (setup.proxy.client().await, setup.proxy.client().await);
    for sql in TABLE {
        owner.run(sql).await;
    }
    reader.put_parse("sum", SUM);
    reader.put_parse("plain", PLAIN);
    reader.put_sync();
    reader.ready().await.expect("parsed");
    reader.until_served_by("cache", SUM).await;
    for n in ["1", "2", "3"] {
        for name in ["sum", "plain"] {
            reader.prepared(name, &[], false).await.expect("a row");
        }
        owner.run("DROP TABLE IF EXISTS old").await;
        owner.run("CREATE TABLE new (LIKE t INCLUDING ALL)").await;
        owner.run("INSERT INTO new VALUES (1, -1)").await;
        owner
            .run("BEGIN; ALTER TABLE t RENAME TO old; ALTER TABLE new RENAME TO t; COMMIT")
            .await;
        owner.run(&format!("UPDATE t SET n = {n}")).await;
        for name in ["sum", "plain"] {
            let answer = reader.prepared(name, &[], false).await.expect("a row");
            assert_eq!(answer.text(), n, "{name}");
        }
        reader.until_served_by("cache", SUM).await;
        // The table that has the name now is the one whose writes count.
        owner.run("UPDATE t SET n = n + 10").await;
        let now = (n.parse::<i64>().expect("a number") + 10).to_string();
        for name in ["sum", "plain"] {
            let answer = reader.prepared(name, &[], false).await.expect("a row");
            assert_eq!(answer.text(), now, "{name}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_failed_ends_with_its_sync_whatever_happened_to_the_catalog_meanwhile() {
    let setup = Setup::start(0).await;
    let (mut client, mut owner) = (setup.proxy.client().await, setup.proxy.client().await);
    for sql in TABLE {
        owner.run(sql).await;
    }
    // The connection has a statement whose plan the new catalog makes void, and its server ignores all that comes before the Sync.
    client.put_parse("plain", PLAIN);
    client.put_describe("no portal");
    client.put_flush();
    client.send().await.expect("sent");
    while !matches!(client.hear().await.expect("an error"), Heard::Refused { .. }) {}
    owner.run("CREATE TABLE other ()").await;
    client.put_sync();
    client.ready().await.expect("ReadyForQuery alone");
    let answer = client.prepared("plain", &[], false).await;
    assert_eq!(answer.expect("it was parsed before the error").text(), "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prepared_write_knows_of_a_trigger_that_came_after_it() {
    let setup = Setup::start(0).await;
    let (mut writer, mut reader) = (setup.proxy.client().await, setup.proxy.client().await);
    for sql in TABLE.iter().chain(&[
        "CREATE TABLE audit (n bigint)",
        "INSERT INTO audit VALUES (0)",
        "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS \
         'BEGIN UPDATE audit SET n = NEW.n; RETURN NULL; END'",
    ]) {
        reader.run(sql).await;
    }
    writer.put_parse("write", "UPDATE t SET n = n + 1");
    writer.put_sync();
    writer.ready().await.expect("parsed");
    writer.prepared("write", &[], false).await.expect("written");
    let audited = "SELECT max(n) FROM audit";
    assert_eq!(reader.until_served_by("cache", audited).await, "0");
    let trigger = "CREATE TRIGGER note AFTER UPDATE ON t FOR EACH ROW EXECUTE FUNCTION note()";
    reader.run(trigger).await;
    assert_eq!(reader.until_served_by("cache", audited).await, "0");
    writer.prepared("write", &[], false).await.expect("written");
    assert_eq!(reader.value(audited).await, "2");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_was_judged_before_a_trigger_came_counts_for_all_tables() {
    let setup = Setup::start(0).await;
    let (mut writer, mut reader) = (setup.proxy.client().await, setup.proxy.client().await);
    for sql in TABLE.iter().chain(&[
        "CREATE TABLE audit (n bigint)",
        "INSERT INTO audit VALUES (0)",
        "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS \
         'BEGIN UPDATE audit SET n = NEW.n; RETURN NULL; END'",
    ]) {
        reader.run(sql).await;
    }
    let audited = "SELECT max(n) FROM audit";
    reader.until_served_by("cache", audited).await;
    // The write waits for the lock that is held while the trigger is made, and then finds the trigger.
    let mut owner = setup.proxy.client().await;
    owner.run("BEGIN").await;
    owner
        .run("CREATE TRIGGER note AFTER UPDATE ON t FOR EACH ROW EXECUTE FUNCTION note()")
        .await;
    writer.put_query("UPDATE t SET n = 5");
    writer.send().await.expect("sent");
    eventually("the write waits", async || {
        let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
        match setup.direct_value(0, waiting).await.as_str() {
            "1" => Ok(()),
            other => Err(other.to_owned()),
        }
    })
    .await;
    owner.run("COMMIT").await;
    writer.ready().await.expect("written");
    assert_eq!(reader.value(audited).await, "5");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_means_what_the_search_path_of_the_moment_says() {
    let setup = Setup::start(1).await;
    let (mut writer, mut reader) = (setup.proxy.client().await, setup.proxy.client().await);
    for sql in [
        "CREATE SCHEMA one",
        "CREATE SCHEMA two",
        "CREATE TABLE one.t AS SELECT 1 AS id, 1::bigint AS n",
        "CREATE TABLE two.t AS SELECT 1 AS id, 2::bigint AS n",
    ] {
        writer.run(sql).await;
    }
    reader.run("SET search_path = one").await;
    reader.put_parse("sum", SUM);
    reader.put_sync();
    reader.ready().await.expect("parsed");
    for (path, value) in [("one", "1"), ("two", "2"), ("one", "1"), ("two", "2")] {
        reader.run(&format!("SET search_path = {path}")).await;
        reader.until_served_by("replica", PLAIN).await;
        assert_eq!(reader.until_served_by("cache", SUM).await, value);
        assert_eq!(reader.value(PLAIN).await, value);
        let prepared = reader.prepared("sum", &[], false).await.expect("a row");
        assert_eq!(prepared.text(), value);
    }
    writer.run("SET search_path = two").await;
    writer.run("UPDATE t SET n = 20").await;
    for (path, value) in [("one", "1"), ("two", "20")] {
        reader.run(&format!("SET search_path = {path}")).await;
        for sql in [SUM, PLAIN] {
            assert_eq!(reader.value(sql).await, value);
        }
        let prepared = reader.prepared("sum", &[], false).await.expect("a row");
        assert_eq!(prepared.text(), value);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_roles_search_path_changed_meanwhile_counts_for_new_sessions_alone() {
    let setup = Setup::start(1).await;
    let mut owner = setup.proxy.client().await;
    for sql in [
        "CREATE SCHEMA one",
        "CREATE SCHEMA two",
        "CREATE TABLE one.t AS SELECT 1 AS id, 1::bigint AS n",
        "CREATE TABLE two.t AS SELECT 1 AS id, 2::bigint AS n",
        "CREATE ROLE bob LOGIN",
        "GRANT USAGE ON SCHEMA one, two TO bob",
        "GRANT SELECT ON one.t, two.t TO bob",
        "ALTER ROLE bob SET search_path = one",
    ] {
        owner.run(sql).await;
    }
    let mut before = setup.proxy.client_of("bob", "postgres").await;
    before.until_served_by("replica", PLAIN).await;
    assert_eq!(before.until_served_by("cache", SUM).await, "1");
    owner.run("ALTER ROLE bob SET search_path = two").await;
    setup.cluster.wait_caught_up().await.expect("it streams");
    let mut after = setup.proxy.client_of("bob", "postgres").await;
    // With the server connections of before, and with new ones.
    for _ in 0..2 {
        for sql in [SUM, PLAIN, SUM, PLAIN] {
            assert_eq!(before.value(sql).await, "1", "{sql}");
            assert_eq!(after.value(sql).await, "2", "{sql}");
        }
        for (session, value) in [(&mut before, "1"), (&mut after, "2")] {
            session.until_served_by("replica", PLAIN).await;
            assert_eq!(session.until_served_by("cache", SUM).await, value);
            session.run("BEGIN ISOLATION LEVEL REPEATABLE READ").await;
            assert_eq!(session.value(SUM).await, value);
            session.run("COMMIT").await;
        }
        for node in [0, 1] {
            let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = 'bob'";
            setup.direct_value(node, end).await;
        }
        setup.direct("UPDATE one.t SET n = n").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_block_of_code_does_to_the_catalog_is_known_when_it_is_done() {
    let setup = Setup::start(1).await;
    setup.prepare(TABLE, PLAIN).await;
    let (mut writer, mut reader) = (setup.proxy.client().await, setup.proxy.client().await);
    for sql in [
        "CREATE TABLE other AS SELECT 1 AS id, 10::bigint AS n",
        "CREATE VIEW v AS SELECT id, n FROM t",
        "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN UPDATE other SET n = NEW.n; RETURN NULL; END'",
        "CREATE PROCEDURE swap() LANGUAGE plpgsql AS 'BEGIN ALTER TABLE t RENAME TO old; ALTER TABLE other RENAME TO t; END'",
    ] {
        writer.run(sql).await;
    }
    let (view, other) = ("SELECT sum(n) FROM v", "SELECT sum(n) FROM other");
    let mut prepared = setup.proxy.client().await;
    prepared.put_parse("write", "UPDATE t SET n = n + 1");
    prepared.put_sync();
    prepared.ready().await.expect("parsed");
    assert_eq!(reader.until_served_by("cache", view).await, "0");
    writer
        .run("DO 'BEGIN CREATE OR REPLACE VIEW v AS SELECT id, n FROM other; END'")
        .await;
    assert_eq!(reader.until_served_by("cache", view).await, "10");
    writer.run("DISCARD ALL").await;
    writer.run("UPDATE other SET n = 11").await;
    assert_eq!(reader.value(view).await, "11");

    reader.until_served_by("cache", other).await;
    let trigger = "CREATE TRIGGER note AFTER UPDATE ON t FOR EACH ROW EXECUTE FUNCTION note()";
    writer.run(&format!("DO 'BEGIN {trigger}; END'")).await;
    assert_eq!(reader.until_served_by("cache", other).await, "11");
    prepared.prepared("write", &[], false).await.expect("written");
    assert_eq!(reader.value(other).await, "1");
    assert_eq!(reader.value(SUM).await, "1");

    reader.until_served_by("cache", SUM).await;
    reader.until_served_by("replica", PLAIN).await;
    writer.run("DISCARD ALL").await;
    writer.run("UPDATE other SET n = 20").await;
    writer.run("CALL swap()").await;
    assert_eq!(reader.value(SUM).await, "20");
    assert_eq!(reader.value(PLAIN).await, "20");
    prepared.prepared("write", &[], false).await.expect("written");
    assert_eq!(reader.value(SUM).await, "21");
    assert_eq!(reader.value(PLAIN).await, "21");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_that_says_stable_and_writes_is_a_write_wherever_it_stands() {
    let setup = Setup::start(1).await;
    setup.prepare(TABLE, PLAIN).await;
    let mut writer = setup.proxy.client().await;
    for sql in [
        "CREATE FUNCTION raises() RETURNS bigint LANGUAGE sql VOLATILE AS 'UPDATE t SET n = n + 1 RETURNING n'",
        "CREATE FUNCTION calm() RETURNS bigint LANGUAGE plpgsql STABLE AS 'BEGIN RETURN raises(); END'",
        "CREATE FUNCTION same(bigint) RETURNS bigint LANGUAGE plpgsql IMMUTABLE AS 'BEGIN PERFORM raises(); RETURN $1; END'",
        "CREATE VIEW calms AS SELECT calm() AS n",
        "CREATE FUNCTION step(bigint, bigint) RETURNS bigint LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN calm() * 0 + $2; END'",
        "CREATE AGGREGATE latest (bigint) (SFUNC = step, STYPE = bigint, INITCOND = '0')",
        "CREATE DOMAIN checked AS bigint CHECK (same(VALUE) = VALUE)",
        "CREATE TABLE one AS SELECT 1::bigint AS n",
        "CREATE TABLE guarded AS SELECT 1::bigint AS n",
        "CREATE POLICY look ON guarded USING (calm() > 0)",
        "ALTER TABLE guarded ENABLE ROW LEVEL SECURITY",
        "CREATE ROLE ann LOGIN",
        "GRANT ALL ON ALL TABLES IN SCHEMA public TO ann",
    ] {
        writer.run(sql).await;
    }
    let mut reader = setup.proxy.client().await;
    for (number, sql) in [
        "SELECT calm()",
        "SELECT max(n) FROM calms",
        "SELECT n FROM calms",
        "SELECT latest(n) FROM one",
        "SELECT n::checked FROM one",
        "SELECT max(n) FROM guarded",
    ]
    .iter()
    .enumerate()
    {
        let before = reader.until_served_by("cache", SUM).await;
        assert_eq!(before, number.to_string(), "{sql}");
        reader.until_served_by("replica", PLAIN).await;
        let mut writer = setup.proxy.client_of("ann", "postgres").await;
        writer.run(sql).await;
        let now = (number + 1).to_string();
        assert_eq!(reader.value(SUM).await, now, "{sql}");
        assert_eq!(reader.value(PLAIN).await, now, "{sql}");
    } // An operator may be one of the built-in types, so that nothing is cached from here on.
    let before: i64 = reader.value(SUM).await.parse().expect("a number");
    writer
        .run("CREATE OPERATOR @+ (RIGHTARG = bigint, FUNCTION = same)")
        .await;
    writer.run("SELECT @+ n FROM one").await;
    assert_eq!(reader.value(SUM).await, (before + 1).to_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_replays_again_from_an_earlier_point_serves_nothing_older() {
    let setup = Setup::start(1).await;
    setup.prepare(TABLE, PLAIN).await;
    let cluster = &setup.cluster;
    let mut client = setup.proxy.client().await;
    // Its last restartpoint has the table, and no value of it.
    setup.direct("CHECKPOINT").await;
    cluster.wait_caught_up().await.expect("it streams");
    let replica = cluster.connect(1, "postgres").await.expect("a connection");
    replica.batch_execute("CHECKPOINT").await.expect("a superuser");
    for value in 1..=20 {
        client.run(&format!("UPDATE t SET n = {value}")).await;
    }
    assert_eq!(client.until_served_by("replica", PLAIN).await, "20");
    // From now on it waits a minute before it replays a commit: after a crash it is back where its last restartpoint was.
    replica
        .batch_execute("ALTER SYSTEM SET recovery_min_apply_delay = '1min'")
        .await
        .expect("a superuser");
    replica
        .batch_execute("SELECT pg_reload_conf()")
        .await
        .expect("a superuser");
    let pid = replica
        .query_one("SELECT pg_backend_pid()", &[])
        .await
        .expect("a row");
    kill(Pid::from_raw(pid.get(0)), Signal::SIGKILL).expect("a backend of ours");
    eventually("it shows an older state", async || {
        let node = cluster
            .connect(1, "postgres")
            .await
            .map_err(|error| error.to_string())?;
        let row = node.query_one("SELECT n FROM t", &[]).await;
        let n: i64 = row.map_err(|error| error.to_string())?.get(0);
        if n < 20 { Ok(()) } else { Err(n.to_string()) }
    })
    .await;
    let mut fresh = setup.proxy.client().await;
    for _ in 0..200 {
        assert_eq!(client.value(PLAIN).await, "20");
        assert_eq!(fresh.value(PLAIN).await, "20");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_of_another_cluster_serves_nothing_not_even_behind_a_known_address() {
    let (ours, stranger) = tokio::join!(servers(1, &[]), servers(1, &[]));
    let line = Forwarder::start(ours.address(1)).await;
    let nodes = vec![
        endpoint(ours.port(0)),
        endpoint(line.port),
        endpoint(stranger.port(1)),
    ];
    let proxy = Proxy::start(nodes, Guards::default(), |_| {}).await;
    let mut client = proxy.client().await;
    for sql in TABLE {
        client.run(sql).await;
    }
    let theirs = stranger.connect(0, "postgres").await.expect("a connection");
    for sql in TABLE {
        theirs.batch_execute(sql).await.expect("it runs");
    }
    theirs
        .batch_execute("UPDATE t SET n = 666")
        .await
        .expect("it runs");
    stranger.wait_caught_up().await.expect("it streams");
    // Only what is open to the replica stays there: each new login finds the stranger.
    client.until_served_by("replica", "SELECT 1 FROM t").await;
    line.lead_to(stranger.address(1));
    let mut all = Vec::new();
    for _ in 0..40 {
        let mut one = proxy.client().await;
        one.put_query(PLAIN);
        one.send().await.expect("sent");
        all.push(one);
    }
    for mut one in all {
        assert_eq!(one.ready().await.expect("a row").text(), "0");
    }
    line.cut();
    for _ in 0..100 {
        assert_eq!(client.value(PLAIN).await, "0");
    }
    let direct = addresses(&stranger);
    assert_eq!(direct.len(), 2, "it runs all the time");
}
