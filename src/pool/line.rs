//! The line of a pool: so many places, first come first served, and what comes back goes straight to whoever has waited longest.
//!
//! Called by `pools`, and by a lease that ends. Invariants: nobody passes a caller who waits; a place that is free is never left
//! while anybody waits; what is handed to a caller who leaves goes to the next one. Dropping a place or a wait at any moment leaves
//! nothing behind. It knows nothing of connections: what is handed over is `S`.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;

/// The places of one pool, and who waits for one.
pub(crate) struct Line<S> {
    places: Mutex<Places<S>>,
}

struct Places<S> {
    free: usize,
    waiting: VecDeque<Arc<Waiter<S>>>,
}

struct Waiter<S>(Mutex<State<S>>);

enum State<S> {
    Waiting(Option<Waker>),
    Given(Option<S>),
    Over,
}

/// What entering gives.
pub(crate) enum Entered<S> {
    /// A place is free.
    Place(Place<S>),
    /// All are taken.
    Line(Waiting<S>),
    /// All are taken, and so many callers wait as may.
    Full,
}

/// The right to use one connection. Dropping it lets the next one in.
pub(crate) struct Place<S> {
    line: Arc<Line<S>>,
    held: bool,
}

/// A caller in line. Dropping it leaves the line.
pub(crate) struct Waiting<S> {
    line: Arc<Line<S>>,
    waiter: Arc<Waiter<S>>,
}

impl<S> Line<S> {
    /// With so many places.
    pub(crate) fn new(places: usize) -> Arc<Self> {
        Arc::new(Self {
            places: Mutex::new(Places {
                free: places,
                waiting: VecDeque::new(),
            }),
        })
    }

    /// Takes a place, or goes to the end of the line if fewer than `waiting_max` wait.
    pub(crate) fn enter(self: &Arc<Self>, waiting_max: usize) -> Entered<S> {
        let mut places = self.places.lock();
        let line = Arc::clone(self);
        if places.free > 0 {
            places.free -= 1;
            return Entered::Place(Place { line, held: true });
        }
        if places.waiting.len() >= waiting_max {
            return Entered::Full;
        }
        let waiter = Arc::new(Waiter(Mutex::new(State::Waiting(None))));
        places.waiting.push_back(Arc::clone(&waiter));
        Entered::Line(Waiting { line, waiter })
    }

    /// Places that nobody has.
    pub(crate) fn free(&self) -> usize {
        self.places.lock().free
    }

    /// Callers that wait.
    pub(crate) fn waiting(&self) -> usize {
        self.places.lock().waiting.len()
    }

    /// Gives a place, with or without a connection, to the one who has waited longest; what nobody waits for comes back.
    fn give(&self, seat: Option<S>) -> Result<(), Option<S>> {
        let mut places = self.places.lock();
        let Some(first) = places.waiting.pop_front() else {
            if seat.is_some() {
                return Err(seat);
            }
            places.free += 1;
            return Ok(());
        };
        // Under the lock of the places, so that a caller who leaves finds what it was given.
        let before = std::mem::replace(&mut *first.0.lock(), State::Given(seat));
        drop(places);
        if let State::Waiting(Some(waker)) = before {
            waker.wake();
        }
        Ok(())
    }
}

impl<S> Place<S> {
    /// Hands a connection, and this place, to the one who has waited longest; where nobody waits, both come back.
    pub(crate) fn hand_over(mut self, seat: S) -> Result<(), (Self, S)> {
        match self.line.give(Some(seat)) {
            Ok(()) => {
                self.held = false;
                Ok(())
            }
            Err(seat) => Err((self, seat.expect("what was given comes back"))),
        }
    }
}

impl<S> Drop for Place<S> {
    fn drop(&mut self) {
        if self.held {
            let (Ok(()) | Err(_)) = self.line.give(None);
        }
    }
}

impl<S> Waiting<S> {
    /// Its turn: a place, and the connection that came with it, if one did.
    pub(crate) fn poll(&mut self, cx: &Context<'_>) -> Poll<(Place<S>, Option<S>)> {
        let mut state = self.waiter.0.lock();
        match std::mem::replace(&mut *state, State::Over) {
            State::Given(seat) => {
                let line = Arc::clone(&self.line);
                Poll::Ready((Place { line, held: true }, seat))
            }
            State::Waiting(waker) => {
                let known = waker.filter(|waker| waker.will_wake(cx.waker()));
                *state = State::Waiting(Some(known.unwrap_or_else(|| cx.waker().clone())));
                Poll::Pending
            }
            State::Over => Poll::Pending,
        }
    }
}

impl<S> Drop for Waiting<S> {
    fn drop(&mut self) {
        let state = {
            let mut places = self.line.places.lock();
            let state = std::mem::replace(&mut *self.waiter.0.lock(), State::Over);
            if matches!(state, State::Waiting(_)) {
                places.waiting.retain(|other| !Arc::ptr_eq(other, &self.waiter));
            }
            state
        };
        if let State::Given(seat) = state {
            let place = Place {
                line: Arc::clone(&self.line),
                held: true,
            };
            if let Some(seat) = seat {
                // Nobody waits: the connection goes back before its place is free.
                if let Err((place, seat)) = place.hand_over(seat) {
                    drop(seat);
                    drop(place);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A connection that counts while it exists, and names itself.
    type Seat = Arc<u32>;

    fn poll(waiting: &mut Waiting<Seat>) -> Option<(Place<Seat>, Option<Seat>)> {
        match waiting.poll(&Context::from_waker(Waker::noop())) {
            Poll::Ready(given) => Some(given),
            Poll::Pending => None,
        }
    }

    impl Waiting<Seat> {
        fn waits(&self) -> bool {
            matches!(*self.waiter.0.lock(), State::Waiting(_))
        }
    }

    fn place(line: &Arc<Line<Seat>>) -> Place<Seat> {
        match line.enter(9) {
            Entered::Place(place) => place,
            _ => panic!("a place is free"),
        }
    }

    fn wait(line: &Arc<Line<Seat>>) -> Waiting<Seat> {
        match line.enter(9) {
            Entered::Line(waiting) => waiting,
            _ => panic!("all places are taken"),
        }
    }

    #[test]
    fn what_is_handed_to_a_caller_who_leaves_goes_to_the_next() {
        let line = Line::new(1);
        let first = place(&line);
        let (leaves, mut stays) = (wait(&line), wait(&line));
        assert!(first.hand_over(Arc::new(7)).is_ok());
        assert!(poll(&mut stays).is_none(), "it was not its turn");
        drop(leaves);
        let (place, seat) = poll(&mut stays).expect("its turn");
        assert_eq!(seat.as_deref(), Some(&7));
        let (place, seat) = place.hand_over(Arc::new(7)).expect_err("nobody waits");
        assert_eq!((*seat, line.free()), (7, 0));
        drop(place);
        assert_eq!(line.free(), 1);
    }

    #[test]
    fn a_full_line_takes_nobody() {
        let line: Arc<Line<Seat>> = Line::new(1);
        let _place = place(&line);
        assert!(matches!(line.enter(0), Entered::Full));
        let _waiting = wait(&line);
        assert!(matches!(line.enter(1), Entered::Full));
        assert_eq!(line.waiting(), 1);
    }

    #[derive(Debug, Clone, Copy)]
    enum Step {
        Enter,
        Poll(usize),
        Leave(usize),
        Drop(usize),
        HandOver(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            2 => Just(Step::Enter),
            2 => (0..9_usize).prop_map(Step::Poll),
            1 => (0..9_usize).prop_map(Step::Leave),
            1 => (0..9_usize).prop_map(Step::Drop),
            1 => (0..9_usize).prop_map(Step::HandOver),
        ]
    }

    proptest! {
        #[test]
        fn no_place_is_lost_and_nobody_is_passed(steps in proptest::collection::vec(step(), 0..80)) {
            const PLACES: usize = 3;
            let line: Arc<Line<Seat>> = Line::new(PLACES);
            let (mut inside, mut waiting) = (Vec::<Place<Seat>>::new(), Vec::<(u32, Waiting<Seat>)>::new());
            let mut came = 0;
            for step in steps {
                match step {
                    Step::Enter => match line.enter(usize::MAX) {
                        Entered::Place(place) => {
                            prop_assert_eq!(line.waiting(), 0);
                            inside.push(place);
                        }
                        Entered::Line(one) => {
                            waiting.push((came, one));
                            came += 1;
                        }
                        Entered::Full => unreachable!("no limit"),
                    },
                    Step::Poll(at) if at < waiting.len() => {
                        if let Some((place, _)) = poll(&mut waiting[at].1) {
                            inside.push(place);
                            // All who came before it and stayed were given theirs, looked or not.
                            let (number, _) = waiting.remove(at);
                            let passed = waiting.iter_mut().filter(|(other, _)| *other < number);
                            prop_assert_eq!(passed.filter(|(_, one)| one.waits()).count(), 0);
                        }
                    }
                    Step::Leave(at) if at < waiting.len() => drop(waiting.remove(at)),
                    Step::Drop(at) if at < inside.len() => drop(inside.remove(at)),
                    Step::HandOver(at) if at < inside.len() => {
                        if let Err((place, _)) = inside.remove(at).hand_over(Arc::new(1)) {
                            inside.push(place);
                        }
                    }
                    _ => {}
                }
                // Every place is free, in use, or given to one who has not looked yet; and whoever may go on is before all others.
                let given = waiting.len() - line.waiting();
                prop_assert_eq!(line.free() + inside.len() + given, PLACES);
                prop_assert!(line.free() == 0 || line.waiting() == 0);
            }
            drop(waiting);
            drop(inside);
            prop_assert_eq!((line.free(), line.waiting()), (PLACES, 0));
        }
    }
}
