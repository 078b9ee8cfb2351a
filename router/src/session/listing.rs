//! What a session has, for the views of PostgreSQL's that list it: its cursors, on whatever connections they are, and its prepared
//! statements under the client's own names.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "the commands named make what is listed"
)]

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use postgres_protocol::escape::escape_literal;
use switchyard_schema::ShardIndex;
use switchyard_wire::Format;
use switchyard_wire::backend::Message;

use super::Session;
use super::statement::StatementText;
use crate::backend::Show;
use crate::execute::failure::Failure;
use crate::execute::messages::{Said, next};
use crate::execute::relay::{Trouble, decode_message};
use crate::execute::workspace::Workspace;
use crate::plan::Command;
use crate::plan::workspace::OwnView;
use crate::session::workspace::fetch::Asked;

impl Session {
    /// Makes the tables in a workspace that stand for these views.
    pub(super) async fn list_own(
        &mut self,
        workspace: &mut Workspace,
        views: &[OwnView],
        asked: &Asked<'_>,
    ) -> Result<(), Trouble> {
        for view in views {
            match view {
                OwnView::Cursors => self.list_cursors(workspace, asked).await?,
                OwnView::PreparedStatements => self.list_statements(workspace).await?,
            }
        }
        Ok(())
    }

    /// What one of several statements of a query has made PostgreSQL lists with the whole query, which the connections did not get.
    pub(super) fn forget_text(&mut self, command: &Command) {
        match command {
            Command::Declare { name, .. } => {
                let shards = self.cursors.iter_mut();
                shards
                    .filter(|cursor| cursor.name == *name)
                    .for_each(|cursor| cursor.whole = false);
                let apart = self.cursors_apart.iter_mut();
                apart
                    .filter(|cursor| cursor.name == *name)
                    .for_each(|cursor| cursor.statement = None);
            }
            Command::Prepare { name, .. } => {
                if let Some(prepared) = self.statements.get_mut(name.as_bytes()) {
                    Arc::make_mut(prepared).origin.written = None;
                }
            }
            _ => {}
        }
    }

    async fn list_cursors(
        &mut self,
        workspace: &mut Workspace,
        asked: &Asked<'_>,
    ) -> Result<(), Trouble> {
        if !self.batch.is_empty() || !self.portals.is_empty() {
            let what = "listing cursors beside portals of the extended query protocol".into();
            let hint = "Use the simple query protocol.";
            return Err(Failure::Unsupported { what, hint }.into());
        }
        let mut rows = Vec::new();
        let Self {
            cursors_apart,
            client,
            ..
        } = self;
        for cursor in cursors_apart {
            let statement = cursor.statement.as_deref().ok_or_else(text_unknown)?;
            let sql = rows_of(&[&cursor.name], &escape_literal(statement));
            rows.extend(cursor.workspace.value(client, &sql).await?);
        }
        let mut shards: Vec<ShardIndex> = self.cursors.iter().map(|cursor| cursor.shard).collect();
        shards.sort_unstable();
        shards.dedup();
        for shard in shards {
            // Where no connection is held, no cursor is left.
            let held = self
                .participants
                .iter()
                .position(|held| held.shard == shard);
            let Some(index) = held else { continue };
            let there = self.cursors.iter().filter(|cursor| cursor.shard == shard);
            if !there.clone().all(|cursor| cursor.whole) {
                return Err(text_unknown().into());
            }
            let names: Vec<&str> = there.map(|cursor| cursor.name.as_str()).collect();
            let sql = rows_of(&names, "statement");
            rows.extend(self.value_of(index, &sql, asked).await?);
        }
        let mut sql = "CREATE TEMPORARY TABLE pg_temp.pg_cursors ON COMMIT DROP AS \
                       SELECT * FROM pg_catalog.pg_cursors WITH NO DATA"
            .to_owned();
        if !rows.is_empty() {
            sql.push_str(&format!(
                "; INSERT INTO pg_temp.pg_cursors (name, statement, is_holdable, is_binary, is_scrollable, \
                 creation_time) VALUES {}",
                rows.join(", ")
            ));
        }
        workspace.run(&mut self.client, &sql).await
    }

    /// They are prepared in the workspace, so that PostgreSQL says of them what it knows.
    async fn list_statements(&mut self, workspace: &mut Workspace) -> Result<(), Trouble> {
        let mut told = String::new();
        for (name, prepared) in self.statements.named() {
            let name = String::from_utf8_lossy(name);
            let sql = prepared.statement.sql();
            let written = match &prepared.statement.text {
                StatementText::Parsed { sql, .. } => String::from_utf8_lossy(sql),
                StatementText::Prepared { .. } => {
                    let written = prepared.origin.written.as_deref();
                    written.ok_or_else(text_unknown)?.into()
                }
            };
            told.push_str(&format!(
                "; UPDATE pg_temp.pg_prepared_statements SET statement = {}, \
                 prepare_time = pg_catalog.to_timestamp({}) WHERE name = {}",
                escape_literal(&written),
                seconds(prepared.origin.at),
                escape_literal(&name),
            ));
            let prepare = |output: &mut bytes::BytesMut| {
                prepared.statement.encode_prepare_as(output, &name, sql);
            };
            workspace.send(&mut self.client, prepare).await?;
        }
        // Of the workspace's own none are left, for the client's statement may be one of them.
        let sql = format!(
            "CREATE TEMPORARY TABLE pg_temp.pg_prepared_statements ON COMMIT DROP AS \
             SELECT * FROM pg_catalog.pg_prepared_statements{told}; DEALLOCATE ALL"
        );
        workspace.run(&mut self.client, &sql).await
    }

    /// The first column of the first row that a query of ours has on a participant.
    pub(super) async fn value_of(
        &mut self,
        index: usize,
        sql: &str,
        asked: &Asked<'_>,
    ) -> Result<Option<String>, Trouble> {
        self.ask(index, sql, &[Format::Text], asked).await?;
        let Self {
            client,
            participants,
            ..
        } = self;
        let source = participants.at(index)?;
        let (mut value, mut failed) = (None, false);
        loop {
            match next(client, source, Show::Errors).await? {
                Said::Message(header) => {
                    let message = source.connection.input.split_to(header.len);
                    if let Ok(Message::DataRow(row)) = decode_message(&message) {
                        let first = row.iter().next().flatten();
                        value = first.map(|value| String::from_utf8_lossy(value).into_owned());
                    }
                }
                Said::Error => failed = true,
                Said::Ready => break,
            }
        }
        source.unread = false;
        match failed {
            true => Err(Trouble::Told),
            false => Ok(value),
        }
    }
}

fn text_unknown() -> Failure {
    Failure::Unsupported {
        what: "listing what was made by one of several statements in one query, or by the extended query protocol".into(),
        hint: "Send the statements one by one, by the simple query protocol.",
    }
}

/// A query for the rows of `pg_cursors` with these names, as one text that can follow VALUES.
fn rows_of(names: &[&str], statement: &str) -> String {
    let names: Vec<String> = names.iter().map(|name| escape_literal(name)).collect();
    format!(
        "SELECT pg_catalog.string_agg(pg_catalog.format('(%L, %L, %L::bool, %L::bool, %L::bool, %L::timestamptz)', name, \
         {statement}, is_holdable, is_binary, is_scrollable, pg_catalog.to_char(creation_time AT TIME ZONE 'UTC', \
         'YYYY-MM-DD HH24:MI:SS.US') || '+00'), ', ') FROM pg_catalog.pg_cursors WHERE name IN ({})",
        names.join(", ")
    )
}

/// Since 1970.
fn seconds(at: SystemTime) -> String {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("{}.{:06}", since.as_secs(), since.subsec_micros())
}
