//! Merging is what one server would have done with all the rows.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use proptest::prelude::*;
use switchyard_wire::Format;
use switchyard_wire::backend::{Message, decode};

use super::{Combine, Formats, Group, Kind, Limit, MergeError, Merger, Recipe, SortKey, Step};

type Cells = Vec<Option<String>>;

fn body(cells: &[Option<String>]) -> Bytes {
    let mut body = BytesMut::new();
    body.put_u16(u16::try_from(cells.len()).unwrap());
    for cell in cells {
        match cell {
            None => body.put_i32(-1),
            Some(text) => {
                body.put_i32(i32::try_from(text.len()).unwrap());
                body.put_slice(text.as_bytes());
            }
        }
    }
    body.freeze()
}

fn cells(message: &[u8]) -> Cells {
    let Ok(Message::DataRow(values)) = decode(message[0], &message[5..]) else {
        panic!("{message:?}")
    };
    let length = u32::from_be_bytes(message[1..5].try_into().unwrap());
    assert_eq!(length as usize, message.len() - 1);
    let text = |value: &[u8]| String::from_utf8(value.to_vec()).unwrap();
    values.iter().map(|value| value.map(text)).collect()
}

/// The result, and how many rows of each source were asked for.
fn run(
    recipe: &Recipe,
    sources: &[Vec<Cells>],
    limit: Limit,
    most_bytes: usize,
) -> Result<(Vec<Cells>, Vec<usize>), MergeError> {
    let recipe = Arc::new(recipe.clone());
    let mut merger = Merger::new(recipe, Formats::text(), sources.len(), limit, most_bytes);
    let mut taken = vec![0; sources.len()];
    let (mut rows, mut out) = (Vec::new(), BytesMut::new());
    loop {
        match merger.step(&mut out)? {
            Step::Need(source) => match sources[source].get(taken[source]) {
                Some(row) => {
                    taken[source] += 1;
                    merger.feed(body(row))?;
                }
                None => merger.end(),
            },
            Step::Row => rows.push(cells(&out.split())),
            Step::End => return Ok((rows, taken)),
        }
    }
}

fn merged(recipe: &Recipe, sources: &[Vec<Cells>], limit: Limit) -> Vec<Cells> {
    run(recipe, sources, limit, usize::MAX).unwrap().0
}

fn key(column: u16, kind: Kind) -> SortKey {
    SortKey {
        column,
        kind,
        sent: false,
        descending: false,
        nulls_first: false,
    }
}

fn row(values: &[&str]) -> Cells {
    let cell = |value: &&str| (*value != "NULL").then(|| (*value).to_owned());
    values.iter().map(cell).collect()
}

fn rows(rows: &[&[&str]]) -> Vec<Cells> {
    rows.iter().map(|values| row(values)).collect()
}

const ALL: Limit = Limit {
    offset: 0,
    rows: None,
};

#[test]
fn rows_without_an_order_follow_each_other_as_far_as_the_limit_goes() {
    let recipe = Recipe {
        columns: 1,
        ..Recipe::default()
    };
    let sources = [rows(&[&["3"], &["1"]]), rows(&[]), rows(&[&["2"], &["9"]])];
    assert_eq!(
        merged(&recipe, &sources, ALL),
        rows(&[&["3"], &["1"], &["2"], &["9"]])
    );
    let limit = Limit {
        offset: 1,
        rows: Some(1),
    };
    let (found, taken) = run(&recipe, &sources, limit, 0).unwrap();
    assert_eq!(found, rows(&[&["1"]]));
    assert_eq!(taken, [2, 0, 0]);
}

#[test]
fn columns_of_ours_order_and_are_not_shown() {
    let recipe = Recipe {
        columns: 1,
        extras: 1,
        order: vec![SortKey {
            descending: true,
            nulls_first: true,
            ..key(1, Kind::Int4)
        }],
        ..Recipe::default()
    };
    let sources = [
        rows(&[&["a", "NULL"], &["b", "10"]]),
        rows(&[&["c", "NULL"], &["d", "9"], &["NULL", "-1"]]),
    ];
    let expected = rows(&[&["a"], &["c"], &["b"], &["d"], &["NULL"]]);
    assert_eq!(merged(&recipe, &sources, ALL), expected);
}

#[test]
fn rows_that_tie_with_the_last_come_too() {
    let recipe = Recipe {
        columns: 2,
        order: vec![key(0, Kind::Int4)],
        ties: Some(1),
        ..Recipe::default()
    };
    let sources = [
        rows(&[&["1", "a"], &["2", "b"], &["3", "c"]]),
        rows(&[&["2", "d"], &["2", "e"], &["4", "f"]]),
    ];
    let limit = Limit {
        offset: 1,
        rows: Some(1),
    };
    let expected = rows(&[&["2", "b"], &["2", "d"], &["2", "e"]]);
    assert_eq!(merged(&recipe, &sources, limit), expected);
}

#[test]
fn partial_aggregates_become_whole_ones() {
    let combine = vec![
        (0, Combine::SumInt8),
        (1, Combine::SumNumeric),
        (
            2,
            Combine::Average {
                sum: 7,
                whole: true,
                count: 8,
            },
        ),
        (3, Combine::First(key(3, Kind::Text))),
        (
            4,
            Combine::First(SortKey {
                descending: true,
                ..key(4, Kind::Numeric)
            }),
        ),
        (5, Combine::And),
        (6, Combine::BitXor(Kind::Int2)),
    ];
    let recipe = Recipe {
        columns: 7,
        extras: 2,
        group: Some(Group { combine }),
        ..Recipe::default()
    };
    let sources = [
        rows(&[&["3", "1.50", "x", "b", "9.5", "t", "5", "10", "3"]]),
        rows(&[&[
            "0", "NULL", "NULL", "NULL", "NULL", "NULL", "NULL", "NULL", "0",
        ]]),
        rows(&[&["4", "0.125", "x", "B", "10", "f", "3", "1", "1"]]),
    ];
    let expected = rows(&[&["7", "1.625", "2.7500000000000000", "B", "10", "f", "6"]]);
    assert_eq!(merged(&recipe, &sources, ALL), expected);
    // Of no values at all: a count is 0, all else is NULL.
    let nothing = rows(&[&[
        "0", "NULL", "NULL", "NULL", "NULL", "NULL", "NULL", "NULL", "0",
    ]]);
    let expected = rows(&[&["0", "NULL", "NULL", "NULL", "NULL", "NULL", "NULL"]]);
    assert_eq!(merged(&recipe, &[nothing.clone(), nothing], ALL), expected);
}

#[test]
fn a_sum_that_is_no_bigint_is_an_error() {
    let recipe = Recipe {
        columns: 1,
        group: Some(Group {
            combine: vec![(0, Combine::SumInt8)],
        }),
        ..Recipe::default()
    };
    let largest = rows(&[&["9223372036854775807"]]);
    let outcome = run(&recipe, &[largest, rows(&[&["1"]])], ALL, 0);
    assert_eq!(outcome.err(), Some(MergeError::BigintOverflow));
}

#[test]
fn binary_aggregates_are_binary() {
    let recipe = Arc::new(Recipe {
        columns: 3,
        group: Some(Group {
            combine: vec![
                (0, Combine::SumInt8),
                (1, Combine::BitOr(Kind::Int4)),
                (2, Combine::Or),
            ],
        }),
        ..Recipe::default()
    });
    let formats = Formats::each(vec![Format::Binary; 3]);
    let mut merger = Merger::new(recipe, formats, 2, ALL, 0);
    let mut out = BytesMut::new();
    for (a, b, c) in [(5_i64, 1_i32, 0_u8), (-7, 6, 1)] {
        let Ok(Step::Need(_)) = merger.step(&mut out) else {
            panic!()
        };
        let mut body = BytesMut::new();
        body.put_u16(3);
        body.put_i32(8);
        body.put_i64(a);
        body.put_i32(4);
        body.put_i32(b);
        body.put_i32(1);
        body.put_u8(c);
        merger.feed(body.freeze()).unwrap();
        // Without an order the sources follow each other: the first has to end.
        while let Ok(Step::Need(source)) = merger.step(&mut out) {
            if source == 1 && c == 0 {
                break;
            }
            merger.end();
        }
    }
    let mut expected = BytesMut::new();
    expected.put_slice(b"D\0\0\0\x1f\0\x03\0\0\0\x08");
    expected.put_i64(-2);
    expected.put_slice(&[0, 0, 0, 4, 0, 0, 0, 7, 0, 0, 0, 1, 1]);
    assert_eq!(out, expected);
}

#[test]
fn what_has_to_be_sorted_is_bounded() {
    let recipe = Recipe {
        columns: 1,
        sort: vec![key(0, Kind::Int4)],
        ..Recipe::default()
    };
    let source: Vec<Cells> = (0..5_000).rev().map(|n| row(&[&n.to_string()])).collect();
    let limit = Limit {
        offset: 1,
        rows: Some(2),
    };
    // A limit lets go of what cannot matter.
    let (found, _) = run(&recipe, std::slice::from_ref(&source), limit, 40_000).unwrap();
    assert_eq!(found, rows(&[&["1"], &["2"]]));
    let outcome = run(&recipe, &[source], ALL, 40_000);
    assert_eq!(outcome.err(), Some(MergeError::TooLarge(40_000)));
}

#[test]
fn a_row_of_another_width_is_an_error() {
    let recipe = Recipe {
        columns: 2,
        ..Recipe::default()
    };
    let outcome = run(&recipe, &[rows(&[&["1"]])], ALL, 0);
    assert_eq!(outcome.err(), Some(MergeError::Unreadable("row")));
}

fn value() -> impl Strategy<Value = Option<i32>> {
    prop_oneof![Just(None), (-5_i32..5).prop_map(Some)]
}

type Values = (Option<i32>, Option<i32>, i32);
/// By their key, NULL last: rows, the sum, the least.
type Groups = BTreeMap<(bool, Option<i32>), (i64, Option<i64>, i32)>;

fn table() -> impl Strategy<Value = Vec<Vec<Values>>> {
    let row = (value(), value(), -1000_i32..1000);
    prop::collection::vec(prop::collection::vec(row, 0..12), 1..6)
}

fn text(value: Option<i32>) -> Option<String> {
    value.map(|value| value.to_string())
}

/// A value by which Rust's order is the key's.
fn rank(key: &SortKey, value: Option<i32>) -> (i32, i32) {
    let sign = if key.descending { -1 } else { 1 };
    match value {
        Some(value) => (0, sign * value),
        None if key.nulls_first => (-1, 0),
        None => (1, 0),
    }
}

proptest! {
    #[test]
    fn a_merge_is_the_sorted_concatenation(
        mut sources in table(),
        descending in any::<[bool; 2]>(),
        nulls_first in any::<[bool; 2]>(),
        offset in 0_u64..8,
        limit in prop::option::of(0_u64..12),
        ties in any::<bool>(),
        sort in any::<bool>(),
    ) {
        let keys: Vec<SortKey> = (0..2).map(|at| SortKey {
            descending: descending[at],
            nulls_first: nulls_first[at],
            ..key(u16::try_from(at).unwrap(), Kind::Int4)
        }).collect();
        let ranks = |row: &Values| (rank(&keys[0], row.0), rank(&keys[1], row.1));
        if !sort {
            sources.iter_mut().for_each(|rows| rows.sort_by_key(ranks));
        }
        let recipe = Recipe {
            columns: 3,
            order: if sort { Vec::new() } else { keys.clone() },
            sort: if sort { keys.clone() } else { Vec::new() },
            ties: (ties && limit.unwrap_or(0) > 0).then_some(1),
            ..Recipe::default()
        };
        let mut all: Vec<_> = sources.concat();
        all.sort_by_key(ranks);
        let mut expected: Vec<_> = all.into_iter().skip(usize::try_from(offset).unwrap()).collect();
        if let Some(limit) = limit {
            let mut end = usize::try_from(limit).unwrap().min(expected.len());
            if recipe.ties.is_some() && end > 0 {
                let tie = ranks(&expected[end - 1]).0;
                end += expected[end..].iter().take_while(|row| ranks(row).0 == tie).count();
            }
            expected.truncate(end);
        }
        let written: Vec<Vec<Cells>> = sources.iter().map(|rows| {
            rows.iter().map(|row| vec![text(row.0), text(row.1), text(Some(row.2))]).collect()
        }).collect();
        let found = merged(&recipe, &written, Limit { offset, rows: limit });
        let keys_of = |row: &Cells| row[..2].to_vec();
        let expected_keys: Vec<Cells> = expected.iter().map(|row| vec![text(row.0), text(row.1)]).collect();
        prop_assert_eq!(found.iter().map(keys_of).collect::<Vec<_>>(), expected_keys);
    }

    #[test]
    fn groups_are_those_of_the_concatenation(sources in table()) {
        // What each shard would send: its own groups, sorted by their key.
        let partial = |rows: &Vec<Values>| {
            let mut groups: Groups = BTreeMap::new();
            for (group, value, other) in rows {
                let entry = groups.entry((group.is_none(), *group)).or_insert((0, None, *other));
                entry.0 += 1;
                if let Some(value) = value {
                    entry.1 = Some(entry.1.unwrap_or(0) + i64::from(*value));
                }
                entry.2 = entry.2.min(*other);
            }
            groups
        };
        let written = |groups: Groups| -> Vec<Cells> {
            groups.into_iter().map(|((_, group), (count, sum, least))| {
                vec![text(group), Some(count.to_string()), sum.map(|sum| sum.to_string()), Some(least.to_string())]
            }).collect()
        };
        let recipe = Recipe {
            columns: 4,
            order: vec![key(0, Kind::Int4)],
            group: Some(Group { combine: vec![
                (1, Combine::SumInt8),
                (2, Combine::SumInt8),
                (3, Combine::First(key(3, Kind::Int4))),
            ]}),
            ..Recipe::default()
        };
        let expected = written(partial(&sources.concat()));
        let partials: Vec<Vec<Cells>> = sources.iter().map(|rows| written(partial(rows))).collect();
        prop_assert_eq!(merged(&recipe, &partials, ALL), expected);
    }
}
