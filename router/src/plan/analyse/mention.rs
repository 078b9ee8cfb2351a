//! What a relation's name in a FROM stands for: a common table expression, a temporary relation, or a relation whose rows are
//! read.

use std::borrow::Cow;

use sqlparser::ast::Query;
use switchyard_schema::{Collation, KeyType};

use super::facts::{ColumnId, Fact, ScopeId};
use super::from::rename;
use super::names::{Item, Output};
use super::{Analyser, CteBody, Instance, Stop, display};
use crate::plan::refusal::Refusal;
use crate::plan::types::Typed;
use crate::plan::workspace::OwnView;
use crate::relations::{GlobalIndex, Placement, Relation, RelationKind, Resolved, Volatility};

impl<'a> Analyser<'a> {
    /// The item a relation's name stands for: a CTE, a temporary relation, or one of the catalogue's.
    pub(super) fn relation_item(
        &mut self,
        schema: Option<&str>,
        name: &str,
        scope: ScopeId,
    ) -> Result<Item, Stop> {
        let mut item = Item {
            alias: Some(name.to_owned()),
            schema: schema.map(str::to_owned),
            columns: Vec::new(),
            open: true,
            scope,
        };
        if schema.is_none()
            && let Some(position) = self.ctes.iter().rposition(|cte| cte.name == name)
        {
            (item.columns, item.open) = self.cte(position, scope)?;
            return Ok(item);
        }
        if self.is_temporary(schema, name) {
            self.analysis.temporary = true;
            return Ok(item);
        }
        match self.relation(schema, name) {
            Resolved::Known(relation) => {
                if schema.is_none() {
                    item.schema = Some(relation.name.schema.clone());
                }
                (item.columns, item.open) = (self.mention(relation, scope)?, false);
            }
            Resolved::Catalog
                if schema.is_none_or(|schema| schema == "pg_catalog")
                    && let Some(view) = OwnView::named(name) =>
            {
                self.own_view(view);
            }
            Resolved::Catalog if name == "pg_class" && self.analysis.names_own_tables => {}
            Resolved::Catalog => {
                self.analysis.catalog = true;
                self.analysis.lists_catalog = true;
                self.analysis.primary_read |= describes_its_server(name);
            }
            Resolved::Unknown => {
                self.is_unknown(name);
                self.needs_first_shard(name);
            }
        }
        Ok(item)
    }

    fn own_view(&mut self, view: OwnView) {
        if !self.analysis.own_views.contains(&view) {
            self.analysis.own_views.push(view);
        }
        let refusal = || {
            let message = format!("view \"{}\" is not supported here", view.name());
            Refusal::not_supported(message)
                .detail("Each of the session's connections has a part of what it lists.")
        };
        self.analysis.reads_views.get_or_insert_with(refusal);
    }

    /// Notes that a relation's rows are read; returns its columns.
    pub(super) fn mention(
        &mut self,
        relation: &'a Relation,
        scope: ScopeId,
    ) -> Result<Vec<Output>, Stop> {
        let mut columns = Vec::with_capacity(relation.columns.len());
        for column in &relation.columns {
            let family = KeyType::from_oid(column.type_oid)
                .filter(|_| column.collation != Collation::Nondeterministic)
                .map(KeyType::family);
            let id = family.map(|family| self.analysis.facts.column(family, scope));
            columns.push(Output {
                name: Some(column.name.clone()),
                column: id,
                typed: Typed::of(column),
            });
        }
        if !self.analysis.read.contains(&relation.name) {
            self.analysis.read.push(relation.name.clone());
        }
        if !self.alone {
            if let Some(refusal) = secured(relation) {
                return Err(refusal.into());
            }
            if let Some(name) = &relation.policies.varying {
                self.needs_merge(|| varying_policy(relation, name));
                self.analysis.secured_apart = Some(varying_policy(relation, name));
            }
        }
        self.analysis.primary |= relation.unlogged || relation.volatility == Volatility::Volatile;
        // What PostgreSQL has logged of a sequence is ahead of it, and that is what replicas have.
        self.analysis.primary_read |= relation.kind == RelationKind::Sequence;
        // Those that read sharded tables are looked into where they are made anew.
        self.analysis.may_change |= relation.volatility == Volatility::Volatile
            && !matches!(relation.placement, Placement::ReadsSharded(_));
        if relation.volatility != Volatility::Immutable {
            self.needs_merge(|| volatile_view(relation));
        }
        match &relation.placement {
            _ if self.alone => self.needs_first_shard(&relation.name.to_string()),
            _ if self.context.given.contains(&relation.name) => self.analysis.reference = true,
            Placement::Reference => self.analysis.reference = true,
            Placement::Unsharded => self.needs_first_shard(&relation.name.to_string()),
            Placement::Catalog => {
                self.analysis.catalog = true;
                self.analysis.lists_catalog = true;
            }
            Placement::ReadsSharded(table) => {
                let refusal = || view(relation, &table.to_string());
                self.analysis.reads_views.get_or_insert_with(refusal);
            }
            Placement::Broken(reason) => return Err(broken(relation, reason).into()),
            Placement::Sharded(sharding) => {
                let Some(key) = columns
                    .get(sharding.column)
                    .and_then(|column| column.column)
                else {
                    return Err(broken(relation, "its shard key is not a column").into());
                };
                let (name, map) = (display(relation), std::sync::Arc::clone(&sharding.map));
                let unique = self.unique_columns(relation, &columns);
                self.analysis.instances.push(Instance {
                    name,
                    map,
                    key,
                    scope,
                    unique,
                });
            }
        }
        Ok(columns)
    }

    /// The columns of a relation that global unique indexes keep.
    fn unique_columns(
        &self,
        relation: &Relation,
        columns: &[Output],
    ) -> Vec<(GlobalIndex, ColumnId)> {
        let indexes = self.context.relations.global_indexes().iter();
        let own = indexes.filter(|index| index.table == relation.name);
        let columns = own.filter_map(|index| {
            let column = columns.get(relation.column(&index.column)?)?.column?;
            Some((index.clone(), column))
        });
        columns.collect()
    }

    /// The columns of a CTE where it is mentioned.
    fn cte(&mut self, position: usize, scope: ScopeId) -> Result<(Vec<Output>, bool), Stop> {
        self.spend()?;
        let cte = self.ctes[position].clone();
        self.ctes[position].used = true;
        let (mut columns, open) = match cte.body {
            CteBody::Itself => (Vec::new(), true),
            CteBody::Write {
                columns,
                scope: inside,
                target,
            } => {
                let mut key = None;
                let outputs = columns.into_iter().map(|output| {
                    let column = output.column.map(|inner| {
                        let outer = self
                            .analysis
                            .facts
                            .column(self.analysis.facts.family(inner), scope);
                        self.analysis.facts.add(
                            scope,
                            Fact::Link {
                                outer,
                                inner,
                                of: inside,
                            },
                        );
                        if target.as_ref().is_some_and(|target| target.key == inner) {
                            key = Some(outer);
                        }
                        outer
                    });
                    Output { column, ..output }
                });
                let outputs = outputs.collect::<Vec<_>>();
                self.analysis.facts.export(inside, scope);
                if let Some(target) = target {
                    let own = || {
                        let family = self.analysis.facts.family(target.key);
                        self.analysis.facts.column(family, scope)
                    };
                    let key = key.unwrap_or_else(own);
                    self.analysis.returned_twice |= cte.used;
                    self.analysis.returned.push(Instance {
                        name: cte.name.as_str().into(),
                        map: target.map,
                        key,
                        scope,
                        unique: Vec::new(),
                    });
                }
                let open = outputs.iter().any(|output| output.name.is_none());
                (outputs, open)
            }
            CteBody::Query { query, recursive } => {
                self.cte_query(position, query, recursive, cte.frames, scope)?
            }
        };
        rename(&mut columns, cte.columns.iter().map(Cow::from));
        Ok((columns, open))
    }

    /// Walks a CTE's query with what was visible where it was defined.
    fn cte_query(
        &mut self,
        position: usize,
        query: &'a Query,
        recursive: bool,
        frames: usize,
        scope: ScopeId,
    ) -> Result<(Vec<Output>, bool), Stop> {
        let frames = self.frames.split_off(frames.min(self.frames.len()));
        let later = self.ctes.split_off(position + usize::from(recursive));
        if recursive {
            self.ctes[position].used = false;
            self.ctes[position].body = CteBody::Itself;
        }
        let found = self.derived(query, scope);
        let mut itself = false;
        if recursive {
            itself = std::mem::replace(&mut self.ctes[position].used, true);
            self.ctes[position].body = CteBody::Query { query, recursive };
        }
        self.ctes.extend(later);
        self.frames.extend(frames);
        let (mut columns, open) = found?;
        if itself {
            // The rows of one round are the input of the next: conditions from outside do not reach in.
            columns.iter_mut().for_each(|output| output.column = None);
        }
        Ok((columns, open))
    }
}

/// Views of PostgreSQL's that show settings, statistics or activity of the one server that answers. The first shard's prepared transactions are those of the
/// clients.
fn describes_its_server(name: &str) -> bool {
    name.starts_with("pg_stat_")
        || name.starts_with("pg_statio_")
        || matches!(name, "pg_settings" | "pg_locks" | "pg_prepared_xacts")
}

fn view(relation: &Relation, table: &str) -> Refusal {
    Refusal::not_supported(format!(
        "view \"{}\" reads the sharded table \"{table}\"",
        relation.name
    ))
    .detail("Views of sharded tables are not supported yet.")
    .hint("Use the view's query in place of the view.")
}

pub(super) fn broken(relation: &Relation, reason: &str) -> Refusal {
    let mut refusal = Refusal::not_supported(format!(
        "table \"{}\" cannot be routed: {reason}",
        relation.name
    ))
    .hint("Correct the table or its entry in the router's configuration.");
    refusal.analyse_first = false;
    refusal
}

/// The refusal of a relation whose policies use what another shard has otherwise.
pub(in crate::plan) fn secured(relation: &Relation) -> Option<Refusal> {
    let used = relation.policies.elsewhere.as_ref()?;
    let message = format!(
        "table \"{}\" is not supported: its row security policies use \"{used}\"",
        relation.name
    );
    let refusal = Refusal::not_supported(message)
        .detail("Policies are applied on the shard of the rows and see that shard only.");
    Some(refusal.hint("Let policies use reference tables, or settings."))
}

pub(in crate::plan) fn varying_policy(relation: &Relation, name: &str) -> Refusal {
    Refusal::not_supported(format!(
        "table \"{}\" is not supported across shards: its row security policies use \"{name}\"",
        relation.name
    ))
    .detail("Each shard would compute a value of its own.")
}

fn volatile_view(relation: &Relation) -> Refusal {
    Refusal::not_supported(format!(
        "view \"{}\" is not supported across shards yet",
        relation.name
    ))
    .detail("It calls a function whose result could differ from shard to shard.")
}
