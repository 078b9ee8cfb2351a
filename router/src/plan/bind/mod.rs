//! Binding: from key expressions and the values of one execution to shards.
//!
//! Invariant: a shard is left out only where PostgreSQL's own `=` (or `<` …) between the column and the value would be
//! false for every row there. Values are converted exactly or not at all; see [`Bound`] for the ways that can end.

mod value;

use std::borrow::Cow;
use std::ops;

use switchyard_schema::{Key, KeyError, KeyMap, KeyType, ShardIndex, ShardSet};

use self::value::{Bound, Typed, assign, compare, convert, typed_key};
use super::array;
use super::refusal::Refusal;
use super::route::{KeyExpr, KeyRoute, KeySet, Limit, Need, Param, Source, StoredAs, Values};
use crate::sql::LiteralKind;

impl KeyRoute {
    /// The shards that hold the rows, never none.
    pub(super) fn shards(&self, values: &Values<'_>) -> Result<ShardSet, Box<Refusal>> {
        let mut route = ShardSet::empty();
        for need in &self.needs {
            let shards = need.shards(values)?;
            route = if route.is_empty() {
                shards
            } else {
                route.union(&shards)
            };
        }
        if route.is_empty() {
            // No row can match, or PostgreSQL refuses a value: any shard says so.
            return Ok(ShardSet::one(ShardIndex::FIRST));
        }
        if self.first_shard_only && route.only() != Some(ShardIndex::FIRST) {
            return Err(Box::new(self.elsewhere()));
        }
        match &self.several {
            Some(refusal) if route.len() > 1 => Err(refusal.clone()),
            _ => Ok(route),
        }
    }

    fn elsewhere(&self) -> Refusal {
        Refusal::not_supported("the statement needs the first shard and another one together")
            .detail("It combines rows of a sharded table with something that exists on the first shard only: an unsharded table, a sequence, or state of the server.")
            .hint("Make the table a reference table, or do it in two statements.")
    }
}

impl Need {
    fn shards(&self, values: &Values<'_>) -> Result<ShardSet, Box<Refusal>> {
        match self.stored {
            None => Ok(self.keys.shards(&self.map, values)),
            Some(column) => self.stored_shards(column, values),
        }
    }

    /// The shards that keys about to be stored belong to.
    fn stored_shards(
        &self,
        column: StoredAs,
        values: &Values<'_>,
    ) -> Result<ShardSet, Box<Refusal>> {
        let mut shards = ShardSet::empty();
        for key in self.stored_keys()? {
            if let Some(shard) = self.stored_shard(key, column, values)? {
                shards.insert(shard);
            }
        }
        Ok(shards)
    }

    /// The keys about to be stored, one per row.
    fn stored_keys(&self) -> Result<&[KeyExpr], Box<Refusal>> {
        match &self.keys {
            KeySet::Equal(key) => Ok(std::slice::from_ref(key)),
            KeySet::AnyOf(keys) => Ok(keys),
            KeySet::Elements(_)
            | KeySet::Between(..)
            | KeySet::Null
            | KeySet::Either(_)
            | KeySet::Both(_)
            | KeySet::Nothing
            | KeySet::Everything => Err(Box::new(self.not_exact())),
        }
    }

    /// The shard of one of them; `None`: PostgreSQL refuses it, on any shard.
    fn stored_shard(
        &self,
        key: &KeyExpr,
        column: StoredAs,
        values: &Values<'_>,
    ) -> Result<Option<ShardIndex>, Box<Refusal>> {
        let bound = match key.typed(&self.map, values) {
            Some(typed) => assign(typed, self.map.key_type(), column.typmod),
            None if key.is_unreadable(&self.map, values) => Bound::Never,
            None => Bound::Unknown,
        };
        let shard = match bound {
            Bound::Key(key) => self.map.shard_of(Some(&key)),
            Bound::Null if column.not_null => return Ok(None),
            Bound::Null => self.map.shard_of(None),
            Bound::Never => return Ok(None),
            Bound::Unknown => return Err(Box::new(self.not_exact())),
        };
        shard.map(Some).map_err(|_| Box::new(self.not_exact()))
    }

    /// The shard of each row about to be stored, where these are the keys that were computed, in their order. A row that
    /// PostgreSQL refuses goes to any.
    pub(super) fn shard_of_rows(
        &self,
        values: &Values<'_>,
        computed: &[Param<'_>],
    ) -> Result<Vec<ShardIndex>, Box<Refusal>> {
        let Some(column) = self.stored else {
            return Err(Box::new(self.not_exact()));
        };
        let keys = self.stored_keys()?;
        let mut computed = computed.iter();
        let mut shards = Vec::with_capacity(keys.len());
        for key in keys {
            let shard = match (&key.source, computed.as_slice()) {
                (Source::Computed, [value, ..]) => {
                    computed.next();
                    let values = Values {
                        params: &std::slice::from_ref(value),
                        ..*values
                    };
                    let key = KeyExpr {
                        source: Source::Param {
                            number: 1,
                            sole: false,
                        },
                        ..key.clone()
                    };
                    self.stored_shard(&key, column, &values)?
                }
                _ => self.stored_shard(key, column, values)?,
            };
            shards.push(shard.unwrap_or(ShardIndex::FIRST));
        }
        Ok(shards)
    }

    fn not_exact(&self) -> Refusal {
        Refusal::not_supported(format!("the shard of the new row cannot be determined: table \"{}\"", self.relation))
            .detail("The value of the shard key is converted on its way into the column in a way the router does not follow.")
            .hint("Give the shard key as a plain value of the column's own type.")
    }
}

impl KeySet {
    fn shards(&self, map: &KeyMap, values: &Values<'_>) -> ShardSet {
        match self {
            KeySet::Equal(key) => key.bound(map, values).shards(map),
            KeySet::AnyOf(keys) => {
                let mut shards = ShardSet::empty();
                for key in keys {
                    shards.extend(key.bound(map, values).shards(map).iter());
                }
                shards
            }
            KeySet::Elements(array) => array
                .element_shards(map, values)
                .unwrap_or_else(|| map.shards()),
            KeySet::Between(low, high) => between(low.as_ref(), high.as_ref(), map, values),
            KeySet::Null => map
                .shard_of(None)
                .map_or_else(|_| map.shards(), ShardSet::one),
            KeySet::Either(sets) => sets.iter().fold(ShardSet::empty(), |shards, set| {
                shards.union(&set.shards(map, values))
            }),
            KeySet::Both(sets) => sets.iter().fold(map.shards(), |shards, set| {
                shards.intersect(&set.shards(map, values))
            }),
            KeySet::Nothing => ShardSet::empty(),
            KeySet::Everything => map.shards(),
        }
    }
}

impl Bound<'_> {
    fn shards(&self, map: &KeyMap) -> ShardSet {
        match self {
            Bound::Key(key) => map
                .shard_of(Some(key))
                .map_or_else(|_| map.shards(), ShardSet::one),
            Bound::Null | Bound::Never => ShardSet::empty(),
            Bound::Unknown => map.shards(),
        }
    }
}

/// The shards of rows whose key equals a value of this type, in its binary form.
pub(crate) fn key_shards(map: &KeyMap, key_type: KeyType, value: &[u8]) -> ShardSet {
    let typed = typed_key(key_type, Key::from_binary(key_type, value));
    let bound = typed.map_or(Bound::Unknown, |typed| compare(typed, map.key_type()));
    bound.shards(map)
}

fn between(
    low: Option<&Limit>,
    high: Option<&Limit>,
    map: &KeyMap,
    values: &Values<'_>,
) -> ShardSet {
    let low = low.map(|limit| (limit.value.bound(map, values), limit.inclusive));
    let high = high.map(|limit| (limit.value.bound(map, values), limit.inclusive));
    let null = |end: &Option<(Bound<'_>, bool)>| matches!(end, Some((Bound::Null, _)));
    if null(&low) || null(&high) {
        return ShardSet::empty();
    }
    map.shards_between(range_end(low.as_ref()), range_end(high.as_ref()))
}

fn range_end<'a>(end: Option<&'a (Bound<'a>, bool)>) -> ops::Bound<&'a Key<'a>> {
    match end {
        Some((Bound::Key(key), true)) => ops::Bound::Included(key),
        Some((Bound::Key(key), false)) => ops::Bound::Excluded(key),
        Some((Bound::Null | Bound::Never | Bound::Unknown, _)) | None => ops::Bound::Unbounded,
    }
}

impl KeyExpr {
    /// The expression as an operand of `=` with the key column.
    fn bound<'a>(&self, map: &KeyMap, values: &Values<'a>) -> Bound<'a> {
        self.typed(map, values)
            .map_or(Bound::Unknown, |typed| compare(typed, map.key_type()))
    }

    /// The value with its type, casts applied; `None` if it is not known for certain.
    fn typed<'a>(&self, map: &KeyMap, values: &Values<'a>) -> Option<Typed<'a>> {
        let mut typed = match &self.source {
            Source::Null => Typed::Null,
            Source::Computed => return None,
            Source::Bool(value) => Typed::Value(KeyType::Bool, Key::Bool(*value)),
            Source::Literal { slot, kind } => self.literal(*slot, *kind, values)?,
            Source::Param { number, sole } => {
                let param = values.params.param(*number)?;
                if param.value.is_none() {
                    return Some(Typed::Null);
                }
                let (key_type, key) = self.param(&param, *sole, map)?;
                typed_key(key_type, key)?
            }
        };
        for cast in &self.casts {
            typed = convert(typed, *cast)?;
        }
        Some(typed)
    }

    /// The value of a parameter that is not NULL, if its type is known.
    fn param<'a>(
        &self,
        param: &Param<'a>,
        sole: bool,
        map: &KeyMap,
    ) -> Option<(KeyType, Result<Key<'a>, KeyError>)> {
        let key_type = match param.oid {
            0 if sole => self.casts.first().copied().unwrap_or(map.key_type()),
            oid => KeyType::from_oid(oid)?,
        };
        let key = match param.binary {
            true => Key::from_binary(key_type, param.value?),
            false => Key::from_text(key_type, param.value?),
        };
        Some((key_type, key))
    }

    /// Whether it is a parameter that PostgreSQL cannot read.
    fn is_unreadable(&self, map: &KeyMap, values: &Values<'_>) -> bool {
        let Source::Param { number, sole } = &self.source else {
            return false;
        };
        let param = values.params.param(*number);
        let read = param.and_then(|param| self.param(&param, *sole, map));
        matches!(read, Some((_, Err(KeyError::Invalid))))
    }

    fn literal<'a>(&self, slot: u32, kind: LiteralKind, values: &Values<'a>) -> Option<Typed<'a>> {
        let literal = values
            .literals
            .get(slot as usize)
            .filter(|literal| literal.kind == kind)?;
        let text = values
            .sql
            .get(literal.span.start as usize..literal.span.end as usize)?;
        match kind {
            LiteralKind::String => Some(Typed::Untyped(unquote(text)?)),
            LiteralKind::Integer => {
                let digits = std::str::from_utf8(text).ok()?;
                let magnitude = digits.parse::<i128>().ok();
                let value = magnitude.map(|value| if self.negative { -value } else { value });
                match value.and_then(|value| i64::try_from(value).ok()) {
                    Some(value) => Some(Typed::Integer(value)),
                    None => Some(Typed::Decimal(self.signed(text))),
                }
            }
            LiteralKind::Decimal => Some(Typed::Decimal(self.signed(text))),
        }
    }

    fn signed<'a>(&self, text: &'a [u8]) -> Cow<'a, [u8]> {
        if self.negative {
            Cow::Owned([b"-", text].concat())
        } else {
            Cow::Borrowed(text)
        }
    }

    /// The shards of the elements of an array; `None` if they are not known for certain.
    fn element_shards(&self, map: &KeyMap, values: &Values<'_>) -> Option<ShardSet> {
        let mut shards = ShardSet::empty();
        let mut add = |typed: Option<Typed<'_>>| {
            let typed = self
                .casts
                .iter()
                .try_fold(typed?, |typed, cast| convert(typed, *cast))?;
            shards.extend(compare(typed, map.key_type()).shards(map).iter());
            Some(())
        };
        match &self.source {
            Source::Null => {}
            Source::Bool(_) | Source::Computed => return None,
            Source::Literal {
                slot,
                kind: LiteralKind::String,
            } => {
                let literal = values.literals.get(*slot as usize)?;
                let text = unquote(
                    values
                        .sql
                        .get(literal.span.start as usize..literal.span.end as usize)?,
                )?;
                for element in array::text_elements(&text)? {
                    add(Some(element.map_or(Typed::Null, Typed::Untyped)))?;
                }
            }
            Source::Literal { .. } => return None,
            Source::Param { number, sole } => {
                let param = values.params.param(*number)?;
                let Some(value) = param.value else {
                    return Some(shards);
                };
                let element_type = match param.oid {
                    0 if *sole => self.casts.first().copied().unwrap_or(map.key_type()),
                    oid => array::element_type(oid)?,
                };
                if param.binary {
                    for element in array::binary_elements(value, element_type)? {
                        add(element.map_or(Some(Typed::Null), |v| {
                            typed_key(element_type, Key::from_binary(element_type, v))
                        }))?;
                    }
                } else {
                    for element in array::text_elements(value)? {
                        add(Some(element.map_or(Typed::Null, Typed::Untyped))
                            .and_then(|e| convert(e, element_type)))?;
                    }
                }
            }
        }
        Some(shards)
    }
}

/// The contents of a plain string literal.
pub(super) fn unquote(text: &[u8]) -> Option<Cow<'_, [u8]>> {
    let inside = text.get(1..text.len().checked_sub(1)?)?;
    if !inside.contains(&b'\'') {
        return Some(Cow::Borrowed(inside));
    }
    let mut value = Vec::with_capacity(inside.len());
    let mut bytes = inside.iter();
    while let Some(&byte) = bytes.next() {
        value.push(byte);
        if byte == b'\'' {
            bytes.next();
        }
    }
    Some(Cow::Owned(value))
}

#[cfg(test)]
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "any other operator is a failure"
)]
mod tests {
    use super::super::{Context, Operator, Target, plan};
    use super::*;
    use crate::relations::{Relations, SearchPath, fixture};
    use crate::sql::Scan;

    /// A number behind a type is its modifier as stored, less four: 393218 is (6, 2).
    const SCHEMA: &str = "
        table public.users hash id (id int8 not null; name text)
        table public.items hash user_id (user_id int4 not null; note text)
        table public.accounts hash name (name text not null)
        table public.short hash name (name varchar(4) not null)
        table public.tenants hash tid (tid uuid not null)
        table public.prices hash amount (amount numeric(393218) not null)
        table public.events range day 2026-01-01:0,*:1 (day date not null)
        table public.profiles hash user_id (user_id int8)
    ";

    /// Where a statement with these parameters goes: a list of shards, or the refusal's message.
    fn route(relations: &Relations, sql: &str, params: &[Param<'_>]) -> Result<Vec<u16>, String> {
        let mut scan = Scan::new();
        scan.scan(sql.as_bytes()).unwrap();
        let context = Context {
            relations,
            search_path: &SearchPath::default(),
            temporary: &[],
            layer: crate::plan::Layer::Auto,
            given: &[],
            ahead: &[],
            in_trigger: false,
        };
        let plan = plan(sql, &scan, &context);
        let target = match &plan.operator {
            Operator::PassThrough(target) | Operator::Append(target) => target,
            Operator::Merge(merge) => &merge.target,
            other => panic!("{other:?}"),
        };
        assert!(matches!(target, Target::Keys(_)));
        let values = Values {
            sql: sql.as_bytes(),
            literals: &scan.literals,
            params: &params,
        };
        match target.shards(&values, relations.shards().len()) {
            Ok(shards) => Ok(shards.iter().map(|shard| shard.0).collect()),
            Err(refusal) => Err(refusal.message),
        }
    }

    fn text(value: &str, oid: u32) -> Param<'_> {
        Param {
            value: Some(value.as_bytes()),
            binary: false,
            oid,
        }
    }

    fn binary(value: &[u8], oid: u32) -> Param<'_> {
        Param {
            value: Some(value),
            binary: true,
            oid,
        }
    }

    const NULL: Param<'_> = Param {
        value: None,
        binary: false,
        oid: 0,
    };
    const INT4: u32 = 23;
    const INT8: u32 = 20;

    #[test]
    fn a_parameter_goes_where_the_literal_goes() {
        let relations = fixture::relations(8, SCHEMA);
        for value in [0i64, 1, 5, -7, 4711, i64::from(i32::MAX)] {
            let literal = route(
                &relations,
                &format!("SELECT * FROM users WHERE id = {value}"),
                &[],
            )
            .unwrap();
            assert_eq!(literal.len(), 1);
            let sql = "SELECT * FROM users WHERE id = $1";
            let written = value.to_string();
            let narrow = i32::try_from(value).unwrap().to_be_bytes();
            for param in [
                text(&written, INT8),
                text(&written, INT4),
                text(&written, 0),
                binary(&value.to_be_bytes(), INT8),
                binary(&narrow, INT4),
                binary(&value.to_be_bytes(), 0),
            ] {
                assert_eq!(
                    route(&relations, sql, &[param]).unwrap(),
                    literal,
                    "{value} {param:?}"
                );
            }
            let insert = route(
                &relations,
                "INSERT INTO users VALUES ($1, 'x')",
                &[text(&written, INT8)],
            )
            .unwrap();
            let item = route(
                &relations,
                &format!("SELECT * FROM items WHERE user_id = {value}"),
                &[],
            )
            .unwrap();
            assert_eq!(
                (insert, item),
                (literal.clone(), literal.clone()),
                "colocated and stored alike"
            );
            let array = format!("{{{value},{value}}}");
            let any = route(
                &relations,
                "SELECT * FROM users WHERE id = ANY ($1)",
                &[text(&array, 1016)],
            )
            .unwrap();
            assert_eq!(any, literal);
        }
    }

    #[test]
    fn null_matches_nothing_and_is_stored_where_nulls_are() {
        let relations = fixture::relations(8, SCHEMA);
        assert_eq!(
            route(&relations, "SELECT * FROM users WHERE id = $1", &[NULL]),
            Ok(vec![0])
        );
        assert_eq!(
            route(
                &relations,
                "SELECT count(*) FROM users WHERE id = ANY ($1)",
                &[NULL]
            ),
            Ok(vec![0])
        );
        let stored = route(&relations, "INSERT INTO profiles VALUES ($1)", &[NULL]).unwrap();
        let found = route(
            &relations,
            "SELECT * FROM profiles WHERE user_id IS NULL",
            &[],
        )
        .unwrap();
        assert_eq!(stored, found);
    }

    #[test]
    fn what_is_not_certain_is_every_shard_or_refused() {
        let relations = fixture::relations(8, SCHEMA);
        let all: Vec<u16> = (0..8).collect();
        let float = 701;
        let select = "SELECT * FROM users WHERE id = $1";
        assert_eq!(
            route(&relations, select, &[text("5", float)]),
            Ok(all.clone())
        );
        assert_eq!(
            route(&relations, select, &[text("five", INT8)]),
            Ok(all.clone())
        );
        assert_eq!(
            route(&relations, select, &[binary(b"odd", INT8)]),
            Ok(all.clone())
        );
        assert_eq!(
            route(&relations, select, &[]),
            Ok(all.clone()),
            "no value yet"
        );
        // Mentioned twice, so PostgreSQL may have typed it elsewhere.
        let twice = "SELECT * FROM users WHERE id = $1 AND name = $1::text";
        assert_eq!(route(&relations, twice, &[text("5", 0)]), Ok(all));
        for (sql, param) in [
            ("INSERT INTO users VALUES ($1)", text("5", float)),
            ("INSERT INTO events VALUES ($1)", text("tomorrow", 1082)),
            (
                "UPDATE users SET name = 'x' WHERE id = $1",
                text("5", float),
            ),
            ("SELECT count(*) FROM users WHERE id = $1", text("5", float)),
        ] {
            assert!(route(&relations, sql, &[param]).is_err(), "{sql}");
        }
    }

    #[test]
    fn a_new_row_goes_where_the_value_as_stored_belongs() {
        let relations = fixture::relations(8, SCHEMA);
        for (table, column, given, stored, oid) in [
            ("short", "name", "abcd  ", "abcd", 25),
            ("prices", "amount", "1.505", "1.51", 1700),
        ] {
            let insert = format!("INSERT INTO {table} VALUES ($1)");
            let select = format!("SELECT * FROM {table} WHERE {column} = $1");
            assert_eq!(
                route(&relations, &insert, &[text(given, oid)]),
                route(&relations, &select, &[text(stored, oid)]),
                "{table}"
            );
        }
    }

    #[test]
    fn casts_are_followed_where_they_are_exact() {
        let relations = fixture::relations(8, SCHEMA);
        let five = route(&relations, "SELECT * FROM users WHERE id = 5", &[]).unwrap();
        for sql in [
            "SELECT * FROM users WHERE id = '5'::int8",
            "SELECT * FROM users WHERE id = ' 5'",
            "SELECT * FROM users WHERE id = 5.00",
            "SELECT * FROM users WHERE id = CAST('5' AS smallint)",
            "SELECT * FROM users WHERE id = '5'::text::int4",
            "SELECT * FROM users WHERE id = - -5",
            "SELECT * FROM users WHERE id = ANY ('{5}'::int[])",
            "SELECT * FROM users WHERE id = ANY (ARRAY['5'::int8])",
        ] {
            assert_eq!(route(&relations, sql, &[]).unwrap(), five, "{sql}");
        }
        let cast = "SELECT * FROM users WHERE id = $1::int8";
        assert_eq!(route(&relations, cast, &[text("5", 25)]).unwrap(), five);
        assert_eq!(route(&relations, cast, &[text("5", 0)]).unwrap(), five);
        assert_eq!(
            route(&relations, cast, &[binary(&5i16.to_be_bytes(), 21)]).unwrap(),
            five
        );
    }

    #[test]
    fn ranges_prune_and_their_ends_are_exact() {
        let relations = fixture::relations(2, SCHEMA);
        let between = "SELECT * FROM events WHERE day BETWEEN $1 AND $2";
        let dates =
            |low, high| route(&relations, between, &[text(low, 1082), text(high, 1082)]).unwrap();
        assert_eq!(dates("2025-01-01", "2025-12-31"), [0]);
        assert_eq!(dates("2026-01-01", "2026-12-31"), [1]);
        assert_eq!(dates("2025-12-31", "2026-01-01"), [0, 1]);
        // Binary dates count days since 2000-01-01.
        let first_of_2026 = 9497i32.to_be_bytes();
        let before = "SELECT * FROM events WHERE day < $1";
        assert_eq!(
            route(&relations, before, &[binary(&first_of_2026, 1082)]).unwrap(),
            [0]
        );
        let from = "SELECT * FROM events WHERE $1 <= day";
        assert_eq!(
            route(&relations, from, &[binary(&first_of_2026, 1082)]).unwrap(),
            [1]
        );
    }

    #[test]
    fn rows_of_one_insert_must_meet() {
        let relations = fixture::relations(8, SCHEMA);
        let insert = "INSERT INTO users VALUES ($1), ($2)";
        let same = route(&relations, insert, &[text("5", INT8), text("5", INT8)]).unwrap();
        assert_eq!(same.len(), 1);
        let apart = (1..20).find_map(|n| {
            let n = n.to_string();
            route(&relations, insert, &[text("5", INT8), text(&n, INT8)]).err()
        });
        assert!(apart.is_some());
    }
}
