//! Whether a query turns words into times: a text that says `now` or `today` becomes another time whenever it is read.
//!
//! Called by `walk` and `expressions` for every cast to a date or time, and for what a query calls its columns. Invariant: an
//! operand is harmless only if it is a number, a time, a literal (whose words are checked among the tokens) or a parameter
//! (which the session checks). A plain column is left to the catalog, which knows its type; all else may say anything.

use sqlparser::ast::{
    AccessExpr, BinaryOperator, DataType, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments,
    Ident, ObjectName, ObjectNamePart, Query, SelectItem, SetExpr, TableAlias, UnaryOperator,
};

use super::expressions::{KEYWORD_CALLS, without_modifier};
use super::walk::folded;

/// What the text of a value may say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum Wording {
    /// No clock word.
    #[default]
    Plain,
    /// What these columns say.
    Columns(Vec<Box<str>>),
    /// Anything.
    Any,
}

impl Wording {
    fn join(&mut self, other: Wording) {
        match (&mut *self, other) {
            (Self::Any, _) | (_, Self::Plain) => {}
            (Self::Columns(mine), Self::Columns(more)) => mine.extend(more),
            (_, other) => *self = other,
        }
    }
}

fn joined(all: impl IntoIterator<Item = Wording>) -> Wording {
    let mut wording = Wording::Plain;
    for one in all {
        wording.join(one);
    }
    wording
}

/// What is found while a query is walked.
#[derive(Debug, Default)]
pub(super) struct Clock {
    /// What is turned into times.
    cast: Wording,
    /// What sub-queries and functions call their columns.
    named: Vec<(Box<str>, Wording)>,
    /// What may stand in a column of whatever name.
    anywhere: Wording,
}

impl Clock {
    /// An operand of a cast.
    pub(super) fn cast(&mut self, operand: &Expr, data_type: &DataType) {
        if is_one_of(data_type, TIMES) {
            self.cast.join(wording(operand));
        }
    }

    /// A call of one argument, which is a cast when the function is named like a type.
    pub(super) fn call(&mut self, name: &str, args: &FunctionArguments) {
        if TIMES.contains(&name)
            && let FunctionArguments::List(list) = args
            && let [only] = list.args.as_slice()
        {
            self.cast.join(argument(only));
        }
    }

    /// The select list of a query whose columns another one reads.
    pub(super) fn items(&mut self, items: &[SelectItem]) {
        for item in items {
            match item {
                SelectItem::ExprWithAlias { expr, alias } => self.named.push((folded(alias), wording(expr))),
                // Columns keep their names.
                SelectItem::UnnamedExpr(Expr::Identifier(_) | Expr::CompoundIdentifier(_))
                | SelectItem::QualifiedWildcard(..)
                | SelectItem::Wildcard(_) => {}
                SelectItem::UnnamedExpr(expr) => match own_name(expr) {
                    Some(name) => self.named.push((name, wording(expr))),
                    // A type's, `case`, `?column?` and the like.
                    None => self.anywhere.join(wording(expr)),
                },
                SelectItem::ExprWithAliases { .. } => self.anywhere = Wording::Any,
            }
        }
    }

    /// A row of VALUES, or a further branch of a UNION, whose columns bear the first one's names.
    pub(super) fn unnamed<'e>(&mut self, exprs: impl IntoIterator<Item = &'e Expr>) {
        self.anywhere.join(joined(exprs.into_iter().map(wording)));
    }

    /// See `unnamed`.
    pub(super) fn branch(&mut self, body: &SetExpr) {
        self.anywhere.join(body_wording(body));
    }

    /// A sub-query under an alias that may name its columns.
    pub(super) fn alias(&mut self, alias: Option<&TableAlias>, query: &Query) {
        if alias.is_some_and(|alias| !alias.columns.is_empty()) {
            self.columns(alias, &body_wording(&query.body));
        }
    }

    /// A relation under an alias that names its columns anew.
    pub(super) fn renamed(&mut self, alias: Option<&TableAlias>) {
        self.columns(alias, &Wording::Any);
    }

    /// A function in FROM, whose column bears the alias, or its own name.
    pub(super) fn function<'e>(
        &mut self,
        alias: Option<&TableAlias>,
        name: &str,
        args: impl IntoIterator<Item = &'e FunctionArg>,
    ) {
        self.source(alias, name, called(name, args.into_iter().map(argument)));
    }

    /// `unnest` in FROM.
    pub(super) fn unnest<'e>(
        &mut self,
        alias: Option<&TableAlias>,
        arrays: impl IntoIterator<Item = &'e Expr>,
    ) {
        self.source(alias, "unnest", joined(arrays.into_iter().map(wording)));
    }

    fn source(&mut self, alias: Option<&TableAlias>, name: &str, says: Wording) {
        if says == Wording::Any {
            self.anywhere = Wording::Any;
            return;
        }
        self.columns(alias, &says);
        let own = alias.map_or_else(|| name.into(), |alias| folded(&alias.name));
        self.named.push((own, says));
    }

    fn columns(&mut self, alias: Option<&TableAlias>, says: &Wording) {
        for column in alias.into_iter().flat_map(|alias| &alias.columns) {
            self.named.push((folded(&column.name), says.clone()));
        }
    }

    /// The columns whose type decides, sorted; `None` when a clock word may hide in the query itself.
    pub(super) fn settle(self) -> Option<Vec<Box<str>>> {
        let mut open = match self.cast {
            Wording::Plain => return Some(Vec::new()),
            Wording::Columns(columns) => columns,
            Wording::Any => return None,
        };
        match self.anywhere {
            Wording::Plain => {}
            Wording::Columns(columns) => open.extend(columns),
            Wording::Any => return None,
        }
        let mut found: Vec<Box<str>> = Vec::new();
        while let Some(name) = open.pop() {
            if found.contains(&name) {
                continue;
            }
            for (_, says) in self.named.iter().filter(|(alias, _)| *alias == name) {
                match says {
                    Wording::Plain => {}
                    Wording::Columns(columns) => open.extend(columns.iter().cloned()),
                    Wording::Any => return None,
                }
            }
            found.push(name);
        }
        found.sort();
        Some(found)
    }
}

/// What PostgreSQL calls a column of a select list without an alias, where that is a column's or a function's name.
fn own_name(expr: &Expr) -> Option<Box<str>> {
    match expr {
        Expr::Identifier(ident) => Some(folded(ident)),
        Expr::CompoundIdentifier(parts) => parts.last().map(folded),
        Expr::Function(function) => match function.name.0.last()? {
            ObjectNamePart::Identifier(name) => Some(folded(name)),
            ObjectNamePart::Function(_) => None,
        },
        Expr::Cast { expr, .. } => match &**expr {
            Expr::Cast { .. } => None,
            inner => own_name(inner),
        },
        _ => None,
    }
}

/// What an expression's value may say when it is written as text.
fn wording(expr: &Expr) -> Wording {
    let mut so_far = Wording::Plain;
    let mut next = expr;
    loop {
        let last = match next {
            Expr::Nested(inner) | Expr::Collate { expr: inner, .. } => {
                next = inner;
                continue;
            }
            Expr::Cast { expr, data_type, .. } if is_one_of(data_type, STRINGS) => {
                next = expr;
                continue;
            }
            Expr::CompoundFieldAccess { root, access_chain }
                if access_chain.iter().all(|a| matches!(a, AccessExpr::Subscript(_))) =>
            {
                next = root;
                continue;
            }
            Expr::BinaryOp { left, op, right } if is_arithmetic(op) => {
                so_far.join(wording(right));
                next = left;
                continue;
            }
            Expr::UnaryOp { op, expr } if *op != UnaryOperator::Not => {
                next = expr;
                continue;
            }
            other => leaf(other),
        };
        so_far.join(last);
        return so_far;
    }
}

/// An expression that is no link of a chain.
fn leaf(expr: &Expr) -> Wording {
    match expr {
        Expr::Identifier(ident) => column(ident),
        Expr::CompoundIdentifier(parts) => parts.last().map_or(Wording::Any, column),
        Expr::Cast { data_type, .. } if is_one_of(data_type, WORDLESS) => Wording::Plain,
        Expr::Function(function) => function_wording(function),
        Expr::Case {
            conditions,
            else_result,
            ..
        } => {
            let results = conditions.iter().map(|when| wording(&when.result));
            joined(results.chain(else_result.as_deref().map(wording)))
        }
        Expr::Subquery(query) => body_wording(&query.body),
        Expr::Array(array) => joined(array.elem.iter().map(wording)),
        Expr::BinaryOp { op, .. } if is_boolean(op) => Wording::Plain,
        Expr::Value(_)
        | Expr::TypedString(_)
        | Expr::Interval(_)
        | Expr::AtTimeZone { .. }
        | Expr::Extract { .. }
        | Expr::Ceil { .. }
        | Expr::Floor { .. }
        | Expr::Position { .. } => Wording::Plain,
        _ => Wording::Any,
    }
}

fn column(ident: &Ident) -> Wording {
    let name = folded(ident);
    if ident.quote_style.is_none() && KEYWORD_CALLS.contains(&&*name) {
        Wording::Plain
    } else {
        Wording::Columns(vec![name])
    }
}

fn function_wording(function: &Function) -> Wording {
    let Some(name) = builtin_name(&function.name) else {
        return Wording::Any;
    };
    match &function.args {
        FunctionArguments::None => called(&name, []),
        FunctionArguments::Subquery(query) if &*name == "array" => body_wording(&query.body),
        FunctionArguments::Subquery(_) => Wording::Any,
        FunctionArguments::List(list) => {
            let sorted = function.within_group.iter().map(|order| wording(&order.expr));
            called(&name, list.args.iter().map(argument).chain(sorted))
        }
    }
}

/// The name of a function without a schema, or in `pg_catalog`.
fn builtin_name(name: &ObjectName) -> Option<Box<str>> {
    match name.0.as_slice() {
        [ObjectNamePart::Identifier(name)] => Some(folded(name)),
        [
            ObjectNamePart::Identifier(schema),
            ObjectNamePart::Identifier(name),
        ] if &*folded(schema) == "pg_catalog" => Some(folded(name)),
        _ => None,
    }
}

fn called(name: &str, args: impl IntoIterator<Item = Wording>) -> Wording {
    if WORDLESS_FUNCTIONS.contains(&name) || TIMES.contains(&name) {
        Wording::Plain
    } else if PASSING_FUNCTIONS.contains(&name) {
        joined(args)
    } else {
        Wording::Any
    }
}

fn argument(arg: &FunctionArg) -> Wording {
    match arg {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr))
        | FunctionArg::Named {
            arg: FunctionArgExpr::Expr(expr),
            ..
        } => wording(expr),
        _ => Wording::Any,
    }
}

fn body_wording(body: &SetExpr) -> Wording {
    let mut so_far = Wording::Plain;
    let mut next = body;
    loop {
        let last = match next {
            SetExpr::SetOperation { left, right, .. } => {
                so_far.join(body_wording(right));
                next = left;
                continue;
            }
            SetExpr::Query(query) => {
                next = &query.body;
                continue;
            }
            SetExpr::Select(select) => joined(select.projection.iter().map(|item| match item {
                SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => wording(expr),
                _ => Wording::Any,
            })),
            SetExpr::Values(values) => joined(values.rows.iter().flat_map(|row| &row.content).map(wording)),
            _ => Wording::Any,
        };
        so_far.join(last);
        return so_far;
    }
}

fn is_arithmetic(op: &BinaryOperator) -> bool {
    matches!(
        op,
        BinaryOperator::Plus
            | BinaryOperator::Minus
            | BinaryOperator::Multiply
            | BinaryOperator::Divide
            | BinaryOperator::Modulo
    )
}

fn is_boolean(op: &BinaryOperator) -> bool {
    matches!(
        op,
        BinaryOperator::And
            | BinaryOperator::Or
            | BinaryOperator::Eq
            | BinaryOperator::NotEq
            | BinaryOperator::Lt
            | BinaryOperator::LtEq
            | BinaryOperator::Gt
            | BinaryOperator::GtEq
    )
}

/// The type, or an array's element type, is one of these.
fn is_one_of(data_type: &DataType, names: &[&str]) -> bool {
    let text = without_modifier(&data_type.to_string());
    let element = text.trim_end_matches("[]").trim_end();
    let name = element.rsplit('.').next().unwrap_or(element).trim_matches('"');
    names.contains(&name)
}

/// Types whose input knows `now` and its like, with the ranges over them.
const TIMES: &[&str] = &[
    "date",
    "time",
    "time with time zone",
    "time without time zone",
    "timetz",
    "timestamp",
    "timestamp with time zone",
    "timestamp without time zone",
    "timestamptz",
    "daterange",
    "tsrange",
    "tstzrange",
    "datemultirange",
    "tsmultirange",
    "tstzmultirange",
];

const STRINGS: &[&str] = &[
    "text",
    "varchar",
    "character varying",
    "char",
    "character",
    "bpchar",
    "name",
];

/// Types whose text holds no word of the clock.
const WORDLESS: &[&str] = &[
    "bigint",
    "bool",
    "boolean",
    "date",
    "dec",
    "decimal",
    "double precision",
    "float",
    "float4",
    "float8",
    "int",
    "int2",
    "int4",
    "int8",
    "integer",
    "interval",
    "numeric",
    "real",
    "smallint",
    "time",
    "time without time zone",
    "timestamp",
    "timestamp with time zone",
    "timestamp without time zone",
    "timestamptz",
    "uuid",
];

/// Functions of pg_catalog that give a number or a time, whatever they are given.
const WORDLESS_FUNCTIONS: &[&str] = &[
    "abs",
    "age",
    "avg",
    "ceil",
    "clock_timestamp",
    "count",
    "current_date",
    "current_time",
    "current_timestamp",
    "date_bin",
    "date_part",
    "date_trunc",
    "extract",
    "floor",
    "generate_series",
    "justify_days",
    "justify_hours",
    "justify_interval",
    "length",
    "localtime",
    "localtimestamp",
    "make_date",
    "make_interval",
    "make_time",
    "make_timestamp",
    "make_timestamptz",
    "now",
    "rank",
    "round",
    "row_number",
    "statement_timestamp",
    "sum",
    "timezone",
    "to_date",
    "to_timestamp",
    "transaction_timestamp",
    "trunc",
];

/// Functions of pg_catalog that give one of their arguments, or an element or a bound of it.
const PASSING_FUNCTIONS: &[&str] = &[
    "any_value",
    "array_agg",
    "coalesce",
    "first_value",
    "greatest",
    "lag",
    "last_value",
    "lead",
    "least",
    "lower",
    "max",
    "min",
    "mode",
    "nth_value",
    "nullif",
    "percentile_disc",
    "unnest",
    "upper",
];

#[cfg(test)]
mod tests {
    use crate::sql::analyze;
    use crate::sql::statement::Doubt;

    /// The columns whose type decides; `None` where a word of the clock may hide in the query.
    fn times(sql: &str) -> Option<Vec<String>> {
        let script = analyze(sql.as_bytes()).expect("short UTF-8");
        let [statement] = script.statements.as_slice() else {
            panic!("one statement: {sql}")
        };
        let columns = statement.time_columns.iter().map(ToString::to_string);
        (!statement.doubts.contains(&Doubt::ClockWord)).then(|| columns.collect())
    }

    #[test]
    fn what_becomes_a_time_is_followed_to_its_columns() {
        let check = |sql: &str, columns: &[&str]| {
            let expected: Vec<String> = columns.iter().map(ToString::to_string).collect();
            assert_eq!(times(sql), Some(expected), "{sql}");
        };
        check("select a, b::text from t", &[]);
        check("select a::date, t.b::timestamp(3) from t", &["a", "b"]);
        check("select date(a), \"B\"::date[] from t", &["B", "a"]);
        check("select (a::text)::date from t", &["a"]);
        check("select (a + b - 1)::date from t", &["a", "b"]);
        check(
            "select coalesce(a, max(b), '2026-01-01')::date from t",
            &["a", "b"],
        );
        check("select case when x then a else b end::date from t", &["a", "b"]);
        check("select (select max(a) from t)::date", &["a"]);
        check(
            "select d::date from (select a as d from t) s, (select b as e from t) r",
            &["a", "d"],
        );
        check("select max::date from (select max(a) from t) s", &["a", "max"]);
        check(
            "select d::date from (select a as d from t union select b from t) s",
            &["a", "b", "d"],
        );
        check("select d::date from generate_series($1, $2, $3) d", &["d"]);
        check(
            "select date_trunc('day', a)::date, $1::date, now()::date from t",
            &[],
        );
    }

    #[test]
    fn what_may_be_put_together_is_a_doubt() {
        for sql in [
            "select (a || b)::date from t",
            "select lpad(a, 5)::time from t",
            "select date(a || b) from t",
            "select (j ->> 'a')::date from t",
            "select (select a || b from t)::date",
            "select d::date from (select a || b as d from t) s",
            "select a::date from (select a || b from t) s",
            "select d::date from (values (a || b)) v (d)",
            "select d::date from (select 'x' as d union select a || b from t) s",
            "with x (d) as (select a || b from t) select d::date from x",
            "select d::date from t as s (d)",
            "select d::date from regexp_split_to_table(a, b) as d",
            "select f(a)::date from t",
            "select s.f(a)::date from t",
        ] {
            assert_eq!(times(sql), None, "{sql}");
        }
    }
}
