//! `SELECT create_distributed_table(…)` and its friends, by both protocols.

use std::sync::Arc;

use bytes::BytesMut;
use postgres_protocol::escape::escape_identifier;
use switchyard_schema::TableName;
use switchyard_wire::SqlState;
use switchyard_wire::backend::{Column, encode};
use switchyard_wire::frontend::Bind;

use super::Session;
use super::extended::bind::{BoundParams, has_parameters};
use super::simple::Ready;
use super::statement::{SessionStatement, Statement, StatementText};
use crate::distribute::{self, Request};
use crate::execute::failure::Failure;
use crate::execute::relay::Trouble;
use crate::execute::report;
use crate::plan::distribute::{Distribute, function_of, parameters, with_parameters};
use crate::plan::{Param, Params, Refusal};
use crate::session::workspace::fetch::TEXT;
use crate::topology::DatabaseTopology;

/// PostgreSQL's type `void`.
const VOID: u32 = 2278;

const BOOL: u32 = 16;
const NAME: u32 = 19;
const UNKNOWN: u32 = 705;
const VARCHAR: u32 = 1043;

/// The description of the result, as of any function that returns nothing.
pub(super) fn description(sql: &[u8]) -> BytesMut {
    let mut description = BytesMut::new();
    let name = function_of(sql);
    encode::row_description(&mut description, &[Column::new(name.as_bytes(), VOID, 4)]);
    description
}

/// The types of its parameters: what is not declared is a text.
pub(super) fn parameter_types(statement: &Statement) -> Vec<u32> {
    let declared = |number| match statement.parameter_type(number) {
        0 => TEXT,
        declared => declared,
    };
    let count = parameters(statement.sql()).max(statement.declared());
    (1..=count).map(declared).collect()
}

/// The text of a parameter.
fn text_of(param: &Param<'_>) -> Result<Option<String>, Refusal> {
    let Some(value) = param.value else {
        return Ok(None);
    };
    let text = match (param.binary, param.oid, value) {
        (true, BOOL, [value]) => Some(if *value == 0 { "false" } else { "true" }),
        (true, 0 | TEXT | VARCHAR | NAME | UNKNOWN, _) | (false, ..) => {
            std::str::from_utf8(value).ok()
        }
        (true, ..) => None,
    };
    match text {
        Some(text) => Ok(Some(text.to_owned())),
        None => {
            let message = "a parameter of this type is not supported here".to_owned();
            Err(Refusal::certain("0A000", message).hint("Give it as a text."))
        }
    }
}

impl Session {
    /// The call with the values of its parameters.
    pub(super) fn distribute_with(
        &self,
        prepared: &SessionStatement,
        bind: &Bind<'_>,
    ) -> Result<Arc<Statement>, Failure> {
        let statement = &prepared.statement;
        let types = parameter_types(statement);
        has_parameters(bind, Some(types.len()))?;
        if types.is_empty() {
            return Ok(Arc::clone(statement));
        }
        let params = BoundParams::new(bind, statement);
        let sql = with_parameters(statement.sql(), |number| match params.param(number) {
            Some(param) => text_of(&param),
            None => Ok(None),
        })?;
        let text = StatementText::Parsed {
            sql: sql.into(),
            declared: Box::default(),
        };
        Ok(self.worker.services.statements.intern(self.scope(), text))
    }

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

    /// The session has changed the schema: tables that it has dropped are not distributed any more, nor are those that have taken their
    /// names meanwhile, unless the configuration file has them as well, which says what should be.
    pub(super) async fn forget_dropped(&mut self, before: &DatabaseTopology) {
        for table in self.dropped_since(before) {
            self.participants.release(&self.database).await;
            let TableName { schema, name } = &table;
            let wanted = Distribute::Unsharded {
                table: format!("{}.{}", escape_identifier(schema), escape_identifier(name)),
            };
            let request = self.request_to_distribute(&wanted);
            let forgotten = match oid(&self.database, &table) {
                None => Box::pin(distribute::forget_dropped(&request, &table)).await,
                // It was made in the transaction that has dropped the other. Until now everybody has planned by what that was.
                Some(_) => Box::pin(distribute::run(&request)).await.map(drop),
            };
            if let Err(failure) = forgotten {
                tracing::debug!(%table, %failure, "a table that was dropped is not forgotten");
                let said = format!(
                    "a new table \"{table}\" is distributed as the one that was dropped: {failure}"
                );
                report::warning(&mut self.client.output, SqlState::WARNING, &said);
            }
            self.refresh();
        }
    }

    /// Tables that were distributed by SQL alone, and are not there any more.
    fn dropped_since(&self, before: &DatabaseTopology) -> Vec<TableName> {
        let settings = self.worker.services.settings.load();
        // Another server numbers its tables otherwise: they would all seem to be others.
        let is_comparable = before.relations.read_on == self.database.relations.read_on;
        if settings.catalog_credentials().is_none() || !is_comparable {
            return Vec::new();
        }
        let mut files = settings.file.databases.iter();
        let file = files.find(|file| *file.name == *self.database.name);
        let tables = self.database.schema.tables.iter().map(|table| &table.name);
        let indexes = self.database.relations.global_indexes();
        let has_index = |name: &TableName| indexes.iter().any(|index| index.table == *name);
        let is_gone = |name: &&TableName| {
            let was = oid(before, name);
            was.is_some() && was != oid(&self.database, name)
        };
        tables
            .filter(is_gone)
            .filter(|name| !has_index(name))
            .filter(|name| file.is_none_or(|file| file.table(name).is_none()))
            .cloned()
            .collect()
    }
}

/// The number of a table, if it is there.
fn oid(topology: &DatabaseTopology, table: &TableName) -> Option<i64> {
    let relation = topology.relations.get(&table.schema, &table.name)?;
    Some(relation.oid)
}
