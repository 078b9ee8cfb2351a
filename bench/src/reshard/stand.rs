//! Two shards behind a router, a third one that is empty, and the program that moves rows.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde::Deserialize;
use switchyard_cluster::{
    APP_USER, Cluster, ClusterSpec, MOVING_RIGHTS, Node, Port, RouterFile, Settings, with_shard,
};

use crate::client::Client;
use crate::contender::Endpoint;
use crate::pgbench::{DATABASE, PASSWORD};
use crate::stand::patiently;
use crate::{Error, router};

/// A table, and where its rows come from.
pub(super) struct Table {
    name: &'static str,
    columns: &'static str,
    /// The shard key: the customer.
    key: &'static str,
    /// How many rows there are of it for a customer.
    of_each: u64,
    /// `$FROM` and `$TO` are customers.
    fill: &'static str,
}

/// Rows are about 100 bytes, and have two indexes.
pub(super) const TABLES: [Table; 3] = [
    Table {
        name: "customers",
        columns: "id bigint PRIMARY KEY, name text NOT NULL, email text NOT NULL, since date NOT NULL",
        key: "id",
        of_each: 1,
        fill: "INSERT INTO customers SELECT c, 'customer ' || c, md5(c::text) || '@example.com', date '2020-01-01' + (c % 1000)::int FROM generate_series($FROM, $TO) AS c",
    },
    Table {
        name: "purchases",
        columns: "customer bigint, number int, placed timestamptz NOT NULL, total numeric NOT NULL, note text NOT NULL, PRIMARY KEY (customer, number)",
        key: "customer",
        of_each: 2,
        fill: "INSERT INTO purchases SELECT c, n, timestamptz '2024-01-01' + c * interval '1 second', c % 1000 + 0.5, md5((c + n)::text) || ' as usual' FROM generate_series($FROM, $TO) AS c, generate_series(1, 2) AS n",
    },
    Table {
        name: "lines",
        columns: "customer bigint, number int, line int, product int NOT NULL, price numeric NOT NULL, note text NOT NULL, PRIMARY KEY (customer, number, line)",
        key: "customer",
        of_each: 4,
        fill: "INSERT INTO lines SELECT c, n, l, (c * 31 + l) % 50000, l + 0.25, md5((c - l)::text) || ' as usual' FROM generate_series($FROM, $TO) AS c, generate_series(1, 2) AS n, generate_series(1, 2) AS l",
    },
];
const INDEXES: &str = "CREATE INDEX ON customers (email); CREATE INDEX ON purchases (placed); CREATE INDEX ON lines (product)";
/// So many customers are loaded by one statement.
const PIECE: u64 = 20_000;
/// A third of the customers, by the hash that makes buckets: what a third shard gets.
const THIRD: &str = "WHERE abs(hashint8extended($KEY, 0)) % 3 = 0";

/// Everything that runs.
pub(super) struct Stand {
    client: Client,
    router: Endpoint,
    config: PathBuf,
    // Order matters: who uses a server goes before it.
    cluster: Cluster,
    third: Cluster,
    _directory: tempfile::TempDir,
}

/// What the program has done.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Migrated {
    pub(super) rows: u64,
    pub(super) seconds: f64,
    /// When each group had moved.
    #[serde(skip)]
    pub(super) groups: Vec<Instant>,
}

impl Stand {
    pub(super) fn raise() -> Result<Stand, Error> {
        let spec = |shards| ClusterSpec {
            database: DATABASE.to_owned(),
            password: PASSWORD.to_owned(),
            settings: Settings::durable()
                .with("shared_buffers", "256MB")
                .with("max_wal_size", "4GB"),
            ..ClusterSpec::for_tests(shards, 0)
        };
        let cluster = Cluster::start(spec(2).with_catalog())?;
        let third = Cluster::start(spec(1))?;
        for shard in cluster.shards() {
            let node = shard.primary.as_ref();
            for Table { name, columns, .. } in TABLES {
                cluster.sql(node, &format!("CREATE TABLE {name} ({columns})"))?;
            }
            cluster.sql(node, INDEXES)?;
            cluster.superuser_sql(node, DATABASE, MOVING_RIGHTS)?;
        }
        let third_node = third.shard(0).primary.as_ref();
        third.superuser_sql(third_node, DATABASE, MOVING_RIGHTS)?;
        let (port, http) = (Port::any()?, Port::any()?);
        let two = cluster.router_file(&RouterFile {
            listen: port.number(),
            http: http.number(),
            auth: "scram-sha-256",
            router: "",
            tables: &tables(),
        });
        drop(http);
        let directory = tempfile::tempdir().map_err(Error::io("make a directory"))?;
        let config = directory.path().join("three.toml");
        std::fs::write(&config, with_shard(&two, "s2", third_node))
            .map_err(Error::io("write a configuration"))?;
        let router = router::launch(directory.path(), "reshard", &two, port)?;
        let login = || Client::login(router.port.number(), APP_USER, DATABASE);
        patiently("router", || login().map(drop))?;
        let client = login().map_err(Error::io("log in"))?;
        client
            .set_patience(Duration::from_secs(600))
            .map_err(Error::io("log in"))?;
        Ok(Stand {
            client,
            router,
            config,
            cluster,
            third,
            _directory: directory,
        })
    }

    /// Where the router is.
    pub(super) fn port(&self) -> u16 {
        self.router.port.number()
    }

    /// Loads about so many rows; the number of customers.
    pub(super) fn fill(&mut self, rows: u64) -> Result<u64, Error> {
        let of_each: u64 = TABLES.iter().map(|table| table.of_each).sum();
        let customers = (rows / of_each).max(1);
        for from in (0..customers).step_by(PIECE as usize) {
            let to = (from + PIECE).min(customers) - 1;
            for table in &TABLES {
                let insert = table
                    .fill
                    .replace("$FROM", &from.to_string())
                    .replace("$TO", &to.to_string());
                self.client.run(&insert).map_err(Error::io("load rows"))?;
            }
        }
        for shard in self.cluster.shards() {
            self.cluster.sql(shard.primary.as_ref(), "ANALYZE")?;
            self.cluster
                .superuser_sql(shard.primary.as_ref(), DATABASE, "CHECKPOINT")?;
        }
        Ok(customers)
    }

    /// How many rows there are, and bytes.
    pub(super) fn size(&self) -> Result<(u64, u64), Error> {
        let (mut rows, mut bytes) = (0, 0);
        for shard in self.cluster.shards() {
            let node = shard.primary.as_ref();
            for Table { name, .. } in TABLES {
                let number = |sql: String| -> Result<u64, Error> {
                    Ok(self.cluster.sql(node, &sql)?.parse().unwrap_or(0))
                };
                rows += number(format!("SELECT count(*) FROM {name}"))?;
                bytes += number(format!("SELECT pg_total_relation_size('{name}')"))?;
            }
        }
        Ok((rows, bytes))
    }

    /// Copies a third of the rows of both shards to the third at a time, and removes them there; rows per second.
    pub(super) fn copy(&self, indexed: bool) -> Result<f64, Error> {
        let node = self.third.shard(0).primary.as_ref();
        let mut ddl = String::new();
        for Table { name, columns, .. } in TABLES {
            let columns = match indexed {
                true => columns.to_owned(),
                false => columns
                    .replace(" PRIMARY KEY", "")
                    .replace(", (customer, number, line)", "")
                    .replace(", (customer, number)", ""),
            };
            ddl += &format!("CREATE TABLE {name} ({columns});");
        }
        if indexed {
            ddl += INDEXES;
        }
        self.third.sql(node, &ddl)?;
        let began = Instant::now();
        let mut copies = Vec::new();
        for shard in self.cluster.shards() {
            copies.push(self.copy_all(shard.primary.as_ref(), node)?);
        }
        for (mut from, mut to) in copies {
            for end in [from.wait(), to.wait()] {
                let end = end.map_err(Error::io("copy rows"))?;
                if !end.success() {
                    return Err(Error::io("copy rows")(std::io::ErrorKind::Other.into()));
                }
            }
        }
        let seconds = began.elapsed().as_secs_f64();
        let mut rows = 0.0;
        for Table { name, .. } in TABLES {
            let count = self
                .third
                .sql(node, &format!("SELECT count(*) FROM {name}"))?;
            rows += count.parse().unwrap_or(0.0);
            self.third.sql(node, &format!("DROP TABLE {name}"))?;
        }
        Ok(rows / seconds)
    }

    /// All tables, one after the other, by two psqls with a pipe between.
    fn copy_all(&self, from: &dyn Node, to: &dyn Node) -> Result<(Child, Child), Error> {
        let install = switchyard_cluster::Install::find(None)?;
        let psql = |node: &dyn Node| {
            let mut command = Command::new(install.program("psql"));
            command
                .args(["--no-psqlrc", "--quiet", "--set", "ON_ERROR_STOP=1"])
                .args(["--host", node.host(), "--port", &node.port().to_string()])
                .args(["--username", APP_USER, "--dbname", DATABASE])
                .env("PGPASSWORD", PASSWORD);
            command
        };
        let (mut reads, mut writes) = (psql(from), psql(to));
        for Table { name, key, .. } in TABLES {
            let third = THIRD.replace("$KEY", key);
            reads.args([
                "--command",
                &format!("COPY (SELECT * FROM {name} {third}) TO STDOUT"),
            ]);
            // What tells psql where one table's rows end.
            reads.args(["--command", "\\echo '\\\\.'"]);
            writes.args(["--command", &format!("COPY {name} FROM STDIN")]);
        }
        let mut reads = reads
            .stdout(Stdio::piped())
            .spawn()
            .map_err(Error::io("run psql"))?;
        let pipe = reads.stdout.take();
        let writes = writes
            .stdin(pipe.map_or_else(Stdio::null, Stdio::from))
            .stdout(Stdio::null())
            .spawn()
            .map_err(Error::io("run psql"))?;
        Ok((reads, writes))
    }

    /// Runs the program that moves rows, with the file that asks for three shards.
    pub(super) fn migrate(&self, what: &str) -> Result<Migrated, Error> {
        let mut command = Command::new(router::sibling("switchyard-migrate")?);
        command.args([what, "--json"]);
        if what != "verify" {
            command.arg("--yes");
        }
        let log = self.config.with_extension("json");
        let output = File::create(&log).map_err(Error::io("make a file"))?;
        let mut child = command
            .arg("--config")
            .arg(&self.config)
            .stdout(output)
            .stderr(Stdio::piped())
            .spawn()
            .map_err(Error::io("run switchyard-migrate"))?;
        let mut groups = Vec::new();
        let mut said = String::new();
        if let Some(log) = child.stderr.take() {
            for line in BufReader::new(log).lines() {
                let line = line.map_err(Error::io("read the log of switchyard-migrate"))?;
                if line.contains("a group has moved") {
                    groups.push(Instant::now());
                }
                said = line;
            }
        }
        let end = child.wait().map_err(Error::io("run switchyard-migrate"))?;
        if !end.success() {
            return Err(Error::NotReady {
                contender: "switchyard-migrate",
                reason: said,
            });
        }
        let mut text = String::new();
        File::open(&log)
            .and_then(|mut file| file.read_to_string(&mut text))
            .map_err(Error::io("read what switchyard-migrate says"))?;
        let done: Migrated = match what {
            "verify" => Migrated::default(),
            _ => serde_json::from_str(&text)?,
        };
        Ok(Migrated { groups, ..done })
    }
}

fn tables() -> String {
    let table = |Table { name, key, .. }: Table| {
        format!(
            "\n[[databases.tables]]\nname = \"{name}\"\nshard_key = \"{key}\"\nmethod = \"hash\"\n"
        )
    };
    TABLES.map(table).concat()
}
