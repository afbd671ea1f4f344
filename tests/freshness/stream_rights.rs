//! Where the server or the rights of the control user do not allow a stream: each reason is named, and gone once it is mended.
//!
//! All goes on under observed writes meanwhile, as the other tests show. The control user is a plain role here.

use std::process::Stdio;

use pgladder::config::Config;
use pgladder::freshness::guards::Guards;
use pgladder::listener::Bound;

use crate::client::Client;
use crate::setup::{Proxy, Setup, addresses, eventually, servers};
use crate::stream::{
    MODE, NOT_CARRIED, SUM, TABLE, WHY_NOT, until_carried, until_read, until_shown, with_stream,
};
use crate::stream_ends::pgladder;

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_may_too_little_is_told_what_it_needs_and_needs_no_more() {
    let cluster = servers(0, &[]).await;
    let direct = cluster.connect(0, "postgres").await.expect("a connection");
    let run = async |sql: &str| direct.batch_execute(sql).await.expect("it runs");
    run("CREATE ROLE weak LOGIN; GRANT pg_monitor TO weak").await;
    let proxy = Proxy::start(addresses(&cluster), Guards::default(), |config: &mut Config| {
        with_stream(config);
        "weak".clone_into(&mut config.cluster.control_user);
        config.auth.admins = vec!["postgres".to_owned()];
    })
    .await;
    let setup = Setup { proxy, cluster };
    let mut reader = setup.proxy.client().await;
    reader.run_all(TABLE).await;
    reader.until_served_by("cache", SUM).await;
    let mut console = setup.proxy.client_of("postgres", "pgladder").await;
    let why = "the control user may not replicate: ALTER ROLE … REPLICATION";
    until_shown(&mut console, WHY_NOT, why).await;
    run("ALTER ROLE weak REPLICATION").await;
    let why = "the control user may not create a publication: GRANT CREATE ON DATABASE …, \
        or name one in stream.publication";
    until_shown(&mut console, WHY_NOT, why).await;
    run("GRANT CREATE ON DATABASE postgres TO weak").await;
    until_shown(&mut console, MODE, "streaming").await;
    until_shown(&mut console, NOT_CARRIED, "public.t (owned by another role)").await;
    run("CREATE ROLE owners; ALTER TABLE t OWNER TO owners; GRANT owners TO weak").await;
    until_carried(&setup, &mut reader, SUM).await;
    run("UPDATE t SET n = 1").await;
    until_read(&mut reader, SUM, "1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn walsenders_and_slots_that_others_need_are_left_to_them() {
    let senders =
        "of max_wal_senders = 2 too few are left: 0 are used, and 2 beyond those of the replicas stay free";
    let slots = "all of max_replication_slots = 0 are used";
    for (setting, why) in [
        (("max_wal_senders", "2"), senders),
        (("max_replication_slots", "0"), slots),
    ] {
        let setup = Setup::start_with(0, &[setting], with_stream).await;
        let mut reader = setup.proxy.client().await;
        reader.run_all(TABLE).await;
        reader.until_served_by("cache", SUM).await;
        let mut console = setup.proxy.client_of("postgres", "pgladder").await;
        until_shown(&mut console, WHY_NOT, why).await;
        until_shown(&mut console, MODE, "observed").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_says_why_there_is_no_stream() {
    let cluster = servers(0, &[("wal_level", "replica")]).await;
    let node = format!("127.0.0.1:{}", cluster.port(0));
    let direct = cluster.connect(0, "postgres").await.expect("a connection");
    direct.batch_execute(&TABLE.join(";")).await.expect("a table");
    let place = tempfile::tempdir().expect("a directory");
    let log = place.path().join("log");
    let listen = format!("{}:6432", place.path().display());
    let mut child = pgladder(&["serve", "--listen", &listen], &node)
        .stderr(Stdio::from(std::fs::File::create(&log).expect("a file")))
        .spawn()
        .expect("the program runs");
    let socket = Bound::Unix(place.path().join(".s.PGSQL.6432"));
    let said = eventually("the reason is in the log", async || {
        let connected = Client::connect(&socket, "postgres", "postgres").await;
        let mut client = connected.map_err(|error| error.to_string())?;
        client.query(SUM).await.map_err(|error| error.to_string())?;
        let log = std::fs::read_to_string(&log).expect("a log");
        let reason = "wal_level is replica: set it to logical and restart the primary";
        if log.contains(reason) { Ok(log) } else { Err(log) }
    })
    .await;
    child.kill().expect("SIGKILL");
    child.wait().expect("it is gone");
    assert!(said.contains("no stream"), "{said}");
}
