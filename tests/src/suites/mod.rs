//! `make suites`: the test suites of drivers, on a plain server and through the router, test by test; and PgBouncer's, with it and with the
//! router in its place.
//!
//! What obtains a suite and runs it is a script of its name in `tests/suites`; nothing of a suite is in this repository.

mod outcome;
mod stand;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

pub use outcome::{Comparison, Difference, Outcomes, table};
use stand::Stand;

use crate::Router;

/// A suite.
#[derive(Debug, Clone, Copy)]
pub struct Suite {
    /// Its name, and its script's.
    pub name: &'static str,
    /// Of a hundred tests that pass directly, how many have to pass through the router.
    pub demand: f64,
    servers: Servers,
}

/// What a suite runs on.
#[derive(Debug, Clone, Copy)]
enum Servers {
    /// Servers that are there.
    Started {
        /// The databases it needs besides `shop` and `postgres`. A router's configuration has to name them.
        databases: &'static [&'static str],
        /// What it wants to find in `shop`, on either side.
        there: &'static str,
    },
    /// It starts PostgreSQL, and PgBouncer or the router, by itself.
    Own,
}

const fn driver(
    name: &'static str,
    databases: &'static [&'static str],
    there: &'static str,
) -> Suite {
    Suite {
        name,
        demand: 97.0,
        servers: Servers::Started { databases, there },
    }
}

/// All suites.
pub const SUITES: [Suite; 6] = [
    driver("asyncpg", &[], ""),
    driver("psycopg", &[], ""),
    driver("node-postgres", &[], ""),
    driver(
        "sqlalchemy",
        &[],
        "CREATE SCHEMA test_schema; CREATE SCHEMA test_schema_2",
    ),
    driver("django", &["first", "second"], ""),
    Suite {
        name: "pgbouncer",
        demand: 95.0,
        servers: Servers::Own,
    },
];

impl Suite {
    /// Obtains the suite, if it is not there, and runs it on a plain server and then through a router.
    pub fn compare(&self, say: &dyn Fn(&str)) -> Result<Comparison, String> {
        let directory = self.directory();
        std::fs::create_dir_all(&directory)
            .map_err(|error| format!("{}: {error}", directory.display()))?;
        self.script(&directory, None, &[])?;
        let (plain, router) = match self.servers {
            Servers::Started { databases, there } => {
                let stand = Stand::start(databases, there);
                let [plain, routed] = [stand.plain(), stand.routed()].map(stand::environment);
                let plain = self.run(&directory, "plain", &plain, say)?;
                let router = self.run(&directory, "router", &routed, say)?;
                let log = directory.join("router.log");
                std::fs::write(&log, stand.log())
                    .map_err(|error| format!("{}: {error}", log.display()))?;
                (plain, router)
            }
            Servers::Own => {
                let program = Router::binary().display().to_string();
                let plain = self.run(&directory, "plain", &[], say)?;
                let routed = [("SWITCHYARD", program)];
                (plain, self.run(&directory, "router", &routed, say)?)
            }
        };
        Ok(Comparison::of(self.name, &plain, &router))
    }

    /// Runs it on one side, which this environment names.
    fn run(
        &self,
        directory: &Path,
        side: &str,
        environment: &[(&str, String)],
        say: &dyn Fn(&str),
    ) -> Result<Outcomes, String> {
        let file = directory.join(format!("{side}.outcomes"));
        // What is left of the run before, if there is one.
        let _ = std::fs::remove_file(&file);
        self.script(directory, Some(&file), environment)?;
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

    fn script(
        &self,
        directory: &Path,
        outcomes: Option<&Path>,
        environment: &[(&str, String)],
    ) -> Result<(), String> {
        let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("suites");
        let mut command = Command::new(scripts.join(self.name));
        command.arg(directory).args(outcomes).stdin(Stdio::null());
        command.envs(environment.iter().map(|(name, value)| (name, value)));
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use switchyard_schema::{Config, PoolMode, SslMode};

    use super::*;

    const INI: &str = "\
[databases]
p0 = host=127.0.0.1 port=6666 user=bouncer pool_size=2 reserve_pool=3
p0a= port=6666 host=127.0.0.1 dbname=p0 pool_mode=session max_db_connections=4
* = host=127.0.0.1
[users]
bouncer = max_user_connections=3
[pgbouncer]
listen_port = 6432
auth_type = md5
auth_file = userlist.txt
pool_mode = statement
default_pool_size = 5
server_idle_timeout = 60
query_timeout = 0
server_tls_sslmode = require
";

    #[test]
    fn pgbouncers_settings_become_ours() {
        let directory = tempfile::tempdir().unwrap();
        let users = "\"bouncer\" \"zzzz\"\n\"hashed\" \"md5ab\"\n\"pswcheck\" \"x\"\n";
        std::fs::write(directory.path().join("userlist.txt"), users).unwrap();
        std::fs::write(directory.path().join("test.ini"), INI).unwrap();
        let adapter = Path::new(env!("CARGO_MANIFEST_DIR")).join("suites");
        let done = Command::new("python3")
            .args(["-B", "-c", "import pgbouncer_adapter as a; a.Translation('test.ini', {'max_client_conn': '7'}).write()"])
            .env("PYTHONPATH", adapter)
            .env("SWITCHYARD", "switchyard")
            .current_dir(directory.path())
            .output()
            .unwrap();
        assert!(
            done.status.success(),
            "{}",
            String::from_utf8_lossy(&done.stderr)
        );
        let text = std::fs::read_to_string(directory.path().join("switchyard.toml")).unwrap();
        let config = Config::parse(&text).unwrap_or_else(|errors| panic!("{errors:#?}\n{text}"));
        let router = &config.router;
        assert_eq!((router.pool_size, router.max_clients), (5, 7));
        assert_eq!(router.timeouts.server_idle, Some(Duration::from_secs(60)));
        assert_eq!(router.timeouts.query, None);
        let names: Vec<&str> = config.databases.iter().map(|d| &*d.name).collect();
        assert_eq!(names, ["p0", "p0a"]);
        let node = &config.databases[1].shards[0].nodes[0];
        assert_eq!(node.dbname.as_deref(), Some("p0"));
        assert_eq!(node.tls.mode, SslMode::Require);
        assert_eq!(config.pooling.logins["p0"], "bouncer");
        let pool = config.pool("p0a", "bouncer");
        assert_eq!((pool.mode, pool.max_db_connections), (PoolMode::Session, 4));
        assert_eq!(
            (
                pool.max_user_connections,
                config.pool("p0", "bouncer").reserve_size
            ),
            (3, 3)
        );
        // A hash by MD5 lets nobody in.
        assert!(config.user("hashed").is_none());
    }
}
