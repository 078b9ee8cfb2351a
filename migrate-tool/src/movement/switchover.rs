//! The moment at which rows are somewhere else, for everybody: both parts are prepared, the catalog decides, and they are let go when every
//! router plans by what it says (ADR 0020, ADR 0024).

use std::time::Duration;

use futures_util::future::join_all;
use switchyard_catalog::{Catalog, Recorded, RouterId, Step};
use switchyard_router::topology::link::LinkError;
use switchyard_router::two_phase::{CATALOG, GlobalId};
use switchyard_schema::ShardIndex;
use tokio::time::{Instant, sleep, timeout};

use super::visit::{Visit, visits};
use super::{Error, Work, strangers};
use crate::servers::Server;

/// The longest the catalog may take. What is prepared is left to its session for three seconds by routers.
const ANSWER: Duration = Duration::from_secs(2);

/// The longest that routers may take to follow. After that they end what is prepared themselves.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two looks whether they have.
const PAUSE: Duration = Duration::from_millis(5);
/// Statements that began so recently may have been planned by what holds now.
const AGE: Duration = Duration::from_millis(10);

/// So long whoever is at it may take for what is prepared.
pub(super) const ATTENDED: Duration = Duration::from_secs(3);

/// What is prepared on primaries and has been left there.
const LEFT: &str = "\
SELECT gid FROM pg_catalog.pg_prepared_xacts
 WHERE database = pg_catalog.current_database() AND gid LIKE 'switchyard.%'
   AND prepared < pg_catalog.clock_timestamp() - '$AGE milliseconds'::pg_catalog.interval";

/// Prepares what has been done on some servers, has it decided together with `step`, and ends it. False: the catalog is another than what
/// this was made for, or somebody has given it up, and nothing has changed.
pub(super) async fn run(
    work: &mut Work<'_>,
    parts: &mut [&mut Server],
    visits: &mut [Visit],
    step: Step<'_>,
) -> Result<bool, Error> {
    let user = work.user()?.name.to_string();
    let process = parts.first().map_or(0, |part| part.link.target().pid());
    let id = GlobalId::new(process, CATALOG, &user)
        .map_err(|unnamed| Error::Unnamed(unnamed.to_string()))?;
    prepare(parts, &id).await?;
    let taken = timeout(ANSWER, work.lease.take(&work.known, step, &id.to_string())).await;
    let committed = match taken {
        Ok(Ok(Recorded::Done)) => true,
        Ok(Ok(Recorded::Outdated | Recorded::GivenUp)) => false,
        Ok(Err(_)) | Err(_) => decided(work, &id).await?,
    };
    if committed {
        let shards: Vec<ShardIndex> = parts.iter().map(|part| part.shard).collect();
        followed(work, visits, &shards).await?;
    }
    end_all(parts.iter_mut().map(|part| &mut **part), &id, committed).await?;
    if committed {
        work.refresh().await?;
        strangers::remember(work, parts.iter_mut().map(|part| &mut **part)).await?;
    }
    Ok(committed)
}

/// Ends what earlier programs have left prepared for so long, as the catalog says; what it says nothing of is rolled back.
pub(super) async fn settle(
    work: &mut Work<'_>,
    servers: &mut [Server],
    age: Duration,
) -> Result<(), Error> {
    let left = LEFT.replace("$AGE", &age.as_millis().to_string());
    for server in servers.iter_mut() {
        for row in server.ask(&left).await? {
            let id = row.into_iter().next().flatten();
            let id = id.as_deref().and_then(GlobalId::parse);
            let Some(id) = id.filter(|id| *id.decider == *CATALOG) else {
                continue;
            };
            let committed = decided(work, &id).await?;
            if committed {
                // Whoever had it decided may have died at once.
                let mut visits = visits(work, std::slice::from_ref(server)).await?;
                followed(work, &mut visits, &[server.shard]).await?;
            }
            end(server, &id, committed).await?;
        }
    }
    Ok(())
}

async fn prepare(parts: &mut [&mut Server], id: &GlobalId) -> Result<(), Error> {
    let prepare = id.prepare();
    let preparing = parts.iter_mut().map(|part| part.ask(&prepare));
    let outcomes = join_all(preparing).await;
    if outcomes.iter().all(Result::is_ok) {
        return Ok(());
    }
    let prepared = parts.iter_mut().zip(&outcomes);
    let prepared = prepared.filter(|(_, outcome)| outcome.is_ok());
    end_all(prepared.map(|(part, _)| &mut **part), id, false).await?;
    let failed = outcomes.into_iter().find_map(Result::err);
    Err(failed.map_or(Error::Unsteady, Error::from))
}

/// Ends several parts at a time.
async fn end_all(
    parts: impl Iterator<Item = &mut Server>,
    id: &GlobalId,
    committed: bool,
) -> Result<(), Error> {
    let ended = join_all(parts.map(|part| end(part, id, committed))).await;
    ended.into_iter().collect()
}

/// How a transaction has been decided; if it has not been, it is given up.
async fn decided(work: &Work<'_>, id: &GlobalId) -> Result<bool, Error> {
    let catalog = Catalog::open_patiently(&work.credentials).await?;
    let decision = catalog.give_up(&id.to_string()).await?;
    catalog.close().await;
    Ok(decision.committed)
}

/// Ends a part. Routers may have been faster.
async fn end(part: &mut Server, id: &GlobalId, committed: bool) -> Result<(), Error> {
    match part.link.ask(&id.end(committed)).await {
        Ok(_) => Ok(()),
        Err(LinkError::Refused { sqlstate, .. }) if sqlstate.as_str() == "42704" => Ok(()),
        Err(error) => Err(part.failed(error).into()),
    }
}

/// Cancels what has waited so long for tables of some shards. Whether there was anything.
async fn cancel_all(visits: &mut [Visit], shards: &[ShardIndex], age: Duration) -> bool {
    let concerned = visits
        .iter_mut()
        .filter(|visit| shards.contains(&visit.shard));
    let cancelled = join_all(concerned.map(|visit| visit.cancel_older(age))).await;
    cancelled.contains(&true)
}

/// Waits until no router has anything on its way that was planned by what the catalog said before. What waits for the tables of these shards would
/// wait for ever: it is cancelled, and routers run it again. Connections of routers that do not follow, or do not say so, are ended.
async fn followed(
    work: &mut Work<'_>,
    visits: &mut [Visit],
    shards: &[ShardIndex],
) -> Result<(), Error> {
    let began = Instant::now();
    let routers = loop {
        let routers = work.lease.routers().await?;
        if routers.behind.is_empty() || began.elapsed() > PATIENCE {
            break routers;
        }
        cancel_all(visits, shards, AGE).await;
        sleep(PAUSE).await;
    };
    // A router does not wait for long for what is on its way. Whoever waits here since before would find the rows of one shard gone, and has
    // not looked for them on the other: it must not go on.
    let followed = Instant::now();
    while cancel_all(visits, shards, AGE + followed.elapsed()).await && began.elapsed() < PATIENCE {
        sleep(PAUSE).await;
    }
    if routers.behind.is_empty() && routers.silent.is_empty() {
        return Ok(());
    }
    tracing::warn!(
        "a router does not say that it follows the catalog: its connections to the shards are ended"
    );
    let follow: Vec<RouterId> = routers.following().collect();
    for visit in visits {
        if shards.contains(&visit.shard) {
            visit.end_strangers(work, &follow).await?;
        }
    }
    Ok(())
}
