//! Row locks on several shards, where no shard can tell by itself which rows are to be locked: there is a limit, or an order or a
//! join that the shards do not have.
//!
//! Purpose: a [`Lock`] finds rows and locks them one after the other, as PostgreSQL's own plan does: the statement without its
//! locks and with a limit of ours finds *candidates*, in their order; then each is locked on its shard by its primary key, and is part
//! of the result if it still is what was found. Invariants: a row is locked only if PostgreSQL would lock it; the text that finds
//! candidates is the client's with columns added, and it is parsed again and compared before it is used. Collaborators: the
//! candidates are found as any statement is; `session::lock` runs the two steps, again if a row has changed between them.

use std::borrow::Cow;
use std::sync::Arc;

use postgres_protocol::escape::{escape_identifier, escape_literal};
use sqlparser::ast::{
    Expr, Query, Select, SelectItem, SetExpr, Statement, TableFactor, TableWithJoins,
};
use switchyard_schema::{Key, KeyMap, ShardIndex, TableName};

use super::analyse::Analysis;
use super::analyse::names::{name, relation_name};
use super::analyse::root::{Count, Limits};
use super::merge::clauses::{Clauses, Run};
use super::merge::count;
use super::refusal::Refusal;
use super::route::{Source, Values};
use super::utility::is_temporary;
use super::words::Words;
use super::workspace::fetch::names;
use super::{Access, Command, Context, Operator, Plan, parse, plan};
use crate::merge::Limit;
use crate::relations::{Placement, Relation, RelationKind, Resolved};
use crate::sql::{Scan, Token};

/// How rows of several shards are found and locked.
#[derive(Debug, Clone)]
pub struct Lock {
    /// The tables whose rows are locked, in the order of FROM.
    pub tables: Vec<Locked>,
    /// The plan that finds candidates.
    pub candidates: Box<Plan>,
    /// Why candidates have to be found first.
    pub reason: String,
    limits: Limits,
    /// The end of the select list.
    list: usize,
    /// The beginning of limits and locks.
    tail: usize,
    locks: Run,
}

/// A table whose rows are locked.
#[derive(Debug, Clone)]
pub struct Locked {
    /// The table.
    pub relation: TableName,
    /// Rows that are locked already are waited for, passed over, or an error.
    pub wait: Wait,
    /// What the statement calls it.
    alias: String,
    columns: Vec<String>,
    key: Vec<String>,
    strength: Strength,
    place: Place,
}

/// Where the rows of a table are.
#[derive(Debug, Clone)]
enum Place {
    First,
    /// By the value of this column.
    Key(String, Arc<KeyMap>),
}

/// How strong a lock is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Strength {
    KeyShare,
    Share,
    NoKeyUpdate,
    Update,
}

/// What is done about a row that somebody else has locked. Of two that are given, the later here counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wait {
    /// It is waited for.
    Block,
    /// It is passed over.
    Skip,
    /// It is an error.
    Fail,
}

impl Lock {
    /// The text that finds the first candidates, so many of them.
    pub fn candidates(&self, sql: &[u8], rows: u64) -> Vec<u8> {
        self.candidates_in(&Cut::new(sql), rows)
    }

    fn candidates_in(&self, cut: &Cut<'_>, rows: u64) -> Vec<u8> {
        let mut text = cut.between(0, self.list).to_vec();
        for (at, column) in self.tables.iter().flat_map(Locked::columns).enumerate() {
            // No name of the client's can mean it.
            text.extend_from_slice(
                format!(", {column} AS \"switchyard lock {}\"", at + 1).as_bytes(),
            );
        }
        text.push(b' ');
        text.extend_from_slice(cut.between(self.list, self.tail));
        text.extend_from_slice(format!(" LIMIT {rows}").as_bytes());
        text
    }

    /// The client's text, to be run for no rows: PostgreSQL says what is wrong with it, or what its columns are.
    pub fn probe(&self, sql: &[u8]) -> Vec<u8> {
        let cut = Cut::new(sql);
        let (tail, locks) = (cut.start(self.tail), cut.start(self.locks.start));
        let mut text = sql.get(..tail).unwrap_or_default().to_vec();
        // Positions of errors are counted in characters.
        let dropped = sql.get(tail..locks).unwrap_or_default();
        let characters = dropped.iter().filter(|byte| (**byte as i8) >= -0x40);
        text.extend(characters.map(|_| b' '));
        text.extend_from_slice(cut.between(self.locks.start, self.locks.end));
        text.extend_from_slice(b" LIMIT 0");
        text
    }

    /// How many columns of a candidate are not the client's.
    pub fn extras(&self) -> usize {
        self.tables.iter().map(Locked::width).sum()
    }

    /// The limits of one execution; `None` if any one shard gives the whole answer: no rows, or PostgreSQL's error.
    pub fn limit(&self, values: &Values<'_>) -> Result<Option<Limit>, Box<Refusal>> {
        let offset = count::rows(self.limits.offset.as_ref(), values)?;
        let limit = count::rows(self.limits.limit.as_ref(), values)?;
        Ok(match (offset, limit) {
            (count::Rows::Refused, _) | (_, count::Rows::Refused | count::Rows::Number(0)) => None,
            (offset, limit) => Some(Limit {
                offset: offset.number().unwrap_or(0),
                rows: limit.number(),
            }),
        })
    }

    /// The parameters that binding looks at.
    pub(super) fn params(&self) -> Vec<u16> {
        let counts = self.limits.limit.iter().chain(&self.limits.offset);
        let number = |count: &Count| match count {
            Count::Of(expr) => match expr.source {
                Source::Param { number, .. } => Some(number),
                Source::Literal { .. } | Source::Bool(_) | Source::Null => None,
            },
            Count::One => None,
        };
        let mut params: Vec<u16> = counts.filter_map(number).collect();
        params.sort_unstable();
        params.dedup();
        params
    }

    /// Bytes on the heap, about.
    pub(super) fn size(&self) -> usize {
        let columns = self.tables.iter().map(|table| table.columns.len());
        512 + 48 * columns.sum::<usize>() + self.candidates.size()
    }
}

impl Locked {
    /// How many columns a candidate has for it.
    pub fn width(&self) -> usize {
        2 + self.key.len()
    }

    /// What a candidate has of it, besides the client's columns: the value that says where the row is, the values of its primary
    /// key, and all of it.
    fn columns(&self) -> impl Iterator<Item = String> {
        let alias = escape_identifier(&self.alias);
        let place = match &self.place {
            Place::First => "NULL::pg_catalog.text".to_owned(),
            Place::Key(column, _) => text_of(&alias, column),
        };
        let key: Vec<String> = self
            .key
            .iter()
            .map(|column| text_of(&alias, column))
            .collect();
        let row = self.row();
        [place].into_iter().chain(key).chain([row])
    }

    /// All of a row as one text.
    fn row(&self) -> String {
        let alias = escape_identifier(&self.alias);
        let columns: Vec<String> = self
            .columns
            .iter()
            .map(|column| format!("{alias}.{}", escape_identifier(column)))
            .collect();
        format!("ROW({})::pg_catalog.text", columns.join(", "))
    }

    /// The shard of a row; `None` if the text does not say.
    pub fn shard(&self, place: Option<&str>) -> Option<ShardIndex> {
        let Place::Key(_, map) = &self.place else {
            return Some(ShardIndex::FIRST);
        };
        match place {
            None => map.shard_of(None).ok(),
            Some(text) => {
                let key = Key::from_text(map.key_type(), text.as_bytes()).ok()?;
                map.shard_of(Some(&key)).ok()
            }
        }
    }

    /// The query that locks the rows with these primary keys, and gives all of each.
    pub fn query(&self, keys: &[&[&str]]) -> String {
        let alias = escape_identifier(&self.alias);
        let columns: Vec<String> = self
            .key
            .iter()
            .map(|column| format!("{alias}.{}", escape_identifier(column)))
            .collect();
        let columns = columns.join(", ");
        let key = |key: &&[&str]| {
            let values: Vec<String> = key.iter().map(|value| escape_literal(value)).collect();
            format!("({})", values.join(", "))
        };
        let keys: Vec<String> = keys.iter().map(key).collect();
        let (schema, table) = (
            escape_identifier(&self.relation.schema),
            escape_identifier(&self.relation.name),
        );
        let strength = match self.strength {
            Strength::KeyShare => "KEY SHARE",
            Strength::Share => "SHARE",
            Strength::NoKeyUpdate => "NO KEY UPDATE",
            Strength::Update => "UPDATE",
        };
        let wait = match self.wait {
            Wait::Block => "",
            Wait::Skip => " SKIP LOCKED",
            Wait::Fail => " NOWAIT",
        };
        let row = self.row();
        let keys = keys.join(", ");
        format!(
            "SELECT {row} FROM {schema}.{table} AS {alias} WHERE ({columns}) IN ({keys}) ORDER BY {columns} FOR {strength}{wait}"
        )
    }
}

impl std::fmt::Display for Locked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let key = names(&self.key);
        write!(f, "{} {:?} by {key}", self.relation, self.strength)?;
        match self.wait {
            Wait::Block => Ok(()),
            Wait::Skip => write!(f, ", skip locked"),
            Wait::Fail => write!(f, ", no wait"),
        }
    }
}

fn text_of(alias: &str, column: &str) -> String {
    format!("{alias}.{}::pg_catalog.text", escape_identifier(column))
}

/// A text and its tokens.
struct Cut<'a> {
    sql: &'a [u8],
    tokens: Vec<Token>,
}

impl<'a> Cut<'a> {
    /// Of a text that has been planned, which can be cut into tokens.
    fn new(sql: &'a [u8]) -> Self {
        let end = u32::try_from(sql.len()).unwrap_or(u32::MAX);
        let tokens = parse::tokens(sql, 0..end).unwrap_or_default();
        Self { sql, tokens }
    }

    /// Where a token begins, or the text ends.
    fn start(&self, token: usize) -> usize {
        let token = self.tokens.get(token);
        token.map_or(self.sql.len(), |token| token.start as usize)
    }

    fn between(&self, from: usize, to: usize) -> &'a [u8] {
        let range = self.start(from)..self.start(to);
        self.sql.get(range).unwrap_or_default()
    }
}

/// One FOR UPDATE, or its like.
struct Clause {
    strength: Strength,
    /// The tables it names; none: all.
    of: Vec<String>,
    wait: Wait,
}

/// The clauses of row locks.
fn clauses(sql: &[u8], tokens: &[Token]) -> Option<Vec<Clause>> {
    let mut words = Words::new(sql, tokens);
    let mut clauses = Vec::new();
    while words.eat("for") {
        let strength = if words.eat("update") {
            Strength::Update
        } else if words.eat_all(&["no", "key", "update"]) {
            Strength::NoKeyUpdate
        } else if words.eat("share") {
            Strength::Share
        } else if words.eat_all(&["key", "share"]) {
            Strength::KeyShare
        } else {
            return None;
        };
        let mut of = Vec::new();
        if words.eat("of") {
            of.push(words.name()?);
            while words.eat_symbol(",") {
                of.push(words.name()?);
            }
        }
        let wait = if words.eat("nowait") {
            Wait::Fail
        } else if words.eat_all(&["skip", "locked"]) {
            Wait::Skip
        } else {
            Wait::Block
        };
        clauses.push(Clause { strength, of, wait });
    }
    words.is_done().then_some(clauses)
}

/// An item of the outermost FROM, with its alias.
struct Item<'a> {
    alias: Option<String>,
    /// The table, if it is one; `Err` is why its rows cannot be locked.
    table: Result<&'a Relation, &'static str>,
}

/// The items of a FROM.
fn items<'a>(query: &Query, select: &Select, context: &Context<'a>) -> Vec<Item<'a>> {
    let mut items = Vec::new();
    for table in &select.from {
        joined(table, query, context, &mut items);
    }
    items
}

fn joined<'a>(
    table: &TableWithJoins,
    query: &Query,
    context: &Context<'a>,
    items: &mut Vec<Item<'a>>,
) {
    let joins = table.joins.iter().map(|join| &join.relation);
    for factor in [&table.relation].into_iter().chain(joins) {
        if let TableFactor::NestedJoin {
            table_with_joins,
            alias: None,
        } = factor
        {
            joined(table_with_joins, query, context, items);
        } else {
            items.push(item(factor, query, context));
        }
    }
}

fn item<'a>(factor: &TableFactor, query: &Query, context: &Context<'a>) -> Item<'a> {
    let TableFactor::Table {
        name: object,
        alias,
        args: None,
        sample: None,
        ..
    } = factor
    else {
        return Item {
            alias: None,
            table: Err("It locks rows of a subquery or a function."),
        };
    };
    let renamed = alias
        .as_ref()
        .is_some_and(|alias| !alias.columns.is_empty());
    let Ok((schema, table)) = relation_name(object) else {
        return Item {
            alias: None,
            table: Err("It locks rows of something with a longer name."),
        };
    };
    let ctes = query.with.iter().flat_map(|with| &with.cte_tables);
    let mut ctes = ctes.filter_map(|cte| name(&cte.alias.name).ok());
    let is_cte = schema.is_none() && ctes.any(|cte| cte == table);
    let found = context
        .relations
        .resolve(context.search_path, schema.as_deref(), &table);
    let relation = match found {
        _ if is_cte => Err("It locks rows of a common table expression."),
        _ if is_temporary(context, &table) => Err("It locks rows of a temporary table."),
        _ if renamed => Err("It gives the columns of the table other names."),
        Resolved::Known(relation) if relation.kind == RelationKind::Table => Ok(relation),
        Resolved::Known(_) => Err("It locks rows of a view."),
        Resolved::Catalog | Resolved::Unknown => Err("It locks rows of a table that is not known."),
    };
    Item {
        alias: match alias {
            Some(alias) => name(&alias.name).ok().map(Cow::into_owned),
            None => Some(table.into_owned()),
        },
        table: relation,
    }
}

/// Whether the rows that a statement locks may be copies that other shards have too.
pub(super) fn locks_copies(
    analysis: &Analysis,
    statement: &Statement,
    sql: &[u8],
    tokens: &[Token],
    context: &Context<'_>,
) -> bool {
    if !analysis.locks || !analysis.reference {
        return false;
    }
    let only_sharded = || {
        let (query, select) = outermost(statement)?;
        let found = Clauses::find(sql, tokens, query, select)?;
        let locks = clauses(sql, tokens.get(found.locks)?)?;
        let items = items(query, select, context);
        let is_sharded = |name: &String| {
            let mut named = items
                .iter()
                .filter(|item| item.alias.as_ref() == Some(name));
            let (first, other) = (named.next()?, named.next());
            let sharded = first.table.is_ok_and(|table| table.sharding().is_some());
            Some(sharded && other.is_none())
        };
        let mut named = locks.iter().flat_map(|clause| &clause.of);
        let all = named.all(|name| is_sharded(name) == Some(true));
        Some(all && locks.iter().all(|clause| !clause.of.is_empty()))
    };
    only_sharded() != Some(true)
}

fn outermost(statement: &Statement) -> Option<(&Query, &Select)> {
    let Statement::Query(query) = statement else {
        return None;
    };
    match &*query.body {
        SetExpr::Select(select) => Some((query, select)),
        SetExpr::Query(_)
        | SetExpr::SetOperation { .. }
        | SetExpr::Values(_)
        | SetExpr::Insert(_)
        | SetExpr::Update(_)
        | SetExpr::Delete(_)
        | SetExpr::Merge(_)
        | SetExpr::Table(_) => None,
    }
}

/// How the rows that a statement locks are found and locked; `Err` is why they cannot be.
pub(super) fn lock(
    analysis: &Analysis,
    statement: &Statement,
    sql: &[u8],
    tokens: &[Token],
    context: &Context<'_>,
    reason: String,
) -> Result<Lock, String> {
    if analysis.locks_inside {
        return Err("It locks rows in a subquery.".to_owned());
    }
    let unclear = || "It locks rows, and its text is not understood well enough.".to_owned();
    let (query, select) = outermost(statement).ok_or_else(unclear)?;
    let found = Clauses::find(sql, tokens, query, select).ok_or_else(unclear)?;
    let of = tokens.get(found.locks.clone()).ok_or_else(unclear)?;
    let of = clauses(sql, of).ok_or_else(unclear)?;
    let limits = analysis.limits.clone();
    let limits = limits.ok_or("It locks rows up to a limit that is not a plain number.")?;
    if limits.ties {
        return Err("It locks rows WITH TIES.".to_owned());
    }
    let items = items(query, select, context);
    let mut lock = Lock {
        tables: tables(&items, &of)?,
        candidates: Box::new(nothing()),
        reason,
        limits,
        list: found.head.end,
        tail: found.tail,
        locks: found.locks,
    };
    if lock.tables.is_empty() {
        return Err(unclear());
    }
    let cut = Cut {
        sql,
        tokens: tokens.to_vec(),
    };
    let text = lock.candidates_in(&cut, 1);
    verify(&text, query, select, lock.extras()).ok_or_else(unclear)?;
    let mut scan = Scan::new();
    scan.scan(&text).map_err(|_| unclear())?;
    let candidates = plan(&text, &scan, context);
    if let Operator::Refuse(refusal) = &candidates.operator {
        let detail = refusal.detail.as_deref().unwrap_or(&refusal.message);
        return Err(format!("The rows to lock cannot be found. {detail}"));
    }
    lock.candidates = Box::new(candidates);
    Ok(lock)
}

/// The plan that stands in a lock's place for its candidates until they are planned.
fn nothing() -> Plan {
    super::utility::plan(Operator::Session, Access::Read, Command::Empty)
}

/// The tables whose rows the clauses lock.
fn tables(items: &[Item<'_>], clauses: &[Clause]) -> Result<Vec<Locked>, String> {
    let mut tables = Vec::new();
    for item in items {
        let is_of = |clause: &&Clause| {
            let named = |name: &String| item.alias.as_ref() == Some(name);
            clause.of.is_empty() || clause.of.iter().any(named)
        };
        let own = clauses.iter().filter(is_of);
        let strength = own.clone().map(|clause| clause.strength).max();
        let wait = own.map(|clause| clause.wait).max();
        let (Some(strength), Some(wait)) = (strength, wait) else {
            continue;
        };
        let relation = item.table.map_err(str::to_owned)?;
        let alias = item.alias.clone().unwrap_or_default();
        let same = items.iter().filter(|other| other.alias == item.alias);
        if same.count() > 1 {
            return Err(format!("It calls two tables \"{alias}\"."));
        }
        tables.push(locked(relation, alias, strength, wait)?);
    }
    Ok(tables)
}

fn locked(
    relation: &Relation,
    alias: String,
    strength: Strength,
    wait: Wait,
) -> Result<Locked, String> {
    let table = &relation.name;
    let place = match &relation.placement {
        Placement::Sharded(sharding) => {
            let column = relation.columns.get(sharding.column);
            let column = column.ok_or("The shard key is not known.")?;
            Place::Key(column.name.clone(), Arc::clone(&sharding.map))
        }
        Placement::Unsharded => Place::First,
        Placement::Reference => {
            return Err(format!(
                "It locks rows of the reference table \"{table}\", of which each shard has a copy."
            ));
        }
        Placement::Catalog | Placement::ReadsSharded(_) | Placement::Broken(_) => {
            return Err(format!("It locks rows of \"{table}\"."));
        }
    };
    if relation.primary_key.is_empty() {
        return Err(format!(
            "It locks rows of \"{table}\", which has no primary key to find them by."
        ));
    }
    Ok(Locked {
        relation: table.clone(),
        wait,
        alias,
        columns: relation
            .columns
            .iter()
            .map(|column| column.name.clone())
            .collect(),
        key: relation.primary_key.clone(),
        strength,
        place,
    })
}

/// Parses the text that finds candidates and compares it with the client's: what is not ours must be the same.
fn verify(text: &[u8], query: &Query, select: &Select, extras: usize) -> Option<()> {
    let end = u32::try_from(text.len()).ok()?;
    let tokens = parse::tokens(text, 0..end).ok()?;
    let readable = parse::readable(text, &tokens)?;
    let Ok(Statement::Query(ours)) = parse::parse(&readable, &tokens) else {
        return None;
    };
    let SetExpr::Select(own) = &*ours.body else {
        return None;
    };
    let (list, added) = own.projection.split_at_checked(select.projection.len())?;
    let rest = |select: &Select| Select {
        projection: Vec::new(),
        ..select.clone()
    };
    let is_cast = |item: &SelectItem| {
        matches!(
            item,
            SelectItem::ExprWithAlias {
                expr: Expr::Cast { .. },
                ..
            }
        )
    };
    let same = ours.with == query.with
        && ours.order_by == query.order_by
        && *list == *select.projection
        && rest(own) == rest(select)
        && added.len() == extras
        && added.iter().all(is_cast)
        && ours.locks.is_empty()
        && ours.fetch.is_none();
    same.then_some(())
}
