//! The servers: one plain, and shards with a router in front whose configuration follows the tables there are.

use switchyard_cluster::{Cluster, ClusterSpec, RouterFile, Settings};

use super::mirror::{Key, Mirror};
use crate::{Client, Login, Router, RouterPorts};

/// Running servers and a router.
#[derive(Debug)]
pub(super) struct Stand {
    // Order matters: the router goes before its servers.
    router: Router,
    cluster: Cluster,
    /// One more plain server.
    reordered: Cluster,
    /// The router's console.
    console: Client,
    /// What the router has been told of tables.
    tables: String,
}

/// How many shards the tables are spread over.
const SHARDS: usize = 2;

impl Stand {
    /// Starts everything.
    #[track_caller]
    pub(super) fn start() -> Stand {
        let mut spec = ClusterSpec::for_tests(SHARDS, 0).with_oracle();
        // What the files expect; and nothing may move rows by itself.
        spec.settings = Settings::for_tests()
            .with("autovacuum", "off")
            .with("max_locks_per_transaction", "256");
        let alone = ClusterSpec {
            shards: 1,
            oracle: false,
            ..spec.clone()
        };
        let [cluster, reordered] = [spec, alone].map(|spec| Cluster::start(spec).unwrap());
        for cluster in [&cluster, &reordered] {
            for node in cluster.nodes() {
                cluster
                    .superuser_sql(node, "postgres", "ALTER ROLE app SUPERUSER")
                    .unwrap();
            }
        }
        let ports = RouterPorts::choose();
        let text = configuration(&cluster, ports.port(), ports.http(), "");
        let router = Router::start(&text, ports);
        let console = router.console();
        Stand {
            router,
            cluster,
            reordered,
            console,
            tables: String::new(),
        }
    }

    /// The shards' side of it.
    pub(super) fn mirror(&self) -> Mirror {
        Mirror::new(&self.cluster, self.reordered.shard(0).primary.as_ref())
    }

    /// A session of the plain server.
    #[track_caller]
    pub(super) fn plain(&self) -> Client {
        let node = self
            .cluster
            .oracle()
            .expect("the cluster was started with one");
        Client::connect(&super::settings(Login::new(node.port())))
    }

    /// A session of the plain server whose rows lie in another order.
    #[track_caller]
    pub(super) fn reordered(&self) -> Client {
        let node = &self.reordered.shard(0).primary;
        Client::connect(&super::settings(Login::new(node.port())))
    }

    /// A session of the router.
    #[track_caller]
    pub(super) fn routed(&self) -> Client {
        Client::connect(&super::settings(Login::new(self.router.port())))
    }

    /// Has the router read its configuration, with these shard keys, and the tables. When this returns it knows them.
    #[track_caller]
    pub(super) fn announce<'a>(&mut self, keys: impl IntoIterator<Item = &'a Key>) {
        let tables: String = keys.into_iter().map(entry).collect();
        if tables != self.tables {
            let text = configuration(
                &self.cluster,
                self.router.port(),
                self.router.http(),
                &tables,
            );
            std::fs::write(self.router.config_file(), text).unwrap();
            self.tables = tables;
        }
        self.console.run("RELOAD").succeeded();
    }
}

impl Drop for Stand {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.router.log();
            let lines: Vec<&str> = log.lines().collect();
            let last = lines.len().saturating_sub(40);
            eprintln!("the router's log ends with:\n{}", lines[last..].join("\n"));
        }
    }
}

fn configuration(cluster: &Cluster, listen: u16, http: u16, tables: &str) -> String {
    let file = RouterFile {
        listen,
        http,
        auth: "scram-sha-256",
        // Cursors keep a workspace each, and a file has two dozen.
        router: "workspace_sessions = 40",
        tables,
    };
    cluster.router_file(&file)
}

fn entry(key: &Key) -> String {
    let part = |name: &str| match name.contains('.') {
        true => format!("\"{name}\""),
        false => name.to_owned(),
    };
    let name = format!("{}.{}", part(&key.schema), part(&key.table));
    format!(
        "\n[[databases.tables]]\nname = {name:?}\nshard_key = {:?}\nmethod = \"hash\"\n",
        key.column
    )
}
