//! FLUSH forgets what it names, and nothing else.
//!
//! Who answered is read from `SHOW pgladder.last` in the client's own session, never from the console.

use tokio_postgres::Client;

use crate::running::{Running, column, eventually, served_by, simple};

const OF_HOTELS: &str = "SELECT count(*) FROM hotels";
const OF_DEALS: &str = "SELECT count(*) FROM deals";
const OF_BOTH: &str = "SELECT count(*) FROM deals JOIN hotels ON hotels.id = hotel_id";

/// Runs the query until it is served from the cache.
async fn warm(client: &Client, query: &str) {
    let ask = async || {
        simple(client, query).await;
        served_by(client).await
    };
    eventually("it is cached", ask, |served| served == "cache").await;
}

async fn served(client: &Client, query: &str) -> bool {
    simple(client, query).await;
    served_by(client).await == "cache"
}

async fn flush(console: &Client, statement: &str) -> Vec<(String, String)> {
    let names = column(console, statement, "flushed").await;
    let entries = column(console, statement, "entries").await;
    // The second time nothing is left to be dropped: the counts are those of the second.
    let pairs = names.into_iter().zip(entries);
    pairs
        .map(|(name, entries)| (name.expect("a name"), entries.expect("a number")))
        .collect()
}

#[tokio::test]
async fn a_table_takes_its_entries_along_and_no_others() {
    let running = Running::start(0).await;
    let (client, console) = (running.connect("postgres").await, running.console().await);
    for query in [OF_HOTELS, OF_DEALS, OF_BOTH] {
        warm(&client, query).await;
    }
    let rows = simple(&console, "FLUSH public.deals").await;
    let value = |at: usize| rows[0][at].1.as_deref();
    assert_eq!(
        (value(0), value(1), value(2)),
        (Some("postgres"), Some("public.deals"), Some("2"))
    );
    assert!(
        served(&client, OF_HOTELS).await,
        "another table's entry is still there"
    );
    assert!(!served(&client, OF_DEALS).await);
    assert!(!served(&client, OF_BOTH).await, "a join reads both");
    for query in [OF_DEALS, OF_BOTH] {
        warm(&client, query).await;
    }
    assert_eq!(
        simple(&console, "flush cheap").await.len(),
        1,
        "a view stands for its tables"
    );
    assert!(!served(&client, OF_DEALS).await);
    assert!(served(&client, OF_HOTELS).await);
    warm(&client, OF_DEALS).await;
    assert_eq!(simple(&console, "FLUSH postgres.public.hotels").await.len(), 1);
    assert!(served(&client, OF_DEALS).await);
    assert!(!served(&client, OF_HOTELS).await);
    running.shut_down().await;
}

#[tokio::test]
async fn everything_goes_and_comes_back() {
    let running = Running::start(0).await;
    let (client, console) = (running.connect("postgres").await, running.console().await);
    for query in [OF_HOTELS, OF_DEALS] {
        warm(&client, query).await;
    }
    assert_eq!(
        flush(&console, "FLUSH").await,
        [("everything".to_owned(), "0".to_owned())]
    );
    assert!(!served(&client, OF_HOTELS).await);
    for query in [OF_HOTELS, OF_DEALS] {
        warm(&client, query).await;
    }
    running.shut_down().await;
}

#[tokio::test]
async fn what_was_written_past_the_proxy_is_seen_after_a_flush() {
    let running = Running::start(1).await;
    let (client, console) = (running.connect("postgres").await, running.console().await);
    warm(&client, OF_DEALS).await;
    let before = column(&client, OF_DEALS, "count").await;
    running.cluster.pause_replay(1).await.expect("paused");
    let past = running
        .cluster
        .connect(0, "postgres")
        .await
        .expect("a connection");
    past.batch_execute("DELETE FROM deals WHERE id = 7")
        .await
        .expect("deleted");
    assert_eq!(
        column(&client, OF_DEALS, "count").await,
        before,
        "the cache cannot know"
    );
    simple(&console, "FLUSH deals").await;
    let after = column(&client, OF_DEALS, "count").await;
    assert_eq!(
        after,
        [Some("199".to_owned())],
        "nor does a replica that lags answer"
    );
    running.cluster.resume_replay(1).await.expect("resumed");
    running.shut_down().await;
}
