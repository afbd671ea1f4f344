//! `make test` on a machine where things are missing: it names all of them, and does not end with success.
//!
//! Run with a PostgreSQL and a cargo that are nowhere, so that nothing is built and nothing installed.

use std::process::{Command, Output};

fn make(target: &str) -> Output {
    Command::new("make")
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args([target, "CARGO=/nowhere/cargo"])
        .env("PGLADDER_POSTGRES_BIN", "/nowhere")
        // Of the make that may run this.
        .env_remove("MAKEFLAGS")
        .env_remove("MAKELEVEL")
        .output()
        .expect("make runs")
}

fn not_run(output: &Output) -> Vec<&str> {
    let told = std::str::from_utf8(&output.stderr).expect("UTF-8");
    told.lines()
        .filter(|line| line.starts_with("NOT RUN: "))
        .collect()
}

#[test]
fn all_that_is_missing_is_named_and_nothing_is_run() {
    let tests = make("test");
    let missing = not_run(&tests);
    for wanted in ["/nowhere holds no PostgreSQL server", "cargo fmt", "cargo clippy"] {
        let named = missing.iter().filter(|line| line.contains(wanted)).count();
        assert_eq!(named, 1, "{wanted}: {missing:?}");
    }
    assert!(!tests.status.success());
    let told = String::from_utf8_lossy(&tests.stderr);
    assert!(told.contains("Error 3"), "the recipe's own status: {told}");
    assert!(tests.stdout.is_empty(), "it goes no further");
}

#[test]
fn a_demo_without_a_server_says_so() {
    let demo = make("demo");
    assert_eq!(not_run(&demo).len(), 1);
    assert!(!demo.status.success());
}
