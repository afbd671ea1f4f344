//! Clients that vanish while they wait, or in the middle of their login: what they held, and where they stood in line, is free again.
//!
//! Clients here are bare sockets, closed at a chosen moment; what is left of them is read in the console.

use std::path::Path;

use pgladder::config::{AuthMethod, ClientTlsMode, Password, UserConfig, UserSecret};
use pgladder::demo::cluster::SUPERUSER;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use crate::messages::read_until;
use crate::running::{PASSWORD, PATIENCE, Running, column, eventually, simple};
use crate::waiting::{locked, waiting_for_locks, watcher};

const COUNT: &str = "SELECT count(*) FROM deals";
const SSL_REQUEST: &[u8] = b"\0\0\0\x08\x04\xd2\x16\x2f";

/// A message of a client.
pub fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).expect("short");
    [&[tag][..], &length.to_be_bytes(), body].concat()
}

/// A simple query.
pub fn query(sql: &str) -> Vec<u8> {
    message(b'Q', &[sql.as_bytes(), b"\0"].concat())
}

/// A client that speaks bytes.
pub struct Bare {
    pub stream: TcpStream,
}

impl Bare {
    async fn connect(running: &Running) -> Self {
        let stream = TcpStream::connect(running.clients).await.expect("a connection");
        Self { stream }
    }

    /// A connection that has sent its startup packet.
    async fn start(running: &Running) -> Self {
        let mut bare = Self::connect(running).await;
        let body = [
            &196_608_u32.to_be_bytes()[..],
            format!("user\0{SUPERUSER}\0\0").as_bytes(),
        ]
        .concat();
        // It has no tag.
        bare.send(&message(0, &body)[1..]).await;
        bare
    }

    /// A session.
    pub async fn log_in(running: &Running) -> Self {
        let mut bare = Self::start(running).await;
        bare.until(b'Z').await;
        bare
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.expect("sent");
    }

    /// Reads messages up to one of this type; returns their types.
    pub async fn until(&mut self, tag: u8) -> Vec<u8> {
        let mut seen = Vec::new();
        let read = timeout(PATIENCE, read_until(&mut self.stream, tag, &mut seen)).await;
        read.unwrap_or_else(|_| panic!("only {seen:?}"));
        seen
    }
}

/// What the console counts: clients, connections lent, units in line for one, flights, and who waits for them.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Counts {
    clients: usize,
    lent: u64,
    in_line: u64,
    flights: usize,
    sharing: u64,
}

async fn counts(console: &Client) -> Counts {
    let sum = async |sql: &str, name: &str| -> u64 {
        let values = column(console, sql, name).await;
        values
            .iter()
            .flatten()
            .map(|value| value.parse::<u64>().expect("a number"))
            .sum()
    };
    Counts {
        clients: simple(console, "SHOW CLIENTS").await.len(),
        lent: sum("SHOW POOLS", "lent").await,
        in_line: sum("SHOW POOLS", "waiting").await,
        flights: simple(console, "SHOW FLIGHTS").await.len(),
        sharing: sum("SHOW FLIGHTS", "waiting").await,
    }
}

async fn until(console: &Client, what: &str, wanted: Counts) {
    eventually(what, async || counts(console).await, |seen| *seen == wanted).await;
}

/// The console alone.
const QUIET: Counts = Counts {
    clients: 1,
    lent: 0,
    in_line: 0,
    flights: 0,
    sharing: 0,
};

#[tokio::test]
async fn who_vanishes_in_the_line_of_a_pool_leaves_it() {
    let running = Running::start_with(0, |config| config.pool.size = 1).await;
    let console = running.console().await;
    // All log in first: a login may need a connection, too.
    let mut holder = Bare::log_in(&running).await;
    let mut waiters = Vec::new();
    for _ in 0..3 {
        waiters.push(Bare::log_in(&running).await);
    }
    holder.send(&query("BEGIN; DELETE FROM deals WHERE id = 1")).await;
    holder.until(b'Z').await;
    let in_line = [
        "SELECT price FROM deals WHERE id = 2",
        "DELETE FROM deals WHERE id = 2",
        COUNT,
    ];
    for (waiter, sql) in waiters.iter_mut().zip(in_line) {
        waiter.send(&query(sql)).await;
    }
    let held = Counts {
        clients: 2,
        lent: 1,
        ..QUIET
    };
    let all = Counts {
        clients: 5,
        in_line: 3,
        flights: 1,
        ..held
    };
    until(&console, "three wait for it", all).await;
    drop(waiters);
    until(&console, "they have left the line", held).await;
    drop(holder);
    until(&console, "nothing is left", QUIET).await;
    // What the holder had begun was rolled back, and what waited never ran.
    let client = running.connect("postgres").await;
    assert_eq!(column(&client, COUNT, "count").await, [Some("200".to_owned())]);
    running.shut_down().await;
}

#[tokio::test]
async fn who_vanishes_while_another_fills_the_cache_leaves_the_flight() {
    let running = Running::start(0).await;
    let console = running.console().await;
    let (direct, watcher) = (locked(&running).await, watcher(&running).await);
    let mut leader = Bare::log_in(&running).await;
    leader.send(&query(COUNT)).await;
    let waiting = async || waiting_for_locks(&watcher).await;
    eventually("it leads", waiting, |count| *count == 1).await;
    let mut waiters = Vec::new();
    for _ in 0..3 {
        let mut waiter = Bare::log_in(&running).await;
        waiter.send(&query(COUNT)).await;
        waiters.push(waiter);
    }
    let alone = Counts {
        clients: 2,
        lent: 1,
        flights: 1,
        ..QUIET
    };
    let shared = Counts {
        clients: 5,
        sharing: 3,
        ..alone
    };
    until(&console, "three share its execution", shared).await;
    drop(waiters);
    until(&console, "it is alone", alone).await;
    direct.batch_execute("COMMIT").await.expect("unlocked");
    assert_eq!(leader.until(b'Z').await, b"TDCZ");
    drop(leader);
    until(&console, "nothing is left", QUIET).await;
    running.shut_down().await;
}

#[tokio::test]
async fn a_statement_that_fills_the_cache_ends_with_the_last_who_waits_for_it() {
    let running = Running::start(0).await;
    let console = running.console().await;
    let (direct, watcher) = (locked(&running).await, watcher(&running).await);
    let mut leader = Bare::log_in(&running).await;
    let mut waiter = Bare::log_in(&running).await;
    leader.send(&query(COUNT)).await;
    let waiting = async || waiting_for_locks(&watcher).await;
    eventually("it leads", waiting, |count| *count == 1).await;
    waiter.send(&query(COUNT)).await;
    let shared = Counts {
        clients: 3,
        lent: 1,
        flights: 1,
        sharing: 1,
        in_line: 0,
    };
    until(&console, "another shares its execution", shared).await;
    drop(leader);
    drop(waiter);
    until(&console, "nothing is left", QUIET).await;
    eventually("nobody waits on the server", waiting, |count| *count == 0).await;
    direct.batch_execute("COMMIT").await.expect("unlocked");
    running.shut_down().await;
}

/// As many connections as there are places for clients, each brought half through its login.
async fn half_in(running: &Running, places: usize, what: &str) -> Vec<Bare> {
    let mut all = Vec::new();
    for _ in 0..places {
        all.push(match what {
            "a startup packet" => {
                let mut bare = Bare::connect(running).await;
                bare.send(b"\0\0\0\x40\0\x03\0\0user\0").await;
                bare
            }
            "SASL" => {
                let mut bare = Bare::start(running).await;
                bare.until(b'R').await;
                let first = b"n,,n=,r=abcdefghijklmnop";
                let length = u32::try_from(first.len()).expect("short").to_be_bytes();
                bare.send(&message(b'p', &[b"SCRAM-SHA-256\0", &length[..], first].concat()))
                    .await;
                bare.until(b'R').await;
                bare
            }
            _ => {
                let mut bare = Bare::connect(running).await;
                bare.send(SSL_REQUEST).await;
                let mut answer = [0];
                bare.stream.read_exact(&mut answer).await.expect("an answer");
                assert_eq!(answer, *b"S");
                // The head of a record of the handshake, and a part of its ClientHello.
                bare.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03").await;
                bare
            }
        });
    }
    all
}

/// A proxy with so few places, where clients need a password and may use TLS.
async fn with_places(places: usize, papers: &Path) -> Running {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let (cert, key) = (papers.join("door.pem"), papers.join("door.key"));
    std::fs::write(&cert, made.cert.pem()).expect("written");
    std::fs::write(&key, made.signing_key.serialize_pem()).expect("written");
    Running::start_with(0, |config| {
        config.limits.clients_max = places;
        // Nobody loses a place because time is over.
        config.limits.login_timeout = PATIENCE * 20;
        config.auth.method = AuthMethod::Scram;
        config.auth.users = vec![UserConfig {
            name: SUPERUSER.to_owned(),
            secret: UserSecret::Password(Password(PASSWORD.to_owned().into())),
        }];
        config.tls.client.mode = ClientTlsMode::Allow;
        (config.tls.client.cert, config.tls.client.key) = (Some(cert), Some(key));
    })
    .await
}

#[tokio::test]
async fn who_vanishes_in_the_middle_of_a_login_leaves_its_place() {
    const PLACES: usize = 3;
    let papers = tempfile::tempdir().expect("a directory");
    for what in ["a startup packet", "SASL", "TLS"] {
        let running = with_places(PLACES, papers.path()).await;
        let half = half_in(&running, PLACES, what).await;
        let refused = running
            .try_connect(SUPERUSER, "postgres")
            .await
            .expect_err("no place");
        assert_eq!(refused.code(), Some(&SqlState::TOO_MANY_CONNECTIONS), "{what}");
        drop(half);
        let enter = async || {
            running
                .try_connect(SUPERUSER, "pgladder")
                .await
                .map_err(|error| error.to_string())
        };
        let mut all = Vec::new();
        for _ in 0..PLACES {
            all.push(eventually(what, enter, Result::is_ok).await.expect("a session"));
        }
        let seen = counts(&all[0]).await;
        assert_eq!(
            seen,
            Counts {
                clients: PLACES,
                ..QUIET
            },
            "{what}"
        );
        running.shut_down().await;
    }
}
