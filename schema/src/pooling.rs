//! What pools may hold: what `[router]` says, and where a database or a user says otherwise.
//!
//! It is this router's affair, and no part of a [`Database`](crate::Database), which all routers have in common.

use std::collections::BTreeMap;

use crate::model::{Config, PoolMode};

/// What a database or a user says of its pools; `None` where it says nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PoolRules {
    /// `pool_mode`
    pub mode: Option<PoolMode>,
    /// `pool_size`
    pub size: Option<u32>,
    /// `min_pool_size`
    pub min_size: Option<u32>,
    /// `reserve_pool_size`
    pub reserve_size: Option<u32>,
    /// `max_db_connections` of a database, `max_user_connections` of a user; 0 for any number.
    pub max_connections: Option<u32>,
    /// `max_db_client_connections` of a database, `max_user_client_connections` of a user; 0 for any number.
    pub max_clients: Option<u32>,
}

/// What databases and users say, by their names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pooling {
    /// Of `[[databases]]`.
    pub databases: BTreeMap<String, PoolRules>,
    /// Of `[[users]]`.
    pub users: BTreeMap<String, PoolRules>,
    /// `user` of `[[databases]]`: as whom all of its sessions log in to nodes.
    pub logins: BTreeMap<String, String>,
}

/// What holds for the pools of one database and user, on each node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolConfig {
    /// When a connection goes back.
    pub mode: PoolMode,
    /// Connections at most.
    pub size: u32,
    /// Connections that are kept open, once there has been one.
    pub min_size: u32,
    /// Connections beyond `size` for who has waited for `reserve_pool_timeout`.
    pub reserve_size: u32,
    /// Connections of the database, all users together; 0 for any number.
    pub max_db_connections: u32,
    /// Connections of the user, all databases together; 0 for any number.
    pub max_user_connections: u32,
    /// Clients of the database, all users together; 0 for any number.
    pub max_db_client_connections: u32,
    /// Clients of the user, all databases together; 0 for any number.
    pub max_user_client_connections: u32,
}

impl Config {
    /// Connections that the pools of a database may come to have on one node.
    #[must_use]
    pub fn most_connections(&self, database: &str) -> u32 {
        let pools = self
            .users
            .iter()
            .map(|user| self.pool(database, &user.name));
        let sum = pools
            .clone()
            .map(|pool| pool.size + pool.reserve_size)
            .sum();
        let limits = pools.map(|pool| pool.max_db_connections);
        limits.filter(|limit| *limit > 0).fold(sum, u32::min)
    }

    /// What holds for the pools of a database and a user: the user's word goes first, then the database's.
    #[must_use]
    pub fn pool(&self, database: &str, user: &str) -> PoolConfig {
        let router = &self.router;
        let database = self.pooling.databases.get(database);
        let database = database.copied().unwrap_or_default();
        let user = self.pooling.users.get(user).copied().unwrap_or_default();
        let size = user.size.or(database.size).unwrap_or(router.pool_size);
        let min_size = user.min_size.or(database.min_size);
        let reserve_size = user.reserve_size.or(database.reserve_size);
        PoolConfig {
            mode: user.mode.or(database.mode).unwrap_or(router.pool_mode),
            size,
            min_size: min_size.unwrap_or(router.min_pool_size).min(size),
            reserve_size: reserve_size.unwrap_or(router.reserve_pool_size),
            max_db_connections: database
                .max_connections
                .unwrap_or(router.max_db_connections),
            max_user_connections: user.max_connections.unwrap_or(router.max_user_connections),
            max_db_client_connections: database
                .max_clients
                .unwrap_or(router.max_db_client_connections),
            max_user_client_connections: user
                .max_clients
                .unwrap_or(router.max_user_client_connections),
        }
    }
}
