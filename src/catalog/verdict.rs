//! What a statement does, as far as its text and the catalog tell: the verdict that routing, cache and fences rest on.
//!
//! Made by `Catalog::judge` under one search path and one catalog generation, and void under any other. Invariant:
//! what is not proven is `Unknown`, with the reason; sets are closed over views, partitions, inheritance and cascades.

use std::sync::Arc;

use super::remembered::Remembered;
use crate::sql::statement::{Script, Statement};

/// A table's `pg_class.oid`.
pub type Oid = u32;

/// The judgement on a whole text (a simple query, or a prepared statement).
#[derive(Debug, Clone)]
pub struct Verdict {
    /// The facts it rests on.
    pub script: Arc<Script>,
    /// Catalog generation under which names were resolved.
    pub generation: u64,
    /// Tables that it reads, closed over views, partitions and inheritance. Sorted.
    pub reads: ReadSet,
    /// Tables that it may change once it commits, closed over cascades, partitions and inheritance. Sorted.
    pub writes: WriteSet,
    /// May it run on a replica?
    pub replica: Result<(), Why>,
    /// May its answer be cached (leaving out what the session, the rules and the freshness level add)?
    pub cache: Result<(), Why>,
    /// It is an aggregation, as `cache.what = "aggregates"` means it.
    pub aggregates: bool,
    /// Its answer depends on settings of the session that are in every cache key (`TimeZone`, `DateStyle`, …).
    /// Kept for `explain`; the key always carries them.
    pub reads_settings: bool,
    /// What it may leave behind in the session that its text does not tell (a user function, DO, CALL, a user trigger).
    pub leaves_state: bool,
    /// The first cache rule about its tables or its shape.
    pub ruled: Remembered,
    /// It may draw a number from a sequence: by a call, a default, an identity, or what cannot be told.
    pub may_draw: bool,
}

impl Verdict {
    /// The only statement, when the text holds exactly one.
    pub fn single(&self) -> Option<&Statement> {
        match self.script.statements.as_slice() {
            [one] => Some(one),
            _ => None,
        }
    }
}

/// Tables that a statement reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReadSet {
    /// These, and no others. Empty for `SELECT 1`.
    Tables(Box<[Oid]>),
    /// It cannot be told.
    Unknown(Why),
}

/// What a statement may change when it commits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WriteSet {
    /// Nothing.
    None,
    /// Rows of these tables.
    Tables(Box<[Oid]>),
    /// It cannot be told.
    Unknown(Why),
    /// The catalog: names, privileges, functions, policies. Counts as everything.
    Catalog {
        /// Objects of all databases, such as roles.
        global: bool,
    },
}

macro_rules! whys {
    ($(#[$about:meta])* pub enum Why { $($(#[$doc:meta])* $name:ident,)+ }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Why {
            $($(#[$doc])* $name,)+
        }

        impl Why {
            /// All of them, in their order.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];
        }
    };
}

whys! {
    /// Why a statement is not a plain, reproducible read. One word for logs, `explain`, metrics and tests alike.
    pub enum Why {
        /// INSERT, UPDATE, DELETE, MERGE, TRUNCATE, COPY FROM, REFRESH.
        Writes,
        /// A data-modifying CTE.
        WritesInCte,
        /// FOR UPDATE and its kin, LOCK, an advisory lock.
        Locks,
        /// SELECT INTO, CREATE TABLE AS.
        SelectsInto,
        /// DDL, GRANT, REVOKE and the like.
        ChangesCatalog,
        /// BEGIN, COMMIT, SAVEPOINT and the like.
        ControlsTransaction,
        /// SET, RESET, LISTEN, PREPARE, DECLARE, DISCARD: state of the session.
        ChangesSession,
        /// DO, CALL, EXECUTE: a body that the text does not show.
        HiddenBody,
        /// VACUUM, ANALYZE and the like.
        Maintenance,
        /// COPY TO: streamed, never cached.
        Copies,
        /// EXPLAIN.
        Explains,
        /// SHOW of a parameter: of the server connection's session.
        ShowsSetting,
        /// More than one statement in one text.
        ManyStatements,
        /// The parser does not know it.
        Unparsed,
        /// Longer than the classifier reads (32 KiB).
        TooLong,
        /// `standard_conforming_strings` is off: it is lexed by other rules.
        OddStrings,
        /// A name that the catalog does not hold, or that cannot be resolved with certainty.
        UnknownRelation,
        /// No catalog snapshot of this database yet, or an older one than the last DDL.
        NoCatalog,
        /// A function outside the list of safe ones.
        UnknownFunction,
        /// A cast to, or an operator of, a type that is not a built-in one.
        UnknownOperator,
        /// A function or literal that reads the clock.
        ReadsClock,
        /// A function that tells of the session, the backend or the node.
        ReadsSession,
        /// A function whose result is not determined: `random()`, TABLESAMPLE.
        Volatile,
        /// System columns such as ctid.
        SystemColumn,
        /// System catalogs, `information_schema`, statistics views.
        SystemCatalog,
        /// A sequence, read or advanced.
        Sequence,
        /// A temporary table, or a session that has a temporary schema.
        Temporary,
        /// An unlogged table: empty on replicas.
        Unlogged,
        /// A foreign table: its rows are elsewhere.
        Foreign,
        /// Row security whose policies read settings or call functions.
        RowSecurity,
        /// A user trigger, rule, or an expression that calls a user function, on a table that is written.
        Trigger,
        /// ONLY, or a table named so.
        OnlyName,
        /// A construct whose relations cannot be listed with certainty.
        Opaque,
        /// Nothing to cache: no rows, no tables.
        Trivial,
    }
}
