//! The router, built beside this program.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use switchyard_cluster::{APP_USER, Companion, Port, Shard};

use crate::Error;
use crate::contender::{Contender, Endpoint, Name, Target};
use crate::options::PoolMode;
use crate::pgbench::{DATABASE, PASSWORD};

const ACCOUNTS_BY_KEY: &str = "
[[databases.tables]]
name      = \"pgbench_accounts\"
shard_key = \"aid\"
method    = \"hash\"
";

/// Connections to each server: as many as PgBouncer has in the same scenario, which without prepared statements in
/// transaction mode needs one for each client.
const USUAL_POOL: u32 = 20;
const PREPARED_POOL: u32 = 100;

/// Where the bench's routers are started, and how they pool for prepared statements.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    pub(crate) directory: &'a Path,
    pub(crate) prepared: PoolMode,
}

/// One node, and no table that is sharded.
pub(crate) fn unsharded(place: Place<'_>, shards: &[Shard]) -> Result<Contender, Error> {
    let first = shards.get(..1).unwrap_or_default();
    let description = "one node, nothing sharded";
    start(Name::Router, description, place, first, "")
}

/// One node, pgbench's accounts by their key: what it costs to find a shard.
pub(crate) fn routed(place: Place<'_>, shards: &[Shard]) -> Result<Contender, Error> {
    let first = shards.get(..1).unwrap_or_default();
    let description = "the same node, accounts by hash of aid";
    start(Name::Routed, description, place, first, ACCOUNTS_BY_KEY)
}

/// All shards, pgbench's accounts by their key.
pub(crate) fn sharded(place: Place<'_>, shards: &[Shard]) -> Result<Contender, Error> {
    let description = "two shards, accounts by hash of aid";
    start(Name::Sharded, description, place, shards, ACCOUNTS_BY_KEY)
}

fn start(
    name: Name,
    description: &str,
    place: Place<'_>,
    shards: &[Shard],
    tables: &str,
) -> Result<Contender, Error> {
    let run = |pool: u32, mode: PoolMode| -> Result<Target, Error> {
        let pooling = format!("pool_size = {pool}\npool_mode = {:?}\n", mode.name());
        let name = format!("{name:?}-{pool}");
        let endpoint = in_front_of(place.directory, &name, &pooling, shards, tables)?;
        Ok(Target::Process(endpoint))
    };
    Ok(Contender {
        name,
        description: format!(
            "Switchyard {}, {description}; transaction mode, {} mode for prepared statements",
            env!("CARGO_PKG_VERSION"),
            place.prepared.name()
        ),
        usual: run(USUAL_POOL, PoolMode::Transaction)?,
        prepared: Some(run(PREPARED_POOL, place.prepared)?),
    })
}

/// Starts a router in front of these shards' primaries, with these lines about it.
pub(crate) fn in_front_of(
    directory: &Path,
    name: &str,
    lines: &str,
    shards: &[Shard],
    tables: &str,
) -> Result<Endpoint, Error> {
    let (port, http) = (Port::any()?, Port::any()?);
    let text = format!(
        "[router]\nlisten = \"127.0.0.1:{}\"\nhttp = \"127.0.0.1:{}\"\n{lines}{}",
        port.number(),
        http.number(),
        databases(shards, tables)
    );
    launch(directory, name, &text, port)
}

/// The configuration file of the router of this name.
pub(crate) fn file(directory: &Path, name: &str) -> PathBuf {
    directory.join(name).with_extension("toml")
}

/// What the router says of a statement and of how long it plans, in JSON.
pub(crate) fn explain(config: &Path, sql: &str) -> Result<String, Error> {
    let mut command = Command::new(program()?);
    command.args(["explain", "--json", "--times", "--config"]);
    let output = command
        .arg(config)
        .arg(sql)
        .stderr(Stdio::inherit())
        .output();
    let output = output.map_err(Error::io("run the router"))?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Starts a router on a configuration that says it listens on `port`.
pub(crate) fn launch(
    directory: &Path,
    name: &str,
    configuration: &str,
    port: Port,
) -> Result<Endpoint, Error> {
    let file = file(directory, name);
    std::fs::write(&file, configuration).map_err(Error::io("write the router's configuration"))?;
    let log = std::fs::File::create(file.with_extension("log"))
        .map_err(Error::io("make the router's log"))?;
    let mut command = Command::new(program()?);
    command
        .arg("run")
        .arg("--config")
        .arg(&file)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log);
    let process = Companion::start(&mut command)?;
    Ok(Endpoint { port, process })
}

fn databases(shards: &[Shard], tables: &str) -> String {
    let shard = |shard: &Shard| {
        format!(
            "[[databases.shards]]\nname = {:?}\nnodes = [{{ host = {:?}, port = {}, role = \"primary\" }}]\n",
            shard.name,
            shard.primary.host(),
            shard.primary.port(),
        )
    };
    let shards: String = shards.iter().map(shard).collect();
    format!(
        "[auth]\nmethod = \"trust\"\n\
         [[users]]\nname = {APP_USER:?}\npassword = {PASSWORD:?}\n\
         [[databases]]\nname = {DATABASE:?}\n{shards}{tables}"
    )
}

/// The router of the same build.
fn program() -> Result<PathBuf, Error> {
    sibling("switchyard")
}

/// A program of the same build.
pub(crate) fn sibling(program: &'static str) -> Result<PathBuf, Error> {
    let own = std::env::current_exe().map_err(Error::io("find this program"))?;
    let sibling = own.with_file_name(program);
    if !sibling.is_file() {
        return Err(Error::Missing {
            program,
            hint: "build it in the same profile first, as `make bench` does",
        });
    }
    Ok(sibling)
}
