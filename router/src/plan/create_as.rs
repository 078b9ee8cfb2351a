//! Statements that make a table of a query's rows: CREATE TABLE AS and SELECT INTO.
//!
//! Where the query reads sharded tables, PostgreSQL makes the table of the client's own text, without rows, so that the types are its
//! own; a workspace runs the query, and its rows are copied into the table. The query is planned by itself, in a text where all
//! else is blank, so that everything in it keeps its place.

use std::ops::Range;

use postgres_protocol::escape::escape_identifier;

use super::command::Command;
use super::opaque::Mentions;
use super::parse;
use super::refusal::Refusal;
use super::utility::{FIRST, is_temporary, plan, refused};
use super::words::Words;
use super::{Access, Broadcast, Context, Layer, Operator, Pin, Pins, Plan, Planner, Workspace};
use crate::sql::{Token, TokenKind};

/// How rows of several shards get into a table that is in one place.
const BRING_ROWS: &str = "Create the table with its columns first; COPY (query) TO STDOUT and COPY table FROM STDIN bring the rows.";

/// What such a statement says.
#[derive(Debug)]
pub(crate) struct CreateAs {
    /// The table is the session's.
    pub(crate) temporary: bool,
    /// The schema, if it is named.
    pub(crate) schema: Option<String>,
    /// The table's name.
    pub(crate) name: String,
    /// That the table exists is no error: where this is said, in bytes of the text.
    pub(crate) if_not_exists: Option<Range<usize>>,
    /// The rows are wanted, too.
    pub(crate) data: bool,
    /// The query, in bytes of the text.
    query: Range<usize>,
    /// INTO and the table in a query: where that is, and what makes the table instead.
    into: Option<(Range<usize>, String)>,
}

impl CreateAs {
    /// Of a whole statement.
    pub(crate) fn of(sql: &[u8]) -> Option<CreateAs> {
        let end = u32::try_from(sql.len()).ok()?;
        CreateAs::read(sql, &parse::tokens(sql, 0..end).ok()?)
    }

    /// `None`: it is none, or stores the rows of what has been prepared.
    pub(super) fn read(sql: &[u8], tokens: &[Token]) -> Option<CreateAs> {
        let words = Words::new(sql, tokens);
        match words.is("create") {
            true => CreateAs::table_as(words),
            false => CreateAs::select_into(&words),
        }
    }

    /// `CREATE TABLE name … AS query`
    fn table_as(mut words: Words<'_>) -> Option<CreateAs> {
        let sql = words.sql;
        words.eat("create");
        words.eat_any(&["global", "local"]);
        let temporary = words.eat_any(&["temp", "temporary"]);
        words.eat("unlogged");
        if !words.eat("table") {
            return None;
        }
        let said = words.rest();
        let if_not_exists = match words.eat_all(&["if", "not", "exists"]) {
            true => Some(place(said.get(..3)?)?),
            false => None,
        };
        let (schema, name) = name_of(&mut words)?;
        let starts = ["select", "with", "values", "table"];
        if !words.skip_past("as") {
            return None;
        }
        let opens = words.rest().first()?.kind == TokenKind::Punct(b'(');
        if !opens && !starts.iter().any(|word| words.is(word)) {
            return None;
        }
        let is = |token: &Token, word: &str| token.is_word(sql, word);
        let (query, data) = match words.rest() {
            [query @ .., with, no, data]
                if is(with, "with") && is(no, "no") && is(data, "data") =>
            {
                (query, false)
            }
            [query @ .., with, data] if is(with, "with") && is(data, "data") => (query, true),
            query => (query, true),
        };
        Some(CreateAs {
            temporary: temporary || schema.as_deref() == Some("pg_temp"),
            schema,
            name,
            if_not_exists,
            data,
            query: place(query)?,
            into: None,
        })
    }

    /// `SELECT … INTO name …`
    fn select_into(words: &Words<'_>) -> Option<CreateAs> {
        let (sql, all) = (words.sql, words.rest());
        let into = into(sql, all)?;
        let mut after = Words::new(sql, all.get(into + 1..)?);
        after.eat_any(&["global", "local"]);
        let temporary = after.eat_any(&["temp", "temporary"]);
        let kind = match (temporary, !temporary && after.eat("unlogged")) {
            (true, _) => "TEMPORARY ",
            (_, true) => "UNLOGGED ",
            (false, false) => "",
        };
        after.eat("table");
        let (schema, name) = name_of(&mut after)?;
        let end = all.len().checked_sub(after.rest().len())?;
        let table = match &schema {
            Some(schema) => format!("{}.{}", escape_identifier(schema), escape_identifier(&name)),
            None => escape_identifier(&name),
        };
        let make = format!("CREATE {kind}TABLE {table} AS ");
        Some(CreateAs {
            temporary: temporary || schema.as_deref() == Some("pg_temp"),
            schema,
            name,
            if_not_exists: None,
            data: true,
            query: place(all)?,
            into: Some((place(all.get(into..end)?)?, make)),
        })
    }

    /// The query in its place, all else blank.
    pub(crate) fn query(&self, sql: &[u8]) -> Vec<u8> {
        let into = self.into.as_ref().map(|(place, _)| place);
        let is_kept =
            |at: usize| self.query.contains(&at) && !into.is_some_and(|into| into.contains(&at));
        let bytes = sql.iter().enumerate().take(self.query.end);
        bytes
            .map(|(at, byte)| if is_kept(at) { *byte } else { b' ' })
            .collect()
    }

    /// The text that makes the table without rows; if it exists, that is an error where `anew`.
    pub(crate) fn definition(&self, sql: &[u8], anew: bool) -> Vec<u8> {
        let mut text = match &self.into {
            Some((_, make)) => {
                let query = self.query(sql);
                [make.as_bytes(), query.trim_ascii_start()].concat()
            }
            None => {
                let mut text = sql.get(..self.query.end).unwrap_or_default().to_vec();
                let said = self.if_not_exists.clone().filter(|_| anew);
                if let Some(said) = said.and_then(|said| text.get_mut(said)) {
                    said.fill(b' ');
                }
                text
            }
        };
        text.extend_from_slice(b" WITH NO DATA");
        text
    }
}

/// The table's name, with its schema if that is named; a database's name before it is not read.
pub(super) fn name_of(words: &mut Words<'_>) -> Option<(Option<String>, String)> {
    let name = words.qualified_name()?;
    (!words.clone().eat_symbol(".")).then_some(name)
}

/// Where the tokens stand.
fn place(tokens: &[Token]) -> Option<Range<usize>> {
    Some(tokens.first()?.start as usize..tokens.last()?.end as usize)
}

/// The number of the token INTO of a SELECT: it comes before FROM, outside parentheses.
fn into(sql: &[u8], all: &[Token]) -> Option<usize> {
    let mut depth = 0_usize;
    let mut before: Option<&Token> = None;
    for (at, token) in all.iter().enumerate() {
        let after = before.replace(token);
        let is_name = after.is_some_and(|before| {
            before.is_word(sql, "as") || before.kind == TokenKind::Punct(b'.')
        });
        let is = |word: &&str| token.is_word(sql, word);
        if matches!(token.kind, TokenKind::Punct(b'(' | b'[')) {
            depth += 1;
        } else if matches!(token.kind, TokenKind::Punct(b')' | b']')) {
            depth = depth.checked_sub(1)?;
        } else if depth > 0 || is_name {
            continue;
        } else if ["insert", "merge", "update", "delete", "from"]
            .iter()
            .any(is)
        {
            return None;
        } else if is(&"into") {
            return Some(at);
        }
    }
    None
}

impl Planner<'_> {
    /// The plan of a statement that makes a table of a query's rows, where it differs from that of another CREATE TABLE.
    pub(super) fn create_as(&self, created: &CreateAs) -> Option<Plan> {
        let name = &created.name;
        if created.data && !created.temporary && self.context.relations.is_configured(name) {
            return Some(refused(of_configured(name), Command::Ddl));
        }
        let query = created.query(self.sql);
        let end = u32::try_from(query.len()).ok()?;
        let tokens = parse::tokens(&query, 0..end).ok()?;
        let mentions = Mentions::of(&query, &tokens, self.context);
        let (Some(table), true) = (&mentions.sharded, created.data) else {
            return match mentions.temporary || is_temporary(self.context, name) {
                true => None,
                false => self.without_sharded(created, &query, &tokens),
            };
        };
        let mut plan = self.stored(&query, &tokens, table);
        if matches!(plan.operator, Operator::Refuse(_)) {
            return Some(plan);
        }
        plan.access = Access::Write;
        plan.command = Command::CreateAs;
        if created.temporary {
            plan.effects.pins = Pins::one(Pin::Temporary);
            plan.temporary = Some(created.name.clone());
        }
        Some(plan)
    }

    /// The plan of the query, which a workspace runs.
    fn stored(&self, query: &[u8], tokens: &[Token], table: &str) -> Plan {
        let context = Context {
            layer: Layer::Workspace,
            ..*self.context
        };
        let planner = Planner {
            sql: query,
            tokens,
            context: &context,
            ..*self
        };
        let mut plan = planner.inner(tokens);
        let several = plan.several.take();
        let several = several.as_ref().map(|several| &several.operator);
        let operator = match (&plan.operator, several) {
            (Operator::Refuse(refusal), _) => return refused((**refusal).clone(), Command::Ddl),
            (Operator::Workspace(workspace), _) | (_, Some(Operator::Workspace(workspace)))
                if plan.settings.is_empty() =>
            {
                Operator::Workspace(Box::new(Workspace {
                    reason: "rows of sharded tables are stored in one place".to_owned(),
                    ..(**workspace).clone()
                }))
            }
            _ => return refused(not_stored(table), Command::Ddl),
        };
        Plan { operator, ..plan }
    }

    /// The query reads no sharded table, or its rows are not wanted. `None`: the statement is as any other that creates a table.
    fn without_sharded(&self, created: &CreateAs, query: &[u8], tokens: &[Token]) -> Option<Plan> {
        let made = match created.temporary {
            true => Operator::PassThrough(FIRST),
            false => Operator::Broadcast(Broadcast::Ddl),
        };
        let mut plan = plan(made, Access::Write, Command::Ddl);
        if created.temporary {
            plan.command = Command::Other;
            plan.effects.pins = Pins::one(Pin::Temporary);
            plan.temporary = Some(created.name.clone());
        }
        if created.data {
            let planner = Planner {
                sql: query,
                tokens,
                ..*self
            };
            let inner = planner.inner(tokens);
            if let Operator::Refuse(refusal) = inner.operator {
                return Some(refused(*refusal, plan.command));
            }
            if !inner.settings.is_empty() {
                return None;
            }
            // It may be a view of sharded tables that has been made just now.
            plan.unknown = inner.unknown;
            plan.effects.dirty |= inner.effects.dirty;
        }
        Some(plan)
    }
}

/// Rows of a table that the configuration mentions are where it says.
pub(super) fn of_configured(name: &str) -> Refusal {
    let message =
        format!("table \"{name}\" cannot be created with rows: its rows have places of their own");
    Refusal::not_supported(message).hint("Create the table first, then INSERT the rows.")
}

/// A query that only its own shards can run.
fn not_stored(table: &str) -> Refusal {
    let message =
        format!("storing rows of the sharded table \"{table}\" by this query is not supported");
    Refusal::not_supported(message)
        .detail("It does more than read, and cannot be run apart from the shards.")
        .hint(BRING_ROWS)
}
