//! Real servers: they start, replicate, obey, and leave nothing behind.
#![allow(clippy::unwrap_used, reason = "a test program")]

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use switchyard_cluster::{
    Cluster, ClusterSpec, Companion, Local, Node, Provider, Role, Settings, Stop,
};

/// Looks again and again until `done`, or fails after 20 s.
fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let give_up = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < give_up, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn replayed(cluster: &Cluster, replica: &dyn Node, expected: &str) {
    eventually("replication", || {
        cluster
            .sql(replica, "SELECT count(*) FROM t")
            .is_ok_and(|count| count == expected)
    });
}

#[test]
fn a_shard_replicates_and_its_servers_obey() {
    let cluster = Cluster::start(ClusterSpec::for_tests(1, 1).with_catalog()).unwrap();
    let shard = cluster.shard(0);
    let (primary, replica) = (shard.primary.as_ref(), shard.replicas[0].as_ref());
    assert_eq!(
        (primary.role(), replica.role()),
        (Role::Primary, Role::Replica)
    );
    assert_eq!(cluster.nodes().count(), 3);

    cluster
        .sql(primary, "CREATE TABLE t (a int); INSERT INTO t VALUES (1)")
        .unwrap();
    replayed(&cluster, replica, "1");
    let slots = cluster
        .superuser_sql(
            primary,
            "postgres",
            "SELECT slot_name, active FROM pg_replication_slots",
        )
        .unwrap();
    assert_eq!(slots, "s0_b|t");

    // Held back: what is written does not arrive, until the delay is taken away.
    replica
        .configure(&[("recovery_min_apply_delay", Some("1h"))])
        .unwrap();
    eventually("the delay", || {
        cluster
            .sql(replica, "SHOW recovery_min_apply_delay")
            .unwrap()
            == "1h"
    });
    cluster.sql(primary, "INSERT INTO t VALUES (2)").unwrap();
    let received = "SELECT pg_last_wal_receive_lsn() > pg_last_wal_replay_lsn()";
    eventually("received, not replayed", || {
        cluster.sql(replica, received).unwrap() == "t"
    });
    assert_eq!(cluster.sql(replica, "SELECT count(*) FROM t").unwrap(), "1");
    replica
        .configure(&[("recovery_min_apply_delay", None)])
        .unwrap();
    replayed(&cluster, replica, "2");

    // Killed and started again, on the same port, with the same data.
    let port = replica.port();
    replica.stop(Stop::Kill).unwrap();
    assert!(cluster.sql(replica, "SELECT 1").is_err());
    cluster.sql(primary, "INSERT INTO t VALUES (3)").unwrap();
    replica.start().unwrap();
    assert_eq!(replica.port(), port);
    replayed(&cluster, replica, "3");

    replica.promote().unwrap();
    assert_eq!(replica.role(), Role::Primary);
    cluster.sql(replica, "INSERT INTO t VALUES (4)").unwrap();
    primary.stop(Stop::Immediate).unwrap();
    primary.stop(Stop::Immediate).unwrap();
    assert_eq!(cluster.sql(replica, "SELECT count(*) FROM t").unwrap(), "4");
    assert!(replica.log().unwrap().contains("database system is ready"));
}

#[test]
fn a_paused_server_answers_when_it_is_resumed() {
    let cluster = Cluster::start(ClusterSpec::for_tests(1, 0)).unwrap();
    let primary = cluster.shard(0).primary.as_ref();
    primary.pause().unwrap();
    std::thread::scope(|scope| {
        let answer = scope.spawn(|| cluster.sql(primary, "SELECT 42"));
        std::thread::sleep(Duration::from_millis(300)); // long enough for an answer, were there one
        assert!(!answer.is_finished());
        primary.resume().unwrap();
        assert_eq!(answer.join().unwrap().unwrap(), "42");
    });
}

#[test]
fn kept_data_is_found_again_and_its_directory_is_locked() {
    let directory = tempfile::tempdir_in("/var/tmp").unwrap();
    std::os::unix::fs::chown(directory.path(), None, None).unwrap();
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(directory.path(), open).unwrap();
    let place = directory.path().join("demo");
    let settings = Settings::for_tests();

    let local = Local::kept(&place).unwrap();
    let node = local.primary("a", &settings).unwrap();
    assert!(node.is_new());
    let port = node.port();
    let refused = Local::kept(&place).unwrap_err().to_string();
    assert!(
        refused.contains(&format!("process {}", std::process::id())),
        "{refused}"
    );
    drop(node);
    drop(local);

    let local = Local::kept(&place).unwrap();
    let node = local.primary("a", &settings).unwrap();
    assert!(!node.is_new());
    assert_eq!(node.port(), port);

    // A backup that was interrupted left its slot; the next one takes it.
    let replica = local.replica("b", node.as_ref(), &settings).unwrap();
    drop(replica);
    std::fs::remove_file(place.join("b/port")).unwrap();
    let replica = local.replica("b", node.as_ref(), &settings).unwrap();
    assert!(replica.is_new());

    let refused = Local::kept(directory.path()).unwrap_err().to_string();
    assert!(refused.contains("was not made by switchyard"), "{refused}");
}

/// Process numbers and directory of the cluster that a copy of this test program started.
struct Elsewhere {
    program: std::process::Child,
    directory: PathBuf,
    server: u32,
    companion: u32,
    /// Ends when the program does; kept so that what it still prints has somewhere to go.
    _output: std::process::ChildStdout,
}

/// Starts a cluster in another process, in the way that `how` names, and waits until it runs.
fn elsewhere(how: &str) -> Elsewhere {
    let mut program = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "the_other_process",
            "--nocapture",
            "--test-threads=1",
        ])
        .env("SWITCHYARD_TEST_ELSEWHERE", how)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .process_group(0)
        .spawn()
        .unwrap();
    let mut output = program.stdout.take().unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(&mut output));
    let line = lines
        .find_map(|line| {
            line.unwrap()
                .split_once("cluster at ")
                .map(|(_, rest)| rest.to_owned())
        })
        .unwrap();
    let words: Vec<&str> = line.split(' ').collect();
    Elsewhere {
        program,
        directory: words[0].into(),
        server: words[1].parse().unwrap(),
        companion: words[2].parse().unwrap(),
        _output: output,
    }
}

/// The part that runs in the other process; alone it does nothing.
#[test]
fn the_other_process() {
    let Ok(how) = std::env::var("SWITCHYARD_TEST_ELSEWHERE") else {
        return;
    };
    let local = Local::temporary().unwrap();
    let node = local.primary("a", &Settings::for_tests()).unwrap();
    let pid = std::fs::read_to_string(local.stage().path().join("a/data/postmaster.pid")).unwrap();
    let companion = Companion::start(Command::new("sleep").arg("1000")).unwrap();
    let server = pid.lines().next().unwrap();
    println!(
        "cluster at {} {server} {}",
        local.stage().path().display(),
        companion.id()
    );
    if how == "paused" {
        node.pause().unwrap();
    }
    assert_ne!(how, "panic");
    std::io::stdin().read_line(&mut String::new()).unwrap();
    std::process::exit(7); // runs no destructor
}

fn gone(elsewhere: &Elsewhere) {
    eventually("the server ends", || {
        !PathBuf::from(format!("/proc/{}", elsewhere.server)).exists()
    });
    let companion = PathBuf::from(format!("/proc/{}", elsewhere.companion));
    eventually("the companion ends", || !companion.exists());
    eventually("the directory is removed", || !elsewhere.directory.exists());
}

#[test]
fn nothing_is_left_after_a_panic() {
    let mut other = elsewhere("panic");
    assert!(!other.program.wait().unwrap().success());
    gone(&other);
}

#[test]
fn nothing_is_left_after_an_exit_without_destructors() {
    let mut other = elsewhere("exit");
    assert!(other.directory.exists());
    drop(other.program.stdin.take());
    assert_eq!(other.program.wait().unwrap().code(), Some(7));
    gone(&other);
}

#[test]
fn nothing_is_left_after_the_process_was_killed_even_of_a_paused_server() {
    let mut other = elsewhere("paused");
    other.program.kill().unwrap();
    other.program.wait().unwrap();
    gone(&other);
}

#[test]
fn what_a_killed_process_and_a_killed_guard_left_is_removed_by_the_next() {
    let mut other = elsewhere("exit");
    let guard = guard_of(other.program.id());
    assert!(
        Command::new("kill")
            .args(["-KILL", &guard.to_string()])
            .status()
            .unwrap()
            .success()
    );
    other.program.kill().unwrap();
    other.program.wait().unwrap();
    assert!(PathBuf::from(format!("/proc/{}", other.server)).exists());
    let local = Local::temporary().unwrap();
    // Another test of this run may have been the one to sweep.
    gone(&other);
    drop(local);
}

/// The child of `parent` that is a shell.
fn guard_of(parent: u32) -> u32 {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let mut pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.find(|pid| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let arguments = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let child = stat
            .rsplit_once(')')
            .is_some_and(|(_, rest)| rest.split_whitespace().nth(1) == Some(&parent.to_string()));
        child && String::from_utf8_lossy(&arguments).contains("switchyard-guard")
    })
    .unwrap()
}
