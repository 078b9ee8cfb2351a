//! Loading the shop: every row straight to the shard its key says, all shards at the same time.

use std::collections::BTreeMap;

use switchyard_cluster::{Cluster, Node};
use switchyard_schema::{
    Collation, Config, Database, Distribution, Key, KeyMap, KeyType, TableName,
};

use super::DemoError;
use super::shop::{DDL, Shop, Table};

/// Makes the tables and loads the rows: on the shards as `config` distributes them, and whole on the plain server if the
/// cluster has one. Says how many rows there are.
pub fn load(cluster: &Cluster, config: &Config, shop: &Shop) -> Result<usize, DemoError> {
    fill(cluster, config, shop, DDL)
}

/// Runs `before` on every primary and the plain server, then loads the rows as [`load`] does.
pub fn fill(
    cluster: &Cluster,
    config: &Config,
    shop: &Shop,
    before: &str,
) -> Result<usize, DemoError> {
    let database = config
        .database(&cluster.spec().database)
        .ok_or(DemoError::NoDatabase)?;
    let (portions, rows) = portions(database, cluster.shards().len(), shop)?;
    std::thread::scope(|scope| {
        let shards = cluster.shards().iter().map(|shard| shard.primary.as_ref());
        let threads: Vec<_> = shards
            .chain(cluster.oracle())
            .zip(&portions)
            .map(|(node, portion)| scope.spawn(move || fill_server(cluster, node, portion, before)))
            .collect();
        threads
            .into_iter()
            .try_for_each(|thread| match thread.join() {
                Ok(filled) => filled,
                Err(panic) => std::panic::resume_unwind(panic),
            })
    })?;
    Ok(rows)
}

/// Makes the tables with all rows on one server.
pub fn load_whole(cluster: &Cluster, node: &dyn Node, shop: &Shop) -> Result<(), DemoError> {
    let lines = |table: Table| {
        let mut lines = Vec::new();
        shop.rows(table, |row| push_line(&mut lines, row));
        (table, lines)
    };
    let portion: Portion = Table::ALL.into_iter().map(lines).collect();
    fill_server(cluster, node, &portion, DDL)
}

/// What one server gets: each table's lines, in loading order.
type Portion = Vec<(Table, Vec<u8>)>;

fn fill_server(
    cluster: &Cluster,
    node: &dyn Node,
    portion: &Portion,
    before: &str,
) -> Result<(), DemoError> {
    cluster.sql(node, before)?;
    for (table, lines) in portion {
        cluster.copy_in(node, table.name(), lines)?;
    }
    cluster.sql(node, "ANALYZE").map(drop)?;
    Ok(())
}

fn push_line(lines: &mut Vec<u8>, row: &str) {
    lines.extend_from_slice(row.as_bytes());
    lines.push(b'\n');
}

/// One portion per shard, and last one with everything.
fn portions(
    database: &Database,
    shards: usize,
    shop: &Shop,
) -> Result<(Vec<Portion>, usize), DemoError> {
    let mut portions: Vec<Portion> = vec![Portion::new(); shards + 1];
    let mut rows = 0;
    for table in Table::ALL {
        let place = Place::of(table, database)?;
        let mut lines: Vec<Vec<u8>> = vec![Vec::new(); shards + 1];
        let mut failed = None;
        shop.rows(table, |row| {
            rows += 1;
            let mut give = |server: usize| push_line(&mut lines[server], row);
            give(shards);
            match place.shard(row) {
                Ok(Some(shard)) => give(shard),
                Ok(None) => (0..shards).for_each(give),
                Err(error) => failed = Some(error),
            }
        });
        if let Some(error) = failed {
            return Err(error);
        }
        for (portion, lines) in portions.iter_mut().zip(lines) {
            portion.push((table, lines));
        }
    }
    Ok((portions, rows))
}

/// Where a table's rows go.
enum Place {
    Everywhere,
    FirstShard,
    ByKey(KeyMap),
}

impl Place {
    fn of(table: Table, database: &Database) -> Result<Place, DemoError> {
        let name = TableName::new("public", table.name());
        let types: BTreeMap<&str, KeyType> = [
            ("users", KeyType::Int8),
            ("products", KeyType::Int4),
            ("orders", KeyType::Int8),
            ("order_items", KeyType::Int8),
            ("events", KeyType::Timestamp),
        ]
        .into();
        match (
            database.table(&name).map(|table| &table.distribution),
            types.get(table.name()),
        ) {
            (Some(Distribution::Reference), _) => Ok(Place::Everywhere),
            (Some(Distribution::Sharded(key)), Some(&key_type)) => Ok(Place::ByKey(
                KeyMap::resolve(key, key_type, Collation::Bytes, database, None)?,
            )),
            (Some(Distribution::Sharded(_)) | None, _) => Ok(Place::FirstShard),
        }
    }

    /// The shard of a line whose first column is the key; none: all of them.
    fn shard(&self, line: &str) -> Result<Option<usize>, DemoError> {
        match self {
            Place::Everywhere => Ok(None),
            Place::FirstShard => Ok(Some(0)),
            Place::ByKey(map) => {
                let key = line.split('\t').next().unwrap_or_default();
                let key = Key::from_text(map.key_type(), key.as_bytes())?;
                Ok(Some(map.shard_of(Some(&key))?.position()))
            }
        }
    }
}
