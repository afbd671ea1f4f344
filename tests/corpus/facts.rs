//! Checks the classifier alone against the labelled statements in `facts.txt`: what a text says without any catalog.
//!
//! Names in that file stand for nothing; no server is asked.

use std::fmt::Display;

use pgladder::sql::analyze;
use pgladder::sql::statement::Kind;

const STATEMENTS: &str = include_str!("facts.txt");

fn joined(items: impl IntoIterator<Item = impl Display>) -> String {
    let list: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    if list.is_empty() {
        "-".to_owned()
    } else {
        list.join(" ")
    }
}

/// The variant's name alone.
fn kind_name(kind: &Kind) -> String {
    format!("{kind:?}")
        .chars()
        .take_while(|c| c.is_alphanumeric())
        .collect()
}

#[test]
fn statements_are_classified_as_labelled() {
    let mut wrong = Vec::new();
    let mut checked = 0;
    for line in STATEMENTS
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
    {
        let parts: Vec<&str> = line.splitn(5, " | ").collect();
        let [kind, reads, writes, doubts, sql] = parts.as_slice() else {
            panic!("five fields: {line}")
        };
        let script = analyze(sql.as_bytes()).expect("short UTF-8");
        let [statement] = script.statements.as_slice() else {
            panic!("one statement: {line}")
        };
        let got = [
            kind_name(&statement.kind),
            joined(&statement.reads),
            joined(&statement.writes),
            joined(statement.doubts.iter().map(|doubt| format!("{doubt:?}"))),
        ];
        if got != [*kind, *reads, *writes, *doubts] {
            wrong.push(format!(
                "{sql}\n  labelled {kind} | {reads} | {writes} | {doubts}\n  got {}",
                got.join(" | ")
            ));
        }
        checked += 1;
    }
    assert!(checked >= 100, "the corpus holds {checked} statements");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
