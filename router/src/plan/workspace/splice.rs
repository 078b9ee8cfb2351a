//! Texts as they run in a workspace: where they name a schema of something that is made there, it is PostgreSQL's name for
//! the session's temporary one.

use std::borrow::Cow;
use std::ops::Range;

use switchyard_schema::TableName;

use crate::plan::edits::Edits;
use crate::plan::parse;
use crate::relations::Relations;
use crate::sql::{self, Token, TokenKind};

/// PostgreSQL's alias for a session's own temporary schema.
const TEMPORARY: &[u8] = b"pg_temp";

/// The text with the schemas of relations that are `moved` replaced, and these places.
pub(super) fn into_workspace(
    sql: &[u8],
    moved: &dyn Fn(&TableName) -> bool,
    places: Vec<(Range<usize>, Vec<u8>)>,
) -> Vec<u8> {
    let schemas = mentions(sql, &all_tokens(sql)).into_iter();
    let schemas = schemas.filter(|(_, name)| moved(name)).map(|(schema, _)| {
        let place = schema.start as usize..schema.end as usize;
        (place, TEMPORARY.to_vec())
    });
    Edits::new(schemas.chain(places).collect()).apply(sql)
}

/// Where the text names the schemas of relations that are `given`, with the dot behind: a common table expression has none. `None` if
/// something stands before one, as a database's name.
pub(in crate::plan) fn schemas(
    sql: &[u8],
    given: &dyn Fn(&TableName) -> bool,
) -> Option<Vec<Range<usize>>> {
    let tokens = all_tokens(sql);
    let found = mentions(sql, &tokens).into_iter();
    let found = found.filter(|(_, name)| given(name));
    let place = |(schema, _): (Token, TableName)| {
        let at = tokens
            .iter()
            .position(|token| token.start == schema.start)?;
        let before = at.checked_sub(1).and_then(|at| tokens.get(at));
        let name = tokens.get(at + 2)?;
        let whole = before.is_none_or(|token| token.kind != TokenKind::Punct(b'.'));
        whole.then_some(schema.start as usize..name.start as usize)
    };
    found.map(place).collect()
}

/// The text with the relations for which there is another text replaced by it, as a subquery with the relation's name where it
/// has no other.
pub(super) fn with_subqueries(sql: &str, instead: &dyn Fn(&TableName) -> Option<String>) -> String {
    let bytes = sql.as_bytes();
    let tokens = all_tokens(bytes);
    let (mut text, mut copied) = (String::with_capacity(2 * sql.len()), 0);
    for at in 0..tokens.len() {
        let Some((first, name)) = mention(bytes, tokens.get(at..).unwrap_or_default()) else {
            continue;
        };
        let (Some(query), Some(last)) = (instead(&name), tokens.get(at + 2)) else {
            continue;
        };
        let next = tokens.get(at + 3);
        let alias = match next.is_some_and(|next| is_alias(bytes, next)) {
            true => String::new(),
            false => format!(" {}", String::from_utf8_lossy(last.text(bytes))),
        };
        text.push_str(sql.get(copied..first.start as usize).unwrap_or_default());
        text.push_str(&format!("({query}){alias}"));
        copied = last.end as usize;
    }
    text.push_str(sql.get(copied..).unwrap_or_default());
    text
}

/// What may follow a relation in a FROM of PostgreSQL's printing and is no alias; it quotes names that are such words.
const AFTER_RELATION: &[&str] = &[
    "cross",
    "except",
    "fetch",
    "for",
    "full",
    "group",
    "having",
    "inner",
    "intersect",
    "join",
    "left",
    "limit",
    "natural",
    "offset",
    "on",
    "order",
    "right",
    "tablesample",
    "union",
    "using",
    "where",
    "window",
];

fn is_alias(sql: &[u8], token: &Token) -> bool {
    match token.kind {
        TokenKind::QuotedIdent | TokenKind::UnicodeIdent => true,
        TokenKind::Word => !AFTER_RELATION.iter().any(|word| token.is_word(sql, word)),
        TokenKind::String
        | TokenKind::OtherString
        | TokenKind::Integer
        | TokenKind::Decimal
        | TokenKind::OtherNumber
        | TokenKind::Param
        | TokenKind::Operator
        | TokenKind::Punct(_) => false,
    }
}

/// The relations that a text, in which every name is qualified, mentions.
pub(super) fn qualified(sql: &[u8], relations: &Relations) -> Vec<TableName> {
    let mut names: Vec<TableName> = Vec::new();
    for (_, name) in mentions(sql, &all_tokens(sql)) {
        if relations.get(&name.schema, &name.name).is_some() && !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// The names of the functions that a text calls, and of what else stands before a parenthesis.
pub(super) fn calls(sql: &[u8]) -> Vec<String> {
    let tokens = all_tokens(sql);
    let call = |pair: &[Token]| match pair {
        [name, next] if next.kind == TokenKind::Punct(b'(') => sql::name(name, sql),
        _ => None,
    };
    let names = tokens.windows(2).filter_map(call);
    names.map(Cow::into_owned).collect()
}

/// Whether a name that qualifies is also used by itself, as for an alias: then `a.b` may be no schema's.
pub(super) fn is_ambiguous(
    sql: &[u8],
    tokens: &[Token],
    moved: &dyn Fn(&TableName) -> bool,
) -> bool {
    let qualifiers: Vec<TableName> = mentions(sql, tokens)
        .into_iter()
        .map(|(_, name)| name)
        .filter(|name| moved(name))
        .collect();
    let alone = |(at, token): (usize, &Token)| {
        let next = tokens.get(at + 1).map(|token| token.kind);
        let name = sql::name(token, sql).filter(|_| next != Some(TokenKind::Punct(b'.')));
        name.is_some_and(|name| qualifiers.iter().any(|qualified| qualified.schema == name))
    };
    !qualifiers.is_empty() && tokens.iter().enumerate().any(alone)
}

/// Every token of a text.
pub(super) fn all_tokens(sql: &[u8]) -> Vec<Token> {
    let end = u32::try_from(sql.len()).unwrap_or(u32::MAX);
    // What is spliced has been planned, so it can be cut into tokens.
    parse::tokens(sql, 0..end).unwrap_or_default()
}

/// Every `schema.name` in the text that is no call: the schema's token, and the name.
fn mentions(sql: &[u8], tokens: &[Token]) -> Vec<(Token, TableName)> {
    (0..tokens.len())
        .filter_map(|at| mention(sql, tokens.get(at..)?))
        .collect()
}

/// The `schema.name` that the tokens begin with, if it is no call.
fn mention(sql: &[u8], tokens: &[Token]) -> Option<(Token, TableName)> {
    let [schema, dot, name, rest @ ..] = tokens else {
        return None;
    };
    let called = rest
        .first()
        .is_some_and(|next| next.kind == TokenKind::Punct(b'('));
    if dot.kind != TokenKind::Punct(b'.') || called {
        return None;
    }
    let (schema_name, name) = (sql::name(schema, sql)?, sql::name(name, sql)?);
    Some((*schema, TableName::new(schema_name, name)))
}

#[cfg(test)]
mod tests {
    use super::{into_workspace, is_ambiguous};
    use crate::plan::parse;
    use switchyard_schema::TableName;

    fn spliced(sql: &str) -> String {
        let moved = |name: &TableName| *name == TableName::new("public", "orders");
        String::from_utf8(into_workspace(sql.as_bytes(), &moved, Vec::new())).unwrap()
    }

    #[test]
    fn schemas_of_what_is_moved_are_replaced() {
        let text = "SELECT public.orders.id, 'public.orders' FROM \"public\" . Orders JOIN public.users u ON public.orders(1)";
        let expected = "SELECT pg_temp.orders.id, 'public.orders' FROM pg_temp . Orders JOIN public.users u ON public.orders(1)";
        assert_eq!(spliced(text), expected);
        assert_eq!(spliced("SELECT * FROM orders"), "SELECT * FROM orders");
        assert_eq!(
            spliced("SELECT * FROM shop.public.orders"),
            "SELECT * FROM shop.pg_temp.orders"
        );
    }

    #[test]
    fn an_alias_like_a_schema_is_noticed() {
        let moved = |name: &TableName| name.schema == "public" && name.name == "orders";
        let ambiguous = |sql: &str| {
            let end = u32::try_from(sql.len()).unwrap();
            is_ambiguous(
                sql.as_bytes(),
                &parse::tokens(sql.as_bytes(), 0..end).unwrap(),
                &moved,
            )
        };
        assert!(ambiguous("SELECT public.orders FROM t AS public"));
        assert!(!ambiguous("SELECT public.orders.id FROM public.orders"));
        assert!(!ambiguous("SELECT public.other FROM t AS public"));
    }
}
