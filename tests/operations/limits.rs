//! What is too large, too many, or not worth its place: statements that are refused, and answers that are not kept.
//!
//! Each limit is set so that the machine's speed decides nothing: an hour is more, and a millisecond less, than a statement takes
//! anywhere.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_postgres::Client;

use crate::reload::{reload, start};
use crate::running::{Running, column, served_by, simple};
use crate::vanishing::{Bare, query};

const HOTELS: &str = "SELECT count(*) FROM hotels";
const DEALS: &str = "SELECT count(*) FROM deals";
const PRICES: &str = "SELECT max(price) FROM deals";

async fn served(client: &Client, sql: &str) -> String {
    simple(client, sql).await;
    served_by(client).await
}

/// The statements that are cached, the one used last first.
async fn cached(console: &Client) -> Vec<String> {
    column(console, "SHOW CACHE", "query")
        .await
        .into_iter()
        .flatten()
        .collect()
}

#[tokio::test]
async fn a_message_over_the_limit_ends_its_session_and_says_so() {
    const MOST: usize = 64 << 10;
    let running = Running::start_with(0, |config| config.limits.message_bytes_max = MOST as u64).await;
    let steady = running.connect("postgres").await;
    let sql = |bytes: usize| format!("SELECT {:>1$}", 1, bytes - "SELECT ".len());
    // The length of a message counts itself and the zero byte behind the text.
    simple(&steady, &sql(MOST - 5)).await;
    for declares in ["Q", "P"] {
        let mut client = Bare::log_in(&running).await;
        // Its header alone tells that it is too long; what follows is not waited for.
        let header = [
            declares.as_bytes(),
            &u32::try_from(MOST + 1).expect("small").to_be_bytes(),
        ]
        .concat();
        client.stream.write_all(&header).await.expect("sent");
        let mut said = Vec::new();
        client
            .stream
            .read_to_end(&mut said)
            .await
            .expect("an answer, and the end");
        assert_eq!(said[0], b'E');
        let fields: Vec<&[u8]> = said[5..].split(|byte| *byte == 0).collect();
        assert!(
            fields.contains(&&b"SFATAL"[..]) && fields.contains(&&b"C54000"[..]),
            "{}",
            said.escape_ascii()
        );
    }
    let mut whole = Bare::log_in(&running).await;
    whole.stream.write_all(&query(&sql(MOST))).await.expect("sent");
    assert_eq!(whole.until(b'E').await, b"E");
    simple(&steady, "SELECT 1").await;
    running.shut_down().await;
}

#[tokio::test]
async fn an_answer_that_was_cheap_is_not_kept() {
    let reloadable = start("[cache]\nmin_cost_ms = 3600000").await;
    let running = &reloadable.running;
    let (client, console) = (running.connect("postgres").await, running.console().await);
    let dear = "SELECT count(*) FROM deals, generate_series(1, 10000)";
    for sql in [HOTELS, dear, HOTELS, dear] {
        assert_eq!(served(&client, sql).await, "primary", "{sql}");
    }
    assert_eq!(cached(&console).await, Vec::<String>::new());
    std::fs::write(&reloadable.file, "[cache]\nmin_cost_ms = 1").expect("written");
    let applied = reload(&console).await;
    assert_eq!(applied, [("cache.min_cost_ms".to_owned(), "applied".to_owned())]);
    // Two million rows take longer than a millisecond anywhere.
    assert_eq!(served(&client, dear).await, "primary");
    assert_eq!(served(&client, dear).await, "cache");
    reloadable.running.shut_down().await;
}

#[tokio::test]
async fn the_doorkeeper_keeps_what_is_asked_for_twice() {
    let running = Running::start_with(0, |config| config.cache.doorkeeper = true).await;
    let (first, second) = (
        running.connect("postgres").await,
        running.connect("postgres").await,
    );
    let console = running.console().await;
    assert_eq!(served(&first, HOTELS).await, "primary");
    assert_eq!(served(&first, DEALS).await, "primary");
    assert_eq!(cached(&console).await, Vec::<String>::new());
    assert_eq!(served(&second, HOTELS).await, "primary");
    assert_eq!(cached(&console).await, [HOTELS]);
    for client in [&first, &second] {
        assert_eq!(served(client, HOTELS).await, "cache");
    }
    assert_eq!(served(&second, DEALS).await, "primary", "its own second time");
    assert_eq!(served(&first, DEALS).await, "cache");
    running.shut_down().await;
}

#[tokio::test]
async fn no_more_entries_are_kept_than_allowed_and_none_that_is_too_large() {
    let running = Running::start_with(0, |config| {
        config.cache.entries = 2;
        config.cache.entry_bytes_max = 4096;
    })
    .await;
    let (client, console) = (running.connect("postgres").await, running.console().await);
    for sql in [HOTELS, DEALS] {
        served(&client, sql).await;
    }
    assert_eq!(
        served(&client, HOTELS).await,
        "cache",
        "used more lately than the other"
    );
    assert_eq!(served(&client, PRICES).await, "primary");
    assert_eq!(
        cached(&console).await,
        [PRICES, HOTELS],
        "the one used longest ago made room"
    );
    let large = "SELECT repeat(max(city), 1000) FROM hotels";
    for _ in 0..3 {
        assert_eq!(served(&client, large).await, "primary");
    }
    assert_eq!(cached(&console).await, [PRICES, HOTELS]);
    running.shut_down().await;
}
