//! Counters that writers only raise, in tables of every make, and what of each has been acknowledged.
//!
//! Used by the checker's sessions. Invariant: a value is drawn once, is written by one statement, and counts as acknowledged from
//! the moment its writer has heard so; whoever notes it before a read is sent may demand it of the answer.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Instant;

use tokio::sync::Mutex;

/// A value, and when it was drawn and acknowledged.
#[derive(Debug)]
struct Drawn {
    value: i64,
    why: String,
    at: Instant,
    acknowledged: Option<Instant>,
}

impl Drawn {
    fn tell(&self) -> String {
        let acknowledged = match self.acknowledged {
            Some(at) => format!("acknowledged {:?} ago", at.elapsed()),
            None => "not acknowledged".to_owned(),
        };
        let Self { value, why, at, .. } = self;
        format!("{value} by {why}, drawn {:?} ago, {acknowledged}", at.elapsed())
    }
}

/// Values whose origin is kept.
const HISTORY: usize = 6;

/// Acknowledgements that are kept with their moment: more than come while the most patient reader's bound lasts.
const LATELY: usize = 4096;

/// How a counter is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// One row, updated in place.
    Row,
    /// Rows are added.
    Log,
    /// A trigger on another table writes it.
    Audit,
    /// A foreign key's cascade writes it.
    Child,
    /// A partition's leaf is written, the parent read.
    LeafWritten,
    /// The parent is written, a leaf read.
    ParentWritten,
    /// Emptied and filled again in one transaction.
    Wiped,
}

/// One counter.
#[derive(Debug)]
pub struct Counter {
    pub kind: Kind,
    /// The relation that writers name.
    pub written: String,
    /// The relation that readers name; its column `n` holds the counter.
    pub read: String,
    /// Some of its writers do not tell what they write.
    pub has_unknown_writers: bool,
    /// Held by a writer that bears no other beside it.
    pub alone: Mutex<()>,
    drawn: AtomicI64,
    acknowledged: AtomicI64,
    /// When which value was the highest acknowledged one, for a while back.
    lately: parking_lot::Mutex<VecDeque<(Instant, i64)>>,
    /// The latest values drawn, and what for.
    history: parking_lot::Mutex<VecDeque<Drawn>>,
}

impl Counter {
    fn new(kind: Kind, written: String, read: String, has_unknown_writers: bool) -> Self {
        Self {
            kind,
            written,
            read,
            has_unknown_writers,
            alone: Mutex::default(),
            drawn: AtomicI64::new(0),
            acknowledged: AtomicI64::new(0),
            lately: parking_lot::Mutex::default(),
            history: parking_lot::Mutex::default(),
        }
    }

    /// The next value to write.
    pub fn draw(&self, why: impl Into<String>) -> i64 {
        let value = self.drawn.fetch_add(1, Ordering::SeqCst) + 1;
        let mut history = self.history.lock();
        if history.len() == HISTORY {
            history.pop_front();
        }
        history.push_back(Drawn {
            value,
            why: why.into(),
            at: Instant::now(),
            acknowledged: None,
        });
        value
    }

    /// The latest values, for who has to find out what went wrong.
    pub fn history(&self) -> String {
        let told: Vec<String> = self.history.lock().iter().map(Drawn::tell).collect();
        told.join(", ")
    }

    /// Its writer has heard that this value is committed.
    pub fn acknowledge(&self, value: i64) {
        let highest = self.acknowledged.fetch_max(value, Ordering::SeqCst).max(value);
        {
            let mut lately = self.lately.lock();
            if lately.len() == LATELY {
                lately.pop_front();
            }
            lately.push_back((Instant::now(), highest));
        }
        let mut history = self.history.lock();
        if let Some(drawn) = history.iter_mut().find(|drawn| drawn.value == value) {
            drawn.acknowledged = Some(Instant::now());
        }
    }

    /// What a read that is sent from now on must show at least.
    pub fn acknowledged(&self) -> i64 {
        self.acknowledged.load(Ordering::SeqCst)
    }

    /// What a read must show at least that may miss what was acknowledged after that moment.
    pub fn acknowledged_before(&self, at: Instant) -> i64 {
        let lately = self.lately.lock();
        let before = lately.iter().rev().find(|(acknowledged, _)| *acknowledged <= at);
        before.map_or(0, |(_, value)| *value)
    }
}

/// All counters of so many families. Those of the first have only writers whose tables are known beforehand.
pub fn counters(families: usize) -> Vec<Counter> {
    let of = |family: usize| {
        let mine = |kind, written: &str, read: &str, unknown| {
            let name = |part: &str| part.replace('#', &family.to_string());
            Counter::new(kind, name(written), name(read), unknown)
        };
        [
            mine(Kind::Row, "row_#", "row_#", family > 0),
            mine(Kind::Log, "log_#", "log_#", false),
            mine(Kind::Audit, "source_#", "audit_#", true),
            mine(Kind::Child, "parent_#", "child_#", false),
            mine(Kind::LeafWritten, "parts_#_a", "parts_#", false),
            mine(Kind::ParentWritten, "pieces_#", "pieces_#_b", false),
            mine(Kind::Wiped, "wiped_#", "wiped_#", true),
        ]
    };
    (0..families).flat_map(of).collect()
}

/// The statements that make their tables, views and functions.
pub fn schema(families: usize) -> Vec<String> {
    let mut all = vec![
        "CREATE TABLE labels (id int PRIMARY KEY)".to_owned(),
        "INSERT INTO labels VALUES (1)".to_owned(),
    ];
    for family in 0..families {
        let statements = FAMILY
            .split(";;")
            .map(|sql| sql.trim().replace('#', &family.to_string()));
        all.extend(statements);
    }
    for counter in counters(families) {
        let read = counter.read;
        let columns = if counter.kind == Kind::Row { "id, n" } else { "n" };
        all.push(format!("CREATE VIEW {read}_view AS SELECT {columns} FROM {read}"));
        // Slow enough for a write to be acknowledged while it runs.
        all.push(format!(
            "CREATE VIEW {read}_slow AS SELECT r.n FROM {read} r, \
             (SELECT count(*) AS many FROM generate_series(1, 40000)) g WHERE g.many > 0"
        ));
    }
    all
}

const FAMILY: &str = "
CREATE TABLE row_# (id int PRIMARY KEY, n bigint NOT NULL) ;;
INSERT INTO row_# VALUES (1, 0) ;;
CREATE FUNCTION raise_row_#(v bigint) RETURNS bigint LANGUAGE sql AS
    'UPDATE row_# SET n = greatest(n, v) WHERE id = 1 RETURNING n' ;;
CREATE PROCEDURE put_row_#(v bigint) LANGUAGE plpgsql AS
    'BEGIN UPDATE row_# SET n = greatest(n, v) WHERE id = 1; COMMIT; PERFORM 1; END' ;;
CREATE TABLE log_# (n bigint NOT NULL) ;;
CREATE INDEX ON log_# (n) ;;
INSERT INTO log_# VALUES (0) ;;
CREATE TABLE audit_# (n bigint NOT NULL) ;;
INSERT INTO audit_# VALUES (0) ;;
CREATE TABLE source_# (n bigint NOT NULL) ;;
INSERT INTO source_# VALUES (0) ;;
CREATE FUNCTION audit_source_#() RETURNS trigger LANGUAGE plpgsql AS
    'BEGIN UPDATE audit_# SET n = greatest(n, NEW.n); RETURN NULL; END' ;;
CREATE TRIGGER audit AFTER UPDATE ON source_# FOR EACH ROW EXECUTE FUNCTION audit_source_#() ;;
CREATE TABLE parent_# (id bigint PRIMARY KEY) ;;
INSERT INTO parent_# VALUES (0) ;;
CREATE TABLE child_# (n bigint NOT NULL REFERENCES parent_# ON UPDATE CASCADE) ;;
INSERT INTO child_# VALUES (0) ;;
CREATE TABLE parts_# (part int NOT NULL, n bigint NOT NULL) PARTITION BY LIST (part) ;;
CREATE TABLE parts_#_a PARTITION OF parts_# FOR VALUES IN (1) ;;
INSERT INTO parts_# VALUES (1, 0) ;;
CREATE TABLE pieces_# (part int NOT NULL, n bigint NOT NULL) PARTITION BY LIST (part) ;;
CREATE TABLE pieces_#_b PARTITION OF pieces_# FOR VALUES IN (2) ;;
INSERT INTO pieces_# VALUES (2, 0) ;;
CREATE TABLE wiped_# (n bigint NOT NULL) ;;
INSERT INTO wiped_# VALUES (0)";
