//! The usual test bed: a cluster with the web shop in it, the plain server beside it, a router in front.

use std::path::Path;

use switchyard_cluster::{Cluster, ClusterSpec, Node, RouterFile};
use switchyard_router::config::{ProcessEnvironment, Settings};
use switchyard_router::demo::shop::{self, Shop};
use switchyard_schema::Config;

use crate::router::RouterPorts;
use crate::{Client, Login, Router};

/// What a test bed is made of.
#[derive(Debug, Clone)]
pub struct BedSpec {
    /// The servers.
    pub cluster: ClusterSpec,
    /// How much is in the shop.
    pub shop: Shop,
    /// More lines of `[router]`.
    pub router: String,
    /// `[[databases.tables]]` besides the shop's.
    pub tables: String,
    /// DDL of those tables, for every shard and the oracle.
    pub ddl: String,
    /// How clients prove who they are.
    pub auth: &'static str,
}

/// Servers and a router, with the shop loaded.
#[derive(Debug)]
pub struct Bed {
    // Order matters: the router goes before its servers.
    router: Router,
    cluster: Cluster,
    config: Config,
    spec: BedSpec,
}

impl BedSpec {
    /// Two shards with one replica each, and the oracle.
    pub fn usual() -> BedSpec {
        BedSpec::of(ClusterSpec::for_tests(2, 1).with_oracle())
    }

    /// On these servers.
    pub fn of(cluster: ClusterSpec) -> BedSpec {
        let (router, tables, ddl) = (String::new(), String::new(), String::new());
        BedSpec {
            cluster,
            shop: Shop::SMALL,
            router,
            tables,
            ddl,
            auth: "scram-sha-256",
        }
    }

    /// With another line in `[router]`.
    #[must_use]
    pub fn with_router(mut self, line: &str) -> BedSpec {
        self.router.push_str(line);
        self.router.push('\n');
        self
    }

    /// With more tables: their DDL and their part of the configuration.
    #[must_use]
    pub fn with_tables(mut self, ddl: &str, tables: &str) -> BedSpec {
        self.ddl.push_str(ddl);
        self.tables.push_str(tables);
        self
    }
}

impl Bed {
    /// Starts servers, loads the shop, starts the router and waits until it is ready.
    #[track_caller]
    pub fn start(spec: BedSpec) -> Bed {
        let cluster = Cluster::start(spec.cluster.clone()).unwrap();
        let ports = RouterPorts::choose();
        let text = configuration(&cluster, &spec, &ports, &|node: &dyn Node| node.port());
        number_otherwise(&cluster);
        let config = Config::parse(&text).unwrap_or_else(|errors| panic!("{errors:#?}\n{text}"));
        cluster
            .load(&config, &spec.shop.tables(), shop::DDL)
            .unwrap();
        let servers = cluster
            .shards()
            .iter()
            .map(|shard| shard.primary.as_ref())
            .chain(cluster.oracle());
        if !spec.ddl.is_empty() {
            servers.for_each(|server| drop(cluster.sql(server, &spec.ddl).unwrap()));
        }
        wait_for_replicas(&cluster);
        let router = Router::start(&text, ports);
        Bed {
            router,
            cluster,
            config,
            spec,
        }
    }

    /// Fills the shop's tables anew, and empties `others`, on every server at the same time.
    pub fn refill(&self, others: &[&str]) {
        let shop = shop::Table::ALL.map(shop::Table::name);
        let names = [&shop, others].concat().join(", ");
        let before = format!("TRUNCATE {names} RESTART IDENTITY CASCADE");
        self.cluster
            .load(&self.config, &self.spec.shop.tables(), &before)
            .unwrap();
        wait_for_replicas(&self.cluster);
    }

    /// The router.
    pub fn router(&self) -> &Router {
        &self.router
    }

    /// The router, for signals and kills.
    pub fn router_mut(&mut self) -> &mut Router {
        &mut self.router
    }

    /// The servers.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// One more router on the same servers. `router` is added to its `[router]`; it reaches each node at the port that
    /// `port_of` says, such as a proxy's.
    #[track_caller]
    pub fn another_router(&self, router: &str, port_of: &dyn Fn(&dyn Node) -> u16) -> Router {
        let ports = RouterPorts::choose();
        let spec = BedSpec {
            router: format!("{}{router}\n", self.spec.router),
            ..self.spec.clone()
        };
        Router::start(&configuration(&self.cluster, &spec, &ports, port_of), ports)
    }

    /// One more router on the same servers, with these lines in its `[router]`, by a file that `edit` has changed.
    #[track_caller]
    pub fn router_by(&self, router: &str, edit: impl FnOnce(String) -> String) -> Router {
        let ports = RouterPorts::choose();
        let spec = BedSpec {
            router: format!("{}{router}\n", self.spec.router),
            ..self.spec.clone()
        };
        let port_of = |node: &dyn Node| node.port();
        let file = configuration(&self.cluster, &spec, &ports, &port_of);
        Router::start(&edit(file), ports)
    }

    /// One more router on the same servers, in this process: dropping it stops it. Its ports are the system's choice.
    #[track_caller]
    pub fn router_in_process(&self, router: &str) -> switchyard_router::process::Router {
        let file = RouterFile {
            listen: 0,
            http: 0,
            auth: self.spec.auth,
            router: &format!("{}{router}\n", self.spec.router),
            tables: &format!("{}{}", shop::TABLES, self.spec.tables),
        };
        let text = self.cluster.router_file(&file);
        let settings = Settings::parse(&text, Path::new("switchyard.toml"), &ProcessEnvironment);
        switchyard_router::process::Router::start(settings.unwrap()).unwrap()
    }

    /// A client of the router.
    #[track_caller]
    pub fn client(&self) -> Client {
        Client::connect(&self.login())
    }

    /// Logs in at the router.
    pub fn login(&self) -> Login {
        Login::new(self.router.port())
    }

    /// A client of the plain server.
    #[track_caller]
    pub fn oracle(&self) -> Client {
        Client::connect(&Login::new(
            self.cluster
                .oracle()
                .expect("this bed has an oracle")
                .port(),
        ))
    }

    /// A client of one node.
    #[track_caller]
    pub fn node_client(&self, node: &dyn Node) -> Client {
        Client::connect(&Login::new(node.port()))
    }
}

/// Has every shard give what is made from now on other numbers (OIDs) than the others do, as servers do that have lived for a while.
fn number_otherwise(cluster: &Cluster) {
    for (position, shard) in cluster.shards().iter().enumerate() {
        let sql = "CREATE TYPE passing AS ENUM (); DROP TYPE passing;".repeat(position + 1);
        cluster.sql(shard.primary.as_ref(), &sql).unwrap();
    }
}

fn configuration(
    cluster: &Cluster,
    spec: &BedSpec,
    ports: &RouterPorts,
    port_of: &dyn Fn(&dyn Node) -> u16,
) -> String {
    let file = RouterFile {
        listen: ports.port(),
        http: ports.http(),
        auth: spec.auth,
        router: &spec.router,
        tables: &format!("{}{}", shop::TABLES, spec.tables),
    };
    cluster.router_file_via(&file, port_of)
}

/// Waits until every replica has everything its primary has now.
pub fn wait_for_replicas(cluster: &Cluster) {
    for shard in cluster.shards() {
        let position = cluster
            .sql(shard.primary.as_ref(), "SELECT pg_current_wal_insert_lsn()")
            .unwrap();
        for replica in &shard.replicas {
            crate::eventually("replicas have everything", || {
                let passed = format!("SELECT pg_last_wal_replay_lsn() >= '{position}'");
                cluster
                    .sql(replica.as_ref(), &passed)
                    .is_ok_and(|answer| answer == "t")
            });
        }
    }
}
