//! What a pool knows of a node that does not let it in: the error, and when the next attempt is due.
//!
//! Nobody tries again before a pause is over; the pauses grow up to `server_login_retry`. Who comes meanwhile gets the error of the last
//! attempt. A node that does not answer at all is not this module's: nobody chooses it while it is down.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::ConnectError;

/// The first pause.
const FIRST: Duration = Duration::from_millis(250);

/// The last attempt's outcome.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) error: Arc<ConnectError>,
    /// Attempts that have failed one after the other.
    times: u32,
    retry_at: Instant,
}

impl Refusal {
    /// What is known after an attempt has failed at `now`, and what was known before it.
    pub(super) fn after(
        before: Option<&Self>,
        error: Arc<ConnectError>,
        now: Instant,
        longest: Duration,
    ) -> Self {
        // Those that were under way at the same time are one.
        let counted = before.map_or(1, |before| match before.retry_at > now {
            true => before.times,
            false => before.times.saturating_add(1),
        });
        let pause = FIRST.saturating_mul(1 << (counted - 1).min(16));
        Self {
            error,
            times: counted,
            retry_at: now + pause.min(longest),
        }
    }

    /// Whether another attempt may be made at `now`.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        now >= self.retry_at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_limit() {
        let error = Arc::new(ConnectError::Timeout);
        let mut now = Instant::now();
        let longest = Duration::from_secs(1);
        let mut refusal: Option<Refusal> = None;
        for pause in [250, 500, 1000, 1000] {
            let next = Refusal::after(refusal.as_ref(), Arc::clone(&error), now, longest);
            // One that failed at the same time changes nothing.
            let next = Refusal::after(Some(&next), Arc::clone(&error), now, longest);
            let pause = Duration::from_millis(pause);
            assert!(!next.is_over(now + pause - Duration::from_millis(1)));
            assert!(next.is_over(now + pause), "{pause:?}");
            now += pause;
            refusal = Some(next);
        }
    }
}
