//! A session's place in the queue for a pool's connection.
//!
//! A session waits for one connection at a time, so it has one [`Turn`] for its life, and waiting allocates nothing. The
//! pool's queue holds a [`Place`] while the session waits. Invariant: what comes for a place that its session has left is never
//! the session's next one's, which may be another pool's: each wait has a number.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use super::pool::{CheckoutError, Lease};

/// See the module.
#[derive(Debug, Default)]
pub struct Turn {
    state: Mutex<State>,
}

/// One wait of a session.
#[derive(Debug)]
pub(super) struct Place {
    turn: Arc<Turn>,
    number: u64,
}

#[derive(Debug, Default)]
struct State {
    /// Of the present wait, or the last one.
    number: u64,
    outcome: Option<Result<Lease, CheckoutError>>,
    /// Kept when the wait is over: the session's next wait is that of the same task.
    waker: Option<Waker>,
}

impl Place {
    /// Ends the wait; what comes too late is dropped.
    pub(super) fn settle(self, outcome: Result<Lease, CheckoutError>) {
        let mut state = self.turn.lock();
        if state.number != self.number {
            drop(state);
            // A lease goes to the next in the queue.
            return drop(outcome);
        }
        state.outcome = Some(outcome);
        let waker = state.waker.clone();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Whether it is this session's.
    pub(super) fn is_of(&self, turn: &Arc<Turn>) -> bool {
        Arc::ptr_eq(&self.turn, turn)
    }
}

impl Turn {
    /// Begins a wait.
    pub(super) fn enter(self: &Arc<Self>) -> Place {
        let mut state = self.lock();
        state.number += 1;
        Place {
            turn: Arc::clone(self),
            number: state.number,
        }
    }

    /// Ends the wait, whatever has come.
    pub(super) fn leave(&self) {
        let mut state = self.lock();
        state.number += 1;
        let late = state.outcome.take();
        drop(state);
        drop(late);
    }

    /// Ready when the wait is over.
    pub(super) fn poll(&self, context: &mut Context<'_>) -> Poll<Result<Lease, CheckoutError>> {
        let mut state = self.lock();
        if let Some(outcome) = state.outcome.take() {
            return Poll::Ready(outcome);
        }
        let is_known = |waker: &Waker| waker.will_wake(context.waker());
        if !state.waker.as_ref().is_some_and(is_known) {
            state.waker = Some(context.waker().clone());
        }
        Poll::Pending
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::task::{Context, Poll, Waker};

    use super::{CheckoutError, Turn};

    #[test]
    fn what_comes_for_a_place_that_was_left_is_not_the_next_ones() {
        let turn = Arc::new(Turn::default());
        let mut context = Context::from_waker(Waker::noop());
        let left = turn.enter();
        turn.leave();
        left.settle(Err(CheckoutError::Timeout));
        assert!(turn.poll(&mut context).is_pending());
        let (left, next) = {
            let left = turn.enter();
            turn.leave();
            (left, turn.enter())
        };
        left.settle(Err(CheckoutError::Timeout));
        assert!(turn.poll(&mut context).is_pending());
        next.settle(Err(CheckoutError::Retired));
        assert!(matches!(
            turn.poll(&mut context),
            Poll::Ready(Err(CheckoutError::Retired))
        ));
    }
}
