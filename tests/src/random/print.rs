//! From the tree to text.

use std::fmt::Write;

use super::query::{
    Body, By, Cte, Distinct, Expr, From, Group, Item, Limit, On, Order, Part, Query, Select,
};

/// A statement as it is sent: text with `$1`, `$2`, … and their values.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Text {
    /// The SQL.
    pub sql: String,
    /// The parameters.
    pub values: Vec<Option<String>>,
}

impl Text {
    /// Of a statement.
    pub fn of(query: &Query) -> Text {
        let mut text = Text::default();
        text.query(query);
        text
    }

    /// Of a statement that is text with expressions in it.
    pub fn of_expr(statement: &Expr) -> Text {
        let mut text = Text::default();
        text.expr(statement);
        text
    }

    fn push(&mut self, text: &str) {
        self.sql.push_str(text);
    }

    fn list<T>(&mut self, items: &[T], separator: &str, mut each: impl FnMut(&mut Text, &T)) {
        for (index, item) in items.iter().enumerate() {
            if index > 0 {
                self.push(separator);
            }
            each(self, item);
        }
    }

    fn query(&mut self, query: &Query) {
        if !query.with.is_empty() {
            self.push(if query.recursive {
                "WITH RECURSIVE "
            } else {
                "WITH "
            });
            self.list(&query.with, ", ", Text::cte);
            self.push(" ");
        }
        match &query.body {
            Body::Select(select) => self.select(select),
            Body::Set {
                operator,
                left,
                right,
            } => {
                self.operand(left);
                self.push(&format!(" {operator} "));
                self.operand(right);
            }
            Body::Values(rows) => {
                self.push("VALUES ");
                self.list(rows, ", ", |text, row| {
                    text.push("(");
                    text.list(row, ", ", Text::expr);
                    text.push(")");
                });
            }
        }
        if !query.order.is_empty() {
            self.push(" ORDER BY ");
            self.list(&query.order, ", ", Text::order);
        }
        if let Some(limit) = &query.limit {
            self.limit(limit);
        }
    }

    fn operand(&mut self, query: &Query) {
        let bare = matches!(query.body, Body::Select(_)) && query.with.is_empty();
        if bare && query.order.is_empty() && query.limit.is_none() {
            return self.query(query);
        }
        self.push("(");
        self.query(query);
        self.push(")");
    }

    fn cte(&mut self, cte: &Cte) {
        self.push(&format!("{} AS {}(", cte.name, cte.hint));
        self.query(&cte.query);
        self.push(")");
    }

    fn order(&mut self, order: &Order) {
        match &order.by {
            By::Ordinal(number) => self.push(&number.to_string()),
            By::Expr(expr) | By::Unique(expr) => self.expr(expr),
        }
        self.push(order.direction);
    }

    fn limit(&mut self, limit: &Limit) {
        if let (Some(count), false) = (&limit.count, limit.ties) {
            self.push(" LIMIT ");
            self.part(count);
        }
        if let Some(offset) = &limit.offset {
            self.push(" OFFSET ");
            self.part(offset);
        }
        if let (Some(count), true) = (&limit.count, limit.ties) {
            self.push(" FETCH FIRST ");
            self.part(count);
            self.push(" ROWS WITH TIES");
        }
    }

    fn select(&mut self, select: &Select) {
        self.push("SELECT ");
        match select.distinct {
            Distinct::No => {}
            Distinct::All => self.push("DISTINCT "),
            Distinct::On(count) => {
                self.push("DISTINCT ON (");
                self.list(&(1..=count).collect::<Vec<_>>(), ", ", |text, number| {
                    text.push(&number.to_string());
                });
                self.push(") ");
            }
        }
        self.list(&select.items, ", ", Text::item);
        if !select.from.is_empty() {
            self.push(" FROM ");
            self.list(&select.from, ", ", Text::from);
        }
        if let Some(filter) = &select.filter {
            self.push(" WHERE ");
            self.expr(filter);
        }
        match &select.group {
            Group::None => {}
            Group::By(exprs) => {
                self.push(" GROUP BY ");
                self.list(exprs, ", ", Text::expr);
            }
            Group::Sets("GROUPING SETS", exprs) => {
                self.push(" GROUP BY GROUPING SETS ((), (");
                self.list(exprs, ", ", Text::expr);
                self.push("), ");
                self.list(exprs, ", ", Text::expr);
                self.push(")");
            }
            Group::Sets(kind, exprs) => {
                self.push(&format!(" GROUP BY {kind} ("));
                self.list(exprs, ", ", Text::expr);
                self.push(")");
            }
        }
        if let Some(having) = &select.having {
            self.push(" HAVING ");
            self.expr(having);
        }
    }

    fn item(&mut self, item: &Item) {
        self.expr(&item.expr);
        if !item.alias.is_empty() {
            self.push(&format!(" AS {}", item.alias));
        }
    }

    fn from(&mut self, from: &From) {
        match from {
            From::Table { name, alias } => self.push(&format!("{name} {alias}")),
            From::Derived {
                lateral,
                query,
                alias,
            } => {
                self.push(if *lateral { "LATERAL (" } else { "(" });
                self.query(query);
                self.push(&format!(") {alias}"));
            }
            From::Rows(rows, alias) => {
                self.expr(rows);
                self.push(&format!(" {alias}"));
            }
            From::Join {
                kind,
                left,
                right,
                on,
            } => {
                self.from(left);
                self.push(&format!(" {kind} "));
                let nested = matches!(**right, From::Join { .. });
                self.push(if nested { "(" } else { "" });
                self.from(right);
                self.push(if nested { ")" } else { "" });
                match on {
                    On::Nothing => {}
                    On::Condition(condition) => {
                        self.push(" ON ");
                        self.expr(condition);
                    }
                    On::Using(column) => self.push(&format!(" USING ({column})")),
                }
            }
        }
    }

    fn expr(&mut self, expr: &Expr) {
        expr.parts.iter().for_each(|part| self.part(part));
    }

    fn part(&mut self, part: &Part) {
        match part {
            Part::Text(text) => self.push(text),
            Part::Expr(expr) => self.expr(expr),
            Part::Query(query) => {
                self.push("(");
                self.query(query);
                self.push(")");
            }
            Part::Value(value, cast) => {
                self.values.push(value.clone());
                // Writing to a string cannot fail.
                let _ = write!(self.sql, "${}{cast}", self.values.len());
            }
        }
    }
}
