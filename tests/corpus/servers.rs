//! What a primary and its standby say of the labels.
//!
//! A statement labelled for replicas runs on the standby, and on the primary takes no transaction id and touches no table that
//! its label leaves out; a write changes no table that its label leaves out; an answer that may be cached is the same on both
//! nodes, in other sessions. Everything on the primary happens in transactions that are rolled back.

use std::collections::BTreeMap;
use std::pin::pin;

use bytes::Bytes;
use pgladder::demo::cluster::ThrowAwayCluster;
use pgladder::sql;
use pgladder::sql::statement::{Kind, Statement};
use tokio_postgres::{Client, Config, Error, SimpleQueryMessage};

use super::row::Row;

/// Per table: how often this session wrote and scanned it, and the file that holds its rows, which TRUNCATE and REFRESH change.
const TOUCHED: &str = "SELECT CASE WHEN n.nspname = 'public' THEN c.relname ELSE n.nspname || '.' || c.relname END, \
        coalesce(s.n_tup_ins + s.n_tup_upd + s.n_tup_del, 0), coalesce(s.seq_scan + coalesce(s.idx_scan, 0), 0), c.relfilenode::int8 \
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace LEFT JOIN pg_stat_xact_user_tables s ON s.relid = c.oid \
    WHERE c.relkind IN ('r', 'm') AND n.nspname IN ('public', 'annex')";

/// What a session has done to one table.
type Touch = (i64, i64, i64);

/// Clients of both nodes. The reader is no superuser, so that row security counts.
struct Nodes {
    writer: Client,
    reader: Client,
    standby: Client,
    version: u32,
}

/// Rows whose label a server contradicts.
pub async fn disagreements(cluster: &ThrowAwayCluster, rows: &[Row]) -> Vec<String> {
    let app = |node: usize| {
        let mut config = Config::new();
        config
            .host("127.0.0.1")
            .port(cluster.port(node))
            .user("app")
            .dbname("postgres");
        config
    };
    let writer = cluster.connect(0, "postgres").await.expect("a connection");
    let version: String = writer
        .query_one("SHOW server_version_num", &[])
        .await
        .expect("a version")
        .get(0);
    let nodes = Nodes {
        writer,
        reader: cluster.connect_with(0, &app(0)).await.expect("a connection"),
        standby: cluster.connect_with(1, &app(1)).await.expect("a connection"),
        version: version.parse::<u32>().expect("a number") / 10_000,
    };
    let mut wrong = Vec::new();
    let mut counts = BTreeMap::<&str, usize>::new();
    for row in rows
        .iter()
        .filter(|row| row.since.is_none_or(|since| since <= nodes.version))
    {
        let (check, found) = if row.route == "replica" {
            ("reads", nodes.read(row).await)
        } else if runs_in_a_transaction(row) {
            ("writes", nodes.write(row).await)
        } else {
            continue;
        };
        *counts.entry(check).or_default() += 1;
        wrong.extend(
            found
                .err()
                .map(|why| format!("{}\n  labelled {row}\n  {check}: {why}", row.sql)),
        );
    }
    assert!(
        counts["reads"] > 150 && counts["writes"] > 100,
        "hardly anything ran: {counts:?}"
    );
    wrong
}

fn statements(row: &Row) -> Vec<Statement> {
    sql::analyze(row.sql.as_bytes()).expect("short UTF-8").statements
}

/// What it writes is known, and running it neither ends the transaction nor needs what another statement made.
fn runs_in_a_transaction(row: &Row) -> bool {
    Row::tables(&row.writes).is_some()
        && statements(row).iter().all(|statement| {
            matches!(
                statement.kind,
                Kind::Select
                    | Kind::Insert
                    | Kind::Update
                    | Kind::Delete
                    | Kind::Merge
                    | Kind::Truncate
                    | Kind::CopyIn
                    | Kind::CopyOut
                    | Kind::RefreshView
                    | Kind::Explain { .. }
                    | Kind::Set { .. }
            )
        })
}

impl Nodes {
    /// On the standby, and twice on the primary: the answers are equal, nothing is written, nothing else is read.
    async fn read(&self, row: &Row) -> Result<(), String> {
        let there = answer(&self.standby, row)
            .await
            .map_err(|error| format!("on the standby: {}", said(&error)))?;
        let before = begin(&self.reader).await;
        let here = answer(&self.reader, row).await;
        let after = match here {
            Ok(_) => Some((touched(&self.reader).await, unassigned(&self.reader).await)),
            Err(_) => None,
        };
        run(&self.reader, "ROLLBACK").await;
        let here = here.map_err(|error| format!("on the primary: {}", said(&error)))?;
        let (after, unassigned) = after.expect("it ran");
        if !unassigned {
            return Err("it took a transaction id".to_owned());
        }
        let scanned = changed(&before, &after, |touch| touch.1);
        only(&scanned, &row.reads, "read")?;
        let written = changed(&before, &after, |touch| (touch.0, touch.2));
        only(&written, "-", "wrote")?;
        if matches!(row.cache.as_str(), "read" | "aggregate") && here != there {
            return Err(format!("the answers differ:\n    {here:?}\n    {there:?}"));
        }
        Ok(())
    }

    /// On the primary: it changes no table that the label leaves out.
    async fn write(&self, row: &Row) -> Result<(), String> {
        let before = begin(&self.writer).await;
        let outcome = answer(&self.writer, row).await;
        let after = match outcome {
            Ok(_) => Some(touched(&self.writer).await),
            Err(_) => None,
        };
        run(&self.writer, "ROLLBACK").await;
        match (outcome, row.refused) {
            (Err(_), true) => Ok(()),
            (Ok(_), true) => Err("it is not refused".to_owned()),
            (Err(error), false) => Err(said(&error)),
            (Ok(_), false) => {
                let written = changed(&before, &after.expect("it ran"), |touch| (touch.0, touch.2));
                only(&written, &row.writes, "wrote")
            }
        }
    }
}

fn said(error: &Error) -> String {
    error
        .as_db_error()
        .map_or_else(|| error.to_string(), ToString::to_string)
}

fn only(found: &[String], label: &str, did: &str) -> Result<(), String> {
    let Some(allowed) = Row::tables(label) else {
        return Ok(());
    };
    let more: Vec<&String> = found
        .iter()
        .filter(|table| !allowed.contains(&table.as_str()))
        .collect();
    if more.is_empty() {
        Ok(())
    } else {
        Err(format!("it {did} {more:?} as well"))
    }
}

fn changed<T: PartialEq>(
    before: &BTreeMap<String, Touch>,
    after: &BTreeMap<String, Touch>,
    what: impl Fn(&Touch) -> T,
) -> Vec<String> {
    let differs = |(table, touch): &(&String, &Touch)| before.get(*table).map(&what) != Some(what(touch));
    after
        .iter()
        .filter(differs)
        .map(|(table, _)| table.clone())
        .collect()
}

async fn run(client: &Client, text: &str) {
    client.batch_execute(text).await.expect("it runs");
}

/// The counters before: a session's grow until it has told the server, also over transactions.
async fn begin(client: &Client) -> BTreeMap<String, Touch> {
    run(client, "BEGIN").await;
    touched(client).await
}

async fn touched(client: &Client) -> BTreeMap<String, Touch> {
    let rows = client.query(TOUCHED, &[]).await.expect("statistics");
    rows.iter()
        .map(|row| (row.get(0), (row.get(1), row.get(2), row.get(3))))
        .collect()
}

async fn unassigned(client: &Client) -> bool {
    let question = "SELECT pg_current_xact_id_if_assigned() IS NULL";
    client.query_one(question, &[]).await.expect("an answer").get(0)
}

/// All rows as text. Parameters are NULL.
async fn answer(client: &Client, row: &Row) -> Result<Vec<Vec<Option<String>>>, Error> {
    let one = statements(row).first().map(|statement| statement.kind.clone());
    match one {
        Some(Kind::CopyIn) if row.sql.contains("STDIN") => {
            let mut sink = pin!(client.copy_in::<_, Bytes>(row.sql.as_str()).await?);
            sink.as_mut().finish().await?;
            Ok(Vec::new())
        }
        Some(Kind::CopyOut) if row.sql.contains("STDOUT") => {
            // What is not read here is read away before the next answer.
            client.copy_out(row.sql.as_str()).await?;
            Ok(Vec::new())
        }
        Some(Kind::Explain { .. }) => texts(client, &row.sql).await,
        Some(_) if row.sql.contains("$1") => {
            let name = format!("line_{}", row.line);
            // Reading runs it once on each node, and a prepared statement outlives its transaction.
            client
                .batch_execute(&format!("PREPARE {name} AS {}", row.sql))
                .await?;
            let count = "SELECT cardinality(parameter_types) FROM pg_prepared_statements WHERE name = $1";
            let count: i32 = client.query_one(count, &[&name]).await?.get(0);
            let nulls = vec!["NULL"; usize::try_from(count).expect("a count")].join(", ");
            texts(client, &format!("EXECUTE {name} ({nulls})")).await
        }
        _ => texts(client, &row.sql).await,
    }
}

async fn texts(client: &Client, text: &str) -> Result<Vec<Vec<Option<String>>>, Error> {
    let messages = client.simple_query(text).await?;
    let rows = messages.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => {
            Some((0..row.len()).map(|at| row.get(at).map(str::to_owned)).collect())
        }
        _ => None,
    });
    Ok(rows.collect())
}
