//! The process's limit of open files, of which each client takes one and each server connection another.
//!
//! Called once when the listener starts. The soft limit is a default for programs that use select(2), which this one does not, so
//! it is raised to the hard limit. It never lowers a limit, and a refusal by the system is not an error: the limit is reported.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Raises the soft limit to the hard one and returns what is in effect; `None` when the system does not tell.
pub fn raise() -> Option<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).ok()?;
    if soft >= hard {
        return Some(soft);
    }
    match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
        Ok(()) => Some(hard),
        Err(error) => {
            tracing::warn!(soft, hard, %error, "the limit of open files could not be raised");
            Some(soft)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_becomes_the_hard_one() {
        let raised = raise().expect("the system tells");
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("the system tells");
        assert_eq!((soft, raised), (hard, hard));
    }
}
