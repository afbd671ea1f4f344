//! Logins as drivers do them, by trust and by SCRAM, and what the session is given afterwards.
//!
//! The client is tokio-postgres where the login itself is in question, bare bytes where its timing is.

use pgladder::pool::Secret;
use tokio_postgres::NoTls;

use crate::listening::{Listening, scram, startup, trust};

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
async fn what_a_client_sends_behind_its_login_reaches_the_session() {
    let door = Listening::start(trust(), |_| {}).await;
    let mut raw = door.connect().await;
    let query = b"Q\0\0\0\x0dselect 1\0";
    raw.send(&[&startup(0, &[("user", "ann")]), &query[..]].concat())
        .await;
    assert_eq!(door.next_client().await.input, query);
}
