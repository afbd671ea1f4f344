//! The life of a write: announced before it is sent, known to the clocks before it is acknowledged, landed when its unit ends.
//!
//! Called by `perform` and `exchange`. Invariants: what a transaction has written is announced when something that can commit
//! it is sent; a commit whose connection was lost stays in flight until its backend is gone from the server. It does not decide
//! what a statement writes.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::effects::calls_unknown;
use super::held::Held;
use super::perform::{Messages, Work};
use super::run::Session;
use super::statements::Serial;
use crate::catalog::verdict::{Verdict, Why, WriteSet};
use crate::freshness::database::{Announced, Writes};
use crate::freshness::withheld::Withheld;
use crate::protocol::backend::Status;
use crate::sql::statement::Kind;

/// Longest wait for tables to leave the publication.
const WITHHOLD_LIMIT: Duration = Duration::from_secs(3);
/// Pause between two looks for the backend of a lost connection.
const LOOK_PAUSE: Duration = Duration::from_millis(200);

/// Writes on their way.
#[derive(Debug, Default)]
pub struct Pending {
    /// Of the open transaction, whether announced or not.
    transaction: Option<Writes>,
    announced: Vec<(Announced, Writes)>,
    acknowledged: bool,
    /// Tables are kept out of the publication until the transaction ends.
    withheld: Option<Withheld>,
    /// The oldest catalog generation under which a write of these was judged.
    judged: Option<u64>,
    /// The latest unit ran code that nobody can see.
    hides_code: bool,
    /// The open transaction may have changed the catalog, when this statement was the newest.
    changed: Option<Serial>,
    /// How often transactions of the session may have changed the catalog.
    changes: u64,
}

impl Pending {
    /// Nothing is on its way, and no transaction has written.
    pub fn is_empty(&self) -> bool {
        self.transaction.is_none() && self.announced.is_empty()
    }

    /// Where the open transaction may have changed the catalog, the statement that was the newest when it last did.
    pub(super) fn changed(&self) -> Option<Serial> {
        self.changed
    }

    /// The number of that change in the session.
    pub(super) fn changes(&self) -> u64 {
        self.changes
    }

    fn change(&mut self, newest: Serial) {
        self.changed = Some(newest);
        self.changes += 1;
    }
}

impl Session {
    /// Announces what a unit with these verdicts may commit. `in_block`: a transaction block is open on the server.
    pub(super) fn announce(&mut self, verdicts: &[Arc<Verdict>], in_block: bool) {
        let sets = verdicts.iter().filter_map(|verdict| writes(verdict));
        let unit = sets.reduce(Writes::and);
        if unit.is_some() {
            let generations = verdicts.iter().map(|verdict| verdict.generation);
            self.pending.judged = generations.chain(self.pending.judged).min();
        }
        if unit.as_ref().is_some_and(Writes::change_catalog) {
            self.pending.change(self.statements.newest());
        }
        self.pending.hides_code = unit.as_ref().is_some_and(Writes::hide_code);
        let statements = || verdicts.iter().flat_map(|verdict| &verdict.script.statements);
        let commits = !in_block
            || verdicts.iter().any(|verdict| verdict.script.statements.len() > 1)
            || unit.as_ref().is_some_and(Writes::is_unknown)
            || statements().any(|statement| can_commit(&statement.kind));
        let before = self.pending.transaction.take();
        let all = match (before, unit) {
            (Some(before), Some(unit)) => Some(before.and(unit)),
            (before, unit) => before.or(unit),
        };
        // A unit that runs outside a block may open one and leave it open.
        self.pending.transaction.clone_from(&all);
        if let Some(writes) = all.filter(|_| commits) {
            // What an earlier unit of the same implicit transaction completed is still to be committed.
            self.pending.acknowledged &= !self.pending.announced.is_empty();
            self.pending
                .announced
                .push((self.database.announce(&writes), writes));
        }
    }

    /// A unit is about to be sent: hidden code that ran before it, in its transaction, may have changed the catalog.
    pub(super) fn note_hidden_code(&mut self) {
        if std::mem::take(&mut self.pending.hides_code) {
            self.pending.change(self.statements.newest());
        }
    }

    /// What is acknowledged for these writes. Under another catalog than they were judged by, such as one with a new trigger, they
    /// may have been anything.
    fn as_committed(&self, writes: &Writes) -> Writes {
        let generation = self.database.generation();
        if self.pending.judged.is_none_or(|judged| judged == generation) {
            writes.clone()
        } else {
            writes.clone().widened()
        }
    }

    /// A CommandComplete came: what is announced may be committed. Called before it is forwarded.
    pub(super) fn acknowledge(&mut self, tag: &[u8]) {
        let rolled_back = tag.starts_with(b"ROLLBACK");
        for (_, writes) in &self.pending.announced {
            if !rolled_back || writes.is_unknown() {
                let writes = self.as_committed(writes);
                self.proxy.acknowledge(&self.database, &writes);
                self.pending.acknowledged = true;
            }
        }
    }

    /// ReadyForQuery came: the unit's commits, if any, have happened. Called before it is forwarded.
    pub(super) fn ready(&mut self, held: &mut Held) {
        let completed = self.pending.acknowledged && self.database.guards().ready;
        for (announced, writes) in std::mem::take(&mut self.pending.announced) {
            // An error took back what is known to be written; a procedure may have committed before it.
            if completed || writes.is_unknown() {
                let writes = self.as_committed(&writes);
                self.proxy.acknowledge(&self.database, &writes);
            }
            self.database.land(announced);
        }
        if held.status == Status::Idle {
            self.pending.withheld = None;
            self.pending.transaction = None;
            self.pending.judged = None;
            self.pending.hides_code = false;
            self.pending.changed = None;
            held.lease.prepared.settle();
        }
    }

    /// Before what may take the identity from a table is sent, tables leave the publication: with it, UPDATE would be refused from
    /// then on, in the very transaction. They stay away until that has ended.
    pub(super) async fn withhold(&mut self) {
        let withheld = self.database.stream_withhold();
        if timeout(WITHHOLD_LIMIT, withheld.granted()).await.is_err() {
            tracing::warn!(database = %self.database.name, "tables did not leave the publication in time for a change of the schema");
        }
        self.pending.withheld = Some(withheld);
    }

    /// Is that still to be done for this unit?
    pub(super) fn must_withhold(&self, work: &Work<'_>) -> bool {
        let text = match &work.messages {
            Messages::Query(sql) => &sql[..],
            Messages::Function(_) | Messages::Batch(_) => b"",
        };
        let scripts = work.verdicts.iter().map(|verdict| &verdict.script);
        let mut statements = scripts.flat_map(|script| &script.statements);
        statements.any(|statement| may_alter(&statement.kind, text))
            && self.pending.withheld.is_none()
            && self.database.stream_is_open()
    }

    /// The connection was lost: a commit that was announced on it is watched until its backend is gone.
    pub(super) fn lose_writes(&mut self, held: &Held) {
        self.pending.transaction = None;
        self.pending.hides_code = false;
        self.pending.changed = None;
        let withheld = self.pending.withheld.take();
        let announced = std::mem::take(&mut self.pending.announced);
        if announced.is_empty() {
            return;
        }
        let (proxy, database) = (Arc::clone(&self.proxy), Arc::clone(&self.database));
        let lost = Lost {
            place: self.place.clone(),
            process: held.lease.process,
            backend_start: held.lease.login.backend_start.clone(),
            timeline: proxy.cluster.view().timeline,
        };
        self.proxy.tasks.spawn(async move {
            // Counts as committed from now on, and again when it is certain that nothing more can come.
            for (_, writes) in &announced {
                proxy.acknowledge(&database, writes);
            }
            tokio::select! {
                () = lost.gone(&proxy) => {}
                // Nobody is served any more.
                () = proxy.stop.cancelled() => {}
            }
            for (announced, writes) in announced {
                proxy.acknowledge(&database, &writes);
                database.land(announced);
            }
            drop(withheld);
        });
    }
}

/// A backend whose connection was lost.
struct Lost {
    place: super::acquire::Place,
    process: i32,
    backend_start: Box<str>,
    timeline: u32,
}

impl Lost {
    /// Waits until the server no longer has the backend, or another one is the primary. That the control connection was lost too,
    /// which begins a new era, says nothing of the backend.
    async fn gone(&self, proxy: &super::proxy::Proxy) {
        let sql = format!(
            "SELECT 1 FROM pg_catalog.pg_stat_activity a WHERE a.pid OPERATOR(pg_catalog.=) {} AND {} IN ('', \
             pg_catalog.to_char(pg_catalog.timezone('UTC', a.backend_start), 'YYYY-MM-DD HH24:MI:SS.US'))",
            self.process,
            crate::sql::ident::quote_literal(&self.backend_start)
        );
        while proxy.cluster.view().timeline == self.timeline {
            if let Ok(mut held) = self.place.primary(proxy).await
                && let Ok(rows) = held.ask(&sql).await
                && rows.is_empty()
            {
                return;
            }
            tokio::time::sleep(LOOK_PAUSE).await;
        }
    }
}

/// What a text may write.
fn writes(verdict: &Verdict) -> Option<Writes> {
    let writes = Writes::of(&verdict.writes)?;
    let mut statements = verdict.script.statements.iter();
    let plain = !statements.any(|statement| hides_its_body(&statement.kind) || calls_unknown(statement));
    Some(match verdict.writes {
        WriteSet::Unknown(Why::NoCatalog) if plain => writes.without_names(),
        WriteSet::Unknown(Why::UnknownRelation) if plain => writes.of_unknown_names(),
        _ => writes,
    })
}

/// Can it commit the transaction that it stands in?
fn can_commit(kind: &Kind) -> bool {
    matches!(
        kind,
        Kind::Commit { .. } | Kind::Rollback { .. } | Kind::PrepareTransaction
    ) || hides_its_body(kind)
}

/// Can it change what the rows of a table are identified by? A procedure or a function could, too, but they are called for other
/// things all the time; what they change the stream sees when it looks again. Of a text that was not read, such as a long list
/// of values, the words tell.
fn may_alter(kind: &Kind, text: &[u8]) -> bool {
    let says = |word: &[u8]| {
        let mut windows = text.windows(word.len());
        windows.any(|window| window.eq_ignore_ascii_case(word))
    };
    match kind {
        Kind::Ddl { global } => !global,
        Kind::Do => true,
        Kind::Other(word) if word.is_empty() => says(b"alter") || says(b"drop"),
        Kind::Other(word) => matches!(&**word, "alter" | "create" | "drop"),
        _ => false,
    }
}

/// Does it do what its text does not show?
fn hides_its_body(kind: &Kind) -> bool {
    matches!(
        kind,
        Kind::CommitPrepared | Kind::Call | Kind::Do | Kind::Execute(_) | Kind::Other(_)
    )
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::catalog::judge_without_catalog;
    use crate::sql::analyze;

    #[test]
    fn what_may_take_an_identity_is_told_by_kind_or_by_word() {
        let may = |sql: &str| {
            let script = analyze(sql.as_bytes()).expect("short");
            let mut statements = script.statements.iter();
            statements.any(|statement| may_alter(&statement.kind, sql.as_bytes()))
        };
        for sql in [
            "ALTER TABLE t DROP CONSTRAINT t_pkey",
            "DROP INDEX one",
            "CREATE TABLE t_2 PARTITION OF t FOR VALUES IN (2)",
            "DO 'BEGIN END'",
            "SELECT 1; ALTER TABLE t REPLICA IDENTITY NOTHING",
        ] {
            assert!(may(sql), "{sql}");
        }
        for sql in [
            "SELECT 1",
            "INSERT INTO t VALUES ('alter')",
            "CALL p()",
            "VACUUM t",
        ] {
            assert!(!may(sql), "{sql}");
        }
        let unread = Kind::Other("".into());
        assert!(may_alter(&unread, b"...; Alter Table t ..."));
        assert!(!may_alter(&unread, b"INSERT INTO t VALUES (1), (2), ..."));
        assert!(!may_alter(&Kind::Other("load".into()), b"LOAD 'alter'"));
    }

    #[test]
    fn without_a_catalog_plain_texts_write_rows_and_others_anything() {
        let nameless = |sql: &str| {
            let script = analyze(sql.as_bytes()).expect("short");
            let writes = writes(&judge_without_catalog(Arc::new(script))).expect("it may write");
            writes == writes.clone().without_names()
        };
        assert!(nameless("SELECT n FROM t"));
        assert!(nameless("UPDATE t SET n = greatest(n, 1) WHERE id = 1"));
        assert!(nameless(
            "BEGIN; UPDATE t SET n = greatest(n, 5) WHERE id = 1; COMMIT; SELECT count(*) FROM generate_series(1, 20000)"
        ));
        assert!(!nameless("SELECT unknown(n) FROM t"));
        assert!(!nameless("UPDATE t SET n = 1; CALL p()"));
        assert!(!nameless("DO 'BEGIN END'"));
    }
}
