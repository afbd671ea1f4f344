//! psycopg and asyncpg, each by a script of its own: one line for each operation's outcome, the same both ways.
//!
//! The scripts run by themselves first, then while four other clients are busy, each time in databases of equal content. Two
//! connections of a script may notify each other or cancel, so that what they wait for is bounded in the script.

use crate::rivals::Rivals;
use crate::support::compare::{alike, assert_same};
use crate::support::{Stage, python};

const CONTENT: &str = include_str!("content.sql");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn psycopg_sees_the_same() {
    compare("tests/drivers/psycopg_script.py").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn asyncpg_sees_the_same() {
    compare("tests/drivers/asyncpg_script.py").await;
}

async fn compare(script: &str) {
    let interpreter = python::interpreter().await;
    let stage = Stage::start(2).await;
    let run = async |port: u16, database: &str, seed: &str| {
        let arguments = [port.to_string(), database.to_owned(), seed.to_owned()];
        let lines = python::run(&interpreter, script, &arguments).await;
        assert_eq!(
            lines.last().map(String::as_str),
            Some("done"),
            "the script has an end"
        );
        lines.iter().map(|line| alike(line, port)).collect::<Vec<_>>()
    };
    for (name, seed, others) in [("quiet", "1", 0), ("crowd", "2", 4)] {
        let pair = stage.databases(name, CONTENT).await;
        let direct = run(stage.primary_port(), &pair.direct, seed).await;
        let rivals = Rivals::start(&stage, &pair.proxied, others);
        let proxied = run(stage.proxy_port(), &pair.proxied, seed).await;
        rivals.stop().await;
        assert_same(&direct, &proxied);
    }
    stage.shut_down().await;
}
