//! All pools of a process, by what their connections have in common.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Pool;
use super::quota::Quota;
use crate::topology::NodeId;

/// What a pool's connections have in common.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PoolKey {
    /// The node they lead to.
    pub node: NodeId,
    /// The database.
    pub database: Arc<str>,
    /// The user.
    pub user: Arc<str>,
    /// What they are for.
    pub purpose: Purpose,
}

/// What connections are lent for. A session may wait for one of either kind while it holds others: one kind never waits for
/// the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Purpose {
    /// To run what clients send.
    Sessions,
    /// To finish what the shards cannot finish by themselves.
    Workspaces,
    /// To look up who wants to log in.
    Logins,
}

impl Purpose {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Sessions, Self::Workspaces, Self::Logins];

    /// Its label.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Sessions => "sessions",
            Self::Workspaces => "workspaces",
            Self::Logins => "logins",
        }
    }
}

/// Whose connections a [`Quota`] counts, on one node.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum QuotaKey {
    Database(NodeId, Arc<str>),
    User(NodeId, Arc<str>),
}

/// All pools of a process.
#[derive(Debug, Default)]
pub struct Pools {
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    pools: HashMap<PoolKey, Arc<Pool>>,
    quotas: HashMap<QuotaKey, Arc<Quota>>,
}

/// What pools have in common that share a database or a user; 0 for any number of connections.
#[derive(Debug, Clone, Copy, Default)]
pub struct SharedLimits {
    /// Connections of a database on a node.
    pub database: usize,
    /// Connections of a user on a node.
    pub user: usize,
}

impl Known {
    fn quotas(&mut self, key: &PoolKey, limits: SharedLimits) -> Box<[Arc<Quota>]> {
        // Workspaces are borrowed by who holds connections of sessions: they must not wait for these.
        if key.purpose != Purpose::Sessions {
            return Box::default();
        }
        let database = QuotaKey::Database(key.node, Arc::clone(&key.database));
        let user = QuotaKey::User(key.node, Arc::clone(&key.user));
        let wanted = [(database, limits.database), (user, limits.user)];
        let wanted = wanted.into_iter().filter(|(_, limit)| *limit > 0);
        let quota = |(key, limit)| {
            let quotas = self.quotas.entry(key);
            Arc::clone(quotas.or_insert_with(|| Arc::new(Quota::new(limit))))
        };
        wanted.map(quota).collect()
    }
}

impl Pools {
    /// The pool of `key`, made by `make` at first use, with the quotas it shares with others.
    ///
    /// # Errors
    /// What `make` says.
    pub(crate) fn get_or_insert<E>(
        &self,
        key: &PoolKey,
        limits: impl FnOnce() -> SharedLimits,
        make: impl FnOnce(Box<[Arc<Quota>]>) -> Result<Pool, E>,
    ) -> Result<Arc<Pool>, E> {
        let mut known = self.lock();
        if let Some(pool) = known.pools.get(key) {
            return Ok(Arc::clone(pool));
        }
        let quotas = known.quotas(key, limits());
        let pool = Arc::new(make(quotas)?);
        pool.join_quotas();
        known.pools.insert(key.clone(), Arc::clone(&pool));
        Ok(pool)
    }

    /// Those of one database, or of all.
    pub fn of(&self, database: Option<&str>) -> Vec<Arc<Pool>> {
        let mut pools = self.all();
        pools.retain(|pool| database.is_none_or(|database| *pool.key().database == *database));
        pools
    }

    /// Closes idle connections that nodes have closed, in every pool.
    pub fn close_dead(&self) {
        for pool in self.all() {
            pool.close_dead();
        }
    }

    /// All pools, in no order.
    pub fn all(&self) -> Vec<Arc<Pool>> {
        self.lock().pools.values().cloned().collect()
    }

    /// Retires every pool for which `keep` is false.
    pub fn retain(&self, keep: impl Fn(&PoolKey) -> bool) {
        let mut known = self.lock();
        known.pools.retain(|key, pool| {
            let kept = keep(key);
            if !kept {
                pool.retire();
            }
            kept
        });
        let Known { pools, quotas } = &mut *known;
        quotas.retain(|of, _| {
            pools.keys().any(|key| match of {
                QuotaKey::Database(node, name) => key.node == *node && key.database == *name,
                QuotaKey::User(node, name) => key.node == *node && key.user == *name,
            })
        });
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
