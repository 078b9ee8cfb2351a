//! A view for tests: one database of two shards, a client, a pool.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::registry::{ClientEntry, ClientState, NewClient, ServerEntry};
use super::view::{PoolReading, View};
use crate::backend::Purpose;
use crate::config::{Environment, Settings};
use crate::control::CatalogStatus;
use crate::metrics::{ErrorClass, Metrics, RouteKind};
use crate::topology::NodeId;
use crate::topology::builder::{Builder, DatabaseState};

const CONFIG: &str = r#"
[router]
listen = "127.0.0.1:6432"
[auth]
method = "trust"
[[users]]
name = "app"
admin = true
[[databases]]
name = "shop"
[[databases.shards]]
name = "s0"
nodes = [ { host = "a", port = 1, role = "primary" }, { host = "b", port = 2, role = "replica", zone = "z" } ]
[[databases.shards]]
name = "s1"
nodes = [ { host = "c", port = 3, role = "primary" } ]
[[databases.tables]]
name = "users"
shard_key = "id"
method = "hash"
"#;

struct NoVariables;

impl Environment for NoVariables {
    fn variable(&self, _: &str) -> Option<String> {
        None
    }
}

/// The settings of the sample.
pub(crate) fn settings() -> Arc<Settings> {
    Arc::new(Settings::parse(CONFIG, Path::new("sample.toml"), &NoVariables).unwrap())
}

/// A picture with something in every part.
pub(crate) fn view() -> View {
    let settings = settings();
    let state = DatabaseState::configured(Arc::new(settings.file.databases[0].clone()));
    let database: Arc<str> = "shop".into();
    let metrics = Metrics::default();
    let counters = metrics.counters(0, &database);
    counters.query(RouteKind::Primary);
    counters.error(ErrorClass::Unsupported);
    counters.bind_join();
    counters.fetched(2, 99);
    let user: Arc<str> = "app".into();
    let client = NewClient {
        user: Arc::clone(&user),
        database: Arc::clone(&database),
        address: None,
        worker: 0,
        tls: true,
        slot: Arc::default(),
    };
    let client = ClientEntry::new(1, client, Arc::default());
    client.set_state(ClientState::Active);
    client.set_application_name("test");
    let started_at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
    View {
        taken_at: started_at + Duration::from_secs(5),
        started_at,
        topology: Arc::new(Builder::default().build([&state])),
        catalog: CatalogStatus::Down,
        totals: metrics.totals(),
        clients: vec![Arc::new(client)],
        servers: vec![Arc::new(ServerEntry::new(
            1,
            NodeId(2),
            Arc::clone(&user),
            Arc::clone(&database),
            77,
        ))],
        pools: vec![PoolReading {
            node: NodeId(1),
            database,
            user,
            purpose: Purpose::Sessions,
            active: 2,
            opening: 1,
            idle: 3,
            waiting: 4,
            waited: 5,
            longest_wait: Duration::from_millis(2_500),
            size: 20,
        }],
        system: Default::default(),
        paused: vec!["shop".into()],
        disabled: Vec::new(),
        settings,
    }
}
