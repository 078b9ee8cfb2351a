//! Statements whose rows are read where they are and put together in the router.
//!
//! Purpose: `merge` makes a [`Merge`] of a query whose outermost block alone needs the rows of several shards together:
//! ORDER BY, limits, DISTINCT, aggregates. Invariants: it does so only where [`crate::merge`] gives exactly PostgreSQL's
//! result; the text for the shards is made of pieces of the client's and of words of ours, and it is parsed again and
//! compared with the client's, clause by clause, before it is used. Collaborators: `analyse::root` says what
//! the outermost block computes, `clauses` where its words are, `columns` what the shards' rows must contain.

pub(super) mod clauses;
mod columns;
pub(super) mod count;
pub(super) mod explain;
mod finish;
mod groups;
mod substitute;
mod text;

pub use self::finish::Finish;
pub(super) use self::text::Text;

use std::sync::Arc;

use sqlparser::ast::{Query, Select, SetExpr, Statement};

use self::clauses::Clauses;
use self::columns::Columns;
use super::analyse::Analysis;
use super::analyse::facts::ColumnId;
use super::analyse::root::{Count, Root, RootKey};
use super::decide;
use super::parse;
use super::refusal::Refusal;
use super::route::{Source, Target, Values};
use super::workspace;
use super::{Context, Operator};
use crate::merge::{Limit, Recipe};
use crate::sql::{LiteralKind, Scan, Token};

/// How a statement is run on several shards and its rows merged.
#[derive(Debug, Clone)]
pub struct Merge {
    /// Where it goes.
    pub target: Target,
    /// What is done with the rows.
    pub recipe: Arc<Recipe>,
    text: Text,
    limit: Option<Count>,
    offset: Option<Count>,
    /// The limits are in the text for the shards.
    limits: bool,
}

impl Merge {
    /// The text for the shards.
    pub fn text(&self, sql: &[u8]) -> Vec<u8> {
        self.text_of(&workspace::Text::new(sql))
    }

    /// The same of a text of which conditions may have been left out.
    pub fn text_of(&self, text: &workspace::Text<'_>) -> Vec<u8> {
        self.text.write(text.sql(), text.tokens())
    }

    /// Where in the client's text a character of the text for the shards comes from: both are counted from 1.
    pub fn origin(&self, sql: &[u8], position: usize) -> Option<usize> {
        self.origin_in(&workspace::Text::new(sql), position)
    }

    /// The same of a text of which conditions may have been left out.
    pub fn origin_in(&self, text: &workspace::Text<'_>, position: usize) -> Option<usize> {
        self.text.origin(text.sql(), text.tokens(), position)
    }

    /// The limits of one execution; `None` if any one shard gives the whole answer: no rows, or PostgreSQL's error.
    pub fn limit(&self, values: &Values<'_>) -> Result<Option<Limit>, Box<Refusal>> {
        let (offset, limit) = (
            count::rows(self.offset.as_ref(), values)?,
            count::rows(self.limit.as_ref(), values)?,
        );
        let ties = self.recipe.ties.is_some();
        Ok(match (offset, limit) {
            (count::Rows::Refused, _) | (_, count::Rows::Refused | count::Rows::Number(0)) => None,
            (_, count::Rows::All) if ties => None,
            (offset, limit) => Some(Limit {
                offset: offset.number().unwrap_or(0),
                rows: limit.number(),
            }),
        })
    }

    /// Whether a parameter of the client's text is not in the one for the shards.
    pub(crate) fn lacks_parameter(&self) -> bool {
        let is_param = |count: &Count| match count {
            Count::One => false,
            Count::Of(expr) => matches!(expr.source, Source::Param { .. }),
        };
        let written = self.limits && self.limit.is_some();
        !written && self.limit.iter().chain(&self.offset).any(is_param)
    }

    /// Whether a limit is a parameter's value, or a string's.
    pub(super) fn has_open_limit(&self) -> bool {
        let is_open = |count: &Count| match count {
            Count::One => false,
            Count::Of(expr) => !matches!(
                expr.source,
                Source::Literal {
                    kind: LiteralKind::Integer,
                    ..
                }
            ),
        };
        self.limit.iter().chain(&self.offset).any(is_open)
    }

    /// The parameters that binding looks at.
    pub(super) fn params(&self) -> Vec<u16> {
        let mut params = match &self.target {
            Target::Keys(route) => route.params(),
            Target::AnyShard | Target::Shard(_) | Target::AllShards => Vec::new(),
        };
        for count in self.limit.iter().chain(&self.offset) {
            if let Count::Of(expr) = count
                && let Source::Param { number, .. } = expr.source
            {
                params.push(number);
            }
        }
        params.sort_unstable();
        params.dedup();
        params
    }

    /// Bytes on the heap, about.
    pub(super) fn size(&self) -> usize {
        let route = match &self.target {
            Target::Keys(route) => route.size(),
            Target::AnyShard | Target::Shard(_) | Target::AllShards => 0,
        };
        let keys = self.recipe.order.len() + self.recipe.sort.len();
        let group = self.recipe.group.as_ref();
        let combined = group.map_or(0, |group| group.combine.len());
        512 + route + 16 * keys + 32 * combined + self.text.size()
    }
}

/// A query whose outermost block alone needs rows of several shards together.
struct Spread<'a> {
    root: &'a Root,
    query: &'a Query,
    select: &'a Select,
    target: Target,
    shape: Option<Shape>,
}

fn spread<'a>(analysis: &'a Analysis, statement: &'a Statement) -> Option<Spread<'a>> {
    analysis.combines.as_ref()?;
    let root = analysis.root.as_ref()?;
    if analysis.writes {
        return None;
    }
    let anchors = decide::scattered(analysis).ok()?;
    let Operator::Append(target) = decide::append(analysis, &anchors) else {
        return None;
    };
    let Statement::Query(query) = statement else {
        return None;
    };
    let SetExpr::Select(select) = &*query.body else {
        return None;
    };
    Some(Spread {
        root,
        query,
        select,
        target,
        shape: shape(analysis, root, anchors.first()?.key),
    })
}

/// How PostgreSQL finishes what the shards do of a statement, if that is exact and less than to fetch what it reads: of a text,
/// all of its tokens, and those that are the statement. Besides the slots of literals on whose values that depends.
pub(super) fn finish(
    analysis: &Analysis,
    statement: &Statement,
    (sql, all, tokens): (&[u8], &[Token], &[Token]),
    scan: &Scan,
    context: &Context<'_>,
) -> (Option<Finish>, Vec<u32>) {
    let mut terms = groups::Terms::new(sql, tokens, scan, context);
    let mut finish = || {
        let Spread {
            root,
            query,
            select,
            target,
            shape,
        } = spread(analysis, statement)?;
        let features = &root.features;
        if features.grouping_sets || features.locking || features.set_operation || features.ragged {
            return None;
        }
        let statement = finish::Statement {
            sql,
            query,
            select,
            root,
            clauses: &Clauses::find(sql, tokens, query, select)?,
        };
        let finish = finish::finish(&statement, target, shape, &mut terms)?;
        finish.within(all, tokens)
    };
    (finish(), terms.guards)
}

/// How the statement's rows are merged, if that is what its outermost block needs and it can be done exactly.
pub(super) fn merge(
    analysis: &Analysis,
    statement: &Statement,
    sql: &[u8],
    tokens: &[Token],
) -> Option<Merge> {
    let Spread {
        root,
        query,
        select,
        target,
        shape,
    } = spread(analysis, statement)?;
    let shape = shape?;
    let clauses = Clauses::find(sql, tokens, query, select)?;
    let mut columns = Columns::new(root, &clauses);
    let ties = match root.limits.ties {
        true => Some(
            u16::try_from(root.order.len())
                .ok()
                .filter(|keys| *keys > 0)?,
        ),
        false => None,
    };
    let (order, recipe) = match shape {
        Shape::Finished => (Ordering::Own, finished(root, &mut columns, ties)?),
        Shape::Distinct => distinct(root, &mut columns, ties)?,
        Shape::Combined => combined(root, &mut columns, ties)?,
    };
    // Of rows that are sorted, or made into one, after they have come, any may matter.
    let in_order = recipe.sort.is_empty() && !is_total(&recipe);
    let limits = in_order && (!root.limits.ties || shape == Shape::Finished);
    let mut text = text::assemble(&clauses, &columns, &order);
    text.verify(sql, tokens, query, columns.extras())?;
    if limits {
        text.limit(sql, &clauses, query, root)?;
    }
    text.locks(&clauses);
    Some(Merge {
        target,
        recipe: Arc::new(recipe),
        text,
        limit: root.limits.limit.clone(),
        offset: root.limits.offset.clone(),
        limits,
    })
}

/// Every token of a text that has been cut into them.
fn all_tokens(sql: &[u8]) -> Vec<Token> {
    parse::tokens(sql, 0..u32::try_from(sql.len()).unwrap_or(u32::MAX)).unwrap_or_default()
}

/// What there is to be done with the shards' rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// Every row of a shard's result is one of the whole result.
    Finished,
    /// The same row may come from several shards.
    Distinct,
    /// The same group may be on several shards.
    Combined,
}

/// How the shards order their rows.
#[derive(Debug)]
enum Ordering {
    /// As the client's ORDER BY says, if there is one.
    Own,
    /// As it says, and then by these columns, counted from 1.
    OwnThen(Vec<u16>),
    /// By these.
    By(Vec<columns::Ordered>),
}

fn shape(analysis: &Analysis, root: &Root, key: ColumnId) -> Option<Shape> {
    let features = &root.features;
    let other = features.window
        || features.grouping_sets
        // Which rows are locked depends on the limit, and a shard does not know what the others have.
        || (features.locking && features.limit)
        || features.set_operation
        || features.ragged;
    if other {
        return None;
    }
    let top = analysis.facts.find(analysis.top?);
    let known = analysis.facts.known(top);
    // Rows with different keys are never put together, and those with the same key are on one shard.
    let is_key = |column: Option<ColumnId>| {
        column.is_some_and(|column| analysis.facts.home(column) == top && known.same(column, key))
    };
    let any_key = |keys: &[RootKey]| keys.iter().any(|found| is_key(found.input));
    let groups = features.aggregate || features.group_by || features.having;
    let ordered = groups || features.order_by || features.distinct || features.distinct_on;
    if features.ordered_input && !ordered {
        return None;
    }
    let split = groups && !any_key(&root.group);
    if features.distinct_on && !any_key(&root.distinct_on) {
        return None;
    }
    let outputs = || {
        root.columns
            .iter()
            .any(|column| is_key(column.output.column))
    };
    // Of groups that are whole on their shards, a DISTINCT without the key may still find equal rows elsewhere.
    let repeats = features.distinct && (split || !outputs());
    match (split, repeats) {
        (false, false) => Some(Shape::Finished),
        // PostgreSQL refuses locks of rows that are put together.
        _ if features.locking => None,
        (false, true) => Some(Shape::Distinct),
        (true, false) if !features.having && !features.distinct_on => Some(Shape::Combined),
        (true, _) => None,
    }
}

/// A recipe for the columns there are.
fn recipe(columns: &Columns<'_>) -> Recipe {
    Recipe {
        columns: columns.shown(),
        extras: columns.extras_len(),
        ..Recipe::default()
    }
}

fn finished(root: &Root, columns: &mut Columns<'_>, ties: Option<u16>) -> Option<Recipe> {
    let mut order = Vec::with_capacity(root.order.len());
    for at in 0..root.order.len() {
        let ordered = columns.by_order(at)?;
        // A column of ours must not make rows distinct that are equal, nor stand in for one that has to be selected.
        let key = root.order.get(at)?;
        let safe = key.column.is_some() && key.typed?.is_grouped();
        if root.features.distinct && !safe {
            return None;
        }
        order.push(ordered.key);
    }
    Some(Recipe {
        order,
        ties,
        ..recipe(columns)
    })
}

fn distinct(
    root: &Root,
    columns: &mut Columns<'_>,
    ties: Option<u16>,
) -> Option<(Ordering, Recipe)> {
    let mut order = Vec::new();
    for (at, key) in root.order.iter().enumerate() {
        if key.column.is_none() || !key.typed?.is_grouped() {
            return None;
        }
        order.push(columns.by_order(at)?.key);
    }
    let mut rest = Vec::new();
    for column in 0..root.columns.len() {
        if root.order.iter().any(|key| key.column == Some(column)) {
            continue;
        }
        let ordered = columns.by_column(column)?;
        rest.push(ordered.ordinal);
        order.push(ordered.key);
    }
    let recipe = Recipe {
        order,
        group: Some(crate::merge::Group::default()),
        ties,
        ..recipe(columns)
    };
    Some((Ordering::OwnThen(rest), recipe))
}

fn combined(
    root: &Root,
    columns: &mut Columns<'_>,
    ties: Option<u16>,
) -> Option<(Ordering, Recipe)> {
    columns.combine_all()?;
    if root.group.is_empty() {
        // One row of each shard, and one of all: there is nothing to order.
        let group = Some(columns.group());
        let recipe = Recipe {
            group,
            ..recipe(columns)
        };
        return ties.is_none().then_some((Ordering::Own, recipe));
    }
    let group_of = |key: &RootKey| {
        let same = |group: &RootKey| {
            (key.column.is_some() && group.column == key.column)
                || (key.input.is_some() && group.input == key.input)
        };
        root.group.iter().position(same)
    };
    let own: Option<Vec<usize>> = root.order.iter().map(group_of).collect();
    let mut order = Vec::new();
    let mut sort = Vec::new();
    for (at, key) in root.order.iter().enumerate() {
        if own.is_some() {
            let ordered = columns.by_order(at)?;
            order.push(ordered);
        } else {
            let known = group_of(key).is_some() || key.partial.is_some();
            sort.push(known.then(|| columns.by_order(at))??.key);
        }
    }
    let covered = own.unwrap_or_default();
    for at in (0..root.group.len()).filter(|at| !covered.contains(at)) {
        order.push(columns.by_group(at)?);
    }
    let recipe = Recipe {
        order: order.iter().map(|ordered| ordered.key).collect(),
        group: Some(columns.group()),
        sort,
        ties,
        ..recipe(columns)
    };
    Some((Ordering::By(order), recipe))
}

/// Whether it makes one row of all.
fn is_total(recipe: &Recipe) -> bool {
    recipe.group.is_some() && recipe.order.is_empty()
}
