//! Names: folding, PostgreSQL's reserved words, and what is visible where.

use sqlparser::ast::{Ident, ObjectName, ObjectNamePart};

use super::facts::{ColumnId, ScopeId};
use super::{Analyser, Stop};
use crate::plan::parse::offset;
use crate::plan::types::Typed;
use crate::sql::names::{cut, fold};

/// Words PostgreSQL never takes for the name of a table, a column or a function.
const RESERVED: &[&str] = &[
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
];

/// Words PostgreSQL takes for the name of a function or type only.
const RESERVED_BUT_FUNCTION: &[&str] = &[
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
];

/// The name an identifier stands for, whatever its place.
fn plain(ident: &Ident) -> Result<String, Stop> {
    match ident.quote_style {
        None => Ok(fold(&ident.value)),
        Some('"') => Ok(cut(ident.value.replace("\"\"", "\""))),
        Some(_) => Err(Stop::Opaque("a quoted name PostgreSQL does not have")),
    }
}

/// The name of a table, column or alias. A reserved word there means that sqlparser read a keyword as a name.
pub(in crate::plan) fn name(ident: &Ident) -> Result<String, Stop> {
    let name = plain(ident)?;
    let keyword =
        RESERVED.contains(&name.as_str()) || RESERVED_BUT_FUNCTION.contains(&name.as_str());
    if ident.quote_style.is_none() && keyword {
        return Err(Stop::Opaque("a reserved word read as a name"));
    }
    Ok(name)
}

/// The name of a function, with its schema.
pub(in crate::plan) fn function_name(name: &ObjectName) -> Result<(Option<String>, String), Stop> {
    let (schema, ident) = split(name)?;
    let name = plain(ident)?;
    let special = matches!(
        name.as_str(),
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
    if ident.quote_style.is_none() && RESERVED.contains(&name.as_str()) && !special {
        return Err(Stop::Opaque("a reserved word read as a function"));
    }
    Ok((schema, name))
}

/// The name of a relation, with its schema.
pub(in crate::plan) fn relation_name(
    object: &ObjectName,
) -> Result<(Option<String>, String), Stop> {
    let (schema, ident) = split(object)?;
    Ok((schema, name(ident)?))
}

fn split(object: &ObjectName) -> Result<(Option<String>, &Ident), Stop> {
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
            let mut hits = Vec::new();
            let mut open = false;
            for id in &frame.items {
                let item = &self.items[*id];
                open |= item.open;
                hits.extend(
                    item.columns
                        .iter()
                        .filter(|column| column.name.as_deref() == Some(name)),
                );
            }
            match hits.as_slice() {
                [one] => return Found::Column(one.column, one.typed, depth),
                [] if open => return Found::Unknown,
                [] => {}
                _ => return Found::Unknown,
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
    pub(super) fn label(&self, ident: &Ident) -> Result<String, Stop> {
        if self.follows_as(ident) {
            plain(ident)
        } else {
            name(ident)
        }
    }
}
