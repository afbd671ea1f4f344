//! One database's catalog at one moment, indexed for the judgement: names, families of partitions, cascades, doubts.
//!
//! Built from `Facts` by `load`; read by `judge`, and by `freshness` and `admin` for names. Immutable, so it is shared
//! by `Arc` without a lock. Invariant: closures are supersets of what PostgreSQL would touch. It does not resolve
//! privileges: a name found in several schemas of the path stands for all of them, because PostgreSQL skips schemas
//! that the role may not use.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;

use super::effects::{Effects, FIRST_USER_OID};
use super::facts::{Facts, TypeRow};
use super::path::Path;
use super::verdict::{Oid, Why};

/// A relation's schema and name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct QualifiedName {
    /// Schema.
    pub schema: Box<str>,
    /// Name within the schema.
    pub name: Box<str>,
}

impl fmt::Display for QualifiedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.schema, self.name)
    }
}

/// Functions that the configuration declares safe: they read no table, no clock and no session, and write nothing.
#[derive(Debug, Clone, Default)]
pub struct Allowed {
    /// `schema.name` or `name`.
    pub functions: HashSet<Box<str>>,
}

impl Allowed {
    /// Is this function declared safe?
    pub(super) fn holds(&self, schema: Option<&str>, name: &str) -> bool {
        self.functions.contains(name)
            || schema.is_some_and(|schema| self.functions.contains(format!("{schema}.{name}").as_str()))
    }
}

/// An immutable snapshot of one database's catalog.
#[derive(Debug)]
pub struct Catalog {
    /// Grows with every load; a verdict carries it.
    pub generation: u64,
    fingerprint: u64,
    pub(super) relations: HashMap<Oid, Relation>,
    by_name: HashMap<Box<str>, Vec<Oid>>,
    pub(super) functions: HashMap<Box<str>, Vec<UserFunction>>,
    /// One-argument functions over any row: `t.f` calls them though the text shows a column.
    pub(super) row_functions: Vec<(Box<str>, Box<str>)>,
    pub(super) types: Vec<TypeRow>,
    /// An operator or cast between built-in types is a user function of unknown doing.
    pub(super) loose_operators: bool,
    /// User types with such an operator or cast.
    pub(super) loose_types: HashSet<Oid>,
}

/// What is known of a relation.
#[derive(Debug)]
pub(super) struct Relation {
    pub name: QualifiedName,
    pub kind: char,
    /// Why neither replica nor cache may serve it.
    pub primary: Option<Why>,
    /// Why a write of it may do anything.
    pub write_doubt: Option<Why>,
    /// What reading it does, beyond reading its rows: policies, computed columns, columns of user types and of timetz.
    pub read: Effects,
    /// What its query does: on each reading of a view, on REFRESH of a materialized view.
    pub definition: Effects,
    /// Each change of its rows may draw a number from a sequence.
    change_draws: bool,
    /// A column's default, or its identity, may.
    defaults_draw: bool,
    parents: Vec<Oid>,
    children: Vec<Oid>,
    /// Tables with a foreign key to this one, and which changes of this one that key passes on.
    referencing: Vec<(Oid, Reach)>,
    /// User types of its columns.
    pub types: BTreeSet<Oid>,
    /// Columns whose text may hold a word of the clock.
    pub wordy: HashSet<Box<str>>,
}

/// What is done to a table's rows, as far as foreign keys to it care. Each passes on what those before it do, and more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reach {
    /// New rows: to them nothing refers.
    Adds,
    /// Rows change: ON UPDATE.
    Updates,
    /// Rows also go: ON DELETE.
    Deletes,
    /// TRUNCATE: every foreign key.
    Empties,
}

/// A function that is not built in.
#[derive(Debug)]
pub(super) struct UserFunction {
    pub schema: Box<str>,
    /// User types among its arguments: without a value of each it cannot be meant.
    pub needs: BTreeSet<Oid>,
}

impl Relation {
    /// May a change of its rows draw a number, with or without its columns' defaults?
    pub fn draws(&self, defaults: bool) -> bool {
        self.change_draws || defaults && self.defaults_draw
    }
}

impl Catalog {
    /// Indexes the rows.
    pub(super) fn build(facts: Facts, generation: u64) -> Catalog {
        let mut catalog = Catalog {
            generation,
            fingerprint: facts.fingerprint,
            relations: HashMap::with_capacity(facts.relations.len()),
            by_name: HashMap::new(),
            functions: HashMap::new(),
            row_functions: Vec::new(),
            types: Vec::new(),
            loose_operators: facts
                .loose
                .iter()
                .any(|(a, b)| *a < FIRST_USER_OID && *b < FIRST_USER_OID),
            loose_types: facts
                .loose
                .iter()
                .flat_map(|(a, b)| [*a, *b])
                .filter(|oid| *oid >= FIRST_USER_OID)
                .collect(),
        };
        let row_types = catalog.add_relations(&facts);
        catalog.add_links(&facts);
        for (oid, column) in &facts.wordy {
            if let Some(relation) = catalog.relations.get_mut(oid) {
                relation.wordy.insert(column.clone());
            }
        }
        catalog.add_types(&facts);
        catalog.add_expressions(&facts);
        catalog.add_functions(&facts, &row_types);
        catalog.types = facts.types;
        catalog
    }

    /// Hash of the catalog at the moment of the load, comparable with `fingerprint()`'s.
    pub fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    /// The relation that a name means under a path, as PostgreSQL resolves it for a role that may use every schema.
    pub fn find(&self, schema: Option<&str>, name: &str, path: &Path) -> Option<Oid> {
        if let Some(schema) = schema {
            return self.in_schema(schema, name);
        }
        let listed = path.schemas.iter().any(|schema| &**schema == "pg_catalog");
        let first = if listed {
            None
        } else {
            self.in_schema("pg_catalog", name)
        };
        first.or_else(|| {
            path.schemas
                .iter()
                .find_map(|schema| self.in_schema(schema, name))
        })
    }

    /// Every relation that a name may mean under a path, whatever schemas the role may use.
    pub(super) fn find_all(&self, schema: Option<&str>, name: &str, path: &Path) -> Vec<Oid> {
        if let Some(schema) = schema {
            return self.in_schema(schema, name).into_iter().collect();
        }
        let schemas = std::iter::once("pg_catalog").chain(path.schemas.iter().map(AsRef::as_ref));
        schemas
            .filter_map(|schema| self.in_schema(schema, name))
            .collect()
    }

    /// A relation's name.
    pub fn table_name(&self, oid: Oid) -> Option<&QualifiedName> {
        self.relations.get(&oid).map(|relation| &relation.name)
    }

    /// All relations that hold rows or stand for some, leaving out the system's own.
    pub fn tables(&self) -> impl Iterator<Item = (Oid, &QualifiedName)> {
        let named = self
            .relations
            .iter()
            .map(|(oid, relation)| (*oid, &relation.name));
        named.filter(|(_, name)| !is_system_schema(&name.schema))
    }

    /// The table with all its ancestors and descendants, and the other ancestors of those.
    pub(super) fn family(&self, oid: Oid) -> BTreeSet<Oid> {
        let down = self.descendants(oid);
        let mut all = down.clone();
        for member in down {
            self.walk(member, &mut all, |relation| &relation.parents);
        }
        all
    }

    /// The table and all its partitions or heirs: the rows that a read of it shows.
    pub(super) fn descendants(&self, oid: Oid) -> BTreeSet<Oid> {
        let mut all = BTreeSet::from([oid]);
        self.walk(oid, &mut all, |relation| &relation.children);
        all
    }

    /// Tables whose rows a change of this one may change, or empty with it.
    pub(super) fn referencing(&self, oid: Oid, reach: Reach) -> impl Iterator<Item = Oid> + '_ {
        let keys = self
            .relations
            .get(&oid)
            .map_or(&[][..], |relation| &relation.referencing);
        keys.iter()
            .filter(move |(_, passes_on)| reach >= *passes_on)
            .map(|(table, _)| *table)
    }

    fn walk(&self, from: Oid, seen: &mut BTreeSet<Oid>, next: impl Fn(&Relation) -> &Vec<Oid>) {
        let mut open = vec![from];
        while let Some(oid) = open.pop() {
            for &other in self
                .relations
                .get(&oid)
                .map_or(&[][..], |relation| next(relation))
            {
                if seen.insert(other) {
                    open.push(other);
                }
            }
        }
    }

    fn in_schema(&self, schema: &str, name: &str) -> Option<Oid> {
        let found = self.by_name.get(name)?;
        found
            .iter()
            .copied()
            .find(|oid| &*self.relations[oid].name.schema == schema)
    }

    /// Adds the relations; returns which relation a row type is of.
    fn add_relations(&mut self, facts: &Facts) -> HashMap<Oid, Oid> {
        let mut row_types = HashMap::new();
        for row in &facts.relations {
            let primary = match (row.kind, row.persistence) {
                _ if is_system_schema(&row.schema) => Some(Why::SystemCatalog),
                ('S', _) => Some(Why::Sequence),
                ('f', _) => Some(Why::Foreign),
                (_, 't') => Some(Why::Temporary),
                (_, 'u') => Some(Why::Unlogged),
                ('r' | 'p' | 'v' | 'm', 'p') => None,
                _ => Some(Why::UnknownRelation),
            };
            let write_doubt = if row.triggers {
                Some(Why::Trigger)
            } else {
                // Another server may do anything with the rows it is sent.
                primary.filter(|why| *why == Why::Foreign)
            };
            let relation = Relation {
                name: QualifiedName {
                    schema: row.schema.clone(),
                    name: row.name.clone(),
                },
                kind: row.kind,
                primary,
                write_doubt,
                read: Effects::default(),
                definition: Effects::default(),
                change_draws: false,
                defaults_draw: false,
                parents: Vec::new(),
                children: Vec::new(),
                referencing: Vec::new(),
                types: BTreeSet::new(),
                wordy: HashSet::new(),
            };
            self.by_name.entry(row.name.clone()).or_default().push(row.oid);
            self.relations.insert(row.oid, relation);
            row_types.insert(row.row_type, row.oid);
        }
        row_types
    }

    fn add_links(&mut self, facts: &Facts) {
        for &(child, parent) in &facts.inherits {
            if let Some(relation) = self.relations.get_mut(&child) {
                relation.parents.push(parent);
            }
            if let Some(relation) = self.relations.get_mut(&parent) {
                relation.children.push(child);
            }
        }
        for key in &facts.foreign_keys {
            if let Some(relation) = self.relations.get_mut(&key.referenced) {
                let least = match (key.on_update, key.on_delete) {
                    (true, _) => Reach::Updates,
                    (false, true) => Reach::Deletes,
                    (false, false) => Reach::Empties,
                };
                relation.referencing.push((key.referencing, least));
            }
        }
    }

    /// Notes the user types of columns; one with a loose operator or cast makes the table's reads
    /// unknown, and so does such a row type.
    fn add_types(&mut self, facts: &Facts) {
        let types: HashMap<Oid, &TypeRow> = facts.types.iter().map(|row| (row.oid, row)).collect();
        let mut columns: HashMap<Oid, Vec<Oid>> = HashMap::new();
        for &(relation, column) in &facts.columns {
            columns.entry(relation).or_default().push(column);
        }
        let loose = &self.loose_types;
        let loose_rows: HashSet<Oid> = facts
            .relations
            .iter()
            .filter(|row| loose.contains(&row.row_type))
            .map(|row| row.oid)
            .collect();
        let domains: HashMap<Oid, &Effects> = facts
            .domains
            .iter()
            .map(|(oid, effects)| (*oid, effects))
            .collect();
        for (oid, relation) in &mut self.relations {
            if loose_rows.contains(oid) {
                relation.read.doubt(Why::UnknownOperator);
            }
            let mut open = columns.get(oid).cloned().unwrap_or_default();
            while let Some(column) = open.pop() {
                if is_timetz(column) {
                    // To turn one into another zone, PostgreSQL asks what that zone's offset is today.
                    relation.read.uncache(Why::ReadsClock);
                }
                if column < FIRST_USER_OID || !relation.types.insert(column) {
                    continue;
                }
                if loose.contains(&column) {
                    relation.read.doubt(Why::UnknownOperator);
                }
                if let Some(effects) = domains.get(&column) {
                    relation.change_draws |= effects.draws;
                    if effects.unknown.is_some() {
                        relation.write_doubt.get_or_insert(Why::Trigger);
                    }
                }
                match types.get(&column) {
                    Some(row) => {
                        open.push(row.of);
                        open.extend(columns.get(&row.relation).into_iter().flatten());
                    }
                    None => relation.read.doubt(Why::UnknownOperator),
                }
            }
        }
    }

    fn add_expressions(&mut self, facts: &Facts) {
        for (oid, effects) in &facts.views {
            if let Some(relation) = self.relations.get_mut(oid) {
                relation.definition.add(effects);
                // Up to PostgreSQL 15 a view's rule names the view itself, as OLD and NEW.
                relation.definition.reads.remove(oid);
            }
        }
        for (oid, effects) in &facts.read_expressions {
            if let Some(relation) = self.relations.get_mut(oid) {
                relation.read.add(effects);
            }
        }
        let defaults = facts.defaults.iter().map(|row| (row, true));
        let others = facts.write_expressions.iter().map(|row| (row, false));
        for ((oid, effects), is_default) in defaults.chain(others) {
            if let Some(relation) = self.relations.get_mut(oid) {
                relation.defaults_draw |= is_default && effects.draws;
                relation.change_draws |= !is_default && effects.draws;
                if effects.unknown.is_some() {
                    relation.write_doubt.get_or_insert(Why::Trigger);
                }
            }
        }
        let secured: HashSet<Oid> = facts
            .relations
            .iter()
            .filter(|row| row.row_security)
            .map(|row| row.oid)
            .collect();
        for (oid, effects) in &facts.policies {
            let Some(relation) = self.relations.get_mut(oid).filter(|_| secured.contains(oid)) else {
                continue;
            };
            let mut policy = effects.clone();
            for why in [&mut policy.unknown, &mut policy.primary, &mut policy.uncached] {
                *why = why.map(|_| Why::RowSecurity);
            }
            relation.change_draws |= policy.draws;
            relation.read.add(&policy);
            if policy.unknown.is_some() {
                relation.write_doubt.get_or_insert(Why::RowSecurity);
            }
        }
    }

    fn add_functions(&mut self, facts: &Facts, row_types: &HashMap<Oid, Oid>) {
        // record, "any", anyelement, anynonarray, anycompatible, anycompatiblenonarray: a table's row is one of these.
        const ANY_ROW: &[Oid] = &[2249, 2276, 2283, 2776, 5077, 5079];
        let types: HashMap<Oid, &TypeRow> = facts.types.iter().map(|row| (row.oid, row)).collect();
        for row in &facts.functions {
            if let [only] = row.args.as_slice() {
                if ANY_ROW.contains(only) {
                    self.row_functions.push((row.schema.clone(), row.name.clone()));
                } else if let Some(relation) = row_types.get(only).and_then(|oid| self.relations.get_mut(oid))
                {
                    relation.read.doubt(Why::UnknownFunction);
                }
            }
            let needs = row.args.iter().filter_map(|oid| needed(*oid, &types));
            let needs = needs.filter(|oid| !facts.implicit.contains(oid)).collect();
            let function = UserFunction {
                schema: row.schema.clone(),
                needs,
            };
            self.functions.entry(row.name.clone()).or_default().push(function);
        }
    }
}

/// The user type without whose values a function with this argument cannot be meant, if there is one.
fn needed(argument: Oid, types: &HashMap<Oid, &TypeRow>) -> Option<Oid> {
    let row = types.get(&argument)?;
    match row.kind {
        // Values of an array or a domain are made of values of the type under it.
        'b' | 'd' if row.of != 0 => needed(row.of, types),
        'b' | 'e' => Some(row.oid),
        _ => None,
    }
}

/// timetz, or its array.
fn is_timetz(oid: Oid) -> bool {
    matches!(oid, 1266 | 1270)
}

/// The server's own schemas: read on the primary, never cached.
pub(super) fn is_system_schema(schema: &str) -> bool {
    matches!(schema, "pg_catalog" | "information_schema" | "pg_toast")
}
