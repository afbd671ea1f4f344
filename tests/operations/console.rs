//! The console's tables tell what is: nodes, pools, clients, the cache, counters, databases.
//!
//! Each case does something through the proxy and reads in the console what became of it.

use tokio::process::Command;
use tokio_postgres::error::SqlState;

use crate::running::{Running, column, eventually, served_by, simple};

const DASHBOARD: &str = "SELECT city, count(*) FROM hotels GROUP BY city ORDER BY city";

/// Every statement, and its columns.
const STATEMENTS: [(&str, &[&str]); 12] = [
    (
        "SHOW NODES",
        &[
            "address",
            "role",
            "usable",
            "why_not",
            "timeline",
            "lsn",
            "lag_bytes",
            "lag_ms",
            "weight",
            "outstanding",
            "served",
            "catalogs",
        ],
    ),
    (
        "SHOW POOLS",
        &[
            "node", "database", "user", "lent", "idle", "waiting", "size", "leases",
        ],
    ),
    (
        "SHOW CLIENTS",
        &[
            "process",
            "user",
            "database",
            "peer",
            "state",
            "pinned",
            "connected_since",
            "unit_age_ms",
            "cache",
            "replica",
            "primary",
            "proxy",
        ],
    ),
    (
        "SHOW CACHE",
        &[
            "database", "tables", "bytes", "age_ms", "ttl_ms", "hits", "cost_ms", "node", "kept_by", "query",
        ],
    ),
    (
        "SHOW CACHE SUMMARY",
        &[
            "entries",
            "entries_max",
            "bytes",
            "bytes_max",
            "hits",
            "shared",
            "misses",
            "hit_percent",
            "stored",
            "lost_to_writes",
            "running",
        ],
    ),
    ("SHOW STATS", &["name", "value"]),
    (
        "SHOW DATABASES",
        &["database", "generation", "catalog", "catalog_age_ms", "problem"],
    ),
    (
        "SHOW STREAM",
        &[
            "database",
            "mode",
            "why_not",
            "publication",
            "position",
            "delay_ms",
            "carried",
            "waiting",
            "not_carried",
            "unseen",
            "transactions",
            "bytes",
            "begun",
        ],
    ),
    (
        "SHOW FENCES",
        &["database", "table", "replayed", "epoch", "in_flight"],
    ),
    ("SHOW VERSION", &["version"]),
    ("HELP", &["statement", "what_it_does"]),
    ("FLUSH", &["database", "flushed", "entries"]),
];

#[tokio::test]
async fn every_statement_answers_in_both_protocols_and_in_psql() {
    let running = Running::start(1).await;
    let client = running.connect("postgres").await;
    for _ in 0..2 {
        client.query(DASHBOARD, &[]).await.expect("the dashboard");
    }
    let console = running.console().await;
    for (statement, columns) in STATEMENTS {
        let rows = simple(&console, statement).await;
        let first = rows.first().unwrap_or_else(|| panic!("{statement} has rows"));
        let names: Vec<&str> = first.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, columns, "{statement}");
        client.query(DASHBOARD, &[]).await.expect("the dashboard");
        let prepared = console.prepare(&statement.to_lowercase()).await.expect(statement);
        let described: Vec<&str> = prepared
            .columns()
            .iter()
            .map(tokio_postgres::Column::name)
            .collect();
        assert_eq!(described, columns, "{statement}");
        let rows = console.query(&prepared, &[]).await.expect(statement);
        assert!(!rows.is_empty(), "{statement}");
        let values: Vec<Option<String>> = (0..columns.len()).map(|at| rows[0].get(at)).collect();
        assert!(values.iter().any(Option::is_some), "{statement}: {values:?}");
        client.query(DASHBOARD, &[]).await.expect("the dashboard");
        let shown = psql(&running, statement).await;
        assert_eq!(
            shown.lines().next(),
            Some(columns.join("|").as_str()),
            "{statement}"
        );
        assert!(shown.lines().count() > 1, "{statement}: {shown}");
    }
    running.shut_down().await;
}

async fn psql(running: &Running, statement: &str) -> String {
    let port = running.clients.port().to_string();
    let address = ["-h", "127.0.0.1", "-p", &port, "-U", "postgres"];
    let output = Command::new("psql")
        .args(["-X", "-A", "-P", "footer=off", "-v", "ON_ERROR_STOP=1"])
        .args(address)
        .args(["-c", statement, "pgladder"])
        .output()
        .await
        .expect("psql is installed");
    let (out, error) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{statement}: {error}");
    assert_eq!(error, "", "{statement}");
    out.into_owned()
}

#[tokio::test]
async fn nodes_are_shown_as_they_are() {
    let running = Running::start(1).await;
    let console = running.console().await;
    let nodes = "SHOW NODES";
    let roles = async || column(&console, nodes, "role").await;
    let some = |text: &str| Some(text.to_owned());
    let wanted = vec![some("primary"), some("replica")];
    eventually("both nodes are known", roles, |roles| *roles == wanted).await;
    let usable = async || column(&console, nodes, "usable").await;
    let both = vec![some("yes"), some("yes")];
    eventually("both nodes are used", usable, |usable| *usable == both).await;
    let addresses = column(&console, nodes, "address").await;
    let wanted: Vec<_> = (0..2)
        .map(|node| Some(running.cluster.address(node).to_string()))
        .collect();
    assert_eq!(addresses, wanted);
    let lag = async || column(&console, nodes, "lag_bytes").await;
    eventually(
        "the replica's lag is known, and the primary has none",
        lag,
        |lag| lag[0].is_none() && lag[1].is_some(),
    )
    .await;
    running.cluster.kill_hard(1).await.expect("killed");
    let why = async || column(&console, nodes, "why_not").await[1].clone();
    eventually("the dead node is named", why, |why| {
        why.as_ref().is_some_and(|why| why.starts_with("unreachable"))
    })
    .await;
    running.shut_down().await;
}

#[tokio::test]
async fn a_database_without_its_right_is_named_with_what_it_costs() {
    let cluster = crate::running::cluster(0).await;
    let admin = cluster.connect(0, "postgres").await.expect("a connection");
    let rights = "CREATE ROLE control LOGIN; GRANT pg_monitor TO control; CREATE DATABASE closed;
        CREATE ROLE ann LOGIN";
    for sql in rights.split(';') {
        admin.batch_execute(sql).await.expect(sql);
    }
    let close = "REVOKE CONNECT ON DATABASE closed FROM public; GRANT CONNECT ON DATABASE closed TO ann";
    admin.batch_execute(close).await.expect("revoked");
    let mut config = crate::running::configuration(&cluster);
    config.cluster.control_user = "control".to_owned();
    config.auth.admins = vec!["ann".to_owned()];
    let running = Running::serve(cluster, config, None).await;
    let client = running.try_connect("ann", "closed").await.expect("ann may");
    let console = running
        .try_connect("ann", "pgladder")
        .await
        .expect("ann is an admin");
    let problem = async || column(&console, "SHOW DATABASES", "problem").await[0].clone();
    let named = eventually("the problem is named", problem, Option::is_some).await;
    let named = named.expect("named");
    assert!(named.starts_with("permission denied for database"), "{named}");
    let told = column(&console, "SHOW NODES", "catalogs").await[0]
        .clone()
        .expect("told");
    assert!(
        told.starts_with("closed: ") && told.contains("nothing of it is cached"),
        "{told}"
    );
    assert_eq!(
        column(&console, "SHOW DATABASES", "catalog").await,
        [Some("missing".to_owned())]
    );
    drop(client);
    running.shut_down().await;
}

#[tokio::test]
async fn clients_are_listed_with_what_they_do() {
    let running = Running::start(0).await;
    let console = running.console().await;
    let client = running.connect("postgres").await;
    client
        .batch_execute("BEGIN; DELETE FROM hotels WHERE id = 1")
        .await
        .expect("a write");
    let pinned = running.connect("postgres").await;
    pinned.batch_execute("LISTEN news").await.expect("it listens");
    let line = async |wanted: &str| {
        let rows = simple(&console, "SHOW CLIENTS").await;
        let has = |row: &Vec<(String, Option<String>)>| {
            row.iter().any(|(_, value)| value.as_deref() == Some(wanted))
        };
        rows.into_iter().find(has)
    };
    let open = line("idle in transaction").await.expect("the open transaction");
    let value = |row: &[(String, Option<String>)], name: &str| {
        row.iter()
            .find(|(column, _)| column == name)
            .and_then(|(_, value)| value.clone())
    };
    assert_eq!(value(&open, "primary").as_deref(), Some("1"));
    assert_eq!(value(&open, "user").as_deref(), Some("postgres"));
    assert!(value(&open, "peer").is_some_and(|peer| peer.starts_with("127.0.0.1:")));
    let listening = line("listens").await.expect("the pinned one");
    assert_eq!(value(&listening, "state").as_deref(), Some("idle"));
    let own = line("pgladder").await.expect("the console itself");
    assert_eq!(value(&own, "state").as_deref(), Some("active"));
    assert!(value(&own, "unit_age_ms").is_some());
    client.batch_execute("ROLLBACK").await.expect("rolled back");
    assert!(line("idle in transaction").await.is_none());
    drop((client, pinned));
    let count = async || simple(&console, "SHOW CLIENTS").await.len();
    eventually("those who left are gone", count, |count| *count == 1).await;
    running.shut_down().await;
}

#[tokio::test]
async fn the_cache_is_listed_with_its_tables_and_hits() {
    let running = Running::start(0).await;
    let client = running.connect("postgres").await;
    for _ in 0..3 {
        simple(&client, DASHBOARD).await;
    }
    assert_eq!(served_by(&client).await, "cache");
    let console = running.console().await;
    let cache = async |name: &str| column(&console, "SHOW CACHE", name).await;
    assert_eq!(cache("tables").await, [Some("public.hotels".to_owned())]);
    assert_eq!(cache("hits").await, [Some("2".to_owned())]);
    assert_eq!(cache("database").await, [Some("postgres".to_owned())]);
    assert_eq!(cache("query").await, [Some(DASHBOARD.to_owned())]);
    assert_eq!(cache("ttl_ms").await, [Some("300000".to_owned())]);
    let summary = async |name: &str| column(&console, "SHOW CACHE SUMMARY", name).await[0].clone();
    assert_eq!(summary("entries").await.as_deref(), Some("1"));
    assert_eq!(summary("bytes").await, cache("bytes").await[0]);
    assert_eq!(summary("hit_percent").await.as_deref(), Some("66"));
    let stats = simple(&console, "SHOW STATS").await;
    let hits = stats
        .iter()
        .find(|row| row[0].1.as_deref() == Some("hits"))
        .expect("hits");
    assert_eq!(hits[1].1.as_deref(), Some("2"));
    running.shut_down().await;
}

#[tokio::test]
async fn stats_tell_why_units_went_where_they_went() {
    let running = Running::start(1).await;
    let (client, console) = (running.connect("postgres").await, running.console().await);
    let plain = "SELECT price FROM deals WHERE id = 7";
    let served = async || {
        simple(&client, plain).await;
        served_by(&client).await
    };
    eventually("the replica serves", served, |by| by == "replica").await;
    let before = simple(&console, "SHOW STATS").await;
    for sql in [
        plain,
        "SELECT price FROM deals WHERE id = 7 /* pgladder: route=primary */",
        "BEGIN; SELECT 1",
        "SELECT 2",
        "COMMIT",
        "LISTEN news",
        "SELECT 3",
        "SHOW pgladder.last",
    ] {
        simple(&client, sql).await;
    }
    let after = simple(&console, "SHOW STATS").await;
    let count = |rows: &[Vec<(String, Option<String>)>], name: &str| {
        let row = rows.iter().find(|row| row[0].1.as_deref() == Some(name));
        row.map_or(0, |row| {
            row[1]
                .1
                .as_ref()
                .and_then(|count| count.parse().ok())
                .expect("a count")
        })
    };
    let grown = |name: &str| -> u64 { count(&after, name) - count(&before, name) };
    for (name, wanted) in [
        ("replica: plain read", 1),
        ("primary: statement: ChangesSession", 1),
        ("primary: asked for by hint or session", 1),
        ("primary: open transaction", 2),
        ("primary: pinned session: Listens", 1),
        ("replica_units", 1),
    ] {
        assert_eq!(grown(name), wanted, "{name}\nbefore {before:?}\nafter {after:?}");
    }
    running.shut_down().await;
}

#[tokio::test]
async fn only_an_admin_is_let_in() {
    let running = Running::start(0).await;
    let refused = running
        .try_connect("guest", "pgladder")
        .await
        .expect_err("refused");
    let told = refused.as_db_error().expect("told why");
    assert_eq!(told.code(), &SqlState::INSUFFICIENT_PRIVILEGE);
    assert_eq!(
        (told.severity(), told.message()),
        ("FATAL", "permission denied for database \"pgladder\"")
    );
    running
        .try_connect("guest", "postgres")
        .await
        .expect("a session of its own");
    running.shut_down().await;
}

#[tokio::test]
async fn it_works_while_every_node_is_down() {
    let running = Running::start(0).await;
    running.cluster.kill_hard(0).await.expect("killed");
    let console = running.console().await;
    let why = async || column(&console, "SHOW NODES", "why_not").await[0].clone();
    eventually("the node is down", why, Option::is_some).await;
    assert_eq!(simple(&console, "SHOW POOLS").await.len(), 0);
    running.shut_down().await;
}

#[tokio::test]
async fn it_can_be_turned_off_and_named_otherwise() {
    let cluster = crate::running::cluster(0).await;
    let mut config = crate::running::configuration(&cluster);
    config.admin.database = "ops".to_owned();
    let running = Running::serve(cluster, config.clone(), None).await;
    let console = running.connect("ops").await;
    let version = column(&console, "SHOW VERSION", "version").await[0].clone();
    assert_eq!(version, Some(format!("pgladder {}", env!("CARGO_PKG_VERSION"))));
    let missing = running
        .try_connect("postgres", "pgladder")
        .await
        .expect_err("refused");
    assert_eq!(
        missing.code(),
        Some(&SqlState::INVALID_CATALOG_NAME),
        "the server's own word"
    );
    running.shut_down().await;
}
