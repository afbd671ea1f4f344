//! Cancel requests: the proxy's own keys, and which server connection a key means at this moment.
//!
//! The listener brings requests, each session keeps a slot. Invariant: a request is forwarded only to the connection that the
//! session holds, and that connection is lent to nobody else before the server has taken the request, so that it never stops the
//! next client's statement: where it is not known whether the server has, the connection is closed. Dropping a slot makes its key
//! meaningless. Every future here is cancel safe; a forwarding that is dropped counts as one of which nothing is known.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU8, Ordering};
use std::task::{Context, Poll};

use atomic_waker::AtomicWaker;
use bytes::Bytes;
use parking_lot::Mutex;
use rand::RngCore;
use tokio::sync::Notify;

use crate::pool::{CancelTarget, Pools};

/// Bytes of a secret under protocol 3.2; 3.0 has room for 4.
const SECRET_BYTES: usize = 32;

/// All sessions that can be cancelled.
#[derive(Debug, Default)]
pub struct Cancels {
    slots: Mutex<HashMap<i32, Arc<Shared>>>,
    next: AtomicI32,
}

#[derive(Debug)]
struct Shared {
    secret: Bytes,
    running: Mutex<Running>,
    /// A request came before the unit in work had a connection.
    early: AtomicBool,
    /// A forwarded request is done.
    done: Notify,
    /// Whether the session waits in the proxy, for a connection or for another's answer, and a request has come meanwhile.
    waiting: AtomicU8,
    waker: AtomicWaker,
}

impl Shared {
    /// Ends what the session waits for in the proxy; false where it does not wait.
    fn stop_waiting(&self) -> bool {
        let waits = self
            .waiting
            .compare_exchange(WAITS, STOPPED, Ordering::SeqCst, Ordering::SeqCst);
        if waits.is_ok() {
            self.waker.wake();
        }
        waits.is_ok()
    }
}

/// It does not wait.
const BUSY: u8 = 0;
/// It waits.
const WAITS: u8 = 1;
/// It waits, and a request has come.
const STOPPED: u8 = 2;

#[derive(Debug, Default)]
struct Running {
    target: Option<CancelTarget>,
    forwarding: usize,
    /// A request may still be on its way to the target.
    doubtful: bool,
}

/// A session's place; its key is what BackendKeyData tells the client.
#[derive(Debug)]
pub struct CancelSlot {
    cancels: Arc<Cancels>,
    process: i32,
    shared: Arc<Shared>,
}

impl Cancels {
    /// A new key. `protocol_minor` decides how long its secret may be.
    pub fn slot(self: &Arc<Self>, protocol_minor: u16) -> CancelSlot {
        let length = if protocol_minor >= 2 { SECRET_BYTES } else { 4 };
        let mut secret = vec![0; length];
        rand::rng().fill_bytes(&mut secret);
        let shared = Arc::new(Shared {
            secret: secret.into(),
            running: Mutex::default(),
            early: AtomicBool::new(false),
            done: Notify::new(),
            waiting: AtomicU8::new(BUSY),
            waker: AtomicWaker::new(),
        });
        let mut slots = self.slots.lock();
        let process = loop {
            // Positive and not in use: clients show it as a process id.
            let number = self.next.fetch_add(1, Ordering::Relaxed).wrapping_add(1) & i32::MAX;
            if number > 0 && !slots.contains_key(&number) {
                break number;
            }
        };
        slots.insert(process, Arc::clone(&shared));
        CancelSlot {
            cancels: Arc::clone(self),
            process,
            shared,
        }
    }

    /// Cancels what the session with this key does now: ends its waiting in the proxy, or returns the request that is to be
    /// forwarded. One that comes before the unit in work has a connection is kept for when it has.
    pub fn cancel(&self, process: i32, secret: &[u8]) -> Option<Forwarding> {
        let shared = self.slots.lock().get(&process).cloned()?;
        if !same(&shared.secret, secret) || shared.stop_waiting() {
            return None;
        }
        let forwarding = Forwarding::begin(&shared);
        if forwarding.is_none() {
            shared.early.store(true, Ordering::SeqCst);
            // It may have got one meanwhile, without having seen this.
            return Forwarding::begin(&shared);
        }
        forwarding
    }
}

/// A request on its way to the server. Until it is dropped, the connection that it means is not given back.
#[derive(Debug)]
pub struct Forwarding {
    shared: Arc<Shared>,
    target: CancelTarget,
    taken: bool,
}

impl Forwarding {
    fn begin(shared: &Arc<Shared>) -> Option<Self> {
        let mut running = shared.running.lock();
        let target = running.target.clone()?;
        running.forwarding += 1;
        Some(Self {
            shared: Arc::clone(shared),
            target,
            taken: false,
        })
    }

    /// Returns when the server has taken the request.
    pub async fn end(mut self, pools: &Pools) {
        match pools.cancel(&self.target).await {
            Ok(()) => self.taken = true,
            Err(error) => tracing::debug!(%error, "a cancel request may not have reached its server"),
        }
    }
}

impl Drop for Forwarding {
    fn drop(&mut self) {
        {
            let mut running = self.shared.running.lock();
            running.forwarding -= 1;
            running.doubtful |= !self.taken;
        }
        self.shared.done.notify_one();
    }
}

impl CancelSlot {
    /// The process number of the key.
    pub fn process(&self) -> i32 {
        self.process
    }

    /// The secret of the key.
    pub fn secret(&self) -> &[u8] {
        &self.shared.secret
    }

    /// A unit begins: what was asked before does not concern it.
    pub fn begin_unit(&self) {
        if self.shared.early.load(Ordering::Relaxed) {
            self.shared.early.store(false, Ordering::SeqCst);
        }
    }

    /// From now on a request means this connection. True: one has come for the unit before.
    #[must_use]
    pub fn aim(&self, target: CancelTarget) -> bool {
        self.shared.running.lock().target = Some(target);
        self.shared.early.swap(false, Ordering::SeqCst)
    }

    /// A request of the session's own, for what it runs now, if anything.
    pub fn request(&self) -> Option<Forwarding> {
        Forwarding::begin(&self.shared)
    }

    /// From now on a request means nothing; returns when none is being forwarded any more. False: one may still be on its way,
    /// and the connection must not be lent to anybody else.
    #[must_use]
    pub async fn clear(&self) -> bool {
        loop {
            let done = self.shared.done.notified();
            {
                let mut running = self.shared.running.lock();
                running.target = None;
                if running.forwarding == 0 {
                    return !std::mem::take(&mut running.doubtful);
                }
            }
            done.await;
        }
    }

    /// The session waits in the proxy for as long as this lives.
    pub fn wait(&self) -> Waiting<'_> {
        self.shared.waiting.store(WAITS, Ordering::SeqCst);
        Waiting(&self.shared)
    }

    /// Runs `work`, which waits in the proxy; `None` when a cancel request came meanwhile.
    pub async fn unless_cancelled<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let waiting = self.wait();
        tokio::select! {
            biased;
            () = std::future::poll_fn(|cx| waiting.poll_stopped(cx)) => None,
            done = work => Some(done),
        }
    }
}

impl Drop for CancelSlot {
    fn drop(&mut self) {
        self.cancels.slots.lock().remove(&self.process);
    }
}

/// While it lives, a request ends the session's waiting.
#[derive(Debug)]
pub struct Waiting<'a>(&'a Shared);

impl Waiting<'_> {
    /// Ready once a request has come.
    pub fn poll_stopped(&self, cx: &Context<'_>) -> Poll<()> {
        self.0.waker.register(cx.waker());
        if self.0.waiting.load(Ordering::SeqCst) == STOPPED {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.0.waiting.swap(BUSY, Ordering::SeqCst) == STOPPED {
            // It may have come when what was waited for had come, too.
            self.0.early.store(true, Ordering::SeqCst);
        }
    }
}

/// Compares in a time that does not tell how much of the secret was right.
fn same(secret: &[u8], given: &[u8]) -> bool {
    let difference = secret.iter().zip(given).fold(0, |all, (a, b)| all | (a ^ b));
    secret.len() == given.len() && difference == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_differ_and_end_with_their_slot() {
        let cancels = Arc::new(Cancels::default());
        let (old, new) = (cancels.slot(0), cancels.slot(2));
        assert_ne!(old.process(), new.process());
        assert_eq!((old.secret().len(), new.secret().len()), (4, SECRET_BYTES));
        let process = old.process();
        drop(old);
        assert!(!cancels.slots.lock().contains_key(&process));
    }

    #[test]
    fn a_secret_is_compared_as_a_whole() {
        assert!(same(b"abcd", b"abcd"));
        assert!(!same(b"abcd", b"abce"));
        assert!(!same(b"abcd", b"abc"));
        assert!(!same(b"abcd", b""));
    }

    #[tokio::test]
    async fn a_connection_is_not_given_back_while_a_request_is_on_its_way_to_it() {
        let slot = Arc::new(Cancels::default()).slot(0);
        assert!(slot.request().is_none(), "nothing runs");
        let _ = slot.aim(CancelTarget {
            node: crate::cluster::NodeId(0),
            process: 7,
            secret: Bytes::new(),
        });
        let requests = [slot.request(), slot.request()].map(|request| request.expect("it runs"));
        let mut cleared = std::pin::pin!(slot.clear());
        for mut request in requests {
            let early = tokio::time::timeout(std::time::Duration::ZERO, &mut cleared);
            assert!(early.await.is_err());
            request.taken = true;
            drop(request);
        }
        assert!(cleared.await, "the server has taken both");
        assert!(slot.request().is_none(), "it is over");
    }

    #[tokio::test]
    async fn a_request_of_which_nothing_is_known_keeps_the_connection_from_others() {
        let slot = Arc::new(Cancels::default()).slot(0);
        let _ = slot.aim(CancelTarget {
            node: crate::cluster::NodeId(0),
            process: 7,
            secret: Bytes::new(),
        });
        drop(slot.request());
        assert!(!slot.clear().await);
        assert!(slot.clear().await, "that was said of the connection of then");
    }

    #[test]
    fn a_request_that_comes_before_there_is_a_connection_is_kept_for_it_and_for_no_later_unit() {
        let cancels = Arc::new(Cancels::default());
        let slot = cancels.slot(0);
        let target = CancelTarget {
            node: crate::cluster::NodeId(0),
            process: 7,
            secret: Bytes::new(),
        };
        let ask = || cancels.cancel(slot.process(), slot.secret());
        assert!(ask().is_none(), "nothing runs");
        slot.begin_unit();
        assert!(!slot.aim(target.clone()), "that was asked of nothing");
        assert!(ask().is_some(), "it runs");
        slot.shared.running.lock().target = None;
        slot.begin_unit();
        assert!(ask().is_none());
        assert!(slot.aim(target.clone()));
        slot.shared.running.lock().target = None;
        let waiting = slot.wait();
        assert!(ask().is_none(), "it ends the waiting");
        drop(waiting);
        assert!(slot.aim(target), "which had ended by itself");
    }

    #[test]
    fn a_request_ends_a_wait_and_none_that_comes_later() {
        let slot = Arc::new(Cancels::default()).slot(0);
        let stopped =
            |waiting: &Waiting<'_>| waiting.poll_stopped(&Context::from_waker(std::task::Waker::noop()));
        assert!(!slot.shared.stop_waiting(), "it does not wait");
        let waiting = slot.wait();
        assert!(stopped(&waiting).is_pending());
        assert!(slot.shared.stop_waiting());
        assert!(stopped(&waiting).is_ready());
        drop(waiting);
        assert!(stopped(&slot.wait()).is_pending());
    }

    #[tokio::test]
    async fn nothing_is_awaited_where_nothing_is_forwarded() {
        let slot = Arc::new(Cancels::default()).slot(0);
        assert!(slot.clear().await);
        assert_eq!(slot.unless_cancelled(async { 7 }).await, Some(7));
    }
}
