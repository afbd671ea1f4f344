//! Who waits for a connection of one pool, so that a failed attempt to connect is told to one of them at once.
//!
//! Called by the pool (which waits) and by bb8's error sink (which tells). bb8 keeps a connect error to itself and lets its
//! caller wait for the whole timeout; here each failed attempt wakes exactly one waiter, the one that has waited longest.

use std::collections::BTreeMap;
use std::sync::Arc;

use bb8::ErrorSink;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::pool::error::ConnectError;

/// The waiters of one pool.
#[derive(Debug, Default)]
pub(crate) struct Demand {
    waiters: Mutex<Waiters>,
}

#[derive(Debug, Default)]
struct Waiters {
    next: u64,
    by_age: BTreeMap<u64, oneshot::Sender<ConnectError>>,
}

impl Demand {
    /// Waits in line; dropping the result leaves the line.
    pub(crate) fn wait(self: &Arc<Self>) -> Waiting {
        let (tell, told) = oneshot::channel();
        let mut waiters = self.waiters.lock();
        let number = waiters.next;
        waiters.next += 1;
        waiters.by_age.insert(number, tell);
        drop(waiters);
        Waiting {
            demand: Arc::clone(self),
            number,
            failed: told,
        }
    }

    /// True while anybody waits.
    pub(crate) fn is_waited_for(&self) -> bool {
        !self.waiters.lock().by_age.is_empty()
    }

    /// Tells the oldest waiter; without one the error concerns nobody any more and is logged.
    pub(crate) fn fail(&self, error: ConnectError) {
        let oldest = self.waiters.lock().by_age.pop_first();
        let untold = match oldest {
            Some((_, waiter)) => waiter.send(error).err(),
            None => Some(error),
        };
        if let Some(error) = untold {
            tracing::debug!(%error, "an attempt to connect failed after its caller had left");
        }
    }
}

/// A place in the line.
pub(crate) struct Waiting {
    demand: Arc<Demand>,
    number: u64,
    pub(crate) failed: oneshot::Receiver<ConnectError>,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.demand.waiters.lock().by_age.remove(&self.number);
    }
}

/// bb8's view of it.
#[derive(Debug)]
pub(crate) struct DemandSink(pub(crate) Arc<Demand>);

impl ErrorSink<ConnectError> for DemandSink {
    fn sink(&self, error: ConnectError) {
        // A stale connection found at checkout is no failure: bb8 goes on with the next one.
        if !matches!(error, ConnectError::Stale) {
            self.0.fail(error);
        }
    }

    fn boxed_clone(&self) -> Box<dyn ErrorSink<ConnectError>> {
        Box::new(Self(Arc::clone(&self.0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_failure_wakes_the_oldest_waiter_and_nobody_else() {
        let demand = Arc::new(Demand::default());
        let gone = demand.wait();
        let (mut first, mut second) = (demand.wait(), demand.wait());
        drop(gone);
        demand.fail(ConnectError::NodeFull);
        assert!(matches!(first.failed.try_recv(), Ok(ConnectError::NodeFull)));
        assert!(second.failed.try_recv().is_err());
        drop((first, second));
        assert!(!demand.is_waited_for());
    }
}
