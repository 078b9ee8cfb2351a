//! Where a table's rows are to be from now on: moves them and records it, or changes nothing (ADR 0020).
//!
//! `run` does it on connections of its own to the primaries, as the session's user, in one transaction of all shards: the table is locked,
//! its rows are moved (`moves`), every part is prepared, and the catalog decides ([`switchover`]). Invariant: nobody reads or writes
//! the table between the lock and the moment at which every router plans by what the catalog says then.
//!
//! Collaborators: [`crate::plan`] reads the call, a session makes it; [`crate::two_phase::recovery`] ends what a router leaves prepared.

mod moves;
mod places;
mod silent;
pub mod snowflake;
pub mod strangers;
pub mod switchover;
mod table;
pub(crate) mod unique;
mod visits;

use std::sync::Arc;

use postgres_protocol::escape::{escape_identifier, escape_literal};
use switchyard_catalog::CatalogDatabase;
use switchyard_schema::{Database, Distribution, KeyType, Method, ShardKey, Table, TableName};

use crate::config::Settings;
use crate::execute::failure::Failure;
use crate::plan::Refusal;
use crate::plan::distribute::{By, Distribute};
use crate::plan::enforceable;
use crate::relations::{GlobalIndex, Problem, Relations};
use crate::startup::cancel::CancelSlot;
use crate::topology::DatabaseTopology;
use crate::topology::loader;
use crate::worker::Services;
use places::Places;
use table::Found;

/// What is asked for, by whom, and of what.
pub(crate) struct Request<'a> {
    pub(crate) services: &'a Services,
    pub(crate) database: &'a DatabaseTopology,
    /// Whom the session is logged in as.
    pub(crate) user: &'a str,
    /// What makes a new connection one of the session's.
    pub(crate) settings: String,
    /// Where cancel requests for the session find what works for it.
    pub(crate) slot: &'a CancelSlot,
    pub(crate) wanted: &'a Distribute,
}

/// A change that is certain to be right.
struct Change {
    table: TableName,
    /// `None`: unsharded.
    before: Option<Distribution>,
    after: Option<Distribution>,
    /// Of what type the shard key is that it gets.
    key_type: Option<KeyType>,
    /// The database as it will be.
    schema: Database,
}

impl Change {
    /// The table's name in SQL.
    fn sql_name(&self) -> String {
        let TableName { schema, name } = &self.table;
        format!("{}.{}", escape_identifier(schema), escape_identifier(name))
    }
}

/// Does what is asked for; what is good to know then.
pub(crate) async fn run(request: &Request<'_>) -> Result<String, Failure> {
    if *request.wanted == Distribute::Snowflakes {
        return snowflake::run(request).await;
    }
    let settings = request.services.settings.load_full();
    let Some(credentials) = settings.catalog_credentials() else {
        return Err(no_catalog(request.wanted).into());
    };
    let mut places = Places::open(request, &settings).await?;
    let found = table::find(&mut places, request.wanted.table()).await?;
    let change = match (&found, request.wanted) {
        (None, _) => forget(request, &mut places).await?,
        (Some(found), Distribute::Unique { column, index, .. }) => {
            let index = index.as_deref();
            unique::create(request, (column, index), (&mut places, found), &settings).await?
        }
        (Some(found), Distribute::NotUnique { .. }) => {
            unique::drop(request, (&mut places, found), &settings).await?
        }
        (Some(found), _) => {
            let change = change(request, &mut places, found).await?;
            move_rows(request, &mut places, &change, &settings).await?;
            change
        }
    };
    let known = known_to_catalog(request);
    switchover::run(request, &credentials, &mut places, &change, &known).await?;
    tracing::info!(database = %request.database.name, table = %change.table, function = request.wanted.function(), "a table's rows are where they were asked to be");
    Ok(in_file(&change, request.wanted))
}

/// Brings the rows to where they are to be, with the table locked.
async fn move_rows(
    request: &Request<'_>,
    places: &mut Places<'_>,
    change: &Change,
    settings: &Settings,
) -> Result<(), Failure> {
    places.lock(change, settings).await?;
    places.compare(change).await?;
    if let Some(query) = enforceable::query_of(&change.schema, &change.table)
        && let Some(row) = places.ask(0, &query).await?.pop()
    {
        let row = row.into_iter().next().flatten().unwrap_or_default();
        return Err(Failure::Refused(Box::new(enforceable::refusal(&row))));
    }
    moves::run(places, change, &request.database.buckets).await
}

/// Forgets where the rows of a table were that has been dropped: one that is made by its name is another one. If there is one by now, nothing is
/// forgotten.
pub(crate) async fn forget_dropped(
    request: &Request<'_>,
    table: &TableName,
) -> Result<(), Failure> {
    let settings = request.services.settings.load_full();
    let schema = &request.database.schema;
    let known = schema.table(table).map(|table| table.distribution.clone());
    let (Some(credentials), Some(before)) = (settings.catalog_credentials(), known) else {
        return Ok(());
    };
    let mut places = Places::open(request, &settings).await?;
    // Nobody makes one and stores rows in it by what holds as yet.
    places.hold_name(table).await?;
    let change = changed(schema, table, Some(before), None);
    let known = known_to_catalog(request);
    switchover::run(request, &credentials, &mut places, &change, &known).await?;
    places.ask(0, "ROLLBACK").await?;
    Ok(())
}

/// The database as this router has read it in the catalog.
fn known_to_catalog(request: &Request<'_>) -> CatalogDatabase {
    CatalogDatabase {
        database: Arc::clone(&request.database.schema),
        buckets: Arc::clone(&request.database.buckets),
        epoch: request.database.epoch,
        is_moving: request.database.is_moving,
        movement: request.database.movement,
    }
}

/// What the change is, if nothing speaks against it.
async fn change(
    request: &Request<'_>,
    places: &mut Places<'_>,
    found: &Found,
) -> Result<Change, Failure> {
    let schema = &request.database.schema;
    let table = &found.name;
    found.is_suitable(request.wanted)?;
    let before = schema.table(table).map(|table| table.distribution.clone());
    let after = match request.wanted {
        Distribute::Sharded {
            column,
            by,
            colocate_with,
            ..
        } => Some(sharded(schema, places, (column, by), colocate_with.as_deref()).await?),
        Distribute::Reference { .. } => Some(Distribution::Reference),
        Distribute::Unsharded { .. }
        | Distribute::Unique { .. }
        | Distribute::NotUnique { .. }
        | Distribute::Snowflakes => None,
    };
    is_of_no_index(request, table)?;
    match (&before, &after) {
        (Some(_), Some(_)) => {
            return Err(
                refused("42P16", format!("table \"{table}\" is already distributed"))
                    .hint("Call undistribute_table first.")
                    .into(),
            );
        }
        (None, None) => {
            return Err(refused("42809", format!("table \"{table}\" is not distributed")).into());
        }
        (Some(_), None) | (None, Some(_)) => {}
    }
    let mut change = changed(schema, table, before, after);
    if let Some(Distribution::Sharded(key)) = &change.after {
        found.has_column(places, &key.column).await?;
        found.is_read_by_no_materialized_view(places).await?;
        change.key_type = fits(request, places, &change, key).await?;
    }
    Ok(change)
}

/// A global unique index is where its values are, and keeps a table where that is.
fn is_of_no_index(request: &Request<'_>, table: &TableName) -> Result<(), Failure> {
    let indexes = request.database.relations.global_indexes();
    let is_about = |index: &&GlobalIndex| index.table == *table || index.name == *table;
    let Some(index) = indexes.iter().find(is_about) else {
        return Ok(());
    };
    let (name, of) = (&index.name, &index.table);
    let message = format!("table \"{of}\" has the global unique index \"{name}\"");
    Err(refused("55000", message)
        .hint(format!("Call drop_global_unique_index('{name}') first."))
        .into())
}

/// A table that is gone can be forgotten.
async fn forget(request: &Request<'_>, places: &mut Places<'_>) -> Result<Change, Failure> {
    let text = request.wanted.table();
    let missing = || refused("42P01", format!("relation \"{text}\" does not exist"));
    let schema = &request.database.schema;
    let parts = format!(
        "SELECT part FROM pg_catalog.unnest(pg_catalog.parse_ident({})) AS part",
        escape_literal(text)
    );
    let parts = places.ask(0, &parts).await?;
    let parts: Vec<&str> = parts
        .iter()
        .filter_map(|row| row.first()?.as_deref())
        .collect();
    let is_meant = |table: &&Table| match parts[..] {
        [name] => table.name.schema == "public" && table.name.name == name,
        [schema, name] => table.name.schema == schema && table.name.name == name,
        _ => false,
    };
    let table = schema.tables.iter().find(is_meant);
    match (request.wanted, table) {
        (Distribute::Unsharded { .. } | Distribute::NotUnique { .. }, Some(table)) => Ok(changed(
            schema,
            &table.name,
            Some(table.distribution.clone()),
            None,
        )),
        _ => Err(missing().into()),
    }
}

fn changed(
    schema: &Database,
    table: &TableName,
    before: Option<Distribution>,
    after: Option<Distribution>,
) -> Change {
    let mut schema = schema.clone();
    schema.tables.retain(|known| known.name != *table);
    if let Some(distribution) = &after {
        schema.tables.push(Table {
            name: table.clone(),
            distribution: distribution.clone(),
        });
    }
    Change {
        table: table.clone(),
        before,
        after,
        key_type: None,
        schema,
    }
}

/// As is said, by hash if nothing is, or as the table it is to be colocated with.
async fn sharded(
    schema: &Database,
    places: &mut Places<'_>,
    (column, by): (&str, &By),
    colocate_with: Option<&str>,
) -> Result<Distribution, Failure> {
    let key = |method, colocate_with| {
        Distribution::Sharded(ShardKey {
            column: column.to_owned(),
            method,
            colocate_with,
        })
    };
    let Some(other) = colocate_with else {
        return Ok(key(method(schema, by)?, None));
    };
    let missing = || refused("42P01", format!("relation \"{other}\" does not exist"));
    let found = table::find(places, other).await?.ok_or_else(missing)?;
    let distribution = schema.table(&found.name).map(|table| &table.distribution);
    match distribution {
        Some(Distribution::Sharded(known)) => {
            let name = known.method.name();
            if by.method.as_deref().is_some_and(|method| method != name) {
                let message = format!("table \"{}\" is distributed by {name}", found.name);
                return Err(refused("42804", message)
                    .detail("Colocated tables share their method.")
                    .into());
            }
            Ok(key(known.method.clone(), Some(found.name)))
        }
        Some(Distribution::Reference) | None => {
            let message = format!("table \"{}\" is not distributed by a column", found.name);
            Err(refused("42809", message)
                .detail("No table can be colocated with it.")
                .into())
        }
    }
}

/// The method as it is said.
fn method(schema: &Database, by: &By) -> Result<Method, Refusal> {
    let name = by.method.as_deref().unwrap_or("hash");
    let entries = by.entries.as_ref().map(|(key, value)| (*key, &**value));
    Method::read(name, entries, &schema.shards).map_err(|problems| {
        let problems = problems.into_iter().next();
        let (key, message, hint) = problems.map_or_else(Default::default, |first| {
            (first.key, first.message, first.hint)
        });
        let refusal = refused(
            "22023",
            format!("{key}: {message}")
                .trim_start_matches(": ")
                .to_owned(),
        );
        match hint {
            Some(hint) => refusal.hint(hint),
            None => refusal,
        }
    })
}

/// What routers will make of the change.
async fn as_it_will_be(
    request: &Request<'_>,
    places: &mut Places<'_>,
    change: &Change,
) -> Result<Relations, Failure> {
    let introspection = loader::introspect(places.link(0)).await;
    let introspection = introspection.map_err(|error| places.failure(0, error))?;
    let buckets = Some(&request.database.buckets);
    Ok(Relations::build(&change.schema, &introspection, buckets))
}

/// What is wrong with that, and has not been before.
fn new_problem<'a>(request: &Request<'_>, relations: &'a Relations) -> Option<&'a Problem> {
    let known = request.database.relations.problems();
    let mut problems = relations.problems().iter();
    problems.find(|problem| !known.contains(problem))
}

/// The same, in words.
async fn problem_with(
    request: &Request<'_>,
    places: &mut Places<'_>,
    change: &Change,
) -> Result<Option<String>, Failure> {
    let relations = as_it_will_be(request, places, change).await?;
    Ok(new_problem(request, &relations).map(|problem| problem.message.clone()))
}

/// Whether the column can be the key, and equal keys meet those of the table it is to be colocated with. The key's type.
async fn fits(
    request: &Request<'_>,
    places: &mut Places<'_>,
    change: &Change,
    key: &ShardKey,
) -> Result<Option<KeyType>, Failure> {
    let relations = as_it_will_be(request, places, change).await?;
    if let Some(problem) = new_problem(request, &relations) {
        let message = format!(
            "table \"{}\" cannot be distributed by column \"{}\"",
            change.table, key.column
        );
        return Err(refused("0A000", message)
            .detail(format!(
                "Of table \"{}\": {}.",
                problem.table, problem.message
            ))
            .into());
    }
    let sharding = |table: &TableName| relations.get(&table.schema, &table.name)?.sharding();
    if let Some(other) = &key.colocate_with
        && let (Some(own), Some(others)) = (sharding(&change.table), sharding(other))
        && !own.map.colocated_with(&others.map)
    {
        let message = format!(
            "cannot colocate tables \"{other}\" and \"{}\"",
            change.table
        );
        return Err(refused("42804", message)
            .detail(format!(
                "The types of their shard keys, {} and {}, do not match.",
                others.map.key_type().name(),
                own.map.key_type().name()
            ))
            .into());
    }
    Ok(sharding(&change.table).map(|own| own.map.key_type()))
}

fn refused(sqlstate: &'static str, message: String) -> Refusal {
    Refusal::certain(sqlstate, message)
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(Box::new(refusal))
    }
}

fn no_catalog(wanted: &Distribute) -> Refusal {
    let message = format!("{} needs a catalog", wanted.function());
    let entry = match wanted {
        Distribute::Sharded {
            table, column, by, ..
        } => format!(
            "[[databases.tables]] name = \"{table}\", shard_key = \"{column}\", method = \"{}\"{}",
            by.method.as_deref().unwrap_or("hash"),
            entries(by)
        ),
        Distribute::Reference { table } => {
            format!("[[databases.tables]] name = \"{table}\", method = \"reference\"")
        }
        Distribute::Unique { table, .. } => {
            let message = format!("a global unique index of table \"{table}\" needs a catalog");
            return refused("55000", message).hint("Configure [catalog].");
        }
        Distribute::Snowflakes => String::new(),
        Distribute::Unsharded { table } | Distribute::NotUnique { index: table } => {
            format!("without the [[databases.tables]] of \"{table}\"")
        }
    };
    refused("55000", message)
        .detail("Without [catalog] the router's configuration file is the whole truth, and only its owner changes it.")
        .hint(format!("Configure [catalog]; or, while the table is empty, change the file and reload: {entry}."))
}

/// What the configuration file should say.
fn in_file(change: &Change, wanted: &Distribute) -> String {
    let table = &change.table;
    match &change.after {
        None => format!(
            "the catalog has it; take the entry of \"{table}\" out of the configuration file, too"
        ),
        Some(Distribution::Reference) => format!(
            "the catalog has it; add it to the configuration file, too: [[databases.tables]] name = \"{table}\", method = \"reference\""
        ),
        Some(Distribution::Sharded(key)) => {
            let colocated = key.colocate_with.as_ref();
            let colocated = colocated.map(|other| format!(", colocate_with = \"{other}\""));
            let mut own = String::new();
            if let Distribute::Sharded { by, .. } = wanted {
                own = entries(by);
            }
            format!(
                "the catalog has it; add it to the configuration file, too: [[databases.tables]] name = \"{table}\", shard_key = \"{}\", method = \"{}\"{own}{}",
                key.column,
                key.method.name(),
                colocated.unwrap_or_default()
            )
        }
    }
}

/// What belongs to the method, as in the file.
fn entries(by: &By) -> String {
    let entries = by.entries.as_ref();
    let entries = entries.map(|(key, value)| format!(", {key} = {}", value.trim()));
    entries.unwrap_or_default()
}
