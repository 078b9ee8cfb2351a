//! The workspace of a read that is not understood, judged by the names in it.
//!
//! Wherever a name stands, it may be a relation or a function: every relation of that name is fetched, with all columns, and a
//! function that may do more than compute leaves the statement without a workspace. More may be fetched than is read, never
//! less.

use std::collections::HashSet;

use switchyard_schema::TableName;

use super::needs::Uses;
use super::{Making, Workspace, same_names, splice};
use crate::plan::Context;
use crate::plan::analyse::{only_computes, reads_catalogue};
use crate::relations::{Function, RelationKind, Resolved, Volatility, runs_text};
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
    let names = Names::of_query(sql, tokens, context)?;
    let mut making = Making {
        context,
        uses: &Uses::whole(names.only.clone()),
        workspace: Workspace {
            reason,
            ..Workspace::default()
        },
        open: Vec::new(),
    };
    making.whole(&names.read, &names.only)?;
    making.inside(&names.read_inside)?;
    let workspace = making.workspace;
    same_names(&workspace)?;
    if splice::is_ambiguous(sql, tokens, &|name| workspace.makes(name)) {
        return Err("A schema's name is also another name in it.".to_owned());
    }
    Ok(workspace)
}

/// The relations that a function reads which runs this text as a query, by their names alone; `Err` if it may do more.
pub(in crate::plan) fn read_by_text(
    text: &str,
    context: &Context<'_>,
) -> Result<Vec<TableName>, String> {
    let sql = text.as_bytes();
    let tokens = splice::all_tokens(sql);
    let names = Names::of_query(sql, &tokens, context)?;
    if !names.only.is_empty() {
        return Err(
            "The text it runs reads a table without what inherits from it (ONLY).".to_owned(),
        );
    }
    if !splice::qualified(sql, context.relations).is_empty() {
        return Err("The text it runs names a schema.".to_owned());
    }
    Ok([names.read, names.read_inside].concat())
}

/// What the names in a statement may mean.
#[derive(Default)]
struct Names {
    /// Relations.
    read: Vec<TableName>,
    /// Relations that functions read by themselves.
    read_inside: Vec<TableName>,
    /// Those that are read without what inherits from them.
    only: HashSet<String>,
}

impl Names {
    fn of_query(sql: &[u8], tokens: &[Token], context: &Context<'_>) -> Result<Names, String> {
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
        let uses = Uses::of_tokens(sql, tokens)?;
        let mut names = Names {
            only: uses.only().clone(),
            ..Names::default()
        };
        for at in 0..tokens.len() {
            names.token(sql, tokens, at, context)?;
        }
        Ok(names)
    }

    fn token(
        &mut self,
        sql: &[u8],
        tokens: &[Token],
        at: usize,
        context: &Context<'_>,
    ) -> Result<(), String> {
        let Some(token) = tokens.get(at) else {
            return Ok(());
        };
        match token.kind {
            TokenKind::Word | TokenKind::QuotedIdent => {}
            TokenKind::UnicodeIdent => return Err("A name in it is written in escapes.".to_owned()),
            TokenKind::String
            | TokenKind::OtherString
            | TokenKind::Integer
            | TokenKind::Decimal
            | TokenKind::OtherNumber
            | TokenKind::Param
            | TokenKind::Operator
            | TokenKind::Punct(_) => return Ok(()),
        }
        if let Some(word) = DOING.iter().find(|word| token.is_word(sql, word)) {
            return Err(format!(
                "It may do more than read ({}).",
                word.to_uppercase()
            ));
        }
        let name = sql::name(token, sql).unwrap_or_default();
        if context.temporary.iter().any(|temporary| *temporary == name) {
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
                self.read_inside
                    .extend(read_by(&name, function)?.into_iter().cloned());
            }
        }
        let qualifier = at
            .checked_sub(2)
            .filter(|_| is(at.checked_sub(1), b'.'))
            .and_then(|at| tokens.get(at))
            .and_then(|token| sql::name(token, sql));
        self.read
            .extend(relation(&name, qualifier.as_deref(), called, context)?);
        Ok(())
    }
}

/// What TABLESAMPLE names: nothing else can call them.
const SAMPLING: [&str; 2] = ["bernoulli", "system"];

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

/// What a function reads; `Err` if it may do more.
fn read_by<'f>(name: &str, function: &'f Function) -> Result<Vec<&'f TableName>, String> {
    if let Some(tables) = &function.reads {
        return Ok(tables.iter().collect());
    }
    let builtin = &*function.schema == "pg_catalog";
    let reads = function.reads_sharded.is_some() || function.reads_unsharded || function.dynamic;
    if reads || builtin && (runs_text(name) || reads_catalogue(name)) {
        return Err(format!("Function \"{name}\" reads tables by itself."));
    }
    let harmless = builtin && (only_computes(name) || SAMPLING.contains(&name));
    if function.volatility == Volatility::Volatile && !harmless || !function.changes.is_empty() {
        return Err(format!("Function \"{name}\" may change something."));
    }
    Ok(Vec::new())
}
