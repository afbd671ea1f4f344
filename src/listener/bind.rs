//! The sockets that clients connect to: TCP addresses, and Unix sockets where libpq looks for them.
//!
//! Called by `Listener::bind`. A socket file that a crash left behind is removed, but only when nobody answers on it; at the end
//! the file is removed if it is still this listener's own. `accept` is cancel safe: a dropped one loses no connection.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::task::{Context, Poll};

use tokio::net::{TcpListener, TcpSocket, UnixListener, UnixStream, lookup_host};

use crate::listener::error::ListenError;
use crate::pool::Address;
use crate::session::client::Peer;
use crate::session::stream::ClientStream;

/// Connections that the kernel holds until they are accepted; it lowers this to net.core.somaxconn.
const BACKLOG: u32 = 4096;

/// One socket that clients connect to.
#[derive(Debug)]
enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener, SocketFile),
}

/// All of them.
#[derive(Debug)]
pub struct Sockets {
    sockets: Vec<Socket>,
    turn: usize,
}

/// Where a listener can be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bound {
    /// An address, with the port that was chosen when 0 was asked for.
    Tcp(SocketAddr),
    /// The file of a Unix socket.
    Unix(PathBuf),
}

impl Sockets {
    /// Binds every address; a name is bound on all its addresses, and `*` on all interfaces.
    pub async fn bind(addresses: &[Address]) -> Result<Self, ListenError> {
        let mut sockets = Vec::new();
        for address in addresses {
            let failed = |source| ListenError::Bind {
                address: address.to_string(),
                source,
            };
            if let Address::Tcp { host, port } = address {
                for resolved in resolve(host, *port).await.map_err(failed)? {
                    sockets.push(Socket::Tcp(tcp(resolved).map_err(failed)?));
                }
            } else if let Some(path) = address.socket_path() {
                sockets.push(unix(path, address).await?);
            }
        }
        if sockets.is_empty() {
            return Err(ListenError::NoAddress);
        }
        Ok(Self { sockets, turn: 0 })
    }

    /// Where they listen.
    pub fn bound(&self) -> Vec<Bound> {
        let bound = self.sockets.iter().filter_map(|socket| match socket {
            Socket::Tcp(listener) => listener.local_addr().ok().map(Bound::Tcp),
            Socket::Unix(_, file) => Some(Bound::Unix(file.path.clone())),
        });
        bound.collect()
    }

    /// The next connection on any of them; they take turns.
    pub async fn accept(&mut self) -> io::Result<(ClientStream, Peer)> {
        self.turn = self.turn.wrapping_add(1);
        let (sockets, turn) = (&self.sockets, self.turn);
        poll_fn(|cx| {
            let from_turn =
                (0..sockets.len()).map(|step| &sockets[(turn.wrapping_add(step)) % sockets.len()]);
            for socket in from_turn {
                if let Poll::Ready(accepted) = socket.poll_accept(cx) {
                    return Poll::Ready(accepted);
                }
            }
            Poll::Pending
        })
        .await
    }
}

impl Socket {
    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<(ClientStream, Peer)>> {
        match self {
            Self::Tcp(listener) => listener
                .poll_accept(cx)
                .map_ok(|(stream, peer)| (ClientStream::Tcp(stream), Peer::Tcp(peer))),
            Self::Unix(listener, _) => listener
                .poll_accept(cx)
                .map_ok(|(stream, _)| (ClientStream::Unix(stream), Peer::Unix)),
        }
    }
}

async fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let mut found: Vec<SocketAddr> = if host == "*" {
        let all = SocketAddr::from(([0, 0, 0, 0], port));
        // One socket for both families needs a kernel setting; a host without IPv6 has only the first.
        let all_v6 = SocketAddr::from(([0; 8], port));
        let has_v6 = TcpSocket::new_v6().is_ok();
        [all].into_iter().chain(has_v6.then_some(all_v6)).collect()
    } else {
        lookup_host((host, port)).await?.collect()
    };
    found.sort();
    found.dedup();
    if found.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
    }
    Ok(found)
}

fn tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        let socket = TcpSocket::new_v6()?;
        socket2::SockRef::from(&socket).set_only_v6(true)?;
        socket
    };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

async fn unix(path: PathBuf, address: &Address) -> Result<Socket, ListenError> {
    let failed = |source| ListenError::Bind {
        address: address.to_string(),
        source,
    };
    match UnixStream::connect(&path).await {
        Ok(_) => return Err(ListenError::SocketInUse(path)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused && is_socket(&path) => {
            std::fs::remove_file(&path).map_err(failed)?;
        }
        Err(error) => return Err(failed(error)),
    }
    let listener = UnixListener::bind(&path).map_err(failed)?;
    let file = SocketFile::of(path).map_err(failed)?;
    // As PostgreSQL has it by default: who may log in is decided by the login.
    std::fs::set_permissions(&file.path, std::fs::Permissions::from_mode(0o777)).map_err(failed)?;
    Ok(Socket::Unix(listener, file))
}

fn is_socket(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt;
    std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket())
}

/// The file of a Unix socket, removed with the listener unless another has taken its place.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl SocketFile {
    fn of(path: PathBuf) -> io::Result<Self> {
        let found = std::fs::symlink_metadata(&path)?;
        Ok(Self {
            path,
            identity: (found.dev(), found.ino()),
        })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = std::fs::symlink_metadata(&self.path)
            .is_ok_and(|found| (found.dev(), found.ino()) == self.identity);
        if ours && let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "the socket file could not be removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(directory: &Path) -> Address {
        Address::Unix {
            directory: directory.to_path_buf(),
            port: 6432,
        }
    }

    #[tokio::test]
    async fn a_socket_file_is_open_to_all_and_gone_with_its_listener() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join(".s.PGSQL.6432");
        let sockets = Sockets::bind(&[address(directory.path())]).await.expect("bound");
        assert_eq!(sockets.bound(), [Bound::Unix(path.clone())]);
        let mode = std::fs::metadata(&path).expect("the file").permissions().mode();
        assert_eq!(mode & 0o777, 0o777);
        drop(sockets);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_a_living_one_is_not() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join(".s.PGSQL.6432");
        drop(UnixListener::bind(&path).expect("a socket whose owner is gone"));
        assert!(path.exists());
        let living = Sockets::bind(&[address(directory.path())]).await.expect("bound");
        let second = Sockets::bind(&[address(directory.path())]).await;
        assert!(matches!(second, Err(ListenError::SocketInUse(_))), "{second:?}");
        drop(living);
        std::fs::write(&path, "not a socket").expect("written");
        assert!(Sockets::bind(&[address(directory.path())]).await.is_err());
        assert!(path.exists(), "a file that is no socket is nobody's to remove");
    }

    #[tokio::test]
    async fn a_socket_that_another_listener_took_over_is_left_alone() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join(".s.PGSQL.6432");
        let first = Sockets::bind(&[address(directory.path())]).await.expect("bound");
        std::fs::rename(&path, directory.path().join("old")).expect("renamed");
        let second = Sockets::bind(&[address(directory.path())]).await.expect("bound");
        drop(first);
        assert!(path.exists());
        drop(second);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_name_is_bound_on_every_address_it_has() {
        let everywhere = Address::Tcp {
            host: "*".into(),
            port: 0,
        };
        let bound = Sockets::bind(&[everywhere]).await.expect("bound").bound();
        assert!(
            matches!(bound[0], Bound::Tcp(address) if address.ip().is_unspecified() && address.port() != 0)
        );
        assert!(matches!(Sockets::bind(&[]).await, Err(ListenError::NoAddress)));
    }
}
