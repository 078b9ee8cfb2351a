//! `make suites`: the test suites of drivers, on a plain server and through the router, test by test.
//!
//! What obtains a suite and runs it is a script of its name in `tests/suites`; nothing of a suite is in this repository.

mod outcome;
mod stand;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

pub use outcome::{Comparison, Difference, Outcomes, table};
use stand::Stand;

/// A suite.
#[derive(Debug, Clone, Copy)]
pub struct Suite {
    /// Its name, and its script's.
    pub name: &'static str,
    /// The databases it needs besides `shop` and `postgres`. A router's configuration has to name them.
    databases: &'static [&'static str],
    /// What it wants to find in `shop`, on either side.
    there: &'static str,
}

/// All suites.
pub const SUITES: [Suite; 5] = [
    Suite {
        name: "asyncpg",
        databases: &[],
        there: "",
    },
    Suite {
        name: "psycopg",
        databases: &[],
        there: "",
    },
    Suite {
        name: "node-postgres",
        databases: &[],
        there: "",
    },
    Suite {
        name: "sqlalchemy",
        databases: &[],
        there: "CREATE SCHEMA test_schema; CREATE SCHEMA test_schema_2",
    },
    Suite {
        name: "django",
        databases: &["first", "second"],
        there: "",
    },
];

impl Suite {
    /// Obtains the suite, if it is not there, and runs it on a plain server and then through a router.
    pub fn compare(&self, say: &dyn Fn(&str)) -> Result<Comparison, String> {
        let directory = self.directory();
        std::fs::create_dir_all(&directory)
            .map_err(|error| format!("{}: {error}", directory.display()))?;
        self.script(&directory, None)?;
        let stand = Stand::start(self.databases, self.there);
        let plain = self.run(&directory, "plain", stand.plain(), say)?;
        let router = self.run(&directory, "router", stand.routed(), say)?;
        let log = directory.join("router.log");
        std::fs::write(&log, stand.log()).map_err(|error| format!("{}: {error}", log.display()))?;
        Ok(Comparison::of(self.name, &plain, &router))
    }

    /// Runs it on the server at this port.
    fn run(
        &self,
        directory: &Path,
        side: &str,
        port: u16,
        say: &dyn Fn(&str),
    ) -> Result<Outcomes, String> {
        let file = directory.join(format!("{side}.outcomes"));
        // What is left of the run before, if there is one.
        let _ = std::fs::remove_file(&file);
        self.script(directory, Some((&file, port)))?;
        let text = std::fs::read_to_string(&file)
            .map_err(|error| format!("{}: {error}", file.display()))?;
        let outcomes = Outcomes::parse(&text);
        say(&format!("{} on {side}: {}", self.name, outcomes.summary()));
        Ok(outcomes)
    }

    /// Where it is obtained to, and leaves what it has printed.
    fn directory(&self) -> PathBuf {
        let package = Path::new(env!("CARGO_MANIFEST_DIR"));
        package.join("../target/suites").join(self.name)
    }

    fn script(&self, directory: &Path, run: Option<(&Path, u16)>) -> Result<(), String> {
        let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("suites");
        let mut command = Command::new(scripts.join(self.name));
        command.arg(directory).stdin(Stdio::null());
        if let Some((outcomes, port)) = run {
            command.arg(outcomes).envs(stand::environment(port));
        }
        let status = command
            .status()
            .map_err(|error| format!("{}: {error}", self.name))?;
        match status.success() {
            true => Ok(()),
            false => Err(format!(
                "tests/suites/{} has ended with {status}; what it printed is in {}",
                self.name,
                directory.display()
            )),
        }
    }
}
