//! A proxy that runs as a child process, and what it uses of the machine.
//!
//! Used by `doors`, which starts one for each door. Invariant: dropping it ends the process and all its children: first as its
//! manual asks for a fast stop, then by SIGKILL to each by its own number. Where there is no `/proc` it uses nothing that can be
//! told. Dropping blocks for a moment.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pgladder::demo::cluster::Process;

use super::reading;

const STOP_WAIT_MAX: Duration = Duration::from_secs(5);
const POLL_INTERVAL: Duration = Duration::from_millis(10);
const LOG_TAIL_LINES: usize = 12;

/// A running child process.
pub struct Daemon {
    child: Child,
    process: Process,
    stop: Signal,
    log: PathBuf,
}

impl Daemon {
    /// Starts it; all that it says goes to `log`.
    pub fn start(command: &mut Command, stop: Signal, log: &Path) -> anyhow::Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        let output = File::create(log)?;
        let mut child = command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| name.clone())?;
        let pid = i32::try_from(child.id())?;
        let Some(process) = Process::find(pid) else {
            let status = child.wait()?;
            return Err(anyhow!("{name} ended at once: {status}\n{}", tail(log)));
        };
        Ok(Self {
            child,
            process,
            stop,
            log: log.to_owned(),
        })
    }

    /// Fails when it has ended.
    pub fn check(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => Err(anyhow!("a proxy ended: {status}\n{}", self.last_words())),
        }
    }

    /// The last lines of its log.
    pub fn last_words(&self) -> String {
        tail(&self.log)
    }

    /// Processor time used so far by it and its children, in seconds.
    pub fn processor_seconds(&self) -> Option<f64> {
        self.sum("stat", reading::processor_seconds)
    }

    /// Proportional set size of it and its children, in bytes.
    pub fn pss_bytes(&self) -> Option<u64> {
        self.sum("smaps_rollup", reading::pss_bytes)
    }

    /// A child that ends while it is looked at is left out: its parent has its times.
    fn sum<N: std::iter::Sum>(&self, file: &str, read: fn(&str) -> Option<N>) -> Option<N> {
        let one = |process: &Process| {
            let text = fs::read_to_string(format!("/proc/{}/{file}", process.pid())).ok()?;
            read(&text)
        };
        let own = one(&self.process)?;
        let children = self.process.descendants();
        Some(std::iter::once(own).chain(children.iter().filter_map(one)).sum())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        signal(&self.process, self.stop);
        let deadline = Instant::now() + STOP_WAIT_MAX;
        while Instant::now() < deadline {
            match self.child.try_wait() {
                Ok(None) => std::thread::park_timeout(POLL_INTERVAL),
                Ok(Some(_)) | Err(_) => return,
            }
        }
        for process in self.process.descendants() {
            signal(&process, Signal::SIGKILL);
        }
        signal(&self.process, Signal::SIGKILL);
        // It is ours to reap, and cannot refuse.
        drop(self.child.wait());
    }
}

/// That it ends meanwhile is no error; a process that got its number later is not hit.
fn signal(process: &Process, signal: Signal) {
    if process.is_alive() {
        let _ = kill(Pid::from_raw(process.pid()), signal);
    }
}

fn tail(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n")
}
