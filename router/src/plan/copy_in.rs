//! COPY FROM STDIN into a table of several shards: whose rows are whose, and how they are written.
//!
//! The statement goes to the shards as it is, so that PostgreSQL judges its options; here they are read only as far as they say where
//! a row ends and which of its bytes are the shard key.

use std::sync::Arc;

use postgres_protocol::escape::escape_identifier;

use super::analyse::write::{rekeys, trigger_refused, uses_sequences};
use super::command::{Command, CopyDirection};
use super::copy_options::Options;
use super::edits::Edits;
use super::moment::{Clock, Moments};
use super::parse;
use super::refusal::Refusal;
use super::remembered::sequence_of;
use super::trigger_code::strays;
use super::utility::{plan, refused};
use super::words::Words;
use super::{Access, Operator, Plan, Planner};
use crate::copy_in::{Format, KeyColumn, KeyPlace};
use crate::relations::{Column, DefaultValue, Placement, Relation, RelationKind, Sharding};
use crate::sql::{self, Token, TokenKind};

/// What becomes of rows that a client copies into a table of several shards.
#[derive(Debug, Clone)]
pub struct CopyIn {
    /// The table as errors in the rows name it.
    pub table: Arc<str>,
    /// Whose each row is.
    pub rows: CopiedRows,
    /// The encoding that its rows have to be converted from before they can be divided.
    pub encoding: Option<Box<str>>,
}

/// Whose each row is.
#[derive(Debug, Clone)]
pub enum CopiedRows {
    /// The shard's of its key. Values of these columns are put in front of each row.
    Keyed(Format, KeyColumn, Vec<AddedColumn>),
    /// Every shard's: the table is a reference table.
    Everywhere,
    /// That cannot be told, if PostgreSQL accepts the statement at all.
    Untold(Box<Refusal>),
}

/// A column that the client leaves out, and of which the shards would each have values of their own: the next ones of a sequence, or
/// those of the moment.
#[derive(Debug, Clone)]
pub struct AddedColumn {
    /// Its name.
    pub name: Box<str>,
    /// It takes the next value of a sequence.
    pub takes_next: bool,
    expression: Box<str>,
    /// Its type, if the name of it is known.
    sql_type: Option<Box<str>>,
}

impl CopyIn {
    /// Columns whose values are put in front of each row.
    pub(crate) fn added(&self) -> &[AddedColumn] {
        match &self.rows {
            CopiedRows::Keyed(_, _, added) => added,
            CopiedRows::Everywhere | CopiedRows::Untold(_) => &[],
        }
    }

    /// What shards are sent: the client's text, with those columns in front of its list, and the encoding that rows have been converted to.
    pub(crate) fn text(&self, sql: &[u8]) -> Option<Vec<u8>> {
        let names = self.added().iter();
        let names: String = names
            .map(|column| format!("{}, ", escape_identifier(&column.name)))
            .collect();
        let tokens = parse::tokens(sql, 0..u32::try_from(sql.len()).ok()?).ok()?;
        let mut edits = Vec::new();
        if !names.is_empty() {
            // Columns are left out where some are listed.
            let mut tokens = tokens.iter();
            let list = tokens.find(|token| token.kind == TokenKind::Punct(b'('))?;
            let first = list.end as usize;
            edits.push((first..first, names.into_bytes()));
        }
        if self.encoding.is_some() {
            let is = |token: &&Token, name| token.is_word(sql, name);
            let mut tokens = tokens.iter();
            tokens.find(|token| is(token, "stdin") || is(token, "stdout"))?;
            tokens.find(|token| is(token, "encoding"))?;
            let name = tokens.next()?;
            edits.push((name.start as usize..name.end as usize, b"'UTF8'".to_vec()));
        }
        Some(Edits::new(edits).apply(sql))
    }

    /// The query for the values of so many rows.
    pub(crate) fn values(&self, rows: usize, format: &Format, clock: Option<&Clock>) -> String {
        let value = |column: &AddedColumn| {
            let expression = match clock.filter(|_| !column.takes_next) {
                Some(clock) => Moments::given(&column.expression, clock),
                None => column.expression.to_string(),
            };
            match (&column.sql_type, format) {
                // In text the column reads it.
                (Some(of), Format::Binary) => format!("({expression})::{of}"),
                _ => format!("({expression})"),
            }
        };
        let values: Vec<String> = self.added().iter().map(value).collect();
        let values = values.join(", ");
        format!("SELECT {values} FROM pg_catalog.generate_series(1, {rows})")
    }
}

impl Planner<'_> {
    /// COPY FROM into a table that is not on the first shard alone. `listed`: the columns that are named, if any are; `binary`: the
    /// word is in front of the table.
    pub(super) fn copy_into(
        &self,
        relation: &Relation,
        listed: &[String],
        binary: bool,
        mut words: Words<'_>,
    ) -> Plan {
        let command = Command::Copy(CopyDirection::In);
        if !words.eat_any(&["stdin", "stdout"]) {
            let message = format!(
                "COPY of a file or program of a server into the table \"{}\" is not supported",
                relation.name
            );
            let refusal = Refusal::not_supported(message).hint("Copy FROM STDIN.");
            return refused(refusal, Command::Copy(CopyDirection::Server));
        }
        let mut behind = words.clone();
        let condition = behind.skip_past("where").then(|| behind.rest());
        let options = Options::read(binary, words);
        let encoding = options.as_ref().and_then(Options::encoding);
        let rows = match &relation.placement {
            Placement::Sharded(sharding) if relation.kind == RelationKind::Table => {
                match strays(relation, self.context) {
                    Some(what) => Err(trigger_refused(relation, &what)),
                    None => keyed(relation, sharding, listed, options.as_ref()),
                }
            }
            Placement::Reference if relation.kind == RelationKind::Table => {
                copies(relation, listed).map(|()| CopiedRows::Everywhere)
            }
            Placement::Sharded(_)
            | Placement::Reference
            | Placement::Unsharded
            | Placement::Catalog
            | Placement::ReadsSharded(_)
            | Placement::Broken(_) => Err(Refusal::not_supported(format!(
                "COPY into \"{}\" is not supported",
                relation.name
            ))),
        };
        let copies = matches!(relation.placement, Placement::Reference);
        let rows = match condition.and_then(|condition| self.computed_apart(condition, copies)) {
            Some(name) => Err(condition_apart(&name)),
            None => rows,
        };
        let rows = rows.unwrap_or_else(|refusal| CopiedRows::Untold(Box::new(refusal)));
        let sequences = match &rows {
            CopiedRows::Keyed(_, _, added) => {
                let taken = added.iter().filter(|column| column.takes_next);
                taken
                    .filter_map(|column| sequence_of(&column.expression))
                    .collect()
            }
            CopiedRows::Everywhere | CopiedRows::Untold(_) => Vec::new(),
        };
        let copy = CopyIn {
            table: relation.name.name.as_str().into(),
            encoding: encoding.filter(|_| matches!(rows, CopiedRows::Keyed(..))),
            rows,
        };
        let mut plan = plan(Operator::CopyIn(Arc::new(copy)), Access::Write, command);
        plan.effects.uses_sequences = uses_sequences(relation);
        plan.sequences = sequences;
        // Literals of the text are options.
        let literals = u32::try_from(self.scan.literals.len()).unwrap_or(u32::MAX);
        plan.guards = (0..literals).collect();
        plan
    }
}

fn condition_apart(name: &str) -> Refusal {
    Refusal::not_supported(format!(
        "function \"{name}\" in the WHERE of a COPY is not supported across shards"
    ))
    .detail("Each shard would compute a result of its own for its rows.")
    .hint("Copy into a table of the first shard, and INSERT … SELECT from there.")
}

fn keyed(
    relation: &Relation,
    sharding: &Sharding,
    listed: &[String],
    options: Option<&Options>,
) -> Result<CopiedRows, Refusal> {
    runs_triggers(relation)?;
    if let Some(function) = &relation.triggers.rekeys_inserted {
        return Err(rekeys(relation, function));
    }
    let column = relation.columns.get(sharding.column);
    let column = column.ok_or_else(|| {
        Refusal::not_supported(format!("the table \"{}\" has no shard key", relation.name))
    })?;
    let is_listed = |column: &Column| match listed {
        [] => column.default != DefaultValue::Generated,
        listed => listed.contains(&column.name),
    };
    let mut added = Vec::new();
    for missing in relation.columns.iter().filter(|column| !is_listed(column)) {
        added.extend(default_value(
            relation,
            missing,
            missing.name == column.name,
        )?);
    }
    let sent = match listed {
        [] => {
            let before = relation.columns.iter().take(sharding.column);
            Some(before.filter(|column| is_listed(column)).count())
        }
        listed => listed.iter().position(|name| *name == column.name),
    };
    let is_key = |of: &AddedColumn| *of.name == *column.name;
    let place = match (sent, added.iter().position(is_key)) {
        (Some(position), _) => KeyPlace::Sent(position),
        (None, Some(position)) => KeyPlace::Added(position),
        (None, None) => KeyPlace::Nowhere,
    };
    let format = options
        .and_then(|options| options.format(&column.name))
        .ok_or_else(|| {
            Refusal::not_supported(
                "these options of COPY FROM are not supported over several shards",
            )
            .detail("The router finds the shard key in each row by them.")
        })?;
    let key = KeyColumn {
        place,
        map: Arc::clone(&sharding.map),
        typmod: column.typmod,
    };
    Ok(CopiedRows::Keyed(format, key, added))
}

/// What a column stores that is not among those copied; the column if its values are to be given.
fn default_value(
    relation: &Relation,
    column: &Column,
    is_key: bool,
) -> Result<Option<AddedColumn>, Refusal> {
    match (column.default, &column.expression) {
        (
            DefaultValue::Sequence | DefaultValue::Identity | DefaultValue::Moment,
            Some(expression),
        ) => Ok(Some(AddedColumn {
            name: column.name.as_str().into(),
            takes_next: column.default != DefaultValue::Moment,
            expression: expression.clone(),
            sql_type: column.sql_type.as_ref().map(|of| of.name.clone()),
        })),
        (DefaultValue::Absent, _) => Ok(None),
        (_, _) if is_key => Err(Refusal::not_supported(format!(
            "the shard key \"{}\" of table \"{}\" must be among the columns that are copied",
            column.name, relation.name
        ))
        .detail("Its default value is computed where the row is stored, and where that is depends on it.")),
        (
            DefaultValue::Stable
            | DefaultValue::Moment
            | DefaultValue::Volatile
            | DefaultValue::Elsewhere
            | DefaultValue::Sequence
            | DefaultValue::Identity,
            _,
        ) => Err(Refusal::not_supported(format!(
            "the default of column \"{}\" is not supported across shards",
            column.name
        ))
        .detail("Each shard would compute a value of its own.")
        .hint(format!("Copy a value into the column \"{}\".", column.name))),
        (DefaultValue::Immutable | DefaultValue::Generated | DefaultValue::Own, _) => Ok(None),
    }
}

/// Triggers run on the shard of the row.
fn runs_triggers(relation: &Relation) -> Result<(), Refusal> {
    let triggers = &relation.triggers;
    let elsewhere = triggers.elsewhere.as_ref().map(ToString::to_string);
    let elsewhere = elsewhere.or_else(|| triggers.unsharded.clone());
    let what = elsewhere.map(|table| format!("uses the table \"{table}\""));
    let what = what.or_else(|| {
        let table = triggers.reference.as_ref()?;
        Some(format!("may write the reference table \"{table}\""))
    });
    let unseen = || {
        let function = triggers.unseen.as_ref()?;
        Some(format!(
            "runs code that the router cannot see: function \"{function}\""
        ))
    };
    let changes = || triggers_set(relation).then(|| "changes settings".to_owned());
    let varying = || {
        let name = triggers.varying.first()?;
        Some(format!(
            "uses \"{name}\", and each shard would compute a value of its own"
        ))
    };
    let each_statement = || {
        let what = "runs once for a statement, and would run once on each shard";
        triggers.each_statement.then(|| what.to_owned())
    };
    let what = what.or_else(unseen).or_else(varying);
    match what.or_else(each_statement).or_else(changes) {
        None => Ok(()),
        Some(what) => Err(trigger_refused(relation, &what)),
    }
}

fn triggers_set(relation: &Relation) -> bool {
    let changes = &relation.triggers.changes;
    changes.unseen || !changes.names.is_empty()
}

/// Every shard has to store the same.
fn copies(relation: &Relation, listed: &[String]) -> Result<(), Refusal> {
    let triggers = &relation.triggers;
    let table = || triggers.elsewhere.as_ref().map(ToString::to_string);
    let code = || {
        triggers
            .unseen
            .clone()
            .or_else(|| triggers.varying.first().cloned())
    };
    let what = triggers.unsharded.clone().or_else(table).or_else(code);
    if let Some(what) = what {
        return Err(trigger_refused(relation, &format!("uses \"{what}\"")));
    }
    if triggers_set(relation) {
        return Err(trigger_refused(relation, "changes settings"));
    }
    let is_missing = |column: &&Column| !listed.is_empty() && !listed.contains(&column.name);
    for column in relation.columns.iter().filter(is_missing) {
        match column.default {
            DefaultValue::Absent | DefaultValue::Immutable | DefaultValue::Generated => {}
            DefaultValue::Sequence
            | DefaultValue::Identity
            | DefaultValue::Stable
            | DefaultValue::Moment
            | DefaultValue::Own
            | DefaultValue::Elsewhere
            | DefaultValue::Volatile => {
                return Err(Refusal::not_supported(format!(
                    "the rows of the reference table \"{}\" would differ from shard to shard",
                    relation.name
                ))
                .detail(format!(
                    "Each shard would compute a value of its own: the default of column \"{}\".",
                    column.name
                ))
                .hint(format!("Copy a value into the column \"{}\".", column.name)));
            }
        }
    }
    Ok(())
}

/// The names in a list of columns; none if there is no list.
pub(super) fn listed(sql: &[u8], tokens: &[Token]) -> Option<Vec<String>> {
    if tokens.is_empty() {
        return Some(Vec::new());
    }
    let inside = tokens.get(1..tokens.len().checked_sub(1)?)?;
    let columns = Words::new(sql, inside).split();
    columns
        .map(|column| match column.rest() {
            [name] => sql::name(name, sql).map(|name| name.into_owned()),
            _ => None,
        })
        .collect()
}
