//! The tables whose rows move, as every shard has them, and what speaks against it.

use postgres_protocol::escape::{escape_identifier, escape_literal};
use switchyard_router::backend::TextRow;
use switchyard_schema::{KeyType, Keys, ShardKey, Table, TableName};

use super::Error;
use crate::names::quoted;
use crate::servers::Server;

/// The columns that are stored, as every shard must have them.
const COLUMNS: &str = "\
SELECT pg_catalog.quote_ident(a.attname), pg_catalog.format_type(a.atttypid, a.atttypmod)
  FROM pg_catalog.pg_attribute a
 WHERE a.attrelid = $TABLE::pg_catalog.regclass AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
 ORDER BY a.attname";

/// The same of several tables.
const SHAPES: &str = "\
SELECT a.attrelid::pg_catalog.regclass, pg_catalog.quote_ident(a.attname), pg_catalog.format_type(a.atttypid, a.atttypmod)
  FROM pg_catalog.pg_attribute a
 WHERE a.attrelid = ANY (ARRAY[$TABLES]::pg_catalog.regclass[]) AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
 ORDER BY a.attrelid::pg_catalog.regclass::text, a.attname";

/// Whether all values of a table have a binary form. What there is inside of records, domains and ranges that users have made is not looked at. (Numbers of users' types differ from
/// server to server; since PostgreSQL 14 arrays and records are read nevertheless.)
const IS_BINARY: &str = "\
SELECT NOT EXISTS (
    SELECT FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
      LEFT JOIN pg_catalog.pg_type e ON e.oid = t.typelem
     WHERE a.attrelid = $TABLE::pg_catalog.regclass AND a.attnum > 0 AND NOT a.attisdropped
       AND (0 IN (t.typsend, e.typsend) OR t.oid >= 16384 AND t.typtype NOT IN ('b', 'e')
            OR e.oid >= 16384 AND e.typtype NOT IN ('b', 'e')))";

/// Whether a table is the user's, who makes indexes on it and locks it.
const IS_OWN: &str = "\
SELECT pg_catalog.pg_has_role(c.relowner, 'USAGE') FROM pg_catalog.pg_class c WHERE c.oid = $TABLE::pg_catalog.regclass";

/// Tables that inherit from it without being its partitions: their rows would come to be its own.
const HEIRS: &str = "\
SELECT i.inhrelid::pg_catalog.regclass FROM pg_catalog.pg_inherits i JOIN pg_catalog.pg_class c ON c.oid = i.inhparent
 WHERE i.inhparent = $TABLE::pg_catalog.regclass AND c.relkind = 'r'";

/// Triggers that fire for rows that move, too.
const LOUD: &str = "\
SELECT pg_catalog.quote_ident(t.tgname) FROM pg_catalog.pg_trigger t
 WHERE t.tgenabled IN ('A', 'R') AND (t.tgrelid = $TABLE::pg_catalog.regclass
       OR t.tgrelid IN (SELECT relid FROM pg_catalog.pg_partition_tree($TABLE::pg_catalog.regclass)))";

/// The tables that have rows of their own: the table itself, or its partitions.
const STORED: &str = "\
SELECT c.oid::pg_catalog.regclass FROM pg_catalog.pg_class c
 WHERE c.relkind = 'r' AND (c.oid = $TABLE::pg_catalog.regclass
       OR c.oid IN (SELECT relid FROM pg_catalog.pg_partition_tree($TABLE::pg_catalog.regclass)))";

/// A table whose rows move.
#[derive(Debug, Clone)]
pub(super) struct Moving {
    pub(super) name: TableName,
    /// Its name in SQL.
    pub(super) sql: String,
    /// The columns that are stored, in SQL.
    pub(super) columns: String,
    /// The shard key.
    pub(super) column: String,
    /// The same in SQL.
    pub(super) key: String,
    pub(super) key_type: KeyType,
    /// The tables that have its rows, in SQL.
    pub(super) stored: Vec<String>,
    /// The form in which its rows go.
    format: &'static str,
}

impl Moving {
    /// Gives what a query gives, as a COPY.
    pub(super) fn take(&self, query: &str) -> String {
        format!("COPY ({query}) TO STDOUT (FORMAT {})", self.format)
    }

    /// Stores rows, as a COPY.
    pub(super) fn put(&self) -> String {
        format!(
            "COPY {} ({}) FROM STDIN (FORMAT {})",
            self.sql, self.columns, self.format
        )
    }

    /// True of its rows with some keys.
    pub(super) fn of(&self, keys: &Keys) -> Result<String, Error> {
        let condition = keys.sql(&self.key, self.key_type);
        condition.map_err(|error| self.refused(&error.to_string()))
    }

    pub(super) fn refused(&self, why: &str) -> Error {
        Error::Table {
            table: self.name.to_string(),
            why: why.to_owned(),
        }
    }

    /// Looks at a table. What speaks against moving its rows is noted.
    pub(super) async fn look(
        table: &Table,
        (key, key_type): (&ShardKey, KeyType),
        servers: &mut [Server],
        against: &mut Vec<Error>,
    ) -> Result<Moving, Error> {
        let sql = quoted(&table.name);
        let columns = match alike(table, servers).await {
            Err(error @ Error::Table { .. }) => {
                against.push(error);
                String::new()
            }
            columns => columns?,
        };
        let mut stored = Vec::new();
        for server in servers.iter_mut() {
            let own = first(server.ask(&of(IS_OWN, &sql)).await?);
            if own.as_deref() == Some("f") {
                let shard = &server.name;
                against.push(refused(
                    table,
                    format!("it belongs to another role on shard \"{shard}\""),
                ));
            }
            let loud = server.ask(&of(LOUD, &sql)).await?;
            if let Some(trigger) = first(loud) {
                against.push(refused(
                    table,
                    format!(
                        "its trigger {trigger} would fire for rows that move: ALTER TABLE … ENABLE TRIGGER {trigger}"
                    ),
                ));
            }
            if let Some(heir) = first(server.ask(&of(HEIRS, &sql)).await?) {
                against.push(refused(table, format!("{heir} inherits from it")));
            }
            let found = server.ask(&of(STORED, &sql)).await?;
            stored = found
                .into_iter()
                .filter_map(|row| row.into_iter().next()?)
                .collect();
        }
        Ok(Moving {
            name: table.name.clone(),
            column: key.column.clone(),
            key: escape_identifier(&key.column),
            key_type,
            format: format(&sql, servers).await?,
            sql,
            columns,
            stored,
        })
    }
}

/// The form of COPY in which a table's rows go to another server.
pub(super) async fn format(table: &str, servers: &mut [Server]) -> Result<&'static str, Error> {
    let Some(server) = servers.first_mut() else {
        return Ok("binary");
    };
    let is_binary = first(server.ask(&of(IS_BINARY, table)).await?);
    Ok(match is_binary.as_deref() {
        Some("t") => "binary",
        _ => "text",
    })
}

/// The stored columns of tables, as a server has them.
pub(super) async fn shapes(tables: &[Moving], server: &mut Server) -> Result<Vec<TextRow>, Error> {
    let names = tables.iter().map(|table| escape_literal(&table.sql));
    let names: Vec<String> = names.collect();
    Ok(server
        .ask(&SHAPES.replace("$TABLES", &names.join(",")))
        .await?)
}

/// The stored columns of a table, which have to be the same everywhere.
pub(super) async fn alike(table: &Table, servers: &mut [Server]) -> Result<String, Error> {
    let columns = of(COLUMNS, &quoted(&table.name));
    let mut known = None;
    for server in servers.iter_mut() {
        let found = server.ask(&columns).await?;
        if known.get_or_insert_with(|| found.clone()) != &found {
            let shard = &server.name;
            return Err(refused(
                table,
                format!("it is not the same on shard \"{shard}\" as on others"),
            ));
        }
    }
    let names = known.unwrap_or_default().into_iter();
    let names: Vec<String> = names.filter_map(|row| row.into_iter().next()?).collect();
    Ok(names.join(", "))
}

fn of(query: &str, table: &str) -> String {
    query.replace("$TABLE", &escape_literal(table))
}

/// The first value of an answer.
pub(super) fn first(rows: Vec<Vec<Option<String>>>) -> Option<String> {
    rows.into_iter().next()?.into_iter().next()?
}

pub(super) fn refused(table: &Table, why: String) -> Error {
    Error::Table {
        table: table.name.to_string(),
        why,
    }
}
