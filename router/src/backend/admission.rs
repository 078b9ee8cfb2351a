//! What a new connection has to pass before it is lent, where a catalog says where rows are (ADR 0025).
//!
//! It takes the advisory lock that marks connections of this router, by which whoever moves rows tells them from those of routers that do not hear
//! of it; and it reads up to which epoch the shard knows of movements.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::{ConnectError, Connection, QueryError};
use crate::topology::{Heartbeat, Published};

/// The longest that a router waits to hear of an epoch that a shard knows already.
const PATIENCE: Duration = Duration::from_secs(1);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(5);

/// What it takes to admit a connection.
#[derive(Debug, Clone)]
pub struct Admission {
    heartbeat: Heartbeat,
    topology: Published,
}

impl Admission {
    /// For connections of this router.
    #[must_use]
    pub fn new(heartbeat: Heartbeat, topology: Published) -> Self {
        Self {
            heartbeat,
            topology,
        }
    }

    /// Marks a connection, and sees that nothing has moved that this router does not know of. Takes no longer than `limit`.
    pub(super) async fn admit(
        &self,
        connection: &mut Connection,
        database: &str,
        limit: Duration,
    ) -> Result<(), ConnectError> {
        let marking = connection.mark(self.heartbeat.router());
        let epoch = timeout(limit, marking)
            .await
            .map_err(|_| ConnectError::Timeout)??;
        let began = Instant::now();
        loop {
            let topology = self.topology.snapshot();
            let known = topology.database(database);
            let is_lost = self.heartbeat.is_lost();
            if known.is_none_or(|known| known.epoch >= epoch && !(known.is_moving && is_lost)) {
                return Ok(());
            }
            if is_lost || began.elapsed() > PATIENCE {
                return Err(ConnectError::Outdated);
            }
            sleep(PAUSE).await;
        }
    }
}

/// A connection that is ended before it is lent has been taken for a stranger's: it is as if it had broken.
pub(super) fn unmarked(error: QueryError) -> ConnectError {
    match error {
        QueryError::Io(error) => ConnectError::Broken(error),
        QueryError::Server { sqlstate, message } => ConnectError::Refused { sqlstate, message },
        QueryError::Protocol(message) => ConnectError::Protocol(message),
    }
}
