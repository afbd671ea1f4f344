//! FLUSH: cached answers are forgotten, as if their tables had just been written.
//!
//! Called by the console. Invariant: after it no answer that was read before is served at the levels up to `session`, from the
//! cache or from a replica that lags behind: the clocks are raised first, so that fills under way lose, and fences make replicas
//! catch up with what was written past the proxy. A name stands for all that reading it reads: partitions, or a view's tables.

use std::sync::Arc;

use super::statement::Target;
use super::table::{Row, Table, text};
use crate::catalog::verdict::{Oid, ReadSet, WriteSet};
use crate::catalog::{Catalog, QualifiedName, Subject};
use crate::freshness::database::{Database, Writes};
use crate::protocol::error::Report;
use crate::protocol::sqlstate;
use crate::session::Proxy;
use crate::sql::ident::quote_ident;

pub(super) const COLUMNS: &[&str] = &["database", "flushed", "entries"];

/// Forgets everything, or what a target names.
pub(super) fn flush(proxy: &Proxy, target: Option<&Target>) -> Result<Table, Report> {
    let mut databases = proxy.databases.all();
    databases.sort_by(|a, b| a.name.cmp(&b.name));
    let named = |database: &Arc<Database>| {
        let name = target.and_then(|target| target.database.as_deref());
        name.is_none_or(|name| *name == *database.name)
    };
    databases.retain(named);
    let mut rows = Vec::new();
    for database in &databases {
        match target {
            None => rows.push(flush_all(proxy, database, "everything")),
            Some(target) => rows.extend(flush_target(proxy, database, target)),
        }
    }
    match target {
        Some(target) if rows.is_empty() => Err(unknown(target)),
        _ => Ok(Table::new(COLUMNS, rows)),
    }
}

fn flush_all(proxy: &Proxy, database: &Database, what: &str) -> Row {
    database.acknowledge(&Writes::everything());
    proxy.cluster.request_probe();
    let dropped = proxy.store.clear_database(&database.name);
    vec![text(&database.name), text(what), text(dropped)]
}

fn flush_target(proxy: &Proxy, database: &Database, target: &Target) -> Vec<Row> {
    let Some(catalog) = database.catalog(database.doubts()) else {
        // What the name means is not known now: all goes rather than too little.
        return vec![flush_all(
            proxy,
            database,
            "everything: its catalog is not known now",
        )];
    };
    let mut named: Vec<QualifiedName> = meant(&catalog, target);
    named.sort();
    let flush = |name: &QualifiedName| match reads(database, name) {
        Some(tables) => {
            let dropped = flush_tables(proxy, database, &tables);
            vec![text(&database.name), text(name), text(dropped)]
        }
        None => flush_all(
            proxy,
            database,
            &format!("everything: what {name} reads is not known"),
        ),
    };
    named.iter().map(flush).collect()
}

fn meant(catalog: &Catalog, target: &Target) -> Vec<QualifiedName> {
    let is_meant = |name: &QualifiedName| {
        let schema = target.schema.as_ref();
        name.name == target.table && schema.is_none_or(|schema| *schema == name.schema)
    };
    let names = catalog.tables().map(|(_, name)| name);
    names.filter(|name| is_meant(name)).cloned().collect()
}

/// The tables that reading a relation reads.
fn reads(database: &Database, name: &QualifiedName) -> Option<Box<[Oid]>> {
    let (schema, table) = (quote_ident(&name.schema), quote_ident(&name.name));
    let sql = bytes::Bytes::from(format!("SELECT * FROM {schema}.{table}"));
    let subject = Subject {
        path: "".into(),
        sql: sql.clone(),
    };
    let verdict = database.verdict(&subject, &sql, database.doubts());
    match &verdict.reads {
        ReadSet::Tables(tables) if !tables.is_empty() => Some(tables.clone()),
        _ => None,
    }
}

fn flush_tables(proxy: &Proxy, database: &Database, tables: &[Oid]) -> usize {
    let writes = WriteSet::Tables(tables.into());
    if let Some(writes) = Writes::of(&writes) {
        database.acknowledge(&writes);
        proxy.cluster.request_probe();
    }
    proxy.store.invalidate(&database.name, tables)
}

fn unknown(target: &Target) -> Report {
    let names = [&target.database, &target.schema, &Some(target.table.clone())];
    let name: Vec<&str> = names.into_iter().flatten().map(|name| &**name).collect();
    let report = Report::error(
        sqlstate::UNDEFINED_TABLE,
        format!("no served database has a table or view \"{}\"", name.join(".")),
    );
    report.hint("A name is looked up in every schema of every database that a client has opened; SHOW DATABASES lists those.")
}
