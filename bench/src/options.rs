//! What is to be measured, and for how long.

use std::net::SocketAddr;

use clap::{Parser, Subcommand};
use serde::Serialize;

use crate::contender::Name;

/// Compares the router with PostgreSQL itself, a byte-copying proxy and PgBouncer.
#[derive(Debug, Parser)]
#[command(name = "switchyard-bench", version, about)]
pub(crate) struct Arguments {
    /// A first look: fewer scenarios and rounds; about two minutes.
    #[arg(long)]
    pub(crate) quick: bool,
    /// TPC-H only.
    #[arg(long, conflicts_with_all = ["writes", "reshard"])]
    tpch: bool,
    /// Writes over both shards only.
    #[arg(long)]
    writes: bool,
    /// Resharding only.
    #[arg(long, conflicts_with = "writes")]
    reshard: bool,
    /// How many rows there are to reshard; a thousand are about a fifth of a megabyte.
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1000..=100_000_000))]
    reshard_rows: u64,
    /// Print JSON instead of tables.
    #[arg(long)]
    pub(crate) json: bool,
    /// How often each contender has its turn.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rounds: Option<u32>,
    /// How long each turn takes.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..))]
    seconds: Option<u32>,
    /// Size of pgbench's tables: 100,000 accounts for each.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    scale: u32,
    /// Scale factor of TPC-H: 1 is 1 GB.
    #[arg(long, value_name = "FACTOR", default_value_t = 0.1, value_parser = tpch_scale)]
    tpch_scale: f64,
    /// Only these contenders.
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    only: Vec<Name>,
    /// Only these numbers of clients.
    #[arg(long, value_name = "N,…", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..200))]
    clients: Vec<u32>,
    /// Only these protocols, and no TPC-B.
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    protocol: Vec<Protocol>,
    /// When the router's server connections go back to their pool where prepared statements are measured. Unless it is said, as PgBouncer's do, which
    /// has no prepared statements in transaction mode before 1.21.
    #[arg(long, value_name = "MODE", value_enum)]
    pool_mode: Option<PoolMode>,
    /// Something else instead of a comparison.
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

fn tpch_scale(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(scale) if (0.001..=100.0).contains(&scale) => Ok(scale),
        _ => Err("between 0.001 and 100".to_owned()),
    }
}

impl Arguments {
    /// What is to be measured with pgbench, if anything.
    pub(crate) fn pgbench(&self) -> Option<Plan> {
        (!self.tpch && !self.writes && !self.reshard).then(|| Plan::of(self))
    }

    /// What is to be measured with TPC-H, if anything: not in a first look, nor where something else was picked out.
    pub(crate) fn tpch(&self) -> Option<TpchPlan> {
        (self.tpch || self.is_whole()).then_some(TpchPlan {
            scale: self.tpch_scale,
            rounds: self.rounds_of(self.tpch),
        })
    }

    /// What is to be measured of writes, if anything.
    pub(crate) fn writes(&self) -> Option<WritesPlan> {
        (self.writes || self.is_whole()).then_some(WritesPlan {
            rounds: self.rounds_of(self.writes),
            copied: if self.quick { 100_000 } else { 1_000_000 },
        })
    }

    /// What is to be measured of resharding, if anything.
    pub(crate) fn reshard(&self) -> Option<ReshardPlan> {
        let rows = self.reshard_rows;
        (self.reshard || self.is_whole()).then_some(ReshardPlan { rows })
    }

    /// Whether everything is wanted.
    fn is_whole(&self) -> bool {
        let narrowed =
            !(self.only.is_empty() && self.clients.is_empty() && self.protocol.is_empty())
                || self.tpch
                || self.writes
                || self.reshard;
        !(self.quick || narrowed)
    }

    fn rounds_of(&self, alone: bool) -> u32 {
        match (self.rounds, self.quick) {
            (Some(rounds), _) if alone => rounds,
            (_, true) => 1,
            (_, false) => 5,
        }
    }
}

/// What will be measured of writes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WritesPlan {
    /// How often each has its turn.
    pub(crate) rounds: u32,
    /// Rows that are copied.
    pub(crate) copied: u64,
}

/// What will be measured of resharding.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ReshardPlan {
    /// Rows of all tables.
    pub(crate) rows: u64,
}

/// What will be measured with TPC-H.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TpchPlan {
    /// The scale factor.
    pub(crate) scale: f64,
    /// How often each contender has its turn at each query.
    pub(crate) rounds: u32,
}

/// Other things this program is.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// The proxy that only copies bytes.
    #[command(hide = true)]
    Floor {
        /// Where clients connect.
        #[arg(long)]
        listen: SocketAddr,
        /// The server.
        #[arg(long)]
        to: SocketAddr,
    },
    /// What keeps a processor awake.
    #[command(hide = true)]
    Awake,
}

/// How pgbench sends its statements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Protocol {
    /// The simple protocol.
    Simple,
    /// The extended protocol, each time with Parse.
    Extended,
    /// Prepared statements.
    Prepared,
}

impl Protocol {
    /// As pgbench's `--protocol` wants it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Protocol::Simple => "simple",
            Protocol::Extended => "extended",
            Protocol::Prepared => "prepared",
        }
    }
}

/// Which of pgbench's scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Script {
    /// One account by its key.
    SelectOnly,
    /// The transaction of seven statements.
    TpcB,
}

/// One thing to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) struct Scenario {
    /// What is run.
    pub(crate) script: Script,
    /// How it is sent.
    pub(crate) protocol: Protocol,
    /// By how many clients at once.
    pub(crate) clients: u32,
}

impl Scenario {
    fn select_only(protocol: Protocol, clients: u32) -> Scenario {
        Scenario {
            script: Script::SelectOnly,
            protocol,
            clients,
        }
    }

    /// For people.
    pub(crate) fn title(self) -> String {
        let script = match self.script {
            Script::SelectOnly => "select-only",
            Script::TpcB => "TPC-B",
        };
        let plural = if self.clients == 1 { "" } else { "s" };
        format!(
            "{script}, {}, {} client{plural}",
            self.protocol.name(),
            self.clients
        )
    }
}

/// When server connections go back to their pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum PoolMode {
    /// At the end of each transaction.
    Transaction,
    /// When the client leaves.
    Session,
}

impl PoolMode {
    /// As the router's configuration names it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            PoolMode::Transaction => "transaction",
            PoolMode::Session => "session",
        }
    }
}

/// Everything that will be measured with pgbench.
#[derive(Debug)]
pub(crate) struct Plan {
    /// How often each contender has its turn.
    pub(crate) rounds: u32,
    /// How long a turn takes.
    pub(crate) seconds: u32,
    /// pgbench's scale.
    pub(crate) scale: u32,
    /// Who takes part.
    pub(crate) contenders: Vec<Name>,
    /// How the router pools for prepared statements, if not as PgBouncer.
    pub(crate) pool_mode: Option<PoolMode>,
    /// Throughput and CPU.
    pub(crate) scenarios: Vec<Scenario>,
    /// System calls.
    pub(crate) traced: Vec<Scenario>,
    /// How many idle clients.
    pub(crate) idle_clients: u32,
}

/// More clients than this get too little done in a short run under strace.
const MOST_TRACED: u32 = 16;

impl Plan {
    /// What the arguments ask for.
    fn of(arguments: &Arguments) -> Plan {
        let or = |given: &[u32], usual: &[u32]| match given {
            [] => usual.to_vec(),
            given => given.to_vec(),
        };
        let protocols = match (arguments.protocol.as_slice(), arguments.quick) {
            ([], false) => vec![Protocol::Simple, Protocol::Extended, Protocol::Prepared],
            ([], true) => vec![Protocol::Simple, Protocol::Prepared],
            (given, _) => given.to_vec(),
        };
        let clients = or(
            &arguments.clients,
            if arguments.quick {
                &[1, 16]
            } else {
                &[1, 16, 64]
            },
        );
        let cross = |clients: &[u32]| -> Vec<Scenario> {
            let each = |&protocol| {
                clients
                    .iter()
                    .map(move |&clients| Scenario::select_only(protocol, clients))
            };
            protocols.iter().flat_map(each).collect()
        };
        let mut scenarios = cross(&clients);
        if !arguments.quick && arguments.protocol.is_empty() {
            scenarios.push(Scenario {
                script: Script::TpcB,
                ..Scenario::select_only(Protocol::Simple, 16)
            });
        }
        Plan {
            rounds: arguments
                .rounds
                .unwrap_or(if arguments.quick { 5 } else { 11 }),
            seconds: arguments.seconds.unwrap_or(1),
            scale: arguments.scale,
            contenders: match arguments.only.as_slice() {
                [] => Name::ALL.to_vec(),
                only => only.to_vec(),
            },
            pool_mode: arguments.pool_mode,
            scenarios,
            traced: {
                let mut traced = or(&arguments.clients, &[1, 16]);
                traced.retain(|clients| *clients <= MOST_TRACED);
                cross(&traced)
            },
            idle_clients: 1000,
        }
    }
}
