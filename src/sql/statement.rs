//! What a statement says about itself: the facts that can be read off its text alone.
//!
//! Made by `sql::analyze`, read by `catalog::judge`, which adds what only the catalog knows, and by the session, which
//! follows transactions and settings. Invariant: a fact that the text does not settle is stated as doubt
//! (`Kind::Other`, a `Doubt`), never left out. No name is resolved here: two schemas may hold one name.

use std::fmt;

/// An identifier path as written, folded as PostgreSQL folds it: unquoted parts in lower case, quoted parts verbatim.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name {
    /// Schema, where one was written.
    pub schema: Option<Box<str>>,
    /// Last part of the path.
    pub name: Box<str>,
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(schema) = &self.schema {
            write!(f, "{schema}.")?;
        }
        f.write_str(&self.name)
    }
}

/// All that one simple query, or one Parse message, holds: the statements in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Script {
    /// Empty for a text of white space and comments only. A text that cannot be split is one `Kind::Other`.
    pub statements: Vec<Statement>,
    /// Hints from comments of the form `/* pgladder: key=value … */`, for the whole text.
    pub hints: Hints,
}

/// One statement's facts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// What it is.
    pub kind: Kind,
    /// Relations that it reads, at any depth: FROM, joins, sub-queries, CTE bodies, USING, and the targets of
    /// UPDATE and DELETE. Names that stand for a CTE in their scope are left out. Sorted, no duplicates.
    pub reads: Vec<Name>,
    /// Relations that its text writes: INSERT, UPDATE, DELETE, MERGE, TRUNCATE, COPY FROM, REFRESH, also inside CTEs.
    pub writes: Vec<Name>,
    /// Functions called anywhere, keyword functions (`current_user`) under their keyword. Sorted, no duplicates.
    pub calls: Vec<Call>,
    /// Type names of casts and typed literals, other than pg_catalog's well-known ones.
    pub types: Vec<Name>,
    /// Operators that are not pg_catalog's well-known ones, such as an extension's; an operator is a function call.
    pub operators: Vec<Box<str>>,
    /// Columns, by name alone, whose values are turned into dates or times. A text column among them reads the clock, because
    /// it may hold the word `now`. Sorted.
    pub time_columns: Vec<Box<str>>,
    /// It aggregates: GROUP BY, DISTINCT, HAVING, a window, or an aggregate function of pg_catalog.
    pub aggregates: bool,
    /// Why its answer may not be reproducible, or why it is more than a plain read; empty for a plain read.
    pub doubts: Vec<Doubt>,
}

/// A function call.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Call {
    /// Name as written.
    pub name: Name,
    /// Number of arguments; `count(*)` has none.
    pub args: u16,
}

/// Something in a statement's text that forbids a replica, the cache, or both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Doubt {
    /// FOR UPDATE, FOR NO KEY UPDATE, FOR SHARE or FOR KEY SHARE at any depth.
    LocksRows,
    /// SELECT INTO, or CREATE TABLE AS by another name.
    SelectsInto,
    /// INSERT, UPDATE, DELETE or MERGE inside WITH.
    WritesInCte,
    /// A literal holding now, today, tomorrow or yesterday in any case, or a text put together by the query that is turned
    /// into a date or time and may say such a word: it reads the clock.
    ClockWord,
    /// ctid, xmin, xmax, cmin, cmax or tableoid.
    SystemColumn,
    /// A column is set to its DEFAULT by other than INSERT: what the default calls is called.
    SetsDefault,
    /// TABLESAMPLE: another sample each time.
    Sample,
    /// An unquoted relation named `only`, or ONLY misread as one: the parser cannot tell which table is read.
    OnlyName,
    /// A construct that the parser accepts but whose relations or functions cannot be listed with certainty.
    Opaque,
}

/// What kind of statement it is. A variant for each thing that a caller does differently.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// White space and comments.
    Empty,
    /// SELECT, VALUES, TABLE; with writing CTEs the doubt says so.
    Select,
    /// INSERT.
    Insert,
    /// UPDATE.
    Update,
    /// DELETE.
    Delete,
    /// MERGE.
    Merge,
    /// TRUNCATE.
    Truncate,
    /// COPY … FROM.
    CopyIn,
    /// COPY … TO, of a table or a query.
    CopyOut,
    /// EXPLAIN; with ANALYZE the inner statement runs. Its facts are the inner statement's.
    Explain {
        /// ANALYZE is on.
        analyze: bool,
    },
    /// BEGIN or START TRANSACTION.
    Begin(TransactionModes),
    /// COMMIT or END.
    Commit {
        /// AND CHAIN.
        chain: bool,
    },
    /// ROLLBACK or ABORT.
    Rollback {
        /// AND CHAIN.
        chain: bool,
    },
    /// PREPARE TRANSACTION.
    PrepareTransaction,
    /// COMMIT PREPARED: its writes are another session's.
    CommitPrepared,
    /// ROLLBACK PREPARED.
    RollbackPrepared,
    /// SAVEPOINT.
    Savepoint(Box<str>),
    /// RELEASE.
    Release(Box<str>),
    /// ROLLBACK TO.
    RollbackTo(Box<str>),
    /// SET of a run-time parameter (also TIME ZONE, NAMES, ROLE, SESSION AUTHORIZATION under their parameter's name).
    Set {
        /// LOCAL: until the end of the transaction.
        local: bool,
        /// The parameter, in lower case: `timezone`, `client_encoding`, `role`, `session_authorization`, `a.b`.
        name: Box<str>,
        /// The value where it is one plain constant (`None` for DEFAULT, lists and expressions).
        value: Option<Box<str>>,
    },
    /// SET TRANSACTION.
    SetTransaction(TransactionModes),
    /// SET SESSION CHARACTERISTICS AS TRANSACTION.
    SetCharacteristics(TransactionModes),
    /// SET CONSTRAINTS.
    SetConstraints,
    /// RESET of one parameter, or of all (`None`).
    Reset(Option<Box<str>>),
    /// SHOW of one parameter in lower case, or `all`.
    Show(Box<str>),
    /// DISCARD.
    Discard(Discard),
    /// SQL-level PREPARE; its facts are the inner statement's.
    Prepare(Box<str>),
    /// SQL-level EXECUTE.
    Execute(Box<str>),
    /// DEALLOCATE of one statement, or of all (`None`).
    Deallocate(Option<Box<str>>),
    /// DECLARE CURSOR; its facts are the query's.
    Declare {
        /// WITH HOLD: it outlives the transaction.
        hold: bool,
    },
    /// FETCH or MOVE.
    Fetch,
    /// CLOSE of a cursor.
    CloseCursor,
    /// LISTEN.
    Listen,
    /// UNLISTEN.
    Unlisten,
    /// NOTIFY.
    Notify,
    /// LOCK TABLE.
    Lock,
    /// CREATE TABLE/VIEW/SEQUENCE … TEMP, or SELECT INTO TEMP: known to this session alone.
    CreateTemp,
    /// Any other CREATE, ALTER, DROP, COMMENT, GRANT, REVOKE, REASSIGN, SECURITY LABEL, IMPORT.
    Ddl {
        /// It concerns objects of all databases: roles, databases, tablespaces, parameters.
        global: bool,
    },
    /// REFRESH MATERIALIZED VIEW: a write of that view.
    RefreshView,
    /// VACUUM, ANALYZE, CHECKPOINT, CLUSTER, REINDEX: changes no rows that a read can see.
    Maintenance,
    /// CALL.
    Call,
    /// DO.
    Do,
    /// LOAD, or anything that the parser does not know; the first keyword in lower case says what it was.
    Other(Box<str>),
}

/// Transaction modes written in BEGIN, START TRANSACTION or SET TRANSACTION; `None` where not written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TransactionModes {
    /// ISOLATION LEVEL.
    pub isolation: Option<Isolation>,
    /// READ ONLY (true) or READ WRITE (false).
    pub read_only: Option<bool>,
    /// DEFERRABLE (true) or NOT DEFERRABLE (false).
    pub deferrable: Option<bool>,
    /// SET TRANSACTION SNAPSHOT.
    pub snapshot: bool,
}

/// Isolation level, as PostgreSQL implements it: READ UNCOMMITTED is READ COMMITTED.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Isolation {
    /// READ COMMITTED, and READ UNCOMMITTED.
    ReadCommitted,
    /// REPEATABLE READ.
    RepeatableRead,
    /// SERIALIZABLE.
    Serializable,
}

/// DISCARD's object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Discard {
    /// ALL.
    All,
    /// PLANS.
    Plans,
    /// SEQUENCES.
    Sequences,
    /// TEMP.
    Temp,
}

/// Hints from comments.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hints {
    /// `route=primary` or `route=replica`.
    pub route: Option<RouteHint>,
    /// `cache=off` (false) or `cache=on` (true).
    pub cache: Option<bool>,
    /// `freshness=…`, its text as written; the session parses it.
    pub freshness: Option<Box<str>>,
    /// Keys or values that are not known, as written: answered with a NOTICE.
    pub unknown: Vec<Box<str>>,
}

/// Where a hint asks a read to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RouteHint {
    /// The primary.
    Primary,
    /// A replica, if one may serve it under the freshness level.
    Replica,
}
