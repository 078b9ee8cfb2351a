//! Reads of rows by a column with a global unique index.
//!
//! Purpose: where the rows of a read are all made of a row with one value of such a column, the index tells which shard has it (ADR 0021); the
//! session asks there first. Invariant: a row of the result shows that the row with the value was there, so that a shard which gives one has given all; the plan
//! itself stays the one for all shards. Collaborators: `bind` evaluates the value; `session::read::located` asks.

use std::sync::Arc;

use switchyard_schema::{Key, KeyMap, ShardIndex};

use super::analyse::{Analysis, Instance};
use super::decide;
use super::route::{KeySet, Need};
use super::{Access, Context, Layer, Operator, Plan};
use crate::relations::{GlobalIndex, Placement};

/// How the one shard is found whose row matters.
#[derive(Debug, Clone)]
pub struct Located {
    /// The index.
    pub index: GlobalIndex,
    /// The value, and the shards of the index.
    pub need: Need,
    /// From the row's shard key to its shard.
    map: Arc<KeyMap>,
}

/// One execution's question.
#[derive(Debug, Clone)]
pub struct Lookup {
    /// The shard of the index that has the value.
    pub shard: ShardIndex,
    /// The value in SQL.
    pub value: String,
    /// The index.
    pub located: Arc<Located>,
}

impl Located {
    /// The shard of the row whose shard key the index has said; `None`: that is not certain.
    pub(crate) fn shard_of(&self, key: &str) -> Option<ShardIndex> {
        let key = Key::from_text(self.map.key_type(), key.as_bytes()).ok()?;
        self.map.shard_of(Some(&key)).ok()
    }

    /// The parameter that the value is.
    pub(super) fn param(&self) -> Option<u16> {
        let mut params = Vec::new();
        self.need.keys.params(&mut params);
        params.pop()
    }
}

/// How the row that a read is about is found, if all shards would be asked for it.
pub(super) fn located(
    plan: &Plan,
    analysis: &Analysis,
    context: &Context<'_>,
) -> Option<Arc<Located>> {
    let only_reads = plan.access <= Access::PrimaryRead && plan.settings.is_empty();
    let runs = !matches!(plan.operator, Operator::Refuse(_));
    let is_asked = context.layer == Layer::Auto && context.given.is_empty();
    if context.relations.global_indexes().is_empty() || !only_reads || !runs || !is_asked {
        return None;
    }
    let features = &analysis.root.as_ref()?.features;
    if !features.is_strict() || features.locking {
        return None;
    }
    let anchors = decide::scattered(analysis).ok()?;
    let is_open = |anchor: &&Instance| decide::need(analysis, anchor).keys == KeySet::Everything;
    if !anchors.iter().all(is_open) {
        return None;
    }
    let mut found = anchors.iter().flat_map(|anchor| {
        let columns = anchor.unique.iter();
        columns.filter_map(|(index, column)| {
            let keys = analysis.facts.known(anchor.scope).keys(*column);
            let equal = matches!(keys, KeySet::Equal(_));
            let relation = context
                .relations
                .get(&index.name.schema, &index.name.name)?;
            let Placement::Sharded(sharding) = &relation.placement else {
                return None;
            };
            let need = Need {
                relation: anchor.name.clone(),
                map: Arc::clone(&sharding.map),
                keys,
                stored: None,
            };
            let (index, map) = (index.clone(), Arc::clone(&anchor.map));
            equal.then(|| Arc::new(Located { index, need, map }))
        })
    });
    found.next()
}
