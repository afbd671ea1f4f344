//! Strict reads on replicas: one question to the primary how far it has written serves every reader that came before it was sent.
//!
//! Called by `choose` for a read at `strict` that a replica might serve. Invariant: the position that is waited for was asked of the
//! primary after the read arrived, so whoever has replayed it misses nothing that anybody was told of before. It reads nothing
//! itself; where the position does not come in time, the primary serves. Cancel safe.

use std::time::Duration;

use super::costs::Wait;
use super::proxy::Counters;
use super::run::{Goodbye, Session};
use crate::cluster::{NodeView, Role};
use crate::freshness::database::Begun;
use crate::freshness::fence::Fence;

/// A primary that does not tell its position for so long serves the read itself.
const WAIT_MAX: Duration = Duration::from_secs(1);

/// What became of asking for a position.
pub(super) enum ReadIndex {
    /// A replica that has replayed this may serve.
    Known(Begun),
    /// The primary has to.
    Unknown,
    /// A cancel request came.
    Cancelled,
}

impl Session {
    /// What a replica must have replayed to serve a strict read that has arrived.
    pub(super) async fn read_index(&mut self, begun: &Begun) -> Result<ReadIndex, Goodbye> {
        let cluster = self.proxy.cluster.clone();
        let is_there = |node: &NodeView| node.usable && node.role == Role::Replica;
        if !cluster.view().nodes.iter().any(is_there) {
            return Ok(ReadIndex::Unknown);
        }
        Counters::count(&self.proxy.counters.read_index);
        let arrived = cluster.tick();
        let mut positions = cluster.positions();
        cluster.request_probe();
        let told = positions.wait_for(|position| position.covers >= arrived);
        let Some(told) = self
            .waiting(Wait::Position, tokio::time::timeout(WAIT_MAX, told))
            .await?
        else {
            return Ok(ReadIndex::Cancelled);
        };
        let position = told.ok().and_then(Result::ok).map(|position| *position);
        Ok(match position.filter(|position| position.era == begun.era) {
            Some(position) => ReadIndex::Known(Begun {
                fence: begun.fence.max(Fence::At(position.lsn)),
                ..begun.clone()
            }),
            None => ReadIndex::Unknown,
        })
    }
}
