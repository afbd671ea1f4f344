//! The proxy of the demo: where it listens, and the task that it runs in.
//!
//! Used by `demo::run`. It runs in the demo's own process, so that it ends with it. Its end is never silent: a proxy that
//! stops by itself, with an error or without one, is an error of the demo. It configures nothing but addresses and nodes.
//! Dropping it aborts the task; `shut_down` lets it drain first.

use std::error::Error;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::cluster::{SUPERUSER, ThrowAwayCluster};
use crate::config::{AuthMethod, Config, Endpoint, NodeConfig, StreamUse};
use crate::serve::serve_and_tell;

/// How long the proxy may take to listen, and to drain.
const PATIENCE: Duration = Duration::from_secs(30);

const USUAL_PORT: u16 = 6432;
const USUAL_HTTP_PORT: u16 = 9632;

/// What clients need to reach it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyAddress {
    /// A name or an address, as libpq takes it.
    pub host: String,
    /// The port for SQL.
    pub port: u16,
    /// Where `/metrics` and its like are.
    pub http: Option<SocketAddr>,
}

/// Why there is no proxy, or none any more.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// It ended with an error.
    #[error("the proxy ended")]
    Failed(#[source] Box<dyn Error + Send + Sync>),
    /// It ended although nobody told it to.
    #[error("the proxy ended by itself")]
    Ended,
    /// Nobody listens at its address.
    #[error("the proxy does not listen on {host}:{port} after {} seconds", PATIENCE.as_secs())]
    Silent {
        /// As in its address.
        host: String,
        /// As in its address.
        port: u16,
    },
    /// No port is free.
    #[error("no free port on 127.0.0.1")]
    NoPort(#[source] std::io::Error),
    /// It did not end in time.
    #[error("the proxy did not stop within {} seconds", PATIENCE.as_secs())]
    Stuck,
}

/// A running proxy.
#[derive(Debug)]
pub struct Proxy {
    address: ProxyAddress,
    stop: CancellationToken,
    serving: JoinSet<Result<(), Box<dyn Error + Send + Sync>>>,
}

impl Proxy {
    /// pgladder with its defaults in front of the cluster, where the loopback interface is trusted.
    pub async fn start(cluster: &ThrowAwayCluster, port: Option<u16>) -> Result<Self, ProxyError> {
        let port = match port {
            Some(port) => port,
            None => usual_or_free(USUAL_PORT)?,
        };
        let http = SocketAddr::from((Ipv4Addr::LOCALHOST, usual_or_free(USUAL_HTTP_PORT)?));
        let address = ProxyAddress {
            host: Ipv4Addr::LOCALHOST.to_string(),
            port,
            http: Some(http),
        };
        let (stop, (bound, listens)) = (CancellationToken::new(), oneshot::channel());
        let serve = serve_and_tell(configuration(cluster, &address), stop.clone(), bound);
        Self::launch(address, stop, serve, listens).await
    }

    /// Something that was started by somebody else, and that this will not end.
    pub fn elsewhere(address: ProxyAddress) -> Self {
        Self {
            address,
            stop: CancellationToken::new(),
            serving: JoinSet::new(),
        }
    }

    /// Runs `serve`, which ends when `stop` is cancelled, and waits until it tells that it listens.
    async fn launch<E, T>(
        address: ProxyAddress,
        stop: CancellationToken,
        serve: impl Future<Output = Result<(), E>> + Send + 'static,
        listens: oneshot::Receiver<T>,
    ) -> Result<Self, ProxyError>
    where
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        let mut serving = JoinSet::new();
        serving.spawn(async move { serve.await.map_err(Into::into) });
        let mut proxy = Self {
            address,
            stop,
            serving,
        };
        match tokio::time::timeout(PATIENCE, listens).await {
            Ok(Ok(_)) => Ok(proxy),
            // It dropped its end of the channel, and so it has ended or is about to.
            Ok(Err(_)) => Err(proxy.ended().await),
            Err(_) => Err(ProxyError::Silent {
                host: proxy.address.host,
                port: proxy.address.port,
            }),
        }
    }

    /// Where it listens.
    pub fn address(&self) -> &ProxyAddress {
        &self.address
    }

    /// Why it ended without having been told to; pending while it runs.
    pub async fn ended(&mut self) -> ProxyError {
        match self.serving.join_next().await {
            Some(ended) => match ended.expect("the proxy does not panic") {
                Ok(()) => ProxyError::Ended,
                Err(error) => ProxyError::Failed(error),
            },
            None => std::future::pending().await,
        }
    }

    /// Tells it to stop and waits until it has.
    pub async fn shut_down(mut self) -> Result<(), ProxyError> {
        self.stop.cancel();
        let ended = tokio::time::timeout(PATIENCE, self.serving.join_next()).await;
        match ended.map_err(|_| ProxyError::Stuck)? {
            Some(ended) => ended
                .expect("the proxy does not panic")
                .map_err(ProxyError::Failed),
            None => Ok(()),
        }
    }
}

fn configuration(cluster: &ThrowAwayCluster, address: &ProxyAddress) -> Config {
    let endpoint = |port| Endpoint::Tcp {
        host: Ipv4Addr::LOCALHOST.to_string(),
        port,
    };
    let mut config = Config::default();
    config.listen.addresses = vec![endpoint(address.port)];
    config.nodes = (0..cluster.node_count())
        .map(|node| NodeConfig {
            address: endpoint(cluster.port(node)),
            weight: 1,
        })
        .collect();
    SUPERUSER.clone_into(&mut config.cluster.control_user);
    config.auth.method = AuthMethod::Trust;
    // The walk shows what the proxy sees by itself, and counts every entry that ends.
    config.stream.enabled = StreamUse::Off;
    config.http.listen = address.http.map(|http| endpoint(http.port()));
    config
}

/// Between looking and listening another process may take it: then the proxy says so.
fn usual_or_free(usual: u16) -> Result<u16, ProxyError> {
    let bind = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port));
    let listener = bind(usual).or_else(|_| bind(0)).map_err(ProxyError::NoPort)?;
    Ok(listener.local_addr().map_err(ProxyError::NoPort)?.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address() -> ProxyAddress {
        ProxyAddress {
            host: "127.0.0.1".to_owned(),
            port: 1,
            http: None,
        }
    }

    #[tokio::test]
    async fn it_stops_when_told() {
        let stop = CancellationToken::new();
        let (told, (tell, listens)) = (stop.clone(), oneshot::channel());
        let serve = async move {
            tell.send("it listens").expect("the launch waits for it");
            told.cancelled().await;
            Ok::<(), std::io::Error>(())
        };
        let proxy = Proxy::launch(address(), stop, serve, listens)
            .await
            .expect("it listens");
        assert_eq!(proxy.address(), &address());
        proxy.shut_down().await.expect("it was told to");
    }

    #[tokio::test]
    async fn an_end_of_its_own_is_an_error() {
        let stop = CancellationToken::new();
        let (tell, listens) = oneshot::channel::<()>();
        let fails = async move {
            drop(tell);
            Err(std::io::Error::other("the address is taken"))
        };
        let failed = Proxy::launch(address(), stop.clone(), fails, listens).await;
        assert!(
            matches!(failed, Err(ProxyError::Failed(error)) if error.to_string() == "the address is taken")
        );

        let (tell, listens) = oneshot::channel();
        let ends = async move {
            tell.send(()).expect("the launch waits for it");
            Ok::<(), std::io::Error>(())
        };
        let mut ended = Proxy::launch(address(), stop, ends, listens)
            .await
            .expect("it listened");
        assert!(matches!(ended.ended().await, ProxyError::Ended));
    }

    #[test]
    fn a_port_that_is_taken_is_not_chosen() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let usual = taken.local_addr().expect("it is bound").port();
        let chosen = usual_or_free(usual).expect("another is free");
        assert_ne!(chosen, usual);
    }
}
