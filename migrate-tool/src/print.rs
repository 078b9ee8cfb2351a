//! A plan as people read it.

use std::fmt::{self, Display, Formatter};

use switchyard_schema::BUCKETS;

use crate::movement::{Amount, Survey};
use crate::plan::{Change, DatabasePlan, Plan, ShardPlan, TablePlan};

impl Display for Plan {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for database in &self.databases {
            write_database(database, f)?;
        }
        let moving: usize = self.databases.iter().map(|d| d.buckets_to_move).sum();
        let changed = self.databases.iter().any(|d| d.change != Change::None);
        if !self.compared {
            writeln!(
                f,
                "Nothing to compare with: the file has no [catalog], so it is the whole truth."
            )
        } else if moving > 0 {
            writeln!(f, "{moving} buckets to move.")
        } else if changed && self.databases.iter().any(moves_rows) {
            writeln!(f, "No buckets to move, but rows of other tables.")
        } else if changed {
            writeln!(f, "No buckets to move.")
        } else {
            writeln!(f, "Nothing to do: the catalog is as the file wants it.")
        }
    }
}

fn moves_rows(database: &DatabasePlan) -> bool {
    database
        .survey
        .as_ref()
        .is_some_and(|survey| survey.rows > 0)
}

fn write_database(database: &DatabasePlan, f: &mut Formatter<'_>) -> fmt::Result {
    write!(f, "database {}{}", database.name, word(database.change, ""))?;
    match database.epoch {
        Some(epoch) => writeln!(f, ", compared with epoch {epoch} of the catalog")?,
        None => writeln!(f)?,
    }
    let shards = database.shards.iter().map(shard_cells);
    let head = ["shard", "weight", "buckets", "share", ""].map(str::to_owned);
    write_columns(std::iter::once(head).chain(shards).collect(), f)?;
    let tables = database.tables.iter().map(table_cells);
    let head = ["table", "placement", ""].map(str::to_owned);
    if !database.tables.is_empty() {
        write_columns(std::iter::once(head).chain(tables).collect(), f)?;
    }
    for difference in &database.differences {
        writeln!(f, "  differs: {difference}")?;
    }
    for step in &database.moves {
        writeln!(
            f,
            "  move {} buckets from {} to {}",
            step.count, step.from, step.to
        )?;
    }
    if let Some(survey) = &database.survey {
        write_survey(survey, f)?;
    }
    writeln!(f)
}

fn write_survey(survey: &Survey, f: &mut Formatter<'_>) -> fmt::Result {
    for Amount {
        table,
        from,
        to,
        rows,
        bytes,
    } in &survey.amounts
    {
        let size = Size(*bytes);
        writeln!(
            f,
            "  move about {rows} rows of {table} ({size}) from {from} to {to}"
        )?;
    }
    if survey.rows > 0 {
        let (rows, size, seconds) = (survey.rows, Size(survey.bytes), survey.seconds);
        writeln!(
            f,
            "  in all about {rows} rows ({size}), in about {seconds} s"
        )?;
    }
    for need in &survey.needs {
        let (disk, wal) = (Size(need.disk_bytes), Size(need.wal_bytes));
        writeln!(
            f,
            "  {} needs about {disk} of disk, and {wal} of WAL",
            need.shard
        )?;
    }
    for what in &survey.stays {
        writeln!(f, "  stays: {what}")?;
    }
    for reason in &survey.against {
        writeln!(f, "  in the way: {reason}")?;
    }
    Ok(())
}

/// Bytes as people read them.
struct Size(u64);

impl Display for Size {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            bytes @ ..1_000_000 => write!(f, "{:.1} kB", bytes as f64 / 1e3),
            bytes @ ..1_000_000_000 => write!(f, "{:.1} MB", bytes as f64 / 1e6),
            bytes => write!(f, "{:.1} GB", bytes as f64 / 1e9),
        }
    }
}

fn shard_cells(shard: &ShardPlan) -> [String; 5] {
    let share = shard.buckets as f64 * 100.0 / BUCKETS as f64;
    let buckets = match shard.buckets_now {
        Some(now) if now != shard.buckets => format!("{now} -> {}", shard.buckets),
        _ => shard.buckets.to_string(),
    };
    [
        shard.name.clone(),
        shard.weight.to_string(),
        buckets,
        format!("{share:.2} %"),
        word(shard.change, "another weight"),
    ]
}

fn table_cells(table: &TablePlan) -> [String; 3] {
    let note = match &table.placement_now {
        Some(now) => format!("was {now}"),
        None => word(table.change, ""),
    };
    [table.name.clone(), table.placement.clone(), note]
}

/// What a change is called; `changed` depends on what it is that changed.
fn word(change: Change, changed: &str) -> String {
    match change {
        Change::None => String::new(),
        Change::New => " (new)".to_owned(),
        Change::Gone => " (no longer in the file)".to_owned(),
        Change::Changed if changed.is_empty() => String::new(),
        Change::Changed => format!(" ({changed})"),
    }
}

/// Rows of cells, each column as wide as its widest cell.
fn write_columns<const N: usize>(rows: Vec<[String; N]>, f: &mut Formatter<'_>) -> fmt::Result {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: [usize; N] = std::array::from_fn(|column| width(column).unwrap_or(0));
    for row in &rows {
        let cells = row.iter().zip(widths);
        let line: Vec<String> = cells
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        writeln!(f, "  {}", line.join("  ").trim_end())?;
    }
    Ok(())
}
