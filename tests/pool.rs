//! The pools against a real PostgreSQL that each test starts for itself and stops again.
//!
//! What is proved: leases come back or are closed, limits hold, errors are told at once and in the server's own words, a cancel
//! reaches its query, and callers that give up leave nothing behind. It needs the PostgreSQL server's binaries.

#[path = "support/server_tls.rs"]
mod server_tls;

use std::collections::HashMap;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use bytes::BytesMut;
use pgladder::cluster::NodeId;
use pgladder::demo::cluster::{Options, ThrowAwayCluster};
use pgladder::pool::{
    Address, Credentials, Lease, PoolError, PoolKey, PoolSettings, Pools, SampleNumbers, Secret, ServerTls,
    TlsMode,
};
use postgres_protocol::message::frontend;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_postgres::{Client, SimpleQueryMessage};
use tokio_util::sync::CancellationToken;

const NODE: NodeId = NodeId(0);
/// An error that waits for the caller's deadline comes later than this.
const LATE: Duration = Duration::from_secs(30);

/// Who may log in, and how.
const ACCESS: &str = "host all md5user 127.0.0.1/32 md5
host all scramuser 127.0.0.1/32 scram-sha-256
host all plainuser 127.0.0.1/32 password
hostssl all tlsuser 127.0.0.1/32 trust
host all admin 127.0.0.1/32 trust";
const ROLES: &str = "SET password_encryption = 'md5'; CREATE ROLE md5user LOGIN PASSWORD 'secret';
    SET password_encryption = 'scram-sha-256'; CREATE ROLE scramuser LOGIN PASSWORD 'secret';
    CREATE ROLE plainuser LOGIN PASSWORD 'secret';
    CREATE ROLE tlsuser LOGIN; CREATE ROLE admin LOGIN SUPERUSER";

/// The server of one test, and a client of its superuser that is none of the pools'.
struct Postgres {
    cluster: ThrowAwayCluster,
    client: Client,
}

impl Postgres {
    async fn start() -> Self {
        let options = Options {
            hba: Some(ACCESS.to_owned()),
            label: "pool-".to_owned(),
            ..Options::default()
        };
        let cluster = ThrowAwayCluster::start(options).await.expect("a cluster");
        let client = cluster.connect(0, "postgres").await.expect("a connection");
        client.batch_execute(ROLES).await.expect("roles");
        Self { cluster, client }
    }

    /// Runs one statement; the first value of its answer as text, where it has rows.
    async fn sql(&self, sql: &str) -> String {
        let messages = self.client.simple_query(sql).await.expect(sql);
        let value = messages.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.get(0),
            _ => None,
        });
        value.unwrap_or_default().to_owned()
    }

    /// Backends of the pools, which bear their application's name.
    async fn backends(&self) -> usize {
        let count = "select count(*) from pg_stat_activity where application_name = 'pgladder'";
        self.sql(count).await.parse().expect("a number")
    }

    fn pools(&self, settings: PoolSettings) -> Arc<Pools> {
        self.pools_with(settings, Some(Secret::Password("secret".to_owned().into())))
    }

    fn pools_with(&self, settings: PoolSettings, secret: Option<Secret>) -> Arc<Pools> {
        let tls = ServerTls::new(TlsMode::Prefer, None).expect("TLS needs no files");
        self.pools_by(settings, secret, "127.0.0.1", tls)
    }

    /// Pools that know the server under this name.
    fn pools_by(
        &self,
        settings: PoolSettings,
        secret: Option<Secret>,
        host: &str,
        tls: ServerTls,
    ) -> Arc<Pools> {
        let address = Address::Tcp {
            host: host.into(),
            port: self.cluster.port(0),
        };
        Pools::new(
            settings,
            HashMap::from([(NODE, address)]),
            tls,
            Arc::new(Fixed(secret)),
            Arc::new(Seven),
        )
    }
}

struct Fixed(Option<Secret>);

impl Credentials for Fixed {
    fn secret(&self, _: &str, _: &str, _: &str, _: u16) -> Option<Secret> {
        self.0.clone()
    }
}

struct Seven;

impl SampleNumbers for Seven {
    fn next_sample_number(&self, _: NodeId) -> u64 {
        7
    }
}

fn settings(size: u32) -> PoolSettings {
    PoolSettings {
        size,
        ..PoolSettings::default()
    }
}

fn key(user: &str) -> PoolKey {
    PoolKey {
        node: NODE,
        database: "postgres".into(),
        user: user.into(),
    }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

async fn lease(pools: &Pools, user: &str) -> Lease {
    pools.lease(&key(user), soon()).await.expect("a lease")
}

/// Waits for a condition of another process, for as long as it may reasonably take.
async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let end = soon();
    while !holds().await {
        assert!(Instant::now() < end, "{what} did not come true");
        tokio::task::yield_now().await;
    }
}

async fn send(lease: &mut Lease, sql: &str) {
    let mut query = BytesMut::new();
    frontend::query(sql, &mut query).expect("a query");
    lease.dirty = true;
    lease.stream.write_all(&query).await.expect("sent");
}

/// Reads up to ReadyForQuery idle, as a session does, and returns all bytes.
async fn answer(lease: &mut Lease) -> Vec<u8> {
    let mut all = Vec::new();
    while !all.ends_with(b"Z\0\0\0\x05I") {
        assert_ne!(
            lease.stream.read_buf(&mut all).await.expect("read"),
            0,
            "the server left"
        );
    }
    lease.dirty = false;
    all
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

#[tokio::test]
async fn a_lease_comes_back_and_is_lent_again_with_its_facts() {
    let server = Postgres::start().await;
    let pools = server.pools(settings(2));
    let first = lease(&pools, "admin").await;
    let (id, process) = (first.id, first.process);
    assert_eq!(&*first.login.session_user, "admin");
    assert_eq!(&*first.login.default_transaction_isolation, "read committed");
    assert!(!first.login.in_recovery && !first.login.default_transaction_read_only);
    assert_eq!(&*first.login.search_path, "\"$user\", public");
    let identifier = server
        .sql("select system_identifier from pg_control_system()")
        .await;
    assert_eq!(
        first.login.system_identifier.map(|id| id.to_string()),
        Some(identifier)
    );
    let version = server.sql("show server_version_num").await;
    assert_eq!(first.login.server_version_num.to_string(), version);
    assert_eq!(
        first.login.settings.get("client_encoding").map(AsRef::as_ref),
        Some("UTF8")
    );
    let started = "select to_char(backend_start at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS.US') \
                   from pg_stat_activity where pid = ";
    assert_eq!(
        &*first.login.backend_start,
        server.sql(&format!("{started}{process}")).await
    );
    assert_eq!(first.opened_at_sample, 7);
    assert_eq!(
        first.parameters.get("server_encoding").map(AsRef::as_ref),
        Some("UTF8")
    );
    drop(first);
    let mut again = lease(&pools, "admin").await;
    assert_eq!((again.id, again.process), (id, process));
    send(&mut again, "select 'still ' || 'works'").await;
    assert!(contains(&answer(&mut again).await, "still works"));
}

#[tokio::test]
async fn a_denied_identifier_is_unknown_and_no_error() {
    let server = Postgres::start().await;
    server
        .sql("revoke execute on function pg_control_system() from public")
        .await;
    let pools = server.pools(settings(1));
    let lease = lease(&pools, "plainuser").await;
    assert_eq!(lease.login.system_identifier, None);
    assert_eq!(&*lease.login.session_user, "plainuser");
}

#[tokio::test]
async fn a_dirty_lease_is_closed() {
    let server = Postgres::start().await;
    let pools = server.pools(settings(1));
    let mut dirty = lease(&pools, "admin").await;
    let id = dirty.id;
    send(&mut dirty, "select 1").await;
    drop(dirty);
    let mut next = lease(&pools, "admin").await;
    assert_ne!(next.id, id);
    send(&mut next, "select 'mine'").await;
    assert!(contains(&answer(&mut next).await, "mine"));
    eventually("the dirty backend is gone", async || server.backends().await == 1).await;
}

#[tokio::test]
async fn every_password_method_logs_in_and_a_wrong_one_is_told_at_once() {
    let server = Postgres::start().await;
    let pools = server.pools(settings(1));
    for user in ["md5user", "scramuser", "plainuser"] {
        assert_eq!(&*lease(&pools, user).await.login.session_user, user);
    }
    let wrong = server.pools_with(settings(1), Some(Secret::Password("wrong".to_owned().into())));
    for user in ["md5user", "scramuser", "plainuser"] {
        let begun = Instant::now();
        match wrong.lease(&key(user), soon()).await {
            Err(PoolError::Refused(refusal)) => {
                assert_eq!(&*refusal.sqlstate, "28P01");
                assert!(
                    refusal.message.contains("password authentication failed"),
                    "{}",
                    refusal.message
                );
                assert_eq!(refusal.frame[0], b'E');
            }
            other => panic!("{user}: {other:?}"),
        }
        assert!(begun.elapsed() < LATE, "the error came late");
    }
    let none = server.pools_with(settings(1), None);
    assert!(matches!(
        none.lease(&key("scramuser"), soon()).await,
        Err(PoolError::Connect(_))
    ));
}

#[tokio::test]
async fn scram_keys_and_an_md5_hash_log_in_without_the_password() {
    let server = Postgres::start().await;
    let stored = server
        .sql("select rolpassword from pg_authid where rolname = 'md5user'")
        .await;
    let pools = server.pools_with(settings(1), Some(Secret::Md5Hash(stored)));
    assert_eq!(&*lease(&pools, "md5user").await.login.session_user, "md5user");
    let verifier = server
        .sql("select rolpassword from pg_authid where rolname = 'scramuser'")
        .await;
    let (client, server_key) = keys_of(&verifier, "secret");
    let secret = |server_key| Secret::ScramKeys {
        client_key: client.into(),
        server_key: <[u8; 32]>::into(server_key),
    };
    let pools = server.pools_with(settings(1), Some(secret(server_key)));
    assert_eq!(&*lease(&pools, "scramuser").await.login.session_user, "scramuser");
    let impostor = server.pools_with(settings(1), Some(secret([0; 32])));
    let refused = impostor
        .lease(&key("scramuser"), soon())
        .await
        .expect_err("the server cannot prove itself");
    assert!(refused.to_string().contains("signature is wrong"), "{refused}");
}

/// The ClientKey and ServerKey of a verifier whose password is known.
fn keys_of(verifier: &str, password: &str) -> ([u8; 32], [u8; 32]) {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use hmac::{Hmac, KeyInit, Mac};
    let mac = |key: &[u8], parts: &[&[u8]]| -> [u8; 32] {
        let mut mac = Hmac::<sha2::Sha256>::new_from_slice(key).expect("any key");
        for part in parts {
            mac.update(part);
        }
        mac.finalize().into_bytes().into()
    };
    let rest = verifier.strip_prefix("SCRAM-SHA-256$").expect("a verifier");
    let (iterations, rest) = rest.split_once(':').expect("iterations");
    let (salt, _) = rest.split_once('$').expect("a salt");
    let salt = STANDARD.decode(salt).expect("base64");
    let mut round = mac(password.as_bytes(), &[&salt, &[0, 0, 0, 1]]);
    let mut salted = round;
    for _ in 1..iterations.parse::<u32>().expect("a number") {
        round = mac(password.as_bytes(), &[&round]);
        salted
            .iter_mut()
            .zip(round)
            .for_each(|(byte, mask)| *byte ^= mask);
    }
    (mac(&salted, &[b"Client Key"]), mac(&salted, &[b"Server Key"]))
}

#[tokio::test]
async fn a_full_queue_refuses_and_a_deadline_ends_the_wait() {
    let server = Postgres::start().await;
    let pools = server.pools(PoolSettings {
        queue_max: 1,
        ..settings(1)
    });
    let held = lease(&pools, "admin").await;
    let admin = key("admin");
    let mut waiter = Box::pin(pools.lease(&admin, soon()));
    assert!(
        waiter
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
            .is_pending()
    );
    let full = pools.lease(&admin, soon()).await.expect_err("the queue is full");
    assert!(matches!(full, PoolError::QueueFull { waiting: 1 }));
    assert_eq!(full.sqlstate(), "53300");
    drop(waiter);
    let late = pools
        .lease(&admin, Instant::now() + Duration::from_millis(20))
        .await;
    assert!(matches!(late, Err(PoolError::TimedOut)), "{late:?}");
    drop(held);
    assert_eq!(pools.snapshot()[0].waiting, 0);
    lease(&pools, "admin").await;
}

#[tokio::test]
async fn waiters_are_served_in_the_order_they_came() {
    let server = Postgres::start().await;
    let pools = server.pools(settings(1));
    let watched = Arc::clone(&pools);
    let held = lease(&pools, "admin").await;
    let order = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..5 {
        let (pools, order) = (Arc::clone(&pools), Arc::clone(&order));
        tasks.spawn(async move {
            let _lease = lease(&pools, "admin").await;
            order.lock().push(number);
        });
        eventually("the caller is in line", async || {
            watched.snapshot()[0].waiting == number + 1
        })
        .await;
    }
    drop(held);
    tasks.join_all().await;
    assert_eq!(*order.lock(), vec![0, 1, 2, 3, 4]);
}

#[tokio::test]
async fn a_full_node_closes_the_oldest_idle_connection_of_another_pool() {
    let server = Postgres::start().await;
    let pools = server.pools(PoolSettings {
        node_connections_max: 2,
        ..settings(2)
    });
    let (oldest, newer) = (lease(&pools, "md5user").await, lease(&pools, "plainuser").await);
    let newer_id = newer.id;
    drop(oldest);
    drop(newer);
    let third = lease(&pools, "admin").await;
    eventually("the cap holds on the server", async || {
        server.backends().await == 2
    })
    .await;
    let idle: Vec<_> = pools
        .snapshot()
        .into_iter()
        .map(|pool| (pool.key.user.to_string(), pool.idle))
        .collect();
    assert_eq!(
        idle,
        [
            ("admin".into(), 0),
            ("md5user".into(), 0),
            ("plainuser".into(), 1)
        ]
    );
    let newer = lease(&pools, "plainuser").await;
    assert_eq!(newer.id, newer_id);
    let full = pools
        .lease(&key("md5user"), Instant::now() + Duration::from_millis(50))
        .await;
    assert!(
        matches!(full, Err(PoolError::TooManyConnections { limit: 2 })),
        "{full:?}"
    );
    // A connection that comes back to a pool where nobody waits makes room for the pool where somebody does.
    let md5user = key("md5user");
    let mut starving = Box::pin(pools.lease(&md5user, soon()));
    assert!(
        starving
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
            .is_pending()
    );
    drop(third);
    starving.await.expect("the freed place");
}

#[tokio::test]
async fn a_dead_server_gives_its_connect_error_at_once() {
    let server = Postgres::start().await;
    let pools = server.pools(settings(2));
    let (idle, lent) = (lease(&pools, "admin").await, lease(&pools, "admin").await);
    drop(idle);
    server.cluster.kill_hard(0).await.expect("killed");
    drop(lent);
    let begun = Instant::now();
    eventually_refused(&pools).await;
    assert!(begun.elapsed() < LATE, "the error came late");
}

/// Until the end of its socket is noticed an idle connection may still be lent.
async fn eventually_refused(pools: &Pools) {
    let end = soon();
    loop {
        match pools.lease(&key("admin"), soon()).await {
            Err(error) => {
                assert_eq!(error.sqlstate(), "08001");
                assert!(
                    error.to_string().contains("could not connect to 127.0.0.1"),
                    "{error}"
                );
                return;
            }
            Ok(_) => assert!(Instant::now() < end, "a dead server is still lent"),
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_retired_generation_is_not_lent_again() {
    let server = Postgres::start().await;
    let pools = server.pools(settings(2));
    let (idle, lent) = (lease(&pools, "admin").await, lease(&pools, "admin").await);
    let old = [idle.id, lent.id];
    drop(idle);
    pools.retire(NODE);
    drop(lent);
    let fresh = [lease(&pools, "admin").await, lease(&pools, "admin").await];
    assert!(fresh.iter().all(|lease| !old.contains(&lease.id)));
    eventually("the old backends are gone", async || server.backends().await <= 2).await;
}

#[tokio::test]
async fn a_connection_that_the_server_closed_is_not_lent() {
    let server = Postgres::start().await;
    let pools = server.pools(settings(1));
    let first = lease(&pools, "admin").await;
    let (id, process) = (first.id, first.process);
    drop(first);
    server
        .sql(&format!("select pg_terminate_backend({process})"))
        .await;
    // Its line in pg_stat_activity goes before its socket.
    let gone = async || nix::sys::signal::kill(nix::unistd::Pid::from_raw(process), None).is_err();
    eventually("the backend is gone", gone).await;
    tokio::task::yield_now().await;
    let next = lease(&pools, "admin").await;
    assert_ne!(next.id, id);
}

#[tokio::test]
async fn a_cancel_ends_the_query_it_is_for() {
    let server = Postgres::start().await;
    let pools = server.pools(settings(1));
    let mut sleeper = lease(&pools, "admin").await;
    send(&mut sleeper, "select pg_sleep(600)").await;
    let asleep = format!(
        "select count(*) from pg_stat_activity where pid = {} and wait_event = 'PgSleep'",
        sleeper.process
    );
    eventually("the query runs", async || server.sql(&asleep).await == "1").await;
    pools
        .cancel(&sleeper.cancel_target())
        .await
        .expect("the cancel was taken");
    assert!(contains(&answer(&mut sleeper).await, "57014"));
}

#[tokio::test]
async fn callers_that_leave_at_any_moment_leave_nothing_behind() {
    let server = Postgres::start().await;
    let pools = server.pools(settings(3));
    let admin = key("admin");
    for polls in 0..40 {
        let mut future = Box::pin(pools.lease(&admin, soon()));
        for _ in 0..polls {
            if future
                .as_mut()
                .poll(&mut Context::from_waker(Waker::noop()))
                .is_ready()
            {
                break;
            }
            tokio::task::yield_now().await;
        }
    }
    let all = [
        lease(&pools, "admin").await,
        lease(&pools, "admin").await,
        lease(&pools, "admin").await,
    ];
    assert_eq!(pools.snapshot()[0].lent, 3);
    drop(all);
    let after = &pools.snapshot()[0];
    assert_eq!((after.lent, after.waiting, after.idle), (0, 0, 3));
    eventually("the server sees the same connections", async || {
        server.backends().await == 3
    })
    .await;
}

#[tokio::test]
async fn a_busy_pool_lets_others_have_a_place_on_a_full_node() {
    let server = Postgres::start().await;
    let pools = server.pools(PoolSettings {
        node_connections_max: 2,
        ..settings(2)
    });
    // So many callers for two connections that somebody always waits for what comes back.
    let stop = CancellationToken::new();
    let mut busy = JoinSet::new();
    for _ in 0..12 {
        let (pools, stop) = (Arc::clone(&pools), stop.clone());
        busy.spawn(async move {
            while !stop.is_cancelled() {
                let held = pools.lease(&key("plainuser"), soon()).await.expect("its turn");
                tokio::task::yield_now().await;
                drop(held);
            }
        });
    }
    let is_busy = async || {
        let pools = pools.snapshot();
        pools.iter().any(|pool| pool.lent == 2 && pool.waiting > 2)
    };
    eventually("both connections are in use", is_busy).await;
    drop(pools.lease(&key("md5user"), soon()).await.expect("a place"));
    stop.cancel();
    while let Some(ended) = busy.join_next().await {
        ended.expect("each had its turn");
    }
}

#[tokio::test]
async fn a_servers_certificate_is_checked_as_the_mode_says() {
    let server = Postgres::start().await;
    let lease = async |host: &str, mode: TlsMode, roots: Option<&Path>| {
        let tls = ServerTls::new(mode, roots.map(Into::into)).expect("good roots");
        let pools = server.pools_by(settings(1), None, host, tls);
        pools.lease(&key("tlsuser"), soon()).await
    };
    let refused = lease("127.0.0.1", TlsMode::Require, None)
        .await
        .expect_err("no TLS there");
    assert!(refused.to_string().contains("does not offer TLS"), "{refused}");

    let root = server_tls::offer_tls(&server.cluster).await;
    let is_offered = async || lease("127.0.0.1", TlsMode::Require, None).await.is_ok();
    eventually("TLS is offered", is_offered).await;
    let stranger = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let strangers = server.cluster.directory().join("stranger.crt");
    std::fs::write(&strangers, stranger.cert.pem()).expect("a file");
    let unknown = "invalid peer certificate";
    for (host, mode, roots, refusal) in [
        ("127.0.0.1", TlsMode::Disable, None, Some("no encryption")),
        ("127.0.0.1", TlsMode::Prefer, None, None),
        ("127.0.0.1", TlsMode::Require, None, None),
        ("127.0.0.1", TlsMode::Require, Some(&strangers), Some(unknown)),
        ("127.0.0.1", TlsMode::VerifyCa, Some(&root), None),
        ("localhost", TlsMode::VerifyCa, Some(&strangers), Some(unknown)),
        ("localhost", TlsMode::VerifyFull, Some(&root), None),
        (
            "127.0.0.1",
            TlsMode::VerifyFull,
            Some(&root),
            Some("not valid for name"),
        ),
        ("localhost", TlsMode::VerifyFull, Some(&strangers), Some(unknown)),
    ] {
        let case = format!("{mode:?} to {host}, roots {roots:?}");
        match (lease(host, mode, roots.map(PathBuf::as_path)).await, refusal) {
            (Ok(lease), None) => {
                let encrypted = format!("select ssl from pg_stat_ssl where pid = {}", lease.process);
                assert_eq!(server.sql(&encrypted).await, "t", "{case}");
            }
            (Err(error), Some(words)) => assert!(error.to_string().contains(words), "{case}: {error}"),
            (outcome, _) => panic!("{case}: {outcome:?}"),
        }
    }
}
