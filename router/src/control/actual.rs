//! The actual state, when there is a catalog: read at start, followed from then on.

use std::time::Duration;

use switchyard_catalog::{Catalog, Credentials, Error, Follower, Link, RouterId, Snapshot};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::config::Settings;
use crate::topology::Heartbeat;

/// How long the router tries to reach the catalog when it starts.
const START_PATIENCE: Duration = Duration::from_secs(5);
/// How long telling the catalog that the router ends may take.
const LEAVING: Duration = Duration::from_secs(1);
/// Between two such attempts.
const START_PAUSE: Duration = Duration::from_millis(250);

/// Whether there is a catalog and whether it answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum CatalogStatus {
    /// None is configured.
    None = 0,
    /// It answers.
    Up = 1,
    /// It does not; the last map is in force.
    Down = 2,
}

impl CatalogStatus {
    pub(super) fn from_number(number: u8) -> Self {
        match number {
            1 => Self::Up,
            2 => Self::Down,
            _ => Self::None,
        }
    }

    /// The word for it.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Up => "up",
            Self::Down => "down",
        }
    }
}

/// The catalog as it is followed. Following ends when this is dropped.
#[derive(Debug)]
pub(super) struct Actual {
    follower: Follower,
    following: AbortHandle,
    /// The way to tell other routers something.
    speaking: Catalog,
    router: RouterId,
}

/// What the catalog has to say.
pub(super) enum News {
    /// Its state is another one.
    State(Snapshot),
    /// A router has changed definitions on the shards.
    Definitions,
}

impl Drop for Actual {
    fn drop(&mut self) {
        self.following.abort();
    }
}

impl Actual {
    /// Connects, fills the catalog from the file if it is empty, reads it and begins to follow it. `None` if none is
    /// configured.
    pub(super) async fn read(settings: &Settings, router: RouterId) -> Result<Option<Self>, Error> {
        let Some(credentials) = settings.catalog_credentials() else {
            return Ok(None);
        };
        let catalog = connect(&credentials).await?;
        if catalog.initialise(&settings.file.databases).await? {
            info!("the catalog was empty and has been filled from the configuration");
        }
        // Whoever moves rows from now on waits until what is read next is in force.
        catalog.register(router).await?;
        let snapshot = catalog.read().await?;
        for database in &settings.file.databases {
            let actual = snapshot.databases.get(&database.name);
            let differs = actual.is_none_or(|actual| {
                !switchyard_catalog::differences(database, &actual.database).is_empty()
            });
            if differs {
                warn!(
                    database = database.name,
                    "the file differs from the catalog, which is in force; `switchyard check` shows how"
                );
            }
        }
        let speaking = catalog.clone();
        let (follower, following) = catalog.follow(credentials, snapshot, router);
        let following = tokio::spawn(following).abort_handle();
        Ok(Some(Self {
            follower,
            following,
            speaking,
            router,
        }))
    }

    /// The newest state.
    pub(super) fn snapshot(&self) -> Snapshot {
        self.follower.snapshots.borrow().clone()
    }

    /// Tells the other routers that definitions have been changed by this one. Without it they find out after a while.
    pub(super) async fn announce_definitions(&self) {
        if *self.follower.link.borrow() == Link::Down {
            return;
        }
        if let Err(error) = self.speaking.announce_definitions().await {
            warn!(reason = %error, "the other routers cannot be told of changed definitions");
        }
    }

    /// The way to say by which revision all is planned.
    pub(super) fn acknowledged(&self) -> watch::Sender<i64> {
        self.follower.acknowledged.clone()
    }

    /// Whether the catalog hears of this router.
    pub(super) fn heartbeat(&self) -> Heartbeat {
        Heartbeat::new(self.router, self.follower.told.clone())
    }

    /// Has the catalog forget this router.
    pub(super) fn leaving(&self) -> impl Future<Output = ()> + Send + use<> {
        let (catalog, router) = (self.speaking.clone(), self.router);
        async move {
            match tokio::time::timeout(LEAVING, catalog.unregister(router)).await {
                Ok(Ok(())) => {}
                Ok(Err(reason)) => {
                    warn!(%reason, "the catalog cannot be told that this router has ended")
                }
                Err(_) => warn!(
                    "the catalog does not answer, so that it is not told that this router has ended"
                ),
            }
        }
    }

    /// Whether the catalog answers.
    pub(super) fn status(&self) -> CatalogStatus {
        match *self.follower.link.borrow() {
            Link::Up => CatalogStatus::Up,
            Link::Down => CatalogStatus::Down,
        }
    }
}

/// The next state of the catalog; never, if there is no catalog.
pub(super) async fn changed(actual: &mut Option<Actual>) -> Snapshot {
    if let Some(actual) = actual
        && actual.follower.snapshots.changed().await.is_ok()
    {
        return actual.follower.snapshots.borrow_and_update().clone();
    }
    std::future::pending().await
}

/// What it says next; nothing, if there is no catalog.
pub(super) async fn news(actual: &mut Option<Actual>) -> News {
    if let Some(Actual { follower, .. }) = actual {
        tokio::select! {
            Ok(()) = follower.snapshots.changed() => {
                return News::State(follower.snapshots.borrow_and_update().clone());
            }
            Ok(()) = follower.definitions.changed() => return News::Definitions,
            else => {}
        }
    }
    std::future::pending().await
}

async fn connect(credentials: &Credentials) -> Result<Catalog, Error> {
    let give_up = Instant::now() + START_PATIENCE;
    let mut is_told = false;
    loop {
        match Catalog::connect(credentials).await {
            Err(error @ (Error::Away { .. } | Error::Unreachable(_) | Error::Timeout))
                if Instant::now() < give_up =>
            {
                if !std::mem::replace(&mut is_told, true) {
                    warn!(reason = %error, "waiting for the catalog");
                }
                tokio::time::sleep(START_PAUSE).await;
            }
            outcome => return outcome,
        }
    }
}
