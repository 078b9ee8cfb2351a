//! What several targets use: the tables that the corpus names, and planning against them.

use std::sync::LazyLock;

use switchyard_router::plan::{Context, Plan, plan};
use switchyard_router::relations::introspect::{ColumnRow, Introspection, RelationRow};
use switchyard_router::relations::{Relations, SearchPath};
use switchyard_router::sql::Scan;
use switchyard_schema::{
    Database, Distribution, Method, Shard, ShardIndex, ShardKey, Table, TableName,
};

/// Two colocated ones, one by remainder, a reference table and an unsharded one.
pub static RELATIONS: LazyLock<Relations> = LazyLock::new(|| {
    let shard = |name: &str| Shard {
        name: name.to_owned(),
        weight: 1,
        nodes: Vec::new(),
    };
    let sharded = |column: &str, method: Method| {
        Distribution::Sharded(ShardKey {
            column: column.to_owned(),
            method,
            colocate_with: None,
        })
    };
    let remainders = Method::Modulo(vec![ShardIndex(0), ShardIndex(1), ShardIndex(2)]);
    let tables = [
        ("users", Some(sharded("id", Method::Hash))),
        ("orders", Some(sharded("user_id", Method::Hash))),
        ("metrics", Some(sharded("id", remainders))),
        ("countries", Some(Distribution::Reference)),
        ("settings", None),
    ];
    let mut found = Introspection::default();
    let mut database = Database {
        name: "shop".to_owned(),
        shards: vec![shard("s0"), shard("s1"), shard("s2")],
        tables: Vec::new(),
    };
    for (oid, (name, distribution)) in (1..).zip(tables) {
        found.relations.push(RelationRow {
            oid,
            schema: "public".to_owned(),
            name: name.to_owned(),
            kind: "r".to_owned(),
            parent: None,
            definition: None,
            unlogged: false,
        });
        for (number, (column, type_oid)) in (1..).zip([("id", 20), ("user_id", 20), ("name", 25)]) {
            found.columns.push(ColumnRow {
                relation: oid,
                number,
                name: column.to_owned(),
                type_oid,
                typmod: -1,
                not_null: false,
                collation: String::new(),
                default: None,
                identity: false,
                generated: false,
            });
        }
        let name = TableName::new("public", name);
        database
            .tables
            .extend(distribution.map(|distribution| Table { name, distribution }));
    }
    Relations::build(&database, &found, None)
});

/// The plan of a text that has been scanned.
pub fn planned(sql: &[u8], scan: &Scan) -> Plan {
    let context = Context {
        relations: &RELATIONS,
        search_path: &SearchPath::default(),
        temporary: &[],
    };
    plan(sql, scan, &context)
}
