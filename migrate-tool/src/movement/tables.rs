//! The tables whose rows move: those of hash keys, as every shard has them.

use postgres_protocol::escape::{escape_identifier, escape_literal};
use switchyard_router::backend::TextRow;
use switchyard_schema::{Database, Method, Table, bucket_sql};

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
    /// Its name in SQL.
    pub(super) sql: String,
    /// The columns that are stored, in SQL.
    pub(super) columns: String,
    /// The expression for a row's bucket.
    pub(super) bucket: String,
    /// The tables that have its rows, in SQL.
    pub(super) stored: Vec<String>,
}

impl Moving {
    /// Stores rows, as a COPY.
    pub(super) fn put(&self) -> String {
        format!(
            "COPY {} ({}) FROM STDIN (FORMAT binary)",
            self.sql, self.columns
        )
    }
}

/// The stored columns of tables, as a server has them.
pub(super) async fn shapes(tables: &[Moving], server: &mut Server) -> Result<Vec<TextRow>, Error> {
    let names = tables.iter().map(|table| escape_literal(&table.sql));
    let names: Vec<String> = names.collect();
    Ok(server
        .ask(&SHAPES.replace("$TABLES", &names.join(",")))
        .await?)
}

/// The tables of hash keys, once it is certain that all servers have them alike and that nothing notices when their rows move.
pub(super) async fn moving(
    database: &Database,
    servers: &mut [Server],
) -> Result<Vec<Moving>, Error> {
    let mut tables = Vec::new();
    for table in &database.tables {
        let Some(key) = table.distribution.shard_key() else {
            continue;
        };
        if key.method != Method::Hash {
            continue;
        }
        let sql = quoted(&table.name);
        let columns = alike(table, servers).await?;
        let mut stored = Vec::new();
        for server in servers.iter_mut() {
            let loud = server.ask(&of(LOUD, &sql)).await?;
            if let Some(trigger) = first(loud) {
                return Err(refused(
                    table,
                    format!(
                        "its trigger {trigger} would fire for rows that move: ALTER TABLE … ENABLE TRIGGER {trigger}"
                    ),
                ));
            }
            if let Some(heir) = first(server.ask(&of(HEIRS, &sql)).await?) {
                return Err(refused(table, format!("{heir} inherits from it")));
            }
            let found = server.ask(&of(STORED, &sql)).await?;
            stored = found
                .into_iter()
                .filter_map(|row| row.into_iter().next()?)
                .collect();
        }
        tables.push(Moving {
            bucket: bucket_sql(&escape_identifier(&key.column)),
            sql,
            columns,
            stored,
        });
    }
    Ok(tables)
}

/// Has PostgreSQL look what there is now, for its plans.
pub(super) async fn analyze(tables: &[Moving], servers: &mut [Server]) -> Result<(), Error> {
    let names: Vec<&str> = tables.iter().map(|table| table.sql.as_str()).collect();
    if names.is_empty() {
        return Ok(());
    }
    for server in servers {
        server.ask(&format!("ANALYZE {}", names.join(", "))).await?;
    }
    Ok(())
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

fn refused(table: &Table, why: String) -> Error {
    Error::Table {
        table: table.name.to_string(),
        why,
    }
}
