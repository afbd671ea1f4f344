//! From the configuration's sections to what each layer is told.
//!
//! Called by `serve` alone, and by the commands that look at nodes as `serve` would. Pure, apart from reading certificates and
//! the password file. Invariant: no layer sees the configuration itself, so that none depends on how it is written.

use std::collections::{HashMap, HashSet};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio_util::task::TaskTracker;

use super::ServeError;
use crate::auth::{AuthSettings, Method, QuerySettings, UserSecret};
use crate::cache::rules::{Decision, Pattern, Rules, Subject};
use crate::cache::store::Limits;
use crate::catalog::Allowed;
use crate::cluster::{Cluster, ClusterSettings, LagLimit, NodeId, PasswordLookup};
use crate::config::{
    self, AuthMethod, CacheWhat, ClientTlsMode, Config, Endpoint, RuleSubject, ServerTlsMode, StreamUse,
};
use crate::freshness::catalogs::CatalogSource;
use crate::freshness::databases::DatabaseSettings;
use crate::freshness::guards::Guards;
use crate::freshness::level::Level;
use crate::listener::{ClientTls, ClientTlsSettings, ListenerSettings};
use crate::pool::replication::Walsenders;
use crate::pool::tls::TlsError;
use crate::pool::{Address, Credentials, FirstOf, PgPass, PoolSettings, Secret, ServerTls, TlsMode};
use crate::session::unit;
use crate::session::{CacheSettings, SessionSettings};
use crate::stream::{StreamLimits, StreamSettings};

/// Seen misses that the doorkeeper remembers.
const DOORKEEPER_HASHES: usize = 65_536;
/// Silence after which a walsender ends a stream, and its slot.
const SENDER_TIMEOUT: Duration = Duration::from_secs(10);

/// What the proxy logs in to servers with.
#[derive(Clone)]
pub(super) struct Secrets {
    configured: Arc<Configured>,
    learnt: Arc<Learnt>,
    file: Option<Arc<PgPass>>,
}

struct Configured(ArcSwap<HashMap<String, Secret>>);
#[derive(Default)]
struct Learnt(Mutex<HashMap<Box<str>, Secret>>);

impl Credentials for Configured {
    fn secret(&self, user: &str, _: &str, _: &str, _: u16) -> Option<Secret> {
        self.0.load().get(user).cloned()
    }
}

impl Credentials for Learnt {
    fn secret(&self, user: &str, _: &str, _: &str, _: u16) -> Option<Secret> {
        self.0.lock().get(user).cloned()
    }
}

impl Secrets {
    pub fn new(config: &Config) -> Self {
        Self {
            configured: Arc::new(Configured(ArcSwap::from_pointee(configured(config)))),
            learnt: Arc::default(),
            file: PgPass::from_environment().map(Arc::new),
        }
    }

    /// Other configured passwords, for logins to servers from now on.
    pub fn renew(&self, config: &Config) {
        self.configured.0.store(Arc::new(configured(config)));
    }

    /// What a client's login proved: its role's keys, until it logs in with others.
    pub fn learn(&self, user: &str, secret: Secret) {
        self.learnt.0.lock().insert(user.into(), secret);
    }

    /// Sources in the order in which they are asked.
    pub fn credentials(&self) -> Arc<dyn Credentials> {
        let mut sources: Vec<Arc<dyn Credentials>> =
            vec![Arc::clone(&self.configured) as _, Arc::clone(&self.learnt) as _];
        sources.extend(self.file.clone().map(|file| file as Arc<dyn Credentials>));
        Arc::new(FirstOf(sources))
    }
}

fn configured(config: &Config) -> HashMap<String, Secret> {
    let passwords = config.auth.users.iter().filter_map(|user| match &user.secret {
        config::UserSecret::Password(password) => {
            Some((user.name.clone(), Secret::Password(password.0.clone())))
        }
        config::UserSecret::Verifier(_) => None,
    });
    passwords.collect()
}

/// The cluster's settings of a configuration; its control connections use TLS as all others do.
pub fn cluster_settings(config: &Config, tls: &ServerTls) -> ClusterSettings {
    cluster(config, tls, &Secrets::new(config))
}

/// The same with secrets that a reload renews.
pub(super) fn cluster(config: &Config, tls: &ServerTls, secrets: &Secrets) -> ClusterSettings {
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
        password: passwords(secrets.credentials()),
        tls: tls.for_control(),
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
pub fn host_and_port(address: &Endpoint) -> (String, u16) {
    match address {
        Endpoint::Tcp { host, port } => (host.clone(), *port),
        Endpoint::Unix { directory, port } => (directory.display().to_string(), *port),
    }
}

fn passwords(secrets: Arc<dyn Credentials>) -> PasswordLookup {
    Arc::new(
        move |host, port, database, user| match secrets.secret(user, database, host, port)? {
            Secret::Password(password) => Some(password.to_string()),
            Secret::Md5Hash(_) | Secret::ScramKeys { .. } => None,
        },
    )
}

fn address(endpoint: &Endpoint) -> Address {
    match endpoint {
        Endpoint::Tcp { host, port } => Address::Tcp {
            host: host.as_str().into(),
            port: *port,
        },
        Endpoint::Unix { directory, port } => Address::Unix {
            directory: directory.clone(),
            port: *port,
        },
    }
}

pub(super) fn addresses(config: &Config) -> HashMap<NodeId, Address> {
    let nodes = (0..).map(NodeId).zip(&config.nodes);
    nodes.map(|(id, node)| (id, address(&node.address))).collect()
}

/// TLS to servers. Blocks on certificate files.
pub fn server_tls(config: &Config) -> Result<ServerTls, TlsError> {
    let mode = match config.tls.server.mode {
        ServerTlsMode::Disable => TlsMode::Disable,
        ServerTlsMode::Prefer => TlsMode::Prefer,
        ServerTlsMode::Require => TlsMode::Require,
        ServerTlsMode::VerifyCa => TlsMode::VerifyCa,
        ServerTlsMode::VerifyFull => TlsMode::VerifyFull,
    };
    ServerTls::new(mode, config.tls.server.root_cert.clone())
}

pub(super) fn client_tls(config: &Config) -> Option<ClientTlsSettings> {
    let tls = &config.tls.client;
    let (certificate, key) = (tls.cert.clone()?, tls.key.clone()?);
    (tls.mode != ClientTlsMode::Disable).then(|| ClientTlsSettings {
        certificate,
        key,
        client_ca: tls.ca.clone(),
        client_certificate_required: config.auth.method == AuthMethod::Cert,
    })
}

pub(super) fn listener(config: &Config, tls: Option<Arc<ClientTls>>) -> ListenerSettings {
    ListenerSettings {
        addresses: config.listen.addresses.iter().map(address).collect(),
        clients_max: config.limits.clients_max,
        login_timeout: config.limits.login_timeout,
        drain_timeout: config.limits.drain_timeout,
        tls,
        tls_required: config.tls.client.mode == ClientTlsMode::Require,
    }
}

pub(super) fn http(config: &Config) -> Option<Address> {
    config.http.listen.as_ref().map(address)
}

pub(super) fn pool(config: &Config) -> PoolSettings {
    let pool = &config.pool;
    PoolSettings {
        size: pool.size,
        node_connections_max: pool.node_connections_max,
        queue_max: pool.queue_max,
        connect_timeout: pool.connect_timeout,
        idle_timeout: pool.idle_timeout,
        lifetime: pool.lifetime,
        prepared_statements_max: pool.prepared_statements_max,
        application_name: pool.application_name.as_str().into(),
    }
}

pub(super) fn databases(config: &Config, tls: &ServerTls, secrets: &Secrets) -> DatabaseSettings {
    let cluster = cluster(config, tls, secrets);
    DatabaseSettings {
        allowed: Arc::new(allowed(config)),
        source: CatalogSource {
            nodes: cluster.nodes.into(),
            user: cluster.user.into(),
            password: cluster.password,
            tls: cluster.tls,
            connect_timeout: cluster.connect_timeout,
            interval: config.cluster.catalog_interval,
        },
        guards: Guards::default(),
    }
}

pub(super) fn stream(config: &Config, tls: &ServerTls, secrets: &Secrets) -> Option<StreamSettings> {
    let stream = &config.stream;
    (stream.enabled == StreamUse::Auto).then(|| StreamSettings {
        walsenders: Walsenders {
            tls: tls.clone(),
            credentials: secrets.credentials(),
            user: config.cluster.control_user.as_str().into(),
            timeout: config.pool.connect_timeout,
            sender_timeout: SENDER_TIMEOUT,
        },
        nodes: addresses(config),
        source: databases(config, tls, secrets).source,
        publication: stream.publication.clone(),
        limits: StreamLimits {
            delay_max: stream.delay_max,
            slot_timeout: stream.slot_timeout,
            retained_max: stream.retained_max,
            sender_timeout: SENDER_TIMEOUT,
        },
    })
}

pub(super) fn allowed(config: &Config) -> Allowed {
    let functions = config.functions.safe.iter();
    Allowed {
        functions: functions.map(|name| name.as_str().into()).collect(),
    }
}

pub(super) fn store(config: &Config) -> Limits {
    let cache = &config.cache;
    Limits {
        bytes_max: saturated(cache.bytes),
        entries_max: cache.entries,
        entry_bytes_max: saturated(cache.entry_bytes_max),
    }
}

pub(super) fn doorkeeper(config: &Config) -> Option<NonZeroUsize> {
    config
        .cache
        .doorkeeper
        .then(|| NonZeroUsize::new(DOORKEEPER_HASHES).expect("not zero"))
}

pub(super) fn session(config: &Config) -> SessionSettings {
    let cache = &config.cache;
    // The configuration checked it, and both write a level in the same words.
    let level: Option<Level> = config.freshness.level.to_string().parse().ok();
    SessionSettings {
        level: level.unwrap_or(Level::Strict),
        lease_wait: config.pool.queue_timeout,
        primary_wait: config.cluster.primary_wait,
        unit_limits: unit::Limits {
            message_bytes_max: saturated(config.limits.message_bytes_max),
            batch_bytes_max: saturated(config.limits.batch_bytes_max),
        },
        cache: CacheSettings {
            enabled: cache.enabled,
            all_reads: cache.what == CacheWhat::AllReads,
            ttl: cache.ttl,
            min_cost: Duration::from_millis(cache.min_cost_ms),
            entry_bytes_max: saturated(cache.entry_bytes_max),
            refreshes_max: cache.refreshes_max,
            sample_every: cache.sample_every,
        },
        rules: Arc::new(rules(config)),
    }
}

/// The cache's rules, as the session and `explain` apply them.
pub fn rules(config: &Config) -> Rules {
    Rules::new(config.cache.rules.iter().map(|rule| {
        let subject = match &rule.subject {
            RuleSubject::Table(table) => Subject::table(table),
            RuleSubject::Fingerprint(fingerprint) => Subject::Fingerprint(*fingerprint),
            RuleSubject::Pattern(pattern) => Subject::Pattern(Pattern::new(pattern)),
        };
        // A level that cannot be read is the strictest, as above.
        let level = rule
            .freshness
            .map(|level| level.to_string().parse().unwrap_or(Level::Strict));
        let decision = Decision {
            ttl: rule.ttl,
            level,
            cache: rule.cache,
        };
        (subject, decision)
    }))
}

pub(super) fn auth(config: &Config) -> Result<AuthSettings, ServeError> {
    Ok(AuthSettings {
        method: match config.auth.method {
            AuthMethod::Scram => Method::Scram,
            AuthMethod::Cert => Method::Certificate,
            AuthMethod::Trust => Method::Trust,
        },
        users: users(config)?,
        query: None,
        query_ttl: config.auth.query_ttl,
        admins: admins(config),
    })
}

pub(super) fn users(config: &Config) -> Result<HashMap<Box<str>, UserSecret>, ServeError> {
    let mut users = HashMap::new();
    for user in &config.auth.users {
        let (config::UserSecret::Password(text) | config::UserSecret::Verifier(text)) = &user.secret;
        let secret: UserSecret = text.0.parse().map_err(|error| ServeError::User {
            user: user.name.clone(),
            error,
        })?;
        users.insert(user.name.as_str().into(), secret);
    }
    Ok(users)
}

pub(super) fn admins(config: &Config) -> HashSet<Box<str>> {
    let named = config.auth.admins.iter();
    let mut admins: HashSet<Box<str>> = named.map(|name| name.as_str().into()).collect();
    if admins.is_empty() {
        admins.insert(config.cluster.control_user.as_str().into());
    }
    admins
}

pub(super) fn auth_query(
    config: &Config,
    cluster: &Cluster,
    credentials: Arc<dyn Credentials>,
    tls: ServerTls,
    tasks: &TaskTracker,
) -> Option<QuerySettings> {
    let query = config.auth.query.clone()?;
    let (cluster, addresses) = (cluster.clone(), addresses(config));
    Some(QuerySettings {
        query,
        user: config.cluster.control_user.clone(),
        database: config.cluster.control_database.clone(),
        timeout: config.pool.connect_timeout,
        primary: Arc::new(move || addresses.get(&cluster.view().primary?).cloned()),
        credentials,
        tls,
        tasks: tasks.clone(),
    })
}

fn saturated(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}
