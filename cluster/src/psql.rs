//! SQL for setting servers up, by psql.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::{Error, Node};

/// A psql of one server, for one role and database.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Psql<'a> {
    pub(crate) program: &'a Path,
    pub(crate) node: &'a dyn Node,
    pub(crate) user: &'a str,
    pub(crate) password: &'a str,
    pub(crate) database: &'a str,
}

impl Psql<'_> {
    /// Runs SQL and returns its rows, one per line, columns separated by `|`. Stops at the first error.
    pub(crate) fn run(&self, sql: &str) -> Result<String, Error> {
        self.run_with(&["-c", sql], b"")
    }

    /// Runs statements, each in a transaction of its own.
    pub(crate) fn run_each(&self, statements: &[&str]) -> Result<String, Error> {
        let options: Vec<&str> = statements.iter().flat_map(|sql| ["-c", sql]).collect();
        self.run_with(&options, b"")
    }

    /// Runs a script, in which COPY's data may stand.
    pub(crate) fn run_script(&self, script: &[u8]) -> Result<String, Error> {
        self.run_with(&[], script)
    }

    fn run_with(&self, options: &[&str], input: &[u8]) -> Result<String, Error> {
        let failed = Error::io("run", self.program);
        match self.output(options, input) {
            Ok(output) if output.status.success() => Ok(String::from_utf8_lossy(&output.stdout)
                .trim_end()
                .to_owned()),
            Ok(output) => Err(Error::Command {
                program: "psql".to_owned(),
                output: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
            }),
            Err(error) => Err(failed(error)),
        }
    }

    fn output(&self, options: &[&str], input: &[u8]) -> std::io::Result<Output> {
        let mut process = Command::new(self.program)
            .env("PGPASSWORD", self.password)
            .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1"])
            .args(["-h", self.node.host(), "-p", &self.node.port().to_string()])
            .args(["-U", self.user, "-d", self.database])
            .args(options)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        if let Some(mut stdin) = process.stdin.take() {
            // An early end is psql's error, and in its output.
            let _ = stdin.write_all(input);
        }
        process.wait_with_output()
    }
}
