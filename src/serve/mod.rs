//! The composition root: from a configuration to a running proxy, and back to nothing.
//!
//! Called by the command line and by the demo. Everything that runs is started here, on one tracker and under one token, in the
//! order of the layers; it ends when the token is cancelled and the last client is gone. Invariant: nothing is served before all
//! addresses are bound. It decides nothing: it only hands each part what it needs.

mod settings;

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::auth::{Auth, PrimaryVerifiers, UserSecretError};
use crate::cache::doorkeeper::Doorkeeper;
use crate::cache::store::Store;
use crate::cluster::{Cluster, NodeId, Ticks};
use crate::config::Config;
use crate::freshness::databases::{DatabaseSettings, Databases};
use crate::freshness::guards::Guards;
use crate::listener::{Bound, ClientTls, ClientTlsError, ListenError, Listener, Sessions};
use crate::pool::tls::TlsError;
use crate::pool::{Pools, SampleNumbers};
use crate::session::{self, Client, Parts, Proxy};

use settings::Secrets;
pub use settings::{cluster_settings, host_and_port, server_tls};

/// Why the proxy cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// An address cannot be bound, or must not be.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// TLS for clients cannot be offered.
    #[error(transparent)]
    ClientTls(#[from] ClientTlsError),
    /// TLS to servers cannot be used.
    #[error(transparent)]
    ServerTls(#[from] TlsError),
    /// A user's secret cannot be used.
    #[error("the secret of user \"{user}\": {error}")]
    User {
        /// The user.
        user: String,
        /// What is wrong.
        error: UserSecretError,
    },
}

/// Where a proxy that runs can be reached.
#[derive(Debug, Clone)]
pub struct Served {
    /// For clients.
    pub clients: Vec<Bound>,
}

/// Serves until `stop` is cancelled and the clients are gone.
pub async fn serve(config: Config, stop: CancellationToken) -> Result<(), ServeError> {
    let (bound, _) = oneshot::channel();
    serve_and_tell(config, stop, bound).await
}

/// As `serve`; tells, once it accepts clients, where.
pub async fn serve_and_tell(
    config: Config,
    stop: CancellationToken,
    bound: oneshot::Sender<Served>,
) -> Result<(), ServeError> {
    serve_with_guards(config, stop, bound, Guards::default()).await
}

/// As `serve_and_tell`, with guards of freshness switched off: for tests that show that the checker misses none of them.
#[doc(hidden)]
pub async fn serve_with_guards(
    config: Config,
    stop: CancellationToken,
    bound: oneshot::Sender<Served>,
    guards: Guards,
) -> Result<(), ServeError> {
    let tasks = TaskTracker::new();
    // Background work ends after the clients, which need it to the last.
    let background = CancellationToken::new();
    let secrets = Secrets::new(&config);
    let tls = settings::server_tls(&config)?;
    let ticks: Arc<Ticks> = Arc::default();
    let cluster = Cluster::start(
        cluster_settings(&config, &tls),
        Arc::clone(&ticks),
        &tasks,
        &background,
    );
    let pools = Pools::new(
        settings::pool(&config),
        settings::addresses(&config),
        tls.clone(),
        secrets.credentials(),
        Arc::new(Samples(cluster.clone())),
    );
    let databases = Databases::start(
        DatabaseSettings {
            guards,
            ..settings::databases(&config, &tls)
        },
        cluster.clone(),
        ticks,
        &tasks,
        &background,
    );
    let proxy = Proxy::start(
        Parts {
            cluster: cluster.clone(),
            pools,
            databases,
            store: Store::new(settings::store(&config)),
            doorkeeper: settings::doorkeeper(&config).map(Doorkeeper::new),
            settings: settings::session(&config),
            tasks: tasks.clone(),
        },
        &background,
    );
    let mut auth = settings::auth(&config)?;
    auth.query = settings::auth_query(&config, &cluster, secrets.credentials(), tls, &tasks)
        .map(|query| Arc::new(PrimaryVerifiers::new(query)) as Arc<_>);
    let client_tls = settings::client_tls(&config).map(ClientTls::new).transpose()?;
    let listener = Listener::bind(
        settings::listener(&config, client_tls.map(Arc::new)),
        Arc::new(Auth::new(auth)),
    )
    .await?;
    let clients = listener.bound();
    tracing::info!(addresses = ?clients, "accepting clients");
    // Nobody may be there to be told.
    drop(bound.send(Served { clients }));
    listener.run(Arc::new(Entered { proxy, secrets }), stop).await;
    background.cancel();
    tasks.close();
    tasks.wait().await;
    Ok(())
}

/// Where clients go once they are in.
struct Entered {
    proxy: Arc<Proxy>,
    secrets: Secrets,
}

impl Sessions for Entered {
    async fn run(&self, client: Client, stop: CancellationToken) {
        if let Some(keys) = &client.identity.keys {
            self.secrets.learn(&client.user, keys.clone());
        }
        session::run(client, Arc::clone(&self.proxy), stop).await;
    }

    async fn cancel(&self, process: i32, secret: Bytes) {
        self.proxy.cancel(process, &secret).await;
    }
}

/// The cluster's sample numbers, as the pools ask for them.
struct Samples(Cluster);

impl SampleNumbers for Samples {
    fn next_sample_number(&self, node: NodeId) -> u64 {
        self.0.next_sample_number(node)
    }
}
