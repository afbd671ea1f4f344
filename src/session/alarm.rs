//! A timer that is set for nearly every read and hardly ever goes off.
//!
//! Owned by a session, set and polled by `exchange`. Invariant: it is ready only when the moment that it was last set to has
//! come. Setting it anew to a later moment costs an atomic store, where a fresh timer for each read would cost the runtime's
//! lock twice. It may wake its task once for nothing, after the exchange for which it was set. Cancel safe.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use tokio::time::Sleep;

/// The timer; made when it is first set.
#[derive(Debug, Default)]
pub struct Alarm(Option<Pin<Box<Sleep>>>);

impl Alarm {
    /// It is to go off at this moment, and not before.
    pub fn set(&mut self, at: Instant) {
        match &mut self.0 {
            Some(sleep) => sleep.as_mut().reset(at.into()),
            None => self.0 = Some(Box::pin(tokio::time::sleep_until(at.into()))),
        }
    }

    /// Has the moment come? Never, where it was not set.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.0
            .as_mut()
            .map_or(Poll::Pending, |sleep| sleep.as_mut().poll(cx))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_goes_off_at_the_moment_that_it_was_last_set_to() {
        let mut alarm = Alarm::default();
        let began = tokio::time::Instant::now();
        let at = |milliseconds| (began + Duration::from_millis(milliseconds)).into_std();
        alarm.set(at(10));
        alarm.set(at(30));
        std::future::poll_fn(|cx| alarm.poll(cx)).await;
        assert_eq!(began.elapsed().as_millis(), 30);
        alarm.set(at(50));
        std::future::poll_fn(|cx| alarm.poll(cx)).await;
        assert_eq!(began.elapsed().as_millis(), 50);
    }
}
