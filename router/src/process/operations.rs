//! What operators can see of a running router and do to it: behind the console, http and signals.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use switchyard_schema::Diagnostic;
use tokio::sync::Mutex;
use tracing::{info, warn};

use super::overdue::Overdue;
use super::{Ending, StartError, orders};
use crate::admin::View;
use crate::admin::console::{Office, Visitor};
use crate::admin::order::Order;
use crate::admin::system::System;
use crate::admin::view::PoolReading;
use crate::backend::{Gate, Pool};
use crate::config::{AT_START, ConfigError, ProcessEnvironment, Rights, Settings};
use crate::control::Status;
use crate::http;
use crate::listener::{Drain, Entrance, Room};
use crate::logging;
use crate::startup::access::LoginSecret;
use crate::startup::failed::FailedLogins;
use crate::startup::lookups::Lookups;
use crate::startup::peers::Peers;
use crate::startup::tls::TlsError;
use crate::startup::{Access, ClientConnection, Directory};
use crate::topology::{Node, NodeId, Observed};
use crate::worker::Services;

/// Between two rounds of closing connections that are of no further use, and ending what takes clients too long.
const HOUSEKEEPING: Duration = Duration::from_millis(250);
/// A node seen down so many times in a row by the housekeeping (about two seconds) loses its connections in use as well.
const PATIENCE: u32 = 8;

/// Who may enter, and how many.
#[derive(Debug)]
pub(super) struct Entry {
    secret: LoginSecret,
    access: Arc<ArcSwap<Access>>,
    failed: Arc<FailedLogins>,
    lookups: Arc<Lookups>,
    room: Arc<Room>,
}

impl Entry {
    pub(super) fn new(settings: &Settings) -> Result<Self, StartError> {
        let secret = LoginSecret::random().map_err(StartError::Random)?;
        let access = Access::new(settings, &secret)?;
        Ok(Self {
            secret,
            access: Arc::new(ArcSwap::from_pointee(access)),
            failed: Arc::default(),
            lookups: Arc::default(),
            room: Arc::new(Room::new(settings.file.router.max_clients as usize)),
        })
    }
}

/// A running router as operators have it.
#[derive(Debug)]
pub struct Operations {
    services: Arc<Services>,
    status: Arc<Status>,
    entry: Entry,
    is_open: AtomicBool,
    ending: Ending,
    started_at: SystemTime,
    /// One reload at a time.
    reloading: Mutex<()>,
}

/// Why the old configuration stays in force.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// The file or a secret.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Certificates.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The reading was given up, as when the process ends.
    #[error("the configuration could not be read")]
    Interrupted,
}

impl Operations {
    pub(super) fn new(
        services: Services,
        status: Arc<Status>,
        entry: Entry,
        ending: Ending,
    ) -> Self {
        Self {
            services: Arc::new(services),
            status,
            entry,
            is_open: AtomicBool::new(false),
            ending,
            started_at: SystemTime::now(),
            reloading: Mutex::new(()),
        }
    }

    /// What the workers share.
    #[must_use]
    pub fn services(&self) -> &Arc<Services> {
        &self.services
    }

    /// Whether there are clients, or such as are about to be; consoles are none.
    pub(super) fn has_clients(&self) -> bool {
        self.entry.room.entering() > 0 || !self.services.registry.clients().is_empty()
    }

    /// The settings in force.
    #[must_use]
    pub fn settings(&self) -> Arc<Settings> {
        self.services.settings.load_full()
    }

    /// Clients are accepted from now on.
    pub(super) fn opened(&self) {
        self.is_open.store(true, Ordering::Relaxed);
    }

    pub(super) fn entrance(&self, worker: usize, drain: Drain) -> Entrance {
        Entrance {
            access: Arc::clone(&self.entry.access),
            cancels: Arc::clone(&self.services.cancels),
            failed: Arc::clone(&self.entry.failed),
            directory: Some(Directory::new(
                Arc::clone(&self.services),
                Arc::clone(&self.entry.lookups),
                worker,
            )),
            room: Arc::clone(&self.entry.room),
            drain,
        }
    }

    pub(super) fn visitor(&self, client: &ClientConnection) -> Visitor {
        Visitor {
            user: client.user.clone(),
            pid: client.cancel.pid,
            secret: client.cancel.secret.clone(),
        }
    }

    /// Reads the configuration again and puts it in force. Sessions go on, with the new one from their next transaction, but for what
    /// is a session's for its life (its mode, where it reads); connections made by what has changed are closed when they come back.
    ///
    /// # Errors
    /// [`ReloadError`]: nothing has changed.
    pub async fn reload(&self) -> Result<(), ReloadError> {
        let path = self.settings().path.clone();
        let read = move || Ok(Settings::load(&path, &ProcessEnvironment)?);
        self.replace_settings(read).await?;
        info!("configuration reloaded");
        Ok(())
    }

    /// Puts other settings in force, which are made where clients do not wait for it: reading files and deriving keys takes milliseconds.
    async fn replace_settings(
        &self,
        make: impl FnOnce() -> Result<Settings, ReloadError> + Send + 'static,
    ) -> Result<(), ReloadError> {
        let _turn = self.reloading.lock().await;
        let old = self.settings();
        let secret = self.entry.secret.clone();
        let proven = Arc::clone(old.users.proven());
        let reading = tokio::task::spawn_blocking(move || {
            let mut settings = make()?;
            settings.users.go_on_from(proven);
            let access = Access::new(&settings, &secret)?;
            Ok::<_, ReloadError>((settings, access))
        });
        let (settings, access) = reading.await.map_err(|_| ReloadError::Interrupted)??;
        let settings = Arc::new(settings);
        warn_of_restart(&old, &settings);
        self.entry.access.store(Arc::new(access));
        self.entry
            .room
            .resize(settings.file.router.max_clients as usize);
        self.services.cancels.know(Peers::new(&settings.file));
        self.services.settings.store(Arc::clone(&settings));
        forget_others(&old, &settings);
        self.services.control.reload(Arc::clone(&settings)).await;
        if pools_differ(&old, &settings) {
            self.services.pools.retain(|_| false);
        }
        self.retire_pools();
        Ok(())
    }

    /// Closes what is of no further use and ends what takes too long, for as long as it is polled.
    pub(super) async fn keep_house(&self) {
        let mut down: HashMap<NodeId, u32> = HashMap::new();
        let mut overdue = Overdue::default();
        loop {
            tokio::time::sleep(HOUSEKEEPING).await;
            overdue.look(&self.services);
            self.retire_pools();
            let topology = self.services.topology.snapshot();
            for node in topology.nodes() {
                let times = down.entry(node.id).or_default();
                *times = if node.observed() == Observed::Down {
                    *times + 1
                } else {
                    0
                };
            }
            for pool in self.services.pools.all() {
                pool.look_after_waiters();
                match pool.node().observed() {
                    // What was open to a node that is gone may never answer, not even when the node is back.
                    // A node that is only slow deserves a little patience.
                    Observed::Down
                        if down
                            .get(&pool.node().id)
                            .is_some_and(|times| *times >= PATIENCE) =>
                    {
                        pool.sever()
                    }
                    Observed::Down => pool.close_idle(),
                    Observed::Unknown | Observed::Primary | Observed::Standby => {
                        pool.close_old();
                        self.warm(&pool);
                    }
                }
            }
        }
    }

    /// Has a worker open connections, if the pool has fewer than are to be kept open.
    fn warm(&self, pool: &Arc<Pool>) {
        let is_paused = || self.services.gates.of(&pool.key().database).is_paused();
        if !pool.is_short() || is_paused() {
            return;
        }
        let runtimes = &self.services.runtimes;
        let runtimes = runtimes.lock().unwrap_or_else(PoisonError::into_inner);
        // Users are given to workers evenly, and so are pools.
        let turn = pool.key().user.len() + pool.key().node.0 as usize;
        if let Some((worker, runtime)) = runtimes.get(turn % runtimes.len().max(1)) {
            let (pool, worker) = (Arc::clone(pool), *worker);
            runtime.spawn(async move { pool.warm(worker).await });
        }
    }

    /// Retires the pools of nodes that have left the topology, and of such as are to be reached by other TLS.
    fn retire_pools(&self) {
        let topology = self.services.topology.snapshot();
        let nodes: HashMap<_, _> = topology.nodes().map(|node| (node.id, node)).collect();
        let is_good = |node: &Node| {
            nodes
                .get(&node.id)
                .is_some_and(|known| known.is_reached_like(node))
        };
        self.services.pools.retain(|pool| is_good(pool.node()));
    }
}

impl Office for Operations {
    fn view(&self) -> View {
        let pools = self.services.pools.all();
        let mut pools: Vec<_> = pools
            .iter()
            .map(|pool| {
                let (key, usage) = (pool.key(), pool.usage());
                PoolReading {
                    node: key.node,
                    database: Arc::clone(&key.database),
                    user: Arc::clone(&key.user),
                    purpose: key.purpose,
                    active: usage.active,
                    opening: usage.opening,
                    idle: usage.idle,
                    waiting: usage.waiting,
                    waited: usage.waited,
                    longest_wait: usage.longest_wait,
                    size: usage.size,
                }
            })
            .collect();
        pools.sort_by(|one, other| {
            let key = |pool: &PoolReading| {
                (
                    Arc::clone(&pool.database),
                    pool.node,
                    Arc::clone(&pool.user),
                    pool.purpose,
                )
            };
            key(one).cmp(&key(other))
        });
        let topology = self.services.topology.snapshot();
        let said = |of: fn(&Gate) -> bool| {
            let names = topology.databases.keys();
            let said = names.filter(|name| of(&self.services.gates.of(name)));
            said.cloned().collect()
        };
        View {
            taken_at: SystemTime::now(),
            started_at: self.started_at,
            settings: self.settings(),
            system: System::default(),
            paused: said(Gate::is_paused),
            disabled: said(Gate::is_disabled),
            topology,
            catalog: self.status.catalog(),
            totals: self.services.metrics.totals(),
            clients: self.services.registry.clients(),
            servers: self.services.registry.servers(),
            pools,
        }
    }

    fn rights(&self, user: &str) -> Rights {
        let settings = self.services.settings.load();
        let user = settings.users.get(user);
        user.map_or(Rights::None, |user| user.rights)
    }

    async fn reload(&self) -> Result<(), String> {
        Operations::reload(self).await.map_err(|error| {
            let message = error.to_string();
            logging::each_line(&message);
            message
        })
    }

    async fn set(&self, key: &str, value: &str) -> Result<(), String> {
        if AT_START.contains(&key) {
            return Err(format!("\"{key}\" cannot be changed at run time"));
        }
        let settings = self.settings();
        let changed = settings.file.router.with(key, value).map_err(|problems| {
            let say = |problem: &Diagnostic| {
                let hint = problem.hint.as_ref();
                let hint = hint.map_or(String::new(), |hint| format!(" ({hint})"));
                format!("{}: {}{hint}", problem.key, problem.message)
            };
            problems.iter().map(say).collect::<Vec<_>>().join("; ")
        })?;
        let mut settings = (*settings).clone();
        settings.file.router = changed;
        let replaced = self.replace_settings(move || Ok(settings)).await;
        replaced.map_err(|error| error.to_string())?;
        info!(key, value, "an operator has changed a setting");
        Ok(())
    }

    async fn carry_out(&self, order: Order) -> Result<(), String> {
        orders::carry_out(&self.services, &self.ending, order).await
    }
}

impl http::Source for Operations {
    fn view(&self) -> View {
        Office::view(self)
    }

    fn unready(&self) -> Option<&'static str> {
        if *self.ending.close.borrow() {
            Some("shutting down")
        } else if !self.is_open.load(Ordering::Relaxed) {
            Some("starting")
        } else if !self.status.is_ready() {
            Some("the tables of a database have not been read yet")
        } else {
            None
        }
    }
}

/// Whether connections made by the old settings must not serve any more.
fn pools_differ(old: &Settings, new: &Settings) -> bool {
    let passwords = |settings: &Settings| -> Vec<_> {
        let users = settings.users.iter();
        users
            .map(|user| (Arc::clone(&user.name), user.password.clone()))
            .collect()
    };
    let limits = |settings: &Settings| {
        let router = &settings.file.router;
        (
            router.pool_size,
            (router.min_pool_size, router.reserve_pool_size),
            (router.max_db_connections, router.max_user_connections),
            (
                router.timeouts.reserve_pool,
                router.timeouts.server_login_retry,
            ),
            settings.file.pooling.clone(),
            router.max_prepared_statements,
            (router.workspace_sessions, router.workspace_temp_limit),
            router.timeouts.connect,
            router.timeouts.query_wait,
            router.timeouts.server_idle,
            router.timeouts.server_lifetime,
        )
    };
    passwords(old) != passwords(new) || limits(old) != limits(new)
}

/// Forgets what users have proven that the new settings do not know, or know by something else.
fn forget_others(old: &Settings, new: &Settings) {
    let is_looked_up =
        new.file.auth.lookup.is_some() && old.file.auth.lookup == new.file.auth.lookup;
    let stays = |user: &str| match (old.users.get(user), new.users.get(user)) {
        (Some(old), Some(new)) => old.password == new.password,
        (None, None) => is_looked_up,
        (Some(_), None) | (None, Some(_)) => false,
    };
    new.users.proven().retain(stays);
}

fn warn_of_restart(old: &Settings, new: &Settings) {
    let (old_log, new_log) = (&old.file.log, &new.file.log);
    let (old, new) = (&old.file.router, &new.file.router);
    let changed = [
        ("listen", old.listen != new.listen),
        ("http", old.http != new.http),
        ("workers", old.workers != new.workers),
        ("so_reuseport", old.so_reuseport != new.so_reuseport),
        (
            "unix_socket_dir",
            old.unix_socket_dir != new.unix_socket_dir,
        ),
        ("log.format", old_log.format != new_log.format),
        ("log.level", old_log.filter != new_log.filter),
    ];
    for (key, changed) in changed {
        if changed {
            warn!(key, "a change takes effect with the next start");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Password;
    use crate::proven::{Proof, Realm};

    fn settings(lookup: &str, password: &str) -> Settings {
        let text = format!(
            "[router]\nlisten = \"127.0.0.1:6432\"\n[auth]\n{lookup}\n\
             [[users]]\nname = \"door\"\npassword = \"secret\"\n\
             [[users]]\nname = \"app\"\npassword = \"{password}\"\n\
             [[databases]]\nname = \"shop\"\n[[databases.shards]]\nname = \"s0\"\n\
             nodes = [{{ host = \"a\", role = \"primary\" }}]\n"
        );
        Settings::parse(&text, Path::new("x.toml"), &ProcessEnvironment).unwrap()
    }

    #[test]
    fn a_reload_forgets_whom_it_does_not_know_as_before() {
        let lookup = "auth_user = \"door\"";
        let other = format!("{lookup}\nauth_dbname = \"shop\"");
        // Who is known after a reload from this file to another one: a user of the file, and one who was looked up.
        let known_after = |lookup_then: &str, password_then: &str| {
            let (old, mut new) = (
                settings(lookup, "one"),
                settings(lookup_then, password_then),
            );
            let proof = || Proof::Password(Password::new("x"));
            let proven = Arc::clone(old.users.proven());
            proven.learn(Realm::Everywhere, "app", proof());
            proven.learn(Realm::Database("shop".into()), "bob", proof());
            new.users.go_on_from(Arc::clone(&proven));
            forget_others(&old, &new);
            ["app", "bob"].map(|user| proven.of("shop", user).is_some())
        };
        assert_eq!(known_after(lookup, "one"), [true, true]);
        assert_eq!(known_after(lookup, "two"), [false, true]);
        assert_eq!(known_after(&other, "one"), [true, false]);
        assert_eq!(known_after("", "one"), [true, false]);
    }
}
