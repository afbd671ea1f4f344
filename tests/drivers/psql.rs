//! psql's own script, directly and through the proxy: what it prints, errors and notices included, must be the same line by line.
//!
//! The script is run as a file, so that its COPY data stands in it. Only what names the place (port, database, process, time of
//! day) is made alike before the comparison.

use std::path::Path;

use tokio::process::Command;

use crate::rivals::Rivals;
use crate::support::Stage;
use crate::support::compare::{alike, assert_same};
use crate::support::program::run_program;

const CONTENT: &str = include_str!("content.sql");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn psql_prints_the_same() {
    let stage = Stage::start(2).await;
    let quiet = stage.databases("quiet", CONTENT).await;
    let amid = stage.databases("crowd", CONTENT).await;
    let direct = run(stage.primary_port(), &quiet.direct).await;
    assert!(direct.iter().any(|line| line == "done"), "the script has an end");
    assert_same(&direct, &run(stage.proxy_port(), &quiet.proxied).await);
    let rivals = Rivals::start(&stage, &amid.proxied, 4);
    let crowded = run(stage.proxy_port(), &amid.proxied).await;
    rivals.stop().await;
    assert_same(&run(stage.primary_port(), &amid.direct).await, &crowded);
    stage.shut_down().await;
}

/// Every line that psql prints, on either stream, in order.
async fn run(port: u16, database: &str) -> Vec<String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/drivers/psql_script.sql");
    let psql = pgladder::demo::binaries::Binaries::find()
        .expect("PostgreSQL is installed")
        .program("psql");
    // One pipe for both streams keeps their order.
    let mut command = Command::new("sh");
    command
        .args(["-c", r#"exec "$0" "$@" 2>&1"#])
        .arg(psql)
        .args(["-X", "-a", "-h", "127.0.0.1", "-U", "postgres", "-f"])
        .arg(&script)
        .args(["-p", &port.to_string(), "-d", database])
        .env_remove("PGOPTIONS")
        .env("PGCLIENTENCODING", "UTF8")
        .env("LC_ALL", "C.UTF-8");
    let lines = run_program(&format!("psql on {database}"), command).await;
    let script = script.display().to_string();
    lines
        .iter()
        .map(|line| alike(&line.replace(&script, "script"), port))
        .collect()
}
