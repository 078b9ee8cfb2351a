//! All pools of a process, by what their connections have in common.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Pool;
use super::quota::Quota;
use crate::topology::{Node, NodeId};

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

/// Whose connections a [`Quota`] counts: a database's on one node, or a user's on one server, which may have nodes of several databases.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum QuotaKey {
    Database(NodeId, Arc<str>),
    User(Server, Arc<str>),
}

/// Host and port.
type Server = (Arc<str>, u16);

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
    /// Connections of a user on a server.
    pub user: usize,
}

impl Known {
    fn quotas(&mut self, key: &PoolKey, server: Server, limits: SharedLimits) -> Box<[Arc<Quota>]> {
        // Workspaces are borrowed by who holds connections of sessions: they must not wait for these.
        if key.purpose != Purpose::Sessions {
            return Box::default();
        }
        let database = QuotaKey::Database(key.node, Arc::clone(&key.database));
        let user = QuotaKey::User(server, Arc::clone(&key.user));
        let wanted = [(database, limits.database), (user, limits.user)];
        let wanted = wanted.into_iter().filter(|(_, limit)| *limit > 0);
        let quota = |(key, limit)| {
            let quota = self.quotas.entry(key).or_default();
            quota.allow(limit);
            Arc::clone(quota)
        };
        wanted.map(quota).collect()
    }
}

impl Pools {
    /// The pool of `key`, made by `make` at first use, with the quotas it shares with others. What both look at is what it is when no
    /// pool can be retired: a reload that comes later finds the pool.
    ///
    /// # Errors
    /// What `make` says.
    pub(crate) fn get_or_insert<E>(
        &self,
        key: &PoolKey,
        node: &Node,
        limits: impl FnOnce() -> SharedLimits,
        make: impl FnOnce(Box<[Arc<Quota>]>) -> Result<Pool, E>,
    ) -> Result<Arc<Pool>, E> {
        let mut known = self.lock();
        if let Some(pool) = known.pools.get(key) {
            return Ok(Arc::clone(pool));
        }
        let server = (Arc::clone(&node.host), node.port);
        let quotas = known.quotas(key, server, limits());
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

    /// Retires every pool for which `keep` is false. Quotas go on counting what these have lent.
    pub fn retain(&self, keep: impl Fn(&Pool) -> bool) {
        let mut known = self.lock();
        known.pools.retain(|_, pool| {
            let kept = keep(pool);
            if !kept {
                pool.retire();
            }
            kept
        });
        known.quotas.retain(|_, quota| Arc::strong_count(quota) > 1);
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(node: u32, database: &str) -> PoolKey {
        PoolKey {
            node: NodeId(node),
            database: database.into(),
            user: "app".into(),
            purpose: Purpose::Sessions,
        }
    }

    #[test]
    fn a_user_has_one_quota_on_a_server_however_many_databases_there_are() {
        let mut known = Known::default();
        let limits = SharedLimits {
            database: 3,
            user: 2,
        };
        let mut quotas = |node, database: &str, port| {
            known.quotas(&key(node, database), ("10.0.0.1".into(), port), limits)
        };
        let (shop, other) = (quotas(1, "shop", 5432), quotas(2, "other", 5432));
        let elsewhere = quotas(3, "shop", 5433);
        assert!(!Arc::ptr_eq(&shop[0], &other[0]));
        assert!(Arc::ptr_eq(&shop[1], &other[1]));
        assert!(!Arc::ptr_eq(&shop[1], &elsewhere[1]));
    }

    #[test]
    fn what_was_lent_before_a_reload_counts_after_it() {
        let pools = Pools::default();
        let quotas = |limit| {
            let limits = SharedLimits {
                database: limit,
                user: 0,
            };
            let server = ("10.0.0.1".into(), 5432);
            pools.lock().quotas(&key(1, "shop"), server, limits)
        };
        let before = quotas(2);
        assert!(before[0].take() && before[0].take() && !before[0].take());
        pools.retain(|_| false);
        let after = quotas(3);
        assert!(after[0].take() && !after[0].take());
        before[0].release(2);
        assert!(after[0].take());
        drop((before, after));
        pools.retain(|_| true);
        assert!(pools.lock().quotas.is_empty());
    }
}
