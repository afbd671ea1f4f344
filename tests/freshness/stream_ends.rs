//! How a stream ends, is late, or never begins: what is served meanwhile, and what is left on the servers.
//!
//! A walsender is stopped and a proxy killed by their process numbers alone. What has to happen is waited for; what must not is looked
//! at while something else, which is seen, holds it off.

use std::process::{Command, Output, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pgladder::config::Config;
use pgladder::freshness::guards::Guards;
use pgladder::listener::Bound;

use crate::client::Client;
use crate::setup::{Proxy, Setup, addresses, eventually, servers};
use crate::stream::{
    BEGUN, CARRIED, MODE, PUBLICATIONS, SLOTS, SUM, TABLE, WHY_NOT, shown, until_carried, until_read,
    until_shown, with_stream,
};

const PLAIN: &str = "SELECT n FROM t WHERE id = 1";

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_late_is_not_relied_upon() {
    let setup = Setup::start_with(0, &[], |config: &mut Config| {
        with_stream(config);
        config.stream.delay_max = Duration::from_millis(400);
    })
    .await;
    let mut reader = setup.proxy.client().await;
    reader.run_all(TABLE).await;
    until_carried(&setup, &mut reader, SUM).await;
    let mut console = setup.proxy.client_of("postgres", "pgladder").await;
    let walsender = setup
        .direct_value(0, "SELECT active_pid FROM pg_replication_slots")
        .await;
    let walsender = Pid::from_raw(walsender.parse().expect("a number"));
    kill(walsender, Signal::SIGSTOP).expect("it stops");
    // Nobody tells of this write; once the bound is over, nobody trusts the entry.
    setup.direct("UPDATE t SET n = 1").await;
    until_read(&mut reader, SUM, "1").await;
    for _ in 0..5 {
        let (value, last) = reader.served(SUM).await;
        assert_eq!(value, "1", "{last:?}");
        // A poll that is late on a busy machine ends the stream, and then freshness rests on what is observed.
        if shown(&mut console, MODE).await == "streaming" && shown(&mut console, BEGUN).await == "1" {
            assert_eq!(last.served_by, "primary", "{last:?}");
        }
    }
    kill(walsender, Signal::SIGCONT).expect("it goes on");
    assert_eq!(reader.until_served_by("cache", SUM).await, "1");
    let stats = console.query("SHOW STATS").await.expect("the console");
    let late = stats
        .rows
        .iter()
        .find(|row| row[0].as_deref() == Some(b"bypass: stream_late"));
    let late = late.and_then(|row| row[1].clone()).expect("a counter");
    assert_ne!(&late[..], b"0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_past_the_proxy_keeps_a_replica_from_serving_until_it_has_it() {
    let setup = Setup::start_with(1, &[], with_stream).await;
    let mut reader = setup.proxy.client().await;
    reader.run_all(TABLE).await;
    until_carried(&setup, &mut reader, SUM).await;
    reader.until_served_by("replica", PLAIN).await;
    setup.cluster.pause_replay(1).await.expect("replay waits");
    setup.direct("UPDATE t SET n = 1").await;
    until_read(&mut reader, PLAIN, "1").await;
    assert_eq!(reader.served(PLAIN).await.1.served_by, "primary");
    assert_eq!(setup.direct_value(1, PLAIN).await, "0", "the replica has it not");
    setup.cluster.resume_replay(1).await.expect("replay goes on");
    assert_eq!(reader.until_served_by("replica", PLAIN).await, "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_does_not_become_ready_is_given_up_and_leaves_nothing() {
    let setup = Setup::start_with(0, &[], |config: &mut Config| {
        with_stream(config);
        config.stream.slot_timeout = Duration::from_millis(300);
    })
    .await;
    let mut reader = setup.proxy.client().await;
    reader.run_all(TABLE).await;
    let writer = setup.cluster.connect(0, "postgres").await.expect("a connection");
    let open = "BEGIN; CREATE TABLE held (n int)";
    writer
        .batch_execute(open)
        .await
        .expect("a transaction with a number");
    reader.until_served_by("cache", SUM).await;
    let mut console = setup.proxy.client_of("postgres", "pgladder").await;
    let why = "the slot was not ready within 300ms: a transaction that has written, or a prepared one, has been open for as long";
    until_shown(&mut console, WHY_NOT, why).await;
    for count in [SLOTS, PUBLICATIONS, "SELECT count(*) FROM pg_stat_replication"] {
        eventually(count, async || {
            let seen = setup.direct_value(0, count).await;
            if seen == "0" { Ok(()) } else { Err(seen) }
        })
        .await;
    }
    // Without a stream all is as it was.
    reader.run("UPDATE t SET n = 1").await;
    assert_eq!(reader.value(SUM).await, "1");
    writer.batch_execute("ROLLBACK").await.expect("it ends");
    until_carried(&setup, &mut reader, SUM).await;
    until_shown(&mut console, CARRIED, "1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_keeps_too_much_of_the_log_is_given_up() {
    let setup = Setup::start_with(0, &[], |config: &mut Config| {
        with_stream(config);
        config.stream.retained_max = 1 << 20;
    })
    .await;
    let mut reader = setup.proxy.client().await;
    reader.run_all(TABLE).await;
    until_carried(&setup, &mut reader, SUM).await;
    let walsender = setup
        .direct_value(0, "SELECT active_pid FROM pg_replication_slots")
        .await;
    let walsender = Pid::from_raw(walsender.parse().expect("a number"));
    kill(walsender, Signal::SIGSTOP).expect("it stops");
    setup
        .direct(
            "CREATE TABLE much (n text); INSERT INTO much SELECT repeat('much', 300) FROM generate_series(1, 3000)",
        )
        .await;
    setup.direct("UPDATE t SET n = 1").await;
    let mut console = setup.proxy.client_of("postgres", "pgladder").await;
    until_shown(&mut console, BEGUN, "2").await;
    kill(walsender, Signal::SIGCONT).expect("it goes on, and ends");
    until_read(&mut reader, SUM, "1").await;
    eventually("its slot is gone", async || {
        let held = format!("SELECT count(*) FROM pg_replication_slots WHERE active_pid = {walsender}");
        let seen = setup.direct_value(0, &held).await;
        if seen == "0" { Ok(()) } else { Err(seen) }
    })
    .await;
    until_carried(&setup, &mut reader, SUM).await;
}

pub fn pgladder(arguments: &[&str], node: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgladder"));
    command
        .args(arguments)
        .args(["--node", node, "--control-user", "postgres", "--auth", "trust"])
        .env_clear()
        .stdin(Stdio::null());
    command
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_is_killed_leaves_a_publication_which_cleanup_or_the_next_start_drops() {
    let cluster = servers(0, &[]).await;
    let node = format!("127.0.0.1:{}", cluster.port(0));
    let sockets = tempfile::tempdir().expect("a directory");
    let listen = format!("{}:6432", sockets.path().display());
    let direct = cluster.connect(0, "postgres").await.expect("a connection");
    direct.batch_execute(&TABLE.join(";")).await.expect("a table");
    let count = async |sql: &str| direct.query_one(sql, &[]).await.expect("a row").get::<_, i64>(0);
    for by_cleanup in [true, false] {
        let serve = ["serve", "--listen", &listen, "--log-level", "error"];
        let mut child = pgladder(&serve, &node).spawn().expect("the program runs");
        let socket = Bound::Unix(sockets.path().join(".s.PGSQL.6432"));
        eventually("a slot and a publication", async || {
            let connected = Client::connect(&socket, "postgres", "postgres").await;
            let mut client = connected.map_err(|error| error.to_string())?;
            client.query(SUM).await.map_err(|error| error.to_string())?;
            match (count(SLOTS).await, count(PUBLICATIONS).await) {
                (1, 1) => Ok(()),
                seen => Err(format!("{seen:?}")),
            }
        })
        .await;
        // What a proxy uses that runs is not touched.
        let Output { status, stdout, .. } = pgladder(&["cleanup"], &node).output().expect("it runs");
        assert!(status.success());
        assert_eq!(String::from_utf8_lossy(&stdout), "publications dropped: 0\n");
        child.kill().expect("SIGKILL");
        child.wait().expect("it is gone");
        eventually("the slot is gone", async || match count(SLOTS).await {
            0 => Ok(()),
            seen => Err(seen),
        })
        .await;
        assert_eq!(count(PUBLICATIONS).await, 1);
        if by_cleanup {
            eventually("it is dropped", async || {
                let output = pgladder(&["cleanup"], &node).output().expect("it runs");
                let said = String::from_utf8_lossy(&output.stdout).into_owned();
                if said.ends_with("dropped: 1\n") {
                    Ok(())
                } else {
                    Err(said)
                }
            })
            .await;
        } else {
            let proxy = Proxy::start(addresses(&cluster), Guards::default(), with_stream).await;
            drop(proxy.client().await);
            eventually("the next start drops it", async || {
                match count(PUBLICATIONS).await {
                    0 => Ok(()),
                    seen => Err(seen),
                }
            })
            .await;
            proxy.end().await;
        }
        assert_eq!(count(PUBLICATIONS).await, 0);
        std::fs::remove_file(sockets.path().join(".s.PGSQL.6432")).ok();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_is_killed_while_its_slot_waits_leaves_no_slot() {
    let cluster = servers(0, &[]).await;
    let node = format!("127.0.0.1:{}", cluster.port(0));
    let place = tempfile::tempdir().expect("a directory");
    let listen = format!("{}:6432", place.path().display());
    let direct = cluster.connect(0, "postgres").await.expect("a connection");
    direct.batch_execute(&TABLE.join(";")).await.expect("a table");
    let writer = cluster.connect(0, "postgres").await.expect("a connection");
    writer
        .batch_execute("BEGIN; CREATE TABLE held (n int)")
        .await
        .expect("a transaction with a number");
    let slots = async || {
        direct
            .query_one(SLOTS, &[])
            .await
            .expect("a row")
            .get::<_, i64>(0)
    };
    let mut child = pgladder(&["serve", "--listen", &listen, "--log-level", "error"], &node)
        .spawn()
        .expect("the program runs");
    let socket = Bound::Unix(place.path().join(".s.PGSQL.6432"));
    eventually("a slot in the making", async || {
        let connected = Client::connect(&socket, "postgres", "postgres").await;
        let mut client = connected.map_err(|error| error.to_string())?;
        client.query(SUM).await.map_err(|error| error.to_string())?;
        match slots().await {
            1 => Ok(()),
            seen => Err(format!("{seen} slots")),
        }
    })
    .await;
    child.kill().expect("SIGKILL");
    child.wait().expect("it is gone");
    let version = direct.query_one("SELECT current_setting('server_version_num')::int", &[]);
    if version.await.expect("a row").get::<_, i32>(0) < 140_000 {
        // It does not look after its client before the transaction ends.
        writer.batch_execute("ROLLBACK").await.expect("it ends");
    }
    eventually("the slot is gone", async || match slots().await {
        0 => Ok(()),
        seen => Err(seen),
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_locked_when_a_proxy_starts_goes_once_the_lock_is_free() {
    let cluster = servers(0, &[]).await;
    let direct = cluster.connect(0, "postgres").await.expect("a connection");
    // As the server holds it for a proxy whose end it has not noticed yet.
    let killed = cluster.connect(0, "postgres").await.expect("a connection");
    let lock = format!(
        "CREATE PUBLICATION pgladder_0000000000000000; \
         SELECT pg_advisory_lock({}, hashtext('pgladder_0000000000000000'))",
        0x7067_6c64
    );
    killed.batch_execute(&lock).await.expect("a lock");
    let proxy = Proxy::start(addresses(&cluster), Guards::default(), with_stream).await;
    let setup = Setup { proxy, cluster };
    let mut reader = setup.proxy.client().await;
    reader.run_all(TABLE).await;
    // It has looked, and both are there: its own, and the other one.
    until_carried(&setup, &mut reader, SUM).await;
    let count = async || {
        let row = direct.query_one(PUBLICATIONS, &[]).await.expect("a row");
        row.get::<_, i64>(0)
    };
    assert_eq!(count().await, 2);
    drop(killed);
    eventually("it is dropped", async || match count().await {
        1 => Ok(()),
        seen => Err(seen),
    })
    .await;
    // Who sweeps beside a stream leaves alone what that is made of: it goes on to carry what is read next.
    reader.run("CREATE TABLE other (id int PRIMARY KEY)").await;
    until_carried(&setup, &mut reader, "SELECT count(*) FROM other").await;
    let mut console = setup.proxy.client_of("postgres", "pgladder").await;
    assert_eq!(shown(&mut console, BEGUN).await, "1", "it has begun anew");
}
