//! The turns of a transaction block between what the client sees and what a server has: opened late, failed early.
//!
//! Called by `perform` around each unit. Invariant: a block that is deferred, or that failed beside no server, is opened on the
//! primary before anything runs there that needs it, in the state in which the client has it.

use super::choose::Chosen;
use super::held::{AskError, Held};
use super::last::Reason;
use super::perform::{Messages, Work};
use super::run::{Block, Goodbye, Session};
use super::shape::uses_portal;
use super::statements::Portal;
use crate::protocol::backend::Status;
use crate::protocol::error::Report;
use crate::protocol::sqlstate;

impl Session {
    /// Is there a block that no server has yet?
    pub(super) fn has_unsent_block(&self) -> bool {
        match &self.block {
            Block::Deferred(_) => true,
            Block::Failed => self.held.is_none(),
            Block::None | Block::Open => false,
        }
    }

    /// Opens on the primary the block that is deferred, or that failed without a server, where the unit needs one there; false
    /// when the unit was answered with an error instead.
    pub(super) async fn open_block(&mut self, work: &Work<'_>) -> Result<bool, Goodbye> {
        let portal = self.portal_of_begin();
        let (begin, failed) = match &self.block {
            Block::Deferred(begin) if !work.is_early_read() || uses(work, portal) => (begin.clone(), false),
            Block::Failed if self.held.is_none() => (bytes::Bytes::from_static(b"BEGIN"), true),
            _ => return Ok(true),
        };
        let bound = portal.is_some();
        let refusal = match self.choose_primary(Reason::Own, work).await? {
            Chosen::Refused(refusal) => refusal,
            Chosen::Held(mut held, _) => {
                let mut text = begin.to_vec();
                if self.read_early {
                    // The server too is to know that a query ran, and refuse SET TRANSACTION.
                    text.extend_from_slice(b"\n; SELECT 1");
                }
                let opened = if bound {
                    held.begin_in_portal(&text).await
                } else {
                    open_on(&mut held, &text, failed).await
                };
                match opened {
                    Ok(()) => {
                        self.block = Block::Open;
                        self.held = Some(held);
                        return Ok(true);
                    }
                    Err(error) => error.into(),
                }
            }
        };
        self.refuse_unit(work, &refusal);
        Ok(false)
    }

    /// The portal in which the client has executed the BEGIN that is deferred, if it has; an early read takes its place.
    fn portal_of_begin(&self) -> Option<&Portal> {
        let Block::Deferred(begin) = &self.block else {
            return None;
        };
        let portal = self.statements.portal(b"").filter(|_| !self.read_early);
        portal.filter(|portal| portal.statement.parsed.sql == begin)
    }

    /// Where the block stands after a unit.
    pub(super) fn settle_block(&mut self, held: &Held, failed: bool) {
        self.block = match (&self.block, held.status) {
            // An early read ran beside the block.
            (Block::Deferred(_), Status::Idle) if failed => Block::Failed,
            (Block::Deferred(begin), Status::Idle) => Block::Deferred(begin.clone()),
            (Block::Failed, Status::Idle) => Block::Failed,
            (_, Status::Idle) => Block::None,
            _ => Block::Open,
        };
    }

    /// In a block that failed without a server, all but its end is refused.
    pub(super) fn refuse_in_failed_block(&mut self) {
        Report::error(
            sqlstate::FAILED_TRANSACTION,
            "current transaction is aborted, commands ignored until end of transaction block",
        )
        .encode(&mut self.wire.out);
    }
}

fn uses(work: &Work<'_>, portal: Option<&Portal>) -> bool {
    match (&work.messages, portal) {
        (Messages::Batch(messages), Some(portal)) => uses_portal(messages, portal),
        _ => false,
    }
}

/// Begins a block on a connection; one that has failed is made to fail there too, so that the server itself refuses what it
/// refuses in such a block.
async fn open_on(held: &mut Held, begin: &[u8], failed: bool) -> Result<(), AskError> {
    held.ask(&String::from_utf8_lossy(begin)).await?;
    if failed {
        held.fail_block().await?;
    }
    Ok(())
}
