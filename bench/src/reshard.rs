//! Rows that move from two shards to three and back while clients work, against what the same servers copy at best.
//!
//! One database of three colocated tables with indexes. All servers sync what they commit.

mod load;
mod stand;

use std::fmt::Write;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::gate::Gate;
use crate::options::ReshardPlan;
use crate::statistics::percentile;
use crate::{Error, say};
use load::Load;
use stand::{Stand, TABLES};

/// How long clients work before rows move under them.
const BEFORE: Duration = Duration::from_secs(10);

/// What was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// Rows in all tables, and bytes with their indexes.
    rows: u64,
    bytes: u64,
    /// Rows per second that `COPY | COPY` brings from both shards to the third at a time, into tables like those without and with indexes.
    copied: f64,
    copied_with_indexes: f64,
    /// Rows that move to the third shard, and how many per second while nobody works.
    moved: u64,
    moved_per_second: f64,
    /// Rows per second that are looked at afterwards.
    verified_per_second: f64,
    /// Milliseconds that the longest update took during each group of rows that moved back while clients worked: half of them, 99 of 100, all.
    groups: usize,
    pause_ms: [f64; 3],
    /// Milliseconds of an update before rows moved and meanwhile: half of them, 95 of 100, on average.
    before_ms: [f64; 3],
    meanwhile_ms: [f64; 3],
}

/// Starts servers and measures everything.
pub(crate) fn measure(plan: &ReshardPlan) -> Result<Report, Error> {
    say("starting PostgreSQL for resharding");
    let mut stand = Stand::raise()?;
    say(&format!("reshard: loading {} rows", plan.rows));
    let customers = stand.fill(plan.rows)?;
    let (rows, bytes) = stand.size()?;
    say("reshard: COPY | COPY between the same servers");
    let copied = stand.copy(false)?;
    let copied_with_indexes = stand.copy(true)?;
    say("reshard: to three shards");
    let there = stand.migrate("apply")?;
    let began = Instant::now();
    stand.migrate("verify")?;
    let verified_per_second = rows as f64 / began.elapsed().as_secs_f64();
    say("reshard: and back, while clients work");
    let load = Load::start(stand.port(), customers)?;
    std::thread::sleep(BEFORE);
    let turned = Instant::now();
    let back = stand.migrate("rollback")?;
    let updates = load.end()?;
    let (before, meanwhile): (Vec<_>, Vec<_>) =
        updates.iter().partition(|update| update.ended < turned);
    let milliseconds = |updates: &[load::Update]| -> Vec<f64> {
        updates.iter().map(load::Update::milliseconds).collect()
    };
    let pauses = load::pauses(&meanwhile, turned, &back.groups);
    let summary = |values: Vec<f64>| {
        let mean = values.iter().sum::<f64>() / values.len().max(1) as f64;
        [percentile(&values, 0.5), percentile(&values, 0.95), mean]
    };
    Ok(Report {
        rows,
        bytes,
        copied,
        copied_with_indexes,
        moved: there.rows,
        moved_per_second: there.rows as f64 / there.seconds,
        verified_per_second,
        groups: pauses.len(),
        pause_ms: [0.5, 0.99, 1.0].map(|share| percentile(&pauses, share)),
        before_ms: summary(milliseconds(&before)),
        meanwhile_ms: summary(milliseconds(&meanwhile)),
    })
}

impl Report {
    /// For people.
    pub(crate) fn write(&self, text: &mut String) -> std::fmt::Result {
        let [p50, p99, most] = self.pause_ms;
        writeln!(
            text,
            "\nResharding, {} rows in {} tables, {:.0} MB with their indexes",
            self.rows,
            TABLES.len(),
            self.bytes as f64 / 1e6
        )?;
        writeln!(
            text,
            "  COPY | COPY to the third shard    {:9.0} rows/s; with indexes in place {:.0}",
            self.copied, self.copied_with_indexes
        )?;
        writeln!(
            text,
            "  apply, two shards to three        {:9.0} rows/s, {} rows",
            self.moved_per_second, self.moved
        )?;
        writeln!(
            text,
            "  verify                            {:9.0} rows/s",
            self.verified_per_second
        )?;
        writeln!(
            text,
            "  longest update during each of {} groups: p50 {p50:.0} ms, p99 {p99:.0} ms, at most {most:.0} ms",
            self.groups
        )?;
        for (when, [p50, p95, mean]) in
            [("before", self.before_ms), ("meanwhile", self.meanwhile_ms)]
        {
            writeln!(
                text,
                "  updates {when:10} p50 {p50:.2} ms, p95 {p95:.2} ms, mean {mean:.2} ms"
            )?;
        }
        Ok(())
    }

    /// The demands.
    pub(crate) fn gates(&self) -> Vec<Gate> {
        let [pause, late, _] = self.pause_ms;
        let [usual, ..] = self.before_ms;
        let [now, ..] = self.meanwhile_ms;
        vec![
            Gate::at_least(
                "resharding: rows per second, × COPY | COPY",
                self.moved_per_second / self.copied,
                0.8,
            ),
            Gate::at_least(
                "resharding: rows per second",
                self.moved_per_second,
                20_000.0,
            ),
            Gate::at_least(
                "resharding: verify, × rows moved per second",
                self.verified_per_second / self.moved_per_second,
                1.0,
            ),
            Gate::at_most("resharding: writes pause for ms, p50", pause, 100.0),
            Gate::at_most("resharding: writes pause for ms, p99", late, 500.0),
            Gate::at_most(
                "resharding: latency of an update meanwhile, × before",
                now / usual,
                1.5,
            ),
        ]
    }
}
