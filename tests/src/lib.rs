//! What integration tests stand on: real clusters with a router in front, clients that see every message, a proxy whose
//! connections break on demand, and a runner that compares the router with one plain PostgreSQL.
//!
//! - [`Bed`] is the usual test bed: shards with replicas, the web shop, the plain server (the *oracle*) and a router.
//! - [`Turns`] has few beds for many tests that each need one for themselves.
//! - [`Router`] is the router's program as a process; [`Bed::router_in_process`] is one in the test's own.
//! - [`Client`] speaks the protocol by an independent codec, so that a mistake in ours does not cancel out.
//! - [`Proxy`] stands between two programs and cuts, stalls, slows or swallows what they say.
//! - [`Proxied`] is a router that has one on its way to each shard.
//! - [`dialogue`] shows what is said message by message.
//! - [`differential`] runs sqllogictest files against the router and the oracle.
//! - [`random`] does the same with statements made at random.
//! - [`Reshard`] is a bed whose buckets can move to a third shard.
//! - [`hardship`] has reads over several shards fail or wait, and says what must hold afterwards.
//! - [`regress`] does so with PostgreSQL's own regression files.
//! - [`suites`] has the tests of drivers pass on both, or says which do not.
//!
//! Failures are panics: this is test code, and a test bed that cannot be had is a failed test, never a skipped one.

mod bed;
mod client;
pub mod dialogue;
pub mod differential;
pub mod hardship;
mod proxied;
mod proxy;
pub mod random;
pub mod regress;
mod reply;
mod reshard;
mod router;
pub mod suites;
mod turns;

use std::time::{Duration, Instant};

pub use bed::{Bed, BedSpec, wait_for_replicas};
pub use client::{Client, Login, Message, bind};
pub use proxied::Proxied;
pub use proxy::{Hold, Mode, Proxy};
pub use reply::{Column, Failure, Reply};
pub use reshard::{Asks, Outcome, Reshard, migrate};
pub use router::{Router, RouterPorts, command};
pub use switchyard_cluster as cluster;
pub use switchyard_router::demo::shop;
pub use turns::{Turn, Turns};

/// The longest that what somebody waits for may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// The least time between two looks.
const BETWEEN_LOOKS: Duration = Duration::from_millis(10);

/// Looks again and again until `done`; fails when that takes more than 30 s. For states that nobody announces.
pub fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let give_up = Instant::now() + PATIENCE;
    loop {
        let look = Instant::now();
        if done() {
            return;
        }
        assert!(Instant::now() < give_up, "not in time: {what}");
        // What is waited for needs the processors that a look takes, such as psql's.
        std::thread::sleep(look.elapsed().clamp(BETWEEN_LOOKS, 10 * BETWEEN_LOOKS));
    }
}

/// The same where tasks of this thread have to go on meanwhile; how long it has taken.
pub async fn until(what: &str, mut done: impl FnMut() -> bool) -> Duration {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < PATIENCE, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    began.elapsed()
}
