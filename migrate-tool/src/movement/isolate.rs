//! A key to a shard of its own: its bucket goes there, with the keys that share it, and all other buckets leave.

use switchyard_catalog::Layout;
use switchyard_router::config::Settings;
use switchyard_router::relations::Relations;
use switchyard_schema::{Bucket, BucketMap, Database, Key, Method, ShardIndex, Table};

use super::family::key_type;
use super::tables::refused;
use super::{Error, Pace, Report, Work, go, newcomer};

/// Moves a key's bucket to a shard, and all others away from there, or goes on with that.
///
/// # Errors
/// [`Error`].
pub(crate) async fn isolate(
    settings: &Settings,
    desired: &Database,
    (table, key, shard): (&str, &str, &str),
    pace: &Pace,
) -> Result<Report, Error> {
    let mut work = Work::open(settings, &desired.name).await?;
    let bucket = bucket(&work, table, key).await?;
    if desired.shard_index(shard).is_some() {
        newcomer::welcome(&mut work, desired).await?;
    }
    let known = work.known.clone();
    let to = known.database.shard_index(shard);
    let to = to.ok_or_else(|| Error::NoShard(shard.to_owned()))?;
    let target = |former: &Layout| Layout {
        buckets: isolated(&former.buckets, &known.database, bucket, to),
        ..former.clone()
    };
    let now = known.layout();
    let owners = target(&now).buckets.counts(known.database.shards.len());
    if owners.get(to.position()) != Some(&1) {
        return Err(Error::Shard {
            shard: shard.to_owned(),
            why: "there is no other with a weight that its buckets could go to".to_owned(),
        });
    }
    tracing::info!(
        table,
        key,
        bucket = bucket.number(),
        shard,
        "the bucket of a key gets a shard of its own"
    );
    match work.movement().await? {
        Some(movement) if movement.target != target(&movement.former) => {
            return Err(Error::Elsewhere(desired.name.clone()));
        }
        Some(_) => {}
        None => {
            work.lease.record((&now, &target(&now)), false).await?;
        }
    }
    go(work, pace).await
}

/// The bucket of a key.
async fn bucket(work: &Work<'_>, table: &str, key: &str) -> Result<Bucket, Error> {
    let known = &work.known;
    let mut tables = known.database.tables.iter();
    let is_meant = |found: &&Table| found.name.to_string() == table;
    let table = tables.find(is_meant).ok_or_else(|| Error::Table {
        table: table.to_owned(),
        why: "it is not in the catalog".to_owned(),
    })?;
    let shard_key = table.distribution.shard_key();
    match shard_key.map(|key| &key.method) {
        Some(Method::Hash) => {}
        Some(Method::Range(_) | Method::List(_)) => {
            let why = "give the key a shard in its ranges or lists in the file, and say `apply`";
            return Err(refused(table, why.to_owned()));
        }
        Some(Method::Modulo(_)) | None => {
            let why = "only keys of tables by hash, range and list can have a shard of their own";
            return Err(refused(table, why.to_owned()));
        }
    }
    let mut servers = work.servers(Some(&[0])).await?;
    let server = servers.first_mut().ok_or(Error::Unsteady)?;
    let found = server.introspect().await?;
    let relations = Relations::build(&known.database, &found, Some(&known.buckets));
    let key_type = key_type(table, &relations)?;
    let value = Key::from_text(key_type, key.as_bytes());
    let value =
        value.map_err(|_| refused(table, format!("\"{key}\" is no {}", key_type.name())))?;
    Ok(Bucket::of(Some(&value)))
}

/// The map by which a shard has one bucket and no other.
fn isolated(from: &BucketMap, known: &Database, bucket: Bucket, shard: ShardIndex) -> BucketMap {
    let mut others = Bucket::all().filter(|other| *other != bucket);
    if others.all(|other| from.owner(other) != shard) {
        return from.with(&[bucket], shard);
    }
    let mut weights = known.weights();
    if let Some((_, weight)) = weights.get_mut(shard.position()) {
        *weight = 0;
    }
    let names: Vec<&str> = weights.iter().map(|(name, _)| *name).collect();
    from.rebalance(&names, &weights).with(&[bucket], shard)
}
