//! What a check found, for people and for programs.

use std::fmt::{self, Write as _};

use serde::Serialize;

/// Everything a check found.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// The databases, with their servers.
    pub databases: Vec<DatabaseReport>,
    /// The catalog, if one is configured.
    pub catalog: Option<CatalogReport>,
    /// What must be repaired.
    pub problems: Vec<String>,
    /// What will do for now.
    pub warnings: Vec<String>,
}

/// The catalog.
#[derive(Debug, Serialize)]
pub struct CatalogReport {
    /// `host:port/database`
    pub address: String,
    /// Whether it answers; `uninitialised` if nothing has been written yet.
    pub state: &'static str,
    /// Its revision.
    pub revision: Option<i64>,
}

/// One database.
#[derive(Debug, Serialize)]
pub struct DatabaseReport {
    /// Its name.
    pub name: String,
    /// The version of the bucket map; none without a catalog.
    pub epoch: Option<u64>,
    /// Its shards in order.
    pub shards: Vec<ShardReport>,
    /// Its sharded and reference tables.
    pub tables: Vec<TableReport>,
    /// Where the file and the catalog differ.
    pub differences: Vec<String>,
}

/// One shard.
#[derive(Debug, Serialize)]
pub struct ShardReport {
    /// Its name.
    pub name: String,
    /// Its weight.
    pub weight: u32,
    /// Buckets it owns.
    pub buckets: usize,
    /// Its nodes in order.
    pub nodes: Vec<NodeReport>,
}

/// One node.
#[derive(Debug, Serialize)]
pub struct NodeReport {
    /// `host:port`
    pub address: String,
    /// The configured role.
    pub role: String,
    /// The zone, if configured.
    pub zone: Option<String>,
    /// `up` or `down`.
    pub state: &'static str,
    /// The server's version.
    pub version: Option<String>,
    /// Whether a replica streams.
    pub streaming: Option<bool>,
}

/// One table.
#[derive(Debug, Serialize)]
pub struct TableReport {
    /// Its name.
    pub name: String,
    /// How its rows are distributed.
    pub method: &'static str,
    /// The shard key.
    pub shard_key: Option<String>,
    /// The shard key's type, where it could be read.
    pub key_type: Option<&'static str>,
}

impl Report {
    /// Whether nothing must be repaired.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.problems.is_empty()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for database in &self.databases {
            writeln!(out, "{database}")?;
        }
        if let Some(catalog) = &self.catalog {
            writeln!(out, "catalog {} ({})", catalog.address, catalog.state)?;
        }
        for warning in &self.warnings {
            writeln!(out, "warning: {warning}")?;
        }
        for problem in &self.problems {
            writeln!(out, "problem: {problem}")?;
        }
        match self.problems.len() {
            0 => write!(out, "no problems"),
            1 => write!(out, "1 problem"),
            more => write!(out, "{more} problems"),
        }
    }
}

impl fmt::Display for DatabaseReport {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "database {}", self.name)?;
        if let Some(epoch) = self.epoch {
            write!(out, " (epoch {epoch})")?;
        }
        for shard in &self.shards {
            let ShardReport {
                name,
                weight,
                buckets,
                nodes,
            } = shard;
            write!(out, "\n  shard {name} (weight {weight}, {buckets} buckets)")?;
            for node in nodes {
                write!(out, "\n    {node}")?;
            }
        }
        for table in &self.tables {
            write!(out, "\n  table {table}")?;
        }
        for difference in &self.differences {
            write!(out, "\n  file and catalog differ: {difference}")?;
        }
        Ok(())
    }
}

impl fmt::Display for NodeReport {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} {} {}", self.address, self.role, self.state)?;
        if let Some(version) = &self.version {
            write!(out, ", PostgreSQL {version}")?;
        }
        if let Some(zone) = &self.zone {
            write!(out, ", zone {zone}")?;
        }
        match self.streaming {
            Some(true) => out.write_str(", streaming"),
            Some(false) => out.write_str(", not streaming"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for TableReport {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} {}", self.name, self.method)?;
        if let Some(key) = &self.shard_key {
            write!(out, " ({key}")?;
            if let Some(key_type) = self.key_type {
                write!(out, " {key_type}")?;
            }
            out.write_char(')')?;
        }
        Ok(())
    }
}
