//! psycopg and asyncpg, each by a script of its own: one line for each operation's outcome, the same both ways.
//!
//! The scripts run by themselves first, then while four other clients are busy, each time in databases of equal content. The
//! console has no direct counterpart: there both drivers, in either protocol, must be told the same.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::rivals::Rivals;
use crate::support::compare::{alike, assert_same};
use crate::support::{Stage, python};
use crate::wire::Speaker;

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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_console_tells_both_drivers_the_same_in_either_protocol() {
    let interpreter = python::interpreter().await;
    let stage = Stage::start(1).await;
    let pair = stage.databases("console", CONTENT).await;
    let (mut client, _) = Speaker::start(stage.proxy_port(), &pair.proxied, &[]).await;
    client.query("SELECT count(*) FROM items").await;
    let port = [stage.proxy_port().to_string()];
    let lines = python::run(&interpreter, "tests/drivers/console_script.py", &port).await;
    let told: Vec<Value> = lines
        .iter()
        .map_while(|line| serde_json::from_str(line).ok())
        .collect();
    assert_eq!(lines.last().map(String::as_str), Some("done"));
    assert_eq!(told.len() + 1, lines.len(), "{lines:?}");

    let mut answers: BTreeMap<&str, Vec<&[Value]>> = BTreeMap::new();
    let mut tags: BTreeMap<&str, &str> = BTreeMap::new();
    for line in &told {
        match line.as_array().map(Vec::as_slice) {
            Some([_, _, statement, Value::String(tag)]) => {
                tags.insert(statement.as_str().expect("a text"), tag);
            }
            Some([_, block, states]) if block == "block" => assert_eq!(*states, json!(["INTRANS", "IDLE"])),
            Some([_, _, statement, answer @ ..]) => {
                answers
                    .entry(statement.as_str().expect("a text"))
                    .or_default()
                    .push(answer);
            }
            other => panic!("{other:?}"),
        }
    }
    for (statement, answers) in &answers {
        assert!(answers.len() >= 4, "{statement}: {answers:?}");
        assert!(
            answers.iter().all(|answer| answer == &answers[0]),
            "{statement}: {answers:?}"
        );
        let word = statement.split(' ').next().expect("a word");
        if answers[0][0] != json!("refused") {
            assert_eq!(tags.get(statement), Some(&word), "{statement}");
        }
    }
    let first = |statement: &str| answers[statement][0];
    let nodes = first("SHOW NODES")[1].as_array().expect("rows");
    let mut roles: Vec<&str> = nodes.iter().filter_map(|node| node[1].as_str()).collect();
    roles.sort_unstable();
    assert_eq!(roles, ["primary", "replica"], "{nodes:?}");
    let cached = first("SHOW CACHE")[1].as_array().expect("rows");
    assert_eq!(cached.len(), 1, "{cached:?}");
    assert_eq!(first("SHOW NODS")[1], json!("42601"));
    assert_eq!(first("SELECT 1"), [json!(["?column?"]), json!([["1"]])]);
    stage.shut_down().await;
}
