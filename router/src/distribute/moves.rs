//! Moves a table's rows to where they are to be, inside the transaction that has it locked.

use postgres_protocol::escape::{escape_identifier, escape_literal};
use switchyard_schema::{BucketMap, Distribution, owner_sql, shard_sql};

use super::places::Places;
use super::{Change, refused};
use crate::backend::transfer::{TransferError, transfer};
use crate::execute::failure::Failure;

/// Triggers of the user's that would fire: rows that are moved have not been inserted or deleted.
const TRIGGERS: &str = "\
SELECT t.tgrelid::pg_catalog.regclass, pg_catalog.quote_ident(t.tgname), t.tgenabled
  FROM pg_catalog.pg_trigger t
 WHERE NOT t.tgisinternal AND t.tgenabled <> 'D'
   AND (t.tgrelid = $TABLE::pg_catalog.regclass
        OR t.tgrelid IN (SELECT relid FROM pg_catalog.pg_partition_tree($TABLE::pg_catalog.regclass)))";

/// Moves the rows.
pub(super) async fn run(
    places: &mut Places<'_>,
    change: &Change,
    buckets: &BucketMap,
) -> Result<(), Failure> {
    let filled = filled(places, change).await?;
    match (&change.before, &change.after) {
        (None, Some(after)) => {
            if let Some(other) = (1..places.len()).find(|index| filled[*index]) {
                return Err(leftovers(change, &places.shard(other).name));
            }
            if !filled[0] || places.len() == 1 {
                return Ok(());
            }
            spread(places, change, after, buckets).await
        }
        (Some(before), None) => gather(places, change, before, &filled).await,
        (Some(_), Some(_)) | (None, None) => Ok(()),
    }
}

/// Which shards have rows of it.
async fn filled(places: &mut Places<'_>, change: &Change) -> Result<Vec<bool>, Failure> {
    let query = format!("SELECT EXISTS (SELECT FROM {})", change.sql_name());
    let mut filled = Vec::with_capacity(places.len());
    for index in 0..places.len() {
        let rows = places.ask(index, &query).await?;
        let value = rows.first().and_then(|row| row.first()?.as_deref());
        filled.push(value == Some("t"));
    }
    Ok(filled)
}

/// Rows that nobody has seen since the table is unsharded must not come to light.
fn leftovers(change: &Change, shard: &str) -> Failure {
    let table = &change.table;
    let message = format!(
        "shard \"{shard}\" has rows of table \"{table}\", whose rows are on the first shard"
    );
    refused("55000", message)
        .hint(format!(
            "Look at them, and remove them: /* switchyard: shard={shard} */ TRUNCATE {table}."
        ))
        .into()
}

/// From the first shard to those of the keys, or to all.
async fn spread(
    places: &mut Places<'_>,
    change: &Change,
    after: &Distribution,
    buckets: &BucketMap,
) -> Result<(), Failure> {
    let table = change.sql_name();
    let place = match (after, change.key_type) {
        (Distribution::Reference, _) => None,
        (Distribution::Sharded(key), Some(key_type)) => {
            let column = escape_identifier(&key.column);
            let place = shard_sql(&key.method, key_type, &column, buckets);
            Some(place.map_err(|error| refused("0A000", error.to_string()))?)
        }
        (Distribution::Sharded(_), None) => return Err(Failure::Retry),
    };
    let mut moved = 0;
    let quiet = quieten_all(places, change).await?;
    for index in 1..places.len() {
        let condition = match &place {
            None => String::new(),
            Some(place) => format!(" WHERE {place} = {index}"),
        };
        moved += copy(places, change, (0, index), &condition).await?;
    }
    if let Some(place) = place {
        let elsewhere = format!("DELETE FROM {table} WHERE {place} <> 0");
        let deleted = deleted(places, 0, &elsewhere).await?;
        if deleted != moved {
            return Err(lost(change, moved, deleted));
        }
    }
    wake_all(places, &quiet).await
}

/// From all shards to the first.
async fn gather(
    places: &mut Places<'_>,
    change: &Change,
    before: &Distribution,
    filled: &[bool],
) -> Result<(), Failure> {
    if !filled.iter().skip(1).any(|filled| *filled) {
        return Ok(());
    }
    let quiet = quieten_all(places, change).await?;
    let everything = format!("DELETE FROM {}", change.sql_name());
    for index in 1..places.len() {
        let moved = match before {
            Distribution::Sharded(_) => copy(places, change, (index, 0), "").await?,
            // The first has them all.
            Distribution::Reference => 0,
        };
        let deleted = deleted(places, index, &everything).await?;
        if matches!(before, Distribution::Sharded(_)) && deleted != moved {
            return Err(lost(change, moved, deleted));
        }
    }
    wake_all(places, &quiet).await
}

/// True of the rows whose hash keys are a shard's.
pub(super) fn owned(key: &str, buckets: &BucketMap, shard: usize) -> String {
    let owner = owner_sql(&escape_identifier(key), buckets);
    format!("({owner} = {shard})")
}

async fn copy(
    places: &mut Places<'_>,
    change: &Change,
    (from, to): (usize, usize),
    condition: &str,
) -> Result<u64, Failure> {
    let table = change.sql_name();
    let columns: Vec<String> = places
        .columns(0, change)
        .await?
        .into_iter()
        .filter(|row| {
            row.get(3)
                .is_some_and(|generated| generated.as_deref() == Some(""))
        })
        .filter_map(|row| row.into_iter().next()?)
        .collect();
    let columns = columns.join(", ");
    let copy_out =
        format!("COPY (SELECT {columns} FROM {table}{condition}) TO STDOUT (FORMAT binary)");
    let copy_in = format!("COPY {table} ({columns}) FROM STDIN (FORMAT binary)");
    let (source, target) = places.pair(from, to);
    let moved = transfer(
        (source.connection(), &copy_out),
        (target.connection(), &copy_in),
    );
    let moved = moved.await;
    let moved = moved.map_err(|error| failure(places, error, (from, to)))?;
    Ok(moved.rows)
}

/// What an error between two shards is to the client.
pub(super) fn failure(
    places: &Places<'_>,
    error: TransferError,
    (from, to): (usize, usize),
) -> Failure {
    match error {
        TransferError::Source(error) => places.failure(from, error.into()),
        TransferError::Target(error) => places.failure(to, error.into()),
    }
}

/// Runs a DELETE; the number of rows.
async fn deleted(places: &mut Places<'_>, index: usize, delete: &str) -> Result<u64, Failure> {
    let count = format!("WITH gone AS ({delete} RETURNING 1) SELECT count(*) FROM gone");
    let rows = places.ask(index, &count).await?;
    let count = rows
        .first()
        .and_then(|row| row.first()?.as_deref()?.parse().ok());
    count.ok_or(Failure::Retry)
}

fn lost(change: &Change, moved: u64, deleted: u64) -> Failure {
    let table = &change.table;
    refused(
        "XX000",
        format!("{moved} rows of table \"{table}\" were moved, but {deleted} deleted"),
    )
    .into()
}

/// Switches triggers off on every shard; what switches them on again.
async fn quieten_all(
    places: &mut Places<'_>,
    change: &Change,
) -> Result<Vec<(usize, String)>, Failure> {
    let query = TRIGGERS.replace("$TABLE", &escape_literal(&change.sql_name()));
    let mut quiet = Vec::new();
    for index in 0..places.len() {
        for row in places.ask(index, &query).await? {
            let mut values = row.into_iter().map(Option::unwrap_or_default);
            let mut next = || values.next().unwrap_or_default();
            let (table, trigger, enabled) = (next(), next(), next());
            let how = match &*enabled {
                "R" => " REPLICA",
                "A" => " ALWAYS",
                _ => "",
            };
            let off = format!("ALTER TABLE ONLY {table} DISABLE TRIGGER {trigger}");
            places.ask(index, &off).await?;
            quiet.push((
                index,
                format!("ALTER TABLE ONLY {table} ENABLE{how} TRIGGER {trigger}"),
            ));
        }
    }
    Ok(quiet)
}

/// Switches the triggers on again. Constraints that wait for the end are looked at now: a table that has some left cannot be altered.
async fn wake_all(places: &mut Places<'_>, quiet: &[(usize, String)]) -> Result<(), Failure> {
    for index in 0..places.len() {
        places.ask(index, "SET CONSTRAINTS ALL IMMEDIATE").await?;
    }
    for (index, on) in quiet {
        places.ask(*index, on).await?;
    }
    Ok(())
}
