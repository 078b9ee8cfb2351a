//! Keeping the session's view of the relations true: after its own DDL, and when a name is met that nobody knows.

use switchyard_wire::backend::TransactionStatus;

use super::Session;
use crate::control::RefreshCause;
use crate::plan::Pin;

/// The temporary relations of a backend's session.
const TEMPORARY: &str = "\
SELECT relname FROM pg_catalog.pg_class
WHERE relnamespace = pg_catalog.pg_my_temp_schema() AND relkind IN ('r', 'p', 'v', 'S', 'f')";

impl Session {
    /// The schema has been changed by this session: what it plans from now on must know it.
    pub(super) async fn schema_changed(&mut self) {
        if let Some(block) = &mut self.block {
            block.changed_schema = true;
            block.changed_temporary = true;
        }
        self.learn_temporary().await;
        let control = &self.worker.services.control;
        control
            .refresh(&self.database.name, RefreshCause::Ddl)
            .await;
        self.refresh();
    }

    /// Learns which temporary relations there are, once a statement or the end of a block may have made, renamed or ended some: a name
    /// that is gone means once more what it means on all shards.
    pub(super) async fn learn_temporary(&mut self) {
        let mut participants = self.participants.iter_mut();
        let Some(holder) = participants.find(|held| held.pins.contains(Pin::Temporary)) else {
            return;
        };
        let answers = holder.status() != TransactionStatus::Failed && !holder.needs_sync;
        if !answers || holder.connection.broken {
            return;
        }
        holder.connection.unnamed = None;
        let Ok(rows) = holder.connection.simple_query(TEMPORARY).await else {
            // It is found to be lost by what is asked of it next.
            holder.connection.broken = true;
            return;
        };
        let mut names: Vec<String> = rows.into_iter().flatten().flatten().collect();
        names.sort_unstable();
        if names != self.temporary {
            self.temporary = names;
            self.context = None;
        }
    }

    /// A name is not known: looks whether it exists by now. True if the relations have changed.
    pub(super) async fn learn_relations(&mut self) -> bool {
        let before = self.generation;
        let control = &self.worker.services.control;
        control
            .refresh(&self.database.name, RefreshCause::UnknownName)
            .await;
        self.refresh();
        self.generation != before
    }
}
