//! Expressions in statements that are not parsed: whether each shard would compute something else than one server for its rows.

use super::Planner;
use crate::relations::{Function, Volatility, differs, is_momentary, is_own};
use crate::sql::{self, Token, TokenKind};

impl Planner<'_> {
    /// A function called among the tokens of which each shard would compute a value of its own. Those that give each row a value of its own do
    /// not count, unless every shard has a copy of the row.
    pub(super) fn computed_apart(&self, tokens: &[Token], copies: bool) -> Option<String> {
        let apart = |at: usize, token: &Token| {
            let name = sql::name(token, self.sql)?;
            let behind = tokens.get(at + 1).map(|token| token.kind);
            let called = behind == Some(TokenKind::Punct(b'('));
            let bare = token.kind == TokenKind::Word && is_bare_moment(&name);
            let known = self.context.relations.functions_named(&name);
            let found = bare || called && known.iter().any(|known| is_apart(known, &name, copies));
            found.then(|| name.into_owned())
        };
        let mut tokens = tokens.iter().enumerate();
        tokens.find_map(|(at, token)| apart(at, token))
    }
}

/// The time, without parentheses.
fn is_bare_moment(name: &str) -> bool {
    is_momentary(name) && (name.starts_with("current_") || name.starts_with("localtime"))
}

fn is_apart(function: &Function, name: &str, copies: bool) -> bool {
    if !function.is_builtin(name) {
        return function.volatility != Volatility::Immutable
            || function.reads_sharded.is_some()
            || function.reads_unsharded
            || function.dynamic;
    }
    match function.volatility {
        Volatility::Immutable => false,
        Volatility::Stable => differs(name),
        Volatility::Volatile => copies || !is_own(name),
    }
}
