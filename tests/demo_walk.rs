//! The demo's walk where there is no proxy: every step must notice.
//!
//! What the walk is pointed at is the primary itself, which answers everything correctly, remembers nothing, and shares
//! nothing with the replicas. So no step may pass, and each must say what it found. That the walk passes with the proxy
//! is shown by `pgladder demo --check`. PostgreSQL's server programs and pg_stat_statements must be installed.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use pgladder::demo::cluster::{Options, ThrowAwayCluster};
use pgladder::demo::proxy::{Proxy, ProxyAddress};
use pgladder::demo::run::{DemoError, DemoOptions, Outcome, fill, run_with};
use pgladder::demo::walk::{Paper, Step, Walk, WalkError};
use tokio_util::sync::CancellationToken;

const DEALS: u64 = 5_000;

fn primary(cluster: &ThrowAwayCluster) -> ProxyAddress {
    ProxyAddress {
        host: "127.0.0.1".to_owned(),
        port: cluster.port(0),
        http: None,
    }
}

fn options(check: bool) -> DemoOptions {
    DemoOptions {
        deals: DEALS,
        check,
        port: None,
        is_terminal: false,
    }
}

/// Output that can be looked at while it is written.
#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Shared {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().clone()).expect("the demo prints text")
    }
}

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

async fn filled(replicas: usize) -> ThrowAwayCluster {
    let options = Options {
        replicas,
        label: "walk-".to_owned(),
        ..Options::default()
    };
    let cluster = ThrowAwayCluster::start(options).await.expect("a cluster");
    let mut out = Vec::new();
    fill(&cluster, DEALS, &mut Paper::new(&mut out, false))
        .await
        .expect("data");
    let said = String::from_utf8(out).expect("the demo prints text");
    assert!(said.contains("2,000 hotels and 5,000 deals"), "{said}");
    cluster
}

/// Walks where only `node` answers; each step must fail with its message.
async fn walk_on(cluster: &ThrowAwayCluster, node: usize, wanted: &[(Step, &str)]) {
    let proxy = ProxyAddress {
        port: cluster.port(node),
        ..primary(cluster)
    };
    let walk = Walk {
        cluster,
        proxy: &proxy,
        deals: DEALS,
        patience: Duration::from_millis(300),
    };
    for (step, message) in wanted {
        let mut out = Vec::new();
        let failure = match walk.step(*step, &mut Paper::new(&mut out, false)).await {
            Err(WalkError::Failed(failure)) => failure,
            other => panic!("{step:?}: {other:?}"),
        };
        assert_eq!(failure.step(), *step);
        let text = failure.to_string();
        assert!(
            text.starts_with(&format!("step {} failed: ", step.number())),
            "{text}"
        );
        assert!(text.contains(message), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_step_passes_without_a_proxy() {
    let cluster = filled(2).await;
    let wanted = [
        (Step::Dashboard, "the proxy never answered from memory"),
        (
            Step::Rush,
            "one call was due; the servers count primary 300, replica_1 0, replica_2 0",
        ),
        (Step::Flush, "still ran on primary 1, replica_1 0, replica_2 0"),
        (Step::Spread, "a replica served none of"),
        (Step::Lag, "a replica served none of"),
        (Step::Crash, "a replica served none of"),
    ];
    walk_on(&cluster, 0, &wanted).await;
    cluster.shut_down().await.expect("nothing stays");
}

/// The only replica satisfies the part of the steps that is about reads; what comes after must be noticed.
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_takes_no_writes_and_dies_is_noticed() {
    let cluster = filled(1).await;
    let wanted = [
        (
            Step::Spread,
            "updating a deal, through the proxy: db error: ERROR: cannot execute UPDATE",
        ),
        (
            Step::Lag,
            "updating a deal, through the proxy: db error: ERROR: cannot execute UPDATE",
        ),
    ];
    walk_on(&cluster, 1, &wanted).await;
    cluster.resume_replay(1).await.expect("the step left it paused");
    walk_on(
        &cluster,
        1,
        &[(Step::Crash, "reading a deal, through the proxy: ")],
    )
    .await;
    cluster.shut_down().await.expect("nothing stays");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_step_is_said_and_nothing_is_left() {
    let mut directory = None;
    let mut out = Vec::new();
    let outcome = run_with(
        options(true),
        CancellationToken::new(),
        &mut out,
        async |cluster, port| {
            assert_eq!(port, None);
            directory = Some(cluster.directory().to_owned());
            let nobody = ProxyAddress {
                port: 1,
                ..primary(cluster)
            };
            Ok(Proxy::elsewhere(nobody))
        },
    )
    .await
    .expect("the demo is carried out");
    let Outcome::Failed(failure) = outcome else {
        panic!("{outcome:?}");
    };
    assert_eq!(failure.step(), Step::Dashboard);
    let text = failure.to_string();
    assert!(
        text.starts_with("step 1 failed: connecting, through the proxy: "),
        "{text}"
    );
    let printed = String::from_utf8(out).expect("the demo prints text");
    assert!(
        printed.lines().last().is_some_and(|last| last.starts_with("1. ")),
        "{printed}"
    );
    assert!(!directory.expect("it was started").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_ends_the_walk_and_everything_else() {
    let stop = CancellationToken::new();
    let told = stop.clone();
    let mut directory = None;
    let mut out = Shared::default();
    let seen = out.clone();
    let outcome = run_with(options(false), stop, &mut out, async |cluster, _| {
        directory = Some(cluster.directory().to_owned());
        told.cancel();
        Ok(Proxy::elsewhere(primary(cluster)))
    })
    .await
    .expect("the demo is carried out");
    assert!(matches!(outcome, Outcome::Stopped), "{outcome:?}");
    assert!(!directory.expect("it was started").exists());
    assert!(
        seen.text().ends_with("demo: stopped; nothing of it is left\n"),
        "{}",
        seen.text()
    );
}

#[tokio::test]
async fn a_demo_needs_deals() {
    let none = DemoOptions {
        deals: 0,
        ..options(true)
    };
    let refused = run_with(none, CancellationToken::new(), &mut Vec::new(), async |_, _| {
        panic!("nothing is started")
    })
    .await;
    assert!(matches!(refused, Err(DemoError::NoDeals)), "{refused:?}");
}
