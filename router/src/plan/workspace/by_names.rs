//! The workspace of a read that is not understood, judged by the names in it.
//!
//! Wherever a name stands, it may be a relation or a function: every relation of that name is fetched, with all columns, and a
//! function that may do more than compute leaves the statement without a workspace. More may be fetched than is read, never
//! less.

use switchyard_schema::TableName;

use super::needs::Uses;
use super::{Making, Workspace, same_names, splice};
use crate::plan::Context;
use crate::plan::analyse::{only_computes, reads_catalogue, runs_text};
use crate::relations::{Function, RelationKind, Resolved, Volatility};
use crate::sql::{self, Token, TokenKind};

/// Words of statements that do more than read, and of queries that do.
const DOING: &[&str] = &["insert", "update", "delete", "merge", "into", "share"];

/// The workspace of a statement that is a query by its first word; `Err` is why there is none.
pub(in crate::plan) fn by_names(
    sql: &[u8],
    tokens: &[Token],
    context: &Context<'_>,
    reason: String,
) -> Result<Workspace, String> {
    let first = tokens
        .iter()
        .find(|token| token.kind != TokenKind::Punct(b'('));
    let reads = ["select", "with", "values", "table"];
    if !first.is_some_and(|token| reads.iter().any(|word| token.is_word(sql, word))) {
        return Err("It is no query.".to_owned());
    }
    if std::str::from_utf8(sql).is_err() {
        return Err("It is not in UTF-8.".to_owned());
    }
    // What would be wrong in a workspace whatever the statement means.
    Uses::of_tokens(sql, tokens)?;
    let mut named = Vec::new();
    for at in 0..tokens.len() {
        named.extend(token(sql, tokens, at, context)?);
    }
    let whole = Uses::whole();
    let mut making = Making {
        context,
        uses: &whole,
        workspace: Workspace {
            fetches: Vec::new(),
            views: Vec::new(),
            settled: Vec::new(),
            reason,
        },
    };
    for name in &named {
        making.relation(name)?;
    }
    let workspace = making.workspace;
    same_names(&workspace)?;
    if splice::is_ambiguous(sql, tokens, &|name| workspace.makes(name)) {
        return Err("A schema's name is also another name in it.".to_owned());
    }
    Ok(workspace)
}

/// The relation that a token may name.
fn token(
    sql: &[u8],
    tokens: &[Token],
    at: usize,
    context: &Context<'_>,
) -> Result<Option<TableName>, String> {
    let Some(token) = tokens.get(at) else {
        return Ok(None);
    };
    match token.kind {
        TokenKind::Word | TokenKind::QuotedIdent => {}
        TokenKind::UnicodeIdent => return Err("A name in it is written in escapes.".to_owned()),
        _ => return Ok(None),
    }
    if let Some(word) = DOING.iter().find(|word| token.is_word(sql, word)) {
        return Err(format!(
            "It may do more than read ({}).",
            word.to_uppercase()
        ));
    }
    let name = sql::name(token, sql).unwrap_or_default();
    if context.temporary.contains(&name) {
        return Err("It reads a temporary table.".to_owned());
    }
    let is = |at: Option<usize>, byte: u8| {
        at.and_then(|at| tokens.get(at))
            .is_some_and(|token| token.kind == TokenKind::Punct(byte))
    };
    let called = is(Some(at + 1), b'(');
    for function in context.relations.functions_named(&name) {
        // Without parentheses, after a row's name, it can only be a user's: `row.function`.
        if called || &*function.schema != "pg_catalog" {
            computes(&name, function)?;
        }
    }
    let qualifier = at
        .checked_sub(2)
        .filter(|_| is(at.checked_sub(1), b'.'))
        .and_then(|at| tokens.get(at))
        .and_then(|token| sql::name(token, sql));
    relation(&name, qualifier.as_deref(), called, context)
}

fn relation(
    name: &str,
    qualifier: Option<&str>,
    called: bool,
    context: &Context<'_>,
) -> Result<Option<TableName>, String> {
    let relations = context.relations;
    let qualified = qualifier.and_then(|schema| relations.get(schema, name));
    let resolved = match qualified {
        Some(relation) => Resolved::Known(relation),
        None => relations.resolve(context.search_path, None, name),
    };
    match resolved {
        Resolved::Known(relation) if relation.kind == RelationKind::Sequence => {
            Err("It reads a sequence.".to_owned())
        }
        Resolved::Known(relation) => Ok(Some(relation.name.clone())),
        // Functions begin like that, too.
        Resolved::Catalog if called => Ok(None),
        Resolved::Catalog => {
            Err("It reads the system catalogue, which differs from shard to shard.".to_owned())
        }
        Resolved::Unknown if relations.is_configured(name) => {
            Err(format!("\"{name}\" is not known to the router."))
        }
        Resolved::Unknown => Ok(None),
    }
}

/// Whether a function does nothing but compute a result from its arguments.
fn computes(name: &str, function: &Function) -> Result<(), String> {
    let builtin = &*function.schema == "pg_catalog";
    if function.reads_sharded.is_some() || function.reads_unsharded || function.dynamic {
        return Err(format!("Function \"{name}\" reads tables by itself."));
    }
    if builtin && (runs_text(name) || reads_catalogue(name)) {
        return Err(format!("Function \"{name}\" reads tables by itself."));
    }
    let harmless = builtin && only_computes(name);
    if function.volatility == Volatility::Volatile && !harmless || !function.changes.is_empty() {
        return Err(format!("Function \"{name}\" may change something."));
    }
    Ok(())
}
