//! What two answers to one statement are to each other.

use crate::Reply;
use crate::differential::FIRST_USER_OID;

/// The judgement of a pair of answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The same.
    Same,
    /// One of them, or both, failed on a value; whether a value is looked at at all is the server's choice.
    Evaluation,
    /// One of them took too long.
    Slow,
    /// The router says that it does not support the statement, for this reason.
    Refused(String),
    /// They differ in this.
    Different(&'static str),
}

/// Compares the router's answer with the plain server's. Without `ordered`, rows may come in any order.
pub fn compare(expected: &Reply, found: &Reply, ordered: bool) -> Verdict {
    let codes = [expected, found].map(|reply| reply.sqlstate().unwrap_or_default());
    if codes.contains(&"57014") {
        return Verdict::Slow;
    }
    if codes[0] != codes[1] {
        // Data exceptions and subqueries of more than one row: both depend on what is evaluated, and in which order.
        if codes
            .iter()
            .any(|code| code.starts_with("22") || *code == "21000")
            && codes[1] != "0A000"
        {
            return Verdict::Evaluation;
        }
        if let (Some(failure), "0A000") = (&found.failure, codes[1]) {
            let why = [failure.message(), failure.field('D')].join(" / ");
            return Verdict::Refused(without_names(&why));
        }
        return Verdict::Different("SQLSTATE");
    }
    if expected.failure.is_some() {
        return Verdict::Same;
    }
    let columns = |reply: &Reply| {
        let mut columns = reply.columns.clone().unwrap_or_default();
        for column in &mut columns {
            // Where a column comes from, a relation of the router's own may not say.
            column.attribute = 0;
            column.type_oid = column.type_oid.min(FIRST_USER_OID);
        }
        columns
    };
    if columns(expected) != columns(found) {
        return Verdict::Different("columns");
    }
    if expected.tag != found.tag {
        return Verdict::Different("tag");
    }
    let rows = |reply: &Reply| {
        let mut rows = reply.rows.clone();
        rows.sort();
        rows
    };
    if rows(expected) != rows(found) {
        return Verdict::Different("rows");
    }
    if ordered && expected.rows != found.rows {
        return Verdict::Different("order");
    }
    Verdict::Same
}

/// A text without the names in it.
fn without_names(message: &str) -> String {
    let parts = message.split('"').enumerate();
    parts
        .map(|(index, part)| if index % 2 == 0 { part } else { "…" })
        .collect()
}

/// An answer for people.
pub fn show(reply: &Reply) -> String {
    if let Some(failure) = &reply.failure {
        return format!("{failure:?}");
    }
    let columns = reply.columns.iter().flatten();
    let columns: Vec<String> = columns
        .map(|column| format!("{} {}({})", column.name, column.type_oid, column.modifier))
        .collect();
    let mut lines = vec![columns.join(" | "), format!("{} rows", reply.rows.len())];
    for row in reply.rows.iter().take(30) {
        let values: Vec<String> = row
            .iter()
            .map(|value| value.as_deref().map_or("NULL".to_owned(), value_text))
            .collect();
        lines.push(values.join(" | "));
    }
    lines.join("\n    ")
}

fn value_text(value: &[u8]) -> String {
    match std::str::from_utf8(value) {
        Ok(text) if !text.contains('\0') => text.to_owned(),
        _ => value.iter().map(|byte| format!("{byte:02x}")).collect(),
    }
}
