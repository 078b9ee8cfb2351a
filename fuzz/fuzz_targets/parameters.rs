//! Parameters that shard keys are compared with, as a client sends them: there are shards for them, or a reason why not. The
//! first byte says which statement, the second which form, the next two which type.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use switchyard_fuzz::{RELATIONS, planned};
use switchyard_router::plan::{Operator, Param, Plan, Values};
use switchyard_router::sql::Scan;

const STATEMENTS: [&str; 6] = [
    "SELECT 1 FROM users WHERE id = $1",
    "SELECT 1 FROM users WHERE id = ANY ($1)",
    "SELECT 1 FROM users WHERE id = ANY ($1::int8[])",
    "SELECT 1 FROM metrics WHERE id IN ($1, 7)",
    "INSERT INTO users (id, name) VALUES ($1::numeric, 'x')",
    "UPDATE orders SET name = 'x' WHERE user_id = $1::text::int8",
];

static PLANS: LazyLock<Vec<(Plan, Scan)>> = LazyLock::new(|| {
    let plan = |sql: &str| {
        let mut scan = Scan::new();
        scan.scan(sql.as_bytes()).unwrap();
        (planned(sql.as_bytes(), &scan), scan)
    };
    STATEMENTS.into_iter().map(plan).collect()
});

fuzz_target!(|data: &[u8]| {
    let [statement, form, high, low, value @ ..] = data else {
        return;
    };
    let number = usize::from(*statement) % STATEMENTS.len();
    let (plan, scan) = &PLANS[number];
    let (Operator::PassThrough(target) | Operator::Append(target)) = &plan.operator else {
        panic!("{plan:?}");
    };
    let params: &[Param<'_>] = &[Param {
        value: Some(value),
        binary: form & 1 == 1,
        oid: u32::from(u16::from_be_bytes([*high, *low])),
    }];
    let values = Values {
        sql: STATEMENTS[number].as_bytes(),
        literals: &scan.literals,
        params: &params,
    };
    let count = RELATIONS.shards().len();
    if let Ok(shards) = target.shards(&values, count) {
        assert!(!shards.is_empty() && shards.iter().all(|shard| shard.position() < count));
    }
});
