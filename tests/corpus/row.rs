//! The rows of `statements.txt`: a statement and what must be known of it.
//!
//! Read by both halves of the corpus test. A row that is not understood is a failure, never skipped.

use std::fmt;

const STATEMENTS: &str = include_str!("statements.txt");

/// Labels are compared as they are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Where it stands in the file.
    pub line: usize,
    /// `replica` or `primary`.
    pub route: String,
    /// The reason for it: a variant of `Because`, or of `Why` where the statement itself is the reason.
    pub reason: String,
    /// Tables that it reads, `-` for none, `?` and a reason where it cannot be told.
    pub reads: String,
    /// Tables that it may change, likewise; `catalog` for definitions, `catalog*` for those of all databases.
    pub writes: String,
    /// `aggregate` or `read` where the answer may be cached, else the reason why not.
    pub cache: String,
    /// The text; `␤` stands for the end of a line.
    pub sql: String,
    /// The first major version of PostgreSQL that knows it, where that is not the oldest supported one.
    pub since: Option<u32>,
    /// PostgreSQL refuses it in this schema.
    pub refused: bool,
}

impl Row {
    fn parse(line: usize, text: &str) -> Row {
        let parts: Vec<&str> = text.splitn(6, " | ").collect();
        let [route, reason, reads, writes, cache, sql] = parts.as_slice() else {
            panic!("line {line} has not six fields: {text}")
        };
        let (route, refused) = route
            .strip_suffix('!')
            .map_or((*route, false), |route| (route, true));
        let (route, since) = match route.split_once(">=") {
            Some((route, version)) => (route, Some(version.parse().expect("a version"))),
            None => (route, None),
        };
        Row {
            line,
            route: route.to_owned(),
            reason: (*reason).to_owned(),
            reads: (*reads).to_owned(),
            writes: (*writes).to_owned(),
            cache: (*cache).to_owned(),
            sql: sql.replace('␤', "\n"),
            since,
            refused,
        }
    }

    /// The tables of a label; `None` where they are unknown or everything.
    pub fn tables(label: &str) -> Option<Vec<&str>> {
        match label {
            "-" => Some(Vec::new()),
            label if label.starts_with(['?', '*']) || label.starts_with("catalog") => None,
            label => Some(label.split(' ').collect()),
        }
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Row {
            route,
            reason,
            reads,
            writes,
            cache,
            line,
            ..
        } = self;
        write!(
            f,
            "(line {line}) {route} | {reason} | {reads} | {writes} | {cache}"
        )
    }
}

/// All rows.
pub fn rows() -> Vec<Row> {
    (1..)
        .zip(STATEMENTS.lines())
        .filter(|(_, text)| !text.is_empty() && !text.starts_with('#'))
        .map(|(line, text)| Row::parse(line, text))
        .collect()
}
