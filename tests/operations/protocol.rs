//! The console speaks PostgreSQL's protocol as drivers expect it: their chatter, pipelines, portals, errors.
//!
//! tokio-postgres is the driver; what other drivers send besides is sent here as they send it.

use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, SimpleQueryMessage};

use crate::running::{Running, column, simple};

#[tokio::test]
async fn what_drivers_say_is_answered() {
    let running = Running::start(0).await;
    let mut console = running.console().await;
    assert_eq!(
        simple(&console, "SELECT 1").await,
        [[("?column?".to_owned(), Some("1".to_owned()))]]
    );
    console.batch_execute("").await.expect("an empty query");
    console
        .batch_execute("SET application_name = 'x'; RESET ALL")
        .await
        .expect("settings");
    let of_asyncpg = "SELECT pg_advisory_unlock_all();\nCLOSE ALL;\nUNLISTEN *;\nRESET ALL;";
    console.batch_execute(of_asyncpg).await.expect("a reset");
    let isolation = column(
        &console,
        "SHOW TRANSACTION ISOLATION LEVEL",
        "transaction_isolation",
    )
    .await;
    assert_eq!(isolation, [Some("read committed".to_owned())]);
    let user: String = console
        .query_one("SELECT current_user", &[])
        .await
        .expect("a row")
        .get(0);
    assert_eq!(user, "postgres");
    let empty = console.query("", &[]).await.expect("an empty statement");
    assert!(empty.is_empty());
    let transaction = console.transaction().await.expect("a block");
    transaction.query("SHOW STATS", &[]).await.expect("in the block");
    transaction.rollback().await.expect("its end");
    running.shut_down().await;
}

#[tokio::test]
async fn several_statements_are_answered_one_after_the_other() {
    let running = Running::start(0).await;
    let console = running.console().await;
    let messages = console
        .simple_query("SHOW VERSION; show version; HELP")
        .await
        .expect("three");
    let complete = |message: &&SimpleQueryMessage| matches!(message, SimpleQueryMessage::CommandComplete(_));
    assert_eq!(messages.iter().filter(complete).count(), 3);
    let (first, second) = tokio::join!(console.query("SHOW VERSION", &[]), console.query("HELP", &[]));
    assert_eq!(first.expect("pipelined").len(), 1);
    assert!(second.expect("pipelined").len() > 5);
    running.shut_down().await;
}

#[tokio::test]
async fn a_portal_gives_as_many_rows_as_it_is_asked_for() {
    let running = Running::start(0).await;
    let mut console = running.console().await;
    let all = console.query("HELP", &[]).await.expect("rows").len();
    let block = console.transaction().await.expect("a block");
    let portal = block.bind("HELP", &[]).await.expect("a portal");
    let mut seen = Vec::new();
    loop {
        let rows = block.query_portal(&portal, 5).await.expect("rows");
        assert!(rows.len() <= 5);
        if rows.is_empty() {
            break;
        }
        seen.extend(rows.iter().map(|row| row.get::<_, String>(0)));
    }
    assert_eq!(seen.len(), all);
    seen.dedup();
    assert_eq!(seen.len(), all, "no row comes twice");
    running.shut_down().await;
}

async fn refused(console: &Client, statement: &str) -> [(SqlState, Option<String>); 2] {
    let simple = console.simple_query(statement).await.expect_err(statement);
    let extended = console.query(statement, &[]).await.expect_err(statement);
    [simple, extended].map(|error| {
        let told = error.as_db_error().expect("an answer");
        (told.code().clone(), told.hint().map(str::to_owned))
    })
}

#[tokio::test]
async fn what_is_not_known_is_refused_and_the_session_goes_on() {
    let running = Running::start(0).await;
    let console = running.console().await;
    let hint = Some("HELP lists the statements.".to_owned());
    for statement in ["SHOW nods", "SELECT * FROM deals", "DROP TABLE deals"] {
        let wanted = (SqlState::SYNTAX_ERROR, hint.clone());
        assert_eq!(
            refused(&console, statement).await,
            [wanted.clone(), wanted],
            "{statement}"
        );
    }
    let unknown = refused(&console, "FLUSH no_such_table").await;
    assert_eq!(unknown[0].0, SqlState::UNDEFINED_TABLE);
    let sources = refused(&console, "RELOAD").await;
    assert_eq!(sources[1].0, SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE);
    let several = console.query("HELP; HELP", &[]).await.expect_err("one at a time");
    assert_eq!(several.code(), Some(&SqlState::SYNTAX_ERROR));
    assert_eq!(simple(&console, "SHOW VERSION").await.len(), 1);
    running.shut_down().await;
}

#[tokio::test]
async fn it_ends_when_the_proxy_stops() {
    let running = Running::start(0).await;
    let console = running.console().await;
    running.shut_down().await;
    assert!(console.simple_query("SHOW VERSION").await.is_err());
}
