//! How pgladder is started for a measurement.
//!
//! Called by `doors`. It gets flags only, no file and none of its environment variables, so that nothing of the machine's own
//! configuration is measured. It runs as this benchmark's user: the build directory may be closed to another.

use std::path::Path;
use std::process::Command;

use pgladder::demo::cluster::SUPERUSER;

use super::doors::SERVER_CONNECTIONS;

/// The command of a proxy in front of these ports.
pub fn command(program: &Path, port: u16, nodes: &[u16], cached: bool, clients_max: u32) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("PGLADDER_") {
            command.env_remove(name);
        }
    }
    command.args(["serve", "--listen", &format!("127.0.0.1:{port}")]);
    for node in nodes {
        command.args(["--node", &format!("127.0.0.1:{node}")]);
    }
    command.args([
        "--auth",
        "trust",
        "--control-user",
        SUPERUSER,
        "--log-level",
        "off",
    ]);
    for setting in [
        format!("pool.size={SERVER_CONNECTIONS}"),
        format!("cache.enabled={cached}"),
        format!("limits.clients_max={clients_max}"),
        "limits.drain_timeout=1s".to_owned(),
    ] {
        command.args(["--set", &setting]);
    }
    command
}
