//! Asking a server whether the reasons to keep a connection for its client still hold.

use super::participant::Participant;
use crate::backend::QueryError;
use crate::plan::Pin;

/// The reasons that a server can tell of, and how it does.
const REASONS: [(Pin, &str); 3] = [
    (
        Pin::Temporary,
        "SELECT FROM pg_catalog.pg_class WHERE relnamespace = pg_catalog.pg_my_temp_schema() \
         UNION ALL SELECT FROM pg_catalog.pg_type WHERE typnamespace = pg_catalog.pg_my_temp_schema() \
         UNION ALL SELECT FROM pg_catalog.pg_proc WHERE pronamespace = pg_catalog.pg_my_temp_schema()",
    ),
    (
        Pin::HoldCursor,
        "SELECT FROM pg_catalog.pg_cursors WHERE is_holdable",
    ),
    (
        Pin::AdvisoryLock,
        "SELECT FROM pg_catalog.pg_locks WHERE locktype = 'advisory' AND pid = pg_catalog.pg_backend_pid()",
    ),
];

/// Leaves out the lock that marks a connection as a router's.
const NOT_THE_MARK: &str =
    " AND (objsubid <> 1 OR (classid::pg_catalog.int8 << 32 | objid::pg_catalog.int8) <> ";

impl Participant {
    /// Takes back the reasons that have ended. Once there is none the connection is made as good as new before somebody else gets it, so that
    /// no mistake here would be seen by others. Call where no reply is owed and no block is open.
    pub(crate) async fn look_at_pins(&mut self) {
        self.may_unpin = false;
        if self.connection.broken {
            return;
        }
        let mark = self.connection.marker();
        let exists = REASONS.map(|(pin, rows)| match (pin, mark) {
            (Pin::AdvisoryLock, Some(router)) => {
                format!("EXISTS ({rows}{NOT_THE_MARK}{}))", router.0)
            }
            _ => format!("EXISTS ({rows})"),
        });
        self.connection.unnamed = None;
        let question = format!("SELECT {}", exists.join(", "));
        let rows = match self.connection.simple_query(&question).await {
            Ok(rows) => rows,
            // The client has cancelled what it takes to run already: it is asked again after that.
            Err(QueryError::Server { .. }) => {
                self.may_unpin = true;
                return;
            }
            Err(QueryError::Io(_) | QueryError::Protocol(_)) => {
                self.connection.broken = true;
                return;
            }
        };
        let answers = rows.into_iter().flatten();
        for ((pin, _), answer) in REASONS.iter().zip(answers) {
            if answer.as_deref() == Some("f") {
                self.pins.remove(*pin);
            }
        }
        self.connection.dirty |= self.pins.is_empty();
    }
}
