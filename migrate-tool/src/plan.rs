//! What would move: the configuration file, the desired state, against the catalog, the actual one.
//!
//! Pure: the same file and the same catalog give the same plan. Hash keys are compared bucket by bucket; as long as shards
//! and weights are those of the catalog nothing moves, and when they are not, the fewest buckets do
//! ([`BucketMap::rebalance`]). Other methods are compared as written.

use std::collections::BTreeMap;

use serde::Serialize;
use switchyard_catalog::{CatalogDatabase, Snapshot, differences};
use switchyard_schema::{
    Bucket, BucketMap, Config, Database, Distribution, ListEntry, Method, RangeEntry, Shard,
    ShardIndex, Table,
};

use crate::movement::Survey;

/// What the file asks for, and what has to change for it.
#[derive(Debug, Serialize, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Whether there was a catalog to compare with.
    pub compared: bool,
    /// The file's databases, then those only the catalog has.
    pub databases: Vec<DatabasePlan>,
}

/// One database of the plan.
#[derive(Debug, Serialize, PartialEq, Eq)]
pub(crate) struct DatabasePlan {
    /// Its name.
    pub name: String,
    /// How it differs from the catalog as a whole.
    pub change: Change,
    /// The version of the bucket map compared with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u64>,
    /// The file's shards, then those only the catalog has.
    pub shards: Vec<ShardPlan>,
    /// The file's tables, then those only the catalog has.
    pub tables: Vec<TablePlan>,
    /// Everything that differs from the catalog, one sentence each.
    pub differences: Vec<String>,
    /// What has to move, by source and target.
    pub moves: Vec<Move>,
    /// How many buckets move in all.
    pub buckets_to_move: usize,
    /// What that would take, and what speaks against it; none if there is nothing to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub survey: Option<Survey>,
}

/// How something in the file relates to the catalog.
#[derive(Debug, Clone, Copy, Serialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Change {
    /// The same in both, or there is no catalog.
    None,
    /// Only in the file.
    New,
    /// Only in the catalog.
    Gone,
    /// Different in the two.
    Changed,
}

/// One shard of the plan.
#[derive(Debug, Serialize, PartialEq, Eq)]
pub(crate) struct ShardPlan {
    /// Its name.
    pub name: String,
    /// How it differs: `changed` is another weight.
    pub change: Change,
    /// Its weight in the file; 0 if only the catalog has it.
    pub weight: u32,
    /// How many buckets it has now; none without a catalog to ask.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub buckets_now: Option<usize>,
    /// How many buckets it is to have.
    pub buckets: usize,
}

/// One table of the plan.
#[derive(Debug, Serialize, PartialEq, Eq)]
pub(crate) struct TablePlan {
    /// Its name.
    pub name: String,
    /// How it differs: `changed` is another distribution.
    pub change: Change,
    /// Where its rows are to be.
    pub placement: String,
    /// Where its rows are, if that differs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub placement_now: Option<String>,
}

/// Buckets that move from one shard to another.
#[derive(Debug, Serialize, PartialEq, Eq)]
pub(crate) struct Move {
    /// The shard that has them.
    pub from: String,
    /// The shard that is to have them.
    pub to: String,
    /// How many they are.
    pub count: usize,
    /// Which they are: `0-3,17`.
    pub buckets: String,
}

impl Plan {
    /// Whether nothing is known that speaks against it.
    pub(crate) fn is_possible(&self) -> bool {
        let surveys = self
            .databases
            .iter()
            .filter_map(|database| database.survey.as_ref());
        surveys.into_iter().all(|survey| survey.against.is_empty())
    }
}

/// The plan for a whole file. `actual` is what the catalog holds; `None` if there is no catalog.
pub(crate) fn plan(config: &Config, actual: Option<&Snapshot>) -> Plan {
    let found = |name: &str| actual.and_then(|actual| actual.databases.get(name));
    let compare = |database: &Database| match found(&database.name) {
        Some(actual) => changed(database, actual),
        None => fresh(database, actual.is_some()),
    };
    let mut databases: Vec<DatabasePlan> = config.databases.iter().map(compare).collect();
    let known = actual.into_iter().flat_map(|actual| &actual.databases);
    let gone = known.filter(|(name, _)| config.database(name).is_none());
    databases.extend(gone.map(|(name, actual)| DatabasePlan {
        name: name.clone(),
        change: Change::Gone,
        epoch: Some(actual.epoch),
        shards: Vec::new(),
        tables: Vec::new(),
        differences: Vec::new(),
        moves: Vec::new(),
        buckets_to_move: 0,
        survey: None,
    }));
    Plan {
        compared: actual.is_some(),
        databases,
    }
}

/// A database that is nowhere yet, or of which nothing is known.
fn fresh(database: &Database, compared: bool) -> DatabasePlan {
    let change = if compared { Change::New } else { Change::None };
    let counts = BucketMap::place(&database.weights()).counts(database.shards.len());
    let shard = |(shard, count): (&Shard, usize)| ShardPlan {
        name: shard.name.clone(),
        change,
        weight: shard.weight,
        buckets_now: None,
        buckets: count,
    };
    let table = |table: &Table| TablePlan {
        name: table.name.to_string(),
        change,
        placement: placement(&table.distribution, database),
        placement_now: None,
    };
    DatabasePlan {
        name: database.name.clone(),
        change,
        epoch: None,
        shards: database.shards.iter().zip(counts).map(shard).collect(),
        tables: database.tables.iter().map(table).collect(),
        differences: Vec::new(),
        moves: Vec::new(),
        buckets_to_move: 0,
        survey: None,
    }
}

/// A database that both the file and the catalog have.
fn changed(desired: &Database, actual: &CatalogDatabase) -> DatabasePlan {
    let target = target(desired, actual);
    let moves = moves(desired, actual, &target);
    let differences = differences(desired, &actual.database);
    let same = differences.is_empty() && moves.is_empty();
    DatabasePlan {
        name: desired.name.clone(),
        change: if same { Change::None } else { Change::Changed },
        epoch: Some(actual.epoch),
        shards: shards(desired, actual, &target),
        tables: tables(desired, &actual.database),
        differences,
        buckets_to_move: moves.iter().map(|step| step.count).sum(),
        moves,
        survey: None,
    }
}

/// The bucket map the file asks for, its owners numbered as in the file.
fn target(desired: &Database, actual: &CatalogDatabase) -> BucketMap {
    let before: Vec<&str> = names(&actual.database);
    let mut now = actual.database.weights();
    let mut wanted = desired.weights();
    now.sort_unstable();
    wanted.sort_unstable();
    if now != wanted {
        return actual.buckets.rebalance(&before, &desired.weights());
    }
    // The same shards, perhaps in another order: the map stays as it is, even where shares are not exact.
    let owner = |owner: &ShardIndex| {
        let name = before.get(owner.position());
        name.and_then(|name| desired.shard_index(name))
            .unwrap_or(ShardIndex::FIRST)
    };
    let owners = actual.buckets.owners().iter().map(owner).collect();
    BucketMap::from_owners(owners, desired.shards.len())
        .unwrap_or_else(|_| BucketMap::place(&desired.weights()))
}

fn names(database: &Database) -> Vec<&str> {
    let names = database.shards.iter().map(|shard| shard.name.as_str());
    names.collect()
}

/// What moves, by source and target.
fn moves(desired: &Database, actual: &CatalogDatabase, target: &BucketMap) -> Vec<Move> {
    let mut moves: BTreeMap<(&str, &str), Vec<u16>> = BTreeMap::new();
    for bucket in Bucket::all() {
        let from = actual.database.shard(actual.buckets.owner(bucket));
        let to = desired.shard(target.owner(bucket));
        if let (Some(from), Some(to)) = (from, to)
            && from.name != to.name
        {
            let step = moves.entry((&from.name, &to.name)).or_default();
            step.push(bucket.number());
        }
    }
    let step = |((from, to), buckets): ((&str, &str), Vec<u16>)| Move {
        from: from.to_owned(),
        to: to.to_owned(),
        count: buckets.len(),
        buckets: ranges_of(&buckets),
    };
    moves.into_iter().map(step).collect()
}

/// Ascending numbers as `0-3,17`.
fn ranges_of(numbers: &[u16]) -> String {
    let run = |run: &[u16]| match run {
        [first, .., last] => format!("{first}-{last}"),
        [only] => only.to_string(),
        [] => String::new(),
    };
    let runs = numbers.chunk_by(|a, b| a + 1 == *b).map(run);
    runs.collect::<Vec<_>>().join(",")
}

fn shards(desired: &Database, actual: &CatalogDatabase, target: &BucketMap) -> Vec<ShardPlan> {
    let now = actual.buckets.counts(actual.database.shards.len());
    let next = target.counts(desired.shards.len());
    let wanted = desired.shards.iter().zip(next).map(|(shard, buckets)| {
        let before = actual.database.shard_index(&shard.name);
        let weight = before.and_then(|index| actual.database.shard(index));
        ShardPlan {
            name: shard.name.clone(),
            change: match weight.map(|shard| shard.weight) {
                None => Change::New,
                Some(weight) if weight != shard.weight => Change::Changed,
                Some(_) => Change::None,
            },
            weight: shard.weight,
            buckets_now: Some(before.map_or(0, |index| now[index.position()])),
            buckets,
        }
    });
    let gone = actual.database.shards.iter().zip(&now);
    let gone = gone.filter(|(shard, _)| desired.shard_index(&shard.name).is_none());
    let gone = gone.map(|(shard, count)| ShardPlan {
        name: shard.name.clone(),
        change: Change::Gone,
        weight: 0,
        buckets_now: Some(*count),
        buckets: 0,
    });
    wanted.chain(gone).collect()
}

fn tables(desired: &Database, actual: &Database) -> Vec<TablePlan> {
    let wanted = desired.tables.iter().map(|table| {
        let wanted = placement(&table.distribution, desired);
        let now = actual.table(&table.name);
        let now = now.map(|now| placement(&now.distribution, actual));
        let change = match &now {
            None => Change::New,
            Some(now) if *now != wanted => Change::Changed,
            Some(_) => Change::None,
        };
        TablePlan {
            name: table.name.to_string(),
            change,
            placement: shortened(wanted),
            placement_now: now.filter(|_| change == Change::Changed).map(shortened),
        }
    });
    let gone = actual.tables.iter();
    let gone = gone.filter(|table| desired.table(&table.name).is_none());
    let gone = gone.map(|table| TablePlan {
        name: table.name.to_string(),
        change: Change::Gone,
        placement: "unsharded".to_owned(),
        placement_now: Some(placement(&table.distribution, actual)),
    });
    wanted.chain(gone).collect()
}

/// The words that say a placement, where they are too many to be read: half-way to another number of remainders there are thousands.
fn shortened(words: String) -> String {
    const MOST: usize = 400;
    match words.char_indices().nth(MOST) {
        Some((end, _)) => format!("{} …", &words[..end]),
        None => words,
    }
}

/// Where a table's rows are, in words. Two placements are the same exactly when the words are.
fn placement(distribution: &Distribution, database: &Database) -> String {
    let name = |shard: ShardIndex| database.shard(shard).map_or("?", |shard| &shard.name);
    let Some(key) = distribution.shard_key() else {
        return "reference: whole on every shard".to_owned();
    };
    let range = |range: &RangeEntry| match &range.below {
        Some(end) => format!("below {end} on {}", name(range.shard)),
        None => format!("the rest on {}", name(range.shard)),
    };
    let list = |list: &ListEntry| {
        let mut values: Vec<String> = list.values.iter().map(ToString::to_string).collect();
        if list.default {
            values.push("all others".to_owned());
        }
        format!("{} on {}", values.join(", "), name(list.shard))
    };
    let parts: Vec<String> = match &key.method {
        Method::Hash => Vec::new(),
        Method::Modulo(shards) => shards.iter().map(|shard| name(*shard).to_owned()).collect(),
        Method::Range(ranges) => ranges.iter().map(range).collect(),
        Method::List(lists) => lists.iter().map(list).collect(),
    };
    let parts = match parts.as_slice() {
        [] => String::new(),
        parts => format!(": {}", parts.join("; ")),
    };
    format!("{} of {}{parts}", key.method.name(), key.column)
}

#[cfg(test)]
mod tests;
