//! The rows of the catalog that a snapshot is built from, one struct per kind of row.
//!
//! Filled by `load` from the server and by tests by hand; read by `snapshot` and then dropped. Only what the judgement
//! needs is here, so that a database of many tables costs little. It draws no conclusion.

use super::effects::Effects;
use super::verdict::Oid;

/// All rows of one database, of one moment.
#[derive(Debug, Default)]
pub(super) struct Facts {
    pub relations: Vec<RelationRow>,
    /// Child and parent, for partitions and inheritance alike.
    pub inherits: Vec<(Oid, Oid)>,
    pub foreign_keys: Vec<ForeignKey>,
    /// What the rule of a view or materialized view does.
    pub views: Vec<(Oid, Effects)>,
    /// What a table's policies, and its columns computed on reading, do.
    pub read_expressions: Vec<(Oid, Effects)>,
    /// What a table's policies do: kept apart, since role and settings have their own rules.
    pub policies: Vec<(Oid, Effects)>,
    /// What the defaults of a table's columns do, where they are called for INSERT, or by the word DEFAULT.
    pub defaults: Vec<(Oid, Effects)>,
    /// What the other defaults, checks, generated columns, index and partition expressions of a table do.
    pub write_expressions: Vec<(Oid, Effects)>,
    /// What the checks and the default of a domain do.
    pub domains: Vec<(Oid, Effects)>,
    /// Relation (or composite type's relation) and the type of one of its columns, where that is no built-in type, or timetz.
    pub columns: Vec<(Oid, Oid)>,
    /// Relation and name of each column whose text may hold words: not of a number, a time and the like.
    pub wordy: Vec<(Oid, Box<str>)>,
    pub types: Vec<TypeRow>,
    pub functions: Vec<FunctionRow>,
    /// Operand types of operators, and source and target of casts, whose function is not a C function that is declared
    /// stable or immutable. Zero for an operand that is absent.
    pub loose: Vec<(Oid, Oid)>,
    /// User types into which a built-in type is converted without being asked.
    pub implicit: Vec<Oid>,
    pub fingerprint: u64,
}

/// A relation that a query can name.
#[derive(Debug)]
pub(super) struct RelationRow {
    pub oid: Oid,
    pub schema: Box<str>,
    pub name: Box<str>,
    /// `pg_class.relkind`.
    pub kind: char,
    /// `pg_class.relpersistence`.
    pub persistence: char,
    pub row_security: bool,
    /// It has a user trigger, or a rule other than a view's own.
    pub triggers: bool,
    /// Its row type.
    pub row_type: Oid,
}

/// A foreign key.
#[derive(Debug)]
pub(super) struct ForeignKey {
    pub referenced: Oid,
    pub referencing: Oid,
    /// ON DELETE changes the referencing rows.
    pub on_delete: bool,
    /// ON UPDATE changes the referencing rows.
    pub on_update: bool,
}

/// A type that is not built in.
#[derive(Debug)]
pub(super) struct TypeRow {
    pub oid: Oid,
    pub schema: Box<str>,
    pub name: Box<str>,
    /// `pg_type.typtype`.
    pub kind: char,
    /// What a domain is over, or an array is of; zero for others.
    pub of: Oid,
    /// The relation of a composite type; zero for others.
    pub relation: Oid,
    /// A built-in type has this name too.
    pub shadows: bool,
}

/// A function, aggregate, window function or procedure that is not built in.
#[derive(Debug)]
pub(super) struct FunctionRow {
    pub schema: Box<str>,
    pub name: Box<str>,
    /// Types of the arguments.
    pub args: Vec<Oid>,
}
