//! RELOAD, and SIGHUP behind it: what can be applied is, what cannot is named, and a bad configuration changes nothing.
//!
//! The file is a real one; nodes and addresses come as flags do, so that a case's file holds only what it is about.

use std::path::PathBuf;
use std::sync::Arc;

use pgladder::config::{Config, Flag, Sources};
use pgladder::serve::Origins;
use tokio::sync::Notify;
use tokio_postgres::error::SqlState;

use crate::running::{Running, cluster, column, eventually, simple, with_free_ports};

struct Reloadable {
    running: Running,
    file: PathBuf,
    asked: Arc<Notify>,
    _directory: tempfile::TempDir,
}

/// Served from a file of this text; the nodes come as flags.
async fn start(text: &str) -> Reloadable {
    let cluster = cluster(0).await;
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("proxy.toml");
    std::fs::write(&file, text).expect("written");
    let flag = |key: &str, value: String| Flag {
        key: key.to_owned(),
        name: format!("--{key}"),
        values: vec![value],
    };
    let sources = Sources {
        file: Some(file.clone()),
        flags: vec![
            flag("nodes", cluster.address(0).to_string()),
            flag("auth.method", "trust".to_owned()),
            flag("cluster.control_user", "postgres".to_owned()),
        ],
        ..Sources::default()
    };
    let config = with_free_ports(Config::load(&sources).expect("a good configuration"));
    let asked = Arc::new(Notify::new());
    let origins = Origins {
        sources,
        log: None,
        asked: Arc::clone(&asked),
    };
    Reloadable {
        running: Running::serve(cluster, config, Some(origins)).await,
        file,
        asked,
        _directory: directory,
    }
}

/// What a reload answers, without the addresses, which the cases set themselves.
async fn reload(console: &tokio_postgres::Client) -> Vec<(String, String)> {
    let rows = simple(console, "RELOAD").await;
    let value = |row: &Vec<(String, Option<String>)>, at: usize| row[at].1.clone().expect("a value");
    let pairs = rows.iter().map(|row| (value(row, 0), value(row, 1)));
    pairs
        .filter(|(key, _)| !key.ends_with(".listen") && !key.starts_with("listen."))
        .collect()
}

fn owned(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    let pairs = pairs.iter();
    pairs
        .map(|(key, outcome)| ((*key).to_owned(), (*outcome).to_owned()))
        .collect()
}

#[tokio::test]
async fn what_can_be_applied_is_and_the_rest_is_named() {
    let reloadable = start("[cache]\nttl = \"1m\"").await;
    let running = &reloadable.running;
    let (client, console) = (running.connect("postgres").await, running.console().await);
    let ttl = async |query: &str| {
        simple(&client, query).await;
        column(&console, "SHOW CACHE", "ttl_ms").await[0].clone()
    };
    assert_eq!(ttl("SELECT count(*) FROM hotels").await.as_deref(), Some("60000"));
    assert_eq!(reload(&console).await, []);
    let changed = "[cache]\nttl = \"2m\"\nentries = 1\n[pool]\nsize = 3\n[auth]\nadmins = [\"guest\"]";
    std::fs::write(&reloadable.file, changed).expect("written");
    let outcome = owned(&[
        ("cache.entries", "applied"),
        ("cache.ttl", "applied"),
        ("auth.admins", "applied"),
        ("pool.size", "needs a restart"),
    ]);
    assert_eq!(reload(&console).await, outcome);
    assert_eq!(reload(&console).await, outcome[3..], "what waits is named again");
    assert_eq!(ttl("SELECT count(*) FROM deals").await.as_deref(), Some("120000"));
    assert_eq!(
        simple(&console, "SHOW CACHE").await.len(),
        1,
        "the entry over the limit is gone"
    );
    running
        .try_connect("guest", "pgladder")
        .await
        .expect("an admin by now");
    let gone = running
        .try_connect("postgres", "pgladder")
        .await
        .expect_err("no admin any more");
    assert_eq!(gone.code(), Some(&SqlState::INSUFFICIENT_PRIVILEGE));
    reloadable.running.shut_down().await;
}

#[tokio::test]
async fn a_function_that_is_declared_safe_counts_at_once() {
    let reloadable = start("").await;
    let running = &reloadable.running;
    let (client, console) = (running.connect("postgres").await, running.console().await);
    let function = "CREATE FUNCTION twice(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT $1 * 2'";
    client.batch_execute(function).await.expect("a function");
    let query = "SELECT twice(2), count(*) FROM hotels";
    let served = async || {
        simple(&client, query).await;
        crate::running::served_by(&client).await
    };
    for _ in 0..3 {
        assert_eq!(served().await, "primary");
    }
    std::fs::write(&reloadable.file, "[functions]\nsafe = [\"twice\"]").expect("written");
    assert_eq!(reload(&console).await, owned(&[("functions.safe", "applied")]));
    let catalog = async || column(&console, "SHOW DATABASES", "catalog").await[0].clone();
    eventually("verdicts are new", catalog, |catalog| {
        catalog.as_deref() == Some("current")
    })
    .await;
    // What ran an unknown function stays on its connection: another session uses it from now on.
    let client = running.connect("postgres").await;
    let served = async || {
        simple(&client, query).await;
        crate::running::served_by(&client).await
    };
    eventually("it is cached", served, |served| served == "cache").await;
    reloadable.running.shut_down().await;
}

#[tokio::test]
async fn of_a_bad_configuration_nothing_is_applied_and_all_is_told() {
    let reloadable = start("[cache]\nttl = \"1m\"").await;
    let running = &reloadable.running;
    let (client, console) = (running.connect("postgres").await, running.console().await);
    std::fs::write(
        &reloadable.file,
        "[cache]\nttl = \"2m\"\nwhat = \"all\"\n[pool]\nsise = 3",
    )
    .expect("written");
    let refused = console.simple_query("RELOAD").await.expect_err("refused");
    let told = refused.as_db_error().expect("told");
    assert_eq!(told.code(), &SqlState::CONFIG_FILE_ERROR);
    let detail = told.detail().expect("every error");
    assert!(
        detail.contains("cache.what") && detail.contains("pool.sise"),
        "{detail}"
    );
    simple(&client, "SELECT count(*) FROM hotels").await;
    let ttl = column(&console, "SHOW CACHE", "ttl_ms").await;
    assert_eq!(ttl, [Some("60000".to_owned())]);
    reloadable.running.shut_down().await;
}

#[tokio::test]
async fn whoever_has_no_console_may_ask_too() {
    let reloadable = start("").await;
    let console = reloadable.running.console().await;
    std::fs::write(&reloadable.file, "[cache]\nentries = 7").expect("written");
    reloadable.asked.notify_one();
    let entries = async || column(&console, "SHOW CACHE SUMMARY", "entries_max").await[0].clone();
    eventually("it is applied", entries, |entries| {
        entries.as_deref() == Some("7")
    })
    .await;
    reloadable.running.shut_down().await;
}
