//! The sampler: hits that are read again on the primary, while the proxy serves.
//!
//! A lie is made by taking a guard away, or by writing past the proxy where there is no stream; what is found is asked of the
//! console, and that the entry is gone, of the next reader.

use pgladder::config::{Config, StreamUse};
use pgladder::freshness::guards::Guards;

use crate::client::Client;
use crate::setup::{Proxy, Setup, addresses, eventually, servers, stats};
use crate::stream::{TABLE, until_carried, with_stream};

const SUM: &str = "SELECT sum(n) FROM t";

fn sampling(config: &mut Config) {
    config.cache.sample_every = 1;
}

/// Reads from the cache until a sample had this result; returns the value read last.
async fn until_sampled(setup: &Setup, reader: &mut Client, result: &str) -> String {
    eventually(&format!("a sample that is {result}"), async || {
        let (value, _) = reader.served(SUM).await;
        let stats = stats(&setup.proxy).await;
        if stats[&format!("sample: {result}")] > 0 {
            Ok(value)
        } else {
            Err(stats)
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_true_is_found_so_and_a_write_past_the_proxy_is_found_and_ends_the_entry() {
    let setup = Setup::start_with(0, &[], sampling).await;
    let mut reader = setup.proxy.client().await;
    for sql in TABLE {
        reader.run(sql).await;
    }
    assert_eq!(until_sampled(&setup, &mut reader, "same").await, "0");
    setup.direct("UPDATE t SET n = 1").await;
    until_sampled(&setup, &mut reader, "unknown").await;
    assert_eq!(reader.value(SUM).await, "1");
    let stats = stats(&setup.proxy).await;
    assert_eq!(stats["sample: wrong"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_that_outlives_a_write_is_found_and_dropped() {
    let cluster = servers(0, &[]).await;
    let guards = Guards {
        epochs: false,
        ..Guards::default()
    };
    let proxy = Proxy::start(addresses(&cluster), guards, |config| {
        with_stream(config);
        sampling(config);
    })
    .await;
    let setup = Setup { proxy, cluster };
    let mut reader = setup.proxy.client().await;
    for sql in TABLE {
        reader.run(sql).await;
    }
    until_carried(&setup, &mut reader, SUM).await;
    reader.run("UPDATE t SET n = 1").await;
    // Nothing guards it; a sample that had begun may find it before the next reader does.
    until_sampled(&setup, &mut reader, "wrong").await;
    assert_eq!(reader.until_served_by("cache", SUM).await, "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_sampling_nothing_is_read_again() {
    let setup = Setup::start_with(0, &[], |config| config.stream.enabled = StreamUse::Off).await;
    let mut reader = setup.proxy.client().await;
    for sql in TABLE {
        reader.run(sql).await;
    }
    reader.until_served_by("cache", SUM).await;
    let stats = stats(&setup.proxy).await;
    let sampled = stats
        .iter()
        .filter(|(name, count)| name.starts_with("sample: ") && **count > 0);
    assert_eq!(sampled.count(), 0);
}
