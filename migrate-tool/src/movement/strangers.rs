//! Whoever does not hear where rows are is kept from the shards before rows move (ADR 0025).
//!
//! Each shard remembers an epoch, as a setting of its database: a router that does not know that epoch, as it has been cut off from the catalog, does not
//! use a connection that it makes since. Connections that it has made before are ended.

use std::time::Duration;

use futures_util::future::join_all;
use postgres_protocol::escape::{escape_identifier, escape_literal};
use tokio::time::{Instant, sleep};

use super::tables::first;
use super::visit::Visit;
use super::{Error, Work};
use crate::servers::Server;

/// The longest that routers and replicas may take to know of a new epoch.
const PATIENCE: Duration = Duration::from_secs(60);
/// So often the catalog may have become another one.
const ATTEMPTS: usize = 10;
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// What a node remembers, also of what is set since its present connection began.
const REMEMBERED: &str = "\
SELECT pg_catalog.split_part(kept.setting, '=', 2)
  FROM pg_catalog.pg_db_role_setting s JOIN pg_catalog.pg_database d ON d.oid = s.setdatabase,
       pg_catalog.unnest(s.setconfig) AS kept (setting)
 WHERE s.setrole = 0 AND d.datname = pg_catalog.current_database() AND kept.setting LIKE 'switchyard.epoch=%'";

/// Whether the user may set that.
const MAY_REMEMBER: &str = "\
SELECT pg_catalog.pg_has_role(d.datdba, 'USAGE') FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()";

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
    let remembered = epoch(server.ask(REMEMBERED).await?);
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
    match first(server.ask(MAY_REMEMBER).await?).as_deref() {
        Some("f") => Err(may_not_remember(server)),
        Some(_) | None => Ok(()),
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
    let set = format!(
        "ALTER DATABASE {} SET switchyard.epoch = {}",
        escape_identifier(&work.known.database.name),
        escape_literal(&work.known.epoch.to_string())
    );
    let remembering = servers.map(async |server| match server.ask(&set).await {
        Ok(_) => Ok(()),
        Err(error) if error.sqlstate() == Some("42501") => Err(may_not_remember(server)),
        Err(error) => Err(error.into()),
    });
    join_all(remembering).await.into_iter().collect()
}

/// Waits until a node knows the epoch: a replica hears of it later than its primary.
async fn knows(work: &Work<'_>, visit: &mut Visit) -> Result<(), Error> {
    let began = Instant::now();
    loop {
        let answer = visit.link.ask(REMEMBERED).await;
        let remembered = epoch(answer.map_err(|source| visit.failed(work, source))?);
        if remembered >= work.known.epoch {
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

fn epoch(rows: Vec<Vec<Option<String>>>) -> u64 {
    first(rows)
        .and_then(|epoch| epoch.parse().ok())
        .unwrap_or(0)
}
