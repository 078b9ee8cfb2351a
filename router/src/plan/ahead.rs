//! Queries inside a write of several shards that are computed once before it, and whose rows each shard is given in their places.
//!
//! Purpose: [`Ahead`] is a common table expression, a subquery or a derived table of an UPDATE, DELETE or MERGE that depends on nothing around it:
//! it says what is asked first, and what stands in the text instead. Of the source of a MERGE that inserts each shard is given the rows of its own
//! keys. Invariants: a query is answered as the client's own SELECT would be, in the same transaction; one that mentions what is
//! around it, or that may change something, stays where it is. Collaborators: `analyse` takes such a query for rows that every shard has;
//! `session::write::ahead` computes them.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "few statements write, and few tokens are of interest"
)]

use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use sqlparser::ast::{
    Cte, MergeClauseKind, Query, SetExpr, Statement, TableFactor, Visit, Visitor,
};
use switchyard_schema::{KeyMap, KeyType, ShardIndex, ShardSet};

use super::analyse::names;
use super::apart::Understood;
use super::edits::Edits;
use super::given::Given;
use super::learned::Learned;
use super::moment::{Clock, Moments};
use super::parse;
use super::{Access, Command, Context, Operator, Plan, Planner, Write, analyse, key_shards};
use crate::relations::Resolved;
use crate::sql::{self, Token, TokenKind};

/// A query that is computed ahead of the statement it is in.
#[derive(Debug, Clone)]
pub struct Ahead {
    place: Place,
    /// It asks for the time.
    pub moments: bool,
    /// Each shard is given the rows of its own keys.
    pub divided: Option<Divided>,
    /// What PostgreSQL has said of its columns.
    pub learned: Arc<Learned>,
}

/// Rows that are divided by a column that is the shard key of what they are stored in, or matched with.
#[derive(Debug, Clone)]
pub struct Divided {
    /// Its position.
    pub column: usize,
    map: Arc<KeyMap>,
}

/// Where a query is, by the positions of tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    /// In parentheses.
    Query(Range<usize>),
    /// In those of a common table expression that has this name, and mentions others or itself.
    Common(usize, Range<usize>),
    /// All rows of a table, which is the source of a MERGE; it has no alias.
    Table(Range<usize>, bool),
}

/// What the analysis takes for rows that are given.
#[derive(Debug, Clone)]
pub struct Instead {
    /// Where the query begins, or the table's name, in the text.
    pub(super) start: u32,
    /// By which column they are divided among the shards, if they are.
    pub(super) divided: Option<Divided>,
}

impl Divided {
    /// The map of the shards they are divided among.
    pub(super) fn map(&self) -> &Arc<KeyMap> {
        &self.map
    }

    /// Whether values of this type are the same keys as those that are stored.
    pub(crate) fn fits(&self, type_oid: u32) -> bool {
        let own = KeyType::from_oid(type_oid).map(KeyType::family);
        own == Some(self.map.key_type().family())
    }

    /// The shard of these that is given a row with this key; one that cannot be stored goes to the first. `None`: no telling.
    pub(crate) fn shard(
        &self,
        type_oid: u32,
        key: Option<&[u8]>,
        shards: &ShardSet,
    ) -> Option<ShardIndex> {
        let Some(key) = key else {
            return shards.first();
        };
        let own = key_shards(&self.map, KeyType::from_oid(type_oid)?, key);
        match own.is_empty() {
            true => shards.first(),
            false => own.only().filter(|shard| shards.contains(*shard)),
        }
    }
}

impl Ahead {
    /// The query by itself, at this time if it matters.
    pub(crate) fn query(&self, sql: &[u8], clock: Option<&Clock>) -> Option<Vec<u8>> {
        let text = self.place.query(sql, &all_tokens(sql)?)?;
        let Some(clock) = clock.filter(|_| self.moments) else {
            return Some(text);
        };
        let moments = Moments::find(&text, &all_tokens(&text)?);
        Some(moments.text(&text, clock))
    }
}

impl Place {
    /// What is in the parentheses, or the name.
    fn tokens(&self) -> &Range<usize> {
        match self {
            Self::Query(tokens) | Self::Common(_, tokens) | Self::Table(tokens, _) => tokens,
        }
    }

    /// Where the analysis finds that it begins.
    fn start(&self, sql: &[u8], tokens: &[Token]) -> Option<u32> {
        let first = self.tokens().start;
        let is_list = tokens.get(first)?.is_word(sql, "values");
        Some(tokens.get(first + usize::from(is_list))?.start)
    }

    fn bytes(&self, tokens: &[Token]) -> Option<Range<usize>> {
        let own = self.tokens();
        let (first, last) = (tokens.get(own.start)?, tokens.get(own.end.checked_sub(1)?)?);
        Some(first.start as usize..last.end as usize)
    }

    /// The query by itself. What is kept of the text stays in its place.
    fn query(&self, sql: &[u8], tokens: &[Token]) -> Option<Vec<u8>> {
        let own = self.bytes(tokens)?;
        let only = |part: Range<usize>| -> Vec<u8> {
            let bytes = sql.iter().enumerate().take(part.end);
            let kept = bytes.map(|(at, byte)| if at < part.start { b' ' } else { *byte });
            kept.collect()
        };
        Some(match self {
            Self::Query(_) => only(own),
            Self::Common(name, body) => {
                let close = tokens.get(body.end)?.end as usize;
                let definitions = only(tokens.first()?.start as usize..close);
                let name = tokens.get(*name)?.text(sql);
                [&definitions, &b" SELECT * FROM "[..], name].concat()
            }
            Self::Table(..) => [b"SELECT * FROM ", sql.get(own)?].concat(),
        })
    }

    /// What stands there instead, where it selects the rows that are given by this query.
    fn instead(&self, sql: &[u8], tokens: &[Token], rows: String) -> Option<Vec<u8>> {
        Some(match self {
            Self::Query(_) | Self::Common(..) => rows.into_bytes(),
            Self::Table(_, true) => format!("({rows})").into_bytes(),
            Self::Table(own, false) => {
                let name = tokens.get(own.end.checked_sub(1)?)?.text(sql);
                [format!("({rows}) AS ").as_bytes(), name].concat()
            }
        })
    }
}

/// The text with the time in it, and with the rows of the queries that are computed ahead: parameters from this number on.
pub(super) fn text(
    write: &Write,
    sql: &[u8],
    clock: Option<&Clock>,
    (rows, first): (&[Given], usize),
) -> Option<Vec<u8>> {
    let tokens = all_tokens(sql)?;
    let mut edits = match clock {
        Some(clock) => write.moments.edits(sql, &tokens, clock, |_| true),
        None => Vec::new(),
    };
    let mut number = first;
    for (ahead, given) in write.ahead.iter().zip(rows) {
        let instead = ahead
            .place
            .instead(sql, &tokens, given.query_of_arrays(number))?;
        edits.push((ahead.place.bytes(&tokens)?, instead));
        number += given.columns.len();
    }
    Some(Edits::new(edits).apply(sql))
}

fn all_tokens(sql: &[u8]) -> Option<Vec<Token>> {
    parse::tokens(sql, 0..u32::try_from(sql.len()).ok()?).ok()
}

/// So many queries of a statement are looked at, at most.
const MOST: usize = 12;
/// So many columns of one.
const MOST_COLUMNS: usize = 32;

impl Planner<'_> {
    /// A write some queries of which are computed ahead: as few as it takes. `written` plans it without those, if that can be done.
    pub(super) fn computed_ahead(
        &self,
        (_, statement, tokens): Understood<'_>,
        guards: &mut Vec<u32>,
        written: impl Fn(&[Instead]) -> Option<(Write, Vec<u32>)>,
    ) -> Option<Write> {
        let mut known = Vec::new();
        let places = places(self.sql, tokens, statement)?;
        let mut chosen: Vec<(Place, Ahead)> = Vec::new();
        for place in places.into_iter().take(MOST) {
            if let Some((ahead, own)) = self.ahead(&place, tokens) {
                known.extend(own);
                chosen.push((place, ahead));
            }
        }
        let of = |chosen: &[(Place, Ahead)]| -> Option<Vec<Instead>> {
            let instead = |(place, ahead): &(Place, Ahead)| {
                Some(Instead {
                    start: place.start(self.sql, tokens)?,
                    divided: ahead.divided.clone(),
                })
            };
            chosen.iter().map(instead).collect()
        };
        let seen = self.seen(statement, tokens, &of(&chosen)?)?;
        chosen.retain(|(place, _)| {
            let start = place.start(self.sql, tokens);
            start.is_some_and(|start| seen.contains(&start))
        });
        if chosen.is_empty() {
            return None;
        }
        let (mut chosen, mut found) = match written(&of(&chosen)?) {
            Some(found) => (chosen, found),
            None => self.divided(statement, chosen, |chosen| written(&of(chosen)?))?,
        };
        for at in (0..chosen.len()).rev() {
            let mut fewer = chosen.clone();
            let (_, left_out) = fewer.remove(at);
            if left_out.divided.is_some() || fewer.is_empty() {
                continue;
            }
            if let Some(better) = written(&of(&fewer)?) {
                (chosen, found) = (fewer, better);
            }
        }
        let (mut write, own) = found;
        guards.extend(known);
        guards.extend(own);
        write.ahead = chosen.into_iter().map(|(_, ahead)| ahead).collect();
        Some(write)
    }

    /// Where those begin that depend on nothing around them, and are inside of no other.
    fn seen(&self, statement: &Statement, tokens: &[Token], ahead: &[Instead]) -> Option<Vec<u32>> {
        let context = Context {
            ahead,
            ..*self.context
        };
        let source = (self.sql, tokens);
        let (analysis, _) = analyse::analyse(statement, None, source, self.scan, &context);
        Some(analysis.ok()?.ahead)
    }

    /// The same of a MERGE that inserts: of one of them each shard is given the rows whose column is a key of its own.
    fn divided<T>(
        &self,
        statement: &Statement,
        chosen: Vec<(Place, Ahead)>,
        written: impl Fn(&[(Place, Ahead)]) -> Option<T>,
    ) -> Option<(Vec<(Place, Ahead)>, T)> {
        let merge = merge_of(statement)?;
        let inserts = |kind: &MergeClauseKind| *kind != MergeClauseKind::Matched;
        if !merge
            .clauses
            .iter()
            .any(|clause| inserts(&clause.clause_kind))
        {
            return None;
        }
        let TableFactor::Table { name, .. } = &merge.table else {
            return None;
        };
        let (schema, name) = names::relation_name(name).ok()?;
        let (relations, path) = (self.context.relations, self.context.search_path);
        let Resolved::Known(target) = relations.resolve(path, schema.as_deref(), &name) else {
            return None;
        };
        let map = &target.sharding()?.map;
        for at in 0..chosen.len() {
            for column in 0..MOST_COLUMNS {
                let mut tried = chosen.clone();
                let (_, ahead) = tried.get_mut(at)?;
                let map = Arc::clone(map);
                ahead.divided = Some(Divided { column, map });
                if let Some(found) = written(&tried) {
                    return Some((tried, found));
                }
            }
        }
        None
    }

    /// A query that can be computed by itself, and the literals that depends on.
    fn ahead(&self, place: &Place, tokens: &[Token]) -> Option<(Ahead, Vec<u32>)> {
        let text = place.query(self.sql, tokens)?;
        let plan = self.apart_from(&text, self.scan)?;
        // What a common table expression mentions is computed again for others that do.
        let once = !matches!(place, Place::Common(..)) || plan.access == Access::Read;
        let moments = Moments::find(&text, &all_tokens(&text)?);
        (once && only_reads(&plan)).then(|| {
            let ahead = Ahead {
                place: place.clone(),
                moments: !moments.is_empty(),
                divided: None,
                learned: Arc::default(),
            };
            let mut guards = plan.guards;
            guards.retain(|guard| (*guard as usize) < self.scan.literals.len());
            (ahead, guards)
        })
    }
}

/// Whether a plan is one of a query that changes nothing but locks.
fn only_reads(plan: &Plan) -> bool {
    let effects = &plan.effects;
    let answers = !matches!(
        plan.operator,
        Operator::Refuse(_) | Operator::Session | Operator::Broadcast(_)
    );
    answers
        && plan.command == Command::Select
        && plan.access <= Access::LockingRead
        && plan.settings.is_empty()
        && plan.temporary.is_none()
        && plan.unknown.is_none()
        && !effects.dirty
        && !effects.uses_sequences
        && !effects.reads_sequence_state
}

/// The MERGE that a statement is.
fn merge_of(statement: &Statement) -> Option<&sqlparser::ast::Merge> {
    match statement {
        Statement::Merge(merge) => Some(merge),
        Statement::Query(query) => match &*query.body {
            SetExpr::Merge(Statement::Merge(merge)) => Some(merge),
            _ => None,
        },
        _ => None,
    }
}

/// The queries of a write that mention no common table expression but those before themselves; `None` if one of those writes.
fn places(sql: &[u8], tokens: &[Token], statement: &Statement) -> Option<Vec<Place>> {
    let commons = commons(statement)?;
    let mut deep = tokens.iter().scan(0_i32, |depth, token| {
        *depth += i32::from(token.kind == TokenKind::Punct(b'('));
        *depth -= i32::from(token.kind == TokenKind::Punct(b')'));
        Some((*depth, token))
    });
    let verb = |(depth, token): (i32, &Token)| {
        let verbs = ["update", "delete", "merge"];
        depth == 0 && verbs.iter().any(|verb| token.is_word(sql, verb))
    };
    let main = deep.position(verb)?;
    let mut places = Vec::new();
    let mut open: Vec<usize> = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        match token.kind {
            TokenKind::Punct(b'(') => open.push(at),
            TokenKind::Punct(b')') => {
                let opened = open.pop()?;
                let body = opened + 1..at;
                if !begins(sql, tokens.get(body.start)) {
                    continue;
                }
                let mut place = Place::Query(body.clone());
                if open.is_empty() && opened < main && mentions(&commons, &place, tokens, sql) {
                    place = Place::Common(named(tokens, opened, sql)?, body);
                }
                if !mentions(&commons, &place, tokens, sql) {
                    places.push(place);
                }
            }
            _ => {}
        }
    }
    places.extend(
        source(sql, tokens, statement).filter(|place| !mentions(&commons, place, tokens, sql)),
    );
    places.sort_by_key(|place| place.tokens().start);
    Some(places)
}

/// Whether a query begins with this token.
fn begins(sql: &[u8], token: Option<&Token>) -> bool {
    let words = ["select", "with", "values"];
    token.is_some_and(|token| words.iter().any(|word| token.is_word(sql, word)))
}

/// The name of the common table expression whose parenthesis this is.
fn named(tokens: &[Token], opened: usize, sql: &[u8]) -> Option<usize> {
    let is_word = |at: usize, word| {
        tokens
            .get(at)
            .is_some_and(|token: &Token| token.is_word(sql, word))
    };
    let mut at = opened.checked_sub(1)?;
    at -= usize::from(is_word(at, "materialized"));
    at -= usize::from(is_word(at, "not"));
    if !is_word(at, "as") {
        return None;
    }
    at = at.checked_sub(1)?;
    if tokens.get(at)?.kind == TokenKind::Punct(b')') {
        let mut before = tokens.get(..at)?.iter();
        at = before
            .rposition(|token| token.kind == TokenKind::Punct(b'('))?
            .checked_sub(1)?;
    }
    Some(at)
}

/// The source of a MERGE that is a table.
fn source(sql: &[u8], tokens: &[Token], statement: &Statement) -> impl Iterator<Item = Place> {
    let found = || {
        let TableFactor::Table {
            name,
            alias,
            args: None,
            sample: None,
            ..
        } = &merge_of(statement)?.source
        else {
            return None;
        };
        let (first, last) = (name.0.first()?.as_ident()?, name.0.last()?.as_ident()?);
        let position = |at: u32| tokens.iter().position(|token| token.start == at);
        let first = position(parse::offset(first.span.start))?;
        let last = position(parse::offset(last.span.start))?;
        let plain = tokens.get(first.checked_sub(1)?)?.is_word(sql, "using");
        let behind = tokens.get(last + 1).map(|token| token.text(sql));
        let plain = plain && behind != Some(b"*");
        plain.then_some(Place::Table(first..last + 1, alias.is_some()))
    };
    found().into_iter()
}

/// The common table expressions of a statement: their names, and where they are defined. `None` if one of them writes.
fn commons(statement: &Statement) -> Option<Vec<(String, u32)>> {
    #[derive(Default)]
    struct Commons {
        found: Vec<(String, u32)>,
        unclear: bool,
    }
    impl Commons {
        fn add(&mut self, cte: &Cte) {
            let writes = matches!(
                &*cte.query.body,
                SetExpr::Insert(_) | SetExpr::Update(_) | SetExpr::Delete(_) | SetExpr::Merge(_)
            );
            match names::name(&cte.alias.name) {
                Ok(name) if !writes => {
                    let at = parse::offset(cte.alias.name.span.start);
                    self.found.push((name.into_owned(), at));
                }
                Ok(_) | Err(_) => self.unclear = true,
            }
        }
    }
    impl Visitor for Commons {
        type Break = ();
        fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
            let with = query.with.iter();
            with.flat_map(|with| &with.cte_tables)
                .for_each(|cte| self.add(cte));
            ControlFlow::Continue(())
        }
    }
    let mut commons = Commons::default();
    let _ = statement.visit(&mut commons);
    (!commons.unclear).then_some(commons.found)
}

/// Whether a query mentions a common table expression that is not there where it is asked by itself.
fn mentions(commons: &[(String, u32)], place: &Place, tokens: &[Token], sql: &[u8]) -> bool {
    let Some(own) = place.bytes(tokens) else {
        return true;
    };
    let missing = |(_, at): &&(String, u32)| match place {
        Place::Query(_) | Place::Table(..) => !own.contains(&(*at as usize)),
        // Those before it, and itself, are asked with it.
        Place::Common(..) => *at as usize > own.end,
    };
    let missing: Vec<&String> = commons
        .iter()
        .filter(missing)
        .map(|(name, _)| name)
        .collect();
    let within = tokens.get(place.tokens().clone()).unwrap_or_default();
    within.iter().any(|token| {
        let name = sql::name(token, sql);
        token.kind == TokenKind::UnicodeIdent
            || name.is_some_and(|name| missing.iter().any(|missing| **missing == *name))
    })
}
