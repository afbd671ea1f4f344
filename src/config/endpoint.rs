//! An address of the configuration: a TCP host and port, or the directory and port of a Unix socket.
//!
//! One grammar for nodes and for what the proxy listens on; only the port that is meant where none is written differs. The
//! text of `Display` reads back as the same endpoint, also as the address of a server in the pool. It resolves no names.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

/// Where a server is, or where the proxy listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// A host name or an IP address (without brackets), and a port.
    Tcp {
        /// Host name, IPv4 or IPv6 address; where the proxy listens also `*`, every interface.
        host: String,
        /// TCP port, not 0.
        port: u16,
    },
    /// The socket `.s.PGSQL.<port>` in a directory, as PostgreSQL names it.
    Unix {
        /// Absolute path of the directory.
        directory: PathBuf,
        /// The port that names the socket's file.
        port: u16,
    },
}

impl Endpoint {
    /// Reads `host:port`, `[v6]:port`, `host`, `/directory` or `/directory:port`.
    pub fn parse(text: &str, default_port: u16) -> Option<Self> {
        if text.starts_with('/') {
            return Self::parse_unix(text, default_port);
        }
        let (host, port) = if let Some(rest) = text.strip_prefix('[') {
            let (host, after) = rest.split_once(']')?;
            host.parse::<std::net::Ipv6Addr>().ok()?;
            let port = match after.strip_prefix(':') {
                Some(port) => parse_port(port)?,
                None if after.is_empty() => default_port,
                None => return None,
            };
            (host, port)
        } else {
            match text.split_once(':') {
                Some((host, port)) => (host, parse_port(port)?),
                None => (text, default_port),
            }
        };
        let is_named = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
        (!host.is_empty() && host.chars().all(is_named)).then(|| Self::Tcp {
            host: host.to_owned(),
            port,
        })
    }

    /// The host `*`; `port` is empty or begins with the colon.
    pub(super) fn every_interface(port: &str, default_port: u16) -> Option<Self> {
        let port = match port.strip_prefix(':') {
            Some(port) => parse_port(port)?,
            None if port.is_empty() => default_port,
            None => return None,
        };
        let host = "*".to_owned();
        Some(Self::Tcp { host, port })
    }

    /// A directory may hold colons of its own: only what follows the last one, without a slash, is a port.
    fn parse_unix(text: &str, default_port: u16) -> Option<Self> {
        let (directory, port) = match text.rsplit_once(':') {
            Some((directory, port)) if !port.contains('/') => (directory, parse_port(port)?),
            _ => (text, default_port),
        };
        let directory = PathBuf::from(directory);
        Some(Self::Unix { directory, port })
    }

    /// Can only this machine reach it?
    pub fn is_local(&self) -> bool {
        match self {
            Self::Unix { .. } => true,
            Self::Tcp { host, .. } => {
                host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
            }
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix { directory, port } => write!(f, "{}:{port}", directory.display()),
        }
    }
}

fn parse_port(text: &str) -> Option<u16> {
    let port = text.parse().ok().filter(|&port| port > 0);
    port.filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_read_as_operators_write_them() {
        let check = |text: &str, shown: &str, local: bool| {
            let endpoint = Endpoint::parse(text, 6432).expect(text);
            assert_eq!(endpoint.to_string(), shown);
            assert_eq!(endpoint.is_local(), local, "{text}");
            assert_eq!(Endpoint::parse(shown, 1), Some(endpoint), "Display reads back");
        };
        check("127.0.0.1:5433", "127.0.0.1:5433", true);
        check("localhost", "localhost:6432", true);
        check("127.1.2.3", "127.1.2.3:6432", true);
        check("db.example", "db.example:6432", false);
        check("0.0.0.0:6432", "0.0.0.0:6432", false);
        check("[::1]:6000", "[::1]:6000", true);
        check("[::]", "[::]:6432", false);
        check("/run/postgresql", "/run/postgresql:6432", true);
        check("/odd:dir/sockets:5440", "/odd:dir/sockets:5440", true);
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "", ":5432", "h:0", "h:65536", "h:+1", "::1", "[::1", "[::1]5", "[h]:1", "a b", "h:", "/d:x",
        ] {
            assert_eq!(Endpoint::parse(text, 5432), None, "{text:?}");
        }
    }
}
