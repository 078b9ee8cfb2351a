//! Few beds for many tests of a program that each need one for themselves.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError, TryLockError};

use crate::Bed;

/// `N` beds, started when they are first needed. Tests that stop servers or hold locks mostly wait, so that several of
/// them take less time side by side, each on a bed of its own.
#[derive(Debug)]
pub struct Turns<const N: usize> {
    start: fn() -> Bed,
    places: [Place; N],
    next: AtomicUsize,
}

#[derive(Debug)]
struct Place {
    bed: OnceLock<Bed>,
    turn: Mutex<()>,
}

/// Nobody else uses the bed while this is held.
pub type Turn = MutexGuard<'static, ()>;

impl<const N: usize> Turns<N> {
    /// On beds that are started like this.
    #[must_use]
    pub const fn new(start: fn() -> Bed) -> Self {
        Self {
            start,
            places: [const {
                Place {
                    bed: OnceLock::new(),
                    turn: Mutex::new(()),
                }
            }; N],
            next: AtomicUsize::new(0),
        }
    }

    /// A bed that nobody else uses, as soon as there is one. A test that has failed leaves its own to the next.
    pub fn take(&'static self) -> (&'static Bed, Turn) {
        let next = self.next.fetch_add(1, Ordering::Relaxed) % N;
        let (before, from) = self.places.split_at(next);
        let free = from.iter().chain(before).find_map(|place| {
            let turn = match place.turn.try_lock() {
                Ok(turn) => turn,
                Err(TryLockError::Poisoned(failed)) => failed.into_inner(),
                Err(TryLockError::WouldBlock) => return None,
            };
            Some((place, turn))
        });
        let (place, turn) = free.unwrap_or_else(|| {
            let place = &self.places[next];
            let turn = place.turn.lock();
            (place, turn.unwrap_or_else(PoisonError::into_inner))
        });
        (place.bed.get_or_init(self.start), turn)
    }
}
