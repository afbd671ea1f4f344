//! While a catalog is read again, a call of a function that is declared safe waits for it, and does not pin its session for good.
//!
//! A lock on a table of the catalog, which only the reading of it needs, keeps it from being read for as long as a case wants.

use std::time::{Duration, Instant};

use tokio_postgres::Client;

use crate::running::{PATIENCE, Running, cluster, column, configuration, eventually, served_by, simple};

const CALL: &str = "SELECT twice(2)";
/// Why a session is pinned.
const UNKNOWN: &str = "changed in a way that is not known";

struct Doubtful {
    running: Running,
    console: Client,
    /// Holds the lock in a transaction.
    holder: Client,
}

impl Doubtful {
    /// With the function, and a catalog that knows it.
    async fn start() -> Self {
        let cluster = cluster(0).await;
        let mut config = configuration(&cluster);
        config.functions.safe = vec!["twice".to_owned()];
        let running = Running::serve(cluster, config, None).await;
        let holder = running
            .cluster
            .connect(0, "postgres")
            .await
            .expect("a connection");
        let console = running.console().await;
        let function = "CREATE FUNCTION twice(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT $1 * 2'";
        let doubtful = Self {
            running,
            console,
            holder,
        };
        let client = doubtful.running.connect("postgres").await;
        client.batch_execute(function).await.expect("a function");
        doubtful.catalog_becomes("current").await;
        doubtful
    }

    async fn catalog_becomes(&self, wanted: &str) {
        let catalog = async || column(&self.console, "SHOW DATABASES", "catalog").await[0].clone();
        eventually("the catalog", catalog, |found| found.as_deref() == Some(wanted)).await;
    }

    /// DDL, after which the catalog cannot be read.
    async fn change_catalog(&self, ddl: &str) {
        let lock = "BEGIN; LOCK TABLE pg_catalog.pg_policy IN ACCESS EXCLUSIVE MODE";
        self.holder.batch_execute(lock).await.expect("locked");
        let client = self.running.connect("postgres").await;
        client.batch_execute(ddl).await.expect("DDL");
        self.catalog_becomes("being read").await;
    }

    async fn let_read(&self) {
        self.holder.batch_execute("ROLLBACK").await.expect("unlocked");
    }

    async fn shows_client(&self, field: &str, wanted: &str) -> bool {
        let values = column(&self.console, "SHOW CLIENTS", field).await;
        values.iter().flatten().any(|value| value == wanted)
    }
}

async fn in_time<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.expect("it ends")
}

#[tokio::test]
async fn a_call_waits_for_the_catalog_and_leaves_its_session_free() {
    let doubtful = Doubtful::start().await;
    let (simple_client, extended) = (
        doubtful.running.connect("postgres").await,
        doubtful.running.connect("postgres").await,
    );
    let prepared = extended.prepare(CALL).await.expect("prepared");
    doubtful.change_catalog("CREATE TABLE one ()").await;
    let answers = async {
        let (simple, extended) =
            tokio::join!(simple(&simple_client, CALL), extended.query_one(&prepared, &[]));
        assert_eq!(simple[0][0].1.as_deref(), Some("4"));
        assert_eq!(extended.expect("an answer").get::<_, i32>(0), 4);
    };
    let release = async {
        let waiting = async || {
            let states = column(&doubtful.console, "SHOW CLIENTS", "state").await;
            states
                .iter()
                .flatten()
                .filter(|state| *state == "waiting")
                .count()
        };
        eventually("both wait", waiting, |count| *count == 2).await;
        doubtful.let_read().await;
    };
    in_time(async { tokio::join!(answers, release) }).await;
    assert!(!doubtful.shows_client("pinned", UNKNOWN).await);
    for client in [&simple_client, &extended] {
        // A comparison of the catalog that is late on a busy machine keeps a read from the cache, and no longer than that.
        let served = async || {
            simple(client, "SELECT count(*) FROM hotels").await;
            served_by(client).await
        };
        eventually("it is free for the cache", served, |by| by == "cache").await;
    }
    doubtful.running.shut_down().await;
}

#[tokio::test]
async fn the_wait_is_bounded_and_doubt_goes_to_the_safe_side() {
    let doubtful = Doubtful::start().await;
    let client = doubtful.running.connect("postgres").await;
    doubtful.change_catalog("CREATE TABLE one ()").await;
    let before = Instant::now();
    // Nothing else waits.
    assert_eq!(simple(&client, "SELECT 3").await[0][0].1.as_deref(), Some("3"));
    assert_eq!(in_time(simple(&client, CALL)).await[0][0].1.as_deref(), Some("4"));
    assert!(before.elapsed() >= Duration::from_secs(2), "it waited");
    assert!(doubtful.shows_client("pinned", UNKNOWN).await);
    // Pinned once, it waits for nothing any more: each call would, and on a busy machine one may take as long without.
    let mut quickest = Duration::MAX;
    for _ in 0..5 {
        let before = Instant::now();
        simple(&client, CALL).await;
        quickest = quickest.min(before.elapsed());
    }
    assert!(quickest < Duration::from_secs(2), "it waited again: {quickest:?}");
    doubtful.let_read().await;
    doubtful.running.shut_down().await;
}

#[tokio::test]
async fn a_function_that_is_not_safe_pins_with_a_catalog_too() {
    let doubtful = Doubtful::start().await;
    let client = doubtful.running.connect("postgres").await;
    let function = "CREATE FUNCTION thrice(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT $1 * 3'";
    let other = doubtful.running.connect("postgres").await;
    other.batch_execute(function).await.expect("a function");
    assert_eq!(
        simple(&client, "SELECT thrice(2)").await[0][0].1.as_deref(),
        Some("6")
    );
    assert!(doubtful.shows_client("pinned", UNKNOWN).await);
    doubtful.running.shut_down().await;
}
