//! Rows that are given to a statement by parameters: an array for each column, and of those that not every shard needs, parts.

use std::collections::HashMap;
use std::ops::Range;

use bytes::Bytes;
use switchyard_schema::{ShardIndex, ShardSet};

use super::arrays::{elements, some_of};
use crate::plan::bind_join::BindJoin;
use crate::plan::key_shards;
use crate::plan::needed::Needed;

/// Arrays that are given with a statement, numbered after the client's parameters.
#[derive(Debug, Clone, Default)]
pub(crate) struct GivenRows {
    all: Vec<Option<Bytes>>,
    /// What these shards need of them.
    parts: Vec<(ShardIndex, Vec<Option<Bytes>>)>,
}

impl GivenRows {
    /// These, to all shards.
    pub(crate) fn new(arrays: Vec<Option<Bytes>>) -> Self {
        Self {
            all: arrays,
            parts: Vec::new(),
        }
    }

    /// Whether nothing is given.
    pub(crate) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Gives nothing any more.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// All of them.
    pub(crate) fn all(&self) -> &[Option<Bytes>] {
        &self.all
    }

    /// What a shard is given.
    pub(crate) fn on(&self, shard: ShardIndex) -> &[Option<Bytes>] {
        let part = self.parts.iter().find(|(own, _)| *own == shard);
        part.map_or(&self.all, |(_, arrays)| arrays)
    }

    /// Puts arrays in the places from this one on.
    pub(crate) fn put(&mut self, first: usize, arrays: Vec<Bytes>) {
        for (place, array) in self.all.iter_mut().skip(first).zip(arrays) {
            *place = Some(array);
        }
    }

    /// From now on each of these shards is given its own rows of what is divided: arrays, and the shard of each row.
    pub(crate) fn divide(
        &mut self,
        divided: &[(Range<usize>, Vec<ShardIndex>)],
        shards: &ShardSet,
    ) {
        if divided.is_empty() {
            return;
        }
        let part = |shard: ShardIndex| {
            let own = |(at, array): (usize, &Option<Bytes>)| {
                let mut all = divided.iter();
                let rows = all.find(|(arrays, _)| arrays.contains(&at));
                let array = array.as_ref()?;
                Some(match rows {
                    Some((_, rows)) => some_of(array, |row| rows.get(row) == Some(&shard)),
                    None => array.clone(),
                })
            };
            (shard, self.all.iter().enumerate().map(own).collect())
        };
        self.parts = shards.iter().map(part).collect();
    }

    /// Each of these shards is given what it needs from now on.
    pub(crate) fn split(&mut self, join: &BindJoin, shards: &ShardSet) {
        let needed = join.needed.iter();
        if needed.filter_map(Needed::column).next().is_none() {
            return;
        }
        let needed_by = needed_by(join, &self.all);
        let part = |shard: ShardIndex| {
            let mut arrays = Vec::with_capacity(self.all.len());
            for (place, (_, given)) in join.given.iter().enumerate() {
                let needed = needed_by.get(place).and_then(Option::as_deref);
                let first = join.slot(place);
                let own = self.all.iter().skip(first).take(given.columns.len());
                arrays.extend(own.map(|array| match (array, needed) {
                    (Some(array), Some(needed)) => Some(some_of(array, |row| {
                        needed.get(row).is_none_or(|shards| shards.contains(shard))
                    })),
                    (array, _) => array.clone(),
                }));
            }
            (shard, arrays)
        };
        self.parts = shards.iter().map(part).collect();
    }
}

/// The shards that need each row of the relations that are given; `None` if all need all of them.
fn needed_by(join: &BindJoin, arrays: &[Option<Bytes>]) -> Vec<Option<Vec<ShardSet>>> {
    let array = |place: usize, column: usize| arrays.get(join.slot(place) + column)?.as_deref();
    let mut found: Vec<Option<Vec<ShardSet>>> = vec![None; join.given.len()];
    // What depends on another is found after it.
    for _ in 0..join.given.len() {
        for (place, needed) in join.needed.iter().enumerate() {
            if found.get(place).is_none_or(Option::is_some) {
                continue;
            }
            let shards = match needed {
                Needed::All => None,
                Needed::Own {
                    column,
                    key_type,
                    map,
                } => array(place, *column).map(|array| {
                    let keys = elements(array).map(|key| key.value());
                    let shards = |key| key_shards(map, *key_type, key);
                    keys.map(|key| key.map_or_else(ShardSet::empty, shards))
                        .collect()
                }),
                Needed::Matching {
                    column,
                    other,
                    equals,
                } => {
                    let others = found.get(*other).and_then(Option::as_deref);
                    matching(array(place, *column), array(*other, *equals), others)
                }
            };
            if let Some(place) = found.get_mut(place) {
                *place = shards;
            }
        }
    }
    found
}

/// The shards that need the others whose values are the same.
fn matching(
    own: Option<&[u8]>,
    others: Option<&[u8]>,
    needed_by: Option<&[ShardSet]>,
) -> Option<Vec<ShardSet>> {
    let mut shards: HashMap<&[u8], ShardSet, foldhash::fast::RandomState> = HashMap::default();
    for (other, needed_by) in elements(others?).zip(needed_by?) {
        if let Some(value) = other.value() {
            let shards = shards.entry(value).or_default();
            shards.extend(needed_by.iter());
        }
    }
    let own = elements(own?).map(|own| own.value().and_then(|value| shards.get(value)));
    Some(
        own.map(|shards| shards.cloned().unwrap_or_default())
            .collect(),
    )
}
