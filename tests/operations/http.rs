//! Metrics and health over HTTP, by sockets and nothing else.
//!
//! Requests are written by hand, so that nothing between the case and the server makes them better than they are.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use pgladder::serve::{self, ServeError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use crate::running::{Running, cluster, configuration, eventually, loopback, simple};

struct Answer {
    status: u16,
    head: String,
    body: String,
}

async fn exchange(address: SocketAddr, request: &str) -> Answer {
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = Vec::new();
    stream
        .read_to_end(&mut answer)
        .await
        .expect("an answer, and the end");
    let answer = String::from_utf8(answer).expect("text");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    Answer {
        status: status.expect("a status"),
        head: head.to_lowercase(),
        body: body.to_owned(),
    }
}

async fn ask(address: SocketAddr, path: &str) -> Answer {
    exchange(address, &format!("GET {path} HTTP/1.1\r\nHost: proxy\r\n\r\n")).await
}

fn http(running: &Running) -> SocketAddr {
    running.http.expect("HTTP is served")
}

async fn readiness(address: SocketAddr) -> (u16, serde_json::Value) {
    let answer = ask(address, "/readyz").await;
    let body = serde_json::from_str(&answer.body).expect("JSON");
    (answer.status, body)
}

#[tokio::test]
async fn ready_follows_the_primary_and_healthy_does_not() {
    let running = Running::start(1).await;
    let address = http(&running);
    let is = |wanted: u16| move |(status, _): &(u16, serde_json::Value)| *status == wanted;
    let ready = async || readiness(address).await;
    let (_, body) = eventually("it is ready", ready, is(200)).await;
    assert_eq!(body["primary"], running.cluster.address(0).to_string());
    running.cluster.kill_hard(0).await.expect("killed");
    let (_, body) = eventually("it is not ready", ready, is(503)).await;
    assert_eq!(body["ready"], false);
    assert_eq!(body["reasons"][0], "no primary is known");
    assert_eq!(body["down"][0]["node"], running.cluster.address(0).to_string());
    assert_eq!(ask(address, "/healthz").await.status, 200);
    running.cluster.restart(0).await.expect("restarted");
    eventually("it is ready again", ready, is(200)).await;
    running.shut_down().await;
}

#[tokio::test]
async fn not_ready_while_it_drains_and_healthy_to_the_end() {
    let running = Running::start(0).await;
    let address = http(&running);
    let ready = async || readiness(address).await;
    eventually("it is ready", ready, |(status, _)| *status == 200).await;
    let holder = running
        .cluster
        .connect(0, "postgres")
        .await
        .expect("a connection");
    holder
        .batch_execute("SELECT pg_advisory_lock(1)")
        .await
        .expect("locked");
    let client = running.connect("postgres").await;
    let in_block = running.connect("postgres").await;
    let begun = in_block.batch_execute("CREATE TABLE drained (n int); BEGIN; SELECT count(*) FROM drained");
    begun.await.expect("begun");
    let mut busy = Box::pin(client.batch_execute("SELECT pg_advisory_lock(1)"));
    let waits = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted";
    let in_line = async || crate::running::column(&holder, waits, "count").await[0].clone();
    tokio::select! {
        ended = &mut busy => panic!("it waits for the lock: {ended:?}"),
        _ = eventually("it waits", in_line, |count| count.as_deref() == Some("1")) => {}
    }
    running.stop.cancel();
    let (status, body) = readiness(address).await;
    assert_eq!(
        (status, &body["reasons"][0]),
        (503, &"the proxy is draining".into())
    );
    assert_eq!(ask(address, "/healthz").await.status, 200);
    holder
        .batch_execute("SELECT pg_advisory_unlock(1)")
        .await
        .expect("unlocked");
    busy.await.expect("what was begun is finished");
    for sql in ["INSERT INTO drained VALUES (1)", "COMMIT"] {
        let done = in_block.batch_execute(sql).await;
        done.expect("a transaction may be finished");
    }
    let ended = eventually(
        "its session ends",
        async || in_block.is_closed(),
        |closed| *closed,
    );
    ended.await;
    running.shut_down().await;
    assert!(
        TcpStream::connect(address).await.is_err(),
        "it ends with the proxy"
    );
}

/// Samples by name and labels.
fn samples(text: &str) -> BTreeMap<&str, f64> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').expect("a name and a value");
            (name, value.parse().expect("a number"))
        })
        .collect()
}

#[tokio::test]
async fn metrics_count_what_was_done() {
    let running = Running::start(0).await;
    let address = http(&running);
    let client = running.connect("postgres").await;
    for _ in 0..4 {
        simple(&client, "SELECT city, count(*) FROM hotels GROUP BY city").await;
    }
    simple(&client, "DELETE FROM deals WHERE id = 1").await;
    let answer = ask(address, "/metrics").await;
    assert_eq!(answer.status, 200);
    assert!(
        answer.head.contains("content-type: text/plain; version=0.0.4"),
        "{}",
        answer.head
    );
    let samples = samples(&answer.body);
    let node = running.cluster.address(0);
    let expected = [
        ("pgladder_ready".to_owned(), 1.0),
        (format!("pgladder_node_usable{{node=\"{node}\"}}"), 1.0),
        (format!("pgladder_node_primary{{node=\"{node}\"}}"), 1.0),
        ("pgladder_cache_hits_total".to_owned(), 3.0),
        ("pgladder_cache_misses_total".to_owned(), 1.0),
        ("pgladder_cache_stored_total".to_owned(), 1.0),
        ("pgladder_cache_entries".to_owned(), 1.0),
        ("pgladder_clients{state=\"idle\"}".to_owned(), 1.0),
        (
            "pgladder_units_total{served_by=\"primary\",reason=\"no usable replica\"}".to_owned(),
            1.0,
        ),
        (
            "pgladder_units_total{served_by=\"primary\",reason=\"statement: Writes\"}".to_owned(),
            1.0,
        ),
        (
            "pgladder_unit_duration_seconds_count{served_by=\"cache\"}".to_owned(),
            3.0,
        ),
        (
            "pgladder_unit_duration_seconds_bucket{served_by=\"cache\",le=\"+Inf\"}".to_owned(),
            3.0,
        ),
        (
            "pgladder_unit_duration_seconds_count{served_by=\"primary\"}".to_owned(),
            2.0,
        ),
        (
            "pgladder_database_catalog_known{database=\"postgres\"}".to_owned(),
            1.0,
        ),
    ];
    for (name, value) in &expected {
        assert_eq!(samples.get(name.as_str()), Some(value), "{name}\n{}", answer.body);
    }
    let leases =
        format!("pgladder_pool_leases_total{{node=\"{node}\",database=\"postgres\",user=\"postgres\"}}");
    assert!(samples[leases.as_str()] >= 2.0);
    for name in samples.keys() {
        let metric = name.split('{').next().expect("a name");
        let metric = ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|suffix| metric.strip_suffix(suffix))
            .unwrap_or(metric);
        assert!(
            answer.body.contains(&format!("# TYPE {metric} ")),
            "{metric} has a type"
        );
    }
    running.shut_down().await;
}

#[tokio::test]
async fn metrics_say_what_freshness_costs() {
    let running = Running::start(0).await;
    let client = running.connect("postgres").await;
    let read = "SELECT city, count(*) FROM hotels GROUP BY city";
    for sql in [read, read, "SET pgladder.freshness = 'bounded 1h'"] {
        simple(&client, sql).await;
    }
    for sql in ["DELETE FROM deals", "DELETE FROM hotels", read, read] {
        simple(&client, sql).await;
    }
    let body = ask(http(&running), "/metrics").await.body;
    let samples = samples(&body);
    let deleted = |table| {
        format!(
            "pgladder_invalidations_total{{database=\"postgres\",table=\"public.{table}\",source=\"write\"}}"
        )
    };
    for name in [deleted("deals"), deleted("hotels")] {
        assert_eq!(samples.get(name.as_str()), Some(&2.0), "{name}\n{body}");
    }
    let served = samples.get("pgladder_cache_staleness_seconds_count");
    assert_eq!(served, Some(&3.0), "{body}");
    assert!(samples["pgladder_cache_staleness_seconds_sum"] > 0.0, "{body}");
    for name in [
        "pgladder_cache_bypasses_total{reason=\"write_in_flight\"}",
        "pgladder_cache_not_kept_total{reason=\"write\"}",
        "pgladder_cache_samples_total{result=\"wrong\"}",
        "pgladder_wait_seconds_count{for=\"answer\"}",
    ] {
        assert_eq!(samples.get(name), Some(&0.0), "{name}\n{body}");
    }
    running.shut_down().await;
}

#[tokio::test]
async fn odd_requests_are_refused_and_bounded() {
    let running = Running::start(0).await;
    let address = http(&running);
    assert_eq!(ask(address, "/").await.status, 404);
    let post = "POST /metrics HTTP/1.1\r\nHost: proxy\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(exchange(address, post).await.status, 405);
    let long = format!(
        "GET /metrics HTTP/1.1\r\nHost: proxy\r\nX: {}\r\n\r\n",
        "x".repeat(32 * 1024)
    );
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    // It may be closed before all of it is sent.
    drop(stream.write_all(long.as_bytes()).await);
    let mut answer = Vec::new();
    drop(stream.read_to_end(&mut answer).await);
    assert!(
        !answer.starts_with(b"HTTP/1.1 200"),
        "{}",
        String::from_utf8_lossy(&answer)
    );
    assert_eq!(ask(address, "/healthz").await.status, 200);
    running.shut_down().await;
}

#[tokio::test]
async fn an_address_that_is_taken_is_an_error() {
    let cluster = cluster(0).await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let mut config = configuration(&cluster);
    config.http.listen = Some(loopback(taken.local_addr().expect("bound").port()));
    let ended = serve::serve(config, CancellationToken::new()).await;
    assert!(matches!(ended, Err(ServeError::Http(_))), "{ended:?}");
    cluster.shut_down().await.expect("nothing is left");
}
