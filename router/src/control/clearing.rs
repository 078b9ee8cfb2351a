//! When nothing is on its way any more that was planned by what the catalog said before: whoever moves rows waits for that (ADR 0024).
//!
//! A session notes by which snapshot it works before it looks which is the newest, and the snapshot is published before anybody looks at what sessions
//! have noted: who is not seen here with an older one works by the new one.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::admin::registry::Registry;

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(1);
/// What is on its way for longer is there: it waits for rows, which nobody moves away under it, or sends its client what it has read.
const PATIENCE: Duration = Duration::from_millis(1200);

/// A state of the catalog that is published.
#[derive(Debug, Clone, Copy)]
pub(super) struct Taken {
    /// The catalog's revision.
    pub(super) revision: i64,
    /// Of the first snapshot that is like it.
    pub(super) generation: u64,
}

/// The way from what is published to what the catalog is told.
#[derive(Debug)]
pub struct Clearing {
    pub(super) taken: watch::Receiver<Option<Taken>>,
    pub(super) acknowledged: Option<watch::Sender<i64>>,
}

impl Clearing {
    /// Acknowledges what is published as soon as all clients' requests are planned by it. Never returns.
    pub async fn run(mut self, clients: &Registry) {
        let Some(acknowledged) = &self.acknowledged else {
            return std::future::pending().await;
        };
        while self.taken.changed().await.is_ok() {
            let Some(taken) = *self.taken.borrow_and_update() else {
                continue;
            };
            let began = Instant::now();
            while !clients.work_by(taken.generation) && began.elapsed() < PATIENCE {
                sleep(PAUSE).await;
            }
            acknowledged.send_replace(taken.revision);
        }
        std::future::pending().await
    }
}
