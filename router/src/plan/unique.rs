//! Statements that may write tables with global unique indexes.
//!
//! Purpose: a plan says which indexes it may touch, so that the session brings to their shards what triggers have recorded
//! (ADR 0021). Invariants: a statement that writes and may reach such a table is marked, by whatever way it could; where there is no such
//! index nothing is looked at. Collaborators: [`crate::relations`] knows the indexes; `session::write::unique` keeps them.

use std::sync::Arc;

use switchyard_schema::TableName;

use super::moment::Moments;
use super::refusal::Refusal;
use super::route::Target;
use super::{Access, Broadcast, Command, CopyDirection, Operator, Plan, Planner, Write, utility};
use crate::relations::{Function, GlobalIndex, Placement, Relation, Triggers, Volatility};
use crate::sql::{self, TokenKind};

impl Planner<'_> {
    /// Marks a plan that may write tables with global unique indexes. What would go to one shard as it is becomes a write of its own, which
    /// the session looks after.
    pub(super) fn keeping_unique(&self, plan: &mut Plan) {
        if self.context.relations.global_indexes().is_empty() || plan.access != Access::Write {
            return;
        }
        if let Some(index) = self.index_written() {
            *plan = utility::refused(written(index), plan.command.clone());
            return;
        }
        let keeps = matches!(
            plan.command,
            Command::Write
                | Command::Select
                | Command::Other
                | Command::Copy(CopyDirection::In)
                | Command::OfCursor { .. }
        );
        let runs = match &plan.operator {
            Operator::PassThrough(_) => !matches!(plan.command, Command::Copy(_)),
            Operator::Write(_)
            | Operator::Move(_)
            | Operator::Steps(_)
            | Operator::Insert(_)
            | Operator::InsertQuery(_)
            | Operator::CopyIn(_)
            | Operator::Broadcast(Broadcast::Reference | Broadcast::Ddl) => true,
            Operator::Append(_)
            | Operator::Merge(_)
            | Operator::Broadcast(Broadcast::Stepwise)
            | Operator::Workspace(_)
            | Operator::Lock(_)
            | Operator::Refuse(_) => false,
            Operator::Session => matches!(plan.command, Command::OfCursor { .. }),
        };
        if !keeps || !runs {
            return;
        }
        let indexes = self.indexes_reached();
        if indexes.is_empty() {
            return;
        }
        if let Some(index) = indexes.iter().find(|index| self.conflicts_with(index)) {
            *plan = utility::refused(conflict(index), plan.command.clone());
            return;
        }
        let indexes: Arc<[GlobalIndex]> = indexes.into();
        plan.unique = Some(Arc::clone(&indexes));
        if let Operator::PassThrough(target) = &mut plan.operator {
            let target = std::mem::replace(target, Target::AnyShard);
            plan.operator = Operator::Write(Box::new(Write {
                target,
                moments: Moments::default(),
                copies: false,
                given: Vec::new(),
                ahead: Vec::new(),
                remembers: false,
            }));
        }
        if let Some(several) = &mut plan.several {
            Arc::make_mut(several).unique = Some(indexes);
        }
    }

    /// The indexes of the tables that the statement names, or that follow those; all of them where code might write any table.
    fn indexes_reached(&self) -> Vec<GlobalIndex> {
        let relations = self.context.relations;
        let all = relations.global_indexes();
        let mut reached = Vec::new();
        for token in self.tokens {
            if token.kind == TokenKind::UnicodeIdent {
                return all.to_vec();
            }
            let name = sql::name(token, self.sql);
            let Some(name) = name else { continue };
            let mut functions = relations.functions_named(&name).iter();
            let runs_code = |function: &Function| {
                function.volatility == Volatility::Volatile
                    && (function.reads_sharded.is_some() || function.dynamic)
            };
            if functions.any(runs_code) {
                return all.to_vec();
            }
            for relation in relations.named(&name) {
                if self.runs_code(relation) {
                    return all.to_vec();
                }
                let relation = relations.table_of(relation);
                let follows = |index: &&GlobalIndex| {
                    index.table == relation.name || relation.cascades.contains(&index.table)
                };
                reached.extend(all.iter().filter(follows).cloned());
            }
        }
        reached.sort_by(|one, other| {
            (&one.name.schema, &one.name.name).cmp(&(&other.name.schema, &other.name.name))
        });
        reached.dedup();
        reached
    }

    /// The index whose own rows the statement writes, which are the router's to write.
    fn index_written(&self) -> Option<&GlobalIndex> {
        let is = |at: Option<usize>, word| {
            let token = at.and_then(|at| self.tokens.get(at));
            token.is_some_and(|token| token.is_word(self.sql, word))
        };
        let truncates = is(Some(0), "truncate");
        // What a name is behind: its schema and ONLY are part of it.
        let before = |at: usize| {
            let dot = at.checked_sub(1).and_then(|dot| self.tokens.get(dot));
            let qualified = dot.is_some_and(|dot| dot.kind == TokenKind::Punct(b'.'));
            let before = at.checked_sub(if qualified { 3 } else { 1 })?;
            match is(Some(before), "only") {
                true => before.checked_sub(1),
                false => Some(before),
            }
        };
        let writes = |at: usize| {
            let word = before(at);
            let deletes = is(word, "from") && is(word.and_then(|at| at.checked_sub(1)), "delete");
            deletes || truncates || ["into", "update", "copy"].iter().any(|verb| is(word, verb))
        };
        let names = |index: &GlobalIndex, at: usize| {
            let name = self
                .tokens
                .get(at)
                .and_then(|token| sql::name(token, self.sql));
            name.is_some_and(|name| {
                let part = name.strip_prefix(&*index.name.name);
                matches!(part, Some("" | "_changes"))
            })
        };
        let mut indexes = self.context.relations.global_indexes().iter();
        indexes.find(|index| (0..self.tokens.len()).any(|at| names(index, at) && writes(at)))
    }

    /// Whether ON CONFLICT is about the index, which no shard would look at then.
    fn conflicts_with(&self, index: &GlobalIndex) -> bool {
        let is = |at: usize, word| {
            let token = self.tokens.get(at);
            token.is_some_and(|token| token.is_word(self.sql, word))
        };
        let names = |at: usize, name: &str| {
            let token = self.tokens.get(at);
            token
                .and_then(|token| sql::name(token, self.sql))
                .as_deref()
                == Some(name)
        };
        let inserts = |at: &usize| is(*at, "into") && names_table(self, *at, index);
        let Some(into) = (0..self.tokens.len()).find(inserts) else {
            return false;
        };
        // A view may have other names for the columns.
        let is_view = !names(into + 1, &index.table.name) && !names(into + 3, &index.table.name);
        let mut clauses =
            (into..self.tokens.len()).filter(|at| is(*at, "on") && is(at + 1, "conflict"));
        clauses.any(|at| {
            is_view
                || is(at + 2, "do")
                || is(at + 2, "on") && names(at + 4, &index.name.name)
                || names(at + 3, &index.column)
        })
    }

    /// Whether writing it may run code that writes other sharded tables: a view's rows, rules, triggers, also of tables that follow it.
    fn runs_code(&self, relation: &Relation) -> bool {
        let writes = |triggers: &Triggers| {
            !triggers.beside.is_empty() || triggers.elsewhere.is_some() || triggers.unseen.is_some()
        };
        let follows = |name: &TableName| {
            let followed = self.context.relations.get(&name.schema, &name.name);
            followed.is_some_and(|followed| writes(&followed.triggers))
        };
        matches!(relation.placement, Placement::ReadsSharded(_))
            || relation.rules
            || writes(&relation.triggers)
            || relation.cascades.iter().any(follows)
    }
}

/// Whether the table of the index is named behind INTO, or a view that shows it, with its schema perhaps.
fn names_table(planner: &Planner<'_>, into: usize, index: &GlobalIndex) -> bool {
    let relations = planner.context.relations;
    let names = planner.tokens.iter().skip(into + 1).take(3);
    let mut names = names.filter_map(|token| sql::name(token, planner.sql));
    names.any(|name| {
        let mut named = relations.named(&name);
        named.any(|relation| relations.table_of(relation).name == index.table)
    })
}

fn conflict(index: &GlobalIndex) -> Refusal {
    let name = &index.name;
    let message = format!("ON CONFLICT about the global unique index \"{name}\" is not supported");
    Refusal::not_supported(message)
        .detail("The values are on other shards than the rows.")
        .hint(
            "Name the columns of a unique constraint that contains the shard key: ON CONFLICT (…).",
        )
}

fn written(index: &GlobalIndex) -> Refusal {
    let (name, table) = (&index.name, &index.table);
    let message = format!("cannot change global unique index \"{name}\"");
    Refusal::certain("42809", message)
        .detail(format!(
            "It has the values of the rows of table \"{table}\"."
        ))
        .hint("Change the rows of the table.")
}
