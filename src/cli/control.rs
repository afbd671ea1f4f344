//! How commands reach the nodes: as the control plane does, with the same user, secrets and limits.
//!
//! Called by `check` and `explain`. Invariant: what a command finds out here is what `serve` would find with the same
//! configuration. Connections are driven on the caller's `JoinSet` and end with it. `open` may be dropped at any point.

use std::time::Duration;

use anyhow::{Context as _, anyhow};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_postgres::Client;

use crate::cluster::ClusterSettings;
use crate::config::{Config, Endpoint};
use crate::serve;

/// The cluster's settings of a configuration. Blocks on certificate files.
pub(super) fn cluster_settings(config: &Config) -> anyhow::Result<ClusterSettings> {
    Ok(serve::cluster_settings(config, &serve::server_tls(config)?))
}

/// Who logs in where.
#[derive(Clone, Copy, Debug)]
pub(super) struct Login<'a> {
    pub node: &'a Endpoint,
    pub database: &'a str,
    pub user: &'a str,
}

/// A connection to a node that can only read.
pub(super) async fn open(
    config: &Config,
    login: Login<'_>,
    drivers: &mut JoinSet<()>,
) -> anyhow::Result<Client> {
    let limit: Duration = config.pool.connect_timeout;
    let settings = cluster_settings(config)?;
    let (host, port) = serve::host_and_port(login.node);
    let mut postgres = tokio_postgres::Config::new();
    postgres
        .host(&host)
        .port(port)
        .user(login.user)
        .dbname(login.database)
        .application_name("pgladder")
        .options("-c default_transaction_read_only=on")
        .ssl_mode(settings.tls.mode(&host))
        .connect_timeout(limit);
    if let Some(password) = (settings.password)(&host, port, login.database, login.user) {
        postgres.password(password);
    }
    let (client, connection) = timeout(limit, postgres.connect(settings.tls))
        .await
        .map_err(|_| anyhow!("no answer within {limit:?}"))
        .and_then(|connected| connected.map_err(|error| in_words(&error)))
        .with_context(|| format!("{} as {} to {}", login.node, login.user, login.database))?;
    // The driver's error also reaches every call on its client.
    drivers.spawn(async move { drop(connection.await) });
    Ok(client)
}

/// The server's own words, or the cause, instead of "db error".
pub(super) fn in_words(error: &tokio_postgres::Error) -> anyhow::Error {
    use std::error::Error as _;

    match (error.as_db_error(), error.source()) {
        (Some(db), _) => anyhow!("{} ({})", db.message(), db.code().code()),
        (None, Some(cause)) => anyhow!("{error}: {cause}"),
        (None, None) => anyhow!("{error}"),
    }
}
