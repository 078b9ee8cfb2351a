//! What a configuration means where it says nothing.

use std::time::Duration;

use crate::model::{
    Address, Consistency, LogConfig, LogFormat, NodeTls, PoolMode, ReadPolicy, RouterConfig,
    SslMode, Timeouts,
};

impl Default for RouterConfig {
    fn default() -> Self {
        Self {
            listen: Address {
                host: "127.0.0.1".to_owned(),
                port: 6432,
            },
            unix_socket_dir: None,
            http: None,
            tls: None,
            so_reuseport: false,
            peer_id: 0,
            workers: None,
            pool_mode: PoolMode::Transaction,
            pool_size: 20,
            min_pool_size: 0,
            reserve_pool_size: 0,
            max_db_connections: 0,
            max_user_connections: 0,
            max_clients: 10_000,
            max_db_client_connections: 0,
            max_user_client_connections: 0,
            max_login_failures: 60,
            read_policy: ReadPolicy::LeastConnections,
            consistency: Consistency::Session,
            max_prepared_statements: 500,
            max_fetch_bytes: 1 << 30,
            workspace_sessions: 4,
            workspace_temp_limit: None,
            timeouts: Timeouts::default(),
        }
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            drain: seconds(30),
            client_login: seconds(60),
            client_idle: None,
            idle_transaction: None,
            transaction: None,
            query: None,
            query_wait: seconds(120),
            reserve_pool: seconds(5),
            server_login_retry: seconds(15),
            connect: seconds(5),
            server_idle: Some(seconds(600)),
            server_lifetime: Some(seconds(3600)),
            health_interval: seconds(1),
            health_timeout: seconds(1),
            max_replica_lag: seconds(10),
        }
    }
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            format: LogFormat::Text,
            filter: "info".to_owned(),
            full_sql: false,
        }
    }
}

impl Default for NodeTls {
    fn default() -> Self {
        Self {
            mode: SslMode::Prefer,
            root_cert: None,
        }
    }
}
