//! Rows as they are divided, against a reading of the whole input, byte by byte.

use proptest::prelude::*;
use switchyard_schema::{Collation, Config, KeyType};

use super::*;

const SHARDS: usize = 3;

/// A key of text, on three shards.
fn key(position: usize) -> KeyColumn {
    let config = Config::parse(
        r#"
        [[users]]
        name = "app"
        password = "secret"
        [[databases]]
        name = "shop"
        [[databases.shards]]
        name = "s0"
        nodes = [{ host = "a", port = 1, role = "primary" }]
        [[databases.shards]]
        name = "s1"
        nodes = [{ host = "b", port = 1, role = "primary" }]
        [[databases.shards]]
        name = "s2"
        nodes = [{ host = "c", port = 1, role = "primary" }]
        [[databases.tables]]
        name = "t"
        shard_key = "k"
        method = "hash"
        "#,
    )
    .unwrap();
    let database = config.database("shop").unwrap();
    let shard_key = database.tables[0].distribution.shard_key().unwrap();
    let map = KeyMap::resolve(shard_key, KeyType::Text, Collation::Bytes, database, None).unwrap();
    KeyColumn {
        place: KeyPlace::Sent(position),
        map: Arc::new(map),
        typmod: -1,
    }
}

fn text() -> Format {
    Format::Text(Text {
        delimiter: b'\t',
        null: b"\\N".as_slice().into(),
        header: false,
    })
}

fn csv() -> Format {
    Format::Csv(Csv {
        delimiter: b',',
        null: b"".as_slice().into(),
        header: false,
        quote: b'"',
        escape: b'"',
        key_not_null: false,
        key_null: false,
        ends_with_marker: true,
    })
}

/// What each shard gets of the input that comes in pieces: its data, and which of the input's lines each of its lines is.
fn divided(
    format: &Format,
    key: KeyColumn,
    input: &[u8],
    piece: usize,
) -> (Vec<Vec<u8>>, Distributor) {
    let mut rows = Distributor::by_key(format, key, SHARDS);
    for piece in input.chunks(piece) {
        rows.add(piece);
        rows.divide(false);
    }
    rows.divide(true);
    let lanes = rows.lanes().iter().map(|lane| {
        let mut data = Vec::new();
        let mut rest = &lane.output[..];
        while let [b'd', a, b, c, d, after @ ..] = rest {
            let length = u32::from_be_bytes([*a, *b, *c, *d]) as usize - 4;
            data.extend_from_slice(&after[..length]);
            rest = &after[length..];
        }
        assert!(rest.is_empty());
        data
    });
    (lanes.collect(), rows)
}

/// A field as text writes it.
fn escaped(field: &Option<String>) -> String {
    let Some(field) = field else {
        return "\\N".to_owned();
    };
    field
        .chars()
        .map(|letter| match letter {
            '\n' => "\\n".to_owned(),
            '\r' => "\\\r".to_owned(),
            '\t' => "\\x09".to_owned(),
            '\\' => "\\\\".to_owned(),
            'b' => "\\142".to_owned(),
            other => other.to_string(),
        })
        .collect()
}

fn quoted(field: &Option<String>) -> String {
    match field {
        None => String::new(),
        Some(field) => format!("\"{}\"", field.replace('"', "\"\"")),
    }
}

fn shard_of(key: &KeyColumn, value: &Option<String>) -> usize {
    let key_value = value
        .as_ref()
        .map(|value| Key::from_text(KeyType::Text, value.as_bytes()).unwrap());
    key.map.shard_of(key_value.as_ref()).unwrap().position()
}

fn field() -> impl Strategy<Value = Option<String>> {
    prop_oneof![
        1 => Just(None),
        8 => "[ab,\"\\\\\t\n\rä.N]{0,6}".prop_map(Some),
    ]
}

fn rows() -> impl Strategy<Value = Vec<[Option<String>; 3]>> {
    prop::collection::vec([field(), field(), field()], 0..30)
}

proptest! {
    #[test]
    fn rows_of_text_go_whole_to_the_shards_of_their_keys(rows in rows(), at in 0..3usize, piece in 1..20usize) {
        let lines: Vec<String> = rows.iter().map(|row| row.each_ref().map(escaped).join("\t") + "\n").collect();
        let key = key(at);
        let mut expected = vec![Vec::new(); SHARDS];
        let mut numbers = vec![Vec::new(); SHARDS];
        for (number, (row, line)) in rows.iter().zip(&lines).enumerate() {
            let shard = shard_of(&key, &row[at]);
            expected[shard].extend_from_slice(line.as_bytes());
            numbers[shard].push(number as u64 + 1);
        }
        let (lanes, mut rows) = divided(&text(), key, lines.concat().as_bytes(), piece);
        prop_assert_eq!(rows.astray(), None);
        prop_assert_eq!(lanes, expected);
        let all = rows.lines();
        for (lane, numbers) in rows.lanes().iter().zip(numbers) {
            for (own, number) in numbers.iter().enumerate() {
                prop_assert_eq!(lane.lines.line_of(own as u64 + 1, all), Some(*number));
            }
            prop_assert_eq!(lane.lines.line_of(numbers.len() as u64 + 1, all), Some(all + 1));
        }
    }

    #[test]
    fn rows_of_csv_go_whole_to_the_shards_of_their_keys(rows in rows(), at in 0..3usize, piece in 1..20usize) {
        let lines: Vec<String> = rows.iter().map(|row| row.each_ref().map(quoted).join(",") + "\n").collect();
        let key = key(at);
        let mut expected = vec![Vec::new(); SHARDS];
        let mut numbers = vec![Vec::new(); SHARDS];
        let (mut number, mut own) = (0, vec![0; SHARDS]);
        for (position, (row, line)) in rows.iter().zip(&lines).enumerate() {
            let shard = shard_of(&key, &row[at]);
            expected[shard].extend_from_slice(line.as_bytes());
            // Within quotes a line ends where the first line of the input has ended.
            let within = |known: bool| {
                let end = if known { '\n' } else { '\r' };
                line.trim_end_matches('\n').matches(end).count() as u64
            };
            number += 1 + within(position > 0);
            own[shard] += 1 + within(own[shard] > 0);
            numbers[shard].push((own[shard], number));
        }
        let (lanes, mut rows) = divided(&csv(), key, lines.concat().as_bytes(), piece);
        prop_assert_eq!(rows.astray(), None);
        prop_assert_eq!(lanes, expected);
        let all = rows.lines();
        for (lane, numbers) in rows.lanes().iter().zip(numbers) {
            for (own, number) in numbers {
                prop_assert_eq!(lane.lines.line_of(own, all), Some(number));
            }
        }
    }

    #[test]
    fn binary_rows_go_whole_to_the_shards_of_their_keys(rows in rows(), at in 0..3usize, piece in 1..40usize, ends: bool) {
        let mut header = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\x02ab".to_vec();
        let mut input = header.clone();
        let key = key(at);
        let mut expected = vec![std::mem::take(&mut header); SHARDS];
        for row in &rows {
            let mut bytes = 3_i16.to_be_bytes().to_vec();
            for field in row {
                match field {
                    None => bytes.extend_from_slice(&(-1_i32).to_be_bytes()),
                    Some(field) => {
                        bytes.extend_from_slice(&(field.len() as i32).to_be_bytes());
                        bytes.extend_from_slice(field.as_bytes());
                    }
                }
            }
            input.extend_from_slice(&bytes);
            expected[shard_of(&key, &row[at])].extend_from_slice(&bytes);
        }
        if ends {
            input.extend_from_slice(&[0xff, 0xff]);
            expected.iter_mut().for_each(|lane| lane.extend_from_slice(&[0xff, 0xff]));
        }
        let (lanes, rows) = divided(&Format::Binary, key, &input, piece);
        prop_assert_eq!(rows.astray(), None);
        prop_assert_eq!(lanes, expected);
    }

    /// Whatever comes: no row is made of two, none is lost before the first that is astray, and how it is cut does not matter.
    #[test]
    fn any_input_is_divided_alike_however_it_is_cut(input in "[ab\t\n\r\\\\.,\"]{0,60}", piece in 1..20usize, at in 0..2usize) {
        for format in [text(), csv()] {
            let (whole, of_whole) = divided(&format, key(at), input.as_bytes(), usize::MAX);
            let (cut, of_cut) = divided(&format, key(at), input.as_bytes(), piece);
            prop_assert_eq!(of_whole.astray().map(|astray| astray.reason), of_cut.astray().map(|astray| astray.reason));
            if of_whole.astray().is_none() {
                prop_assert_eq!(whole, cut);
            }
            prop_assert_eq!(of_whole.lines(), of_cut.lines());
        }
    }

    #[test]
    fn lines_are_found_again(lines in prop::collection::vec((0..300_u64, 1..4_u64), 1..200)) {
        let mut kept = Lines::default();
        let (mut at, mut own, mut expected) = (0, 0, Vec::new());
        for (skipped, count) in lines {
            at += skipped;
            kept.add(at, count);
            expected.extend((0..count).map(|line| (own + line + 1, at + line + 1)));
            (at, own) = (at + count, own + count);
        }
        for (own, line) in expected {
            prop_assert_eq!(kept.line_of(own, at), Some(line));
        }
    }
}

/// What is put in front of rows is read by PostgreSQL as it is, and found again in front of a line that is shown.
#[test]
fn added_fields_are_written_and_found_again() {
    let csv = Format::Csv(Csv {
        delimiter: b'-',
        null: (*b"").into(),
        header: false,
        quote: b'1',
        escape: b'1',
        key_not_null: false,
        key_null: false,
        ends_with_marker: true,
    });
    for (format, values, expected) in [
        (text(), ["17", "a\tb\\"], &b"17\ta\\tb\\\\\t"[..]),
        (text(), ["\\N", "x"], b"\\\\N\tx\t"),
        (csv, ["-17", "x"], b"1-1171-1x1-"),
    ] {
        let mut added = added::Added::new(&format, vec!["a".into(), "b".into()]);
        let values: Vec<_> = values
            .iter()
            .map(|value| Some(value.as_bytes().to_vec()))
            .collect();
        added.give(values.clone());
        assert_eq!(added.take(), Some(values.clone()));
        let (before, skipped) = added.row(&values, b"row");
        assert_eq!((before.as_slice(), skipped), (expected, 0));
        let line = [expected, b"row"].concat();
        assert_eq!(added.shown(&line), expected.len());
        assert_eq!(added.shown(&expected[..expected.len() - 1]), 0);
    }
}

/// A value is not taken for NULL because it is written like it.
#[test]
fn an_added_field_is_not_null() {
    let format = Format::Text(Text {
        delimiter: b'|',
        null: (*b"17").into(),
        header: false,
    });
    let added = added::Added::new(&format, vec!["a".into()]);
    assert_eq!(added.row(&[Some(b"17".to_vec())], b"").0, b"\\x317|");
    assert_eq!(added.row(&[None], b"").0, b"17|");
    let mut rows = Distributor::by_key(&format, key(0), SHARDS).adding(&format, vec!["a".into()]);
    rows.add(b"x\ny\nz");
    assert_eq!((rows.wants(false), rows.wants(true)), (2, 3));
    rows.give(vec![Some(b"1".to_vec())]);
    assert_eq!((rows.wants(false), rows.wants(true)), (1, 2));
}

/// Of a long COPY the memory is bounded, and the lines of late are known.
#[test]
fn only_the_latest_lines_are_kept() {
    let mut kept = Lines::default();
    let many = 5_000_000;
    for line in 0..many {
        kept.add(2 * line, 1);
    }
    assert_eq!(kept.line_of(1, 2 * many), None);
    assert_eq!(
        kept.line_of(many - 1_000_000, 2 * many),
        Some(2 * (many - 1_000_000) - 1)
    );
    assert_eq!(kept.line_of(many, 2 * many), Some(2 * many - 1));
}
