//! `SHOW STREAM`: what the primary's log tells of each database that is served, how late, and what it cannot tell.
//!
//! Called by `show`. What a stream shows of itself is read as it was published last; the delay counts up to now.

use std::sync::Arc;
use std::time::Instant;

use super::show::sorted;
use super::table::{Row, Table, milliseconds, text};
use crate::freshness::database::Database;
use crate::session::Proxy;

pub(super) const COLUMNS: &[&str] = &[
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
];

pub(super) fn table(proxy: &Proxy) -> Table {
    let databases = sorted(proxy);
    Table::new(COLUMNS, databases.iter().map(|database| row(proxy, database)))
}

fn row(proxy: &Proxy, database: &Arc<Database>) -> Row {
    let status = proxy.streams.status(&database.name);
    vec![
        text(&database.name),
        text(status.mode),
        status.why_not.clone(),
        status.publication.clone(),
        status.position.and_then(text),
        status.delay(Instant::now()).and_then(milliseconds),
        text(status.carried),
        text(status.waiting),
        (!status.not_carried.is_empty()).then(|| status.not_carried.join(", ")),
        text(status.unseen),
        text(status.transactions),
        text(status.bytes),
        text(status.begun),
    ]
}
