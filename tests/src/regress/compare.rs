//! Whether two servers gave the same answer.

use std::fmt::Write;

use super::order::Order;
use crate::{Column, Reply};

/// What came of comparing the answers to one statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The same, or rows that the ORDER BY does not order came in another order.
    Equal,
    /// The router refuses what the plain server answers, for this reason.
    Refused(String),
    /// That of a plain server whose rows lie in another order: the statement does not determine it.
    EqualReordered,
    /// Another answer, but so has a plain server whose rows lie in another order: it depends on more than the data.
    Undetermined,
    /// Another answer; what of it is another.
    Different(What),
}

/// What differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    /// An error instead of an answer, and none of the router's own.
    Error,
    /// The connection was lost, or there was no answer in time.
    Lost,
    /// Names or types of columns.
    Columns,
    /// Rows.
    Rows,
    /// The rows that a statement has left in the tables.
    Stored,
    /// The order of the rows, by what can be seen of the ORDER BY or without knowing.
    Order,
}

impl What {
    /// For the report.
    pub(super) fn name(self) -> &'static str {
        match self {
            What::Error => "error",
            What::Lost => "lost",
            What::Columns => "columns",
            What::Rows => "rows",
            What::Stored => "what is stored",
            What::Order => "order",
        }
    }
}

/// OIDs from here on belong to objects of users, and are others on every server.
const FIRST_USER_OID: u32 = 16_384;
/// `float4`, `float8` and their arrays.
const FLOATS: [u32; 4] = [700, 701, 1021, 1022];
/// How far sums of floats may be apart, relative to their size: what is added in another order is rounded differently.
const TOLERANCE: f64 = 1e-9;

/// Compares answers that the plain server gave without an error.
pub(super) fn compare(sql: &str, plain: &[Reply], router: &[Reply]) -> Verdict {
    if let Some(failure) = router.iter().find_map(|reply| reply.failure.as_ref()) {
        return match failure.sqlstate() {
            "0A000" | "53400" => Verdict::Refused(reason(failure.message())),
            _ => Verdict::Different(What::Error),
        };
    }
    if plain.len() != router.len() {
        return Verdict::Different(What::Rows);
    }
    let pairs = plain.iter().zip(router);
    let found = pairs
        .filter_map(|(plain, router)| difference(sql, plain, router))
        .min();
    found.map_or(Verdict::Equal, Verdict::Different)
}

/// A message without the names in it, so that equal reasons count together.
fn reason(message: &str) -> String {
    let mut parts = message.split('"');
    let mut text = parts.next().unwrap_or_default().to_owned();
    while let Some(_name) = parts.next() {
        text.push('…');
        text.push_str(parts.next().unwrap_or_default());
    }
    text
}

fn difference(sql: &str, plain: &Reply, router: &Reply) -> Option<What> {
    if shape(plain) != shape(router) {
        return Some(What::Columns);
    }
    let floats: Vec<bool> = plain
        .columns
        .iter()
        .flatten()
        .map(|column| FLOATS.contains(&column.type_oid))
        .collect();
    if lines(&plain.copied) != lines(&router.copied) {
        return Some(What::Rows);
    }
    let (expected, found) = (plain.texts(), router.texts());
    if same_list(&expected, &found, &floats) {
        return (tag(plain) != tag(router)).then_some(What::Rows);
    }
    let sorted = |rows: &[Vec<String>]| {
        let mut rows = rows.to_vec();
        rows.sort_by(|a, b| without(a, &floats).cmp(&without(b, &floats)).then(a.cmp(b)));
        rows
    };
    if !same_list(&sorted(&expected), &sorted(&found), &floats) {
        return Some(What::Rows);
    }
    let names: Vec<String> = plain
        .columns
        .iter()
        .flatten()
        .map(|column| column.name.clone())
        .collect();
    let by = |columns: &[usize], rows: &[Vec<String>]| -> Vec<Vec<String>> {
        let keys = |row: &Vec<String>| columns.iter().map(|at| row[*at].clone()).collect();
        rows.iter().map(keys).collect()
    };
    match Order::of(sql, &names) {
        Order::Any => None,
        Order::Columns(columns) => {
            (by(&columns, &expected) != by(&columns, &found)).then_some(What::Order)
        }
        Order::Hidden(_) => Some(What::Order),
    }
}

/// What COPY has put out, whose rows have no order.
fn lines(copied: &[u8]) -> Vec<&[u8]> {
    let mut lines: Vec<&[u8]> = copied.split(|byte| *byte == b'\n').collect();
    lines.sort_unstable();
    lines
}

/// Without the values that may differ a little, so that equal rows sort next to each other.
fn without<'a>(row: &'a [String], floats: &[bool]) -> Vec<&'a String> {
    let exact = row.iter().zip(floats).filter(|(_, float)| !**float);
    exact.map(|(value, _)| value).collect()
}

fn same_list(expected: &[Vec<String>], found: &[Vec<String>], floats: &[bool]) -> bool {
    let same_row = |(expected, found): (&Vec<String>, &Vec<String>)| {
        expected.len() == found.len()
            && expected
                .iter()
                .zip(found)
                .enumerate()
                .all(|(at, (expected, found))| {
                    expected == found || (floats.get(at) == Some(&true) && close(expected, found))
                })
    };
    expected.len() == found.len() && expected.iter().zip(found).all(same_row)
}

/// Whether two floats, or arrays of them, are nearly the same.
fn close(expected: &str, found: &str) -> bool {
    let parts = |text: &str| -> Vec<String> {
        text.split(['{', '}', ',']).map(ToOwned::to_owned).collect()
    };
    let (expected, found) = (parts(expected), parts(found));
    let near = |(a, b): (&String, &String)| {
        a == b
            || match (a.parse::<f64>(), b.parse::<f64>()) {
                (Ok(a), Ok(b)) => (a - b).abs() <= TOLERANCE * a.abs().max(b.abs()),
                _ => false,
            }
    };
    expected.len() == found.len() && expected.iter().zip(&found).all(near)
}

fn shape(reply: &Reply) -> Option<Vec<(&str, u32, i32)>> {
    let shape = |column: &Column| {
        let type_oid = column.type_oid.min(FIRST_USER_OID);
        (type_oid, column.modifier)
    };
    let columns = reply.columns.as_ref()?;
    let whole = columns
        .iter()
        .map(|column| (column.name.as_str(), shape(column).0, shape(column).1));
    Some(whole.collect())
}

fn tag(reply: &Reply) -> &str {
    reply.tag.as_deref().unwrap_or_default()
}

/// An answer for the report, its first rows.
pub(super) fn show(replies: &[Reply]) -> String {
    let mut text = String::new();
    for reply in replies {
        if let Some(failure) = &reply.failure {
            let _ = writeln!(text, "{failure:?}");
            continue;
        }
        let columns = reply.columns.iter().flatten();
        let columns: Vec<String> = columns
            .map(|column| format!("{}:{}", column.name, column.type_oid))
            .collect();
        let _ = writeln!(text, "{} [{}]", tag(reply), columns.join(", "));
        for row in reply.texts().iter().take(SHOWN) {
            let _ = writeln!(text, "  {}", row.join(" | "));
        }
        if reply.rows.len() > SHOWN {
            let _ = writeln!(text, "  …");
        }
    }
    text
}

/// How many rows of an answer the report has.
const SHOWN: usize = 12;

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(type_oid: u32, values: &[&str]) -> Reply {
        let column = Column {
            name: "a".to_owned(),
            attribute: 1,
            type_oid,
            size: 4,
            modifier: -1,
            format: 0,
        };
        Reply {
            columns: Some(vec![column]),
            rows: values
                .iter()
                .map(|value| vec![Some(value.as_bytes().to_vec())])
                .collect(),
            tag: Some("SELECT".to_owned()),
            ..Reply::default()
        }
    }

    fn verdict(sql: &str, a: &Reply, b: &Reply) -> Verdict {
        compare(sql, std::slice::from_ref(a), std::slice::from_ref(b))
    }

    #[test]
    fn order_counts_where_there_is_one() {
        let (a, b) = (reply(23, &["1", "2"]), reply(23, &["2", "1"]));
        assert_eq!(verdict("select a", &a, &b), Verdict::Equal);
        assert_eq!(
            verdict("select a order by a", &a, &b),
            Verdict::Different(What::Order)
        );
        assert_eq!(
            verdict("select a order by b", &a, &b),
            Verdict::Different(What::Order)
        );
        assert_eq!(verdict("select a order by b", &a, &a), Verdict::Equal);
    }

    #[test]
    fn values_types_and_numbers_of_rows_count() {
        let a = reply(23, &["1", "2"]);
        assert_eq!(
            verdict("x", &a, &reply(23, &["1", "3"])),
            Verdict::Different(What::Rows)
        );
        assert_eq!(
            verdict("x", &a, &reply(23, &["1"])),
            Verdict::Different(What::Rows)
        );
        assert_eq!(
            verdict("x", &a, &reply(20, &["1", "2"])),
            Verdict::Different(What::Columns)
        );
        assert_eq!(
            verdict("x", &reply(20_000, &["1"]), &reply(30_000, &["1"])),
            Verdict::Equal
        );
    }

    #[test]
    fn floats_may_be_rounded_differently() {
        let near = ["0.30000000000000004", "{1,2.0000000000001}"];
        let far = ["0.3", "{1,2}"];
        assert_eq!(
            verdict("x", &reply(701, &near), &reply(701, &far)),
            Verdict::Equal
        );
        assert_eq!(
            verdict("x", &reply(1700, &near), &reply(1700, &far)),
            Verdict::Different(What::Rows)
        );
        assert_eq!(
            verdict("x", &reply(701, &["1"]), &reply(701, &["1.1"])),
            Verdict::Different(What::Rows)
        );
    }

    #[test]
    fn reasons_have_no_names() {
        assert_eq!(
            reason("joining \"a\" and \"b\" is not"),
            "joining … and … is not"
        );
    }
}
