//! `SELECT create_distributed_table(…)` and its friends, by both protocols.

use bytes::BytesMut;
use switchyard_wire::SqlState;
use switchyard_wire::backend::{Column, encode};

use super::Session;
use super::simple::Ready;
use crate::distribute::{self, Request};
use crate::execute::failure::Failure;
use crate::execute::relay::Trouble;
use crate::execute::report;
use crate::plan::distribute::Distribute;

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
        let request = Request {
            services: &self.worker.services,
            database: &self.database,
            user: &self.user,
            settings: self
                .settings
                .preamble(Some(&crate::backend::Settings::default())),
            slot: self.cancel.slot(),
            wanted: &wanted,
        };
        let said = Box::pin(distribute::run(&request)).await?;
        self.schema_changed().await;
        report::notice(
            &mut self.client.output,
            SqlState::SUCCESSFUL_COMPLETION,
            &said,
        );
        Ok(())
    }
}
