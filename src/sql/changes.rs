//! Walks a parsed INSERT, UPDATE, DELETE or MERGE: what it writes, and what it reads to do so.
//!
//! Called by `walk`, for a statement and for a CTE's body alike. Invariant: the target is always in the write set, also when
//! the rest is a doubt. What triggers, cascades and rules add is the catalog's knowledge.

use sqlparser::ast::{
    Assignment, AssignmentTarget, ConflictTarget, Delete, Expr, FromTable, FunctionArg, FunctionArgExpr,
    FunctionArguments, Insert, Merge, MergeAction, MergeInsertKind, MergeUpdateKind, OnConflictAction,
    OnInsert, OutputClause, Statement, TableFactor, TableObject, TableWithJoins, Update, UpdateTableFromKind,
};

use super::statement::{Doubt, Kind};
use super::walk::Walk;

impl Walk {
    /// Walks a row change; `None` for any other statement.
    pub(super) fn change(&mut self, statement: &Statement) -> Option<Kind> {
        match statement {
            Statement::Insert(insert) => {
                self.insert(insert);
                Some(Kind::Insert)
            }
            Statement::Update(update) => {
                self.update(update);
                Some(Kind::Update)
            }
            Statement::Delete(delete) => {
                self.delete(delete);
                Some(Kind::Delete)
            }
            Statement::Merge(merge) => {
                self.merge(merge);
                Some(Kind::Merge)
            }
            _ => {
                self.doubt(Doubt::Opaque);
                None
            }
        }
    }

    fn insert(&mut self, insert: &Insert) {
        let target = match &insert.table {
            TableObject::TableName(name) => self.write(name),
            TableObject::TableFunction(_) | TableObject::TableQuery(_) => {
                self.doubt(Doubt::Opaque);
                None
            }
        };
        self.opaque_if(
            insert.or.is_some()
                || insert.ignore
                || insert.overwrite
                || insert.replace_into
                || !insert.assignments.is_empty()
                || insert.partitioned.is_some()
                || insert.insert_alias.is_some()
                || insert.multi_table_insert_type.is_some()
                || insert.output.is_some(),
        );
        if let Some(source) = &insert.source {
            self.query(source);
        }
        match &insert.on {
            None => {}
            Some(OnInsert::OnConflict(conflict)) => {
                self.reads.extend(target);
                match &conflict.conflict_target {
                    None | Some(ConflictTarget::Columns(_) | ConflictTarget::OnConstraint(_)) => {}
                }
                match &conflict.action {
                    OnConflictAction::DoNothing => {}
                    OnConflictAction::DoUpdate(update) => {
                        self.assignments(&update.assignments);
                        self.exprs(&update.selection);
                    }
                }
            }
            Some(_) => self.doubt(Doubt::Opaque),
        }
        if let Some(items) = &insert.returning {
            self.items(items);
        }
    }

    fn update(&mut self, update: &Update) {
        self.target(&update.table);
        self.opaque_if(
            update.or.is_some()
                || update.output.is_some()
                || !update.order_by.is_empty()
                || update.limit.is_some(),
        );
        self.assignments(&update.assignments);
        match &update.from {
            None => {}
            Some(UpdateTableFromKind::AfterSet(tables)) => self.tables(tables),
            Some(UpdateTableFromKind::BeforeSet(tables)) => {
                self.doubt(Doubt::Opaque);
                self.tables(tables);
            }
        }
        self.exprs(&update.selection);
        if let Some(items) = &update.returning {
            self.items(items);
        }
    }

    fn delete(&mut self, delete: &Delete) {
        self.opaque_if(
            !delete.tables.is_empty()
                || delete.output.is_some()
                || !delete.order_by.is_empty()
                || delete.limit.is_some(),
        );
        let (FromTable::WithFromKeyword(targets) | FromTable::WithoutKeyword(targets)) = &delete.from;
        for target in targets {
            self.target(target);
        }
        if let Some(using) = &delete.using {
            self.tables(using);
        }
        self.exprs(&delete.selection);
        if let Some(items) = &delete.returning {
            self.items(items);
        }
    }

    fn merge(&mut self, merge: &Merge) {
        self.target_factor(&merge.table);
        self.table(&merge.source);
        self.expr(&merge.on);
        for clause in &merge.clauses {
            self.exprs(&clause.predicate);
            match &clause.action {
                MergeAction::Insert(insert) => {
                    self.exprs(&insert.insert_predicate);
                    match &insert.kind {
                        MergeInsertKind::Values(values) => {
                            for row in &values.rows {
                                self.exprs(&row.content);
                            }
                        }
                        MergeInsertKind::Row | MergeInsertKind::Wildcard => self.doubt(Doubt::Opaque),
                    }
                }
                MergeAction::Update(update) => {
                    self.exprs(&update.update_predicate);
                    self.exprs(&update.delete_predicate);
                    match &update.kind {
                        MergeUpdateKind::Set(assignments) => self.assignments(assignments),
                        MergeUpdateKind::Wildcard => self.doubt(Doubt::Opaque),
                    }
                }
                MergeAction::Delete { .. } | MergeAction::DoNothing { .. } => {}
            }
        }
        match &merge.output {
            None => {}
            Some(OutputClause::Returning { select_items, .. }) => self.items(select_items),
            Some(OutputClause::Output { .. }) => self.doubt(Doubt::Opaque),
        }
    }

    /// The target of UPDATE or DELETE, which is also read.
    fn target(&mut self, target: &TableWithJoins) {
        self.target_factor(&target.relation);
        self.opaque_if(!target.joins.is_empty());
        self.joins(&target.joins);
    }

    fn target_factor(&mut self, target: &TableFactor) {
        match target {
            TableFactor::Table { name, args: None, .. } => {
                let name = self.write(name);
                self.reads.extend(name);
            }
            // What is left of `UPDATE ONLY (t)` without the word.
            TableFactor::NestedJoin { table_with_joins, .. } if table_with_joins.joins.is_empty() => {
                self.target_factor(&table_with_joins.relation);
            }
            _ => self.doubt(Doubt::Opaque),
        }
    }

    fn assignments(&mut self, assignments: &[Assignment]) {
        for Assignment { target, value } in assignments {
            match target {
                AssignmentTarget::ColumnName(_) | AssignmentTarget::Tuple(_) => {}
            }
            if sets_default(value) {
                self.doubt(Doubt::SetsDefault);
            }
            self.expr(value);
        }
    }
}

/// The parser takes DEFAULT for a column of that name.
fn sets_default(value: &Expr) -> bool {
    match value {
        Expr::Identifier(name) => name.quote_style.is_none() && name.value.eq_ignore_ascii_case("default"),
        Expr::Tuple(values) => values.iter().any(sets_default),
        Expr::Function(row) => match &row.args {
            FunctionArguments::List(list) => list.args.iter().any(
                |arg| matches!(arg, FunctionArg::Unnamed(FunctionArgExpr::Expr(value)) if sets_default(value)),
            ),
            _ => false,
        },
        _ => false,
    }
}
