//! Statements that are prepared and run around changes of the schema, directly and through the proxy.
//!
//! A server connection keeps the plans of many clients; whether one is used or made anew must show in nothing that a client is
//! told: neither in columns that it does not expect, nor in an error that it would not have got.

use crate::programs::{CONTENT, Piece};
use crate::support::Stage;
use crate::wire::{Feed, Say};
use crate::wire_programs::difference;

/// Columns of a union have no table, whose number differs from one database to the other.
const READ: &str = "SELECT * FROM shaped UNION SELECT * FROM shaped";
const GROW: &str = "ALTER TABLE shaped ADD COLUMN more int DEFAULT 7";
const GROW_HIDDEN: &str = "DO 'BEGIN ALTER TABLE shaped ADD COLUMN more int DEFAULT 7; END'";
const GROW_CALLED: &str = "SELECT grow()";

fn query(sql: &str) -> Piece {
    piece(vec![Say::Query(sql.to_owned())])
}

fn piece(messages: Vec<Say>) -> Piece {
    Piece {
        messages,
        feed: Feed::Done,
    }
}

fn parse(name: &'static str) -> Say {
    Say::Parse(name, READ.to_owned())
}

fn run(name: &'static str) -> [Say; 3] {
    [
        Say::Bind("", name, Vec::new(), false),
        Say::Execute("", 0),
        Say::Sync,
    ]
}

fn prepare(name: &'static str) -> Piece {
    piece(vec![parse(name), Say::DescribeStatement(name), Say::Sync])
}

fn execute(name: &'static str) -> Piece {
    piece(run(name).to_vec())
}

/// A plan of `READ` as `one`, on the connection that the next block will have, too.
fn planned() -> Vec<Piece> {
    let create = "CREATE FUNCTION grow() RETURNS int LANGUAGE plpgsql AS \
                  'BEGIN ALTER TABLE shaped ADD COLUMN more int DEFAULT 7; RETURN 1; END'";
    vec![
        query("DROP TABLE IF EXISTS shaped; DROP FUNCTION IF EXISTS grow()"),
        query("CREATE TABLE shaped (id int); INSERT INTO shaped VALUES (1)"),
        query(create),
        prepare("one"),
        query("BEGIN; UPDATE shaped SET id = 2"),
        execute("one"),
        query("COMMIT"),
    ]
}

/// Ways to go on, around what changes the schema.
fn around(grow: &str) -> Vec<Vec<Piece>> {
    let (begin, grow) = (|| query("BEGIN"), || query(grow));
    let (commit, rollback) = (|| query("COMMIT"), || query("ROLLBACK"));
    let anew = || piece([&[parse("two"), Say::DescribeStatement("two")][..], &run("two")].concat());
    let undescribed = || piece([&[parse("two")][..], &run("two")].concat());
    vec![
        // Prepared anew in the same block, in one batch or in two, with and without its description.
        vec![begin(), grow(), anew(), commit()],
        vec![begin(), grow(), undescribed(), commit()],
        vec![begin(), grow(), prepare("two"), execute("two"), commit()],
        // What was prepared before is refused, and the block with it.
        vec![begin(), grow(), execute("one"), prepare("two"), commit()],
        vec![begin(), grow(), prepare("two"), execute("one"), commit()],
        // Also where its plan is on another connection.
        vec![
            begin(),
            query("UPDATE shaped SET id = 4"),
            grow(),
            execute("one"),
            rollback(),
        ],
        vec![
            begin(),
            grow(),
            prepare("two"),
            execute("two"),
            execute("two"),
            commit(),
        ],
        // What a block took back has changed nothing.
        vec![begin(), grow(), anew(), rollback(), execute("one")],
        vec![begin(), grow(), rollback(), prepare("two"), execute("two")],
        vec![begin(), grow(), rollback(), begin(), execute("one")],
        // Outside of a block.
        vec![grow(), anew(), execute("one")],
        vec![
            grow(),
            execute("one"),
            execute("one"),
            prepare("two"),
            execute("two"),
        ],
        vec![grow(), query("BEGIN; UPDATE shaped SET id = 3"), anew(), commit()],
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plan_of_before_a_change_of_the_schema_is_as_good_as_the_servers_own() {
    let stage = Stage::start(1).await;
    let pair = stage.databases("plans", CONTENT).await;
    let mut defects = Vec::new();
    for after in [GROW, GROW_HIDDEN, GROW_CALLED].into_iter().flat_map(around) {
        let program = [planned(), after].concat();
        defects.extend(difference(&stage, &pair, &program).await);
    }
    stage.shut_down().await;
    assert!(defects.is_empty(), "{}", defects.join("\n"));
}
