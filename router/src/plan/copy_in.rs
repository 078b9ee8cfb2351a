//! COPY FROM STDIN into a table of several shards: whose rows are whose, and how they are written.
//!
//! The statement goes to the shards as it is, so that PostgreSQL judges its options; here they are read only as far as they say where
//! a row ends and which of its bytes are the shard key.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a token that is not named is no string"
)]

use std::sync::Arc;

use postgres_protocol::escape::escape_identifier;

use super::analyse::write::{rekeys, trigger_refused, uses_sequences};
use super::bind::unquote;
use super::command::{Command, CopyDirection};
use super::edits::Edits;
use super::moment::{Clock, Moments};
use super::parse;
use super::refusal::Refusal;
use super::remembered::sequence_of;
use super::trigger_code::strays;
use super::utility::{plan, refused};
use super::words::Words;
use super::{Access, Operator, Plan, Planner};
use crate::copy_in::{Csv, Format, KeyColumn, KeyPlace, Text};
use crate::relations::{Column, DefaultValue, Placement, Relation, RelationKind, Sharding};
use crate::sql::{self, Token, TokenKind};

/// What becomes of rows that a client copies into a table of several shards.
#[derive(Debug, Clone)]
pub struct CopyIn {
    /// The table as errors in the rows name it.
    pub table: Arc<str>,
    /// Whose each row is.
    pub rows: CopiedRows,
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

    /// What shards are sent: the client's text, with those columns in front of its list.
    pub(crate) fn text(&self, sql: &[u8]) -> Option<Vec<u8>> {
        let names = self.added().iter();
        let names: String = names
            .map(|column| format!("{}, ", escape_identifier(&column.name)))
            .collect();
        if names.is_empty() {
            return Some(sql.to_vec());
        }
        let tokens = parse::tokens(sql, 0..u32::try_from(sql.len()).ok()?).ok()?;
        // Columns are left out where some are listed.
        let mut tokens = tokens.iter();
        let list = tokens.find(|token| token.kind == TokenKind::Punct(b'('))?;
        let first = list.end as usize;
        Some(Edits::new(vec![(first..first, names.into_bytes())]).apply(sql))
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
        let rows = match &relation.placement {
            Placement::Sharded(sharding) if relation.kind == RelationKind::Table => {
                match strays(relation, self.context) {
                    Some(what) => Err(trigger_refused(relation, &what)),
                    None => keyed(relation, sharding, listed, (binary, words)),
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
    (binary, words): (bool, Words<'_>),
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
    let format = Options::read(binary, words)
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

/// The options of a COPY FROM, as written.
#[derive(Debug, Default)]
struct Options {
    format: Vec<u8>,
    delimiter: Option<Vec<u8>>,
    null: Option<Vec<u8>>,
    quote: Option<Vec<u8>>,
    escape: Option<Vec<u8>>,
    header: bool,
    not_null: Columns,
    force_null: Columns,
}

/// The columns an option is about.
#[derive(Debug, Default)]
enum Columns {
    #[default]
    None,
    Named(Vec<String>),
    All,
}

impl Columns {
    fn contains(&self, name: &str) -> bool {
        match self {
            Columns::None => false,
            Columns::Named(names) => names.iter().any(|known| known == name),
            Columns::All => true,
        }
    }
}

impl Options {
    /// Reads what comes behind STDIN. `None`: there is something whose meaning is not known here.
    fn read(binary: bool, mut words: Words<'_>) -> Option<Options> {
        let mut options = Options::default();
        if binary {
            options.format = b"binary".to_vec();
        }
        words.eat("using");
        if words.eat("delimiters") {
            options.delimiter = Some(string(&mut words)?);
        }
        words.eat("with");
        if words
            .rest()
            .first()
            .is_some_and(|token| token.kind == TokenKind::Punct(b'('))
        {
            let inside = words.clone();
            words.list()?;
            let length = inside.rest().len() - words.rest().len();
            let inside = inside.rest().get(1..length - 1)?;
            for option in Words::new(words.sql, inside).split() {
                options.option(option)?;
            }
        } else {
            while !words.is_done() && !words.is("where") {
                options.old_option(&mut words)?;
            }
        }
        // A condition is the shards' own affair, where each row is all that it looks at.
        (words.is_done() || words.is("where")).then_some(options)
    }

    /// `name value` in parentheses.
    fn option(&mut self, mut words: Words<'_>) -> Option<()> {
        let name = words.name()?;
        match name.as_str() {
            "format" => self.format = value(&mut words)?,
            "delimiter" => self.delimiter = Some(value(&mut words)?),
            "null" => self.null = Some(value(&mut words)?),
            "quote" => self.quote = Some(value(&mut words)?),
            "escape" => self.escape = Some(value(&mut words)?),
            "header" => self.header = is_on(&mut words)?,
            "freeze" => _ = is_on(&mut words)?,
            "force_not_null" => self.not_null = columns(&mut words)?,
            "force_null" => self.force_null = columns(&mut words)?,
            "encoding" => is_utf8(&value(&mut words)?)?,
            "log_verbosity" => _ = value(&mut words)?,
            "on_error" => value(&mut words)?
                .eq_ignore_ascii_case(b"stop")
                .then_some(())?,
            _ => return None,
        }
        words.is_done().then_some(())
    }

    /// As before PostgreSQL 9.
    fn old_option(&mut self, words: &mut Words<'_>) -> Option<()> {
        let name = words.name()?;
        match name.as_str() {
            "binary" | "csv" => self.format = name.into_bytes(),
            "freeze" => {}
            "header" => self.header = true,
            "delimiter" => self.delimiter = Some(string_as(words)?),
            "null" => self.null = Some(string_as(words)?),
            "quote" => self.quote = Some(string_as(words)?),
            "escape" => self.escape = Some(string_as(words)?),
            "encoding" => is_utf8(&string(words)?)?,
            "force" if words.eat_all(&["not", "null"]) => self.not_null = names(words)?,
            "force" if words.eat("null") => self.force_null = names(words)?,
            _ => return None,
        }
        Some(())
    }

    /// What the options say of rows whose key is in this column. `None`: PostgreSQL does not accept them, or accepts what is not known
    /// here.
    fn format(self, key: &str) -> Option<Format> {
        let one = |bytes: &Option<Vec<u8>>, usual: u8| match bytes.as_deref() {
            None => Some(usual),
            Some([byte]) => Some(*byte),
            Some(_) => None,
        };
        let null = |usual: &[u8]| self.null.as_deref().unwrap_or(usual).into();
        match self.format.as_slice() {
            b"" | b"text" => Some(Format::Text(Text {
                delimiter: one(&self.delimiter, b'\t')?,
                null: null(b"\\N"),
                header: self.header,
            })),
            b"csv" => {
                let quote = one(&self.quote, b'"')?;
                Some(Format::Csv(Csv {
                    delimiter: one(&self.delimiter, b',')?,
                    null: null(b""),
                    header: self.header,
                    quote,
                    escape: one(&self.escape, quote)?,
                    key_not_null: self.not_null.contains(key),
                    key_null: self.force_null.contains(key),
                    ends_with_marker: true,
                }))
            }
            b"binary" => Some(Format::Binary),
            _ => None,
        }
    }
}

/// The bytes are taken as they are, and the servers' databases are in UTF-8.
fn is_utf8(encoding: &[u8]) -> Option<()> {
    let letters = encoding.iter().filter(|byte| byte.is_ascii_alphanumeric());
    let letters: Vec<u8> = letters.map(u8::to_ascii_lowercase).collect();
    matches!(letters.as_slice(), b"utf8" | b"unicode").then_some(())
}

/// A word, a name or a string.
fn value(words: &mut Words<'_>) -> Option<Vec<u8>> {
    match words.name() {
        Some(name) => Some(name.into_bytes()),
        None => string(words),
    }
}

fn string_as(words: &mut Words<'_>) -> Option<Vec<u8>> {
    words.eat("as");
    string(words)
}

fn string(words: &mut Words<'_>) -> Option<Vec<u8>> {
    let token = words.rest().first()?;
    let text = token.text(words.sql);
    let value = match token.kind {
        TokenKind::String => unquote(text)?.into_owned(),
        TokenKind::OtherString => escaped(text)?,
        _ => return None,
    };
    words.next();
    Some(value)
}

/// The contents of `E'…'`, as far as single characters are written by it.
fn escaped(text: &[u8]) -> Option<Vec<u8>> {
    let inside = text
        .strip_prefix(b"E'")
        .or_else(|| text.strip_prefix(b"e'"))?;
    match inside.strip_suffix(b"'")? {
        [b'\\', letter] => Some(vec![match letter {
            b'b' => 8,
            b'f' => 12,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'\\' | b'\'' | b'"' => *letter,
            _ => return None,
        }]),
        [b'\\', b'x', digits @ ..] if digits.len() == 2 => {
            let digits = std::str::from_utf8(digits).ok()?;
            Some(vec![u8::from_str_radix(digits, 16).ok()?])
        }
        plain if !plain.iter().any(|byte| matches!(byte, b'\\' | b'\'')) => Some(plain.to_vec()),
        _ => None,
    }
}

/// A truth value, on if it is left out. `HEADER MATCH` is a header, too.
fn is_on(words: &mut Words<'_>) -> Option<bool> {
    let Some(token) = words.next() else {
        return Some(true);
    };
    let text = token.text(words.sql).to_ascii_lowercase();
    match text.as_slice() {
        b"true" | b"on" | b"1" | b"'true'" | b"'on'" | b"'1'" | b"match" | b"'match'" => Some(true),
        b"false" | b"off" | b"0" | b"'false'" | b"'off'" | b"'0'" => Some(false),
        _ => None,
    }
}

/// Columns in parentheses, or all.
fn columns(words: &mut Words<'_>) -> Option<Columns> {
    if words.eat_symbol("*") {
        return Some(Columns::All);
    }
    words.eat_symbol("(").then_some(())?;
    let columns = names(words)?;
    words.eat_symbol(")").then_some(columns)
}

fn names(words: &mut Words<'_>) -> Option<Columns> {
    if words.eat_symbol("*") {
        return Some(Columns::All);
    }
    let mut names = vec![words.name()?];
    while words.eat_symbol(",") {
        names.push(words.name()?);
    }
    Some(Columns::Named(names))
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
