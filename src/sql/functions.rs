//! What is known of the functions, types and operators of `pg_catalog`: lists, not declared volatility.
//!
//! Called by `catalog`, which first makes sure that a name means pg_catalog's object, and by the walk, which reports only
//! what is not here. Invariant: absent means unknown, and unknown means the primary and no cache. The functions' data file is
//! `functions.txt`; it is sorted, so that a look-up is a binary search and no table is built at start.

/// What a function's result depends on besides its arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Purity {
    /// Nothing.
    Immutable,
    /// Settings that are all in the cache key (`TimeZone`, `DateStyle`, …).
    SettingsOnly,
    /// The clock.
    ReadsClock,
    /// The session, the backend or the node.
    ReadsSession,
    /// Chance, or it takes time on purpose.
    Volatile,
    /// It takes or frees a lock.
    Locks,
    /// It reads or advances a sequence.
    Sequence,
    /// The system catalogs.
    ReadsCatalog,
    /// It writes no table, but does something that others see or that lasts: it notifies, signals, sets, takes a number.
    Acts,
}

const TABLE: &str = include_str!("functions.txt");

/// The class of a pg_catalog function called with this many arguments; `None` when it is not on the list.
pub fn purity(name: &str, args: u16) -> Option<Purity> {
    let line = line_of(name)?;
    if name == "age" && args == 1 {
        return Some(Purity::ReadsClock);
    }
    match line.split(' ').nth(1)? {
        "immutable" => Some(Purity::Immutable),
        "settings" => Some(Purity::SettingsOnly),
        "clock" => Some(Purity::ReadsClock),
        "session" => Some(Purity::ReadsSession),
        "volatile" => Some(Purity::Volatile),
        "locks" => Some(Purity::Locks),
        "sequence" => Some(Purity::Sequence),
        "catalog" => Some(Purity::ReadsCatalog),
        "acts" => Some(Purity::Acts),
        _ => None,
    }
}

/// It is an aggregate function of `pg_catalog`.
pub fn is_aggregate(name: &str) -> bool {
    line_of(name).is_some_and(|line| line.ends_with(" aggregate"))
}

/// The line of a function, by bisection over the sorted text.
fn line_of(name: &str) -> Option<&'static str> {
    let mut low = 0;
    let mut high = TABLE.len();
    while low < high {
        let middle = usize::midpoint(low, high);
        let start = TABLE.as_bytes()[..middle]
            .iter()
            .rposition(|b| *b == b'\n')
            .map_or(0, |at| at + 1);
        let line = TABLE[start..].split('\n').next().unwrap_or("");
        let key = line.split(' ').next().unwrap_or("");
        // Comment lines sort before every name, because '#' does.
        match key.cmp(name) {
            std::cmp::Ordering::Equal => return Some(line),
            std::cmp::Ordering::Less => low = start + line.len() + 1,
            std::cmp::Ordering::Greater => high = start,
        }
    }
    None
}

/// Built-in types whose input and casts read nothing but the settings in the cache key. The reg* types, whose input reads
/// the catalog, and timetz, whose input reads the clock, are not among them. Sorted.
const TYPES: &[&str] = &[
    "bigint",
    "bit",
    "bit varying",
    "bool",
    "boolean",
    "box",
    "bpchar",
    "bytea",
    "char",
    "character",
    "character varying",
    "cidr",
    "circle",
    "date",
    "datemultirange",
    "daterange",
    "dec",
    "decimal",
    "double precision",
    "float",
    "float4",
    "float8",
    "inet",
    "int",
    "int2",
    "int4",
    "int4multirange",
    "int4range",
    "int8",
    "int8multirange",
    "int8range",
    "integer",
    "interval",
    "json",
    "jsonb",
    "jsonpath",
    "line",
    "lseg",
    "macaddr",
    "macaddr8",
    "money",
    "name",
    "numeric",
    "nummultirange",
    "numrange",
    "oid",
    "path",
    "point",
    "polygon",
    "real",
    "smallint",
    "text",
    "time",
    "time without time zone",
    "timestamp",
    "timestamp with time zone",
    "timestamp without time zone",
    "timestamptz",
    "tsmultirange",
    "tsquery",
    "tsrange",
    "tstzmultirange",
    "tstzrange",
    "tsvector",
    "uuid",
    "varbit",
    "varchar",
];

/// It is a well-known type of `pg_catalog`, by its name or its SQL spelling in lower case, without modifiers.
pub fn is_builtin_type(name: &str) -> bool {
    TYPES.binary_search(&name).is_ok()
}

/// Types of `pg_catalog` whose input looks a name up in the system catalogs. Sorted.
const CATALOG_TYPES: &[&str] = &[
    "regclass",
    "regcollation",
    "regconfig",
    "regdictionary",
    "regnamespace",
    "regoper",
    "regoperator",
    "regproc",
    "regprocedure",
    "regrole",
    "regtype",
];

/// It is a type of `pg_catalog` whose input reads the system catalogs and nothing else.
pub fn is_catalog_type(name: &str) -> bool {
    CATALOG_TYPES.binary_search(&name).is_ok()
}

/// Operators of `pg_catalog`. Left out: those that run a text search configuration by name (`text @@ text`) cannot be told
/// from `tsvector @@ tsquery`, so `@@` is not here. Sorted by bytes.
const OPERATORS: &[&str] = &[
    "!=", "!~", "!~*", "!~~", "!~~*", "#", "##", "#-", "#>", "#>>", "%", "&", "&&", "&<", "&<|", "&>", "*",
    "+", "-", "->", "->>", "-|-", "/", "<", "<->", "<<", "<<=", "<<|", "<=", "<>", "<@", "<^", "=", ">",
    ">=", ">>", ">>=", ">^", "?", "?#", "?&", "?-", "?-|", "?|", "?||", "@", "@-@", "@>", "@?", "^", "^@",
    "|", "|&>", "|/", "|>>", "||", "||/", "~", "~*", "~=", "~>=~", "~>~", "~~", "~~*",
];

/// It is the name of an operator of `pg_catalog` that depends on nothing but its operands and settings in the cache key.
/// Whether a schema adds operands of its own to that name is the catalog's knowledge.
pub fn is_builtin_operator(op: &str) -> bool {
    OPERATORS.binary_search(&op).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_sorted_and_well_formed() {
        assert!(TYPES.is_sorted() && CATALOG_TYPES.is_sorted());
        assert!(OPERATORS.is_sorted());
        let names: Vec<&str> = TABLE
            .lines()
            .filter(|l| !l.starts_with('#'))
            .map(|l| l.split(' ').next().unwrap_or(""))
            .collect();
        assert!(names.is_sorted());
        assert!(names.len() > 400);
        for name in names {
            assert!(purity(name, 2).is_some(), "{name}");
        }
    }

    #[test]
    fn classes() {
        let check = |name: &str, args: u16, want: Option<Purity>| {
            assert_eq!(purity(name, args), want, "{name}/{args}");
        };
        check("abs", 1, Some(Purity::Immutable));
        check("age", 1, Some(Purity::ReadsClock));
        check("age", 2, Some(Purity::SettingsOnly));
        check("count", 0, Some(Purity::Immutable));
        check("date_trunc", 2, Some(Purity::SettingsOnly));
        check("to_char", 2, Some(Purity::SettingsOnly));
        check("now", 0, Some(Purity::ReadsClock));
        check("current_user", 0, Some(Purity::ReadsSession));
        check("pg_is_in_recovery", 0, Some(Purity::ReadsSession));
        check("random", 0, Some(Purity::Volatile));
        check("nextval", 1, Some(Purity::Sequence));
        check("pg_advisory_xact_lock", 1, Some(Purity::Locks));
        check("to_regclass", 1, Some(Purity::ReadsCatalog));
        check("set_config", 3, Some(Purity::Acts));
        check("txid_current", 0, Some(Purity::Acts));
        for unknown in [
            "lo_unlink",
            "table_to_xml",
            "ts_stat",
            "pg_read_file",
            "query_to_xml",
            "no",
            "",
            "#",
        ] {
            check(unknown, 1, None);
        }
    }

    #[test]
    fn aggregates() {
        assert!(is_aggregate("count") && is_aggregate("string_agg") && is_aggregate("percentile_cont"));
        assert!(!is_aggregate("abs") && !is_aggregate("lag") && !is_aggregate("nothing"));
    }
}
