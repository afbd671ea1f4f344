//! Every way to read: one function reads a counter by the way it is told, and says who served it.
//!
//! Used by the checker's sessions. A value comes as text or as eight bytes, as was asked for; the proxy's own account of the
//! read is taken before anything else is sent.

use super::counters::{Counter, Kind};
use crate::client::{Answer, Client, Failed};
use crate::setup::Last;

/// A way to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ReadPath {
    Aggregate,
    AggregateExtended,
    AggregateText,
    AggregateBinary,
    Plain,
    PlainBinary,
    View,
    Join,
    Slow,
    EarlyAggregate,
    EarlyPlain,
    Pipeline,
    InTransaction,
    Cursor,
}

impl ReadPath {
    pub const ALL: [Self; 14] = [
        Self::Aggregate,
        Self::AggregateExtended,
        Self::AggregateText,
        Self::AggregateBinary,
        Self::Plain,
        Self::PlainBinary,
        Self::View,
        Self::Join,
        Self::Slow,
        Self::EarlyAggregate,
        Self::EarlyPlain,
        Self::Pipeline,
        Self::InTransaction,
        Self::Cursor,
    ];

    /// Does it show what PostgreSQL promises? TRUNCATE is not safe under an older snapshot: the table is then empty.
    pub fn suits(self, counter: &Counter) -> bool {
        self != Self::InTransaction || counter.kind != Kind::Wiped
    }

    /// How often it is taken, relative to the others: mostly what a cache or a replica can serve.
    pub fn weight(self) -> u32 {
        match self {
            Self::Aggregate => 30,
            Self::AggregateText | Self::AggregateBinary | Self::EarlyAggregate | Self::View => 10,
            Self::AggregateExtended | Self::Join | Self::Slow | Self::Plain | Self::PlainBinary => 6,
            Self::EarlyPlain => 4,
            Self::Pipeline => 3,
            Self::InTransaction | Self::Cursor => 2,
        }
    }
}

/// A counter as it was read.
#[derive(Debug)]
pub struct Found {
    pub value: i64,
    pub last: Last,
}

/// What a read works with.
pub struct Reader<'a> {
    pub client: &'a mut Client,
    /// What this session has prepared.
    pub prepared: &'a mut Vec<String>,
}

impl Reader<'_> {
    pub async fn read(&mut self, path: ReadPath, counter: &Counter) -> Result<Found, Failed> {
        let table = &counter.read;
        let aggregate = format!("SELECT max(n) FROM {table}");
        let plain = format!("SELECT n FROM {table} ORDER BY n DESC LIMIT 1");
        match path {
            ReadPath::Aggregate => self.simple(&aggregate).await,
            ReadPath::Plain => self.simple(&plain).await,
            ReadPath::View => self.simple(&format!("SELECT max(n) FROM {table}_view")).await,
            ReadPath::Slow => self.simple(&format!("SELECT max(n) FROM {table}_slow")).await,
            ReadPath::Join => {
                let join = format!("SELECT max(c.n) FROM {table} c JOIN labels l ON l.id = 1");
                self.simple(&join).await
            }
            ReadPath::AggregateExtended => {
                let sql = format!("{aggregate} WHERE n >= $1");
                let answer = self.client.extended(&sql, &["0"], false).await?;
                self.found(&answer, false).await
            }
            ReadPath::AggregateText => self.prepared(&format!("{aggregate} WHERE n > $1"), false).await,
            ReadPath::AggregateBinary => self.prepared(&format!("{aggregate} WHERE n > $1"), true).await,
            ReadPath::PlainBinary => {
                let sql = format!("SELECT n FROM {table} WHERE n > $1 ORDER BY n DESC LIMIT 1");
                self.prepared(&sql, true).await
            }
            ReadPath::EarlyAggregate => self.in_block("BEGIN", &[&aggregate]).await,
            ReadPath::EarlyPlain => self.in_block("BEGIN", &[&plain]).await,
            ReadPath::InTransaction => {
                self.in_block("BEGIN ISOLATION LEVEL REPEATABLE READ", &[&aggregate])
                    .await
            }
            ReadPath::Cursor => {
                let declare = format!("DECLARE c CURSOR FOR {plain}");
                self.in_block("BEGIN", &[&declare, "FETCH 1 FROM c"]).await
            }
            ReadPath::Pipeline => self.pipeline(&aggregate, &plain).await,
        }
    }

    async fn simple(&mut self, sql: &str) -> Result<Found, Failed> {
        let answer = self.client.query(sql).await?;
        self.found(&answer, false).await
    }

    async fn prepared(&mut self, sql: &str, binary: bool) -> Result<Found, Failed> {
        let name = format!("{binary} {sql}");
        if !self.prepared.contains(&name) {
            self.client.put_parse(&name, sql);
            self.prepared.push(name.clone());
        }
        let answer = self.client.prepared(&name, &["-1"], binary).await?;
        self.found(&answer, binary).await
    }

    async fn in_block(&mut self, begin: &str, statements: &[&str]) -> Result<Found, Failed> {
        self.client.query(begin).await?;
        let mut answer = Answer::default();
        for sql in statements {
            answer = self.client.query(sql).await?;
        }
        let found = self.found(&answer, false).await?;
        self.client.query("COMMIT").await?;
        Ok(found)
    }

    /// Two executions and one Sync; the lesser of both counts.
    async fn pipeline(&mut self, first: &str, second: &str) -> Result<Found, Failed> {
        for sql in [first, second] {
            self.client.put_parse("", sql);
            self.client.put_bind("", "", &[], false);
            self.client.put_execute("");
        }
        self.client.put_sync();
        let mut answer = self.client.ready().await?;
        assert_eq!(answer.rows.len(), 2, "one row of each");
        answer.rows.sort_by_key(|row| value(row[0].as_deref(), false));
        self.found(&answer, false).await
    }

    async fn found(&mut self, answer: &Answer, binary: bool) -> Result<Found, Failed> {
        let first = answer.rows.first().expect("an aggregate, or a counter's row");
        Ok(Found {
            // A table that has no row for a moment is as bad as one with an old row.
            value: value(first[0].as_deref(), binary),
            last: self.client.last().await?,
        })
    }
}

fn value(column: Option<&[u8]>, binary: bool) -> i64 {
    let Some(bytes) = column else { return -1 };
    if binary {
        return i64::from_be_bytes(bytes.try_into().expect("a bigint has eight bytes"));
    }
    let text = std::str::from_utf8(bytes).expect("digits");
    text.parse().expect("a number")
}
