//! The clock that statements are timed by.

use std::time::Duration;

use rustix::time::ClockId;

/// The system's clock as of its last tick, where it has one that is read without asking the hardware: a quarter of the price
/// of an [`Instant`](std::time::Instant).
#[cfg(any(target_os = "linux", target_os = "android"))]
const CLOCK: ClockId = ClockId::MonotonicCoarse;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const CLOCK: ClockId = ClockId::Monotonic;

/// A moment, exact to a tick of the system (1 to 10 ms). What takes less time than a tick takes none, or a whole one as often as
/// makes up for it: right in sums only.
#[derive(Clone, Copy, Debug)]
pub struct Tick(Duration);

impl Tick {
    /// The current one.
    #[must_use]
    pub fn now() -> Self {
        let time = rustix::time::clock_gettime(CLOCK);
        // A monotonic clock counts up from 0.
        Self(Duration::try_from(time).unwrap_or_default())
    }

    /// The time since then.
    #[must_use]
    pub fn elapsed(self) -> Duration {
        Self::now().since(self)
    }

    /// The time from an earlier one to this.
    #[must_use]
    pub fn since(self, earlier: Tick) -> Duration {
        self.0.saturating_sub(earlier.0)
    }

    /// One that comes so much later.
    #[cfg(test)]
    pub(crate) fn later(self, by: Duration) -> Self {
        Self(self.0 + by)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_tick_keeps_up_with_the_exact_clock() {
        let (exact, tick) = (Instant::now(), Tick::now());
        while exact.elapsed() < Duration::from_millis(50) {
            std::hint::spin_loop();
        }
        let most = exact.elapsed() + Duration::from_millis(10);
        let told = tick.elapsed();
        assert!(told >= Duration::from_millis(40), "{told:?}");
        assert!(told <= most, "{told:?}");
    }
}
