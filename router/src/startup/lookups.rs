//! Lookups under way, by address: whoever sends names has so few looked up at a time that others' go on.
//!
//! Invariant: an address is remembered while something from it is under way or waits, no longer.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::failed::network;

/// For one address at a time: half of what a node is asked at a time.
const AT_A_TIME: usize = 2;

/// The lookups of all workers' clients.
#[derive(Debug, Default)]
pub struct Lookups(Mutex<HashMap<IpAddr, Arc<Semaphore>>>);

/// A place in an address's queue, and then the right to ask.
#[derive(Debug)]
pub(super) struct Asking<'a> {
    lookups: &'a Lookups,
    address: IpAddr,
    permit: Option<OwnedSemaphorePermit>,
}

impl Lookups {
    /// Waits until somebody from this address may be looked up. A client without an address is on this machine, and does not wait.
    pub(super) async fn turn(&self, address: Option<IpAddr>) -> Option<Asking<'_>> {
        let address = network(address?);
        let places = {
            let mut known = self.lock();
            let places = known.entry(address);
            Arc::clone(places.or_insert_with(|| Arc::new(Semaphore::new(AT_A_TIME))))
        };
        let mut asking = Asking {
            lookups: self,
            address,
            permit: None,
        };
        asking.permit = places.acquire_owned().await.ok();
        Some(asking)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, Arc<Semaphore>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.permit = None;
        let mut known = self.lookups.lock();
        let places = known.get(&self.address);
        if places.is_some_and(|places| Arc::strong_count(places) == 1) {
            known.remove(&self.address);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    fn address(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    #[tokio::test]
    async fn an_address_has_so_many_places_and_is_forgotten() {
        let lookups = Lookups::default();
        let now = async |from| timeout(Duration::ZERO, lookups.turn(from)).await;
        let mut first = Vec::new();
        for _ in 0..AT_A_TIME {
            first.push(now(address("192.0.2.1")).await.unwrap());
        }
        assert!(now(address("192.0.2.1")).await.is_err());
        assert!(now(address("192.0.2.2")).await.is_ok());
        assert!(now(None).await.is_ok());
        first.pop();
        drop(lookups.turn(address("192.0.2.1")).await);
        drop(first);
        assert!(lookups.lock().is_empty());
    }
}
