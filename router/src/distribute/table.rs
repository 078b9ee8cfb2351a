//! The table that a change is about, as the first shard has it.

use postgres_protocol::escape::escape_literal;
use switchyard_schema::TableName;

use super::places::Places;
use super::refused;
use crate::execute::failure::Failure;
use crate::plan::distribute::Distribute;

/// What is asked of the first shard.
const LOOK: &str = "\
SELECT c.oid, n.nspname, c.relname, c.relkind, c.relpersistence, c.relispartition,
       pg_catalog.pg_has_role(c.relowner, 'USAGE'),
       EXISTS (SELECT FROM pg_catalog.pg_inherits i JOIN pg_catalog.pg_class k ON k.oid = i.inhrelid
                WHERE NOT k.relispartition AND c.oid IN (i.inhparent, i.inhrelid))
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE c.oid = pg_catalog.to_regclass(";

/// Materialized views that read a table, directly or by other views.
const MATERIALIZED: &str = "\
WITH RECURSIVE reading (oid) AS (
    SELECT $TABLE::pg_catalog.oid UNION
    SELECT r.ev_class FROM reading JOIN pg_catalog.pg_depend d ON d.refobjid = reading.oid
           JOIN pg_catalog.pg_rewrite r ON r.oid = d.objid
     WHERE d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
       AND d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass)
SELECT c.relname FROM reading JOIN pg_catalog.pg_class c ON c.oid = reading.oid WHERE c.relkind = 'm' LIMIT 1";

/// A relation as it was found.
pub(super) struct Found {
    oid: String,
    pub(super) name: TableName,
    kind: String,
    persistence: String,
    is_partition: bool,
    is_own: bool,
    inherits: bool,
}

/// The relation that a text means to the session; `None` if there is none.
pub(super) async fn find(places: &mut Places<'_>, text: &str) -> Result<Option<Found>, Failure> {
    let look = format!("{LOOK}{})", escape_literal(text));
    let Some(row) = places.ask(0, &look).await?.pop() else {
        return Ok(None);
    };
    let mut values = row.into_iter();
    let mut next = || values.next().flatten().unwrap_or_default();
    Ok(Some(Found {
        oid: next(),
        name: TableName::new(next(), next()),
        kind: next(),
        persistence: next(),
        is_partition: next() == "t",
        is_own: next() == "t",
        inherits: next() == "t",
    }))
}

impl Found {
    /// Whether it is a table whose rows can be somewhere else.
    pub(super) fn is_suitable(&self, wanted: &Distribute) -> Result<(), Failure> {
        let (name, function) = (&self.name.name, wanted.function());
        let no = |sqlstate, message: String, detail: &str| {
            Err(refused(sqlstate, message).detail(detail).into())
        };
        if !matches!(&*self.kind, "r" | "p") {
            let message = format!("\"{name}\" is not a table");
            return Err(refused("42809", message).into());
        }
        if !self.is_own {
            return Err(refused("42501", format!("must be owner of table {name}")).into());
        }
        if matches!(
            &*self.name.schema,
            "pg_catalog" | "information_schema" | "switchyard"
        ) {
            let message = format!("permission denied: \"{name}\" is a system catalog");
            return Err(refused("42501", message).into());
        }
        if self.persistence == "t" {
            let message = format!("{function} of the temporary table \"{name}\" is not supported");
            return no("0A000", message, "Temporary tables are on the first shard.");
        }
        if self.is_partition {
            let message = format!("{function} of the partition \"{name}\" is not supported");
            return no(
                "0A000",
                message,
                "A partition is where its parent's rows are.",
            );
        }
        if self.inherits {
            let message = format!("{function} of \"{name}\" is not supported");
            return no(
                "0A000",
                message,
                "It inherits from another table, or another one from it.",
            );
        }
        Ok(())
    }

    /// Whether no partitions have rows of it.
    pub(super) fn is_no_parent(&self, wanted: &Distribute) -> Result<(), Failure> {
        if self.kind != "p" {
            return Ok(());
        }
        let (name, function) = (&self.name.name, wanted.function());
        let message = format!("{function} of the partitioned table \"{name}\" is not supported");
        Err(refused("0A000", message)
            .detail(
                "A partition can be truncated, detached or dropped without the table being told.",
            )
            .into())
    }

    pub(super) async fn has_column(
        &self,
        places: &mut Places<'_>,
        column: &str,
    ) -> Result<(), Failure> {
        let query = format!(
            "SELECT FROM pg_catalog.pg_attribute WHERE attrelid = {} AND attname = {} AND attnum > 0 AND NOT attisdropped",
            self.oid,
            escape_literal(column)
        );
        let name = &self.name.name;
        match places.ask(0, &query).await?.is_empty() {
            false => Ok(()),
            true => Err(refused(
                "42703",
                format!("column \"{column}\" of relation \"{name}\" does not exist"),
            )
            .into()),
        }
    }

    /// One that reads it would have the rows of one shard.
    pub(super) async fn is_read_by_no_materialized_view(
        &self,
        places: &mut Places<'_>,
    ) -> Result<(), Failure> {
        let query = MATERIALIZED.replace("$TABLE", &self.oid);
        let rows = places.ask(0, &query).await?;
        let Some(view) = rows
            .into_iter()
            .next()
            .and_then(|row| row.into_iter().next()?)
        else {
            return Ok(());
        };
        let name = &self.name.name;
        Err(refused(
            "0A000",
            format!(
                "table \"{name}\" cannot be distributed: the materialized view \"{view}\" reads it"
            ),
        )
        .detail("Each shard would refresh it with the rows that it has itself.")
        .hint("Drop the view, and store the rows by CREATE TABLE AS instead.")
        .into())
    }
}
