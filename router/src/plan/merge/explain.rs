//! A merge as people read it. Columns are counted from 1, as ORDER BY counts them.

use std::fmt::{self, Write};

use super::Merge;
use crate::merge::{Combine, Kind, SortKey};

/// Prints what is done with the shards' rows, and the text for the shards.
pub(in crate::plan) fn write(out: &mut String, merge: &Merge, sql: &[u8]) -> fmt::Result {
    let recipe = &merge.recipe;
    if !recipe.order.is_empty() {
        writeln!(out, "  Merge by {}", keys(&recipe.order))?;
    }
    if let Some(group) = &recipe.group {
        match recipe.order.is_empty() {
            true => writeln!(out, "  One row of all")?,
            false => writeln!(out, "  One row of those with equal keys")?,
        }
        for (column, how) in &group.combine {
            writeln!(out, "    {}: {}", column + 1, combine(how))?;
        }
    }
    if !recipe.sort.is_empty() {
        writeln!(out, "  Sort by {}", keys(&recipe.sort))?;
    }
    if let Some(ties) = recipe.ties {
        writeln!(out, "  With ties in the first {ties} keys")?;
    }
    match (&merge.limit, &merge.offset) {
        (None, None) => {}
        (Some(_), None) => writeln!(out, "  Limit")?,
        (None, Some(_)) => writeln!(out, "  Offset")?,
        (Some(_), Some(_)) => writeln!(out, "  Offset and limit")?,
    }
    if recipe.extras > 0 {
        writeln!(out, "  Columns shown: {}", recipe.columns)?;
    }
    let text = merge.text(sql);
    writeln!(out, "  Text: {}", String::from_utf8_lossy(&text))
}

fn keys(keys: &[SortKey]) -> String {
    let keys: Vec<String> = keys.iter().map(key).collect();
    keys.join(", ")
}

fn key(key: &SortKey) -> String {
    let form = if key.sent { " sent" } else { "" };
    let direction = if key.descending { " descending" } else { "" };
    let nulls = match (key.nulls_first, key.descending) {
        (true, false) => " nulls first",
        (false, true) => " nulls last",
        _ => "",
    };
    let (column, kind) = (key.column + 1, key.kind.name());
    format!("{column} {kind}{form}{direction}{nulls}")
}

fn combine(combine: &Combine) -> String {
    let bits = |what: &str, kind: &Kind| format!("{what} of {}", kind.name());
    match combine {
        Combine::SumInt8 => "sum of bigint".to_owned(),
        Combine::SumNumeric => "sum of numeric".to_owned(),
        Combine::Average { sum, whole, count } => {
            let kind = if *whole { "bigint" } else { "numeric" };
            format!("average of sum {} {kind} and count {}", sum + 1, count + 1)
        }
        Combine::First(first) => format!("first by {}", key(first)),
        Combine::And => "and".to_owned(),
        Combine::Or => "or".to_owned(),
        Combine::BitAnd(kind) => bits("bitwise and", kind),
        Combine::BitOr(kind) => bits("bitwise or", kind),
        Combine::BitXor(kind) => bits("bitwise exclusive or", kind),
    }
}
