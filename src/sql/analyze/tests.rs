//! Tables of texts and their facts: splitting, limits, and what the tokens alone tell.
//!
//! The corpus in `tests/corpus` holds the many; here is what needs a word of why. It never asks a server.

use proptest::prelude::*;

use super::*;

fn one(sql: &str) -> Statement {
    let script = analyze(sql.as_bytes()).expect("classified");
    assert_eq!(script.statements.len(), 1, "{sql}");
    script.statements.into_iter().next().expect("one statement")
}

fn doubts(sql: &str, want: &[Doubt]) {
    assert_eq!(one(sql).doubts, want, "{sql}");
}

fn reads(sql: &str, want: &[&str]) {
    let got: Vec<String> = one(sql).reads.iter().map(ToString::to_string).collect();
    assert_eq!(got, want, "{sql}");
}

#[test]
fn splits() {
    let check = |sql: &str, want: &[&str]| {
        let script = analyze(sql.as_bytes()).expect("classified");
        let got: Vec<String> = script
            .statements
            .iter()
            .map(|s| format!("{:?}", s.kind))
            .collect();
        assert_eq!(got, want, "{sql}");
    };
    check("", &[]);
    check(" ; -- nothing\n;", &[]);
    check("select 1; insert into t values (1);", &["Select", "Insert"]);
    check("select ';' ; select \";\" from t", &["Select", "Select"]);
    check("select (1; select 2)", &["Other(\"select\")"]);
    check("select 'a", &["Other(\"select\")"]);
    check(
        "create function f() returns int begin atomic select case when true then 1 end; select 2; end; select 1",
        &["Ddl { global: false }", "Select"],
    );
    check(
        "begin; select 1; commit",
        &[
            "Begin(TransactionModes { isolation: None, read_only: None, deferrable: None, snapshot: false })",
            "Select",
            "Commit { chain: false }",
        ],
    );
}

#[test]
fn limits() {
    assert_eq!(
        analyze(&vec![b' '; CLASSIFIED_BYTES_MAX + 1]),
        Err(Unclassified::TooLong)
    );
    assert_eq!(analyze(b"select '\xff'"), Err(Unclassified::NotUtf8));
}

/// A chain of each kind as long as the limit allows, on a stack no larger than a worker's.
#[test]
fn long_chains_fit_a_small_stack() {
    let fill = |head: &str, link: &str| {
        let mut text = head.to_owned();
        while text.len() + link.len() <= CLASSIFIED_BYTES_MAX {
            text.push_str(link);
        }
        text
    };
    let mut texts = Vec::new();
    for (head, link) in [
        ("select 1", "+1"),
        ("select 1", " or 1"),
        ("select 1", "::int"),
        ("select a", "[1]"),
        ("select 1", " union select 1"),
        ("select a", ".a"),
        ("select ", "- "),
        ("select ", "("),
        ("select ", "not "),
        ("select 1", " is null"),
        ("select 1 from a", " join a on true"),
    ] {
        texts.push(fill(head, link));
        texts.push(format!("{head}{}", link.repeat(LINKS_MAX - 8)));
    }
    std::thread::Builder::new()
        .stack_size(2 * 1024 * 1024)
        .spawn(move || {
            for text in texts {
                assert!(analyze(text.as_bytes()[..text.len().min(CLASSIFIED_BYTES_MAX)].as_ref()).is_ok());
            }
        })
        .expect("a thread")
        .join()
        .expect("no overflow");
}

#[test]
fn the_known_wrong_parses() {
    reads("select * from only t", &["t"]);
    doubts("select * from only t", &[Doubt::OnlyName]);
    doubts("select * from only", &[Doubt::OnlyName]);
    doubts("select * from t fetch first 1 row only", &[]);
    reads("select * from generate_series(1, 2) g", &[]);
    reads("select * from t, lateral f(t.a)", &["t"]);
    reads("with t as (select 1) select * from t, s.t", &["s.t"]);
    // The inner WITH hides t only inside itself.
    reads(
        "select * from (with t as (select 1) select * from t) x, t",
        &["t"],
    );
    // Without RECURSIVE a CTE does not see itself.
    reads("with t as (select * from t) select * from t", &["t"]);
    reads(
        "with recursive t as (select 1 union all select * from t) select * from t",
        &[],
    );
}

#[test]
fn doubts_of_tokens() {
    doubts("select 'now'::timestamp", &[Doubt::ClockWord]);
    doubts("select 'NoW '::timestamptz", &[Doubt::ClockWord]);
    doubts("select '{today}'::date[]", &[Doubt::ClockWord]);
    doubts("select ('no' || 'w')::timestamptz", &[Doubt::ClockWord]);
    doubts("select 'snow'", &[]);
    doubts("select * from t for update of t skip locked", &[Doubt::LocksRows]);
    doubts("select * from t for no key update", &[Doubt::LocksRows]);
    doubts("select * from t for key share of t nowait", &[Doubt::LocksRows]);
    doubts("select a into b from t", &[Doubt::SelectsInto]);
    doubts("select ctid from t", &[Doubt::SystemColumn]);
    doubts("select t.xmin from t", &[Doubt::SystemColumn]);
    doubts("select * from t tablesample system (1)", &[Doubt::Sample]);
    doubts(
        "with x as (insert into t values (1) returning *) select * from x",
        &[Doubt::WritesInCte],
    );
    for text in [
        "update t set a = default where b = 1",
        "update t set (a, b) = (1, DEFAULT)",
        "update t set (a, b) = row (1, default)",
        "insert into t values (1) on conflict (a) do update set b = default",
        "merge into t using s on t.a = s.a when matched then update set b = default",
    ] {
        doubts(text, &[Doubt::SetsDefault]);
    }
    doubts("update t set a = \"default\", b = 1", &[]);
    doubts("insert into t values (default)", &[]);
    doubts(
        "select U&'\\006eow'::timestamp",
        &[Doubt::ClockWord, Doubt::Opaque],
    );
}

proptest! {
    #[test]
    fn never_panics(text in "\\PC{0,200}") {
        let _ = analyze(text.as_bytes());
    }

    #[test]
    fn never_panics_on_pieces_of_sql(words in prop::collection::vec(
        prop::sample::select(vec![
            "select", "from", "with", "as", "(", ")", ";", "insert into", "t", "begin", "atomic", "end", "'a", "'", "\"",
            "$$", "/*", "*/", "--", "\n", ",", "*", "copy", "to", "explain", "set", "=", "1", "é", "::", "[", "]", "E'\\",
            "create", "temp", "table", "prepare", "declare", "c", "cursor", "for", "update", "only", "release", "truncate",
        ]), 0..25)) {
        let _ = analyze(words.join(" ").as_bytes());
        let _ = analyze(words.concat().as_bytes());
    }
}
