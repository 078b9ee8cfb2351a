//! Expressions of a type.

use super::Generator;
use crate::random::data::literal;
use crate::random::query::{Body, By, Distinct, Expr, Group, Item, Limit, Order, Part, Query};
use crate::random::types::Type;
use crate::random::types::Type::{
    Bool, Bytea, Char, Date, Decimal, Float8, Int2, Int4, Int8, IntArray, IntRange, Interval,
    Jsonb, Mood, Numeric, Spot, Text, TextArray, Timestamp, Timestamptz, Uuid,
};

/// What makes a value of the first type from values of the others.
const OPERATIONS: &[(Type, &str, &[Type])] = &[
    (Int2, "({} % 7)::int2", &[Int4]),
    (Int2, "({})::int2", &[Int4]),
    (Int4, "({} + {})", &[Int4, Int4]),
    (Int4, "({} - {})", &[Int4, Int2]),
    (Int4, "({} * {})", &[Int4, Int4]),
    (Int4, "({} / nullif({}, 0))", &[Int4, Int4]),
    (Int4, "({} / {})", &[Int4, Int4]),
    (Int4, "abs({})", &[Int4]),
    (Int4, "length({})", &[Text]),
    (Int4, "({} - {})", &[Date, Date]),
    (Int4, "extract(year from {})::int4", &[Date]),
    (Int4, "cardinality({})", &[IntArray]),
    (Int4, "({}->>'n')::int4", &[Jsonb]),
    (Int4, "lower({})", &[IntRange]),
    (Int4, "({}).x", &[Spot]),
    (Int4, "greatest({}, {})", &[Int4, Int4]),
    (Int4, "num_nulls({}, {})", &[Int4, Text]),
    (Int4, "({})[1]", &[IntArray]),
    (Int8, "({})::int8", &[Int4]),
    (Int8, "({} + {})", &[Int8, Int4]),
    (Int8, "least({}, {})", &[Int8, Int8]),
    (Numeric, "({} + {})", &[Numeric, Numeric]),
    (Numeric, "({} - {})", &[Numeric, Numeric]),
    (Numeric, "({} * {})", &[Numeric, Int4]),
    (Numeric, "({})::numeric(14,2)", &[Int4]),
    (Numeric, "round({}, 2)", &[Decimal]),
    (Float8, "({} + {})", &[Float8, Float8]),
    (Float8, "({})::float8", &[Int4]),
    (Text, "upper({})", &[Text]),
    (Text, "({} || {})", &[Text, Text]),
    (Text, "left({}, 2)", &[Text]),
    (Text, "substr({}, 2)", &[Text]),
    (Text, "({})::text", &[Int4]),
    (Text, "({})::text", &[Date]),
    (Text, "({})::text", &[Mood]),
    (Text, "({})::text", &[Char]),
    (Text, "({})::text", &[Timestamptz]),
    (Text, "({})::text", &[Float8]),
    (Text, "({}->>'k')", &[Jsonb]),
    (Text, "({}).y", &[Spot]),
    (Text, "array_to_string({}, '+', '-')", &[TextArray]),
    (Text, "to_char({}, 'YYYY-MM')", &[Date]),
    (Text, "pg_typeof({})::text", &[Numeric]),
    (Text, "format('%s/%s', {}, {})", &[Int4, Text]),
    (Char, "({})::char(5)", &[Text]),
    (Date, "({} + {})", &[Date, Int2]),
    (Date, "({})::date", &[Timestamp]),
    (Date, "({})::date", &[Timestamptz]),
    (Timestamp, "({} + {})", &[Timestamp, Interval]),
    (Timestamp, "({})::timestamp", &[Date]),
    (
        Timestamp,
        "({} AT TIME ZONE 'Europe/Berlin')",
        &[Timestamptz],
    ),
    (
        Timestamptz,
        "({} AT TIME ZONE 'America/New_York')",
        &[Timestamp],
    ),
    (Timestamptz, "date_trunc('day', {})", &[Timestamptz]),
    (Interval, "({} - {})", &[Timestamptz, Timestamptz]),
    (Interval, "({} * 2)", &[Interval]),
    (Bytea, "decode(md5({}), 'hex')", &[Text]),
    (Bytea, "({} || {})", &[Bytea, Bytea]),
    (Uuid, "md5({})::uuid", &[Text]),
    (Jsonb, "to_jsonb({})", &[Text]),
    (Jsonb, "jsonb_build_object('a', {}, 'b', {})", &[Int4, Text]),
    (Jsonb, "({}->'n')", &[Jsonb]),
    (IntArray, "ARRAY[{}, {}]", &[Int4, Int4]),
    (IntArray, "array_append({}, {})", &[IntArray, Int4]),
    (TextArray, "ARRAY[{}, {}]", &[Text, Text]),
    (TextArray, "string_to_array({}, ' ')", &[Text]),
    (IntRange, "int4range({}, 100)", &[Int2]),
    (IntRange, "({} * {})", &[IntRange, IntRange]),
    (Mood, "(enum_range(NULL::mood))[1 + abs({} % 3)]", &[Int4]),
    (Spot, "ROW({}, {})::spot", &[Int4, Text]),
];

/// Functions that make several rows of one, in the list of what is selected.
const SET_RETURNING: &[(Type, &str, &[Type])] = &[
    (Text, "unnest({})", &[TextArray]),
    (Int4, "unnest({})", &[IntArray]),
    (Int4, "generate_series(1, {} % 4)", &[Int4]),
    (
        Text,
        "jsonb_object_keys(jsonb_build_object('a', {}, 'b', 2))",
        &[Int4],
    ),
];

/// Whether it makes several rows of one.
pub(super) fn returns_set(expr: &Expr) -> bool {
    let begins = |text: &str| {
        ["unnest(", "generate_series(", "jsonb_object_keys("]
            .iter()
            .any(|name| text.starts_with(name))
    };
    matches!(&expr.parts[..], [Part::Text(text), ..] if begins(text))
}

impl Generator {
    /// An expression of the type, so deep.
    pub(super) fn expr(&mut self, ty: Type, depth: usize) -> Expr {
        if depth == 0 || self.chance.percent(25) {
            return self.leaf(ty);
        }
        if ty == Bool {
            let condition = self.condition(depth - 1);
            return Expr::of(Bool, "({})", vec![condition.into()]);
        }
        match self.chance.below(20) {
            0..2 => {
                let condition = self.condition(depth - 1);
                let value = self.two(ty, "{} ELSE {}", depth - 1);
                let parts = vec![condition.into(), value.into()];
                Expr::of(ty, "CASE WHEN {} THEN {} END", parts)
            }
            2..5 => self.two(ty, "coalesce({}, {})", depth - 1),
            5 => self.two(ty, "nullif({}, {})", depth - 1),
            6..9 if self.subqueries > 0 && self.bare == 0 => self.scalar(ty),
            _ => self.operation(OPERATIONS, Some(ty), depth - 1),
        }
    }

    fn two(&mut self, ty: Type, text: &str, depth: usize) -> Expr {
        let first = self.expr(ty, depth);
        let second = self.other(&first, depth);
        Expr::of(ty, text, vec![first.into(), second.into()])
    }

    /// An expression of the type that is not the same as this one.
    pub(super) fn other(&mut self, than: &Expr, depth: usize) -> Expr {
        match self.expr(than.ty, depth) {
            same if same == *than => self.constant(than.ty),
            other => other,
        }
    }

    fn operation(
        &mut self,
        operations: &[(Type, &str, &[Type])],
        ty: Option<Type>,
        depth: usize,
    ) -> Expr {
        let fitting: Vec<_> = operations
            .iter()
            .filter(|(result, ..)| ty.is_none_or(|ty| ty == *result))
            .collect();
        if fitting.is_empty() {
            return self.leaf(ty.unwrap_or(Int4));
        }
        let (result, text, arguments) = *self.chance.pick(&fitting);
        let parts = arguments
            .iter()
            .map(|ty| self.expr(*ty, depth).into())
            .collect();
        Expr::of(*result, text, parts)
    }

    /// A function that makes several rows of one.
    pub(super) fn set_returning(&mut self) -> Expr {
        self.operation(SET_RETURNING, None, 0)
    }

    /// A column, an aggregate where there are groups, or a constant.
    pub(super) fn leaf(&mut self, ty: Type) -> Expr {
        if matches!(ty, Jsonb | Text) && self.chance.percent(4) {
            let rows = self.rows();
            if !rows.is_empty() {
                let row = self.chance.pick(&rows);
                return match ty {
                    Jsonb => Expr::text(ty, format!("to_jsonb({row})")),
                    _ => Expr::text(ty, format!("({row}::text)")),
                };
            }
        }
        let of_type = |atom: &&super::Atom| atom.expr.ty == ty;
        let inner: Vec<Expr> = self.scopes.last().map_or(Vec::new(), |scope| {
            scope
                .atoms
                .iter()
                .filter(of_type)
                .map(|atom| atom.expr.clone())
                .collect()
        });
        let grouped = self
            .scopes
            .last()
            .is_some_and(|scope| scope.grouped.is_some());
        if grouped
            && self.bare == 0
            && self.chance.percent(if inner.is_empty() { 90 } else { 50 })
            && let Some(aggregate) = self.aggregate(ty)
        {
            return aggregate;
        }
        if !inner.is_empty() && self.chance.percent(82) {
            return self.chance.pick(&inner).clone();
        }
        let outer: Vec<Expr> = self
            .scopes
            .iter()
            .rev()
            .skip(1)
            .flat_map(|scope| &scope.atoms)
            .filter(|atom| atom.column)
            .filter(of_type)
            .map(|atom| atom.expr.clone())
            .collect();
        if self.bare == 0 && !outer.is_empty() && self.chance.percent(50) {
            return self.chance.pick(&outer).clone();
        }
        self.constant(ty)
    }

    /// A literal, NULL, or a parameter.
    pub(super) fn constant(&mut self, ty: Type) -> Expr {
        let value = *self.chance.pick(ty.values());
        let null = self.chance.percent(7);
        if self.bare == 0 && self.chance.percent(12) {
            let value = (!null).then(|| value.to_owned());
            return Expr {
                ty,
                parts: vec![Part::Value(value, ty.cast())],
            };
        }
        if null {
            return Expr::text(ty, format!("NULL{}", ty.cast()));
        }
        if ty == Int4 && !value.starts_with('-') {
            return Expr::text(ty, value);
        }
        Expr::text(ty, literal(ty, value))
    }

    /// A subquery of one column and at most one row.
    fn scalar(&mut self, ty: Type) -> Expr {
        self.subqueries -= 1;
        let query = match self.chance.below(10) {
            0..4 => self.one_aggregate(ty),
            4..7 => self.row_by_id(ty),
            _ => {
                let mut query = self.query(Some(&[ty]), false);
                query.order = vec![Order {
                    by: By::Ordinal(1),
                    direction: self.chance.weighted(&super::DIRECTIONS),
                }];
                let distinct_on = matches!(&query.body, Body::Select(select) if matches!(select.distinct, Distinct::On(_)));
                if distinct_on && let Body::Select(select) = &mut query.body {
                    select.distinct = Distinct::All;
                }
                query.limit = Some(Limit {
                    count: Some(Part::Text("1".to_owned())),
                    offset: self.chance.percent(20).then(|| Part::Text("1".to_owned())),
                    ties: false,
                });
                query
            }
        };
        Expr::of(ty, "{}", vec![query.into()])
    }

    fn one_aggregate(&mut self, ty: Type) -> Query {
        let mut select = super::empty_select();
        self.scopes.push(super::Scope::default());
        select.from = self.relations();
        select.filter = self.chance.percent(75).then(|| self.filter());
        select.group = Group::None;
        self.aggregate_all();
        let expr = self.expr(ty, 1);
        self.scopes.pop();
        select.items = vec![Item {
            expr,
            alias: String::new(),
        }];
        Query::of(Body::Select(Box::new(select)))
    }

    fn row_by_id(&mut self, ty: Type) -> Query {
        let mut select = super::empty_select();
        let id = self.leaf(Int4);
        let (from, atoms) = self.table();
        let own = atoms
            .iter()
            .find(|atom| atom.id)
            .map(|atom| atom.expr.clone());
        let own = own.unwrap_or_else(|| Expr::text(Int4, "1"));
        let scope = super::Scope {
            atoms,
            relations: 1,
            ..super::Scope::default()
        };
        self.scopes.push(scope);
        let expr = self.expr(ty, 1);
        self.scopes.pop();
        select.from = vec![from];
        select.filter = Some(Expr::of(Bool, "{} = {}", vec![own.into(), id.into()]));
        select.items = vec![Item {
            expr,
            alias: String::new(),
        }];
        Query::of(Body::Select(Box::new(select)))
    }
}
