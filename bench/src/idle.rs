//! Memory of idle clients: each has logged in, run one statement, and now does nothing.

use std::thread::sleep;
use std::time::Duration;

use serde::Serialize;
use switchyard_cluster::APP_USER;

use crate::client::Client;
use crate::contender::{Contender, Name};
use crate::options::Plan;
use crate::pgbench::DATABASE;
use crate::process::resident_kb;
use crate::stand::Stand;
use crate::{Error, say};

/// Until memory that is given back has been given back.
const SETTLE: Duration = Duration::from_millis(500);

/// What idle clients cost.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Idle {
    /// Whom.
    pub(crate) name: Name,
    /// How many clients.
    pub(crate) clients: u32,
    /// Resident memory without them, in kB.
    pub(crate) before_kb: u64,
    /// Resident memory with them, in kB.
    pub(crate) with_kb: u64,
}

impl Idle {
    /// kB for each client.
    pub(crate) fn kb_per_client(&self) -> f64 {
        self.with_kb.saturating_sub(self.before_kb) as f64 / f64::from(self.clients.max(1))
    }
}

/// Every pooler, before it has done anything else. The floor does not pool: its clients would be servers too.
pub(crate) fn measure(stand: &Stand, plan: &Plan) -> Result<Vec<Idle>, Error> {
    say("measuring the memory of idle clients");
    let poolers = stand
        .contenders
        .iter()
        .filter(|one| one.name != Name::Floor);
    poolers
        .filter_map(|pooler| Some((pooler, pooler.usual.pid()?)))
        .map(|(pooler, pid)| of(pooler, pid, plan.idle_clients))
        .collect()
}

fn of(pooler: &Contender, pid: u32, count: u32) -> Result<Idle, Error> {
    let memory = || resident_kb(pid).unwrap_or_default();
    let open = || -> std::io::Result<Client> {
        let mut client = Client::login(pooler.usual.port(), APP_USER, DATABASE)?;
        client.run("SELECT 1")?;
        Ok(client)
    };
    // The first one opens what is opened once.
    let first = open().map_err(Error::io("open a client"))?;
    let before_kb = memory();
    let clients = (0..count)
        .map(|_| open())
        .collect::<std::io::Result<Vec<Client>>>()
        .map_err(Error::io("open idle clients"))?;
    sleep(SETTLE);
    let with_kb = memory();
    drop((first, clients));
    Ok(Idle {
        name: pooler.name,
        clients: count,
        before_kb,
        with_kb,
    })
}
