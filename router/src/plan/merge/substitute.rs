//! Expressions in whose tree columns take the place of what they are.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "of what is left, only names, calls and subqueries could mean rows that are not there"
)]

use std::ops::ControlFlow;

use sqlparser::ast::{Expr, Function, Ident, NamedWindowDefinition, Query, VisitMut, VisitorMut};

/// What takes the place of what.
pub(super) struct Substitution<'a> {
    columns: Vec<(&'a Expr, String)>,
    /// Whether a call may be left.
    may_stay: &'a dyn Fn(&Function) -> bool,
}

impl<'a> Substitution<'a> {
    pub(super) fn new(
        columns: Vec<(&'a Expr, String)>,
        may_stay: &'a dyn Fn(&Function) -> bool,
    ) -> Self {
        Self { columns, may_stay }
    }

    /// An expression over the columns; `None` if something else would be left in it.
    pub(super) fn of(&self, expr: &Expr) -> Option<Expr> {
        self.visited(expr.clone())
    }

    /// The windows of a SELECT.
    pub(super) fn windows(
        &self,
        windows: &[NamedWindowDefinition],
    ) -> Option<Vec<NamedWindowDefinition>> {
        self.visited(windows.to_vec())
    }

    fn visited<T: VisitMut>(&self, mut node: T) -> Option<T> {
        match node.visit(&mut Substituting(self)) {
            ControlFlow::Continue(()) => Some(node),
            ControlFlow::Break(Left) => None,
        }
    }
}

/// Something is left that no column takes the place of.
struct Left;

struct Substituting<'a>(&'a Substitution<'a>);

impl VisitorMut for Substituting<'_> {
    type Break = Left;

    fn pre_visit_query(&mut self, _: &mut Query) -> ControlFlow<Left> {
        ControlFlow::Break(Left)
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Left> {
        let mut columns = self.0.columns.iter();
        if let Some((_, column)) = columns.find(|(known, _)| *known == expr) {
            *expr = Expr::Identifier(Ident::with_quote('"', column));
            return ControlFlow::Continue(());
        }
        let stays = match expr {
            Expr::Identifier(_)
            | Expr::CompoundIdentifier(_)
            | Expr::Wildcard(_)
            | Expr::QualifiedWildcard(..) => false,
            Expr::Function(function) => (self.0.may_stay)(function),
            _ => true,
        };
        match stays {
            true => ControlFlow::Continue(()),
            false => ControlFlow::Break(Left),
        }
    }
}
