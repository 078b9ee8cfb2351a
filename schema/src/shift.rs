//! From one method to another one of the same kind, step by step: which keys are to be on another shard, and the method that holds when some of
//! them are.
//!
//! Whatever lies between is a method, too, so that there is always one that says where every key is. Adjacent ranges are told apart, values
//! listed and remainders made finer on the way; the function is the target's in the end, though it may be written otherwise.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use crate::bucket::{BUCKETS, Bucket, BucketMap, bucket_sql};
use crate::key::{Key, KeyType};
use crate::model::{ListEntry, Literal, Method, RangeEntry};
use crate::modulo::remainder_sql;
use crate::placement::ResolveError;
use crate::shard::ShardIndex;

/// Some keys, as a method tells them from others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Keys {
    /// Those in these buckets.
    Buckets(Vec<Bucket>),
    /// Those with these remainders; NULL has 0.
    Remainders {
        /// What keys are divided by.
        modulus: usize,
        /// The remainders.
        remainders: Vec<usize>,
    },
    /// Those from one on that are below another; up to the open end with NULL.
    Range {
        /// The first of them, if there is one.
        from: Option<Literal>,
        /// The end, not included.
        below: Option<Literal>,
    },
    /// These.
    Values(Vec<Literal>),
    /// All but these, and NULL.
    Others(Vec<Literal>),
}

/// Keys that are to be on another shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shift {
    /// The shard that has them.
    pub from: ShardIndex,
    /// The shard that is to have them.
    pub to: ShardIndex,
    /// Which.
    pub keys: Keys,
}

/// Why there is no way from one method to another.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ShiftError {
    /// They tell keys apart by different means.
    #[error("it is distributed by {0}, and a table's method cannot change while clients work")]
    Kind(&'static str),
    /// Too many remainders would have to be told apart.
    #[error("remainders by {0} and by {1} cannot be told apart by one number up to {BUCKETS}")]
    Moduli(usize, usize),
    /// A boundary or value does not fit the column.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
}

impl Keys {
    /// True of the rows with these keys, in SQL. `column` is spliced in as it is.
    ///
    /// # Errors
    /// A literal is no value of the type.
    pub fn sql(&self, column: &str, key_type: KeyType) -> Result<String, ResolveError> {
        let place = self.place_sql(column);
        Ok(match self {
            Self::Buckets(buckets) => {
                one_of(&place, buckets.iter().map(|bucket| bucket.number().into()))
            }
            Self::Remainders { remainders, .. } => one_of(&place, remainders.iter().copied()),
            Self::Range { from, below } => range_sql(column, key_type, from, below)?,
            Self::Values(values) => match values_sql(values, key_type)? {
                values if values.is_empty() => "false".to_owned(),
                values => format!("{column} IN ({values})"),
            },
            Self::Others(values) => match values_sql(values, key_type)? {
                values if values.is_empty() => "true".to_owned(),
                values => format!("({column} NOT IN ({values}) OR {column} IS NULL)"),
            },
        })
    }

    /// What an index has to be on, for these rows to be found.
    #[must_use]
    pub fn place_sql(&self, column: &str) -> String {
        match self {
            Self::Buckets(_) => bucket_sql(column),
            Self::Remainders { modulus, .. } => remainder_sql(column, *modulus),
            Self::Range { .. } | Self::Values(_) | Self::Others(_) => column.to_owned(),
        }
    }
}

fn one_of(place: &str, numbers: impl Iterator<Item = usize>) -> String {
    let numbers: Vec<String> = numbers.map(|number| number.to_string()).collect();
    format!(
        "{place} = ANY ('{{{}}}'::pg_catalog.int8[])",
        numbers.join(",")
    )
}

fn range_sql(
    column: &str,
    key_type: KeyType,
    from: &Option<Literal>,
    below: &Option<Literal>,
) -> Result<String, ResolveError> {
    let end = |literal: &Option<Literal>| literal.as_ref().map(|end| end.sql(key_type)).transpose();
    Ok(match (end(from)?, end(below)?) {
        (None, None) => "true".to_owned(),
        (None, Some(below)) => format!("{column} < {below}"),
        (Some(from), None) => format!("({column} >= {from} OR {column} IS NULL)"),
        (Some(from), Some(below)) => format!("({column} >= {from} AND {column} < {below})"),
    })
}

fn values_sql(values: &[Literal], key_type: KeyType) -> Result<String, ResolveError> {
    let values: Result<Vec<String>, ResolveError> =
        values.iter().map(|value| value.sql(key_type)).collect();
    Ok(values?.join(", "))
}

impl BucketMap {
    /// Which buckets are on other shards by another map, in as few parts as there are pairs of shards.
    #[must_use]
    pub fn shifts(&self, target: &BucketMap) -> Vec<Shift> {
        let places = self.owners().iter().zip(target.owners());
        let moving = by_pair(Bucket::all().zip(places.map(|(from, to)| (*from, *to))));
        shifts(moving, Keys::Buckets)
    }

    /// The map with some buckets on another shard.
    #[must_use]
    pub fn with(&self, buckets: &[Bucket], to: ShardIndex) -> BucketMap {
        let mut owners = self.owners().to_vec();
        for bucket in buckets {
            owners[usize::from(bucket.number())] = to;
        }
        BucketMap::of(owners.into_boxed_slice())
    }
}

impl Method {
    /// Which keys are on other shards by another method. Of hash keys it is the [`BucketMap`] that tells.
    ///
    /// # Errors
    /// [`ShiftError`].
    pub fn shifts(&self, target: &Method, key_type: KeyType) -> Result<Vec<Shift>, ShiftError> {
        match (self, target) {
            (Self::Hash, Self::Hash) => Ok(Vec::new()),
            (Self::Modulo(now), Self::Modulo(target)) => modulo_shifts(now, target),
            (Self::Range(now), Self::Range(target)) => Ok(range_shifts(
                &Ends::of(now, key_type)?,
                &Ends::of(target, key_type)?,
            )),
            (Self::List(now), Self::List(target)) => Ok(list_shifts(
                &Listed::of(now, key_type)?,
                &Listed::of(target, key_type)?,
            )),
            _ => Err(ShiftError::Kind(self.name())),
        }
    }

    /// The method with some keys on another shard. Keys that it does not tell apart from others cannot be: it stays as it is.
    ///
    /// # Errors
    /// [`ShiftError`].
    pub fn with(
        &self,
        keys: &Keys,
        to: ShardIndex,
        key_type: KeyType,
    ) -> Result<Method, ShiftError> {
        match (self, keys) {
            (
                Self::Modulo(now),
                Keys::Remainders {
                    modulus,
                    remainders,
                },
            ) => {
                let now = at_least_one(now);
                let mut shards: Vec<ShardIndex> =
                    (0..*modulus).map(|at| now[at % now.len()]).collect();
                for remainder in remainders {
                    shards[*remainder] = to;
                }
                Ok(Self::Modulo(shards))
            }
            (Self::Range(now), Keys::Range { from, below }) => {
                let mut ends = Ends::of(now, key_type)?;
                let key = |literal: &Option<Literal>| match literal {
                    Some(literal) => Ok(Some((literal.key(key_type)?, literal.clone()))),
                    None => Ok::<_, ResolveError>(None),
                };
                ends.put(key(from)?, key(below)?, to);
                Ok(Self::Range(ends.written()))
            }
            (Self::List(now), Keys::Values(values)) => {
                let mut listed = Listed::of(now, key_type)?;
                for value in values {
                    listed.put(value.key(key_type)?, value, to);
                }
                Ok(Self::List(listed.written()))
            }
            (Self::List(now), Keys::Others(values)) => {
                let mut listed = Listed::of(now, key_type)?;
                for value in values {
                    let key = value.key(key_type)?;
                    let shard = listed.shard_of(&key);
                    listed.put(key, value, shard);
                }
                listed.default = to;
                Ok(Self::List(listed.written()))
            }
            _ => Err(ShiftError::Kind(self.name())),
        }
    }
}

type Pair = (ShardIndex, ShardIndex);

/// What is on another shard than it is to be, by pairs of shards.
fn by_pair<T>(places: impl Iterator<Item = (T, Pair)>) -> BTreeMap<Pair, Vec<T>> {
    let mut pairs: BTreeMap<Pair, Vec<T>> = BTreeMap::new();
    for (key, (from, to)) in places.filter(|(_, (from, to))| from != to) {
        pairs.entry((from, to)).or_default().push(key);
    }
    pairs
}

fn shifts<T>(pairs: BTreeMap<Pair, Vec<T>>, keys: impl Fn(Vec<T>) -> Keys) -> Vec<Shift> {
    let shift = |((from, to), moving)| Shift {
        from,
        to,
        keys: keys(moving),
    };
    pairs.into_iter().map(shift).collect()
}

/// A list of shards that is never empty.
fn at_least_one(shards: &[ShardIndex]) -> &[ShardIndex] {
    match shards {
        [] => &[ShardIndex::FIRST],
        shards => shards,
    }
}

/// Remainders by a multiple of both numbers, as large as there are buckets: few rows have one of them.
fn modulo_shifts(now: &[ShardIndex], target: &[ShardIndex]) -> Result<Vec<Shift>, ShiftError> {
    let (now, target) = (at_least_one(now), at_least_one(target));
    let common = now.len() / greatest_common_divisor(now.len(), target.len()) * target.len();
    if common > BUCKETS {
        return Err(ShiftError::Moduli(now.len(), target.len()));
    }
    let modulus = BUCKETS / common * common;
    let place = |at: usize| (at, (now[at % now.len()], target[at % target.len()]));
    let keys = |remainders| Keys::Remainders {
        modulus,
        remainders,
    };
    Ok(shifts(by_pair((0..modulus).map(place)), keys))
}

fn greatest_common_divisor(a: usize, b: usize) -> usize {
    match b {
        0 => a,
        _ => greatest_common_divisor(b, a % b),
    }
}

/// A boundary, and how it is written.
type End = (Key<'static>, Literal);

/// Ranges by their ends; the last one is open.
struct Ends {
    ends: Vec<End>,
    /// One more than there are ends.
    shards: Vec<ShardIndex>,
}

impl Ends {
    fn of(ranges: &[RangeEntry], key_type: KeyType) -> Result<Ends, ResolveError> {
        let (mut ends, mut shards) = (Vec::new(), Vec::new());
        for range in ranges {
            shards.push(range.shard);
            match &range.below {
                Some(end) => ends.push((end.key(key_type)?, end.clone())),
                None => break,
            }
        }
        if shards.len() == ends.len() {
            shards.push(shards.last().copied().unwrap_or(ShardIndex::FIRST));
        }
        Ok(Ends { ends, shards })
    }

    /// The position of the range whose keys are those just below an end, or of the open one.
    fn position(&self, end: Option<&Key<'_>>) -> usize {
        end.map_or(self.ends.len(), |end| {
            self.ends.partition_point(|(other, _)| is_below(other, end))
        })
    }

    /// Has a range begin there.
    fn cut(&mut self, end: End) {
        let at = self.position(Some(&end.0));
        if self.ends.get(at).is_none_or(|(other, _)| *other != end.0) {
            self.ends.insert(at, end);
            self.shards.insert(at, self.shards[at]);
        }
    }

    fn put(&mut self, from: Option<End>, below: Option<End>, to: ShardIndex) {
        let ends = [from.clone(), below.clone()];
        ends.into_iter().flatten().for_each(|end| self.cut(end));
        let first = from.map_or(0, |from| self.position(Some(&from.0)) + 1);
        let last = self.position(below.as_ref().map(|below| &below.0));
        for shard in self.shards.iter_mut().take(last + 1).skip(first) {
            *shard = to;
        }
    }

    /// As a file has them; what is on one shard is one range.
    fn written(self) -> Vec<RangeEntry> {
        let Ends { ends, shards } = self;
        let belows = ends.into_iter().map(|(_, end)| Some(end)).chain([None]);
        let mut ranges: Vec<RangeEntry> = Vec::new();
        for (below, shard) in belows.zip(shards) {
            match ranges.last_mut().filter(|last| last.shard == shard) {
                Some(last) => last.below = below,
                None => ranges.push(RangeEntry { below, shard }),
            }
        }
        ranges
    }
}

fn range_shifts(now: &Ends, target: &Ends) -> Vec<Shift> {
    let mut ends: Vec<&End> = now.ends.iter().chain(&target.ends).collect();
    ends.sort_by(|(a, _), (b, _)| order(a, b));
    ends.dedup_by(|(a, _), (b, _)| a == b);
    let mut found: Vec<Shift> = Vec::new();
    let mut from: Option<&Literal> = None;
    for end in ends.into_iter().map(Some).chain([None]) {
        let key = end.map(|(key, _)| key);
        let pair = (
            now.shards[now.position(key)],
            target.shards[target.position(key)],
        );
        let keys = Keys::Range {
            from: from.cloned(),
            below: end.map(|(_, end)| end.clone()),
        };
        if pair.0 != pair.1 {
            let (from, to) = pair;
            found.push(Shift { from, to, keys });
        }
        from = end.map(|(_, end)| end);
    }
    found
}

/// Lists by their values, in ascending order.
struct Listed {
    values: Vec<(Key<'static>, Literal, ShardIndex)>,
    default: ShardIndex,
}

impl Listed {
    fn of(lists: &[ListEntry], key_type: KeyType) -> Result<Listed, ResolveError> {
        let default = lists.iter().find(|list| list.default);
        let mut listed = Listed {
            values: Vec::new(),
            default: default.map_or(ShardIndex::FIRST, |list| list.shard),
        };
        for list in lists {
            for value in &list.values {
                listed.put(value.key(key_type)?, value, list.shard);
            }
        }
        Ok(listed)
    }

    fn find(&self, key: &Key<'_>) -> Result<usize, usize> {
        self.values
            .binary_search_by(|(other, ..)| order(other, key))
    }

    fn shard_of(&self, key: &Key<'_>) -> ShardIndex {
        self.find(key)
            .map_or(self.default, |found| self.values[found].2)
    }

    fn put(&mut self, key: Key<'static>, value: &Literal, shard: ShardIndex) {
        match self.find(&key) {
            Ok(found) => self.values[found].2 = shard,
            Err(at) => self.values.insert(at, (key, value.clone(), shard)),
        }
    }

    /// As a file has them: one list for each shard, and the default one last.
    fn written(self) -> Vec<ListEntry> {
        let mut lists: BTreeMap<ShardIndex, Vec<Literal>> = BTreeMap::new();
        for (_, value, shard) in self.values {
            lists.entry(shard).or_default().push(value);
        }
        let list = |(shard, values)| ListEntry {
            values,
            default: false,
            shard,
        };
        let mut lists: Vec<ListEntry> = lists.into_iter().map(list).collect();
        lists.push(ListEntry {
            values: Vec::new(),
            default: true,
            shard: self.default,
        });
        lists
    }
}

fn list_shifts(now: &Listed, target: &Listed) -> Vec<Shift> {
    let mut values: Vec<(&Key<'static>, &Literal)> = [now, target]
        .iter()
        .flat_map(|listed| listed.values.iter().map(|(key, value, _)| (key, value)))
        .collect();
    values.sort_by(|(a, _), (b, _)| order(a, b));
    values.dedup_by(|(a, _), (b, _)| a == b);
    let place = |(key, value): &(&Key<'static>, &Literal)| {
        let pair = (now.shard_of(key), target.shard_of(key));
        (Literal::clone(value), pair)
    };
    let mut found = shifts(by_pair(values.iter().map(place)), Keys::Values);
    if now.default != target.default {
        let values = values.into_iter().map(|(_, value)| value.clone());
        found.push(Shift {
            from: now.default,
            to: target.default,
            keys: Keys::Others(values.collect()),
        });
    }
    found
}

fn is_below(a: &Key<'_>, b: &Key<'_>) -> bool {
    order(a, b) == Ordering::Less
}

/// The order of keys of one type.
fn order(a: &Key<'_>, b: &Key<'_>) -> Ordering {
    a.compare(b).unwrap_or(Ordering::Equal)
}

#[cfg(test)]
mod tests;
