//! pgbench through the router: its own workloads, and scripts of ours on the sharded shop, by every protocol it has.

use std::process::{Command, Stdio};

use switchyard_tests::cluster::{ClusterSpec, Install};
use switchyard_tests::{Bed, BedSpec};

#[track_caller]
fn output(mut client: Command) -> String {
    let done = client
        .env("PGPASSWORD", "secret")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let (printed, said) = (
        String::from_utf8_lossy(&done.stdout),
        String::from_utf8_lossy(&done.stderr),
    );
    assert!(
        done.status.success(),
        "{client:?}: {}\n{said}\n{printed}",
        done.status
    );
    printed.into_owned()
}

/// A program of PostgreSQL's that connects to the router.
fn program(bed: &Bed, name: &str) -> Command {
    let mut program = Command::new(Install::find(None).unwrap().client(name));
    program.args([
        "-h",
        "127.0.0.1",
        "-U",
        "app",
        "-p",
        &bed.router().port().to_string(),
    ]);
    program
}

/// pgbench's own tables are unsharded here; its scripts on the shop are routed by key.
#[test]
fn every_workload_by_every_protocol() {
    let bed = Bed::start(BedSpec::of(ClusterSpec::for_tests(2, 1)));
    let pgbench = |arguments: &[&str]| {
        let mut pgbench = program(&bed, "pgbench");
        pgbench.args(arguments).arg("shop");
        output(pgbench)
    };
    let psql = |sql: &str| {
        let mut psql = program(&bed, "psql");
        psql.args(["-X", "-A", "-t", "-d", "shop", "-c", sql]);
        output(psql)
    };
    pgbench(&["-i", "-q", "-s", "1"]);
    let directory = tempfile::tempdir().unwrap();
    let script = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let read = script(
        "read.sql",
        "\\set id random(1, 300)\nSELECT name, country FROM users WHERE id = :id;\n",
    );
    let write = script(
        "write.sql",
        "\\set id random(1, 300)\nBEGIN;\nUPDATE users SET email = email || 'x' WHERE id = :id;\n\
         INSERT INTO order_items SELECT user_id, id, 99, 1, 1, 1 FROM orders WHERE user_id = :id AND id = 1 ON CONFLICT DO NOTHING;\n\
         SELECT count(*) FROM order_items WHERE user_id = :id;\nEND;\n",
    );
    for protocol in ["simple", "extended", "prepared"] {
        for work in [vec!["-S"], vec![], vec!["-f", &read], vec!["-f", &write]] {
            let run = ["-n", "-c", "8", "-j", "2", "-t", "40", "-M", protocol];
            let said = pgbench(&[&run, work.as_slice()].concat());
            assert!(
                said.contains("number of transactions actually processed: 320/320"),
                "{said}"
            );
            assert!(!said.contains("number of failed transactions: 1"), "{said}");
        }
    }
    // Every transaction of TPC-B kept its sums.
    let sums = psql(
        "SELECT (SELECT sum(abalance) FROM pgbench_accounts) = (SELECT sum(delta) FROM pgbench_history), \
                (SELECT sum(bbalance) FROM pgbench_branches) = (SELECT sum(delta) FROM pgbench_history), \
                (SELECT count(*) FROM pgbench_history)",
    );
    assert_eq!(sums.trim(), "t|t|960");
    psql("DROP TABLE pgbench_accounts, pgbench_branches, pgbench_history, pgbench_tellers");
}
