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

    /// The `[[databases.tables]]` part of a configuration with so many shards.
    #[must_use]
    pub fn tables(self, shards: usize) -> String {
        let keys = match self {
            Layout::Colocated | Layout::Dates => OWN_KEYS,
            Layout::Scattered => SCATTERED_KEYS,
        };
        let mut text: String = keys
            .iter()
            .map(|(table, key)| by_hash(table, key))
            .collect();
        match self {
            Layout::Colocated => {
                text += &by_hash("orders", "o_orderkey");
                text += &by_hash("lineitem", "l_orderkey");
                text += "colocate_with = \"orders\"\n";
            }
            Layout::Scattered => {
                text += &by_hash("orders", "o_custkey");
                text += &by_hash("lineitem", "l_suppkey");
            }
            Layout::Dates => {
                text += &by_date("orders", "o_orderdate", "01-01", shards);
                text += &by_date("lineitem", "l_shipdate", "05-14", shards);
            }
        }
        text
    }
}

const OWN_KEYS: [(&str, &str); 6] = [
    ("region", "r_regionkey"),
    ("nation", "n_nationkey"),
    ("part", "p_partkey"),
    ("supplier", "s_suppkey"),
    ("partsupp", "ps_partkey"),
    ("customer", "c_custkey"),
];

const SCATTERED_KEYS: [(&str, &str); 6] = [
    ("region", "r_name"),
    ("nation", "n_regionkey"),
    ("part", "p_size"),
    ("supplier", "s_nationkey"),
    ("partsupp", "ps_availqty"),
    ("customer", "c_mktsegment"),
];

fn by_hash(table: &str, key: &str) -> String {
    format!("\n[[databases.tables]]\nname = {table:?}\nshard_key = {key:?}\nmethod = \"hash\"\n")
}

/// The seven years of the data in as many ranges as there are shards, each but the last ending on `day` of a year.
fn by_date(table: &str, key: &str, day: &str, shards: usize) -> String {
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
    format!(
        "\n[[databases.tables]]\nname = {table:?}\nshard_key = {key:?}\nmethod = \"range\"\n\
         ranges = [ {ranges}{{ shard = \"s{last}\" }} ]\n"
    )
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
