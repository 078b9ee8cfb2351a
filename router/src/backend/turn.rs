//! A session's place in the queue for a pool's connection.
//!
//! A session waits for one connection at a time, so it has one [`Turn`] for its life, and waiting allocates nothing. The
//! pool's queue holds it while the session waits. Invariant: whoever takes a turn out of the queue settles it, once; and a
//! session that gives up takes its turn out of the queue first, so that an old place is never served.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use super::pool::{CheckoutError, Lease};

/// See the module.
#[derive(Debug, Default)]
pub struct Turn {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    outcome: Option<Result<Lease, CheckoutError>>,
    /// Kept when the wait is over: the session's next wait is that of the same task.
    waker: Option<Waker>,
}

impl Turn {
    /// Ends the wait.
    pub(super) fn settle(&self, outcome: Result<Lease, CheckoutError>) {
        let mut state = self.lock();
        state.outcome = Some(outcome);
        let waker = state.waker.clone();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
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

    /// What came for a session that no longer waits.
    pub(super) fn take(&self) -> Option<Result<Lease, CheckoutError>> {
        self.lock().outcome.take()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
