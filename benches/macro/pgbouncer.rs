//! How PgBouncer is started for a measurement.
//!
//! Called by `doors`. Transaction pooling, no TLS, trust, nothing logged. Before 1.21 it has no prepared statements in this mode:
//! then `max_prepared_statements` would be an error, and what needs it is not comparable.

use std::io;
use std::process::Command;

use pgladder::demo::cluster::SUPERUSER;

use super::doors::SERVER_CONNECTIONS;
use super::place::Place;
use super::programs::Program;

/// The first version with prepared statements in transaction mode.
const PREPARED_SINCE: (u32, u32) = (1, 21);

/// Can prepared statements be measured?
pub fn is_comparable(program: &Program) -> bool {
    program.numbers >= PREPARED_SINCE
}

/// The command of a proxy in front of one port.
pub fn command(
    program: &Program,
    place: &Place,
    port: u16,
    node: u16,
    clients_max: u32,
) -> io::Result<Command> {
    let users = place.write(
        &format!("pgbouncer-{port}.users"),
        &format!("\"{SUPERUSER}\" \"\"\n"),
    )?;
    let prepared = if is_comparable(program) {
        "max_prepared_statements = 200\n"
    } else {
        ""
    };
    let text = format!(
        "[databases]\n\
         * = host=127.0.0.1 port={node}\n\
         [pgbouncer]\n\
         listen_addr = 127.0.0.1\n\
         listen_port = {port}\n\
         unix_socket_dir =\n\
         auth_type = trust\n\
         auth_file = {users}\n\
         pool_mode = transaction\n\
         default_pool_size = {SERVER_CONNECTIONS}\n\
         max_client_conn = {clients_max}\n\
         {prepared}\
         client_tls_sslmode = disable\n\
         server_tls_sslmode = disable\n\
         ignore_startup_parameters = extra_float_digits\n\
         log_connections = 0\n\
         log_disconnections = 0\n\
         log_pooler_errors = 0\n\
         log_stats = 0\n",
        users = users.display(),
    );
    let file = place.write(&format!("pgbouncer-{port}.ini"), &text)?;
    let mut command = place.command(&program.path);
    command.arg(file);
    Ok(command)
}
