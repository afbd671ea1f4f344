//! The nodes behind the proxy: their names, and the logical clock that orders the proxy's events.
//!
//! Called by everything that names a server. What a node is at this moment, primary or replica, is learnt by asking it and
//! never assumed from the configuration.

pub mod node_id;
pub mod ticks;

pub use node_id::NodeId;
pub use ticks::Ticks;
