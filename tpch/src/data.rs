//! The tables and their rows.

use std::fmt::{Display, Write};

use switchyard_cluster::Table;
use switchyard_schema::KeyType::{self, Bpchar, Date, Int4, Numeric, Varchar};
use tpchgen::generators::{
    CustomerGenerator, LineItemGenerator, NationGenerator, OrderGenerator, PartGenerator,
    PartSuppGenerator, RegionGenerator, SupplierGenerator,
};

/// The eight tables at a scale factor: at 1 there are 6,001,215 line items, about 1 GB.
#[must_use]
pub fn tables(scale: f64) -> Vec<Table<'static>> {
    // The generators make a table in one part.
    macro_rules! table {
        ($name:literal, $columns:ident, $generator:ident) => {
            Table {
                name: $name,
                columns: &$columns,
                rows: Box::new(move |row| lines($generator::new(scale, 1, 1).iter(), row)),
            }
        };
    }
    vec![
        table!("region", REGION, RegionGenerator),
        table!("nation", NATION, NationGenerator),
        table!("part", PART, PartGenerator),
        table!("supplier", SUPPLIER, SupplierGenerator),
        table!("partsupp", PARTSUPP, PartSuppGenerator),
        table!("customer", CUSTOMER, CustomerGenerator),
        table!("orders", ORDERS, OrderGenerator),
        table!("lineitem", LINEITEM, LineItemGenerator),
    ]
}

/// A row displays as TPC-H's own format: each value with a bar after it. No value has a bar, a tab or a backslash in it, so
/// that tabs instead of bars make it COPY's text format.
fn lines<T: Display>(rows: impl Iterator<Item = T>, line: &mut dyn FnMut(&str)) {
    let mut bars = String::new();
    for row in rows {
        bars.clear();
        // Writing to a string cannot fail.
        let _ = write!(bars, "{row}");
        line(&bars.strip_suffix('|').unwrap_or(&bars).replace('|', "\t"));
    }
}

type Columns<const N: usize> = [(&'static str, KeyType); N];

const REGION: Columns<3> = [
    ("r_regionkey", Int4),
    ("r_name", Bpchar),
    ("r_comment", Varchar),
];

const NATION: Columns<4> = [
    ("n_nationkey", Int4),
    ("n_name", Bpchar),
    ("n_regionkey", Int4),
    ("n_comment", Varchar),
];

const PART: Columns<9> = [
    ("p_partkey", Int4),
    ("p_name", Varchar),
    ("p_mfgr", Bpchar),
    ("p_brand", Bpchar),
    ("p_type", Varchar),
    ("p_size", Int4),
    ("p_container", Bpchar),
    ("p_retailprice", Numeric),
    ("p_comment", Varchar),
];

const SUPPLIER: Columns<7> = [
    ("s_suppkey", Int4),
    ("s_name", Bpchar),
    ("s_address", Varchar),
    ("s_nationkey", Int4),
    ("s_phone", Bpchar),
    ("s_acctbal", Numeric),
    ("s_comment", Varchar),
];

const PARTSUPP: Columns<5> = [
    ("ps_partkey", Int4),
    ("ps_suppkey", Int4),
    ("ps_availqty", Int4),
    ("ps_supplycost", Numeric),
    ("ps_comment", Varchar),
];

const CUSTOMER: Columns<8> = [
    ("c_custkey", Int4),
    ("c_name", Varchar),
    ("c_address", Varchar),
    ("c_nationkey", Int4),
    ("c_phone", Bpchar),
    ("c_acctbal", Numeric),
    ("c_mktsegment", Bpchar),
    ("c_comment", Varchar),
];

const ORDERS: Columns<9> = [
    ("o_orderkey", Int4),
    ("o_custkey", Int4),
    ("o_orderstatus", Bpchar),
    ("o_totalprice", Numeric),
    ("o_orderdate", Date),
    ("o_orderpriority", Bpchar),
    ("o_clerk", Bpchar),
    ("o_shippriority", Int4),
    ("o_comment", Varchar),
];

const LINEITEM: Columns<16> = [
    ("l_orderkey", Int4),
    ("l_partkey", Int4),
    ("l_suppkey", Int4),
    ("l_linenumber", Int4),
    ("l_quantity", Numeric),
    ("l_extendedprice", Numeric),
    ("l_discount", Numeric),
    ("l_tax", Numeric),
    ("l_returnflag", Bpchar),
    ("l_linestatus", Bpchar),
    ("l_shipdate", Date),
    ("l_commitdate", Date),
    ("l_receiptdate", Date),
    ("l_shipinstruct", Bpchar),
    ("l_shipmode", Bpchar),
    ("l_comment", Varchar),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_lines_of_copy_with_a_value_for_each_column() {
        for table in tables(0.001) {
            let mut rows = 0;
            (table.rows)(&mut |row| {
                rows += 1;
                assert_eq!(row.split('\t').count(), table.columns.len(), "{row}");
                assert!(!row.contains(['|', '\\', '\n']), "{row}");
            });
            assert!(rows > 0, "{}", table.name);
        }
    }

    #[test]
    fn scale_is_what_the_specification_says() {
        let counts: Vec<(&str, usize)> = tables(0.01)
            .iter()
            .map(|table| {
                let mut rows = 0;
                (table.rows)(&mut |_| rows += 1);
                (table.name, rows)
            })
            .collect();
        let expected = [
            ("region", 5),
            ("nation", 25),
            ("part", 2_000),
            ("supplier", 100),
            ("partsupp", 8_000),
            ("customer", 1_500),
            ("orders", 15_000),
            ("lineitem", 60_175),
        ];
        assert_eq!(counts, expected);
    }
}
