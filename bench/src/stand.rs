//! Everything that is measured, running.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use switchyard_cluster::{APP_USER, Cluster, ClusterSpec, Companion, Port, Settings};
use tempfile::TempDir;

use crate::client::Client;
use crate::contender::{Contender, Endpoint, Name, Target};
use crate::options::{Plan, PoolMode};
use crate::pgbench::{DATABASE, PASSWORD, Pgbench};
use crate::{Error, pgbouncer, router, say};

/// How long a contender may take until it answers.
const PATIENCE: Duration = Duration::from_secs(20);

/// Servers and contenders. Dropping it ends them all.
#[derive(Debug)]
pub(crate) struct Stand {
    // Order matters: contenders go before their servers.
    /// Those that take part, in the order of [`Name::ALL`].
    pub(crate) contenders: Vec<Contender>,
    /// What makes them work.
    pub(crate) pgbench: Pgbench,
    /// Where files go; removed in the end.
    pub(crate) directory: TempDir,
    cluster: Cluster,
}

impl Stand {
    /// Starts servers, fills them, starts the contenders, and waits until each answers.
    pub(crate) fn raise(plan: &Plan) -> Result<Stand, Error> {
        let pgbench = Pgbench::find()?;
        let sharded = plan.contenders.contains(&Name::Sharded);
        say("starting PostgreSQL and filling pgbench's tables");
        let cluster = Cluster::start(ClusterSpec {
            database: DATABASE.to_owned(),
            password: PASSWORD.to_owned(),
            // Autovacuum would run in somebody's turn.
            settings: Settings::for_tests()
                .with("shared_buffers", "256MB")
                // Each contender keeps its pool while the others have their turns.
                .with("max_connections", "800")
                .with("autovacuum", "off"),
            ..ClusterSpec::for_tests(if sharded { 2 } else { 1 }, 0)
        })?;
        // Each shard has all rows and is asked for its own only: what it is not asked for costs nothing.
        for shard in cluster.shards() {
            pgbench.initialise(shard.primary.port(), plan.scale)?;
            cluster.sql(shard.primary.as_ref(), "VACUUM ANALYZE")?;
        }
        let directory = tempfile::tempdir().map_err(Error::io("make a directory"))?;
        let mut stand = Stand {
            contenders: Vec::new(),
            pgbench,
            directory,
            cluster,
        };
        for &name in Name::ALL
            .iter()
            .filter(|name| plan.contenders.contains(name))
        {
            let contender = stand.start(name, plan)?;
            stand.contenders.push(contender);
        }
        for contender in &mut stand.contenders {
            wait_for(contender)?;
        }
        Ok(stand)
    }

    fn start(&self, name: Name, plan: &Plan) -> Result<Contender, Error> {
        let server = self.cluster.shard(0).primary.port();
        let place = router::Place {
            directory: self.directory.path(),
            prepared: match plan.pool_mode {
                Some(mode) => mode,
                None if plan.contenders.contains(&Name::Pgbouncer) => pgbouncer::pool_mode()?,
                None => PoolMode::Transaction,
            },
        };
        match name {
            Name::Direct => Ok(Contender {
                name,
                description: self.cluster.sql(
                    self.cluster.shard(0).primary.as_ref(),
                    "SELECT 'PostgreSQL ' || current_setting('server_version')",
                )?,
                usual: Target::Server(server),
                prepared: None,
            }),
            Name::Floor => start_floor(server),
            Name::Pgbouncer => pgbouncer::start(self.directory.path(), server),
            Name::Router => router::unsharded(place, self.cluster.shards()),
            Name::Routed => router::routed(place, self.cluster.shards()),
            Name::Sharded => router::sharded(place, self.cluster.shards()),
        }
    }
}

fn start_floor(server: u16) -> Result<Contender, Error> {
    Ok(Contender {
        name: Name::Floor,
        description: "copies bytes, one thread, no pooling".to_owned(),
        usual: Target::Process(byte_copy(server)?),
        prepared: None,
    })
}

/// Starts a proxy that only copies bytes between its clients and this port.
pub(crate) fn byte_copy(server: u16) -> Result<Endpoint, Error> {
    let port = Port::any()?;
    let address = |port: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port)).to_string();
    let own = std::env::current_exe().map_err(Error::io("find this program"))?;
    let mut command = Command::new(own);
    command
        .arg("floor")
        .args(["--listen", &address(port.number())])
        .args(["--to", &address(server)])
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    let process = Companion::start(&mut command)?;
    Ok(Endpoint { port, process })
}

/// Waits until a contender takes connections.
fn wait_for(contender: &Contender) -> Result<(), Error> {
    for target in std::iter::once(&contender.usual).chain(&contender.prepared) {
        let Target::Process(endpoint) = target else {
            continue;
        };
        let port = endpoint.port.number();
        // The floor passes on the server's demand for a password: that it is asked for is answer enough.
        patiently(contender.name.title(), || match contender.name {
            Name::Floor => TcpStream::connect(("127.0.0.1", port)).map(drop),
            Name::Direct | Name::Pgbouncer | Name::Router | Name::Routed | Name::Sharded => {
                Client::login(port, APP_USER, DATABASE).map(drop)
            }
        })?;
    }
    Ok(())
}

/// Tries again until it succeeds, for as long as a contender may take to start.
pub(crate) fn patiently(
    contender: &'static str,
    attempt: impl Fn() -> io::Result<()>,
) -> Result<(), Error> {
    let give_up = Instant::now() + PATIENCE;
    loop {
        match attempt() {
            Ok(()) => return Ok(()),
            Err(_) if Instant::now() < give_up => sleep(Duration::from_millis(50)),
            Err(error) => {
                return Err(Error::NotReady {
                    contender,
                    reason: error.to_string(),
                });
            }
        }
    }
}
