//! What the router combines and orders itself is what PostgreSQL makes of the same rows: the parts of a table are asked for one
//! by one, merged, and compared with the answer for the whole, in both formats.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use switchyard_cluster::{Cluster, ClusterSpec};
use switchyard_router::merge::{
    Combine, Formats, Group, Kind, Limit, Merger, Recipe, SortKey, Step,
};
use switchyard_tests::{Client, Login};

type Rows = Vec<Vec<Option<Vec<u8>>>>;

const PARTS: u32 = 4;

/// Settings under which whatever depends on settings goes wrong.
fn server() -> (Cluster, Client) {
    let cluster = Cluster::start(ClusterSpec::for_tests(1, 0)).unwrap();
    let login = Login::new(cluster.shard(0).primary.port())
        .with("datestyle", "German, DMY")
        .with("timezone", "Asia/Kolkata")
        .with("bytea_output", "escape")
        .with("extra_float_digits", "-3");
    let client = Client::connect(&login);
    (cluster, client)
}

fn body(values: &[Option<Vec<u8>>]) -> Bytes {
    let mut body = BytesMut::new();
    body.put_u16(u16::try_from(values.len()).unwrap());
    for value in values {
        match value {
            None => body.put_i32(-1),
            Some(value) => {
                body.put_i32(i32::try_from(value.len()).unwrap());
                body.put_slice(value);
            }
        }
    }
    body.freeze()
}

/// What a merger makes of the parts' rows: whole DataRow messages.
fn merge(recipe: &Recipe, parts: &[Rows], format: i16) -> Vec<Bytes> {
    let width = usize::from(recipe.columns) + usize::from(recipe.extras);
    let formats = match format {
        0 => Formats::text(),
        _ => Formats::each(vec![switchyard_wire::Format::Binary; width]),
    };
    let limit = Limit::default();
    let recipe = Arc::new(recipe.clone());
    let mut merger = Merger::new(recipe, formats, parts.len(), limit, usize::MAX);
    let mut rest: Vec<_> = parts.iter().map(|rows| rows.iter()).collect();
    let (mut rows, mut out) = (Vec::new(), BytesMut::new());
    loop {
        match merger.step(&mut out).unwrap() {
            Step::Need(part) => match rest[part].next() {
                Some(row) => merger.feed(body(row)).unwrap(),
                None => merger.end(),
            },
            Step::Row => rows.push(out.split().freeze()),
            Step::End => return rows,
        }
    }
}

fn message(values: &[Option<Vec<u8>>]) -> Bytes {
    let body = body(values);
    let mut message = BytesMut::new();
    message.put_u8(b'D');
    message.put_u32(u32::try_from(body.len() + 4).unwrap());
    message.put_slice(&body);
    message.freeze()
}

/// Asks for each part and for the whole, and compares what is merged with what is whole.
#[track_caller]
fn same(client: &mut Client, recipe: &Recipe, part: &str, whole: &str) {
    for format in [0, 1] {
        let mut ask = |sql: &str| client.extended(sql, &[], format).succeeded().rows;
        let parts: Vec<Rows> = (0..PARTS)
            .map(|number| ask(&part.replace("$part", &number.to_string())))
            .collect();
        let expected: Vec<Bytes> = ask(whole).iter().map(|row| message(row)).collect();
        let found = merge(recipe, &parts, format);
        assert_eq!(found.len(), expected.len(), "{whole}");
        for (at, (found, expected)) in found.iter().zip(&expected).enumerate() {
            assert_eq!(found, expected, "row {at}, format {format}: {whole}");
        }
    }
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

/// A type, values of it that are hard to order, and a random one made from `n`.
struct Values {
    kind: Kind,
    sql: &'static str,
    send: &'static str,
    edges: &'static [&'static str],
    random: &'static str,
}

const VALUES: [Values; 14] = [
    Values {
        kind: Kind::Int2,
        sql: "int2",
        send: "int2send",
        edges: &["0", "-1", "32767", "-32768", "9", "10"],
        random: "(hashint8(n) % 32768)::int2",
    },
    Values {
        kind: Kind::Int4,
        sql: "int4",
        send: "int4send",
        edges: &["0", "-1", "2147483647", "-2147483648", "9", "10"],
        random: "hashint8(n)",
    },
    Values {
        kind: Kind::Int8,
        sql: "int8",
        send: "int8send",
        edges: &[
            "0",
            "-1",
            "9223372036854775807",
            "-9223372036854775808",
            "9",
            "10",
        ],
        random: "hashint8extended(n, 1)",
    },
    Values {
        kind: Kind::Numeric,
        sql: "numeric",
        send: "numeric_send",
        edges: &[
            "NaN",
            "Infinity",
            "-Infinity",
            "0",
            "0.000",
            "-0.1",
            "9999.9999",
            "10000",
            "1e500",
            "1e-500",
            "-1e500",
            "12345678901234567890.5",
        ],
        random: "hashint8extended(n, 1) * ('1e' || n % 60 - 30)::numeric",
    },
    Values {
        kind: Kind::Bool,
        sql: "bool",
        send: "boolsend",
        edges: &["t", "f"],
        random: "hashint8(n) > 0",
    },
    Values {
        kind: Kind::Uuid,
        sql: "uuid",
        send: "uuid_send",
        edges: &[
            "00000000-0000-0000-0000-000000000000",
            "ffffffff-ffff-ffff-ffff-ffffffffffff",
        ],
        random: "md5(n::text)::uuid",
    },
    Values {
        kind: Kind::Text,
        sql: "text COLLATE \"C\"",
        send: "textsend",
        edges: &[
            "", " ", "a", "A", "a ", "Z", "é", "zz", "\\", "\t", "𝄞", "\u{ff5e}",
        ],
        random: "CASE WHEN n % 3 = 0 THEN chr(33 + (n % 900)::int) ELSE md5(n::text) END",
    },
    Values {
        kind: Kind::Bpchar,
        sql: "char(6) COLLATE \"C\"",
        send: "bpcharsend",
        edges: &["", "a", "a b", "a\tb", "A", "é", "zzzzzz"],
        random: "left(md5(n::text), (n % 7)::int)",
    },
    Values {
        kind: Kind::Bytea,
        sql: "bytea",
        send: "byteasend",
        edges: &["", "\\x00", "\\x0001", "\\xff", "\\x5c", "\\x5c78", "\\x41"],
        random: "decode(md5(n::text), 'hex')",
    },
    Values {
        kind: Kind::Date,
        sql: "date",
        send: "date_send",
        edges: &[
            "infinity",
            "-infinity",
            "0001.01.01",
            "31.12.1999",
            "01.01.2000",
            "31.12.9999",
        ],
        random: "'2000-01-01'::date + hashint8(n) % 1000000",
    },
    Values {
        kind: Kind::Timestamp,
        sql: "timestamp",
        send: "timestamp_send",
        edges: &[
            "infinity",
            "-infinity",
            "31.12.1999 23:59:59.999999",
            "01.01.2000 00:00:00",
        ],
        random: "'2000-01-01'::timestamp + (hashint8(n) % 1000000) * interval '1.000001 second'",
    },
    Values {
        kind: Kind::Timestamp,
        sql: "timestamptz",
        send: "timestamptz_send",
        edges: &[
            "infinity",
            "-infinity",
            "31.12.1999 23:59:59.999999+00",
            "01.01.2000 00:00:00+05:30",
        ],
        random: "'2000-01-01'::timestamptz + (hashint8(n) % 1000000) * interval '1.000001 second'",
    },
    Values {
        kind: Kind::Float8,
        sql: "float8",
        send: "float8send",
        edges: &[
            "NaN",
            "Infinity",
            "-Infinity",
            "1e-300",
            "-1e-300",
            "1.0000000000000002",
            "1",
        ],
        random: "hashint8extended(n, 1)::float8 / 1e15",
    },
    Values {
        kind: Kind::Float4,
        sql: "float4",
        send: "float4send",
        edges: &[
            "NaN",
            "Infinity",
            "-Infinity",
            "1e-30",
            "-1e-30",
            "1.0000001",
            "1",
        ],
        random: "hashint8(n)::float4 / 1e5",
    },
];

/// A table `v` with a part, a value and a number that makes every order total.
fn fill(client: &mut Client, values: &Values) {
    let Values { sql, random, .. } = values;
    let edges: Vec<String> = values
        .edges
        .iter()
        .map(|edge| format!("('{}')", edge.replace('\'', "''")))
        .collect();
    for statement in [
        "DROP TABLE IF EXISTS v".to_owned(),
        format!("CREATE TABLE v (part int, v {sql}, id serial)"),
        format!(
            "INSERT INTO v (part, v) SELECT p, e::{} FROM (VALUES {}, (NULL)) AS edges (e), generate_series(0, 3) p",
            sql.split(" COLLATE").next().unwrap(),
            edges.join(", ")
        ),
        format!(
            "INSERT INTO v (part, v) SELECT n % {PARTS}, {random} FROM generate_series(1, 3000) n"
        ),
    ] {
        client.run(&statement).succeeded();
    }
}

#[test]
fn the_order_of_every_kind_is_postgresql_s() {
    let (_cluster, mut client) = server();
    for values in &VALUES {
        fill(&mut client, values);
        let sent = format!("{}(v)", values.send);
        for (direction, descending, nulls_first) in [
            ("", false, false),
            ("DESC", true, true),
            ("NULLS FIRST", false, true),
            ("DESC NULLS LAST", true, false),
        ] {
            let order = format!("ORDER BY v {direction}, id");
            let sort = SortKey {
                descending,
                nulls_first,
                ..key(0, values.kind)
            };
            let recipe = |column, sent| Recipe {
                columns: 2,
                extras: 1,
                order: vec![
                    SortKey {
                        column,
                        sent,
                        ..sort
                    },
                    key(1, Kind::Int4),
                ],
                ..Recipe::default()
            };
            let part = format!("SELECT v, id, {sent} FROM v WHERE part = $part {order}");
            let whole = format!("SELECT v, id FROM v {order}");
            same(&mut client, &recipe(2, true), &part, &whole);
            if values.kind.is_comparable_as_written() {
                same(&mut client, &recipe(0, false), &part, &whole);
            }
        }
    }
}

#[test]
fn aggregates_of_parts_make_the_aggregates_of_the_whole() {
    let (_cluster, mut client) = server();
    for values in &VALUES[..4] {
        fill(&mut client, values);
        // Sums of edges that are no numbers would be no numbers.
        if values.kind == Kind::Numeric {
            client
                .run("DELETE FROM v WHERE v IN ('NaN', 'Infinity', '-Infinity') AND id < 40")
                .succeeded();
        }
        let whole = matches!(values.kind, Kind::Int2 | Kind::Int4);
        let sum = match whole {
            true => Combine::SumInt8,
            false => Combine::SumNumeric,
        };
        let average = Combine::Average {
            sum: 2,
            whole,
            count: 0,
        };
        let largest = SortKey {
            descending: true,
            ..key(5, values.kind)
        };
        let combine = vec![
            (0, Combine::SumInt8),
            (1, Combine::SumInt8),
            (2, sum),
            (3, average),
            (4, Combine::First(key(4, values.kind))),
            (5, Combine::First(largest)),
        ];
        // Groups of very different sizes and magnitudes: each has a scale of its own.
        for group in ["1", "length(v::text)", "id % 500"] {
            let aggregates = "count(v), count(*), sum(v), avg(v), min(v), max(v)";
            let recipe = Recipe {
                columns: 6,
                extras: 1,
                order: vec![key(6, Kind::Int4)],
                group: Some(Group {
                    combine: combine.clone(),
                }),
                ..Recipe::default()
            };
            let part = format!(
                "SELECT {aggregates}, {group} FROM v WHERE part = $part GROUP BY 7 ORDER BY 7"
            );
            let whole = format!(
                "SELECT {aggregates} FROM v GROUP BY ({group})::numeric ORDER BY ({group})::numeric"
            );
            // `count(v)` is what the average divides by.
            same(&mut client, &recipe, &part, &whole);
        }
    }
}

#[test]
fn bits_and_truths_of_parts_make_those_of_the_whole() {
    let (_cluster, mut client) = server();
    for values in &VALUES[..3] {
        fill(&mut client, values);
        let recipe = Recipe {
            columns: 6,
            extras: 1,
            order: vec![key(6, Kind::Int4)],
            group: Some(Group {
                combine: vec![
                    (0, Combine::BitAnd(values.kind)),
                    (1, Combine::BitOr(values.kind)),
                    (2, Combine::BitXor(values.kind)),
                    (3, Combine::And),
                    (4, Combine::Or),
                    (5, Combine::And),
                ],
            }),
            ..Recipe::default()
        };
        // PostgreSQL 14 has bit_xor, as every later one.
        let aggregates =
            "bit_and(v), bit_or(v), bit_xor(v), bool_and(v > 0), bool_or(v > 0), every(v IS NULL)";
        let part = format!(
            "SELECT {aggregates}, id % 700 FROM v WHERE part = $part GROUP BY 7 ORDER BY 7"
        );
        let whole = format!("SELECT {aggregates} FROM v GROUP BY id % 700 ORDER BY id % 700");
        same(&mut client, &recipe, &part, &whole);
    }
}
