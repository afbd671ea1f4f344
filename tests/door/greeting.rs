//! What a connection may say before its login, and what it is answered.
//!
//! Bare bytes over a socket, compared with what PostgreSQL 15 to 18 answer. Nothing here reaches a session unless it says so.

use tokio::io::AsyncWriteExt;

use crate::listening::{GSSENC_REQUEST, Listening, SSL_REQUEST, startup, trust};

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
