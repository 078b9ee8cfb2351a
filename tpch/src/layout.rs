//! How the tables lie on shards.

use std::fmt::Write;

/// A way to distribute the tables over shards named `s0`, `s1`, …
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// Line items with their orders, every other table by its own key.
    Colocated,
    /// Every table by a column that no query joins to the shard key of another table: no join is colocated. The keys are of
    /// one type and map as far as there are such columns, so that rows may be on the shard that an equal key of another
    /// table says, but by chance only.
    Scattered,
    /// Line items by ranges of the date they were shipped, orders of the date they were placed, with other bounds; every
    /// other table by its own key.
    Dates,
}

impl Layout {
    /// All of them.
    pub const ALL: [Layout; 3] = [Layout::Colocated, Layout::Scattered, Layout::Dates];

    /// The column that decides where a row is, for every table.
    #[must_use]
    pub fn shard_keys(self) -> [(&'static str, &'static str); 8] {
        let (orders, lineitem) = match self {
            Layout::Colocated => ("o_orderkey", "l_orderkey"),
            Layout::Scattered => ("o_custkey", "l_suppkey"),
            Layout::Dates => ("o_orderdate", "l_shipdate"),
        };
        let [region, nation, part, supplier, partsupp, customer] = match self {
            Layout::Colocated | Layout::Dates => OWN_KEYS,
            Layout::Scattered => SCATTERED_KEYS,
        };
        [
            ("region", region),
            ("nation", nation),
            ("part", part),
            ("supplier", supplier),
            ("partsupp", partsupp),
            ("customer", customer),
            ("orders", orders),
            ("lineitem", lineitem),
        ]
    }

    /// The `[[databases.tables]]` part of a configuration with so many shards.
    #[must_use]
    pub fn tables(self, shards: usize) -> String {
        let table = |(table, key): (&str, &str)| {
            let how = match (self, table) {
                (Layout::Colocated, "lineitem") => {
                    "method = \"hash\"\ncolocate_with = \"orders\"\n".to_owned()
                }
                (Layout::Dates, "orders") => by_date("01-01", shards),
                (Layout::Dates, "lineitem") => by_date("05-14", shards),
                _ => "method = \"hash\"\n".to_owned(),
            };
            format!("\n[[databases.tables]]\nname = {table:?}\nshard_key = {key:?}\n{how}")
        };
        self.shard_keys().into_iter().map(table).collect()
    }
}

const OWN_KEYS: [&str; 6] = [
    "r_regionkey",
    "n_nationkey",
    "p_partkey",
    "s_suppkey",
    "ps_partkey",
    "c_custkey",
];

const SCATTERED_KEYS: [&str; 6] = [
    "r_name",
    "n_regionkey",
    "p_size",
    "s_nationkey",
    "ps_availqty",
    "c_mktsegment",
];

/// The seven years of the data in as many ranges as there are shards, each but the last ending on `day` of a year.
fn by_date(day: &str, shards: usize) -> String {
    let mut ranges = String::new();
    for shard in 1..shards {
        let year = 1992 + 7 * shard / shards;
        // Writing to a string cannot fail.
        let _ = write!(
            ranges,
            "{{ below = \"{year}-{day}\", shard = \"s{}\" }}, ",
            shard - 1
        );
    }
    let last = shards.saturating_sub(1);
    format!("method = \"range\"\nranges = [ {ranges}{{ shard = \"s{last}\" }} ]\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_split_between_all_shards() {
        let ranges = |shards| {
            let text = Layout::Dates.tables(shards);
            let lines = text.lines().filter(|line| line.starts_with("ranges"));
            lines.map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(ranges(1)[0], r#"ranges = [ { shard = "s0" } ]"#);
        assert_eq!(
            ranges(3),
            [
                r#"ranges = [ { below = "1994-01-01", shard = "s0" }, { below = "1996-01-01", shard = "s1" }, { shard = "s2" } ]"#,
                r#"ranges = [ { below = "1994-05-14", shard = "s0" }, { below = "1996-05-14", shard = "s1" }, { shard = "s2" } ]"#,
            ]
        );
    }
}
