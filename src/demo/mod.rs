//! A throw-away PostgreSQL cluster with the demo's schema and data, and the walk through what the proxy does on it.
//!
//! Called by `pgladder demo` and by the integration tests, so that both stand on a real primary with real streaming
//! replicas. Nothing it starts outlives its owner: see `cluster::ThrowAwayCluster`. Only `proxy` knows what a proxy is;
//! the walk speaks to it as an application would.

pub mod binaries;
pub mod cluster;
pub mod data;
pub mod proxy;
pub mod run;
pub mod walk;
