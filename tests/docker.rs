//! The example in `docker/` is one that the program accepts, and its parts speak of the same names.
//!
//! Containers are not started here: `make test` has the compose file checked by Docker itself where that is installed.

use std::fs;
use std::process::Command;

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[test]
fn the_examples_configuration_is_accepted() {
    // No such host can be reached from here: the nodes are named as down, which is no error of the configuration.
    let check = Command::new(env!("CARGO_BIN_EXE_pgladder"))
        .args(["check", "--config", "docker/proxy.toml"])
        .args(["--set", "pool.connect_timeout=100ms"])
        .env("CONTROL_PASSWORD", "control")
        .env("APP_PASSWORD", "app")
        .output()
        .expect("the program runs");
    let said = String::from_utf8_lossy(&check.stderr);
    assert_eq!(check.status.code(), Some(1), "{said}");
}

#[test]
fn every_node_and_variable_of_the_configuration_is_in_the_compose_file() {
    let (config, compose) = (read("docker/proxy.toml"), read("docker/compose.yaml"));
    let quoted = |key: &str| {
        let found = config.lines().filter(|line| line.starts_with(key));
        found
            .filter_map(|line| line.split('"').nth(1))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let nodes = quoted("address =");
    assert_eq!(nodes.len(), 3);
    for node in nodes {
        let (service, _) = node.split_once(':').expect("host:port");
        assert!(compose.contains(&format!("\n  {service}:\n")), "{service}");
    }
    for variable in quoted("password_env") {
        assert!(
            compose.contains(&format!("      {variable}: ${{{variable}:-")),
            "{variable}"
        );
    }
    let script = read("docker/initdb/roles.sh");
    for role in ["app", "pgladder", "replication"] {
        assert!(script.contains(&format!("CREATE ROLE {role} LOGIN")), "{role}");
    }
}
