//! Smaller statements: every one that a single step makes of another, the greatest steps first.

use super::data::literal;
use super::query::{Body, By, Distinct, Expr, From, Group, On, Order, Part, Query, Select};
use super::types::Type;

/// Makes a statement smaller for as long as `holds` is true of something smaller, and `more` says to go on.
pub fn shrink(
    query: &Query,
    mut holds: impl FnMut(&Query) -> bool,
    more: impl Fn() -> bool,
) -> Query {
    let mut smallest = query.clone();
    loop {
        let candidates = nested(&smallest).into_iter().chain(smaller(&smallest));
        let mut found = None;
        for candidate in candidates {
            if !more() {
                return smallest;
            }
            if candidate != smallest && holds(&candidate) {
                found = Some(candidate);
                break;
            }
        }
        match found {
            Some(candidate) => smallest = candidate,
            None => return smallest,
        }
    }
}

/// What each part can be replaced by, one part at a time.
fn each<T: Clone>(items: &[T], make: impl Fn(&T) -> Vec<T>) -> Vec<Vec<T>> {
    let mut all = Vec::new();
    for (index, item) in items.iter().enumerate() {
        for replacement in make(item) {
            let mut items = items.to_vec();
            items[index] = replacement;
            all.push(items);
        }
    }
    all
}

/// The lists without one item.
fn without<T: Clone>(items: &[T], least: usize) -> Vec<Vec<T>> {
    if items.len() <= least {
        return Vec::new();
    }
    let one_less = |index| {
        let mut items = items.to_vec();
        items.remove(index);
        items
    };
    (0..items.len()).map(one_less).collect()
}

/// The queries within a statement, each as a statement of its own.
fn nested(query: &Query) -> Vec<Query> {
    let mut found: Vec<Query> = query.with.iter().map(|cte| cte.query.clone()).collect();
    let mut operand = |operand: &Query| {
        let mut operand = operand.clone();
        operand.with = [query.with.clone(), operand.with].concat();
        operand.recursive |= query.recursive;
        found.push(operand);
    };
    match &query.body {
        Body::Set { left, right, .. } => {
            operand(left);
            operand(right);
        }
        Body::Select(select) => {
            let mut queries = Vec::new();
            select
                .from
                .iter()
                .for_each(|from| queries_of_from(from, &mut queries));
            let exprs = select.items.iter().map(|item| &item.expr);
            exprs
                .chain(&select.filter)
                .chain(&select.having)
                .for_each(|expr| queries_of(expr, &mut queries));
            queries.iter().for_each(operand);
        }
        Body::Values(_) => {}
    }
    found
}

fn queries_of_from(from: &From, found: &mut Vec<Query>) {
    match from {
        From::Table { .. } => {}
        From::Derived { query, .. } => found.push((**query).clone()),
        From::Rows(expr, _) => queries_of(expr, found),
        From::Join {
            left, right, on, ..
        } => {
            queries_of_from(left, found);
            queries_of_from(right, found);
            if let On::Condition(condition) = on {
                queries_of(condition, found);
            }
        }
    }
}

fn queries_of(expr: &Expr, found: &mut Vec<Query>) {
    for part in &expr.parts {
        match part {
            Part::Query(query) => found.push((**query).clone()),
            Part::Expr(expr) => queries_of(expr, found),
            Part::Text(_) | Part::Value(..) => {}
        }
    }
}

/// One step smaller.
fn smaller(query: &Query) -> Vec<Query> {
    let mut all = Vec::new();
    let mut with = |change: &dyn Fn(&mut Query)| {
        let mut copy = query.clone();
        change(&mut copy);
        all.push(copy);
    };
    for ctes in without(&query.with, 0) {
        with(&|copy| copy.with.clone_from(&ctes));
    }
    if !query.order.is_empty() {
        with(&|copy| (copy.order, copy.limit) = (Vec::new(), None));
    }
    if query.limit.is_some() {
        with(&|copy| copy.limit = None);
    }
    for column in 0..query.width() {
        with(&|copy| remove_column(copy, column));
    }
    for body in smaller_body(&query.body) {
        with(&|copy| copy.body.clone_from(&body));
    }
    for ctes in each(&query.with, |cte| {
        let one = |query| super::query::Cte {
            query,
            ..cte.clone()
        };
        smaller(&cte.query).into_iter().map(one).collect()
    }) {
        with(&|copy| copy.with.clone_from(&ctes));
    }
    for order in each(&query.order, smaller_order) {
        with(&|copy| copy.order.clone_from(&order));
    }
    let both = |limit: &super::query::Limit| limit.count.is_some() && limit.offset.is_some();
    if query.limit.as_ref().is_some_and(both) {
        with(&|copy| copy.limit.iter_mut().for_each(|limit| limit.offset = None));
        with(&|copy| copy.limit.iter_mut().for_each(|limit| limit.count = None));
    }
    all
}

fn smaller_order(order: &Order) -> Vec<Order> {
    let plain = Order {
        direction: "",
        ..order.clone()
    };
    let mut all = if order.direction.is_empty() {
        Vec::new()
    } else {
        vec![plain]
    };
    if let By::Expr(expr) = &order.by {
        all.extend(smaller_expr(expr).into_iter().map(|expr| Order {
            by: By::Expr(expr),
            ..order.clone()
        }));
    }
    all
}

/// Takes a column away wherever it is.
fn remove_column(query: &mut Query, column: usize) {
    if query.width() < 2 {
        return;
    }
    match &mut query.body {
        Body::Select(select) => {
            select.items.remove(column);
            select.distinct = match select.distinct {
                Distinct::On(count) if column < count && count > 1 => Distinct::On(count - 1),
                Distinct::On(count) if column < count => Distinct::No,
                Distinct::On(count) => Distinct::On(count),
                Distinct::No => Distinct::No,
                Distinct::All => Distinct::All,
            };
        }
        Body::Set { left, right, .. } => {
            remove_column(left, column);
            remove_column(right, column);
        }
        Body::Values(rows) => rows.iter_mut().for_each(|row| drop(row.remove(column))),
    }
    query
        .order
        .retain(|order| order.by != By::Ordinal(column + 1));
    for order in &mut query.order {
        if let By::Ordinal(number) = &mut order.by
            && *number > column + 1
        {
            *number -= 1;
        }
    }
}

fn smaller_body(body: &Body) -> Vec<Body> {
    match body {
        Body::Select(select) => smaller_select(select)
            .into_iter()
            .map(|select| Body::Select(Box::new(select)))
            .collect(),
        Body::Set {
            operator,
            left,
            right,
        } => {
            let of = |left: Query, right: Query| Body::Set {
                operator,
                left: Box::new(left),
                right: Box::new(right),
            };
            let mut all: Vec<Body> = smaller(left)
                .into_iter()
                .map(|left| of(left, (**right).clone()))
                .collect();
            all.extend(
                smaller(right)
                    .into_iter()
                    .map(|right| of((**left).clone(), right)),
            );
            all
        }
        Body::Values(rows) => {
            let mut all: Vec<Body> = without(rows, 1).into_iter().map(Body::Values).collect();
            all.extend(
                each(rows, |row| each(row, smaller_expr))
                    .into_iter()
                    .map(Body::Values),
            );
            all
        }
    }
}

fn smaller_select(select: &Select) -> Vec<Select> {
    let mut all = Vec::new();
    let mut with = |change: &dyn Fn(&mut Select)| {
        let mut copy = select.clone();
        change(&mut copy);
        all.push(copy);
    };
    if select.distinct != Distinct::No {
        with(&|copy| copy.distinct = Distinct::No);
    }
    if select.filter.is_some() {
        with(&|copy| copy.filter = None);
    }
    if select.having.is_some() {
        with(&|copy| copy.having = None);
    }
    for from in without(&select.from, 0)
        .into_iter()
        .chain(each(&select.from, smaller_from))
    {
        with(&|copy| copy.from.clone_from(&from));
    }
    match &select.group {
        Group::None => {}
        Group::By(exprs) => {
            with(&|copy| copy.group = Group::None);
            for exprs in without(exprs, 1) {
                with(&|copy| copy.group = Group::By(exprs.clone()));
            }
        }
        Group::Sets(kind, exprs) => {
            with(&|copy| copy.group = Group::By(exprs.clone()));
            for exprs in without(exprs, 1) {
                with(&|copy| copy.group = Group::Sets(kind, exprs.clone()));
            }
        }
    }
    for filter in select.filter.iter().flat_map(smaller_expr) {
        with(&|copy| copy.filter = Some(filter.clone()));
    }
    for having in select.having.iter().flat_map(smaller_expr) {
        with(&|copy| copy.having = Some(having.clone()));
    }
    for (index, item) in select.items.iter().enumerate() {
        for expr in smaller_expr(&item.expr) {
            with(&|copy| copy.items[index].expr = expr.clone());
        }
    }
    all
}

fn smaller_from(from: &From) -> Vec<From> {
    let mut all = Vec::new();
    match from {
        From::Table { .. } => {}
        From::Derived {
            query,
            lateral,
            alias,
        } => {
            all.extend(smaller(query).into_iter().map(|query| From::Derived {
                lateral: *lateral,
                query: Box::new(query),
                alias: alias.clone(),
            }));
        }
        From::Rows(expr, alias) => {
            all.extend(
                smaller_parts(expr)
                    .into_iter()
                    .map(|expr| From::Rows(expr, alias.clone())),
            );
        }
        From::Join {
            kind,
            left,
            right,
            on,
        } => {
            all.extend([(**left).clone(), (**right).clone()]);
            let join = |kind: &'static str, left: &From, right: &From, on: On| From::Join {
                kind,
                left: Box::new(left.clone()),
                right: Box::new(right.clone()),
                on,
            };
            if !matches!(*kind, "JOIN" | "CROSS JOIN") {
                all.push(join("JOIN", left, right, on.clone()));
            }
            all.extend(
                smaller_from(left)
                    .iter()
                    .map(|left| join(kind, left, right, on.clone())),
            );
            all.extend(
                smaller_from(right)
                    .iter()
                    .map(|right| join(kind, left, right, on.clone())),
            );
            if let On::Condition(condition) = on {
                let conditions = smaller_expr(condition).into_iter();
                all.extend(conditions.map(|on| join(kind, left, right, On::Condition(on))));
            }
        }
    }
    all
}

/// An expression of the same type that is part of it, or a constant, or the same with a smaller part.
fn smaller_expr(expr: &Expr) -> Vec<Expr> {
    let mut all = Vec::new();
    if let [Part::Text(_)] = &expr.parts[..] {
        return all;
    }
    same_type(expr, expr.ty, &mut all);
    let constant = if expr.ty == Type::Bool {
        "true".to_owned()
    } else {
        literal(expr.ty, expr.ty.values()[0])
    };
    all.push(Expr::text(expr.ty, constant));
    all.extend(smaller_parts(expr));
    all
}

fn smaller_parts(expr: &Expr) -> Vec<Expr> {
    let parts = each(&expr.parts, |part| match part {
        Part::Text(_) => Vec::new(),
        Part::Expr(expr) => smaller_expr(expr).into_iter().map(Part::Expr).collect(),
        Part::Query(query) => smaller(query).into_iter().map(Part::from).collect(),
        Part::Value(None, cast) => vec![Part::Text(format!("NULL{cast}"))],
        Part::Value(Some(value), cast) => {
            vec![Part::Text(format!("'{}'{cast}", value.replace('\'', "''")))]
        }
    });
    let of = |parts| Expr { ty: expr.ty, parts };
    parts.into_iter().map(of).collect()
}

fn same_type(expr: &Expr, ty: Type, found: &mut Vec<Expr>) {
    for part in &expr.parts {
        if let Part::Expr(inner) = part {
            if inner.ty == ty {
                found.push(inner.clone());
            } else {
                same_type(inner, ty, found);
            }
        }
    }
}
