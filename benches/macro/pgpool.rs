//! How Pgpool-II is started for a measurement.
//!
//! Called by `doors`. Streaming replication mode with load balancing, no TLS, trust, nothing logged. It has a process for each
//! client and no transaction pooling, so it needs as many server connections as there are clients; the report says so. Its
//! cache is in shared memory, never expires by time, and is invalidated by the writes that it sees.

use std::fmt::Write as _;
use std::io;
use std::process::Command;

use pgladder::demo::cluster::SUPERUSER;

use super::place::Place;
use super::programs::Program;

/// Processes, one for each client: the most that any workload has, and some for the benchmark's own questions.
const PROCESSES: u32 = 72;

/// Ports that it takes.
#[derive(Clone, Copy, Debug)]
pub struct Ports {
    /// For SQL.
    pub sql: u16,
    /// For its own control protocol.
    pub control: u16,
}

/// The command of a proxy in front of these ports, the primary's first.
pub fn command(
    program: &Program,
    place: &Place,
    ports: Ports,
    nodes: &[u16],
    cached: bool,
) -> io::Result<Command> {
    let name = format!("pgpool-{}", ports.sql);
    let oids = place.folder(&format!("{name}.oids"))?;
    let pid = place.path(&format!("{name}.pid"));
    let sockets = place.folder(&format!("{name}.sockets"))?;
    let cache = if cached { "on" } else { "off" };
    let mut text = format!(
        "backend_clustering_mode = 'streaming_replication'\n\
         listen_addresses = '127.0.0.1'\n\
         port = {port}\n\
         pcp_listen_addresses = '127.0.0.1'\n\
         pcp_port = {control}\n\
         {socket_settings}\
         pid_file_name = '{pid}'\n\
         num_init_children = {PROCESSES}\n\
         max_pool = 1\n\
         child_life_time = 0\n\
         enable_pool_hba = off\n\
         pool_passwd = ''\n\
         load_balance_mode = on\n\
         sr_check_user = '{SUPERUSER}'\n\
         sr_check_database = 'postgres'\n\
         sr_check_period = 1\n\
         health_check_period = 0\n\
         use_watchdog = off\n\
         ssl = off\n\
         log_destination = 'stderr'\n\
         log_min_messages = 'fatal'\n\
         memory_cache_enabled = {cache}\n\
         memqcache_method = 'shmem'\n\
         memqcache_expire = 0\n\
         memqcache_oiddir = '{oids}'\n",
        port = ports.sql,
        control = ports.control,
        socket_settings = socket_settings(program, &sockets.display().to_string()),
        pid = pid.display(),
        oids = oids.display(),
    );
    for (number, node) in nodes.iter().enumerate() {
        let node = format!(
            "backend_hostname{number} = '127.0.0.1'\n\
             backend_port{number} = {node}\n\
             backend_weight{number} = 1\n\
             backend_flag{number} = 'DISALLOW_TO_FAILOVER'\n"
        );
        text.write_str(&node).expect("a String takes all");
    }
    let file = place.write(&format!("{name}.conf"), &text)?;
    let empty = place.write(&format!("{name}.empty"), "")?;
    let mut command = place.command(&program.path);
    command.arg("-n").arg("-f").arg(file);
    command.arg("-F").arg(&empty).arg("-a").arg(&empty);
    Ok(command)
}

/// Settings were renamed in 4.4.
fn socket_settings(program: &Program, directory: &str) -> String {
    if program.numbers >= (4, 4) {
        format!("unix_socket_directories = '{directory}'\npcp_socket_dir = '{directory}'\n")
    } else {
        format!("socket_dir = '{directory}'\npcp_socket_dir = '{directory}'\n")
    }
}
