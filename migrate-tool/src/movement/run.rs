//! One run of the program: group after group, until the layout in force is the movement's target or it is told to stop.

use std::time::Duration;

use futures_util::future::try_join_all;
use switchyard_catalog::{Layout, Movement, Step};
use switchyard_schema::Shift;
use tokio::time::{Instant, sleep};

use super::family::Family;
use super::group::{Filled, Group};
use super::part::part;
use super::switchover;
use super::visit::{self, Visit};
use super::{Error, Pace, Report, Work, index, newcomer, report, strangers, survey};
use crate::servers::{Server, ServerError};

/// So often a group is tried that clients are in the way of, and so long after the time before.
const ATTEMPTS: usize = 10;
const BETWEEN: Duration = Duration::from_secs(1);
/// The rows of the first group, and of the smallest: what a group takes besides its rows is worth that many.
const FEW: u64 = 1000;
/// So long the rows of a group are to take where clients wait for them: they cannot be written meanwhile.
const AIM: Duration = Duration::from_millis(60);
/// The same where nobody does.
const ALONE: Duration = Duration::from_secs(1);
/// So many times as many rows a group may have as the one before it.
const GROWTH: f64 = 4.0;

/// Connections to all shards. After a failure they are made anew: PostgreSQL takes back what was done on the old ones.
#[derive(Debug)]
struct Crew {
    servers: Vec<Server>,
    visits: Vec<Visit>,
}

impl Crew {
    async fn assemble(work: &Work<'_>) -> Result<Crew, Error> {
        let servers = work.servers(None).await?;
        let visits = visit::visits(work, &servers).await?;
        Ok(Crew { servers, visits })
    }
}

/// What a run knows.
#[derive(Debug)]
pub(super) struct Run {
    crew: Crew,
    families: Vec<Family>,
    /// Families whose tables have indexes by which groups are found.
    indexed: Vec<usize>,
    /// About how many rows the next group has.
    rows: u64,
    /// So long its rows are to take.
    aim: Duration,
    pace: Pace,
    /// Nothing may move at the moment.
    is_held_up: bool,
    /// How often the present group has been tried in vain.
    failures: usize,
    began: Instant,
    /// About how many rows were left to move then.
    expected: u64,
    report: Report,
}

impl Run {
    /// Looks whether all can take part. What an earlier run has left may keep tables from being looked at, until routers have ended it.
    pub(super) async fn begin(work: &mut Work<'_>, pace: &Pace) -> Result<Run, Error> {
        for _ in 0..ATTEMPTS {
            match Self::try_begin(work, pace).await {
                Err(Error::Server(error)) if is_in_the_way(&error) => {
                    tracing::info!(reason = %error, "tables cannot be looked at yet: trying again");
                    sleep(BETWEEN).await;
                }
                begun => return begun,
            }
        }
        Self::try_begin(work, pace).await
    }

    async fn try_begin(work: &mut Work<'_>, pace: &Pace) -> Result<Run, Error> {
        let mut crew = Crew::assemble(work).await?;
        newcomer::can_take_part(&mut crew.servers).await?;
        let mut run = Run {
            crew,
            families: Vec::new(),
            indexed: Vec::new(),
            rows: FEW.min(pace.group_rows),
            aim: AIM,
            pace: pace.clone(),
            is_held_up: false,
            failures: 0,
            began: Instant::now(),
            expected: 0,
            report: Report::nothing(&work.known),
        };
        run.learn_tables(work).await?;
        if let Some(movement) = work.movement().await? {
            let servers = &mut run.crew.servers;
            let left = survey::rows_left(&work.known, &movement.target, &run.families, servers);
            run.expected = left.await?;
        }
        run.began = Instant::now();
        Ok(run)
    }

    /// Keeps routers from the shards that have become silent since this was last done.
    async fn shut_out(&mut self, work: &mut Work<'_>) -> Result<(), Error> {
        if work.lease.routers().await?.silent.is_empty() {
            return Ok(());
        }
        let Crew { servers, visits } = &mut self.crew;
        strangers::shut_out(work, servers, visits).await
    }

    /// Looks at the tables.
    async fn learn_tables(&mut self, work: &mut Work<'_>) -> Result<(), Error> {
        self.indexed.clear();
        let Some(movement) = work.movement().await? else {
            return Ok(());
        };
        let servers = &mut self.crew.servers;
        let (families, against) = Family::all(&work.known, &movement.target, servers).await?;
        self.families = families;
        against.into_iter().next().map_or(Ok(()), Err)
    }

    /// Moves group after group.
    pub(super) async fn finish(mut self, work: &mut Work<'_>) -> Result<Report, Error> {
        while let Some(movement) = work.movement().await? {
            let target = work.known.aimed(&movement.target);
            let now = work.known.layout();
            if now == target {
                break;
            }
            self.report.paused = movement.paused;
            if movement.paused {
                break;
            }
            if self.is_held_up(work).await? {
                sleep(BETWEEN).await;
                continue;
            }
            match self.next(&now, &target)? {
                Some((family, whole)) => self.step(work, (family, whole), &movement).await?,
                None => {
                    // Every row is where it is to be.
                    if !work.lease.rewrite(&work.known, &target).await? {
                        self.failed(Error::Unsteady)?;
                    }
                    work.refresh().await?;
                }
            }
        }
        if !self.report.paused {
            index::remove(&mut self.crew.servers).await?;
            self.analyze().await?;
        }
        self.report.seconds = self.began.elapsed().as_secs_f64();
        self.report.epoch = work.known.epoch;
        Ok(self.report)
    }

    /// Whether nothing may move at the moment. Meanwhile routers need not hear of the catalog.
    async fn is_held_up(&mut self, work: &mut Work<'_>) -> Result<bool, Error> {
        let why = self.pace.held_up(&mut self.crew.visits).await;
        match (self.is_held_up, &why) {
            (false, Some(why)) => {
                tracing::info!(%why, "nothing moves for now");
                work.lease.rest().await?;
            }
            (true, None) => work.announce().await?,
            (true, Some(_)) | (false, None) => {}
        }
        self.is_held_up = why.is_some();
        Ok(self.is_held_up)
    }

    /// What is to move next, and the number of its family.
    fn next(&self, now: &Layout, target: &Layout) -> Result<Option<(usize, Shift)>, Error> {
        for (family, number) in self.families.iter().zip(0..) {
            if let Some(shift) = family.left(now, target)?.into_iter().next() {
                return Ok(Some((number, shift)));
            }
        }
        Ok(None)
    }

    /// Has PostgreSQL look what there is now, for its plans.
    async fn analyze(&mut self) -> Result<(), Error> {
        let tables = self.families.iter().flat_map(|family| &family.tables);
        let names: Vec<&str> = tables.map(|table| table.sql.as_str()).collect();
        if names.is_empty() {
            return Ok(());
        }
        let analyze = format!("ANALYZE {}", names.join(", "));
        let servers = self.crew.servers.iter_mut();
        try_join_all(servers.map(|server| server.ask(&analyze))).await?;
        Ok(())
    }

    /// Moves some of these rows.
    async fn step(
        &mut self,
        work: &mut Work<'_>,
        (number, whole): (usize, Shift),
        movement: &Movement,
    ) -> Result<(), Error> {
        self.shut_out(work).await?;
        let now = work.known.layout();
        let family = self.families.get(number).ok_or(Error::Unsteady)?;
        if !self.indexed.contains(&number) {
            let left = family.left(&now, &work.known.aimed(&movement.target))?;
            let made = index::make_all(&mut self.crew.servers, &family.tables, &left).await;
            match made {
                Err(Error::Server(error)) if is_in_the_way(&error) => {
                    return self.come_again(work, error).await;
                }
                made => made?,
            }
            self.indexed.push(number);
        }
        let family = self.families.get_mut(number).ok_or(Error::Unsteady)?;
        let from = whole.from.position();
        let source = self.crew.servers.get_mut(from).ok_or(Error::Unsteady)?;
        let shift = part(&whole, &now, (family, source), self.rows).await?;
        let started = Instant::now();
        match self.move_group(work, number, &shift).await {
            Ok(Some(Filled {
                moved, is_awaited, ..
            })) => {
                let took = started.elapsed();
                self.failures = 0;
                self.report.moved(&shift.keys, moved);
                work.refresh().await?;
                let progress = report::Progress {
                    expected: self.expected,
                    left: work.known.layout().differing(&movement.target),
                    since: self.began.elapsed(),
                };
                progress.tell(&self.report, (moved.rows, took));
                if is_awaited {
                    sleep(self.pace.rest(took)).await;
                }
                return Ok(());
            }
            // Tables have been distributed or altered meanwhile.
            Ok(None) => {
                self.failed(Error::Unsteady)?;
                self.crew = Crew::assemble(work).await?;
                work.refresh().await?;
                self.learn_tables(work).await?;
            }
            Err(Error::Server(error)) if is_in_the_way(&error) => {
                self.come_again(work, error).await?
            }
            Err(error) => return Err(error),
        }
        work.refresh().await
    }

    /// Clients are in the way, or what an earlier run has left: the next attempt is smaller, and comes later.
    async fn come_again(&mut self, work: &mut Work<'_>, error: ServerError) -> Result<(), Error> {
        tracing::info!(reason = %error, "clients are in the way, or what an earlier run has left: trying again");
        self.failed(Error::Server(error))?;
        self.aim = AIM;
        self.rows = (self.rows / 4).max(FEW).min(self.pace.group_rows);
        sleep(BETWEEN).await;
        self.crew = Crew::assemble(work).await?;
        switchover::settle(work, &mut self.crew.servers, switchover::ATTENDED).await
    }

    /// Moves a group. `None`: the catalog is not what it was.
    async fn move_group(
        &mut self,
        work: &mut Work<'_>,
        number: usize,
        shift: &Shift,
    ) -> Result<Option<Filled>, Error> {
        let Crew { servers, visits } = &mut self.crew;
        let pair = servers.get_disjoint_mut([shift.from.position(), shift.to.position()]);
        let [source, target] = pair.map_err(|_| Error::Unsteady)?;
        let family = self.families.get_mut(number).ok_or(Error::Unsteady)?;
        let mut group = Group {
            tables: &family.tables,
            order: &mut family.order,
            shapes: &family.shapes,
            keys: &shift.keys,
        };
        // What is as small as can be has to be waited for.
        let gives_way = self.rows > FEW;
        let filling = group.fill((source, target), visits, gives_way);
        let Some(filled) = filling.await? else {
            return Ok(None);
        };
        let next = family.after(&work.known.layout(), shift)?;
        let step = Step::Layout(&next);
        let moved = switchover::run(work, &mut [source, target], visits, step).await?;
        self.fit(filled.took, filled.is_awaited);
        Ok(moved.then_some(filled))
    }

    /// The next group is as large as this one should have been, whose rows took so long; and larger for as long as nobody waits for any.
    fn fit(&mut self, took: Duration, is_awaited: bool) {
        self.aim = match is_awaited {
            true => AIM,
            false => (self.aim * 2).min(ALONE),
        };
        let rows = self.rows as f64;
        let fitting = rows * self.aim.as_secs_f64() / took.as_secs_f64().max(f64::MIN_POSITIVE);
        let fitting = fitting.clamp(rows / GROWTH, rows * GROWTH) as u64;
        self.rows = fitting.max(FEW).min(self.pace.group_rows);
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

/// Whether clients are the reason, who go on.
fn is_in_the_way(error: &ServerError) -> bool {
    matches!(
        error.sqlstate(),
        Some("40P01" | "55P03" | "57014" | "40001")
    )
}
