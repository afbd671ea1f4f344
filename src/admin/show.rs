//! What SHOW and HELP answer: tables of what the other parts publish.
//!
//! Called by the console, for the columns before a statement is executed and for the rows when it is. Invariant: the columns of a
//! statement never change. Nothing here waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::statement::Topic;
use super::table::{Row, Table, milliseconds, text};
use super::{clients, entries, freshness, streams};
use crate::cluster::{ClusterView, NodeView};
use crate::freshness::database::Database;
use crate::session::last::ServedBy;
use crate::session::{Counters, Proxy};
use crate::telemetry::tally::Kind as _;

const NODES: &[&str] = &[
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
];
const POOLS: &[&str] = &[
    "node", "database", "user", "lent", "idle", "waiting", "size", "leases",
];
const STATS: &[&str] = &["name", "value"];
const DATABASES: &[&str] = &["database", "generation", "catalog", "catalog_age_ms", "problem"];
const VERSION: &[&str] = &["version"];
pub(super) const HELP: &[&str] = &["statement", "what_it_does"];

/// The program's name and version.
pub(super) const PROGRAM: &str = concat!("pgladder ", env!("CARGO_PKG_VERSION"));

const STATEMENTS: [(&str, &str); 15] = [
    (
        "SHOW NODES",
        "the servers: role, whether and why not used, position, lag, work",
    ),
    ("SHOW POOLS", "server connections by node, database and user"),
    ("SHOW CLIENTS", "who is connected, and what each one is doing"),
    ("SHOW CACHE", "the 1000 most recently used entries"),
    ("SHOW CACHE SUMMARY", "sizes, limits and hits of the cache"),
    (
        "SHOW STATS",
        "counters since the start, and who answered how often for which reason",
    ),
    (
        "SHOW DATABASES",
        "served databases, and what is known of their catalogs",
    ),
    (
        "SHOW STREAM",
        "whether the primary's log tells of writes made past the proxy, for which tables, and why not",
    ),
    (
        "SHOW FENCES",
        "what a replica must have replayed to serve a table, and the commits on their way",
    ),
    (
        "SHOW FLIGHTS",
        "executions that fill the cache, and how many wait for each",
    ),
    ("SHOW VERSION", "the program's version"),
    (
        "FLUSH",
        "forget every cached answer; replicas serve again once they have replayed the primary's position of now",
    ),
    (
        "FLUSH [[database.]schema.]table",
        "the same for the answers that read a table, or what a view reads",
    ),
    (
        "RELOAD",
        "load the configuration again and apply what needs no restart",
    ),
    ("HELP", "this list"),
];

/// The columns of a topic.
pub(super) fn columns(topic: Topic) -> &'static [&'static str] {
    match topic {
        Topic::Nodes => NODES,
        Topic::Pools => POOLS,
        Topic::Clients => clients::COLUMNS,
        Topic::Cache => entries::COLUMNS,
        Topic::CacheSummary => entries::SUMMARY_COLUMNS,
        Topic::Stats => STATS,
        Topic::Databases => DATABASES,
        Topic::Stream => streams::COLUMNS,
        Topic::Fences => freshness::FENCES,
        Topic::Flights => freshness::FLIGHTS,
        Topic::Version => VERSION,
    }
}

/// A topic's table now.
pub(super) fn table(topic: Topic, proxy: &Proxy) -> Table {
    let columns = columns(topic);
    match topic {
        Topic::Nodes => Table::new(columns, nodes(proxy)),
        Topic::Pools => Table::new(columns, pools(proxy)),
        Topic::Clients => clients::table(&proxy.registry),
        Topic::Cache => entries::table(proxy),
        Topic::CacheSummary => entries::summary(proxy),
        Topic::Stats => Table::new(columns, stats(proxy)),
        Topic::Databases => Table::new(columns, databases(proxy)),
        Topic::Stream => streams::table(proxy),
        Topic::Fences => freshness::fences(proxy),
        Topic::Flights => freshness::flights(proxy),
        Topic::Version => Table::new(columns, [vec![text(PROGRAM)]]),
    }
}

pub(super) fn help() -> Table {
    let rows = STATEMENTS.iter();
    Table::new(
        HELP,
        rows.map(|(statement, what)| vec![text(statement), text(what)]),
    )
}

fn nodes(proxy: &Proxy) -> Vec<Row> {
    let view = proxy.cluster.view();
    let problems = catalog_problems(proxy);
    let rows = view.nodes.iter();
    rows.map(|node| {
        // Catalogs are read on the primary: what is wrong with them is told in its line, or in all while there is none.
        let concerned = view.primary.is_none_or(|primary| primary == node.id);
        let catalogs = problems.as_ref().filter(|_| concerned).cloned();
        node_row(node, catalogs)
    })
    .collect()
}

fn node_row(node: &NodeView, catalogs: Option<String>) -> Row {
    vec![
        text(&node.address),
        text(node.role),
        text(if node.usable { "yes" } else { "no" }),
        node.why_not.as_ref().and_then(text),
        (node.timeline > 0).then(|| node.timeline.to_string()),
        (node.sample.number > 0).then(|| node.sample.lsn.to_string()),
        node.lag_bytes.and_then(text),
        node.lag.and_then(milliseconds),
        text(node.weight),
        text(node.outstanding.load(Ordering::Relaxed)),
        text(node.served.requests.load(Ordering::Relaxed)),
        catalogs,
    ]
}

/// What is wrong with catalogs, and what it costs; `None` when nothing is.
fn catalog_problems(proxy: &Proxy) -> Option<String> {
    let problems: Vec<String> = sorted(proxy)
        .iter()
        .filter_map(|database| {
            let problem = database.problem()?;
            let name = &database.name;
            Some(format!(
                "{name}: {problem} (nothing of it is cached or read from replicas)"
            ))
        })
        .collect();
    (!problems.is_empty()).then(|| problems.join("; "))
}

pub(super) fn sorted(proxy: &Proxy) -> Vec<Arc<Database>> {
    let mut databases = proxy.databases.all();
    databases.sort_by(|a, b| a.name.cmp(&b.name));
    databases
}

/// The node's address in a view, or its number.
pub(super) fn address(view: &ClusterView, node: crate::cluster::NodeId) -> String {
    let found = view.node(node).map(|node| node.address.to_string());
    found.unwrap_or_else(|| node.to_string())
}

fn pools(proxy: &Proxy) -> Vec<Row> {
    let view = proxy.cluster.view();
    let pools = proxy.pools.snapshot();
    let row = |pool: &crate::pool::PoolSnapshot| {
        vec![
            text(address(&view, pool.key.node)),
            text(&pool.key.database),
            text(&pool.key.user),
            text(pool.lent),
            text(pool.idle),
            text(pool.waiting),
            text(pool.size),
            text(pool.leases),
        ]
    };
    pools.iter().map(row).collect()
}

/// The counters by name, in the order in which they are shown.
fn counters(counters: &Counters) -> [(&'static str, &AtomicU64); 10] {
    [
        ("clients", &counters.clients),
        ("logins", &counters.logins),
        ("hits", &counters.hits),
        ("shared", &counters.shared),
        ("misses", &counters.misses),
        ("stored", &counters.stored),
        ("refreshed", &counters.refreshed),
        ("refreshes_dropped", &counters.refreshes_dropped),
        ("read_index", &counters.read_index),
        ("retried", &counters.retried),
    ]
}

fn stats(proxy: &Proxy) -> Vec<Row> {
    let counters = counters(&proxy.counters).into_iter();
    let counters = counters.map(|(name, counter)| vec![text(name), text(counter.load(Ordering::Relaxed))]);
    let probes = std::iter::once(vec![text("probes"), text(proxy.cluster.probes())]);
    let (bypasses, not_kept) = (&proxy.costs.bypasses, &proxy.costs.not_kept);
    let bypasses = bypasses
        .all()
        .map(|(why, count)| (format!("bypass: {}", why.word()), count));
    let not_kept = not_kept
        .all()
        .map(|(why, count)| (format!("not kept: {}", why.word()), count));
    let samples = proxy.costs.samples.all();
    let samples = samples.map(|(result, count)| (format!("sample: {}", result.word()), count));
    let costs = bypasses
        .chain(not_kept)
        .chain(samples)
        .map(|(name, count)| vec![text(name), text(count)]);
    let units = [
        ("replica_units", ServedBy::Replica),
        ("primary_units", ServedBy::Primary),
    ];
    let units = units.map(|(name, by)| vec![text(name), text(proxy.reasons.answered_by(by))]);
    let reasons = proxy.reasons.counted().into_iter();
    let reasons = reasons.map(|(by, reason, count)| vec![text(format!("{by}: {reason}")), text(count)]);
    counters
        .chain(probes)
        .chain(costs)
        .chain(units)
        .chain(reasons)
        .collect()
}

fn databases(proxy: &Proxy) -> Vec<Row> {
    let row = |database: &Arc<Database>| {
        let problem = database.problem();
        let catalog = match (database.catalog(database.doubts()), &problem) {
            (Some(_), _) => "current",
            (None, Some(_)) => "missing",
            (None, None) => "being read",
        };
        let now = Instant::now();
        let age = database.checked_at().map(|at| now.saturating_duration_since(at));
        vec![
            text(&database.name),
            text(database.generation()),
            text(catalog),
            age.and_then(milliseconds),
            problem,
        ]
    };
    sorted(proxy).iter().map(row).collect()
}
