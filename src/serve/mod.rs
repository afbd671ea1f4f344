//! The composition root: from a configuration to a running proxy, and back to nothing.
//!
//! Called by the command line and by the demo. Everything that runs is started here, on one tracker and under one token, in the
//! order of the layers; it ends when the token is cancelled and the last client is gone. Invariant: nothing is served before all
//! addresses are bound. It decides nothing: it only hands each part what it needs.

mod reload;
mod settings;

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admin::http::{Http, Served as Watched};
use crate::admin::{Console, Reload};
use crate::auth::{Auth, PrimaryVerifiers, UserSecretError};
use crate::cache::doorkeeper::Doorkeeper;
use crate::cache::store::Store;
use crate::cluster::{Cluster, NodeId, Ticks};
use crate::config::Config;
use crate::freshness::databases::{DatabaseSettings, Databases};
use crate::freshness::guards::Guards;
use crate::listener::{Bound, Certificates, ClientTls, ClientTlsError, ListenError, Listener, Sessions};
use crate::pool::tls::TlsError;
use crate::pool::{Pools, SampleNumbers, ServerTls};
use crate::session::{self, Client, Parts, Proxy};
use crate::stream::Streams;

pub use reload::Origins;
use reload::Reloading;
use settings::Secrets;
pub use settings::{cluster_settings, host_and_port, rules, server_tls};

/// Why the proxy cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// An address cannot be bound, or must not be.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The address for metrics and health cannot be bound.
    #[error("http: {0}")]
    Http(#[source] ListenError),
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
    /// For metrics and health; `None` where there are none, or on a Unix socket.
    pub http: Option<SocketAddr>,
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
    run(config, None, Guards::default(), stop, bound).await
}

/// As `serve_and_tell`, with guards of freshness switched off: for tests that show that the checker misses none of them.
#[doc(hidden)]
pub async fn serve_with_guards(
    config: Config,
    stop: CancellationToken,
    bound: oneshot::Sender<Served>,
    guards: Guards,
) -> Result<(), ServeError> {
    run(config, None, guards, stop, bound).await
}

/// As `serve_and_tell`, with a configuration that can be loaded again.
pub async fn serve_reloadable(
    config: Config,
    origins: Origins,
    stop: CancellationToken,
    bound: oneshot::Sender<Served>,
) -> Result<(), ServeError> {
    run(config, Some(origins), Guards::default(), stop, bound).await
}

async fn run(
    config: Config,
    origins: Option<Origins>,
    guards: Guards,
    stop: CancellationToken,
    bound: oneshot::Sender<Served>,
) -> Result<(), ServeError> {
    let tasks = TaskTracker::new();
    // Background work ends after the clients, which need it to the last; and when nothing comes of serving.
    let background = CancellationToken::new();
    let ended = background.clone().drop_guard();
    let secrets = Secrets::new(&config);
    let server_tls = settings::server_tls(&config)?;
    let proxy = start_proxy(&config, &server_tls, &secrets, guards, (&tasks, &background));
    let mut auth = settings::auth(&config)?;
    auth.query = settings::auth_query(&config, &proxy.cluster, secrets.credentials(), server_tls, &tasks)
        .map(|query| Arc::new(PrimaryVerifiers::new(query)) as Arc<_>);
    let auth = Arc::new(Auth::new(auth));
    let certificates = settings::client_tls(&config).as_ref().map(Certificates::read);
    let tls = certificates
        .transpose()?
        .map(|read| Arc::new(ClientTls::new(read)));
    let listener = Listener::bind(settings::listener(&config, tls.clone()), Arc::clone(&auth)).await?;
    let http = match settings::http(&config) {
        Some(address) => Some(Http::bind(&address).await.map_err(ServeError::Http)?),
        None => None,
    };
    let clients = listener.bound();
    let served = Served {
        clients: clients.clone(),
        http: http.as_ref().and_then(Http::bound),
    };
    if let Some(http) = http {
        let (proxy, stop, end) = (Arc::clone(&proxy), stop.clone(), background.clone());
        tasks.spawn(http.run(Watched { proxy, stop }, end));
    }
    let database: Arc<str> = config.admin.database.as_str().into();
    let has_console = config.admin.enabled;
    let reloading = Arc::new(Reloading {
        origins,
        running: Mutex::new(config),
        proxy: Arc::clone(&proxy),
        auth,
        tls,
        secrets: secrets.clone(),
    });
    tasks.spawn(Arc::clone(&reloading).follow(background.clone()));
    let console =
        has_console.then(|| Console::new(Arc::clone(&proxy), reloading as Arc<dyn Reload>, database));
    tracing::info!(addresses = ?clients, http = ?served.http, "accepting clients");
    // Nobody may be there to be told.
    drop(bound.send(served));
    tasks.spawn({
        let (proxy, stop) = (Arc::clone(&proxy), stop.clone());
        async move {
            stop.cancelled().await;
            proxy.registry.stop();
        }
    });
    let entered = Entered {
        proxy,
        secrets,
        console,
    };
    listener.run(Arc::new(entered), stop).await;
    drop(ended);
    tasks.close();
    tasks.wait().await;
    Ok(())
}

/// Starts what watches the nodes and serves sessions, under the token and on the tracker.
fn start_proxy(
    config: &Config,
    tls: &ServerTls,
    secrets: &Secrets,
    guards: Guards,
    (tasks, background): (&TaskTracker, &CancellationToken),
) -> Arc<Proxy> {
    let ticks: Arc<Ticks> = Arc::default();
    let cluster = Cluster::start(
        settings::cluster(config, tls, secrets),
        Arc::clone(&ticks),
        tasks,
        background,
    );
    let pools = Pools::new(
        settings::pool(config),
        settings::addresses(config),
        tls.clone(),
        secrets.credentials(),
        Arc::new(Samples(cluster.clone())),
    );
    let databases = Databases::start(
        DatabaseSettings {
            guards,
            ..settings::databases(config, tls, secrets)
        },
        cluster.clone(),
        ticks,
        tasks,
        background,
    );
    let streams = Streams::start(
        settings::stream(config, tls, secrets),
        &databases,
        &cluster,
        tasks,
        background,
    );
    let parts = Parts {
        cluster,
        pools,
        streams,
        databases,
        store: Store::new(settings::store(config)),
        doorkeeper: settings::doorkeeper(config).map(Doorkeeper::new),
        settings: settings::session(config),
        tasks: tasks.clone(),
    };
    Proxy::start(parts, background)
}

/// Where clients go once they are in.
struct Entered {
    proxy: Arc<Proxy>,
    secrets: Secrets,
    console: Option<Console>,
}

impl Sessions for Entered {
    async fn run(&self, client: Client, stop: CancellationToken) {
        if let Some(console) = &self.console
            && console.is_meant_by(&client)
        {
            // Boxed, so that a session's task has no room for a console in it.
            return Box::pin(console.run(client, stop)).await;
        }
        if let Some(keys) = &client.identity.keys {
            self.secrets.learn(&client.user, keys.clone());
        }
        session::run(client, Arc::clone(&self.proxy)).await;
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
