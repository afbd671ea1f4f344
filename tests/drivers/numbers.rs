//! `currval` and `lastval` through the proxy: what they tell is the session's own number, or nothing.
//!
//! Clients draw and ask side by side, in one transaction and without. Within one a number is always told; without, another client
//! may have had the connection in between, and then it is refused as by a session that has drawn nothing. One that has drawn
//! nothing is told nothing.

use tokio::task::JoinSet;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Error};

use crate::rust_driver::connect;
use crate::support::{Stage, within};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_number_drawn_last_is_never_anothers() {
    let stage = Stage::start(1).await;
    let content = "CREATE TABLE numbered (id serial PRIMARY KEY, who int); CREATE SEQUENCE other";
    let pair = stage.databases("numbers", content).await;
    let mut alone = connect(stage.proxy_port(), &pair.proxied).await;
    for round in 0..20 {
        assert_eq!(
            numbers(&mut alone.client, round, false).await,
            Ok(()),
            "alone, nobody else draws"
        );
    }
    let mut busy = JoinSet::new();
    for who in 0..6 {
        let session = connect(stage.proxy_port(), &pair.proxied).await;
        busy.spawn(async move {
            // All of it, with what drives its connection.
            let mut session = session;
            for round in 0..40 {
                let within_one = round % 2 == 0;
                let told = numbers(&mut session.client, round, within_one).await;
                let forgotten = told == Err(Some(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE));
                assert!(told.is_ok() || forgotten && !within_one, "{who}: {told:?}");
            }
        });
    }
    let idle = connect(stage.proxy_port(), &pair.proxied).await;
    for round in 0..60 {
        let sql = if round % 2 == 0 {
            "SELECT lastval()"
        } else {
            "SELECT currval('numbered_id_seq')"
        };
        let refused = idle
            .client
            .query(sql, &[])
            .await
            .expect_err("it has drawn nothing");
        assert_eq!(
            refused.code(),
            Some(&SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE),
            "{refused}"
        );
    }
    while let Some(ended) = within("clients that draw", busy.join_next()).await {
        ended.expect("its own numbers");
    }
    stage.shut_down().await;
}

/// Draws, and asks for the number, in one transaction or without; what was refused, if anything was.
async fn numbers(client: &mut Client, round: i32, within_one: bool) -> Result<(), Option<SqlState>> {
    let code = |error: Error| {
        assert!(error.as_db_error().is_some(), "{error}");
        error.code().cloned()
    };
    let insert = "INSERT INTO numbered (who) VALUES ($1) RETURNING id";
    let asks = ["SELECT lastval()", "SELECT currval('numbered_id_seq')"];
    if within_one {
        let transaction = client.transaction().await.map_err(code)?;
        let id: i32 = transaction
            .query_one(insert, &[&round])
            .await
            .map_err(code)?
            .get(0);
        for sql in asks {
            let told: i64 = transaction.query_one(sql, &[]).await.map_err(code)?.get(0);
            assert_eq!(told, i64::from(id), "{sql}");
        }
        return transaction.commit().await.map_err(code);
    }
    let id: i32 = client.query_one(insert, &[&round]).await.map_err(code)?.get(0);
    for sql in asks {
        let told: i64 = client.query_one(sql, &[]).await.map_err(code)?.get(0);
        assert_eq!(told, i64::from(id), "{sql}");
    }
    client
        .query_one("SELECT nextval('other')", &[])
        .await
        .map_err(code)?;
    Ok(())
}
