//! The directory that everything of a throw-away cluster lives in, and the record of who owns it.
//!
//! Used by `ThrowAwayCluster`. The record names the owner's process, so that the next start can tell a running cluster
//! from what an owner that was killed left behind. A directory is only swept when it belongs to an account of ours and
//! its record proves that the owner is gone; doubt leaves it alone. A server is only ended when its command line names
//! its data directory. Nothing here is async.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use super::account::Account;
use super::error::ClusterError;
use super::process::{Process, pause, wait_until_gone};

/// How the name of every cluster's directory begins.
pub const DIRECTORY_PREFIX: &str = "pgladder-demo-";

/// The file with the owner's record, inside the directory.
pub const OWNER_FILE: &str = "owner";

const REMOVE_WAIT_MAX: Duration = Duration::from_secs(5);
const KILL_WAIT_MAX: Duration = Duration::from_secs(10);

/// Makes the directory: private to the account, reachable by it, with the owner's record.
pub(super) fn create(label: &str, account: &Account) -> Result<PathBuf, ClusterError> {
    let tried = parents();
    let Some(parent) = tried.iter().find(|parent| account.reaches(parent)) else {
        return Err(ClusterError::NoDirectory { tried });
    };
    let directory = tempfile::Builder::new()
        .prefix(&format!("{DIRECTORY_PREFIX}{label}"))
        // Said outright, because without it the mode is whatever the caller's umask leaves.
        .permissions(fs::Permissions::from_mode(0o700))
        .tempdir_in(parent)
        .map_err(ClusterError::file(parent))?;
    write_record(directory.path()).map_err(ClusterError::file(directory.path()))?;
    if let Some((uid, gid)) = account.lowered_to() {
        chown(directory.path(), Some(uid), Some(gid)).map_err(ClusterError::file(directory.path()))?;
    }
    Ok(directory.keep())
}

/// Removes the directory; false when something of it stays.
///
/// It is tried again for a while: a program that was just ended may still have been writing.
pub(super) fn remove(directory: &Path) -> bool {
    for data in data_directories(directory) {
        release_shared_memory(&data);
    }
    let deadline = Instant::now() + REMOVE_WAIT_MAX;
    while fs::remove_dir_all(directory).is_err() && directory.exists() {
        if Instant::now() >= deadline {
            return false;
        }
        pause();
    }
    true
}

/// Ends the servers and removes the directories of clusters whose owner is dead; returns those directories.
///
/// Blocks for as long as the servers take to end. Several processes may sweep at the same time.
pub fn sweep_leftovers() -> Result<Vec<PathBuf>, ClusterError> {
    let account = Account::choose()?;
    let entries = parents()
        .into_iter()
        .filter_map(|parent| fs::read_dir(parent).ok())
        .flatten();
    let mut swept = Vec::new();
    for entry in entries.filter_map(Result::ok) {
        let is_ours = entry.file_name().to_string_lossy().starts_with(DIRECTORY_PREFIX)
            // Of the entry itself, not of what a symbolic link points to.
            && entry.metadata().is_ok_and(|found| found.is_dir() && account.owns(found.uid()));
        let directory = entry.path();
        if is_ours && is_abandoned(&directory) {
            end_servers(&directory);
            if remove(&directory) {
                swept.push(directory);
            }
        }
    }
    Ok(swept)
}

/// Where clusters are made, best first.
fn parents() -> Vec<PathBuf> {
    let mut parents = Vec::new();
    for parent in [
        std::env::temp_dir(),
        PathBuf::from("/tmp"),
        PathBuf::from("/var/tmp"),
    ] {
        match parent.canonicalize() {
            Ok(parent) if !parents.contains(&parent) => parents.push(parent),
            _ => {}
        }
    }
    parents
}

fn write_record(directory: &Path) -> std::io::Result<()> {
    let pid = i32::try_from(std::process::id()).unwrap_or(i32::MAX);
    let started = Process::find(pid)
        .map(|owner| owner.started().to_owned())
        .unwrap_or_default();
    let draft = directory.join("owner.new");
    fs::write(&draft, format!("{pid}\n{started}\n{}\n", namespace()))?;
    // Renamed into place, so that a sweep never reads half a record.
    fs::rename(draft, directory.join(OWNER_FILE))
}

/// The process-id namespace: containers may share a directory, and then a number means another process in each.
fn namespace() -> String {
    fs::read_link("/proc/self/ns/pid")
        .map(|link| link.display().to_string())
        .unwrap_or_default()
}

fn is_abandoned(directory: &Path) -> bool {
    let Ok(record) = fs::read_to_string(directory.join(OWNER_FILE)) else {
        return false;
    };
    let mut lines = record.lines();
    let (Some(pid), Some(started), Some(found_in)) = (lines.next(), lines.next(), lines.next()) else {
        return false;
    };
    let Ok(pid) = pid.parse() else {
        return false;
    };
    found_in == namespace() && !started.is_empty() && !Process::recorded(pid, started).is_alive()
}

fn data_directories(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory)
        .into_iter()
        .flatten()
        .filter_map(Result::ok);
    entries
        .map(|entry| entry.path())
        .filter(|path| path.join("PG_VERSION").is_file())
        .collect()
}

/// Ends the servers that run in the directory, whoever started them.
fn end_servers(directory: &Path) {
    let mut killed = Vec::new();
    for data in data_directories(directory) {
        let lock = fs::read_to_string(data.join("postmaster.pid")).unwrap_or_default();
        let recorded = lock.lines().next().and_then(|line| line.trim().parse().ok());
        let Some(server) = recorded.and_then(Process::find) else {
            continue;
        };
        if server.command_line().contains(&format!("-D {} ", data.display())) {
            killed.extend(server.kill_with_descendants());
        }
    }
    wait_until_gone(&killed, Instant::now() + KILL_WAIT_MAX);
}

/// Removes the System V segment that a killed server left; the lock file names it (`storage/ipc/ipci.c`).
///
/// Only on Linux, where the segment can be compared first: a number alone may be another's by now.
fn release_shared_memory(data: &Path) {
    let lock = fs::read_to_string(data.join("postmaster.pid")).unwrap_or_default();
    let Some((key, id)) = lock.lines().nth(6).and_then(|line| line.trim().split_once(' ')) else {
        return;
    };
    let (key, id) = (key.trim(), id.trim());
    let segments = fs::read_to_string("/proc/sysvipc/shm").unwrap_or_default();
    let is_unused = segments.lines().any(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        fields.first() == Some(&key) && fields.get(1) == Some(&id) && fields.get(6) == Some(&"0")
    });
    if is_unused {
        // Without `ipcrm` 56 bytes stay until the machine restarts: not worth an error.
        let _ = Command::new("ipcrm").args(["-m", id]).output();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_dead_owner_makes_a_directory_abandoned() {
        let directory = tempfile::tempdir().expect("a directory");
        assert!(!is_abandoned(directory.path()), "no record proves nothing");
        write_record(directory.path()).expect("it is ours");
        assert!(!is_abandoned(directory.path()), "the owner is this process");

        let own = std::process::id();
        let cases = [
            (format!("{own}\nanother time\n{}\n", namespace()), true),
            (format!("{own}\nanother time\npid:[1]\n"), false),
            (format!("{own}\nanother time\n"), false),
            (format!("{own}\n\n{}\n", namespace()), false),
        ];
        for (record, abandoned) in cases {
            fs::write(directory.path().join(OWNER_FILE), &record).expect("it is ours");
            assert_eq!(is_abandoned(directory.path()), abandoned, "{record}");
        }
    }

    #[test]
    fn the_directory_is_private_and_its_owner_lives() {
        let account = Account::choose().expect("an account");
        let directory = create("unit-", &account).expect("a temporary directory");
        let found = directory.metadata().expect("it exists");
        assert_eq!(found.mode() & 0o777, 0o700);
        assert!(account.owns(found.uid()));
        assert!(!is_abandoned(&directory));
        assert!(remove(&directory));
        assert!(!directory.exists());
    }
}
