//! PREPARE, EXECUTE and DEALLOCATE: statements prepared by SQL are kept by the session and prepared under the router's
//! own name on whichever backend executes them.

use std::ops::Range;
use std::sync::Arc;

use bytes::BytesMut;
use smallvec::SmallVec;
use switchyard_schema::ShardSet;
use switchyard_wire::backend::encode;
use switchyard_wire::frontend;

use super::Session;
use super::route::{Routed, bind_settings};
use super::simple::{Ready, Sent};
use super::statement::{SessionStatement, StatementText};
use crate::backend::{Reply, Show};
use crate::execute::failure::Failure;
use crate::execute::relay::Trouble;
use crate::plan::{Operator, Param, Params, Values};
use crate::sql::{LiteralKind, Scan};

impl Session {
    /// Lets a backend check the statement, and remembers it.
    pub(super) async fn sql_prepare(
        &mut self,
        name: &str,
        types: &[Range<u32>],
        statement: &Range<u32>,
        sent: Sent<'_>,
    ) -> Result<Ready, Trouble> {
        if self.statements.get(name.as_bytes()).is_some() {
            return Err(Failure::DuplicateStatement(name.into()).into());
        }
        let text = |range: &Range<u32>| {
            let bytes = sent
                .sql()
                .get(range.start as usize..range.end as usize)
                .unwrap_or_default();
            String::from_utf8_lossy(bytes).into_owned()
        };
        let types: Vec<String> = types.iter().map(text).collect();
        let sql = text(statement);
        let Some(mut prepared) = self.prepare(sql.as_bytes(), &[])? else {
            return Err(unsupported("PREPARE of this statement"));
        };
        if let Operator::Refuse(refusal) = &prepared.plan.operator {
            return Err(Failure::Refused(refusal.clone()).into());
        }
        prepared.statement = self.worker.services.statements.intern(
            self.scope(),
            StatementText::Prepared {
                types: types.join(", ").into(),
                sql: sql.into(),
            },
        );
        let shard = self.any_shard();
        let need = self.need(prepared.plan.access, prepared.hint);
        let index = self.join(shard, need).await?;
        if self.hold_prepared(index, &prepared).await? {
            return Err(Trouble::Told);
        }
        self.statements.insert(name.as_bytes(), Arc::new(prepared));
        encode::command_complete(&mut self.client.output, b"PREPARE");
        Ok(Ready::ToBeSaid)
    }

    /// Executes a statement on the shards its arguments lead to.
    pub(super) async fn sql_execute(
        &mut self,
        name: &str,
        arguments: &[Range<u32>],
        sent: Sent<'_>,
    ) -> Result<Ready, Trouble> {
        let prepared = self.statement_named(name.as_bytes())?;
        let arguments = Arguments::read(sent.sql(), arguments);
        let lacks = |number: &u16| usize::from(*number) > arguments.values.len();
        let (shards, plan) = if prepared.plan.key_params.iter().any(lacks) {
            // Too few arguments: PostgreSQL says so, on any shard.
            let any = ShardSet::one(self.any_shard());
            (any, Arc::clone(&prepared.plan))
        } else {
            let values = Values {
                sql: prepared.statement.sql(),
                literals: &prepared.literals,
                params: &arguments,
            };
            let plan = bind_settings(Arc::clone(&prepared.plan), &values)?;
            (self.bind(&plan, &values)?, plan)
        };
        let Some(shard) = shards.only() else {
            return Err(unsupported(
                "EXECUTE of a statement that needs several shards",
            ));
        };
        let need = self.need(prepared.plan.access, prepared.hint);
        let index = self.join(shard, need).await?;
        if self.hold_prepared(index, &prepared).await? {
            return Err(Trouble::Told);
        }
        if let Some(participant) = self.participants.get_mut(index) {
            participant.bound = (
                prepared.statement.number,
                SmallVec::from_slice(name.as_bytes()),
            );
        }
        let mut message = BytesMut::new();
        let call = format!(
            "EXECUTE {}{}",
            prepared.statement.backend_name(),
            arguments.text
        );
        frontend::encode::query(&mut message, call.as_bytes());
        let sent = Sent {
            message: &message,
            alone: sent.alone,
        };
        let routed = Routed {
            plan,
            shards,
            fetches: Vec::new(),
            hint: prepared.hint,
        };
        if !routed.plan.settings.is_empty() {
            return self.setting_statement(&routed, sent).await;
        }
        self.pass_through(shard, &routed, sent).await
    }

    /// Forgets one prepared statement, or all.
    pub(super) async fn sql_deallocate(&mut self, name: Option<&str>) -> Result<Ready, Trouble> {
        let tag: &[u8] = match name {
            Some(name) => {
                if self.statements.remove(name.as_bytes()).is_none() {
                    return Err(Failure::NoSuchStatement(name.into()).into());
                }
                b"DEALLOCATE"
            }
            None => {
                self.statements.clear();
                b"DEALLOCATE ALL"
            }
        };
        encode::command_complete(&mut self.client.output, tag);
        Ok(Ready::ToBeSaid)
    }

    /// Makes sure a participant holds a statement prepared by SQL. True if it refused it, which the client has seen.
    async fn hold_prepared(
        &mut self,
        index: usize,
        prepared: &SessionStatement,
    ) -> Result<bool, Trouble> {
        let number = prepared.statement.number;
        let Some(participant) = self.participants.get_mut(index) else {
            return Err(Failure::Retry.into());
        };
        if participant.connection.prepared.touch(number) {
            return Ok(false);
        }
        if let Some(evicted) = participant.connection.prepared.insert(number) {
            self.run_on(index, &format!("DEALLOCATE sy_{evicted}"))
                .await?;
        }
        let Some(sql) = prepared.statement.prepare_sql() else {
            // Prepared by a Parse message: as PostgreSQL, EXECUTE can run it too.
            return self.parse_now(index, prepared).await;
        };
        let failed = self.run_on(index, &sql).await?;
        if failed && let Some(participant) = self.participants.get_mut(index) {
            participant.connection.prepared.remove(number);
        }
        Ok(failed)
    }

    async fn parse_now(
        &mut self,
        index: usize,
        prepared: &SessionStatement,
    ) -> Result<bool, Trouble> {
        let Some(participant) = self.participants.get_mut(index) else {
            return Err(Failure::Retry.into());
        };
        let connection = &mut *participant.connection;
        prepared
            .statement
            .encode_prepare(&mut connection.output, true);
        let reply = Reply::Parse {
            statement: prepared.statement.number,
            named: true,
        };
        connection.replies.expect(reply, Show::Errors);
        frontend::encode::sync(&mut connection.output);
        connection.replies.expect(Reply::Sync, Show::Nothing);
        self.exchange(index).await
    }
}

/// The arguments of an EXECUTE, as far as they are plain constants.
struct Arguments {
    /// As written, with parentheses; empty if there are none.
    text: String,
    values: Vec<Option<Argument>>,
}

enum Argument {
    Null,
    Value { text: Vec<u8>, oid: u32 },
}

const INT8: u32 = 20;
const NUMERIC: u32 = 1700;

impl Arguments {
    fn read(sql: &[u8], ranges: &[Range<u32>]) -> Self {
        let texts: Vec<&[u8]> = ranges
            .iter()
            .map(|range| {
                sql.get(range.start as usize..range.end as usize)
                    .unwrap_or_default()
            })
            .collect();
        let text = match texts.is_empty() {
            true => String::new(),
            false => format!("({})", String::from_utf8_lossy(&texts.join(&b", "[..]))),
        };
        Self {
            text,
            values: texts.into_iter().map(constant).collect(),
        }
    }
}

/// The value of an argument that is one constant; anything else cannot be evaluated here.
fn constant(text: &[u8]) -> Option<Argument> {
    let text = text.trim_ascii();
    if text.eq_ignore_ascii_case(b"null") {
        return Some(Argument::Null);
    }
    let (negative, unsigned) = match text.strip_prefix(b"-") {
        Some(unsigned) => (true, unsigned),
        None => (false, text),
    };
    let mut scan = Scan::new();
    scan.scan(unsigned).ok()?;
    let [literal] = scan.literals.as_slice() else {
        return None;
    };
    if literal.span != (0..u32::try_from(unsigned.len()).ok()?) {
        return None;
    }
    match literal.kind {
        LiteralKind::String if negative => None,
        LiteralKind::String => {
            let inner = unsigned.get(1..unsigned.len().checked_sub(1)?)?;
            let unescaped = String::from_utf8_lossy(inner).replace("''", "'");
            Some(Argument::Value {
                text: unescaped.into_bytes(),
                oid: 0,
            })
        }
        LiteralKind::Integer => Some(Argument::Value {
            text: text.to_vec(),
            oid: INT8,
        }),
        LiteralKind::Decimal => Some(Argument::Value {
            text: text.to_vec(),
            oid: NUMERIC,
        }),
    }
}

impl Params for Arguments {
    fn param(&self, number: u16) -> Option<Param<'_>> {
        let index = usize::from(number).checked_sub(1)?;
        let (value, oid) = match self.values.get(index)?.as_ref()? {
            Argument::Null => (None, 0),
            Argument::Value { text, oid } => (Some(text.as_slice()), *oid),
        };
        Some(Param {
            value,
            binary: false,
            oid,
        })
    }
}

fn unsupported(what: &str) -> Trouble {
    Failure::Unsupported {
        what: what.into(),
        hint: "Prepare statements by the extended query protocol.",
    }
    .into()
}
