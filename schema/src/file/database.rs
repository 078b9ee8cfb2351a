//! `[[databases]]` with its shards and their nodes.

use std::collections::HashMap;

use super::address::is_host;
use super::pool;
use super::reader::{Item, Section};
use super::router::node_tls;
use super::tables::tables;
use crate::model::{Address, Database, Node, NodeTls, Role, Shard};
use crate::pooling::Pooling;
use crate::shard::MAX_SHARDS;

/// The most a shard can weigh; more would make the ring needlessly dense.
const MAX_WEIGHT: u32 = 100;

/// The databases of the admin console.
const RESERVED: [&str; 2] = ["switchyard", "pgbouncer"];

/// `[[databases]]`
pub(super) fn databases(root: &mut Section<'_>, pooling: &mut Pooling) -> Vec<Database> {
    let sections = root.sections("databases");
    if sections.is_empty() {
        root.problem("there is no [[databases]]: there is nothing to route", None);
    }
    let mut databases: Vec<Database> = Vec::new();
    for mut section in sections {
        let item = section.require("name", "the database's name on every node");
        let name = item.as_ref().and_then(|item| item.name());
        if let (Some(item), Some(name)) = (&item, name) {
            if RESERVED.contains(&name) {
                item.problem(
                    format!("{name:?} is the admin console's"),
                    Some("give the database another name"),
                );
            }
            if databases.iter().any(|database| database.name == name) {
                item.problem(format!("database {name:?} is there twice"), None);
            }
        }
        let tls = node_tls(&mut section, &NodeTls::default());
        let mut shards = shards(&mut section, &tls);
        called_otherwise(&mut section, &mut shards);
        let tables = tables(&mut section, &shards);
        let name = name.unwrap_or_default().to_owned();
        let rules = pool::rules(
            &mut section,
            "max_db_connections",
            "max_db_client_connections",
        );
        pooling.databases.insert(name.clone(), rules);
        login(&mut section, &name, pooling);
        section.finish();
        databases.push(Database {
            name,
            shards,
            tables,
        });
    }
    databases
}

/// `user`
fn login(section: &mut Section<'_>, database: &str, pooling: &mut Pooling) {
    let Some(item) = section.get("user") else {
        return;
    };
    let Some(user) = item.name() else { return };
    if !pooling.users.contains_key(user) {
        item.problem(format!("{user:?} is not among [[users]]"), None);
    }
    pooling.logins.insert(database.to_owned(), user.to_owned());
}

/// `dbname`: two databases of the file may then be one of a server, which no two of several shards may be, as each would end the other's
/// transactions.
fn called_otherwise(database: &mut Section<'_>, shards: &mut [Shard]) {
    let Some(item) = database.get("dbname") else {
        return;
    };
    if shards.len() > 1 {
        item.problem("is for databases with one shard", None);
    }
    let name = item.name();
    for node in shards.iter_mut().flat_map(|shard| &mut shard.nodes) {
        node.dbname = name.map(str::to_owned);
    }
}

/// `[[databases.shards]]`
fn shards(database: &mut Section<'_>, tls: &NodeTls) -> Vec<Shard> {
    let sections = database.sections("shards");
    if sections.is_empty() {
        database.problem("the database has no [[databases.shards]]", None);
    }
    if sections.len() > MAX_SHARDS {
        database.problem(
            format!("the database has more than {MAX_SHARDS} shards"),
            None,
        );
    }
    let mut shards: Vec<Shard> = Vec::new();
    let mut places = HashMap::new();
    for mut section in sections.into_iter().take(MAX_SHARDS) {
        let item = section.require("name", "a name of letters, digits, - and _");
        let name = item.as_ref().and_then(shard_name);
        if let (Some(item), Some(name)) = (&item, name)
            && shards.iter().any(|shard| shard.name == name)
        {
            item.problem(format!("shard {name:?} is there twice"), None);
        }
        let weight = section
            .get("weight")
            .map_or(Some(1), |item| item.integer(0..=MAX_WEIGHT));
        let nodes = nodes(&mut section, tls, &mut places);
        section.finish();
        // A shard whose name is wrong keeps its place, so that positions are right and other problems are found.
        shards.push(Shard {
            name: name.unwrap_or_default().to_owned(),
            weight: weight.unwrap_or(1),
            nodes,
        });
    }
    if !shards.is_empty() && shards.iter().all(|shard| shard.weight == 0) {
        database.problem(
            "every shard has weight 0: there is no place for hash keys",
            None,
        );
    }
    shards
}

/// Names of shards stand in hints and metrics, so they are plain.
fn shard_name<'a>(item: &Item<'a>) -> Option<&'a str> {
    let name = item.name()?;
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if !name.chars().all(plain) {
        item.problem(
            "is not a shard's name",
            Some("allowed are letters, digits, - and _"),
        );
        return None;
    }
    Some(name)
}

/// `nodes`; `places` are the nodes of this and earlier shards, with the line each is on.
fn nodes(
    shard: &mut Section<'_>,
    tls: &NodeTls,
    places: &mut HashMap<Address, usize>,
) -> Vec<Node> {
    let form = "an array of { host = \"…\", port = 5432, role = \"primary\" }";
    let Some(list) = shard.require("nodes", form) else {
        return Vec::new();
    };
    let mut nodes: Vec<Node> = Vec::new();
    // Whether every role could be read; if not, what is missing is not known.
    let mut roles_known = true;
    for item in list.array().into_iter().flatten() {
        let Some(mut section) = item.section() else {
            roles_known = false;
            continue;
        };
        let (node, role) = node(&mut section, tls);
        section.finish();
        roles_known &= role.is_some();
        let primaries = nodes.iter().filter(|node| node.role == Role::Primary);
        if role == Some(Role::Primary) && primaries.count() > 0 {
            item.problem(
                "the shard already has a primary",
                Some("one node has role \"primary\", all others \"replica\""),
            );
        }
        let Some(node) = node else {
            roles_known &= role != Some(Role::Primary);
            continue;
        };
        if let Some(line) = places.insert(node.address(), item.line()) {
            item.problem(
                format!("node {} is already on line {line}", node.address()),
                Some("a server belongs to one shard of a database"),
            );
        }
        nodes.push(node);
    }
    let primary = nodes.iter().any(|node| node.role == Role::Primary);
    if roles_known && !primary {
        list.problem(
            "the shard has no primary",
            Some("give one node role = \"primary\""),
        );
    }
    nodes
}

/// One node, if it is whole, and its role, if that could be read.
fn node(section: &mut Section<'_>, tls: &NodeTls) -> (Option<Node>, Option<Role>) {
    let host = section.require(
        "host",
        "a name, an address or the directory of a Unix socket",
    );
    let host = host.and_then(|item| {
        let host = item.text()?;
        if host.starts_with('/') || is_host(host) {
            return Some(host.to_owned());
        }
        item.problem(
            "is not a host",
            Some("a name, an address, or the directory of a Unix socket; the port is a key of its own"),
        );
        None
    });
    let port = section
        .get("port")
        .map_or(Some(5432), |item| item.integer(1..=65_535));
    let roles = [("primary", Role::Primary), ("replica", Role::Replica)];
    let role = section.require("role", "allowed are primary, replica");
    let role = role.and_then(|item| item.choice(&roles));
    let zone = section.get("zone").and_then(|item| item.text());
    let tls = node_tls(section, tls);
    let node = host.zip(port).zip(role).map(|((host, port), role)| Node {
        host,
        port: port as u16,
        role,
        zone: zone.map(str::to_owned),
        tls,
        dbname: None,
    });
    (node, role)
}
