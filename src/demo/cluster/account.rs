//! The account that PostgreSQL's programs run under.
//!
//! Used by `directory` and `postmaster`. PostgreSQL refuses to run as root; when the owner is root every program is
//! started as `postgres`, or `nobody`, and the cluster's directory belongs to that account. An owner that is not root
//! runs everything as itself.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use nix::unistd::{User, geteuid};

use super::error::ClusterError;

/// Who runs PostgreSQL, and whether that means dropping root's rights.
#[derive(Clone, Copy, Debug)]
pub(super) struct Account {
    uid: u32,
    lowered_to: Option<(u32, u32)>,
}

impl Account {
    /// The owner itself, or for root the `postgres` or `nobody` account.
    pub fn choose() -> Result<Self, ClusterError> {
        let own = geteuid();
        if !own.is_root() {
            return Ok(Self {
                uid: own.as_raw(),
                lowered_to: None,
            });
        }
        ["postgres", "nobody"]
            .into_iter()
            .find_map(|name| User::from_name(name).ok().flatten())
            .map(|user| Self {
                uid: user.uid.as_raw(),
                lowered_to: Some((user.uid.as_raw(), user.gid.as_raw())),
            })
            .ok_or(ClusterError::NoAccount)
    }

    /// The user and group to switch to; `None` when the programs run as the owner.
    pub fn lowered_to(&self) -> Option<(u32, u32)> {
        self.lowered_to
    }

    /// Whether a file of this user may be one that a cluster of this owner made.
    pub fn owns(&self, uid: u32) -> bool {
        uid == self.uid || uid == geteuid().as_raw()
    }

    /// Whether the account can walk down to this directory.
    ///
    /// Only the mode for its owner and for all others is looked at: a group could make more reachable, never less.
    pub fn reaches(&self, directory: &Path) -> bool {
        directory.ancestors().all(|step| {
            step.metadata().is_ok_and(|found| {
                let search = if found.uid() == self.uid { 0o100 } else { 0o001 };
                found.is_dir() && found.mode() & search != 0
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{Permissions, set_permissions};
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_closed_ancestor_makes_a_directory_unreachable() {
        let root = tempfile::tempdir_in("/tmp").expect("a directory");
        set_permissions(root.path(), Permissions::from_mode(0o700)).expect("it is ours");
        let inner = root.path().join("inner");
        std::fs::create_dir(&inner).expect("a directory");
        let stranger = Account {
            uid: geteuid().as_raw() + 1,
            lowered_to: None,
        };
        assert!(!stranger.reaches(&inner));
        set_permissions(root.path(), Permissions::from_mode(0o711)).expect("it is ours");
        set_permissions(&inner, Permissions::from_mode(0o711)).expect("it is ours");
        assert!(stranger.reaches(&inner));
    }
}
