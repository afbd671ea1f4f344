//! Which of several nodes takes the next read, and the count of what each is doing.
//!
//! `Cluster::pick` and `Cluster::track` call it. The node with the fewest requests per weight wins; nodes that tie take turns
//! in proportion to their weights. Invariant: a node that is not usable, or of weight 0, is never chosen. Pure apart from the
//! counters; it neither waits nor connects.

use super::{
    node_id::NodeId,
    view::{ClusterView, NodeView},
};
use std::cmp::Ordering as Order;
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// Chooses among the usable nodes that `ok` admits; `turn` is a number that grows with every call.
pub fn choose(view: &ClusterView, turn: usize, ok: impl Fn(&NodeView) -> bool) -> Option<NodeId> {
    let may = |node: &&NodeView| node.usable && node.weight > 0 && ok(node);
    let load = |node: &NodeView| Load {
        requests: node.outstanding.load(Ordering::Relaxed) as u128,
        weight: u128::from(node.weight),
    };
    let mut least: Option<Load> = None;
    let mut total = 0;
    for node in view.nodes.iter().filter(may) {
        let load = load(node);
        match least.map_or(Order::Less, |least| load.cmp(&least)) {
            Order::Less => (least, total) = (Some(load), u64::from(node.weight)),
            Order::Equal => total += u64::from(node.weight),
            Order::Greater => {}
        }
    }
    let least = least?;
    let mut place = (turn as u64).checked_rem(total)?;
    // The counts move meanwhile: what no longer ties is passed over, and the first that may serve stands in for it.
    let mut first = None;
    for node in view.nodes.iter().filter(may) {
        first = first.or(Some(node.id));
        if load(node).cmp(&least) == Order::Greater {
            continue;
        }
        let weight = u64::from(node.weight);
        if place < weight {
            return Some(node.id);
        }
        place -= weight;
    }
    first
}

/// Requests per weight, compared without rounding.
#[derive(Clone, Copy)]
struct Load {
    requests: u128,
    weight: u128,
}

impl Load {
    fn cmp(&self, other: &Self) -> Order {
        (self.requests * other.weight).cmp(&(other.requests * self.weight))
    }
}

/// One request that runs on a node; dropping it takes it off the node's count.
#[derive(Debug)]
pub struct Outstanding(Arc<AtomicUsize>);

impl Outstanding {
    pub(super) fn begin(node: &NodeView) -> Self {
        node.outstanding.fetch_add(1, Ordering::Relaxed);
        node.served.requests.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(&node.outstanding))
    }
}

impl Drop for Outstanding {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{NodeAddress, Role, Sample};
    use crate::protocol::lsn::Lsn;
    use std::time::Instant;

    /// Nodes as (usable, weight, outstanding).
    fn view(nodes: &[(bool, u32, usize)]) -> ClusterView {
        let nodes = (0u16..)
            .zip(nodes)
            .map(|(id, &(usable, weight, outstanding))| NodeView {
                id: NodeId(id),
                address: NodeAddress {
                    host: "h".into(),
                    port: id,
                },
                role: Role::Replica,
                usable,
                why_not: None,
                missing_right: None,
                timeline: 1,
                sample: Sample {
                    lsn: Lsn(0),
                    written: Lsn(0),
                    number: 1,
                    sent_at: Instant::now(),
                },
                lag_bytes: None,
                lag: None,
                weight,
                outstanding: Arc::new(AtomicUsize::new(outstanding)),
                served: Arc::default(),
            });
        ClusterView {
            version: 1,
            era: 1,
            primary: None,
            system_identifier: None,
            timeline: 1,
            nodes: nodes.collect(),
            conflict: None,
        }
    }

    /// How often each node is chosen in 60 turns with unchanged counts.
    fn shares(nodes: &[(bool, u32, usize)]) -> Vec<usize> {
        let view = view(nodes);
        let mut counts = vec![0; nodes.len()];
        for turn in 0..60 {
            if let Some(id) = choose(&view, turn, |_| true) {
                counts[id.index()] += 1;
            }
        }
        counts
    }

    #[test]
    fn least_outstanding_per_weight_wins_and_ties_take_turns() {
        let check = |nodes: &[(bool, u32, usize)], expected: &[usize]| {
            assert_eq!(shares(nodes), expected, "{nodes:?}");
        };
        check(&[(true, 1, 0), (true, 1, 0)], &[30, 30]);
        check(&[(true, 1, 0), (true, 2, 0)], &[20, 40]);
        check(&[(true, 1, 3), (true, 1, 2)], &[0, 60]);
        check(&[(true, 1, 3), (true, 2, 5)], &[0, 60]);
        check(&[(true, 1, 3), (true, 2, 6)], &[20, 40]);
        check(&[(true, 1, 3), (true, 2, 7)], &[60, 0]);
        check(&[(false, 1, 0), (true, 1, 9)], &[0, 60]);
        check(&[(true, 0, 0), (true, 1, 9)], &[0, 60]);
        check(&[(false, 1, 0), (true, 0, 0)], &[0, 0]);
        check(&[], &[]);
    }

    #[test]
    fn the_callers_condition_counts() {
        let view = view(&[(true, 1, 0), (true, 1, 5)]);
        assert_eq!(choose(&view, 0, |node| node.id == NodeId(1)), Some(NodeId(1)));
        assert_eq!(choose(&view, 0, |_| false), None);
    }

    #[test]
    fn a_dropped_request_is_off_the_count_but_stays_in_the_total() {
        let view = view(&[(true, 1, 0)]);
        let node = &view.nodes[0];
        let (first, second) = (Outstanding::begin(node), Outstanding::begin(node));
        assert_eq!(node.outstanding.load(Ordering::Relaxed), 2);
        drop((first, second));
        assert_eq!(node.outstanding.load(Ordering::Relaxed), 0);
        assert_eq!(node.served.requests.load(Ordering::Relaxed), 2);
    }
}
