//! Rows that are given to a statement by parameters: an array for each column, and of those that not every shard needs, parts.

use std::collections::HashMap;
use std::ops::Range;

use bytes::Bytes;
use switchyard_schema::{KeyMap, KeyType, ShardIndex, ShardSet};

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

    /// How many bytes they have.
    pub(crate) fn size(&self) -> usize {
        self.all.iter().flatten().map(Bytes::len).sum()
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

    /// Each of these shards is given its own keys only where the relation at this place is looked for by them, until all arrays are
    /// whole again.
    pub(crate) fn own_keys(&mut self, join: &BindJoin, place: usize, shards: &ShardSet) {
        let own = join.own_keys.get(place).into_iter().flatten();
        let divided = own.filter_map(|own| {
            let slot = join.slot(own.other) + own.equals;
            let array = self.all.get(slot)?.clone()?;
            let owners = owners(&array, own.key_type, &own.map);
            Some((slot, array, owners))
        });
        let divided: Vec<(usize, Bytes, Vec<ShardSet>)> = divided.collect();
        if divided.is_empty() {
            return;
        }
        let part = |shard: ShardIndex| {
            let mut arrays = self.all.clone();
            for (slot, array, owners) in &divided {
                let is_own = |row: usize| owners.get(row).is_none_or(|own| own.contains(shard));
                if let Some(place) = arrays.get_mut(*slot) {
                    *place = Some(some_of(array, is_own));
                }
            }
            (shard, arrays)
        };
        self.parts = shards.iter().map(part).collect();
    }

    /// All shards are given all.
    pub(crate) fn whole(&mut self) {
        self.parts.clear();
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
                } => array(place, *column).map(|array| owners(array, *key_type, map)),
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

/// The shards whose keys the values of an array are; NULL is nobody's.
fn owners(array: &[u8], key_type: KeyType, map: &KeyMap) -> Vec<ShardSet> {
    let keys = elements(array).map(|key| key.value());
    let shards = |key| key_shards(map, key_type, key);
    keys.map(|key| key.map_or_else(ShardSet::empty, shards))
        .collect()
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use switchyard_schema::{Collation, Config, KeyMap, KeyType, ShardIndex, ShardSet};

    use super::{GivenRows, elements};
    use crate::execute::arrays::Arrays;
    use crate::plan::bind_join::BindJoin;
    use crate::plan::needed::OwnKeys;

    /// Even numbers are the first shard's.
    fn map() -> KeyMap {
        let config = Config::parse(
            r#"
            [[users]]
            name = "app"
            password = "secret"
            [[databases]]
            name = "shop"
            [[databases.shards]]
            name = "s0"
            nodes = [{ host = "a", port = 1, role = "primary" }]
            [[databases.shards]]
            name = "s1"
            nodes = [{ host = "b", port = 1, role = "primary" }]
            [[databases.tables]]
            name = "t"
            shard_key = "k"
            method = "modulo"
            shards = ["s0", "s1"]
            "#,
        )
        .unwrap();
        let database = config.database("shop").unwrap();
        let key = database.tables[0].distribution.shard_key().unwrap();
        KeyMap::resolve(key, KeyType::Int4, Collation::Bytes, database, None).unwrap()
    }

    #[test]
    fn each_shard_looks_for_its_own_keys() {
        let mut arrays = Arrays::new([23]);
        for key in [Some(4_i32), None, Some(7), Some(6)] {
            let mut row = 1_u16.to_be_bytes().to_vec();
            let length = key.map_or(-1, |_| 4_i32);
            row.extend(length.to_be_bytes());
            row.extend(key.iter().flat_map(|key| key.to_be_bytes()));
            arrays.push(&row).unwrap();
        }
        let mut given = GivenRows::new(vec![None]);
        given.put(0, arrays.finish());
        let join = BindJoin {
            given: Vec::new(),
            settled: Arc::default(),
            needed: Vec::new(),
            own_keys: vec![
                Vec::new(),
                vec![OwnKeys {
                    other: 0,
                    equals: 0,
                    key_type: KeyType::Int4,
                    map: Arc::new(map()),
                }],
            ],
        };
        let shards: ShardSet = [0, 1].map(ShardIndex).into_iter().collect();
        let keys = |given: &GivenRows, shard: u16| -> Vec<Option<i32>> {
            let array = given.on(ShardIndex(shard))[0].clone().unwrap();
            let keys = elements(&array).map(|key| {
                let bytes = key.value()?;
                Some(i32::from_be_bytes(bytes.try_into().unwrap()))
            });
            keys.collect()
        };
        let all = vec![Some(4), None, Some(7), Some(6)];
        given.own_keys(&join, 0, &shards);
        assert_eq!(
            [keys(&given, 0), keys(&given, 1)],
            [all.clone(), all.clone()]
        );
        given.own_keys(&join, 1, &shards);
        assert_eq!(keys(&given, 0), [Some(4), Some(6)]);
        assert_eq!(keys(&given, 1), [Some(7)]);
        given.whole();
        assert_eq!(
            [keys(&given, 0), keys(&given, 1)],
            [all.clone(), all.clone()]
        );
    }
}
