//! What a read may miss is its level's: nothing at `strict`, so much and no more at `bounded` and `ttl`.
//!
//! Each level has its own client, and all read the same text, so that an answer is the same entry for all of them.

use std::time::Duration;

use pgladder::config::Config;
use tokio::task::JoinSet;

use crate::client::Client;
use crate::setup::{Setup, eventually, stats};

const SUM: &str = "SELECT sum(n) FROM t";
const PLAIN: &str = "SELECT n FROM t WHERE id = 1";
const TABLE: &[&str] = &[
    "CREATE TABLE t (id int PRIMARY KEY, n bigint NOT NULL)",
    "INSERT INTO t VALUES (1, 0)",
];

/// An answer stays until a reader asks for another.
fn without_refreshes(config: &mut Config) {
    config.cache.refreshes_max = 0;
}

async fn at(setup: &Setup, level: &str) -> Client {
    let mut client = setup.proxy.client().await;
    client.run(&format!("SET pgladder.freshness = '{level}'")).await;
    client
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_is_served_within_the_bound_of_the_first_write_that_it_misses() {
    let setup = Setup::start_with(0, &[], without_refreshes).await;
    let (mut writer, mut fresh) = (setup.proxy.client().await, setup.proxy.client().await);
    for sql in TABLE {
        writer.run(sql).await;
    }
    let (mut patient, mut prompt) = (at(&setup, "bounded 1h").await, at(&setup, "bounded 0ms").await);
    assert_eq!(fresh.until_served_by("cache", SUM).await, "0");
    for update in ["UPDATE t SET n = 1", "UPDATE t SET n = 2"] {
        writer.run(update).await;
        let (value, last) = patient.served(SUM).await;
        assert_eq!(
            (value.as_str(), last.served_by.as_str()),
            ("0", "cache"),
            "{last:?}"
        );
        assert!(last.reason.contains("older than a write"), "{last:?}");
    }
    assert_eq!(prompt.value(SUM).await, "2", "its bound is over at once");
    assert_eq!(
        patient.until_served_by("cache", SUM).await,
        "2",
        "the newer answer is everybody's"
    );
    assert_eq!(patient.last().await.expect("a row").reason, "cache hit");
    writer.run("UPDATE t SET n = 3").await;
    assert_eq!(patient.value(SUM).await, "2");
    assert_eq!(fresh.value(SUM).await, "3");
    assert_eq!(patient.value(SUM).await, "3", "nobody goes back for an older one");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_may_be_as_far_behind_as_the_level_allows() {
    let setup = Setup::start(1).await;
    setup.prepare(TABLE, PLAIN).await;
    let mut writer = setup.proxy.client().await;
    let mut tolerant = [at(&setup, "bounded 1h").await, at(&setup, "ttl 1h").await];
    let mut prompt = [
        at(&setup, "fresh").await,
        at(&setup, "bounded 0ms").await,
        at(&setup, "ttl 0ms").await,
    ];
    for client in &mut tolerant {
        client.until_served_by("replica", PLAIN).await;
    }
    setup.cluster.pause_replay(1).await.expect("it runs");
    for value in 1..=20 {
        writer.run(&format!("UPDATE t SET n = {value}")).await;
        for client in &mut tolerant {
            let (read, last) = client.served(PLAIN).await;
            assert_eq!(
                (read.as_str(), last.served_by.as_str()),
                ("0", "replica"),
                "{last:?}"
            );
        }
        for client in &mut prompt {
            let (read, last) = client.served(PLAIN).await;
            assert_eq!(
                (read, last.served_by.as_str()),
                (value.to_string(), "primary"),
                "{last:?}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_from_a_replica_that_lags_is_not_kept_for_those_who_may_miss_nothing() {
    let setup = Setup::start(1).await;
    setup.prepare(TABLE, PLAIN).await;
    let (mut writer, mut fresh) = (setup.proxy.client().await, setup.proxy.client().await);
    let mut tolerant = at(&setup, "bounded 1h").await;
    setup.cluster.pause_replay(1).await.expect("it runs");
    writer.run("UPDATE t SET n = 1").await;
    // Nothing is there yet: whoever fills the cache fills it for all.
    assert_eq!(tolerant.until_served_by("cache", SUM).await, "1");
    assert_eq!(fresh.value(SUM).await, "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_revoked_is_refused_at_every_level() {
    let setup = Setup::start(1).await;
    setup.prepare(TABLE, PLAIN).await;
    let mut owner = setup.proxy.client().await;
    owner.run("CREATE ROLE reader LOGIN").await;
    owner.run("GRANT SELECT ON t TO reader").await;
    let mut readers = Vec::new();
    for level in ["bounded 1h", "ttl 1h", "fresh"] {
        let mut reader = setup.proxy.client_of("reader", "postgres").await;
        reader.run(&format!("SET pgladder.freshness = '{level}'")).await;
        reader.until_served_by("replica", PLAIN).await;
        reader.until_served_by("cache", SUM).await;
        readers.push((level, reader));
    }
    setup.cluster.pause_replay(1).await.expect("it runs");
    owner.run("REVOKE SELECT ON t FROM reader").await;
    for (level, reader) in &mut readers {
        for sql in [PLAIN, SUM] {
            let refused = reader.query(sql).await.map(|answer| answer.text());
            assert_eq!(refused.expect_err(level).code(), "42501", "{level}: {sql}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_strict_read_misses_nothing_written_past_the_proxy_and_still_uses_replicas() {
    let setup = Setup::start(1).await;
    setup.prepare(TABLE, PLAIN).await;
    let mut strict = at(&setup, "strict").await;
    for value in 1..=50 {
        setup.direct(&format!("UPDATE t SET n = {value}")).await;
        assert_eq!(strict.value(PLAIN).await, value.to_string());
    }
    let last = eventually("a strict read on the replica", async || {
        let (value, last) = strict.served(PLAIN).await;
        assert_eq!(value, "50");
        if last.served_by == "replica" {
            Ok(last)
        } else {
            Err(last)
        }
    })
    .await;
    assert!(last.reason.contains("when the read arrived"), "{last:?}");
    setup.cluster.pause_replay(1).await.expect("it runs");
    for value in 51..=70 {
        setup.direct(&format!("UPDATE t SET n = {value}")).await;
        let (read, last) = strict.served(PLAIN).await;
        assert_eq!(
            (read, last.served_by.as_str()),
            (value.to_string(), "primary"),
            "{last:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_probe_serves_all_strict_readers_that_came_before_it() {
    const READERS: u64 = 64;
    const READS: u64 = 50;
    let setup = Setup::start(1).await;
    setup.prepare(TABLE, PLAIN).await;
    let before = stats(&setup.proxy).await;
    let mut reading = JoinSet::new();
    for _ in 0..READERS {
        let mut strict = at(&setup, "strict").await;
        reading.spawn(async move {
            for _ in 0..READS {
                assert_eq!(strict.value(PLAIN).await, "0");
            }
        });
    }
    while let Some(reader) = reading.join_next().await {
        reader.expect("it reads to the end");
    }
    let after = stats(&setup.proxy).await;
    let since = |name: &str| after[name] - before[name];
    assert_eq!(since("read_index"), READERS * READS);
    let probes = since("probes");
    assert!(probes > 0 && probes * 4 < READERS * READS, "{probes} probes");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outdated_answer_is_renewed_behind_its_readers() {
    const SHAPES: [&str; 3] = [
        "SELECT sum(n) FROM t",
        "SELECT max(at) FROM t",
        "SELECT sum(n) FROM t WHERE id >= $1",
    ];
    let setup = Setup::start(1).await;
    let mut writer = setup.proxy.client().await;
    for sql in [
        "CREATE TABLE t (id int PRIMARY KEY, n bigint NOT NULL, at timestamptz NOT NULL DEFAULT now())",
        "INSERT INTO t VALUES (1, 0, '2024-01-01 12:00:00+00')",
    ] {
        writer.run(sql).await;
    }
    for sql in SHAPES {
        let mut reader = at(&setup, "bounded 1h").await;
        reader.run("SET TimeZone = 'Asia/Tokyo'").await;
        let values: &[&str] = if sql.contains('$') { &["0"] } else { &[] };
        let mut read = async || {
            let answer = if values.is_empty() {
                reader.query(sql).await
            } else {
                reader.extended(sql, values, false).await
            };
            let value = answer.expect("an answer").text();
            (value, reader.last().await.expect("the proxy's own statement"))
        };
        let before = eventually("a hit", async || {
            let (value, last) = read().await;
            if last.served_by == "cache" {
                Ok(value)
            } else {
                Err(last)
            }
        })
        .await;
        writer.run("UPDATE t SET n = n + 1, at = at + '1 day'").await;
        let after = eventually("another answer", async || {
            let (value, last) = read().await;
            assert_eq!(last.served_by, "cache", "nobody waits for it: {last:?}");
            if value == before { Err(last) } else { Ok(value) }
        })
        .await;
        let truth = format!("SET TimeZone = 'Asia/Tokyo'; {}", sql.replace("$1", "0"));
        assert_eq!(after, setup.direct_value(0, &truth).await);
    }
    assert!(stats(&setup.proxy).await["refreshed"] >= 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_so_many_are_renewed_at_a_time() {
    let setup = Setup::start_with(0, &[], without_refreshes).await;
    let mut writer = setup.proxy.client().await;
    for sql in TABLE {
        writer.run(sql).await;
    }
    let mut reader = at(&setup, "bounded 1h").await;
    assert_eq!(reader.until_served_by("cache", SUM).await, "0");
    writer.run("UPDATE t SET n = 1").await;
    eventually("one is dropped", async || {
        assert_eq!(reader.value(SUM).await, "0");
        let stats = stats(&setup.proxy).await;
        assert_eq!(stats["refreshed"], 0);
        if stats["refreshes_dropped"] > 0 {
            Ok(())
        } else {
            Err(())
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_that_is_asked_for_is_renewed_before_its_time_is_over() {
    let short = |config: &mut Config| {
        config.cache.ttl = Duration::from_secs(2);
    };
    let setup = Setup::start_with(0, &[], short).await;
    let mut reader = setup.proxy.client().await;
    for sql in TABLE {
        reader.run(sql).await;
    }
    eventually("it is renewed", async || {
        assert_eq!(reader.value(SUM).await, "0");
        let stats = stats(&setup.proxy).await;
        if stats["refreshed"] > 1 {
            Ok(())
        } else {
            Err(stats["refreshed"])
        }
    })
    .await;
}
