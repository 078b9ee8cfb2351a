//! Keeping the session's view of the relations true: after its own DDL, and when a name is met that nobody knows.

use std::sync::Arc;

use switchyard_schema::ShardIndex;
use switchyard_wire::backend::TransactionStatus;

use super::Session;
use crate::control::RefreshCause;
use crate::execute::failure::Failure;
use crate::execute::relay::Trouble;
use crate::plan::Pin;
use crate::relations::{Oids, Relations};
use crate::topology::link::LinkError;
use crate::topology::loader::{introspect_within, user_types};

/// What the published relations' generation never is.
const NOT_PUBLISHED: u64 = u64::MAX;

/// The temporary relations of a backend's session.
const TEMPORARY: &str = "\
SELECT relname FROM pg_catalog.pg_class
WHERE relnamespace = pg_catalog.pg_my_temp_schema() AND relkind IN ('r', 'p', 'v', 'S', 'f')";

impl Session {
    /// The schema has been changed by this session: what it plans from now on must know it. Before a block commits nobody else sees what
    /// it has changed, and reading the catalogue would wait for its locks.
    pub(super) async fn schema_changed(&mut self) {
        let database = &self.database;
        self.before_ddl.get_or_insert_with(|| Arc::clone(database));
        if let Some(block) = &mut self.block {
            block.changed_schema = true;
            block.changed_temporary = true;
            block.relations_are_old = true;
        }
        self.rename_sequences();
        self.learn_temporary().await;
        if self.block.is_some() {
            return;
        }
        let control = &self.worker.services.control;
        control
            .refresh(&self.database.name, RefreshCause::Ddl)
            .await;
        self.refresh();
        if let Some(before) = self.before_ddl.take() {
            Box::pin(self.forget_dropped(&before)).await;
        }
    }

    /// Reads the relations as the block has made them, if it has changed any, for what is planned in it from now on.
    pub(super) async fn know_the_blocks(&mut self) -> Result<(), Trouble> {
        let Some(block) = self.block.as_mut().filter(|block| block.relations_are_old) else {
            return Ok(());
        };
        if block.failed.is_some() {
            return Ok(());
        }
        block.relations_are_old = false;
        let Some(index) = self.participants.position_of(ShardIndex::FIRST, true) else {
            return Ok(());
        };
        let Some(participant) = self
            .participants
            .get_mut(index)
            .filter(|held| held.in_block)
        else {
            return Ok(());
        };
        participant.connection.unnamed = None;
        match introspect_within(&mut participant.connection).await {
            Ok(found) => {
                let oids = self.oids_of_block().await?;
                let known = &self.database;
                let relations = Relations::build(&known.schema, &found, Some(&known.buckets));
                self.read_within += 1;
                // No other session's, and no other block's.
                let generation = 1 << 63 | self.entry.id << 31 | self.read_within & 0x7FFF_FFFF;
                self.database = Arc::new(known.with_relations(relations, oids, generation));
                self.generation = NOT_PUBLISHED;
                self.context = None;
                Ok(())
            }
            Err(error) => Err(self.unread(index, error)),
        }
    }

    /// How the shards number types, those that the block has made among them.
    async fn oids_of_block(&mut self) -> Result<Oids, Trouble> {
        let mut found = Vec::new();
        for index in 0..self.participants.len() {
            let participant = self.participants.at(index)?;
            if !participant.in_block || !participant.is_primary {
                continue;
            }
            let shard = participant.shard;
            participant.connection.unnamed = None;
            match user_types(&mut participant.connection).await {
                Ok(types) => found.push((shard, types)),
                Err(error) => return Err(self.unread(index, error)),
            }
        }
        Ok(self.database.oids.with(&found))
    }

    /// The catalogue could not be read.
    fn unread(&mut self, index: usize, error: LinkError) -> Trouble {
        let Some(participant) = self.participants.get(index) else {
            return Failure::Retry.into();
        };
        let shard = (&*participant.shard_name).into();
        if let LinkError::Refused { sqlstate, message } = error {
            let refused = Failure::ShardRefused {
                shard,
                sqlstate,
                message: message.into(),
            };
            return refused.into();
        }
        self.participants.close(&self.database, index);
        Failure::ShardLost { shard }.into()
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
    pub(super) async fn learn_name(&mut self, name: &str) -> bool {
        let cause = match self.database.relations.is_configured(name) {
            true => RefreshCause::UnknownTable,
            false => RefreshCause::UnknownName,
        };
        self.learn(cause).await
    }

    /// The tables are not what they were taken to be. True if the relations have changed.
    pub(super) async fn learn_relations(&mut self) -> bool {
        self.learn(RefreshCause::UnknownName).await
    }

    async fn learn(&mut self, cause: RefreshCause) -> bool {
        // A block that has changed the schema has been looked at.
        let block = self.block.as_ref();
        if block.is_some_and(|block| block.changed_schema) {
            return false;
        }
        let before = self.generation;
        let control = &self.worker.services.control;
        control.refresh(&self.database.name, cause).await;
        self.refresh();
        self.generation != before
    }
}
