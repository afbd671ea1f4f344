//! Where a PostgreSQL server listens: a TCP host and port, or the directory of a Unix socket.
//!
//! Written as operators write it (`127.0.0.1:5432`, `[::1]:5432`, `db.example`, `/var/run/postgresql:5432`); called by the
//! configuration and the command line. `Display` and `FromStr` are inverse to each other. It resolves no names.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The port that is meant where none is written.
pub const DEFAULT_PORT: u16 = 5432;

/// The address of one server.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Address {
    /// A host name or an IP address (without brackets), and a port.
    Tcp {
        /// Host name, IPv4 or IPv6 address.
        host: Box<str>,
        /// TCP port.
        port: u16,
    },
    /// A socket `.s.PGSQL.<port>` in a directory.
    Unix {
        /// Absolute path of the directory.
        directory: PathBuf,
        /// The port that names the socket file.
        port: u16,
    },
}

impl Address {
    /// The port, also for a Unix socket, whose file is named by it.
    pub fn port(&self) -> u16 {
        match self {
            Self::Tcp { port, .. } | Self::Unix { port, .. } => *port,
        }
    }

    /// The host as `~/.pgpass` and certificates know it; for a Unix socket its directory.
    pub fn host(&self) -> &str {
        match self {
            Self::Tcp { host, .. } => host,
            Self::Unix { directory, .. } => directory.to_str().unwrap_or("localhost"),
        }
    }

    /// The socket's file; `None` for TCP.
    pub fn socket_path(&self) -> Option<PathBuf> {
        match self {
            Self::Tcp { .. } => None,
            Self::Unix { directory, port } => Some(directory.join(format!(".s.PGSQL.{port}"))),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix { directory, port } => write!(f, "{}:{port}", directory.display()),
        }
    }
}

/// Why a text is no address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Nothing stands before the port.
    #[error("the host is missing")]
    NoHost,
    /// What follows the last colon is no port.
    #[error("\"{0}\" is not a port from 1 to 65535")]
    Port(String),
    /// An IPv6 address needs brackets, or its brackets do not close.
    #[error("an IPv6 address is written in brackets, as in [::1]:5432")]
    Brackets,
    /// The host holds a character that no host name has.
    #[error("\"{0}\" is not a host name")]
    Host(String),
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if text.starts_with('/') {
            return unix(text);
        }
        let (host, port) = if let Some(rest) = text.strip_prefix('[') {
            let (host, after) = rest.split_once(']').ok_or(AddressError::Brackets)?;
            if host.parse::<std::net::Ipv6Addr>().is_err() {
                return Err(AddressError::Brackets);
            }
            match after.strip_prefix(':') {
                Some(port) => (host, port_of(port)?),
                None if after.is_empty() => (host, DEFAULT_PORT),
                None => return Err(AddressError::Brackets),
            }
        } else if text.matches(':').count() > 1 {
            return Err(AddressError::Brackets);
        } else if let Some((host, port)) = text.split_once(':') {
            (host, port_of(port)?)
        } else {
            (text, DEFAULT_PORT)
        };
        if host.is_empty() {
            return Err(AddressError::NoHost);
        }
        let named = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
        if !host.chars().all(named) {
            return Err(AddressError::Host(host.to_owned()));
        }
        Ok(Self::Tcp {
            host: host.into(),
            port,
        })
    }
}

/// A directory may hold colons of its own: only digits after the last one are a port.
fn unix(text: &str) -> Result<Address, AddressError> {
    let (directory, port) = match text.rsplit_once(':') {
        Some((directory, port)) if !port.contains('/') => (directory, port_of(port)?),
        _ => (text, DEFAULT_PORT),
    };
    Ok(Address::Unix {
        directory: Path::new(directory).to_path_buf(),
        port,
    })
}

fn port_of(text: &str) -> Result<u16, AddressError> {
    match text.parse::<u16>() {
        Ok(port) if port > 0 && !text.starts_with('+') => Ok(port),
        _ => Err(AddressError::Port(text.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, shown: &str) {
        let address: Address = text.parse().expect(text);
        assert_eq!(address.to_string(), shown);
        assert_eq!(
            shown.parse::<Address>().as_ref(),
            Ok(&address),
            "Display and FromStr are inverse"
        );
    }

    #[test]
    fn addresses_are_read_as_operators_write_them() {
        check("127.0.0.1:5433", "127.0.0.1:5433");
        check("db.example", "db.example:5432");
        check("[::1]:6000", "[::1]:6000");
        check("[::1]", "[::1]:5432");
        check("/var/run/postgresql", "/var/run/postgresql:5432");
        check("/var/run/postgresql:5440", "/var/run/postgresql:5440");
        check("/odd:dir/sockets", "/odd:dir/sockets:5432");
    }

    #[test]
    fn a_socket_file_is_named_by_its_port() {
        let address: Address = "/run/pg:5440".parse().expect("an address");
        assert_eq!(
            address.socket_path(),
            Some(PathBuf::from("/run/pg/.s.PGSQL.5440"))
        );
    }

    #[test]
    fn what_is_no_address_is_named() {
        assert_eq!("".parse::<Address>(), Err(AddressError::NoHost));
        assert_eq!(":5432".parse::<Address>(), Err(AddressError::NoHost));
        assert_eq!("h:0".parse::<Address>(), Err(AddressError::Port("0".into())));
        assert_eq!(
            "h:65536".parse::<Address>(),
            Err(AddressError::Port("65536".into()))
        );
        assert_eq!("::1".parse::<Address>(), Err(AddressError::Brackets));
        assert_eq!("[::1".parse::<Address>(), Err(AddressError::Brackets));
        assert_eq!("a b".parse::<Address>(), Err(AddressError::Host("a b".into())));
    }
}
