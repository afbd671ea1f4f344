//! What calling functions does to the reproducibility of an answer: the one place that asks `sql::functions` for purity.
//!
//! Called by `judge` for the calls of a text and by `load` for the expressions that the catalog stores (views, policies,
//! defaults, checks). Invariant: a function that is not known to be harmless is `unknown`; a node of a stored expression
//! that this file does not know by name is `Opaque`. Stored expressions are read as node trees because built-in
//! functions such as `now()` leave no trace in `pg_depend`.

use std::collections::BTreeSet;

use super::verdict::{Oid, Why};
use crate::sql::functions::{Purity, purity};

/// OIDs below this are built in: made by initdb (`FirstNormalObjectId` of PostgreSQL's transam.h).
pub(super) const FIRST_USER_OID: Oid = 16384;

/// What an expression does, as far as replicas, cache and write sets care.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Effects {
    /// Relations that it reads.
    pub reads: BTreeSet<Oid>,
    /// It may read or write anything.
    pub unknown: Option<Why>,
    /// It must run on the primary.
    pub primary: Option<Why>,
    /// Its value must not be cached.
    pub uncached: Option<Why>,
    /// Its value depends on settings that are in every cache key.
    pub settings: bool,
    /// It may leave something in the session.
    pub leaves_state: bool,
    /// It may draw a number from a sequence.
    pub draws: bool,
    /// It aggregates.
    pub aggregates: bool,
}

impl Effects {
    /// Adds what another expression does; the first reason stays.
    pub fn add(&mut self, other: &Effects) {
        self.reads.extend(&other.reads);
        self.unknown = self.unknown.or(other.unknown);
        self.primary = self.primary.or(other.primary);
        self.uncached = self.uncached.or(other.uncached);
        self.settings |= other.settings;
        self.leaves_state |= other.leaves_state;
        self.draws |= other.draws;
        self.aggregates |= other.aggregates;
    }

    /// Adds a call of a built-in function.
    pub fn call(&mut self, name: &str, args: u16) {
        match purity(name, args) {
            Some(Purity::Immutable) => {}
            Some(Purity::SettingsOnly) => self.settings = true,
            // Any node's clock will do, but no earlier moment's.
            Some(Purity::ReadsClock) => self.uncache(Why::ReadsClock),
            Some(Purity::ReadsSession) => self.keep_on_primary(Why::ReadsSession),
            Some(Purity::Volatile) => self.keep_on_primary(Why::Volatile),
            Some(Purity::Locks) => {
                self.keep_on_primary(Why::Locks);
                self.leaves_state = true;
            }
            Some(Purity::Sequence) => {
                self.keep_on_primary(Why::Sequence);
                self.draws |= !matches!(name, "currval" | "lastval");
            }
            Some(Purity::ReadsCatalog) => self.keep_on_primary(Why::SystemCatalog),
            Some(Purity::Acts) => {
                self.keep_on_primary(Why::ChangesSession);
                self.leaves_state = true;
            }
            None => self.doubt(Why::UnknownFunction),
        }
    }

    /// It may do anything at all.
    pub fn doubt(&mut self, why: Why) {
        self.unknown.get_or_insert(why);
        self.keep_on_primary(why);
        self.leaves_state = true;
        self.draws = true;
    }

    /// The primary, and never cached.
    pub fn keep_on_primary(&mut self, why: Why) {
        self.primary.get_or_insert(why);
        self.uncache(why);
    }

    /// Never cached.
    pub fn uncache(&mut self, why: Why) {
        self.uncached.get_or_insert(why);
    }
}

/// One thing found in a stored expression's node tree.
#[derive(Debug)]
pub(super) enum Token<'a> {
    /// A node, by its label.
    Node(&'a str),
    /// A relation in a range table.
    Relation(Oid),
    /// `SQLValueFunction`: `CURRENT_DATE` (0) up to `LOCALTIMESTAMP(n)` (8), then roles and the like.
    Keyword(u32),
    /// The type of a conversion.
    ResultType(Oid),
    /// A function, called by name, by operator, as an aggregate or as a window function.
    Function {
        name: &'a str,
        builtin: bool,
        args: u16,
        immutable: bool,
        operator: bool,
    },
}

/// Reads the tokens of one expression one by one.
#[derive(Debug, Default)]
pub(super) struct Reader {
    effects: Effects,
    converts_by_text: bool,
    makes_time: bool,
}

impl Reader {
    /// Takes one token.
    pub fn take(&mut self, token: &Token<'_>) {
        match *token {
            Token::Node("TABLESAMPLECLAUSE") => self.effects.keep_on_primary(Why::Volatile),
            Token::Node("COERCEVIAIO") => self.converts_by_text = true,
            Token::Node("NEXTVALUEEXPR") => {
                self.effects.keep_on_primary(Why::Sequence);
                self.effects.draws = true;
            }
            Token::Node("ROWMARKCLAUSE") => self.effects.keep_on_primary(Why::Locks),
            Token::Node("COERCETODOMAIN") => self.effects.doubt(Why::UnknownOperator),
            Token::Node("AGGREF" | "WINDOWFUNC") => self.effects.aggregates = true,
            Token::Node(label) if KNOWN_NODES.contains(&label) => {}
            Token::Node(_) => self.effects.doubt(Why::Opaque),
            Token::Relation(oid) => {
                self.effects.reads.insert(oid);
            }
            Token::Keyword(op) if op <= 8 => self.effects.uncache(Why::ReadsClock),
            Token::Keyword(_) => self.effects.keep_on_primary(Why::ReadsSession),
            Token::ResultType(oid) => self.makes_time |= TIME_TYPES.contains(&oid),
            Token::Function {
                builtin: true,
                immutable: true,
                ..
            } => {}
            Token::Function {
                builtin: true,
                operator: true,
                name,
                ..
            } if reads_time_zone(name) => {
                self.effects.settings = true;
            }
            Token::Function {
                builtin: true,
                name,
                args,
                ..
            } => {
                self.effects.call(name, args);
                // Who asks for the number drawn last is known by the text, which does not show this one: as if it drew.
                self.effects.draws |= matches!(name, "currval" | "lastval");
            }
            Token::Function { .. } => self.effects.doubt(Why::UnknownFunction),
        }
    }

    /// All of it.
    pub fn finish(mut self) -> Effects {
        if self.converts_by_text && self.makes_time {
            // Text that says "now" becomes another time on each reading.
            self.effects.uncache(Why::ReadsClock);
        }
        self.effects
    }
}

/// The functions of built-in operators that are only stable because timestamps meet the time zone.
fn reads_time_zone(function: &str) -> bool {
    ["timestamptz_", "date_", "timestamp_", "interval_pl_timestamptz"]
        .iter()
        .any(|prefix| function.starts_with(prefix))
}

/// date, time, timestamp, timestamptz, timetz, their arrays, and the ranges and multiranges over them.
const TIME_TYPES: &[Oid] = &[
    1082, 1083, 1114, 1184, 1266, 1182, 1183, 1115, 1185, 1270, 3908, 3910, 3912, 3909, 3911, 3913, 4533,
    4534, 4535, 6152, 6153, 6155,
];

/// Nodes that do nothing but what their parts do.
const KNOWN_NODES: &[&str] = &[
    "QUERY",
    "RTE",
    "RANGETBLENTRY",
    "RTEPERMISSIONINFO",
    "ALIAS",
    "FROMEXPR",
    "JOINEXPR",
    "RANGETBLREF",
    "RANGETBLFUNCTION",
    "TARGETENTRY",
    "VAR",
    "CONST",
    "PARAM",
    "GROUPINGFUNC",
    "GROUPINGSET",
    "WINDOWCLAUSE",
    "SUBSCRIPTINGREF",
    "SBSREF",
    "FUNCEXPR",
    "NAMEDARGEXPR",
    "OPEXPR",
    "DISTINCTEXPR",
    "NULLIFEXPR",
    "SCALARARRAYOPEXPR",
    "BOOLEXPR",
    "SUBLINK",
    "FIELDSELECT",
    "RELABELTYPE",
    "ARRAYCOERCEEXPR",
    "CONVERTROWTYPEEXPR",
    "COLLATEEXPR",
    "COLLATE",
    "CASE",
    "CASEEXPR",
    "WHEN",
    "CASEWHEN",
    "CASETESTEXPR",
    "ARRAY",
    "ARRAYEXPR",
    "ROW",
    "ROWEXPR",
    "ROWCOMPARE",
    "ROWCOMPAREEXPR",
    "COALESCE",
    "COALESCEEXPR",
    "MINMAX",
    "MINMAXEXPR",
    "NULLTEST",
    "BOOLEANTEST",
    "SORTGROUPCLAUSE",
    "COMMONTABLEEXPR",
    "SETOPERATIONSTMT",
    "SQLVALUEFUNCTION",
    "COERCETODOMAINVALUE",
];
