//! The configuration: sections, where their values come from, and what is wrong with them.
//!
//! Loaded by the command line and by RELOAD; each layer is handed its own section. Sources, later wins: defaults, the file,
//! `PGLADDER_*` variables, flags. Invariant: a `Config` that `load` returned has been checked as a whole, and an error names every
//! problem at once. It imports nothing of the crate, so that its types are its own; the composition root translates.

mod admin;
mod auth;
mod cache;
mod cache_rule;
mod changes;
mod checks;
mod cluster;
mod endpoint;
mod error;
mod freshness;
mod functions;
mod http;
mod kind;
mod limits;
mod listen;
mod log;
mod nearest;
mod node;
mod pool;
mod reader;
mod source;
mod stream;
mod tls;
mod units;
mod userlist;

pub use admin::AdminConfig;
pub use auth::{AuthConfig, AuthMethod, Password, UserConfig, UserSecret};
pub use cache::{CacheConfig, CacheWhat};
pub use cache_rule::{CacheRule, RuleSubject};
pub use changes::Counts;
pub use cluster::ClusterConfig;
pub use endpoint::Endpoint;
pub use error::{ConfigError, ConfigErrors, Origin, Problem};
pub use freshness::{Freshness, FreshnessConfig};
pub use functions::FunctionsConfig;
pub use http::HttpConfig;
pub use limits::LimitsConfig;
pub use listen::ListenConfig;
pub use log::{LogConfig, LogFormat};
pub use node::NodeConfig;
pub use pool::PoolConfig;
pub use reader::Setting;
pub use source::{Flag, Sources};
pub use stream::{StreamConfig, StreamUse};
pub use tls::{ClientTls, ClientTlsMode, ServerTls, ServerTlsMode, TlsConfig};
pub use units::show_duration;

use reader::Reader;

/// Everything that can be configured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// Where clients connect.
    pub listen: ListenConfig,
    /// The servers; an element's place is its number.
    pub nodes: Vec<NodeConfig>,
    /// Server connections.
    pub pool: PoolConfig,
    /// How nodes are watched.
    pub cluster: ClusterConfig,
    /// Which answers are kept.
    pub cache: CacheConfig,
    /// What a read may miss.
    pub freshness: FreshnessConfig,
    /// What the primary's log tells.
    pub stream: StreamConfig,
    /// Functions declared safe.
    pub functions: FunctionsConfig,
    /// Who may connect.
    pub auth: AuthConfig,
    /// Encryption.
    pub tls: TlsConfig,
    /// The console.
    pub admin: AdminConfig,
    /// Metrics and health.
    pub http: HttpConfig,
    /// The log.
    pub log: LogConfig,
    /// What clients may take.
    pub limits: LimitsConfig,
}

impl Config {
    /// Reads and checks all sources. Blocks on files.
    pub fn load(sources: &Sources) -> Result<Self, ConfigErrors> {
        let settings = Self::settings();
        let keys: Vec<String> = settings.into_iter().map(|setting| setting.key).collect();
        let mut errors = Vec::new();
        let leaves = source::gather(sources, &keys, &mut errors);
        // Where the file said nothing that could be read, nothing can be told about how settings go together.
        let is_complete = errors
            .iter()
            .all(|error| !matches!(error.problem, Problem::File { .. }));
        let mut reader = Reader::new(leaves, errors);
        let config = Self::read(&mut reader, sources);
        if is_complete {
            checks::check(&config, sources.nodes_optional, &mut reader);
        }
        let (_, errors) = reader.finish();
        if errors.is_empty() {
            Ok(config)
        } else {
            Err(ConfigErrors(errors))
        }
    }

    /// Every setting there is, with its default.
    pub fn settings() -> Vec<Setting> {
        let mut reader = Reader::default();
        Self::read(&mut reader, &Sources::default());
        reader.finish().0
    }

    /// May this user use the console?
    pub fn is_admin(&self, user: &str) -> bool {
        let admins = &self.auth.admins;
        (admins.is_empty() && user == self.cluster.control_user) || admins.iter().any(|admin| admin == user)
    }

    fn read(reader: &mut Reader, sources: &Sources) -> Self {
        let mut config = Self {
            nodes: node::read(reader.section("")),
            ..Self::default()
        };
        config.listen.read(reader.section("listen"));
        config.pool.read(reader.section("pool"));
        config.cluster.read(reader.section("cluster"));
        config.cache.read(reader.section("cache"));
        config.freshness.read(reader.section("freshness"));
        config.stream.read(reader.section("stream"));
        config.functions.read(reader.section("functions"));
        config
            .auth
            .read(reader.section("auth"), |name| sources.variable(name));
        config.tls.read(reader.section("tls"));
        config.admin.read(reader.section("admin"));
        config.http.read(reader.section("http"));
        config.log.read(reader.section("log"));
        config.limits.read(reader.section("limits"));
        config
    }
}
