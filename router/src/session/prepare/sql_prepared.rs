//! PREPARE, EXECUTE and DEALLOCATE: statements prepared by SQL are kept by the session and prepared under the router's
//! own name on whichever backend executes them.

use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use postgres_protocol::escape::escape_identifier;
use smallvec::SmallVec;
use switchyard_schema::ShardSet;
use switchyard_wire::backend::{Message, decode, encode};
use switchyard_wire::frame::{self, HEADER};
use switchyard_wire::frontend::{self, Bind, Kind};

use crate::backend::{Reply, Show};
use crate::execute::failure::Failure;
use crate::execute::given_rows::GivenRows;
use crate::execute::participants::Need;
use crate::execute::relay::Trouble;
use crate::plan::{Command, Merge, Operator, Values};
use crate::session::Session;
use crate::session::extended::portable;
use crate::session::prepare::arguments::Arguments;
use crate::session::prepare::prepare_text::Places;
use crate::session::read::merge::Scattered;
use crate::session::read::part::place_error;
use crate::session::route::{Routed, bind_settings, limit_of};
use crate::session::simple::{Ready, Sent};
use crate::session::statement::{SessionStatement, Statement, StatementText};
use crate::session::workspace::fetch::Asked;
use crate::session::workspace::furnish::{Fill, Furnished, Furnishing};
use crate::session::write::insert::{Inserting, shards_of_rows};

impl Session {
    /// Lets a backend check the statement, and remembers it.
    pub(in crate::session) async fn sql_prepare(
        &mut self,
        name: &str,
        types: &[Range<u32>],
        statement: &Range<u32>,
        sent: Sent<'_>,
    ) -> Result<Ready, Trouble> {
        let text = |range: &Range<u32>| {
            let bytes = sent
                .sql()
                .get(range.start as usize..range.end as usize)
                .unwrap_or_default();
            String::from_utf8_lossy(bytes).into_owned()
        };
        let declared: Vec<String> = types.iter().map(text).collect();
        let sql = text(statement);
        let planned = self.prepare(sql.as_bytes(), &[])?;
        let checked = self.worker.services.statements.intern(
            self.scope(),
            StatementText::Prepared {
                types: declared.join(", ").into(),
                sql: sql.into(),
            },
        );
        let need = planned.as_ref().map_or(Need::Primary, |planned| {
            self.need(planned.plan.access, planned.hint)
        });
        let index = self.join(self.any_shard(), need).await?;
        // What is wrong with it PostgreSQL says first, in words about its own text.
        let (before, from) = (
            self.client.hold(),
            Places::new(sent.sql(), types, statement),
        );
        let failed = self.hold_prepared(index, &checked).await;
        let mut said = self.client.unhold(before);
        place_error(&mut said, 0, |position| from.origin(&checked, position));
        self.client.output.extend_from_slice(&said);
        if failed? {
            return Err(Trouble::Told);
        }
        if self.statements.get(name.as_bytes()).is_some() {
            return Err(Failure::DuplicateStatement(name.into()).into());
        }
        let Some(mut prepared) = planned else {
            return Err(unsupported("PREPARE of this statement"));
        };
        if let Operator::Refuse(refusal) = &prepared.plan.operator {
            return Err(Failure::Refused(refusal.clone()).into());
        }
        prepared.origin.written = Some(String::from_utf8_lossy(sent.sql()).into());
        prepared.statement = checked;
        self.statements.insert(name.as_bytes(), Arc::new(prepared));
        encode::command_complete(&mut self.client.output, b"PREPARE");
        Ok(Ready::ToBeSaid)
    }

    /// Executes a statement on the shards its arguments lead to.
    pub(in crate::session) async fn sql_execute(
        &mut self,
        name: &str,
        arguments: &[Range<u32>],
        sent: Sent<'_>,
    ) -> Result<Ready, Trouble> {
        let prepared = self.statement_known(name.as_bytes()).await?;
        let mut arguments = Arguments::read(sent.sql(), arguments);
        let anywhere = matches!(prepared.plan.operator, Operator::PassThrough(_))
            && prepared.plan.key_params.is_empty();
        if !arguments.are_constant() && !anywhere {
            let described = self.describe_held(&prepared).await?;
            if described.params.len() == arguments.len() {
                arguments = self
                    .evaluate(described.index, &arguments, &described.params)
                    .await?;
            }
        }
        let routed = self.route_execute(&prepared, &arguments)?;
        if let Command::OfCursor { .. } = prepared.plan.command {
            return self
                .execute_current_prepared(name, &prepared, (&routed, &arguments), sent)
                .await;
        }
        if self.consistent_read {
            Box::pin(self.cut_before(&routed.plan, &routed.shards)).await?;
        }
        // Where arguments are missing, PostgreSQL says so, on any shard.
        if let Operator::Workspace(plan) = &routed.plan.operator
            && (plan.fetches.is_empty() || !routed.fetches.is_empty())
        {
            return self
                .execute_apart(name, &prepared, &routed, &arguments, sent)
                .await;
        }
        self.execute_on_shards(name, &prepared, &routed, &arguments, sent)
            .await
    }

    /// Executes a statement on the shards of its rows.
    pub(in crate::session) async fn execute_on_shards(
        &mut self,
        name: &str,
        prepared: &SessionStatement,
        routed: &Routed,
        arguments: &Arguments,
        sent: Sent<'_>,
    ) -> Result<Ready, Trouble> {
        if let (Operator::Merge(merge), None) = (&routed.plan.operator, routed.shards.only()) {
            return self
                .execute_merged(name, prepared, merge, routed, arguments)
                .await;
        }
        if let Operator::Insert(_)
        | Operator::InsertQuery(_)
        | Operator::Move(_)
        | Operator::Steps(_) = &routed.plan.operator
        {
            return self
                .execute_insert_of(name, prepared, routed, arguments)
                .await;
        }
        if let Operator::Write(write) = &routed.plan.operator
            && self.writes_otherwise(write, routed)
        {
            return self
                .execute_write(write, (name, prepared), routed, (arguments, sent))
                .await;
        }
        let message = call(&prepared.statement, arguments);
        let sent = Sent {
            message: &message,
            alone: sent.alone,
        };
        self.hold_on_shards(name, prepared, routed).await?;
        if !routed.plan.settings.is_empty() {
            return self.setting_statement(routed, sent).await;
        }
        match (&routed.plan.operator, routed.shards.only()) {
            (Operator::Broadcast(kind), _) => self.broadcast(&routed.plan, *kind, sent).await,
            (Operator::Refuse(refusal), _) => Err(Failure::Refused(refusal.clone()).into()),
            (operator, Some(shard))
                if routed.plan.unique.is_none() || matches!(operator, Operator::Session) =>
            {
                let held = Some((name, prepared));
                self.pass_through_held(shard, routed, sent, held).await
            }
            (Operator::Append(_), None) => self.append(routed, sent).await,
            (Operator::Write(write), _) => self.write_parts(write, routed, sent).await,
            (Operator::Lock(_), None) => Err(unsupported(
                "EXECUTE of a statement that locks rows it has to find first",
            )),
            (_, _) => Err(unsupported("EXECUTE of this statement")),
        }
    }

    /// Executes on several shards a statement of ours, and merges their rows.
    async fn execute_merged(
        &mut self,
        name: &str,
        prepared: &SessionStatement,
        merge: &Merge,
        routed: &Routed,
        arguments: &Arguments,
    ) -> Result<Ready, Trouble> {
        let sql = prepared.statement.sql();
        let types = match &prepared.statement.text {
            StatementText::Prepared { types, .. } => types.clone(),
            StatementText::Parsed { .. } => Box::default(),
        };
        let text = String::from_utf8(merge.text(sql)).map_err(|_| Failure::NotUtf8)?;
        let text = StatementText::Prepared {
            types,
            sql: text.into(),
        };
        let statement = self.worker.services.statements.intern(self.scope(), text);
        let message = call(&statement, arguments);
        let ours = SessionStatement {
            statement,
            ..prepared.clone()
        };
        self.hold_on_shards(name, &ours, routed).await?;
        self.merge_answers(Scattered {
            plan: &routed.plan,
            need: self.need(routed.plan.access, routed.hint),
            shards: &routed.shards,
            messages: &|_, _, output| output.extend_from_slice(&message),
            steady: None,
            recipe: &merge.recipe,
            limit: routed.limit,
            origin: &|position| merge.origin(sql, position),
            description: None,
        })
        .await
    }

    /// Inserts rows on several shards.
    async fn execute_insert_of(
        &mut self,
        name: &str,
        prepared: &SessionStatement,
        routed: &Routed,
        arguments: &Arguments,
    ) -> Result<Ready, Trouble> {
        let cancels = self.cancel.slot().requests();
        let bound = self.bound(name, prepared, arguments).await?;
        let (types, bind) = bound.params()?;
        self.client.output.extend_from_slice(&bound.columns);
        self.insert_and_tell(&Inserting {
            plan: &routed.plan,
            sql: prepared.statement.sql(),
            shards: &routed.rows,
            bound: Some((types, &bind)),
            cancels,
            given: GivenRows::default(),
        })
        .await
    }

    /// Where a statement goes with these arguments.
    fn route_execute(
        &self,
        prepared: &SessionStatement,
        arguments: &Arguments,
    ) -> Result<Routed, Failure> {
        let values = Values {
            sql: prepared.statement.sql(),
            literals: &prepared.literals,
            params: arguments,
        };
        let mut routed = Routed {
            plan: Arc::clone(&prepared.plan),
            shards: ShardSet::one(self.any_shard()),
            fetches: Vec::new(),
            rows: Vec::new(),
            limit: crate::merge::Limit::default(),
            hint: prepared.hint,
            lookup: None,
        };
        let lacks = |number: &u16| usize::from(*number) > arguments.len();
        if prepared.plan.key_params.iter().any(lacks) {
            // Too few arguments: PostgreSQL says so, on any shard.
            return Ok(routed);
        }
        let plan = bind_settings(Arc::clone(&prepared.plan), &values, &self.database)?;
        (routed.plan, routed.shards) = self.bind_either(plan, &values)?;
        routed.limit = limit_of(&routed.plan, &values)?;
        routed.rows = shards_of_rows(&routed.plan, &values)?;
        if let Operator::Merge(merge) = &routed.plan.operator
            && merge.lacks_parameter()
            && let Some(several) = &routed.plan.several
        {
            // SQL's PREPARE gives no type to a parameter that the text does not mention.
            routed.plan = Arc::clone(several);
        }
        if let Operator::Workspace(plan) = &routed.plan.operator {
            routed.fetches = self.fetches(plan, &values)?;
        }
        Ok(routed)
    }

    /// Makes sure that the backends that are to execute a statement prepared by SQL hold it.
    async fn hold_on_shards(
        &mut self,
        name: &str,
        prepared: &SessionStatement,
        routed: &Routed,
    ) -> Result<(), Trouble> {
        let need = self.need(routed.plan.access, routed.hint);
        for shard in routed.shards.iter() {
            let index = self.join(shard, need).await?;
            self.hold(index, (name, prepared)).await?;
        }
        Ok(())
    }

    /// Makes sure that a participant holds a statement that it is to execute.
    pub(in crate::session) async fn hold(
        &mut self,
        index: usize,
        (name, of): Held<'_>,
    ) -> Result<(), Trouble> {
        if self.hold_prepared(index, &of.statement).await? {
            return Err(Trouble::Told);
        }
        let bound = SmallVec::from_slice(name.as_bytes());
        self.participants.at(index)?.bound = (of.statement.number, bound);
        Ok(())
    }

    /// Executes a statement in a workspace: it is prepared there.
    async fn execute_apart(
        &mut self,
        name: &str,
        prepared: &SessionStatement,
        routed: &Routed,
        arguments: &Arguments,
        sent: Sent<'_>,
    ) -> Result<Ready, Trouble> {
        let Operator::Workspace(plan) = &routed.plan.operator else {
            return Err(Failure::Retry.into());
        };
        let cancels = self.cancel.slot().requests();
        let described = self.describe_held(prepared).await?;
        if described.params.len() != arguments.len() {
            // PostgreSQL says so, on any shard.
            let routed = Routed {
                shards: ShardSet::one(self.any_shard()),
                ..routed.clone()
            };
            return self
                .execute_on_shards(name, prepared, &routed, arguments, sent)
                .await;
        }
        let types = &described.params;
        let evaluated = match arguments.as_params(types) {
            Some(_) => None,
            None => Some(self.evaluate(described.index, arguments, types).await?),
        };
        let arguments = evaluated.as_ref().unwrap_or(arguments);
        let values = arguments.as_params(types).ok_or(Failure::Retry)?;
        let columns = described.columns.as_ref().ok_or(Failure::Retry)?;
        let mut bind = BytesMut::new();
        frontend::encode::bind(&mut bind, b"", b"", &[], &values, &[]);
        let bind = Bind::decode(bind.get(HEADER..).unwrap_or_default());
        let bind = bind.map_err(Failure::InvalidMessage)?;
        let types = described.params.iter().copied().map(portable).collect();
        let asked = Asked {
            sql: prepared.statement.sql(),
            params: Some((types, &bind)),
            given: GivenRows::default(),
            need: self.need(routed.plan.access, routed.hint),
            cancels,
        };
        let furnished = Box::pin(self.furnish(plan, &routed.fetches, &asked, Fill::Rows)).await?;
        let Furnished {
            mut workspace,
            text,
            ..
        } = match furnished {
            Furnishing::Done(furnished) => *furnished,
            Furnishing::Failed(said) => {
                self.client.output.extend_from_slice(columns);
                return Err(self.failed_in_part(&said));
            }
        };
        let prepare = |output: &mut BytesMut| {
            let statement = &prepared.statement;
            statement.encode_prepare_as(output, name, &text);
        };
        // The client's own text names what has been prepared.
        let call = format!("EXECUTE {}{}", escape_identifier(name), arguments.text);
        let text = match arguments.computed {
            true => call.as_bytes(),
            false => sent.sql(),
        };
        let execute = |output: &mut BytesMut| frontend::encode::query(output, text);
        let outcome = match workspace.send(&mut self.client, prepare).await {
            Ok(_) => workspace.ask_at_last(&mut self.client, execute).await,
            Err(trouble) => Err(trouble),
        };
        let outcome = match outcome {
            Ok(()) => self.pass_answer(&mut workspace, asked.sql, columns).await,
            Err(trouble) => Err(trouble),
        };
        let rows = self.leave_workspace(workspace, outcome).await?;
        self.complete(&format!("SELECT {rows}"))
    }

    /// The arguments, as parameters of the statement that is to be executed.
    pub(in crate::session) async fn computed(
        &mut self,
        name: &str,
        prepared: &SessionStatement,
        described: &Described,
        arguments: Arguments,
    ) -> Result<Arguments, Trouble> {
        let types = &described.params;
        if types.len() != arguments.len() {
            // PostgreSQL says so.
            let participant = self.participants.at(described.index)?;
            participant.bound = (
                prepared.statement.number,
                SmallVec::from_slice(name.as_bytes()),
            );
            let call = format!(
                "EXECUTE {}{}",
                prepared.statement.backend_name(),
                arguments.text
            );
            return match self.run_on(described.index, &call).await? {
                true => Err(Trouble::Told),
                false => Err(Failure::Retry.into()),
            };
        }
        // A constant, too, may be none of its type.
        match types.is_empty() {
            true => Ok(arguments),
            false => self.evaluate(described.index, &arguments, types).await,
        }
    }

    /// What a backend says of a statement prepared by SQL.
    pub(in crate::session) async fn describe_held(
        &mut self,
        prepared: &SessionStatement,
    ) -> Result<Described, Trouble> {
        let need = self.need(prepared.plan.access, prepared.hint);
        let index = self.join(self.any_shard(), need).await?;
        if self.hold_prepared(index, &prepared.statement).await? {
            return Err(Trouble::Told);
        }
        let connection = &mut *self.participants.at(index)?.connection;
        let name = prepared.statement.backend_name().as_bytes();
        frontend::encode::describe(&mut connection.output, Kind::Statement, name);
        let reply = Reply::Describe { noted_of: None };
        connection.replies.expect(reply, Show::All);
        frontend::encode::sync(&mut connection.output);
        connection.replies.expect(Reply::Sync, Show::Nothing);
        let before = self.client.hold();
        let outcome = self.exchange(index).await;
        let answer = self.client.unhold(before);
        if outcome? {
            self.client.output.extend_from_slice(&answer);
            return Err(Trouble::Told);
        }
        let described = Described::read(&answer, index);
        described.ok_or_else(|| Failure::Retry.into())
    }

    /// Forgets one prepared statement, or all.
    pub(in crate::session) async fn sql_deallocate(
        &mut self,
        name: Option<&str>,
    ) -> Result<Ready, Trouble> {
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
        statement: &Statement,
    ) -> Result<bool, Trouble> {
        let number = statement.number;
        let Some(participant) = self.participants.get_mut(index) else {
            return Err(Failure::Retry.into());
        };
        if participant.connection.prepared.touch(number) {
            return Ok(false);
        }
        if let Some(evicted) = participant.connection.prepared.insert(number) {
            let failed = self
                .run_on(index, &format!("DEALLOCATE sy_{evicted}"))
                .await?;
            if failed && let Some(participant) = self.participants.get_mut(index) {
                participant.connection.prepared.put_back(evicted);
            }
        }
        let Some(sql) = statement.prepare_sql() else {
            // Prepared by a Parse message: as PostgreSQL, EXECUTE can run it too.
            return self.parse_now(index, statement).await;
        };
        let failed = self.run_on(index, &sql).await?;
        if failed && let Some(participant) = self.participants.get_mut(index) {
            participant.connection.prepared.remove(number);
        }
        Ok(failed)
    }

    async fn parse_now(&mut self, index: usize, statement: &Statement) -> Result<bool, Trouble> {
        let Some(participant) = self.participants.get_mut(index) else {
            return Err(Failure::Retry.into());
        };
        let connection = &mut *participant.connection;
        statement.encode_prepare(connection, true);
        let reply = Reply::Parse {
            statement: statement.number,
            named: true,
        };
        connection.replies.expect(reply, Show::Errors);
        frontend::encode::sync(&mut connection.output);
        connection.replies.expect(Reply::Sync, Show::Nothing);
        self.exchange(index).await
    }
}

/// What a backend says of a prepared statement.
pub(in crate::session) struct Described {
    /// The participant that says so: types that users made have other numbers elsewhere.
    pub(in crate::session) index: usize,
    pub(in crate::session) params: Vec<u32>,
    /// The whole RowDescription, if it has a result.
    pub(in crate::session) columns: Option<Bytes>,
}

impl Described {
    fn read(answer: &[u8], index: usize) -> Option<Described> {
        let mut rest = answer;
        let (mut params, mut columns) = (None, None);
        while let Ok(Some(header)) = frame::header(rest) {
            let (message, after) = rest.split_at_checked(header.len)?;
            match (header.tag, decode(header.tag, message.get(HEADER..)?)) {
                (_, Ok(Message::ParameterDescription(types))) => {
                    params = Some(types.iter().collect());
                }
                (b'T', _) => columns = Some(Bytes::copy_from_slice(message)),
                _ => {}
            }
            rest = after;
        }
        Some(Described {
            index,
            params: params?,
            columns,
        })
    }
}

pub(in crate::session) fn unsupported(what: &str) -> Trouble {
    Failure::Unsupported {
        what: what.into(),
        hint: "Prepare statements by the extended query protocol.",
    }
    .into()
}

/// A statement prepared by SQL, with the client's name for it.
pub(in crate::session) type Held<'a> = (&'a str, &'a SessionStatement);

/// The Query message that executes a statement prepared by SQL.
pub(in crate::session) fn call(statement: &Statement, arguments: &Arguments) -> BytesMut {
    let mut message = BytesMut::new();
    let call = format!("EXECUTE {}{}", statement.backend_name(), arguments.text);
    frontend::encode::query(&mut message, call.as_bytes());
    message
}
