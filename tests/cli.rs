//! The real program: its exit statuses, what it prints for wrong configurations, and `check` and `explain` on real servers.
//!
//! It starts PostgreSQL itself and fails loudly where PostgreSQL is not installed. The program runs with an environment of its
//! own, so that variables of whoever runs the tests play no part.

use std::process::{Command, Output};

use pgladder::demo::cluster::{Options, ThrowAwayCluster};

const MISUSE: i32 = 2;

fn pgladder(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_pgladder"))
        .args(arguments)
        .env_clear()
        .envs(environment.iter().copied())
        .output()
        .expect("the program runs")
}

fn lines(bytes: &[u8]) -> Vec<String> {
    let text = std::str::from_utf8(bytes).expect("UTF-8");
    text.lines().map(str::to_owned).collect()
}

async fn cluster(replicas: usize) -> ThrowAwayCluster {
    let options = Options {
        replicas,
        label: "test-".to_owned(),
        ..Options::default()
    };
    ThrowAwayCluster::start(options).await.expect("a cluster")
}

async fn execute(cluster: &ThrowAwayCluster, sql: &str) {
    let client = cluster.connect(0, "postgres").await.expect("a connection");
    client.batch_execute(sql).await.expect("it runs");
}

#[test]
fn a_wrong_configuration_is_status_2_and_every_error_has_a_line() {
    let found = pgladder(
        &["check", "--listen", "nowhere:0", "--set", "pool.sise=3"],
        &[("PGLADDER_AUTH", "kerberos"), ("PGUSER", "ann")],
    );
    assert_eq!(found.status.code(), Some(MISUSE));
    let errors = lines(&found.stderr);
    let begins = |start: &str| errors.iter().any(|error| error.starts_with(start));
    assert!(
        begins("listen.addresses = \"nowhere:0\" (from --listen): allowed is "),
        "{errors:#?}"
    );
    assert!(
        begins("pool.sise = \"3\" (from --set): no such setting; did you mean pool.size?"),
        "{errors:#?}"
    );
    assert!(
        begins("auth.method = \"kerberos\" (from PGLADDER_AUTH): allowed is one of "),
        "{errors:#?}"
    );
    assert!(begins("nodes: missing; "), "{errors:#?}");
    assert_eq!(errors.len(), 4, "{errors:#?}");
    assert!(found.stdout.is_empty());
}

#[test]
fn wrong_arguments_are_status_2() {
    for arguments in [
        &["chekc"][..],
        &["check", "--set", "pool.size"],
        &["explain"],
        &[],
    ] {
        let found = pgladder(arguments, &[]);
        assert_eq!(found.status.code(), Some(MISUSE), "{arguments:?}");
        assert!(!found.stderr.is_empty(), "{arguments:?}");
    }
    assert!(pgladder(&["--version"], &[]).status.success());
}

#[test]
fn a_node_that_cannot_be_reached_is_status_1_and_named() {
    // Port 1 is reserved: nothing listens there.
    let found = pgladder(&["check", "--node", "127.0.0.1:1", "--control-user", "ann"], &[]);
    assert_eq!(found.status.code(), Some(1));
    let said = lines(&found.stdout);
    assert_eq!(said[0], "configuration: good");
    assert!(
        said[1].starts_with("127.0.0.1:1  unknown  NOT USABLE: unreachable: "),
        "{said:#?}"
    );
    assert!(lines(&found.stderr)[0].starts_with("there is no primary"));
}

#[test]
fn explain_needs_no_server() {
    let found = pgladder(&["explain", "SELECT count(*) FROM deals"], &[("PGUSER", "ann")]);
    assert!(found.status.success(), "{found:?}");
    let said = lines(&found.stdout);
    assert_eq!(said[0], "route        primary: no catalog");
    assert!(
        said.iter()
            .any(|line| line.starts_with("catalog      none; with --node ")),
        "{said:#?}"
    );
}

#[tokio::test]
async fn check_tells_roles_and_what_a_missing_right_costs() {
    let cluster = cluster(1).await;
    let limited = "CREATE ROLE watcher LOGIN; CREATE ROLE \"poor one\" LOGIN; GRANT pg_monitor TO watcher; \
        CREATE DATABASE closed; ";
    for sql in limited
        .split_inclusive("; ")
        .chain(["REVOKE CONNECT ON DATABASE closed FROM PUBLIC"])
    {
        execute(&cluster, sql).await;
    }
    cluster.wait_caught_up().await.expect("the replica has the roles");
    let (primary, replica) = (cluster.address(0).to_string(), cluster.address(1).to_string());
    let check = |user: &str, node: &str| {
        let nodes = ["--control-user", user, "--node", &primary, "--node", node];
        let start = ["check", "--auth", "trust", "--set", "auth.query=off"];
        pgladder(&[&start[..], &nodes].concat(), &[])
    };

    let found = check("postgres", &replica);
    assert!(found.status.success(), "{found:?}");
    let said = lines(&found.stdout);
    assert!(
        said[1].starts_with(&format!("{primary}  primary  PostgreSQL ")),
        "{said:#?}"
    );
    assert!(said[1].ends_with("  timeline 1  usable"), "{said:#?}");
    assert!(
        said[2].starts_with(&format!("{replica}  replica  PostgreSQL ")),
        "{said:#?}"
    );
    assert!(
        said[2].contains("  lag ") && said[2].ends_with("  usable"),
        "{said:#?}"
    );
    assert_eq!(
        said[3..],
        [
            "control user postgres: no right missing",
            "stream: the server and the rights allow it"
        ]
    );

    let said = lines(&check("watcher", &replica).stdout);
    assert_eq!(said[3], "control user watcher: 1 right missing");
    assert!(
        said[4].starts_with("  GRANT CONNECT ON DATABASE \"closed\" TO \"watcher\": no catalog of it"),
        "{said:#?}"
    );
    assert_eq!(
        said[5],
        "stream: none, and a write past the proxy is not heard of: the control user may not replicate: \
         ALTER ROLE … REPLICATION"
    );

    let said = lines(&check("poor one", &replica).stdout);
    assert_eq!(said[3], "control user poor one: 2 rights missing");
    assert!(
        said[4].starts_with("  GRANT pg_monitor TO \"poor one\": after a failover"),
        "{said:#?}"
    );

    let found = check("postgres", "127.0.0.1:1");
    assert_eq!(
        found.status.code(),
        Some(1),
        "a primary alone is not all that was configured"
    );
    assert_eq!(lines(&found.stderr), ["1 of 2 nodes cannot be used"]);
}

#[tokio::test]
async fn check_tries_the_auth_query() {
    let cluster = cluster(0).await;
    execute(&cluster, "CREATE ROLE watcher LOGIN IN ROLE pg_monitor").await;
    let node = cluster.address(0).to_string();
    let found = pgladder(&["check", "--control-user", "watcher", "--node", &node], &[]);
    assert!(found.status.success(), "{found:?}");
    let said = lines(&found.stdout);
    assert_eq!(said[2], "control user watcher: 1 right missing");
    assert_eq!(
        said[3],
        "  auth.query: permission denied for table pg_authid (42501): only users of [[auth.user]] and auth.file can log in"
    );
}

#[tokio::test]
async fn explain_looks_names_up_where_there_is_a_node() {
    let cluster = cluster(0).await;
    execute(
        &cluster,
        "CREATE TABLE deals (id int); CREATE VIEW few AS SELECT * FROM deals LIMIT 3",
    )
    .await;
    execute(
        &cluster,
        "CREATE FUNCTION app() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    )
    .await;
    let node = cluster.address(0).to_string();
    let explain = |sql: &str, more: &[&str]| {
        let arguments = [
            "explain",
            sql,
            "--node",
            &node,
            "--user",
            "postgres",
            "--control-user",
            "ann",
        ];
        let found = pgladder(&[&arguments, more].concat(), &[]);
        assert!(found.status.success(), "{found:?}");
        lines(&found.stdout)
    };
    let said = explain("SELECT count(*) FROM few", &[]);
    assert_eq!(
        said[..4],
        [
            "route        replica: plain read",
            "cache        yes: it aggregates; an answer is at most 5m old (cache.ttl)",
            "reads        public.deals",
            "writes       nothing",
        ]
    );
    assert!(said[4].starts_with(
        "freshness    fresh, by freshness.level; a write made past the proxy may stay unseen for 5m "
    ));
    assert!(
        said.contains(&format!(
            "catalog      of database postgres on {node}, as postgres"
        )),
        "{said:#?}"
    );
    assert_eq!(explain("DELETE FROM deals", &[])[3], "writes       public.deals");
    let call = "SELECT app(), count(*) FROM deals";
    assert_eq!(explain(call, &[])[0], "route        primary: unknown function");
    let safe = ["--set", "functions.safe=public.app,app"];
    assert_eq!(explain(call, &safe)[0], "route        replica: plain read");
    let all = "cache        no: it does not aggregate, and cache.what = \"aggregates\"";
    assert_eq!(explain("SELECT id FROM deals", &[])[1], all);
}
