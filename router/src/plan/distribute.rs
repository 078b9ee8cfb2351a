//! Where a table's rows are to be, asked for as in Citus: `SELECT create_distributed_table('t', 'key')` and its friends.
//!
//! They are no functions of the servers: such a call, alone in its statement, is the router's own. A database that has a function of the
//! name keeps it.

use super::command::Command;
use super::refusal::Refusal;
use super::words::Words;
use super::{Access, Operator, Plan, Planner, parse, utility};
use crate::relations::constant;
use crate::sql::{Token, TokenKind};

/// What such a call asks for. Tables are as the client wrote them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Distribute {
    /// `create_distributed_table`: each row on the shard of its key.
    Sharded {
        /// The table.
        table: String,
        /// The column that is the key.
        column: String,
        /// From key to shard.
        by: By,
        /// A table that has its rows where this one is to have them.
        colocate_with: Option<String>,
    },
    /// `create_reference_table`: whole on every shard.
    Reference {
        /// The table.
        table: String,
    },
    /// `undistribute_table`: whole on the first shard.
    Unsharded {
        /// The table.
        table: String,
    },
    /// `create_global_unique_index`: no value of the column twice, on whatever shards.
    Unique {
        /// The table.
        table: String,
        /// The column.
        column: String,
        /// The index's name, if it is not to be PostgreSQL's own choice.
        index: Option<String>,
    },
    /// `drop_global_unique_index`.
    NotUnique {
        /// The index.
        index: String,
    },
    /// `create_snowflake_generator`: numbers that no shard makes twice, nor another one.
    Snowflakes,
}

/// How keys are to fall to shards, in the words of the configuration file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct By {
    /// The method, if it is said.
    pub(crate) method: Option<String>,
    /// What belongs to it: `ranges`, `lists` or `shards`, and what stands behind that.
    pub(crate) entries: Option<(&'static str, String)>,
}

/// A function of Citus' that has something to do with it.
struct Signature {
    name: &'static str,
    parameters: &'static [&'static str],
    /// So many must be given.
    required: usize,
}

const SHARDED: Signature = Signature {
    name: "create_distributed_table",
    parameters: &[
        "table_name",
        "distribution_column",
        "distribution_type",
        "colocate_with",
        "shard_count",
        "ranges",
        "lists",
        "shards",
    ],
    required: 2,
};
const REFERENCE: Signature = Signature {
    name: "create_reference_table",
    parameters: &["table_name"],
    required: 1,
};
const UNSHARDED: Signature = Signature {
    name: "undistribute_table",
    parameters: &["table_name", "cascade_via_foreign_keys"],
    required: 1,
};

const UNIQUE: Signature = Signature {
    name: "create_global_unique_index",
    parameters: &["table_name", "column_name", "index_name"],
    required: 2,
};
const NOT_UNIQUE: Signature = Signature {
    name: "drop_global_unique_index",
    parameters: &["index_name"],
    required: 1,
};
const SNOWFLAKES: Signature = Signature {
    name: "create_snowflake_generator",
    parameters: &[],
    required: 0,
};
/// What there is.
const KNOWN: [&Signature; 6] = [
    &SHARDED,
    &REFERENCE,
    &UNSHARDED,
    &UNIQUE,
    &NOT_UNIQUE,
    &SNOWFLAKES,
];

/// What `distribution_type` may be.
const METHODS: [&str; 4] = ["hash", "modulo", "range", "list"];

/// Functions of the same kind that nothing here does, and what does it.
const OTHERS: [(&str, &str); 4] = [
    (
        "create_distributed_table_concurrently",
        "Call create_distributed_table, which locks the table.",
    ),
    (
        "alter_distributed_table",
        "Call undistribute_table, and create_distributed_table again.",
    ),
    (
        "truncate_local_data_after_distributing_table",
        "There is nothing left to be removed: create_distributed_table has moved the rows.",
    ),
    (
        "citus_add_local_table_to_metadata",
        "A table that is not distributed is on the first shard, and needs no entry.",
    ),
];

/// A value of a call: a constant's text, or NULL.
type Value = Option<String>;

impl Distribute {
    /// The table that it is about; of an index that is to go, the index.
    pub(crate) fn table(&self) -> &str {
        match self {
            Self::Sharded { table, .. }
            | Self::Reference { table }
            | Self::Unsharded { table }
            | Self::Unique { table, .. }
            | Self::NotUnique { index: table } => table,
            Self::Snowflakes => "",
        }
    }

    /// The function's name.
    pub(crate) fn function(&self) -> &'static str {
        match self {
            Self::Sharded { .. } => SHARDED.name,
            Self::Reference { .. } => REFERENCE.name,
            Self::Unsharded { .. } => UNSHARDED.name,
            Self::Unique { .. } => UNIQUE.name,
            Self::NotUnique { .. } => NOT_UNIQUE.name,
            Self::Snowflakes => SNOWFLAKES.name,
        }
    }

    /// Reads the text of a statement that has been planned as such a call.
    pub(crate) fn read(sql: &[u8]) -> Result<Self, Refusal> {
        let tokens = tokens_of(sql);
        let mut words = Words::new(sql, &tokens);
        words.eat("select");
        let name = words.name().unwrap_or_default();
        if let Some((name, hint)) = OTHERS.iter().find(|(other, _)| *other == name) {
            return Err(Refusal::certain("0A000", format!("{name} is not supported")).hint(*hint));
        }
        let signature = KNOWN.into_iter().find(|known| known.name == name);
        let signature = signature.unwrap_or(&SHARDED);
        let mut values = signature.values(sql, &tokens, &mut words)?.into_iter();
        if signature.name == SNOWFLAKES.name {
            return Ok(Self::Snowflakes);
        }
        let mut next = || values.next().flatten();
        let table = next();
        let table = table.ok_or_else(|| null(signature, signature.parameters[0]))?;
        match signature.name {
            "create_global_unique_index" => Ok(Self::Unique {
                table,
                column: next().ok_or_else(|| null(signature, "column_name"))?,
                index: next(),
            }),
            "drop_global_unique_index" => Ok(Self::NotUnique { index: table }),
            "create_reference_table" => Ok(Self::Reference { table }),
            "undistribute_table" => match next().as_deref() {
                None | Some("false") => Ok(Self::Unsharded { table }),
                Some(_) => Err(not_taken("cascade_via_foreign_keys").hint(
                    "Drop the foreign keys, or undistribute the tables that they are of first.",
                )),
            },
            _ => Self::sharded(table, std::array::from_fn(|_| next())),
        }
    }

    fn sharded(table: String, values: [Value; 7]) -> Result<Self, Refusal> {
        let [column, method, colocate_with, count, ranges, lists, shards] = values;
        let column = column.ok_or_else(|| null(&SHARDED, "distribution_column"))?;
        if let Some(method) = &method
            && !METHODS.contains(&&**method)
        {
            return Err(not_taken(&format!("distribution_type '{method}'"))
                .hint(format!("Allowed are {}.", METHODS.join(", "))));
        }
        if count.is_some() {
            return Err(not_taken("shard_count").detail(
                "A hash key falls in one of 16,384 buckets, whatever the number of shards.",
            ));
        }
        let colocate_with = match colocate_with.as_deref() {
            None | Some("default") => None,
            Some("none") => {
                return Err(not_taken("colocate_with => 'none'")
                    .detail("Equal hash keys of all tables are on one shard."));
            }
            Some(_) => colocate_with,
        };
        let entries = [("ranges", ranges), ("lists", lists), ("shards", shards)];
        let mut entries = entries
            .into_iter()
            .filter_map(|(key, value)| Some((key, value?)));
        let by = By {
            method,
            entries: entries.next(),
        };
        if entries.next().is_some() || by.entries.is_some() && colocate_with.is_some() {
            let message = "ranges, lists, shards and colocate_with exclude each other";
            return Err(Refusal::certain("22023", message.to_owned()));
        }
        Ok(Self::Sharded {
            table,
            column,
            by,
            colocate_with,
        })
    }
}

impl Signature {
    /// The values of the parameters, in order; those not given are NULL.
    fn values(
        &self,
        sql: &[u8],
        tokens: &[Token],
        words: &mut Words<'_>,
    ) -> Result<Vec<Value>, Refusal> {
        let wrong = || {
            let name = self.name;
            let parameters = self.parameters.join(", ");
            Refusal::certain("42883", format!("{name} does not take these arguments")).hint(
                format!("Its arguments are constants or parameters: {name}({parameters})."),
            )
        };
        let arguments = words.list().ok_or_else(wrong)?;
        let mut values = vec![None; self.parameters.len()];
        let mut given = vec![false; self.parameters.len()];
        for (position, range) in arguments.iter().enumerate() {
            let inside = |token: &&Token| token.start >= range.start && token.end <= range.end;
            let argument: Vec<Token> = tokens.iter().filter(inside).copied().collect();
            let mut words = Words::new(sql, &argument);
            let mut named = words.clone();
            let name = named.name();
            let place = match named.eat_symbol("=>") || named.eat_symbol(":=") {
                true => {
                    words = named;
                    let of_name = |parameter: &str| Some(parameter) == name.as_deref();
                    self.parameters
                        .iter()
                        .position(|parameter| of_name(parameter))
                }
                false => Some(position),
            };
            let place = place.filter(|place| *place < values.len() && !given[*place]);
            let place = place.ok_or_else(wrong)?;
            given[place] = true;
            values[place] = value(sql, &mut words).ok_or_else(wrong)?;
        }
        match given.iter().take(self.required).all(|given| *given) {
            true => Ok(values),
            false => Err(wrong()),
        }
    }
}

/// A constant, with a cast perhaps.
fn value(sql: &[u8], words: &mut Words<'_>) -> Option<Value> {
    let token = words.next()?;
    let value = match token.kind {
        TokenKind::String | TokenKind::OtherString => Some(constant(sql, token)?),
        TokenKind::Integer => Some(String::from_utf8_lossy(token.text(sql)).into_owned()),
        TokenKind::Word if token.is_word(sql, "null") => None,
        TokenKind::Word if token.is_word(sql, "true") => Some("true".to_owned()),
        TokenKind::Word if token.is_word(sql, "false") => Some("false".to_owned()),
        TokenKind::Word
        | TokenKind::QuotedIdent
        | TokenKind::Decimal
        | TokenKind::OtherNumber
        | TokenKind::UnicodeIdent
        | TokenKind::Param
        | TokenKind::Operator
        | TokenKind::Punct(_) => return None,
    };
    if words.eat_symbol("::") {
        words.qualified_name()?;
    }
    words.is_done().then_some(value)
}

fn null(signature: &Signature, parameter: &str) -> Refusal {
    let name = signature.name;
    Refusal::certain("22004", format!("{parameter} of {name} cannot be NULL"))
}

fn not_taken(what: &str) -> Refusal {
    Refusal::certain("0A000", format!("{what} is not supported"))
}

/// The function that a statement calls that has been planned as such a call.
pub(crate) fn function_of(sql: &[u8]) -> String {
    let tokens = tokens_of(sql);
    let mut words = Words::new(sql, &tokens);
    words.eat("select");
    words.name().unwrap_or_default()
}

/// The highest number of a parameter in such a call.
pub(crate) fn parameters(sql: &[u8]) -> u16 {
    let tokens = tokens_of(sql);
    let numbers = tokens.iter().filter_map(|token| parameter(sql, token));
    numbers.max().unwrap_or_default()
}

/// Such a call with constants in place of its parameters. A parameter is a text, or NULL.
pub(crate) fn with_parameters(
    sql: &[u8],
    mut value: impl FnMut(u16) -> Result<Option<String>, Refusal>,
) -> Result<Vec<u8>, Refusal> {
    let mut text = Vec::with_capacity(sql.len());
    let mut done = 0;
    for token in tokens_of(sql) {
        if let Some(number) = parameter(sql, &token) {
            let constant = value(number)?.map_or_else(|| "NULL".to_owned(), |value| quoted(&value));
            text.extend_from_slice(&sql[done..token.start as usize]);
            text.extend_from_slice(constant.as_bytes());
            done = token.end as usize;
        }
    }
    text.extend_from_slice(&sql[done..]);
    Ok(text)
}

/// A constant in which a backslash is one.
fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\'', "''"))
}

fn tokens_of(sql: &[u8]) -> Vec<Token> {
    let end = u32::try_from(sql.len()).unwrap_or(u32::MAX);
    parse::tokens(sql, 0..end).unwrap_or_default()
}

/// The number of a parameter.
fn parameter(sql: &[u8], token: &Token) -> Option<u16> {
    let text = std::str::from_utf8(token.text(sql)).ok()?;
    let number = text
        .strip_prefix('$')
        .filter(|_| token.kind == TokenKind::Param)?;
    number.parse().ok()
}

impl Planner<'_> {
    /// The plan of such a call, if the statement is one.
    pub(super) fn distribute(&self, tokens: &[Token]) -> Option<Plan> {
        let mut words = Words::new(self.sql, tokens);
        if !words.eat("select") {
            return None;
        }
        let name = words.name()?;
        let known = KNOWN.map(|known| known.name);
        let others = OTHERS.iter().map(|(name, _)| *name);
        let is_known = known.into_iter().chain(others).any(|known| known == name);
        if !is_known || !self.context.relations.functions_named(&name).is_empty() {
            return None;
        }
        words.list()?;
        let plan = || utility::plan(Operator::Session, Access::Write, Command::Distribute);
        words.is_done().then(plan)
    }
}

#[cfg(test)]
mod tests {
    use super::{By, Distribute, parameters, with_parameters};

    fn sharded(colocate_with: Option<&str>) -> Distribute {
        Distribute::Sharded {
            table: "shop.t".into(),
            column: "Key".into(),
            by: By::default(),
            colocate_with: colocate_with.map(str::to_owned),
        }
    }

    #[test]
    fn calls_are_read() {
        for (sql, expected) in [
            (
                "SELECT create_distributed_table('shop.t', 'Key')",
                sharded(None),
            ),
            (
                "select Create_Distributed_Table ( 'shop.t'::regclass , 'Key', NULL, 'u' );",
                sharded(Some("u")),
            ),
            (
                "SELECT create_distributed_table(distribution_column := $$Key$$, table_name => 'shop.t', colocate_with => 'default')",
                sharded(None),
            ),
            (
                "SELECT create_distributed_table('shop.t', 'Key', colocate_with => 'u', shard_count => NULL)",
                sharded(Some("u")),
            ),
            (
                "SELECT create_distributed_table('shop.t', 'Key', 'list', lists => '[]')",
                Distribute::Sharded {
                    table: "shop.t".into(),
                    column: "Key".into(),
                    by: By {
                        method: Some("list".into()),
                        entries: Some(("lists", "[]".into())),
                    },
                    colocate_with: None,
                },
            ),
            (
                "SELECT create_reference_table('t')",
                Distribute::Reference { table: "t".into() },
            ),
            (
                "SELECT undistribute_table('t', cascade_via_foreign_keys => false)",
                Distribute::Unsharded { table: "t".into() },
            ),
            (
                "SELECT create_global_unique_index('t', 'Email')",
                Distribute::Unique {
                    table: "t".into(),
                    column: "Email".into(),
                    index: None,
                },
            ),
            (
                "SELECT create_snowflake_generator()",
                Distribute::Snowflakes,
            ),
            (
                "SELECT drop_global_unique_index('s.t_email_key')",
                Distribute::NotUnique {
                    index: "s.t_email_key".into(),
                },
            ),
        ] {
            assert_eq!(Distribute::read(sql.as_bytes()), Ok(expected), "{sql}");
        }
    }

    #[test]
    fn parameters_become_constants() {
        let sql = b"SELECT create_distributed_table($2, $1, colocate_with => $3) -- $4";
        assert_eq!(parameters(sql), 3);
        let values = [Some("it's"), Some("a\\b"), None];
        let text = with_parameters(sql, |number| {
            Ok(values[usize::from(number) - 1].map(str::to_owned))
        });
        let text = String::from_utf8(text.unwrap()).unwrap();
        let expected =
            "SELECT create_distributed_table('a\\b', 'it''s', colocate_with => NULL) -- $4";
        assert_eq!(text, expected);
        let Ok(Distribute::Sharded { table, column, .. }) = Distribute::read(text.as_bytes())
        else {
            panic!("{text}");
        };
        assert_eq!((&*table, &*column), ("a\\b", "it's"));
    }

    #[test]
    fn what_cannot_be_taken_says_why() {
        for (sql, sqlstate) in [
            ("SELECT create_distributed_table('t')", "42883"),
            (
                "SELECT create_distributed_table('t', 'a', 'hash', 'u', 4, '', '', '', 5)",
                "42883",
            ),
            ("SELECT create_distributed_table('t', 'a' || 'b')", "42883"),
            (
                "SELECT create_distributed_table('t', 'a', nosuch => 1)",
                "42883",
            ),
            (
                "SELECT create_distributed_table('t', 'a', table_name => 't')",
                "42883",
            ),
            ("SELECT create_distributed_table('t', $1)", "42883"),
            ("SELECT create_distributed_table('t', NULL)", "22004"),
            ("SELECT create_reference_table(NULL)", "22004"),
            ("SELECT create_global_unique_index('t', NULL)", "22004"),
            ("SELECT drop_global_unique_index()", "42883"),
            ("SELECT create_snowflake_generator(1)", "42883"),
            (
                "SELECT create_distributed_table('t', 'a', 'append')",
                "0A000",
            ),
            (
                "SELECT create_distributed_table('t', 'a', 'range', ranges => '[]', shards => '[]')",
                "22023",
            ),
            (
                "SELECT create_distributed_table('t', 'a', colocate_with => 'u', shards => '[]')",
                "22023",
            ),
            (
                "SELECT create_distributed_table('t', 'a', shard_count => 4)",
                "0A000",
            ),
            (
                "SELECT create_distributed_table('t', 'a', colocate_with => 'none')",
                "0A000",
            ),
            ("SELECT undistribute_table('t', true)", "0A000"),
            ("SELECT alter_distributed_table('t')", "0A000"),
        ] {
            let refusal = Distribute::read(sql.as_bytes()).unwrap_err();
            assert_eq!(refusal.sqlstate, sqlstate, "{sql}: {refusal}");
        }
    }
}
