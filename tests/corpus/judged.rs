//! What `Catalog::judge` and `route` say of each statement, written as the labels are.
//!
//! The session is quiet: no transaction, no temporary schema, READ COMMITTED, and only the statement's own hints.

use std::sync::Arc;

use pgladder::catalog::verdict::{ReadSet, Verdict, WriteSet};
use pgladder::catalog::{Allowed, Catalog, Path};
use pgladder::route::{Because, Route, SessionFacts, route};
use pgladder::sql;

use super::row::Row;

/// Rows whose label is not what the code says.
pub fn disagreements(catalog: &Catalog, rows: &[Row]) -> Vec<String> {
    rows.iter()
        .filter_map(|row| {
            let judged = judge(catalog, row);
            (judged != *row).then(|| format!("{}\n  labelled {row}\n  judged   {judged}", row.sql))
        })
        .collect()
}

fn judge(catalog: &Catalog, row: &Row) -> Row {
    let script = Arc::new(sql::analyze(row.sql.as_bytes()).expect("short UTF-8"));
    let session = SessionFacts {
        read_committed: true,
        asked: script.hints.route,
        ..SessionFacts::default()
    };
    let path = Path::parse("\"$user\", public", "app");
    let verdict = catalog.judge(script, &path, &Allowed::default());
    let (node, because) = match route(&verdict, &session) {
        Route::Primary(because) => ("primary", because),
        Route::Replica(because) => ("replica", because),
    };
    Row {
        route: node.to_owned(),
        reason: match because {
            Because::Statement(why) => format!("{why:?}"),
            other => format!("{other:?}"),
        },
        reads: match &verdict.reads {
            ReadSet::Tables(tables) => names(catalog, tables),
            ReadSet::Unknown(why) => format!("?{why:?}"),
        },
        writes: match &verdict.writes {
            WriteSet::None => "-".to_owned(),
            WriteSet::Tables(tables) => names(catalog, tables),
            WriteSet::Unknown(why) => format!("?{why:?}"),
            WriteSet::Catalog { global: false } => "catalog".to_owned(),
            WriteSet::Catalog { global: true } => "catalog*".to_owned(),
        },
        cache: cached(&verdict),
        ..row.clone()
    }
}

fn cached(verdict: &Verdict) -> String {
    match verdict.cache {
        Ok(()) if verdict.aggregates => "aggregate".to_owned(),
        Ok(()) => "read".to_owned(),
        Err(why) => format!("{why:?}"),
    }
}

/// Sorted; tables of `public` without their schema.
fn names(catalog: &Catalog, tables: &[u32]) -> String {
    let name = |oid: &u32| {
        let name = catalog.table_name(*oid).expect("a relation of the snapshot");
        if &*name.schema == "public" {
            name.name.to_string()
        } else {
            name.to_string()
        }
    };
    let mut names: Vec<String> = tables.iter().map(name).collect();
    names.sort();
    if names.is_empty() {
        "-".to_owned()
    } else {
        names.join(" ")
    }
}
