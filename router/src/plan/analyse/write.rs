//! Writes: the table they write, what its triggers may touch, what they return.

use std::borrow::Cow;

use sqlparser::ast::{Expr, ObjectName, SelectItem, Statement, TableFactor};

use super::call::differs_in_triggers;
use super::facts::ScopeId;
use super::from::{Tree, aliased};
use super::names::{Frame, Item, Output, Qualified, relation_name};
use super::{Analyser, Stop, Stored, StoredKeys, display};
use crate::plan::refusal::Refusal;
use crate::plan::remembered::sequence_of;
use crate::plan::route::StoredAs;
use crate::plan::trigger_code::strays;
use crate::relations::{
    Column, DefaultValue, Placement, Relation, RelationKind, Resolved, Sharding,
};
use crate::sql::Token;

/// The table a statement writes.
#[derive(Clone, Copy)]
pub(super) struct WriteTarget<'a> {
    pub(super) relation: Option<&'a Relation>,
}

impl<'a> WriteTarget<'a> {
    pub(super) fn sharding(&self) -> Option<(&'a Relation, &'a Sharding)> {
        let relation = self.relation?;
        Some((relation, relation.sharding()?))
    }
}

impl<'a> Analyser<'a> {
    /// Walks a whole statement.
    pub(super) fn statement(
        &mut self,
        statement: &'a Statement,
        scope: ScopeId,
    ) -> Result<(), Stop> {
        match statement {
            Statement::Query(query) => self.top_query(query, scope).map(|_| ()),
            _ => self.write(statement, scope).map(|_| ()),
        }
    }

    /// Walks a write; returns the columns of its RETURNING.
    pub(super) fn write(
        &mut self,
        statement: &'a Statement,
        scope: ScopeId,
    ) -> Result<Vec<Output>, Stop> {
        self.spend()?;
        self.analysis.writes = true;
        self.analysis.written.push(scope);
        self.analysis.primary = true;
        self.frames.push(Frame::default());
        let returned = match statement {
            Statement::Insert(insert) => self.insert(insert, scope),
            Statement::Update(update) => self.update(update, scope),
            Statement::Delete(delete) => self.delete(delete, scope),
            Statement::Merge(merge) => self.merge(merge, scope),
            _ => Err(Stop::Opaque("not a query")),
        };
        self.frames.pop();
        returned
    }

    /// Takes note of the sequences that writing a table uses: its code, and its defaults, if some may be taken.
    fn uses_sequences_of(&mut self, relation: &Relation, defaults: bool) {
        if has_code(relation) {
            self.uses_unseen_sequences();
        }
        if !defaults || !uses_sequences(relation) {
            return;
        }
        self.analysis.effects.uses_sequences = true;
        for column in &relation.columns {
            let counts = matches!(
                column.default,
                DefaultValue::Sequence | DefaultValue::Identity
            );
            let known = column.expression.as_deref().filter(|_| counts);
            match known.and_then(sequence_of) {
                Some(sequence) => self.analysis.used_sequences.push(sequence),
                None if counts || column.default == DefaultValue::Volatile => {
                    self.uses_unseen_sequences();
                }
                None => {}
            }
        }
    }

    pub(super) fn returning(
        &mut self,
        items: Option<&'a Vec<SelectItem>>,
        scope: ScopeId,
    ) -> Result<Vec<Output>, Stop> {
        match items {
            Some(items) => Ok(self.projection(items, scope)?.0),
            None => Ok(Vec::new()),
        }
    }

    /// The target of a write as an item of the innermost frame.
    pub(super) fn target(
        &mut self,
        name: &ObjectName,
        scope: ScopeId,
    ) -> Result<(WriteTarget<'a>, Item), Stop> {
        let (schema, name) = relation_name(name)?;
        let mut item = Item {
            alias: Some(name.clone().into_owned()),
            schema: schema.clone().map(Cow::into_owned),
            columns: Vec::new(),
            open: true,
            scope,
        };
        if self.is_temporary(schema.as_deref(), &name) {
            self.analysis.temporary = true;
            self.uses_unseen_sequences();
            return Ok((WriteTarget { relation: None }, item));
        }
        let relation = match self.relation(schema.as_deref(), &name) {
            Resolved::Known(relation) => relation,
            Resolved::Catalog => {
                return Err(Refusal::not_supported(format!(
                    "writing the system relation \"{name}\" is not supported"
                ))
                .into());
            }
            Resolved::Unknown => {
                self.is_unknown(&name);
                self.needs_first_shard(&name);
                self.uses_unseen_sequences();
                return Ok((WriteTarget { relation: None }, item));
            }
        };
        let changed = &mut self.analysis.changed;
        changed.get_or_insert_with(|| relation.name.clone());
        let reference = matches!(relation.placement, Placement::Reference) && !self.alone;
        if relation.rules && !self.alone {
            return Err(rewritten(relation).into());
        }
        if let Some(refusal) = written_through(relation).filter(|_| !self.alone) {
            return Err(refusal.into());
        }
        if reference {
            self.analysis.writes_reference = Some(relation.name.to_string());
        }
        item.schema = Some(relation.name.schema.clone());
        (item.columns, item.open) = (self.mention(relation, scope)?, false);
        let sharded = relation.sharding().is_some() && !self.alone;
        self.written = sharded
            .then(|| self.analysis.instances.last().cloned())
            .flatten();
        let words = ["insert", "merge", "default"];
        let is_new = |token: &Token| words.iter().any(|word| token.is_word(self.sql, word));
        self.uses_sequences_of(relation, self.tokens.iter().any(is_new));
        self.changes(&relation.triggers.changes)?;
        if !self.alone {
            self.triggers(self.context.relations.table_of(relation))?;
            let deletes = ["update", "delete", "merge"];
            let cascades = |token: &Token| deletes.iter().any(|word| token.is_word(self.sql, word));
            if self.tokens.iter().any(cascades) {
                self.cascades(relation)?;
            }
        }
        let relation = if self.alone { None } else { Some(relation) };
        Ok((WriteTarget { relation }, item))
    }

    /// What the triggers may touch of tables whose rows change or go with the target's.
    fn cascades(&mut self, relation: &Relation) -> Result<(), Stop> {
        for name in &relation.cascades {
            if let Some(child) = self.context.relations.get(&name.schema, &name.name) {
                self.changes(&child.triggers.changes)?;
                self.triggers(child)?;
            }
        }
        Ok(())
    }

    /// What the target's triggers may touch: they run on the shard of the row.
    fn triggers(&mut self, relation: &Relation) -> Result<(), Stop> {
        let triggers = &relation.triggers;
        let refuse = |what: String| Err(Stop::from(trigger_refused(relation, &what)));
        if matches!(relation.placement, Placement::Reference) {
            let elsewhere = || triggers.elsewhere.as_ref().map(ToString::to_string);
            let differs = triggers.unsharded.clone().or_else(elsewhere);
            let differs = differs
                .or_else(|| triggers.unseen.clone())
                .or_else(|| triggers.varying.first().cloned());
            if let Some(what) = differs {
                self.analysis
                    .diverges
                    .get_or_insert(format!("a trigger that uses \"{what}\""));
            }
            return Ok(());
        }
        if let Some(table) = &triggers.elsewhere {
            return refuse(format!("uses the sharded table \"{table}\""));
        }
        if let Some(table) = &triggers.reference {
            return refuse(format!("may write the reference table \"{table}\""));
        }
        if let Some(function) = triggers
            .unseen
            .as_ref()
            .filter(|_| self.context.relations.has_sharded())
        {
            return refuse(format!(
                "runs code that the router cannot see: function \"{function}\""
            ));
        }
        if !self.context.in_trigger
            && let Some(what) = strays(relation, self.context)
        {
            return refuse(what);
        }
        if let Some(what) = &triggers.unsharded {
            self.needs_first_shard(what);
        }
        let mut varying = triggers.varying.iter();
        let varying = varying.find(|name| differs_in_triggers(self.context, name));
        let what = match varying {
            Some(name) => Some(format!(
                "uses \"{name}\", and each shard would compute a value of its own"
            )),
            None if triggers.each_statement => {
                Some("runs once for a statement, and would run once on each shard".to_owned())
            }
            None => None,
        };
        if let Some(what) = what {
            self.needs_merge(|| {
                Refusal::not_supported(format!(
                    "writing table \"{}\" on several shards in one statement is not supported: a trigger of it {what}",
                    relation.name
                ))
            });
        }
        Ok(())
    }

    /// Rows of the target are inserted: its triggers leave the shard key as it is.
    pub(super) fn inserts(&self, target: WriteTarget<'a>) -> Result<(), Stop> {
        let Some((relation, _)) = target.sharding() else {
            return Ok(());
        };
        match &relation.triggers.rekeys_inserted {
            Some(function) => Err(rekeys(relation, function).into()),
            None => Ok(()),
        }
    }

    /// The same where rows are updated.
    pub(super) fn updates(&self, target: WriteTarget<'a>) -> Result<(), Stop> {
        let Some((relation, _)) = target.sharding() else {
            return Ok(());
        };
        match &relation.triggers.rekeys_updated {
            Some(function) => Err(rekeys(relation, function).into()),
            None => Ok(()),
        }
    }

    pub(super) fn push_item(&mut self, item: Item) {
        self.items.push(item);
        let id = self.items.len() - 1;
        if let Some(frame) = self.frames.last_mut() {
            frame.items.push(id);
        }
    }

    pub(super) fn store(
        &mut self,
        relation: &'a Relation,
        sharding: &'a Sharding,
        keys: StoredKeys,
    ) {
        let column = relation.columns.get(sharding.column);
        self.analysis.stored.push(Stored {
            name: display(relation),
            map: std::sync::Arc::clone(&sharding.map),
            column: StoredAs {
                typmod: column.map_or(-1, |column| column.typmod),
                not_null: column.is_some_and(|column| column.not_null),
            },
            keys,
        });
    }

    /// The target of UPDATE, DELETE or MERGE as a leaf of the joins.
    pub(super) fn target_factor(
        &mut self,
        factor: &'a TableFactor,
        parent: ScopeId,
    ) -> Result<(WriteTarget<'a>, Tree<'a>), Stop> {
        let TableFactor::Table {
            name,
            alias,
            args: None,
            version: None,
            sample: None,
            json_path: None,
            ..
        } = factor
        else {
            return Err(Stop::Opaque("a write without a plain target"));
        };
        let leaf = self.analysis.facts.scope(Some(parent));
        let (target, item) = self.target(name, leaf)?;
        let item = aliased(item, alias.as_ref())?;
        self.push_item(item);
        Ok((target, Tree::Leaf(self.items.len() - 1)))
    }
}

/// A view is no table whose copies or shards are known.
fn written_through(relation: &Relation) -> Option<Refusal> {
    let (of, table) = match &relation.placement {
        Placement::Reference
            if relation.kind != RelationKind::Table && relation.shows.is_none() =>
        {
            ("", "reference table")
        }
        Placement::ReadsSharded(_) if relation.kind == RelationKind::View => {
            (" of a sharded table", "table")
        }
        _ => return None,
    };
    let message = format!(
        "writing through the view \"{}\"{of} is not supported",
        relation.name
    );
    let refusal = Refusal::not_supported(message).detail(
        "Rows are written through views of one table, and its shard key if it has one, without rules, triggers, subqueries and functions that do not depend on the row.",
    );
    Some(refusal.hint(format!("Write the {table} itself.")))
}

/// Rules of a table make other statements of the one that the router sees.
fn rewritten(relation: &Relation) -> Refusal {
    let message = format!(
        "writing \"{}\" is not supported: it has rules for statements that write it",
        relation.name
    );
    Refusal::not_supported(message)
        .detail("The statements that they make would run on the shard of the row and see that shard only.")
        .hint("Use triggers in place of rules.")
}

/// A trigger changes the shard key of rows, perhaps.
pub(in crate::plan) fn rekeys(relation: &Relation, function: &str) -> Refusal {
    let key = relation.key_column().map_or("", |column| &column.name);
    let message = format!(
        "writing table \"{}\" is not supported: a trigger of it may change the shard key",
        relation.name
    );
    Refusal::not_supported(message)
        .detail(format!(
            "Function \"{function}\" runs on a shard that is chosen by the key that the row has before."
        ))
        .hint(format!(
            "Write the function in PL/pgSQL, without assigning to NEW or NEW.{key} and without returning another row."
        ))
}

/// The keyword DEFAULT, which sqlparser takes for a name.
pub(in crate::plan) fn is_default(expr: &Expr) -> bool {
    matches!(expr, Expr::Identifier(ident) if ident.quote_style.is_none() && ident.value.eq_ignore_ascii_case("default"))
}

pub(super) fn single((schema, name): Qualified<'_>) -> Result<String, Stop> {
    match schema {
        None => Ok(name.into_owned()),
        Some(_) => Err(Stop::Opaque("a column with a qualifier as a target")),
    }
}

/// The refusal of a write because of what a trigger does.
pub(in crate::plan) fn trigger_refused(relation: &Relation, what: &str) -> Refusal {
    let message = format!(
        "writing table \"{}\" is not supported: a trigger of it {what}",
        relation.name
    );
    Refusal::not_supported(message)
        .detail("The trigger runs on the shard of the row and sees that shard only.")
}

/// Whether writing the relation may advance a sequence: by a default, a trigger, or what a view hides.
pub(in crate::plan) fn uses_sequences(relation: &Relation) -> bool {
    let default = |column: &Column| {
        matches!(
            column.default,
            DefaultValue::Sequence
                | DefaultValue::Identity
                | DefaultValue::Volatile
                | DefaultValue::Elsewhere
        )
    };
    has_code(relation) || relation.columns.iter().any(default)
}

/// Whether writing it runs code of the user's.
fn has_code(relation: &Relation) -> bool {
    let triggers = &relation.triggers;
    relation.kind != RelationKind::Table && relation.shows.is_none()
        || triggers.unseen.is_some()
        || !triggers.varying.is_empty()
}
