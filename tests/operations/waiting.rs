//! Waiting in the proxy: for a connection, for another client's answer, for a server that says nothing.
//!
//! Whoever waits does so under their own limits, and what ends one client's waiting or statement never ends another's.

use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pgladder::config::ServerTlsMode;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use crate::running::{PATIENCE, Running, column, eventually, served_by, simple};
use crate::vanishing::{Bare, message, query};

const COUNT: &str = "SELECT count(*) FROM deals";

fn begin<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> JoinSet<T> {
    let mut begun = JoinSet::new();
    begun.spawn(work);
    begun
}

async fn end<T: 'static>(mut begun: JoinSet<T>) -> T {
    begun.join_next().await.expect("it was begun").expect("no panic")
}

/// A client of the primary itself that keeps everybody else from the deals.
pub async fn locked(running: &Running) -> Client {
    let direct = running
        .cluster
        .connect(0, "postgres")
        .await
        .expect("a connection");
    direct
        .batch_execute("BEGIN; LOCK TABLE deals IN ACCESS EXCLUSIVE MODE")
        .await
        .expect("the lock");
    direct
}

pub async fn watcher(running: &Running) -> Client {
    running
        .cluster
        .connect(0, "postgres")
        .await
        .expect("a connection")
}

/// How many reads of the deals wait for a lock. Each look needs a transaction of its own: within one, nothing changes.
pub async fn waiting_for_locks(client: &Client) -> i64 {
    let sql =
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%FROM deals%'";
    client.query_one(sql, &[]).await.expect("a count").get(0)
}

#[tokio::test]
async fn who_waits_for_anothers_answer_or_a_connection_keeps_to_their_own_timeout() {
    let running = Running::start_with(0, |config| config.pool.size = 1).await;
    let (leader, waiter) = (
        running.connect("postgres").await,
        running.connect("postgres").await,
    );
    waiter
        .batch_execute("SET statement_timeout = '300ms'")
        .await
        .expect("set");
    let (direct, watcher) = (locked(&running).await, watcher(&running).await);
    let leads = begin(async move { leader.simple_query(COUNT).await.map(|_| ()) });
    eventually(
        "the leader waits for the lock",
        async || waiting_for_locks(&watcher).await,
        |count| *count == 1,
    )
    .await;
    // The first shares the leader's execution; the second needs the only connection, which the leader has.
    for sql in [COUNT, "SELECT price FROM deals WHERE id = 1"] {
        let refused = timeout(PATIENCE, waiter.simple_query(sql))
            .await
            .expect("in time");
        let error = refused.expect_err(sql);
        let error = error.as_db_error().expect("an answer");
        assert_eq!(error.code(), &SqlState::QUERY_CANCELED, "{sql}");
        assert_eq!(
            error.message(),
            "canceling statement due to statement timeout",
            "{sql}"
        );
    }
    direct.batch_execute("COMMIT").await.expect("unlocked");
    end(leads).await.expect("the leader has its answer");
    running.shut_down().await;
}

#[tokio::test]
async fn all_who_waited_for_an_answer_that_is_too_large_to_share_run_at_once() {
    const CLIENTS: i64 = 4;
    let running = Running::start_with(0, |config| config.cache.entry_bytes_max = 1024).await;
    let large = "SELECT repeat(max('x'), 5000) FROM deals";
    let (direct, watcher) = (locked(&running).await, watcher(&running).await);
    let mut asking = JoinSet::new();
    for _ in 0..CLIENTS {
        let client = running.connect("postgres").await;
        asking.spawn(async move { client.simple_query(large).await.map(|_| ()) });
    }
    eventually(
        "one leads",
        async || waiting_for_locks(&watcher).await,
        |count| *count == 1,
    )
    .await;
    let console = running.console().await;
    let flights = async || simple(&console, "SHOW FLIGHTS").await;
    let wait = |flights: &Vec<Vec<(String, Option<String>)>>| matches!(&flights[..], [flight] if flight[1] == ("waiting".to_owned(), Some("3".to_owned())));
    let flights = eventually("the others wait for it", flights, wait).await;
    let names: Vec<&str> = flights[0].iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["database", "waiting", "age_ms", "query"]);
    assert_eq!(flights[0][3].1.as_deref(), Some(large));
    // Behind the leader in the line for the lock, and before all others.
    let next = running
        .cluster
        .connect(0, "postgres")
        .await
        .expect("a connection");
    let next = begin(async move {
        next.batch_execute("BEGIN; LOCK TABLE deals IN ACCESS EXCLUSIVE MODE")
            .await
            .map(|()| next)
    });
    let lockers =
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%LOCK TABLE%'";
    let waits = async || {
        watcher
            .query_one(lockers, &[])
            .await
            .expect("a count")
            .get::<_, i64>(0)
    };
    eventually("another lock is asked for", waits, |count| *count == 1).await;
    direct.batch_execute("COMMIT").await.expect("unlocked");
    let next = end(next).await.expect("its turn");
    let rest = async || waiting_for_locks(&watcher).await;
    eventually("the others run side by side", rest, |count| *count == CLIENTS - 1).await;
    next.batch_execute("COMMIT").await.expect("unlocked");
    while let Some(asked) = asking.join_next().await {
        asked.expect("no panic").expect("an answer");
    }
    running.shut_down().await;
}

#[tokio::test]
async fn a_replica_that_hangs_keeps_no_read() {
    let running = Running::start_with(1, |config| {
        config.cluster.poll_timeout = Duration::from_millis(500);
    })
    .await;
    let client = running.connect("postgres").await;
    let plain = "SELECT price FROM deals WHERE id = 7";
    let served = async || {
        simple(&client, plain).await;
        served_by(&client).await
    };
    eventually("the replica serves", served, |by| by == "replica").await;
    let replica = running.cluster.process(1).expect("it runs");
    let mut processes = vec![Pid::from_raw(replica.pid())];
    processes.extend(
        replica
            .descendants()
            .iter()
            .map(|process| Pid::from_raw(process.pid())),
    );
    for process in &processes {
        kill(*process, Signal::SIGSTOP).expect("it stops");
    }
    let read = timeout(PATIENCE, client.simple_query(plain)).await;
    let by = served_by(&client).await;
    for process in &processes {
        kill(*process, Signal::SIGCONT).expect("it goes on");
    }
    read.expect("in time").expect("an answer");
    assert_eq!(by, "primary");
    running.shut_down().await;
}

#[tokio::test]
async fn a_cancel_request_that_the_server_takes_late_hits_nobody_else() {
    let running = Running::start_with(0, |config| {
        config.pool.size = 1;
        // So long the request is waited for; then a login of the next client has to be done in that time.
        config.pool.connect_timeout = Duration::from_secs(5);
        // Without TLS the request is in the server's socket before anybody answers.
        config.tls.server.mode = ServerTlsMode::Disable;
    })
    .await;
    let (first, second) = (
        running.connect("postgres").await,
        running.connect("postgres").await,
    );
    let (direct, watcher) = (locked(&running).await, watcher(&running).await);
    let token = first.cancel_token();
    let asked = begin(async move {
        first
            .simple_query("SELECT price FROM deals WHERE id = 1")
            .await
            .map(|_| first)
    });
    eventually(
        "it waits for the lock",
        async || waiting_for_locks(&watcher).await,
        |count| *count == 1,
    )
    .await;
    let postmaster = Pid::from_raw(running.cluster.process(0).expect("it runs").pid());
    kill(postmaster, Signal::SIGSTOP).expect("it stops");
    // Returns when the proxy has given up.
    token.cancel_query(tokio_postgres::NoTls).await.expect("asked");
    direct.batch_execute("COMMIT").await.expect("unlocked");
    let _first = end(asked).await.expect("it was not cancelled");
    let next = begin(async move { second.simple_query("SELECT pg_sleep(1)").await.map(|_| ()) });
    // It either runs on the connection of before, or waits for another one.
    let runs =
        "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(1)%' AND pid <> pg_backend_pid()";
    let looked = timeout(Duration::from_millis(200), async {
        while watcher
            .query_one(runs, &[])
            .await
            .expect("a count")
            .get::<_, i64>(0)
            == 0
        {
            tokio::task::yield_now().await;
        }
    });
    let _ = looked.await;
    kill(postmaster, Signal::SIGCONT).expect("it goes on");
    end(next).await.expect("nobody cancelled it");
    running.shut_down().await;
}

#[tokio::test]
async fn a_cancel_request_that_comes_while_a_block_is_opened_fails_its_first_statement() {
    let running = Running::start_with(0, |config| config.pool.size = 1).await;
    let (client, console) = (running.connect("postgres").await, running.console().await);
    let row = client
        .query_one("SELECT pg_backend_pid()", &[])
        .await
        .expect("a row");
    let backend = Pid::from_raw(row.get(0));
    client.batch_execute("BEGIN").await.expect("it begins");
    let token = client.cancel_token();
    kill(backend, Signal::SIGSTOP).expect("it stops");
    let asked = begin(async move {
        let failed = client.simple_query("SELECT pg_sleep(600)").await.map(drop);
        (client, failed.expect_err("it was cancelled"))
    });
    eventually(
        "the connection is taken",
        async || column(&console, "SHOW POOLS", "lent").await,
        |lent| lent.iter().flatten().any(|lent| lent == "1"),
    )
    .await;
    // Returns when the proxy has taken it.
    token.cancel_query(tokio_postgres::NoTls).await.expect("asked");
    kill(backend, Signal::SIGCONT).expect("it goes on");
    let (client, failed) = timeout(PATIENCE, end(asked)).await.expect("in time");
    assert_eq!(failed.code(), Some(&SqlState::QUERY_CANCELED));
    let failed = client
        .simple_query("SELECT 1")
        .await
        .expect_err("the block has failed");
    assert_eq!(failed.code(), Some(&SqlState::IN_FAILED_SQL_TRANSACTION));
    client.batch_execute("ROLLBACK").await.expect("it ends");
    assert_eq!(simple(&client, "SELECT 1").await.len(), 1);
    running.shut_down().await;
}

#[tokio::test]
async fn a_roles_own_limits_hold_where_no_server_keeps_them() {
    let running = Running::start_with(0, |config| config.pool.size = 1).await;
    let direct = watcher(&running).await;
    let version = column(&direct, "SHOW server_version_num", "server_version_num").await;
    let knows_idle_sessions = version[0].as_deref() >= Some("140000");
    let sql = "CREATE ROLE hasty LOGIN PASSWORD 'secret'; GRANT SELECT, UPDATE ON deals TO hasty; \
               ALTER ROLE hasty SET statement_timeout = '300ms'";
    direct.batch_execute(sql).await.expect("a role");
    if knows_idle_sessions {
        let sql = "ALTER ROLE hasty SET idle_session_timeout = '1s'";
        direct.batch_execute(sql).await.expect("it is set");
    }
    let connect = async || running.try_connect("hasty", "postgres").await.expect("a session");
    let (holder, waiter) = (connect().await, connect().await);
    let hold = "BEGIN; SELECT 1 FROM deals WHERE id = 1 FOR KEY SHARE";
    holder.batch_execute(hold).await.expect("it holds the connection");
    let refused = timeout(
        PATIENCE,
        waiter.simple_query("SELECT price FROM deals WHERE id = 2"),
    )
    .await;
    let error = refused.expect("in time").expect_err("its time was over");
    assert_eq!(error.code(), Some(&SqlState::QUERY_CANCELED));
    holder.batch_execute("COMMIT").await.expect("it ends");
    if knows_idle_sessions {
        for client in [&holder, &waiter] {
            eventually("it is ended", async || client.is_closed(), |closed| *closed).await;
        }
    }
    running.shut_down().await;
}

#[tokio::test]
async fn who_is_in_the_middle_of_a_request_is_not_idle() {
    let running = Running::start(0).await;
    let limit = "SET idle_session_timeout = '500ms'";
    let idle = running.connect("postgres").await;
    let mut sender = Bare::log_in(&running).await;
    sender.send(&query(limit)).await;
    if sender.until(b'Z').await.contains(&b'E') {
        // PostgreSQL 13 does not know it.
        return running.shut_down().await;
    }
    let begun = [
        message(b'P', b"\0SELECT 1\0\0\0"),
        message(b'B', b"\0\0\0\0\0\0\0\0"),
        message(b'E', b"\0\0\0\0\0"),
    ];
    sender.send(&begun.concat()).await;
    idle.batch_execute(limit).await.expect("set");
    eventually("it is ended", async || idle.is_closed(), |closed| *closed).await;
    // For as long, and longer, this one has not.
    sender.send(&message(b'S', b"")).await;
    assert_eq!(sender.until(b'Z').await, b"12DCZ");
    running.shut_down().await;
}
