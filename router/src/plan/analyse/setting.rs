//! `set_config`: which setting it changes, and whether that is certain before the statement has run.

use sqlparser::ast::{Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments};

use super::{Analyser, Stop};
use crate::plan::route::{KeyExpr, Source};
use crate::plan::setting::{of_code, unfollowed};
use crate::plan::{Argument, Pin, Setting};
use crate::relations::Changes;
use crate::sql::{LiteralKind, Token, TokenKind};

/// Words between the calls of a select list whose evaluation is certain, and its end.
const CLAUSES: &[&str] = &[
    "case",
    "except",
    "fetch",
    "for",
    "from",
    "group",
    "having",
    "intersect",
    "limit",
    "offset",
    "order",
    "union",
    "where",
    "window",
];

impl<'a> Analyser<'a> {
    /// `set_config(name, value, is_local)`.
    pub(super) fn set_config(&mut self, function: &'a Function) -> Result<(), Stop> {
        let FunctionArguments::List(list) = &function.args else {
            return Ok(());
        };
        let arguments: Vec<&Expr> = list
            .args
            .iter()
            .filter_map(|arg| match arg {
                FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr),
                _ => None,
            })
            .collect();
        let [name, value, local] = arguments.as_slice() else {
            return Err(Stop::Opaque("set_config with odd arguments"));
        };
        let name = match self.argument(name) {
            Some(name) => Some(name),
            None => self.setting_of_pg_settings(name).map(Argument::Text),
        };
        let Some(name) = name else {
            return Err(unfollowed("a setting whose name is not known").into());
        };
        let certain = self.is_plain_select();
        let value = self.argument(value).filter(|_| certain);
        let local = self.argument(local);
        self.analysis.settings.push(Setting { name, value, local });
        Ok(())
    }

    /// The code that runs may change settings.
    pub(super) fn changes(&mut self, changes: &Changes) -> Result<(), Stop> {
        if changes.unseen {
            self.analysis.effects.pins.insert(Pin::Setting);
        }
        for setting in of_code(changes)? {
            if !self.analysis.settings.contains(&setting) {
                self.analysis.settings.push(setting);
            }
        }
        Ok(())
    }

    fn argument(&self, expr: &Expr) -> Option<Argument> {
        let KeyExpr { source, casts, .. } = self.key_expr(expr)?;
        let textual = |cast: &switchyard_schema::KeyType| {
            matches!(
                cast,
                switchyard_schema::KeyType::Text | switchyard_schema::KeyType::Bool
            )
        };
        if !casts.iter().all(textual) {
            return None;
        }
        match source {
            Source::Literal {
                slot,
                kind: LiteralKind::String,
            } => Some(Argument::Slot(slot)),
            Source::Literal { .. } => None,
            Source::Param { number, .. } => Some(Argument::Param(number)),
            Source::Bool(value) => Some(Argument::Bool(value)),
            Source::Null => Some(Argument::Null),
            Source::Computed => None,
        }
    }

    /// The text that an argument is, if it is a constant; the plan is then for this constant only.
    pub(super) fn constant_text(&mut self, expr: &Expr) -> Option<String> {
        let Some(Argument::Slot(slot)) = self.argument(expr) else {
            return None;
        };
        self.text_in(slot)
    }

    /// What stands between the quotes of a literal; the plan is then for this literal only.
    pub(super) fn text_in(&mut self, slot: u32) -> Option<String> {
        let span = &self.scan.literals.get(slot as usize)?.span;
        let inside = span.start as usize + 1..(span.end as usize).checked_sub(1)?;
        let text = std::str::from_utf8(self.sql.get(inside)?).ok()?;
        self.analysis.guards.push(slot);
        Some(text.replace("''", "'"))
    }

    /// Whether the statement is a bare list of expressions, and every set_config in it is one of them or stands at its
    /// beginning: each is called once.
    fn is_plain_select(&self) -> bool {
        let word = |token: &Token, word: &str| token.is_word(self.sql, word);
        if !self
            .tokens
            .first()
            .is_some_and(|first| word(first, "select"))
        {
            return false;
        }
        let mut depth = 0_usize;
        for (position, token) in self.tokens.iter().enumerate() {
            match token.kind {
                TokenKind::Punct(b'(' | b'[') => depth += 1,
                TokenKind::Punct(b')' | b']') => depth = depth.saturating_sub(1),
                _ if word(token, "set_config") => {
                    let before = self.tokens.get(..position).unwrap_or_default();
                    let before = match before {
                        [before @ .., schema, dot]
                            if word(schema, "pg_catalog") && dot.text(self.sql) == b"." =>
                        {
                            before
                        }
                        _ => before,
                    };
                    let begins = before.last().is_some_and(|last| {
                        last.kind == TokenKind::Punct(b',') || word(last, "select")
                    });
                    if depth > 0 || !begins {
                        return false;
                    }
                }
                _ if depth == 0 && CLAUSES.iter().any(|clause| word(token, clause)) => {
                    return false;
                }
                _ => {}
            }
        }
        true
    }

    /// The setting in `SELECT set_config(name, …) FROM pg_settings WHERE name = '…'`, which pg_dump says.
    fn setting_of_pg_settings(&mut self, setting: &Expr) -> Option<String> {
        let Expr::Identifier(ident) = setting else {
            return None;
        };
        let [.., from, table, condition, column, equal, value] = self.tokens else {
            return None;
        };
        let word = |token: &Token, word: &str| token.is_word(self.sql, word);
        let pattern = ident.value == "name"
            && word(from, "from")
            && word(table, "pg_settings")
            && word(condition, "where")
            && word(column, "name")
            && equal.text(self.sql) == b"=";
        let slot = self.scan.literals.len().checked_sub(1)?;
        let literal = self
            .scan
            .literals
            .get(slot)
            .filter(|literal| literal.span.start == value.start)?;
        if !pattern || literal.kind != LiteralKind::String {
            return None;
        }
        let text = self
            .sql
            .get(literal.span.start as usize + 1..literal.span.end as usize - 1)?;
        self.analysis.guards.push(u32::try_from(slot).ok()?);
        std::str::from_utf8(text).ok().map(str::to_owned)
    }
}
