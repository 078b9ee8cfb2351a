//! Where the file and the catalog differ. Pure.

use std::collections::BTreeSet;

use switchyard_schema::{Database, Distribution, Node, Shard};

/// What would have to change for `actual` to be as `desired`, one sentence each; empty if nothing.
#[must_use]
pub fn differences(desired: &Database, actual: &Database) -> Vec<String> {
    let mut found = Vec::new();
    let names = |database: &Database| -> BTreeSet<String> {
        database
            .shards
            .iter()
            .map(|shard| shard.name.clone())
            .collect()
    };
    let (wanted, present) = (names(desired), names(actual));
    found.extend(
        wanted
            .difference(&present)
            .map(|name| format!("shard \"{name}\" is not in the catalog")),
    );
    found.extend(
        present
            .difference(&wanted)
            .map(|name| format!("shard \"{name}\" is not in the file")),
    );
    for shard in &desired.shards {
        if let Some(known) = actual.shards.iter().find(|known| known.name == shard.name) {
            shard_differences(shard, known, &mut found);
        }
    }
    let order = |database: &Database, other: &BTreeSet<String>| -> Vec<String> {
        let shards = database.shards.iter().map(|shard| shard.name.clone());
        shards.filter(|name| other.contains(name)).collect()
    };
    if order(desired, &present) != order(actual, &wanted) {
        found.push("the shards are in another order".into());
    }
    table_differences(desired, actual, &mut found);
    found
}

fn shard_differences(desired: &Shard, actual: &Shard, found: &mut Vec<String>) {
    let name = &desired.name;
    if desired.weight != actual.weight {
        found.push(format!(
            "shard \"{name}\": weight is {} in the file and {} in the catalog",
            desired.weight, actual.weight
        ));
    }
    let twin = |node: &Node, others: &[Node]| {
        others
            .iter()
            .find(|other| other.address() == node.address())
            .cloned()
    };
    for node in &desired.nodes {
        let address = node.address();
        match twin(node, &actual.nodes) {
            None => found.push(format!(
                "shard \"{name}\": node {address} is not in the catalog"
            )),
            Some(other) if other.role != node.role => found.push(format!(
                "shard \"{name}\": node {address} is {} in the file and {} in the catalog",
                node.role, other.role
            )),
            Some(other) if other != *node => {
                found.push(format!(
                    "shard \"{name}\": node {address} has another zone or TLS mode in the catalog"
                ));
            }
            Some(_) => {}
        }
    }
    for node in &actual.nodes {
        if twin(node, &desired.nodes).is_none() {
            found.push(format!(
                "shard \"{name}\": node {} is not in the file",
                node.address()
            ));
        }
    }
}

fn table_differences(desired: &Database, actual: &Database, found: &mut Vec<String>) {
    for table in &desired.tables {
        match actual.table(&table.name) {
            None => found.push(format!("table {} is unsharded in the catalog", table.name)),
            Some(known)
                if !same_place(&table.distribution, desired, &known.distribution, actual) =>
            {
                found.push(format!(
                    "table {} is distributed otherwise in the catalog",
                    table.name
                ));
            }
            Some(_) => {}
        }
    }
    for table in &actual.tables {
        if desired.table(&table.name).is_none() {
            found.push(format!("table {} is unsharded in the file", table.name));
        }
    }
}

/// Whether two distributions mean the same. Positions of shards are compared by name.
fn same_place(
    one: &Distribution,
    in_one: &Database,
    other: &Distribution,
    in_other: &Database,
) -> bool {
    match (one, other) {
        (Distribution::Reference, Distribution::Reference) => true,
        (Distribution::Sharded(one), Distribution::Sharded(other)) => {
            one.column == other.column
                && one.colocate_with == other.colocate_with
                && named(&one.method, in_one) == named(&other.method, in_other)
        }
        (Distribution::Reference, Distribution::Sharded(_))
        | (Distribution::Sharded(_), Distribution::Reference) => false,
    }
}

/// A method with names of shards in place of positions.
fn named(method: &switchyard_schema::Method, database: &Database) -> Vec<(String, String)> {
    use switchyard_schema::Method;
    let shard = |index: &switchyard_schema::ShardIndex| {
        database
            .shard(*index)
            .map_or(String::new(), |shard| shard.name.clone())
    };
    match method {
        Method::Hash => vec![("hash".into(), String::new())],
        Method::Modulo(shards) => shards
            .iter()
            .map(|index| ("modulo".into(), shard(index)))
            .collect(),
        Method::Range(ranges) => {
            let range = |entry: &switchyard_schema::RangeEntry| {
                (format!("range {:?}", entry.below), shard(&entry.shard))
            };
            ranges.iter().map(range).collect()
        }
        Method::List(lists) => {
            let list = |entry: &switchyard_schema::ListEntry| {
                (
                    format!("list {:?} {}", entry.values, entry.default),
                    shard(&entry.shard),
                )
            };
            lists.iter().map(list).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use switchyard_schema::{
        Method, NodeTls, Role, ShardIndex, ShardKey, SslMode, Table, TableName,
    };

    use super::*;

    fn node(port: u16, role: Role) -> Node {
        Node {
            host: "h".into(),
            port,
            role,
            zone: None,
            dbname: None,
            tls: NodeTls {
                mode: SslMode::Disable,
                root_cert: None,
            },
        }
    }

    fn database() -> Database {
        let shard = |name: &str, port| Shard {
            name: name.into(),
            weight: 1,
            nodes: vec![node(port, Role::Primary), node(port + 1, Role::Replica)],
        };
        let key = ShardKey {
            column: "id".into(),
            method: Method::Modulo(vec![ShardIndex(0), ShardIndex(1)]),
            colocate_with: None,
        };
        Database {
            name: "shop".into(),
            shards: vec![shard("s0", 10), shard("s1", 20)],
            tables: vec![Table {
                name: TableName::new("public", "t"),
                distribution: Distribution::Sharded(key),
            }],
        }
    }

    #[test]
    fn the_same_does_not_differ() {
        assert!(differences(&database(), &database()).is_empty());
    }

    #[test]
    fn every_difference_is_said() {
        let mut desired = database();
        desired.shards[0].weight = 2;
        desired.shards[0].nodes[1].port = 12;
        desired.shards[1].nodes[1].role = Role::Primary;
        desired.shards[1].name = "s2".into();
        desired.tables[0].distribution = Distribution::Reference;
        desired.tables.push(Table {
            name: TableName::new("x", "u"),
            distribution: Distribution::Reference,
        });
        assert_eq!(
            differences(&desired, &database()),
            [
                "shard \"s2\" is not in the catalog",
                "shard \"s1\" is not in the file",
                "shard \"s0\": weight is 2 in the file and 1 in the catalog",
                "shard \"s0\": node h:12 is not in the catalog",
                "shard \"s0\": node h:11 is not in the file",
                "table t is distributed otherwise in the catalog",
                "table x.u is unsharded in the catalog",
            ]
        );
    }

    #[test]
    fn positions_are_compared_by_name() {
        let mut actual = database();
        actual.shards.reverse();
        actual.tables[0].distribution = Distribution::Sharded(ShardKey {
            column: "id".into(),
            method: Method::Modulo(vec![ShardIndex(1), ShardIndex(0)]),
            colocate_with: None,
        });
        assert_eq!(
            differences(&database(), &actual),
            ["the shards are in another order"]
        );
    }
}
