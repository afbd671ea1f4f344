//! Cache rules in a running proxy: by table, by shape and by pattern they set TTL and level, forbid and widen caching.
//!
//! A reload applies them, also to statements that are prepared and to entries that are there. What may not be cached, no rule
//! makes cacheable.

use tokio_postgres::Client;

use crate::reload::{Reloadable, reload, start};
use crate::running::{eventually, simple};

const HOTELS: &str = "SELECT count(*) FROM hotels";
const PLAIN: &str = "SELECT price FROM deals WHERE id = 7";

/// What `SHOW pgladder.last` says of a simple query, and then of the same again: who served it, TTL, level, rule.
async fn twice(client: &Client, sql: &str) -> [String; 2] {
    simple(client, sql).await;
    let first = last(client).await;
    simple(client, sql).await;
    [first, last(client).await]
}

async fn last(client: &Client) -> String {
    let row = simple(client, "SHOW pgladder.last").await.swap_remove(0);
    let value = |name: &str| {
        let (_, value) = row.iter().find(|(column, _)| column == name).expect("a column");
        value.clone().unwrap_or_else(|| "-".to_owned())
    };
    ["served_by", "ttl_ms", "freshness", "rule"]
        .map(value)
        .join(" | ")
}

async fn change(reloadable: &Reloadable, console: &Client, rules: &str) {
    std::fs::write(&reloadable.file, rules).expect("written");
    let applied = reload(console).await;
    assert_eq!(applied, [("cache.rule".to_owned(), "applied".to_owned())]);
}

fn fingerprint(sql: &str) -> String {
    format!("{:016x}", pgladder::sql::fingerprint(sql))
}

#[tokio::test]
async fn each_kind_of_rule_decides_and_the_first_that_matches_counts() {
    let shape = fingerprint("SELECT price FROM deals WHERE id = 1");
    let rules = format!(
        "[[cache.rule]]\npattern = \"*select 1 + count(*)*\"\nttl = \"1m\"\n\
         [[cache.rule]]\ntable = \"hotels\"\nttl = \"2m\"\nfreshness = \"ttl 1h\"\n\
         [[cache.rule]]\nfingerprint = \"{shape}\"\ncache = true\n\
         [[cache.rule]]\ntable = \"public.deals\"\ncache = false\n\
         [[cache.rule]]\npattern = \"*now()*\"\ncache = true\n"
    );
    let reloadable = start(&rules).await;
    let client = reloadable.running.connect("postgres").await;
    let check = async |sql: &str, first: &str, second: &str| {
        assert_eq!(twice(&client, sql).await, [first, second], "{sql}");
    };
    let of_hotels = "120000 | ttl 3600s | 2: table hotels";
    check(
        HOTELS,
        &format!("primary | {of_hotels}"),
        &format!("cache | {of_hotels}"),
    )
    .await;
    check(
        "SELECT 1 + count(*)  FROM hotels",
        "primary | 60000 | fresh | 1: pattern *select 1 + count(*)*",
        "cache | 60000 | fresh | 1: pattern *select 1 + count(*)*",
    )
    .await;
    let of_shape = format!("300000 | fresh | 3: fingerprint {shape}");
    check(
        PLAIN,
        &format!("primary | {of_shape}"),
        &format!("cache | {of_shape}"),
    )
    .await;
    let forbidden = "primary | - | fresh | 4: table public.deals";
    check("SELECT count(*) FROM deals", forbidden, forbidden).await;
    // Through a view it is a read of the table.
    check("SELECT count(*) FROM cheap", forbidden, forbidden).await;
    let hinted = "SELECT max(price) FROM deals /* pgladder: cache=on freshness=session */";
    let by_hint = "300000 | session | 4: table public.deals";
    check(
        hinted,
        &format!("primary | {by_hint}"),
        &format!("cache | {by_hint}"),
    )
    .await;
    let clock = "primary | - | fresh | 5: pattern *now()*";
    check("SELECT now()", clock, clock).await;
    // A write is seen at once under any level but a TTL.
    client
        .batch_execute("DELETE FROM deals WHERE id = 7; INSERT INTO hotels VALUES (99, 'new')")
        .await
        .expect("writes");
    check(
        PLAIN,
        &format!("primary | {of_shape}"),
        &format!("cache | {of_shape}"),
    )
    .await;
    check(
        HOTELS,
        &format!("cache | {of_hotels}"),
        &format!("cache | {of_hotels}"),
    )
    .await;
    reloadable.running.shut_down().await;
}

#[tokio::test]
async fn a_reload_applies_rules_to_what_is_prepared_and_cached_already() {
    let reloadable = start("").await;
    let running = &reloadable.running;
    let (client, console) = (running.connect("postgres").await, running.console().await);
    let prepared = client.prepare(HOTELS).await.expect("prepared");
    let run = async || {
        client.query_one(&prepared, &[]).await.expect("an answer");
        last(&client).await
    };
    assert_eq!(run().await, "primary | 300000 | fresh | -");
    assert_eq!(run().await, "cache | 300000 | fresh | -");
    change(
        &reloadable,
        &console,
        "[[cache.rule]]\npattern = \"*FROM Hotels\"\ncache = false",
    )
    .await;
    for _ in 0..2 {
        assert_eq!(run().await, "primary | - | fresh | 1: pattern *from hotels");
    }
    let by_table = "[[cache.rule]]\ntable = \"hotels\"\nttl = \"1s\"";
    change(&reloadable, &console, by_table).await;
    let first = run().await;
    assert!(first.ends_with("| 1000 | fresh | 1: table hotels"), "{first}");
    // The entry of before has five minutes to live, but what is asked for now is an answer that is not older than a second.
    eventually("it is too old", run, |last| last.starts_with("primary")).await;
    change(&reloadable, &console, "").await;
    let served = run().await;
    assert!(served.ends_with("| 300000 | fresh | -"), "{served}");
    reloadable.running.shut_down().await;
}

#[tokio::test]
async fn a_rule_by_table_follows_a_table_that_is_renamed() {
    let reloadable = start("[[cache.rule]]\ntable = \"closed\"\nfreshness = \"strict\"").await;
    let client = reloadable.running.connect("postgres").await;
    let free = "300000 | fresh | -";
    assert_eq!(
        twice(&client, HOTELS).await,
        [format!("primary | {free}"), format!("cache | {free}")]
    );
    client
        .batch_execute("CREATE TABLE closed (id int); DROP TABLE hotels; ALTER TABLE closed RENAME TO hotels")
        .await
        .expect("DDL");
    let ask = async || twice(&client, HOTELS).await[1].clone();
    eventually("the catalog is read", ask, |last| {
        *last == format!("cache | {free}")
    })
    .await;
    client
        .batch_execute("ALTER TABLE hotels RENAME TO closed; CREATE VIEW hotels AS TABLE closed")
        .await
        .expect("DDL");
    let strict = "primary | - | strict | 1: table closed";
    eventually("the view is known", ask, |last| last == strict).await;
    reloadable.running.shut_down().await;
}
