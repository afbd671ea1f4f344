//! Two nodes that both say that they are the primary: neither takes a statement through the proxy until one of them is gone.
//!
//! Both are promoted behind the proxy's back. Until it has asked both it may still know of one, so the case waits for the refusal
//! that names both; from then on nothing may reach either of them.

use std::time::Duration;

use pgladder::demo::cluster::SUPERUSER;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Error};

use crate::running::{Running, eventually, simple};

const HOTELS: &str = "SELECT count(*) FROM hotels";

/// The SQLSTATE of a refusal, and its detail; none where there is none.
fn refusal(outcome: Result<(), Error>) -> Option<(SqlState, String)> {
    let error = outcome.err()?;
    let told = error.as_db_error().expect("the session goes on");
    Some((told.code().clone(), told.detail().unwrap_or_default().to_owned()))
}

async fn hotels(running: &Running, node: usize) -> Option<String> {
    let direct = running.cluster.connect(node, "postgres").await;
    simple(&direct.expect("a connection"), HOTELS).await[0][0]
        .1
        .clone()
}

async fn insert(client: &Client) -> Result<(), Error> {
    let sql = "INSERT INTO hotels SELECT max(id) + 1, 'somewhere' FROM hotels";
    client.batch_execute(sql).await
}

#[tokio::test]
async fn two_primaries_take_no_writes_until_one_is_gone() {
    let running = Running::start_with(2, |config| {
        config.cluster.primary_wait = Duration::from_millis(50);
    })
    .await;
    // Nobody waits long for a primary here, not even for the first one.
    let enter = async || {
        let entered = running.try_connect(SUPERUSER, "postgres").await;
        entered.map_err(|error| error.to_string())
    };
    let client = eventually("the primary is known", enter, Result::is_ok)
        .await
        .expect("a session");
    insert(&client).await.expect("one primary");
    let cluster = &running.cluster;
    cluster.wait_caught_up().await.expect("replicas follow");
    cluster.kill_hard(0).await.expect("killed");
    cluster.promote(1).await.expect("a replica");
    cluster.promote(2).await.expect("a replica");
    // Until both have been asked there is one, or none.
    let refused = eventually(
        "both are known",
        async || {
            refusal(
                client
                    .batch_execute("SELECT 1 /* pgladder: route=primary */")
                    .await,
            )
        },
        |refused| refused.as_ref().is_some_and(|(_, detail)| !detail.is_empty()),
    )
    .await;
    let (code, detail) = refused.expect("refused");
    assert_eq!(code, SqlState::CANNOT_CONNECT_NOW);
    for node in [1, 2] {
        assert!(detail.contains(&cluster.address(node).to_string()), "{detail}");
    }
    let before = (hotels(&running, 1).await, hotels(&running, 2).await);
    let refused = refusal(insert(&client).await).expect("no write");
    assert_eq!(refused, (SqlState::CANNOT_CONNECT_NOW, detail.clone()));
    for sql in [
        HOTELS,
        "SELECT city FROM hotels WHERE id = 1",
        "BEGIN; DELETE FROM hotels",
    ] {
        let refused = refusal(client.batch_execute(sql).await).expect(sql);
        assert_eq!(refused, (SqlState::CANNOT_CONNECT_NOW, detail.clone()), "{sql}");
    }
    assert_eq!((hotels(&running, 1).await, hotels(&running, 2).await), before);
    cluster.kill_hard(2).await.expect("killed");
    let taken = async || refusal(insert(&client).await);
    eventually("the one that is left takes writes", taken, Option::is_none).await;
    assert_ne!(hotels(&running, 1).await, before.0);
    running.shut_down().await;
}
