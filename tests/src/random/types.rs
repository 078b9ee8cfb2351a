//! The types statements are made of: their names, their values, what can be done with them.

/// A type. Expressions are made of a type, so that statements are valid nearly always.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "most are PostgreSQL's own")]
pub enum Type {
    Bool,
    Int2,
    Int4,
    Int8,
    /// With two decimals, always: what is equal looks the same.
    Numeric,
    /// With any number of decimals: 1.0 and 1.00 are equal and look different, so that no rows are made one by it.
    Decimal,
    /// With halves and quarters only, so that sums do not depend on their order.
    Float8,
    Text,
    /// `char(5)`, padded.
    Char,
    Date,
    Timestamp,
    Timestamptz,
    Interval,
    Uuid,
    Bytea,
    Jsonb,
    IntArray,
    TextArray,
    IntRange,
    /// An enum.
    Mood,
    /// A composite type.
    Spot,
}

impl Type {
    /// Those whose equal values look the same.
    pub const PLAIN: [Type; 20] = [
        Type::Bool,
        Type::Int2,
        Type::Int4,
        Type::Int8,
        Type::Numeric,
        Type::Float8,
        Type::Text,
        Type::Char,
        Type::Date,
        Type::Timestamp,
        Type::Timestamptz,
        Type::Interval,
        Type::Uuid,
        Type::Bytea,
        Type::Jsonb,
        Type::IntArray,
        Type::TextArray,
        Type::IntRange,
        Type::Mood,
        Type::Spot,
    ];

    /// A cast to it.
    pub fn cast(self) -> &'static str {
        match self {
            Type::Bool => "::bool",
            Type::Int2 => "::int2",
            Type::Int4 => "::int4",
            Type::Int8 => "::int8",
            Type::Numeric => "::numeric(14,2)",
            Type::Decimal => "::numeric",
            Type::Float8 => "::float8",
            Type::Text => "::text",
            Type::Char => "::char(5)",
            Type::Date => "::date",
            Type::Timestamp => "::timestamp",
            Type::Timestamptz => "::timestamptz",
            Type::Interval => "::interval",
            Type::Uuid => "::uuid",
            Type::Bytea => "::bytea",
            Type::Jsonb => "::jsonb",
            Type::IntArray => "::int4[]",
            Type::TextArray => "::text[]",
            Type::IntRange => "::int4range",
            Type::Mood => "::mood",
            Type::Spot => "::spot",
        }
    }

    /// Values of it, as text: few, so that they meet.
    pub fn values(self) -> &'static [&'static str] {
        match self {
            Type::Bool => BOOLS,
            Type::Int2 | Type::Int4 | Type::Int8 => INTEGERS,
            Type::Numeric => NUMERICS,
            Type::Decimal => DECIMALS,
            Type::Float8 => FLOATS,
            Type::Text => TEXTS,
            Type::Char => CHARS,
            Type::Date => DATES,
            Type::Timestamp => TIMESTAMPS,
            Type::Timestamptz => INSTANTS,
            Type::Interval => INTERVALS,
            Type::Uuid => UUIDS,
            Type::Bytea => BYTES,
            Type::Jsonb => DOCUMENTS,
            Type::IntArray => INTEGER_ARRAYS,
            Type::TextArray => TEXT_ARRAYS,
            Type::IntRange => RANGES,
            Type::Mood => MOODS,
            Type::Spot => SPOTS,
        }
    }

    /// Whether it is a kind of integer.
    pub fn is_integer(self) -> bool {
        matches!(self, Type::Int2 | Type::Int4 | Type::Int8)
    }

    /// Whether `min` and `max` know it.
    pub fn has_extremes(self) -> bool {
        !matches!(
            self,
            Type::Bool
                | Type::Uuid
                | Type::Bytea
                | Type::Jsonb
                | Type::IntRange
                | Type::Spot
                | Type::Decimal
        )
    }
}

const BOOLS: &[&str] = &["t", "f"];
const INTEGERS: &[&str] = &[
    "0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15", "16",
    "17", "18", "19", "20", "21", "-1", "-2", "100",
];
const NUMERICS: &[&str] = &[
    "0.00", "1.00", "2.50", "5.00", "-1.25", "10.00", "19.99", "3.00", "7.00", "999.99",
];
const DECIMALS: &[&str] = &[
    "1", "1.0", "1.00", "2.5", "2.50", "-0.1", "100", "1e2", "NaN", "5.000",
];
const FLOATS: &[&str] = &[
    "0",
    "0.5",
    "-2.25",
    "1",
    "3.75",
    "100.25",
    "5",
    "NaN",
    "Infinity",
    "-Infinity",
];
const TEXTS: &[&str] = &[
    "",
    "a",
    "A",
    "b",
    "B",
    "ab",
    "Ab",
    "ä",
    "Z",
    "it's",
    "a b",
    "kr",
    "jp",
    "de",
    "back\\slash",
    "é",
    "5",
    "日本",
    "a_c",
    "%",
];
const CHARS: &[&str] = &["a", "ab", "abc", "A", "", "x y", "abcde", "B"];
const DATES: &[&str] = &[
    "2024-01-01",
    "2024-01-15",
    "2024-02-29",
    "2024-03-31",
    "2024-06-01",
    "2024-06-30",
    "2024-09-09",
    "2024-12-31",
    "1999-12-31",
    "2025-07-01",
];
const TIMESTAMPS: &[&str] = &[
    "2024-01-01 00:00:00",
    "2024-01-15 12:30:00",
    "2024-03-31 01:30:00",
    "2024-06-30 23:59:59.5",
    "2024-09-09 09:09:09",
    "infinity",
];
const INSTANTS: &[&str] = &[
    "2024-01-01 00:00:00+00",
    "2024-03-31 01:30:00+00",
    "2024-06-01 00:00:00+02",
    "2024-06-30 23:59:59.5+00",
    "2024-10-27 02:30:00+01",
    "2024-12-31 18:00:00-06",
];
const INTERVALS: &[&str] = &[
    "1 day",
    "02:30:00",
    "3 days 04:00:00",
    "-1 days",
    "00:00:00",
    "00:00:07.25",
];
const UUIDS: &[&str] = &[
    "00000000-0000-0000-0000-000000000000",
    "11111111-1111-1111-1111-111111111111",
    "22222222-2222-4222-8222-222222222222",
    "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
    "b0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
    "c0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
    "ffffffff-ffff-ffff-ffff-ffffffffffff",
];
const BYTES: &[&str] = &["\\x", "\\x00", "\\x00ff", "\\x61", "\\xdeadbeef"];
const DOCUMENTS: &[&str] = &[
    "{\"n\": 1}",
    "{\"k\": \"a\", \"n\": 5}",
    "[1, 2, {\"k\": null}]",
    "null",
    "{}",
    "{\"k\": \"it's\", \"n\": 2, \"list\": [3, 4]}",
    "\"text\"",
    "7",
];
const INTEGER_ARRAYS: &[&str] = &[
    "{}",
    "{1}",
    "{1,2,3}",
    "{5,NULL}",
    "{2,1}",
    "{{1,2},{3,4}}",
    "{20,5,10}",
];
const TEXT_ARRAYS: &[&str] = &[
    "{}",
    "{a}",
    "{a,b}",
    "{NULL,A}",
    "{\"it's\",\"\"}",
    "{kr,jp}",
];
const RANGES: &[&str] = &["empty", "[1,5)", "[3,9)", "(,4)", "[10,)", "(,)", "[5,6)"];
const MOODS: &[&str] = &["sad", "ok", "happy"];
const SPOTS: &[&str] = &["(1,a)", "(2,b)", "(1,)", "(,a)", "(,)", "(5,\"it's\")"];
