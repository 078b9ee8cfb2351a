//! Keeping the session's view of the relations true: after its own DDL, and when a name is met that nobody knows.

use super::Session;
use crate::control::RefreshCause;

impl Session {
    /// The schema has been changed by this session: what it plans from now on must know it.
    pub(super) async fn schema_changed(&mut self) {
        if let Some(block) = &mut self.block {
            block.changed_schema = true;
        }
        let control = &self.worker.services.control;
        control
            .refresh(&self.database.name, RefreshCause::Ddl)
            .await;
        self.refresh();
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
