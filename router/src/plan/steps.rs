//! A statement over what a common table expression returns that writes rows of several shards: first it writes, then the rest runs with the
//! rows it has returned: a query, or a write of other rows.
//!
//! Purpose: [`Steps`] says what is written where, and how the rows are given to the rest. Invariant: the rest reads nothing that the write could
//! have changed, for it would see that, and on one server it does not. Collaborators: [`Write`] is the write; `session::write::steps` runs both.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "few plans and expressions are of interest"
)]

use std::ops::Range;

use postgres_protocol::escape::escape_identifier;
use sqlparser::ast::{Cte, Expr, Query, SelectItem, SetExpr, Statement, Value};
use switchyard_schema::{ShardIndex, TableName};

use super::analyse::{Analysis, names};
use super::apart::{Understood, several};
use super::given::{Given, GivenColumn};
use super::moment::Moments;
use super::parse;
use super::route::{KeyRoute, Target};
use super::workspace::{Fetch, Home};
use super::{Access, FromQuery, Operator, Plan, Planner, Write};
use crate::relations::{Relation, SqlType};
use crate::sql::{self, Scan, Token, TokenKind};

/// A common table expression that writes, and the rest of its statement.
#[derive(Debug, Clone)]
pub struct Steps {
    /// What is written, and what it calls the present in all of the statement.
    pub write: Write,
    /// The write is a statement of its own, planned and run as such: the shards cannot do their shares of it as it is.
    pub apart: bool,
    /// What it returns, by the name that it has in the rest.
    pub given: Given,
    /// What is done with that.
    pub rest: Rest,
    /// The rest returns rows.
    pub returns: bool,
}

/// What is done with the rows that the write returns.
#[derive(Debug, Clone)]
pub enum Rest {
    /// A query, on any shard.
    Query,
    /// A write of rows that the first shard has.
    OnFirst,
    /// An INSERT of rows that belong to several shards.
    Insert(Box<FromQuery>),
}

impl Rest {
    /// How a text is planned over the rows; `None` if it could see what has been written, or needs other rows.
    fn of(plan: Plan, writes: bool) -> Option<Self> {
        if !plan.settings.is_empty() || plan.unknown.is_some() {
            return None;
        }
        let several = plan.several.map(|several| several.operator.clone());
        match (plan.operator, several) {
            (Operator::PassThrough(Target::AnyShard), _) if !writes => {
                (plan.access <= Access::PrimaryRead).then_some(Self::Query)
            }
            (Operator::PassThrough(Target::Shard(ShardIndex::FIRST)), None) if writes => {
                Some(Self::OnFirst)
            }
            (Operator::InsertQuery(from), _)
            | (Operator::PassThrough(_), Some(Operator::InsertQuery(from)))
                if from.first.is_none() && from.workspace.fetches.iter().all(is_everywhere) =>
            {
                Some(Self::Insert(from))
            }
            _ => None,
        }
    }
}

/// Where the common table expression is in a text.
struct Place {
    /// Its definition, from its name on.
    all: Range<usize>,
    /// What is in its parentheses.
    body: Range<usize>,
}

impl Steps {
    /// The write in its place, all else blank.
    pub(crate) fn first(&self, sql: &[u8]) -> Option<Vec<u8>> {
        let place = place(sql, &self.given.relation.name)?;
        Some(only(sql, &place.body))
    }

    /// The rest, to which the rows are given as parameters from this number on.
    pub(crate) fn second(&self, sql: &[u8], first: usize) -> Option<Vec<u8>> {
        let definition = self.given.cte(first);
        match self.rest {
            Rest::Query | Rest::OnFirst => self.with(sql, &definition),
            Rest::Insert(_) => self.within(sql, &definition),
        }
    }

    /// A definition of no rows, for the rest to be planned with.
    fn nothing(&self) -> String {
        let columns = self.given.columns.iter();
        let names: Vec<String> = columns
            .clone()
            .map(|column| escape_identifier(&column.name))
            .collect();
        let values = columns.map(|column| format!("NULL::{}", column.sql_type.name));
        let values: Vec<String> = values.collect();
        let name = escape_identifier(&self.given.relation.name);
        let (names, values) = (names.join(", "), values.join(", "));
        format!("{name} ({names}) AS (SELECT {values})")
    }

    /// The text of an INSERT with another definition, which its query has.
    fn within(&self, sql: &[u8], definition: &str) -> Option<Vec<u8>> {
        let place = place(sql, &self.given.relation.name)?;
        let tokens = parse::tokens(sql, 0..u32::try_from(sql.len()).ok()?).ok()?;
        let (before, rest): (Vec<&Token>, Vec<&Token>) = tokens
            .iter()
            .filter(|token| !place.all.contains(&(token.start as usize)))
            .partition(|token| (token.start as usize) < place.all.start);
        let [with] = before[..] else {
            return None;
        };
        if !with.is_word(sql, "with") || !rest.first()?.is_word(sql, "insert") {
            return None;
        }
        let mut depth = 0_usize;
        let query = rest.into_iter().find(|token| {
            depth += usize::from(token.kind == TokenKind::Punct(b'('));
            depth = depth.saturating_sub(usize::from(token.kind == TokenKind::Punct(b')')));
            depth == 0 && token.is_word(sql, "select")
        })?;
        let query = query.start as usize;
        let mut text = sql.get(place.all.end..query)?.to_vec();
        text.extend_from_slice(format!("WITH {definition} ").as_bytes());
        text.extend_from_slice(sql.get(query..)?);
        Some(text)
    }

    /// The text with another definition.
    fn with(&self, sql: &[u8], definition: &str) -> Option<Vec<u8>> {
        let place = place(sql, &self.given.relation.name)?;
        let mut text = sql.get(..place.all.start)?.to_vec();
        text.extend_from_slice(definition.as_bytes());
        text.extend_from_slice(sql.get(place.all.end..)?);
        Some(text)
    }
}

/// A part of a text in its place.
fn only(sql: &[u8], part: &Range<usize>) -> Vec<u8> {
    let bytes = sql.iter().enumerate();
    let kept = bytes.map(|(at, byte)| if part.contains(&at) { *byte } else { b' ' });
    kept.collect()
}

/// Where the common table expression of this name is defined at the beginning of a statement.
fn place(sql: &[u8], name: &str) -> Option<Place> {
    let tokens = parse::tokens(sql, 0..u32::try_from(sql.len()).ok()?).ok()?;
    let is = |at: usize, byte| {
        tokens.get(at).map(|token: &Token| token.kind) == Some(TokenKind::Punct(byte))
    };
    let word = |at: usize, word| {
        tokens
            .get(at)
            .is_some_and(|token: &Token| token.is_word(sql, word))
    };
    let mut depth = 0_usize;
    for at in 1..tokens.len() {
        if is(at, b'(') {
            depth += 1;
        } else if is(at, b')') {
            depth = depth.checked_sub(1)?;
        }
        let begins = word(at - 1, "with") || word(at - 1, "recursive") || is(at - 1, b',');
        let named = tokens.get(at).and_then(|token| sql::name(token, sql));
        if depth > 0 || !begins || named.as_deref() != Some(name) {
            continue;
        }
        let mut next = at + 1;
        if is(next, b'(') {
            next += tokens
                .get(next..)?
                .iter()
                .position(|token| token.kind == TokenKind::Punct(b')'))?
                + 1;
        }
        if !word(next, "as") {
            continue;
        }
        next += 1 + usize::from(word(next + 1, "not"));
        next += usize::from(word(next, "materialized"));
        if !is(next, b'(') {
            return None;
        }
        let mut depth = 0_usize;
        let end = (next..tokens.len()).find(|at| {
            depth += usize::from(is(*at, b'('));
            depth -= usize::from(is(*at, b')'));
            depth == 0
        })?;
        let (open, close) = (tokens.get(next)?, tokens.get(end)?);
        return Some(Place {
            all: tokens.get(at)?.start as usize..close.end as usize,
            body: open.end as usize..close.start as usize,
        });
    }
    None
}

impl Planner<'_> {
    /// Plans a query over what a write returns, where shards cannot do their shares of both.
    pub(super) fn in_steps(&self, plan: &mut Plan, understood: Understood<'_>) {
        let is_left = match &plan.operator {
            Operator::Refuse(_) => true,
            Operator::PassThrough(Target::Keys(KeyRoute {
                several: Some(_), ..
            })) => plan.several.is_none(),
            _ => false,
        };
        if !is_left {
            return;
        }
        let Some((steps, guards)) = self.steps(understood) else {
            return;
        };
        plan.guards.extend(guards);
        let operator = Operator::Steps(Box::new(steps));
        match plan.operator {
            Operator::PassThrough(_) => plan.several = several(plan, operator),
            _ => plan.operator = operator,
        }
    }

    fn steps(&self, (analysis, statement, tokens): Understood<'_>) -> Option<(Steps, Vec<u32>)> {
        let Statement::Query(query) = statement else {
            return None;
        };
        let (cte, returned) = writing(query)?;
        let (writes, returns) = main(query)?;
        if analysis.written.len() != 1 + usize::from(writes) || analysis.returned.is_empty() {
            return None;
        }
        let name = names::name(&cte.alias.name).ok()?;
        let target = analysis.changed.as_ref()?;
        let relation = self.context.relations.get(&target.schema, &target.name)?;
        let given = Given {
            relation: TableName::new("", &*name),
            columns: columns(relation, returned, cte)?.into(),
        };
        let moments = self.moments_of_both(analysis, tokens)?;
        let mut steps = Steps {
            apart: false,
            write: Write {
                target: Target::AllShards,
                moments: Moments::default(),
                copies: false,
                given: Vec::new(),
                ahead: Vec::new(),
                remembers: false,
            },
            given,
            rest: Rest::Query,
            returns,
        };
        let body = steps.first(self.sql)?;
        if names_another(&body, query, cte) {
            return None;
        }
        let first = self.apart_from(&body, self.scan)?;
        match shared(&first) {
            Some(write) => steps.write = write,
            None if is_apart(&first) && relation.sharding().is_some() => steps.apart = true,
            None => return None,
        }
        // What others do to rows of other tables may be what the rest writes. New rows change none.
        if writes && !relation.cascades.is_empty() && !only_inserts(cte) {
            return None;
        }
        steps.rest = self.rest(&steps, writes)?;
        steps.write.moments = moments;
        let mut guards = first.guards;
        guards.retain(|guard| (*guard as usize) < self.scan.literals.len());
        Some((steps, guards))
    }

    /// What the statement calls the present. Defaults that do are those of either step.
    fn moments_of_both(&self, analysis: &Analysis, tokens: &[Token]) -> Option<Moments> {
        if !analysis.moments {
            return Some(Moments::default());
        }
        let found = || {
            let seen = !Moments::are_disguised(self.sql, tokens);
            seen.then(|| Moments::find(self.sql, tokens))
        };
        self.moments(tokens, &analysis.defaults).or_else(found)
    }

    /// What is done with the rows: it has no key that decides where it runs.
    fn rest(&self, steps: &Steps, writes: bool) -> Option<Rest> {
        let nothing = steps.nothing();
        let texts = [
            steps.with(self.sql, &nothing),
            steps.within(self.sql, &nothing),
        ];
        let mut texts = texts.into_iter().flatten();
        texts.find_map(|text| {
            let mut scan = Scan::new();
            scan.scan(&text).ok()?;
            Rest::of(self.apart_from(&text, &scan)?, writes)
        })
    }

    /// The plan of a text of its own.
    pub(super) fn apart_from(&self, text: &[u8], scan: &Scan) -> Option<Plan> {
        let tokens = parse::tokens(text, 0..u32::try_from(text.len()).ok()?).ok()?;
        let planner = Planner {
            sql: text,
            tokens: &tokens,
            scan,
            ..*self
        };
        Some(planner.inner(&tokens))
    }
}

/// Whether every shard has all rows of a relation, which what is written is not.
fn is_everywhere(fetch: &Fetch) -> bool {
    fetch.home == Some(Home::Everywhere)
}

/// A write of which each shard does its share.
fn shared(plan: &Plan) -> Option<Write> {
    let write = match (&plan.operator, &plan.several) {
        (Operator::Write(write), _) => write,
        (Operator::PassThrough(_), Some(several)) => match &several.operator {
            Operator::Write(write) => write,
            _ => return None,
        },
        _ => return None,
    };
    (write.is_plain() && !write.copies).then(|| Write::clone(write))
}

/// Whether a write can be run as a statement of its own.
fn is_apart(plan: &Plan) -> bool {
    let runs = matches!(
        plan.operator,
        Operator::PassThrough(_)
            | Operator::Insert(_)
            | Operator::InsertQuery(_)
            | Operator::Write(_)
            | Operator::Move(_)
    );
    runs && plan.settings.is_empty() && plan.unknown.is_none() && plan.temporary.is_none()
}

/// Whether it stores new rows, and changes none that are there.
fn only_inserts(cte: &Cte) -> bool {
    match &*cte.query.body {
        SetExpr::Insert(Statement::Insert(insert)) => insert.on.is_none(),
        _ => false,
    }
}

/// Whether the rest of a query writes, and whether it returns rows.
fn main(query: &Query) -> Option<(bool, bool)> {
    match &*query.body {
        SetExpr::Select(_) | SetExpr::SetOperation { .. } | SetExpr::Query(_) => {
            Some((false, true))
        }
        SetExpr::Insert(Statement::Insert(insert)) => Some((true, insert.returning.is_some())),
        _ => None,
    }
}

/// The common table expression that writes, and what it returns.
fn writing(query: &Query) -> Option<(&Cte, &[SelectItem])> {
    let ctes = query.with.as_ref()?.cte_tables.iter();
    let mut writing = ctes.filter_map(|cte| {
        let returning = match &*cte.query.body {
            SetExpr::Insert(Statement::Insert(insert)) => &insert.returning,
            SetExpr::Update(Statement::Update(update)) => &update.returning,
            SetExpr::Delete(Statement::Delete(delete)) => &delete.returning,
            _ => return None,
        };
        Some((cte, returning.as_deref()?))
    });
    writing.next()
}

/// Whether the body of a common table expression may mention another one of the query, which is not there where it runs by itself:
/// a table of that name would take its place.
fn names_another(body: &[u8], query: &Query, cte: &Cte) -> bool {
    let others = query.with.iter().flat_map(|with| &with.cte_tables);
    let others = others.filter(|other| other.alias.name != cte.alias.name);
    let others: Vec<_> = others
        .map(|other| names::name(&other.alias.name).ok())
        .collect();
    if others.is_empty() {
        return false;
    }
    let end = u32::try_from(body.len()).unwrap_or(u32::MAX);
    let Ok(tokens) = parse::tokens(body, 0..end) else {
        return true;
    };
    tokens.iter().any(|token| {
        let name = sql::name(token, body);
        token.kind == TokenKind::UnicodeIdent
            || others.iter().any(|other| other.is_none() || *other == name)
    })
}

/// Whether a write reads another table besides, whose columns it may return, too.
fn is_joined(cte: &Cte) -> bool {
    match &*cte.query.body {
        SetExpr::Update(Statement::Update(update)) => update.from.is_some(),
        SetExpr::Delete(Statement::Delete(delete)) => delete.using.is_some(),
        _ => false,
    }
}

/// The columns that are returned, if they are the table's own, or integers.
fn columns(relation: &Relation, returned: &[SelectItem], cte: &Cte) -> Option<Vec<GivenColumn>> {
    let own = |name: &str| {
        let column = relation.columns.iter().find(|column| column.name == name)?;
        GivenColumn::of(column)
    };
    let expression = |expr: &Expr| match expr {
        Expr::Identifier(column) => own(&names::name(column).ok()?),
        Expr::CompoundIdentifier(parts) if !is_joined(cte) => {
            own(&names::name(parts.last()?).ok()?)
        }
        Expr::Value(value) if matches!(&value.value, Value::Number(digits, _) if digits.parse::<i32>().is_ok()) => {
            Some(GivenColumn {
                name: "?column?".to_owned(),
                type_oid: 23,
                modifier: -1,
                sql_type: SqlType {
                    name: "pg_catalog.int4".into(),
                    suffix: "".into(),
                },
                as_text: false,
            })
        }
        _ => None,
    };
    let mut columns = Vec::new();
    for item in returned {
        match item {
            SelectItem::Wildcard(_) if !is_joined(cte) => {
                let all = relation.columns.iter().map(|column| own(&column.name));
                columns.extend(all.collect::<Option<Vec<_>>>()?);
            }
            SelectItem::UnnamedExpr(expr) => columns.push(expression(expr)?),
            SelectItem::ExprWithAlias { expr, alias } => columns.push(GivenColumn {
                name: names::name(alias).ok()?.into_owned(),
                ..expression(expr)?
            }),
            _ => return None,
        }
    }
    for (column, named) in columns.iter_mut().zip(&cte.alias.columns) {
        column.name = names::name(&named.name).ok()?.into_owned();
    }
    (!columns.is_empty()).then_some(columns)
}
