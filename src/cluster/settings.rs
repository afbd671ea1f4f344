//! What the cluster needs to be told: nodes, the control user, and limits.
//!
//! Built by `serve` from the configuration file, flags and environment; this module reads none of them. Invariant: the nodes'
//! ids are their places in the list, which `ClusterSettings::new` sees to. Secrets are looked up when a connection is made,
//! not kept here.

use super::{
    node_id::{NodeAddress, NodeId},
    tls::ControlTls,
};
use std::{fmt, sync::Arc, time::Duration};

/// Finds the control user's password by (host, port, database, user), anew for each connection; `None` means to log in without
/// one.
pub type PasswordLookup = Arc<dyn Fn(&str, u16, &str, &str) -> Option<String> + Send + Sync>;

/// One configured node.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// Its place in the list.
    pub id: NodeId,
    /// A host, or the directory of a Unix socket when it begins with `/`.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Its share of reads relative to the others; 0 takes no reads.
    pub weight: u32,
}

impl NodeConfig {
    /// The address that views and logs show.
    pub fn address(&self) -> NodeAddress {
        NodeAddress {
            host: self.host.as_str().into(),
            port: self.port,
        }
    }
}

/// When a replica has fallen too far behind, and when it may come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LagLimit {
    /// A replica that lags longer than this is not used.
    pub lag_max: Duration,
    /// A replica that lags more bytes of WAL than this is not used; `None`: no limit.
    pub lag_bytes_max: Option<u64>,
    /// It returns when its lag is at most this share (percent, 1 to 100) of both limits ...
    pub return_percent: u32,
    /// ... in this many samples one after the other (at least 1).
    pub return_samples: u32,
}

impl Default for LagLimit {
    fn default() -> Self {
        Self {
            lag_max: Duration::from_secs(10),
            lag_bytes_max: Some(64 << 20),
            return_percent: 50,
            return_samples: 3,
        }
    }
}

/// Everything `Cluster::start` needs.
#[derive(Clone)]
pub struct ClusterSettings {
    /// The nodes; the index of each is its id.
    pub nodes: Vec<NodeConfig>,
    /// Time from one poll of a node to the next.
    pub poll_interval: Duration,
    /// How long a connection attempt may take, login included.
    pub connect_timeout: Duration,
    /// How long one poll or probe may take before its connection is given up.
    pub poll_timeout: Duration,
    /// The longest pause between attempts to reach a node that is down.
    pub backoff_max: Duration,
    /// The control user.
    pub user: String,
    /// The database that the control connections log in to.
    pub database: String,
    /// The control user's passwords.
    pub password: PasswordLookup,
    /// TLS to the nodes; none by default.
    pub tls: ControlTls,
    /// When a replica leaves and returns.
    pub lag: LagLimit,
}

impl ClusterSettings {
    /// Default limits for these nodes, given as (host, port, weight).
    pub fn new(nodes: impl IntoIterator<Item = (String, u16, u32)>, user: String) -> Self {
        let nodes = (0u16..).zip(nodes);
        let nodes = nodes.map(|(id, (host, port, weight))| NodeConfig {
            id: NodeId(id),
            host,
            port,
            weight,
        });
        Self {
            nodes: nodes.collect(),
            poll_interval: Duration::from_millis(100),
            connect_timeout: Duration::from_secs(5),
            poll_timeout: Duration::from_secs(2),
            backoff_max: Duration::from_secs(1),
            user,
            database: "postgres".to_owned(),
            password: Arc::new(|_, _, _, _| None),
            tls: ControlTls::default(),
            lag: LagLimit::default(),
        }
    }
}

impl fmt::Debug for ClusterSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterSettings")
            .field("nodes", &self.nodes)
            .field("poll_interval", &self.poll_interval)
            .field("user", &self.user)
            .field("database", &self.database)
            .field("tls", &self.tls)
            .field("lag", &self.lag)
            .finish_non_exhaustive()
    }
}
