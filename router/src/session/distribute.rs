//! `SELECT create_distributed_table(…)` and its friends, by both protocols.

use bytes::BytesMut;
use switchyard_schema::TableName;
use switchyard_wire::SqlState;
use switchyard_wire::backend::{Column, encode};

use super::Session;
use super::simple::Ready;
use crate::distribute::{self, Request};
use crate::execute::failure::Failure;
use crate::execute::relay::Trouble;
use crate::execute::report;
use crate::plan::distribute::Distribute;
use crate::topology::DatabaseTopology;

/// PostgreSQL's type `void`.
const VOID: u32 = 2278;

/// The description of the result, as of any function that returns nothing.
pub(super) fn description(sql: &[u8]) -> BytesMut {
    let mut description = BytesMut::new();
    // What cannot be read is refused when it is executed.
    let name = Distribute::read(sql).map_or("?column?", |wanted| wanted.function());
    encode::row_description(&mut description, &[Column::new(name.as_bytes(), VOID, 4)]);
    description
}

impl Session {
    /// By the simple protocol.
    pub(super) async fn distribute_simple(&mut self, sql: &[u8]) -> Result<Ready, Trouble> {
        self.distribute(sql).await?;
        let description = description(sql);
        self.client.output.extend_from_slice(&description);
        self.distributed();
        Ok(Ready::ToBeSaid)
    }

    /// What comes of it when it is executed.
    pub(super) fn distributed(&mut self) {
        encode::data_row(&mut self.client.output, &[Some("")]);
        encode::command_complete(&mut self.client.output, b"SELECT 1");
    }

    /// Does it.
    pub(super) async fn distribute(&mut self, sql: &[u8]) -> Result<(), Trouble> {
        let wanted = Distribute::read(sql).map_err(Failure::from)?;
        if self.block.is_some() || self.batch.has_written() {
            return Err(Failure::NotInBlock(wanted.function()).into());
        }
        // What the session holds would keep others waiting, and itself.
        self.participants.release(&self.database).await;
        let request = self.request_to_distribute(&wanted);
        let said = Box::pin(distribute::run(&request)).await?;
        self.schema_changed().await;
        report::notice(
            &mut self.client.output,
            SqlState::SUCCESSFUL_COMPLETION,
            &said,
        );
        Ok(())
    }

    fn request_to_distribute<'a>(&'a self, wanted: &'a Distribute) -> Request<'a> {
        Request {
            services: &self.worker.services,
            database: &self.database,
            user: &self.user,
            settings: self
                .settings
                .preamble(Some(&crate::backend::Settings::default())),
            slot: self.cancel.slot(),
            wanted,
        }
    }

    /// The session has changed the schema: tables that it has dropped are not distributed any more, unless the configuration file has
    /// them as well, which says what should be.
    pub(super) async fn forget_dropped(&mut self, before: &DatabaseTopology) {
        for table in self.dropped_since(before) {
            self.participants.release(&self.database).await;
            let wanted = Distribute::Unsharded {
                table: table.to_string(),
            };
            let request = self.request_to_distribute(&wanted);
            if let Err(failure) = Box::pin(distribute::forget_dropped(&request, &table)).await {
                tracing::debug!(%table, %failure, "a table that was dropped is not forgotten");
                let said = format!(
                    "a new table \"{table}\" will be distributed as the one that was dropped: {failure}"
                );
                report::warning(&mut self.client.output, SqlState::WARNING, &said);
            }
            self.refresh();
        }
    }

    /// Tables that were distributed by SQL alone, and are not there any more.
    fn dropped_since(&self, before: &DatabaseTopology) -> Vec<TableName> {
        let settings = self.worker.services.settings.load();
        if settings.catalog_credentials().is_none() {
            return Vec::new();
        }
        let mut files = settings.file.databases.iter();
        let file = files.find(|file| *file.name == *self.database.name);
        let tables = self.database.schema.tables.iter().map(|table| &table.name);
        let is_there = |topology: &DatabaseTopology, name: &TableName| {
            topology.relations.get(&name.schema, &name.name).is_some()
        };
        let indexes = self.database.relations.global_indexes();
        let has_index = |name: &TableName| indexes.iter().any(|index| index.table == *name);
        tables
            .filter(|name| is_there(before, name) && !is_there(&self.database, name))
            .filter(|name| !has_index(name))
            .filter(|name| file.is_none_or(|file| file.table(name).is_none()))
            .cloned()
            .collect()
    }
}
