//! Too many clients, slow ones, and the end: what the door does when there is no room or no time.
//!
//! Time is a paused clock wherever a limit is a time, so that nothing here waits for a real one.

use std::fs::File;
use std::process::Command;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use pgladder::listener::{ListenError, Listener, ListenerSettings};
use pgladder::pool::Address;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpSocket;

use crate::listening::{Listening, Raw, SSL_REQUEST, startup, trust};

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

/// The limit of open files is the process's, so this test runs itself again in a process of its own.
#[tokio::test]
async fn without_descriptors_accepting_pauses_and_nobody_is_dropped() {
    const ALONE: &str = "PGLADDER_TEST_ALONE";
    if std::env::var_os(ALONE).is_none() {
        let name = "limits::without_descriptors_accepting_pauses_and_nobody_is_dropped";
        let mut alone = Command::new(std::env::current_exe().expect("this program"));
        let output = alone
            .args(["--exact", name])
            .env(ALONE, "1")
            .output()
            .expect("it runs");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stdout)
        );
        return;
    }
    let door = Listening::start(trust(), |_| {}).await;
    let mut inside = door.log_in("ann").await;
    let waiting = TcpSocket::new_v4().expect("a socket");
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    setrlimit(Resource::RLIMIT_NOFILE, 64, hard).expect("a lower limit");
    let mut taken: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
    assert!(!taken.is_empty(), "the limit was reached by opening files");

    // The kernel connects it; the door cannot accept it.
    let mut waiting = Raw {
        stream: waiting.connect(door.address).await.expect("connected"),
    };
    waiting.send(&startup(0, &[("user", "eve")])).await;
    inside.send(b"ping").await;
    inside.expect_echo(b"ping").await;
    let unheard = waiting.stream.try_read(&mut [0]).expect_err("nothing is said");
    assert_eq!(unheard.kind(), std::io::ErrorKind::WouldBlock);
    taken.clear();
    waiting.expect_ready().await;
    inside.send(b"ping").await;
    inside.expect_echo(b"ping").await;
}
