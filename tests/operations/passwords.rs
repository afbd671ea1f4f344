//! The proxy's own passwords for logins to servers, from the file that libpq would take them from.
//!
//! The program runs with an environment of its own, on a Unix socket in a directory of the case.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use pgladder::demo::cluster::{Options, ThrowAwayCluster};
use tokio::task::JoinSet;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config, Error, NoTls};

use crate::running::{column, eventually};

const ROLES: &str = "CREATE ROLE control LOGIN PASSWORD 'of the control user' IN ROLE pg_monitor;
    CREATE ROLE ann LOGIN PASSWORD 'of: ann'; CREATE ROLE bob LOGIN PASSWORD 'of bob'";

/// Ended with the value.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        self.0.kill().expect("it is ours");
        self.0.wait().expect("it ended");
    }
}

fn serve(directory: &Path, node: &str) -> Program {
    let listen = format!("{}:6432", directory.display());
    let child = Command::new(env!("CARGO_BIN_EXE_pgladder"))
        .args(["serve", "--log-level", "error", "--auth", "trust"])
        .args(["--listen", &listen, "--node", node, "--control-user", "control"])
        .env_clear()
        .env("PGPASSFILE", directory.join("passwords"))
        .stdin(Stdio::null())
        .spawn();
    Program(child.expect("the program runs"))
}

#[tokio::test]
async fn the_password_file_opens_the_servers() {
    let options = Options {
        hba: Some("host all all 127.0.0.1/32 scram-sha-256".to_owned()),
        label: "operations-".to_owned(),
        ..Options::default()
    };
    let cluster = ThrowAwayCluster::start(options).await.expect("a cluster");
    let admin = cluster.connect(0, "postgres").await.expect("a connection");
    admin.batch_execute(ROLES).await.expect("roles");
    let directory = tempfile::tempdir().expect("a directory");
    let (file, port) = (directory.path().join("passwords"), cluster.port(0));
    let passwords = format!(
        "# host:port:database:user:password\n127.0.0.1:1:*:ann:of another server\n\
         127.0.0.1:{port}:*:control:of the control user\n*:{port}:postgres:ann:of\\: ann\n"
    );
    std::fs::write(&file, &passwords).expect("written");
    let mode = |mode| std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode));
    mode(0o600).expect("made private");

    let program = serve(directory.path(), &cluster.address(0).to_string());
    let mut drivers = JoinSet::new();
    let mut log_in = async |user: &str| -> Result<Client, Error> {
        let mut config = Config::new();
        config
            .host_path(directory.path())
            .port(6432)
            .user(user)
            .dbname("postgres");
        let (client, connection) = config.connect(NoTls).await?;
        drivers.spawn(async move { drop(connection.await) });
        Ok(client)
    };
    let entered = async || log_in("ann").await.map_err(|error| error.to_string());
    let ann = eventually("it serves", entered, Result::is_ok)
        .await
        .expect("a session");
    assert_eq!(
        column(&ann, "SELECT current_user", "current_user").await,
        [Some("ann".to_owned())]
    );
    let unknown = log_in("bob").await.expect_err("no line of bob's");
    assert_ne!(
        unknown.code(),
        Some(&SqlState::INVALID_PASSWORD),
        "none was tried: {unknown}"
    );

    // It is read at each login: another line counts at once, and a file that others may read does not count at all.
    std::fs::write(&file, format!("{passwords}*:*:*:bob:of alice\n")).expect("written");
    let wrong = log_in("bob").await.expect_err("a wrong password");
    assert_eq!(wrong.code(), Some(&SqlState::INVALID_PASSWORD), "{wrong}");
    std::fs::write(&file, format!("{passwords}*:*:*:bob:of bob\n")).expect("written");
    mode(0o640).expect("opened");
    log_in("bob").await.expect_err("not private");
    mode(0o600).expect("made private");
    let bob = log_in("bob").await.expect("a session");
    assert_eq!(
        column(&bob, "SELECT current_user", "current_user").await,
        [Some("bob".to_owned())]
    );
    drop(program);
    cluster.shut_down().await.expect("nothing is left");
}
