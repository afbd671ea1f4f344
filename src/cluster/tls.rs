//! TLS for control connections, as tokio-postgres wants it, over the rustls configuration that the pools use.
//!
//! Built by whoever starts the cluster (`ServerTls::for_control`), used by `connect` for every control connection. Invariant:
//! `required` never falls back to plain text, and nothing does after a handshake failed. It chooses no certificates and no
//! modes. A handshake may be dropped at any point; that closes the socket.

use std::{
    fmt, io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::config::SslMode;
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};
use tokio_rustls::{TlsConnector, client, rustls::pki_types::ServerName};

use crate::protocol::end_point;

/// Whether control connections use TLS, and with which checks. The default is never.
#[derive(Clone, Default)]
pub struct ControlTls(Option<(SslMode, TlsConnector)>);

impl ControlTls {
    /// TLS where the server offers it.
    pub fn preferred(connector: TlsConnector) -> Self {
        Self(Some((SslMode::Prefer, connector)))
    }

    /// TLS or no connection.
    pub fn required(connector: TlsConnector) -> Self {
        Self(Some((SslMode::Require, connector)))
    }

    /// The mode for a host; PostgreSQL speaks no TLS on Unix sockets.
    pub fn mode(&self, host: &str) -> SslMode {
        match &self.0 {
            Some((mode, _)) if !host.starts_with('/') => *mode,
            _ => SslMode::Disable,
        }
    }
}

impl fmt::Debug for ControlTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ControlTls")
            .field(&self.0.as_ref().map(|(mode, _)| mode))
            .finish()
    }
}

impl<S> MakeTlsConnect<S> for ControlTls
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    type Stream = ControlStream<S>;
    type TlsConnect = Handshake;
    type Error = io::Error;

    fn make_tls_connect(&mut self, host: &str) -> io::Result<Handshake> {
        Ok(Handshake {
            connector: self.0.as_ref().map(|(_, connector)| connector.clone()),
            host: host.to_owned(),
        })
    }
}

/// One handshake with one host.
pub struct Handshake {
    connector: Option<TlsConnector>,
    host: String,
}

impl<S> TlsConnect<S> for Handshake
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    type Stream = ControlStream<S>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<ControlStream<S>>> + Send>>;

    fn connect(self, stream: S) -> Self::Future {
        Box::pin(async move {
            let connector = self.connector.ok_or(io::ErrorKind::Unsupported)?;
            let name = ServerName::try_from(self.host).map_err(io::Error::other)?;
            connector
                .connect(name, stream)
                .await
                .map(|stream| ControlStream(Box::new(stream)))
        })
    }
}

/// An encrypted control connection.
pub struct ControlStream<S>(Box<client::TlsStream<S>>);

impl<S: AsyncRead + AsyncWrite + Unpin> TlsStream for ControlStream<S> {
    fn channel_binding(&self) -> ChannelBinding {
        let certificates = self.0.get_ref().1.peer_certificates();
        certificates
            .and_then(|chain| chain.first())
            .and_then(|leaf| end_point::hash_of(leaf))
            .map_or_else(ChannelBinding::none, ChannelBinding::tls_server_end_point)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for ControlStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for ControlStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
