//! A throw-away PostgreSQL cluster with the demo's schema and data.
//!
//! Called by `pgladder demo` and by the integration tests, so that both stand on a real primary with real streaming
//! replicas. Nothing it starts outlives its owner: see `cluster::ThrowAwayCluster`. It knows nothing of the proxy.

pub mod binaries;
pub mod cluster;
pub mod data;
