//! Any text as SQL: scanned, planned, printed and bound. Only plain reads go to several shards with their rows appended, and
//! a plan does not depend on literals it does not guard.

#![no_main]

use libfuzzer_sys::fuzz_target;
use switchyard_fuzz::{RELATIONS, planned};
use switchyard_router::plan::explain::explain;
use switchyard_router::plan::{Access, NoParams, Operator, STACK_BYTES, Values};
use switchyard_router::sql::{LiteralKind, Scan};

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
            explain(&plan, &RELATIONS, b"", None),
            explain(&other, &RELATIONS, b"", None)
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
