//! TPC-H at scale 0.01 in three layouts over three shards: the tables are where they should be, and the router answers every
//! query as one PostgreSQL does.

use std::collections::BTreeSet;
use std::sync::{Mutex, OnceLock, PoisonError};

use switchyard_schema::Config;
use switchyard_tests::cluster::{Cluster, ClusterSpec, Node, RouterFile};
use switchyard_tests::{Client, Login, Reply, Router, RouterPorts};
use switchyard_tpch::{DDL, Layout, QUERIES, Query, tables};

const SCALE: f64 = 0.01;
const SHARDS: usize = 3;

static CLUSTER: OnceLock<Cluster> = OnceLock::new();
/// Layouts take turns on the same servers.
static TURN: Mutex<()> = Mutex::new(());

/// The tables in one layout, with a router in front.
struct Stand<'a> {
    cluster: &'a Cluster,
    router: Router,
}

/// Lays the tables out and does something with them.
#[track_caller]
fn on(layout: Layout, then: impl FnOnce(&Stand<'_>)) {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let spec = ClusterSpec::for_tests(SHARDS, 0).with_oracle();
    let cluster = CLUSTER.get_or_init(|| Cluster::start(spec).unwrap());
    let ports = RouterPorts::choose();
    let text = cluster.router_file(&RouterFile {
        listen: ports.port(),
        http: ports.http(),
        auth: "scram-sha-256",
        router: "",
        tables: &layout.tables(SHARDS),
    });
    let config = Config::parse(&text).unwrap_or_else(|errors| panic!("{errors:#?}\n{text}"));
    let names: Vec<&str> = tables(SCALE).iter().map(|table| table.name).collect();
    let before = format!("DROP TABLE IF EXISTS {}; {DDL}", names.join(", "));
    cluster.load(&config, &tables(SCALE), &before).unwrap();
    let router = Router::start(&text, ports);
    then(&Stand { cluster, router });
}

impl Stand<'_> {
    /// One value of every shard.
    fn of_shards(&self, sql: &str) -> Vec<String> {
        let primaries = self.cluster.shards().iter().map(|shard| &shard.primary);
        primaries
            .map(|primary| self.cluster.sql(primary.as_ref(), sql).unwrap())
            .collect()
    }

    fn router(&self) -> Client {
        Client::connect(&Login::new(self.router.port()))
    }

    fn oracle(&self) -> Client {
        Client::connect(&Login::new(self.oracle_node().port()))
    }

    fn oracle_node(&self) -> &dyn Node {
        self.cluster.oracle().unwrap()
    }

    /// Every table's rows are on the shards, each once, and no shard is without its share of line items.
    #[track_caller]
    fn has_each_row_once(&self) {
        for table in tables(SCALE) {
            let count = format!("SELECT count(*) FROM {}", table.name);
            let on_shards: Vec<usize> = self
                .of_shards(&count)
                .iter()
                .map(|count| count.parse().unwrap())
                .collect();
            let whole = self.cluster.sql(self.oracle_node(), &count).unwrap();
            assert_eq!(on_shards.iter().sum::<usize>().to_string(), whole);
            let share = on_shards.iter().min().unwrap();
            assert!(table.name != "lineitem" || *share > 6_000, "{on_shards:?}");
        }
    }

    /// The router finds the rows of a key on the one shard it looks at.
    #[track_caller]
    fn finds(&self, condition: &str) {
        let sql = format!("SELECT count(*) FROM {condition}");
        let found = self.router().run(&sql).succeeded().value();
        assert_eq!(found, self.oracle().run(&sql).succeeded().value(), "{sql}");
        assert_ne!(found, "0", "{sql}");
    }

    /// Every query, by the simple protocol and by the extended one in binary: columns, types, rows in their order, tag.
    #[track_caller]
    fn answers_as_one_postgresql(&self) {
        let (mut oracle, mut router) = (self.oracle(), self.router());
        let mut differences = Vec::new();
        for Query { number, sql } in QUERIES {
            for extended in [false, true] {
                let ask = |client: &mut Client| match extended {
                    false => client.run(sql),
                    true => client.extended(sql, &[], 1),
                };
                let (expected, found) = (ask(&mut oracle).succeeded(), ask(&mut router));
                if expected != found {
                    let protocol = if extended { "binary" } else { "simple" };
                    differences.push(format!(
                        "Q{number}, {protocol}\n{}",
                        difference(&expected, &found)
                    ));
                }
            }
        }
        assert!(
            differences.is_empty(),
            "{} answers differ:\n{}",
            differences.len(),
            differences.join("\n")
        );
    }
}

/// What is not the same in two answers.
fn difference(expected: &Reply, found: &Reply) -> String {
    if found.failure.is_some() {
        return format!("{:?}", found.failure);
    }
    if expected.columns != found.columns {
        return format!("{:?}\n{:?}", expected.columns, found.columns);
    }
    let rows = expected.texts().into_iter().zip(found.texts());
    match rows.into_iter().find(|(expected, found)| expected != found) {
        Some((expected, found)) => format!("{expected:?}\n{found:?}"),
        None => {
            let counts = (expected.rows.len(), found.rows.len());
            format!("{counts:?} rows, {:?} {:?}", expected.tag, found.tag)
        }
    }
}

const STRAY_LINES: &str = "SELECT count(*) FROM lineitem WHERE NOT EXISTS (SELECT FROM orders WHERE o_orderkey = l_orderkey)";

#[test]
fn line_items_with_their_orders() {
    on(Layout::Colocated, |stand| {
        stand.has_each_row_once();
        assert_eq!(stand.of_shards(STRAY_LINES), ["0"; SHARDS]);
        stand.finds("lineitem WHERE l_orderkey = 7");
        stand.finds("customer WHERE c_custkey = 42");
        stand.answers_as_one_postgresql();
    });
}

#[test]
fn every_table_by_a_key_that_colocates_nothing() {
    on(Layout::Scattered, |stand| {
        stand.has_each_row_once();
        for strays in stand.of_shards(STRAY_LINES) {
            assert!(strays.parse::<usize>().unwrap() > 4_000, "{strays}");
        }
        stand.finds("lineitem WHERE l_suppkey = 7");
        stand.finds("part WHERE p_size = 15");
        stand.finds("region WHERE r_name = 'ASIA'");
        stand.answers_as_one_postgresql();
    });
}

#[test]
fn ranges_of_dates() {
    on(Layout::Dates, |stand| {
        stand.has_each_row_once();
        let spans = |column: &str, table: &str| {
            stand.of_shards(&format!(
                "SELECT min({column}) || ' ' || max({column}) FROM {table}"
            ))
        };
        assert_eq!(
            spans("o_orderdate", "orders"),
            [
                "1992-01-01 1993-12-31",
                "1994-01-01 1995-12-31",
                "1996-01-01 1998-08-02"
            ]
        );
        assert_eq!(spans("l_shipdate", "lineitem")[1], "1994-05-14 1996-05-13");
        stand.finds("orders WHERE o_orderdate = '1996-01-02'");
        stand.answers_as_one_postgresql();
    });
}

/// How many rows each query has here.
const ROWS: [usize; 22] = [
    4, 4, 10, 5, 5, 1, 4, 2, 173, 20, 359, 2, 33, 1, 1, 296, 1, 2, 1, 1, 1, 7,
];

/// The columns, from 0, that the queries sort by whose ORDER BY could leave rows in any order.
const SORTED_BY: [(usize, &[usize]); 5] = [
    (3, &[1, 2]),
    (5, &[1]),
    (10, &[2]),
    (11, &[1]),
    (18, &[4, 3]),
];

/// One PostgreSQL runs them all, none finds nothing, and none leaves it to chance which rows come, or in which order.
#[test]
fn the_plain_server_has_one_answer_to_every_query() {
    on(Layout::Colocated, |stand| {
        let mut oracle = stand.oracle();
        let mut answer = |sql: &str| oracle.run(sql).succeeded().texts();
        assert_eq!(QUERIES.map(|query| answer(query.sql).len()), ROWS);
        for (number, columns) in SORTED_BY {
            let sql = QUERIES[number - 1].sql;
            let rows = answer(sql.split("\nlimit ").next().unwrap());
            let key = |row: &Vec<String>| -> Vec<String> {
                columns.iter().map(|&column| row[column].clone()).collect()
            };
            let keys: BTreeSet<Vec<String>> = rows.iter().map(key).collect();
            assert_eq!(keys.len(), rows.len(), "Q{number} has ties");
            assert!(rows.len() >= ROWS[number - 1]);
        }
    });
}
