//! `nodes` and `[[node]]`: the PostgreSQL servers behind the proxy.
//!
//! Read by `Config::load`; used by the cluster and the pools. `nodes` is the short form, addresses alone; `[[node]]` also takes
//! a weight. Which of them is the primary is found out, not configured.

use super::endpoint::Endpoint;
use super::kind::{At, List, Whole};
use super::reader::Section;

/// PostgreSQL's port.
const DEFAULT_PORT: u16 = 5432;
/// More are not a cluster but a mistake.
const NODES_MAX: usize = 1_000;

/// One server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeConfig {
    /// Where it is.
    pub address: Endpoint,
    /// Its share of reads relative to the others'; 0: it serves no reads as a replica.
    pub weight: u32,
}

/// Both forms, the short one first; `top` is the file's top.
pub(super) fn read(mut top: Section<'_>) -> Vec<NodeConfig> {
    let address = || At {
        default_port: DEFAULT_PORT,
        interfaces: false,
    };
    let mut short = Vec::new();
    let kind = List {
        kind: address(),
        parts_max: NODES_MAX,
    };
    top.read("nodes", &mut short, &kind);
    let long = top.list("node", |node| {
        let mut weight = 1;
        node.read("weight", &mut weight, &Whole(0..=1_000));
        let address = node.read_required("address", &address())?;
        Some(NodeConfig { address, weight })
    });
    let short = short.into_iter().map(|address| NodeConfig { address, weight: 1 });
    short.chain(long).collect()
}
