//! Whether this router is told where rows are: who moves rows waits for routers that the catalog has heard of lately, and for no others (ADR 0025).

use std::time::Instant;

use switchyard_catalog::{HEARTBEAT_TIMEOUT, RouterId};
use tokio::sync::watch;

/// This router, as the catalog knows it.
#[derive(Clone, Debug)]
pub struct Heartbeat {
    router: RouterId,
    told: watch::Receiver<Option<Instant>>,
}

impl Heartbeat {
    /// A router that has last told the catalog that it is there when `told` says.
    #[must_use]
    pub fn new(router: RouterId, told: watch::Receiver<Option<Instant>>) -> Self {
        Self { router, told }
    }

    /// What tells it from others.
    #[must_use]
    pub fn router(&self) -> RouterId {
        self.router
    }

    /// Whether the catalog may have given this router up: rows may be elsewhere than it knows.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        let told = *self.told.borrow();
        told.is_none_or(|told| told.elapsed() > HEARTBEAT_TIMEOUT)
    }
}
