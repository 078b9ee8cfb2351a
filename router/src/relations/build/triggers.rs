//! What happens besides when a table is written: its triggers, by the words of their code, and its rules.

use std::collections::{HashMap, HashSet};

use super::{Builder, is_unsharded, is_write, words};
use crate::relations::introspect::{FunctionRow, TriggerRow};
use crate::relations::keeps::keeps;
use crate::relations::{Placement, Relation, Sharding, Triggers, Volatility};

impl Builder<'_> {
    pub(super) fn triggers(&mut self) {
        let code: HashMap<i64, &FunctionRow> = self
            .found
            .functions
            .iter()
            .map(|row| (row.oid, row))
            .collect();
        for trigger in &self.found.triggers {
            let Some(function) = code.get(&trigger.function) else {
                continue;
            };
            for written in self.written_with(trigger) {
                let Some(relation) = self.relations.get(&written) else {
                    continue;
                };
                let found = self.trigger(relation, trigger, function);
                if let Some(relation) = self.relations.get_mut(&written) {
                    relation.triggers.add(found);
                }
            }
        }
    }

    /// The tables that a trigger runs for: its own, and those that the rows of its table are rows of.
    fn written_with(&self, trigger: &TriggerRow) -> Vec<i64> {
        let parent = |oid: &i64| {
            let row = self.found.relations.iter().find(|row| row.oid == *oid)?;
            row.parent.filter(|_| trigger.each_row)
        };
        let tables = std::iter::successors(Some(trigger.relation), parent);
        tables.take(self.found.relations.len()).collect()
    }

    /// What one trigger of a table may touch, by the words of its function's code.
    fn trigger(
        &self,
        relation: &Relation,
        trigger: &TriggerRow,
        function: &FunctionRow,
    ) -> Triggers {
        let mut found = Triggers {
            each_statement: !trigger.each_row,
            ..Triggers::default()
        };
        let key = relation.key_column().map(|column| &*column.name);
        if trigger.before && trigger.each_row && key.is_some_and(|key| !keeps(function, key)) {
            let name = || function.name.clone();
            found.rekeys_inserted = trigger.on_insert.then(name);
            found.rekeys_updated = trigger.on_update.then(name);
        }
        let Some(source) = &function.source else {
            return found;
        };
        let words: HashSet<String> = words(source).collect();
        let colocated = |other: &Sharding| {
            relation
                .sharding()
                .is_some_and(|own| own.map.colocated_with(&other.map))
        };
        for other in self
            .relations
            .values()
            .filter(|other| words.contains(&other.name.name))
        {
            match &other.placement {
                Placement::Unsharded => found.unsharded = Some(other.name.clone()),
                Placement::Reference if words.iter().any(|word| is_write(word)) => {
                    found.reference = Some(other.name.clone());
                }
                Placement::Sharded(other) if colocated(other) => {
                    found.beside = vec![source.as_str().into()];
                }
                Placement::Sharded(_) | Placement::Broken(_) | Placement::ReadsSharded(_) => {
                    found.elsewhere = Some(other.name.clone());
                }
                Placement::Reference | Placement::Catalog => {}
            }
        }
        let hidden =
            !matches!(function.language.as_str(), "sql" | "plpgsql") || words.contains("execute");
        found.unseen = hidden.then(|| function.name.clone());
        found.changes = self.changes.get(&function.oid).cloned().unwrap_or_default();
        let varies = |word: &String| self.word_volatility(word) != Volatility::Immutable;
        found.varying = words.iter().filter(|word| varies(word)).cloned().collect();
        found
    }

    /// Marks the relations whose rules make statements of which not everything is on the first shard.
    pub(super) fn rules(&mut self) {
        let code = self.found.functions.iter();
        let code: HashSet<i64> = code
            .filter(|row| row.source.is_some())
            .map(|row| row.oid)
            .collect();
        for row in self.found.relations.iter().filter(|row| row.rules) {
            let is_elsewhere = |oid: i64| {
                let used = self.relations.get(&oid);
                used.is_some_and(|used| {
                    !is_unsharded(&used.placement) && !matches!(used.placement, Placement::Catalog)
                })
            };
            let mut uses = self.found.view_uses.iter();
            let reaches = is_elsewhere(row.oid)
                || uses.any(|used| {
                    used.view == row.oid
                        && (used.relation.is_some_and(is_elsewhere)
                            || used.function.is_some_and(|oid| code.contains(&oid)))
                });
            if let Some(relation) = self.relations.get_mut(&row.oid) {
                relation.rules = reaches;
            }
        }
    }
}

impl Triggers {
    /// Adds what another trigger may touch.
    fn add(&mut self, other: Triggers) {
        self.beside.extend(other.beside);
        self.unsharded = self.unsharded.take().or(other.unsharded);
        self.elsewhere = self.elsewhere.take().or(other.elsewhere);
        self.reference = self.reference.take().or(other.reference);
        self.unseen = self.unseen.take().or(other.unseen);
        self.varying.extend(other.varying);
        self.varying.sort();
        self.each_statement |= other.each_statement;
        self.changes.add(&other.changes);
        self.rekeys_inserted = self.rekeys_inserted.take().or(other.rekeys_inserted);
        self.rekeys_updated = self.rekeys_updated.take().or(other.rekeys_updated);
    }
}
