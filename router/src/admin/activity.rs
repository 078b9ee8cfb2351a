//! What a client is doing and since when, as its session says and others see.
//!
//! The time is a coarse one: the process's housekeeping moves the [`Clock`] on, sessions read it and ask the system for
//! nothing. What takes too long is found by looking at all clients now and then: a session sets no timers.
//!
//! Invariant: an `Activity` is one number, state and time together, so a judgement on it is a judgement on exactly that
//! stay: by the time the session hears it, it may be doing something else, and then it does not count.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant, SystemTime};

use super::registry::ClientState;

/// The time as sessions know it: milliseconds since the registry was made, at the last [`Clock::tick`].
#[derive(Debug)]
pub struct Clock {
    made: Instant,
    made_at: SystemTime,
    ms: AtomicU64,
}

impl Default for Clock {
    fn default() -> Self {
        Self {
            made: Instant::now(),
            made_at: SystemTime::now(),
            ms: AtomicU64::new(0),
        }
    }
}

impl Clock {
    /// Moves the time on. To be called every now and then.
    pub fn tick(&self) {
        let ms = u64::try_from(self.made.elapsed().as_millis()).unwrap_or(u64::MAX >> STATE_BITS);
        self.ms.store(ms, Ordering::Relaxed);
    }

    pub(super) fn ms(&self) -> u64 {
        self.ms.load(Ordering::Relaxed)
    }

    /// What the time of day was at a moment of this clock.
    pub(super) fn time_of(&self, ms: u64) -> SystemTime {
        self.made_at + Duration::from_millis(ms)
    }
}

/// The bits of an activity that are the state; the rest are the time.
const STATE_BITS: u32 = 2;
/// No activity.
const NONE: u64 = u64::MAX;
/// Whatever the activity is.
const ANY: u64 = u64::MAX - 1;

/// What a client is doing, since when, and whether that is too long.
#[derive(Debug)]
pub(super) struct Activity {
    now: AtomicU64,
    /// The activity that has been found too long.
    overdue: AtomicU64,
    /// The session, when it waits for its client.
    waiting: Mutex<Option<Waker>>,
}

/// A state with its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stay {
    /// What the client is doing.
    pub state: ClientState,
    /// For how long, within a tick of the clock.
    pub lasted: Duration,
    word: u64,
}

impl Activity {
    /// Idle from now on.
    pub(super) fn new(clock: &Clock) -> Self {
        Self {
            now: AtomicU64::new(word(ClientState::Idle, clock)),
            overdue: AtomicU64::new(NONE),
            waiting: Mutex::default(),
        }
    }

    pub(super) fn set(&self, state: ClientState, clock: &Clock) {
        self.now.store(word(state, clock), Ordering::Relaxed);
    }

    /// Says otherwise what the client is doing all the while.
    pub(super) fn correct(&self, state: ClientState) {
        let since = self.now.load(Ordering::Relaxed) >> STATE_BITS;
        self.now
            .store(since << STATE_BITS | state as u64, Ordering::Relaxed);
    }

    pub(super) fn stay(&self, clock: &Clock) -> Stay {
        let word = self.now.load(Ordering::Relaxed);
        let since = word >> STATE_BITS;
        Stay {
            state: ClientState::of_bits(word),
            lasted: Duration::from_millis(clock.ms().saturating_sub(since)),
            word,
        }
    }

    /// This stay is too long. Wakes the session if it waits for its client. False if that had been said before.
    pub(super) fn end(&self, stay: Stay) -> bool {
        if self.is_killed() {
            return false;
        }
        let is_new = self.overdue.swap(stay.word, Ordering::Relaxed) != stay.word;
        if is_new && let Some(session) = &*self.lock() {
            session.wake_by_ref();
        }
        is_new
    }

    /// From now on everything is too long: the session is to end. Wakes it if it waits for its client.
    pub(super) fn kill(&self) {
        self.overdue.store(ANY, Ordering::Relaxed);
        if let Some(session) = &*self.lock() {
            session.wake_by_ref();
        }
    }

    pub(super) fn is_killed(&self) -> bool {
        self.overdue.load(Ordering::Relaxed) == ANY
    }

    fn is_overdue(&self) -> bool {
        let overdue = self.overdue.load(Ordering::Relaxed);
        overdue == self.now.load(Ordering::Relaxed) || overdue == ANY
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Waker>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn word(state: ClientState, clock: &Clock) -> u64 {
    clock.ms() << STATE_BITS | state as u64
}

/// A session's wait for the news that its client has taken too long, kept over many polls: after the first one, a poll
/// is an atomic load.
#[derive(Debug, Default)]
pub struct OverdueWatch {
    known: Option<Waker>,
}

impl OverdueWatch {
    /// Ready when what the client is doing now has been found too long.
    pub(super) fn poll(&mut self, activity: &Activity, context: &mut Context<'_>) -> Poll<()> {
        let is_known = |known: &Waker| known.will_wake(context.waker());
        if !self.known.as_ref().is_some_and(is_known) {
            self.known = Some(context.waker().clone());
            *activity.lock() = self.known.clone();
        }
        match activity.is_overdue() {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_stay_lasts_until_something_else_is_done() {
        let clock = Clock::default();
        let activity = Activity::new(&clock);
        clock.ms.store(100, Ordering::Relaxed);
        activity.set(ClientState::IdleInTransaction, &clock);
        clock.ms.store(350, Ordering::Relaxed);
        let stay = activity.stay(&clock);
        assert_eq!(stay.state, ClientState::IdleInTransaction);
        assert_eq!(stay.lasted, Duration::from_millis(250));
        activity.set(ClientState::Active, &clock);
        assert_eq!(activity.stay(&clock).lasted, Duration::ZERO);
    }

    #[test]
    fn a_session_hears_of_its_stay_and_of_no_other() {
        let clock = Clock::default();
        let activity = Activity::new(&clock);
        let count = Arc::<Count>::default();
        let waker = Waker::from(Arc::clone(&count));
        let mut context = Context::from_waker(&waker);
        let mut watch = OverdueWatch::default();
        assert!(watch.poll(&activity, &mut context).is_pending());
        let old = activity.stay(&clock);
        clock.ms.store(300, Ordering::Relaxed);
        activity.set(ClientState::Idle, &clock);
        assert!(activity.end(old));
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        assert!(watch.poll(&activity, &mut context).is_pending());
        // It waits on, and can be woken again.
        let stay = activity.stay(&clock);
        assert!(watch.poll(&activity, &mut context).is_pending());
        assert!(activity.end(stay));
        assert!(!activity.end(stay));
        assert_eq!(count.0.load(Ordering::Relaxed), 2);
        assert!(watch.poll(&activity, &mut context).is_ready());
    }
}
