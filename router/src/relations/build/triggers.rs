//! What happens besides when a table is written: its triggers, by the words of their code, and its rules.

use std::collections::{HashMap, HashSet};

use switchyard_schema::TableName;

use super::{Builder, is_unsharded};
use crate::relations::code::{calls, words};
use crate::relations::introspect::{FunctionRow, TriggerRow};
use crate::relations::keeps::keeps;
use crate::relations::{DefaultValue, Placement, Relation, Sharding, Triggers, Volatility};

impl Builder<'_> {
    pub(super) fn triggers(&mut self) {
        let code: HashMap<i64, &FunctionRow> = self
            .found
            .functions
            .iter()
            .map(|row| (row.oid, row))
            .collect();
        let mut writes: HashMap<i64, HashSet<i64>> = HashMap::new();
        for trigger in &self.found.triggers {
            let Some(function) = code.get(&trigger.function) else {
                continue;
            };
            for written in self.written_with(trigger) {
                let Some(relation) = self.relations.get(&written) else {
                    continue;
                };
                let found = self.trigger(relation, trigger, function);
                let inner = self.mentioned_tables(function);
                let here = is_unsharded(&relation.placement) && found.is_of_first_shard();
                let Some(relation) = self.relations.get_mut(&written) else {
                    continue;
                };
                if trigger.on_truncate && !here {
                    relation
                        .on_truncate
                        .get_or_insert_with(|| function.name.clone());
                }
                if trigger.on_rows {
                    relation.triggers.add(found);
                    writes.entry(written).or_default().extend(inner);
                }
            }
        }
        self.triggers_of_triggers(&writes);
        self.cascades();
        self.truncations();
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

    /// What one trigger of a table may touch, by the words of its function's code and of its condition.
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
        let condition = trigger.condition.as_deref().unwrap_or_default();
        let mut named: HashSet<String> = calls(condition).collect();
        if let Some(source) = &function.source {
            let mentioned: HashSet<String> = words(source).collect();
            self.tables_of(relation, source, &mentioned, &mut found);
            named.extend(mentioned);
        }
        self.code_of(function, &named, &mut found);
        found.changes = self.changes.get(&function.oid).cloned().unwrap_or_default();
        let varies = |word: &&String| self.word_volatility(word) != Volatility::Immutable;
        found.varying.extend(named.iter().filter(varies).cloned());
        found
    }

    /// The tables that a trigger's own code mentions.
    fn tables_of(
        &self,
        relation: &Relation,
        source: &str,
        mentioned: &HashSet<String>,
        found: &mut Triggers,
    ) {
        let colocated = |other: &Sharding| {
            let own = relation.sharding();
            own.is_some_and(|own| own.map.colocated_with(&other.map))
        };
        let others = mentioned.iter().filter_map(|word| self.named.get(word));
        let others = others.flatten().filter_map(|oid| self.relations.get(oid));
        for other in others {
            match &other.placement {
                Placement::Unsharded => found.unsharded = Some(other.name.to_string()),
                Placement::Sharded(of) if colocated(of) => {
                    found.beside = vec![source.into()];
                    if mentioned.contains("insert") {
                        left_out(other, found);
                    }
                }
                Placement::Sharded(_) | Placement::Broken(_) | Placement::ReadsSharded(_) => {
                    found.elsewhere = Some(other.name.clone());
                }
                Placement::Reference | Placement::Catalog => {}
            }
        }
    }

    /// What a trigger's code, and that of functions it mentions, touches besides.
    fn code_of(&self, function: &FunctionRow, named: &HashSet<String>, found: &mut Triggers) {
        let own = self.touched.get(&function.oid);
        let mentioned = |word: &&String| {
            let mut code = self.found.functions.iter();
            code.any(|row| row.name == **word && self.reads.contains_key(&row.oid))
        };
        if let Some(touched) = own {
            found.reference.clone_from(&touched.reference);
        }
        if let Some(name) = named.iter().find(|word| self.is_kept_by_the_first(word)) {
            found.unsharded.get_or_insert_with(|| format!("{name}()"));
        }
        for name in named {
            let Some(touched) = self
                .touched_by_name
                .get(name)
                .filter(|_| *name != function.name)
            else {
                continue;
            };
            if touched.tables || touched.sequences {
                found.unsharded.get_or_insert_with(|| format!("{name}()"));
            }
            if found.reference.is_none() {
                found.reference.clone_from(&touched.reference);
            }
            if touched.dynamic {
                found.unseen = Some(name.clone());
            }
        }
        if own.is_some_and(|own| own.dynamic) {
            found.unseen.get_or_insert_with(|| function.name.clone());
        }
        let is_other = |word: &&String| **word != function.name;
        if let Some(name) = named.iter().filter(is_other).find(mentioned) {
            let row = self
                .found
                .functions
                .iter()
                .find_map(|row| self.reads.get(&row.oid).filter(|_| row.name == *name));
            found.elsewhere = found.elsewhere.take().or(row.cloned());
        }
    }

    /// The tables that a trigger's function, or a function it mentions, may write.
    fn mentioned_tables(&self, function: &FunctionRow) -> HashSet<i64> {
        let (mut seen, mut tables) = (HashSet::new(), HashSet::new());
        let mut open = vec![function.oid];
        let writes = self
            .touched
            .get(&function.oid)
            .is_some_and(|own| own.writes);
        while let (true, Some(oid)) = (writes, open.pop()) {
            if !seen.insert(oid) {
                continue;
            }
            for word in self.code.get(&oid).into_iter().flatten() {
                tables.extend(self.named.get(word).into_iter().flatten());
                if self.touched_by_name.contains_key(word) {
                    let functions = self.found.functions.iter();
                    open.extend(functions.filter(|row| row.name == *word).map(|row| row.oid));
                }
            }
        }
        tables
    }

    /// Adds what the triggers of tables may touch that triggers write.
    fn triggers_of_triggers(&mut self, writes: &HashMap<i64, HashSet<i64>>) {
        loop {
            let mut more = false;
            for (oid, tables) in writes {
                for table in tables.iter().filter(|table| *table != oid) {
                    let Some(inner) = self.relations.get(table) else {
                        continue;
                    };
                    let inner = inner.triggers.of_one_shard();
                    if let Some(relation) = self.relations.get_mut(oid) {
                        let before = relation.triggers.clone();
                        relation.triggers.add(inner);
                        more |= relation.triggers != before;
                    }
                }
            }
            if !more {
                return;
            }
        }
    }

    /// Notes the tables with triggers that run because foreign keys change or delete rows.
    fn cascades(&mut self) {
        let follows = |action: &str| !matches!(action, "a" | "r");
        let keys = self.found.foreign_keys.iter();
        let keys = keys.filter(|key| follows(&key.on_update) || follows(&key.on_delete));
        let keys: Vec<(i64, i64)> = keys.map(|key| (key.from, key.to)).collect();
        let mut more = true;
        while more {
            more = false;
            for (from, to) in &keys {
                let Some(child) = self.relations.get(from).filter(|_| from != to) else {
                    continue;
                };
                let mut found = child.cascades.clone();
                found.push(child.name.clone());
                let Some(parent) = self.relations.get_mut(to) else {
                    continue;
                };
                let new = |name: &TableName| !parent.cascades.contains(name);
                let new: Vec<TableName> = found.into_iter().filter(new).collect();
                more |= !new.is_empty();
                parent.cascades.extend(new);
            }
        }
    }

    /// Notes the triggers that run where tables are truncated with others.
    fn truncations(&mut self) {
        for relation in self.relations.values_mut() {
            relation
                .on_truncate_cascade
                .clone_from(&relation.on_truncate);
        }
        let mut more = true;
        while more {
            more = false;
            for key in &self.found.foreign_keys {
                let child = self.relations.get(&key.from);
                let function = child.and_then(|child| child.on_truncate_cascade.clone());
                if let (Some(function), Some(parent)) = (function, self.relations.get_mut(&key.to))
                    && parent.on_truncate_cascade.is_none()
                {
                    parent.on_truncate_cascade = Some(function);
                    more = true;
                }
            }
        }
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
        self.varying.dedup();
        self.each_statement |= other.each_statement;
        self.changes.add(&other.changes);
        self.rekeys_inserted = self.rekeys_inserted.take().or(other.rekeys_inserted);
        self.rekeys_updated = self.rekeys_updated.take().or(other.rekeys_updated);
    }

    /// Whether nothing but what is on the first shard is touched.
    fn is_of_first_shard(&self) -> bool {
        self.elsewhere.is_none() && self.reference.is_none() && self.unseen.is_none()
    }

    /// What it touches where it runs as part of another trigger, on the shard of one row.
    fn of_one_shard(&self) -> Triggers {
        Triggers {
            each_statement: false,
            beside: Vec::new(),
            ..self.clone()
        }
    }
}

/// What rows store that code inserts without a value for each column.
fn left_out(other: &Relation, found: &mut Triggers) {
    for column in &other.columns {
        let default = || format!("the default of column {}.{}", other.name, column.name);
        match column.default {
            DefaultValue::Absent
            | DefaultValue::Immutable
            | DefaultValue::Generated
            | DefaultValue::Own => {}
            DefaultValue::Moment | DefaultValue::Stable => found.varying.push("now".to_owned()),
            DefaultValue::Sequence
            | DefaultValue::Identity
            | DefaultValue::Volatile
            | DefaultValue::Elsewhere => {
                found.unsharded.get_or_insert_with(default);
            }
        }
    }
}
