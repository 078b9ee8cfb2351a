//! Statements that PostgreSQL finishes on rows which the shards have made of a part of them: how the rows come to it.
//!
//! The first time they are brought to a table, of which PostgreSQL says what its columns are. Where they are few they are given by
//! parameters from then on, which takes no table, and one exchange.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use postgres_protocol::escape::{escape_identifier, escape_literal};
use switchyard_schema::ShardSet;
use switchyard_wire::SqlState;
use switchyard_wire::frontend::{self, Kind};

use crate::execute::failure::Failure;
use crate::execute::relay::Trouble;
use crate::execute::workspace::Workspace;
use crate::plan::given::GivenText;
use crate::plan::learned::{Part, Rows};
use crate::plan::workspace::Text;
use crate::plan::{self, Finish};
use crate::relations::introspect::TEMPORARY_COLUMNS;
use crate::session::Session;
use crate::session::workspace::fetch::Asked;
use crate::session::workspace::few_rows::FewRows;
use crate::session::workspace::{columns, error_in};

/// What comes of fetching rows to be given to the statement that finishes them.
pub(in crate::session) enum Fetched {
    /// The statement, and the arrays that are its last parameters.
    Rows(Vec<u8>, Vec<Option<Bytes>>),
    /// They have to be brought to a table.
    Not,
    /// A shard has failed: when the statement is executed, the client is told this.
    Failed(BytesMut),
}

impl Session {
    /// Fetches the rows of a part of a statement, if it is known how they can be given to the statement that finishes them.
    pub(in crate::session) async fn fetch_part(
        &mut self,
        plan: &plan::Workspace,
        (finish, shards): (&Finish, &ShardSet),
        asked: &Asked<'_>,
    ) -> Result<Fetched, Trouble> {
        let Some(rows) = plan.learned.given_rows() else {
            return Ok(Fetched::Not);
        };
        let Some(given) = &rows.given else {
            return Ok(Fetched::Not);
        };
        let types: Vec<u32> = given.types().map(|(oid, _)| oid).collect();
        let text = finish.text(asked.sql, &types);
        let first = asked.parameters() + 1;
        let Some(text) = text.and_then(|text| GivenText::new(&text, &[given], first)) else {
            return Ok(Fetched::Not);
        };
        self.gather(shards, asked.need).await?;
        let query = finish.rows.query(&Text::new(asked.sql), &|_, _| None);
        let before = self.client.hold();
        let fetched = self.few_rows(given, shards, &query, asked).await;
        let said = self.client.unhold(before);
        if fetched.is_err() {
            self.client.output.extend_from_slice(&said);
        }
        match fetched? {
            FewRows::All(arrays) => {
                self.client.output.extend_from_slice(&said);
                let arrays = arrays.finish().into_iter().map(Some).collect();
                return Ok(Fetched::Rows(text.text, arrays));
            }
            FewRows::Failed { planned: true } => {
                self.stop(None).await;
                return Ok(Fetched::Failed(said));
            }
            FewRows::Failed { planned: false } if self.block.is_some() => {
                self.client.output.extend_from_slice(&said);
                return Err(Trouble::Told);
            }
            // PostgreSQL says what is wrong of the client's own text.
            FewRows::Failed { planned: false } => self.stop(None).await,
            FewRows::OfOtherTypes => plan.learned.known().part = None,
            FewRows::TooMany => {
                plan.learned.known().part = Some(Part::Rows(Arc::new(Rows {
                    modifiers: rows.modifiers.clone(),
                    alterations: rows.alterations.clone(),
                    given: None,
                })));
            }
        }
        Ok(Fetched::Not)
    }

    /// Makes the table for rows that shards have made: the statement that finishes them. `None`: of rows of the types they have
    /// none can.
    pub(in crate::session) async fn make_rows(
        &mut self,
        workspace: &mut Workspace,
        plan: &plan::Workspace,
        finish: &Finish,
        asked: &Asked<'_>,
    ) -> Result<Option<Vec<u8>>, Trouble> {
        let text = Text::new(asked.sql);
        let creation = finish.rows.creation(&text);
        let query = finish.rows.query(&text, &|_, _| None);
        let messages = |output: &mut BytesMut| {
            // Its parameters are the client's; PostgreSQL finds the types, and the collations.
            asked.encode_bind(output, creation.as_bytes(), b"", &[]);
            frontend::encode::execute(output, b"", 0);
            // Planning may find modifiers that the table does not have.
            asked.encode_bind(output, query.as_bytes(), b"", &[]);
            frontend::encode::describe(output, Kind::Portal, b"");
            frontend::encode::sync(output);
        };
        let before = self.client.hold();
        let described = workspace.send(&mut self.client, messages).await;
        let said = self.client.unhold(before);
        if described.is_err() && error_in(&said) == Some(SqlState::INVALID_TABLE_DEFINITION) {
            // There are no tables of such columns: rows of no named type, for one.
            plan.learned.known().part = Some(Part::Apart);
            workspace.run(&mut self.client, "ROLLBACK").await?;
            self.open_workspace(workspace, &plan.views, "").await?;
            return Ok(None);
        }
        self.client.output.extend_from_slice(&said);
        let description = described?;
        let columns = columns(&description);
        let columns = columns.iter().flat_map(|columns| columns.iter());
        let types: Vec<(u32, i32)> = columns
            .map(|column| (column.type_oid, column.type_modifier))
            .collect();
        let oids: Vec<u32> = types.iter().map(|(oid, _)| *oid).collect();
        let Some(text) = finish.text(asked.sql, &oids) else {
            plan.learned.known().part = Some(Part::Apart);
            return Ok(None);
        };
        let rows = self.learn_part(workspace, plan, finish, &types).await?;
        if !rows.alterations.is_empty() {
            let table = escape_identifier(&finish.rows.relation.name);
            let alter = format!("ALTER TABLE pg_temp.{table} {}", rows.alterations);
            workspace.run(&mut self.client, &alter).await?;
        }
        Ok(Some(text))
    }

    /// What is known of rows of these types (OID and modifier), for which there is a table.
    async fn learn_part(
        &mut self,
        workspace: &mut Workspace,
        plan: &plan::Workspace,
        finish: &Finish,
        types: &[(u32, i32)],
    ) -> Result<Arc<Rows>, Trouble> {
        let modifiers: Vec<String> = types.iter().map(|(_, own)| own.to_string()).collect();
        if let Some(Part::Rows(known)) = &plan.learned.known().part
            && known.modifiers.iter().eq(types.iter().map(|(_, own)| own))
        {
            return Ok(Arc::clone(known));
        }
        let table = format!("pg_temp.{}", escape_identifier(&finish.rows.relation.name));
        let query = TEMPORARY_COLUMNS
            .replace("{modifiers}", &format!("'{{{}}}'", modifiers.join(",")))
            .replace("{table}", &escape_literal(&table));
        let lines = workspace.lines(&mut self.client, &query).await?;
        let made = (&finish.rows.relation, finish.rows.columns.as_slice());
        let rows = Rows::read(made, types, &lines).ok_or(Failure::Retry)?;
        let rows = Arc::new(rows);
        plan.learned.known().part = Some(Part::Rows(Arc::clone(&rows)));
        Ok(rows)
    }
}
