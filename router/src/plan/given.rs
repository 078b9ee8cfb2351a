//! Rows that are given to a statement by parameters: a common table expression made of one array for each column.
//!
//! Purpose: [`Given::cte`] writes `"t" ("a", "b") AS (SELECT … FROM ROWS FROM (unnest($1::int4[]), unnest($2::text[])) …)`, by
//! which a statement that names a table finds rows that have been fetched instead of it. Invariant: columns have the names, types,
//! modifiers and collations that they have in the table.

use std::fmt::Write;
use std::sync::Arc;

use postgres_protocol::escape::escape_identifier;
use switchyard_schema::TableName;
use switchyard_wire::Format;

use super::edits::Edits;
use super::parse;
use super::workspace::schemas;
use crate::relations::{Column, Relation, SqlType};

/// The number of the type text.
const TEXT: u32 = 25;

/// Rows that stand in for those of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    /// The table.
    pub relation: TableName,
    /// Its columns, as far as they are given; never none.
    pub columns: Arc<[GivenColumn]>,
}

/// A column of rows that are given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GivenColumn {
    /// Its name.
    pub name: String,
    /// The OID of its type, which is one of PostgreSQL's own.
    pub type_oid: u32,
    /// The type's modifier, or -1.
    pub modifier: i32,
    /// Its type.
    pub sql_type: SqlType,
    /// Its values are given as texts: there are no arrays of the type, or it has another number on each server.
    pub as_text: bool,
}

impl GivenColumn {
    /// A column of a table, if its values can be given in any way.
    pub fn of(column: &Column) -> Option<Self> {
        let as_text = column.sql_type.is_none();
        let sql_type = match &column.sql_type {
            Some(own) => own.clone(),
            None => SqlType {
                name: column.text_type.clone()?,
                suffix: "".into(),
            },
        };
        Some(Self {
            name: column.name.clone(),
            type_oid: column.type_oid,
            modifier: column.typmod,
            sql_type,
            as_text,
        })
    }

    /// The type of the elements of its array, in SQL.
    pub fn element(&self) -> &str {
        match self.as_text {
            true => "pg_catalog.text",
            false => &self.sql_type.name,
        }
    }

    /// Its number.
    pub fn element_oid(&self) -> u32 {
        if self.as_text { TEXT } else { self.type_oid }
    }

    /// How its values are asked for.
    pub fn format(&self) -> Format {
        match self.as_text {
            true => Format::Text,
            false => Format::Binary,
        }
    }
}

impl Given {
    /// Some of a relation's columns; `None` if there are no arrays of one's type.
    pub fn of(relation: &Relation, columns: &[String]) -> Option<Given> {
        let given = |name: &String| {
            let mut all = relation.columns.iter();
            let column = all.find(|column| column.name == *name)?;
            Some(GivenColumn {
                name: name.clone(),
                type_oid: column.type_oid,
                modifier: column.typmod,
                sql_type: column.sql_type.clone()?,
                as_text: false,
            })
        };
        Some(Given {
            relation: relation.name.clone(),
            columns: columns.iter().map(given).collect::<Option<_>>()?,
        })
    }

    /// The same rows, of columns with these names.
    pub(crate) fn named(mut self, names: &[String]) -> Given {
        let columns = self.columns.iter().cloned().zip(names);
        let named = columns.map(|(column, name)| GivenColumn {
            name: name.clone(),
            ..column
        });
        self.columns = named.collect();
        self
    }

    /// The OIDs of the columns' types, and their modifiers.
    pub fn types(&self) -> impl Iterator<Item = (u32, i32)> {
        let columns = self.columns.iter();
        columns.map(|column| (column.type_oid, column.modifier))
    }

    /// How the values of the columns are asked for.
    pub fn formats(&self) -> Vec<Format> {
        self.columns.iter().map(GivenColumn::format).collect()
    }

    /// Where a column is among those that are given.
    pub fn position(&self, column: &str) -> Option<usize> {
        self.columns.iter().position(|given| given.name == column)
    }

    /// The query for all of its rows, so many at most.
    pub fn query(&self, most: u32) -> String {
        let columns: Vec<String> = self
            .columns
            .iter()
            .map(|column| escape_identifier(&column.name))
            .collect();
        let (schema, name) = (
            escape_identifier(&self.relation.schema),
            escape_identifier(&self.relation.name),
        );
        let columns = columns.join(", ");
        format!("SELECT {columns} FROM {schema}.{name} LIMIT {most}")
    }

    /// The array of a column's values, in SQL; the arrays are the parameters from this number on.
    pub fn array_of(&self, column: &str, first: usize) -> Option<String> {
        let at = self.position(column)?;
        let name = &self.columns.get(at)?.sql_type.name;
        Some(format!("${}::{name}[]", first + at))
    }

    /// The query for the rows; the arrays are the parameters from this number on, in the order of the columns.
    pub fn query_of_arrays(&self, first: usize) -> String {
        let names = self.columns.iter().map(|column| &column.name);
        self.select(first, names.map(|name| Some(escape_identifier(name))), &[])
    }

    /// The same, with expressions instead of some columns.
    pub(crate) fn query_but(&self, first: usize, instead: &[Option<String>]) -> String {
        self.select(first, self.columns.iter().map(|_| None), instead)
    }

    /// The same, of columns with these names, or without.
    fn select(
        &self,
        first: usize,
        names: impl Iterator<Item = Option<String>>,
        instead: &[Option<String>],
    ) -> String {
        let (mut values, mut arrays, mut aliases) = (String::new(), String::new(), String::new());
        for ((at, column), label) in self.columns.iter().enumerate().zip(names) {
            let comma = if at > 0 { ", " } else { "" };
            let SqlType { name, suffix } = &column.sql_type;
            let parameter = first + at;
            let label = label.map_or(String::new(), |label| format!(" AS {label}"));
            // Writing to a string does not fail.
            let _ = match instead.get(at) {
                Some(Some(own)) => write!(values, "{comma}{own}{label}"),
                _ => write!(values, "{comma}c{at}::{name}{suffix}{label}"),
            };
            let element = column.element();
            let _ = write!(
                arrays,
                "{comma}pg_catalog.unnest(${parameter}::{element}[])"
            );
            let _ = write!(aliases, "{comma}c{at}");
        }
        format!("SELECT {values} FROM ROWS FROM ({arrays}) AS given ({aliases})")
    }

    /// The common table expression; the arrays are the parameters from this number on, in the order of the columns.
    pub fn cte(&self, first: usize) -> String {
        let names = self.columns.iter().map(|column| &column.name);
        let names: Vec<String> = names.map(|name| escape_identifier(name)).collect();
        let rows = self.query_but(first, &[]);
        let table = escape_identifier(&self.relation.name);
        format!("{table} ({}) AS ({rows})", names.join(", "))
    }
}

/// A text to which tables' rows are given.
#[derive(Debug, Clone)]
pub struct GivenText {
    /// As it is sent.
    pub text: Vec<u8>,
    edits: Edits,
}

impl GivenText {
    /// Of a statement that is understood; the arrays are its parameters from this number on. `None` if it names a table in a way that
    /// the rows given could not stand in for.
    pub fn new(sql: &[u8], given: &[&Given], first: usize) -> Option<GivenText> {
        let end = u32::try_from(sql.len()).ok()?;
        let tokens = parse::tokens(sql, 0..end).ok()?;
        let mut number = first;
        let mut ctes = Vec::with_capacity(given.len());
        for table in given {
            ctes.push(table.cte(number));
            number += table.columns.len();
        }
        let ctes = ctes.join(", ");
        let is_word =
            |at: usize, word| tokens.get(at).is_some_and(|token| token.is_word(sql, word));
        let (before, words) = match (is_word(0, "with"), is_word(1, "recursive")) {
            (true, true) => (2, format!("{ctes}, ")),
            (true, false) => (1, format!("{ctes}, ")),
            (false, _) => (0, format!("WITH {ctes} ")),
        };
        let at = tokens.get(before)?.start as usize;
        let is_given = |name: &TableName| given.iter().any(|table| table.relation == *name);
        let schemas = schemas(sql, &is_given)?.into_iter();
        let schemas = schemas.map(|place| (place, Vec::new()));
        let edits = Edits::new(schemas.chain([(at..at, words.into_bytes())]).collect());
        let text = edits.apply(sql);
        Some(GivenText { text, edits })
    }

    /// Where in the statement a character of the text comes from, both counted from 1.
    pub fn origin(&self, sql: &[u8], position: usize) -> Option<usize> {
        self.edits.origin(sql, position)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use switchyard_schema::TableName;

    use super::{Given, GivenColumn, GivenText};
    use crate::relations::SqlType;

    #[test]
    fn a_table_is_a_common_table_expression_of_arrays() {
        let column = |name: &str, type_oid, sql: &str, suffix: &str| GivenColumn {
            name: name.into(),
            type_oid,
            modifier: -1,
            sql_type: SqlType {
                name: sql.into(),
                suffix: suffix.into(),
            },
            as_text: false,
        };
        let given = Given {
            relation: TableName::new("public", "Order \"s\""),
            columns: Arc::new([
                column("id", 20, "pg_catalog.int8", ""),
                column("total", 1700, "pg_catalog.\"numeric\"", "(14,2)"),
                column("code", 25, "pg_catalog.text", " COLLATE pg_catalog.\"C\""),
            ]),
        };
        assert_eq!(
            given.cte(3),
            "\"Order \"\"s\"\"\" (\"id\", \"total\", \"code\") AS (SELECT c0::pg_catalog.int8, c1::pg_catalog.\"numeric\"(14,2), \
             c2::pg_catalog.text COLLATE pg_catalog.\"C\" FROM ROWS FROM (pg_catalog.unnest($3::pg_catalog.int8[]), \
             pg_catalog.unnest($4::pg_catalog.\"numeric\"[]), pg_catalog.unnest($5::pg_catalog.text[])) AS given (c0, c1, c2))"
        );
        assert_eq!(
            given.types().collect::<Vec<_>>(),
            [(20, -1), (1700, -1), (25, -1)]
        );
    }

    fn given_to(sql: &str) -> Option<String> {
        let given = Given {
            relation: TableName::new("public", "t"),
            columns: Arc::new([GivenColumn {
                name: "a".into(),
                type_oid: 23,
                modifier: -1,
                sql_type: SqlType {
                    name: "int4".into(),
                    suffix: "".into(),
                },
                as_text: false,
            }]),
        };
        let text = GivenText::new(sql.as_bytes(), &[&given], 2)?.text;
        let cte = given.cte(2);
        Some(String::from_utf8(text).unwrap().replace(&cte, "T"))
    }

    #[test]
    fn rows_are_given_before_all_else() {
        let cases = [
            ("SELECT t.a FROM t", "WITH T SELECT t.a FROM t"),
            (
                "/* c */ (SELECT public.t.a FROM public . t) UNION TABLE \"public\".t",
                "/* c */ WITH T (SELECT t.a FROM t) UNION TABLE t",
            ),
            (
                "WITH u AS (TABLE t) TABLE u",
                "WITH T, u AS (TABLE t) TABLE u",
            ),
            (
                "with recursive u as (table t) table u",
                "with recursive T, u as (table t) table u",
            ),
        ];
        for (sql, expected) in cases {
            assert_eq!(given_to(sql).as_deref(), Some(expected));
        }
        assert_eq!(given_to("SELECT * FROM db.public.t"), None);
    }
}
