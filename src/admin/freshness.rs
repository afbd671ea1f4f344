//! `SHOW FENCES` and `SHOW FLIGHTS`: what replicas must have replayed, and which executions others wait for.
//!
//! Called by `show`. Both are copied under the locks of those who keep them and put into words after that. Tables that nothing was
//! written to since the floor was raised last are not listed: the floor, in the row without a table, counts for them.

use std::sync::Arc;
use std::time::Instant;

use super::show::sorted;
use super::table::{Row, Table, in_one_line, milliseconds, text};
use crate::cache::flight::Listed;
use crate::freshness::clocks::Shown;
use crate::freshness::database::Database;
use crate::freshness::fence::Fence;
use crate::session::Proxy;

pub(super) const FENCES: &[&str] = &["database", "table", "replayed", "epoch", "in_flight"];
pub(super) const FLIGHTS: &[&str] = &["database", "waiting", "age_ms", "query"];

/// Rows of fences for each database.
const LISTED_MAX: usize = 1_000;

pub(super) fn fences(proxy: &Proxy) -> Table {
    let databases = sorted(proxy);
    Table::new(FENCES, databases.iter().flat_map(of_database))
}

fn of_database(database: &Arc<Database>) -> Vec<Row> {
    let catalog = database.latest_catalog();
    let name = |table| {
        let known = catalog.as_deref().and_then(|catalog| catalog.table_name(table));
        known.map_or_else(|| table.to_string(), ToString::to_string)
    };
    let row = |shown: Shown| {
        vec![
            text(&database.name),
            shown.table.map(name),
            match shown.fence {
                Fence::At(lsn) => text(lsn),
                Fence::Pending(_) => text("not known yet"),
            },
            text(shown.epoch),
            text(shown.in_flight),
        ]
    };
    database.clocks(LISTED_MAX).into_iter().map(row).collect()
}

pub(super) fn flights(proxy: &Proxy) -> Table {
    let now = Instant::now();
    let row = |listed: &Listed| {
        vec![
            text(String::from_utf8_lossy(listed.key.database())),
            text(listed.waiting),
            milliseconds(now.saturating_duration_since(listed.began)),
            text(in_one_line(listed.key.sql())),
        ]
    };
    Table::new(FLIGHTS, proxy.flights.running(LISTED_MAX).iter().map(row))
}
