//! Statements of the kinds that a router answers without bringing all rows to one place: rows of one table, or of tables that are
//! together, that are ordered, limited, made distinct or aggregated; and a few rows that others are looked up by.

use super::{DIRECTIONS, Generator, Scope, empty_select};
use crate::random::query::{
    Body, By, Distinct, Expr, From, Group, Item, Limit, On, Order, Part, Query, Select,
};
use crate::random::types::Type::{
    self, Bool, Bytea, Date, Decimal, Int2, Int4, Int8, Numeric, Text, Timestamp, Timestamptz, Uuid,
};

/// Types that a router may be able to compare.
const COMPARED: [Type; 11] = [
    Bool,
    Int2,
    Int4,
    Int8,
    Numeric,
    Text,
    Date,
    Timestamp,
    Timestamptz,
    Uuid,
    Bytea,
];

/// Aggregates of columns.
const PARTIAL: &[(Type, &str, &[Type])] = &[
    (Int8, "count(*)", &[]),
    (Int8, "count({})", &[Text]),
    (Int8, "sum({})", &[Int4]),
    (Decimal, "sum({})", &[Int8]),
    (Numeric, "sum({})", &[Numeric]),
    (Decimal, "avg({})", &[Int4]),
    (Decimal, "avg({})", &[Numeric]),
    (Int4, "min({})", &[Int4]),
    (Int8, "max({})", &[Int8]),
    (Date, "min({})", &[Date]),
    (Numeric, "max({})", &[Numeric]),
    (Bool, "bool_or({})", &[Bool]),
    (Int4, "bit_and({})", &[Int4]),
];

/// Others, and what is made of them.
const AGGREGATES: &[(Type, &str, &[Type])] = &[
    (Int8, "count(DISTINCT {})", &[Int4]),
    (Text, "max({} COLLATE \"C\")", &[Text]),
    (Int8, "coalesce(sum({}), 0)", &[Int4]),
    (Numeric, "round(avg({}), 2)", &[Int4]),
    (Decimal, "(sum({}) / nullif(count(*), 0))", &[Numeric]),
    (Int8, "(count(*) + count({}))", &[Text]),
    (Int4, "(max({}) - min({}))", &[Int4, Int4]),
    (Bool, "(sum({}) > avg({}))", &[Int4, Int4]),
    (Text, "(min({}))::text", &[Date]),
    (
        Text,
        "(CASE WHEN count(*) > 2 THEN 'many' ELSE 'few' END)",
        &[],
    ),
];

/// Tables that are together, by their keys.
const TOGETHER: [[&str; 4]; 2] = [
    ["person", "id", "purchase", "person_id"],
    ["word", "word", "phrase", "word"],
];

/// A few rows of the first, by its key, and the column of the second that they are looked up by.
const LOOKUPS: [[&str; 4]; 14] = [
    ["person", "id", "device", "person_id"],
    ["person", "id", "event", "person_id"],
    ["person", "id", "account", "person_id"],
    ["account", "id", "person", "score"],
    ["word", "word", "region", "name"],
    ["word", "word", "person", "name"],
    ["event", "day", "person", "born"],
    ["event", "day", "purchase", "made"],
    ["region", "code", "phrase", "word"],
    // Neither is a key, and both may be NULL or there more than once.
    ["purchase", "score", "person", "rank"],
    ["device", "person_id", "event", "person_id"],
    ["phrase", "level", "person", "level"],
    ["note", "person_id", "purchase", "person_id"],
    ["price", "amount", "purchase", "total"],
];

impl Generator {
    /// Rows that can be merged as they come from where they are.
    pub(super) fn merged(&mut self) -> Query {
        let mut select = empty_select();
        self.subqueries = 0;
        self.scopes.push(Scope::default());
        select.from = vec![match self.chance.percent(75) {
            true => {
                let (table, atoms) = self.table();
                self.see(atoms);
                table
            }
            false => self.together(),
        }];
        if self.chance.percent(45) {
            select.filter = Some(self.condition(1));
        }
        let query = match self.chance.below(10) {
            0..4 => self.ordered_rows(select),
            4..8 => self.ordered_groups(select),
            _ => self.totals(select),
        };
        self.scopes.pop();
        query
    }

    /// A few rows of one table, and those of another that belong to them.
    pub(super) fn looked_up(&mut self) -> Query {
        let [small, key, large, column] = *self.chance.pick(&LOOKUPS);
        let mut select = empty_select();
        self.subqueries = 0;
        self.scopes.push(Scope::default());
        if self.chance.percent(30) {
            self.looked_up_inside(&mut select, [small, key], [large, column]);
        } else {
            self.looked_up_beside(&mut select, [small, key], [large, column]);
        }
        let query = match self.chance.below(10) {
            0..6 => self.ordered_rows(select),
            6..8 => self.ordered_groups(select),
            _ => self.totals(select),
        };
        self.scopes.pop();
        query
    }

    /// Both sides of a join.
    fn looked_up_beside(
        &mut self,
        select: &mut Select,
        [small, key]: [&str; 2],
        [large, column]: [&str; 2],
    ) {
        let (small, key) = self.seen_table(small, key);
        let (large, column) = self.seen_table(large, column);
        let equal = Expr::of(Bool, "{} = {}", vec![column.into(), key.clone().into()]);
        let kind = self.chance.weighted(&[
            (6, "JOIN"),
            (3, "LEFT JOIN"),
            (2, "RIGHT JOIN"),
            (1, "FULL JOIN"),
        ]);
        select.from = vec![From::Join {
            kind,
            left: Box::new(small),
            right: Box::new(large),
            on: On::Condition(equal),
        }];
        select.filter = self.few(key);
    }

    /// A semi-join or an anti-join, either way round.
    fn looked_up_inside(&mut self, select: &mut Select, small: [&str; 2], large: [&str; 2]) {
        let (outer, inner) = match self.chance.percent(50) {
            true => (small, large),
            false => (large, small),
        };
        let (from, outer) = self.seen_table(outer[0], outer[1]);
        select.from = vec![from];
        self.scopes.push(Scope::default());
        let mut query = empty_select();
        let (from, key) = self.seen_table(inner[0], inner[1]);
        query.from = vec![from];
        query.filter = self.few(key.clone());
        let text = self.chance.weighted(&[
            (2, "EXISTS {}"),
            (2, "NOT EXISTS {}"),
            (2, "{} IN {}"),
            (2, "{} NOT IN {}"),
        ]);
        let mut parts: Vec<Part> = Vec::new();
        if text.contains("EXISTS") {
            let equal = Expr::of(Bool, "{} = {}", vec![key.clone().into(), outer.into()]);
            query.filter = Some(match query.filter.take() {
                Some(few) => Expr::of(Bool, "{} AND {}", vec![few.into(), equal.into()]),
                None => equal,
            });
        } else {
            parts.push(outer.into());
        }
        let alias = self.name("c");
        query.items = vec![Item { expr: key, alias }];
        self.scopes.pop();
        parts.push(Query::of(Body::Select(Box::new(query))).into());
        let mut filter = Expr::of(Bool, text, parts);
        if self.chance.percent(40) {
            let more = self.condition(0);
            filter = Expr::of(Bool, "{} AND {}", vec![filter.into(), more.into()]);
        }
        select.filter = Some(filter);
    }

    /// What leaves a few rows, or none; or nothing, of tables that are small themselves.
    fn few(&mut self, key: Expr) -> Option<Expr> {
        let text = self.chance.weighted(&[
            (6, "{} IN (…)"),
            (1, "{} IS NULL"),
            (1, "{} IS NOT NULL AND 1 = 2"),
            (2, ""),
        ]);
        if text.is_empty() {
            return None;
        }
        let values = self.chance.between(1, 3);
        let text = text.replace('…', &vec!["{}"; values].join(", "));
        let mut parts: Vec<Part> = vec![key.clone().into()];
        if text.contains(" IN ") {
            parts.extend((0..values).map(|_| Part::from(self.constant(key.ty))));
        }
        let filter = Expr::of(Bool, &text, parts);
        if self.chance.percent(40) {
            let more = self.condition(0);
            return Some(Expr::of(
                Bool,
                "{} AND {}",
                vec![filter.into(), more.into()],
            ));
        }
        Some(filter)
    }

    fn together(&mut self) -> From {
        let [a, a_key, b, b_key] = *self.chance.pick(&TOGETHER);
        let (left, a_key) = self.seen_table(a, a_key);
        let (right, b_key) = self.seen_table(b, b_key);
        From::Join {
            kind: self.chance.weighted(&[(4, "JOIN"), (1, "LEFT JOIN")]),
            left: Box::new(left),
            right: Box::new(right),
            on: On::Condition(Expr::of(Bool, "{} = {}", vec![a_key.into(), b_key.into()])),
        }
    }

    /// A table, and a column of it.
    fn seen_table(&mut self, name: &str, column: &str) -> (From, Expr) {
        let (table, atoms) = self.named_table(name);
        let expr = atoms[super::from::position(name, column)].expr.clone();
        self.see(atoms);
        (table, expr)
    }

    /// Columns, ordered by all of them, with expressions before that.
    fn ordered_rows(&mut self, mut select: Select) -> Query {
        let count = self.chance.between(1, 4);
        for _ in 0..count {
            let ty = self.compared_type();
            let expr = match self.chance.percent(85) {
                true => self.leaf(ty),
                false => self.expr(ty, 1),
            };
            self.add(&mut select, expr);
        }
        if self.chance.percent(20) {
            select.distinct = Distinct::All;
        }
        let by = match self.chance.percent(15) && select.distinct == Distinct::No {
            true => {
                let ty = self.compared_type();
                vec![By::Expr(self.not_constant(ty))]
            }
            false => Vec::new(),
        };
        self.limited(select, by)
    }

    /// Aggregates of groups, ordered by any of them.
    fn ordered_groups(&mut self, mut select: Select) -> Query {
        let mut groups: Vec<Expr> = Vec::new();
        for _ in 0..self.chance.between(1, 2) {
            let ty = self.compared_type();
            let group = self.leaf(ty);
            // A constant would be an ordinal.
            if group.as_text().is_some_and(|text| text.contains('.')) && !groups.contains(&group) {
                groups.push(group);
            }
        }
        for group in &groups {
            self.add(&mut select, group.clone());
        }
        for _ in 0..self.chance.between(1, 3) {
            let aggregate = self.partial_aggregate();
            self.add(&mut select, aggregate);
        }
        if self.chance.percent(20) {
            select.having = Some(self.having());
        }
        select.group = match groups.is_empty() {
            true => Group::None,
            false => Group::By(groups),
        };
        let by = match self.chance.percent(40) {
            true => vec![By::Expr(self.partial_aggregate())],
            false => Vec::new(),
        };
        self.limited(select, by)
    }

    /// Aggregates of all rows.
    fn totals(&mut self, mut select: Select) -> Query {
        for _ in 0..self.chance.between(1, 4) {
            let aggregate = self.partial_aggregate();
            self.add(&mut select, aggregate);
        }
        if self.chance.percent(20) {
            select.having = Some(self.having());
        }
        Query::of(Body::Select(Box::new(select)))
    }

    fn add(&mut self, select: &mut Select, expr: Expr) {
        let alias = self.name("c");
        select.items.push(Item { expr, alias });
    }

    fn compared_type(&mut self) -> Type {
        let atoms = self.scopes.last().map_or(&[][..], |scope| &scope.atoms);
        let types: Vec<Type> = atoms
            .iter()
            .map(|atom| atom.expr.ty)
            .filter(|ty| COMPARED.contains(ty))
            .collect();
        *self.chance.pick(&types)
    }

    fn partial_aggregate(&mut self) -> Expr {
        let known = match self.chance.percent(70) {
            true => PARTIAL,
            false => AGGREGATES,
        };
        let (ty, text, arguments) = *self.chance.pick(known);
        self.bare += 1;
        let argument = arguments.first().map(|ty| self.leaf(*ty));
        let parts: Vec<Part> = arguments
            .iter()
            .filter_map(|_| argument.clone().map(Part::from))
            .collect();
        let mut aggregate = Expr::of(ty, text, parts);
        let is_call =
            text.ends_with(')') && !text.starts_with('(') && !text.starts_with("coalesce");
        if is_call && !text.starts_with("round") && self.chance.percent(25) {
            let condition = self.condition(0);
            let parts = vec![aggregate.into(), condition.into()];
            aggregate = Expr::of(ty, "{} FILTER (WHERE {})", parts);
        }
        self.bare -= 1;
        aggregate
    }

    fn having(&mut self) -> Expr {
        let text = *self.chance.pick(&[
            "count(*) > 1",
            "count(*) BETWEEN 1 AND 3",
            "bool_or(true)",
            "count(*) <> 2 OR max(1) IS NULL",
        ]);
        if self.chance.percent(50) {
            return Expr::text(Bool, text);
        }
        self.bare += 1;
        let argument = self.leaf(Int4);
        self.bare -= 1;
        let text = *self.chance.pick(&[
            "sum({}) > 5",
            "max({}) IS NOT NULL",
            "count({}) >= 1",
            "avg({}) < 10",
        ]);
        Expr::of(Bool, text, vec![argument.into()])
    }

    /// Ordered by these, and then by all columns, so that a limit leaves nothing open.
    fn limited(&mut self, select: Select, first: Vec<By>) -> Query {
        let width = select.items.len();
        let mut query = Query::of(Body::Select(Box::new(select)));
        let mut ordinals: Vec<usize> = (1..=width).collect();
        self.shuffle(&mut ordinals, 0);
        let ordinals = ordinals.into_iter().map(By::Ordinal);
        if self.chance.percent(85) {
            query.order = first
                .into_iter()
                .chain(ordinals)
                .map(|by| Order {
                    by,
                    direction: self.chance.weighted(&DIRECTIONS),
                })
                .collect();
            if self.chance.percent(60) {
                query.limit = Some(self.limit());
            } else if self.chance.percent(15) {
                let count = Some(Part::Text(self.chance.between(1, 6).to_string()));
                let (offset, ties) = (None, true);
                query.limit = Some(Limit {
                    count,
                    offset,
                    ties,
                });
            }
        }
        query
    }
}
