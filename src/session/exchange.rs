//! One unit on one server connection: everything the client sent goes there, everything that answers it comes back.
//!
//! Called by the session with a connection that is brought to its settings. Invariants: nothing that acknowledges a write is
//! appended to the client's output before the clocks know of it; a replica's answer is held back while it may still be run
//! again elsewhere; rows are never decoded. Not cancel safe: a dropped exchange leaves a dirty connection, which is closed.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};

use super::answers::{Sent, Verdict};
use super::effects::Completion;
use super::held::{Held, ServerLost, Turn, Unnamed, parameter, protocol, sqlstate};
use super::run::Session;
use crate::cache::flight::Audience;
use crate::protocol::error;
use crate::protocol::frame::{Frame, HEADER_BYTES};
use crate::protocol::scanner::{Scanner, Step};

/// Answers larger than this reach the client before they are complete.
const HELD_BACK_BYTES_MAX: usize = 64 * 1024;
/// Bytes of a client's COPY that wait for the server.
const COPY_BYTES_MAX: usize = 256 * 1024;
/// Bytes that a client may send ahead of the unit in work.
pub(super) const AHEAD_BYTES_MAX: usize = 256 * 1024;

/// A replica that says nothing for so long may wait for a lock.
const SILENCE: Duration = Duration::from_millis(200);

/// When an exchange is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// At ReadyForQuery.
    Ready,
    /// When all that was sent is answered: a batch that ends with Flush.
    Answered,
}

/// What is run, and how its answer is treated.
#[derive(Debug)]
pub struct Run {
    /// When it is sent.
    pub asked_at: Instant,
    /// When it is over.
    pub until: Until,
    /// What each CommandComplete in turn completes.
    /// `None` for what is not known, such as a cursor that is executed by its name.
    pub completes: VecDeque<Option<Completion>>,
    /// The answer, kept for the cache.
    pub capture: Option<Capture>,
    /// Those who wait for it, where others may.
    pub audience: Option<Audience>,
    /// Until a byte of the answer has reached the client, a refusal that does not hold elsewhere is not forwarded.
    pub may_retry: bool,
    /// A plan that is out of date may be replaced: the client was told nothing of its columns.
    pub replans: bool,
    /// The client uses extended query messages.
    pub extended: bool,
}

impl Run {
    /// Does anybody but its own client wait for the answer?
    pub fn is_shared(&self) -> bool {
        self.audience.as_ref().is_some_and(Audience::waits)
    }
}

/// How an exchange ended.
#[derive(Debug)]
pub enum Ended {
    /// The client has its answer, or will have when its output is flushed.
    Done {
        /// The ErrorResponse that it holds, if any.
        error: Option<Bytes>,
    },
    /// It was refused for a reason that does not hold elsewhere: a replica's own, or a plan that is out of date.
    Refused(Box<str>),
}

/// The server connection was lost before the unit was over.
#[derive(Debug)]
pub struct Broken {
    /// How.
    pub lost: ServerLost,
    /// Bytes of the answer may have reached the client.
    pub shown: bool,
    /// The server ends the connection for what the client sent, and has said so.
    pub farewell: bool,
}

/// An answer while it streams.
#[derive(Debug)]
pub struct Capture {
    messages: BytesMut,
    bytes_max: usize,
    /// It ended with CommandComplete, within the limit, and nothing else came between.
    complete: bool,
    spoilt: bool,
}

impl Capture {
    /// Keeps at most so many bytes.
    pub fn new(bytes_max: usize) -> Self {
        Self {
            messages: BytesMut::new(),
            bytes_max,
            complete: false,
            spoilt: false,
        }
    }

    /// The answer's messages, if it is whole and may be kept.
    pub fn answer(self) -> Option<BytesMut> {
        (self.complete && !self.spoilt).then_some(self.messages)
    }

    pub(super) fn take(&mut self, tag: u8, bytes: &[u8]) {
        if self.spoilt {
            return;
        }
        match tag {
            b'T' if self.messages.is_empty() => self.messages.put_slice(bytes),
            b'D' | b'C' if !self.complete => {
                self.messages.put_slice(bytes);
                self.complete = tag == b'C';
            }
            b'1' | b'2' | b'3' | b'Z' => {}
            // A notice, an error, a second result: not what can be given again.
            _ => self.spoilt = true,
        }
        if self.messages.len() > self.bytes_max {
            self.spoilt = true;
            self.messages = BytesMut::new();
        }
    }
}

/// Where a COPY from the client stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CopyIn {
    No,
    /// The server takes data.
    Data,
    /// Data has ended, or failed; in the extended protocol a Sync must follow.
    Tail,
}

struct Progress<'a> {
    run: &'a mut Run,
    out_start: usize,
    /// Bytes of the answer may have reached the client.
    shown: bool,
    error: Option<Bytes>,
    refused: Option<Box<str>>,
    farewell: bool,
    copy: CopyIn,
    copying: Scanner,
    /// How long a replica may be silent before it is looked what it waits for; it doubles.
    silence: Option<Duration>,
}

impl Session {
    /// Runs what stands in `held.lease.output`, and forwards the answer. The server's own ReadyForQuery is not forwarded.
    pub(super) async fn exchange(&mut self, held: &mut Held, run: &mut Run) -> Result<Ended, Broken> {
        held.lease.dirty = true;
        let silence = (held.is_replica && run.may_retry).then_some(SILENCE);
        if let Some(silence) = silence {
            self.alarm.set(run.asked_at + silence);
        }
        let mut progress = Progress {
            shown: !run.may_retry,
            silence,
            run,
            out_start: self.wire.out.len(),
            error: None,
            refused: None,
            farewell: false,
            copy: CopyIn::No,
            copying: Scanner::default(),
        };
        if let Err(lost) = self.forward_all(held, &mut progress).await {
            if !progress.shown {
                self.wire.out.truncate(progress.out_start);
            }
            let Progress { shown, farewell, .. } = progress;
            return Err(Broken {
                lost,
                shown,
                farewell,
            });
        }
        Ok(match progress.refused {
            Some(code) => Ended::Refused(code),
            None => Ended::Done {
                error: progress.error,
            },
        })
    }

    async fn forward_all(&mut self, held: &mut Held, progress: &mut Progress<'_>) -> Result<(), ServerLost> {
        loop {
            if self.take_all(held, progress)? {
                return Ok(());
            }
            self.feed_copy(held, progress)?;
            if self.wire.gone && progress.copy == CopyIn::Data {
                return Err(protocol("the client vanished while it sent data"));
            }
            self.show(progress).await;
            let hear = match progress.copy {
                CopyIn::No => self.wire.input.len() < AHEAD_BYTES_MAX + self.unit_bytes,
                _ => held.lease.output.len() < COPY_BYTES_MAX,
            };
            let alarmed = self.wire.gone || progress.silence.is_some() && !progress.shown;
            let client = (hear && !self.wire.gone).then_some(&mut self.wire);
            let alarm = alarmed.then_some(&mut self.alarm);
            let Some(turn) = held.turn_or(client, alarm).await else {
                // Those who share the execution of a client that is gone still wait for it.
                let shared = progress.run.is_shared();
                if progress.silence.is_some() && !progress.shown && (shared || !self.wire.gone) {
                    Box::pin(self.look_for_a_lock(held, progress)).await?;
                } else {
                    self.client_vanished(progress.run);
                }
                continue;
            };
            if turn? == Turn::Client && self.wire.gone {
                self.client_vanished(progress.run);
            }
        }
    }

    /// A replica has been silent for a while: does the read wait for a lock whose release it has not replayed yet?
    async fn look_for_a_lock(&mut self, held: &Held, progress: &mut Progress<'_>) -> Result<(), ServerLost> {
        let silence = progress.silence.unwrap_or(SILENCE) * 2;
        progress.silence = Some(silence);
        self.alarm.set(Instant::now() + silence);
        let place = self.place.clone();
        let is_there = || {
            self.proxy
                .cluster
                .view()
                .node(held.node)
                .is_some_and(|node| node.usable)
        };
        if is_there() && !place.is_blocked(&self.proxy, held).await && is_there() {
            return Ok(());
        }
        let (proxy, target) = (Arc::clone(&self.proxy), held.lease.cancel_target());
        self.proxy.tasks.spawn(async move {
            if let Err(error) = proxy.pools.cancel(&target).await {
                tracing::debug!(%error, "a read that waits on a replica was not cancelled");
            }
        });
        Err(if is_there() {
            ServerLost::Blocked
        } else {
            ServerLost::Unusable
        })
    }

    /// Writes what the client may have; its answer, while it may be run again, only when it has grown large.
    async fn show(&mut self, progress: &mut Progress<'_>) {
        let grown = self.wire.out.len() - progress.out_start > HELD_BACK_BYTES_MAX;
        if progress.refused.is_none() && (progress.shown || grown) && !self.wire.out.is_empty() {
            progress.shown = true;
            progress.out_start = 0;
            self.wire.flush().await;
            if self.wire.gone {
                self.client_vanished(progress.run);
            }
        }
    }

    /// Takes every step that the server's input holds; true when the unit is over.
    fn take_all(&mut self, held: &mut Held, progress: &mut Progress<'_>) -> Result<bool, ServerLost> {
        // Bytes `from..at` are to be forwarded and not yet copied.
        let (mut at, mut from, mut over) = (0, 0, false);
        loop {
            if held.answers.has_words() {
                self.forward(held, from..at);
                from = at;
                self.speak(held);
            }
            over |= progress.run.until == Until::Answered && held.answers.is_empty();
            if over {
                break;
            }
            match held.step(at)? {
                Step::Incomplete => break,
                Step::Rows { end, tag, .. } => {
                    if progress.refused.is_some() {
                        self.forward(held, from..at);
                        from = end;
                    } else if let Some(capture) = &mut progress.run.capture {
                        capture.take(tag, &held.lease.input[at..end]);
                    }
                    at = end;
                }
                Step::Message(frame) => {
                    let before = self.wire.out.len();
                    if self.take(held, frame, progress)? {
                        at = frame.end();
                    } else {
                        // What the message itself put there comes after what was to be forwarded before it.
                        let own = (self.wire.out.len() > before).then(|| self.wire.out.split_off(before));
                        if progress.refused.is_none() {
                            self.forward(held, from..at);
                        }
                        if let Some(own) = own {
                            self.wire.out.unsplit(own);
                        }
                        at = frame.end();
                        from = at;
                    }
                    over = progress.run.until == Until::Ready && frame.tag == b'Z';
                }
            }
        }
        self.forward(held, from..at);
        held.consume(at);
        Ok(over)
    }

    fn speak(&mut self, held: &mut Held) {
        let before = self.wire.out.len();
        held.answers.spoken(&mut self.wire.out);
        for tag in super::batch::tags(&self.wire.out[before..]) {
            // DEALLOCATE is the only statement of the proxy's own that changes them.
            if matches!(tag, b'1' | b'3') || tag == b'C' && self.wire.out.ends_with(b"DEALLOCATE\0") {
                self.statements.answered();
            }
        }
    }

    fn forward(&mut self, held: &Held, range: Range<usize>) {
        if !self.wire.gone {
            self.wire.out.extend_from_slice(&held.lease.input[range]);
        }
    }

    /// Takes one whole message; true when it is to be forwarded.
    fn take(
        &mut self,
        held: &mut Held,
        frame: Frame,
        progress: &mut Progress<'_>,
    ) -> Result<bool, ServerLost> {
        let answered = held.answers.next();
        let verdict = match held.answers.arrived(frame.tag) {
            Ok(verdict) => verdict,
            Err(_) if frame.tag == b'E' => {
                progress.farewell = true;
                Verdict::Forward
            }
            Err(error) => return Err(protocol(&error.to_string())),
        };
        let whole = frame.start..frame.end();
        let body = frame.start + HEADER_BYTES..frame.end();
        let mut forward = verdict == Verdict::Forward && progress.refused.is_none();
        match frame.tag {
            b'S' => {
                // The client is told before ReadyForQuery, when the values are those that its session is to have.
                let bytes = held.lease.input[body].to_vec();
                held.note_parameter(&bytes);
                forward = false;
                if let Some(capture) = &mut progress.run.capture {
                    capture.take(frame.tag, &bytes);
                }
            }
            b'C' | b'I' | b's' if verdict == Verdict::Forward => {
                self.complete(&held.lease.input[body], progress);
            }
            b'1' => {
                held.parsing.pop_front();
                if verdict == Verdict::Forward {
                    self.statements.answered();
                }
            }
            b'T' | b'n' if matches!(answered, Some(Sent::DescribeStatement | Sent::DescribePortal)) => {
                held.note_told(super::told::shape(&held.lease.input[body]));
            }
            b'3' if answered == Some(Sent::CloseStatement) => self.statements.answered(),
            b'E' => {
                if answered == Some(Sent::Parse) {
                    self.statements.undo_failed_parse();
                }
                forward &= self.failed(held, whole.clone(), progress);
            }
            b'G' => {
                progress.copy = CopyIn::Data;
                self.wire.consume(std::mem::take(&mut self.unit_bytes));
                progress.shown = true;
                if progress.run.extended {
                    held.answers.forget_syncs();
                }
            }
            b'Z' => {
                let status = held.lease.input[body].first().copied();
                held.note_status(status.as_slice())?;
                self.ready(held);
                forward = false;
            }
            _ => {}
        }
        if forward && let Some(capture) = &mut progress.run.capture {
            capture.take(frame.tag, &held.lease.input[whole]);
        }
        Ok(forward)
    }

    fn complete(&mut self, tag: &[u8], progress: &mut Progress<'_>) {
        self.acknowledge(tag);
        if let Some(Some(completion)) = progress.run.completes.pop_front()
            && completion.leaves_trace()
        {
            self.completed.push((completion, Bytes::copy_from_slice(tag)));
        }
    }

    /// Takes an ErrorResponse; true when it is to be forwarded as it stands.
    fn failed(&mut self, held: &mut Held, whole: Range<usize>, progress: &mut Progress<'_>) -> bool {
        let frame = Bytes::copy_from_slice(&held.lease.input[whole]);
        self.statements.undo();
        // A Parse of it may have failed, or have been skipped.
        held.unnamed = Unnamed::Unknown;
        for statement in held.parsing.drain(..).flatten() {
            held.lease.prepared.forget(&statement);
        }
        if progress.copy == CopyIn::Data {
            progress.copy = CopyIn::after_data(progress.run.extended, progress.run.until);
        }
        let fields = error::fields(&frame[HEADER_BYTES..]);
        progress.farewell |= fields.severity == b"FATAL" && fields.code == b"08P01";
        let code = sqlstate(&frame);
        let elsewhere = if held.is_replica {
            leads_to_the_primary(code) && (progress.run.replans || !is_outdated_plan(&frame))
        } else {
            progress.run.replans && is_outdated_plan(&frame)
        };
        if is_outdated_plan(&frame) {
            // None of the connection's plans is used again: the client may parse the same text anew.
            held.lease.prepared.evict_all();
        }
        if !progress.shown && progress.refused.is_none() && elsewhere {
            progress.refused = Some(String::from_utf8_lossy(code).into());
            self.wire.out.truncate(progress.out_start);
            return false;
        }
        if let Some(renamed) = super::batch::with_client_names(&frame, &held.names) {
            self.wire.out.put_slice(&renamed);
            progress.error = Some(renamed.freeze());
            return false;
        }
        progress.error = Some(frame);
        true
    }

    /// Forwards what the client sends in a COPY.
    fn feed_copy(&mut self, held: &mut Held, progress: &mut Progress<'_>) -> Result<(), ServerLost> {
        let mut at = 0;
        while progress.copy != CopyIn::No && held.lease.output.len() < COPY_BYTES_MAX {
            let step = progress.copying.step(&self.wire.input, at);
            let (range, tag) = match step.map_err(|error| protocol(&error.to_string()))? {
                Step::Incomplete => break,
                Step::Rows { start, end, tag } => (start..end, tag),
                Step::Message(frame) => (frame.start..frame.end(), frame.tag),
            };
            match (progress.copy, tag) {
                (CopyIn::Data, b'd' | b'c' | b'f') => {
                    held.lease.output.put_slice(&self.wire.input[range.clone()]);
                    if tag != b'd' {
                        progress.copy = CopyIn::after_data(progress.run.extended, progress.run.until);
                    }
                }
                // The server ignores these while it takes data, and data after it has failed.
                (CopyIn::Data, b'H' | b'S') | (CopyIn::Tail, b'd' | b'c' | b'f' | b'H') => {}
                (CopyIn::Tail, b'S') => {
                    held.lease.output.put_slice(&self.wire.input[range.clone()]);
                    held.answers.sent(Sent::Sync, super::answers::For::Client);
                    progress.copy = CopyIn::No;
                }
                // The server says what it thinks of that, and ends the connection.
                (CopyIn::Data, _) => held.lease.output.put_slice(&self.wire.input[range.clone()]),
                (CopyIn::Tail, _) if !progress.run.extended => {
                    progress.copy = CopyIn::No;
                    break;
                }
                _ => return Err(protocol("a message that has no place in a COPY")),
            }
            at = range.end;
        }
        self.wire.consume(at);
        Ok(())
    }
}

impl CopyIn {
    fn after_data(extended: bool, until: Until) -> Self {
        if extended && until == Until::Ready {
            Self::Tail
        } else {
            Self::No
        }
    }
}

/// Errors of a replica that the primary would not have: a recovery conflict, a shutdown, an unlogged table, a read-only
/// transaction.
fn leads_to_the_primary(code: &[u8]) -> bool {
    matches!(
        code,
        b"40001" | b"40P01" | b"57P01" | b"57P02" | b"57P03" | b"25006" | b"0A000" | b"55000" | b"58030"
    )
}

/// A prepared statement that another client made before its tables were altered: parsed anew, it runs.
fn is_outdated_plan(frame: &[u8]) -> bool {
    let fields = error::fields(&frame[HEADER_BYTES..]);
    fields.code == b"0A000" && fields.message == b"cached plan must not change result type"
}

/// Name and value of a ParameterStatus that the client has not seen, when it is one that a client may see change.
pub(super) fn news<'a>(
    body: &'a [u8],
    reported: &std::collections::BTreeMap<Box<str>, Box<str>>,
) -> Option<(&'a str, &'a str)> {
    let (name, value) = parameter(body)?;
    // Tells replicas apart, which is nobody's business.
    if name == "in_hot_standby" {
        return None;
    }
    (reported.get(name).map(|known| &**known) != Some(value)).then_some((name, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn captured(messages: &[(u8, &[u8])], bytes_max: usize) -> Option<BytesMut> {
        let mut capture = Capture::new(bytes_max);
        for (tag, bytes) in messages {
            capture.take(*tag, bytes);
        }
        capture.answer()
    }

    #[test]
    fn an_answer_is_kept_only_when_it_is_whole_and_alone() {
        let whole = captured(
            &[
                (b'2', b"bind"),
                (b'T', b"t"),
                (b'D', b"d"),
                (b'D', b"e"),
                (b'C', b"c"),
                (b'Z', b"z"),
            ],
            99,
        );
        assert_eq!(whole.expect("whole"), &b"tdec"[..]);
        assert!(captured(&[(b'T', b"t"), (b'D', b"d")], 99).is_none(), "not ended");
        assert!(
            captured(&[(b'D', b"d"), (b'N', b"n"), (b'C', b"c")], 99).is_none(),
            "a notice"
        );
        assert!(
            captured(&[(b'D', b"d"), (b'C', b"c"), (b'D', b"d")], 99).is_none(),
            "a second result"
        );
        assert!(
            captured(&[(b'D', b"dddd"), (b'C', b"c")], 4).is_none(),
            "too large"
        );
        assert!(captured(&[(b'D', b"d"), (b's', b"s")], 99).is_none(), "suspended");
    }

    #[test]
    fn only_news_reaches_the_client_and_never_the_node() {
        let reported = [("TimeZone".into(), "UTC".into())].into();
        assert_eq!(news(b"TimeZone\0UTC\0", &reported), None);
        assert_eq!(news(b"TimeZone\0GMT\0", &reported), Some(("TimeZone", "GMT")));
        assert_eq!(news(b"in_hot_standby\0on\0", &reported), None);
    }
}
