//! The program as its users run it: what goes where, and the exit code.
#![expect(clippy::unwrap_used, reason = "a test's helpers fail by panicking")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

const FILE: &str = "
[[users]]
name = 'app'
password = 'secret'
[[databases]]
name = 'shop'
shards = [
  { name = 's0', nodes = [{ host = 'a', role = 'primary' }] },
  { name = 's1', weight = 3, nodes = [{ host = 'b', role = 'primary' }] },
]
tables = [{ name = 'users', shard_key = 'id', method = 'hash' }]
";

fn run(directory: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_switchyard-migrate"))
        .current_dir(directory)
        .args(arguments)
        .output()
        .unwrap()
}

/// A directory with a configuration in it.
fn with_file(text: &str) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("shop.toml"), text).unwrap();
    directory
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn a_plan_goes_to_standard_output() {
    let directory = with_file(FILE);
    let output = run(directory.path(), &["plan", "--config", "shop.toml"]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(text(&output.stderr), "");
    let plan = text(&output.stdout);
    assert!(plan.starts_with("database shop\n"), "{plan}");
    assert!(plan.contains("hash of id"), "{plan}");
}

#[test]
fn json_is_json() {
    let directory = with_file(FILE);
    let output = run(
        directory.path(),
        &["plan", "--config", "shop.toml", "--json"],
    );
    let plan: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(plan["compared"], false);
    assert_eq!(plan["databases"][0]["shards"][1]["weight"], 3);
    assert_eq!(plan["databases"][0]["tables"][0]["placement"], "hash of id");
}

#[test]
fn a_wrong_file_is_exit_code_1_with_every_problem_on_standard_error() {
    let directory = with_file(&FILE.replace("'hash'", "'hsah'").replace("weight", "wieght"));
    let output = run(directory.path(), &["plan", "--config", "shop.toml"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(text(&output.stdout), "");
    let log = text(&output.stderr);
    let lines: Vec<&str> = log.lines().collect();
    assert_eq!(lines.len(), 2, "{log}");
    assert!(
        lines[0].contains("ERROR") && lines[0].contains("shop.toml:9:18: "),
        "{log}"
    );
    assert!(lines[1].contains("\"hsah\" is not known here"), "{log}");

    let output = run(
        directory.path(),
        &["plan", "--config", "shop.toml", "--log-format", "json"],
    );
    for line in text(&output.stderr).lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(line["level"], "ERROR");
    }
}

#[test]
fn a_file_that_is_not_there_is_exit_code_1() {
    let directory = tempfile::tempdir().unwrap();
    let output = run(directory.path(), &["plan", "--config", "none.toml"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("none.toml: "));
}

#[test]
fn wrong_usage_is_exit_code_2() {
    let directory = tempfile::tempdir().unwrap();
    for arguments in [
        &["plan"][..],
        &["move"],
        &[],
        &["plan", "--config", "x", "--colour"],
    ] {
        assert_eq!(
            run(directory.path(), arguments).status.code(),
            Some(2),
            "{arguments:?}"
        );
    }
}
