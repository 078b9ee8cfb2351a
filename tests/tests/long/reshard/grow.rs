//! An ordinary database of one server, none of whose tables is sharded, becomes one of three shards while clients work.

use std::sync::atomic::{AtomicBool, Ordering};

use switchyard_tests::cluster::{Cluster, ClusterSpec, Node, RouterFile};
use switchyard_tests::{Client, Login, Router, RouterPorts, migrate};

use super::load::Over;

const DDL: &str = "
CREATE TABLE accounts (id bigint PRIMARY KEY, name text NOT NULL, balance int NOT NULL DEFAULT 0);
CREATE INDEX ON accounts (name);
CREATE TABLE steps (account bigint, n int, PRIMARY KEY (account, n));
CREATE TABLE settings (key text PRIMARY KEY, value text);
INSERT INTO accounts SELECT n, 'account ' || n FROM generate_series(0, 599) AS n;
INSERT INTO settings VALUES ('currency', 'KRW');
";
const RIGHTS: &str = "GRANT SET ON PARAMETER session_replication_role, deadlock_timeout, switchyard.epoch TO app; GRANT pg_signal_backend TO app";
const ACCOUNTS: i64 = 600;

/// Counts account after account up, and notes each step. None of its statements fails; how many there were.
fn work(mut client: Client, over: &AtomicBool) -> i64 {
    let mut steps = 0;
    while !over.load(Ordering::Relaxed) {
        let (account, n) = (steps * 7 % ACCOUNTS, steps / ACCOUNTS);
        let count = format!("UPDATE accounts SET balance = balance + 1 WHERE id = {account}");
        let counted = client.run(&count).succeeded();
        assert_eq!(counted.tag.as_deref(), Some("UPDATE 1"));
        let note = format!("INSERT INTO steps VALUES ({account}, {n})");
        client.run(&note).succeeded();
        steps += 1;
        let all = client.run("SELECT sum(balance), (SELECT count(*) FROM steps) FROM accounts");
        let steps = steps.to_string();
        assert_eq!(all.succeeded().texts(), [[steps.clone(), steps]]);
    }
    steps
}

/// One server with its catalog, and two more that are empty.
struct Servers {
    one: Cluster,
    two: Cluster,
}

impl Servers {
    fn start() -> Servers {
        let servers = Servers {
            one: Cluster::start(ClusterSpec::for_tests(1, 0).with_catalog()).unwrap(),
            two: Cluster::start(ClusterSpec::for_tests(2, 0)).unwrap(),
        };
        for (cluster, node) in servers.nodes() {
            cluster.superuser_sql(node, "shop", RIGHTS).unwrap();
        }
        servers.one.sql(servers.nodes()[0].1, DDL).unwrap();
        servers
    }

    fn nodes(&self) -> [(&Cluster, &dyn Node); 3] {
        let Servers { one, two } = self;
        [(one, 0), (two, 0), (two, 1)]
            .map(|(cluster, shard)| (cluster, cluster.shard(shard).primary.as_ref()))
    }

    /// What the router is started with, and what is asked for then.
    fn files(&self, ports: &RouterPorts) -> (String, String) {
        let file = |tables: &str| {
            self.one.router_file(&RouterFile {
                listen: ports.port(),
                http: ports.http(),
                auth: "scram-sha-256",
                router: "",
                tables,
            })
        };
        let shard = |number: usize| {
            let (_, node) = self.nodes()[number];
            let (host, port) = (node.host(), node.port());
            format!(
                "\n[[databases.shards]]\nname = \"s{number}\"\nnodes = [{{ host = {host:?}, port = {port}, role = \"primary\" }}]\n"
            )
        };
        let table = |name: &str, key: &str| {
            format!(
                "\n[[databases.tables]]\nname = \"{name}\"\nshard_key = \"{key}\"\nmethod = \"hash\"\n"
            )
        };
        let tables = [table("accounts", "id"), table("steps", "account")].concat();
        (file(""), file(&(shard(1) + &shard(2) + &tables)))
    }
}

#[test]
fn an_ordinary_database_becomes_sharded() {
    let servers = Servers::start();
    let ports = RouterPorts::choose();
    let port = ports.port();
    let (before, after) = servers.files(&ports);
    let _router = Router::start(&before, ports);
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("three.toml");
    std::fs::write(&config, after).unwrap();

    let login = || Client::connect(&Login::new(port));
    let over = AtomicBool::new(false);
    let steps = std::thread::scope(|scope| {
        let over = &over;
        let working = scope.spawn(move || work(login(), over));
        let ends = Over(over);
        let mut client = login();
        // On one shard nothing has to move for that.
        for call in [
            "SELECT create_distributed_table('accounts', 'id')",
            "SELECT create_distributed_table('steps', 'account', colocate_with => 'accounts')",
        ] {
            client.run(call).succeeded();
        }
        migrate(&["apply", "--yes", "--group-rows", "200"], &config).succeeded();
        migrate(&["finish"], &config).succeeded();
        drop(ends);
        working.join().unwrap()
    });
    migrate(&["verify"], &config).succeeded();
    let all = "SELECT count(*), sum(balance), (SELECT value FROM settings) FROM accounts";
    let expected = [["600".to_owned(), steps.to_string(), "KRW".to_owned()]];
    assert_eq!(login().run(all).succeeded().texts(), expected);
    assert!(steps > 10, "clients have worked");
    for (cluster, node) in servers.nodes() {
        let count = cluster.sql(node, "SELECT count(*) FROM accounts").unwrap();
        assert!((140..260).contains(&count.parse().unwrap()), "{count}");
    }
}
