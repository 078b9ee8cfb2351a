//! The moment at which a table's rows are somewhere else, for everybody: what is prepared on the shards is committed by a row in the
//! catalog, and let go when every router plans by it.

use std::time::Duration;

use switchyard_catalog::{Catalog, CatalogDatabase, Credentials, Recorded};
use switchyard_wire::SqlState;
use tokio::time::{Instant, sleep};

use super::places::Places;
use super::visits::Visits;
use super::{Change, Request, refused, silent};
use crate::execute::failure::Failure;
use crate::topology::link::{Link, LinkError};
use crate::topology::{DatabaseTopology, Published};
use crate::two_phase::{CATALOG, GlobalId};

/// Statements that began so long before were planned by what holds now.
const SPARED: Duration = Duration::from_millis(200);
/// The longest that the router itself may take to follow.
const PATIENCE: Duration = Duration::from_secs(30);
/// The longest that statements may take to heed that they are cancelled.
const HEED: Duration = Duration::from_secs(10);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(20);
/// The longest the catalog may take.
const ANSWER: Duration = Duration::from_secs(5);

/// The condition under which the process of `w` may be cancelled, for statements that cancel several. Who may not be, a superuser say, comes past the
/// routers; the attempt would be an error, and nobody cancelled.
pub const MAY_BE_CANCELLED: &str = "\
EXISTS (SELECT FROM pg_catalog.pg_stat_activity v JOIN pg_catalog.pg_roles r ON r.oid = v.usesysid
         WHERE v.pid = w.pid
           AND (pg_catalog.pg_has_role(r.oid, 'USAGE') OR NOT r.rolsuper AND pg_catalog.pg_has_role('pg_signal_backend', 'USAGE')))";

/// Cancels what waits for a table that is locked by something prepared, or, on a replica, by something that is replayed: nobody else has such a lock there.
const CANCEL: &str = "\
SELECT pg_catalog.pg_cancel_backend(w.pid)
  FROM pg_catalog.pg_locks w LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = w.pid
 WHERE w.locktype = 'relation' AND NOT w.granted AND $MAY
   AND coalesce(pg_catalog.clock_timestamp() - a.query_start > '$SPARED milliseconds'::pg_catalog.interval, true)
   AND w.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
   AND w.relation IN (
       SELECT h.relation FROM pg_catalog.pg_locks h
        WHERE h.locktype = 'relation' AND h.granted AND h.mode = 'AccessExclusiveLock' AND h.database = w.database
          AND (h.pid IS NULL OR pg_catalog.pg_is_in_recovery()))";

/// Prepares what has been done on the shards, has it decided, and ends it.
pub(super) async fn run(
    request: &Request<'_>,
    credentials: &Credentials,
    places: &mut Places<'_>,
    change: &Change,
    known: &CatalogDatabase,
) -> Result<(), Failure> {
    let process = places.link(0).target().pid();
    let id = GlobalId::new(process, CATALOG, request.user)
        .map_err(|unnamed| refused("55000", unnamed.to_string()))?;
    let catalog = Catalog::open_patiently(credentials).await;
    let catalog = catalog.map_err(unreachable)?;
    let settings = request.services.settings.load_full();
    silent::can_be_kept_out(request, &settings, &catalog).await?;
    let mut visits = Visits::open(request, &settings).await?;
    let prepared = prepare(places, &id).await?;
    let decided = decide(&catalog, change, known, &id).await;
    if let Err(failure) = decided {
        if !matches!(failure, Failure::OutcomeUnknown { .. }) {
            end(places, &prepared, &id, false).await;
        }
        return Err(failure);
    }
    follow(&request.services.topology, request.database, change).await?;
    let kept_out = tokio::select! {
        kept_out = silent::keep_out(request, &settings, &catalog, known.epoch + 1) => kept_out,
        never = visits.cancel() => match never {},
    };
    kept_out.map_err(|failure| {
        unfinished(&format!(
            "routers that do not follow the catalog may be at work: {failure}"
        ))
    })?;
    catalog.close().await;
    visits.release().await.map_err(|failure| {
        unfinished(&format!(
            "what waits for the table cannot be cancelled: {failure}"
        ))
    })?;
    end(places, &prepared, &id, true).await;
    Ok(())
}

/// Prepares the parts; those that have been.
async fn prepare(places: &mut Places<'_>, id: &GlobalId) -> Result<Vec<usize>, Failure> {
    let mut prepared = Vec::new();
    if !places.in_transaction {
        return Ok(prepared);
    }
    for index in 0..places.len() {
        match places.ask(index, &id.prepare()).await {
            Ok(_) => prepared.push(index),
            Err(failure) => {
                end(places, &prepared, id, false).await;
                return Err(failure);
            }
        }
    }
    Ok(prepared)
}

/// Records the change, and that the parts are committed with it.
async fn decide(
    catalog: &Catalog,
    change: &Change,
    known: &CatalogDatabase,
    id: &GlobalId,
) -> Result<(), Failure> {
    let gid = id.to_string();
    let recording = catalog.distribute(known, &change.table, change.after.as_ref(), &gid);
    match tokio::time::timeout(ANSWER, recording).await {
        Ok(Ok(Recorded::Done)) => Ok(()),
        Ok(Ok(Recorded::Outdated)) => Err(Failure::Retry),
        Ok(Ok(Recorded::GivenUp)) => Err(given_up()),
        Ok(Err(_)) | Err(_) => settle(catalog, &gid).await,
    }
}

/// The catalog was lost while it was to record the change: it is asked, and what it has not recorded is given up.
async fn settle(catalog: &Catalog, gid: &str) -> Result<(), Failure> {
    let began = Instant::now();
    while began.elapsed() < ANSWER {
        match tokio::time::timeout(ANSWER, catalog.give_up(gid)).await {
            Ok(Ok(decision)) if decision.committed => return Ok(()),
            Ok(Ok(_)) => return Err(given_up()),
            Ok(Err(error)) => {
                tracing::warn!(%error, "the catalog does not say what it has recorded")
            }
            Err(_) => {}
        }
        sleep(PAUSE).await;
    }
    Err(Failure::OutcomeUnknown {
        shard: CATALOG.into(),
    })
}

fn unfinished(why: &str) -> Failure {
    refused("08007", format!("the change is recorded, but {why}"))
        .detail("The table stays locked until routers have ended what is prepared.")
        .into()
}

fn given_up() -> Failure {
    refused("08006", "the connection to the catalog was lost".to_owned())
        .hint("Nothing has been changed: call it again.")
        .into()
}

fn unreachable(error: switchyard_catalog::Error) -> Failure {
    tracing::warn!(%error, "the catalog cannot record where a table's rows are");
    refused("08006", "the catalog cannot be reached".to_owned()).into()
}

/// Waits until this router plans by the change.
async fn follow(
    published: &Published,
    database: &DatabaseTopology,
    change: &Change,
) -> Result<(), Failure> {
    let began = Instant::now();
    loop {
        let topology = published.snapshot();
        let schema = topology
            .database(&database.name)
            .map(|database| &database.schema);
        let actual = schema.and_then(|schema| schema.table(&change.table));
        if actual.map(|table| &table.distribution) == change.after.as_ref() {
            return Ok(());
        }
        if began.elapsed() > PATIENCE {
            return Err(unfinished("the router has not heard of it yet"));
        }
        sleep(PAUSE).await;
    }
}

/// Cancels what waits for tables that are locked by something prepared on one node, until nothing is left of it.
///
/// # Errors
/// [`LinkError`]; also [`LinkError::Timeout`] if statements do not heed it.
pub async fn cancel_waiting(link: &mut Link) -> Result<(), LinkError> {
    let began = Instant::now();
    while cancel_older(link, SPARED).await? {
        if began.elapsed() > HEED {
            return Err(LinkError::Timeout);
        }
        sleep(PAUSE).await;
    }
    Ok(())
}

/// The same once, of what began so long ago. Whether there was anything.
///
/// # Errors
/// [`LinkError`].
pub async fn cancel_older(link: &mut Link, age: Duration) -> Result<bool, LinkError> {
    let cancel = CANCEL.replace("$MAY", MAY_BE_CANCELLED);
    let cancel = cancel.replace("$SPARED", &age.as_millis().to_string());
    Ok(!link.ask(&cancel).await?.is_empty())
}

/// Ends the parts. What cannot be ended here, recovery ends.
async fn end(places: &mut Places<'_>, prepared: &[usize], id: &GlobalId, committed: bool) {
    for index in prepared {
        match places.link(*index).ask(&id.end(committed)).await {
            Ok(_) => {}
            // Recovery has been faster.
            Err(LinkError::Refused { sqlstate, .. }) if sqlstate == SqlState::UNDEFINED_OBJECT => {}
            Err(error) => {
                let shard = &places.shard(*index).name;
                tracing::warn!(transaction = %id, %shard, %error, "what is prepared could not be ended at once");
            }
        }
    }
}
