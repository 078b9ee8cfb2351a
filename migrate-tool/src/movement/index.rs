//! Indexes by which groups of rows are found: on their buckets, remainders, or keys. They are there only while rows move, and known by their names.

use futures_util::future::try_join_all;
use postgres_protocol::escape::escape_literal;
use switchyard_schema::{Keys, Shift};

use super::Error;
use super::tables::{Moving, first};
use crate::servers::Server;

/// What their names begin with.
const PREFIX: &str = "switchyard_bucket_";

/// All of them on one server.
const ALL: &str = "\
SELECT pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname)
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind = 'i' AND c.relname LIKE 'switchyard\\_bucket\\_%'";

/// The index of a table: its name, without and with its schema, whether it is there, and whether it is of use.
const ONE: &str = "\
SELECT pg_catalog.quote_ident(named.name), pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(named.name),
       i.indexrelid IS NOT NULL, coalesce(i.indisvalid, false)
  FROM pg_catalog.pg_class t
  JOIN pg_catalog.pg_namespace n ON n.oid = t.relnamespace
 CROSS JOIN LATERAL (SELECT pg_catalog.concat($PREFIX, t.oid, $SUFFIX)) AS named (name)
  LEFT JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = named.name
  LEFT JOIN pg_catalog.pg_index i ON i.indexrelid = c.oid
 WHERE t.oid = $TABLE::pg_catalog.regclass";

/// Whether the client has an index that begins with a column.
const LIKE_IT: &str = "\
SELECT FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid JOIN pg_catalog.pg_am m ON m.oid = c.relam
  JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
 WHERE i.indrelid = $TABLE::pg_catalog.regclass AND a.attname = $KEY
   AND m.amname = 'btree' AND i.indisvalid AND i.indpred IS NULL";

/// Makes those by which the keys are found that are to leave a shard, on all of these at once.
pub(super) async fn make_all(
    servers: &mut [Server],
    tables: &[Moving],
    left: &[Shift],
) -> Result<(), Error> {
    let leaving = servers.iter_mut().filter_map(|server| {
        let shift = left.iter().find(|shift| shift.from == server.shard)?;
        Some(make(server, tables, &shift.keys))
    });
    try_join_all(leaving).await?;
    Ok(())
}

/// Makes those that are not there. One that a killed program has left unfinished is made anew.
async fn make(server: &mut Server, tables: &[Moving], keys: &Keys) -> Result<(), Error> {
    for table in tables {
        for stored in &table.stored {
            if !is_indexed(server, table, stored, keys).await? {
                make_one(server, table, stored, keys).await?;
            }
            // For plans by it, and for how many rows a group is to have.
            server.ask(&format!("ANALYZE {stored}")).await?;
        }
    }
    Ok(())
}

async fn is_indexed(
    server: &mut Server,
    table: &Moving,
    stored: &str,
    keys: &Keys,
) -> Result<bool, Error> {
    if keys.place_sql(&table.key) != table.key {
        return Ok(false);
    }
    let ask = LIKE_IT
        .replace("$TABLE", &escape_literal(stored))
        .replace("$KEY", &escape_literal(&table.column));
    Ok(!server.ask(&ask).await?.is_empty())
}

async fn make_one(
    server: &mut Server,
    table: &Moving,
    stored: &str,
    keys: &Keys,
) -> Result<(), Error> {
    let suffix = match keys {
        Keys::Buckets(_) => String::new(),
        Keys::Remainders { modulus, .. } => format!("_{modulus}"),
        Keys::Range { .. } | Keys::Values(_) | Keys::Others(_) => "_key".to_owned(),
    };
    let ask = ONE
        .replace("$PREFIX", &escape_literal(PREFIX))
        .replace("$SUFFIX", &escape_literal(&suffix))
        .replace("$TABLE", &escape_literal(stored));
    let row = server.ask(&ask).await?.pop();
    let mut row = row.unwrap_or_default().into_iter();
    let mut next = || row.next().flatten().unwrap_or_default();
    let (name, qualified, is_there, is_valid) = (next(), next(), next() == "t", next() == "t");
    if is_valid {
        return Ok(());
    }
    if is_there {
        server
            .ask(&format!("DROP INDEX CONCURRENTLY {qualified}"))
            .await?;
    }
    tracing::info!(shard = %server.name, table = %stored, "making an index by which rows are found");
    let place = keys.place_sql(&table.key);
    server
        .ask(&format!(
            "CREATE INDEX CONCURRENTLY {name} ON {stored} (({place}))"
        ))
        .await?;
    Ok(())
}

/// Drops all of them.
pub(super) async fn remove(servers: &mut [Server]) -> Result<(), Error> {
    try_join_all(servers.iter_mut().map(remove_from)).await?;
    Ok(())
}

async fn remove_from(server: &mut Server) -> Result<(), Error> {
    for row in server.ask(ALL).await? {
        if let Some(index) = first(vec![row]) {
            server
                .ask(&format!("DROP INDEX CONCURRENTLY IF EXISTS {index}"))
                .await?;
        }
    }
    Ok(())
}

/// About how many rows of tables a server has.
pub(super) async fn estimate(server: &mut Server, tables: &[Moving]) -> Result<f64, Error> {
    let mut rows = 0.0;
    for stored in tables.iter().flat_map(|table| &table.stored) {
        // Without statistics a page is taken to have a hundred rows.
        let ask = format!(
            "SELECT CASE WHEN reltuples < 0 THEN 100 * pg_catalog.pg_relation_size(oid) / 8192.0 ELSE reltuples END
               FROM pg_catalog.pg_class WHERE oid = {}::pg_catalog.regclass",
            escape_literal(stored)
        );
        let row = server.ask(&ask).await?.pop().unwrap_or_default();
        rows += server.number::<f64>(&row, 0)?;
    }
    Ok(rows)
}
