//! One router, three databases: on one shard, on two and on five; and twice the same data on a plain server, so that an
//! answer that depends on the order of rows gives itself away.

use std::fmt::Write;

use switchyard_cluster::{APP_USER, Cluster, ClusterSpec, Node};

use super::schema::Method;
use super::{data, schema};
use crate::{Client, Login, Router, RouterPorts};

/// How many shards a database has, and its name.
pub const LAYOUTS: [(usize, &str); 3] = [(1, "one"), (2, "two"), (5, "five")];

/// Databases of the plain server: the second has its rows in the opposite order.
const PLAIN: [&str; 2] = ["plain", "mirror"];

/// Running servers with the tables in them.
#[derive(Debug)]
pub struct Servers {
    // Order matters: the router goes before its servers.
    router: Router,
    cluster: Cluster,
}

impl Servers {
    /// Starts everything, and fills the tables from the seed.
    pub fn start(seed: u64) -> Servers {
        let shards = LAYOUTS
            .map(|(shards, _)| shards)
            .into_iter()
            .max()
            .unwrap_or_default();
        let mut spec = ClusterSpec::for_tests(shards, 0);
        spec.database = "five".to_owned();
        // Compiling takes longer than running these.
        spec.settings.set("jit", "off");
        let cluster = Cluster::start(spec).unwrap();
        std::thread::scope(|scope| {
            for index in 0..shards {
                let cluster = &cluster;
                scope.spawn(move || make_databases(cluster, index));
            }
        });
        let ports = RouterPorts::choose();
        let router = Router::start(&configuration(&cluster, &ports), ports);
        let servers = Servers { router, cluster };
        servers.fill(seed);
        servers
    }

    /// A client of the router, in the database of so many shards.
    pub fn router(&self, shards: usize) -> Client {
        limited(connect(self.router.port(), database(shards)))
    }

    /// How many bind joins the router has made in the database of so many shards.
    pub fn bind_joins(&self, shards: usize) -> u64 {
        let name = format!(
            "switchyard_bind_joins_total{{database={:?}}} ",
            database(shards)
        );
        self.router.metric(&name) as u64
    }

    /// A client of the plain server.
    pub fn plain(&self) -> Client {
        limited(connect(self.node(0).port(), PLAIN[0]))
    }

    /// A client of each shard of the database of so many, past the router.
    pub fn shards(&self, shards: usize) -> Vec<Client> {
        let shards = 0..shards;
        let clients = shards
            .clone()
            .map(|index| connect(self.node(index).port(), database(shards.len())));
        clients.map(limited).collect()
    }

    /// A client of the plain server whose rows are in another order.
    pub fn mirror(&self) -> Client {
        limited(connect(self.node(0).port(), PLAIN[1]))
    }

    /// A client of the plain server with temporary copies of the sharded tables, as a workspace has them.
    pub fn copies(&self) -> Client {
        let mut client = self.plain();
        for table in schema::TABLES {
            if !matches!(table.method, Method::Reference | Method::Unsharded) {
                let name = table.name;
                client
                    .run(&format!("CREATE TEMPORARY TABLE {name} AS TABLE {name}"))
                    .succeeded();
                client.run(&format!("ANALYZE {name}")).succeeded();
            }
        }
        client
    }

    fn node(&self, index: usize) -> &dyn Node {
        self.cluster.shard(index).primary.as_ref()
    }

    fn fill(&self, seed: u64) {
        let mut rows = data::inserts(seed);
        std::thread::scope(|scope| {
            for (shards, _) in LAYOUTS {
                let (rows, mut client) = (&rows, self.router(shards));
                scope.spawn(move || {
                    rows.iter()
                        .for_each(|row| drop(client.run(row).succeeded()))
                });
            }
        });
        self.plain()
            .simple(&rows.join(";"))
            .into_iter()
            .for_each(|reply| drop(reply.succeeded()));
        rows.reverse();
        let replies = self.mirror().simple(&rows.join(";"));
        replies
            .into_iter()
            .for_each(|reply| drop(reply.succeeded()));
    }
}

/// The database of so many shards.
fn database(shards: usize) -> &'static str {
    let mut layouts = LAYOUTS.iter();
    let layout = layouts.find(|(count, _)| *count == shards);
    layout.expect("there is such a layout").1
}

fn connect(port: u16, database: &str) -> Client {
    let mut login = Login::new(port);
    login.database = database.to_owned();
    Client::connect(&login)
}

fn limited(mut client: Client) -> Client {
    client.run("SET statement_timeout = '2s'").succeeded();
    client
}

/// Makes the databases of the server of this number, and the tables in them.
fn make_databases(cluster: &Cluster, index: usize) {
    let node = cluster.shard(index).primary.as_ref();
    let layouts = LAYOUTS
        .iter()
        .filter(|(shards, _)| index < *shards)
        .map(|(_, name)| *name);
    let plain = PLAIN.iter().filter(|_| index == 0).copied();
    for name in layouts.chain(plain) {
        if name != cluster.spec().database {
            let sql = format!("CREATE DATABASE {name} OWNER {APP_USER}");
            cluster.superuser_sql(node, "postgres", &sql).unwrap();
        }
        let replies = connect(node.port(), name).simple(&schema::ddl());
        replies
            .into_iter()
            .for_each(|reply| drop(reply.succeeded()));
    }
}

fn configuration(cluster: &Cluster, ports: &RouterPorts) -> String {
    let mut text = format!(
        "[router]\nlisten = \"127.0.0.1:{}\"\nhttp = \"127.0.0.1:{}\"\n\n[auth]\nmethod = \"scram-sha-256\"\n\n\
         [[users]]\nname = \"{APP_USER}\"\npassword = {:?}\n",
        ports.port(),
        ports.http(),
        cluster.spec().password,
    );
    for (shards, name) in LAYOUTS {
        // Writing to a string cannot fail.
        let _ = write!(text, "\n[[databases]]\nname = {name:?}\n");
        for shard in &cluster.shards()[..shards] {
            let (host, port) = (shard.primary.host(), shard.primary.port());
            let node = format!("{{ host = {host:?}, port = {port}, role = \"primary\" }}");
            let _ = write!(
                text,
                "\n[[databases.shards]]\nname = {:?}\nnodes = [ {node} ]\n",
                shard.name
            );
        }
        text.push_str(&schema::configuration(shards));
    }
    text
}
