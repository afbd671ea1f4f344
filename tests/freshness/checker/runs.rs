//! The runs: as the proxy is, with a stream and without, and one with each guard switched off, which must go wrong.
//!
//! `PGLADDER_CHECK_OPERATIONS` makes the first two longer, `PGLADDER_CHECK_SEED` repeats their choices. A run also fails when it looked
//! at too little: few reads from the cache or from replicas, or a way not taken.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use pgladder::config::StreamUse;
use pgladder::demo::cluster::ThrowAwayCluster;
use pgladder::freshness::guards::Guards;
use tokio::sync::RwLock;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::counters::{counters, schema};
use super::disturbance::{Outage, disturb};
use super::progress::Progress;
use super::report::Report;
use super::session::{Load, Run, Session};
use super::writes::WritePath;
use crate::setup::{Proxy, addresses, servers, stats};

/// Families of counters: the more there are, the longer an answer stays good.
const FAMILIES: usize = 3;
const SESSIONS: u64 = 12;
const OPERATIONS: u64 = 50_000;
/// Percent of the reads that must come from the cache, and of the others from replicas.
const SHARE_MIN: u64 = 30;

fn number(variable: &str) -> Option<u64> {
    let value = std::env::var(variable).ok()?;
    Some(
        value
            .parse()
            .unwrap_or_else(|_| panic!("{variable} is a number, not {value}")),
    )
}

/// Hits of so many, one is read again on the primary.
const SAMPLE_EVERY: u64 = 50;

/// What a run is made of.
struct Plan {
    seed: u64,
    operations: u64,
    guards: Guards,
    load: Load,
    stream: StreamUse,
}

async fn check(plan: Plan) -> Report {
    let Plan {
        seed,
        operations,
        guards,
        mut load,
        stream,
    } = plan;
    let cluster = servers(2, &[("max_prepared_transactions", "64")]).await;
    let proxy = Proxy::start(addresses(&cluster), guards, |config| {
        config.stream.enabled = stream;
        config.cache.sample_every = SAMPLE_EVERY;
    })
    .await;
    let mut client = proxy.client().await;
    for sql in schema(FAMILIES) {
        client.run(&sql).await;
    }
    client.until_served_by("replica", "SELECT id FROM labels").await;
    if client.value("SHOW server_version_num").await.as_str() < "150000" {
        load.writes.retain(|path| *path != WritePath::Merge);
    }
    let report = Report {
        writes: load.writes.iter().map(|path| (*path, 0)).collect(),
        ..Report::default()
    };
    let run = Arc::new(Run {
        counters: counters(FAMILIES),
        proxy: [proxy.tcp.clone(), proxy.unix.clone()],
        load,
        turns: Default::default(),
        progress: Progress::new(operations),
        writing: RwLock::default(),
        outage: Outage::default(),
        report: Mutex::new(report),
    });
    work(&run, &cluster, seed).await;
    let samples = stats(&proxy).await.into_iter();
    let samples =
        samples.filter_map(|(name, count)| Some((name.strip_prefix("sample: ")?.to_owned(), count)));
    run.report.lock().samples = samples.collect();
    proxy.end().await;
    std::mem::take(&mut *run.report.lock())
}

async fn work(run: &Arc<Run>, cluster: &ThrowAwayCluster, seed: u64) {
    let mut tasks = JoinSet::new();
    for number in 0..SESSIONS {
        tasks.spawn(Session::new(Arc::clone(run), number, seed).work());
    }
    let ended = async {
        while let Some(ended) = tasks.join_next().await {
            if let Err(panicked) = ended {
                run.wrong(panicked.to_string());
            }
        }
    };
    tokio::join!(ended, disturb(run, cluster, seed));
}

#[expect(
    clippy::print_stderr,
    reason = "the figures of a run, and the seed to repeat it"
)]
fn tell(seed: u64, report: &Report) {
    eprintln!("seed {seed}: {report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_read_misses_what_was_acknowledged_before_it() {
    nothing_goes_wrong(StreamUse::Off).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_read_misses_it_either_where_there_is_a_stream() {
    nothing_goes_wrong(StreamUse::Auto).await;
}

async fn nothing_goes_wrong(stream: StreamUse) {
    let seed = number("PGLADDER_CHECK_SEED").unwrap_or_else(rand::random);
    let operations = number("PGLADDER_CHECK_OPERATIONS").unwrap_or(OPERATIONS);
    let load = Load::everything().at_all_levels();
    let guards = Guards::default();
    let report = check(Plan {
        seed,
        operations,
        guards,
        load,
        stream,
    })
    .await;
    tell(seed, &report);
    let served = report.served();
    assert!(report.wrong.is_empty(), "seed {seed}: {:?}", report.wrong);
    assert_eq!(report.not_taken(), Vec::<String>::new(), "seed {seed}");
    assert_eq!(report.samples["wrong"], 0, "seed {seed}: the sampler's word");
    assert!(report.samples["same"] > 0, "seed {seed}: {:?}", report.samples);
    assert!(served.cache_share() >= SHARE_MIN, "seed {seed}: {served}");
    assert!(served.replica_share() >= SHARE_MIN, "seed {seed}: {served}");
}

/// Runs until something is wrong.
async fn must_go_wrong(guards: Guards, load: Load) {
    let seed = rand::random();
    let operations = u64::MAX;
    let found = check(Plan {
        seed,
        operations,
        guards,
        load,
        // It would find out a part of what is wrong by itself.
        stream: StreamUse::Off,
    });
    let report = timeout(Duration::from_secs(180), found).await;
    let report =
        report.unwrap_or_else(|_| panic!("seed {seed}: nothing was found in three minutes: {guards:?}"));
    tell(seed, &report);
    let first = &report.wrong[0];
    assert!(first.contains("is less than"), "seed {seed}: {first}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_epochs_an_entry_outlives_a_write() {
    let guards = Guards {
        epochs: false,
        ..Guards::default()
    };
    must_go_wrong(guards, Load::everything()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_mark_in_flight_a_session_goes_back_to_an_older_entry() {
    let guards = Guards {
        in_flight: false,
        ..Guards::default()
    };
    must_go_wrong(guards, Load::commits_on_their_way()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_fences_a_replica_serves_before_it_has_replayed() {
    let guards = Guards {
        fences: false,
        ..Guards::default()
    };
    must_go_wrong(guards, Load::everything()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_notes_of_flights_a_reader_joins_one_that_began_before_a_write() {
    let guards = Guards {
        join: false,
        ..Guards::default()
    };
    must_go_wrong(guards, Load::long_flights()).await;
}
