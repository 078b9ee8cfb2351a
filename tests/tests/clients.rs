//! Real clients, from their own packages, through the router to the sharded shop: each connects, runs prepared statements,
//! transactions and COPY. The same program runs against one plain PostgreSQL, and must print the same.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use switchyard_tests::cluster::Install;
use switchyard_tests::{Bed, BedSpec};

static BED: OnceLock<Bed> = OnceLock::new();
/// The clients use the same tables.
static TURN: Mutex<()> = Mutex::new(());

/// The shared bed, filled anew, and the turn to use it.
fn bed() -> (&'static Bed, MutexGuard<'static, ()>) {
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let tables = (
        include_str!("../slt/tables.sql"),
        include_str!("../slt/tables.toml"),
    );
    let bed = BED.get_or_init(|| Bed::start(BedSpec::usual().with_tables(tables.0, tables.1)));
    bed.refill(&["notes"]);
    (bed, turn)
}

fn here() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients")
}

/// The directory with the clients' packages, installed if they are not there yet.
fn packages() -> PathBuf {
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/clients");
    let prepared = Command::new(here().join("prepare"))
        .arg(&target)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(
        prepared.status.success(),
        "{}",
        String::from_utf8_lossy(&prepared.stderr)
    );
    target.canonicalize().unwrap()
}

fn url(port: u16) -> String {
    format!("postgres://app:secret@127.0.0.1:{port}/shop")
}

/// Runs a client against the oracle and the router, and compares what it prints.
#[track_caller]
fn same_output(bed: &Bed, client: &dyn Fn(&str) -> Command) {
    let oracle = output(
        client(&url(bed.cluster().oracle().unwrap().port())),
        "the oracle",
    );
    let router = output(client(&url(bed.router().port())), "the router");
    assert!(!oracle.is_empty());
    let differ = oracle
        .lines()
        .zip(router.lines())
        .find(|(oracle, router)| oracle != router);
    if let Some((oracle, router)) = differ {
        panic!("printed otherwise\noracle: {oracle}\nrouter: {router}");
    }
    assert_eq!(oracle.lines().count(), router.lines().count());
}

/// What a client prints, and what it complains about. One that hangs is killed after a while, and has failed.
#[track_caller]
fn output(client: Command, server: &str) -> String {
    let mut limited = Command::new("timeout");
    limited
        .arg("60")
        .arg(client.get_program())
        .args(client.get_args());
    let done = limited.stdin(Stdio::null()).output().unwrap();
    let (printed, said) = (
        String::from_utf8_lossy(&done.stdout),
        String::from_utf8_lossy(&done.stderr),
    );
    assert!(
        done.status.success(),
        "{client:?} against {server}: {}\n{said}\n{printed}",
        done.status
    );
    // The router adds the shard to an error's context.
    let said = said.lines().filter(|line| {
        !line
            .trim_start_matches("CONTEXT:")
            .trim_start()
            .starts_with("shard \"")
    });
    printed
        .lines()
        .chain(said)
        .map(|line| format!("{line}\n"))
        .collect()
}

fn psql(url: &str) -> Command {
    let mut psql = Command::new(Install::find(None).unwrap().client("psql"));
    psql.arg("-X").arg(url);
    psql
}

#[test]
fn psycopg() {
    let (bed, _turn) = bed();
    let packages = packages();
    same_output(bed, &|url| {
        let mut client = Command::new(packages.join("python/bin/python"));
        client.arg(here().join("psycopg_client.py")).arg(url);
        client
    });
}

#[test]
fn asyncpg() {
    let (bed, _turn) = bed();
    let packages = packages();
    same_output(bed, &|url| {
        let mut client = Command::new(packages.join("python/bin/python"));
        client.arg(here().join("asyncpg_client.py")).arg(url);
        client
    });
}

#[test]
fn node_postgres() {
    let (bed, _turn) = bed();
    let packages = packages();
    same_output(bed, &|url| {
        let mut client = Command::new("node");
        client
            .arg(here().join("node_client.mjs"))
            .arg(url)
            .arg(packages.join("node"));
        client
    });
}

#[test]
fn psql_runs_a_session() {
    let (bed, _turn) = bed();
    same_output(bed, &|url| {
        let mut psql = psql(url);
        psql.args(["-v", "user=33", "-f"])
            .arg(here().join("session.psql"));
        psql
    });
}

/// What people type to look around. Sizes and OIDs are left out: they differ from server to server.
#[test]
fn psql_describes_the_database() {
    let (bed, _turn) = bed();
    let commands = [
        r"\d",
        r"\dt",
        r"\dt public.*",
        r"\d users",
        r"\d orders",
        r"\d order_items",
        r"\d countries",
        r"\d+ users",
        r"\di",
        r"\ds",
        r"\dv",
        r"\df",
        // The shards have one more schema once a transaction has written on several: docs/compatibility.md says so.
        r"\dn public",
        r"\du",
        r"\dx",
        r"\dT",
        r"\dp users",
        r"\dconfig work_mem",
        r"\sf now",
        r"\l shop",
        r"\dRp",
        r"\dC text",
        r"\do ||",
        r"\dd",
        r"\dO",
        r"\d events_pkey",
        r"\d notes_id_seq",
        r"\encoding",
    ];
    for command in commands {
        same_output(bed, &|url| {
            let mut psql = psql(url);
            psql.args(["-v", "ON_ERROR_STOP=1", "-c", command]);
            psql
        });
    }
}
