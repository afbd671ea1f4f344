//! How a server's certificate is checked in each TLS mode.
//!
//! Called by rustls during a handshake that `tls` configured. Signatures of the handshake are verified always, so that the peer
//! holds the key of the certificate it shows; what is forgiven is only who signed it, or which name it bears. As in libpq, a
//! certificate that stands among the roots itself needs nobody who signed it.

use std::sync::Arc;

use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::client::{WebPkiServerVerifier, verify_server_name};
use tokio_rustls::rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::server::ParsedCertificate;
use tokio_rustls::rustls::{CertificateError, DigitallySignedStruct, Error, SignatureScheme};

/// What is believed of a certificate.
#[derive(Debug)]
pub(crate) enum Trust {
    /// `prefer` and `require`: everything.
    AnyCertificate,
    /// `verify-ca`: what a root signed, under any name.
    AnyName(Roots),
    /// `verify-full`: what a root signed, under the host's name.
    HostName(Roots),
}

/// Certificates that are believed, and those that they signed.
#[derive(Debug)]
pub(crate) struct Roots {
    pub(crate) signers: Arc<WebPkiServerVerifier>,
    pub(crate) certificates: Vec<CertificateDer<'static>>,
}

impl Roots {
    /// Is the certificate a root itself, and refused for nothing but that? Its dates are looked at before.
    fn hold(&self, certificate: &CertificateDer<'_>, error: &Error) -> bool {
        let Error::InvalidCertificate(CertificateError::Other(why)) = error else {
            return false;
        };
        let why = why.0.downcast_ref::<webpki::Error>();
        why == Some(&webpki::Error::CaUsedAsEndEntity) && self.certificates.contains(certificate)
    }
}

/// A verifier that demands and forgives what its [`Trust`] says.
#[derive(Debug)]
pub(crate) struct Verifier {
    trust: Trust,
    provider: Arc<CryptoProvider>,
}

impl Verifier {
    pub(crate) fn new(trust: Trust, provider: &Arc<CryptoProvider>) -> Self {
        Self {
            trust,
            provider: Arc::clone(provider),
        }
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let (roots, any_name) = match &self.trust {
            Trust::AnyCertificate => return Ok(ServerCertVerified::assertion()),
            Trust::AnyName(roots) => (roots, true),
            Trust::HostName(roots) => (roots, false),
        };
        let signers = &roots.signers;
        let verified = signers.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        match verified {
            // webpki looks at the name last, after the chain has been found good.
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if any_name => Ok(ServerCertVerified::assertion()),
            Err(error) if roots.hold(end_entity, &error) => {
                if !any_name {
                    verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
                }
                Ok(ServerCertVerified::assertion())
            }
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(
            message,
            cert,
            dss,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(
            message,
            cert,
            dss,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
