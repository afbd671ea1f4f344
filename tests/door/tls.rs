//! TLS for clients: asked for, direct, demanded; certificates of both sides, and SCRAM bound to the channel.
//!
//! The clients are psql, because libpq's word on channel binding and certificates is the one that counts, and rustls with bare
//! bytes where psql cannot misbehave. All certificates are made here.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pgladder::auth::{AuthSettings, Method};
use pgladder::demo::binaries::Binaries;
use pgladder::listener::{
    Certificates, ClientTls, ClientTlsError, ClientTlsSettings, ListenError, Listener, ListenerSettings,
};
use pgladder::pool::Secret;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::listening::{GSSENC_REQUEST, Listening, SSL_REQUEST, scram, startup, trust};

/// A directory with an authority and what it signed.
struct Papers {
    directory: tempfile::TempDir,
    authority: Issuer<'static, KeyPair>,
}

impl Papers {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(DnType::CommonName, "Authority of the test");
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate");
        let papers = Self {
            directory: tempfile::tempdir().expect("a directory"),
            authority: Issuer::new(params, key),
        };
        papers.write("authority.pem", &certificate.pem());
        papers.issue("server", "pgladder");
        papers
    }

    /// Makes a key and a certificate for a name; each time another.
    fn issue(&self, file: &str, name: &str) {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).expect("parameters");
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.authority).expect("a certificate");
        self.write(&format!("{file}.pem"), &certificate.pem());
        self.write(&format!("{file}.key"), &key.serialize_pem());
    }

    fn path(&self, file: &str) -> PathBuf {
        self.directory.path().join(file)
    }

    fn write(&self, file: &str, text: &str) {
        use std::os::unix::fs::PermissionsExt;
        std::fs::write(self.path(file), text).expect("written");
        let private = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(self.path(file), private).expect("made private");
    }

    fn settings(&self) -> ClientTlsSettings {
        ClientTlsSettings {
            certificate: self.path("server.pem"),
            key: self.path("server.key"),
            client_ca: Some(self.path("authority.pem")),
            client_certificate_required: false,
        }
    }

    fn tls(&self) -> Arc<ClientTls> {
        Arc::new(ClientTls::new(
            Certificates::read(&self.settings()).expect("good files"),
        ))
    }

    async fn listen(&self, auth: AuthSettings) -> Listening {
        Listening::start(auth, |settings| settings.tls = Some(self.tls())).await
    }

    fn connector(&self, alpn: &[&[u8]]) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        let authority = CertificateDer::from_pem_file(self.path("authority.pem")).expect("a certificate");
        roots.add(authority).expect("a root");
        let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        TlsConnector::from(Arc::new(config))
    }

    async fn handshake(&self, tcp: TcpStream, alpn: &[&[u8]]) -> std::io::Result<TlsStream<TcpStream>> {
        let name = ServerName::try_from("localhost").expect("a name");
        self.connector(alpn).connect(name, tcp).await
    }

    /// What psql says of its connection, or why it has none. `\conninfo` asks libpq alone, so that it needs no server behind.
    async fn psql(&self, door: &Listening, options: &str) -> Result<String, String> {
        let program = Binaries::find().expect("PostgreSQL's programs").program("psql");
        let target = format!(
            "host=localhost hostaddr=127.0.0.1 port={} dbname=app sslrootcert={} {options}",
            door.port("127.0.0.1"),
            self.path("authority.pem").display(),
        );
        let mut psql = tokio::process::Command::new(program);
        psql.args(["-X", "-c", r"\conninfo", &target])
            .env("PGPASSWORD", "secret")
            .env("LC_ALL", "C")
            .env("HOME", self.directory.path())
            .kill_on_drop(true);
        let output = psql.output().await.expect("psql runs");
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        if output.status.success() {
            Ok(text(output.stdout))
        } else {
            Err(text(output.stderr))
        }
    }

    fn certificate_of(&self, name: &str) -> String {
        format!(
            "sslcert={} sslkey={}",
            self.path(&format!("{name}.pem")).display(),
            self.path(&format!("{name}.key")).display()
        )
    }
}

async fn asked_for_tls(door: &Listening) -> TcpStream {
    let mut raw = door.connect().await;
    raw.send(SSL_REQUEST).await;
    assert_eq!(raw.bytes(1).await, b"S");
    raw.stream
}

/// The next message's tag and body.
async fn message(stream: &mut TlsStream<TcpStream>) -> (u8, Vec<u8>) {
    let mut head = [0; 5];
    stream.read_exact(&mut head).await.expect("a message");
    let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
    let mut body = vec![0; length - 4];
    stream.read_exact(&mut body).await.expect("its body");
    (head[0], body)
}

async fn expect_login(stream: &mut TlsStream<TcpStream>) {
    stream
        .write_all(&startup(0, &[("user", "ann")]))
        .await
        .expect("written");
    assert_eq!(message(stream).await, (b'R', vec![0, 0, 0, 0]));
    assert_eq!(message(stream).await, (b'Z', vec![b'I']));
}

#[tokio::test]
async fn libpq_verifies_the_door_and_binds_its_login_to_the_channel() {
    let papers = Papers::new();
    let door = papers.listen(scram(&[("ann", "secret"), ("bob", "other")])).await;
    let strict = "sslmode=verify-full channel_binding=require";
    let said = papers
        .psql(&door, &format!("user=ann {strict}"))
        .await
        .expect("logged in");
    assert!(said.contains("TLSv1.3"), "{said}");
    let seen = door.next_client().await;
    assert!(seen.tls);
    assert!(matches!(seen.identity.keys, Some(Secret::Password(_))));
    papers
        .psql(
            &door,
            "user=ann sslmode=require ssl_max_protocol_version=TLSv1.2 channel_binding=disable",
        )
        .await
        .expect("logged in without binding, over an older TLS");
    papers
        .psql(&door, "user=ann sslmode=disable")
        .await
        .expect("logged in without TLS");
    let refused = papers
        .psql(&door, &format!("user=bob {strict}"))
        .await
        .expect_err("refused");
    assert!(
        refused.contains("password authentication failed for user \"bob\""),
        "{refused}"
    );
}

#[tokio::test]
async fn a_certificate_logs_in_the_role_that_it_names() {
    let papers = Papers::new();
    papers.issue("ann", "ann");
    let strangers = Papers::new();
    strangers.issue("ann", "ann");
    let certificates = AuthSettings {
        method: Method::Certificate,
        ..AuthSettings::default()
    };
    let door = papers.listen(certificates).await;
    let ann = papers.certificate_of("ann");
    papers
        .psql(&door, &format!("user=ann sslmode=verify-full {ann}"))
        .await
        .expect("logged in");
    assert_eq!(&*door.next_client().await.user, "ann");
    let check = async |options: String, text: &str| {
        let refused = papers.psql(&door, &options).await.expect_err("refused");
        assert!(refused.contains(text), "{options}: {refused}");
    };
    check(
        format!("user=bob sslmode=require {ann}"),
        "certificate authentication failed for user \"bob\"",
    )
    .await;
    check(
        "user=ann sslmode=require".to_owned(),
        "connection requires a valid client certificate",
    )
    .await;
    check(
        "user=ann sslmode=disable".to_owned(),
        "connection requires a valid client certificate",
    )
    .await;
    let forged = strangers.certificate_of("ann");
    check(format!("user=ann sslmode=require {forged}"), "alert").await;
    assert!(door.no_client_came());
}

#[tokio::test]
async fn tls_may_come_at_once_when_it_names_the_protocol() {
    let papers = Papers::new();
    let door = papers.listen(trust()).await;
    let tcp = door.connect().await.stream;
    let mut direct = papers
        .handshake(tcp, &[b"postgresql"])
        .await
        .expect("a handshake");
    expect_login(&mut direct).await;
    assert!(door.next_client().await.tls);

    let tcp = door.connect().await.stream;
    let mut unnamed = papers.handshake(tcp, &[]).await.expect("a handshake");
    // Whether the door has closed before or after this is written, it must not be answered.
    drop(unnamed.write_all(&startup(0, &[("user", "eve")])).await);
    let ended = unnamed.read(&mut [0]).await;
    assert!(!matches!(ended, Ok(1..)), "{ended:?}");
    let tcp = door.connect().await.stream;
    papers
        .handshake(tcp, &[b"h2"])
        .await
        .expect_err("another protocol's client");
    assert!(door.no_client_came());

    let tcp = asked_for_tls(&door).await;
    let mut asked = papers
        .handshake(tcp, &[])
        .await
        .expect("a handshake that was asked for needs no name");
    expect_login(&mut asked).await;
}

#[tokio::test]
async fn plaintext_before_the_handshake_never_reaches_the_inside() {
    let papers = Papers::new();
    let door = papers.listen(trust()).await;
    let mut raw = door.connect().await;
    raw.send(&[SSL_REQUEST, &startup(0, &[("user", "eve")])].concat())
        .await;
    raw.expect_end().await;
    let mut late = door.connect().await;
    late.send(SSL_REQUEST).await;
    assert_eq!(late.bytes(1).await, b"S");
    late.send(&startup(0, &[("user", "eve")])).await;
    late.expect_end_of_stream().await;
    assert!(door.no_client_came());
}

#[tokio::test]
async fn inside_tls_no_other_encryption_can_be_asked_for() {
    let papers = Papers::new();
    let door = papers.listen(trust()).await;
    for request in [SSL_REQUEST, GSSENC_REQUEST] {
        let tcp = asked_for_tls(&door).await;
        let mut stream = papers.handshake(tcp, &[]).await.expect("a handshake");
        stream.write_all(request).await.expect("written");
        let (tag, body) = message(&mut stream).await;
        assert_eq!(
            (tag, pgladder::protocol::error::fields(&body).code),
            (b'E', &b"0A000"[..])
        );
        assert_eq!(stream.read(&mut [0]).await.expect("a clean end"), 0);
    }
}

#[tokio::test]
async fn where_tls_is_demanded_only_unix_sockets_go_without() {
    let papers = Papers::new();
    let door = Listening::start(trust(), |settings| {
        settings.tls = Some(papers.tls());
        settings.tls_required = true;
    })
    .await;
    let mut plain = door.connect().await;
    plain.send(&startup(0, &[("user", "ann")])).await;
    let refused = plain.error().await;
    assert_eq!(
        (&*refused.code, &*refused.message),
        ("28000", "this server accepts TLS connections only")
    );
    papers
        .psql(&door, "user=ann sslmode=verify-full")
        .await
        .expect("logged in");
    assert!(door.next_client().await.tls);

    let socket = format!("{}/.s.PGSQL.6432", door.directory());
    let mut unix = tokio::net::UnixStream::connect(socket).await.expect("connected");
    unix.write_all(SSL_REQUEST).await.expect("written");
    assert_eq!(unix.read_u8().await.expect("an answer"), b'N');
    unix.write_all(&startup(0, &[("user", "ann")]))
        .await
        .expect("written");
    assert!(!door.next_client().await.tls);
}

#[tokio::test]
async fn certificates_are_renewed_without_a_restart() {
    let papers = Papers::new();
    let tls = papers.tls();
    let door = Listening::start(trust(), |settings| settings.tls = Some(Arc::clone(&tls))).await;
    let shown = async || {
        let tcp = asked_for_tls(&door).await;
        let stream = papers.handshake(tcp, &[]).await.expect("a handshake");
        let certificates = stream.get_ref().1.peer_certificates().expect("a certificate");
        certificates[0].to_vec()
    };
    let first = shown().await;
    papers.issue("server", "pgladder");
    assert_eq!(shown().await, first, "files are read when it is asked for");
    tls.renew(Certificates::read(&papers.settings()).expect("good files"));
    let second = shown().await;
    assert_ne!(second, first);
    papers.write("server.pem", "no certificate");
    assert!(matches!(
        Certificates::read(&papers.settings()),
        Err(ClientTlsError::File { .. })
    ));
    assert_eq!(shown().await, second);
}

#[tokio::test]
async fn files_that_do_not_fit_are_named() {
    let papers = Papers::new();
    papers.issue("other", "other");
    papers.write("empty.pem", "");
    let check = |change: &dyn Fn(&mut ClientTlsSettings), part: &str| {
        let mut settings = papers.settings();
        change(&mut settings);
        let refused = Certificates::read(&settings).err().expect("refused").to_string();
        assert!(refused.contains(part), "{refused}");
    };
    check(
        &|settings| settings.certificate = "/nonexistent.pem".into(),
        "/nonexistent.pem",
    );
    check(
        &|settings| settings.certificate = papers.path("empty.pem"),
        "empty.pem: no certificate is in it",
    );
    check(&|settings| settings.key = papers.path("server.pem"), "server.pem");
    check(
        &|settings| settings.key = papers.path("other.key"),
        "other.key: cannot be used with the certificate",
    );
    check(
        &|settings| settings.client_ca = Some(papers.path("empty.pem")),
        "empty.pem",
    );
    check(
        &|settings| (settings.client_ca, settings.client_certificate_required) = (None, true),
        "no authority",
    );
    let demanding = ListenerSettings {
        tls_required: true,
        ..ListenerSettings::default()
    };
    let auth = Arc::new(pgladder::auth::Auth::new(trust()));
    let refused = Listener::bind(demanding, auth).await;
    assert!(matches!(refused, Err(ListenError::NoCertificate)), "{refused:?}");
}

#[tokio::test(start_paused = true)]
async fn a_handshake_that_stops_ends_with_the_login_timeout() {
    let papers = Papers::new();
    let door = papers.listen(trust()).await;
    let begun = tokio::time::Instant::now();
    let mut silent = asked_for_tls(&door).await;
    assert!(!matches!(silent.read(&mut [0]).await, Ok(1..)));
    assert!(
        begun.elapsed() >= Duration::from_secs(15),
        "{:?}",
        begun.elapsed()
    );
}

#[tokio::test]
async fn a_client_certificate_can_be_demanded_beside_the_password() {
    let papers = Papers::new();
    papers.issue("anybody", "anybody");
    let mut settings = papers.settings();
    settings.client_certificate_required = true;
    let tls = Arc::new(ClientTls::new(Certificates::read(&settings).expect("good files")));
    let door = Listening::start(scram(&[("ann", "secret")]), |settings| settings.tls = Some(tls)).await;
    papers
        .psql(&door, "user=ann sslmode=require")
        .await
        .expect_err("no certificate");
    let with = format!("user=ann sslmode=require {}", papers.certificate_of("anybody"));
    papers.psql(&door, &with).await.expect("logged in");
}
