//! `[tls.client]` and `[tls.server]`: encryption towards clients, and towards PostgreSQL.
//!
//! Read by `Config::load`; used by the listener and by the pools. Files are named here and read by whoever uses them.

use std::path::PathBuf;

use super::kind::{Optional, ReadableFile, Words};
use super::reader::Section;

/// TLS towards clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientTlsMode {
    /// Never.
    Disable,
    /// As the client likes, when there is a certificate to show.
    #[default]
    Allow,
    /// Clients without it are refused; Unix sockets need none.
    Require,
}

/// TLS towards servers, as in libpq's `sslmode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ServerTlsMode {
    /// Never.
    Disable,
    /// When the server offers it; its certificate is not checked.
    #[default]
    Prefer,
    /// Always; the certificate is checked only where root certificates are given.
    Require,
    /// Always; a root must have signed the certificate.
    VerifyCa,
    /// Always; the host's name must match, too.
    VerifyFull,
}

/// What the proxy shows to clients, and asks of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientTls {
    /// When TLS is used.
    pub mode: ClientTlsMode,
    /// The proxy's certificate chain, PEM.
    pub cert: Option<PathBuf>,
    /// Its private key, PEM.
    pub key: Option<PathBuf>,
    /// Who must have signed clients' certificates, PEM.
    pub ca: Option<PathBuf>,
}

/// What the proxy asks of servers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerTls {
    /// When TLS is used, and what it must prove.
    pub mode: ServerTlsMode,
    /// Who must have signed servers' certificates, PEM; `None`: the system's own.
    pub root_cert: Option<PathBuf>,
}

/// Both sides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsConfig {
    /// Towards clients.
    pub client: ClientTls,
    /// Towards servers.
    pub server: ServerTls,
}

impl TlsConfig {
    pub(super) fn read(&mut self, mut section: Section<'_>) {
        const CLIENT: &[(&str, ClientTlsMode)] = &[
            ("disable", ClientTlsMode::Disable),
            ("allow", ClientTlsMode::Allow),
            ("require", ClientTlsMode::Require),
        ];
        const SERVER: &[(&str, ServerTlsMode)] = &[
            ("disable", ServerTlsMode::Disable),
            ("prefer", ServerTlsMode::Prefer),
            ("require", ServerTlsMode::Require),
            ("verify-ca", ServerTlsMode::VerifyCa),
            ("verify-full", ServerTlsMode::VerifyFull),
        ];
        const FILE: Optional<ReadableFile> = Optional {
            none: "",
            kind: ReadableFile,
        };
        let mut client = section.section("client");
        client.read("mode", &mut self.client.mode, &Words(CLIENT));
        client.read("cert", &mut self.client.cert, &FILE);
        client.read("key", &mut self.client.key, &FILE);
        client.read("ca", &mut self.client.ca, &FILE);
        let mut server = section.section("server");
        server.read("mode", &mut self.server.mode, &Words(SERVER));
        server.read("root_cert", &mut self.server.root_cert, &FILE);
    }
}
