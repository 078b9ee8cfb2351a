//! The tables: one for each way to distribute, colocated pairs, columns of many types.

use std::fmt::Write;

use super::types::Type;

/// How rows are spread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// By the hash of the key.
    Hash,
    /// By the remainder of the key.
    Modulo,
    /// By ranges of dates.
    Range,
    /// By a list of values.
    List,
    /// Whole on every shard.
    Reference,
    /// Whole on the first shard.
    Unsharded,
}

/// A column.
#[derive(Debug)]
pub struct Column {
    /// Its name.
    pub name: &'static str,
    /// Its type's name in the DDL.
    pub declared: &'static str,
    /// What it is to statements.
    pub ty: Type,
    /// How many values of a hundred are NULL.
    pub nulls: usize,
}

/// A table. Its first column, `id`, is the primary key; it may or may not be the shard key.
#[derive(Debug)]
pub struct Table {
    /// Its name.
    pub name: &'static str,
    /// How it is spread.
    pub method: Method,
    /// The column that decides a row's shard; empty if there is none.
    pub key: &'static str,
    /// The table it is colocated with; empty if there is none.
    pub with: &'static str,
    /// How many rows it has.
    pub rows: usize,
    /// Its columns.
    pub columns: &'static [Column],
}

impl Table {
    /// A view of most of its rows, with the same columns: it can be written, too.
    pub fn seen(&self) -> String {
        format!("{}_seen", self.name)
    }
}

const fn column(name: &'static str, declared: &'static str, ty: Type, nulls: usize) -> Column {
    Column {
        name,
        declared,
        ty,
        nulls,
    }
}

/// Types and more that the tables need.
pub const TYPES: &str = "CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
CREATE TYPE spot AS (x int4, y text);
CREATE DOMAIN small AS int4 CHECK (VALUE < 1000);
";

/// Views and functions over sharded tables.
pub const VIEWS: &str = "CREATE VIEW scorer AS SELECT id, name, score, born FROM person WHERE score > 3;
CREATE VIEW spending AS SELECT person_id, count(*) AS times, sum(total) AS total FROM purchase GROUP BY person_id;
CREATE FUNCTION spent(bigint) RETURNS numeric LANGUAGE sql STABLE
  AS 'SELECT sum(total) FROM purchase WHERE person_id = $1';
";

/// The views' columns, as statements see them.
pub const VIEW_COLUMNS: [(&str, &[(&str, Type)]); 2] = [
    (
        "scorer",
        &[
            ("id", Type::Int8),
            ("name", Type::Text),
            ("score", Type::Int4),
            ("born", Type::Date),
        ],
    ),
    (
        "spending",
        &[
            ("person_id", Type::Int8),
            ("times", Type::Int8),
            ("total", Type::Numeric),
        ],
    ),
];

/// All tables.
pub const TABLES: &[Table] = &[
    Table {
        name: "person",
        method: Method::Hash,
        key: "id",
        with: "",
        rows: 20,
        columns: &[
            column("id", "bigint", Type::Int8, 0),
            column("name", "text", Type::Text, 15),
            column("nick", "text COLLATE \"en-x-icu\"", Type::Text, 20),
            column("born", "date", Type::Date, 20),
            column("score", "int4", Type::Int4, 20),
            column("level", "int2", Type::Int2, 20),
            column("rate", "numeric(8,2)", Type::Numeric, 20),
            column("ratio", "float8", Type::Float8, 20),
            column("mood", "mood", Type::Mood, 20),
            column("active", "bool", Type::Bool, 30),
            column("tags", "text[]", Type::TextArray, 20),
            column("nums", "int4[]", Type::IntArray, 20),
            column("doc", "jsonb", Type::Jsonb, 20),
            column("span", "int4range", Type::IntRange, 20),
            column("place", "spot", Type::Spot, 30),
            column("rank", "small", Type::Int4, 20),
            column("code", "char(5)", Type::Char, 20),
            column("seen", "timestamptz", Type::Timestamptz, 20),
            column("lasted", "interval", Type::Interval, 20),
            column("token", "uuid", Type::Uuid, 20),
            column("raw", "bytea", Type::Bytea, 20),
        ],
    },
    Table {
        name: "purchase",
        method: Method::Hash,
        key: "person_id",
        with: "person",
        rows: 30,
        columns: &[
            column("id", "int4", Type::Int4, 0),
            column("person_id", "bigint", Type::Int8, 15),
            column("total", "numeric(10,2)", Type::Numeric, 10),
            column("qty", "int4", Type::Int4, 20),
            column("label", "varchar(20)", Type::Text, 20),
            column("made", "date", Type::Date, 20),
            column("score", "int4", Type::Int4, 20),
        ],
    },
    Table {
        name: "word",
        method: Method::Hash,
        key: "word",
        with: "",
        rows: 20,
        columns: &[
            column("id", "int4", Type::Int4, 0),
            column("word", "text", Type::Text, 10),
            column("n", "int8", Type::Int8, 20),
            column("ratio", "float8", Type::Float8, 20),
            column("mood", "mood", Type::Mood, 20),
        ],
    },
    Table {
        name: "phrase",
        method: Method::Hash,
        key: "word",
        with: "word",
        rows: 16,
        columns: &[
            column("id", "int4", Type::Int4, 0),
            column("word", "text", Type::Text, 20),
            column("body", "text", Type::Text, 20),
            column("level", "int2", Type::Int2, 20),
        ],
    },
    Table {
        name: "device",
        method: Method::Hash,
        key: "token",
        with: "",
        rows: 14,
        columns: &[
            column("id", "int4", Type::Int4, 0),
            column("token", "uuid", Type::Uuid, 10),
            column("person_id", "bigint", Type::Int8, 20),
            column("at", "timestamp", Type::Timestamp, 20),
            column("lasted", "interval", Type::Interval, 20),
        ],
    },
    Table {
        name: "event",
        method: Method::Range,
        key: "day",
        with: "",
        rows: 24,
        columns: &[
            column("id", "int4", Type::Int4, 0),
            column("day", "date", Type::Date, 10),
            column("person_id", "bigint", Type::Int8, 20),
            column("kind", "text", Type::Text, 20),
            column("amount", "int8", Type::Int8, 20),
            column("seen", "timestamptz", Type::Timestamptz, 20),
        ],
    },
    Table {
        name: "region",
        method: Method::List,
        key: "code",
        with: "",
        rows: 12,
        columns: &[
            column("id", "int4", Type::Int4, 0),
            column("code", "text", Type::Text, 10),
            column("name", "text", Type::Text, 20),
            column("pop", "int8", Type::Int8, 20),
        ],
    },
    Table {
        name: "account",
        method: Method::Modulo,
        key: "id",
        with: "",
        rows: 16,
        columns: &[
            column("id", "int4", Type::Int4, 0),
            column("person_id", "int4", Type::Int4, 20),
            column("owner", "text", Type::Text, 20),
            column("balance", "numeric(12,2)", Type::Numeric, 20),
            column("opened", "date", Type::Date, 20),
        ],
    },
    Table {
        name: "price",
        method: Method::Hash,
        key: "amount",
        with: "",
        rows: 6,
        columns: &[
            column("id", "int4", Type::Int4, 0),
            column("amount", "numeric", Type::Decimal, 15),
            column("note", "text", Type::Text, 20),
        ],
    },
    Table {
        name: "coupon",
        method: Method::Hash,
        key: "code",
        with: "",
        rows: 10,
        columns: &[
            column("id", "int4", Type::Int4, 0),
            column("code", "char(5)", Type::Char, 10),
            column("qty", "int4", Type::Int4, 20),
        ],
    },
    Table {
        name: "country",
        method: Method::Reference,
        key: "",
        with: "",
        rows: 10,
        columns: &[
            column("id", "int4", Type::Int4, 0),
            column("code", "text", Type::Text, 10),
            column("name", "text", Type::Text, 20),
            column("level", "int2", Type::Int2, 20),
        ],
    },
    Table {
        name: "note",
        method: Method::Unsharded,
        key: "",
        with: "",
        rows: 12,
        columns: &[
            column("id", "int4", Type::Int4, 0),
            column("person_id", "bigint", Type::Int8, 20),
            column("body", "text", Type::Text, 20),
            column("stars", "int2", Type::Int2, 20),
        ],
    },
];

/// What makes the tables.
pub fn ddl() -> String {
    let mut text = TYPES.to_owned();
    for table in TABLES {
        let columns: Vec<String> = table
            .columns
            .iter()
            .map(|column| format!("{} {}", column.name, column.declared))
            .collect();
        let _ = writeln!(
            text,
            "CREATE TABLE {} ({}, PRIMARY KEY (id));",
            table.name,
            columns.join(", ")
        );
        let _ = writeln!(
            text,
            "CREATE VIEW {} AS SELECT * FROM {} WHERE id % 50 <> 3 WITH CHECK OPTION;",
            table.seen(),
            table.name
        );
    }
    // The key must be part of no index, so that keys may be NULL; an index helps statements to be quick.
    text.push_str("CREATE INDEX ON purchase (person_id);\n");
    text + VIEWS
}

/// The tables of the router's configuration for a database of these shards.
pub fn configuration(shards: usize) -> String {
    let mut text = String::new();
    for table in TABLES {
        let Table {
            name, key, with, ..
        } = table;
        let method = match table.method {
            Method::Hash => "hash",
            Method::Modulo => "modulo",
            Method::Range => "range",
            Method::List => "list",
            Method::Reference => "reference",
            Method::Unsharded => continue,
        };
        let _ = write!(
            text,
            "\n[[databases.tables]]\nname = {name:?}\nmethod = {method:?}\n"
        );
        if !key.is_empty() {
            let _ = writeln!(text, "shard_key = {key:?}");
        }
        if !with.is_empty() {
            let _ = writeln!(text, "colocate_with = {with:?}");
        }
        if table.method == Method::Range {
            let _ = writeln!(text, "ranges = [ {} ]", ranges(shards));
        }
        if table.method == Method::List {
            let _ = writeln!(text, "lists = [ {} ]", lists(shards));
        }
    }
    text
}

fn ranges(shards: usize) -> String {
    let ends = ["2024-01-15", "2024-03-31", "2024-06-15", "2024-10-01"];
    let mut ranges: Vec<String> = ends
        .iter()
        .enumerate()
        .map(|(index, end)| format!("{{ below = {end:?}, shard = \"s{}\" }}", index % shards))
        .collect();
    ranges.push(format!("{{ shard = \"s{}\" }}", 4 % shards));
    ranges.join(", ")
}

fn lists(shards: usize) -> String {
    let values = ["\"kr\", \"a\"", "\"jp\"", "\"de\", \"A\", \"\""];
    let mut lists: Vec<String> = values
        .iter()
        .enumerate()
        .take(shards)
        .map(|(index, values)| format!("{{ values = [{values}], shard = \"s{index}\" }}"))
        .collect();
    lists.push(format!("{{ default = true, shard = \"s{}\" }}", shards - 1));
    lists.join(", ")
}
