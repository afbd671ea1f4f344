//! `pgladder cleanup`: drops the publications that a killed proxy left, in every database of the primary.
//!
//! What a proxy that runs uses is locked, and stays. Slots need no cleaning: they are temporary and go with their connection. It
//! changes nothing else, and fails, with exit status 1, when a database cannot be looked at.

use std::io::Write;

use anyhow::{Context as _, anyhow};
use clap::Args;
use tokio::task::JoinSet;
use tokio_postgres::Client;

use super::Failure;
use super::control::{self, Login};
use super::options::ConfigOptions;
use crate::config::{Config, Endpoint};
use crate::stream::publication::{self, Swept};

/// Arguments of `cleanup`.
#[derive(Args, Debug)]
pub(super) struct CleanupOptions {
    #[command(flatten)]
    config: ConfigOptions,
}

pub(super) fn run(options: &CleanupOptions, out: &mut dyn Write) -> Result<(), Failure> {
    let config = options.config.load()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(clean(&config, out))?;
    Ok(())
}

async fn clean(config: &Config, out: &mut dyn Write) -> anyhow::Result<()> {
    const DATABASES: &str = "SELECT datname::text FROM pg_catalog.pg_database \
        WHERE datallowconn AND pg_catalog.has_database_privilege(oid, 'CONNECT') ORDER BY 1";
    let mut drivers = JoinSet::new();
    let (node, client) = primary(config, &mut drivers).await?;
    let rows = client.query(DATABASES, &[]).await;
    let rows = rows.map_err(|error| control::in_words(&error))?;
    let (mut dropped, mut failed) = (0, 0);
    for row in rows {
        let database: String = row.try_get(0)?;
        match sweep(config, node, &database, &mut drivers).await {
            Ok(swept) => {
                for name in swept.dropped {
                    writeln!(out, "{database}: dropped publication {name}")?;
                    dropped += 1;
                }
            }
            Err(error) => {
                writeln!(out, "{database}: {error:#}")?;
                failed += 1;
            }
        }
    }
    writeln!(out, "publications dropped: {dropped}")?;
    if failed > 0 {
        return Err(anyhow!("{failed} databases could not be looked at"));
    }
    Ok(())
}

async fn sweep(
    config: &Config,
    node: &Endpoint,
    database: &str,
    drivers: &mut JoinSet<()>,
) -> anyhow::Result<Swept> {
    let client = open(config, node, database, drivers).await?;
    // Commands only read, unless they say otherwise.
    let swept = async {
        client
            .batch_execute("SET default_transaction_read_only = off; SET lock_timeout = '5s'")
            .await?;
        publication::sweep(&client, "").await
    };
    swept.await.map_err(|error| control::in_words(&error))
}

/// The first node that takes writes.
async fn primary<'c>(
    config: &'c Config,
    drivers: &mut JoinSet<()>,
) -> anyhow::Result<(&'c Endpoint, Client)> {
    const RECOVERING: &str = "SELECT pg_catalog.pg_is_in_recovery()";
    let mut last = anyhow!("there is no node");
    for node in &config.nodes {
        let asked = async {
            let client = open(config, &node.address, &config.cluster.control_database, drivers).await?;
            let row = client.query_one(RECOVERING, &[]).await;
            let row = row.map_err(|error| control::in_words(&error))?;
            anyhow::Ok((client, row.try_get::<_, bool>(0)?))
        };
        match asked.await {
            Ok((client, false)) => return Ok((&node.address, client)),
            Ok((_, true)) => {}
            Err(error) => last = error,
        }
    }
    Err(last).context("no node takes writes")
}

async fn open(
    config: &Config,
    node: &Endpoint,
    database: &str,
    drivers: &mut JoinSet<()>,
) -> anyhow::Result<Client> {
    let user = &config.cluster.control_user;
    control::open(config, Login { node, database, user }, drivers).await
}
