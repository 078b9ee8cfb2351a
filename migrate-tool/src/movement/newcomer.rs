//! Shards that come and go: a new one gets the definitions and the reference tables before it is one of the catalog's, without buckets.

use std::io;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use switchyard_catalog::{CatalogDatabase, Layout, Step};
use switchyard_router::backend::TextRow;
use switchyard_router::backend::transfer::{TransferError, transfer};
use switchyard_router::config::Password;
use switchyard_router::distribute::snowflake;
use switchyard_schema::{Database, Distribution, Method, Node, NodeTls, Shard};
use tokio::process::Command;

use super::lock::lock;
use super::tables::{alike, format};
use super::{Error, Work, connect, group, switchover, visit};
use crate::names::quoted;
use crate::servers::Server;

/// What clients have made there, and whether it has rows of its own.
const THINGS: &str = "\
SELECT c.oid::pg_catalog.regclass, c.relkind IN ('r', 'p') FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE n.nspname NOT IN ('pg_catalog', 'information_schema', 'switchyard') AND n.nspname !~ '^pg_(toast|temp)'
   AND c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f') AND NOT EXISTS (
       SELECT FROM pg_catalog.pg_depend d WHERE d.objid = c.oid AND d.classid = c.tableoid AND d.deptype = 'e')";

/// Settings that take part in this.
const ABLE: &str = "\
SELECT pg_catalog.current_setting('max_prepared_transactions') <> '0',
       pg_catalog.set_config('session_replication_role', pg_catalog.current_setting('session_replication_role'), false) IS NOT NULL";

/// Makes shards of those that the file has and the catalog does not.
pub(super) async fn welcome(work: &mut Work<'_>, desired: &Database) -> Result<(), Error> {
    for shard in &desired.shards {
        if work.known.database.shard_index(&shard.name).is_some() {
            continue;
        }
        if work.movement().await?.is_some() {
            return Err(Error::Elsewhere(desired.name.clone()));
        }
        work.announce().await?;
        settle(work, shard).await?;
        tracing::info!(shard = %shard.name, "a new shard gets the definitions and the reference tables");
        let (with, shard) = with_newcomer(&work.known, shard);
        let position = with.database.shards.len() - 1;
        let mut pair = connect(work.settings, &with, Some(&[0, position])).await?;
        can_take_part(&mut pair).await?;
        let [first, new] = pair.as_mut_slice() else {
            return Err(Error::Unsteady);
        };
        define(work, (first, new), &shard).await?;
        for table in &with.database.tables {
            alike(table, &mut pair).await?;
        }
        let mut visits = visit::visits(work, &pair).await?;
        let [first, new] = pair.as_mut_slice() else {
            return Err(Error::Unsteady);
        };
        copy_references(&with.database, (first, new), &mut visits).await?;
        let step = Step::Shard(&shard);
        if !switchover::run(work, &mut [first, new], &mut visits, step).await? {
            return Err(Error::Unsteady);
        }
        work.refresh().await?;
    }
    Ok(())
}

/// The database with one shard more: it owns nothing until buckets come to it, and its weight is in force when that is finished.
fn with_newcomer(known: &CatalogDatabase, shard: &Shard) -> (CatalogDatabase, Shard) {
    let shard = Shard {
        weight: 0,
        ..shard.clone()
    };
    let mut with = known.clone();
    let mut database = Database::clone(&with.database);
    database.shards.push(shard.clone());
    with.database = Arc::new(database);
    (with, shard)
}

/// Ends what a program has left prepared that died before the shard was one: nobody else knows of that, or is at it.
async fn settle(work: &mut Work<'_>, shard: &Shard) -> Result<(), Error> {
    let (with, _) = with_newcomer(&work.known, shard);
    let position = with.database.shards.len() - 1;
    let mut new = connect(work.settings, &with, Some(&[position])).await?;
    switchover::settle(work, &mut new, Duration::ZERO).await
}

/// Leaves nothing prepared on shards that did not become any.
pub(super) async fn take_leave(work: &mut Work<'_>, desired: &Database) -> Result<(), Error> {
    for shard in &desired.shards {
        if work.known.database.shard_index(&shard.name).is_some() {
            continue;
        }
        if let Err(reason) = settle(work, shard).await {
            tracing::warn!(shard = %shard.name, %reason, "cannot look whether something was left there");
        }
    }
    Ok(())
}

/// Servers on which rows can be moved by transactions that are prepared.
pub(super) async fn can_take_part(servers: &mut [Server]) -> Result<(), Error> {
    for server in servers {
        let why = match server.ask(ABLE).await {
            Ok(rows) if is_true(&rows) => continue,
            Ok(_) => "max_prepared_transactions is 0: set it and restart the server",
            Err(error) if error.sqlstate() == Some("42501") => {
                "the user may not set session_replication_role, by which triggers stay still: log in as a superuser, or GRANT SET ON PARAMETER session_replication_role, deadlock_timeout, switchyard.epoch"
            }
            Err(error) => return Err(error.into()),
        };
        return Err(Error::Shard {
            shard: server.name.clone(),
            why: why.to_owned(),
        });
    }
    Ok(())
}

fn is_true(rows: &[TextRow]) -> bool {
    let value = rows.first().and_then(|row| row.first()?.as_deref());
    value == Some("t")
}

/// Shards that are not in the file any more can be forgotten: they own nothing, and those that stay keep their positions.
pub(super) fn may_leave(
    known: &Database,
    layout: &Layout,
    desired: &Database,
) -> Result<(), Error> {
    let stays = |shard: &Shard| desired.shard_index(&shard.name).is_some();
    let kept = known.shards.iter().take_while(|shard| stays(shard)).count();
    for (shard, position) in known.shards.iter().zip(0..) {
        let refused = |why: &str| {
            Err(Error::Shard {
                shard: shard.name.clone(),
                why: why.to_owned(),
            })
        };
        if stays(shard) && position >= kept {
            return refused(
                "it comes after one that is to go, and would change its position: remove the last shards only, and let the other have weight = 0 in the file, by which it owns no buckets",
            );
        }
        if stays(shard) {
            continue;
        }
        let owners = layout.buckets.owners();
        if owners.iter().any(|owner| owner.position() == position) {
            return refused("it is not in the file any more, but owns buckets");
        }
        let mut methods = layout.methods.values();
        if methods.any(|method| has_rows_on(method, position)) {
            return refused(
                "it is not in the file any more, but tables that are not distributed by hash have rows on it",
            );
        }
    }
    Ok(())
}

fn has_rows_on(method: &Method, position: usize) -> bool {
    match method {
        Method::Hash => false,
        Method::Modulo(shards) => shards.iter().any(|shard| shard.position() == position),
        Method::Range(ranges) => ranges
            .iter()
            .any(|range| range.shard.position() == position),
        Method::List(lists) => lists.iter().any(|list| list.shard.position() == position),
    }
}

/// Gives a new shard the definitions of the first one, all or none; unless it has them by an attempt that got no further.
async fn define(
    work: &Work<'_>,
    (old, new): (&mut Server, &mut Server),
    shard: &Shard,
) -> Result<(), Error> {
    number(work, new).await?;
    if may_come(old, new).await? {
        let to = shard.primary().ok_or(Error::Unsteady)?;
        let first = work.known.database.shards.first();
        let from = first.and_then(Shard::primary).ok_or(Error::Unsteady)?;
        let refused = |why: String| Error::Shard {
            shard: shard.name.clone(),
            why,
        };
        dump(work, from, to).await.map_err(refused)?;
    }
    Ok(())
}

/// Whether a new shard is empty; else it must have what the first one has, without rows.
pub(super) async fn may_come(old: &mut Server, new: &mut Server) -> Result<bool, Error> {
    let shard = new.name.clone();
    let refused = |what: String| Error::Shard {
        why: format!("its database is not empty: {what}"),
        shard: shard.clone(),
    };
    let known = old.ask(THINGS).await?;
    let found = new.ask(THINGS).await?;
    for row in &found {
        let name = row.first().and_then(Option::as_deref).unwrap_or_default();
        if !known.contains(row) {
            return Err(refused(format!("it has {name}")));
        }
        let has_rows = row.get(1).and_then(Option::as_deref) == Some("t");
        let one = format!("SELECT FROM {name} LIMIT 1");
        if has_rows && !new.ask(&one).await?.is_empty() {
            return Err(refused(format!("{name} has rows")));
        }
    }
    Ok(found.is_empty())
}

/// Has a new shard make numbers that no other makes (`gen_snowflake_id()`), if the others do.
async fn number(work: &Work<'_>, new: &mut Server) -> Result<(), Error> {
    let mut known = Vec::new();
    let mut servers = work.servers(None).await?;
    for server in &mut servers {
        server.ask(snowflake::BEGIN).await?;
        if is_true(&server.ask(snowflake::IS_NUMBERED).await?) {
            let row = server.ask(snowflake::NUMBER).await?.pop();
            known.push(server.number(&row.unwrap_or_default(), 0)?);
        }
    }
    if !known.is_empty() {
        let number = snowflake::free(&known).next().ok_or(Error::Unsteady)?;
        new.ask(snowflake::BEGIN).await?;
        new.ask(&snowflake::install(number)).await?;
    }
    for server in &mut servers {
        server.ask("COMMIT").await?;
    }
    Ok(())
}

/// Says which of PostgreSQL's programs cannot be run, if there is one.
pub(super) async fn missing_program() -> Option<String> {
    for name in ["pg_dump", "psql"] {
        if let Err(error) = Command::new(name).arg("--version").output().await {
            return Some(format!(
                "{name}, by which new shards get definitions, cannot be run: {error}"
            ));
        }
    }
    None
}

/// `pg_dump` of one node, read by `psql` on another; what they say if they fail.
async fn dump(work: &Work<'_>, from: &Node, to: &Node) -> Result<(), String> {
    let program = |name: &str, node: &Node| {
        let mut program = Command::new(name);
        let user = work.settings.monitor_user();
        program
            .args(["--host", &node.host, "--port", &node.port.to_string()])
            .args(["--no-password", "--dbname", &work.known.database.name])
            .envs(user.map(|user| ("PGUSER", user.name.to_string())))
            .envs(
                user.and_then(|user| user.password.as_ref())
                    .map(|password| ("PGPASSWORD", Password::reveal(password).to_owned())),
            )
            .envs(encryption(&node.tls))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        program
    };
    let failed = |name: &str, error: io::Error| format!("{name} cannot be run: {error}");
    let dumped = program("pg_dump", from)
        .args(["--schema-only", "--exclude-schema=switchyard"])
        .output()
        .await;
    let dumped = dumped.map_err(|error| failed("pg_dump", error))?;
    if !dumped.status.success() {
        return Err(String::from_utf8_lossy(&dumped.stderr).trim().to_owned());
    }
    let mut reading = program("psql", to)
        .args([
            "--no-psqlrc",
            "--quiet",
            "--single-transaction",
            "--set",
            "ON_ERROR_STOP=1",
            "--file",
            "-",
        ])
        .stdin(Stdio::piped())
        .spawn()
        .map_err(|error| failed("psql", error))?;
    let input = reading.stdin.take();
    let writing = async {
        let Some(mut input) = input else {
            return Ok(());
        };
        tokio::io::AsyncWriteExt::write_all(&mut input, &dumped.stdout).await
    };
    let (written, read) = tokio::join!(writing, reading.wait_with_output());
    let read = read.map_err(|error| failed("psql", error))?;
    match (read.status.success(), written) {
        (true, Ok(())) => Ok(()),
        (true, Err(error)) => Err(failed("psql", error)),
        (false, _) => Err(String::from_utf8_lossy(&read.stderr).trim().to_owned()),
    }
}

/// The same encryption for PostgreSQL's own programs.
fn encryption(tls: &NodeTls) -> Vec<(&'static str, String)> {
    let mut variables = vec![("PGSSLMODE", tls.mode.to_string())];
    if let Some(root) = &tls.root_cert {
        variables.push(("PGSSLROOTCERT", root.to_string_lossy().into_owned()));
    }
    variables
}

/// Copies the reference tables, with all of them locked on both: nobody writes them, and nobody reads them on the new shard before they are there.
async fn copy_references(
    database: &Database,
    (old, new): (&mut Server, &mut Server),
    visits: &mut [visit::Visit],
) -> Result<(), Error> {
    let references = database
        .tables
        .iter()
        .filter(|table| table.distribution == Distribution::Reference);
    let references: Vec<_> = references.collect();
    let names: Vec<String> = references.iter().map(|table| quoted(&table.name)).collect();
    old.ask(group::BEGIN).await?;
    new.ask(group::BEGIN).await?;
    lock(&mut names.clone(), (old, new), visits).await?;
    for (table, name) in references.into_iter().zip(names) {
        let columns = alike(table, std::slice::from_mut(new)).await?;
        let form = format(&name, std::slice::from_mut(new)).await?;
        let take = format!("COPY (SELECT {columns} FROM {name}) TO STDOUT (FORMAT {form})");
        let put = format!("COPY {name} ({columns}) FROM STDIN (FORMAT {form})");
        let copied = transfer(
            (old.link.connection(), &take),
            (new.link.connection(), &put),
        );
        copied.await.map_err(|error| match error {
            TransferError::Source(error) => old.failed(error.into()),
            TransferError::Target(error) => new.failed(error.into()),
        })?;
    }
    Ok(())
}
