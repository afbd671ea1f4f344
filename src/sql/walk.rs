//! Walks a parsed query: which relations, functions, types and operators it names.
//!
//! Called by `analyze` with the general parser's tree. Invariant: a strict allow-list. A node, or a clause of a node, that
//! PostgreSQL does not have or whose names cannot be listed is `Doubt::Opaque`; matches are exhaustive, so that a new version
//! of the parser does not slip a node past it. Names of CTEs are resolved by scope. Expressions are in `expressions`, row
//! changes in `changes`. It recurses as the parser did, which limits nesting, and loops along left-deep chains.

use sqlparser::ast::{
    self, Cte, Distinct, Fetch, GroupByExpr, Ident, Join, JoinConstraint, JoinOperator, LimitClause,
    NamedWindowExpr, ObjectName, ObjectNamePart, OrderBy, OrderByKind, Query, Select, SelectFlavor,
    SelectItem, SelectItemQualifiedWildcardKind, SetExpr, TableAlias, TableFactor, TableSample,
    TableSampleKind, TableWithJoins, WildcardAdditionalOptions,
};

use super::analyze::blank;
use super::clock::Clock;
use super::ident::{fold, truncated};
use super::statement::{Call, Doubt, Kind, Name, Statement};

/// What has been found so far, and the CTE names in scope.
#[derive(Default)]
pub(crate) struct Walk {
    pub(super) reads: Vec<Name>,
    pub(super) writes: Vec<Name>,
    pub(super) calls: Vec<Call>,
    pub(super) types: Vec<Name>,
    pub(super) operators: Vec<Box<str>>,
    pub(super) doubts: Vec<Doubt>,
    pub(super) aggregates: bool,
    pub(super) clock: Clock,
    into_temp: bool,
    scope: Vec<Box<str>>,
    pub(super) depth: u32,
}

/// An identifier as PostgreSQL folds it.
pub(super) fn folded(ident: &Ident) -> Box<str> {
    match ident.quote_style {
        // The parser takes a string for a name where the server does not: nothing has this one.
        Some('\'') => "".into(),
        Some(_) => truncated(&ident.value),
        None => fold(&ident.value),
    }
}

impl Walk {
    /// Walks a statement and says what kind it is; `None` for one that is not a query or row change.
    pub(crate) fn statement(&mut self, statement: &ast::Statement) -> Option<Kind> {
        if let ast::Statement::Query(query) = statement {
            let kind = main_kind(&query.body);
            self.query(query);
            return Some(if self.into_temp { Kind::CreateTemp } else { kind });
        }
        self.change(statement)
    }

    pub(crate) fn into_statement(mut self, kind: Kind) -> Statement {
        let time_columns = self.clock.settle().unwrap_or_else(|| {
            self.doubts.push(Doubt::ClockWord);
            Vec::new()
        });
        Statement {
            time_columns,
            reads: self.reads,
            writes: self.writes,
            calls: self.calls,
            types: self.types,
            operators: self.operators,
            aggregates: self.aggregates,
            doubts: self.doubts,
            ..blank(kind)
        }
    }

    pub(super) fn doubt(&mut self, doubt: Doubt) {
        self.doubts.push(doubt);
    }

    pub(super) fn opaque_if(&mut self, odd: bool) {
        if odd {
            self.doubt(Doubt::Opaque);
        }
    }

    /// A name of one to three plain parts; anything else is a doubt.
    pub(super) fn name(&mut self, name: &ObjectName) -> Option<Name> {
        let parts: Option<Vec<&Ident>> = name
            .0
            .iter()
            .map(|part| match part {
                ObjectNamePart::Identifier(ident) => Some(ident),
                ObjectNamePart::Function(_) => None,
            })
            .collect();
        match parts.as_deref() {
            Some([name]) => Some(Name {
                schema: None,
                name: folded(name),
            }),
            Some([.., schema, name]) if name.quote_style.is_some() || name.value != "*" => Some(Name {
                schema: Some(folded(schema)),
                name: folded(name),
            }),
            _ => {
                self.doubt(Doubt::Opaque);
                None
            }
        }
    }

    /// A relation that is read, unless the name stands for a CTE here.
    pub(super) fn read(&mut self, relation: &ObjectName) {
        let unquoted_only = relation.0.last().is_some_and(
            |part| matches!(part, ObjectNamePart::Identifier(i) if i.quote_style.is_none() && i.value.eq_ignore_ascii_case("only")),
        );
        if unquoted_only {
            self.doubt(Doubt::OnlyName);
        }
        if let Some(name) = self.name(relation)
            && (name.schema.is_some() || !self.scope.contains(&name.name))
        {
            self.reads.push(name);
        }
    }

    /// The target of a row change: never a CTE.
    pub(super) fn write(&mut self, relation: &ObjectName) -> Option<Name> {
        let name = self.name(relation)?;
        self.writes.push(name.clone());
        Some(name)
    }

    pub(super) fn call(&mut self, name: Name, args: usize) {
        let args = u16::try_from(args).unwrap_or(u16::MAX);
        self.calls.push(Call { name, args });
    }

    pub(super) fn query(&mut self, query: &Query) {
        let Query {
            with,
            body,
            order_by,
            limit_clause,
            fetch,
            locks,
            for_clause,
            settings,
            format_clause,
            pipe_operators,
        } = query;
        let scope = self.scope.len();
        self.depth += 1;
        if let Some(with) = with {
            if with.recursive {
                self.scope
                    .extend(with.cte_tables.iter().map(|cte| folded(&cte.alias.name)));
            }
            for cte in &with.cte_tables {
                self.cte(cte);
                self.scope.push(folded(&cte.alias.name));
            }
        }
        self.set_expr(body);
        if let Some(order_by) = order_by {
            self.order_by(order_by);
        }
        if let Some(limit) = limit_clause {
            self.limit(limit);
        }
        if let Some(Fetch {
            with_ties: _,
            percent,
            quantity,
        }) = fetch
        {
            self.opaque_if(*percent);
            self.exprs(quantity);
        }
        if !locks.is_empty() {
            self.doubt(Doubt::LocksRows);
        }
        self.opaque_if(
            for_clause.is_some()
                || settings.is_some()
                || format_clause.is_some()
                || !pipe_operators.is_empty(),
        );
        self.depth -= 1;
        self.scope.truncate(scope);
    }

    fn cte(&mut self, cte: &Cte) {
        let Cte {
            alias,
            query,
            from,
            materialized: _,
            closing_paren_token: _,
        } = cte;
        self.opaque_if(from.is_some());
        self.alias(Some(alias));
        self.clock.alias(Some(alias), query);
        self.query(query);
    }

    fn order_by(&mut self, order_by: &OrderBy) {
        self.opaque_if(order_by.interpolate.is_some());
        match &order_by.kind {
            OrderByKind::All(_) => self.doubt(Doubt::Opaque),
            OrderByKind::Expressions(exprs) => self.sort(exprs),
        }
    }

    fn limit(&mut self, limit: &LimitClause) {
        match limit {
            LimitClause::LimitOffset {
                limit,
                offset,
                limit_by,
            } => {
                self.opaque_if(!limit_by.is_empty());
                self.exprs(limit);
                self.exprs(offset.as_ref().map(|offset| &offset.value));
            }
            LimitClause::OffsetCommaLimit { .. } => self.doubt(Doubt::Opaque),
        }
    }

    fn set_expr(&mut self, mut body: &SetExpr) {
        loop {
            match body {
                SetExpr::SetOperation {
                    left,
                    right,
                    op: _,
                    set_quantifier: _,
                } => {
                    if self.depth > 1 {
                        self.clock.branch(right);
                    }
                    self.set_expr(right);
                    body = left;
                    continue;
                }
                SetExpr::Select(select) => self.select(select),
                SetExpr::Query(query) => self.query(query),
                SetExpr::Values(values) => {
                    self.opaque_if(values.explicit_row || values.value_keyword);
                    for row in &values.rows {
                        if self.depth > 1 {
                            self.clock.unnamed(&row.content);
                        }
                        self.exprs(&row.content);
                    }
                }
                SetExpr::Insert(change)
                | SetExpr::Update(change)
                | SetExpr::Delete(change)
                | SetExpr::Merge(change) => {
                    if self.depth > 1 {
                        self.doubt(Doubt::WritesInCte);
                    }
                    self.change(change);
                }
                // The parser keeps the names without saying whether they were quoted.
                SetExpr::Table(_) => self.doubt(Doubt::Opaque),
            }
            return;
        }
    }

    fn select(&mut self, select: &Select) {
        if let Some(into) = &select.into {
            self.doubt(Doubt::SelectsInto);
            self.into_temp |= into.temporary;
        }
        let odd = select
            .select_modifiers
            .as_ref()
            .is_some_and(ast::SelectModifiers::is_any_set)
            || select.top.is_some()
            || select.exclude.is_some()
            || !select.lateral_views.is_empty()
            || select.prewhere.is_some()
            || !select.connect_by.is_empty()
            || !select.cluster_by.is_empty()
            || !select.distribute_by.is_empty()
            || !select.sort_by.is_empty()
            || select.qualify.is_some()
            || select.value_table_mode.is_some()
            || select.flavor != SelectFlavor::Standard;
        self.opaque_if(odd);
        match &select.distinct {
            None | Some(Distinct::All) => {}
            Some(Distinct::Distinct) => self.aggregates = true,
            Some(Distinct::On(exprs)) => {
                self.aggregates = true;
                self.exprs(exprs);
            }
        }
        if self.depth > 1 {
            self.clock.items(&select.projection);
        }
        self.items(&select.projection);
        self.tables(&select.from);
        self.exprs(&select.selection);
        match &select.group_by {
            GroupByExpr::All(_) => self.doubt(Doubt::Opaque),
            GroupByExpr::Expressions(exprs, modifiers) => {
                self.opaque_if(!modifiers.is_empty());
                self.aggregates |= !exprs.is_empty();
                self.exprs(exprs);
            }
        }
        self.aggregates |= select.having.is_some();
        self.exprs(&select.having);
        for window in &select.named_window {
            match &window.1 {
                NamedWindowExpr::NamedWindow(_) => self.doubt(Doubt::Opaque),
                NamedWindowExpr::WindowSpec(spec) => self.window(spec),
            }
        }
    }

    pub(super) fn items(&mut self, items: &[SelectItem]) {
        for item in items {
            match item {
                SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, alias: _ } => {
                    self.expr(expr);
                }
                SelectItem::ExprWithAliases { .. } => self.doubt(Doubt::Opaque),
                SelectItem::QualifiedWildcard(kind, options) => {
                    self.wildcard(options);
                    match kind {
                        SelectItemQualifiedWildcardKind::ObjectName(_) => {}
                        SelectItemQualifiedWildcardKind::Expr(expr) => self.expr(expr),
                    }
                }
                SelectItem::Wildcard(options) => self.wildcard(options),
            }
        }
    }

    pub(super) fn wildcard(&mut self, options: &WildcardAdditionalOptions) {
        let WildcardAdditionalOptions {
            wildcard_token: _,
            opt_ilike,
            opt_exclude,
            opt_except,
            opt_replace,
            opt_rename,
            opt_alias,
        } = options;
        self.opaque_if(
            opt_ilike.is_some()
                || opt_exclude.is_some()
                || opt_except.is_some()
                || opt_replace.is_some()
                || opt_rename.is_some()
                || opt_alias.is_some(),
        );
    }

    pub(super) fn tables(&mut self, tables: &[TableWithJoins]) {
        for table in tables {
            self.table_with_joins(table);
        }
    }

    pub(super) fn table_with_joins(&mut self, table: &TableWithJoins) {
        self.table(&table.relation);
        self.joins(&table.joins);
    }

    pub(super) fn joins(&mut self, joins: &[Join]) {
        for Join {
            relation,
            global,
            join_operator,
        } in joins
        {
            self.opaque_if(*global);
            self.table(relation);
            let constraint = match join_operator {
                JoinOperator::Join(constraint)
                | JoinOperator::Inner(constraint)
                | JoinOperator::Left(constraint)
                | JoinOperator::LeftOuter(constraint)
                | JoinOperator::Right(constraint)
                | JoinOperator::RightOuter(constraint)
                | JoinOperator::FullOuter(constraint)
                | JoinOperator::CrossJoin(constraint) => constraint,
                JoinOperator::Semi(_)
                | JoinOperator::LeftSemi(_)
                | JoinOperator::RightSemi(_)
                | JoinOperator::Anti(_)
                | JoinOperator::LeftAnti(_)
                | JoinOperator::RightAnti(_)
                | JoinOperator::CrossApply
                | JoinOperator::OuterApply
                | JoinOperator::AsOf { .. }
                | JoinOperator::StraightJoin(_)
                | JoinOperator::ArrayJoin
                | JoinOperator::LeftArrayJoin
                | JoinOperator::InnerArrayJoin => {
                    self.doubt(Doubt::Opaque);
                    continue;
                }
            };
            match constraint {
                JoinConstraint::On(expr) => self.expr(expr),
                JoinConstraint::Using(_) | JoinConstraint::Natural | JoinConstraint::None => {}
            }
        }
    }

    /// An alias: its column definitions may name types.
    pub(super) fn alias(&mut self, alias: Option<&TableAlias>) {
        let Some(alias) = alias else { return };
        self.opaque_if(alias.at.is_some());
        for column in &alias.columns {
            if let Some(data_type) = &column.data_type {
                self.data_type(data_type);
            }
        }
    }

    pub(super) fn table(&mut self, table: &TableFactor) {
        match table {
            TableFactor::Table { .. } => self.plain_table(table),
            TableFactor::Derived {
                lateral: _,
                subquery,
                alias,
                sample,
            } => {
                self.alias(alias.as_ref());
                self.clock.alias(alias.as_ref(), subquery);
                self.opaque_if(sample.is_some());
                self.query(subquery);
            }
            TableFactor::Function {
                lateral: _,
                name,
                args,
                with_ordinality: _,
                alias,
            } => {
                self.alias(alias.as_ref());
                if let Some(name) = self.name(name) {
                    self.clock.function(alias.as_ref(), &name.name, args);
                    self.call(name, args.len());
                }
                self.args(args);
            }
            TableFactor::UNNEST {
                alias,
                array_exprs,
                with_offset,
                with_offset_alias,
                with_ordinality: _,
            } => {
                self.alias(alias.as_ref());
                self.opaque_if(*with_offset || with_offset_alias.is_some());
                self.clock.unnest(alias.as_ref(), array_exprs);
                self.call(
                    Name {
                        schema: None,
                        name: "unnest".into(),
                    },
                    array_exprs.len(),
                );
                self.exprs(array_exprs);
            }
            TableFactor::NestedJoin {
                table_with_joins,
                alias,
            } => {
                self.alias(alias.as_ref());
                self.clock.renamed(alias.as_ref());
                self.table_with_joins(table_with_joins);
            }
            TableFactor::TableFunction { .. }
            | TableFactor::JsonTable { .. }
            | TableFactor::OpenJsonTable { .. }
            | TableFactor::Pivot { .. }
            | TableFactor::Unpivot { .. }
            | TableFactor::UnpivotExpr { .. }
            | TableFactor::MatchRecognize { .. }
            | TableFactor::XmlTable { .. }
            | TableFactor::SemanticView { .. } => self.doubt(Doubt::Opaque),
        }
    }

    fn sample(&mut self, sample: &TableSample) {
        let TableSample {
            modifier: _,
            name: _,
            quantity,
            seed,
            bucket,
            offset,
        } = sample;
        self.doubt(Doubt::Sample);
        self.opaque_if(bucket.is_some() || offset.is_some());
        self.exprs(quantity.as_ref().map(|quantity| &quantity.value));
        // The seed is a literal or it is not parsed.
        self.opaque_if(
            seed.as_ref()
                .is_some_and(|seed| !matches!(seed.value.value, ast::Value::Number(..))),
        );
    }

    /// A named relation, or a function in FROM, which the parser gives the same node.
    fn plain_table(&mut self, table: &TableFactor) {
        let TableFactor::Table {
            name,
            alias,
            args,
            with_hints,
            version,
            with_ordinality,
            partitions,
            json_path,
            sample,
            index_hints,
        } = table
        else {
            return self.doubt(Doubt::Opaque);
        };
        self.alias(alias.as_ref());
        self.opaque_if(
            !with_hints.is_empty()
                || version.is_some()
                || !partitions.is_empty()
                || json_path.is_some()
                || !index_hints.is_empty(),
        );
        if let Some(TableSampleKind::BeforeTableAlias(sample) | TableSampleKind::AfterTableAlias(sample)) =
            sample
        {
            self.sample(sample);
        }
        let Some(args) = args else {
            self.opaque_if(*with_ordinality);
            self.clock.renamed(alias.as_ref());
            return self.read(name);
        };
        self.opaque_if(args.settings.is_some());
        if let Some(name) = self.name(name) {
            self.clock.function(alias.as_ref(), &name.name, &args.args);
            self.call(name, args.args.len());
        }
        self.args(&args.args);
    }
}

/// What a query's main body is: `WITH … INSERT` is an INSERT.
fn main_kind(body: &SetExpr) -> Kind {
    match body {
        SetExpr::Insert(_) => Kind::Insert,
        SetExpr::Update(_) => Kind::Update,
        SetExpr::Delete(_) => Kind::Delete,
        SetExpr::Merge(_) => Kind::Merge,
        SetExpr::Select(_)
        | SetExpr::Query(_)
        | SetExpr::SetOperation { .. }
        | SetExpr::Values(_)
        | SetExpr::Table(_) => Kind::Select,
    }
}
