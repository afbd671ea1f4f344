//! The door with real sockets: greeting, limits, timeouts and logins, in front of sessions that only say they are ready.
//!
//! What is proved: nobody gets in without the login, nobody is told more than PostgreSQL tells, and nobody at the door can harm
//! those who are in. No PostgreSQL is needed, except where verifiers are asked of one.

mod door {
    pub mod listening;
}

use std::time::Duration;

use door::listening::{Listening, startup};
use pgladder::auth::{AuthSettings, Method};
use pgladder::listener::{ListenError, Listener, ListenerSettings};
use pgladder::pool::{Address, Secret};
use tokio::io::AsyncWriteExt;
use tokio_postgres::NoTls;

const SSL_REQUEST: &[u8] = b"\0\0\0\x08\x04\xd2\x16\x2f";
const GSSENC_REQUEST: &[u8] = b"\0\0\0\x08\x04\xd2\x16\x30";

fn trust() -> AuthSettings {
    AuthSettings {
        method: Method::Trust,
        ..AuthSettings::default()
    }
}

#[tokio::test]
async fn a_driver_logs_in_over_tcp_and_unix_sockets() {
    let door = Listening::start(trust(), |_| {}).await;
    for host in ["127.0.0.1", door.directory()] {
        let mut config = tokio_postgres::Config::new();
        config.host(host).port(door.port(host)).user("ann").dbname("app");
        config.application_name("door test").options("-c geqo=off");
        let (client, connection) = config.connect(NoTls).await.expect("logged in");
        let seen = door.next_client().await;
        assert_eq!((&*seen.user, &*seen.database, seen.minor), ("ann", "app", 0));
        assert_eq!(seen.parameter("application_name"), Some("door test"));
        assert_eq!(seen.parameter("geqo"), Some("off"));
        assert_eq!(seen.parameter("user"), None);
        assert!(!seen.tls && !seen.identity.admin && seen.identity.keys.is_none());
        drop(client);
        connection.await.expect("a clean end");
    }
}

fn scram(users: &[(&str, &str)]) -> AuthSettings {
    let users = users.iter();
    AuthSettings {
        users: users
            .map(|(name, secret)| ((*name).into(), secret.parse().expect("a secret")))
            .collect(),
        ..AuthSettings::default()
    }
}

#[tokio::test]
async fn a_driver_logs_in_by_scram_and_a_wrong_password_reads_like_an_unknown_role() {
    let verifier = postgres_protocol::password::scram_sha_256(b"hidden");
    let door = Listening::start(scram(&[("ann", "secret"), ("bob", &verifier)]), |_| {}).await;
    let log_in = async |user: &str, password: &str| {
        let mut config = tokio_postgres::Config::new();
        config.host("127.0.0.1").port(door.port("127.0.0.1")).user(user);
        config.password(password).connect(NoTls).await.map(drop)
    };
    log_in("ann", "secret").await.expect("logged in");
    assert!(matches!(
        door.next_client().await.identity.keys,
        Some(Secret::Password(_))
    ));
    log_in("bob", "hidden").await.expect("logged in");
    assert!(matches!(
        door.next_client().await.identity.keys,
        Some(Secret::ScramKeys { .. })
    ));
    for (user, password) in [("ann", "guess"), ("bob", "secret"), ("eve", "secret")] {
        let refused = log_in(user, password).await.expect_err("refused");
        let refused = refused.as_db_error().expect("told by the door");
        assert_eq!((refused.code().code(), refused.severity()), ("28P01", "FATAL"));
        assert_eq!(
            refused.message(),
            format!("password authentication failed for user \"{user}\"")
        );
    }
    assert!(door.no_client_came());
}

#[tokio::test(start_paused = true)]
async fn a_login_that_stops_halfway_is_told_that_its_time_is_over() {
    let door = Listening::start(scram(&[("ann", "secret")]), |_| {}).await;
    let mut raw = door.connect().await;
    raw.send(&startup(0, &[("user", "ann")])).await;
    assert_eq!(raw.message().await.0, b'R');
    raw.send(b"p\0\0\0\x40SCRAM").await;
    let refused = raw.error().await;
    assert_eq!(
        (&*refused.code, &*refused.message),
        ("57014", "canceling authentication due to timeout")
    );
    raw.expect_end().await;
}

#[tokio::test]
async fn encryption_that_is_not_offered_is_declined_once_each() {
    let door = Listening::start(trust(), |_| {}).await;
    let mut raw = door.connect().await;
    raw.send(SSL_REQUEST).await;
    assert_eq!(raw.bytes(1).await, b"N");
    raw.send(GSSENC_REQUEST).await;
    assert_eq!(raw.bytes(1).await, b"N");
    raw.send(&startup(0, &[("user", "ann")])).await;
    raw.expect_ready().await;

    let mut twice = door.connect().await;
    twice.send(SSL_REQUEST).await;
    assert_eq!(twice.bytes(1).await, b"N");
    twice.send(SSL_REQUEST).await;
    let refused = twice.error().await;
    assert_eq!(refused.code, "0A000");
    assert!(
        refused
            .message
            .starts_with("unsupported frontend protocol 1234.5679")
    );
    twice.expect_end().await;
}

#[tokio::test]
async fn plaintext_behind_a_request_for_encryption_ends_the_connection() {
    let door = Listening::start(trust(), |_| {}).await;
    for request in [SSL_REQUEST, GSSENC_REQUEST] {
        let mut raw = door.connect().await;
        raw.send(&[request, &startup(0, &[("user", "ann")])].concat())
            .await;
        raw.expect_end().await;
    }
    assert!(door.no_client_came());
}

#[tokio::test]
async fn first_packets_that_cannot_be_are_refused_as_postgresql_does() {
    let door = Listening::start(trust(), |_| {}).await;
    let mut http = door.connect().await;
    http.send(b"GET / HTTP/1.1\r\n\r\n").await;
    http.expect_end().await;

    let check = async |packet: &[u8], code: &str, message: &str| {
        let mut raw = door.connect().await;
        raw.send(packet).await;
        let refused = raw.error().await;
        assert_eq!((&*refused.code, &*refused.message), (code, message));
        raw.expect_end().await;
    };
    check(
        b"\0\0\0\x09\0\x02\0\0\0",
        "0A000",
        "unsupported frontend protocol 2.0: server supports 3.0 to 3.2",
    )
    .await;
    let layout = "invalid startup packet layout: expected terminator as last byte";
    check(b"\0\0\0\x0d\0\x03\0\0user\0", "08P01", layout).await;
    check(
        &startup(0, &[]),
        "28000",
        "no PostgreSQL user name specified in startup packet",
    )
    .await;
    let replication = "replication connections are not supported by this proxy";
    check(
        &startup(0, &[("user", "ann"), ("replication", "true")]),
        "0A000",
        replication,
    )
    .await;
    assert!(door.no_client_came());
}

#[tokio::test]
async fn a_newer_protocol_is_negotiated_before_the_login() {
    let door = Listening::start(trust(), |_| {}).await;
    let mut raw = door.connect().await;
    raw.send(&startup(9999, &[("user", "ann"), ("_pq_.new", "1")]))
        .await;
    let (tag, body) = raw.message().await;
    assert_eq!((tag, &body[..]), (b'v', &b"\0\x03\0\x02\0\0\0\x01_pq_.new\0"[..]));
    raw.expect_ready().await;
    assert_eq!(door.next_client().await.minor, 2);
}

#[tokio::test]
async fn a_startup_packet_may_come_byte_by_byte() {
    let door = Listening::start(trust(), |_| {}).await;
    let mut raw = door.connect().await;
    for byte in startup(0, &[("user", "ann")]) {
        raw.send(&[byte]).await;
        tokio::task::yield_now().await;
    }
    raw.expect_ready().await;
}

#[tokio::test]
async fn what_a_client_sends_behind_its_login_reaches_the_session() {
    let door = Listening::start(trust(), |_| {}).await;
    let mut raw = door.connect().await;
    let query = b"Q\0\0\0\x0dselect 1\0";
    raw.send(&[&startup(0, &[("user", "ann")]), &query[..]].concat())
        .await;
    assert_eq!(door.next_client().await.input, query);
}

#[tokio::test]
async fn a_cancel_request_is_passed_on_and_then_closed() {
    let door = Listening::start(trust(), |settings| settings.clients_max = 1).await;
    let mut only = door.log_in("ann").await;
    // Also while no client more is let in: that is when it is needed.
    let mut raw = door.connect().await;
    raw.send(b"\0\0\0\x10\x04\xd2\x16\x2e\0\0\0\x07abcd").await;
    raw.expect_end().await;
    assert_eq!(door.next_cancel().await, (7, b"abcd".to_vec()));
    only.close().await;
}

#[tokio::test]
async fn one_client_too_many_is_told_so_after_its_startup_packet() {
    let door = Listening::start(trust(), |settings| settings.clients_max = 2).await;
    let mut first = door.log_in("ann").await;
    let _second = door.log_in("bob").await;
    let mut third = door.connect().await;
    third.send(SSL_REQUEST).await;
    assert_eq!(
        third.bytes(1).await,
        b"N",
        "it is heard out, so that its driver understands the answer"
    );
    third.send(&startup(0, &[("user", "eve")])).await;
    let refused = third.error().await;
    assert_eq!(
        (&*refused.code, &*refused.message),
        ("53300", "sorry, too many clients already")
    );
    assert_eq!(refused.severity, "FATAL");
    third.expect_end().await;
    first.close().await;
    door.eventually_log_in("eve").await;
}

#[tokio::test]
async fn a_flood_beyond_the_limit_is_refused_unheard_and_harms_nobody() {
    let door = Listening::start(trust(), |settings| settings.clients_max = 1).await;
    let mut inside = door.log_in("ann").await;
    let mut flood = Vec::new();
    for _ in 0..200 {
        flood.push(door.connect().await);
    }
    // They are accepted in the order in which they came: the first wait to be heard, the last are not.
    let last = flood.last_mut().expect("there are 200");
    assert_eq!(last.error().await.code, "53300");
    flood[0].send(&startup(0, &[("user", "eve")])).await;
    assert_eq!(flood[0].error().await.code, "53300");
    inside.send(b"Q\0\0\0\x04").await;
    inside.expect_echo(b"Q\0\0\0\x04").await;
}

#[tokio::test(start_paused = true)]
async fn a_login_has_its_time_whether_bytes_come_or_not() {
    let door = Listening::start(trust(), |_| {}).await;
    let begun = tokio::time::Instant::now();
    let mut silent = door.connect().await;
    let mut slow = door.connect().await;
    let mut half = door.connect().await;
    half.send(SSL_REQUEST).await;
    assert_eq!(half.bytes(1).await, b"N");
    let drip = async {
        let mut tick = tokio::time::interval(Duration::from_secs(4));
        for byte in startup(0, &[("user", "ann")]) {
            tick.tick().await;
            if slow.stream.write_all(&[byte]).await.is_err() {
                break;
            }
        }
    };
    drip.await;
    silent.expect_end().await;
    half.expect_end().await;
    assert!(
        begun.elapsed() >= Duration::from_secs(15),
        "{:?}",
        begun.elapsed()
    );
    assert!(door.no_client_came());
}

#[tokio::test]
async fn at_the_stop_clients_are_told_and_the_socket_is_gone() {
    let door = Listening::start(trust(), |_| {}).await;
    let mut inside = door.log_in("ann").await;
    let mut waiting = door.connect().await;
    waiting.send(SSL_REQUEST).await;
    assert_eq!(waiting.bytes(1).await, b"N");
    let socket = format!("{}/.s.PGSQL.6432", door.directory());
    assert!(std::path::Path::new(&socket).exists());
    door.stop.cancel();
    waiting.expect_end().await;
    inside.expect_end().await;
    let ended = door.ended().await;
    assert!(!std::path::Path::new(&socket).exists());
    ended.expect_refused().await;
}

#[tokio::test(start_paused = true)]
async fn a_session_that_does_not_stop_is_dropped_when_the_drain_time_is_over() {
    let door = Listening::start(trust(), |settings| {
        settings.drain_timeout = Duration::from_secs(30);
    })
    .await;
    let mut stubborn = door.log_in("stubborn").await;
    let begun = tokio::time::Instant::now();
    door.stop.cancel();
    stubborn.expect_end().await;
    assert!(
        begun.elapsed() >= Duration::from_secs(30),
        "{:?}",
        begun.elapsed()
    );
}

#[tokio::test]
async fn a_session_that_panics_ends_alone() {
    let door = Listening::start(trust(), |_| {}).await;
    let mut inside = door.log_in("ann").await;
    let mut broken = door.connect().await;
    broken.send(&startup(0, &[("user", "panic")])).await;
    broken.expect_end_of_stream().await;
    inside.send(b"ping").await;
    inside.expect_echo(b"ping").await;
}

#[tokio::test]
async fn trust_does_not_listen_beyond_loopback() {
    let auth = std::sync::Arc::new(pgladder::auth::Auth::new(trust()));
    let settings = ListenerSettings {
        addresses: vec![Address::Tcp {
            host: "0.0.0.0".into(),
            port: 0,
        }],
        ..ListenerSettings::default()
    };
    let refused = Listener::bind(settings, auth).await;
    assert!(
        matches!(refused, Err(ListenError::TrustBeyondLoopback(_))),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_hundred_megabytes_from_a_stranger_are_not_kept() {
    let door = Listening::start(trust(), |_| {}).await;
    let mut raw = door.connect().await;
    // A packet of the greatest length that is waited for, and then far more than it declared.
    let mut head = vec![0, 0, 0x27, 0x10, 0, 3, 0, 0];
    head.resize(10_000, b'x');
    raw.send(&head).await;
    let block = vec![b'x'; 1 << 20];
    let sent = async {
        for _ in 0..100 {
            raw.stream.write_all(&block).await?;
        }
        Ok::<_, std::io::Error>(())
    };
    assert!(sent.await.is_err(), "the door stopped reading and closed");
}
