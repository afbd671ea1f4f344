//! `pgladder demo`: a cluster, its data, the proxy in front, the walk, and nothing left behind.
//!
//! Called by the command line, with a token that its signals cancel. Whatever happens, an error, a signal, a panic, the
//! proxy is stopped and the cluster removed before this returns or unwinds. It judges nothing itself: see `demo::walk`.
//! A dropped run ends everything too, but blocks the thread for as long as the servers take.

use std::io::{self, Write};
use std::time::Instant;

use indicatif::{ProgressBar, ProgressStyle};
use tokio_util::sync::CancellationToken;

use super::cluster::{ClusterError, Options, SUPERUSER, ThrowAwayCluster};
use super::data;
use super::proxy::{Proxy, ProxyAddress, ProxyError};
use super::walk::{self, DATABASE, Failure, PATIENCE, Paper, Step, Walk, WalkError};

const REPLICAS: usize = 2;

/// What the command line asks for.
#[derive(Copy, Clone, Debug)]
pub struct DemoOptions {
    /// How many deals are loaded.
    pub deals: u64,
    /// End after the walk instead of staying up.
    pub check: bool,
    /// The proxy's port; `None` takes the usual one, or a free one when that is taken.
    pub port: Option<u16>,
    /// Whether a person reads the output on a terminal, and colour helps.
    pub is_terminal: bool,
}

/// How a demo ended that could be carried out.
#[derive(Debug)]
pub enum Outcome {
    /// Every step showed what it claims.
    Passed,
    /// A step did not; the output ends with its sentence, and why is for the caller to say.
    Failed(Failure),
    /// Stopped before the walk was over.
    Stopped,
}

/// Why a demo could not be carried out.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// A walk needs rows to read.
    #[error("a demo needs at least one deal")]
    NoDeals,
    /// The cluster could not be started, or not be removed.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// The nodes cannot count statements, so that nothing could be proved.
    #[error(
        "the extension pg_stat_statements, by which the demo counts, cannot be created; \
         it is part of PostgreSQL's contrib package (postgresql-contrib)"
    )]
    NoStatistics(#[source] tokio_postgres::Error),
    /// The demo's tables could not be filled.
    #[error("the demo's data could not be loaded")]
    Load(#[source] tokio_postgres::Error),
    /// The proxy did not start, or ended.
    #[error(transparent)]
    Proxy(#[from] ProxyError),
    /// The output is gone.
    #[error("the output cannot be written")]
    Output(#[from] io::Error),
}

/// Runs the demo: pgladder itself, in this process, in front of the cluster.
pub async fn run(
    options: DemoOptions,
    stop: CancellationToken,
    out: &mut (dyn Write + Send),
) -> Result<Outcome, DemoError> {
    Box::pin(run_with(options, stop, out, Proxy::start)).await
}

/// Runs the demo with `start`'s proxy in front of its cluster.
///
/// `start` gets the cluster and the wanted port. Tests give something that is no proxy, to see that the walk notices.
pub async fn run_with(
    options: DemoOptions,
    stop: CancellationToken,
    out: &mut (dyn Write + Send),
    start: impl AsyncFnOnce(&ThrowAwayCluster, Option<u16>) -> Result<Proxy, ProxyError>,
) -> Result<Outcome, DemoError> {
    if options.deals == 0 {
        return Err(DemoError::NoDeals);
    }
    let mut paper = Paper::new(out, options.is_terminal);
    paper.line(format_args!("Starting a primary and {REPLICAS} replicas ..."))?;
    let cluster = tokio::select! {
        biased;
        () = stop.cancelled() => return Ok(Outcome::Stopped),
        cluster = start_cluster() => cluster?,
    };
    let outcome = Box::pin(on_cluster(&cluster, options, &stop, &mut paper, start)).await;
    cluster.shut_down().await?;
    if stop.is_cancelled() {
        paper.line("demo: stopped; nothing of it is left")?;
    }
    outcome
}

async fn start_cluster() -> Result<ThrowAwayCluster, ClusterError> {
    let options = Options {
        replicas: REPLICAS,
        ..Options::default()
    };
    ThrowAwayCluster::start(options).await
}

async fn on_cluster(
    cluster: &ThrowAwayCluster,
    options: DemoOptions,
    stop: &CancellationToken,
    paper: &mut Paper<'_>,
    start: impl AsyncFnOnce(&ThrowAwayCluster, Option<u16>) -> Result<Proxy, ProxyError>,
) -> Result<Outcome, DemoError> {
    let mut proxy = tokio::select! {
        biased;
        () = stop.cancelled() => return Ok(Outcome::Stopped),
        proxy = async {
            fill(cluster, options.deals, paper).await?;
            Ok::<_, DemoError>(start(cluster, options.port).await?)
        } => proxy?,
    };
    let address = proxy.address().clone();
    let walked = tokio::select! {
        biased;
        () = stop.cancelled() => Ok(Outcome::Stopped),
        error = proxy.ended() => Err(error.into()),
        walked = Box::pin(take_walk(cluster, &address, options.deals, paper)) => walked,
    };
    let stayed = match walked {
        Ok(Outcome::Passed) if !options.check => {
            invite(cluster, &address, paper)?;
            tokio::select! {
                () = stop.cancelled() => Ok(Outcome::Passed),
                error = proxy.ended() => Err(error.into()),
            }
        }
        walked => walked,
    };
    let shut_down = proxy.shut_down().await;
    let outcome = stayed?;
    shut_down?;
    Ok(outcome)
}

/// Makes the demo's database with the extension by which the nodes count, and its tables; all nodes have them at the end.
pub async fn fill(cluster: &ThrowAwayCluster, deals: u64, paper: &mut Paper<'_>) -> Result<(), DemoError> {
    let maintenance = cluster.connect(cluster.primary(), "postgres").await?;
    let create = format!("CREATE DATABASE {DATABASE}");
    maintenance
        .batch_execute(&create)
        .await
        .map_err(DemoError::Load)?;
    let mut client = cluster.connect(cluster.primary(), DATABASE).await?;
    client
        .batch_execute("CREATE EXTENSION pg_stat_statements")
        .await
        .map_err(DemoError::NoStatistics)?;
    let row = client.query_one("SHOW server_version", &[]).await;
    let version: String = row.map_err(DemoError::Load)?.get(0);

    let began = Instant::now();
    // On standard error, and not drawn at all where that is no terminal.
    let bar = ProgressBar::new(deals).with_style(style()).with_message("deals");
    let loaded = data::load(&mut client, deals, |sent| bar.set_position(sent)).await;
    bar.finish_and_clear();
    loaded.map_err(DemoError::Load)?;
    cluster.wait_caught_up().await?;
    paper.line(format_args!(
        "PostgreSQL {version}: {} hotels and {} deals on {} nodes in {:.1} s",
        walk::grouped(u64::from(data::HOTELS)),
        walk::grouped(deals),
        cluster.node_count(),
        began.elapsed().as_secs_f64(),
    ))?;
    Ok(())
}

fn style() -> ProgressStyle {
    ProgressStyle::with_template("{bar:40} {human_pos}/{human_len} {msg}, {eta} left")
        .expect("a valid template")
}

async fn take_walk(
    cluster: &ThrowAwayCluster,
    proxy: &ProxyAddress,
    deals: u64,
    paper: &mut Paper<'_>,
) -> Result<Outcome, DemoError> {
    let walk = Walk {
        cluster,
        proxy,
        deals,
        patience: PATIENCE,
    };
    match walk.take(paper).await {
        Ok(()) => {
            paper.success(&format!("demo: {} steps passed", Step::ALL.len()))?;
            Ok(Outcome::Passed)
        }
        Err(WalkError::Failed(failure)) => Ok(Outcome::Failed(failure)),
        Err(WalkError::Output(error)) => Err(error.into()),
    }
}

/// How to reach everything, for as long as the demo stays up.
fn invite(cluster: &ThrowAwayCluster, proxy: &ProxyAddress, paper: &mut Paper<'_>) -> io::Result<()> {
    let url = |host: &str, port: u16| format!("postgresql://{SUPERUSER}@{host}:{port}/{DATABASE}");
    paper.line("\nIt stays up until Ctrl-C; then everything of it is removed.")?;
    paper.line(format_args!(
        "   {:<9}  psql {}",
        "proxy",
        url(&proxy.host, proxy.port)
    ))?;
    for node in 0..cluster.node_count() {
        let name = walk::node_name(cluster, node);
        paper.line(format_args!(
            "   {name:<9}  psql {}",
            url("127.0.0.1", cluster.port(node))
        ))?;
    }
    if let Some(http) = proxy.http {
        paper.line(format_args!("   {:<9}  curl http://{http}/metrics", "HTTP"))?;
    }
    Ok(())
}
