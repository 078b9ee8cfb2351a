//! What a movement has come to, as people and programs read it.

use std::fmt::{self, Display, Formatter};
use std::time::Duration;

use serde::Serialize;
use switchyard_catalog::{CatalogDatabase, Movement};
use switchyard_router::backend::transfer::Transferred;
use switchyard_schema::Keys;

const MEGABYTE: f64 = 1e6;

/// What one run has done.
#[derive(Debug, Serialize, PartialEq)]
pub(crate) struct Report {
    /// The database.
    pub(crate) database: String,
    /// The version of the bucket map that is in force.
    pub(crate) epoch: u64,
    /// Transactions by which rows have moved.
    pub(crate) groups: usize,
    /// Buckets that have moved.
    pub(crate) buckets: usize,
    /// Rows that have moved.
    pub(crate) rows: u64,
    /// Their bytes, as they went.
    pub(crate) bytes: u64,
    /// How long it took.
    pub(crate) seconds: f64,
    /// It was told to stop before its end.
    pub(crate) paused: bool,
}

impl Report {
    pub(super) fn nothing(known: &CatalogDatabase) -> Report {
        Report {
            database: known.database.name.clone(),
            epoch: known.epoch,
            groups: 0,
            buckets: 0,
            rows: 0,
            bytes: 0,
            seconds: 0.0,
            paused: false,
        }
    }

    pub(super) fn moved(&mut self, keys: &Keys, moved: Transferred) {
        self.groups += 1;
        if let Keys::Buckets(buckets) = keys {
            self.buckets += buckets.len();
        }
        self.rows += moved.rows;
        self.bytes += moved.bytes;
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self {
            database,
            epoch,
            groups,
            buckets,
            rows,
            bytes,
            seconds,
            paused,
        } = self;
        let megabytes = *bytes as f64 / MEGABYTE;
        let end = if *paused { "; paused" } else { "" };
        writeln!(
            f,
            "database {database}: {buckets} buckets and {rows} rows in {groups} groups moved in {seconds:.1} s, {megabytes:.1} MB, epoch {epoch}{end}"
        )
    }
}

/// How it goes.
#[derive(Debug)]
pub(super) struct Progress {
    /// About how many rows the run was to move when it began.
    pub(super) expected: u64,
    /// The buckets that are left to move, and the tables without hash keys.
    pub(super) left: (usize, usize),
    /// How long it has been running.
    pub(super) since: Duration,
}

impl Progress {
    /// Says so, when a group has moved.
    pub(super) fn tell(&self, report: &Report, (rows, took): (u64, Duration)) {
        let (buckets, tables) = self.left;
        let left = self.expected.saturating_sub(report.rows);
        let seconds = self.since.as_secs_f64().max(f64::MIN_POSITIVE);
        let rate = report.rows as f64 / seconds;
        let megabytes = report.bytes as f64 / MEGABYTE / seconds;
        tracing::info!(
            rows,
            milliseconds = took.as_millis(),
            rows_left = left,
            buckets_left = buckets,
            tables_left = tables,
            rows_per_second = rate.round(),
            mb_per_second = (megabytes * 10.0).round() / 10.0,
            seconds_left = (left as f64 / rate.max(1.0)).round(),
            "a group has moved"
        );
    }
}

/// How far a movement is.
#[derive(Debug, Serialize, PartialEq, Eq)]
pub(crate) struct Status {
    /// The database.
    pub(crate) database: String,
    /// The version of the bucket map that is in force.
    pub(crate) epoch: u64,
    /// None, under way, paused, or there.
    pub(crate) state: State,
    /// Buckets that move in all.
    pub(crate) buckets: usize,
    /// Those of them that have not.
    pub(crate) left: usize,
    /// Tables without hash keys that are to be placed otherwise.
    pub(crate) tables: usize,
    /// Those of them that are not yet.
    pub(crate) tables_left: usize,
}

/// What a movement is doing.
#[derive(Debug, Clone, Copy, Serialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    /// There is none.
    None,
    /// Buckets are left to move.
    Moving,
    /// The same, but not for now.
    Paused,
    /// All have moved, and can be moved back.
    Moved,
}

impl Status {
    pub(super) fn of(known: &CatalogDatabase, movement: Option<&Movement>) -> Status {
        let progress =
            movement.map(|movement| switchyard_catalog::Progress::of(known, movement, false));
        let ([buckets, left], [tables, tables_left]) = progress
            .map_or(([0; 2], [0; 2]), |progress| {
                (progress.buckets, progress.tables)
            });
        let state = match movement.filter(|movement| movement.former != movement.target) {
            None => State::None,
            Some(_) if left == 0 && tables_left == 0 => State::Moved,
            Some(movement) if movement.paused => State::Paused,
            Some(_) => State::Moving,
        };
        Status {
            database: known.database.name.clone(),
            epoch: known.epoch,
            state,
            buckets,
            left,
            tables,
            tables_left,
        }
    }
}

impl Display for Status {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self {
            database,
            epoch,
            state,
            buckets,
            left,
            tables,
            tables_left,
        } = self;
        let moved = buckets.saturating_sub(*left);
        let placed = tables.saturating_sub(*tables_left);
        let of = match tables {
            0 => format!("{moved} of {buckets} buckets have moved"),
            _ => format!(
                "{moved} of {buckets} buckets have moved, {placed} of {tables} tables without hash keys are placed anew"
            ),
        };
        write!(f, "database {database}, epoch {epoch}: ")?;
        match state {
            State::None => writeln!(f, "nothing is moving"),
            State::Moving => writeln!(f, "{of}; `apply` goes on, `rollback` goes back"),
            State::Paused => writeln!(f, "{of}; paused until `resume`"),
            State::Moved => writeln!(f, "{of}; `finish` accepts it, `rollback` goes back"),
        }
    }
}
