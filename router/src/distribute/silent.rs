//! Routers that do not say that they follow the catalog: they may be cut off from it and at work, and must not use a table by what it was (ADR 0025).
//!
//! Shards remember the epoch in which the change is, so that such a router is not admitted any more, and its connections are ended, before what is
//! prepared is let go.

use std::time::Duration;

use switchyard_catalog::{Catalog, RouterId, Routers};
use switchyard_wire::SqlState;
use tokio::time::{Instant, sleep};

use super::{Request, refused, strangers};
use crate::config::Settings;
use crate::execute::failure::Failure;
use crate::topology::link::{Link, LinkError, Visitor};
use crate::topology::{Node, Observed};

/// The longest that routers may take to say that they follow, or to be taken to be silent.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest that a replica may take to hear of an epoch.
const REPLICAS: Duration = Duration::from_secs(10);
/// The longest one answer may take.
const ANSWER: Duration = Duration::from_secs(5);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// Looks whether the routers that are silent could be kept from the shards: by having these remember the epoch that is in force already.
pub(super) async fn can_be_kept_out(
    request: &Request<'_>,
    settings: &Settings,
    catalog: &Catalog,
) -> Result<(), Failure> {
    if routers(catalog).await?.silent.is_empty() {
        return Ok(());
    }
    match remember(request, settings, request.database.epoch).await {
        Err(Failure::ShardSays { sqlstate, .. })
            if sqlstate == SqlState::INSUFFICIENT_PRIVILEGE =>
        {
            let message = "a router does not say that it follows the catalog, and may be at work by what the table is now";
            Err(refused("55000", message.to_owned())
                .detail("The user who looks after the shards may not have them remember an epoch, by which that router would be kept from them.")
                .hint("GRANT SET ON PARAMETER switchyard.epoch TO that user on every shard, and let the user own the database.")
                .into())
        }
        remembered => remembered,
    }
}

/// Has all shards remember an epoch.
async fn remember(request: &Request<'_>, settings: &Settings, epoch: u64) -> Result<(), Failure> {
    for shard in &request.database.shards {
        let failed = |error| failed(&shard.name, error);
        let mut link = open(request, settings, shard.primary())
            .await
            .map_err(failed)?;
        let remembering = strangers::remember(&mut link, &request.database.name, epoch).await;
        remembering.map_err(failed)?;
    }
    Ok(())
}

/// Keeps those routers from all nodes that do not follow: what was decided is in force with `epoch`.
pub(super) async fn keep_out(
    request: &Request<'_>,
    settings: &Settings,
    catalog: &Catalog,
    epoch: u64,
) -> Result<(), Failure> {
    let routers = settled(catalog).await?;
    if routers.silent.is_empty() && routers.behind.is_empty() {
        return Ok(());
    }
    tracing::warn!(
        "a router does not say that it follows the catalog: its connections to the shards are ended"
    );
    remember(request, settings, epoch).await?;
    let follow: Vec<RouterId> = routers.following().collect();
    for shard in &request.database.shards {
        for node in &shard.nodes {
            if !matches!(node.observed(), Observed::Primary | Observed::Standby) {
                continue;
            }
            let failed = |error| failed(&shard.name, error);
            let mut link = open(request, settings, node).await.map_err(failed)?;
            knows(&mut link, epoch).await.map_err(failed)?;
            let ending = strangers::end_strangers(&mut link, settings, &follow).await;
            ending.map_err(failed)?;
        }
    }
    let forgetting = catalog.forget_silent(&routers.silent).await;
    forgetting.map_err(unheard)
}

/// The routers, once each of them follows or is silent.
async fn settled(catalog: &Catalog) -> Result<Routers, Failure> {
    let began = Instant::now();
    loop {
        let routers = routers(catalog).await?;
        if routers.behind.is_empty() || began.elapsed() > PATIENCE {
            return Ok(routers);
        }
        sleep(PAUSE).await;
    }
}

async fn routers(catalog: &Catalog) -> Result<Routers, Failure> {
    catalog.routers().await.map_err(unheard)
}

/// Waits until a node knows of an epoch: a replica hears of it later than its primary.
async fn knows(link: &mut Link, epoch: u64) -> Result<(), LinkError> {
    let began = Instant::now();
    while strangers::remembered(link).await? < epoch {
        if began.elapsed() > REPLICAS {
            return Err(LinkError::Timeout);
        }
        sleep(PAUSE).await;
    }
    Ok(())
}

/// A connection as the user who looks after nodes.
async fn open(request: &Request<'_>, settings: &Settings, node: &Node) -> Result<Link, LinkError> {
    let user = settings.monitor_user();
    let user = user.ok_or_else(|| LinkError::Unreachable("no user is configured".to_owned()))?;
    let connect = settings.file.router.timeouts.connect;
    let visitor = Visitor::new(user, connect, ANSWER);
    Link::open(&visitor, node, &request.database.name).await
}

pub(super) fn failed(shard: &str, error: LinkError) -> Failure {
    let shard: Box<str> = shard.into();
    match error {
        LinkError::Refused { sqlstate, message } => Failure::ShardSays {
            shard,
            sqlstate,
            message: message.into(),
        },
        LinkError::Unexpected(_) => Failure::ShardBrokeProtocol { shard },
        LinkError::Unreachable(_) | LinkError::Lost(_) | LinkError::Full | LinkError::Timeout => {
            Failure::ShardLost { shard }
        }
    }
}

fn unheard(error: switchyard_catalog::Error) -> Failure {
    tracing::warn!(%error, "the catalog does not say which routers there are");
    Failure::ShardSays {
        shard: crate::two_phase::CATALOG.into(),
        sqlstate: SqlState::CONNECTION_FAILURE,
        message: error.to_string().into(),
    }
}
