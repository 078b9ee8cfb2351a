//! SQL for setting servers up, by psql.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::{Error, Node};

/// Runs SQL as `user` and returns its rows, one per line, columns separated by `|`. Stops at the first error.
pub(crate) fn psql(
    program: &Path,
    node: &dyn Node,
    user: &str,
    password: &str,
    database: &str,
    sql: &str,
) -> Result<String, Error> {
    let mut command = Command::new(program);
    command
        .env("PGPASSWORD", password)
        .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1"])
        .args([
            "-h",
            node.host(),
            "-p",
            &node.port().to_string(),
            "-U",
            user,
            "-d",
            database,
            "-c",
            sql,
        ])
        .stdin(Stdio::null());
    crate::local::run("psql", command).map(|rows| rows.trim_end().to_owned())
}
