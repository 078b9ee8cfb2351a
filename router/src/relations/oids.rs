//! The object identifiers (OIDs) of what users have made, which every server numbers for itself.
//!
//! Clients look types and tables up in the system catalogue by these numbers, and it is the first shard that they read it on.
//! So all that the protocol tells them has the first shard's numbers, and what they send is renumbered for the shard that gets
//! it. Pure: no bytes change their number here, only their value.
//!
//! Source: <https://www.postgresql.org/docs/current/protocol-message-formats.html>, and `array_send`, `record_send` of PostgreSQL
//! for values in binary.

use std::collections::HashMap;
use std::sync::Arc;

use switchyard_schema::ShardIndex;
use switchyard_wire::frame::{HEADER, header};

/// The first number that PostgreSQL gives to what is made after initdb (`FirstNormalObjectId`).
pub const FIRST_USER_OID: u32 = 16_384;

/// What both questions ask about.
macro_rules! user_types {
    () => {
        "
  FROM pg_catalog.pg_type t
  LEFT JOIN pg_catalog.pg_type e ON e.typarray = t.oid
  JOIN pg_catalog.pg_namespace n ON n.oid = coalesce(e.typnamespace, t.typnamespace)
 WHERE t.oid >= 16384 AND n.nspname !~ '^pg_(toast|temp_)'"
    };
}

/// What changes whenever [`USER_TYPES`] would return something else. One row, one column: text or NULL.
pub const USER_TYPES_VERSION: &str = concat!(
    "SELECT pg_catalog.md5(pg_catalog.string_agg(pg_catalog.concat_ws(' ', t.oid, n.nspname, t.typname, e.oid, t.typrelid), ',' ORDER BY t.oid))",
    user_types!()
);

/// The types that users have made, those of their tables' rows and of arrays among them; temporary ones are left out. Columns: oid int8,
/// name text (qualified; an array's is that of its elements), array bool, the relation whose rows they are int8 or 0.
pub const USER_TYPES: &str = concat!(
    "SELECT t.oid::pg_catalog.int8,
       pg_catalog.concat(pg_catalog.quote_ident(n.nspname), '.', pg_catalog.quote_ident(coalesce(e.typname, t.typname))),
       e.oid IS NOT NULL, t.typrelid::pg_catalog.int8",
    user_types!()
);

/// One row of [`USER_TYPES`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct UserType {
    /// `pg_type.oid`
    pub oid: u32,
    /// What it is called on every shard.
    pub name: TypeName,
    /// `pg_type.typrelid`: 0 if it is not the type of a relation's rows.
    pub relation: u32,
}

/// What a type is called, whatever its number.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TypeName {
    /// Schema and name as in SQL; of an array its elements'.
    pub qualified: Box<str>,
    /// The array of it.
    pub is_array: bool,
}

/// For each shard how its numbers differ from the first one's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Oids {
    shards: Vec<Option<Arc<OidMap>>>,
}

/// How the numbers of one shard differ from the first one's.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct OidMap {
    types: Numbers,
    relations: Numbers,
    types_here: Numbers,
    /// By the first shard's number, what a value in binary has the numbers of other types in.
    holding: HashMap<u32, Holding, foldhash::fast::RandomState>,
}

/// From number to number, where they differ.
type Numbers = HashMap<u32, u32, foldhash::fast::RandomState>;

/// A type whose values in binary have numbers of types in them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Holding {
    /// One, of all elements.
    Array,
    /// One for each column.
    Row,
}

impl Oids {
    /// What is known of the types on each shard, in their order.
    #[must_use]
    pub fn new(found: &[Option<&[UserType]>]) -> Self {
        let first = found.first().copied().flatten().unwrap_or_default();
        let map = |types: &Option<&[UserType]>| OidMap::new(first, (*types)?);
        Self {
            shards: found.iter().map(map).collect(),
        }
    }

    /// The same, where some shards have other types than are known.
    #[must_use]
    pub fn with(&self, found: &[(ShardIndex, Vec<UserType>)]) -> Self {
        let mut changed = self.clone();
        let first = found.iter().find(|(shard, _)| *shard == ShardIndex::FIRST);
        for (shard, types) in found {
            let first = first.map_or(&[][..], |(_, types)| types);
            let position = shard.position();
            changed
                .shards
                .resize(changed.shards.len().max(position + 1), None);
            changed.shards[position] = OidMap::new(first, types);
        }
        changed
    }

    /// How the numbers of a shard differ from the first one's; `None` if they do not.
    #[inline]
    #[must_use]
    pub fn of(&self, shard: ShardIndex) -> Option<&Arc<OidMap>> {
        self.shards.get(shard.position())?.as_ref()
    }
}

impl OidMap {
    /// `None` if no number differs.
    fn new(first: &[UserType], here: &[UserType]) -> Option<Arc<Self>> {
        let by_name: HashMap<&TypeName, &UserType> =
            first.iter().map(|known| (&known.name, known)).collect();
        let mut map = Self::default();
        for own in here {
            let Some(known) = by_name.get(&own.name) else {
                continue;
            };
            note(&mut map.types, own.oid, known.oid);
            note(&mut map.types_here, known.oid, own.oid);
            note(&mut map.relations, own.relation, known.relation);
            if own.name.is_array {
                map.holding.insert(known.oid, Holding::Array);
            } else if own.relation != 0 {
                map.holding.insert(known.oid, Holding::Row);
            }
        }
        let differs = !map.types.is_empty() || !map.relations.is_empty();
        differs.then(|| Arc::new(map))
    }

    /// Gives a whole RowDescription or ParameterDescription of this shard the first one's numbers. Any other message, and one that is
    /// not well formed, is left as it is.
    pub fn renumber_description(&self, message: &mut [u8]) {
        let Some((tag, body)) = split(message) else {
            return;
        };
        let _ = match tag {
            b'T' => self.renumber_columns(body),
            b't' => self.renumber_parameters(body),
            _ => None,
        };
    }

    fn renumber_parameters(&self, body: &mut [u8]) -> Option<()> {
        let (_, types) = body.split_at_mut_checked(2)?;
        for oid in types.chunks_exact_mut(4) {
            replace(oid, &self.types)?;
        }
        Some(())
    }

    fn renumber_columns(&self, body: &mut [u8]) -> Option<()> {
        let (_, mut rest) = body.split_at_mut_checked(2)?;
        while !rest.is_empty() {
            rest = rest.split_at_mut_checked(text_length(rest)?)?.1;
            let (column, following) = rest.split_at_mut_checked(18)?;
            replace(column.get_mut(..4)?, &self.relations)?;
            replace(column.get_mut(6..10)?, &self.types)?;
            rest = following;
        }
        Some(())
    }

    /// The numbers that types have here, of those that they have on the first shard.
    pub fn here(&self, types: &[u32]) -> Vec<u32> {
        let types = types.iter().copied();
        types
            .map(|oid| self.types_here.get(&oid).copied().unwrap_or(oid))
            .collect()
    }

    /// Gives the values of a whole Bind message the numbers of this shard where they have the first one's in them. `type_of` says the type of
    /// a parameter, by its number from 1 on. One that is not well formed is left to PostgreSQL to refuse.
    pub fn renumber_bind(&self, message: &mut [u8], type_of: impl Fn(u16) -> u32) {
        if let Some((_, body)) = split(message) {
            let _ = self.renumber_values(body, type_of);
        }
    }

    fn renumber_values(&self, body: &mut [u8], type_of: impl Fn(u16) -> u32) -> Option<()> {
        let portal = text_length(body)?;
        let names = portal + text_length(body.get(portal..)?)?;
        let (_, rest) = body.split_at_mut_checked(names)?;
        let (count, rest) = rest.split_first_chunk_mut::<2>()?;
        let count = usize::from(u16::from_be_bytes(*count));
        let (formats, rest) = rest.split_at_mut_checked(2 * count)?;
        let (values, mut rest) = rest.split_first_chunk_mut::<2>()?;
        for number in 1..=u16::from_be_bytes(*values) {
            let at = if count == 1 {
                0
            } else {
                usize::from(number) - 1
            };
            let is_binary = formats.get(2 * at + 1) == Some(&1);
            let (value, following) = value(rest)?;
            if is_binary && let Some(value) = value {
                self.renumber_value(type_of(number), value);
            }
            rest = following;
        }
        Some(())
    }

    /// A value in binary of a type with this number on the first shard.
    fn renumber_value(&self, oid: u32, value: &mut [u8]) -> Option<()> {
        match self.holding.get(&oid)? {
            Holding::Array => {
                let (head, elements) = value.split_at_mut_checked(12)?;
                let dimensions = u32::from_be_bytes(*head.first_chunk()?);
                let element = replace(head.get_mut(8..)?, &self.types_here)?;
                let bounds = 8 * usize::try_from(dimensions).ok()?;
                let (_, mut rest) = elements.split_at_mut_checked(bounds)?;
                while self.holding.contains_key(&element) && !rest.is_empty() {
                    let (held, following) = self::value(rest)?;
                    held.and_then(|held| self.renumber_value(element, held));
                    rest = following;
                }
            }
            Holding::Row => {
                let (_, mut rest) = value.split_at_mut_checked(4)?;
                while !rest.is_empty() {
                    let (oid, field) = rest.split_at_mut_checked(4)?;
                    let oid = replace(oid, &self.types_here)?;
                    let (held, following) = self::value(field)?;
                    held.and_then(|held| self.renumber_value(oid, held));
                    rest = following;
                }
            }
        }
        Some(())
    }
}

fn note(numbers: &mut Numbers, from: u32, to: u32) {
    if from != to {
        numbers.insert(from, to);
    }
}

/// Replaces a number that has another one. Returns the one before.
fn replace(bytes: &mut [u8], numbers: &Numbers) -> Option<u32> {
    let bytes = bytes.first_chunk_mut()?;
    let oid = u32::from_be_bytes(*bytes);
    if oid >= FIRST_USER_OID
        && let Some(other) = numbers.get(&oid)
    {
        *bytes = other.to_be_bytes();
    }
    Some(oid)
}

/// A whole message's tag and body.
fn split(message: &mut [u8]) -> Option<(u8, &mut [u8])> {
    let header = header(message).ok()??;
    let body = message.get_mut(HEADER..header.len)?;
    Some((header.tag, body))
}

/// Bytes of the text at the start, with its end.
fn text_length(bytes: &[u8]) -> Option<usize> {
    Some(bytes.iter().position(|byte| *byte == 0)? + 1)
}

/// The value at the start, after its length, and what follows it.
fn value(bytes: &mut [u8]) -> Option<(Option<&mut [u8]>, &mut [u8])> {
    let (length, rest) = bytes.split_first_chunk_mut::<4>()?;
    match usize::try_from(i32::from_be_bytes(*length)) {
        Ok(length) => {
            let (value, rest) = rest.split_at_mut_checked(length)?;
            Some((Some(value), rest))
        }
        Err(_) => Some((None, rest)),
    }
}
