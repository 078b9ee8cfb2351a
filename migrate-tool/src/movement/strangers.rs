//! Whoever does not hear where rows are is kept from the shards before rows move (ADR 0025).
//!
//! Each shard remembers an epoch, as a setting of its database: a router that does not know that epoch, as it has been cut off from the catalog, does not
//! use a connection that it makes since. Connections that it has made before are ended.

use std::time::Duration;

use futures_util::future::join_all;
use switchyard_router::distribute::strangers::{
    may_remember as may_remember_epochs, remember as remember_epoch, remembered,
};
use tokio::time::{Instant, sleep};

use super::visit::Visit;
use super::{Error, Work};
use crate::servers::Server;

/// The longest that routers and replicas may take to know of a new epoch.
const PATIENCE: Duration = Duration::from_secs(60);
/// So often the catalog may have become another one.
const ATTEMPTS: usize = 10;
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// Begins a new epoch that all shards know, and ends what may work by an older one.
pub(super) async fn shut_out(
    work: &mut Work<'_>,
    servers: &mut [Server],
    visits: &mut [Visit],
) -> Result<(), Error> {
    for server in servers.iter_mut() {
        is_heard(server, work.known.epoch).await?;
    }
    raise(work).await?;
    let began = Instant::now();
    let routers = loop {
        let routers = work.lease.routers().await?;
        if routers.behind.is_empty() || began.elapsed() > PATIENCE {
            break routers;
        }
        sleep(PAUSE).await;
    };
    remember(work, servers.iter_mut()).await?;
    let follow: Vec<_> = routers.following().collect();
    for visit in visits.iter_mut() {
        if !routers.silent.is_empty() {
            knows(work, visit).await?;
        }
        visit.end_strangers(work, &follow).await?;
    }
    work.lease.forget_silent(&routers.silent).await?;
    Ok(())
}

/// A shard that remembers more than the catalog knows cannot take part.
pub(super) async fn is_heard(server: &mut Server, catalog: u64) -> Result<(), Error> {
    let remembered = remembered(&mut server.link).await;
    let remembered = remembered.map_err(|source| server.failed(source))?;
    match remembered > catalog {
        true => Err(Error::Older {
            shard: server.name.clone(),
            remembered,
            catalog,
        }),
        false => Ok(()),
    }
}

/// Looks whether the user may have a shard remember an epoch.
pub(super) async fn may_remember(server: &mut Server) -> Result<(), Error> {
    let may = may_remember_epochs(&mut server.link).await;
    match may.map_err(|source| server.failed(source))? {
        true => Ok(()),
        false => Err(may_not_remember(server)),
    }
}

fn may_not_remember(server: &Server) -> Error {
    Error::Shard {
        shard: server.name.clone(),
        why: "the user may not have it remember which epoch it is: log in as a superuser, or let the user own the database and GRANT SET ON PARAMETER switchyard.epoch".to_owned(),
    }
}

/// Makes the catalog's epoch a new one.
async fn raise(work: &mut Work<'_>) -> Result<(), Error> {
    for _ in 0..ATTEMPTS {
        let same = work.known.layout();
        let raised = work.lease.rewrite(&work.known, &same).await?;
        work.refresh().await?;
        if raised {
            return Ok(());
        }
    }
    Err(Error::Unsteady)
}

/// Has shards remember the epoch.
pub(super) async fn remember(
    work: &Work<'_>,
    servers: impl Iterator<Item = &mut Server>,
) -> Result<(), Error> {
    let (database, epoch) = (&work.known.database.name, work.known.epoch);
    let remembering = servers.map(async |server: &mut Server| {
        let remembered = remember_epoch(&mut server.link, database, epoch).await;
        match remembered.map_err(|source| server.failed(source)) {
            Ok(_) => Ok(()),
            Err(error) if error.sqlstate() == Some("42501") => Err(may_not_remember(server)),
            Err(error) => Err(error.into()),
        }
    });
    join_all(remembering).await.into_iter().collect()
}

/// Waits until a node knows the epoch: a replica hears of it later than its primary.
async fn knows(work: &Work<'_>, visit: &mut Visit) -> Result<(), Error> {
    let began = Instant::now();
    loop {
        // A node that is away serves nobody.
        let Ok(link) = visit.link().await else {
            return Ok(());
        };
        let remembered = remembered(link).await;
        if remembered.map_err(|source| visit.failed(work, source))? >= work.known.epoch {
            return Ok(());
        }
        if began.elapsed() > PATIENCE {
            return Err(Error::Shard {
                shard: visit.name.clone(),
                why: "a replica is too far behind to know that rows are to move, and a router that is silent may still read there: end that router, or the replica".to_owned(),
            });
        }
        sleep(PAUSE).await;
    }
}
