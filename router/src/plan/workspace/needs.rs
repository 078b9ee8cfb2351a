//! What a statement needs of the relations it reads: which columns, and what else it may rely on.
//!
//! Column names are taken from anywhere in the text: more columns than needed may be fetched, never fewer. Where a column
//! can be used without its name (`*`, `TABLE`, a whole row, NATURAL), every column is needed.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "only the nodes that use columns without their names, or compare them, matter"
)]

use std::borrow::Cow;
use std::collections::HashSet;
use std::ops::ControlFlow;

use sqlparser::ast::{
    BinaryOperator, Expr, FunctionArg, FunctionArgExpr, FunctionArguments, GroupByExpr, Query,
    Select, SelectItem, SetExpr, Statement, TableFactor, TableWithJoins, Visit, Visitor,
};

use super::{Settled, Text};
use crate::plan::analyse::names;
use crate::plan::given::Given;
use crate::relations::Relation;
use crate::sql::{self, Token, TokenKind};

/// Names in a text.
type Named<N> = HashSet<N, foldhash::fast::RandomState>;

/// What a statement uses.
#[derive(Debug)]
pub(super) struct Uses<'a> {
    /// Every name in it; `None` if columns may be used without their names.
    named: Option<Named<Cow<'a, str>>>,
    /// The names by which rows are grouped: other columns of a group may go with a primary key among them. `None` if it may be any.
    grouped: Option<HashSet<String>>,
    /// Columns that subqueries compare with others.
    compared: HashSet<String>,
    /// Names of relations that are read without what inherits from them.
    only: HashSet<String>,
}

/// Columns that every table has and that mean something on its own server only, and types of names that are looked up there.
const SERVER_BOUND: &[&str] = &[
    "ctid", "xmin", "xmax", "cmin", "cmax", "tableoid", "regclass",
];

impl<'a> Uses<'a> {
    /// Of a statement that has been understood, as far as it is these tokens; `Err` names something whose meaning would be
    /// lost in a workspace.
    pub(super) fn of(nodes: &Nodes, sql: &'a [u8], tokens: &[Token]) -> Result<Self, String> {
        let mut uses = Uses::of_tokens(sql, tokens)?;
        if nodes.renames || nodes.names_row {
            uses.named = None;
        }
        uses.compared.clone_from(&nodes.compared);
        if uses.named.is_some() && uses.grouped.is_none() {
            uses.grouped = nodes.groups();
        }
        Ok(uses)
    }

    /// Of a statement of which only the words are known.
    pub(super) fn of_tokens(sql: &'a [u8], tokens: &[Token]) -> Result<Self, String> {
        let mut named = Some(Named::with_capacity_and_hasher(
            tokens.len(),
            foldhash::fast::RandomState::default(),
        ));
        let mut groups = false;
        let mut only = Vec::new();
        for (at, token) in tokens.iter().enumerate() {
            let before = |back: usize| at.checked_sub(back).and_then(|at| tokens.get(at));
            let every = ["natural", "table"]
                .iter()
                .any(|word| token.is_word(sql, word));
            if every || is_wildcard(sql, tokens, at) {
                named = None;
            }
            groups |= token.is_word(sql, "group");
            if token.is_word(sql, "only")
                && !before(1)
                    .is_some_and(|token| token.is_word(sql, "row") || token.is_word(sql, "rows"))
            {
                only.push(after_only(tokens, at));
            }
            match token.kind {
                TokenKind::Word | TokenKind::QuotedIdent => {
                    let name = sql::name(token, sql).unwrap_or_default();
                    if SERVER_BOUND.contains(&&*name) {
                        return Err(format!(
                            "\"{name}\" means something on its own server only."
                        ));
                    }
                    if let Some(named) = &mut named {
                        named.insert(name);
                    }
                }
                TokenKind::UnicodeIdent => named = None,
                _ => {}
            }
        }
        Ok(Uses {
            named,
            grouped: (!groups).then(HashSet::new),
            compared: HashSet::new(),
            only: only_names(sql, tokens, &only)?,
        })
    }

    /// Everything, of these relations without what inherits from them.
    pub(super) fn whole(only: HashSet<String>) -> Self {
        Uses {
            named: None,
            grouped: None,
            compared: HashSet::new(),
            only,
        }
    }

    /// The names of relations that are read without what inherits from them.
    pub(super) fn only(&self) -> &HashSet<String> {
        &self.only
    }

    /// Whether columns may be used without their names.
    pub(super) fn any_column(&self) -> bool {
        self.named.is_none()
    }

    /// Whether a column of this name may be used.
    pub(super) fn may_use(&self, column: &str) -> bool {
        let named = self.named.as_ref();
        named.is_none_or(|named| named.contains(column))
    }

    /// The columns to fetch.
    pub(super) fn columns(&self, relation: &Relation) -> Vec<String> {
        let needed = |name: &&String| self.may_use(name);
        let all = relation.columns.iter().map(|column| &column.name);
        let columns: Vec<String> = all.clone().filter(needed).cloned().collect();
        match columns.is_empty() {
            // Rows are counted, if nothing else.
            true => all.take(1).cloned().collect(),
            false => columns,
        }
    }

    /// The primary key, if the statement may rely on it.
    pub(super) fn primary_key(&self, relation: &Relation) -> Vec<String> {
        let key = &relation.primary_key;
        let grouped = |name: &String| {
            let grouped = self.grouped.as_ref();
            self.may_use(name) && grouped.is_none_or(|grouped| grouped.contains(name))
        };
        let mut columns = relation.columns.iter().map(|column| &column.name);
        let others = columns.any(|name| self.may_use(name) && !key.contains(name));
        match others && key.iter().all(grouped) {
            true => key.clone(),
            false => Vec::new(),
        }
    }

    /// The columns that subqueries look for rows by. One that only the shards look at is not among them.
    pub(super) fn lookups(&self, relation: &Relation) -> Vec<String> {
        let fetched = self.columns(relation).into_iter();
        fetched
            .filter(|name| self.compared.contains(name))
            .collect()
    }
}

/// Which columns are wanted of rows that are given.
#[derive(Debug)]
pub(in crate::plan) struct Wanted<'a> {
    /// What the statement uses outside the conditions that all fetched rows satisfy.
    uses: &'a Uses<'a>,
    /// What each of those uses.
    conditions: Vec<Uses<'a>>,
}

impl<'a> Wanted<'a> {
    /// Of rows that are given to this text.
    pub(super) fn of(
        uses: &'a Uses<'a>,
        settled: &[Settled],
        text: &'a Text<'_>,
    ) -> Result<Self, String> {
        let tokens = settled
            .iter()
            .map(|settled| text.tokens_of(&settled.condition));
        let conditions = tokens.map(|tokens| Uses::of_tokens(text.sql(), tokens));
        Ok(Self {
            uses,
            conditions: conditions.collect::<Result<_, _>>()?,
        })
    }

    /// The columns that are wanted without any of those conditions, if they can be given.
    pub(in crate::plan) fn least(&self, relation: &Relation) -> Option<Given> {
        Given::of(relation, &self.uses.columns(relation))
    }

    /// Those that are wanted where some of the conditions stay in the text, by their numbers; `least` are those without.
    pub(in crate::plan) fn with(
        &self,
        stay: &[usize],
        least: &Given,
        relation: &Relation,
    ) -> Option<Given> {
        let stay = stay
            .iter()
            .filter_map(|number| self.conditions.get(*number));
        let by_these = |name: &str| stay.clone().any(|uses| uses.may_use(name));
        let mut all = relation.columns.iter().map(|column| &column.name);
        let is_more = |name: &String| by_these(name) && least.position(name).is_none();
        if !all.clone().any(is_more) {
            return Some(least.clone());
        }
        let wanted = |name: &&String| by_these(name) || self.uses.may_use(name);
        let names: Vec<String> = all.by_ref().filter(wanted).cloned().collect();
        Given::of(relation, &names)
    }
}

/// Where the name is that ONLY stands before.
fn after_only(tokens: &[Token], at: usize) -> usize {
    let is = |at: usize, byte: u8| {
        tokens
            .get(at)
            .is_some_and(|token| token.kind == TokenKind::Punct(byte))
    };
    let first = at + 1 + usize::from(is(at + 1, b'('));
    match is(first + 1, b'.') {
        true => first + 2,
        false => first,
    }
}

/// The names at these places; `Err` if one of them also stands elsewhere, where it may be read with what inherits from it.
fn only_names(sql: &[u8], tokens: &[Token], places: &[usize]) -> Result<HashSet<String>, String> {
    let mut names = HashSet::new();
    for place in places {
        let name = tokens.get(*place).and_then(|token| sql::name(token, sql));
        names.extend(name.map(Cow::into_owned));
    }
    let elsewhere = |(at, token): (usize, &Token)| {
        let qualifies = tokens.get(at + 1).map(|next| next.kind) == Some(TokenKind::Punct(b'.'));
        let name = sql::name(token, sql).filter(|_| !qualifies && !places.contains(&at));
        name.is_some_and(|name| names.contains(&*name))
    };
    match !names.is_empty() && tokens.iter().enumerate().any(elsewhere) {
        true => {
            Err("It reads a table both with and without what inherits from it (ONLY).".to_owned())
        }
        false => Ok(names),
    }
}

/// Whether the `*` at this place stands for columns; one in EXISTS (SELECT * …) stands for nothing.
fn is_wildcard(sql: &[u8], tokens: &[Token], at: usize) -> bool {
    let text = |at: Option<usize>| {
        at.and_then(|at| tokens.get(at))
            .map(|token| token.text(sql))
    };
    let word = |at: Option<usize>, words: &[&str]| {
        let token = at.and_then(|at| tokens.get(at));
        token.is_some_and(|token| words.iter().any(|word| token.is_word(sql, word)))
    };
    let back = |steps: usize| at.checked_sub(steps);
    if text(Some(at)) != Some(b"*") {
        return false;
    }
    if text(back(1)) == Some(b".") {
        return true;
    }
    let (before, after) = (text(back(1)), text(Some(at + 1)));
    if before == Some(b"(") && after == Some(b")") {
        return false;
    }
    let exists =
        word(back(1), &["select"]) && text(back(2)) == Some(b"(") && word(back(3), &["exists"]);
    let ends = matches!(after, None | Some(b"," | b")" | b";"))
        || word(
            Some(at + 1),
            &[
                "from",
                "union",
                "intersect",
                "except",
                "where",
                "group",
                "having",
                "window",
                "order",
                "limit",
                "offset",
                "fetch",
                "for",
                "into",
            ],
        );
    ends && !exists
}

/// What the tree shows and the words do not.
#[derive(Default)]
pub(super) struct Nodes {
    /// Names and aliases of tables, for each query around the node: by one alone a row of it can be meant there.
    items: Vec<Named<String>>,
    /// One of them stands alone as an expression.
    names_row: bool,
    /// A table's columns get other names.
    renames: bool,
    /// A function is given `table.*`.
    row_arguments: bool,
    /// Subqueries in expressions around the node.
    depth: u32,
    compared: HashSet<String>,
    /// Names in GROUP BY.
    grouped: HashSet<String>,
    /// GROUP BY may mean columns that it does not name.
    groups_otherwise: bool,
    /// Names that are given to columns of results.
    aliases: HashSet<String>,
}

/// Names of columns in an expression.
#[derive(Default)]
struct Columns(HashSet<String>);

impl Visitor for Columns {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        match expr {
            Expr::Identifier(_) | Expr::CompoundIdentifier(_) => {
                self.0.extend(column(expr).map(Cow::into_owned));
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

impl Nodes {
    /// Of a statement.
    pub(super) fn of(statement: &Statement) -> Self {
        let mut nodes = Nodes::default();
        let _: ControlFlow<()> = statement.visit(&mut nodes);
        nodes
    }

    /// Whether a row of a table is used as one value: its type is another one in a workspace.
    pub(super) fn gives_rows(&self) -> bool {
        self.names_row || self.row_arguments
    }

    /// The names by which rows are grouped, if they are all there is.
    fn groups(&self) -> Option<HashSet<String>> {
        let by_alias = self.grouped.iter().any(|name| self.aliases.contains(name));
        (!self.groups_otherwise && !by_alias).then(|| self.grouped.clone())
    }
}

/// The names and aliases of tables in the FROM of a query.
fn items_of(body: &SetExpr, names: &mut Named<String>) {
    match body {
        SetExpr::Select(select) => {
            for table in &select.from {
                items_in(table, names);
            }
        }
        SetExpr::SetOperation { left, right, .. } => {
            items_of(left, names);
            items_of(right, names);
        }
        // In parentheses: ORDER BY behind them may mean what is inside.
        SetExpr::Query(query) => items_of(&query.body, names),
        _ => {}
    }
}

fn items_in(table: &TableWithJoins, names: &mut Named<String>) {
    let joined = table.joins.iter().map(|join| &join.relation);
    for factor in [&table.relation].into_iter().chain(joined) {
        let alias = match factor {
            TableFactor::Table {
                name,
                alias,
                args: None,
                ..
            } => {
                let name = names::relation_name(name);
                names.extend(name.map(|(_, name)| name.into_owned()));
                alias
            }
            TableFactor::NestedJoin {
                table_with_joins,
                alias,
            } => {
                items_in(table_with_joins, names);
                alias
            }
            // What a function returns has the type it says.
            _ => continue,
        };
        let alias = alias.iter().map(|alias| names::name(&alias.name));
        names.extend(alias.flatten().map(Cow::into_owned));
    }
}

impl Visitor for Nodes {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        let mut names = Named::default();
        items_of(&query.body, &mut names);
        self.items.push(names);
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
        self.items.pop();
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<()> {
        for item in &select.projection {
            if let SelectItem::ExprWithAlias { alias, .. } = item {
                self.aliases.extend(names::name(alias).map(Cow::into_owned));
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_group_by(&mut self, group_by: &GroupByExpr) -> ControlFlow<()> {
        let GroupByExpr::Expressions(exprs, _) = group_by else {
            self.groups_otherwise = true;
            return ControlFlow::Continue(());
        };
        for expr in exprs {
            // A number is that of a column of the result.
            self.groups_otherwise |= matches!(expr, Expr::Value(_));
            let mut columns = Columns::default();
            let _: ControlFlow<()> = expr.visit(&mut columns);
            self.grouped.extend(columns.0);
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
        if let TableFactor::NestedJoin {
            alias: Some(alias), ..
        } = factor
        {
            self.groups_otherwise |= !alias.columns.is_empty();
        }
        if let TableFactor::Table {
            alias: Some(alias),
            args: None,
            ..
        } = factor
        {
            self.renames |= !alias.columns.is_empty();
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        match expr {
            Expr::Identifier(ident) => {
                let name = names::name(ident);
                let is_item = |name: &str| self.items.iter().any(|items| items.contains(name));
                self.names_row |= name.is_ok_and(|name| is_item(&name));
            }
            Expr::Function(function) => {
                if let FunctionArguments::List(list) = &function.args {
                    let row = |argument: &FunctionArg| {
                        let FunctionArg::Unnamed(value) = argument else {
                            return false;
                        };
                        matches!(value, FunctionArgExpr::QualifiedWildcard(_))
                    };
                    self.row_arguments |= list.args.iter().any(row);
                }
            }
            Expr::Subquery(_) | Expr::Exists { .. } | Expr::InSubquery { .. } => self.depth += 1,
            Expr::BinaryOp {
                left,
                op: BinaryOperator::Eq,
                right,
            } if self.depth > 0 => {
                if let (Some(left), Some(right)) = (column(left), column(right)) {
                    self.compared.extend([left, right].map(Cow::into_owned));
                }
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        if let Expr::Subquery(_) | Expr::Exists { .. } | Expr::InSubquery { .. } = expr {
            self.depth -= 1;
        }
        ControlFlow::Continue(())
    }
}

/// The name of the column, if that is all the expression is.
fn column(expr: &Expr) -> Option<Cow<'_, str>> {
    match expr {
        Expr::Identifier(ident) => names::name(ident).ok(),
        Expr::CompoundIdentifier(parts) => names::name(parts.last()?).ok(),
        Expr::Nested(inner) => column(inner),
        _ => None,
    }
}
