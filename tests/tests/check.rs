//! `switchyard check`: a good installation, and each thing that can be wrong with one.

#![allow(clippy::unwrap_used, reason = "test code fails by panicking")]

use std::path::PathBuf;

use switchyard_catalog::{Catalog, Credentials};
use switchyard_cluster::{Cluster, ClusterSpec, RouterFile, Settings, Stop};
use switchyard_tests::{command, eventually, shop};
use tempfile::TempDir;

/// A table beside the shop's: ranges of text depend on its order.
const NAMES: (&str, &str) = (
    "CREATE TABLE names (name text COLLATE \"C\" PRIMARY KEY)",
    r#"
[[databases.tables]]
name = "names"
shard_key = "name"
method = "range"
ranges = [ { below = "m", shard = "s0" }, { shard = "s1" } ]
"#,
);

/// The tables that all of these tests configure.
fn tables() -> String {
    format!("{}{}", shop::TABLES, NAMES.1)
}

struct Bed {
    cluster: Cluster,
    directory: TempDir,
}

impl Bed {
    fn start(spec: ClusterSpec) -> Self {
        let bed = Self {
            cluster: Cluster::start(spec).unwrap(),
            directory: TempDir::new().unwrap(),
        };
        for shard in bed.cluster.shards() {
            for ddl in [shop::DDL, NAMES.0] {
                bed.cluster.sql(shard.primary.as_ref(), ddl).unwrap();
            }
        }
        bed
    }

    fn config(&self, tables: &str) -> PathBuf {
        let text = self.cluster.router_file(&RouterFile {
            listen: 6432,
            http: 6433,
            auth: "trust",
            router: "",
            tables,
        });
        let path = self.directory.path().join("switchyard.toml");
        std::fs::write(&path, text).unwrap();
        path
    }

    /// Exit code and standard output.
    fn check(&self) -> (Option<i32>, String) {
        let (code, out, _) = command(&["check"], &self.config(&tables()));
        (code, out)
    }

    #[track_caller]
    fn finds(&self, problem: &str) {
        let (code, out) = self.check();
        assert_eq!(code, Some(1), "{out}");
        assert!(out.contains(problem), "{problem:?} is not in\n{out}");
    }

    fn sql(&self, shard: usize, sql: &str) {
        let primary = self.cluster.shard(shard).primary.as_ref();
        self.cluster.sql(primary, sql).unwrap();
    }
}

#[test]
fn a_good_installation_has_no_problems() {
    let bed = Bed::start(ClusterSpec::for_tests(2, 1));
    eventually("replicas stream", || bed.check().0 == Some(0));
    let (_, out) = bed.check();
    for expected in [
        "database shop",
        "shard s0",
        "primary up",
        "replica up",
        "streaming",
        "table users hash (id bigint)",
        "no problems",
    ] {
        assert!(out.contains(expected), "{expected:?} is not in\n{out}");
    }
    let (code, out, _) = command(&["check", "--json"], &bed.config(&tables()));
    assert_eq!(code, Some(0), "{out}");
    let json: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        json["databases"][0]["shards"][1]["nodes"][1]["role"],
        "replica"
    );
    assert_eq!(json["problems"].as_array().unwrap().len(), 0);
}

/// Writes of one shard need nothing prepared: it is a warning.
#[test]
fn servers_that_prepare_nothing_are_warned_of() {
    let bed = Bed::start(ClusterSpec {
        settings: Settings::for_tests().with("max_prepared_transactions", "0"),
        ..ClusterSpec::for_tests(2, 0)
    });
    let (code, out) = bed.check();
    assert_eq!(code, Some(0), "{out}");
    let warned = out.matches("max_prepared_transactions is 0").count();
    assert_eq!(warned, 2, "{out}");
}

#[test]
fn servers_that_are_not_as_configured_are_problems() {
    let bed = Bed::start(ClusterSpec::for_tests(2, 1));
    eventually("replicas stream", || bed.check().0 == Some(0));
    bed.cluster.shard(0).replicas[0].stop(Stop::Fast).unwrap();
    bed.finds("shard \"s0\", node");
    bed.cluster.shard(0).replicas[0].start().unwrap();
    bed.cluster.shard(1).replicas[0].promote().unwrap();
    // The cluster knows of the promotion, so the file written now would too.
    let text = std::fs::read_to_string(bed.config(&tables())).unwrap();
    assert_eq!(text.matches("role = \"primary\"").count(), 3);
    let port = bed.cluster.shard(1).replicas[0].port();
    let lines: Vec<_> = text
        .lines()
        .map(|line| match line.contains(&format!("port = {port}")) {
            true => line.replace("\"primary\"", "\"replica\""),
            false => line.to_owned(),
        })
        .collect();
    let path = bed.directory.path().join("promoted.toml");
    std::fs::write(&path, lines.join("\n")).unwrap();
    let (code, out, _) = command(&["check"], &path);
    assert_eq!(code, Some(1));
    assert!(
        out.contains("configured as replica, but it is not in recovery"),
        "{out}"
    );
}

#[test]
fn a_database_in_another_encoding_is_a_problem() {
    let bed = Bed::start(ClusterSpec::for_tests(2, 0));
    for (shard, encoding) in [(0, "UTF8"), (1, "LATIN1")] {
        let sql = format!(
            "CREATE DATABASE store OWNER app TEMPLATE template0 LOCALE 'C' ENCODING '{encoding}'"
        );
        let primary = bed.cluster.shard(shard).primary.as_ref();
        bed.cluster.superuser_sql(primary, "shop", &sql).unwrap();
        let names = "SET ROLE app; CREATE TABLE names (name text PRIMARY KEY)";
        bed.cluster.superuser_sql(primary, "store", names).unwrap();
    }
    let text = std::fs::read_to_string(bed.config(NAMES.1)).unwrap();
    let path = bed.directory.path().join("store.toml");
    std::fs::write(&path, text.replace("\"shop\"", "\"store\"")).unwrap();
    let (code, out, _) = command(&["check"], &path);
    assert_eq!(code, Some(1), "{out}");
    let said = "the database's encoding is LATIN1, not UTF8";
    let found: Vec<_> = out.lines().filter(|line| line.contains(said)).collect();
    assert!(found.len() == 1 && found[0].contains("\"s1\""), "{out}");
}

#[test]
fn tables_that_do_not_fit_are_problems() {
    let bed = Bed::start(ClusterSpec::for_tests(2, 0));
    assert_eq!(bed.check().0, Some(0));
    bed.sql(1, "ALTER TABLE countries RENAME TO nations");
    bed.finds("shard \"s1\", table countries");
    bed.sql(
        1,
        "ALTER TABLE nations RENAME TO countries; ALTER TABLE countries ALTER COLUMN name TYPE varchar(20)",
    );
    bed.finds("table countries: column \"name\" has another type");
    bed.sql(1, "ALTER TABLE countries ALTER COLUMN name TYPE text");
    assert_eq!(bed.check().0, Some(0));
    bed.sql(0, "ALTER TABLE users ALTER COLUMN id TYPE int4");
    bed.finds("table users: column \"id\" has another type");
    bed.sql(0, "ALTER TABLE users ALTER COLUMN id TYPE int8");
    for shard in 0..2 {
        bed.sql(
            shard,
            "ALTER TABLE names ALTER COLUMN name TYPE text COLLATE \"und-x-icu\"",
        );
    }
    bed.finds("table names");
    for shard in 0..2 {
        bed.sql(shard, "ALTER TABLE names RENAME COLUMN name TO nom");
    }
    bed.finds("table names");
}

/// Each is done on the second shard, found, and undone.
const DRIFT: &[(&str, &str, &str)] = &[
    (
        "CREATE INDEX by_country ON users (country)",
        "index public.by_country is missing on shard \"s0\"",
        "DROP INDEX by_country",
    ),
    (
        "ALTER TABLE users ADD CONSTRAINT named CHECK (name <> '')",
        "constraint public.users.named is missing on shard \"s0\"",
        "ALTER TABLE users DROP CONSTRAINT named",
    ),
    (
        "ALTER TABLE users ALTER COLUMN name SET DEFAULT 'x'",
        "column public.users.name differs: text NOT NULL on shard \"s0\"; text NOT NULL DEFAULT 'x'::text on shard \"s1\"",
        "ALTER TABLE users ALTER COLUMN name DROP DEFAULT",
    ),
    (
        "CREATE TABLE more (id int PRIMARY KEY, t text)",
        "table public.more is missing on shard \"s0\"",
        "DROP TABLE more",
    ),
    (
        "ALTER TYPE mood ADD VALUE 'glad'",
        "type public.mood differs: owner app, ENUM ('sad') on shard \"s0\"; owner app, ENUM ('sad', 'glad') on shard \"s1\"",
        "DROP TYPE mood; CREATE TYPE mood AS ENUM ('sad')",
    ),
    (
        "CREATE OR REPLACE FUNCTION twice(int) RETURNS int LANGUAGE sql AS 'SELECT 3 * $1'",
        "function public.twice(integer) differs: between shard \"s0\" and shard \"s1\"",
        "CREATE OR REPLACE FUNCTION twice(int) RETURNS int LANGUAGE sql AS 'SELECT 2 * $1'",
    ),
    (
        "CREATE TRIGGER t BEFORE UPDATE ON users FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()",
        "trigger public.users.t is missing on shard \"s0\"",
        "DROP TRIGGER t ON users",
    ),
    (
        "CREATE OR REPLACE VIEW named AS SELECT name, id FROM users WHERE id > 0",
        "view public.named differs: between shard",
        "DROP VIEW named; CREATE VIEW named AS SELECT name, id FROM users",
    ),
    (
        "GRANT SELECT ON users TO PUBLIC",
        "privileges on table public.users differs: ",
        "REVOKE SELECT ON users FROM PUBLIC",
    ),
    (
        "ALTER SEQUENCE numbers INCREMENT 10",
        "sequence public.numbers differs: ",
        "ALTER SEQUENCE numbers INCREMENT 1",
    ),
    (
        "ALTER TABLE users ENABLE ROW LEVEL SECURITY",
        "table public.users differs: owner app on shard \"s0\"; owner app, row security on shard \"s1\"",
        "ALTER TABLE users DISABLE ROW LEVEL SECURITY",
    ),
    (
        "CREATE SCHEMA inner_ones",
        "schema inner_ones is missing on shard \"s0\"",
        "DROP SCHEMA inner_ones",
    ),
];

#[test]
fn what_is_defined_otherwise_on_a_shard_is_named() {
    let bed = Bed::start(ClusterSpec::for_tests(2, 0));
    for shard in 0..2 {
        bed.sql(
            shard,
            "CREATE TYPE mood AS ENUM ('sad'); CREATE SEQUENCE numbers;
             CREATE FUNCTION twice(int) RETURNS int LANGUAGE sql AS 'SELECT 2 * $1';
             CREATE VIEW named AS SELECT name, id FROM users",
        );
    }
    let (code, out) = bed.check();
    assert_eq!(code, Some(0), "{out}");
    for (change, problem, undo) in DRIFT {
        bed.sql(1, change);
        bed.finds(problem);
        bed.sql(1, undo);
    }
    let second = bed.cluster.shard(1).primary.as_ref();
    for (change, problem) in [
        (
            "CREATE EXTENSION pgcrypto",
            "extension pgcrypto is missing on shard \"s0\"",
        ),
        (
            "ALTER ROLE app CREATEDB",
            "role app differs: createdb login on shard \"s1\"; login on shard \"s0\"",
        ),
        (
            "ALTER DATABASE shop SET work_mem = '5MB'",
            "settings of the database is missing on shard \"s0\"",
        ),
    ] {
        bed.cluster.superuser_sql(second, "shop", change).unwrap();
        bed.finds(problem);
    }
}

#[test]
fn the_catalog_and_the_file_are_compared() {
    let bed = Bed::start(ClusterSpec::for_tests(2, 0).with_catalog());
    let (code, out) = bed.check();
    assert_eq!(code, Some(0), "{out}");
    assert!(out.contains("the first router fills it"), "{out}");

    let text = std::fs::read_to_string(bed.config(&tables())).unwrap();
    let file = switchyard_schema::Config::parse(&text).unwrap();
    let credentials = Credentials::new(&file.catalog.unwrap(), Some(&bed.cluster.spec().password));
    let filling = async {
        let catalog = Catalog::connect(&credentials).await.unwrap();
        assert!(catalog.initialise(&file.databases).await.unwrap());
        catalog.close().await;
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(filling);
    let (code, out) = bed.check();
    assert_eq!(code, Some(0), "{out}");
    assert!(out.contains("epoch 1"), "{out}");
    let reference = "\n[[databases.tables]]\nname = \"users\"\nmethod = \"reference\"\n";
    let (code, out, _) = command(&["check"], &bed.config(reference));
    assert_eq!(code, Some(1), "{out}");
    assert!(
        out.contains("file and catalog differ: table users is distributed otherwise"),
        "{out}"
    );
    assert!(
        out.contains("file and catalog differ: table names is unsharded in the file"),
        "{out}"
    );

    let node = bed.cluster.catalog().unwrap();
    node.stop(Stop::Fast).unwrap();
    bed.finds(&format!(
        "the catalog cannot be reached at {}:{}: Connection refused",
        node.host(),
        node.port()
    ));
}

#[test]
fn a_wrong_file_is_reported_by_place() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("wrong.toml");
    std::fs::write(
        &path,
        "[router]\nlisten = \"127.0.0.1:6432\"\nlissten = 1\n",
    )
    .unwrap();
    let (code, out, log) = command(&["check"], &path);
    assert_eq!(code, Some(1));
    assert!(out.is_empty());
    assert!(log.contains("wrong.toml:3:1: router.lissten"), "{log}");
    let (code, _, log) = command(&["check"], &directory.path().join("nosuch.toml"));
    assert_eq!(code, Some(1));
    assert!(log.contains("nosuch.toml"), "{log}");
    let (code, _, _) = command(&["chekc"], &path);
    assert_eq!(code, Some(2));
}

#[test]
fn explain_prints_a_plan_and_runs_nothing() {
    let bed = Bed::start(ClusterSpec::for_tests(2, 0));
    let explain = |sql: &str| command(&["explain", sql], &bed.config(&tables()));
    let (code, out, log) = explain("SELECT * FROM users WHERE id = 7");
    assert_eq!(code, Some(0), "{log}");
    assert!(out.contains("users"), "{out}");
    assert!(out.contains("s0") || out.contains("s1"), "{out}");
    let (code, out, _) =
        explain("INSERT INTO users (id, email, name, country) VALUES (1, 'x', 'x', 'no')");
    assert_eq!(code, Some(0), "{out}");
    let primaries = bed
        .cluster
        .shards()
        .iter()
        .map(|shard| shard.primary.as_ref());
    for primary in primaries {
        assert_eq!(
            bed.cluster
                .sql(primary, "SELECT count(*) FROM users")
                .unwrap()
                .trim(),
            "0"
        );
    }
    assert_eq!(explain("SELECT 1; SELECT 2").0, Some(1));
    assert_eq!(explain("").0, Some(1));
    bed.cluster.shard(0).primary.stop(Stop::Fast).unwrap();
    bed.cluster.shard(1).primary.stop(Stop::Fast).unwrap();
    let (code, _, log) = explain("SELECT 1");
    assert_eq!(code, Some(1));
    assert!(log.contains("no node of database"), "{log}");
}
