//! INSERT of rows of a query that no workspace can run: it reads the system catalogue, which lists other tables there, or calls functions that may
//! change something, which has to happen in the transaction.
//!
//! Purpose: such a query is computed first, as the client's own SELECT would be; the INSERT is then one of the rows that have come of it, which a workspace
//! is given. Invariant: a constant without a type stays in its place, for it has the type of the column that it is stored in.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "few plans and tokens are of interest"
)]

use std::sync::Arc;

use super::analyse::{self, Analysis};
use super::given::Given;
use super::insert_place::{Place, place};
use super::learned::Learned;
use super::parse;
use super::{Command, Context, FromQuery, Layer, Operator, Planner, Workspace};
use crate::sql::{Token, TokenKind};

impl FromQuery {
    /// The statement over rows that have come of its query, which are given as parameters from this number on.
    pub(crate) fn over(&self, sql: &[u8], given: &Given, first: usize) -> Option<Vec<u8>> {
        let tokens = parse::tokens(sql, 0..u32::try_from(sql.len()).ok()?).ok()?;
        let Place { ctes, query } = place(sql, &tokens, self.has_conflict())?;
        let is_in = |token: &&Token| query.contains(&(token.start as usize));
        let own: Vec<Token> = tokens.iter().filter(is_in).copied().collect();
        let rows = given.query_but(first, &constants(sql, &own));
        let mut text = sql.get(..ctes.start)?.to_vec();
        text.extend_from_slice(sql.get(ctes.end..query.start)?);
        text.extend_from_slice(rows.as_bytes());
        text.extend_from_slice(sql.get(query.end..)?);
        Some(text)
    }
}

/// What runs a query, what is learned of it where it is computed first, whether it asks for the time, and the literals that depends on.
pub(super) type OfQuery = (Workspace, Option<Arc<Learned>>, bool, Vec<u32>);

impl Planner<'_> {
    /// What runs a query, where it is computed first, whether it asks for the time, and the literals that depends on.
    pub(super) fn of_query(&self, query: &[u8]) -> Result<OfQuery, String> {
        let context = Context {
            layer: Layer::Workspace,
            ..*self.context
        };
        let end = u32::try_from(query.len()).unwrap_or(u32::MAX);
        let tokens = parse::tokens(query, 0..end).map_err(|_| "It is not understood.")?;
        let planner = Planner {
            sql: query,
            tokens: &tokens,
            context: &context,
            ..*self
        };
        let text = parse::readable(query, &tokens).ok_or("It is not UTF-8.")?;
        let statement = parse::parse(&text, &tokens)?;
        let source = (query, tokens.as_slice());
        let (outcome, guards) = analyse::analyse(&statement, None, source, self.scan, &context);
        let Ok(analysis) = outcome else {
            return Err("The query is not understood.".to_owned());
        };
        if analysis.locks || !analysis.settings.is_empty() || analysis.temporary {
            return Err("The query does more than read what the shards have.".to_owned());
        }
        let reason = "its rows are stored on other shards";
        let workspace = planner.workspace(reason, (&analysis, &statement, &tokens));
        let mut first = None;
        let workspace = match workspace {
            Err(_) if self.is_computed_first(query, &analysis) => {
                first = Some(Arc::default());
                Workspace {
                    reason: reason.to_owned(),
                    ..Workspace::default()
                }
            }
            Err(why) if !analysis.read.is_empty() || analysis.first_shard.is_some() => {
                return Err(why);
            }
            Err(_) if analysis.lists_catalog => {
                return Err(
                    "The catalogue would list the table that the rows are brought by.".to_owned(),
                );
            }
            Err(_) if analysis.may_change => {
                return Err("The query calls a function that may change something.".to_owned());
            }
            workspace => workspace.unwrap_or_else(|_| Workspace {
                at_first: analysis.calls_next,
                reason: reason.to_owned(),
                ..Workspace::default()
            }),
        };
        Ok((workspace, first, analysis.moments, guards))
    }

    /// Whether a query inside of an INSERT is answered in the transaction itself, and by nothing else.
    fn is_computed_first(&self, query: &[u8], analysis: &Analysis) -> bool {
        if !analysis.lists_catalog && !analysis.may_change {
            return false;
        }
        self.apart_from(query, self.scan).is_some_and(|plan| {
            let answers = !matches!(
                plan.operator,
                Operator::Refuse(_) | Operator::Session | Operator::Broadcast(_)
            );
            answers
                && plan.command == Command::Select
                && plan.settings.is_empty()
                && plan.temporary.is_none()
                && plan.unknown.is_none()
        })
    }
}

/// The columns of a query that are constants without a type: strings, NULL, parameters. In a DISTINCT, and in parts of a UNION, they have one.
fn constants(sql: &[u8], tokens: &[Token]) -> Vec<Option<String>> {
    let mut depth = 0_usize;
    let mut outer: Vec<(Token, bool)> = Vec::with_capacity(tokens.len());
    for token in tokens {
        match token.kind {
            TokenKind::Punct(b'(' | b'[') => {
                depth += 1;
                outer.push((*token, false));
            }
            TokenKind::Punct(b')' | b']') => depth = depth.saturating_sub(1),
            _ => outer.push((*token, depth == 0)),
        }
    }
    let is = |(token, outer): &(Token, bool), word| *outer && token.is_word(sql, word);
    let combined = ["union", "intersect", "except", "distinct"];
    if outer
        .iter()
        .any(|token| combined.iter().any(|word| is(token, word)))
    {
        return Vec::new();
    }
    let Some(start) = outer.iter().position(|token| is(token, "select")) else {
        return Vec::new();
    };
    let list = outer.get(start + 1..).unwrap_or_default();
    let ends = [
        "from", "where", "group", "order", "limit", "offset", "having", "window",
    ];
    let end = list
        .iter()
        .position(|token| ends.iter().any(|word| is(token, word)));
    let list = list.get(..end.unwrap_or(list.len())).unwrap_or_default();
    let items = list.split(|(token, outer)| *outer && token.kind == TokenKind::Punct(b','));
    items.map(|item| constant(sql, item)).collect()
}

/// The text of an item that is such a constant.
fn constant(sql: &[u8], item: &[(Token, bool)]) -> Option<String> {
    let (token, _) = item.first()?;
    let untyped =
        matches!(token.kind, TokenKind::String | TokenKind::Param) || token.is_word(sql, "null");
    let named = match item.get(1..)? {
        [] => true,
        [(label, _)] => matches!(label.kind, TokenKind::Word | TokenKind::QuotedIdent),
        [(word, _), _] => word.is_word(sql, "as"),
        _ => false,
    };
    (untyped && named)
        .then(|| std::str::from_utf8(token.text(sql)).ok())
        .flatten()
        .map(str::to_owned)
}
