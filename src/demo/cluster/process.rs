//! Processes, told apart from others that got the same number later.
//!
//! Used by `postmaster` and `directory` to end what a cluster started. A signal goes to one process by its own number,
//! and only after its start time was compared, so that a recycled number is never hit. It knows nothing of PostgreSQL.
//! `/proc` is read where there is one, `ps` elsewhere. Nothing here is async; the waits are for `Drop`.

use std::collections::HashMap;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const POLL_INTERVAL: Duration = Duration::from_millis(5);
const STOP_WAIT_MAX: Duration = Duration::from_secs(1);

/// One process: its number and when it started, as the system words it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    pid: i32,
    started: String,
}

/// A line of the system's process table.
struct Entry {
    process: Process,
    parent: i32,
    state: char,
}

impl Process {
    /// The process that runs under this number now; `None` when there is none, or only a zombie.
    pub fn find(pid: i32) -> Option<Self> {
        entry(pid).filter(Entry::is_running).map(|entry| entry.process)
    }

    /// A process as it was recorded, which may have ended since.
    pub(super) fn recorded(pid: i32, started: &str) -> Self {
        Self {
            pid,
            started: started.to_owned(),
        }
    }

    /// Its number.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// When it started, in the system's own words: only good for comparison.
    pub(super) fn started(&self) -> &str {
        &self.started
    }

    /// Whether it still runs. A zombie does not.
    pub fn is_alive(&self) -> bool {
        Self::find(self.pid).as_ref() == Some(self)
    }

    /// The command line, arguments separated by blanks; empty when it has ended.
    pub(super) fn command_line(&self) -> String {
        if cfg!(target_os = "linux") {
            let bytes = std::fs::read(format!("/proc/{}/cmdline", self.pid)).unwrap_or_default();
            return String::from_utf8_lossy(&bytes).replace('\0', " ");
        }
        ps(&["-o", "command=", "-p", &self.pid.to_string()])
    }

    /// Sends a signal, if it still runs. That it ends meanwhile is no error: that is what signals here are for.
    pub(super) fn signal(&self, signal: Signal) {
        if self.is_alive() {
            let _ = kill(Pid::from_raw(self.pid), signal);
        }
    }

    /// Children, their children, and so on.
    pub fn descendants(&self) -> Vec<Process> {
        let mut by_parent: HashMap<i32, Vec<Process>> = HashMap::new();
        for entry in table().into_iter().filter(Entry::is_running) {
            by_parent.entry(entry.parent).or_default().push(entry.process);
        }
        let mut found = Vec::new();
        let mut open = vec![self.pid];
        while let Some(children) = open.pop().and_then(|pid| by_parent.remove(&pid)) {
            open.extend(children.iter().map(Process::pid));
            found.extend(children);
        }
        found
    }

    /// SIGKILL to the process and to all its descendants; returns all of them.
    ///
    /// It is stopped first: a server that forks while its children are being counted would leave one behind.
    pub(super) fn kill_with_descendants(&self) -> Vec<Process> {
        self.signal(Signal::SIGSTOP);
        let deadline = Instant::now() + STOP_WAIT_MAX;
        while Instant::now() < deadline && entry(self.pid).is_some_and(|entry| !"TtZX".contains(entry.state))
        {
            std::thread::yield_now();
        }
        let mut all = if self.is_alive() {
            self.descendants()
        } else {
            Vec::new()
        };
        all.push(self.clone());
        for process in &all {
            process.signal(Signal::SIGKILL);
        }
        all
    }
}

impl Entry {
    fn is_running(&self) -> bool {
        !"ZX".contains(self.state)
    }
}

/// Waits on this thread until none of them runs; false at the deadline.
pub(super) fn wait_until_gone(processes: &[Process], deadline: Instant) -> bool {
    while processes.iter().any(Process::is_alive) {
        if Instant::now() >= deadline {
            return false;
        }
        pause();
    }
    true
}

/// A short pause of this thread, for the loops of `Drop`, which cannot wait for an event.
pub(super) fn pause() {
    std::thread::park_timeout(POLL_INTERVAL);
}

fn entry(pid: i32) -> Option<Entry> {
    if cfg!(target_os = "linux") {
        return parse_stat(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?);
    }
    parse_ps(&ps(&["-o", "pid=,ppid=,state=,lstart=", "-p", &pid.to_string()]))
}

fn table() -> Vec<Entry> {
    if cfg!(target_os = "linux") {
        let entries = std::fs::read_dir("/proc")
            .into_iter()
            .flatten()
            .filter_map(Result::ok);
        return entries
            .filter_map(|file| entry(file.file_name().to_str()?.parse().ok()?))
            .collect();
    }
    ps(&["-A", "-o", "pid=,ppid=,state=,lstart="])
        .lines()
        .filter_map(parse_ps)
        .collect()
}

fn ps(arguments: &[&str]) -> String {
    let output = Command::new("ps").args(arguments).env("LC_ALL", "C").output();
    output
        .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
        .unwrap_or_default()
}

/// `/proc/<pid>/stat`, proc(5): the name in parentheses may itself hold blanks and parentheses.
fn parse_stat(text: &str) -> Option<Entry> {
    let (pid, rest) = text.split_once(' ')?;
    let fields: Vec<&str> = rest[rest.rfind(')')? + 1..].split_whitespace().collect();
    let started = (*fields.get(19)?).to_owned();
    Some(Entry {
        process: Process {
            pid: pid.parse().ok()?,
            started,
        },
        parent: fields.get(1)?.parse().ok()?,
        state: fields.first()?.chars().next()?,
    })
}

fn parse_ps(line: &str) -> Option<Entry> {
    let mut fields = line.split_whitespace();
    let pid = fields.next()?.parse().ok()?;
    let parent = fields.next()?.parse().ok()?;
    let state = fields.next()?.chars().next()?;
    let started = fields.collect::<Vec<_>>().join("_");
    Some(Entry {
        process: Process { pid, started },
        parent,
        state,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let line = "42 (a) b (c)) S 7 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 98765 1 1";
        let entry = parse_stat(line).expect("a whole line");
        assert_eq!(entry.process, Process::recorded(42, "98765"));
        assert_eq!((entry.parent, entry.state), (7, 'S'));
    }

    #[test]
    fn a_line_of_ps_is_read() {
        let entry = parse_ps("  42     7 Ss   Mon Nov 23 11:58:01 2026").expect("a whole line");
        assert_eq!(entry.process, Process::recorded(42, "Mon_Nov_23_11:58:01_2026"));
        assert_eq!((entry.parent, entry.state), (7, 'S'));
    }

    #[test]
    fn a_tree_is_killed_whole_and_a_recycled_number_is_spared() {
        let mut shell = Command::new("sh")
            .args(["-c", "sleep 600 & wait"])
            .spawn()
            .expect("a shell");
        let root = Process::find(i32::try_from(shell.id()).expect("a pid")).expect("it runs");
        let deadline = Instant::now() + Duration::from_secs(10);
        while root.descendants().is_empty() && Instant::now() < deadline {
            pause();
        }
        let stranger = Process::recorded(root.pid(), "another start time");
        assert!(!stranger.is_alive());
        stranger.signal(Signal::SIGKILL);
        assert!(root.is_alive());

        let killed = root.kill_with_descendants();
        assert_eq!(killed.len(), 2, "{killed:?}");
        assert!(wait_until_gone(&killed, Instant::now() + Duration::from_secs(10)));
        shell.wait().expect("it is ours to reap");
    }
}
