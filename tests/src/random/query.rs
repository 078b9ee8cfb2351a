//! A statement as a small tree: what can be dropped or replaced while it is made smaller is a part of its own, everything
//! else is text between such parts.

use super::types::Type;

/// An expression: text with parts in it, and the type it has.
#[derive(Debug, Clone, PartialEq)]
pub struct Expr {
    /// Its type.
    pub ty: Type,
    /// What it is made of.
    pub parts: Vec<Part>,
}

/// A piece of an expression.
#[derive(Debug, Clone, PartialEq)]
pub enum Part {
    /// As it is.
    Text(String),
    /// An expression within.
    Expr(Expr),
    /// A subquery, with its parentheses.
    Query(Box<Query>),
    /// A parameter (NULL if none) with its cast: `$n` by the extended protocol, a quoted literal by the simple one.
    Value(Option<String>, &'static str),
}

/// A query expression.
#[derive(Debug, Clone, PartialEq)]
pub struct Query {
    /// `WITH`.
    pub with: Vec<Cte>,
    /// Whether that is `WITH RECURSIVE`.
    pub recursive: bool,
    /// What makes the rows.
    pub body: Body,
    /// `ORDER BY`.
    pub order: Vec<Order>,
    /// `LIMIT`, `OFFSET`, `FETCH FIRST`.
    pub limit: Option<Limit>,
}

/// A query of a WITH clause.
#[derive(Debug, Clone, PartialEq)]
pub struct Cte {
    /// Its name.
    pub name: String,
    /// `MATERIALIZED`, `NOT MATERIALIZED`, or nothing.
    pub hint: &'static str,
    /// The query.
    pub query: Query,
}

/// What makes rows.
#[derive(Debug, Clone, PartialEq)]
pub enum Body {
    /// `SELECT`.
    Select(Box<Select>),
    /// `UNION` and so on.
    Set {
        /// `UNION ALL`.
        operator: &'static str,
        /// The first operand.
        left: Box<Query>,
        /// The second operand.
        right: Box<Query>,
    },
    /// `VALUES`.
    Values(Vec<Vec<Expr>>),
}

/// A SELECT without its ORDER BY and LIMIT.
#[derive(Debug, Clone, PartialEq)]
pub struct Select {
    /// `DISTINCT`, `DISTINCT ON (…)`.
    pub distinct: Distinct,
    /// What is selected.
    pub items: Vec<Item>,
    /// `FROM`, with commas between.
    pub from: Vec<From>,
    /// `WHERE`.
    pub filter: Option<Expr>,
    /// `GROUP BY`.
    pub group: Group,
    /// `HAVING`.
    pub having: Option<Expr>,
}

/// Which rows are one.
#[derive(Debug, Clone, PartialEq)]
pub enum Distinct {
    /// None.
    No,
    /// Those that are equal.
    All,
    /// Those whose first columns (so many) are equal.
    On(usize),
}

/// A selected expression.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    /// The expression.
    pub expr: Expr,
    /// `AS` this; empty if nothing.
    pub alias: String,
}

/// How rows are grouped.
#[derive(Debug, Clone, PartialEq)]
pub enum Group {
    /// There is no GROUP BY.
    None,
    /// By these.
    By(Vec<Expr>),
    /// `ROLLUP`, `CUBE`, or `GROUPING SETS` with each alone and all together.
    Sets(&'static str, Vec<Expr>),
}

/// An item of FROM.
#[derive(Debug, Clone, PartialEq)]
pub enum From {
    /// A table, a view, or a query of WITH.
    Table {
        /// Its name.
        name: String,
        /// Its alias.
        alias: String,
    },
    /// A subquery.
    Derived {
        /// Whether it is LATERAL.
        lateral: bool,
        /// The query.
        query: Box<Query>,
        /// Its alias.
        alias: String,
    },
    /// `(VALUES …)` or a function's rows: text with parts, and the alias with the columns' names.
    Rows(Expr, String),
    /// A join.
    Join {
        /// `LEFT JOIN`.
        kind: &'static str,
        /// The left side.
        left: Box<From>,
        /// The right side.
        right: Box<From>,
        /// What joins the rows.
        on: On,
    },
}

/// What joins rows.
#[derive(Debug, Clone, PartialEq)]
pub enum On {
    /// Nothing is written: CROSS and NATURAL joins.
    Nothing,
    /// `ON`.
    Condition(Expr),
    /// `USING`.
    Using(String),
}

/// An item of ORDER BY.
#[derive(Debug, Clone, PartialEq)]
pub struct Order {
    /// By what.
    pub by: By,
    /// ` DESC NULLS LAST` and the like.
    pub direction: &'static str,
}

/// What rows are ordered by.
#[derive(Debug, Clone, PartialEq)]
pub enum By {
    /// The column of this number, from 1.
    Ordinal(usize),
    /// An expression.
    Expr(Expr),
    /// An expression that no two rows have in common.
    Unique(Expr),
}

/// How many rows.
#[derive(Debug, Clone, PartialEq)]
pub struct Limit {
    /// At most so many.
    pub count: Option<Part>,
    /// Without the first so many.
    pub offset: Option<Part>,
    /// Whether `FETCH FIRST … ROWS WITH TIES` is written.
    pub ties: bool,
}

impl Expr {
    /// From text with `{}` for each part.
    pub fn of(ty: Type, text: &str, parts: Vec<Part>) -> Expr {
        let mut pieces = text.split("{}");
        let mut all = vec![Part::Text(pieces.next().unwrap_or_default().to_owned())];
        let mut parts = parts.into_iter();
        for piece in pieces {
            all.extend(parts.next());
            all.push(Part::Text(piece.to_owned()));
        }
        assert!(parts.next().is_none(), "more parts than places: {text}");
        all.retain(|part| *part != Part::Text(String::new()));
        Expr { ty, parts: all }
    }

    /// Just this text.
    pub fn text(ty: Type, text: impl Into<String>) -> Expr {
        Expr {
            ty,
            parts: vec![Part::Text(text.into())],
        }
    }

    /// Its text, if nothing is in it that could be replaced.
    pub fn as_text(&self) -> Option<&str> {
        match &self.parts[..] {
            [Part::Text(text)] => Some(text),
            _ => None,
        }
    }
}

impl std::convert::From<Expr> for Part {
    fn from(expr: Expr) -> Part {
        Part::Expr(expr)
    }
}

impl std::convert::From<Query> for Part {
    fn from(query: Query) -> Part {
        Part::Query(Box::new(query))
    }
}

impl Query {
    /// One without WITH, ORDER BY and LIMIT.
    pub fn of(body: Body) -> Query {
        Query {
            with: Vec::new(),
            recursive: false,
            body,
            order: Vec::new(),
            limit: None,
        }
    }

    /// The number of columns.
    pub fn width(&self) -> usize {
        match &self.body {
            Body::Select(select) => select.items.len(),
            Body::Set { left, .. } => left.width(),
            Body::Values(rows) => rows.first().map_or(0, Vec::len),
        }
    }

    /// Whether the order leaves nothing open, but for rows that look the same. PostgreSQL 15 takes a column that equals a
    /// constant for ordered, even where a grouping set leaves it out.
    pub fn is_ordered(&self) -> bool {
        let sets = |select: &Select| matches!(select.group, Group::Sets(..));
        if matches!(&self.body, Body::Select(select) if sets(select)) {
            return false;
        }
        let by = |column| {
            self.order
                .iter()
                .any(|order| order.by == By::Ordinal(column))
        };
        (1..=self.width()).all(by)
            || self
                .order
                .iter()
                .any(|order| matches!(order.by, By::Unique(_)))
    }
}
