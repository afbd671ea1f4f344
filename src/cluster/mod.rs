//! The nodes behind the proxy: who is primary, which replicas may be used, and how far each has come.
//!
//! Upper layers read an immutable `ClusterView` (a few nanoseconds) and subscribe to its versions and to the primary's
//! positions. One task per node polls it, one task probes the primary on request; what they learn is judged by `decide`,
//! which is pure. The invariant: a view names a primary only while exactly one node may be it, and its `era` grows whenever
//! what was known before may have been lost. It opens no connection for clients and decides nothing about freshness.

pub mod choose;
pub mod connect;
pub mod decide;
mod lag;
pub mod node_id;
mod poll;
mod probe;
mod running;
pub mod settings;
pub mod ticks;
pub mod tls;
pub mod view;

pub use choose::Outstanding;
pub use connect::in_words;
pub use node_id::{NodeAddress, NodeId};
pub use running::Cluster;
pub use settings::{ClusterSettings, LagLimit, NodeConfig, PasswordLookup};
pub use ticks::Ticks;
pub use tls::ControlTls;
pub use view::{ClusterView, MissingRight, NodeView, NotUsable, Position, Role, Sample, ServedCounters};
