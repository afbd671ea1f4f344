//! Names of nodes: a small index for code, an address for people.
//!
//! Used by everything that routes or pools. An id is the node's place in the configuration and never changes while the
//! process runs; an address is printed and connected to, never compared to find out whether two nodes are the same server
//! (the system identifier and the role do that).

use std::{fmt, sync::Arc};

/// A node's index in the configured list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u16);

impl NodeId {
    /// The index into `ClusterView::nodes`.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Where a node listens: a host name or address and a port, or the directory of its Unix socket.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NodeAddress {
    /// A host, or a directory when it begins with `/`.
    pub host: Arc<str>,
    /// The TCP port, or the number in the name of the Unix socket.
    pub port: u16,
}

impl fmt::Display for NodeAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.starts_with('/') {
            write!(f, "{}/.s.PGSQL.{}", self.host, self.port)
        } else if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_as_libpq_writes_them() {
        for (host, port, text) in [
            ("db1", 5432, "db1:5432"),
            ("::1", 5433, "[::1]:5433"),
            ("/run/pg", 5432, "/run/pg/.s.PGSQL.5432"),
        ] {
            assert_eq!(
                NodeAddress {
                    host: host.into(),
                    port
                }
                .to_string(),
                text
            );
        }
    }
}
