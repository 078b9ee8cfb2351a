//! `switchyard demo`, as a user meets it: ready in time, worth trying, and nothing left behind.

#[path = "demo/reshard.rs"]
mod reshard;

use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use switchyard_router::demo::{self, Options, QUERIES};
use switchyard_schema::bucket_sql;
use switchyard_tests::cluster::{Companion, Port};
use switchyard_tests::{Client, Login, Router, eventually};

/// Two ports in a row that are free just now.
fn free_port() -> u16 {
    loop {
        let port = Port::any().unwrap().number();
        if port < u16::MAX && Port::exactly(port).is_ok() && Port::exactly(port + 1).is_ok() {
            return port;
        }
    }
}

/// A running demo and what it printed until it was ready.
struct Running {
    program: Companion,
    port: u16,
    directory: PathBuf,
    servers: Vec<String>,
}

fn demo_command(port: u16, more: &[&str]) -> Command {
    let mut command = Command::new(Router::binary());
    command
        .args(["demo", "--port", &port.to_string()])
        .args(more);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn start(port: u16, more: &[&str]) -> Running {
    start_by(&mut demo_command(port, more), port)
}

fn start_by(command: &mut Command, port: u16) -> Running {
    let begin = Instant::now();
    let mut program = Companion::start(command).unwrap();
    // Read to the end, lest the program waits for us.
    let mut progress = program.stderr().unwrap();
    let progress = std::thread::spawn(move || {
        let mut text = String::new();
        let _ = progress.read_to_string(&mut text);
        text
    });
    let mut lines = BufReader::new(program.stdout().unwrap())
        .lines()
        .map_while(Result::ok);
    let mut printed = String::new();
    while let Some(line) = lines.next() {
        printed.push_str(&line);
        printed.push('\n');
        if line.contains("Ctrl-C") {
            std::thread::spawn(move || lines.count());
            break;
        }
    }
    if !printed.contains("Ready") {
        program.kill();
        panic!("{printed}\n{}", progress.join().unwrap());
    }
    assert!(
        begin.elapsed() < Duration::from_secs(60),
        "{:?}",
        begin.elapsed()
    );
    assert!(
        printed.contains(&format!("psql postgres://app:secret@127.0.0.1:{port}/shop")),
        "{printed}"
    );
    assert!(
        QUERIES.iter().all(|query| printed.contains(query)),
        "{printed}"
    );
    let config = printed
        .lines()
        .find_map(|line| line.strip_prefix("Configuration: "))
        .unwrap();
    let directory = Path::new(config).parent().unwrap().to_path_buf();
    let servers = std::fs::read_dir(&directory)
        .unwrap()
        .flatten()
        .filter_map(|entry| {
            let lock = std::fs::read_to_string(entry.path().join("data/postmaster.pid")).ok()?;
            lock.lines().next().map(str::to_owned)
        });
    let servers: Vec<String> = servers.collect();
    assert_eq!(servers.len(), 5, "two shards of two, and the catalog");
    Running {
        program,
        port,
        directory,
        servers,
    }
}

impl Running {
    fn client(&self) -> Client {
        Client::connect(&Login::new(self.port))
    }

    #[track_caller]
    fn no_server_is_left(&self) {
        let alive = |pid: &String| Path::new("/proc").join(pid).exists();
        eventually("the servers end", || !self.servers.iter().any(alive));
    }

    /// Ends it by a signal to the program; it ends well and soon.
    #[track_caller]
    fn end(&mut self, signal: fn(&Companion)) {
        signal(&self.program);
        let status = self
            .program
            .wait(Duration::from_secs(30))
            .unwrap()
            .expect("it ends within 30 s");
        assert_eq!(status.code(), Some(0));
        let alive = |pid: &String| Path::new("/proc").join(pid).exists();
        assert!(!self.servers.iter().any(alive), "it waits for its servers");
    }
}

/// Runs a demo that must not start; returns what it says.
fn fails(port: u16, more: &[&str]) -> String {
    let output = demo_command(port, more).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    String::from_utf8(output.stderr).unwrap()
}

/// A directory that the servers' account can reach.
fn place() -> tempfile::TempDir {
    let directory = tempfile::tempdir_in("/var/tmp").unwrap();
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(directory.path(), open).unwrap();
    directory
}

#[test]
fn the_demo_is_worth_trying_and_leaves_nothing() {
    let mut demo = start(free_port(), &[]);
    let mut client = demo.client();
    for query in QUERIES {
        let sql: String = query
            .lines()
            .filter(|line| !line.starts_with("--"))
            .collect::<Vec<_>>()
            .join("\n");
        for reply in client.simple(&sql) {
            let reply = reply.succeeded();
            assert!(
                !reply
                    .tag
                    .as_deref()
                    .unwrap_or_default()
                    .starts_with("SELECT 0"),
                "{query}"
            );
        }
    }
    demo.end(Companion::interrupt);
    assert!(!demo.directory.exists());
}

#[test]
fn a_directory_keeps_the_data_and_is_used_by_one_demo_at_a_time() {
    let place = place();
    let directory = place.path().join("kept");
    let arguments = ["--dir", directory.to_str().unwrap()];
    let mut first = start(free_port(), &arguments);
    first
        .client()
        .run("UPDATE users SET name = 'kept' WHERE id = 42")
        .succeeded();

    let said = fails(free_port(), &arguments);
    assert!(said.contains("is in use by another process"), "{said}");
    let said = fails(first.port, &[]);
    assert!(
        said.contains(&format!("port {}", first.port)) && said.contains("in use"),
        "{said}"
    );
    first.end(Companion::terminate);

    let mut second = start(first.port, &arguments);
    assert_eq!(
        second
            .client()
            .run("SELECT name FROM users WHERE id = 42")
            .value(),
        "kept"
    );
    // Killed without a word: the servers end all the same, and the next start finds the data.
    second.program.kill();
    second.no_server_is_left();
    assert!(directory.exists());
    let mut third = start(first.port, &arguments);
    assert_eq!(
        third
            .client()
            .run("SELECT name FROM users WHERE id = 42")
            .value(),
        "kept"
    );
    third.end(Companion::interrupt);
}

#[test]
fn a_directory_that_is_not_ours_is_left_alone() {
    let place = place();
    std::fs::write(place.path().join("precious"), "data").unwrap();
    let said = fails(free_port(), &["--dir", place.path().to_str().unwrap()]);
    assert!(said.contains("was not made by switchyard"), "{said}");
    assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 1);
}

/// As root the servers run as somebody else; everybody else runs them themselves, and needs no rights for it.
#[test]
fn whoever_is_not_root_can_run_it() {
    let place = place();
    let me = std::fs::metadata(place.path()).unwrap().uid();
    if me != 0 {
        return; // Then all of these tests are run so.
    }
    const NOBODY: u32 = 65_534;
    // Where the program was built may be closed to others.
    let program = place.path().join("switchyard");
    std::fs::copy(Router::binary(), &program).unwrap();
    let home = place.path().join("home");
    std::fs::create_dir(&home).unwrap();
    std::os::unix::fs::chown(&home, Some(NOBODY), Some(NOBODY)).unwrap();
    let port = free_port();
    let mut command = Command::new(program);
    command
        .args(["demo", "--port", &port.to_string()])
        .current_dir("/")
        .env("TMPDIR", &home)
        .env_remove("HOME")
        .uid(NOBODY)
        .gid(NOBODY)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut demo = start_by(&mut command, port);
    assert_eq!(std::fs::metadata(&demo.directory).unwrap().uid(), NOBODY);
    for server in &demo.servers {
        let owner = std::fs::metadata(Path::new("/proc").join(server)).unwrap();
        assert_eq!(owner.uid(), NOBODY);
    }
    let name = demo.client().run("SELECT name FROM users WHERE id = 42");
    assert_eq!(name.rows.len(), 1);
    demo.end(Companion::interrupt);
    assert_eq!(std::fs::read_dir(&home).unwrap().count(), 0);
}

/// Every row is on the shard that its key says, by the shard's own hash; together they are the whole shop.
#[test]
fn rows_are_where_their_keys_say() {
    let demo = demo::start(&Options {
        directory: None,
        port: free_port(),
    })
    .unwrap();
    let cluster = demo.cluster();
    let config = std::fs::read_to_string(demo.config_file()).unwrap();
    let config = switchyard_schema::Config::parse(&config).unwrap();
    let buckets = switchyard_schema::BucketMap::place(&config.databases[0].weights());
    let mut total = 0;
    for (index, shard) in cluster.shards().iter().enumerate() {
        let primary = shard.primary.as_ref();
        for (table, key) in [
            ("users", "id"),
            ("orders", "user_id"),
            ("order_items", "user_id"),
            ("products", "id"),
        ] {
            let found = cluster.sql(
                primary,
                &format!(
                    "SELECT {}, count(*) FROM {table} GROUP BY 1",
                    bucket_sql(key)
                ),
            );
            for line in found.unwrap().lines() {
                let (bucket, rows) = line.split_once('|').unwrap();
                assert_eq!(
                    buckets.owners()[bucket.parse::<usize>().unwrap()].position(),
                    index,
                    "{table}"
                );
                total += rows.parse::<usize>().unwrap();
            }
        }
        let sides =
            "SELECT count(*) FILTER (WHERE created_at < '2026-01-01'), count(*) FROM events";
        let found = cluster.sql(primary, sides).unwrap();
        let (before, all) = found.split_once('|').unwrap();
        assert_eq!(before, if index == 0 { all } else { "0" });
        total += all.parse::<usize>().unwrap();
        assert_eq!(
            cluster
                .sql(primary, "SELECT count(*) FROM countries")
                .unwrap(),
            "24"
        );
    }
    assert!(total > 100_000, "{total}");
}
