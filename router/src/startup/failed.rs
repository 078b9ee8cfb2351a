//! Failed logins by address: whoever guesses passwords gets `max_login_failures` of them a minute.
//!
//! Each failure puts its address in debt, which time pays off. While the debt is what a minute pays, a login from there
//! waits for its turn before its proof is looked at, and is refused when the queue is long. The name it gives plays no part,
//! so nothing is said of who exists; and a client that knows its password gets in, if later, however often others fail
//! from the same address.
//!
//! Invariant: bounded, whatever comes: an address is a number and a time, and there are at most `ADDRESSES`.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::Refusal;

/// Time pays off all failures that are allowed in it.
const WINDOW: Duration = Duration::from_secs(60);
/// A login whose turn comes later is refused.
const PATIENCE: Duration = Duration::from_secs(10);
/// As many are remembered. Then those that owe least are forgotten.
const ADDRESSES: usize = 4096;
/// The part of an IPv6 address that is one customer's as a rule.
const NETWORK_BITS: u32 = 64;

/// The failed logins of all workers' clients.
#[derive(Debug, Default)]
pub struct FailedLogins {
    /// When the debt of each address is paid off.
    debts: Mutex<HashMap<IpAddr, Instant>>,
}

/// A login that may show its proof now.
#[derive(Debug)]
#[must_use = "how it ended is to be told"]
pub(super) struct Turn<'a> {
    logins: &'a FailedLogins,
    /// Nothing, where failures are not counted.
    place: Option<(IpAddr, Duration)>,
    /// It had to wait, and has been counted as a failure already.
    charged: bool,
}

impl FailedLogins {
    /// Waits until a login from this address may show its proof; `allowed` is how many may fail per minute, 0 for any
    /// number. A client without an address is on this machine, and not counted.
    ///
    /// # Errors
    /// [`Refusal::TooManyFailures`]: others wait already.
    pub(super) async fn turn(
        &self,
        address: Option<IpAddr>,
        allowed: u32,
    ) -> Result<Turn<'_>, Refusal> {
        let (Some(address), Some(price)) = (address, WINDOW.checked_div(allowed)) else {
            return Ok(Turn {
                logins: self,
                place: None,
                charged: false,
            });
        };
        let address = network(address);
        let wait = self.reserve(address, price, Instant::now())?;
        let turn = Turn {
            logins: self,
            place: Some((address, price)),
            charged: !wait.is_zero(),
        };
        if turn.charged {
            tokio::time::sleep(wait).await;
        }
        Ok(turn)
    }

    /// How long a login must wait. One that must is counted as a failure, so that the next waits longer.
    fn reserve(&self, address: IpAddr, price: Duration, now: Instant) -> Result<Duration, Refusal> {
        let mut debts = self.lock();
        let Some(paid_off) = debts.get_mut(&address) else {
            return Ok(Duration::ZERO);
        };
        let debt = paid_off.saturating_duration_since(now) + price;
        let wait = debt.saturating_sub(WINDOW);
        if wait > PATIENCE {
            return Err(Refusal::TooManyFailures);
        }
        if !wait.is_zero() {
            *paid_off += price;
        }
        Ok(wait)
    }

    fn charge(&self, address: IpAddr, price: Duration, now: Instant) {
        let mut debts = self.lock();
        if debts.len() >= ADDRESSES && !debts.contains_key(&address) {
            debts.retain(|_, paid_off| *paid_off > now);
            let least = debts.iter().min_by_key(|(_, paid_off)| **paid_off);
            if debts.len() >= ADDRESSES
                && let Some(least) = least.map(|(address, _)| *address)
            {
                debts.remove(&least);
            }
        }
        let paid_off = debts.entry(address).or_insert(now);
        *paid_off = (*paid_off).max(now) + price;
    }

    fn refund(&self, address: IpAddr, price: Duration) {
        if let Some(paid_off) = self.lock().get_mut(&address) {
            *paid_off -= price;
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, Instant>> {
        self.debts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turn<'_> {
    /// The proof was good, or not.
    pub(super) fn ended(self, is_good: bool) {
        match (self.place, is_good, self.charged) {
            (Some((address, price)), false, false) => {
                self.logins.charge(address, price, Instant::now());
            }
            (Some((address, price)), true, true) => self.logins.refund(address, price),
            (Some(_), true, false) | (Some(_), false, true) | (None, ..) => {}
        }
    }
}

/// What counts as one address.
pub(crate) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let mask = u128::MAX << NETWORK_BITS;
            IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & mask))
        }
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    /// How long a login had to wait; `None` if it was refused.
    async fn attempt(logins: &FailedLogins, from: &str, allowed: u32, good: bool) -> Option<u64> {
        let began = Instant::now();
        let turn = logins.turn(address(from), allowed).await.ok()?;
        turn.ended(good);
        Some(began.elapsed().as_secs())
    }

    #[tokio::test(start_paused = true)]
    async fn failures_beyond_the_limit_wait_and_time_pays_them_off() {
        let logins = FailedLogins::default();
        for _ in 0..20 {
            assert_eq!(attempt(&logins, "192.0.2.1", 20, false).await, Some(0));
        }
        for _ in 0..5 {
            assert_eq!(attempt(&logins, "192.0.2.1", 20, false).await, Some(3));
        }
        assert_eq!(attempt(&logins, "192.0.2.2", 20, false).await, Some(0));
        // Who knows the password gets in, and is not counted.
        for _ in 0..5 {
            let waited = attempt(&logins, "192.0.2.1", 20, true).await.unwrap();
            assert!(waited <= 3, "{waited}");
        }
        tokio::time::sleep(WINDOW).await;
        for _ in 0..20 {
            assert_eq!(attempt(&logins, "192.0.2.1", 20, false).await, Some(0));
        }
        assert_eq!(attempt(&logins, "192.0.2.1", 20, false).await, Some(3));
    }

    #[tokio::test(start_paused = true)]
    async fn those_that_come_at_once_wait_for_each_other_and_many_are_refused() {
        let logins = FailedLogins::default();
        for _ in 0..20 {
            attempt(&logins, "192.0.2.1", 20, false).await;
        }
        let at_once = (0..6).map(|_| attempt(&logins, "192.0.2.1", 20, false));
        let mut waited = Vec::new();
        let mut all: Vec<_> = at_once.map(Box::pin).collect();
        for one in &mut all {
            // Each takes its place in the queue before the first one's turn.
            if let Ok(end) = tokio::time::timeout(Duration::ZERO, one.as_mut()).await {
                waited.push(end);
            }
        }
        assert_eq!(waited, [None, None, None], "three wait for 3, 6 and 9 s");
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_counted_where_nothing_should_be() {
        let logins = FailedLogins::default();
        for _ in 0..100 {
            assert_eq!(attempt(&logins, "192.0.2.1", 0, false).await, Some(0));
            let local = logins.turn(None, 1).await.unwrap();
            local.ended(false);
        }
        assert!(logins.lock().is_empty());
        for _ in 0..100 {
            assert_eq!(attempt(&logins, "192.0.2.1", 1, true).await, Some(0));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn memory_is_bounded_and_who_owes_most_is_remembered() {
        let logins = FailedLogins::default();
        for _ in 0..3 {
            attempt(&logins, "2001:db8::1", 3, false).await;
        }
        for number in 0..2 * ADDRESSES {
            let address = IpAddr::V4(u32::try_from(number).unwrap().into());
            logins.charge(address, Duration::from_secs(1), Instant::now());
        }
        assert_eq!(logins.lock().len(), ADDRESSES);
        // Another address of the same network.
        assert_eq!(attempt(&logins, "2001:db8::2", 3, false).await, None);
        assert_eq!(attempt(&logins, "2001:db8:0:1::1", 3, false).await, Some(0));
    }
}
