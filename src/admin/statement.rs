//! The console's language: its own statements, and what drivers say to any server before they come to the point.
//!
//! Called by the console with the text of a query. Keywords match in either case, names as PostgreSQL folds them. Invariant: a text
//! is understood as a whole or refused as a whole, and nothing of it is executed before. Pure.

use crate::protocol::error::Report;
use crate::protocol::sqlstate;
use crate::sql::ident::fold;
use crate::sql::lexer::{Lexeme, Token, lex};

/// One statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Statement {
    Show(Topic),
    Flush(Option<Target>),
    Reload,
    Help,
    /// What only drivers say: answered with this command tag, and without effect.
    Nothing(&'static str),
    /// BEGIN and the like, with the block's being open after it.
    Block {
        tag: &'static str,
        open: bool,
    },
    /// A question that has one known answer.
    Ask(&'static Fact),
}

/// What SHOW shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Topic {
    Nodes,
    Pools,
    Clients,
    Cache,
    CacheSummary,
    Stats,
    Databases,
    Stream,
    Fences,
    Flights,
    Version,
}

/// What FLUSH is about: a table, by name alone in any schema, and in any database where none is named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub database: Option<Box<str>>,
    pub schema: Option<Box<str>>,
    pub table: Box<str>,
}

/// A setting, or a function's answer, that drivers ask for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fact {
    /// The setting's name, or the expression as it is written without blanks.
    pub asked: &'static str,
    /// The one column of the answer.
    pub column: [&'static str; 1],
    /// The answer.
    pub value: Value,
}

/// A fact's value.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Value {
    Is(&'static str),
    Null,
    User,
    Database,
    /// The program's name and version.
    Version,
}

/// The server version that the console speaks of: old enough that no psql of today finds itself outdated.
pub(super) const SERVER_VERSION: &str = concat!("14.0 (pgladder ", env!("CARGO_PKG_VERSION"), ")");

macro_rules! facts {
    ($($asked:literal $column:literal $value:expr;)+) => {
        &[$(Fact { asked: $asked, column: [$column], value: $value },)+]
    };
}

/// What SHOW answers, and ParameterStatus tells where a server would.
pub(super) const SETTINGS: &[Fact] = facts! {
    "server_version" "server_version" Value::Is(SERVER_VERSION);
    "server_version_num" "server_version_num" Value::Is("140000");
    "server_encoding" "server_encoding" Value::Is("UTF8");
    "client_encoding" "client_encoding" Value::Is("UTF8");
    "datestyle" "DateStyle" Value::Is("ISO, MDY");
    "intervalstyle" "IntervalStyle" Value::Is("postgres");
    "timezone" "TimeZone" Value::Is("UTC");
    "integer_datetimes" "integer_datetimes" Value::Is("on");
    "standard_conforming_strings" "standard_conforming_strings" Value::Is("on");
    "is_superuser" "is_superuser" Value::Is("off");
    "in_hot_standby" "in_hot_standby" Value::Is("off");
    "default_transaction_read_only" "default_transaction_read_only" Value::Is("off");
    "transaction_read_only" "transaction_read_only" Value::Is("off");
    "transaction_isolation" "transaction_isolation" Value::Is("read committed");
    "session_authorization" "session_authorization" Value::User;
    "application_name" "application_name" Value::Is("");
    "search_path" "search_path" Value::Is("");
    "extra_float_digits" "extra_float_digits" Value::Is("1");
    "statement_timeout" "statement_timeout" Value::Is("0");
};

/// The settings that a server reports without being asked (manual, "Asynchronous Operations").
pub(super) const REPORTED: [&str; 13] = [
    "application_name",
    "client_encoding",
    "datestyle",
    "default_transaction_read_only",
    "in_hot_standby",
    "integer_datetimes",
    "intervalstyle",
    "is_superuser",
    "server_encoding",
    "server_version",
    "session_authorization",
    "standard_conforming_strings",
    "timezone",
];

const EXPRESSIONS: &[Fact] = facts! {
    "1" "?column?" Value::Is("1");
    "version()" "version" Value::Version;
    "current_user" "current_user" Value::User;
    "session_user" "session_user" Value::User;
    "user" "user" Value::User;
    "current_database()" "current_database" Value::Database;
    "current_schema()" "current_schema" Value::Null;
    "current_schema" "current_schema" Value::Null;
    "pg_is_in_recovery()" "pg_is_in_recovery" Value::Is("f");
    "pg_advisory_unlock_all()" "pg_advisory_unlock_all" Value::Is("");
};

const TOPICS: [(&str, Topic); 11] = [
    ("nodes", Topic::Nodes),
    ("pools", Topic::Pools),
    ("clients", Topic::Clients),
    ("cache", Topic::Cache),
    ("cache summary", Topic::CacheSummary),
    ("stats", Topic::Stats),
    ("databases", Topic::Databases),
    ("stream", Topic::Stream),
    ("fences", Topic::Fences),
    ("flights", Topic::Flights),
    ("version", Topic::Version),
];

/// The statements of a text; none for an empty one.
pub(super) fn parse(text: &str) -> Result<Vec<Statement>, Report> {
    let Some(lexed) = lex(text) else {
        return Err(Report::error(
            sqlstate::SYNTAX_ERROR,
            "unterminated quoted string, identifier or comment",
        ));
    };
    let statements = lexed.tokens.split(|token| token.is(";"));
    let statements = statements.filter(|tokens| !tokens.is_empty());
    statements
        .map(|tokens| {
            one(tokens).ok_or_else(|| {
                let (first, last) = (tokens[0].start, tokens[tokens.len() - 1].end());
                not_understood(&text[first..last])
            })
        })
        .collect()
}

fn not_understood(text: &str) -> Report {
    const SHOWN_CHARS: usize = 80;
    let shown: String = text.chars().take(SHOWN_CHARS).collect();
    Report::error(
        sqlstate::SYNTAX_ERROR,
        format!("the console does not know this statement: {shown}"),
    )
    .hint("HELP lists the statements.")
}

fn one(tokens: &[Token<'_>]) -> Option<Statement> {
    let (first, rest) = tokens.split_first()?;
    if first.lexeme != Lexeme::Word {
        return None;
    }
    let alone = rest.is_empty();
    Some(match first.text.to_ascii_lowercase().as_str() {
        "show" => return show(rest),
        "flush" => Statement::Flush(if alone { None } else { Some(target(rest)?) }),
        "reload" if alone => Statement::Reload,
        "help" if alone => Statement::Help,
        "select" => {
            let asked = joined(rest, "");
            let asked = asked.strip_prefix("pg_catalog.").unwrap_or(&asked);
            Statement::Ask(EXPRESSIONS.iter().find(|fact| fact.asked == asked)?)
        }
        "begin" => Statement::Block {
            tag: "BEGIN",
            open: true,
        },
        "start" if rest.first()?.is_word("transaction") => Statement::Block {
            tag: "START TRANSACTION",
            open: true,
        },
        "commit" | "end" => Statement::Block {
            tag: "COMMIT",
            open: false,
        },
        "rollback" | "abort" => Statement::Block {
            tag: "ROLLBACK",
            open: false,
        },
        "set" if !alone => Statement::Nothing("SET"),
        "reset" if !alone => Statement::Nothing("RESET"),
        "discard" if !alone => Statement::Nothing("DISCARD ALL"),
        "deallocate" if !alone => Statement::Nothing("DEALLOCATE"),
        "close" if !alone => Statement::Nothing("CLOSE CURSOR"),
        "unlisten" if !alone => Statement::Nothing("UNLISTEN"),
        _ => return None,
    })
}

fn show(rest: &[Token<'_>]) -> Option<Statement> {
    let words = match joined(rest, " ").as_str() {
        "help" => return Some(Statement::Help),
        "transaction isolation level" => "transaction_isolation".to_owned(),
        "time zone" => "timezone".to_owned(),
        "session authorization" => "session_authorization".to_owned(),
        words => words.to_owned(),
    };
    if let Some((_, topic)) = TOPICS.iter().find(|(name, _)| *name == words) {
        return Some(Statement::Show(*topic));
    }
    SETTINGS
        .iter()
        .find(|fact| fact.asked == words)
        .map(Statement::Ask)
}

fn joined(tokens: &[Token<'_>], between: &str) -> String {
    let words: Vec<String> = tokens
        .iter()
        .map(|token| token.text.to_ascii_lowercase())
        .collect();
    words.join(between)
}

/// `table`, `schema.table` or `database.schema.table`, with quotes where a name needs them; TABLE may come before.
fn target(tokens: &[Token<'_>]) -> Option<Target> {
    let tokens = match tokens {
        [first, rest @ ..] if first.is_word("table") && !rest.is_empty() => rest,
        all => all,
    };
    let mut names: Vec<Box<str>> = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        match (at % 2, token.lexeme) {
            (0, Lexeme::Word) => names.push(fold(token.text)),
            (0, Lexeme::Quoted) => names.push(token.content()?.into()),
            (1, _) if token.is(".") => {}
            _ => return None,
        }
    }
    if tokens.len() % 2 == 0 || names.len() > 3 {
        return None;
    }
    let table = names.pop()?;
    Some(Target {
        table,
        schema: names.pop(),
        database: names.pop(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, wanted: &[Statement]) {
        assert_eq!(parse(text).as_deref(), Ok(wanted), "{text}");
    }

    fn flush(database: Option<&str>, schema: Option<&str>, table: &str) -> Statement {
        Statement::Flush(Some(Target {
            database: database.map(Into::into),
            schema: schema.map(Into::into),
            table: table.into(),
        }))
    }

    #[test]
    fn statements_in_any_case_with_or_without_semicolon() {
        check("SHOW NODES", &[Statement::Show(Topic::Nodes)]);
        check("show nodes;", &[Statement::Show(Topic::Nodes)]);
        check(
            " show\n cache /* all */ summary ;; ",
            &[Statement::Show(Topic::CacheSummary)],
        );
        check("Help", &[Statement::Help]);
        check("SHOW HELP", &[Statement::Help]);
        check("RELOAD;", &[Statement::Reload]);
        check("", &[]);
        check("-- nothing", &[]);
        check(
            "SHOW STATS; SHOW POOLS",
            &[Statement::Show(Topic::Stats), Statement::Show(Topic::Pools)],
        );
    }

    #[test]
    fn a_flush_names_a_table_as_postgresql_does() {
        check("FLUSH", &[Statement::Flush(None)]);
        check("flush Deals", &[flush(None, None, "deals")]);
        check(
            "FLUSH TABLE public.deals",
            &[flush(None, Some("public"), "deals")],
        );
        check("FLUSH table", &[flush(None, None, "table")]);
        check(
            "FLUSH \"My Shop\".public.\"a\"\"b;\"",
            &[flush(Some("My Shop"), Some("public"), "a\"b;")],
        );
        for text in [
            "FLUSH a b",
            "FLUSH a.",
            "FLUSH .a",
            "FLUSH a.b.c.d",
            "FLUSH 'a'",
            "FLUSH 1",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_drivers_say_is_answered() {
        let asked = |text: &str| match parse(text).as_deref() {
            Ok([Statement::Ask(fact)]) => fact.column[0],
            other => panic!("{text}: {other:?}"),
        };
        assert_eq!(asked("SELECT 1"), "?column?");
        assert_eq!(asked("select pg_catalog.version()"), "version");
        assert_eq!(asked("SHOW TRANSACTION ISOLATION LEVEL"), "transaction_isolation");
        assert_eq!(asked("SHOW datestyle"), "DateStyle");
        check("SET application_name = 'x;y'", &[Statement::Nothing("SET")]);
        let reset = "SELECT pg_advisory_unlock_all();\nCLOSE ALL;\nUNLISTEN *;\nRESET ALL;";
        assert_eq!(parse(reset).map(|all| all.len()), Ok(4));
        check(
            "BEGIN ISOLATION LEVEL READ COMMITTED",
            &[Statement::Block {
                tag: "BEGIN",
                open: true,
            }],
        );
    }

    #[test]
    fn anything_else_is_refused_as_a_whole_with_a_hint() {
        for text in [
            "SHOW",
            "SHOW nods",
            "SELECT * FROM deals",
            "FLUSH; DROP TABLE x",
            "SELECT 'open",
            "1",
            "RELOAD now",
        ] {
            let report = parse(text).expect_err(text);
            assert_eq!(report.code, "42601", "{text}");
        }
        let hint = parse("SHOW nods").expect_err("unknown").hint;
        assert_eq!(hint.as_deref(), Some("HELP lists the statements."));
    }

    #[test]
    fn every_reported_setting_is_known() {
        for name in REPORTED {
            assert!(SETTINGS.iter().any(|fact| fact.asked == name), "{name}");
        }
    }
}
