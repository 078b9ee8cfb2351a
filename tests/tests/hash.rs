//! Proves that shard keys are what PostgreSQL says they are, type by type, on a real server: their hash, their bucket, their
//! order, and what their text and binary forms mean. At least 100,000 random and edge values per type.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test's helpers fail by panicking"
)]

use std::cmp::Ordering;

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Row};
use switchyard_cluster::{APP_USER, Cluster, ClusterSpec};
use switchyard_schema::{BUCKETS, Bucket, Key, KeyError, KeyType, bucket_sql, hash, remainder_sql};

/// Values compared per type.
const VALUES: usize = 100_000;
/// Damaged values per type, for which only acceptance must agree.
const DAMAGED: usize = 10_000;

/// Repeatable random numbers (splitmix64): a failure names values, and a second run meets them again.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn pick<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        from[self.below(from.len() as u64) as usize]
    }
}

/// A key type on the server and how to make values of it.
struct Case {
    key_type: KeyType,
    sql_type: &'static str,
    send: &'static str,
    edges: &'static [&'static str],
    random: fn(&mut Random) -> String,
    /// Characters that damage a value in interesting ways.
    damage: &'static str,
}

const CASES: [Case; 13] = [
    Case {
        key_type: KeyType::Int2,
        sql_type: "int2",
        send: "int2send",
        edges: &[
            "0", "-0", "+1", "-1", "32767", "-32768", " 7 ", "007", "\t8\n",
        ],
        random: |r| (r.next() as i16).to_string(),
        damage: "0123456789+- .eE_xab",
    },
    Case {
        key_type: KeyType::Int4,
        sql_type: "int4",
        send: "int4send",
        edges: &[
            "0",
            "-0",
            "+1",
            "-1",
            "2147483647",
            "-2147483648",
            " 7 ",
            "0000000000000000000000007",
        ],
        random: |r| ((r.next() as i32) >> r.below(32)).to_string(),
        damage: "0123456789+- .eE_xob",
    },
    Case {
        key_type: KeyType::Int8,
        sql_type: "int8",
        send: "int8send",
        edges: &[
            "0",
            "-1",
            "9223372036854775807",
            "-9223372036854775808",
            "4294967296",
            "-4294967296",
            "4294967295",
        ],
        random: |r| ((r.next() as i64) >> r.below(64)).to_string(),
        damage: "0123456789+- .eE_xob",
    },
    Case {
        key_type: KeyType::Text,
        sql_type: "text",
        send: "textsend",
        edges: &[
            "",
            " ",
            "a ",
            "\\",
            "\t",
            "ä",
            "日本語",
            "🚆",
            "abcdefghijk",
            "abcdefghijkl",
            "abcdefghijklm",
        ],
        random: text,
        damage: "",
    },
    Case {
        key_type: KeyType::Varchar,
        sql_type: "varchar",
        send: "varcharsend",
        edges: &["", " ", "a ", "NULL"],
        random: text,
        damage: "",
    },
    Case {
        key_type: KeyType::Bpchar,
        sql_type: "bpchar",
        send: "bpcharsend",
        edges: &["", " ", "   ", "a", "a ", "a   ", " a ", "a\t "],
        random: |r| text(r) + &" ".repeat(r.below(4) as usize),
        damage: "",
    },
    Case {
        key_type: KeyType::Uuid,
        sql_type: "uuid",
        send: "uuid_send",
        edges: &[
            "00000000-0000-0000-0000-000000000000",
            "ffffffff-ffff-ffff-ffff-ffffffffffff",
            "{A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11}",
            "a0eebc999c0b4ef8bb6d6bb9bd380a11",
            "a0ee-bc99-9c0b-4ef8-bb6d-6bb9-bd38-0a11",
            "{a0eebc99-9c0b4ef8-bb6d6bb9-bd380a11}",
        ],
        random: uuid,
        damage: "0123456789abcdefABCDEF-{}g ",
    },
    Case {
        key_type: KeyType::Bytea,
        sql_type: "bytea",
        send: "byteasend",
        edges: &[
            "",
            "\\x",
            "\\x00",
            "\\xFF 00\tfe",
            "abc",
            "a\\000b\\\\c",
            "\\377",
            "\\x0123456789abcdef01234567",
        ],
        random: bytea,
        damage: "0123456789abcdefABCDEF\\x g",
    },
    Case {
        key_type: KeyType::Date,
        sql_type: "date",
        send: "date_send",
        edges: &[
            "infinity",
            "-infinity",
            "Infinity",
            "4714-11-24 BC",
            "5874897-12-31",
            "0001-01-01",
            "0001-12-31 BC",
            "2000-01-01",
            "1999-12-31",
            "2000-02-29",
            "1900-02-28",
            "2400-02-29",
            "0005-02-29 BC",
            "2026-01-31 +00",
            "2026-01-31 +05:30",
        ],
        random: date,
        damage: "0123456789-: +TZBC",
    },
    Case {
        key_type: KeyType::Timestamp,
        sql_type: "timestamp",
        send: "timestamp_send",
        edges: &[
            "infinity",
            "-infinity",
            "4714-11-24 00:00:00 BC",
            "294276-12-31 23:59:59.999999",
            "2000-01-01",
            "1999-12-31 23:59:59.999999",
            "2026-01-31T12:30",
            "2026-01-31 12:30:01.5",
            "2026-01-31 12:30:00+05",
            "2026-01-31 12:30:00Z",
            "0044-03-15 10:00:00 BC",
        ],
        random: |r| {
            let zone = if r.one_in(8) {
                offset(r)
            } else {
                String::new()
            };
            date_and_time(r, &zone)
        },
        damage: "0123456789-:. +TZBC",
    },
    Case {
        key_type: KeyType::Timestamptz,
        sql_type: "timestamptz",
        send: "timestamptz_send",
        edges: &[
            "infinity",
            "-infinity",
            "4714-11-24 00:00:00+00 BC",
            "294276-12-31 23:59:59.999999+00",
            "2026-01-31 12:30:00Z",
            "2026-01-31 12:30:00-08",
            "2026-01-31T12:30+05:30",
            "2026-01-31 12:30:01.25+15:59:59",
        ],
        random: |r| {
            let zone = offset(r);
            date_and_time(r, &zone)
        },
        damage: "0123456789-:. +TZBC",
    },
    Case {
        key_type: KeyType::Numeric,
        sql_type: "numeric",
        send: "numeric_send",
        edges: &[
            "0",
            "-0",
            "0.00",
            "1",
            "1.0",
            "1.00",
            "-1",
            "10000",
            "10000.0000",
            "0.0001",
            "0.00001",
            "NaN",
            "nan",
            "Infinity",
            "-Infinity",
            "inf",
            "-inf",
            "+inf",
            "1e10",
            "1E-10",
            "1e0",
            ".5",
            "5.",
            "+.5e+1",
            "  12  ",
            "99999999999999999999999999999999999999999",
            "1e4000",
            "1e-4000",
            "00000000000000000000000000000001",
        ],
        random: numeric,
        damage: "0123456789+-. eEnaif_x",
    },
    Case {
        key_type: KeyType::Bool,
        sql_type: "bool",
        send: "boolsend",
        edges: &[
            "t", "f", "true", "FALSE", "yes", "no", "on", "off", "of", "1", "0", " tr ", "Y", "n",
        ],
        random: |r| {
            r.pick(&["t", "f", "1", "0", "tRue", "fa", "ye", "No", " on ", "OFF"])
                .to_owned()
        },
        damage: "truefalsyenofTRUE01 ",
    },
];

fn text(r: &mut Random) -> String {
    let alphabet: Vec<char> = "abcXYZ019 _-'\"\\\n\t%äßéЖ漢字🚆\u{1}".chars().collect();
    let length = if r.one_in(50) { 300 } else { 40 };
    (0..r.below(length))
        .map(|_| alphabet[r.below(alphabet.len() as u64) as usize])
        .collect()
}

fn uuid(r: &mut Random) -> String {
    let digits = format!("{:016x}{:016x}", r.next(), r.next());
    match r.below(3) {
        0 => digits,
        1 => {
            let hyphens: Vec<&str> = [0..8, 8..12, 12..16, 16..20, 20..32]
                .into_iter()
                .map(|part| &digits[part])
                .collect();
            hyphens.join("-")
        }
        _ => format!("{{{}}}", digits.to_uppercase()),
    }
}

fn bytea(r: &mut Random) -> String {
    let bytes: Vec<u8> = (0..r.below(40)).map(|_| r.next() as u8).collect();
    if r.one_in(2) {
        "\\x".to_owned() + &bytes.iter().map(|b| format!("{b:02x}")).collect::<String>()
    } else {
        let escaped = bytes.iter().map(|b| match b {
            b'\\' => "\\\\".to_owned(),
            32..=126 => char::from(*b).to_string(),
            _ => format!("\\{b:03o}"),
        });
        escaped.collect()
    }
}

/// A date without its era, and whether it is before Christ.
fn day(r: &mut Random, last_year: u64) -> (String, bool) {
    let before_christ = r.one_in(8);
    let year = 1 + match r.below(4) {
        _ if before_christ => r.below(4712),
        0 => r.below(last_year - 1),
        1 => r.below(9998),
        _ => 1900 + r.below(200),
    };
    let day = if r.one_in(4) { 28 } else { 1 + r.below(28) };
    let (month, day) = if r.one_in(20) {
        (12, 31)
    } else {
        (1 + r.below(12), day)
    };
    (format!("{year:04}-{month:02}-{day:02}"), before_christ)
}

fn date(r: &mut Random) -> String {
    let (day, before_christ) = day(r, 5_874_897);
    if before_christ { day + " BC" } else { day }
}

fn date_and_time(r: &mut Random, zone: &str) -> String {
    let (mut value, before_christ) = day(r, 294_276);
    let (hour, minute, second) = (r.below(24), r.below(60), r.below(60));
    value += if r.one_in(2) { " " } else { "T" };
    value += &format!("{hour:02}:{minute:02}");
    if !r.one_in(8) {
        value += &format!(":{second:02}");
        if r.one_in(2) {
            let digits = 1 + r.below(6) as usize;
            value += &format!(".{:0digits$}", r.below(10_u64.pow(digits as u32)));
        }
    }
    value += zone;
    if before_christ { value + " BC" } else { value }
}

fn offset(r: &mut Random) -> String {
    let sign = r.pick(&["+", "-"]);
    let hours = r.below(16);
    match r.below(4) {
        0 => "Z".to_owned(),
        1 => format!("{sign}{hours:02}"),
        2 => format!("{sign}{hours:02}:{:02}", r.below(60)),
        _ => format!("{sign}{hours:02}:{:02}:{:02}", r.below(60), r.below(60)),
    }
}

fn numeric(r: &mut Random) -> String {
    let digits = |r: &mut Random, most| -> String {
        let zeros = r.one_in(4);
        let digit = |r: &mut Random| {
            if zeros && !r.one_in(5) {
                0
            } else {
                r.below(10)
            }
        };
        (0..r.below(most)).map(|_| digit(r).to_string()).collect()
    };
    let most = if r.one_in(20) { 60 } else { 12 };
    let mut value = r.pick(&["", "-", "+"]).to_owned();
    value += &format!("{}{}", digits(r, most), r.below(10));
    if r.one_in(2) {
        value += &format!(".{}", digits(r, most));
    }
    if r.one_in(5) {
        value += &format!("e{}{}", r.pick(&["", "-", "+"]), r.below(40));
    }
    value
}

/// One character put in, taken out or exchanged.
fn damaged(value: &str, alphabet: &str, r: &mut Random) -> String {
    let mut characters: Vec<char> = value.chars().collect();
    let alphabet: Vec<char> = alphabet.chars().collect();
    let new = alphabet[r.below(alphabet.len() as u64) as usize];
    let at = r.below(characters.len() as u64 + 1) as usize;
    match (r.below(3), at < characters.len()) {
        (0, true) => drop(characters.remove(at)),
        (1, true) => characters[at] = new,
        _ => characters.insert(at, new),
    }
    characters.into_iter().collect()
}

/// A server of its own and a connection to it. Its settings are such that whatever depends on them goes wrong.
async fn server() -> (Cluster, PgConnection) {
    let cluster = Cluster::start(ClusterSpec::for_tests(1, 0)).unwrap();
    let node = &cluster.shard(0).primary;
    let options = PgConnectOptions::new()
        .host(node.host())
        .port(node.port())
        .username(APP_USER)
        .password(&cluster.spec().password)
        .database(&cluster.spec().database)
        .options([
            ("timezone", "Asia/Kolkata"),
            ("datestyle", "ISO, DMY"),
            ("bytea_output", "escape"),
        ])
        .disable_statement_logging();
    let connection = PgConnection::connect_with(&options).await.unwrap();
    (cluster, connection)
}

/// What the server says of one value.
struct Verdict {
    input: String,
    text: String,
    binary: Vec<u8>,
    hash: i64,
    bucket: i64,
    rank: i64,
}

async fn ask(connection: &mut PgConnection, case: &Case, values: &[String]) -> Vec<Verdict> {
    let Case { sql_type, send, .. } = case;
    let collate = if case.key_type.has_collation() {
        "COLLATE \"C\""
    } else {
        ""
    };
    let sql = format!(
        "WITH input AS MATERIALIZED (SELECT t, t::{sql_type} AS v FROM unnest($1::text[]) AS t)
         SELECT t, v::text, {send}(v), hash_record_extended(ROW(v), {seed}), {bucket},
                dense_rank() OVER (ORDER BY v {collate}) AS rank
         FROM input ORDER BY rank",
        seed = hash::SEED,
        bucket = bucket_sql("v"),
    );
    let rows = sqlx::query(AssertSqlSafe(sql))
        .bind(values)
        .fetch_all(connection)
        .await
        .unwrap();
    let verdict = |row: &sqlx::postgres::PgRow| Verdict {
        input: row.get(0),
        text: row.get(1),
        binary: row.get(2),
        hash: row.get(3),
        bucket: row.get(4),
        rank: row.get(5),
    };
    rows.iter().map(verdict).collect()
}

/// Checks one value against the server's verdict and returns the key.
fn agree(case: &Case, verdict: &Verdict) -> Key<'static> {
    let key_type = case.key_type;
    let shown = format!("{} {:?}", case.sql_type, verdict.input);
    let given = Key::from_text(key_type, verdict.input.as_bytes());
    let given = given
        .unwrap_or_else(|error| panic!("{shown}: {error}"))
        .into_owned();
    assert_eq!(given.hash_extended() as i64, verdict.hash, "{shown}: hash");
    assert_eq!(
        i64::from(Bucket::of(Some(&given)).number()),
        verdict.bucket,
        "{shown}: bucket"
    );
    assert_eq!(
        Key::from_binary(key_type, &verdict.binary).as_ref(),
        Ok(&given),
        "{shown}: binary"
    );
    // What the server prints in its own time zone for timestamptz has an offset, so it is exact too.
    assert_eq!(
        Key::from_text(key_type, verdict.text.as_bytes()).as_ref(),
        Ok(&given),
        "{shown}: printed as {:?}",
        verdict.text
    );
    given
}

#[tokio::test]
async fn keys_are_what_postgresql_says() {
    let (_cluster, mut connection) = server().await;
    for case in &CASES {
        let mut random = Random(case.key_type.oid().into());
        let mut values: Vec<String> = case.edges.iter().map(|&edge| edge.to_owned()).collect();
        while values.len() < VALUES {
            values.push((case.random)(&mut random));
        }
        let verdicts = ask(&mut connection, case, &values).await;
        assert_eq!(verdicts.len(), VALUES);
        let keys: Vec<Key<'_>> = verdicts
            .iter()
            .map(|verdict| agree(case, verdict))
            .collect();
        for (keys, verdicts) in keys.windows(2).zip(verdicts.windows(2)) {
            let order = verdicts[0].rank.cmp(&verdicts[1].rank);
            let (a, b) = (&verdicts[0].input, &verdicts[1].input);
            assert_eq!(
                keys[0].compare(&keys[1]),
                Some(order),
                "{}: {a:?} and {b:?}",
                case.sql_type
            );
            assert_eq!(
                keys[0] == keys[1],
                order == Ordering::Equal,
                "{}: {a:?} and {b:?}",
                case.sql_type
            );
        }
    }
}

#[tokio::test]
async fn what_is_not_certain_is_not_accepted() {
    let (_cluster, mut connection) = server().await;
    for case in CASES.iter().filter(|case| !case.damage.is_empty()) {
        let mut random = Random(u64::from(case.key_type.oid()) << 32);
        let values: Vec<String> = (0..DAMAGED)
            .map(|_| {
                let value = match random.below(4) {
                    0 => random.pick(case.edges).to_owned(),
                    _ => (case.random)(&mut random),
                };
                damaged(&value, case.damage, &mut random)
            })
            .collect();
        let Case { sql_type, .. } = case;
        let function = format!(
            "CREATE OR REPLACE FUNCTION pg_temp.hash_if_valid(t text) RETURNS bigint LANGUAGE plpgsql AS $$
             BEGIN RETURN hash_record_extended(ROW(t::{sql_type}), {seed});
             EXCEPTION WHEN others THEN RETURN NULL; END $$",
            seed = hash::SEED,
        );
        sqlx::query(AssertSqlSafe(function))
            .execute(&mut connection)
            .await
            .unwrap();
        let rows = sqlx::query("SELECT t, pg_temp.hash_if_valid(t) FROM unnest($1::text[]) AS t")
            .bind(&values)
            .fetch_all(&mut connection)
            .await
            .unwrap();
        let mut accepted = 0;
        for row in rows {
            let (value, hash): (String, Option<i64>) = (row.get(0), row.get(1));
            match Key::from_text(case.key_type, value.as_bytes()) {
                Ok(key) => {
                    assert_eq!(
                        Some(key.hash_extended() as i64),
                        hash,
                        "{sql_type} {value:?}"
                    );
                    accepted += 1;
                }
                Err(KeyError::Invalid) => assert_eq!(hash, None, "{sql_type} {value:?} is valid"),
                Err(KeyError::NotExact) => {}
            }
        }
        assert!(
            accepted > DAMAGED / 100,
            "{sql_type}: only {accepted} of {DAMAGED} were accepted"
        );
    }
}

#[tokio::test]
async fn sql_finds_the_place_of_null_and_of_remainders() {
    let (_cluster, mut connection) = server().await;
    let sql = format!(
        "SELECT {}::int8, {}::int8",
        bucket_sql("NULL::text"),
        remainder_sql("NULL::int8", 3)
    );
    let row = sqlx::query(AssertSqlSafe(sql))
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert_eq!(row.get::<i64, _>(0), i64::from(Bucket::of(None).number()));
    assert_eq!(row.get::<i64, _>(1), 0);

    let values: Vec<i64> = (-10..10)
        .chain([i64::MIN, i64::MAX, i64::MIN + 1])
        .collect();
    for modulus in [1, 3, 256, BUCKETS] {
        let sql = format!(
            "SELECT v, ({})::int8 FROM unnest($1::int8[]) AS v",
            remainder_sql("v", modulus)
        );
        let rows = sqlx::query(AssertSqlSafe(sql))
            .bind(&values)
            .fetch_all(&mut connection)
            .await
            .unwrap();
        for row in rows {
            let (value, remainder): (i64, i64) = (row.get(0), row.get(1));
            assert_eq!(
                value.rem_euclid(modulus as i64),
                remainder,
                "{value} modulo {modulus}"
            );
        }
    }
}
