//! Running pgbench.

use std::process::Command;

use switchyard_cluster::{APP_USER, Install};

use crate::Error;
use crate::options::{Scenario, Script};

/// The database that pgbench's tables are in.
pub(crate) const DATABASE: &str = "bench";
/// The password of its owner.
pub(crate) const PASSWORD: &str = "secret";

/// pgbench, found.
#[derive(Debug)]
pub(crate) struct Pgbench {
    install: Install,
}

/// What one run of pgbench did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Outcome {
    /// Transactions per second, connecting not counted.
    pub(crate) tps: f64,
    /// How many transactions.
    pub(crate) transactions: f64,
}

impl Pgbench {
    /// The one that belongs to the servers.
    pub(crate) fn find() -> Result<Pgbench, Error> {
        let install = Install::find(None)?;
        if !install.program("pgbench").is_file() {
            return Err(Error::Missing {
                program: "pgbench",
                hint: "it comes with PostgreSQL's server or contrib package",
            });
        }
        Ok(Pgbench { install })
    }

    /// Makes the tables.
    pub(crate) fn initialise(&self, port: u16, scale: u32) -> Result<(), Error> {
        let mut command = self.command(port);
        command
            .args(["--initialize", "--quiet", "--scale", &scale.to_string()])
            .arg(DATABASE);
        output(command, "PostgreSQL").map(drop)
    }

    /// Runs a scenario for some seconds.
    pub(crate) fn run(
        &self,
        contender: &'static str,
        port: u16,
        scenario: Scenario,
        seconds: u32,
    ) -> Result<Outcome, Error> {
        let script = match scenario.script {
            Script::SelectOnly => "select-only",
            Script::TpcB => "tpcb-like",
        };
        let mut command = self.command(port);
        command
            .args(["--no-vacuum", "--builtin", script])
            .args(["--protocol", scenario.protocol.name()])
            .args(["--client", &scenario.clients.to_string()])
            .args(["--time", &seconds.to_string()])
            .arg(DATABASE);
        let printed = output(command, contender)?;
        parse(&printed).ok_or(Error::Pgbench {
            contender,
            output: printed,
        })
    }

    fn command(&self, port: u16) -> Command {
        let mut command = Command::new(self.install.program("pgbench"));
        command
            .env("PGPASSWORD", PASSWORD)
            .env("LC_ALL", "C")
            .args(["--host", "127.0.0.1", "--port", &port.to_string()])
            .args(["--username", APP_USER]);
        command
    }
}

fn output(mut command: Command, contender: &'static str) -> Result<String, Error> {
    let output = command.output().map_err(Error::io("start pgbench"))?;
    if !output.status.success() {
        return Err(Error::Pgbench {
            contender,
            output: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        });
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn parse(printed: &str) -> Option<Outcome> {
    let number = |start: &str| -> Option<f64> {
        let rest = printed.lines().find_map(|line| line.strip_prefix(start))?;
        rest.split([' ', '/']).next()?.parse().ok()
    };
    Some(Outcome {
        tps: number("tps = ")?,
        transactions: number("number of transactions actually processed: ")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn throughput_and_count_are_read_from_what_pgbench_prints() {
        let printed = "transaction type: <builtin: select only>\n\
             number of transactions actually processed: 20123\n\
             number of failed transactions: 0 (0.000%)\n\
             latency average = 0.199 ms\n\
             initial connection time = 2.3 ms\n\
             tps = 5013.456789 (without initial connection time)\n";
        let expected = Outcome {
            tps: 5013.456789,
            transactions: 20123.0,
        };
        assert_eq!(parse(printed), Some(expected));
        assert_eq!(parse("tps = nonsense"), None);
    }
}
