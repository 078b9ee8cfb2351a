//! Which tables' rows stay on their shards, whatever an UPDATE makes of their shard keys.
//!
//! A row moves by being updated and deleted where it is and inserted where it belongs then. Only triggers and foreign keys could tell that
//! from an update, and policies: where they do, rows are not moved.

use std::collections::{HashMap, HashSet};

use super::Builder;
use crate::relations::{Placement, RelationKind};

impl Builder<'_> {
    /// Finds out why rows of sharded tables cannot move.
    pub(super) fn stays(&mut self) {
        let mut children: HashMap<i64, Vec<i64>> = HashMap::new();
        for row in &self.found.relations {
            if let Some(parent) = row.parent {
                children.entry(parent).or_default().push(row.oid);
            }
        }
        let triggers = self.found.triggers.iter();
        let with_triggers: HashSet<i64> = triggers.map(|trigger| trigger.relation).collect();
        for row in &self.found.relations {
            let family = family(row.oid, &children);
            let kind = self.relations.get(&row.oid).map(|relation| relation.kind);
            let has_trigger = family.iter().any(|oid| with_triggers.contains(oid));
            let why = match kind {
                Some(RelationKind::Table) if row.kind != "p" && family.len() > 1 => {
                    Some("Other tables inherit from it.")
                }
                Some(RelationKind::Table) if has_trigger => Some("It has triggers."),
                Some(RelationKind::Table) if row.policies => Some("It has row security policies."),
                Some(RelationKind::Table) => self.is_tied(&family),
                _ => Some("It is not a table."),
            };
            if let Some(relation) = self.relations.get_mut(&row.oid) {
                relation.stays = why;
            }
        }
    }

    /// How foreign keys tie rows of these tables, a table and its partitions, to others on their shard.
    fn is_tied(&self, family: &[i64]) -> Option<&'static str> {
        let is_whole = |oid: &i64| {
            let relation = self.relations.get(oid);
            relation.is_some_and(|relation| matches!(relation.placement, Placement::Reference))
        };
        self.found.foreign_keys.iter().find_map(|key| {
            if family.contains(&key.from) && !is_whole(&key.to) {
                return Some("A foreign key of it refers to a table that is not a reference table.");
            }
            let follows = !matches!(key.on_update.as_str(), "a" | "r");
            (family.contains(&key.to) && follows)
                .then_some("Rows that refer to it change with it: a foreign key has ON UPDATE CASCADE, SET NULL or SET DEFAULT.")
        })
    }
}

/// A relation with all that inherit from it.
fn family(oid: i64, children: &HashMap<i64, Vec<i64>>) -> Vec<i64> {
    let mut found = vec![oid];
    let mut at = 0;
    while let Some(parent) = found.get(at) {
        let more = children.get(parent).into_iter().flatten();
        let more: Vec<i64> = more.filter(|oid| !found.contains(oid)).copied().collect();
        found.extend(more);
        at += 1;
    }
    found
}
