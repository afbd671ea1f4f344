//! Whole logins over a pipe, with postgres-protocol as the client.
//!
//! What is proved: what each side says, that refusals cannot be told apart, that the keys which a login yields open a server, and
//! that no malformed message gets further than its refusal.

use bytes::{Buf, BytesMut};
use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};
use postgres_protocol::message::frontend;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::*;
use crate::pool::Secret;
use crate::protocol::sqlstate;

/// A login's far end.
struct Client {
    stream: DuplexStream,
    /// Everything that the server sent, without what is random in each exchange.
    heard: Vec<u8>,
}

impl Client {
    async fn message(&mut self) -> (u8, BytesMut) {
        let mut head = [0; 5];
        self.stream.read_exact(&mut head).await.expect("a message");
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
        let mut body = BytesMut::zeroed(length as usize - 4);
        self.stream.read_exact(&mut body).await.expect("its body");
        (head[0], body)
    }

    /// The body of an authentication request with this code.
    async fn request(&mut self, code: i32) -> BytesMut {
        let (tag, mut body) = self.message().await;
        assert_eq!((tag, body.get_i32()), (b'R', code));
        body
    }

    /// Plays the client's part up to its proof; returns the exchange, to check the server's.
    async fn play(&mut self, password: &str, binding: ChannelBinding, mechanism: &str) -> ScramSha256 {
        let offered = self.request(10).await;
        self.heard.extend_from_slice(&offered);
        let mut scram = ScramSha256::new(password.as_bytes(), binding);
        let mut out = BytesMut::new();
        frontend::sasl_initial_response(mechanism, scram.message(), &mut out).expect("composed");
        self.stream.write_all(&out).await.expect("sent");
        let first = self.request(11).await;
        let text = std::str::from_utf8(&first).expect("ASCII");
        let shape: Vec<_> = text
            .split(',')
            .map(|part| (part[..2].to_owned(), part.len()))
            .collect();
        self.heard.extend(format!("{shape:?}").into_bytes());
        scram.update(&first).expect("a good first message");
        out.clear();
        frontend::sasl_response(scram.message(), &mut out).expect("composed");
        self.stream.write_all(&out).await.expect("sent");
        scram
    }

    async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.expect("sent");
    }
}

struct Login {
    result: Result<Identity, AuthError>,
    output: BytesMut,
    rest: BytesMut,
}

/// Runs a login against a client's part.
async fn login(
    auth: &Auth,
    user: &str,
    channel: &Channel,
    part: impl AsyncFnOnce(&mut Client),
) -> (Login, Vec<u8>) {
    let (mut ours, theirs) = tokio::io::duplex(4096);
    let mut client = Client {
        stream: theirs,
        heard: Vec::new(),
    };
    let user: Arc<str> = user.into();
    let (mut input, mut output) = (BytesMut::new(), BytesMut::new());
    let mut wire = Wire {
        stream: &mut ours,
        input: &mut input,
        output: &mut output,
    };
    let candidate = Candidate { user: &user, channel };
    let (result, client) = tokio::join!(auth.authenticate(&mut wire, candidate), async move {
        part(&mut client).await;
        client
    });
    let login = Login {
        result,
        output,
        rest: input,
    };
    (login, client.heard)
}

fn auth(users: &[(&str, &str)]) -> Auth {
    let users = users
        .iter()
        .map(|(name, secret)| ((*name).into(), secret.parse().expect("a secret")));
    Auth::new(AuthSettings {
        users: users.collect(),
        admins: [Box::from("ann")].into(),
        ..AuthSettings::default()
    })
}

fn verifier_text(password: &str) -> String {
    postgres_protocol::password::scram_sha_256(password.as_bytes())
}

#[tokio::test]
async fn a_password_of_the_configuration_logs_in_and_is_passed_on() {
    let auth = auth(&[("ann", "secret")]);
    let (login, _) = login(&auth, "ann", &Channel::Plain, async |client| {
        client
            .play("secret", ChannelBinding::unsupported(), "SCRAM-SHA-256")
            .await;
    })
    .await;
    let identity = login.result.expect("logged in");
    assert!(identity.admin);
    assert!(matches!(identity.keys, Some(Secret::Password(password)) if *password == "secret"));
    assert_eq!(
        &login.output[..1],
        b"R",
        "the server's proof is to be sent before AuthenticationOk"
    );
}

#[tokio::test]
async fn a_verifier_logs_in_and_yields_the_keys_for_the_servers() {
    let text = verifier_text("secret");
    let auth = auth(&[("bob", &text)]);
    let (login, _) = login(&auth, "bob", &Channel::Plain, async |client| {
        client
            .play("secret", ChannelBinding::unsupported(), "SCRAM-SHA-256")
            .await;
    })
    .await;
    let identity = login.result.expect("logged in");
    assert!(!identity.admin);
    let Some(Secret::ScramKeys {
        client_key,
        server_key,
    }) = identity.keys
    else {
        panic!("keys")
    };
    // A server with the same verifier takes them, and proves itself by them.
    let mut to_server = crate::pool::scram::Scram::with_keys(
        &client_key,
        &server_key,
        crate::pool::scram::Binding::Unsupported,
    );
    let verifier: Verifier = text.parse().expect("a verifier");
    let server = scram::Exchange::begin(to_server.message(), scram::PLAIN, &Channel::Plain, &verifier);
    let server = server.expect("begun");
    to_server
        .update(server.server_first().as_bytes())
        .expect("a good first message");
    let proof = server
        .finish(to_server.message(), &verifier)
        .expect("well formed");
    assert!(proof.holds);
    to_server
        .finish(proof.server_final.as_bytes())
        .expect("the server proved itself");
}

#[tokio::test]
async fn the_server_proves_itself_to_the_client() {
    let auth = auth(&[("ann", "secret")]);
    let (mut ours, theirs) = tokio::io::duplex(4096);
    let mut client = Client {
        stream: theirs,
        heard: Vec::new(),
    };
    let (mut input, mut output) = (BytesMut::new(), BytesMut::new());
    let user = Arc::from("ann");
    let served = async {
        let mut wire = Wire {
            stream: &mut ours,
            input: &mut input,
            output: &mut output,
        };
        let candidate = Candidate {
            user: &user,
            channel: &Channel::Plain,
        };
        auth.authenticate(&mut wire, candidate).await.expect("logged in");
        wire.send().await.expect("sent");
    };
    let played = async {
        let mut scram = client
            .play("secret", ChannelBinding::unsupported(), "SCRAM-SHA-256")
            .await;
        let last = client.request(12).await;
        scram.finish(&last).expect("the server's proof holds");
    };
    tokio::join!(served, played);
}

#[tokio::test]
async fn over_tls_the_exchange_is_bound_to_the_channel() {
    let auth = auth(&[("ann", "secret")]);
    let channel = Channel::Tls {
        end_point: Some(vec![1, 2, 3]),
        certificate_name: None,
    };
    let check = async |binding, mechanism: &str, passes: bool| {
        let (login, heard) = login(&auth, "ann", &channel, async |client| {
            client.play("secret", binding, mechanism).await;
        })
        .await;
        assert!(heard.starts_with(b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0"));
        assert_eq!(login.result.is_ok(), passes, "{:?}", login.result);
    };
    check(
        ChannelBinding::tls_server_end_point(vec![1, 2, 3]),
        "SCRAM-SHA-256-PLUS",
        true,
    )
    .await;
    check(
        ChannelBinding::tls_server_end_point(vec![9, 9, 9]),
        "SCRAM-SHA-256-PLUS",
        false,
    )
    .await;
    check(ChannelBinding::unsupported(), "SCRAM-SHA-256", true).await;
}

#[tokio::test]
async fn an_unknown_role_cannot_be_told_from_a_wrong_password() {
    let auth = auth(&[("ann", "secret")]);
    let mut told = Vec::new();
    for (user, reason) in [("ann", Reason::WrongPassword), ("eve", Reason::UnknownRole)] {
        let (login, heard) = login(&auth, user, &Channel::Plain, async |client| {
            client
                .play("guess", ChannelBinding::unsupported(), "SCRAM-SHA-256")
                .await;
        })
        .await;
        let error = login.result.expect_err("refused");
        assert!(
            matches!(&error, AuthError::Refused(found) if *found == reason),
            "{error:?}"
        );
        assert!(
            login.output.is_empty(),
            "nothing is proved to somebody who proved nothing"
        );
        let report = error.report("somebody").expect("told");
        assert_eq!(report.code, sqlstate::INVALID_PASSWORD);
        assert_eq!(
            report.message,
            "password authentication failed for user \"somebody\""
        );
        told.push((heard, report));
    }
    assert_eq!(told[0], told[1]);
}

#[tokio::test]
async fn a_client_may_wait_to_be_asked_for_its_first_message() {
    let auth = auth(&[("ann", "secret")]);
    let (login, _) = login(&auth, "ann", &Channel::Plain, async |client| {
        client.request(10).await;
        client.send(b"p\0\0\0\x16SCRAM-SHA-256\0\xff\xff\xff\xff").await;
        assert!(client.request(11).await.is_empty());
        let mut scram = ScramSha256::new(b"secret", ChannelBinding::unsupported());
        let mut out = BytesMut::new();
        frontend::sasl_response(scram.message(), &mut out).expect("composed");
        client.send(&out).await;
        let first = client.request(11).await;
        scram.update(&first).expect("a good first message");
        out.clear();
        frontend::sasl_response(scram.message(), &mut out).expect("composed");
        out.extend_from_slice(b"Q...");
        client.send(&out).await;
    })
    .await;
    login.result.expect("logged in");
    assert_eq!(
        &login.rest[..],
        b"Q...",
        "what follows the login is the session's"
    );
}

#[tokio::test]
async fn messages_that_cannot_be_are_refused() {
    let auth = auth(&[("ann", "secret")]);
    let check = async |sent: &[u8], code: Option<&str>| {
        let (login, _) = login(&auth, "ann", &Channel::Plain, async |client| {
            client.request(10).await;
            client.send(sent).await;
            client.stream.shutdown().await.expect("closed");
        })
        .await;
        let report = login.result.expect_err("refused").report("ann");
        assert_eq!(
            report.map(|report| report.code),
            code,
            "{:?}",
            sent.escape_ascii().to_string()
        );
    };
    check(b"", None).await;
    check(b"p\0\0", None).await;
    check(b"Q\0\0\0\x04", Some("08P01")).await;
    check(b"X\0\0\0\x04", Some("08P01")).await;
    check(b"p\0\0\0\x03", Some("08P01")).await;
    check(b"p\x7f\xff\xff\xff", Some("08P01")).await;
    check(b"p\0\0\x20\x01", Some("08P01")).await;
    check(b"p\0\0\0\x04", Some("08P01")).await;
    check(b"p\0\0\0\x0bsecret\0", Some("08P01")).await;
    check(b"p\0\0\0\x1bSCRAM-SHA-256-PLUS\0\xff\xff\xff\xff", Some("08P01")).await;
    check(b"p\0\0\0\x14SCRAM-SHA-256\0\0\0", Some("08P01")).await;
    check(b"p\0\0\0\x16SCRAM-SHA-256\0\0\0\0\x05", Some("08P01")).await;
    check(b"p\0\0\0\x17SCRAM-SHA-256\0\xff\xff\xff\xffx", Some("08P01")).await;
    check(b"p\0\0\0\x16SCRAM-SHA-256\0\xff\xff\xff\xfe", Some("08P01")).await;
}

#[tokio::test]
async fn a_certificate_must_bear_the_roles_name() {
    let auth = Auth::new(AuthSettings {
        method: Method::Certificate,
        ..AuthSettings::default()
    });
    let tls = |name: Option<&str>| Channel::Tls {
        end_point: None,
        certificate_name: name.map(Into::into),
    };
    let check = async |channel: Channel, message: Option<&str>| {
        let (login, _) = login(&auth, "ann", &channel, async |_| {}).await;
        let report = login.result.err().map(|error| error.report("ann").expect("told"));
        assert!(report.iter().all(|report| report.code == "28000"));
        assert_eq!(report.map(|report| report.message).as_deref(), message);
    };
    check(tls(Some("ann")), None).await;
    check(
        tls(Some("Ann")),
        Some("certificate authentication failed for user \"ann\""),
    )
    .await;
    check(tls(None), Some("connection requires a valid client certificate")).await;
    check(
        Channel::Plain,
        Some("connection requires a valid client certificate"),
    )
    .await;
}
