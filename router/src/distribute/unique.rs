//! Global unique indexes: made and filled, or dropped, with the table locked on all shards (ADR 0021).

use postgres_protocol::escape::{escape_identifier, escape_literal};
use switchyard_schema::{BucketMap, Distribution, Method, ShardKey, Table, TableName, bucket_sql};

use super::places::Places;
use super::table::Found;
use super::{Change, Request, changed, moves, problem_with, refused};
use crate::backend::transfer::transfer;
use crate::config::Settings;
use crate::execute::failure::Failure;

/// What keeps an index, on each shard.
const CREATE: &str = include_str!("unique.sql");
/// The longest name that leaves room for those that are made of it.
const MOST: usize = 43;

/// The type of a column, in SQL.
const TYPE: &str = "\
SELECT pg_catalog.concat(pg_catalog.format_type(a.atttypid, a.atttypmod),
           CASE WHEN a.attcollation <> t.typcollation THEN pg_catalog.concat(' COLLATE ', a.attcollation::pg_catalog.regcollation) END)
  FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
 WHERE a.attrelid = $TABLE::pg_catalog.regclass AND a.attname = $COLUMN AND a.attnum > 0 AND NOT a.attisdropped";

/// The table of an index; no row: it is no index.
const TABLE: &str = "\
SELECT t.nspname, t.relname FROM pg_catalog.pg_proc p
  LEFT JOIN (SELECT t.tgfoid, n.nspname, c.relname FROM pg_catalog.pg_trigger t
               JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace) t
       ON t.tgfoid = p.oid
 WHERE p.oid = pg_catalog.to_regprocedure($RECORD) LIMIT 1";

/// An index of a table.
struct Made<'a> {
    table: &'a TableName,
    index: &'a TableName,
    column: &'a str,
    key: &'a str,
}

/// Makes the index, and fills it: how the table of its values is distributed is what is still to be recorded.
pub(super) async fn create(
    request: &Request<'_>,
    (column, name): (&str, Option<&str>),
    (places, found): (&mut Places<'_>, &Found),
    settings: &Settings,
) -> Result<Change, Failure> {
    let schema = &request.database.schema;
    let table = &found.name;
    found.is_suitable(request.wanted)?;
    found.is_no_parent(request.wanted)?;
    let key = shard_key(schema.table(table), table)?;
    found.has_column(places, column).await?;
    if key == column {
        let message = format!("column \"{column}\" is the shard key of table \"{table}\"");
        return Err(holds(message).into());
    }
    let own = format!("{}_{column}_key", table.name);
    let index = TableName::new(&table.schema, name.unwrap_or(&own));
    if index.name.len() > MOST {
        let message = format!("the index name \"{}\" is too long", index.name);
        let hint = format!("Give it one of at most {MOST} bytes: index_name => '…'.");
        return Err(refused("42622", message).hint(hint).into());
    }
    // Its values are to be a shard key.
    let as_key = changed(schema, table, None, by_hash(column));
    if let Some(problem) = problem_with(request, places, &as_key).await? {
        let message =
            format!("column \"{column}\" of table \"{table}\" cannot be unique across shards");
        return Err(refused("0A000", message)
            .detail(format!("It cannot be a shard key: {problem}."))
            .into());
    }
    let locked = changed(schema, table, None, by_hash(key));
    places.lock(&locked, settings).await?;
    places.in_transaction = true;
    places.compare(&locked).await?;
    let made = Made {
        table,
        index: &index,
        column,
        key,
    };
    made.create(places).await?;
    made.fill(places, &request.database.buckets).await?;
    Ok(changed(schema, &index, None, by_hash(column)))
}

/// Drops an index.
pub(super) async fn drop(
    request: &Request<'_>,
    (places, found): (&mut Places<'_>, &Found),
    settings: &Settings,
) -> Result<Change, Failure> {
    let schema = &request.database.schema;
    let index = &found.name;
    found.is_suitable(request.wanted)?;
    let record = format!("{}()", part_of(index, "_record"));
    let query = TABLE.replace("$RECORD", &escape_literal(&record));
    let Some(row) = places.ask(0, &query).await?.pop() else {
        let message = format!("\"{index}\" is not a global unique index");
        return Err(refused("42809", message).into());
    };
    let mut values = row.into_iter().flatten();
    let locked = match (values.next(), values.next()) {
        (Some(schema), Some(name)) => TableName::new(schema, name),
        // The table is gone.
        _ => index.clone(),
    };
    let before = schema.table(index).map(|table| table.distribution.clone());
    places
        .lock(&changed(schema, &locked, None, None), settings)
        .await?;
    places.in_transaction = true;
    let sql = drop_sql(index);
    for shard in 0..places.len() {
        places.ask(shard, &sql).await?;
    }
    Ok(changed(schema, index, before, None))
}

/// Drops all that keeps an index.
pub(crate) fn drop_sql(index: &TableName) -> String {
    format!(
        "DROP FUNCTION {}(), {}(), {}(pg_catalog.int8, pg_catalog.int4), {}(pg_catalog.text[]), {}(pg_catalog.text) CASCADE; DROP TABLE IF EXISTS {}, {}",
        part_of(index, "_record"),
        part_of(index, "_check"),
        part_of(index, "_take"),
        part_of(index, "_apply"),
        part_of(index, "_find"),
        part_of(index, "_changes"),
        part_of(index, ""),
    )
}

/// The name in SQL of what belongs to an index.
pub(crate) fn part_of(table: &TableName, suffix: &str) -> String {
    let name = format!("{}{suffix}", table.name);
    format!(
        "{}.{}",
        escape_identifier(&table.schema),
        escape_identifier(&name)
    )
}

fn by_hash(column: &str) -> Option<Distribution> {
    Some(Distribution::Sharded(ShardKey {
        column: column.to_owned(),
        method: Method::Hash,
        colocate_with: None,
    }))
}

/// The column that is the shard key.
fn shard_key<'a>(known: Option<&'a Table>, table: &TableName) -> Result<&'a str, Failure> {
    match known.map(|known| &known.distribution) {
        Some(Distribution::Sharded(key)) => Ok(&key.column),
        Some(Distribution::Reference) | None => {
            Err(holds(format!("table \"{table}\" is not sharded")).into())
        }
    }
}

fn holds(message: String) -> crate::plan::Refusal {
    refused("42809", message).hint("A UNIQUE constraint of PostgreSQL's own holds there.")
}

impl Made<'_> {
    /// Makes what keeps it, on every shard.
    async fn create(&self, places: &mut Places<'_>) -> Result<(), Failure> {
        let column_type = self.type_of(places, self.column).await?;
        let key_type = self.type_of(places, self.key).await?;
        let trigger =
            |what: &str| escape_identifier(&format!("switchyard_{what}:{}", self.index.name));
        let sql = CREATE
            .replace("$COLUMN_TYPE", &column_type)
            .replace("$KEY_TYPE", &key_type)
            .replace(
                "$TABLE_LITERAL",
                &escape_literal(&format!("\"{}\"", self.table)),
            )
            .replace(
                "$INDEX_LITERAL",
                &escape_literal(&format!("\"{}\"", self.index)),
            )
            .replace("$ROWS", &trigger("rows"))
            .replace("$UPDATES", &trigger("updates"))
            .replace("$TRUNCATES", &trigger("truncates"))
            .replace("$BUCKET", &bucket_sql("g.value"))
            .replace("$CHANGES", &part_of(self.index, "_changes"))
            .replace("$RECORD", &part_of(self.index, "_record"))
            .replace("$CHECK", &part_of(self.index, "_check"))
            .replace("$TAKE", &part_of(self.index, "_take"))
            .replace("$APPLY", &part_of(self.index, "_apply"))
            .replace("$FIND", &part_of(self.index, "_find"))
            .replace("$INDEX_NAME", &escape_literal(&part_of(self.index, "")))
            .replace("$TABLE_NAME", &escape_literal(&part_of(self.table, "")))
            .replace("$INDEX", &part_of(self.index, ""))
            .replace("$TABLE", &part_of(self.table, ""))
            .replace("$COLUMN", &escape_identifier(self.column))
            .replace("$KEY", &escape_identifier(self.key));
        for shard in 0..places.len() {
            places.ask(shard, &sql).await?;
        }
        Ok(())
    }

    async fn type_of(&self, places: &mut Places<'_>, column: &str) -> Result<String, Failure> {
        let query = TYPE
            .replace("$TABLE", &escape_literal(&part_of(self.table, "")))
            .replace("$COLUMN", &escape_literal(column));
        let mut rows = places.ask(0, &query).await?;
        let value = rows.pop().and_then(|row| row.into_iter().next()?);
        value.ok_or(Failure::Retry)
    }

    /// Brings every value to its shard. None may be there twice.
    async fn fill(&self, places: &mut Places<'_>, buckets: &BucketMap) -> Result<(), Failure> {
        let (table, index) = (part_of(self.table, ""), part_of(self.index, ""));
        let column = escape_identifier(self.column);
        let columns = format!("{column}, {}", escape_identifier(self.key));
        for from in 0..places.len() {
            for to in 0..places.len() {
                let values = format!(
                    "SELECT {columns} FROM ONLY {table} WHERE {column} IS NOT NULL AND {}",
                    moves::owned(self.column, buckets, to)
                );
                if from == to {
                    places
                        .ask(to, &format!("INSERT INTO {index} {values}"))
                        .await?;
                    continue;
                }
                let out = format!("COPY ({values}) TO STDOUT (FORMAT binary)");
                let copy = format!("COPY {index} FROM STDIN (FORMAT binary)");
                let (source, target) = places.pair(from, to);
                let moved = transfer((source.connection(), &out), (target.connection(), &copy));
                let moved = moved.await;
                moved.map_err(|error| moves::failure(places, error, (from, to)))?;
            }
        }
        for shard in 0..places.len() {
            self.refuse_duplicates(places, shard).await?;
            let add = format!("ALTER TABLE {index} ADD PRIMARY KEY ({column})");
            places.ask(shard, &add).await?;
        }
        Ok(())
    }

    /// As PostgreSQL does where an index cannot be made.
    async fn refuse_duplicates(
        &self,
        places: &mut Places<'_>,
        shard: usize,
    ) -> Result<(), Failure> {
        let column = escape_identifier(self.column);
        let query = format!(
            "SELECT pg_catalog.concat('Key (', pg_catalog.quote_ident({}), ')=(', {column}, ') is duplicated.')
               FROM {} GROUP BY {column} HAVING pg_catalog.count(*) > 1 ORDER BY {column} LIMIT 1",
            escape_literal(self.column),
            part_of(self.index, "")
        );
        let Some(row) = places.ask(shard, &query).await?.pop() else {
            return Ok(());
        };
        let detail = row.into_iter().next().flatten().unwrap_or_default();
        let message = format!("could not create unique index \"{}\"", self.index.name);
        Err(refused("23505", message).detail(detail).into())
    }
}
