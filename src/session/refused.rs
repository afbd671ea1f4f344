//! Answering a unit with an error, where no server has run it.
//!
//! Called by `perform`, and by those who look at a unit before it is sent. Invariant: after it the client's transaction stands where
//! the server's own refusal would have left it: a block has failed, on its connection too, and all up to the Sync is skipped.
//! `refuse_on` is not cancel safe: a dropped one leaves a dirty connection, which is closed.

use bytes::BytesMut;

use super::acquire::Refusal;
use super::exchange::{Broken, Until};
use super::held::{AskError, Held};
use super::perform::Work;
use super::run::{Block, Goodbye, Session};
use crate::protocol::backend::Status;

impl Session {
    /// Refuses a unit that has no connection.
    pub(super) fn refuse_unit(&mut self, work: &Work<'_>, refusal: &Refusal) {
        self.say_refused(work, |out| refusal.encode(out));
        if self.block != Block::None {
            self.block = Block::Failed;
        }
        if work.until == Until::Ready {
            self.ready_for_query();
        }
    }

    /// Refuses a unit that was about to be sent on this connection, which is kept or given back.
    pub(super) async fn refuse_on(
        &mut self,
        mut held: Box<Held>,
        work: &Work<'_>,
        encode: impl FnOnce(&mut BytesMut),
    ) -> Result<(), Goodbye> {
        if held.status == Status::InTransaction
            && let Err(error) = held.fail_block().await
        {
            return Box::pin(self.refused_before(held, work, error)).await;
        }
        self.say_refused(work, encode);
        self.end_refused(held, work).await
    }

    /// What the proxy asked on the connection ahead of the unit was refused, or the connection was lost by it.
    pub(super) async fn refused_before(
        &mut self,
        held: Box<Held>,
        work: &Work<'_>,
        error: AskError,
    ) -> Result<(), Goodbye> {
        let frame = match error {
            AskError::Refused(frame) => frame,
            AskError::Lost(lost) => {
                let broken = Broken {
                    lost,
                    shown: false,
                    farewell: false,
                };
                return Box::pin(self.lost(held, work, broken, None)).await;
            }
        };
        self.say_refused(work, |out| out.extend_from_slice(&frame));
        self.end_refused(held, work).await
    }

    fn say_refused(&mut self, work: &Work<'_>, encode: impl FnOnce(&mut BytesMut)) {
        self.statements.undo();
        self.completed.clear();
        self.failed_before = false;
        encode(&mut self.wire.out);
        self.skipping |= work.until == Until::Answered;
    }

    async fn end_refused(&mut self, held: Box<Held>, work: &Work<'_>) -> Result<(), Goodbye> {
        if held.status != Status::Idle {
            self.block = Block::Open;
        } else if self.block != Block::None {
            self.block = Block::Failed;
        }
        if held.status == Status::Idle && self.pin.is_none() {
            self.give_back(held).await;
        } else {
            self.held = Some(held);
        }
        if work.until == Until::Ready {
            self.ready_for_query();
        }
        Ok(())
    }
}
