//! What a login proved about a client.
//!
//! Made by `Auth::authenticate`, kept by the session for as long as the client stays. Invariant: its secret never shows in
//! `Debug` and is overwritten when dropped, as `pool::Secret` is.

use std::sync::Arc;

use crate::pool::Secret;

/// A proven identity.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The role.
    pub user: Arc<str>,
    /// True when it may use the console.
    pub admin: bool,
    /// With what the pool logs in to the servers as this role: the keys that the client's own login proved, or the configured
    /// password. `None`: nothing was learnt, and the pool's other sources have to know.
    pub keys: Option<Secret>,
}
