//! SELECT: plain, grouped, with aggregates of all rows, with windows.

use super::{Atom, DIRECTIONS, Generator, Named, Scope, empty_select};
use crate::random::query::{Body, By, Distinct, Expr, From, Group, Item, On, Order, Query, Select};
use crate::random::types::Type;

#[derive(Clone, Copy, PartialEq)]
enum Shape {
    Plain,
    Windows,
    Grouped,
    Aggregates,
}

impl Generator {
    /// A SELECT and what it can be ordered by besides its columns.
    pub(super) fn select(&mut self, types: Option<&[Type]>) -> (Select, Vec<Order>) {
        let mut select = empty_select();
        self.scopes.push(Scope::default());
        let bare_row = self.chance.percent(3);
        if !bare_row {
            select.from = self.relations();
        }
        if self.pinned || self.chance.percent(70) {
            select.filter = Some(self.filter());
        }
        let shape = self.chance.weighted(&[
            (55, Shape::Plain),
            (12, Shape::Windows),
            (22, Shape::Grouped),
            (11, Shape::Aggregates),
        ]);
        let shape = if bare_row { Shape::Plain } else { shape };
        match shape {
            Shape::Plain | Shape::Windows => {}
            Shape::Grouped => self.group(&mut select),
            Shape::Aggregates => self.aggregate_all(),
        }
        self.items(&mut select, types, shape);
        let grouped = matches!(shape, Shape::Grouped | Shape::Aggregates);
        if grouped && self.chance.percent(30) {
            select.having = Some(self.condition(1));
        }
        if self.chance.percent(10) {
            select.distinct = Distinct::All;
        } else if shape == Shape::Plain && self.chance.percent(6) {
            select.distinct = Distinct::On(self.chance.between(1, select.items.len()));
        }
        let extra = self.extra_order(&select, shape);
        self.scopes.pop();
        (select, extra)
    }

    fn items(&mut self, select: &mut Select, types: Option<&[Type]>, shape: Shape) {
        let chosen: Vec<Type> = match types {
            Some(types) => types.to_vec(),
            None => {
                let count = self.chance.between(1, 4);
                (0..count)
                    .map(|_| self.likely_type(shape == Shape::Grouped))
                    .collect()
            }
        };
        for ty in chosen {
            let expr = match shape {
                Shape::Windows if self.chance.percent(60) => self.window(ty),
                Shape::Plain if types.is_none() && self.chance.percent(3) => self.set_returning(),
                _ => self.item(ty),
            };
            let alias = self.alias();
            select.items.push(Item { expr, alias });
        }
    }

    /// A name for a column: one of its own, none, or one that something else has already.
    fn alias(&mut self) -> String {
        match self.chance.below(30) {
            0..4 => String::new(),
            4 => (*self
                .chance
                .pick(&["id", "name", "score", "person_id", "word"]))
            .to_owned(),
            _ => self.name("c"),
        }
    }

    fn item(&mut self, ty: Type) -> Expr {
        let depth = self.chance.weighted(&[(5, 0), (3, 1), (2, 2)]);
        self.expr(ty, depth)
    }

    /// The type of something that can be referred to, mostly.
    fn likely_type(&mut self, grouped: bool) -> Type {
        let atoms = self
            .scopes
            .last()
            .map_or(&[][..], |scope| scope.atoms.as_slice());
        let types: Vec<Type> = atoms
            .iter()
            .map(|atom| atom.expr.ty)
            .filter(|ty| *ty != Type::Decimal)
            .collect();
        if grouped && self.chance.percent(40) {
            return self.chance.weighted(&[
                (4, Type::Int8),
                (2, Type::Decimal),
                (2, Type::Numeric),
                (1, Type::Text),
                (1, Type::Int4),
            ]);
        }
        if types.is_empty() || self.chance.percent(15) {
            return *self.chance.pick(&Type::PLAIN);
        }
        *self.chance.pick(&types)
    }

    /// Groups: from here on the level's atoms are the grouped expressions.
    fn group(&mut self, select: &mut Select) {
        let (all, ids) = self
            .scopes
            .last()
            .map_or((Vec::new(), Vec::new()), |scope| {
                let ids = scope
                    .atoms
                    .iter()
                    .filter(|atom| atom.id)
                    .map(|atom| atom.expr.clone());
                (scope.atoms.clone(), ids.collect())
            });
        if !ids.is_empty()
            && matches!(select.from[..], [From::Table { .. }])
            && self.chance.percent(20)
        {
            // All columns depend on the primary key.
            select.group = Group::By(ids);
            return self.grouped_scope(all);
        }
        let mut exprs: Vec<Expr> = Vec::new();
        let mut atoms = Vec::new();
        for _ in 0..self.chance.between(1, 3) {
            let Some(atom) = self.groupable() else {
                continue;
            };
            if !exprs.contains(&atom.expr) {
                exprs.push(atom.expr.clone());
                atoms.push(atom);
            }
        }
        let kind = self.chance.weighted(&[
            (12, None),
            (2, Some("ROLLUP")),
            (2, Some("CUBE")),
            (2, Some("GROUPING SETS")),
        ]);
        if let (Some(_), Some(first)) = (kind, exprs.first()) {
            let text = format!("grouping({{}}{})", ", {}".repeat(exprs.len() - 1));
            let parts = exprs.iter().cloned().map(Into::into).collect();
            let plain = atoms.iter().all(|atom| atom.column) && first.ty != Type::Decimal;
            if plain {
                atoms.push(Atom {
                    expr: Expr::of(Type::Int4, &text, parts),
                    column: false,
                    key: false,
                    id: false,
                });
            }
        }
        select.group = match kind {
            _ if exprs.is_empty() => Group::None,
            Some(kind) => Group::Sets(kind, exprs),
            None => Group::By(exprs),
        };
        self.grouped_scope(atoms);
    }

    /// A column, or a function of columns, that rows can be grouped by.
    fn groupable(&mut self) -> Option<Atom> {
        let atoms = &self.scopes.last()?.atoms;
        let atoms: Vec<Atom> = atoms
            .iter()
            .filter(|atom| atom.expr.ty != Type::Decimal)
            .cloned()
            .collect();
        if atoms.is_empty() {
            return None;
        }
        let atom = self.chance.pick(&atoms).clone();
        if self.chance.percent(75) {
            return Some(atom);
        }
        let (ty, text) = match atom.expr.ty {
            Type::Int2 | Type::Int4 | Type::Int8 => (Type::Int8, "(({}) % 3)::int8"),
            Type::Text => (Type::Text, "lower({})"),
            Type::Date => (Type::Date, "date_trunc('month', {})::date"),
            _ => (Type::Bool, "({} IS NULL)"),
        };
        Some(Atom {
            expr: Expr::of(ty, text, vec![atom.expr.into()]),
            column: false,
            key: false,
            id: false,
        })
    }

    pub(super) fn aggregate_all(&mut self) {
        self.grouped_scope(Vec::new());
    }

    fn grouped_scope(&mut self, atoms: Vec<Atom>) {
        if let Some(scope) = self.scopes.last_mut() {
            let before = std::mem::replace(&mut scope.atoms, atoms);
            scope.grouped = Some(before);
        }
    }

    fn extra_order(&mut self, select: &Select, shape: Shape) -> Vec<Order> {
        if select.distinct != Distinct::No {
            return Vec::new();
        }
        let direction = self.chance.weighted(&DIRECTIONS);
        let single = matches!(select.from.as_slice(), [From::Table { .. }]);
        let plain = matches!(shape, Shape::Plain | Shape::Windows);
        let returns_sets = select
            .items
            .iter()
            .any(|item| super::expression::returns_set(&item.expr));
        if single && plain && !returns_sets && self.chance.percent(30) {
            let atoms = self
                .scopes
                .last()
                .map_or(&[][..], |scope| scope.atoms.as_slice());
            if let Some(id) = atoms.iter().find(|atom| atom.id) {
                let by = By::Unique(id.expr.clone());
                return vec![Order { by, direction }];
            }
        }
        if self.chance.percent(75) {
            return Vec::new();
        }
        let alias = self.chance.pick(&select.items).alias.clone();
        if !alias.is_empty() && self.chance.percent(30) {
            let by = By::Expr(Expr::text(Type::Bool, alias));
            return vec![Order { by, direction }];
        }
        let ty = self.likely_type(false);
        let expr = self.not_constant(ty);
        let expr = match (expr.ty, self.chance.below(3)) {
            (Type::Text, 0) => Expr::of(Type::Text, "({}) COLLATE \"C\"", vec![expr.into()]),
            (Type::Text, 1) => Expr::of(Type::Text, "({}) COLLATE \"en-x-icu\"", vec![expr.into()]),
            _ => Expr::of(expr.ty, "({})", vec![expr.into()]),
        };
        let by = By::Expr(expr);
        vec![Order { by, direction }]
    }

    /// An expression of which nothing takes it for an ordinal.
    pub(super) fn not_constant(&mut self, ty: Type) -> Expr {
        let expr = self.expr(ty, 1);
        if expr.ty.is_integer() {
            return Expr::of(expr.ty, "{} + 0", vec![expr.into()]);
        }
        expr
    }

    /// The second half of a recursion: one more step from each row so far, through a table.
    pub(super) fn recursive_step(&mut self, own: Named) -> Select {
        let mut select = empty_select();
        self.scopes.push(Scope::default());
        let alias = self.name("r");
        let column = |index: usize| format!("{alias}.{}", own.columns[index].0);
        let (number, value) = (column(0), column(1));
        let from = From::Table {
            name: own.name.clone(),
            alias: alias.clone(),
        };
        let mut next = Expr::text(Type::Int8, format!("({value} + 1)"));
        let mut join = from;
        if self.chance.percent(70) {
            let (table, columns) = self.table();
            let integer = columns
                .iter()
                .find(|atom| atom.expr.ty.is_integer() && atom.key);
            let integer = integer
                .or_else(|| columns.iter().find(|atom| atom.id))
                .cloned();
            if let Some(atom) = integer {
                let on = Expr::of(
                    Type::Bool,
                    &format!("{{}} = {value} + 1"),
                    vec![atom.expr.clone().into()],
                );
                next = Expr::of(Type::Int8, "{}::int8", vec![atom.expr.into()]);
                let kind = self.chance.weighted(&[(4, "JOIN"), (1, "LEFT JOIN")]);
                join = From::Join {
                    kind,
                    left: Box::new(join),
                    right: Box::new(table),
                    on: On::Condition(on),
                };
            }
        }
        self.scopes.pop();
        select.from = vec![join];
        let steps = self.chance.between(2, 4);
        select.filter = Some(Expr::text(Type::Bool, format!("{number} < {steps}")));
        let items = [Expr::text(Type::Int4, format!("{number} + 1")), next];
        select.items = items
            .into_iter()
            .map(|expr| Item {
                expr,
                alias: String::new(),
            })
            .collect();
        select
    }

    /// A query for FROM or WITH: its columns have names.
    pub(super) fn derived(&mut self, types: Option<&[Type]>) -> Query {
        let mut query = self.query(types, false);
        self.name_columns(&mut query);
        query
    }

    fn name_columns(&mut self, query: &mut Query) {
        match &mut query.body {
            Body::Select(select) => {
                let nameless = select.items.iter_mut().filter(|item| item.alias.is_empty());
                nameless.for_each(|item| item.alias = self.name("c"));
            }
            Body::Set { left, .. } => self.name_columns(left),
            Body::Values(_) => {}
        }
    }
}
