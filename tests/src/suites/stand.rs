//! The servers of a suite: a plain one, and one shard with a router in front of it.

use switchyard_cluster::{Cluster, ClusterSpec, Node, RouterFile, Settings};

use crate::{Router, RouterPorts};

/// Running servers and a router.
#[derive(Debug)]
pub(super) struct Stand {
    // Order matters: the router goes before its servers.
    router: Router,
    cluster: Cluster,
}

impl Stand {
    /// Starts everything. Suites make roles and whatever else they like: their user is a superuser.
    #[track_caller]
    pub(super) fn start(databases: &[&str], there: &str) -> Stand {
        let mut spec = ClusterSpec::for_tests(1, 0).with_oracle();
        spec.settings = Settings::for_tests()
            .with("max_locks_per_transaction", "256")
            // Both of them are used by tests, which leave themselves out where they are not there.
            .with("max_prepared_transactions", "100");
        let cluster = Cluster::start(spec).unwrap();
        for node in cluster.nodes() {
            let sql = |sql: &str| cluster.superuser_sql(node, "postgres", sql).unwrap();
            sql("ALTER ROLE app SUPERUSER");
            for name in databases {
                sql(&format!("CREATE DATABASE {name} OWNER app"));
            }
            cluster.sql(node, there).unwrap();
        }
        let ports = RouterPorts::choose();
        let text = configuration(&cluster, databases, &ports);
        let router = Router::start(&text, ports);
        Stand { router, cluster }
    }

    /// The plain server's port.
    pub(super) fn plain(&self) -> u16 {
        let node = self.cluster.oracle();
        node.expect("the cluster was started with one").port()
    }

    /// The router's.
    pub(super) fn routed(&self) -> u16 {
        self.router.port()
    }

    /// What the router has logged.
    pub(super) fn log(&self) -> String {
        self.router.log()
    }
}

fn configuration(cluster: &Cluster, databases: &[&str], ports: &RouterPorts) -> String {
    let node: &dyn Node = cluster.shard(0).primary.as_ref();
    let others = ["postgres"].iter().chain(databases).map(|name| {
        format!(
            "\n[[databases]]\nname = {name:?}\n[[databases.shards]]\nname = \"s0\"\nnodes = [{{ host = {:?}, port = {}, role = \"primary\" }}]\n",
            node.host(),
            node.port()
        )
    });
    let file = RouterFile {
        listen: ports.port(),
        http: ports.http(),
        auth: "scram-sha-256",
        router: "pool_mode = \"transaction\"\nmax_clients = 2000\npool_size = 60",
        tables: &others.collect::<String>(),
    };
    // Suites make roles and log in as them.
    let found = "[auth]\nauth_user = \"app\"\nauth_dbname = \"shop\"\n";
    cluster.router_file(&file).replacen("[auth]\n", found, 1)
}

/// What names a server to programs that use libpq, or do as it does.
pub(super) fn environment(port: u16) -> [(&'static str, String); 5] {
    [
        ("PGHOST", "127.0.0.1".to_owned()),
        ("PGPORT", port.to_string()),
        ("PGUSER", "app".to_owned()),
        ("PGPASSWORD", "secret".to_owned()),
        ("PGDATABASE", "shop".to_owned()),
    ]
}
