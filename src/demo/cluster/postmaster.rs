//! Runs PostgreSQL's programs: `initdb`, `pg_basebackup`, and the server of one node.
//!
//! Used by `ThrowAwayCluster`. Programs run as the cluster's account, in its directory, in a process group of their own
//! (a Ctrl-C reaches the owner alone, which then cleans up) and without the owner's `PG*` variables. A dropped future ends
//! the program that it waits for; a `Postmaster` must be ended by its cluster, which owns it from the moment it runs.

use std::fs::{self, File, OpenOptions};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use nix::sys::signal::Signal;

use super::account::Account;
use super::error::ClusterError;
use super::process::{Process, pause, wait_until_gone};
use crate::demo::binaries::Binaries;

const LOG_LINES_SHOWN: usize = 12;

/// What all programs of a cluster share.
#[derive(Debug)]
pub(super) struct Programs {
    pub binaries: Binaries,
    pub account: Account,
    pub directory: PathBuf,
}

impl Programs {
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.binaries.program(program));
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PG")) {
            command.env_remove(name);
        }
        command
            .current_dir(&self.directory)
            .env("HOME", &self.directory)
            .env("LC_ALL", "C")
            .process_group(0);
        command.stdin(Stdio::null());
        if let Some((uid, gid)) = self.account.lowered_to() {
            command.uid(uid).gid(gid);
        }
        command
    }

    /// Runs a program to its end.
    pub async fn run(&self, program: &'static str, arguments: &[&str]) -> Result<(), ClusterError> {
        let mut command = tokio::process::Command::from(self.command(program));
        let output = command.args(arguments).kill_on_drop(true).output().await;
        match output {
            Ok(output) if output.status.success() => Ok(()),
            Ok(output) => Err(ClusterError::Program {
                program,
                output: end_of(&String::from_utf8_lossy(&output.stderr)),
            }),
            Err(error) => Err(ClusterError::Program {
                program,
                output: error.to_string(),
            }),
        }
    }

    /// Starts a node's server; it does not wait until the server accepts connections.
    pub fn spawn(&self, node: &str, data: &Path, port: u16) -> Result<Postmaster, ClusterError> {
        let log = data.with_extension("log");
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .open(&log)
            .map_err(ClusterError::file(&log))?;
        let length = |file: &File| file.metadata().map_or(0, |found| found.len());
        let log_start = usize::try_from(length(&file)).unwrap_or(usize::MAX);
        let errors = file.try_clone().map_err(ClusterError::file(&log))?;
        let mut command = self.command("postgres");
        // The command line wins over every file: no setting of a caller opens the cluster to a network.
        command
            .arg("-D")
            .arg(data)
            .args(["-p", &port.to_string(), "-c", "listen_addresses=127.0.0.1"]);
        command
            .arg("-k")
            .arg(&self.directory)
            .args(["-c", &format!("cluster_name={node}")]);
        let child = command
            .stdout(file)
            .stderr(errors)
            .spawn()
            .map_err(|error| ClusterError::Program {
                program: "postgres",
                output: error.to_string(),
            })?;
        let pid = i32::try_from(child.id()).expect("a process number is an i32");
        let process = Process::find(pid).unwrap_or_else(|| Process::recorded(pid, ""));
        Ok(Postmaster {
            child,
            process,
            node: node.to_owned(),
            port,
            log,
            log_start,
        })
    }
}

/// The server process of one node, a child of the owner.
#[derive(Debug)]
pub(super) struct Postmaster {
    child: Child,
    process: Process,
    node: String,
    port: u16,
    log: PathBuf,
    log_start: usize,
}

impl Postmaster {
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Whether it ended by itself or by a signal; reaps it when it did.
    pub fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Why it did not start, from what it logged since it was spawned.
    pub fn failure(&self) -> ClusterError {
        let bytes = fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(bytes.get(self.log_start..).unwrap_or_default()).into_owned();
        if log.contains("could not bind") && log.contains("Address already in use") {
            return ClusterError::PortTaken { port: self.port };
        }
        ClusterError::NotStarted {
            node: self.node.clone(),
            log: end_of(&log),
        }
    }

    /// SIGKILL to the server and all its processes, and returns when none of them runs any more; false at the deadline.
    pub fn kill(&mut self, deadline: Instant) -> bool {
        let killed = self.process.kill_with_descendants();
        wait_until_gone(&killed, deadline) && self.wait(deadline)
    }

    /// Waits on this thread until the server has ended; false at the deadline.
    pub fn wait(&mut self, deadline: Instant) -> bool {
        while !self.has_ended() {
            if Instant::now() >= deadline {
                return false;
            }
            pause();
        }
        true
    }
}

fn end_of(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n")
}
