//! Asks the primary for roles' verifiers (`auth_query`), over one control connection that all look-ups share.
//!
//! Called by `cached`, which bounds how often. The connection is opened when it is first needed, to whichever node is the primary
//! then, with the TLS and the secrets that server connections have; look-ups are pipelined on it. Invariant: it is left as soon as
//! another node is the primary, or an answer failed or was late. Cancel safe: a dropped look-up's answer is thrown away.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::timeout;
use tokio_postgres::{Client, NoTls, Statement};
use tokio_util::task::TaskTracker;
use zeroize::Zeroizing;

use crate::auth::cached::{Answer, Unavailable, Verifiers};
use crate::pool::{Address, ConnectError, Credentials, Secret, ServerTls, connect};

/// Reads pg_authid, which takes a superuser, or a role that was granted SELECT on it.
pub const DEFAULT_QUERY: &str = "SELECT rolpassword FROM pg_catalog.pg_authid WHERE rolname = $1 AND rolcanlogin \
     AND (rolvaliduntil IS NULL OR rolvaliduntil > pg_catalog.now())";

/// Names the primary, if there is one now.
pub type Primary = Arc<dyn Fn() -> Option<Address> + Send + Sync>;

/// What [`PrimaryVerifiers::new`] needs to be told.
pub struct QuerySettings {
    /// One parameter, the role's name; the verifier is the last column of its first row. A query in PgBouncer's form, which
    /// returns name and verifier, will do.
    pub query: String,
    /// The role that asks.
    pub user: String,
    /// The database that it asks in.
    pub database: String,
    /// Longest time for connecting, and for each answer.
    pub timeout: Duration,
    /// Whom to ask.
    pub primary: Primary,
    /// The asking role's secret.
    pub credentials: Arc<dyn Credentials>,
    /// TLS to the primary.
    pub tls: ServerTls,
    /// Where the connection's task is kept.
    pub tasks: TaskTracker,
}

/// The primary as a source of verifiers.
pub struct PrimaryVerifiers {
    settings: QuerySettings,
    /// Held while connecting, so that logins which come together connect once.
    open: Mutex<Option<Open>>,
}

#[derive(Clone)]
struct Open {
    address: Address,
    client: Arc<Client>,
    statement: Statement,
}

/// Why the primary gave no answer.
#[derive(Debug, thiserror::Error)]
enum QueryError {
    #[error("no primary is known")]
    NoPrimary,
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("{}", .0.as_db_error().map_or_else(|| .0.to_string(), ToString::to_string))]
    Postgres(#[from] tokio_postgres::Error),
}

impl PrimaryVerifiers {
    /// Connects when it is first asked.
    pub fn new(settings: QuerySettings) -> Self {
        Self {
            settings,
            open: Mutex::new(None),
        }
    }

    async fn ask(&self, user: &str) -> Result<Option<Zeroizing<String>>, QueryError> {
        let open = self.connection().await?;
        let answer = self.within(async { Ok(open.client.query(&open.statement, &[&user]).await?) });
        let rows = match answer.await {
            Ok(rows) => rows,
            Err(error) => {
                self.leave(&open).await;
                return Err(error);
            }
        };
        let Some(row) = rows.first() else {
            return Ok(None);
        };
        let verifier: Option<String> = row.try_get(row.len() - 1)?;
        Ok(Some(Zeroizing::new(verifier.unwrap_or_default())))
    }

    /// The open connection, or a new one.
    async fn connection(&self) -> Result<Open, QueryError> {
        let address = (self.settings.primary)().ok_or(QueryError::NoPrimary)?;
        let mut open = self.open.lock().await;
        if let Some(usable) = open.as_ref()
            && usable.address == address
            && !usable.client.is_closed()
        {
            return Ok(usable.clone());
        }
        *open = None;
        let connected = self.within(self.connect(address)).await?;
        Ok(open.insert(connected).clone())
    }

    async fn connect(&self, address: Address) -> Result<Open, QueryError> {
        let settings = &self.settings;
        let stream = connect::open(&address, &settings.tls).await?;
        let mut config = tokio_postgres::Config::new();
        config
            .user(&settings.user)
            .dbname(&settings.database)
            .application_name("pgladder auth_query")
            .options("-c default_transaction_read_only=on");
        let secret =
            settings
                .credentials
                .secret(&settings.user, &settings.database, address.host(), address.port());
        if let Some(Secret::Password(password)) = secret {
            config.password(password.as_bytes());
        }
        let (client, connection) = config.connect_raw(stream, NoTls).await?;
        settings.tasks.spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "the connection for auth_query ended");
            }
        });
        let statement = client.prepare(&settings.query).await?;
        Ok(Open {
            address,
            client: Arc::new(client),
            statement,
        })
    }

    /// Closes a connection that failed, unless another has taken its place.
    async fn leave(&self, failed: &Open) {
        let mut open = self.open.lock().await;
        if open
            .as_ref()
            .is_some_and(|open| Arc::ptr_eq(&open.client, &failed.client))
        {
            *open = None;
        }
    }

    async fn within<T>(&self, work: impl Future<Output = Result<T, QueryError>>) -> Result<T, QueryError> {
        let limit = self.settings.timeout;
        timeout(limit, work)
            .await
            .map_err(|_| QueryError::TimedOut(limit))?
    }
}

impl Verifiers for PrimaryVerifiers {
    fn verifier<'a>(&'a self, user: &'a str) -> Answer<'a> {
        Box::pin(async move {
            let answer = self.ask(user).await;
            answer.map_err(|error| Unavailable(Box::new(error)))
        })
    }
}

impl fmt::Debug for PrimaryVerifiers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrimaryVerifiers")
            .field("query", &self.settings.query)
            .field("user", &self.settings.user)
            .field("database", &self.settings.database)
            .finish_non_exhaustive()
    }
}
