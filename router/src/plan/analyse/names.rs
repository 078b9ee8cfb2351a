//! Names: folding, PostgreSQL's reserved words, and what is visible where.

use std::borrow::Cow;

use sqlparser::ast::{Ident, ObjectName, ObjectNamePart};

use super::facts::{ColumnId, ScopeId};
use super::{Analyser, Stop};
use crate::plan::parse::offset;
use crate::plan::types::Typed;
use crate::sql::names::{fold, unquoted};

/// Words PostgreSQL never takes for the name of a table, a column or a function.
static RESERVED: Words = Words::new(&[
    "all",
    "analyse",
    "analyze",
    "and",
    "any",
    "array",
    "as",
    "asc",
    "asymmetric",
    "both",
    "case",
    "cast",
    "check",
    "collate",
    "column",
    "constraint",
    "create",
    "current_catalog",
    "current_date",
    "current_role",
    "current_time",
    "current_timestamp",
    "current_user",
    "default",
    "deferrable",
    "desc",
    "distinct",
    "do",
    "else",
    "end",
    "except",
    "false",
    "fetch",
    "for",
    "foreign",
    "from",
    "grant",
    "group",
    "having",
    "in",
    "initially",
    "intersect",
    "into",
    "lateral",
    "leading",
    "limit",
    "localtime",
    "localtimestamp",
    "not",
    "null",
    "offset",
    "on",
    "only",
    "or",
    "order",
    "placing",
    "primary",
    "references",
    "returning",
    "select",
    "session_user",
    "some",
    "symmetric",
    "system_user",
    "table",
    "then",
    "to",
    "trailing",
    "true",
    "union",
    "unique",
    "user",
    "using",
    "variadic",
    "when",
    "where",
    "window",
    "with",
]);

/// Words PostgreSQL takes for the name of a function or type only.
static RESERVED_BUT_FUNCTION: Words = Words::new(&[
    "authorization",
    "binary",
    "collation",
    "concurrently",
    "cross",
    "current_schema",
    "freeze",
    "full",
    "ilike",
    "inner",
    "is",
    "isnull",
    "join",
    "left",
    "like",
    "natural",
    "notnull",
    "outer",
    "overlaps",
    "right",
    "similar",
    "tablesample",
    "verbose",
]);

/// Words in order, found by their first letters: almost no name is one, and every name is looked for.
struct Words {
    words: &'static [&'static str],
    /// Where those of each letter begin, and those of the next.
    starts: [u8; 27],
}

impl Words {
    const fn new(words: &'static [&'static str]) -> Self {
        let mut starts = [0; 27];
        let mut at = 0;
        while at < words.len() {
            let letter = words[at].as_bytes()[0] - b'a';
            // Until there are more, the next letter's begin behind this one.
            let mut later = letter as usize + 1;
            while later < starts.len() {
                starts[later] = at as u8 + 1;
                later += 1;
            }
            at += 1;
        }
        Words { words, starts }
    }

    fn contain(&self, name: &str) -> bool {
        let Some(letter @ b'a'..=b'z') = name.as_bytes().first() else {
            return false;
        };
        let letter = usize::from(letter - b'a');
        let (from, to) = (self.starts[letter], self.starts[letter + 1]);
        self.words[usize::from(from)..usize::from(to)].contains(&name)
    }
}

/// The name an identifier stands for, whatever its place.
fn plain(ident: &Ident) -> Result<Cow<'_, str>, Stop> {
    match ident.quote_style {
        None => Ok(fold(&ident.value)),
        Some('"') => Ok(unquoted(&ident.value)),
        Some(_) => Err(Stop::Opaque("a quoted name PostgreSQL does not have")),
    }
}

/// The name of a table, column or alias. A reserved word there means that sqlparser read a keyword as a name.
pub(in crate::plan) fn name(ident: &Ident) -> Result<Cow<'_, str>, Stop> {
    let name = plain(ident)?;
    let is_keyword = || RESERVED.contain(&name) || RESERVED_BUT_FUNCTION.contain(&name);
    if ident.quote_style.is_none() && is_keyword() {
        return Err(Stop::Opaque("a reserved word read as a name"));
    }
    Ok(name)
}

/// A name, and its schema if it says one.
pub(in crate::plan) type Qualified<'a> = (Option<Cow<'a, str>>, Cow<'a, str>);

/// The name of a function, with its schema.
pub(in crate::plan) fn function_name(name: &ObjectName) -> Result<Qualified<'_>, Stop> {
    let (schema, ident) = split(name)?;
    let name = plain(ident)?;
    let special = matches!(
        &*name,
        "current_catalog"
            | "current_date"
            | "current_role"
            | "current_time"
            | "current_timestamp"
            | "current_user"
            | "localtime"
            | "localtimestamp"
            | "session_user"
            | "system_user"
            | "user"
    );
    if ident.quote_style.is_none() && RESERVED.contain(&name) && !special {
        return Err(Stop::Opaque("a reserved word read as a function"));
    }
    Ok((schema, name))
}

/// The name of a relation, with its schema.
pub(in crate::plan) fn relation_name(object: &ObjectName) -> Result<Qualified<'_>, Stop> {
    let (schema, ident) = split(object)?;
    Ok((schema, name(ident)?))
}

fn split(object: &ObjectName) -> Result<(Option<Cow<'_, str>>, &Ident), Stop> {
    match object.0.as_slice() {
        [ObjectNamePart::Identifier(ident)] => Ok((None, ident)),
        [
            ObjectNamePart::Identifier(schema),
            ObjectNamePart::Identifier(ident),
        ] => Ok((Some(name(schema)?), ident)),
        _ => Err(Stop::Opaque("a name of more than two parts")),
    }
}

/// Something in a FROM that has columns.
#[derive(Debug, Clone)]
pub(super) struct Item {
    /// What columns are qualified with.
    pub(super) alias: Option<String>,
    /// The schema, if the item is a relation without an alias.
    pub(super) schema: Option<String>,
    /// The columns, as far as they are known.
    pub(super) columns: Vec<Output>,
    /// There may be more columns.
    pub(super) open: bool,
    /// The scope of its rows.
    pub(super) scope: ScopeId,
}

/// A column of an item or of a query's result.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::plan) struct Output {
    /// The name; `None` if PostgreSQL makes one up.
    pub(in crate::plan) name: Option<String>,
    /// The column, if its values are those of a column whose type can be a key.
    pub(in crate::plan) column: Option<ColumnId>,
    /// The type, where it is known and values of it are compared here.
    pub(in crate::plan) typed: Option<Typed>,
}

/// An item, by number.
pub(super) type ItemId = usize;

/// What is visible at one level of the statement.
#[derive(Debug, Clone, Default)]
pub(super) struct Frame {
    pub(super) items: Vec<ItemId>,
    /// Columns merged by USING or NATURAL: what the bare name means, and the items whose column it hides.
    pub(super) merged: Vec<Merged>,
}

#[derive(Debug, Clone)]
pub(super) struct Merged {
    pub(super) name: String,
    pub(super) column: Option<ColumnId>,
    pub(super) typed: Option<Typed>,
    pub(super) hides: Vec<ItemId>,
}

/// What a column name means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// This column, `depth` levels out, and its type, as [`Output`] has them.
    Column(Option<ColumnId>, Option<Typed>, usize),
    /// No telling.
    Unknown,
}

impl Analyser<'_> {
    /// What a bare column name means, innermost level first.
    pub(super) fn bare(&self, name: &str) -> Found {
        for (depth, frame) in self.frames.iter().rev().enumerate() {
            if let Some(merged) = frame.merged.iter().rev().find(|merged| merged.name == name) {
                return Found::Column(merged.column, merged.typed, depth);
            }
            let items = || frame.items.iter().map(|id| &self.items[*id]);
            let columns = items().flat_map(|item| &item.columns);
            let mut hits = columns.filter(|column| column.name.as_deref() == Some(name));
            match (hits.next(), hits.next()) {
                (Some(one), None) => return Found::Column(one.column, one.typed, depth),
                (None, _) if items().any(|item| item.open) => return Found::Unknown,
                (None, _) => {}
                (Some(_), Some(_)) => return Found::Unknown,
            }
        }
        Found::Unknown
    }

    /// What `qualifier.name` means.
    pub(super) fn qualified(&self, schema: Option<&str>, qualifier: &str, name: &str) -> Found {
        for (depth, frame) in self.frames.iter().rev().enumerate() {
            let mut items = frame
                .items
                .iter()
                .map(|id| &self.items[*id])
                .filter(|item| {
                    item.alias.as_deref() == Some(qualifier)
                        && (schema.is_none() || item.schema.as_deref() == schema)
                });
            let Some(item) = items.next() else { continue };
            let mut columns = item
                .columns
                .iter()
                .filter(|column| column.name.as_deref() == Some(name));
            return match (columns.next(), columns.next(), items.next()) {
                (Some(column), None, None) => Found::Column(column.column, column.typed, depth),
                _ => Found::Unknown,
            };
        }
        Found::Unknown
    }

    /// Whether the word before a span is `AS`.
    pub(super) fn follows_as(&self, ident: &Ident) -> bool {
        let start = offset(ident.span.start);
        let before = self.tokens.partition_point(|token| token.start < start);
        before
            .checked_sub(1)
            .and_then(|at| self.tokens.get(at))
            .is_some_and(|token| token.is_word(self.sql, "as"))
    }

    /// The name of a result column: any word after `AS`, no reserved one without it.
    pub(super) fn label<'n>(&self, ident: &'n Ident) -> Result<Cow<'n, str>, Stop> {
        if self.follows_as(ident) {
            plain(ident)
        } else {
            name(ident)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{RESERVED, RESERVED_BUT_FUNCTION};

    #[test]
    fn reserved_words_are_found() {
        for words in [&RESERVED, &RESERVED_BUT_FUNCTION] {
            assert!(words.words.is_sorted());
            assert!(words.words.iter().all(|word| words.contain(word)));
            let others = ["", "a", "alll", "zone", "_all", "\u{e4}", "{", "wit"];
            assert!(!others.iter().any(|other| words.contain(other)));
        }
    }
}
