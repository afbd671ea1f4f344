//! What the nodes themselves counted, by pg_stat_statements.
//!
//! Used by the steps before and after what they do; the difference is their evidence. Nodes are asked directly, over
//! the cluster's private socket, never through the proxy. A statement is known by PostgreSQL's own identifier of its
//! parse tree, which is equal on a primary and its replicas, so that neither comments nor constants matter. Counts are
//! never reset here: a difference needs no reset. A dropped future leaves nothing behind.

use tokio_postgres::Client;
use tokio_postgres::types::ToSql;

use super::verdict::{Counts, NodeCount};
use super::{DATABASE, StepError};
use crate::demo::cluster::ThrowAwayCluster;

const CALLS: &str = "SELECT coalesce(sum(calls), 0)::int8 FROM pg_stat_statements \
     WHERE queryid = $1 AND dbid = (SELECT oid FROM pg_database WHERE datname = current_database())";

/// One statement, as the nodes know it.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) struct Watched {
    query_id: i64,
}

impl Watched {
    /// Asks the primary for the statement's identifier; the statement itself is not run.
    pub(super) async fn new(
        cluster: &ThrowAwayCluster,
        sql: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Self, StepError> {
        let primary = cluster.connect(cluster.primary(), DATABASE).await?;
        let explain = format!("EXPLAIN (VERBOSE, COSTS off) {sql}");
        let rows = primary
            .query(&explain, parameters)
            .await
            .map_err(StepError::direct("asking for a statement's identifier"))?;
        let lines = rows.iter().map(|row| row.get::<_, &str>(0));
        let query_id = identifier(lines).ok_or(StepError::NoIdentifier)?;
        Ok(Self { query_id })
    }

    /// How often each running node has run it so far.
    pub(super) async fn counts(self, cluster: &ThrowAwayCluster) -> Result<Counts, StepError> {
        let mut counts = Vec::with_capacity(cluster.node_count());
        for node in (0..cluster.node_count()).filter(|node| cluster.process(*node).is_some()) {
            let client = cluster.connect(node, DATABASE).await?;
            counts.push(NodeCount {
                node: node_name(cluster, node),
                is_primary: node == cluster.primary(),
                calls: self.calls(&client).await?,
            });
        }
        Ok(Counts(counts))
    }

    async fn calls(self, client: &Client) -> Result<u64, StepError> {
        let row = client
            .query_one(CALLS, &[&self.query_id])
            .await
            .map_err(StepError::direct("reading pg_stat_statements"))?;
        Ok(u64::try_from(row.get::<_, i64>(0)).expect("a number of calls is not negative"))
    }
}

/// What the demo calls a node; the cluster names its directories the same.
pub(in crate::demo) fn node_name(cluster: &ThrowAwayCluster, node: usize) -> String {
    if node == cluster.primary() {
        "primary".to_owned()
    } else {
        format!("replica_{node}")
    }
}

/// The line `Query Identifier: 42` of a verbose plan (PostgreSQL 14 or newer).
fn identifier<'a>(mut plan: impl Iterator<Item = &'a str>) -> Option<i64> {
    plan.find_map(|line| line.trim().strip_prefix("Query Identifier: ")?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_identifier_is_read_from_a_plan() {
        let plan = ["Result", "  Output: 1", "Query Identifier: -1147616880456321454"];
        assert_eq!(identifier(plan.into_iter()), Some(-1_147_616_880_456_321_454));
        assert_eq!(identifier(plan[..2].iter().copied()), None);
    }
}
