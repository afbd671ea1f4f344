//! TLS to servers: the six words of libpq's `sslmode` that matter, and how a certificate is checked under each.
//!
//! Called by `connect` after the server answered the SSLRequest. Below `verify-ca` any certificate is taken, as in libpq, which
//! protects from listening but not from an impostor; the handshake's signatures are verified in every mode. It keeps no keys.

use std::io;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore};

use crate::cluster::ControlTls;
use crate::pool::scram::Binding;
use crate::pool::verifier::{Roots, Trust, Verifier};
use crate::protocol::end_point;

/// When TLS is used to a server, and what it must prove.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsMode {
    /// Never.
    Disable,
    /// When the server offers it; its certificate is not checked.
    #[default]
    Prefer,
    /// Always; the certificate is not checked unless root certificates are configured.
    Require,
    /// Always; a root must have signed the certificate.
    VerifyCa,
    /// Always; also the host's name must match.
    VerifyFull,
}

impl FromStr for TlsMode {
    type Err = TlsError;

    fn from_str(text: &str) -> Result<Self, TlsError> {
        match text {
            "disable" => Ok(Self::Disable),
            "prefer" => Ok(Self::Prefer),
            "require" => Ok(Self::Require),
            "verify-ca" => Ok(Self::VerifyCa),
            "verify-full" => Ok(Self::VerifyFull),
            other => Err(TlsError::Mode(other.to_owned())),
        }
    }
}

/// Why TLS to a server is not possible.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The mode is not one of ours.
    #[error("\"{0}\" is not one of disable, prefer, require, verify-ca, verify-full")]
    Mode(String),
    /// The file of root certificates cannot be used.
    #[error("the root certificates in {path} cannot be used: {reason}")]
    Roots {
        /// The configured file.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The mode demands TLS and the server has none.
    #[error("the server does not offer TLS")]
    NotOffered,
    /// Neither `S` nor `N` came back.
    #[error("the server answered the TLS request with byte {0:#04x}")]
    Answer(u8),
    /// rustls refused the configuration.
    #[error("{0}")]
    Config(#[from] rustls::Error),
    /// The host cannot stand in a certificate.
    #[error("\"{0}\" is not a name that a certificate can hold")]
    Name(String),
    /// The handshake failed.
    #[error("the handshake failed: {0}")]
    Handshake(#[source] io::Error),
}

/// A mode made ready.
#[derive(Clone)]
pub struct ServerTls {
    mode: TlsMode,
    connector: Option<TlsConnector>,
}

impl ServerTls {
    /// Reads the roots (the system's when no file is given and the mode verifies). Blocks on files: call it while starting.
    pub fn new(mode: TlsMode, roots: Option<PathBuf>) -> Result<Self, TlsError> {
        let mode = if mode == TlsMode::Require && roots.is_some() {
            TlsMode::VerifyCa
        } else {
            mode
        };
        if mode == TlsMode::Disable {
            return Ok(Self {
                mode,
                connector: None,
            });
        }
        let provider = Arc::new(ring::default_provider());
        let trust = match mode {
            TlsMode::VerifyFull => Trust::HostName(read_roots(&provider, roots)?),
            TlsMode::VerifyCa => Trust::AnyName(read_roots(&provider, roots)?),
            _ => Trust::AnyCertificate,
        };
        let verifier = Verifier::new(trust, &provider);
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        Ok(Self {
            mode,
            connector: Some(TlsConnector::from(Arc::new(config))),
        })
    }

    /// The mode in effect.
    pub fn mode(&self) -> TlsMode {
        self.mode
    }

    /// The same mode and the same checks for the control connections.
    pub fn for_control(&self) -> ControlTls {
        match (&self.connector, self.mode) {
            (None, _) | (_, TlsMode::Disable) => ControlTls::default(),
            (Some(connector), TlsMode::Prefer) => ControlTls::preferred(connector.clone()),
            (Some(connector), _) => ControlTls::required(connector.clone()),
        }
    }

    /// The handshake, after the server said `S` and nothing else.
    pub(crate) async fn handshake(
        &self,
        host: &str,
        tcp: TcpStream,
    ) -> Result<TlsStream<TcpStream>, TlsError> {
        let connector = self.connector.as_ref().ok_or(TlsError::NotOffered)?;
        let name = ServerName::try_from(host.to_owned()).map_err(|_| TlsError::Name(host.to_owned()))?;
        connector.connect(name, tcp).await.map_err(TlsError::Handshake)
    }
}

fn read_roots(provider: &Arc<CryptoProvider>, roots: Option<PathBuf>) -> Result<Roots, TlsError> {
    let path = roots.as_ref().map_or_else(
        || "the system's store".to_owned(),
        |path| path.display().to_string(),
    );
    let failed = |reason: String| TlsError::Roots {
        path: path.clone(),
        reason,
    };
    let (mut store, mut certificates) = (RootCertStore::empty(), Vec::new());
    if let Some(file) = roots {
        let read = CertificateDer::pem_file_iter(file).map_err(|error| failed(error.to_string()))?;
        for certificate in read {
            let certificate = certificate.map_err(|error| failed(error.to_string()))?;
            store
                .add(certificate.clone())
                .map_err(|error| failed(error.to_string()))?;
            certificates.push(certificate);
        }
    } else {
        store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    }
    if store.is_empty() {
        return Err(failed("no certificate is in it".to_owned()));
    }
    let signers = WebPkiServerVerifier::builder_with_provider(Arc::new(store), Arc::clone(provider))
        .build()
        .map_err(|error| failed(error.to_string()))?;
    Ok(Roots {
        signers,
        certificates,
    })
}

/// The tls-server-end-point binding of an established stream (RFC 5929, section 4.1).
pub(crate) fn end_point(stream: &TlsStream<TcpStream>) -> Binding {
    let certificates = stream.get_ref().1.peer_certificates();
    certificates
        .and_then(|chain| chain.first())
        .and_then(|leaf| end_point::hash_of(leaf))
        .map_or(Binding::Unsupported, Binding::EndPoint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verifying_mode_needs_roots_that_can_be_read() {
        let missing = ServerTls::new(TlsMode::VerifyFull, Some("/nonexistent/roots.pem".into()));
        assert!(matches!(missing, Err(TlsError::Roots { .. })));
        assert!(matches!("verify_full".parse::<TlsMode>(), Err(TlsError::Mode(_))));
        assert_eq!(
            "verify-full".parse::<TlsMode>().expect("a mode"),
            TlsMode::VerifyFull
        );
    }
}
