//! What a worker thread has: a share of the process's services and a plan cache of its own.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use tokio::runtime::Handle;

use crate::backend::{
    Admission, ConnectOptions, Gates, Pool, PoolKey, PoolLimits, Pools, Purpose, ScramKeys,
    Settings, SharedLimits,
};
use crate::control::ControlHandle;
use crate::execute::client::Reported;
use crate::hearing::Hearing;
use crate::plan::PlanCache;
use crate::session::Statements;
use crate::sql::Scan;
use crate::startup::cancel::CancelRegistry;
use crate::startup::peers::Peers;
use crate::startup::tls::{NodeTls, TlsError};
use crate::topology::{Heartbeat, Node, Published};
use crate::two_phase::fence::Fences;
use crate::two_phase::recovery::Resolver;

/// What all workers share.
#[derive(Debug)]
pub struct Services {
    /// What the process runs by; replaced by a reload.
    pub settings: ArcSwap<crate::config::Settings>,
    /// The way to the control thread.
    pub control: ControlHandle,
    /// The way to who ends transactions that sessions cannot.
    pub resolver: Resolver,
    /// The way to who raises fences for consistent reads.
    pub fences: Fences,
    /// The way to who hears notifications.
    pub hearing: Hearing,
    /// The current topology.
    pub topology: Published,
    /// The pools of connections.
    pub pools: Pools,
    /// What operators have said about databases.
    pub gates: Gates,
    /// The distinct prepared statements.
    pub(crate) statements: Statements,
    /// Where cancel requests find the backends that work for a client.
    pub cancels: Arc<CancelRegistry>,
    /// What is counted.
    pub metrics: crate::metrics::Metrics,
    /// Who is connected.
    pub registry: crate::admin::registry::Registry,
    /// Whether the catalog hears of this router, where there is one.
    pub heartbeat: Option<Heartbeat>,
    /// The runtimes of the workers, for what is to belong to one of them and is begun elsewhere.
    pub(crate) runtimes: Mutex<Vec<(usize, Handle)>>,
}

impl Services {
    /// The services of a process that has just started.
    #[must_use]
    pub fn new(
        settings: Arc<crate::config::Settings>,
        topology: Published,
        control: ControlHandle,
        resolver: Resolver,
        fences: Fences,
        hearing: Hearing,
        heartbeat: Option<Heartbeat>,
    ) -> Self {
        let cancels = CancelRegistry::default();
        cancels.know(Peers::new(&settings.file));
        Self {
            settings: ArcSwap::new(settings),
            control,
            resolver,
            fences,
            hearing,
            topology,
            pools: Pools::default(),
            gates: Gates::default(),
            statements: Statements::default(),
            cancels: Arc::new(cancels),
            metrics: crate::metrics::Metrics::default(),
            registry: crate::admin::registry::Registry::default(),
            heartbeat,
            runtimes: Mutex::default(),
        }
    }

    /// The worker's runtime is this.
    pub(crate) fn note_runtime(&self, worker: usize, runtime: &Handle) {
        let mut runtimes = self.runtimes.lock().unwrap_or_else(PoisonError::into_inner);
        runtimes.push((worker, runtime.clone()));
    }

    /// The pool of `key`, whose connections lead to `node`; made at first use.
    ///
    /// # Errors
    /// The node's TLS settings cannot be used.
    pub(crate) fn pool(&self, key: PoolKey, node: &Arc<Node>) -> Result<Arc<Pool>, TlsError> {
        let shared = || {
            let config = self.settings.load().file.pool(&key.database, &key.user);
            SharedLimits {
                database: config.max_db_connections as usize,
                user: config.max_user_connections as usize,
            }
        };
        self.pools.get_or_insert(&key, node, shared, |quotas| {
            let settings = self.settings.load();
            let router = &settings.file.router;
            let options = ConnectOptions {
                host: node.host.to_string(),
                port: node.port,
                user: key.user.to_string(),
                password: settings
                    .users
                    .get(&key.user)
                    .and_then(|user| user.password.as_ref())
                    .cloned(),
                proven: Arc::clone(settings.users.proven()),
                scram_keys: ScramKeys::default(),
                database: node.dbname.as_ref().unwrap_or(&key.database).to_string(),
                prepared_limit: router.max_prepared_statements as usize,
                tls: NodeTls::new(&node.tls)?,
                timeout: router.timeouts.connect,
                settings: match key.purpose {
                    Purpose::Sessions | Purpose::Workspaces => &[],
                    Purpose::Logins => LOGIN_SETTINGS,
                },
            };
            let (size, min, reserve) = match key.purpose {
                Purpose::Sessions => {
                    let config = settings.file.pool(&key.database, &key.user);
                    (config.size, config.min_size, config.reserve_size)
                }
                Purpose::Workspaces => (router.workspace_sessions, 0, 0),
                Purpose::Logins => (switchyard_schema::LOOKUPS, 0, 0),
            };
            let limits = PoolLimits {
                size: size as usize,
                min: min as usize,
                reserve: reserve as usize,
                reserve_after: router.timeouts.reserve_pool,
                login_retry: router.timeouts.server_login_retry,
                wait: router.timeouts.query_wait,
                idle: router.timeouts.server_idle,
                lifetime: router.timeouts.server_lifetime,
            };
            Ok(Pool::new(
                key.clone(),
                Arc::clone(node),
                options,
                limits,
                self.heartbeat
                    .clone()
                    .map(|heartbeat| Admission::new(heartbeat, self.topology.clone())),
                self.registry.clone(),
                quotas,
            ))
        })
    }
}

/// What those connections begin with that look users up: what names mean depends on nobody.
const LOGIN_SETTINGS: &[(&str, &str)] = &[
    ("application_name", "switchyard auth_query"),
    ("search_path", ""),
];

/// What one worker thread's sessions share. The locks are of this thread alone and never held over a wait.
#[derive(Debug)]
pub struct Worker {
    /// Its number, from 0.
    pub index: usize,
    /// What all workers share.
    pub services: Arc<Services>,
    desk: Mutex<Desk>,
    reported: Mutex<ReportedParameters>,
}

/// Where statements are scanned and planned.
#[derive(Debug)]
pub(crate) struct Desk {
    pub(crate) scan: Scan,
    pub(crate) plans: PlanCache,
}

/// What decides which run-time parameters a client is told: database, role and startup settings.
pub(crate) type ReportedKey = (Arc<str>, Arc<str>, Arc<Settings>);

/// The run-time parameters clients have been told, as nodes reported them.
#[derive(Debug, Default)]
struct ReportedParameters {
    generation: u64,
    known: HashMap<ReportedKey, Arc<Reported>>,
}

/// The memory one worker's plan cache may hold, in bytes.
const PLAN_CACHE_LIMIT: usize = 64 << 20;
/// More combinations of startup settings than this are not remembered.
const REPORTED_LIMIT: usize = 1024;

impl Worker {
    /// A worker with an empty plan cache.
    pub fn new(index: usize, services: Arc<Services>) -> Self {
        Self {
            index,
            services,
            desk: Mutex::new(Desk {
                scan: Scan::new(),
                plans: PlanCache::new(PLAN_CACHE_LIMIT),
            }),
            reported: Mutex::default(),
        }
    }

    pub(crate) fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The parameters remembered for `key` since the topology's `generation`, with the key's settings as they are
    /// remembered.
    pub(crate) fn reported(
        &self,
        generation: u64,
        key: &ReportedKey,
    ) -> Option<(Arc<Settings>, Arc<Reported>)> {
        let reported = self.reported.lock().unwrap_or_else(PoisonError::into_inner);
        let known = (reported.generation == generation).then(|| reported.known.get_key_value(key));
        known
            .flatten()
            .map(|((_, _, settings), known)| (Arc::clone(settings), Arc::clone(known)))
    }

    /// Remembers what a node reported.
    pub(crate) fn remember_reported(
        &self,
        generation: u64,
        key: ReportedKey,
        parameters: Arc<Reported>,
    ) {
        let mut reported = self.reported.lock().unwrap_or_else(PoisonError::into_inner);
        if reported.generation != generation || reported.known.len() >= REPORTED_LIMIT {
            reported.known.clear();
            reported.generation = generation;
        }
        reported.known.insert(key, parameters);
    }
}
