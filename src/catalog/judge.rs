//! The judgement: from a text's facts and the catalog to read set, write set, and whether a replica or the cache may serve.
//!
//! Called by the session at Bind and Execute, under the search path of that moment. Pure: no I/O, no clock, the same
//! verdict for the same input. Invariant: sets are supersets, and what cannot be told is `Unknown` with the first reason
//! met. It knows nothing of the session: temporary schemas, isolation and settings are added there.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::effects::Effects;
use super::path::Path;
use super::remembered::Remembered;
use super::snapshot::{Allowed, Catalog, Reach, is_system_schema};
use super::verdict::{Oid, ReadSet, Verdict, Why, WriteSet};
use crate::sql::is_catalog_type;
use crate::sql::statement::{Call, Discard, Doubt, Kind, Name, Script, Statement};

impl Catalog {
    /// Judges a text. It never fails: doubt is in the verdict.
    pub fn judge(&self, script: Arc<Script>, path: &Path, allowed: &Allowed) -> Verdict {
        judge(
            Some(Scope {
                catalog: self,
                path,
                allowed,
            }),
            self.generation,
            script,
        )
    }
}

/// The generation of a verdict that was made without a catalog; the others begin with 1.
pub const NO_CATALOG: u64 = 0;

/// A verdict that needs no catalog, for the time while there is none: every table and every function outside
/// `pg_catalog`'s list is unknown.
pub fn judge_without_catalog(script: Arc<Script>) -> Verdict {
    judge(None, NO_CATALOG, script)
}

/// Where names are looked up.
#[derive(Clone, Copy)]
struct Scope<'a> {
    catalog: &'a Catalog,
    path: &'a Path,
    allowed: &'a Allowed,
}

/// What a statement does to a table that it writes.
fn reach(statement: &Statement, target: &Name) -> Reach {
    // A CTE may write it in another way than the statement itself.
    let alone = !statement.doubts.contains(&Doubt::WritesInCte);
    match statement.kind {
        // With ON CONFLICT the target is read as well.
        Kind::Insert | Kind::CopyIn if alone && !statement.reads.contains(target) => Reach::Adds,
        Kind::Insert | Kind::Update if alone => Reach::Updates,
        Kind::Truncate => Reach::Empties,
        _ => Reach::Deletes,
    }
}

/// How a statement changes the tables that it writes.
#[derive(Clone, Copy)]
struct Change {
    reach: Reach,
    /// Defaults of their columns may be called.
    defaults: bool,
}

/// May the defaults of the tables that it writes be called?
fn runs_defaults(statement: &Statement) -> bool {
    match statement.kind {
        Kind::Update => [Doubt::SetsDefault, Doubt::WritesInCte]
            .iter()
            .any(|doubt| statement.doubts.contains(doubt)),
        Kind::Delete => statement.doubts.contains(&Doubt::WritesInCte),
        Kind::Truncate => false,
        _ => true,
    }
}

/// What is found while walking a text.
#[derive(Default)]
struct Findings {
    effects: Effects,
    written: BTreeSet<Oid>,
    unknown_write: Option<Why>,
    /// The catalog changes; `true` where objects of all databases do.
    changes_catalog: Option<bool>,
}

fn judge(scope: Option<Scope<'_>>, generation: u64, script: Arc<Script>) -> Verdict {
    let mut found = Findings::default();
    if script.statements.len() > 1 {
        found.effects.keep_on_primary(Why::ManyStatements);
    }
    let mut path_moved = false;
    for statement in &script.statements {
        if path_moved && names_relations(&statement.kind) {
            found.hide(Why::ManyStatements);
        }
        found.statement(scope, statement);
        path_moved |= may_move_path(&statement.kind) || found.effects.leaves_state;
    }
    if found.effects.unknown.is_none() && found.effects.reads.is_empty() {
        found.effects.uncache(Why::Trivial);
    }
    let Findings {
        effects,
        written,
        unknown_write,
        changes_catalog,
    } = found;
    Verdict {
        generation,
        reads: match effects.unknown {
            Some(why) => ReadSet::Unknown(why),
            None => ReadSet::Tables(effects.reads.into_iter().collect()),
        },
        // A change of the catalog counts as everything, so it is the widest.
        writes: match (changes_catalog, unknown_write) {
            (Some(global), _) => WriteSet::Catalog { global },
            (None, Some(why)) => WriteSet::Unknown(why),
            (None, None) if written.is_empty() => WriteSet::None,
            (None, None) => WriteSet::Tables(written.into_iter().collect()),
        },
        replica: effects.primary.map_or(Ok(()), Err),
        cache: effects.uncached.map_or(Ok(()), Err),
        aggregates: effects.aggregates || script.statements.iter().any(|statement| statement.aggregates),
        reads_settings: effects.settings,
        leaves_state: effects.leaves_state,
        ruled: Remembered::default(),
        may_draw: effects.draws,
        script,
    }
}

impl Findings {
    fn statement(&mut self, scope: Option<Scope<'_>>, statement: &Statement) {
        if let Some(why) = refusal(&statement.kind) {
            self.effects.keep_on_primary(why);
        }
        match &statement.kind {
            Kind::Ddl { global } => {
                self.change_catalog(*global);
                // CREATE TABLE AS, and a new column's default.
                self.effects.draws = true;
            }
            Kind::Call | Kind::Do | Kind::Execute(_) => self.hide(Why::HiddenBody),
            // The writes are another session's, and were seen at most by another proxy.
            Kind::CommitPrepared => self.hide(Why::ControlsTransaction),
            Kind::Other(_) => self.hide(Why::Unparsed),
            kind if names_relations(kind) => self.data(scope, statement),
            // The rest touches no rows: transactions, settings, cursors whose query was judged when it was declared.
            _ => {}
        }
    }

    /// A statement whose relations and functions its text lists.
    fn data(&mut self, scope: Option<Scope<'_>>, statement: &Statement) {
        for doubt in &statement.doubts {
            self.doubt(*doubt);
        }
        let mut types = BTreeSet::new();
        for name in &statement.reads {
            self.name(scope, name, &mut types, &mut |found, scope, oid| {
                found.read(scope.catalog, oid);
            });
        }
        for name in &statement.writes {
            let change = Change {
                reach: reach(statement, name),
                defaults: runs_defaults(statement),
            };
            self.name(scope, name, &mut types, &mut |found, scope, oid| {
                found.write(scope.catalog, oid, change);
            });
        }
        if scope.is_some_and(|scope| scope.turns_words_into_times(statement)) {
            self.effects.uncache(Why::ReadsClock);
        }
        let any_type = !statement.types.is_empty();
        for call in &statement.calls {
            self.call(scope, call, (!any_type).then_some(&types));
        }
        for name in &statement.types {
            if scope.is_some_and(|scope| scope.is_catalog_type(name)) {
                self.effects.keep_on_primary(Why::SystemCatalog);
            } else if !scope.is_some_and(|scope| scope.is_enum(name)) {
                self.effects.doubt(Why::UnknownOperator);
            }
        }
        if !statement.operators.is_empty() || scope.is_some_and(Scope::operators_in_doubt) {
            self.effects.doubt(Why::UnknownOperator);
        }
        if !statement.reads.is_empty() && scope.is_some_and(Scope::rows_have_functions) {
            self.effects.doubt(Why::UnknownFunction);
        }
        self.unknown_write = self.unknown_write.or(self.effects.unknown);
    }

    fn doubt(&mut self, doubt: Doubt) {
        match doubt {
            Doubt::LocksRows => self.effects.keep_on_primary(Why::Locks),
            Doubt::WritesInCte => self.effects.keep_on_primary(Why::WritesInCte),
            Doubt::SystemColumn => self.effects.keep_on_primary(Why::SystemColumn),
            // The tables' own: where it is written it counts.
            Doubt::SetsDefault => {}
            Doubt::ClockWord => self.effects.uncache(Why::ReadsClock),
            Doubt::Sample => self.effects.uncache(Why::Volatile),
            Doubt::OnlyName => self.effects.doubt(Why::OnlyName),
            Doubt::Opaque => self.effects.doubt(Why::Opaque),
            Doubt::SelectsInto => {
                self.effects.keep_on_primary(Why::SelectsInto);
                self.change_catalog(false);
            }
        }
    }

    /// Does something for every relation that a name may mean, and notes the user types of their columns.
    fn name(
        &mut self,
        scope: Option<Scope<'_>>,
        name: &Name,
        types: &mut BTreeSet<Oid>,
        act: &mut dyn FnMut(&mut Findings, Scope<'_>, Oid),
    ) {
        let schema = name.schema.as_deref();
        let Some(scope) = scope else {
            let system = schema.is_some_and(is_system_schema);
            return self.effects.doubt(if system {
                Why::SystemCatalog
            } else {
                Why::NoCatalog
            });
        };
        let all = scope.catalog.find_all(schema, &name.name, scope.path);
        if all.is_empty() {
            let temporary = schema.is_some_and(|schema| schema.starts_with("pg_temp"));
            self.effects.doubt(if temporary {
                Why::Temporary
            } else {
                Why::UnknownRelation
            });
        }
        for oid in all {
            types.extend(&scope.catalog.relations[&oid].types);
            act(self, scope, oid);
        }
    }

    /// Reads a relation, and all that it stands for.
    fn read(&mut self, catalog: &Catalog, start: Oid) {
        let mut open = vec![start];
        let mut seen = BTreeSet::new();
        while let Some(oid) = open.pop() {
            if !seen.insert(oid) {
                continue;
            }
            let Some(relation) = catalog.relations.get(&oid) else {
                self.effects.doubt(Why::UnknownRelation);
                continue;
            };
            if let Some(why) = relation.primary {
                self.effects.keep_on_primary(why);
            }
            open.extend(catalog.descendants(oid));
            open.extend(&relation.read.reads);
            self.effects.add(&relation.read);
            if relation.kind == 'v' {
                open.extend(&relation.definition.reads);
                self.effects.add(&Effects {
                    reads: BTreeSet::new(),
                    ..relation.definition.clone()
                });
            } else {
                self.effects.reads.extend(catalog.family(oid));
            }
        }
    }

    /// Writes a relation, and all that a change of it may change.
    fn write(&mut self, catalog: &Catalog, start: Oid, change: Change) {
        let Change { reach, defaults } = change;
        let mut open = vec![(start, defaults)];
        let mut seen = BTreeSet::new();
        while let Some((oid, defaults)) = open.pop() {
            if !seen.insert(oid) {
                continue;
            }
            let Some(relation) = catalog.relations.get(&oid) else {
                self.unknown_write.get_or_insert(Why::UnknownRelation);
                continue;
            };
            self.unknown_write = self.unknown_write.or(relation.write_doubt);
            self.effects.draws |= relation.draws(defaults);
            if matches!(relation.kind, 'v' | 'm') {
                // Through an updatable view its tables are written; REFRESH runs the query.
                self.unknown_write = self.unknown_write.or(relation.definition.unknown);
                self.effects.leaves_state |= relation.definition.leaves_state;
                self.effects.draws |= relation.definition.draws;
            }
            if relation.kind == 'v' {
                open.extend(relation.definition.reads.iter().map(|oid| (*oid, defaults)));
                continue;
            }
            // Rows of the descendants change, and with them what the ancestors show; siblings keep theirs.
            let family = catalog.family(oid);
            // An UPDATE that moves a row to another partition deletes it in the first one.
            let reach = if family.len() > 1 && reach == Reach::Updates {
                Reach::Deletes
            } else {
                reach
            };
            for member in family {
                self.written.insert(member);
                if let Some(relation) = catalog.relations.get(&member) {
                    self.unknown_write = self.unknown_write.or(relation.write_doubt);
                    self.effects.draws |= relation.draws(defaults);
                }
                // SET DEFAULT is among what a table always draws by.
                open.extend(catalog.referencing(member, reach).map(|oid| (oid, false)));
            }
        }
        self.effects.leaves_state |= self.unknown_write.is_some();
        self.effects.draws |= self.unknown_write.is_some();
    }

    /// A call; `types` are the user types that its arguments can have, `None` for any.
    fn call(&mut self, scope: Option<Scope<'_>>, call: &Call, types: Option<&BTreeSet<Oid>>) {
        let name = &*call.name.name;
        match (call.name.schema.as_deref(), scope) {
            (Some("pg_catalog"), _) | (None, None) => self.effects.call(name, call.args),
            (Some(schema), Some(scope)) if scope.allowed.holds(Some(schema), name) => {}
            (Some(_), _) => self.effects.doubt(Why::UnknownFunction),
            (None, Some(scope)) => match scope.user_function(name, types) {
                Some(true) => {}
                Some(false) => self.effects.doubt(Why::UnknownFunction),
                None => self.effects.call(name, call.args),
            },
        }
    }

    fn change_catalog(&mut self, global: bool) {
        self.changes_catalog = Some(global || self.changes_catalog.unwrap_or(false));
    }

    fn hide(&mut self, why: Why) {
        self.effects.doubt(why);
        self.unknown_write.get_or_insert(why);
    }
}

impl Scope<'_> {
    /// Could a call without a schema mean a user function? `Some(true)`: yes, and all of them are declared safe.
    fn user_function(self, name: &str, types: Option<&BTreeSet<Oid>>) -> Option<bool> {
        let named = self.catalog.functions.get(name)?;
        let mut meant = named
            .iter()
            .filter(|function| {
                &*function.schema == "pg_catalog" || self.path.schemas.contains(&function.schema)
            })
            .filter(|function| types.is_none_or(|types| function.needs.is_subset(types)))
            .peekable();
        meant.peek()?;
        Some(meant.all(|function| self.allowed.holds(Some(&function.schema), name)))
    }

    /// A type such as regclass, which no user type hides.
    fn is_catalog_type(self, name: &Name) -> bool {
        let system = name.schema.as_deref().is_none_or(|schema| schema == "pg_catalog");
        system && is_catalog_type(&name.name) && !self.catalog.types.iter().any(|row| row.name == name.name)
    }

    /// An enum is a built-in thing under a user's name; any other user type brings its own functions.
    fn is_enum(self, name: &Name) -> bool {
        let schemas = &self.path.schemas;
        let mut meant = self
            .catalog
            .types
            .iter()
            .filter(|row| row.name == name.name)
            .filter(|row| {
                name.schema
                    .as_ref()
                    .map_or_else(|| schemas.contains(&row.schema), |s| *s == row.schema)
            })
            .peekable();
        meant.peek().is_some()
            && meant
                .all(|row| row.kind == 'e' && !row.shadows && !self.catalog.loose_types.contains(&row.oid))
    }

    /// A built-in operator, cast or type name may mean a user's.
    fn operators_in_doubt(self) -> bool {
        let schemas = &self.path.schemas;
        let earlier = schemas
            .iter()
            .position(|schema| &**schema == "pg_catalog")
            .unwrap_or(0);
        let shadowed = |row: &super::facts::TypeRow| row.shadows && schemas[..earlier].contains(&row.schema);
        self.catalog.loose_operators || (earlier > 0 && self.catalog.types.iter().any(shadowed))
    }

    /// It makes a date or time of a column that may hold words. Which relation the column is of, the text does not tell.
    fn turns_words_into_times(self, statement: &Statement) -> bool {
        if statement.time_columns.is_empty() {
            return false;
        }
        let names = statement.reads.iter().chain(&statement.writes);
        names
            .flat_map(|name| {
                self.catalog
                    .find_all(name.schema.as_deref(), &name.name, self.path)
            })
            .map(|oid| &self.catalog.relations[&oid].wordy)
            .any(|wordy| statement.time_columns.iter().any(|column| wordy.contains(column)))
    }

    /// `t.f` may be a call of a user function on t's row.
    fn rows_have_functions(self) -> bool {
        let mut functions = self.catalog.row_functions.iter();
        functions.any(|(schema, name)| {
            self.path.schemas.contains(schema) && !self.allowed.holds(Some(schema), name)
        })
    }
}

/// Statements whose relations and functions the text lists.
fn names_relations(kind: &Kind) -> bool {
    matches!(
        kind,
        Kind::Select
            | Kind::Insert
            | Kind::Update
            | Kind::Delete
            | Kind::Merge
            | Kind::Truncate
            | Kind::CopyIn
            | Kind::CopyOut
            | Kind::Explain { .. }
            | Kind::Prepare(_)
            | Kind::Declare { .. }
            | Kind::CreateTemp
            | Kind::RefreshView
    )
}

/// After it the search path may be another than the one that the text is judged under: it sets the path or the role in it, or
/// it ends a transaction, with which a setting of that transaction ends.
fn may_move_path(kind: &Kind) -> bool {
    let steers = |name: &str| matches!(name, "search_path" | "role" | "session_authorization");
    match kind {
        Kind::Set { name, .. } => steers(name),
        Kind::Reset(name) => name.as_deref().is_none_or(steers),
        Kind::Discard(what) => *what == Discard::All,
        Kind::Commit { .. } | Kind::Rollback { .. } | Kind::RollbackTo(_) | Kind::PrepareTransaction => true,
        _ => false,
    }
}

/// Why a kind of statement is neither for a replica nor for the cache.
fn refusal(kind: &Kind) -> Option<Why> {
    Some(match kind {
        Kind::Empty | Kind::Select => return None,
        Kind::Insert
        | Kind::Update
        | Kind::Delete
        | Kind::Merge
        | Kind::Truncate
        | Kind::CopyIn
        | Kind::RefreshView => Why::Writes,
        // The text's facts do not tell COPY … TO STDOUT from a file or program of the server.
        Kind::CopyOut => Why::Copies,
        Kind::Explain { .. } => Why::Explains,
        Kind::Begin(_)
        | Kind::Commit { .. }
        | Kind::Rollback { .. }
        | Kind::PrepareTransaction
        | Kind::CommitPrepared
        | Kind::RollbackPrepared
        | Kind::Savepoint(_)
        | Kind::Release(_)
        | Kind::RollbackTo(_)
        | Kind::SetTransaction(_)
        | Kind::SetConstraints => Why::ControlsTransaction,
        Kind::Set { .. }
        | Kind::SetCharacteristics(_)
        | Kind::Reset(_)
        | Kind::Discard(_)
        | Kind::Prepare(_)
        | Kind::Deallocate(_)
        | Kind::Declare { .. }
        | Kind::Fetch
        | Kind::CloseCursor
        | Kind::Listen
        | Kind::Unlisten
        | Kind::Notify => Why::ChangesSession,
        Kind::Show(_) => Why::ShowsSetting,
        Kind::Lock => Why::Locks,
        Kind::CreateTemp => Why::Temporary,
        Kind::Ddl { .. } => Why::ChangesCatalog,
        Kind::Maintenance => Why::Maintenance,
        Kind::Call | Kind::Do | Kind::Execute(_) => Why::HiddenBody,
        Kind::Other(_) => Why::Unparsed,
    })
}
