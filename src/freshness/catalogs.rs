//! The loop that keeps one database's catalog: loads it, and compares fingerprints for changes made past the proxy.
//!
//! `databases` starts one per database. Invariant: a catalog is installed under the generation that was current before its
//! load began, and a doubt is settled only by a fingerprint asked for after it was raised. While the primary cannot be asked,
//! the catalog that was known stays, except where a doubt or a change of generation has made it void. The loop stops at the token.

use std::sync::Arc;
use std::time::Duration;

use bb8::Pool;
use bb8_postgres::PostgresConnectionManager;
use tokio::time::{sleep, timeout};
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

use super::database::Database;
use crate::catalog::{Catalog, LoadError, fingerprint};
use crate::cluster::{Cluster, ControlTls, NodeConfig, NodeId, PasswordLookup};

/// Pause after a failure, doubled up to the poll interval's size in `CatalogSource`.
const RETRY_PAUSE: Duration = Duration::from_millis(100);
/// How long one load may take; a catalog of a hundred thousand relations takes a few seconds.
const LOAD_LIMIT: Duration = Duration::from_secs(60);

/// How catalogs are read.
#[derive(Clone)]
pub struct CatalogSource {
    /// The nodes; the primary among them is asked.
    pub nodes: Arc<[NodeConfig]>,
    /// The control user.
    pub user: Arc<str>,
    /// Its passwords.
    pub password: PasswordLookup,
    /// TLS, as for the other control connections.
    pub tls: ControlTls,
    /// Connecting and login.
    pub connect_timeout: Duration,
    /// From one comparison of fingerprints to the next.
    pub interval: Duration,
}

impl std::fmt::Debug for CatalogSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CatalogSource")
            .field("user", &self.user)
            .field("interval", &self.interval)
            .finish_non_exhaustive()
    }
}

impl CatalogSource {
    /// A connection of the control user to a database on a node; `options` as in a connection string.
    pub async fn connect(
        &self,
        node: NodeId,
        database: &str,
        application_name: &str,
        options: Option<&str>,
    ) -> Result<Client, CatalogError> {
        let node = self.nodes.iter().find(|known| known.id == node);
        let node = node.ok_or(CatalogError::NoPrimary)?;
        let mut config = tokio_postgres::Config::new();
        config
            .host(&node.host)
            .port(node.port)
            .user(&*self.user)
            .dbname(database)
            .application_name(application_name)
            .ssl_mode(self.tls.mode(&node.host))
            .connect_timeout(self.connect_timeout);
        if let Some(options) = options {
            config.options(options);
        }
        if let Some(password) = (self.password)(&node.host, node.port, database, &self.user) {
            config.password(password);
        }
        let manager = PostgresConnectionManager::new(config, self.tls.clone());
        let pool = Pool::builder().max_size(1).build_unchecked(manager);
        timeout(self.connect_timeout, pool.dedicated_connection())
            .await
            .map_err(|_| CatalogError::TimedOut(self.connect_timeout))?
            .map_err(CatalogError::Connect)
    }
}

/// Why the catalog could not be read.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// Nobody can be asked.
    #[error("there is no primary to read the catalog from")]
    NoPrimary,
    /// The login failed.
    #[error("{}", crate::cluster::in_words(.0))]
    Connect(tokio_postgres::Error),
    /// The catalog itself could not be read.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// It took too long.
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
}

pub(super) async fn follow(
    database: Arc<Database>,
    source: CatalogSource,
    cluster: Cluster,
    stop: CancellationToken,
) {
    let mut open = None;
    let mut pause = RETRY_PAUSE;
    loop {
        let round = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            round = round(&database, &source, &cluster, &mut open) => round,
        };
        let rest = match round {
            Ok(()) => {
                pause = RETRY_PAUSE;
                source.interval
            }
            Err(error) => {
                open = None;
                let problem = error.to_string();
                if database.problem().as_ref() != Some(&problem) {
                    tracing::warn!(database = %database.name, problem, "no catalog: nothing is cached or sent to replicas");
                }
                database.complain(problem);
                pause = (pause * 2).min(source.interval.max(RETRY_PAUSE));
                pause
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = database.reload.notified() => {}
            () = sleep(rest) => {}
        }
    }
}

/// Compares fingerprints, or loads, until the catalog is of the current generation.
async fn round(
    database: &Database,
    source: &CatalogSource,
    cluster: &Cluster,
    open: &mut Option<(NodeId, Client)>,
) -> Result<(), CatalogError> {
    let client = connection(database, source, cluster, open).await?;
    let doubts = database.doubts();
    if let Some(catalog) = database.latest_catalog()
        && catalog.generation == database.generation()
    {
        if limited(fingerprint(client)).await? == catalog.fingerprint() {
            database.verify(doubts);
            return Ok(());
        }
        tracing::info!(database = %database.name, "the catalog was changed past the proxy");
        database.change_catalog();
    }
    // The generation may move while a load runs; then the load is void, and the next one begins at once.
    loop {
        let (generation, doubts) = (database.generation(), database.doubts());
        let mut catalog = limited(Catalog::load(client, generation)).await?;
        if database.doubts() != doubts {
            // Code that ran meanwhile may have changed what was loaded: what was parsed or told before it is of another catalog.
            database.change_catalog();
            catalog.generation += 1;
        }
        if database.generation() == catalog.generation {
            database.install(catalog);
            database.verify(doubts);
            tracing::debug!(database = %database.name, generation = database.generation(), "the catalog was loaded");
            return Ok(());
        }
    }
}

async fn connection<'a>(
    database: &Database,
    source: &CatalogSource,
    cluster: &Cluster,
    open: &'a mut Option<(NodeId, Client)>,
) -> Result<&'a mut Client, CatalogError> {
    let primary = cluster.view().primary.ok_or(CatalogError::NoPrimary)?;
    if open
        .as_ref()
        .is_none_or(|(node, client)| *node != primary || client.is_closed())
    {
        let client = source
            .connect(primary, &database.name, "pgladder catalog", None)
            .await?;
        *open = Some((primary, client));
    }
    let (_, client) = open.as_mut().expect("opened just above");
    Ok(client)
}

async fn limited<T>(work: impl Future<Output = Result<T, LoadError>>) -> Result<T, CatalogError> {
    let done = timeout(LOAD_LIMIT, work)
        .await
        .map_err(|_| CatalogError::TimedOut(LOAD_LIMIT))?;
    Ok(done?)
}
