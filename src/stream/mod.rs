//! The WAL stream: what was committed on the primary, by whom and past whom ever, told to the clocks of a database.
//!
//! Started by `serve`, one follower per database that is served. A logical replication connection with a temporary slot tells which
//! tables each transaction changed; `state` decides, purely, what that is worth. Invariant: a table counts as carried only while
//! no commit of it can be missed; without a stream, and for what it cannot carry, observed writes and TTL stay in force.
//! It decodes no rows, and keeps nothing on the server that outlives its connection but a publication, which it drops.

mod aside;
mod follow;
pub mod permit;
pub mod pgoutput;
mod plan;
pub mod publication;
pub mod replication;
mod running;
pub mod snapshot;
pub mod state;
pub mod status;
mod steward;
mod streams;
pub mod why_not;
pub mod wire;

pub use follow::StreamLimits;
pub use streams::{StreamSettings, Streams};
