//! Makes a throw-away server offer TLS.
//!
//! Included by tests of connections to servers. The certificate is for `localhost` and no other name, and is its own root and an
//! authority, as `openssl req -x509` makes one. What
//! a reload of the server's configuration has changed is there a moment later: whoever calls this waits for it.

use std::fs::{Permissions, metadata, set_permissions, write};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::PathBuf;

use pgladder::demo::cluster::ThrowAwayCluster;

/// The primary shows a new certificate from its next reload on, which is asked for; returns the file of its root.
pub async fn offer_tls(servers: &ThrowAwayCluster) -> PathBuf {
    let mut wanted = rcgen::CertificateParams::new(["localhost".to_owned()]).expect("a name");
    wanted.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let signing_key = rcgen::KeyPair::generate().expect("a key");
    let made = wanted.self_signed(&signing_key).expect("a certificate");
    let directory = servers.directory();
    let owner = metadata(directory).expect("the directory");
    let (certificate, key) = (directory.join("server.crt"), directory.join("server.key"));
    for (path, pem) in [(&certificate, made.pem()), (&key, signing_key.serialize_pem())] {
        write(path, pem).expect("a file");
        set_permissions(path, Permissions::from_mode(0o600)).expect("ours");
        chown(path, Some(owner.uid()), Some(owner.gid())).expect("ours");
    }
    let client = servers.connect(0, "postgres").await.expect("a connection");
    for (name, value) in [
        ("ssl_cert_file", certificate.display().to_string()),
        ("ssl_key_file", key.display().to_string()),
        ("ssl", "on".to_owned()),
    ] {
        let set = format!("ALTER SYSTEM SET {name} = '{value}'");
        client.batch_execute(&set).await.expect("a setting");
    }
    client
        .batch_execute("SELECT pg_reload_conf()")
        .await
        .expect("a reload");
    certificate
}
