//! What a condition says about keys.

use sqlparser::ast::{BinaryOperator, Expr};

use super::Analyser;
use super::facts::{ColumnId, Fact, ScopeId};
use super::names::{Found, name};
use crate::plan::route::{KeySet, Limit};

/// The conditions that must all hold for `expr` to hold.
pub(in crate::plan) fn conjuncts(expr: &Expr) -> Vec<&Expr> {
    flatten(expr, &BinaryOperator::And)
}

fn flatten<'e>(expr: &'e Expr, operator: &BinaryOperator) -> Vec<&'e Expr> {
    let mut flat = Vec::new();
    let mut open = vec![expr];
    while let Some(expr) = open.pop() {
        match expr {
            Expr::BinaryOp { left, op, right } if op == operator => {
                open.push(right);
                open.push(left);
            }
            Expr::Nested(inner) => open.push(inner),
            _ => flat.push(expr),
        }
    }
    flat
}

/// What one condition says of one column.
type Says = Vec<(ColumnId, KeySet)>;

impl Analyser<'_> {
    /// The column an expression is, if it is one whose type can be a key.
    pub(super) fn column(&self, expr: &Expr) -> Option<ColumnId> {
        match self.found(expr)? {
            Found::Column(column, ..) => column,
            Found::Unknown => None,
        }
    }

    /// What an expression means that is a column's name.
    pub(super) fn found(&self, expr: &Expr) -> Option<Found> {
        Some(match expr {
            Expr::Nested(inner) => return self.found(inner),
            Expr::Identifier(ident) => self.bare(&name(ident).ok()?),
            Expr::CompoundIdentifier(parts) => match parts.as_slice() {
                [qualifier, column] => {
                    self.qualified(None, &name(qualifier).ok()?, &name(column).ok()?)
                }
                [schema, table, column] => self.qualified(
                    Some(&name(schema).ok()?),
                    &name(table).ok()?,
                    &name(column).ok()?,
                ),
                _ => return None,
            },
            _ => return None,
        })
    }

    /// Adds what a condition that holds for all rows of a scope says.
    pub(super) fn add_facts(&mut self, condition: &Expr, scope: ScopeId) {
        for conjunct in conjuncts(condition) {
            for (a, b) in self.equal_columns(conjunct) {
                self.analysis.facts.add(scope, Fact::Equal(a, b));
            }
            for (column, keys) in self.says(conjunct) {
                self.analysis.facts.add(scope, Fact::Keys(column, keys));
            }
        }
    }

    fn equal_columns(&self, condition: &Expr) -> Vec<(ColumnId, ColumnId)> {
        let Expr::BinaryOp {
            left,
            op: BinaryOperator::Eq,
            right,
        } = condition
        else {
            return Vec::new();
        };
        let pairs: Vec<(&Expr, &Expr)> = match (row(left), row(right)) {
            (Some(left), Some(right)) if left.len() == right.len() => {
                left.iter().zip(right).collect()
            }
            _ => vec![(left, right)],
        };
        pairs
            .into_iter()
            .filter_map(|(left, right)| Some((self.column(left)?, self.column(right)?)))
            .collect()
    }

    /// The sets that a condition puts columns' values in.
    fn says(&self, condition: &Expr) -> Says {
        match condition {
            Expr::Nested(inner) => self.says(inner),
            Expr::BinaryOp {
                op: BinaryOperator::And,
                ..
            } => {
                let mut says: Says = Vec::new();
                for (column, keys) in conjuncts(condition)
                    .into_iter()
                    .flat_map(|conjunct| self.says(conjunct))
                {
                    match says.iter_mut().find(|(known, _)| *known == column) {
                        Some((_, known)) => *known = KeySet::Both(vec![known.clone(), keys]),
                        None => says.push((column, keys)),
                    }
                }
                says
            }
            Expr::BinaryOp {
                op: BinaryOperator::Or,
                ..
            } => self.either(condition),
            Expr::BinaryOp { left, op, right } => self.comparison(left, op, right),
            Expr::InList {
                expr,
                list,
                negated: false,
            } => self.in_list(expr, list),
            Expr::Between {
                expr,
                negated: false,
                low,
                high,
            } => self.between(expr, low, high),
            Expr::AnyOp {
                left,
                compare_op: BinaryOperator::Eq,
                right,
                ..
            } => self.any(left, right),
            Expr::IsNull(expr) => self
                .column(expr)
                .map(|column| (column, KeySet::Null))
                .into_iter()
                .collect(),
            _ => Vec::new(),
        }
    }

    /// Columns that every branch of an OR says something of.
    fn either(&self, condition: &Expr) -> Says {
        let mut branches = flatten(condition, &BinaryOperator::Or)
            .into_iter()
            .map(|branch| self.says(branch));
        let mut says: Vec<(ColumnId, Vec<KeySet>)> = branches
            .next()
            .unwrap_or_default()
            .into_iter()
            .map(|(column, keys)| (column, vec![keys]))
            .collect();
        for branch in branches {
            says.retain_mut(|(column, sets)| {
                match branch.iter().find(|(other, _)| other == column) {
                    Some((_, keys)) => {
                        sets.push(keys.clone());
                        true
                    }
                    None => false,
                }
            });
        }
        says.into_iter()
            .map(|(column, sets)| (column, KeySet::Either(sets)))
            .collect()
    }

    fn comparison(&self, left: &Expr, op: &BinaryOperator, right: &Expr) -> Says {
        if let (BinaryOperator::Eq, Some(left), Some(right)) = (op, row(left), row(right)) {
            if left.len() != right.len() {
                return Vec::new();
            }
            return left
                .iter()
                .zip(right)
                .flat_map(|(left, right)| self.comparison(left, op, right))
                .collect();
        }
        let (column, value, flipped) = match (self.column(left), self.column(right)) {
            (Some(column), None) => (column, right, false),
            (None, Some(column)) => (column, left, true),
            _ => return Vec::new(),
        };
        let Some(value) = self.key_expr(value) else {
            return Vec::new();
        };
        let low = |inclusive| {
            KeySet::Between(
                Some(Limit {
                    value: value.clone(),
                    inclusive,
                }),
                None,
            )
        };
        let high = |inclusive| {
            KeySet::Between(
                None,
                Some(Limit {
                    value: value.clone(),
                    inclusive,
                }),
            )
        };
        let keys = match (op, flipped) {
            (BinaryOperator::Eq, _) => KeySet::Equal(value),
            (BinaryOperator::Lt, false) | (BinaryOperator::Gt, true) => high(false),
            (BinaryOperator::LtEq, false) | (BinaryOperator::GtEq, true) => high(true),
            (BinaryOperator::Gt, false) | (BinaryOperator::Lt, true) => low(false),
            (BinaryOperator::GtEq, false) | (BinaryOperator::LtEq, true) => low(true),
            _ => return Vec::new(),
        };
        vec![(column, keys)]
    }

    fn in_list(&self, expr: &Expr, list: &[Expr]) -> Says {
        let columns = match row(expr) {
            Some(parts) => parts
                .iter()
                .map(|part| self.column(part))
                .collect::<Vec<_>>(),
            None => vec![self.column(expr)],
        };
        let mut says = Vec::new();
        for (position, column) in columns.into_iter().enumerate() {
            let Some(column) = column else { continue };
            let part = |member: &Expr| match row(expr) {
                Some(_) => self.key_expr(row(member)?.get(position)?),
                None => self.key_expr(member),
            };
            if let Some(values) = list.iter().map(part).collect::<Option<Vec<_>>>() {
                says.push((column, KeySet::AnyOf(values)));
            }
        }
        says
    }

    fn between(&self, expr: &Expr, low: &Expr, high: &Expr) -> Says {
        let Some(column) = self.column(expr) else {
            return Vec::new();
        };
        let limit = |end: &Expr| {
            self.key_expr(end).map(|value| Limit {
                value,
                inclusive: true,
            })
        };
        match (limit(low), limit(high)) {
            (None, None) => Vec::new(),
            (low, high) => vec![(column, KeySet::Between(low, high))],
        }
    }

    fn any(&self, left: &Expr, right: &Expr) -> Says {
        let Some(column) = self.column(left) else {
            return Vec::new();
        };
        let mut inner = right;
        while let Expr::Nested(nested) = inner {
            inner = nested;
        }
        if let Expr::Array(array) = inner {
            let values = array
                .elem
                .iter()
                .map(|element| self.key_expr(element))
                .collect::<Option<Vec<_>>>();
            return values
                .map(|values| (column, KeySet::AnyOf(values)))
                .into_iter()
                .collect();
        }
        self.array_expr(right)
            .map(|array| (column, KeySet::Elements(array)))
            .into_iter()
            .collect()
    }

    /// The scopes whose rows a condition refuses when their columns are NULL.
    pub(super) fn refuses_null(&self, condition: &Expr) -> Vec<ScopeId> {
        let mut scopes = Vec::new();
        for conjunct in conjuncts(condition) {
            let columns: Vec<ColumnId> = match conjunct {
                Expr::BinaryOp {
                    op: BinaryOperator::Or,
                    ..
                } => Vec::new(),
                Expr::BinaryOp { .. } => {
                    let equal = self
                        .equal_columns(conjunct)
                        .into_iter()
                        .flat_map(|(a, b)| [a, b]);
                    equal
                        .chain(self.says(conjunct).into_iter().map(|(column, _)| column))
                        .collect()
                }
                Expr::InList { .. } | Expr::Between { .. } | Expr::AnyOp { .. } => self
                    .says(conjunct)
                    .into_iter()
                    .map(|(column, _)| column)
                    .collect(),
                Expr::IsNotNull(expr) => self.column(expr).into_iter().collect(),
                _ => Vec::new(),
            };
            scopes.extend(
                columns
                    .into_iter()
                    .map(|column| self.analysis.facts.home(column)),
            );
        }
        scopes
    }
}

/// The parts of a row expression.
fn row(expr: &Expr) -> Option<&[Expr]> {
    match expr {
        Expr::Tuple(parts) => Some(parts),
        Expr::Nested(inner) => row(inner),
        _ => None,
    }
}
