//! How commands reach the nodes: as the control plane does, with the same user, secrets and limits.
//!
//! Called by `check` and `explain`. Invariant: what a command finds out here is what `serve` would find with the same
//! configuration. Connections are driven on the caller's `JoinSet` and end with it. `open` may be dropped at any point.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_postgres::{Client, NoTls};

use crate::cluster::{ClusterSettings, LagLimit, PasswordLookup};
use crate::config::{Config, Endpoint, UserSecret};
use crate::pool::credentials::{Credentials, Secret};
use crate::pool::pgpass::PgPass;

/// The cluster's settings of a configuration.
pub(super) fn cluster_settings(config: &Config) -> ClusterSettings {
    let cluster = &config.cluster;
    let nodes = config.nodes.iter().map(|node| {
        let (host, port) = host_and_port(&node.address);
        (host, port, node.weight)
    });
    ClusterSettings {
        poll_interval: cluster.poll_interval,
        connect_timeout: config.pool.connect_timeout,
        poll_timeout: cluster.poll_timeout,
        backoff_max: cluster.reconnect_wait_max,
        database: cluster.control_database.clone(),
        password: passwords(config),
        lag: LagLimit {
            lag_max: cluster.lag_max,
            lag_bytes_max: cluster.lag_bytes_max,
            return_percent: cluster.return_percent,
            return_samples: cluster.return_samples,
        },
        ..ClusterSettings::new(nodes, cluster.control_user.clone())
    }
}

/// As libpq has it, the directory of a Unix socket stands for the host.
fn host_and_port(address: &Endpoint) -> (String, u16) {
    match address {
        Endpoint::Tcp { host, port } => (host.clone(), *port),
        Endpoint::Unix { directory, port } => (directory.display().to_string(), *port),
    }
}

/// Passwords of the configuration's users, then of libpq's password file.
fn passwords(config: &Config) -> PasswordLookup {
    let users = config.auth.users.clone();
    let file = PgPass::from_environment();
    Arc::new(move |host, port, database, user| {
        let configured = users.iter().find(|known| known.name == user);
        if let Some(UserSecret::Password(password)) = configured.map(|user| &user.secret) {
            return Some(password.0.to_string());
        }
        match file.as_ref()?.secret(user, database, host, port)? {
            Secret::Password(password) => Some(password.to_string()),
            Secret::Md5Hash(_) | Secret::ScramKeys { .. } => None,
        }
    })
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
    let (host, port) = host_and_port(login.node);
    let mut postgres = tokio_postgres::Config::new();
    postgres
        .host(&host)
        .port(port)
        .user(login.user)
        .dbname(login.database)
        .application_name("pgladder")
        .options("-c default_transaction_read_only=on")
        .connect_timeout(limit);
    if let Some(password) = passwords(config)(&host, port, login.database, login.user) {
        postgres.password(password);
    }
    let (client, connection) = timeout(limit, postgres.connect(NoTls))
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
