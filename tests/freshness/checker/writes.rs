//! Every way to write: one function raises a counter by the way it is told, and records what was acknowledged.
//!
//! Used by the checker's sessions. Invariant: a value counts as acknowledged at the very message that says so, which for a text
//! that ends its own transaction is a CommandComplete in the middle of the answer.

use super::counters::{Counter, Kind};
use super::progress::Progress;
use crate::client::{Client, Failed, Heard};

/// A way to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum WritePath {
    UpdateSimple,
    UpdateExtended,
    UpdatePrepared,
    Transaction,
    BegunTogether,
    InCte,
    Upsert,
    Merge,
    CopyIn,
    SqlFunction,
    Procedure,
    Do,
    Trigger,
    Cascade,
    Pipeline,
    TwoInOneText,
    ManyStatements,
    SqlPrepare,
    Leaf,
    Parent,
    TruncateInsert,
    TwoPhase,
    ThroughView,
    ReadSlowly,
}

impl WritePath {
    pub const ALL: [Self; 24] = [
        Self::UpdateSimple,
        Self::UpdateExtended,
        Self::UpdatePrepared,
        Self::Transaction,
        Self::BegunTogether,
        Self::InCte,
        Self::Upsert,
        Self::Merge,
        Self::CopyIn,
        Self::SqlFunction,
        Self::Procedure,
        Self::Do,
        Self::Trigger,
        Self::Cascade,
        Self::Pipeline,
        Self::TwoInOneText,
        Self::ManyStatements,
        Self::SqlPrepare,
        Self::Leaf,
        Self::Parent,
        Self::TruncateInsert,
        Self::TwoPhase,
        Self::ThroughView,
        Self::ReadSlowly,
    ];

    /// Does a counter take writes of this way?
    pub fn suits(self, counter: &Counter) -> bool {
        let kind = match self {
            Self::CopyIn => Kind::Log,
            Self::Trigger => Kind::Audit,
            Self::Cascade => Kind::Child,
            Self::Leaf => Kind::LeafWritten,
            Self::Parent => Kind::ParentWritten,
            Self::TruncateInsert => Kind::Wiped,
            _ => Kind::Row,
        };
        kind == counter.kind && (counter.has_unknown_writers || !self.is_unknown())
    }

    /// It costs the whole cache, and is taken rarely: an unknown write, or one that changes the catalog's fingerprint.
    pub fn is_rare(self) -> bool {
        self.is_unknown() || self == Self::TruncateInsert
    }

    /// Its tables cannot be told beforehand: it counts as a write of everything. So does what names a table after a COMMIT in
    /// the same text, where the search path may be another.
    pub fn is_unknown(self) -> bool {
        matches!(
            self,
            Self::SqlFunction
                | Self::Procedure
                | Self::Do
                | Self::Trigger
                | Self::SqlPrepare
                | Self::TwoPhase
                | Self::ManyStatements
        )
    }
}

/// What a write works with.
pub struct Writer<'a> {
    pub client: &'a mut Client,
    /// The UPDATE of each counter that this session has prepared.
    pub prepared: &'a mut Vec<String>,
    pub progress: &'a Progress,
}

impl Writer<'_> {
    /// Raises the counter, and by a pipeline also another one of its kind.
    pub async fn write(&mut self, path: WritePath, counter: &Counter, other: &Counter) -> Result<(), Failed> {
        let _alone = match path {
            WritePath::TruncateInsert => Some(counter.alone.lock().await),
            _ => None,
        };
        let value = counter.draw(format!("{path:?}"));
        match path {
            WritePath::Pipeline => return self.pipeline(counter, value, other).await,
            WritePath::ManyStatements => return self.many_statements(counter, value).await,
            _ => {}
        }
        match path {
            WritePath::UpdateExtended => {
                let sql = update(counter, "$1");
                self.client.extended(&sql, &[&value.to_string()], false).await?;
            }
            WritePath::UpdatePrepared => self.prepared(counter, value).await?,
            WritePath::CopyIn => {
                let sql = format!("COPY {} FROM STDIN", counter.written);
                self.client.copy(&sql, &format!("{value}\n")).await?;
            }
            WritePath::ReadSlowly => self.read_slowly(counter, value).await?,
            _ => {
                for sql in statements(path, counter, value) {
                    self.client.query(&sql).await?;
                }
            }
        }
        counter.acknowledge(value);
        Ok(())
    }

    async fn prepared(&mut self, counter: &Counter, value: i64) -> Result<(), Failed> {
        let name = format!("update_{}", counter.written);
        if !self.prepared.contains(&name) {
            self.client.put_parse(&name, &update(counter, "$1"));
            self.prepared.push(name.clone());
        }
        self.client.prepared(&name, &[&value.to_string()], false).await?;
        Ok(())
    }

    /// Two executions and one Sync: one transaction.
    async fn pipeline(&mut self, counter: &Counter, value: i64, other: &Counter) -> Result<(), Failed> {
        let mut both = vec![(counter, value)];
        if other.written != counter.written {
            both.push((other, other.draw("Pipeline")));
        }
        // One order for all, or two of them would wait for each other.
        both.sort_by(|a, b| a.0.written.cmp(&b.0.written));
        for (counter, value) in &both {
            self.client.put_parse("", &update(counter, "$1"));
            self.client.put_bind("", "", &[&value.to_string()], false);
            self.client.put_execute("");
        }
        self.client.put_sync();
        self.client.ready().await?;
        for (counter, value) in both {
            counter.acknowledge(value);
        }
        Ok(())
    }

    /// A text with a transaction of its own, after which it goes on.
    async fn many_statements(&mut self, counter: &Counter, value: i64) -> Result<(), Failed> {
        let update = update(counter, &value.to_string());
        let after = "SELECT count(*) FROM generate_series(1, 20000)";
        self.client
            .put_query(&format!("BEGIN; {update}; COMMIT; {after}"));
        self.client.send().await?;
        let mut refused = None;
        loop {
            match self.client.hear().await? {
                Heard::Complete(tag) if tag == "COMMIT" => counter.acknowledge(value),
                Heard::Refused { code, message } => refused = Some(Failed::Refused { code, message }),
                Heard::Ready => return refused.map_or(Ok(()), Err),
                _ => {}
            }
        }
    }

    /// The server commits while the client has not taken the rows of RETURNING yet: it knows nothing of the commit, and others
    /// may see it.
    async fn read_slowly(&mut self, counter: &Counter, value: i64) -> Result<(), Failed> {
        let update = update(counter, &value.to_string());
        self.client
            .put_query(&format!("{update} RETURNING repeat('x', 1000000)"));
        self.client.send().await?;
        self.progress.of_others().await;
        self.client.ready().await?;
        Ok(())
    }
}

fn update(counter: &Counter, value: &str) -> String {
    let (table, rest) = match counter.kind {
        Kind::Row => (&counter.written, " WHERE id = 1"),
        _ => (&counter.written, ""),
    };
    format!("UPDATE {table} SET n = greatest(n, {value}){rest}")
}

/// The texts of the ways that are simple queries, one after the other.
fn statements(path: WritePath, counter: &Counter, value: i64) -> Vec<String> {
    let (table, text) = (&counter.written, value.to_string());
    let update = update(counter, &text);
    let all: &[&str] = match path {
        WritePath::Transaction => &["BEGIN", &update, "COMMIT"],
        WritePath::BegunTogether => &[&format!("BEGIN; {update}"), "COMMIT"],
        WritePath::TwoInOneText => &[&format!("{update}; {update}")],
        WritePath::InCte => &[&format!("WITH done AS ({update} RETURNING n) SELECT n FROM done")],
        WritePath::Upsert => &[&format!(
            "INSERT INTO {table} AS t VALUES (1, {text}) ON CONFLICT (id) DO UPDATE SET n = greatest(t.n, excluded.n)"
        )],
        WritePath::Merge => &[&format!(
            "MERGE INTO {table} t USING (VALUES ({text})) AS s (n) ON t.id = 1 \
             WHEN MATCHED THEN UPDATE SET n = greatest(t.n, s.n)"
        )],
        WritePath::SqlFunction => &[&format!("SELECT raise_{table}({text})")],
        WritePath::Procedure => &[&format!("CALL put_{table}({text})")],
        WritePath::Do => &[&format!("DO 'BEGIN {update}; END'")],
        WritePath::Cascade => &[&format!("UPDATE {table} SET id = greatest(id, {text})")],
        WritePath::SqlPrepare => &[
            &format!("PREPARE raise (bigint) AS UPDATE {table} SET n = greatest(n, $1) WHERE id = 1"),
            &format!("EXECUTE raise({text})"),
            "DEALLOCATE raise",
        ],
        WritePath::Parent => &[&format!(
            "UPDATE {table} SET n = greatest(n, {text}) WHERE part = 2"
        )],
        WritePath::TruncateInsert => &[
            "BEGIN",
            &format!("TRUNCATE {table}"),
            &format!("INSERT INTO {table} VALUES ({text})"),
            "COMMIT",
        ],
        WritePath::TwoPhase => &[
            "BEGIN",
            &update,
            &format!("PREPARE TRANSACTION '{table} {text}'"),
            &format!("COMMIT PREPARED '{table} {text}'"),
        ],
        WritePath::ThroughView => &[&format!(
            "UPDATE {table}_view SET n = greatest(n, {text}) WHERE id = 1"
        )],
        _ => &[&update],
    };
    all.iter().map(|sql| (*sql).to_owned()).collect()
}
