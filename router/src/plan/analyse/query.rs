//! Queries: subqueries, set operations, VALUES, common table expressions, ORDER BY and LIMIT.

use std::borrow::Cow;

use sqlparser::ast::{
    Expr, LimitClause, OrderBy, OrderByKind, Query, SetExpr, SetQuantifier, With,
};

use super::facts::{ColumnId, Fact, ScopeId};
use super::names::{Output, name};
use super::root::Root;
use super::{Analyser, Cte, CteBody, MAX_DEPTH, Stop};
use crate::plan::refusal::Refusal;

/// What a query block does besides joining and filtering.
#[derive(Debug, Clone, Default)]
pub(in crate::plan) struct Features {
    pub(in crate::plan) aggregate: bool,
    pub(in crate::plan) window: bool,
    pub(in crate::plan) group_by: bool,
    pub(in crate::plan) grouping_sets: bool,
    pub(in crate::plan) having: bool,
    pub(in crate::plan) distinct: bool,
    pub(in crate::plan) distinct_on: bool,
    pub(in crate::plan) order_by: bool,
    pub(in crate::plan) limit: bool,
    pub(in crate::plan) locking: bool,
    pub(in crate::plan) set_operation: bool,
    /// A subquery in its FROM is ordered, and PostgreSQL keeps that order where nothing else orders the rows.
    pub(in crate::plan) ordered_input: bool,
    /// Which column is the n-th is not known: `*` of something whose columns are not known.
    pub(in crate::plan) ragged: bool,
}

impl Features {
    /// Conditions on its output columns may be checked on its input rows.
    fn lets_in(&self) -> bool {
        !(self.window || self.grouping_sets || self.distinct_on || self.limit || self.locking)
    }

    /// Every output row is made of input rows.
    pub(in crate::plan) fn is_strict(&self) -> bool {
        let grand_total = (self.aggregate || self.having) && !self.group_by;
        !(grand_total || self.grouping_sets || self.set_operation)
    }

    /// It only joins, filters and computes.
    fn is_plain(&self) -> bool {
        let grouped = self.aggregate || self.group_by || self.having || self.distinct;
        self.lets_in() && self.is_strict() && !grouped
    }

    /// Which rows come out depends on the order they were read in.
    fn is_arbitrary(&self) -> bool {
        self.limit || self.distinct_on || self.window
    }

    /// Its rows come in an order that was asked for, by itself or by a subquery whose rows they are.
    fn is_ordered(&self) -> bool {
        let regrouped = self.aggregate || self.group_by || self.having || self.distinct;
        self.order_by || self.ordered_input && !(regrouped || self.set_operation)
    }

    /// Why the rows of several shards are not the rows of the whole, if the block is the statement's top level.
    fn merge(&self) -> Option<Refusal> {
        let what = if self.set_operation {
            "UNION, INTERSECT and EXCEPT are"
        } else if self.window {
            "window functions are"
        } else if self.aggregate || self.having {
            "aggregates are"
        } else if self.group_by {
            "GROUP BY is"
        } else if self.distinct || self.distinct_on {
            "DISTINCT is"
        } else if self.order_by {
            "ORDER BY is"
        } else if self.ordered_input {
            "ordered subqueries are"
        } else if self.limit {
            "LIMIT and OFFSET are"
        } else {
            return None;
        };
        Some(
            Refusal::not_supported(format!("{what} not supported across shards yet"))
                .hint("Restrict the shard key so that one shard has all the rows."),
        )
    }
}

/// CTEs of one WITH at most.
const MAX_CTES: usize = 500;

impl<'a> Analyser<'a> {
    /// The query at the top of a statement.
    pub(super) fn top_query(
        &mut self,
        query: &'a Query,
        scope: ScopeId,
    ) -> Result<Vec<Output>, Stop> {
        let (columns, _, features) = self.query(query, scope)?;
        self.analysis.combines = features.merge();
        self.analysis.limits = self.limits(query);
        let limits = self.analysis.limits.clone();
        let root = self.outermost.take();
        self.analysis.root = root.zip(limits).map(|(root, limits)| Root {
            features,
            limits,
            ..root
        });
        Ok(columns)
    }

    /// A subquery in FROM: its columns as the rows of `scope` have them, and whether there may be more.
    pub(super) fn derived(
        &mut self,
        query: &'a Query,
        scope: ScopeId,
    ) -> Result<(Vec<Output>, bool), Stop> {
        self.positional(query, scope)
            .map(|(columns, open, _)| (columns, open))
    }

    /// The same; also whether which column is the n-th is not known.
    pub(super) fn positional(
        &mut self,
        query: &'a Query,
        scope: ScopeId,
    ) -> Result<(Vec<Output>, bool, bool), Stop> {
        let inside = self.analysis.facts.scope(Some(scope));
        let (mut columns, open, features) = self.query(query, inside)?;
        self.block(|block| block.ordered_input |= features.is_ordered());

        if features.is_plain() {
            self.analysis.facts.merge(inside, scope);
            return Ok((columns, open, features.ragged));
        }
        if features.set_operation {
            for output in &mut columns {
                match output.column {
                    Some(column) if features.lets_in() => self.analysis.facts.rehome(column, scope),
                    _ => output.column = None,
                }
            }
            return Ok((columns, open, features.ragged));
        }
        if features.is_strict() {
            self.analysis.facts.export(inside, scope);
        }
        for output in &mut columns {
            output.column = output.column.filter(|_| features.is_strict()).map(|inner| {
                let outer = self
                    .analysis
                    .facts
                    .column(self.analysis.facts.family(inner), scope);
                if features.lets_in() {
                    self.analysis.facts.add(inside, Fact::Equal(outer, inner));
                } else {
                    self.analysis.facts.add(
                        scope,
                        Fact::Link {
                            outer,
                            inner,
                            of: inside,
                        },
                    );
                }
                outer
            });
        }
        Ok((columns, open, features.ragged))
    }

    /// A subquery in an expression. `equal` is the column that its first column must equal for the row to count.
    pub(super) fn subquery(
        &mut self,
        query: &'a Query,
        scope: ScopeId,
        equal: Option<ColumnId>,
    ) -> Result<(), Stop> {
        let inside = self.analysis.facts.scope(Some(scope));
        let (columns, _, features) = self.query(query, inside)?;
        if let (Some(outer), Some(inner)) =
            (equal, columns.first().and_then(|output| output.column))
            && features.lets_in()
            && !features.ragged
            && (features.is_strict() || features.set_operation)
        {
            self.analysis.facts.add(inside, Fact::Equal(outer, inner));
        }
        Ok(())
    }

    /// Walks a query whose rows are those of `scope`.
    pub(super) fn query(
        &mut self,
        query: &'a Query,
        scope: ScopeId,
    ) -> Result<(Vec<Output>, bool, Features), Stop> {
        self.spend()?;
        if let Some(given) = self.given_instead(query, scope) {
            return Ok(given);
        }
        let foreign = query.for_clause.is_some()
            || query.settings.is_some()
            || query.format_clause.is_some()
            || !query.pipe_operators.is_empty();
        if foreign {
            return Err(Stop::Opaque("not PostgreSQL's syntax"));
        }
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(Stop::Opaque("too deep"));
        }
        let instances = self.analysis.instances.len();
        let ctes = self.ctes.len();
        if let Some(with) = &query.with {
            self.with(with, scope)?;
        }
        self.blocks.push(Features::default());
        let (columns, open) = self.body(&query.body, query.order_by.as_ref(), scope)?;
        self.limit(query, scope)?;
        let features = self.blocks.pop().unwrap_or_default();
        self.unused_ctes(ctes, scope)?;
        self.ctes.truncate(ctes);
        if features.limit || features.distinct_on {
            self.depends_on_order(query, "LIMIT or DISTINCT ON");
        }
        let inner = !self.blocks.is_empty() || self.analysis.writes;
        if inner && features.is_arbitrary() && self.analysis.instances.len() == instances {
            self.needs_merge(|| {
                Refusal::not_supported("a subquery with LIMIT, DISTINCT ON or window functions is not supported across shards yet")
            });
        }
        self.depth -= 1;
        Ok((columns, open, features))
    }

    pub(super) fn block(&mut self, note: impl FnOnce(&mut Features)) {
        if let Some(block) = self.blocks.last_mut() {
            note(block);
        }
    }

    fn limit(&mut self, query: &'a Query, scope: ScopeId) -> Result<(), Stop> {
        match &query.limit_clause {
            None => {}
            Some(LimitClause::LimitOffset {
                limit,
                offset,
                limit_by,
            }) if limit_by.is_empty() => {
                for expr in limit
                    .iter()
                    .chain(offset.as_ref().map(|offset| &offset.value))
                {
                    self.expr(expr, scope, false)?;
                }
                let limited = limit.is_some() || offset.is_some();
                self.block(|block| block.limit |= limited);
            }
            Some(_) => return Err(Stop::Opaque("not PostgreSQL's syntax")),
        }
        if let Some(fetch) = &query.fetch {
            if let Some(quantity) = &fetch.quantity {
                self.expr(quantity, scope, false)?;
            }
            self.block(|block| block.limit = true);
        }
        if !query.locks.is_empty() {
            self.analysis.locks = true;
            self.analysis.locks_inside |= self.depth > 1;
            self.block(|block| block.locking = true);
        }
        Ok(())
    }

    fn body(
        &mut self,
        body: &'a SetExpr,
        order: Option<&'a OrderBy>,
        scope: ScopeId,
    ) -> Result<(Vec<Output>, bool), Stop> {
        self.spend()?;
        match body {
            SetExpr::Select(select) => self.select(select, order, scope),
            SetExpr::Query(query) => {
                let (columns, open, features) = self.query(query, scope)?;
                self.block(|block| *block = features);
                self.order_by(order, scope)?;
                Ok((columns, open))
            }
            SetExpr::SetOperation { .. } => {
                let found = self.set_operation(body, scope)?;
                self.order_by(order, scope)?;
                Ok(found)
            }
            SetExpr::Values(values) => {
                if values.explicit_row || values.value_keyword {
                    return Err(Stop::Opaque("not PostgreSQL's syntax"));
                }
                for expr in values.rows.iter().flat_map(|row| &row.content) {
                    self.expr(expr, scope, false)?;
                }
                self.order_by(order, scope)?;
                let width = values.rows.first().map_or(0, |row| row.content.len());
                let mut outputs = Vec::with_capacity(width);
                for n in 0..width {
                    let column: Option<Vec<&Expr>> =
                        values.rows.iter().map(|row| row.content.get(n)).collect();
                    let column = column.and_then(|exprs| self.constant_column(&exprs, scope));
                    outputs.push(Output {
                        name: Some(format!("column{}", n + 1)),
                        column,
                        ..Output::default()
                    });
                }
                Ok((outputs, false))
            }
            SetExpr::Table(table) => {
                let simple = |name: &str| {
                    name.bytes()
                        .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
                };
                let (Some(name), schema) = (&table.table_name, &table.schema_name) else {
                    return Err(Stop::Opaque("TABLE without a name"));
                };
                if !simple(name) || !schema.as_deref().is_none_or(simple) {
                    return Err(Stop::Opaque("TABLE with a name that may be quoted"));
                }
                let leaf = self.analysis.facts.scope(Some(scope));
                let item = self.relation_item(schema.as_deref(), name, leaf)?;
                self.analysis.facts.merge(leaf, scope);
                self.order_by(order, scope)?;
                self.block(|block| block.ragged |= item.open);
                Ok((item.columns, item.open))
            }
            SetExpr::Insert(statement)
            | SetExpr::Update(statement)
            | SetExpr::Delete(statement)
            | SetExpr::Merge(statement) => Ok((self.write(statement, scope)?, true)),
        }
    }

    /// A set operation: conditions on an output column reach into each branch that lets them in.
    fn set_operation(
        &mut self,
        body: &'a SetExpr,
        scope: ScopeId,
    ) -> Result<(Vec<Output>, bool), Stop> {
        let mut branches: Vec<&'a SetExpr> = Vec::new();
        let mut at = body;
        while let SetExpr::SetOperation {
            left,
            set_quantifier,
            right,
            ..
        } = at
        {
            if !matches!(
                set_quantifier,
                SetQuantifier::All | SetQuantifier::Distinct | SetQuantifier::None
            ) {
                return Err(Stop::Opaque("not PostgreSQL's syntax"));
            }
            branches.push(right);
            at = left;
        }
        branches.push(at);
        branches.reverse();
        let mut found = Vec::new();
        for branch in branches {
            let inside = self.analysis.facts.scope(Some(scope));
            self.blocks.push(Features::default());
            let (columns, open) = self.body(branch, None, inside)?;
            let features = self.blocks.pop().unwrap_or_default();
            found.push((inside, columns, open, features));
        }
        let ragged = found.iter().any(|(.., features)| features.ragged);
        self.block(|block| {
            block.set_operation = true;
            block.ragged |= ragged;
        });
        let (first, open) = found
            .first()
            .map(|(_, columns, open, _)| (columns.clone(), *open))
            .unwrap_or_default();
        let mut outputs = Vec::new();
        for (position, output) in first.into_iter().enumerate() {
            let inner = |columns: &[Output]| columns.get(position).and_then(|output| output.column);
            let families: Vec<_> = found
                .iter()
                .map(|(_, columns, _, features)| {
                    inner(columns)
                        .filter(|_| !features.ragged)
                        .map(|c| self.analysis.facts.family(c))
                })
                .collect();
            let family = families
                .first()
                .copied()
                .flatten()
                .filter(|family| families.iter().all(|f| *f == Some(*family)));
            let column = family.map(|family| self.analysis.facts.column(family, scope));
            if let Some(outer) = column {
                for (inside, columns, _, features) in &found {
                    let into =
                        features.lets_in() && (features.is_strict() || features.set_operation);
                    if let Some(inner) = inner(columns).filter(|_| into) {
                        self.analysis.facts.add(*inside, Fact::Equal(outer, inner));
                    }
                }
            }
            outputs.push(Output {
                name: output.name,
                column,
                ..Output::default()
            });
        }
        Ok((outputs, open))
    }

    pub(super) fn order_by(
        &mut self,
        order: Option<&'a OrderBy>,
        scope: ScopeId,
    ) -> Result<(), Stop> {
        let Some(order) = order else { return Ok(()) };
        let OrderByKind::Expressions(expressions) = &order.kind else {
            return Err(Stop::Opaque("not PostgreSQL's syntax"));
        };
        for item in expressions {
            if item.with_fill.is_some() || order.interpolate.is_some() {
                return Err(Stop::Opaque("not PostgreSQL's syntax"));
            }
            self.expr(&item.expr, scope, false)?;
        }
        self.block(|block| block.order_by = true);
        Ok(())
    }

    fn with(&mut self, with: &'a With, scope: ScopeId) -> Result<(), Stop> {
        if with.cte_tables.len() > MAX_CTES {
            return Err(Stop::Opaque("too many CTEs"));
        }
        for cte in &with.cte_tables {
            if cte.from.is_some() {
                return Err(Stop::Opaque("not PostgreSQL's syntax"));
            }
            let columns = cte
                .alias
                .columns
                .iter()
                .map(|column| name(&column.name).map(Cow::into_owned))
                .collect::<Result<Vec<_>, _>>()?;
            let write = match &*cte.query.body {
                SetExpr::Insert(statement)
                | SetExpr::Update(statement)
                | SetExpr::Delete(statement)
                | SetExpr::Merge(statement) => Some(statement),
                SetExpr::Select(_)
                | SetExpr::Query(_)
                | SetExpr::SetOperation { .. }
                | SetExpr::Values(_)
                | SetExpr::Table(_) => None,
            };
            let body = match write {
                None => CteBody::Query {
                    query: &cte.query,
                    recursive: with.recursive,
                },
                Some(statement) => {
                    if cte.query.with.is_some() {
                        return Err(Stop::Opaque("WITH inside a WITH that writes"));
                    }
                    let inside = self.analysis.facts.scope(Some(scope));
                    let around = std::mem::replace(&mut self.in_common, true);
                    let columns = self.write(statement, inside)?;
                    self.in_common = around;
                    CteBody::Write {
                        columns,
                        scope: inside,
                        target: self.written.take(),
                    }
                }
            };
            let frames = self.frames.len();
            self.ctes.push(Cte {
                name: name(&cte.alias.name)?.into_owned(),
                columns,
                body,
                frames,
                used: false,
            });
        }
        Ok(())
    }

    /// CTEs nobody mentions are not run, but what they name must still make sense.
    fn unused_ctes(&mut self, first: usize, scope: ScopeId) -> Result<(), Stop> {
        for position in first..self.ctes.len() {
            let cte = self.ctes[position].clone();
            if let (CteBody::Query { .. }, false) = (&cte.body, cte.used) {
                let detached = self.analysis.facts.scope(Some(scope));
                self.relation_item(None, &cte.name, detached)?;
            }
        }
        Ok(())
    }
}
