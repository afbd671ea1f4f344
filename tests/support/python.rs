//! The Python drivers of the tests: a virtual environment below `target/`, made once by tests/support/python.sh.
//!
//! Called by tests that run a script of theirs. The environment's path names the drivers' versions, so that a change of a
//! version makes another one. Where it cannot be made the test fails with the command that helps; `make test` has looked before.

use std::path::{Path, PathBuf};

use tokio::process::Command;

use super::program::run_program;

/// The interpreter that has the drivers.
pub async fn interpreter() -> PathBuf {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/python.sh");
    let made = Command::new("sh").arg(script).output().await.expect("sh runs");
    let said = String::from_utf8_lossy(&made.stderr);
    assert!(made.status.success(), "no Python drivers: {said}");
    PathBuf::from(String::from_utf8_lossy(&made.stdout).trim())
}

/// Runs a script of the tests with arguments; returns what it printed, line by line.
pub async fn run(interpreter: &Path, script: &str, arguments: &[String]) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(script);
    let mut command = Command::new(interpreter);
    command
        .arg(&path)
        .args(arguments)
        .env("PYTHONDONTWRITEBYTECODE", "1");
    run_program(&format!("{script} {}", arguments.join(" ")), command).await
}
