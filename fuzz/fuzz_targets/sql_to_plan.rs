//! Any text as SQL: scanned, planned, printed and bound. Only plain reads go to several shards with their rows appended, and
//! a plan does not depend on literals it does not guard.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use switchyard_router::plan::explain::explain;
use switchyard_router::plan::{
    Access, Context, NoParams, Operator, Plan, STACK_BYTES, Values, plan,
};
use switchyard_router::relations::introspect::{ColumnRow, Introspection, RelationRow};
use switchyard_router::relations::{Relations, SearchPath};
use switchyard_router::sql::{LiteralKind, Scan};
use switchyard_schema::{
    Database, Distribution, Method, Shard, ShardIndex, ShardKey, Table, TableName,
};

/// Tables that the corpus names: two colocated ones, one by remainder, a reference table and an unsharded one.
static RELATIONS: LazyLock<Relations> = LazyLock::new(|| {
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

fn planned(sql: &[u8], scan: &Scan) -> Plan {
    let context = Context {
        relations: &RELATIONS,
        search_path: &SearchPath::default(),
        temporary: &[],
    };
    plan(sql, scan, &context)
}

fn check(sql: &[u8]) {
    let mut scan = Scan::new();
    if scan.scan(sql).is_err() {
        return;
    }
    let plan = planned(sql, &scan);
    if let Operator::PassThrough(target) | Operator::Append(target) = &plan.operator {
        let values = Values {
            sql,
            literals: &scan.literals,
            params: &NoParams,
        };
        if let Ok(shards) = target.shards(&values, RELATIONS.shards().len()) {
            assert!(!shards.is_empty());
            assert!(shards.len() == 1 || matches!(plan.operator, Operator::Append(_)));
        }
    }
    if let Operator::Append(_) = plan.operator {
        assert_eq!(plan.access, Access::Read);
    }
    let mut changed = sql.to_vec();
    for (slot, literal) in scan.literals.iter().enumerate().rev() {
        if !plan.guards.contains(&(slot as u16)) {
            let value: &[u8] = match literal.kind {
                LiteralKind::Integer => b"4711",
                LiteralKind::Decimal => b"47.11",
                LiteralKind::String => b"'it''s'",
            };
            changed.splice(
                literal.span.start as usize..literal.span.end as usize,
                value.iter().copied(),
            );
        }
    }
    let mut again = Scan::new();
    if again.scan(&changed).is_ok() && again.normalized == scan.normalized {
        let other = planned(&changed, &again);
        assert_eq!(
            explain(&plan, &RELATIONS, None),
            explain(&other, &RELATIONS, None)
        );
    }
}

fuzz_target!(|data: &[u8]| {
    let sql = data.to_vec();
    let thread = std::thread::Builder::new()
        .stack_size(4 * STACK_BYTES)
        .spawn(move || check(&sql));
    thread.unwrap().join().unwrap();
});
