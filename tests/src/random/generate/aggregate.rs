//! Aggregates and windows, made so that the order in which rows come does not show.

use super::{Atom, Generator};
use crate::random::query::{Expr, Part};
use crate::random::types::Type;
use crate::random::types::Type::{
    Bool, Date, Decimal, Float8, Int2, Int4, Int8, IntArray, Interval, Jsonb, Mood, Numeric, Text,
    TextArray,
};

/// Aggregates: the result, the text, the arguments.
const AGGREGATES: &[(Type, &str, &[Type])] = &[
    (Int8, "count(*)", &[]),
    (Int8, "count(*)", &[]),
    (Int8, "count({})", &[Text]),
    (Int8, "count({})", &[Decimal]),
    (Int8, "count(DISTINCT now())", &[]),
    (Int8, "count(DISTINCT {})", &[Text]),
    (Int8, "count(DISTINCT {})", &[Int4]),
    (Int8, "count(DISTINCT {})", &[Decimal]),
    (Int8, "count(DISTINCT ({}, {}))", &[Int4, Date]),
    (Int8, "sum({})", &[Int4]),
    (Int8, "sum({})", &[Int2]),
    (Int8, "sum(DISTINCT {})", &[Int4]),
    (
        Int8,
        "rank({}) WITHIN GROUP (ORDER BY {})",
        &[Type::Int4, Int4],
    ),
    (Int8, "regr_count({}, 1)", &[Float8]),
    (Int4, "bit_and({})", &[Int4]),
    (Int4, "bit_or({})", &[Int4]),
    (Int2, "bit_xor({})", &[Int2]),
    (Decimal, "avg({})", &[Int4]),
    (Decimal, "avg({})", &[Int2]),
    (Decimal, "avg({})", &[Int8]),
    (Decimal, "avg({})", &[Numeric]),
    (Decimal, "avg(DISTINCT {})", &[Numeric]),
    (Decimal, "sum({})", &[Int8]),
    (Decimal, "sum({})", &[Decimal]),
    (Decimal, "var_pop({})", &[Int4]),
    (Decimal, "stddev({})", &[Numeric]),
    (Numeric, "sum({})", &[Numeric]),
    (Numeric, "sum(DISTINCT {})", &[Numeric]),
    (Float8, "sum({})", &[Float8]),
    (Float8, "avg({})", &[Float8]),
    (
        Float8,
        "percentile_cont(0.5) WITHIN GROUP (ORDER BY {})",
        &[Int4],
    ),
    (Interval, "sum({})", &[Interval]),
    (Bool, "bool_and({})", &[Bool]),
    (Bool, "bool_or({})", &[Bool]),
    (Bool, "every({})", &[Bool]),
    (
        Text,
        "string_agg({}, ',' ORDER BY {} COLLATE \"C\" DESC)",
        &[Text],
    ),
    (Text, "string_agg(DISTINCT {}, '')", &[Text]),
    (IntArray, "array_agg({} ORDER BY {})", &[Int4]),
    (IntArray, "array_agg(DISTINCT {} ORDER BY {} DESC)", &[Int4]),
    (TextArray, "array_agg({} ORDER BY {} NULLS FIRST)", &[Text]),
    (Jsonb, "jsonb_agg({} ORDER BY {})", &[Date]),
];

/// Aggregates of a type into itself.
const OWN: &[&str] = &[
    "min({})",
    "max({})",
    "mode() WITHIN GROUP (ORDER BY {})",
    "percentile_disc(0.5) WITHIN GROUP (ORDER BY {})",
];

impl Generator {
    /// An aggregate of the level's rows of this type, if there is one.
    pub(super) fn aggregate(&mut self, ty: Type) -> Option<Expr> {
        let scope = self.scopes.last_mut()?;
        let base = scope.grouped.take()?;
        let groups: Vec<Atom> = std::mem::replace(&mut scope.atoms, base);
        self.bare += 1;
        let aggregate = self.aggregate_of_atoms(ty);
        self.bare -= 1;
        let scope = self.scopes.last_mut()?;
        scope.grouped = Some(std::mem::replace(&mut scope.atoms, groups));
        aggregate
    }

    fn aggregate_of_atoms(&mut self, ty: Type) -> Option<Expr> {
        let mut fitting: Vec<(Type, &str, Vec<Type>)> = AGGREGATES
            .iter()
            .filter(|(result, ..)| *result == ty)
            .map(|(result, text, arguments)| (*result, *text, arguments.to_vec()))
            .collect();
        let ordered = if ty.has_extremes() { OWN } else { &[] };
        fitting.extend(ordered.iter().map(|text| (ty, *text, vec![ty])));
        if fitting.is_empty() {
            return None;
        }
        let (result, text, arguments) = self.chance.pick(&fitting).clone();
        let rows = self.rows();
        if ty == Int8 && !rows.is_empty() && self.chance.percent(4) {
            // A whole row, which is NULL where an outer join found none.
            return Some(Expr::text(
                ty,
                format!("count({})", self.chance.pick(&rows)),
            ));
        }
        let mut parts: Vec<Part> = Vec::new();
        for (index, argument) in arguments.iter().enumerate() {
            // The direct argument of a hypothetical aggregate is the same for all rows of a group.
            let constant = text.starts_with("rank(") && index == 0;
            let expr = if constant {
                self.constant(*argument)
            } else {
                self.expr(*argument, 1)
            };
            parts.push(expr.into());
        }
        // What is aggregated stands in its ORDER BY again.
        while parts.len() < text.matches("{}").count() {
            parts.push(parts[0].clone());
        }
        let mut aggregate = Expr::of(result, text, parts);
        if self.chance.percent(22) {
            let condition = self.condition(0);
            aggregate = Expr::of(
                result,
                "{} FILTER (WHERE {})",
                vec![aggregate.into(), condition.into()],
            );
        }
        Some(aggregate)
    }

    /// A window function of this type, or something else of it if there is none.
    pub(super) fn window(&mut self, ty: Type) -> Expr {
        let total = self.row_ids();
        let argument = self.leaf(ty);
        let mut choices: Vec<(&str, bool)> = Vec::new();
        if ty.has_extremes() {
            choices.extend([("min({})", false), ("max({})", false)]);
        }
        choices.extend([
            ("first_value({})", true),
            ("last_value({})", true),
            ("lag({})", true),
            ("lead({}, 2)", true),
            ("nth_value({}, 2)", true),
        ]);
        match ty {
            Int8 => {
                choices = vec![
                    ("rank()", false),
                    ("dense_rank()", false),
                    ("count(*)", false),
                    ("row_number()", true),
                    ("sum({})", false),
                ];
            }
            Decimal => choices = vec![("avg({})", false)],
            Numeric => choices.push(("sum({})", false)),
            Int4 => choices.push(("ntile(3)", true)),
            Float8 => choices.extend([("percent_rank()", false), ("cume_dist()", false)]),
            Bool => choices.push(("bool_or({})", false)),
            _ => {}
        }
        choices.retain(|(_, needs_total)| !needs_total || !total.is_empty());
        if choices.is_empty() {
            return self.leaf(ty);
        }
        let (text, _) = *self.chance.pick(&choices);
        let argument = if ty == Int8 {
            self.leaf(Int4)
        } else {
            argument
        };
        let parts = if text.contains("{}") {
            vec![argument.into()]
        } else {
            Vec::new()
        };
        let call = Expr::of(ty, text, parts);
        let over = self.over(&total);
        Expr::of(ty, "{} OVER ({})", vec![call.into(), over.into()])
    }

    /// The columns that tell the level's rows apart; none if some cannot be told apart.
    fn row_ids(&self) -> Vec<Expr> {
        let Some(scope) = self.scopes.last() else {
            return Vec::new();
        };
        let ids: Vec<Expr> = scope
            .atoms
            .iter()
            .filter(|atom| atom.id)
            .map(|atom| atom.expr.clone())
            .collect();
        if ids.len() == scope.relations {
            ids
        } else {
            Vec::new()
        }
    }

    fn over(&mut self, ids: &[Expr]) -> Expr {
        let mut parts: Vec<Part> = Vec::new();
        let mut text = String::new();
        if self.chance.percent(60) {
            let ty = *self.chance.pick(&[Int4, Text, Mood, Int8, Date]);
            parts.push(self.leaf(ty).into());
            text.push_str("PARTITION BY {} ");
        }
        let total = !ids.is_empty();
        if total || self.chance.percent(60) {
            let ty = *self.chance.pick(&[Int4, Text, Numeric, Date]);
            parts.push(self.leaf(ty).into());
            text.push_str("ORDER BY {}");
            text.push_str(self.chance.weighted(&super::DIRECTIONS));
            for id in ids {
                parts.push(id.clone().into());
                text.push_str(", {}");
            }
        }
        if total {
            text.push_str(self.chance.weighted(&[
                (6, ""),
                (2, " ROWS BETWEEN 1 PRECEDING AND CURRENT ROW"),
                (
                    1,
                    " ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING",
                ),
                (1, " GROUPS BETWEEN 1 PRECEDING AND 1 FOLLOWING"),
                (
                    1,
                    " ROWS BETWEEN 2 PRECEDING AND 2 FOLLOWING EXCLUDE CURRENT ROW",
                ),
            ]));
        }
        Expr::of(Bool, &text, parts)
    }
}
