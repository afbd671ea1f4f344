//! Running the request of an entry once more, in the background: under its own role, settings, text and parameters.
//!
//! Made of a session by `refresh` and `sample`, which decide where it runs and what becomes of the answer. Invariant: the answer is
//! that of a session with the entry's key. Not cancel safe: a dropped run leaves a dirty connection, which is closed.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::acquire::{Place, Refusal, bring_to};
use super::deliver::put_request;
use super::exchange::Capture;
use super::held::{Held, ServerLost};
use super::login::Base;
use super::perform::Cacheable;
use super::proxy::Proxy;
use super::run::Session;
use super::settings::Values;
use crate::cache::entry::Entry;
use crate::cache::key::Key;
use crate::freshness::database::Database;
use crate::protocol::frame::HEADER_BYTES;
use crate::protocol::scanner::Step;

/// All that it needs of the session that began it.
pub(super) struct Rerun {
    pub(super) proxy: Arc<Proxy>,
    pub(super) database: Arc<Database>,
    pub(super) place: Place,
    pub(super) key: Key,
    pub(super) entry: Arc<Entry>,
    base: Arc<Base>,
    wanted: Arc<Values>,
    session: u64,
    entry_bytes_max: usize,
}

impl Session {
    /// The request of an entry that has been hit.
    pub(super) fn rerun(&self, entry: &Arc<Entry>, wanted: &Cacheable) -> Rerun {
        Rerun {
            proxy: Arc::clone(&self.proxy),
            database: Arc::clone(&self.database),
            place: self.place.clone(),
            key: wanted.key.clone(),
            entry: Arc::clone(entry),
            base: Arc::clone(&self.base),
            wanted: Arc::clone(&self.wanted),
            session: self.id,
            entry_bytes_max: self.policy.cache.entry_bytes_max,
        }
    }
}

impl Rerun {
    /// Brings a connection to the entry's settings.
    pub(super) async fn prepare(&self, held: &mut Held) -> Result<(), Refusal> {
        Ok(bring_to(held, self.session, &self.wanted, &self.base.facts).await?)
    }

    /// Runs it on a connection that is prepared: the answer's messages; else the ErrorResponse, or nothing where they are not to be
    /// kept.
    pub(super) async fn run_on(&self, held: &mut Held) -> Result<Result<BytesMut, Option<Bytes>>, Refusal> {
        put_request(held, &self.key.request());
        let captured = held.capture(self.entry_bytes_max).await;
        captured.map_err(|lost| Refusal::lost(&lost))
    }
}

impl Held {
    /// Writes what stands in the output, and returns the answer's messages; else the ErrorResponse, or nothing where they are not to
    /// be kept.
    async fn capture(&mut self, bytes_max: usize) -> Result<Result<BytesMut, Option<Bytes>>, ServerLost> {
        self.lease.dirty = true;
        let (mut capture, mut error) = (Capture::new(bytes_max), None);
        loop {
            if self.capture_all(&mut capture, &mut error)? {
                return Ok(capture.answer().ok_or(error));
            }
            self.turn(None).await?;
        }
    }

    /// Takes all whole steps of the server's input; true at ReadyForQuery.
    fn capture_all(&mut self, capture: &mut Capture, error: &mut Option<Bytes>) -> Result<bool, ServerLost> {
        let (mut at, mut over) = (0, false);
        while !over {
            match self.step(at)? {
                Step::Incomplete => break,
                Step::Rows { end, tag, .. } => {
                    capture.take(tag, &self.lease.input[at..end]);
                    at = end;
                }
                Step::Message(frame) => {
                    let whole = frame.bytes(&self.lease.input);
                    capture.take(frame.tag, whole);
                    match frame.tag {
                        b'E' => *error = Some(Bytes::copy_from_slice(whole)),
                        b'S' => {
                            let body = whole[HEADER_BYTES..].to_vec();
                            self.note_parameter(&body);
                        }
                        b'Z' => {
                            let status = whole.get(HEADER_BYTES).copied();
                            self.note_status(status.as_slice())?;
                            over = true;
                        }
                        _ => {}
                    }
                    at = frame.end();
                }
            }
        }
        self.consume(at);
        Ok(over)
    }
}
