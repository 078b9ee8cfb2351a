//! Following the catalog: notified when it changes, and asking again in case a notification was lost.

use std::time::{Duration, Instant};

use sqlx::postgres::PgListener;
use tokio::sync::watch;
use tracing::{debug, info, warn};

use crate::{Catalog, Credentials, Error, RouterId, Snapshot};

/// Between two looks at the revision, whether or not there was a notification.
const POLL_INTERVAL: Duration = Duration::from_millis(500);
/// How long one look may take before the connection counts as lost.
const LOOK_TIMEOUT: Duration = Duration::from_secs(3);
/// What routers say to each other when they have changed definitions on the shards.
const DEFINITIONS: &str = "definitions";
/// Between two attempts to reach a catalog that is away.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);

/// Whether the catalog is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// It answers.
    Up,
    /// It does not; what is known of it is the last it said.
    Down,
}

/// The receiving end of what the catalog says.
#[derive(Clone, Debug)]
pub struct Follower {
    /// The newest snapshot.
    pub snapshots: watch::Receiver<Snapshot>,
    /// Whether the catalog is there.
    pub link: watch::Receiver<Link>,
    /// Changes when a router says that it has changed definitions on the shards.
    pub definitions: watch::Receiver<u64>,
    /// The revision by which all is planned: whoever moves rows waits for it.
    pub acknowledged: watch::Sender<i64>,
    /// When the catalog was last told, at the earliest, that this router is there: who moves rows waits for it since.
    pub told: watch::Receiver<Option<Instant>>,
}

/// What following tells.
struct Told {
    snapshots: watch::Sender<Snapshot>,
    link: watch::Sender<Link>,
    definitions: watch::Sender<u64>,
    acknowledged: watch::Receiver<i64>,
    router: RouterId,
    at: watch::Sender<Option<Instant>>,
}

impl Catalog {
    /// Tells all routers that definitions on the shards have been changed.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn announce_definitions(&self) -> Result<(), Error> {
        let announcing = async {
            sqlx::query("SELECT pg_catalog.pg_notify('switchyard', $1)")
                .bind(DEFINITIONS)
                .execute(&mut *self.acquire().await?)
                .await?;
            Ok(())
        };
        timely(announcing).await
    }

    /// Follows the catalog for as long as the future is polled, beginning with a snapshot that has been read since this `router` was
    /// [registered](Catalog::register). Never returns.
    pub fn follow(
        self,
        credentials: Credentials,
        first: Snapshot,
        router: RouterId,
    ) -> (Follower, impl Future<Output = ()> + Send) {
        let (acknowledged, acknowledgements) = watch::channel(first.revision);
        let (snapshots, new) = watch::channel(first);
        let (link, status) = watch::channel(Link::Up);
        let (definitions, changed) = watch::channel(0);
        let (at, told_at) = watch::channel(None);
        let follower = Follower {
            snapshots: new,
            link: status,
            definitions: changed,
            acknowledged,
            told: told_at,
        };
        let mut told = Told {
            snapshots,
            link,
            definitions,
            acknowledged: acknowledgements,
            router,
            at,
        };
        let following = async move {
            let mut catalog = Some(self);
            loop {
                let outcome = match catalog.take() {
                    Some(catalog) => watch_changes(&catalog, &mut told).await,
                    None => reconnect(&credentials, &mut catalog).await,
                };
                if let Err(error) = outcome {
                    if told.link.send_replace(Link::Down) == Link::Up {
                        warn!(reason = %error, "catalog is away; going on with what is known");
                    } else {
                        debug!(reason = %error, "catalog is still away");
                    }
                    tokio::time::sleep(RETRY_INTERVAL).await;
                }
            }
        };
        (follower, following)
    }
}

async fn reconnect(credentials: &Credentials, catalog: &mut Option<Catalog>) -> Result<(), Error> {
    // A catalog of a newer version cannot be read for certain, so the version is looked at again.
    *catalog = Some(timely(Catalog::connect(credentials)).await?);
    Ok(())
}

async fn watch_changes(catalog: &Catalog, told: &mut Told) -> Result<(), Error> {
    let listening = async {
        let mut listener = PgListener::connect_with(&catalog.pool)
            .await
            .map_err(Error::Unreachable)?;
        listener.listen("switchyard").await?;
        Ok(listener)
    };
    let mut listener = timely(listening).await?;
    loop {
        let revision = timely(catalog.revision()).await?;
        if told.link.send_replace(Link::Up) == Link::Down {
            info!("catalog is back");
        }
        if revision != told.snapshots.borrow().revision {
            let snapshot = timely(catalog.read()).await?;
            info!(revision = snapshot.revision, "catalog has changed");
            told.snapshots.send_replace(snapshot);
        }
        let acknowledged = *told.acknowledged.borrow_and_update();
        let now = Instant::now();
        if !timely(catalog.renew(told.router, acknowledged)).await? {
            // Nobody has waited for this router since: what is known may be old.
            warn!("the catalog has not heard of this router for a while; reading it anew");
            timely(catalog.register(told.router)).await?;
            continue;
        }
        told.at.send_replace(Some(now));
        tokio::select! {
            () = tokio::time::sleep(POLL_INTERVAL) => {}
            Ok(()) = told.acknowledged.changed() => {}
            notified = listener.try_recv() => {
                // `None` is a lost connection, and the listener's own attempts to come back have no limit.
                let Some(notified) = notified? else {
                    return Err(Error::Query(sqlx::Error::PoolClosed));
                };
                if notified.payload() == DEFINITIONS {
                    told.definitions.send_modify(|changes| *changes += 1);
                }
            }
        }
    }
}

async fn timely<T>(work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    tokio::time::timeout(LOOK_TIMEOUT, work)
        .await
        .unwrap_or(Err(Error::Timeout))
}
