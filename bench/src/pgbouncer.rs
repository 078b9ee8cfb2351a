//! PgBouncer, from the system's packages.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use switchyard_cluster::{APP_USER, Account, Companion, Port};

use crate::Error;
use crate::contender::{Contender, Endpoint, Name, Target};
use crate::options::PoolMode;
use crate::pgbench::{DATABASE, PASSWORD};

/// From this version on, transaction pooling has prepared statements.
const PREPARED_SINCE: (u32, u32) = (1, 21);

/// Starts it in front of a server: in transaction mode, and beside it once more for prepared statements, with a server
/// connection for each client: in session mode where transaction mode has none.
pub(crate) fn start(directory: &Path, server: u16) -> Result<Contender, Error> {
    let program = find()?;
    let version = version(&program)?;
    let process = |mode: Mode| {
        Pgbouncer {
            program: &program,
            directory,
            server,
            mode,
        }
        .start()
    };
    let (mode, besides) = match mode_of_prepared(version) {
        PoolMode::Transaction => (Mode::Transaction { prepared: true }, ""),
        PoolMode::Session => (Mode::Session, ", session mode for prepared statements"),
    };
    let (major, minor) = version;
    Ok(Contender {
        name: Name::Pgbouncer,
        description: format!("PgBouncer {major}.{minor}, transaction mode{besides}"),
        usual: Target::Process(process(Mode::Transaction { prepared: false })?),
        prepared: Some(Target::Process(process(mode)?)),
    })
}

/// The mode in which the system's PgBouncer serves prepared statements.
pub(crate) fn pool_mode() -> Result<PoolMode, Error> {
    Ok(mode_of_prepared(version(&find()?)?))
}

fn mode_of_prepared(version: (u32, u32)) -> PoolMode {
    match version >= PREPARED_SINCE {
        true => PoolMode::Transaction,
        false => PoolMode::Session,
    }
}

#[derive(Clone, Copy, Debug)]
enum Mode {
    Transaction { prepared: bool },
    Session,
}

#[derive(Debug)]
struct Pgbouncer<'a> {
    program: &'a Path,
    directory: &'a Path,
    server: u16,
    mode: Mode,
}

impl Pgbouncer<'_> {
    fn start(&self) -> Result<Endpoint, Error> {
        let port = Port::any()?;
        let name = match self.mode {
            Mode::Transaction { prepared: false } => "pgbouncer-transaction.ini",
            Mode::Transaction { prepared: true } => "pgbouncer-prepared.ini",
            Mode::Session => "pgbouncer-session.ini",
        };
        let file = self.directory.join(name);
        std::fs::write(&file, self.configuration(port.number()))
            .map_err(Error::io("write PgBouncer's configuration"))?;
        let mut command = Command::new(self.program);
        if rustix::process::geteuid().is_root() {
            // It refuses to run as root, too; it reads its file before it changes over.
            command.args(["--user", Account::unprivileged()?.name()]);
        }
        command
            .arg("--quiet")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let process = Companion::start(&mut command)?;
        Ok(Endpoint { port, process })
    }

    /// Nothing that would slow it down: no log, no password for clients.
    fn configuration(&self, port: u16) -> String {
        let server = self.server;
        let mode = match self.mode {
            Mode::Transaction { prepared: false } => {
                "pool_mode = transaction\ndefault_pool_size = 20\n"
            }
            Mode::Transaction { prepared: true } => {
                "pool_mode = transaction\ndefault_pool_size = 100\nmax_prepared_statements = 200\n"
            }
            Mode::Session => "pool_mode = session\ndefault_pool_size = 100\n",
        };
        format!(
            "[databases]\n\
             {DATABASE} = host=127.0.0.1 port={server} dbname={DATABASE} user={APP_USER} password={PASSWORD}\n\
             [pgbouncer]\n\
             listen_addr = 127.0.0.1\n\
             listen_port = {port}\n\
             unix_socket_dir =\n\
             auth_type = any\n\
             max_client_conn = 5000\n\
             log_connections = 0\n\
             log_disconnections = 0\n\
             {mode}"
        )
    }
}

fn find() -> Result<PathBuf, Error> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // It is in sbin, which is not on everybody's PATH.
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/usr/local/sbin".into()])
        .map(|directory| directory.join("pgbouncer"))
        .find(|program| program.is_file())
        .ok_or(Error::Missing {
            program: "pgbouncer",
            hint: "install it (Debian: apt-get install pgbouncer) or leave it out with --only",
        })
}

fn version(program: &Path) -> Result<(u32, u32), Error> {
    let output = Command::new(program)
        .arg("--version")
        .output()
        .map_err(Error::io("start PgBouncer"))?;
    Ok(parse_version(&String::from_utf8_lossy(&output.stdout)).unwrap_or((0, 0)))
}

/// `PgBouncer 1.18.0` and more lines.
fn parse_version(printed: &str) -> Option<(u32, u32)> {
    let mut numbers = printed.strip_prefix("PgBouncer ")?.split(['.', '\n', ' ']);
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_read() {
        assert_eq!(
            parse_version("PgBouncer 1.18.0\nlibevent 2.1\n"),
            Some((1, 18))
        );
        assert_eq!(parse_version("PgBouncer 1.24.1\n"), Some((1, 24)));
        assert_eq!(parse_version("something else"), None);
    }
}
