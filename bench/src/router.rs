//! The router, built beside this program.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use switchyard_cluster::{APP_USER, Companion, Port, Shard};

use crate::Error;
use crate::contender::{Contender, Endpoint, Name, Target};
use crate::pgbench::{DATABASE, PASSWORD};

const ACCOUNTS_BY_KEY: &str = "
[[databases.tables]]
name      = \"pgbench_accounts\"
shard_key = \"aid\"
method    = \"hash\"
";

/// One node, and no table that is sharded.
pub(crate) fn unsharded(directory: &Path, shards: &[Shard]) -> Result<Contender, Error> {
    let first = shards.get(..1).unwrap_or_default();
    start(
        Name::Router,
        "one node, nothing sharded",
        directory,
        first,
        "",
    )
}

/// All shards, pgbench's accounts by their key.
pub(crate) fn sharded(directory: &Path, shards: &[Shard]) -> Result<Contender, Error> {
    let description = "two shards, accounts by hash of aid";
    start(
        Name::Sharded,
        description,
        directory,
        shards,
        ACCOUNTS_BY_KEY,
    )
}

fn start(
    name: Name,
    description: &str,
    directory: &Path,
    shards: &[Shard],
    tables: &str,
) -> Result<Contender, Error> {
    let (port, http) = (Port::any()?, Port::any()?);
    let file = directory.join(if name == Name::Sharded {
        "sharded.toml"
    } else {
        "unsharded.toml"
    });
    let text = configuration(port.number(), http.number(), shards, tables);
    std::fs::write(&file, text).map_err(Error::io("write the router's configuration"))?;
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
    Ok(Contender {
        name,
        description: format!("Switchyard {}, {description}", env!("CARGO_PKG_VERSION")),
        usual: Target::Process(Endpoint { port, process }),
        prepared: None,
    })
}

fn configuration(port: u16, http: u16, shards: &[Shard], tables: &str) -> String {
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
        "[router]\nlisten = \"127.0.0.1:{port}\"\nhttp = \"127.0.0.1:{http}\"\n\
         [auth]\nmethod = \"trust\"\n\
         [[users]]\nname = {APP_USER:?}\npassword = {PASSWORD:?}\n\
         [[databases]]\nname = {DATABASE:?}\n{shards}{tables}"
    )
}

/// The router of the same build.
fn program() -> Result<PathBuf, Error> {
    let own = std::env::current_exe().map_err(Error::io("find this program"))?;
    let router = own.with_file_name("switchyard");
    if !router.is_file() {
        return Err(Error::Missing {
            program: "switchyard",
            hint: "build it in the same profile first, as `make bench` does",
        });
    }
    Ok(router)
}
