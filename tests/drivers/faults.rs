//! Clients that vanish, and nodes that die, in the middle of things: nothing is left behind, and nobody else notices.
//!
//! Clients here are bare sockets, dropped at a chosen moment. What is left behind is asked of the primary itself.

use std::process::Stdio;
use std::time::Duration;

use pgladder::demo::binaries::Binaries;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::{Instant, interval, timeout};

use crate::messages::read_until;
use crate::support::Stage;

const PATIENCE: Duration = Duration::from_secs(30);

/// A client that speaks bytes.
struct Bare {
    stream: TcpStream,
    /// What it sent last.
    said: Vec<u8>,
}

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).expect("short");
    [&[tag][..], &length.to_be_bytes(), body].concat()
}

fn query(sql: &str) -> Vec<u8> {
    message(b'Q', &[sql.as_bytes(), b"\0"].concat())
}

impl Bare {
    async fn connect(stage: &Stage) -> Self {
        let connected = TcpStream::connect(("127.0.0.1", stage.proxy_port())).await;
        Self {
            stream: connected.expect("connected"),
            said: Vec::new(),
        }
    }

    async fn log_in(stage: &Stage) -> Self {
        let mut client = Self::connect(stage).await;
        let body = [
            &196_608u32.to_be_bytes()[..],
            b"user\0postgres\0database\0postgres\0\0",
        ]
        .concat();
        let length = u32::try_from(body.len() + 4).expect("short");
        client.send(&[&length.to_be_bytes()[..], &body].concat()).await;
        client.until(b'Z').await;
        client
    }

    async fn send(&mut self, bytes: &[u8]) {
        bytes.clone_into(&mut self.said);
        let sent = timeout(PATIENCE, self.stream.write_all(bytes)).await;
        sent.unwrap_or_else(|_| self.hangs("is not read")).expect("sent");
    }

    /// Reads messages up to one of this type; returns their types.
    async fn until(&mut self, tag: u8) -> Vec<u8> {
        let mut seen = Vec::new();
        let read = timeout(PATIENCE, read_until(&mut self.stream, tag, &mut seen)).await;
        read.unwrap_or_else(|_| self.hangs(&format!("has only {seen:?}")));
        seen
    }

    /// Reads to the end of the connection; returns the types of the messages before it.
    async fn last_words(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        let reading = self.stream.read_to_end(&mut rest);
        let read = timeout(PATIENCE, reading).await;
        read.unwrap_or_else(|_| self.hangs("has no end")).expect("read");
        let (mut seen, mut at) = (Vec::new(), 0);
        while let Some(header) = rest.get(at..at + 5) {
            seen.push(header[0]);
            let length = u32::from_be_bytes([header[1], header[2], header[3], header[4]]);
            at += 1 + usize::try_from(length).expect("fits");
        }
        seen
    }

    fn hangs(&self, what: &str) -> ! {
        panic!("\"{}\" {what}", self.said.escape_ascii())
    }

    async fn ask(&mut self, sql: &str) -> Vec<u8> {
        self.send(&query(sql)).await;
        self.until(b'Z').await
    }
}

/// Waits until the primary has no backend of a client that is at work or in a transaction, and no lock of one.
async fn primary_is_quiet(stage: &Stage, phase: &str) {
    let direct = stage.cluster.connect(0, "postgres").await.expect("the primary");
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' \
        AND pid <> pg_backend_pid() AND state <> 'idle' AND query NOT LIKE '%pgladder%'";
    let deadline = Instant::now() + PATIENCE;
    let mut look = interval(Duration::from_millis(20));
    loop {
        look.tick().await;
        let busy: i64 = direct.query_one(sql, &[]).await.expect("counted").get(0);
        if busy == 0 {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "{phase}: {busy} backends are still at work"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_vanishes_in_any_phase_leaves_nothing_behind() {
    let stage = Stage::start(1).await;
    let mut steady = Bare::log_in(&stage).await;
    steady.ask("CREATE TABLE held (id int)").await;
    steady.ask("CREATE TABLE fed (line text)").await;
    let half = &query("SELECT 1")[..6];
    let batch = [
        message(b'P', b"s\0SELECT pg_sleep(60)\0\0\0"),
        message(b'B', b"\0s\0\0\0\0\0\0\0"),
        message(b'E', b"\0\0\0\0\0"),
    ]
    .concat();
    let phases: [(&str, Vec<Vec<u8>>); 9] = [
        ("idle", vec![]),
        ("in the middle of a message", vec![half.to_vec()]),
        ("while a statement runs", vec![query("SELECT pg_sleep(60)")]),
        ("in a transaction with a lock", vec![query("BEGIN; LOCK held")]),
        ("in a block that no server has", vec![query("BEGIN")]),
        (
            "while it sends rows",
            vec![query("COPY fed FROM STDIN"), message(b'd', b"half a li")],
        ),
        (
            "while it is sent rows",
            vec![query(
                "COPY (SELECT repeat('x', 1000) FROM generate_series(1, 100000)) TO STDOUT",
            )],
        ),
        ("in a batch without its Sync", vec![batch.clone()]),
        ("in a batch that runs", vec![[batch, message(b'S', b"")].concat()]),
    ];
    for (phase, messages) in phases {
        let mut client = Bare::log_in(&stage).await;
        for bytes in &messages {
            client.send(bytes).await;
        }
        drop(client);
        primary_is_quiet(&stage, phase).await;
        // The lock is gone, the table is as it was, and a connection that comes back is clean.
        for sql in ["BEGIN", "LOCK held NOWAIT", "COMMIT", "SELECT 1 FROM fed"] {
            let tags = steady.ask(sql).await;
            assert!(!tags.contains(&b'E') && !tags.contains(&b'D'), "{phase}: {sql}");
        }
    }
    stage.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_is_killed_leaves_nothing_behind() {
    let stage = Stage::start(0).await;
    let mut steady = Bare::log_in(&stage).await;
    steady.ask("CREATE TABLE fed (line text)").await;
    let direct = stage.cluster.connect(0, "postgres").await.expect("the primary");
    let psql = Binaries::find().expect("PostgreSQL is installed").program("psql");
    for sql in [
        "COPY fed FROM STDIN",
        "COPY (SELECT repeat('x', 1000) FROM generate_series(1, 1000000)) TO STDOUT",
        "SELECT pg_sleep(60)",
    ] {
        let mut program = Command::new(&psql)
            .args([
                "-X",
                "-h",
                "127.0.0.1",
                "-U",
                "postgres",
                "-d",
                "postgres",
                "-c",
                sql,
            ])
            .args(["-p", &stage.proxy_port().to_string()])
            // It is fed a part of a line, and nobody takes what it prints.
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("psql runs");
        let mut input = program.stdin.take().expect("piped");
        input.write_all(b"a line\nhalf a li").await.expect("taken");
        let runs = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query = $1";
        let began = async {
            while direct
                .query_one(runs, &[&sql])
                .await
                .expect("counted")
                .get::<_, i64>(0)
                == 0
            {
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, began).await.expect("it runs");
        program.kill().await.expect("SIGKILL");
        primary_is_quiet(&stage, sql).await;
        for sql in ["BEGIN; LOCK fed NOWAIT; COMMIT", "SELECT 1 FROM fed"] {
            let tags = steady.ask(sql).await;
            assert!(!tags.contains(&b'E') && !tags.contains(&b'D'), "{sql}: {tags:?}");
        }
    }
    stage.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_vanishes_leaves_its_answer_to_those_who_wait() {
    let stage = Stage::start(0).await;
    let mut setup = Bare::log_in(&stage).await;
    setup
        .ask("CREATE TABLE t AS SELECT generate_series(1, 2000000) AS id")
        .await;
    let dashboard = "SELECT count(*), sum(id % 7) FROM t";
    let mut leader = Bare::log_in(&stage).await;
    let mut waiter = Bare::log_in(&stage).await;
    leader.send(&query(dashboard)).await;
    waiter.send(&query(dashboard)).await;
    drop(leader);
    assert_eq!(waiter.until(b'Z').await, b"TDCZ");
    stage.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_primary_is_an_error_and_a_restarted_one_serves_again() {
    let stage = Stage::start(1).await;
    let mut idle = Bare::log_in(&stage).await;
    let mut in_block = Bare::log_in(&stage).await;
    idle.ask("CREATE TABLE t (id int)").await;
    in_block.ask("BEGIN").await;
    in_block.ask("INSERT INTO t VALUES (1)").await;
    let mut running = Bare::log_in(&stage).await;
    running.send(&query("SELECT pg_sleep(60)")).await;
    stage.cluster.kill_hard(0).await.expect("killed");
    let tags = running.until(b'Z').await;
    assert!(tags.contains(&b'E'), "the statement that ran failed: {tags:?}");
    let tags = in_block.last_words().await;
    assert_eq!(tags, b"E", "whose transaction is lost is told so");
    stage.cluster.restart(0).await.expect("restarted");
    let deadline = Instant::now() + PATIENCE;
    let mut look = interval(Duration::from_millis(50));
    while idle.ask("INSERT INTO t VALUES (3)").await.contains(&b'E') {
        assert!(Instant::now() < deadline, "the restarted primary is not used");
        look.tick().await;
    }
    assert_eq!(
        idle.ask("SELECT id FROM t").await,
        b"TDCZ",
        "one row, the acknowledged one"
    );
    stage.shut_down().await;
}
