//! TLS for clients: the proxy's certificate, and the authority whose certificates clients may show.
//!
//! Made while starting from PEM files, and again when they are renewed; used by the entrance for one handshake per connection.
//! Sessions are not resumed, as PostgreSQL does not resume them: no state of one client serves another. A client that begins with
//! TLS at once must name the protocol by ALPN, so that bytes meant for another service are not taken for PostgreSQL's.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use tokio_rustls::rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use tokio_rustls::rustls::{self, RootCertStore, ServerConfig};
use tokio_rustls::server::TlsStream;
use x509_certificate::X509Certificate;

use crate::auth::Channel;
use crate::listener::error::DoorError;
use crate::protocol::end_point::hash_of;

const ALPN: &[u8] = b"postgresql";

/// Where the certificates are.
#[derive(Clone, Debug)]
pub struct ClientTlsSettings {
    /// The proxy's certificate and those between it and its root, in PEM.
    pub certificate: PathBuf,
    /// The certificate's private key, in PEM.
    pub key: PathBuf,
    /// The authority that signs clients' certificates, in PEM; without it none is asked for.
    pub client_ca: Option<PathBuf>,
    /// True when a client must show a certificate, whatever else its login asks for.
    pub client_certificate_required: bool,
}

/// Why TLS for clients cannot be offered.
#[derive(Debug, thiserror::Error)]
pub enum ClientTlsError {
    /// A file cannot be read, or does not hold what it should.
    #[error("{}: {reason}", .path.display())]
    File {
        /// The configured file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// rustls refused the configuration.
    #[error(transparent)]
    Config(#[from] rustls::Error),
    /// Certificates are required, and there is nothing to check them against.
    #[error("client certificates are required, but no authority for them is configured")]
    NoAuthority,
}

struct Loaded {
    acceptor: TlsAcceptor,
    end_point: Option<Vec<u8>>,
}

/// Files that were read and fit together.
pub struct Certificates(Loaded);

impl Certificates {
    /// Reads the files. Blocks on them.
    pub fn read(settings: &ClientTlsSettings) -> Result<Self, ClientTlsError> {
        load(settings).map(Self)
    }
}

/// TLS for clients, made ready.
pub struct ClientTls(ArcSwap<Loaded>);

impl ClientTls {
    /// TLS with these certificates.
    pub fn new(certificates: Certificates) -> Self {
        Self(ArcSwap::from_pointee(certificates.0))
    }

    /// Shows these from now on; connections that are open keep theirs.
    pub fn renew(&self, certificates: Certificates) {
        self.0.store(Arc::new(certificates.0));
    }

    /// One handshake. `is_direct`: the client began with it, without asking for TLS first.
    pub(crate) async fn handshake(
        &self,
        tcp: TcpStream,
        is_direct: bool,
    ) -> Result<(TlsStream<TcpStream>, Channel), DoorError> {
        let loaded = self.0.load_full();
        let stream = loaded.acceptor.accept(tcp).await.map_err(DoorError::Tls)?;
        let connection = stream.get_ref().1;
        if is_direct && connection.alpn_protocol() != Some(ALPN) {
            return Err(DoorError::NoAlpn);
        }
        let shown = connection.peer_certificates().and_then(<[_]>::first);
        let channel = Channel::Tls {
            end_point: loaded.end_point.clone(),
            certificate_name: shown.and_then(|certificate| common_name(certificate)),
        };
        Ok((stream, channel))
    }
}

impl std::fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientTls").finish_non_exhaustive()
    }
}

/// The one common name of a certificate that was found good; of several none is the name.
fn common_name(certificate: &[u8]) -> Option<Box<str>> {
    let certificate = X509Certificate::from_der(certificate).ok()?;
    let mut names = certificate.subject_name().iter_common_name();
    let name = names.next()?.to_string().ok()?;
    names.next().is_none().then(|| name.into())
}

fn load(settings: &ClientTlsSettings) -> Result<Loaded, ClientTlsError> {
    let provider = Arc::new(ring::default_provider());
    let chain = certificates(&settings.certificate)?;
    let end_point = chain.first().and_then(|leaf| hash_of(leaf));
    let key = PrivateKeyDer::from_pem_file(&settings.key).map_err(|error| ClientTlsError::File {
        path: settings.key.clone(),
        reason: error.to_string(),
    })?;
    let verifier = client_verifier(settings, &provider)?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(|error| ClientTlsError::File {
            path: settings.key.clone(),
            reason: format!("cannot be used with the certificate: {error}"),
        })?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Loaded {
        acceptor: TlsAcceptor::from(Arc::new(config)),
        end_point,
    })
}

fn client_verifier(
    settings: &ClientTlsSettings,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, ClientTlsError> {
    let Some(path) = &settings.client_ca else {
        return if settings.client_certificate_required {
            Err(ClientTlsError::NoAuthority)
        } else {
            Ok(WebPkiClientVerifier::no_client_auth())
        };
    };
    let failed = |reason: String| ClientTlsError::File {
        path: path.clone(),
        reason,
    };
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots
            .add(certificate)
            .map_err(|error| failed(error.to_string()))?;
    }
    let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
    if !settings.client_certificate_required {
        builder = builder.allow_unauthenticated();
    }
    builder.build().map_err(|error| failed(error.to_string()))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, ClientTlsError> {
    let failed = |reason: String| ClientTlsError::File {
        path: path.to_path_buf(),
        reason,
    };
    let read = CertificateDer::pem_file_iter(path).map_err(|error| failed(error.to_string()))?;
    let chain: Result<Vec<_>, _> = read.collect();
    let chain = chain.map_err(|error| failed(error.to_string()))?;
    if chain.is_empty() {
        return Err(failed("no certificate is in it".to_owned()));
    }
    Ok(chain)
}
