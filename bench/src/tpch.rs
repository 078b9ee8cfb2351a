//! TPC-H: the 22 queries by the router with two shards, by one PostgreSQL with all the data, and by a PostgreSQL that reaches
//! the shards' servers through postgres_fdw.
//!
//! Before anything is timed, every query runs once everywhere: caches are warm then, and an answer that is not the plain
//! server's is a failure. In each round each query runs everywhere in turn, in rotating order.

mod foreign;
mod latency;
mod planning;
mod report;
mod stand;

use std::io;
use std::time::{Duration, Instant};

use serde::Serialize;
use switchyard_cluster::APP_USER;
use switchyard_tpch::{QUERIES, Query};

use crate::client::Client;
use crate::options::TpchPlan;
use crate::pgbench::DATABASE;
use crate::{Error, say};
pub(crate) use report::Report;
use stand::Stand;

/// How long a query may take. Servers cancel it then.
const LIMIT: Duration = Duration::from_secs(60);

/// Who takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Name {
    /// One PostgreSQL with all the data.
    Plain,
    /// The router in front of the shards.
    Router,
    /// A PostgreSQL with the shards' tables as foreign tables.
    Fdw,
}

impl Name {
    /// Everybody, the reference first.
    pub(crate) const ALL: [Name; 3] = [Name::Plain, Name::Router, Name::Fdw];

    /// For people.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Name::Plain => "PostgreSQL",
            Name::Router => "router",
            Name::Fdw => "postgres_fdw",
        }
    }
}

/// One contender's answer to one query.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    /// Which round.
    pub(crate) round: u32,
    /// The query's number.
    pub(crate) query: usize,
    /// Whose.
    pub(crate) name: Name,
    /// How long it took.
    pub(crate) seconds: f64,
}

/// A query that somebody did not answer as the plain server does, or not in time.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Failure {
    /// The query's number.
    pub(crate) query: usize,
    /// Whose.
    pub(crate) name: Name,
    /// Why.
    pub(crate) reason: String,
}

/// Everything: servers, a round that is not timed, the rounds that are.
pub(crate) fn measure(plan: &TpchPlan) -> Result<Report, Error> {
    say("starting PostgreSQL and loading TPC-H");
    let stand = Stand::raise(plan.scale)?;
    let mut contest = Contest {
        sessions: Name::ALL.map(|name| Session::new(name, stand.port(name))),
        runs: Vec::new(),
        failures: Vec::new(),
    };
    say("TPC-H: every query once, to compare the answers");
    for query in QUERIES {
        contest.compare(query);
    }
    for round in 0..plan.rounds {
        say(&format!("TPC-H: round {} of {}", round + 1, plan.rounds));
        for query in QUERIES {
            contest.time(round, query);
        }
    }
    let Contest { runs, failures, .. } = contest;
    say("small statements over both shards");
    let latencies = latency::measure(&stand, plan.rounds)?;
    let planning = planning::measure(stand.configuration())?;
    Ok(Report::new(plan, &runs, failures, (latencies, planning)))
}

/// What goes on between the contenders.
struct Contest {
    sessions: [Session; 3],
    runs: Vec<Run>,
    failures: Vec<Failure>,
}

impl Contest {
    /// Runs a query everywhere. Rows are compared as sets: not every ORDER BY says all, and not at every scale.
    fn compare(&mut self, query: Query) {
        let mut expected = None;
        for session in &mut self.sessions {
            let reason = match (session.rows(query.sql), &expected) {
                (Err(reason), _) => reason,
                (Ok(rows), None) => {
                    expected = Some(rows);
                    continue;
                }
                (Ok(rows), Some(expected)) if rows == *expected => continue,
                (Ok(_), Some(_)) => "another answer than PostgreSQL's".to_owned(),
            };
            self.failures
                .push(Failure::new(query, session.name, reason));
        }
    }

    /// Each in its turn; who has failed once is not asked again.
    fn time(&mut self, round: u32, query: Query) {
        let first = (round as usize + query.number) % self.sessions.len();
        for turn in 0..self.sessions.len() {
            let index = (first + turn) % self.sessions.len();
            let Some(session) = self.sessions.get_mut(index) else {
                continue;
            };
            let name = session.name;
            let has_failed =
                |failure: &Failure| failure.query == query.number && failure.name == name;
            if self.failures.iter().any(has_failed) {
                continue;
            }
            let begun = Instant::now();
            match session.rows(query.sql) {
                Ok(_) => self.runs.push(Run {
                    round,
                    query: query.number,
                    name,
                    seconds: begun.elapsed().as_secs_f64(),
                }),
                Err(reason) => self.failures.push(Failure::new(query, name, reason)),
            }
        }
    }
}

impl Failure {
    fn new(query: Query, name: Name, reason: String) -> Failure {
        Failure {
            query: query.number,
            name,
            reason,
        }
    }
}

/// A connection to a contender; another one after an error.
struct Session {
    name: Name,
    port: u16,
    client: Option<Client>,
}

impl Session {
    fn new(name: Name, port: u16) -> Session {
        Session {
            name,
            port,
            client: None,
        }
    }

    /// The rows of a query, sorted, or why there are none.
    fn rows(&mut self, sql: &str) -> Result<Vec<Vec<u8>>, String> {
        let mut run = || -> io::Result<Vec<Vec<u8>>> {
            let mut client = match self.client.take() {
                Some(client) => client,
                None => Client::login(self.port, APP_USER, DATABASE)?,
            };
            // A server that is asked to cancel needs a moment.
            client.set_patience(LIMIT + Duration::from_secs(5))?;
            let mut rows = client.rows(sql)?;
            self.client = Some(client);
            rows.sort_unstable();
            Ok(rows)
        };
        run().map_err(|error| error.to_string())
    }
}
