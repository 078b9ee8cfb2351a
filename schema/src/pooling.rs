//! What pools may hold: what `[router]` says, and where a database or a user says otherwise.
//!
//! It is this router's affair, and no part of a [`Database`](crate::Database), which all routers have in common.

use std::collections::BTreeMap;

use crate::model::{Config, PoolMode};

/// Connections by which users are looked up, on each node.
pub const LOOKUPS: u32 = 4;

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
    /// Connections that the pools of `users` may come to have on one server, all its databases together. Users who are looked up are as many as log in.
    #[must_use]
    pub fn most_connections(&self, host: &str, port: u16) -> u64 {
        let mut of_users = vec![0; self.users.len()];
        let mut of_databases = 0;
        let mut beside = 0;
        for database in &self.databases {
            let nodes = database.shards.iter().flat_map(|shard| &shard.nodes);
            let nodes = nodes.filter(|node| node.host == host && node.port == port);
            // A server belongs to one shard of a database.
            if nodes.count() == 0 {
                continue;
            }
            let login = self.pooling.logins.get(&database.name);
            let mut all = 0;
            for (user, of_user) in self.users.iter().zip(&mut of_users) {
                if login.is_some_and(|login| *login != user.name) {
                    continue;
                }
                let pool = self.pool(&database.name, &user.name);
                let own = u64::from(pool.size) + u64::from(pool.reserve_size);
                all += own;
                *of_user = limited(*of_user + own, pool.max_user_connections);
                if database.shards.len() > 1 {
                    beside += u64::from(self.router.workspace_sessions);
                }
            }
            of_databases += limited(all, self.limit_of(&database.name));
            if self.auth.lookup.is_some() {
                beside += u64::from(LOOKUPS);
            }
        }
        of_databases.min(of_users.iter().sum()) + beside
    }

    fn limit_of(&self, database: &str) -> u32 {
        let rules = self.pooling.databases.get(database);
        let limit = rules.and_then(|rules| rules.max_connections);
        limit.unwrap_or(self.router.max_db_connections)
    }

    /// What holds for the pools of a database and a user: the user's word goes first, then the database's.
    #[must_use]
    pub fn pool(&self, database: &str, user: &str) -> PoolConfig {
        let router = &self.router;
        let max_db_connections = self.limit_of(database);
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
            max_db_connections,
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

/// So many, or as many as there may be; 0 for any number.
fn limited(count: u64, limit: u32) -> u64 {
    match limit {
        0 => count,
        limit => count.min(u64::from(limit)),
    }
}

#[cfg(test)]
mod tests {
    /// What these users and databases may come to have on 10.0.0.1:5432.
    fn most(router: &str, users: &[&str], databases: &[(&str, &[&str])]) -> u64 {
        let mut text = format!(
            "[router]\npool_size = 20\nreserve_pool_size = 2\nworkspace_sessions = 3\n{router}\n"
        );
        for (number, user) in users.iter().enumerate() {
            text += &format!("[[users]]\nname = \"u{number}\"\npassword = \"x\"\n{user}\n");
        }
        for (number, (database, hosts)) in databases.iter().enumerate() {
            text += &format!("[[databases]]\nname = \"d{number}\"\n{database}\n");
            for (shard, host) in hosts.iter().enumerate() {
                text += &format!(
                    "[[databases.shards]]\nname = \"s{shard}\"\nnodes = [{{ host = {host:?}, role = \"primary\" }}]\n"
                );
            }
        }
        let config = crate::Config::parse(&text).unwrap();
        config.most_connections("10.0.0.1", 5432)
    }

    #[test]
    fn what_pools_may_come_to_have_is_counted_by_server() {
        let (here, there) = ("10.0.0.1", "10.0.0.2");
        assert_eq!(most("", &[""], &[("", &[here])]), 22);
        assert_eq!(most("", &["", ""], &[("", &[here])]), 44);
        assert_eq!(most("", &[""], &[("", &[here]), ("", &[there])]), 22);
        // Workspaces are beside the limits.
        assert_eq!(most("", &["", ""], &[("", &[here, there])]), 44 + 6);
        assert_eq!(
            most(
                "max_db_connections = 30",
                &["", ""],
                &[("", &[here, there])]
            ),
            30 + 6
        );
        let (one, two) = ("max_db_connections = 30", "max_user_connections = 25");
        assert_eq!(
            most("", &["", ""], &[(one, &[here]), ("", &[here])]),
            30 + 44
        );
        assert_eq!(
            most("", &["", two], &[(one, &[here]), ("", &[here])]),
            44 + 25
        );
    }

    #[test]
    fn who_looks_users_up_has_connections_too() {
        let asks = "[auth]\nauth_user = \"u0\"";
        assert_eq!(most(asks, &[""], &[("", &["10.0.0.1"])]), 22 + 4);
    }
}
