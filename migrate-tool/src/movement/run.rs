//! One run of the program: group after group, until the map in force is the movement's target or it is told to stop.

use std::time::Duration;

use switchyard_catalog::{Movement, Step};
use switchyard_router::backend::TextRow;
use switchyard_schema::BucketMap;
use tokio::time::{Instant, sleep};

use super::group::Group;
use super::switchover::{self, Visit};
use super::tables::{self, Moving};
use super::{Error, Report, Work, groups, index, newcomer, report};
use crate::servers::{Server, ServerError};

/// So often a group is tried that clients are in the way of, and so long after the time before.
const ATTEMPTS: usize = 10;
const BETWEEN: Duration = Duration::from_secs(1);
/// The rows of the first group, and of the smallest: what a group takes besides its rows is worth that many.
const FEW: u64 = 1000;
/// So long the rows of a group are to take: they cannot be written meanwhile.
const AIM: Duration = Duration::from_millis(60);

/// Connections to all shards. After a failure they are made anew: PostgreSQL takes back what was done on the old ones.
#[derive(Debug)]
struct Crew {
    servers: Vec<Server>,
    visits: Vec<Visit>,
}

impl Crew {
    async fn assemble(work: &Work<'_>) -> Result<Crew, Error> {
        let servers = work.servers(None).await?;
        let visits = switchover::visits(work, &servers).await?;
        Ok(Crew { servers, visits })
    }
}

/// What a run knows.
#[derive(Debug)]
pub(super) struct Run {
    crew: Crew,
    tables: Vec<Moving>,
    /// Their columns.
    shapes: Vec<TextRow>,
    /// Shards whose tables have an index on the bucket.
    indexed: Vec<usize>,
    /// About how many rows the next group has, and the most it may have.
    rows: u64,
    most: u64,
    /// How often the present group has been tried in vain.
    failures: usize,
    began: Instant,
    report: Report,
}

impl Run {
    /// Looks whether all can take part.
    pub(super) async fn begin(work: &mut Work<'_>, most: u64) -> Result<Run, Error> {
        let mut crew = Crew::assemble(work).await?;
        newcomer::can_take_part(&mut crew.servers).await?;
        let mut run = Run {
            crew,
            tables: Vec::new(),
            shapes: Vec::new(),
            indexed: Vec::new(),
            rows: FEW.min(most),
            most,
            failures: 0,
            began: Instant::now(),
            report: Report::nothing(&work.known),
        };
        run.learn_tables(work).await?;
        Ok(run)
    }

    /// Looks at the tables.
    async fn learn_tables(&mut self, work: &Work<'_>) -> Result<(), Error> {
        let servers = &mut self.crew.servers;
        self.tables = tables::moving(&work.known.database, servers).await?;
        if let Some(first) = servers.first_mut() {
            self.shapes = tables::shapes(&self.tables, first).await?;
        }
        self.indexed.clear();
        Ok(())
    }

    /// Moves group after group.
    pub(super) async fn finish(mut self, work: &mut Work<'_>) -> Result<Report, Error> {
        while let Some(movement) = work.movement().await? {
            let left = groups(&work.known.buckets, &movement.target);
            self.report.paused = movement.paused && !left.is_empty();
            let Some(whole) = left.first().filter(|_| !movement.paused) else {
                break;
            };
            self.step(work, whole, &movement).await?;
        }
        if !self.report.paused {
            index::remove(&mut self.crew.servers).await?;
            tables::analyze(&self.tables, &mut self.crew.servers).await?;
        }
        self.report.seconds = self.began.elapsed().as_secs_f64();
        self.report.epoch = work.known.epoch;
        Ok(self.report)
    }

    /// Moves some of these buckets.
    async fn step(
        &mut self,
        work: &mut Work<'_>,
        whole: &Group,
        movement: &Movement,
    ) -> Result<(), Error> {
        let source = self
            .crew
            .servers
            .get_mut(whole.from)
            .ok_or(Error::Unsteady)?;
        if !self.indexed.contains(&whole.from) {
            index::make(source, &self.tables).await?;
            self.indexed.push(whole.from);
        }
        let group = part(whole, &work.known.buckets, source, &self.tables, self.rows).await?;
        let started = Instant::now();
        match self.move_group(work, &group).await {
            Ok(Some(rows)) => {
                self.failures = 0;
                self.report.moved(&group, rows);
                let left = report::differing(&work.known.buckets, &movement.target);
                let left = left - group.buckets.len();
                report::tell(
                    &self.report,
                    (rows, started.elapsed()),
                    left,
                    self.began.elapsed(),
                );
            }
            // Tables have been distributed or altered meanwhile.
            Ok(None) => {
                self.failed(Error::Unsteady)?;
                self.crew = Crew::assemble(work).await?;
                work.refresh().await?;
                self.learn_tables(work).await?;
            }
            Err(Error::Server(error)) if is_in_the_way(&error) => {
                tracing::info!(reason = %error, "clients are in the way, or what an earlier run has left: trying again");
                self.failed(Error::Server(error))?;
                sleep(BETWEEN).await;
                self.crew = Crew::assemble(work).await?;
                switchover::settle(work, &mut self.crew.servers).await?;
            }
            Err(error) => return Err(error),
        }
        work.refresh().await
    }

    /// Moves a group; the number of its rows. `None`: the catalog is not what it was.
    async fn move_group(
        &mut self,
        work: &mut Work<'_>,
        group: &Group,
    ) -> Result<Option<u64>, Error> {
        let Crew { servers, visits } = &mut self.crew;
        let pair = servers.get_disjoint_mut([group.from, group.to]);
        let [source, target] = pair.map_err(|_| Error::Unsteady)?;
        let began = Instant::now();
        let tables = (&*self.tables, &*self.shapes);
        let Some(rows) = group.fill(tables, (source, target)).await? else {
            return Ok(None);
        };
        let took = began.elapsed();
        let mut owners = work.known.buckets.owners().to_vec();
        for bucket in &group.buckets {
            owners[usize::from(bucket.number())] = target.shard;
        }
        let shards = work.known.database.shards.len();
        let map = BucketMap::from_owners(owners, shards).map_err(|_| Error::Unsteady)?;
        let moved =
            switchover::run(work, &mut [source, target], visits, Step::Buckets(&map)).await?;
        self.fit(took);
        Ok(moved.then_some(rows))
    }

    /// The next group is as large as this one should have been, whose rows took so long.
    fn fit(&mut self, took: Duration) {
        let rows = self.rows as f64;
        let fitting = rows * AIM.as_secs_f64() / took.as_secs_f64().max(f64::MIN_POSITIVE);
        let fitting = fitting.clamp(rows / 2.0, rows * 2.0) as u64;
        self.rows = fitting.max(FEW).min(self.most);
    }

    /// A group has not moved: not too often.
    fn failed(&mut self, error: Error) -> Result<(), Error> {
        self.failures += 1;
        match self.failures <= ATTEMPTS {
            true => Ok(()),
            false => Err(error),
        }
    }
}

/// As much of a group as has about so many rows.
async fn part(
    whole: &Group,
    map: &BucketMap,
    source: &mut Server,
    tables: &[Moving],
    rows: u64,
) -> Result<Group, Error> {
    let there = index::estimate(source, tables).await?;
    let owners = map.owners().iter();
    let owned = owners
        .filter(|owner| owner.position() == whole.from)
        .count()
        .max(1);
    let each = (there / owned as f64).max(f64::MIN_POSITIVE);
    let count = ((rows as f64 / each) as usize).clamp(1, whole.buckets.len());
    Ok(Group {
        buckets: whole.buckets[..count].to_vec(),
        ..whole.clone()
    })
}

/// Whether clients are the reason, who go on.
fn is_in_the_way(error: &ServerError) -> bool {
    matches!(
        error.sqlstate(),
        Some("40P01" | "55P03" | "57014" | "40001")
    )
}
