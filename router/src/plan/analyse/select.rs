//! One SELECT: FROM, WHERE, GROUP BY, and the columns that come out.

use std::borrow::Cow;

use sqlparser::ast::{
    Distinct, Expr, FunctionArguments, GroupByExpr, NamedWindowExpr, OrderBy, Select, SelectFlavor,
    SelectInto, SelectItem, SelectItemQualifiedWildcardKind, WildcardAdditionalOptions,
};

use super::facts::{ColumnId, ScopeId};
use super::from::Tree;
use super::names::{Frame, Item, Output, function_name, name, relation_name};
use super::{Analyser, Stop};
use crate::plan::Pin;
use crate::plan::refusal::Refusal;

impl<'a> Analyser<'a> {
    pub(super) fn select(
        &mut self,
        select: &'a Select,
        order: Option<&'a OrderBy>,
        scope: ScopeId,
    ) -> Result<(Vec<Output>, bool), Stop> {
        check_dialect(select)?;
        self.frames.push(Frame::default());
        let trees = self.from(&select.from, scope)?;
        if !matches!(select.from.as_slice(), [only] if only.joins.is_empty()) {
            // A join may take its rows in any order.
            self.block(|block| block.ordered_input = false);
        }
        self.join_all(trees, select.selection.as_ref(), scope)?;
        let outputs = self.projection(&select.projection, scope)?;
        self.grouping(&select.group_by, scope)?;
        match &select.distinct {
            Some(Distinct::Distinct) => self.block(|block| block.distinct = true),
            Some(Distinct::On(exprs)) => {
                for expr in exprs {
                    self.expr(expr, scope, false)?;
                }
                self.block(|block| block.distinct_on = true);
            }
            Some(Distinct::All) | None => {}
        }
        if let Some(having) = &select.having {
            self.expr(having, scope, false)?;
            self.block(|block| block.having = true);
        }
        for window in &select.named_window {
            if let NamedWindowExpr::WindowSpec(spec) = &window.1 {
                self.window(spec, scope)?;
            }
        }
        self.order_by(order, scope)?;
        if self.depth == 1 && self.blocks.len() == 1 {
            self.outermost = self.root(select, order, &outputs.0);
        }
        if let Some(into) = &select.into {
            self.select_into(into)?;
        }
        self.frames.pop();
        Ok(outputs)
    }

    /// Joins what a FROM lists and applies the WHERE.
    pub(super) fn join_all(
        &mut self,
        trees: Vec<Tree<'a>>,
        condition: Option<&'a Expr>,
        scope: ScopeId,
    ) -> Result<(), Stop> {
        let trees = self.reduce(trees, condition);
        for tree in &trees {
            self.assign(tree, scope)?;
        }
        if let Some(condition) = condition {
            self.add_facts(condition, scope);
            self.expr(condition, scope, true)?;
        }
        Ok(())
    }

    /// `SELECT … INTO table`
    fn select_into(&mut self, into: &'a SelectInto) -> Result<(), Stop> {
        let [Expr::Identifier(ident)] = into.targets.as_slice() else {
            return Err(Stop::Opaque("SELECT INTO a qualified name"));
        };
        let table = name(ident)?;
        self.analysis.writes = true;
        self.analysis.primary = true;
        if into.temporary {
            self.analysis.temporary = true;
            self.analysis.effects.pins.insert(Pin::Temporary);
            self.analysis.creates_temporary = Some(table.into_owned());
        } else if !self.alone {
            return Err(Refusal::not_supported("SELECT INTO is not supported")
                .hint("Use CREATE TABLE AS.")
                .into());
        }
        Ok(())
    }

    fn grouping(&mut self, group_by: &'a GroupByExpr, scope: ScopeId) -> Result<(), Stop> {
        let GroupByExpr::Expressions(exprs, modifiers) = group_by else {
            return Err(Stop::Opaque("GROUP BY ALL"));
        };
        if !modifiers.is_empty() {
            return Err(Stop::Opaque("not PostgreSQL's syntax"));
        }
        for expr in exprs {
            let sets = match expr {
                Expr::GroupingSets(sets) | Expr::Cube(sets) | Expr::Rollup(sets) => Some(sets),
                _ => None,
            };
            match sets {
                Some(sets) => {
                    self.block(|block| block.grouping_sets = true);
                    for expr in sets.iter().flatten() {
                        self.grouping_set(expr, scope)?;
                    }
                }
                None => self.expr(expr, scope, false)?,
            }
        }
        self.block(|block| block.group_by |= !exprs.is_empty());
        Ok(())
    }

    /// One of several grouping sets. ROLLUP and CUBE among them, which are no functions there, are read as calls.
    fn grouping_set(&mut self, expr: &'a Expr, scope: ScopeId) -> Result<(), Stop> {
        let Expr::Function(function) = expr else {
            return self.expr(expr, scope, false);
        };
        let (schema, name) = function_name(&function.name)?;
        match (&function.args, &*name) {
            (FunctionArguments::List(list), "rollup" | "cube") if schema.is_none() => list
                .args
                .iter()
                .try_for_each(|argument| self.function_arg(argument, scope)),
            _ => self.expr(expr, scope, false),
        }
    }

    /// The columns of a select list or of RETURNING.
    pub(super) fn projection(
        &mut self,
        items: &'a [SelectItem],
        scope: ScopeId,
    ) -> Result<(Vec<Output>, bool), Stop> {
        let mut outputs = Vec::new();
        let mut open = false;
        for item in items {
            match item {
                SelectItem::UnnamedExpr(expr) => {
                    outputs.push(Output {
                        name: implied_name(expr).map(Cow::into_owned),
                        ..self.output(expr, scope)?
                    });
                }
                SelectItem::ExprWithAlias { expr, alias } => {
                    outputs.push(Output {
                        name: Some(self.label(alias)?.into_owned()),
                        ..self.output(expr, scope)?
                    });
                }
                SelectItem::Wildcard(options) => {
                    check_wildcard(options)?;
                    let frame = self.frames.last().cloned().unwrap_or_default();
                    let (columns, more) = self.expand(&frame);
                    outputs.extend(columns);
                    open |= more;
                    self.block(|block| block.ragged |= more);
                }
                SelectItem::QualifiedWildcard(
                    SelectItemQualifiedWildcardKind::ObjectName(object),
                    options,
                ) => {
                    check_wildcard(options)?;
                    let (_, alias) = relation_name(object)?;
                    let (columns, more) = match self.item(&alias) {
                        Some(item) => (item.columns.clone(), item.open),
                        None => {
                            self.strays |= self.around.is_some();
                            (Vec::new(), true)
                        }
                    };
                    outputs.extend(columns);
                    open |= more;
                    self.block(|block| block.ragged |= more);
                }
                SelectItem::QualifiedWildcard(
                    SelectItemQualifiedWildcardKind::Expr(expr),
                    options,
                ) => {
                    check_wildcard(options)?;
                    self.expr(expr, scope, false)?;
                    open = true;
                    self.block(|block| block.ragged = true);
                }
                SelectItem::ExprWithAliases { .. } => {
                    return Err(Stop::Opaque("not PostgreSQL's syntax"));
                }
            }
        }
        open |= outputs.iter().any(|output| output.name.is_none());
        Ok((outputs, open))
    }

    /// Walks an expression of a select list.
    fn output(&mut self, expr: &'a Expr, scope: ScopeId) -> Result<Output, Stop> {
        self.expr(expr, scope, false)?;
        Ok(Output {
            name: None,
            column: self.output_column(expr, scope),
            typed: self.type_of(expr),
        })
    }

    fn output_column(&mut self, expr: &Expr, scope: ScopeId) -> Option<ColumnId> {
        self.column(expr)
            .or_else(|| self.constant_column(&[expr], scope))
    }

    pub(super) fn item(&self, alias: &str) -> Option<&Item> {
        let items = self.frames.iter().rev().flat_map(|frame| &frame.items);
        items
            .map(|id| &self.items[*id])
            .find(|item| item.alias.as_deref() == Some(alias))
    }
}

fn check_wildcard(options: &WildcardAdditionalOptions) -> Result<(), Stop> {
    let plain = options.opt_ilike.is_none()
        && options.opt_exclude.is_none()
        && options.opt_except.is_none()
        && options.opt_replace.is_none()
        && options.opt_rename.is_none()
        && options.opt_alias.is_none();
    if plain {
        Ok(())
    } else {
        Err(Stop::Opaque("not PostgreSQL's syntax"))
    }
}

fn check_dialect(select: &Select) -> Result<(), Stop> {
    let foreign = !select.optimizer_hints.is_empty()
        || select.select_modifiers.is_some()
        || select.top.is_some()
        || select.exclude.is_some()
        || !select.lateral_views.is_empty()
        || select.prewhere.is_some()
        || !select.connect_by.is_empty()
        || !select.cluster_by.is_empty()
        || !select.distribute_by.is_empty()
        || !select.sort_by.is_empty()
        || select.qualify.is_some()
        || select.value_table_mode.is_some()
        || select.flavor != SelectFlavor::Standard;
    if foreign {
        Err(Stop::Opaque("not PostgreSQL's syntax"))
    } else {
        Ok(())
    }
}

/// The name PostgreSQL gives an expression's column, where that is simple.
fn implied_name(expr: &Expr) -> Option<Cow<'_, str>> {
    match expr {
        Expr::Identifier(ident) => name(ident).ok(),
        Expr::CompoundIdentifier(parts) => name(parts.last()?).ok(),
        Expr::Nested(inner) => implied_name(inner),
        Expr::Function(function) => function_name(&function.name).ok().map(|(_, name)| name),
        // PostgreSQL calls these "?column?": nothing can mean them by accident.
        Expr::Value(_) | Expr::BinaryOp { .. } | Expr::UnaryOp { .. } => {
            Some(Cow::Borrowed("?column?"))
        }
        _ => None,
    }
}
