//! Two records of one script, line by line: what names the place is made alike, then the first difference is shown in full.
//!
//! Called by the suites that run a program. It knows the names that `Stage::databases` gives.

use std::fmt::Write as _;

/// Lines around a difference that are shown.
const AROUND: usize = 6;
/// Differences that are shown.
const SHOWN_MAX: usize = 12;

/// A line without the port, the database's kind, process numbers, temporary schemas and times of day.
pub fn alike(line: &str, port: u16) -> String {
    let mut line = line.replace("_proxy", "_plain");
    for (before, after) in [
        ("port ", ""),
        ("port=", ""),
        ("port \"", "\""),
        ("Server Port          | ", ""),
    ] {
        line = line.replace(&format!("{before}{port}{after}"), "port <n>");
    }
    if let Some((_, rest)) = line.split_once(" (every ") {
        return format!("<now> (every {rest}");
    }
    ["process with PID ", "Backend PID          | ", "pg_temp_"]
        .iter()
        .fold(line, |line, words| without_number_after(&line, words))
}

fn without_number_after(line: &str, words: &str) -> String {
    let Some((before, after)) = line.split_once(words) else {
        return line.to_owned();
    };
    let rest = after.trim_start_matches(|c: char| c.is_ascii_digit());
    format!("{before}{words}<n>{rest}")
}

/// Fails with the differing lines of both records, and those before them.
pub fn assert_same(direct: &[String], proxied: &[String]) {
    let mut shown = String::new();
    let mut found = 0;
    let (mut ours, mut theirs) = (0, 0);
    while found < SHOWN_MAX && (ours < direct.len() || theirs < proxied.len()) {
        if direct.get(ours) == proxied.get(theirs) {
            (ours, theirs) = (ours + 1, theirs + 1);
            continue;
        }
        found += 1;
        for line in &direct[ours.saturating_sub(AROUND)..ours] {
            writeln!(shown, "   {line}").expect("a string");
        }
        let (skip_ours, skip_theirs) = next_match(&direct[ours..], &proxied[theirs..]);
        for line in &direct[ours..ours + skip_ours] {
            writeln!(shown, "-  {line}").expect("a string");
        }
        for line in &proxied[theirs..theirs + skip_theirs] {
            writeln!(shown, "+  {line}").expect("a string");
        }
        shown.push('\n');
        (ours, theirs) = (ours + skip_ours, theirs + skip_theirs);
    }
    assert!(
        found == 0,
        "{found} differences (- direct, + through the proxy):\n{shown}"
    );
}

/// How many lines on either side are to be skipped until both go on alike.
fn next_match(direct: &[String], proxied: &[String]) -> (usize, usize) {
    for total in 1..=direct.len() + proxied.len() {
        for ours in 0..=total.min(direct.len()) {
            let theirs = total - ours;
            let both = direct.get(ours).zip(proxied.get(theirs));
            if theirs <= proxied.len() && both.is_some_and(|(one, other)| one == other && !one.is_empty()) {
                return (ours, theirs);
            }
        }
    }
    (direct.len(), proxied.len())
}
