//! `pgladder check`: is the configuration good, can its nodes be used, and what would a missing right cost?
//!
//! It runs the cluster of `serve` for as long as it takes every node to answer or fail, so that both judge alike, then asks
//! the primary for the control user's rights, and whether a stream is possible. It changes nothing on any node. It fails, with exit
//! status 1, when a node cannot be used; a missing right costs something, which it says, and is no failure.

mod rights;

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use clap::Args;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Failure;
use super::control::{self, Login};
use super::options::ConfigOptions;
use crate::cluster::{Cluster, ClusterView, NodeView, NotUsable, Role, Ticks};
use crate::config::{Config, Endpoint, StreamUse, show_duration};
use crate::stream::permit::permit;

/// So many samples of each node show its lag: the first may come before the primary is known.
const SAMPLES: u64 = 3;

/// Arguments of `check`.
#[derive(Args, Debug)]
pub(super) struct CheckOptions {
    #[command(flatten)]
    config: ConfigOptions,
}

pub(super) fn run(options: &CheckOptions, out: &mut dyn Write) -> Result<(), Failure> {
    let config = options.config.load()?;
    writeln!(out, "configuration: good")?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(try_nodes(&config, out))?;
    Ok(())
}

async fn try_nodes(config: &Config, out: &mut dyn Write) -> anyhow::Result<()> {
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    let settings = control::cluster_settings(config)?;
    let cluster = Cluster::start(settings, Arc::new(Ticks::default()), &tasks, &stop);
    let patience =
        config.pool.connect_timeout + config.cluster.poll_timeout + config.cluster.poll_interval * 10;
    let view = settled(&cluster, patience).await;
    stop.cancel();
    tasks.close();
    tasks.wait().await;

    let mut drivers = JoinSet::new();
    for node in &view.nodes {
        let version = version(config, node, &mut drivers).await;
        writeln!(out, "{}", line(node, &version))?;
    }
    if let Some(conflict) = &view.conflict {
        writeln!(out, "conflict: {conflict}; writes are refused until one yields")?;
    }
    let Some(primary) = view.primary else {
        return Err(anyhow!(
            "there is no primary: nothing can be written, and no replica is used"
        ));
    };
    let address = &config.nodes[primary.index()].address;
    let missing = rights::missing(config, address, &mut drivers).await?;
    writeln!(
        out,
        "control user {}: {} missing",
        config.cluster.control_user,
        rights::count(missing.len())
    )?;
    for right in missing {
        writeln!(out, "  {right}")?;
    }
    let stream = stream(config, address, &mut drivers).await;
    writeln!(out, "stream: {stream}")?;
    let unusable = view.nodes.iter().filter(|node| !node.usable).count();
    if unusable > 0 {
        return Err(anyhow!("{unusable} of {} nodes cannot be used", view.nodes.len()));
    }
    Ok(())
}

/// Whether writes made past the proxy would be heard of, in the control database.
async fn stream(config: &Config, primary: &Endpoint, drivers: &mut JoinSet<()>) -> String {
    if config.stream.enabled == StreamUse::Off {
        return "off".to_owned();
    }
    let login = Login {
        node: primary,
        database: &config.cluster.control_database,
        user: &config.cluster.control_user,
    };
    let client = match control::open(config, login, drivers).await {
        Ok(client) => client,
        Err(error) => return format!("{error:#}"),
    };
    let replicas = i64::try_from(config.nodes.len() - 1).unwrap_or(i64::MAX);
    match permit(&client, config.stream.publication.is_none(), replicas).await {
        Ok(_) => "the server and the rights allow it".to_owned(),
        Err(why) => format!("none, and a write past the proxy is not heard of: {why}"),
    }
}

/// The view once every node has failed, or has answered often enough to tell its lag; or what there is at the end of patience.
async fn settled(cluster: &Cluster, patience: Duration) -> Arc<ClusterView> {
    let mut versions = cluster.watch();
    let is_settled = |node: &NodeView| match node.why_not {
        Some(NotUsable::NotAsked) => false,
        Some(NotUsable::Unreachable(_)) => true,
        _ => node.sample.number >= SAMPLES,
    };
    let settling = async {
        loop {
            versions.borrow_and_update();
            if cluster.view().nodes.iter().all(is_settled) || versions.changed().await.is_err() {
                return;
            }
        }
    };
    // At the end of patience the view says "not asked yet" of those that are missing.
    drop(tokio::time::timeout(patience, settling).await);
    cluster.view()
}

/// What the server says of itself; nothing when the node did not answer.
async fn version(config: &Config, node: &NodeView, drivers: &mut JoinSet<()>) -> String {
    const VERSION: &str = "SELECT pg_catalog.current_setting('server_version')";
    if node.role == Role::Unknown {
        return String::new();
    }
    let login = Login {
        node: &config.nodes[node.id.index()].address,
        database: &config.cluster.control_database,
        user: &config.cluster.control_user,
    };
    let asked = async {
        let client = control::open(config, login, drivers).await?;
        let row = client
            .query_one(VERSION, &[])
            .await
            .map_err(|error| control::in_words(&error))?;
        row.try_get::<_, String>(0).context("the version")
    };
    match asked.await {
        Ok(version) => format!("PostgreSQL {version}"),
        Err(error) => format!("{error:#}"),
    }
}

fn line(node: &NodeView, version: &str) -> String {
    let mut parts = vec![node.address.to_string(), node.role.to_string()];
    if node.role != Role::Unknown {
        parts.push(version.to_owned());
        parts.push(format!("timeline {}", node.timeline));
    }
    if let (Some(bytes), Some(time)) = (node.lag_bytes, node.lag) {
        parts.push(format!("lag {bytes} bytes, {}", show_duration(time)));
    }
    parts.push(match &node.why_not {
        None => "usable".to_owned(),
        Some(why) => format!("NOT USABLE: {why}"),
    });
    parts.extend(node.missing_right.map(|missing| format!("but {missing}")));
    parts.join("  ")
}
