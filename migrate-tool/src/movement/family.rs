//! Tables that move together: their equal keys are on the same shard, before, after, and at every moment in between.

use std::collections::BTreeMap;

use switchyard_catalog::{CatalogDatabase, Layout};
use switchyard_router::backend::TextRow;
use switchyard_router::relations::{Introspection, Relations};
use switchyard_schema::{KeyFamily, KeyType, Keys, Method, ShardIndex, ShardKey, Shift, Table};

use super::tables::{self, Moving, refused};
use super::{Error, index};
use crate::servers::Server;

/// Tables that move together.
#[derive(Debug)]
pub(super) struct Family {
    pub(super) tables: Vec<Moving>,
    /// Their names, in the order in which they are locked.
    pub(super) order: Vec<String>,
    /// Their columns.
    pub(super) shapes: Vec<TextRow>,
    /// About how many rows there would be if they were as many for each key everywhere as on a shard. Statistics do not follow what moves: they are looked at once.
    densities: BTreeMap<ShardIndex, f64>,
    /// How their keys tell shards: the buckets, or the method that each of them has.
    is_hash: bool,
}

/// What decides where a table's rows are now, and where they are to be. Tables of which it is the same move together.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    Hash,
    Method(KeyFamily, Method, Method),
}

impl Kind {
    fn moves(&self, buckets_move: bool) -> bool {
        match self {
            Self::Hash => buckets_move,
            Self::Method(_, now, target) => now != target,
        }
    }
}

impl Family {
    /// The families that a movement is about, once it is known what speaks against moving them.
    pub(super) async fn all(
        known: &CatalogDatabase,
        target: &Layout,
        servers: &mut [Server],
    ) -> Result<(Vec<Family>, Vec<Error>), Error> {
        let Some(server) = servers.first_mut() else {
            return Ok((Vec::new(), Vec::new()));
        };
        let found = server.introspect().await?;
        let relations = Relations::build(&known.database, &found, Some(&known.buckets));
        let aimed = known.aimed(target);
        let (mut against, mut kinds) = (Vec::new(), Vec::new());
        for table in &known.database.tables {
            let Some(key) = table.distribution.shard_key() else {
                continue;
            };
            match key_type(table, &relations) {
                Ok(key_type) => {
                    kinds.push((table, key, key_type, kind(table, key, key_type, &aimed)))
                }
                Err(error) => against.push(error),
            }
        }
        let moves = |kind: &Kind| kind.moves(*known.buckets != target.buckets);
        for (table, other) in referring(&found, &kinds) {
            if moves(&table.3) || moves(&other.3) {
                let why = format!(
                    "it refers to table {}, which is to be elsewhere",
                    other.0.name
                );
                against.push(refused(table.0, why));
            }
        }
        let mut families: Vec<(Kind, Family)> = Vec::new();
        for (table, key, key_type, kind) in kinds.into_iter().filter(|(.., kind)| moves(kind)) {
            let moving = Moving::look(table, (key, key_type), servers, &mut against).await?;
            match families.iter_mut().find(|(other, _)| *other == kind) {
                Some((_, family)) => family.tables.push(moving),
                None => {
                    let family = Family {
                        tables: vec![moving],
                        order: Vec::new(),
                        shapes: Vec::new(),
                        densities: BTreeMap::new(),
                        is_hash: kind == Kind::Hash,
                    };
                    families.push((kind, family));
                }
            }
        }
        let mut families: Vec<Family> = families.into_iter().map(|(_, family)| family).collect();
        for family in &mut families {
            let names = family.tables.iter().map(|table| table.sql.clone());
            family.order = names.collect();
        }
        if let Some(server) = servers.first_mut() {
            for family in &mut families {
                family.shapes = tables::shapes(&family.tables, server).await?;
            }
        }
        for family in &families {
            if let Err(error) = family.left(&known.layout(), &aimed) {
                against.push(error);
            }
        }
        Ok((families, against))
    }

    /// About how many rows there would be if all shards were like this one, which has such a part of all keys.
    pub(super) async fn density(&mut self, source: &mut Server, part: f64) -> Result<f64, Error> {
        if let Some(known) = self.densities.get(&source.shard) {
            return Ok(*known);
        }
        let there = index::estimate(source, &self.tables).await?;
        let density = there / part.max(f64::MIN_POSITIVE);
        self.densities.insert(source.shard, density);
        Ok(density)
    }

    /// What is left to move.
    pub(super) fn left(&self, now: &Layout, target: &Layout) -> Result<Vec<Shift>, Error> {
        if self.is_hash {
            return Ok(now.buckets.shifts(&target.buckets));
        }
        let Some(table) = self.tables.first() else {
            return Ok(Vec::new());
        };
        let methods = now.methods.get(&table.name);
        let methods = methods.zip(target.methods.get(&table.name));
        let (now, target) = methods.ok_or(Error::Unsteady)?;
        let left = now.shifts(target, table.key_type);
        left.map_err(|error| table.refused(&error.to_string()))
    }

    /// The layout once some keys have moved.
    pub(super) fn after(&self, now: &Layout, shift: &Shift) -> Result<Layout, Error> {
        let mut next = now.clone();
        if let Keys::Buckets(buckets) = &shift.keys {
            next.buckets = now.buckets.with(buckets, shift.to);
            return Ok(next);
        }
        for table in &self.tables {
            let method = next.methods.get_mut(&table.name).ok_or(Error::Unsteady)?;
            let moved = method.with(&shift.keys, shift.to, table.key_type);
            *method = moved.map_err(|_| Error::Unsteady)?;
        }
        Ok(next)
    }
}

fn kind(table: &Table, key: &ShardKey, key_type: KeyType, aimed: &Layout) -> Kind {
    match aimed.methods.get(&table.name) {
        Some(target) => Kind::Method(key_type.family(), key.method.clone(), target.clone()),
        None => Kind::Hash,
    }
}

/// The type of a table's shard key, as the first shard has it.
pub(super) fn key_type(table: &Table, relations: &Relations) -> Result<KeyType, Error> {
    let problem = relations
        .problems()
        .iter()
        .find(|problem| problem.table == table.name);
    if let Some(problem) = problem {
        return Err(refused(table, problem.message.clone()));
    }
    let relation = relations.get(&table.name.schema, &table.name.name);
    let sharding = relation.and_then(|relation| relation.sharding());
    match sharding {
        Some(sharding) => Ok(sharding.map.key_type()),
        None => Err(refused(table, "it is not on the first shard".to_owned())),
    }
}

type Known<'a> = (&'a Table, &'a ShardKey, KeyType, Kind);

/// Tables that refer to one of another kind: rows that refer to each other would come to be on different shards.
fn referring<'k, 'a>(
    found: &Introspection,
    kinds: &'k [Known<'a>],
) -> Vec<(&'k Known<'a>, &'k Known<'a>)> {
    let table = |oid: i64| {
        let row = found.relations.iter().find(|row| row.oid == oid)?;
        kinds
            .iter()
            .find(|(table, ..)| table.name.schema == row.schema && table.name.name == row.name)
    };
    let pairs = found
        .foreign_keys
        .iter()
        .filter_map(|key| table(key.from).zip(table(key.to)));
    pairs.filter(|(from, to)| from.3 != to.3).collect()
}
