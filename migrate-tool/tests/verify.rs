//! Rows on real shards: well placed, misplaced, and written while they are looked at.
#![expect(clippy::unwrap_used, reason = "a test's helpers fail by panicking")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};
use switchyard_cluster::{Cluster, ClusterSpec, RouterFile, Table};
use switchyard_schema::{Config, KeyType};

const DDL: &str = "
CREATE TABLE users (id bigint PRIMARY KEY, name text);
CREATE TABLE tags (tag text, note text);
CREATE TABLE accounts (id int PRIMARY KEY);
CREATE TABLE events (at date NOT NULL);
CREATE TABLE regions (code text);
CREATE TABLE countries (code text PRIMARY KEY, share float8, flag bytea);
INSERT INTO countries SELECT 'c' || n, n / 7.0, decode(md5(n::text), 'hex') FROM generate_series(1, 500) AS n;
";

const TABLES: &str = "
[[databases.tables]]
name = 'users'
shard_key = 'id'
method = 'hash'

[[databases.tables]]
name = 'tags'
shard_key = 'tag'
method = 'hash'

[[databases.tables]]
name = 'accounts'
shard_key = 'id'
method = 'modulo'

[[databases.tables]]
name = 'events'
shard_key = 'at'
method = 'range'
ranges = [{ below = '2024-03-01', shard = 's0' }, { shard = 's1' }]

[[databases.tables]]
name = 'regions'
shard_key = 'code'
method = 'list'
lists = [{ values = ['kr', 'jp'], shard = 's0' }, { default = true, shard = 's1' }]

[[databases.tables]]
name = 'countries'
method = 'reference'
";

/// A table whose rows are these lines of numbers from -500 to 499.
fn table<'a>(
    name: &'a str,
    columns: &'a [(&'a str, KeyType)],
    line: fn(i64) -> String,
) -> Table<'a> {
    Table {
        name,
        columns,
        rows: Box::new(move |row| (-500..500).for_each(|n| row(&line(n)))),
    }
}

struct Stand {
    cluster: Cluster,
    text: String,
}

impl Stand {
    /// Two shards with rows where the configuration says, by the router's own computing.
    fn raise() -> Stand {
        let cluster = Cluster::start(ClusterSpec::for_tests(2, 0)).unwrap();
        let text = cluster.router_file(&RouterFile {
            listen: 1,
            http: 2,
            auth: "scram-sha-256",
            router: "",
            tables: TABLES,
        });
        let config = Config::parse(&text).unwrap();
        let tables = [
            table("users", &[("id", KeyType::Int8)], |n| {
                format!("{n}\tuser {n}")
            }),
            table("tags", &[("tag", KeyType::Text)], |n| match n {
                0 => "\\N\tnone".to_owned(),
                n => format!("tag {n}\tnote"),
            }),
            table("accounts", &[("id", KeyType::Int4)], |n| n.to_string()),
            table("events", &[("at", KeyType::Date)], |n| {
                format!("2024-0{}-15", n.rem_euclid(9) + 1)
            }),
            table("regions", &[("code", KeyType::Text)], |n| {
                ["kr", "jp", "de"][n.rem_euclid(3) as usize].to_owned()
            }),
        ];
        cluster.load(&config, &tables, DDL).unwrap();
        Stand { cluster, text }
    }

    fn sql(&self, shard: usize, sql: &str) -> String {
        let node = self.cluster.shard(shard).primary.as_ref();
        self.cluster.sql(node, sql).unwrap()
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("shop.toml");
        fs::write(&file, &self.text).unwrap();
        run(&file, arguments)
    }

    /// The report, and whether all is well.
    fn verify(&self) -> (bool, Value) {
        let output = self.run(&["--json"]);
        let log = String::from_utf8_lossy(&output.stderr);
        let report = serde_json::from_slice(&output.stdout);
        assert!(report.is_ok(), "{log}");
        (output.status.code() == Some(0), report.unwrap())
    }

    /// What is wrong with a table, when nothing else is.
    fn only_finding(&self, table: &str) -> Value {
        let (well, mut report) = self.verify();
        assert!(!well);
        let tables = report["databases"][0]["tables"].as_array_mut().unwrap();
        let wrong = |table: &&mut Value| !table["findings"].as_array().unwrap().is_empty();
        let mut wrong: Vec<&mut Value> = tables.iter_mut().filter(wrong).collect();
        assert_eq!(wrong.len(), 1, "{wrong:#?}");
        assert_eq!(wrong[0]["name"], table);
        let findings = wrong[0]["findings"].as_array_mut().unwrap();
        assert_eq!(findings.len(), 1, "{findings:#?}");
        findings[0].take()
    }
}

fn run(file: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_switchyard-migrate"))
        .args(["verify", "--config"])
        .arg(file)
        .args(arguments)
        .output()
        .unwrap()
}

#[test]
fn rows_are_found_where_they_should_not_be() {
    let stand = Stand::raise();
    well(&stand);
    misplaced(&stand);
    unlike(&stand);
    resumed(&stand);
    written_meanwhile(&stand);
    hidden(&stand);
}

fn well(stand: &Stand) {
    let (well, report) = stand.verify();
    assert!(well, "{report:#}");
    let table = |name: &str, rows: u64| json!({ "name": name, "rows": rows, "findings": [] });
    let placed = ["users", "tags", "accounts", "events", "regions"].map(|name| table(name, 1000));
    let mut expected = placed.to_vec();
    expected.push(table("countries", 500));
    assert_eq!(report["databases"][0]["tables"], Value::Array(expected));
    let text = stand.run(&[]);
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(text.contains("  users: 1000 rows, all well\n"), "{text}");
    assert!(text.ends_with("Every row is where it belongs.\n"), "{text}");
}

/// One row of each kind of placement, on the other shard.
fn misplaced(stand: &Stand) {
    for (table, key) in [
        ("users", "id"),
        ("tags", "tag"),
        ("accounts", "id"),
        ("events", "at"),
        ("regions", "code"),
    ] {
        for (from, to) in [(0, 1), (1, 0)] {
            let lowest = stand.sql(from, &format!("SELECT min({key}) FROM {table}"));
            stand.sql(
                to,
                &format!("INSERT INTO {table} ({key}) VALUES ('{lowest}')"),
            );
            let expected = json!({
                "what": "misplaced", "shard": format!("s{to}"), "owner": format!("s{from}"), "rows": 1, "keys": [lowest]
            });
            assert_eq!(stand.only_finding(table), expected, "{table}");
            stand.sql(to, &format!("DELETE FROM {table} WHERE {key} = '{lowest}'"));
        }
    }
    stand.sql(1, "INSERT INTO tags (note) VALUES ('no key')");
    stand.sql(0, "INSERT INTO tags (note) VALUES ('no key')");
    assert_eq!(stand.only_finding("tags")["keys"], json!(["NULL"]));
    stand.sql(1, "DELETE FROM tags WHERE note = 'no key'");
    stand.sql(0, "DELETE FROM tags WHERE note = 'no key'");
}

/// A bit, a row too few, a row too many, the same row once more.
fn unlike(stand: &Stand) {
    let faults = [
        (
            "UPDATE countries SET flag = set_bit(flag, 3, 1 - get_bit(flag, 3)) WHERE code = 'c7'",
            (1, 1),
        ),
        (
            "UPDATE countries SET share = share + 1e-12 WHERE code = 'c3'",
            (1, 1),
        ),
        ("DELETE FROM countries WHERE code = 'c9'", (1, 0)),
        ("INSERT INTO countries VALUES ('c501')", (0, 1)),
        (
            "ALTER TABLE countries DROP CONSTRAINT countries_pkey;
             INSERT INTO countries SELECT * FROM countries WHERE code = 'c1'",
            (0, 1),
        ),
    ];
    for (fault, (missing, extra)) in faults {
        stand.sql(1, "CREATE TABLE before AS TABLE countries");
        stand.sql(1, fault);
        let finding = stand.only_finding("countries");
        assert_eq!(finding["what"], "different");
        assert_eq!(finding["shard"], "s1");
        let seen = (&finding["missing"], &finding["extra"]);
        assert_eq!(seen, (&missing.into(), &extra.into()), "{fault}");
        let examples = finding["examples"].as_array().unwrap();
        assert!(!examples.is_empty(), "{fault}");
        stand.sql(
            1,
            "TRUNCATE countries; INSERT INTO countries TABLE before; DROP TABLE before",
        );
    }
    assert!(stand.verify().0);
}

/// One that could not look at a table goes on there, and has what it had looked at before.
fn resumed(stand: &Stand) {
    let directory = tempfile::tempdir().unwrap();
    let notes = directory.path().join("notes");
    let notes = notes.to_str().unwrap();
    let verify = || {
        let arguments = ["--resume", notes, "--piece-pages", "1", "--busy", "90"];
        let output = stand.run(&arguments);
        let text = String::from_utf8(output.stdout).unwrap();
        (output.status.success(), text)
    };
    stand.sql(1, "ALTER TABLE regions RENAME TO elsewhere");
    assert_eq!(verify(), (false, String::new()));
    stand.sql(1, "ALTER TABLE elsewhere RENAME TO regions");
    let stray = stand.sql(0, "SELECT min(id) FROM users");
    stand.sql(1, &format!("INSERT INTO users (id) VALUES ({stray})"));
    let (well, text) = verify();
    assert!(
        well && text.contains("  users: 1000 rows, all well\n"),
        "{text}"
    );
    // Now everything has been looked at, and is again.
    let (well, text) = verify();
    assert!(!well && text.contains("  users: 1001 rows\n"), "{text}");
    stand.sql(1, &format!("DELETE FROM users WHERE id = {stray}"));
    assert!(verify().0);
}

/// Copies are written one after the other, all the time; nothing is ever wrong.
fn written_meanwhile(stand: &Stand) {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut writes = 0_u32;
            while !done.load(Ordering::Relaxed) {
                writes += 1;
                let code = format!("c{}", writes % 3 + 1);
                let write = format!("UPDATE countries SET share = {writes} WHERE code = '{code}'");
                stand.sql(0, &write);
                stand.sql(1, &write);
            }
            writes
        });
        for _ in 0..5 {
            let (well, report) = stand.verify();
            assert!(well, "{report:#}");
        }
        done.store(true, Ordering::Relaxed);
        assert!(writer.join().unwrap() > 5);
    });
}

/// Rows that a policy hides are not taken for rows that are not there, nor a table that is missing for an empty one.
fn hidden(stand: &Stand) {
    stand.sql(
        1,
        "ALTER TABLE users ENABLE ROW LEVEL SECURITY; ALTER TABLE users FORCE ROW LEVEL SECURITY",
    );
    fails(
        stand,
        "query would be affected by row-level security policy",
    );
    stand.sql(
        1,
        "ALTER TABLE users NO FORCE ROW LEVEL SECURITY; DROP TABLE regions",
    );
    fails(stand, "relation \"public.regions\" does not exist");
}

fn fails(stand: &Stand, message: &str) {
    let output = stand.run(&["--json"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(output.stdout, b"");
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(log.contains(message), "{log}");
    assert!(log.contains("shard \"s1\""), "{log}");
}
