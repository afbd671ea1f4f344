//! The directory that proxies write to, and the account that they run under.
//!
//! Used by `doors`. It lies inside the throw-away cluster's directory and goes away with it. PgBouncer refuses to run as root, so
//! whoever owns the cluster's directory runs the proxies too. Invariant: everything in it belongs to that account.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A directory, and its owner.
#[derive(Clone, Debug)]
pub struct Place {
    directory: PathBuf,
    uid: u32,
    gid: u32,
    /// Does the owner differ from this process's own user?
    lowered: bool,
}

impl Place {
    /// A place inside a directory that belongs to the account.
    pub fn inside(parent: &Path) -> io::Result<Self> {
        let owner = parent.metadata()?;
        let place = Self {
            directory: parent.join("proxies"),
            uid: owner.uid(),
            gid: owner.gid(),
            lowered: nix::unistd::geteuid().as_raw() != owner.uid(),
        };
        fs::create_dir(&place.directory)?;
        place.hand_over(&place.directory)?;
        Ok(place)
    }

    /// Where a file of this name is, or will be.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Writes a file.
    pub fn write(&self, name: &str, text: &str) -> io::Result<PathBuf> {
        let path = self.path(name);
        fs::write(&path, text)?;
        self.hand_over(&path)?;
        Ok(path)
    }

    /// Makes an empty directory, in place of one of this name.
    pub fn folder(&self, name: &str) -> io::Result<PathBuf> {
        let path = self.path(name);
        if path.exists() {
            fs::remove_dir_all(&path)?;
        }
        fs::create_dir(&path)?;
        self.hand_over(&path)?;
        Ok(path)
    }

    /// A command that runs under the account.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.directory);
        if self.lowered {
            command.uid(self.uid).gid(self.gid);
        }
        command
    }

    fn hand_over(&self, path: &Path) -> io::Result<()> {
        if self.lowered {
            chown(path, Some(self.uid), Some(self.gid))?;
        }
        Ok(())
    }
}
