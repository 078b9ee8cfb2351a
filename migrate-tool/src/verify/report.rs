//! What was found, for people and as JSON.

use std::fmt::{self, Display, Formatter};

use serde::Serialize;

/// Everything that was looked at.
#[derive(Debug, Default, Serialize, PartialEq, Eq)]
pub(crate) struct Report {
    /// In the file's order.
    pub databases: Vec<DatabaseReport>,
}

/// One database.
#[derive(Debug, Serialize, PartialEq, Eq)]
pub(crate) struct DatabaseReport {
    /// Its name.
    pub name: String,
    /// The version of the bucket map that rows are compared with; none without a catalog.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u64>,
    /// Its sharded tables and its reference tables.
    pub tables: Vec<TableReport>,
}

/// One table.
#[derive(Debug, Serialize, PartialEq, Eq)]
pub(crate) struct TableReport {
    /// Its name.
    pub name: String,
    /// Rows: of all shards together, or of one copy.
    pub rows: u64,
    /// What is wrong with them.
    pub findings: Vec<Finding>,
}

/// Rows that are not where they should be, or not what they should be.
#[derive(Debug, Serialize, PartialEq, Eq)]
#[serde(tag = "what", rename_all = "lowercase")]
pub(crate) enum Finding {
    /// A shard has rows that another one owns: no client sees them.
    Misplaced {
        /// Where they are.
        shard: String,
        /// Where they belong.
        owner: String,
        /// How many.
        rows: u64,
        /// Some of their keys.
        keys: Vec<String>,
    },
    /// A copy of a reference table has not the rows that the first shard's has.
    Different {
        /// Whose copy.
        shard: String,
        /// Rows that are only on the first shard.
        missing: u64,
        /// Rows that are only here.
        extra: u64,
        /// Some of both.
        examples: Vec<String>,
    },
}

impl Report {
    /// Whether nothing is wrong.
    pub(crate) fn is_clean(&self) -> bool {
        let mut tables = self.databases.iter().flat_map(|database| &database.tables);
        tables.all(|table| table.findings.is_empty())
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for database in &self.databases {
            write!(f, "database {}", database.name)?;
            match database.epoch {
                Some(epoch) => writeln!(f, ", by epoch {epoch} of the catalog")?,
                None => writeln!(f, ", by the file")?,
            }
            for TableReport {
                name,
                rows,
                findings,
            } in &database.tables
            {
                let well = if findings.is_empty() {
                    ", all well"
                } else {
                    ""
                };
                writeln!(f, "  {name}: {rows} rows{well}")?;
                findings
                    .iter()
                    .try_for_each(|finding| writeln!(f, "    {finding}"))?;
            }
        }
        match self.is_clean() {
            true => writeln!(f, "Every row is where it belongs."),
            false => writeln!(f, "Some rows are wrong."),
        }
    }
}

impl Display for Finding {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Finding::Misplaced {
                shard,
                owner,
                rows,
                keys,
            } => write!(
                f,
                "{rows} rows of shard {owner} are on shard {shard}: {}",
                keys.join(", ")
            ),
            Finding::Different {
                shard,
                missing,
                extra,
                examples,
            } => write!(
                f,
                "shard {shard} lacks {missing} rows of the first shard's, and has {extra} others: {}",
                examples.join(" ")
            ),
        }
    }
}
