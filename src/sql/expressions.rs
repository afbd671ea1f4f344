//! Walks parsed expressions: calls, casts, operators, sub-queries, and the columns that tell of rows' places.
//!
//! Called by `walk` and `changes`. Invariant: every variant is listed; one that PostgreSQL does not have is
//! `Doubt::Opaque`. Left-deep chains are followed in a loop, so that the stack grows with nesting and not with length.

use sqlparser::ast::{
    AccessExpr, ArrayElemTypeDef, BinaryOperator, CastKind, CeilFloorKind, DataType, Expr, ExtractSyntax,
    Function, FunctionArg, FunctionArgExpr, FunctionArgumentClause, FunctionArguments, Ident, OrderByExpr,
    OrderBySort, Subscript, UnaryOperator, Value, WindowFrameBound, WindowSpec, WindowType,
};

use super::functions::{is_builtin_operator, is_builtin_type};
use super::statement::{Doubt, Name};
use super::walk::{Walk, folded};

/// Keywords that are calls without parentheses.
pub(super) const KEYWORD_CALLS: &[&str] = &[
    "current_catalog",
    "current_date",
    "current_role",
    "current_schema",
    "current_time",
    "current_timestamp",
    "current_user",
    "localtime",
    "localtimestamp",
    "session_user",
    "system_user",
    "user",
];

const SYSTEM_COLUMNS: &[&str] = &["ctid", "xmin", "xmax", "cmin", "cmax", "tableoid"];

fn plain(name: &str) -> Name {
    Name {
        schema: None,
        name: name.into(),
    }
}

impl Walk {
    pub(super) fn exprs<'e>(&mut self, exprs: impl IntoIterator<Item = &'e Expr>) {
        for expr in exprs {
            self.expr(expr);
        }
    }

    pub(super) fn expr(&mut self, expr: &Expr) {
        let mut next = Some(expr);
        while let Some(expr) = next {
            next = self.step(expr);
        }
    }

    fn opaque<'e>(&mut self) -> Option<&'e Expr> {
        self.doubt(Doubt::Opaque);
        None
    }

    /// Looks at one node and all but its leftmost child, which it returns.
    #[expect(
        clippy::too_many_lines,
        reason = "one arm for each variant: the allow-list is read as a table"
    )]
    fn step<'e>(&mut self, expr: &'e Expr) -> Option<&'e Expr> {
        match expr {
            Expr::Identifier(ident) => self.identifier(ident),
            Expr::CompoundIdentifier(parts) => {
                if let Some(last) = parts.last() {
                    self.column(last);
                }
                None
            }
            Expr::CompoundFieldAccess { root, access_chain } => {
                self.access(access_chain);
                Some(root)
            }
            Expr::IsFalse(inner)
            | Expr::IsNotFalse(inner)
            | Expr::IsTrue(inner)
            | Expr::IsNotTrue(inner)
            | Expr::IsNull(inner)
            | Expr::IsNotNull(inner)
            | Expr::IsUnknown(inner)
            | Expr::IsNotUnknown(inner)
            | Expr::Nested(inner)
            | Expr::Collate {
                expr: inner,
                collation: _,
            }
            | Expr::IsJson {
                expr: inner,
                kind: _,
                unique_keys: _,
                negated: _,
            }
            | Expr::IsNormalized {
                expr: inner,
                form: _,
                negated: _,
            } => Some(inner),
            Expr::IsDistinctFrom(left, right) | Expr::IsNotDistinctFrom(left, right) => {
                self.expr(right);
                Some(left)
            }
            Expr::InList {
                expr,
                list,
                negated: _,
            } => {
                self.exprs(list);
                Some(expr)
            }
            Expr::InSubquery {
                expr,
                subquery,
                negated: _,
            } => {
                self.query(subquery);
                Some(expr)
            }
            Expr::Between {
                expr,
                negated: _,
                low,
                high,
            } => {
                self.expr(low);
                self.expr(high);
                Some(expr)
            }
            Expr::BinaryOp { left, op, right } => {
                self.operator(op);
                self.expr(right);
                Some(left)
            }
            Expr::AnyOp {
                left,
                compare_op,
                right,
                is_some: _,
            }
            | Expr::AllOp {
                left,
                compare_op,
                right,
            } => {
                self.operator(compare_op);
                self.expr(right);
                Some(left)
            }
            Expr::UnaryOp { op, expr } => {
                self.unary(*op);
                Some(expr)
            }
            Expr::Cast {
                kind,
                expr,
                data_type,
                format,
            } => {
                self.opaque_if(format.is_some() || !matches!(kind, CastKind::Cast | CastKind::DoubleColon));
                self.data_type(data_type);
                self.clock.cast(expr, data_type);
                Some(expr)
            }
            Expr::AtTimeZone { timestamp, time_zone } => {
                self.call(plain("timezone"), 2);
                self.expr(time_zone);
                Some(timestamp)
            }
            Expr::Function(function) => {
                self.function(function);
                None
            }
            Expr::Case {
                case_token: _,
                end_token: _,
                operand,
                conditions,
                else_result,
            } => {
                for when in conditions {
                    self.expr(&when.condition);
                    self.expr(&when.result);
                }
                self.exprs(else_result.as_deref());
                operand.as_deref()
            }
            Expr::Exists { subquery, negated: _ } | Expr::Subquery(subquery) => {
                self.query(subquery);
                None
            }
            Expr::GroupingSets(sets) | Expr::Cube(sets) | Expr::Rollup(sets) => {
                for set in sets {
                    self.exprs(set);
                }
                None
            }
            Expr::Tuple(items) => {
                self.exprs(items);
                None
            }
            Expr::Array(array) => {
                self.exprs(&array.elem);
                None
            }
            Expr::Value(value) => self.value(&value.value),
            Expr::TypedString(typed) => {
                self.opaque_if(typed.uses_odbc_syntax);
                self.data_type(&typed.data_type);
                self.value(&typed.value.value)
            }
            Expr::Interval(interval) => Some(&interval.value),
            Expr::Like { .. } | Expr::ILike { .. } | Expr::SimilarTo { .. } => self.pattern(expr),
            Expr::Extract { .. }
            | Expr::Ceil { .. }
            | Expr::Floor { .. }
            | Expr::Position { .. }
            | Expr::Substring { .. }
            | Expr::Trim { .. }
            | Expr::Overlay { .. } => self.keyword_function(expr),
            Expr::JsonAccess { .. }
            | Expr::InUnnest { .. }
            | Expr::RLike { .. }
            | Expr::Convert { .. }
            | Expr::Prefixed { .. }
            | Expr::Struct { .. }
            | Expr::Named { .. }
            | Expr::Dictionary(_)
            | Expr::Map(_)
            | Expr::MatchAgainst { .. }
            | Expr::Wildcard(_)
            | Expr::QualifiedWildcard(..)
            | Expr::OuterJoin(_)
            | Expr::Prior(_)
            | Expr::Lambda(_)
            | Expr::MemberOf(_) => self.opaque(),
        }
    }

    fn identifier<'e>(&mut self, ident: &Ident) -> Option<&'e Expr> {
        let name = folded(ident);
        if ident.quote_style.is_none() && KEYWORD_CALLS.contains(&&*name) {
            self.call(plain(&name), 0);
        }
        self.column(ident);
        None
    }

    fn column(&mut self, ident: &Ident) {
        if SYSTEM_COLUMNS.contains(&&*folded(ident)) {
            self.doubt(Doubt::SystemColumn);
        }
    }

    fn access(&mut self, chain: &[AccessExpr]) {
        for access in chain {
            match access {
                // A field of a composite: `(f(x)).y`. Written so, it may also be a call of y.
                AccessExpr::Dot(Expr::Identifier(ident)) => {
                    self.column(ident);
                    self.doubt(Doubt::Opaque);
                }
                AccessExpr::Dot(_) => self.doubt(Doubt::Opaque),
                AccessExpr::Subscript(Subscript::Index { index }) => self.expr(index),
                AccessExpr::Subscript(Subscript::Slice {
                    lower_bound,
                    upper_bound,
                    stride,
                }) => {
                    self.opaque_if(stride.is_some());
                    self.exprs(lower_bound);
                    self.exprs(upper_bound);
                }
            }
        }
    }

    fn pattern<'e>(&mut self, expr: &'e Expr) -> Option<&'e Expr> {
        let (expr, pattern, escape, any) = match expr {
            Expr::Like {
                negated: _,
                any,
                expr,
                pattern,
                escape_char,
            }
            | Expr::ILike {
                negated: _,
                any,
                expr,
                pattern,
                escape_char,
            } => (expr, pattern, escape_char, *any),
            Expr::SimilarTo {
                negated: _,
                expr,
                pattern,
                escape_char,
            } => (expr, pattern, escape_char, false),
            _ => return self.opaque(),
        };
        self.opaque_if(any);
        self.expr(pattern);
        self.exprs(escape.as_deref());
        Some(expr)
    }

    /// Functions with a syntax of their own.
    fn keyword_function<'e>(&mut self, expr: &'e Expr) -> Option<&'e Expr> {
        match expr {
            Expr::Extract {
                field: _,
                syntax,
                expr,
            } => {
                self.opaque_if(*syntax != ExtractSyntax::From);
                self.call(plain("extract"), 2);
                Some(expr)
            }
            Expr::Ceil { expr, field } | Expr::Floor { expr, field } => {
                match field {
                    CeilFloorKind::DateTimeField(sqlparser::ast::DateTimeField::NoDateTime) => {}
                    CeilFloorKind::DateTimeField(_) | CeilFloorKind::Scale(_) => self.doubt(Doubt::Opaque),
                }
                self.call(plain("ceil"), 1);
                self.call(plain("floor"), 1);
                Some(expr)
            }
            Expr::Position { expr, r#in } => {
                self.call(plain("position"), 2);
                self.expr(r#in);
                Some(expr)
            }
            Expr::Substring {
                expr,
                substring_from,
                substring_for,
                special: _,
                shorthand: _,
            } => {
                self.call(plain("substring"), 3);
                self.exprs(substring_from.as_deref());
                self.exprs(substring_for.as_deref());
                Some(expr)
            }
            Expr::Trim {
                trim_where: _,
                trim_what,
                expr,
                trim_characters,
            } => {
                self.call(plain("btrim"), 2);
                self.exprs(trim_what.as_deref());
                self.exprs(trim_characters.iter().flatten());
                Some(expr)
            }
            Expr::Overlay {
                expr,
                overlay_what,
                overlay_from,
                overlay_for,
            } => {
                self.call(plain("overlay"), 4);
                self.expr(overlay_what);
                self.expr(overlay_from);
                self.exprs(overlay_for.as_deref());
                Some(expr)
            }
            _ => self.opaque(),
        }
    }

    /// A literal. Clock words in it were looked for among the tokens.
    fn value<'e>(&mut self, value: &Value) -> Option<&'e Expr> {
        match value {
            Value::Number(..)
            | Value::SingleQuotedString(_)
            | Value::DollarQuotedString(_)
            | Value::EscapedStringLiteral(_)
            | Value::NationalStringLiteral(_)
            | Value::Boolean(_)
            | Value::Null => None,
            Value::Placeholder(name) if name.starts_with('$') => None,
            _ => self.opaque(),
        }
    }

    fn operator(&mut self, op: &BinaryOperator) {
        match op {
            BinaryOperator::And | BinaryOperator::Or => {}
            BinaryOperator::Overlaps => self.call(plain("overlaps"), 4),
            // Words of other dialects, and functions named by `OPERATOR(schema.op)`.
            BinaryOperator::Xor
            | BinaryOperator::DuckIntegerDivide
            | BinaryOperator::MyIntegerDivide
            | BinaryOperator::Match
            | BinaryOperator::Regexp
            | BinaryOperator::Glob
            | BinaryOperator::Assignment => self.doubt(Doubt::Opaque),
            BinaryOperator::PGCustomBinaryOperator(parts) => match parts.as_slice() {
                [schema, op] if schema == "pg_catalog" && is_builtin_operator(op) => {}
                parts => self.operators.push(parts.join(".").into()),
            },
            BinaryOperator::AtAt => self.operators.push("@@".into()),
            other => {
                let text = other.to_string();
                if !is_builtin_operator(&text) {
                    self.operators.push(text.into());
                }
            }
        }
    }

    fn unary(&mut self, op: UnaryOperator) {
        if op == UnaryOperator::Not {
            return;
        }
        let text = op.to_string();
        if !is_builtin_operator(&text) {
            self.operators.push(text.into());
        }
    }

    pub(super) fn data_type(&mut self, data_type: &DataType) {
        match data_type {
            DataType::Array(
                ArrayElemTypeDef::SquareBracket(inner, _) | ArrayElemTypeDef::Qualified(inner, _),
            ) => self.data_type(inner),
            DataType::Array(
                ArrayElemTypeDef::None | ArrayElemTypeDef::AngleBracket(_) | ArrayElemTypeDef::Parenthesis(_),
            ) => self.doubt(Doubt::Opaque),
            DataType::Interval { .. } => {}
            DataType::Custom(name, _) => {
                if let Some(name) = self.name(name) {
                    let builtin = name.schema.as_deref().is_none_or(|schema| schema == "pg_catalog")
                        && is_builtin_type(&name.name);
                    if !builtin {
                        self.types.push(name);
                    }
                }
            }
            other => {
                let name = without_modifier(&other.to_string());
                if !is_builtin_type(&name) {
                    self.types.push(plain(&name));
                }
            }
        }
    }

    pub(super) fn sort(&mut self, exprs: &[OrderByExpr]) {
        for order in exprs {
            self.opaque_if(
                order.with_fill.is_some() || matches!(order.options.sort, Some(OrderBySort::Using(_))),
            );
            self.expr(&order.expr);
        }
    }

    pub(super) fn window(&mut self, window: &WindowSpec) {
        self.aggregates = true;
        self.exprs(&window.partition_by);
        self.sort(&window.order_by);
        if let Some(frame) = &window.window_frame {
            for bound in std::iter::once(&frame.start_bound).chain(&frame.end_bound) {
                match bound {
                    WindowFrameBound::CurrentRow => {}
                    WindowFrameBound::Preceding(expr) | WindowFrameBound::Following(expr) => {
                        self.exprs(expr.as_deref());
                    }
                }
            }
        }
    }

    fn function(&mut self, function: &Function) {
        let Function {
            name,
            uses_odbc_syntax,
            parameters,
            args,
            within_group,
            filter,
            null_treatment: _,
            over,
        } = function;
        self.opaque_if(*uses_odbc_syntax || !matches!(parameters, FunctionArguments::None));
        let name = self.name(name);
        if let Some(name) = &name {
            self.clock.call(&name.name, args);
        }
        let count = match args {
            FunctionArguments::None => 0,
            FunctionArguments::Subquery(query) => {
                self.query(query);
                // `ARRAY(SELECT …)` is a constructor.
                if name
                    .as_ref()
                    .is_some_and(|n| n.schema.is_none() && &*n.name == "array")
                {
                    return;
                }
                1
            }
            FunctionArguments::List(list) => {
                self.args(&list.args);
                for clause in &list.clauses {
                    match clause {
                        FunctionArgumentClause::OrderBy(exprs) => self.sort(exprs),
                        _ => self.doubt(Doubt::Opaque),
                    }
                }
                list.args
                    .iter()
                    .filter(|arg| !matches!(arg, FunctionArg::Unnamed(FunctionArgExpr::Wildcard)))
                    .count()
            }
        };
        if let Some(name) = name {
            self.call(name, count);
        }
        self.sort(within_group);
        self.exprs(filter.as_deref());
        match over {
            None => {}
            Some(WindowType::NamedWindow(_)) => self.aggregates = true,
            Some(WindowType::WindowSpec(spec)) => self.window(spec),
        }
    }

    pub(super) fn args(&mut self, args: &[FunctionArg]) {
        for arg in args {
            let arg = match arg {
                FunctionArg::Named {
                    name: _,
                    arg,
                    operator: _,
                }
                | FunctionArg::ExprNamed {
                    name: Expr::Identifier(_),
                    arg,
                    operator: _,
                }
                | FunctionArg::Unnamed(arg) => arg,
                FunctionArg::ExprNamed { .. } => {
                    self.doubt(Doubt::Opaque);
                    continue;
                }
            };
            match arg {
                FunctionArgExpr::Expr(expr) => self.expr(expr),
                FunctionArgExpr::QualifiedWildcard(_) | FunctionArgExpr::Wildcard => {}
                FunctionArgExpr::WildcardWithOptions(options) => self.wildcard(options),
            }
        }
    }
}

/// A type's spelling in lower case without what stands in parentheses: `TIMESTAMP(3) WITH TIME ZONE` is
/// `timestamp with time zone`.
pub(super) fn without_modifier(text: &str) -> String {
    let mut depth = 0usize;
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            c if depth == 0 => out.push(c.to_ascii_lowercase()),
            _ => {}
        }
    }
    out.trim().to_owned()
}
