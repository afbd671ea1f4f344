//! `SHOW CACHE` and `SHOW CACHE SUMMARY`: what is cached, and what it was good for.
//!
//! Called by `show`. The list is bounded, the most recently used entries first; it is copied under the store's lock and put into
//! words after that. Tables are named by the latest catalog of their database, or by number where that has none of theirs.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::table::{Row, Table, in_one_line, milliseconds, text};
use crate::cache::store::Listed;
use crate::catalog::Catalog;
use crate::freshness::database::Database;
use crate::session::Proxy;
use crate::session::costs::NotKept;

pub(super) const COLUMNS: &[&str] = &[
    "database", "tables", "bytes", "age_ms", "ttl_ms", "hits", "cost_ms", "node", "kept_by", "query",
];
pub(super) const SUMMARY_COLUMNS: &[&str] = &[
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
];

/// Entries that are listed.
const LISTED_MAX: usize = 1_000;

pub(super) fn table(proxy: &Proxy) -> Table {
    let databases = proxy.databases.all();
    let by_name: HashMap<&str, Known> = databases
        .iter()
        .map(|database| (&*database.name, (database, database.latest_catalog())))
        .collect();
    let now = Instant::now();
    let listed = proxy.store.recent(LISTED_MAX);
    let rows = listed.iter().map(|listed| {
        let name = String::from_utf8_lossy(listed.key.database());
        row(listed, &name, by_name.get(&*name), now)
    });
    Table::new(COLUMNS, rows)
}

/// A database, and its latest catalog.
type Known<'a> = (&'a Arc<Database>, Option<Arc<Catalog>>);

fn row(listed: &Listed, database: &str, known: Option<&Known<'_>>, now: Instant) -> Row {
    let entry = &listed.entry;
    let catalog = known.and_then(|(_, catalog)| catalog.as_deref());
    let is_carried = known.is_some_and(|(database, _)| database.stream_carries(&entry.note));
    let name = |table| match catalog.and_then(|catalog| catalog.table_name(table)) {
        Some(name) => name.to_string(),
        None => table.to_string(),
    };
    let tables: Vec<String> = entry.note.tables().map(name).collect();
    vec![
        text(database),
        text(tables.join(", ")),
        text(listed.key.size() + entry.size()),
        milliseconds(entry.age(now)),
        milliseconds(entry.ttl),
        text(listed.found),
        milliseconds(entry.cost),
        text(&entry.node),
        text(if is_carried { "stream" } else { "observed" }),
        text(in_one_line(listed.key.sql())),
    ]
}

pub(super) fn summary(proxy: &Proxy) -> Table {
    let ((entries, bytes), limits) = (proxy.store.size(), proxy.store.limits());
    let counted = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    let counters = &proxy.counters;
    let (hits, shared, misses) = (
        counted(&counters.hits),
        counted(&counters.shared),
        counted(&counters.misses),
    );
    let asked = hits + shared + misses;
    let percent = (hits + shared).saturating_mul(100).checked_div(asked);
    let row = vec![
        text(entries),
        text(limits.entries_max),
        text(bytes),
        text(limits.bytes_max),
        text(hits),
        text(shared),
        text(misses),
        percent.and_then(text),
        text(counted(&counters.stored)),
        text(proxy.costs.not_kept.of(NotKept::Write)),
        text(proxy.flights.len()),
    ];
    Table::new(SUMMARY_COLUMNS, [row])
}
