//! An UPDATE that gives rows other shard keys, so that they may have to move to other shards.
//!
//! Purpose: [`Move`] says what each shard runs. The client's own text updates the rows where they are, with all that PostgreSQL checks, and
//! returns besides where each row lies and what its key is then; rows of other shards are deleted by that place and inserted where they
//! belong. Invariant: what a table's triggers, policies or foreign keys would do otherwise than on one server keeps its rows where they
//! are. Collaborators: [`Write`] is the update itself; `session::write::moving` runs it.

use std::sync::Arc;

use postgres_protocol::escape::escape_identifier;
use sqlparser::ast::{Statement, TableFactor};
use switchyard_schema::{Key, KeyMap, ShardIndex};

use super::apart::Understood;
use super::decide;
use super::parse;
use super::refusal::Refusal;
use super::route::{KeyRoute, Source, StoredAs, Target};
use super::{Planner, Write};
use crate::plan::analyse::{Analysis, StoredKeys, names};
use crate::relations::DefaultValue;
use crate::sql::{Token, TokenKind};

/// An UPDATE of the shard key.
#[derive(Debug, Clone)]
pub struct Move {
    /// The update, on the shards that have the rows.
    pub write: Write,
    /// The shards that rows may be on before or after it.
    pub places: Target,
    /// It has a RETURNING.
    pub returns: bool,
    /// The table, in SQL.
    table: String,
    /// What RETURNING calls it.
    alias: String,
    /// Its columns that have values of their own, in SQL.
    columns: Vec<String>,
    /// The shard key's position among them.
    key: usize,
    map: Arc<KeyMap>,
    stored: StoredAs,
}

impl Move {
    /// Keeps everybody else from changing or locking rows until the transaction ends: what waits for a row that is deleted would not
    /// find it where it is then.
    pub(crate) fn lock(&self) -> String {
        format!("LOCK TABLE {} IN EXCLUSIVE MODE", self.table)
    }

    /// The text of the update, which returns three columns more: the table or partition that a row is in, its place there, and its key.
    pub(crate) fn text(&self, sql: &[u8]) -> Option<Vec<u8>> {
        let end = u32::try_from(sql.len()).ok()?;
        let tokens = parse::tokens(sql, 0..end).ok()?;
        let last = tokens
            .iter()
            .rev()
            .find(|token| token.kind != TokenKind::Punct(b';'))?;
        let Move { alias, columns, .. } = self;
        let key = columns.get(self.key)?;
        let own = format!("{alias}.tableoid::pg_catalog.oid, {alias}.ctid, {alias}.{key}");
        let more = match returns(sql, &tokens) {
            true => format!(", {own}"),
            false => format!(" RETURNING {own}"),
        };
        let mut text = sql.get(..last.end as usize)?.to_vec();
        text.extend_from_slice(more.as_bytes());
        Some(text)
    }

    /// Deletes the rows at these places of a table or partition, and returns their columns.
    pub(crate) fn take(&self, table: &str, places: &[String]) -> String {
        let places: Vec<String> = places.iter().map(|place| format!("\"{place}\"")).collect();
        format!(
            "DELETE FROM {} WHERE tableoid = {table} AND ctid = ANY ('{{{}}}'::pg_catalog.tid[]) RETURNING {}",
            self.table,
            places.join(","),
            self.columns.join(", ")
        )
    }

    /// Inserts rows.
    pub(crate) fn copy(&self) -> String {
        let columns = self.columns.join(", ");
        format!("COPY {} ({columns}) FROM STDIN (FORMAT binary)", self.table)
    }

    /// The shard of a row with this key, in binary.
    pub(crate) fn shard(&self, key: Option<&[u8]>) -> Option<ShardIndex> {
        self.stored.shard(&self.map, key)
    }

    /// The position of the shard key among the columns of a row that has been taken.
    pub(crate) fn key(&self) -> usize {
        self.key
    }

    /// The parameters that binding looks at.
    pub(super) fn params(&self) -> Vec<u16> {
        let mut params = self.write.params();
        if let Target::Keys(route) = &self.places {
            params.extend(route.params());
        }
        params.sort_unstable();
        params.dedup();
        params
    }

    /// Bytes on the heap, about.
    pub(super) fn size(&self) -> usize {
        let columns: usize = self.columns.iter().map(String::len).sum();
        2 * self.write.size() + self.table.len() + columns + 256
    }
}

impl StoredAs {
    /// The shard of a row whose key is stored so, in binary. One that PostgreSQL refuses goes to any.
    pub(crate) fn shard(&self, map: &KeyMap, key: Option<&[u8]>) -> Option<ShardIndex> {
        let Some(key) = key else {
            return match self.not_null {
                true => map.shards().first(),
                false => map.shard_of(None).ok(),
            };
        };
        let key = Key::from_binary(map.key_type(), key).ok()?;
        map.shard_of(Some(&key)).ok()
    }
}

/// Whether a statement that is an UPDATE has a RETURNING, which is a reserved word.
fn returns(sql: &[u8], tokens: &[Token]) -> bool {
    let mut depth = 0_usize;
    tokens.iter().any(|token| {
        if token.kind == TokenKind::Punct(b'(') {
            depth += 1;
        } else if token.kind == TokenKind::Punct(b')') {
            depth = depth.saturating_sub(1);
        }
        depth == 0 && token.is_word(sql, "returning")
    })
}

/// Whether the statement is an UPDATE that gives rows other shard keys.
pub(super) fn changes_keys(analysis: &Analysis, statement: &Statement) -> bool {
    matches!(statement, Statement::Update(_)) && !analysis.stored.is_empty()
}

impl Planner<'_> {
    /// An UPDATE of the shard key whose rows are found by `write`; `Err` is why its rows cannot move.
    pub(super) fn moved(
        &self,
        write: Write,
        (analysis, statement, tokens): Understood<'_>,
    ) -> Result<Move, Refusal> {
        let Statement::Update(update) = statement else {
            return Err(Refusal::not_supported("moving rows in this statement"));
        };
        let name = analysis.changed.as_ref();
        let relation = name.and_then(|name| self.context.relations.get(&name.schema, &name.name));
        let sharded = relation.and_then(|relation| Some((relation, relation.sharding()?)));
        let (Some((relation, sharding)), TableFactor::Table { name, alias, .. }) =
            (sharded, &update.table.relation)
        else {
            return Err(Refusal::not_supported("moving rows of this table"));
        };
        let key = relation.columns.get(sharding.column);
        let key = key.ok_or_else(|| Refusal::not_supported("moving rows without a shard key"))?;
        if let Some(why) = relation.stays.map(|why| match relation.shows {
            Some(_) => "A view does not say where a row lies.",
            None => why,
        }) {
            return Err(Refusal::not_supported(format!(
                "changing the shard key \"{}\" of table \"{}\" is not supported",
                key.name, relation.name
            ))
            .detail(format!(
                "The row would have to move to another shard, where one server would update it. {why}"
            ))
            .hint("Delete the row and insert it with the new key."));
        }
        let alias = match alias {
            Some(alias) => names::name(&alias.name).ok(),
            None => names::relation_name(name).ok().map(|(_, name)| name),
        };
        let alias = alias.ok_or_else(|| Refusal::not_supported("moving rows of this table"))?;
        let own = relation.columns.iter().enumerate();
        let own = own.filter(|(_, column)| column.default != DefaultValue::Generated);
        let own: Vec<_> = own.collect();
        let position = own.iter().position(|(at, _)| *at == sharding.column);
        Ok(Move {
            places: places(analysis, &write.target),
            returns: returns(self.sql, tokens),
            write,
            table: format!(
                "{}.{}",
                escape_identifier(&relation.name.schema),
                escape_identifier(&relation.name.name)
            ),
            alias: escape_identifier(&alias),
            columns: own
                .iter()
                .map(|(_, column)| escape_identifier(&column.name))
                .collect(),
            key: position.unwrap_or_default(),
            map: Arc::clone(&sharding.map),
            stored: StoredAs {
                typmod: key.typmod,
                not_null: key.not_null,
            },
        })
    }
}

/// The shards that rows may be on before or after the update: all that can have any, unless the keys are known.
fn places(analysis: &Analysis, rows: &Target) -> Target {
    let is_known = |keys: &StoredKeys| match keys {
        StoredKeys::Values(values) => values.iter().all(|value| value.source != Source::Computed),
        StoredKeys::Column(..) => false,
    };
    let known = analysis.stored.iter().all(|stored| is_known(&stored.keys));
    match rows {
        Target::Keys(route) if known => {
            let mut needs = route.needs.clone();
            let stored = analysis.stored.iter();
            needs.extend(stored.map(|stored| decide::stored_need(analysis, stored)));
            Target::Keys(KeyRoute {
                needs,
                first_shard_only: false,
                several: None,
            })
        }
        Target::Keys(_) | Target::AnyShard | Target::Shard(_) | Target::AllShards => {
            Target::AllShards
        }
    }
}
