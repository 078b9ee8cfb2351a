//! Views that show rows of one table as they are, each with its shard key: they are read and written as the table is.
//!
//! PostgreSQL says which views it writes through. Of those the columns are taken from the view's query as PostgreSQL prints it; what the rows
//! depend on besides must be the row.

use std::collections::HashSet;

use super::Builder;
use crate::relations::code::calls;
use crate::relations::introspect::RelationRow;
use crate::relations::{Column, Placement, Relation, RelationKind, Sharding, Shown, Volatility};
use crate::sql::{self, Lexer, Token, TokenKind};

/// Functions of PostgreSQL's that are not immutable, and say the same on every connection of a session.
const OF_THE_SESSION: [&str; 4] = [
    "current_role",
    "current_setting",
    "current_user",
    "session_user",
];

impl Builder<'_> {
    /// Finds what views show; views of views after those that they show.
    pub(super) fn shown(&mut self) {
        let mut rows: Vec<&RelationRow> = self.found.relations.iter().collect();
        rows.retain(|row| row.updatable && !row.rules);
        loop {
            let before = rows.len();
            rows.retain(|row| !self.shows(row));
            if rows.len() == before {
                return;
            }
        }
    }

    /// Makes a view one that shows a table, if it is and what it reads is known.
    fn shows(&mut self, row: &RelationRow) -> bool {
        let Some((table, columns)) = self.behind(row) else {
            return false;
        };
        let (table, given) = (table.clone(), self.given_defaults(row));
        let Some(view) = self.relations.get_mut(&row.oid) else {
            return false;
        };
        let shown = columns.iter().flatten().copied();
        let shown: HashSet<usize> = shown.collect();
        let mut hidden: Vec<Column> = match &table.shows {
            Some(inner) => inner.hidden.clone(),
            None => Vec::new(),
        };
        let rest = table.columns.iter().enumerate();
        hidden.extend(
            rest.filter(|(at, _)| !shown.contains(at))
                .map(|(_, column)| column.clone()),
        );
        for (column, of) in view.columns.iter_mut().zip(&columns) {
            let Some(of) = of.and_then(|at| table.columns.get(at)) else {
                continue;
            };
            column.not_null = of.not_null;
            if !given.contains(&column.name) {
                column.default = of.default;
                column.expression.clone_from(&of.expression);
            }
        }
        if let Placement::Sharded(of) = &table.placement {
            let key = columns.iter().position(|at| *at == Some(of.column));
            // Without the key nobody can tell where its rows are.
            let Some(column) = key else { return true };
            view.placement = Placement::Sharded(Sharding {
                column,
                map: of.map.clone(),
            });
        }
        view.unique_without_key = table.unique_without_key;
        view.unlogged = table.unlogged;
        view.triggers = table.triggers.clone();
        view.cascades = table.cascades.clone();
        view.policies = table.policies.clone();
        view.shows = Some(Shown {
            table: match table.shows {
                Some(inner) => inner.table,
                None => table.name,
            },
            hidden,
            defaults: given,
        });
        true
    }

    /// The one table whose rows a view shows, or a view that shows them, and which of its columns each of the view's is.
    fn behind(&self, row: &RelationRow) -> Option<(&Relation, Vec<Option<usize>>)> {
        let view = self.relations.get(&row.oid)?;
        if self
            .found
            .triggers
            .iter()
            .any(|own| own.relation == row.oid)
        {
            return None;
        }
        let mut used = None;
        for of in self.found.view_uses.iter().filter(|of| of.view == row.oid) {
            match (of.relation, of.function) {
                (Some(oid), _) if used.is_none_or(|used| used == oid) => used = Some(oid),
                (None, Some(code)) if !self.reads.contains_key(&code) => {}
                _ => return None,
            }
        }
        let table = self.relations.get(&used?)?;
        let is_plain = table.kind == RelationKind::Table || table.shows.is_some();
        let fits = match &table.placement {
            Placement::Sharded(_) => matches!(view.placement, Placement::ReadsSharded(_)),
            Placement::Reference | Placement::Unsharded => true,
            Placement::Catalog | Placement::ReadsSharded(_) | Placement::Broken(_) => false,
        };
        let definition = row.definition.as_deref()?;
        (is_plain && !table.rules && fits && self.depends_on_its_row(definition)).then_some(())?;
        let names = shown_columns(definition)?;
        (names.len() == view.columns.len()).then_some(())?;
        let columns = names.iter().map(|name| table.column(name.as_deref()?));
        Some((table, columns.collect()))
    }

    /// Whether a query calls nothing but functions of its rows and of what the session says.
    fn depends_on_its_row(&self, definition: &str) -> bool {
        calls(definition).all(|name| {
            let is_builtin = self.functions.get(&*name).is_none_or(|known| {
                let mut known = known.iter();
                known.all(|function| &*function.schema == "pg_catalog")
            });
            self.word_volatility(&name) == Volatility::Immutable
                || is_builtin && OF_THE_SESSION.contains(&&*name)
        })
    }

    /// The columns of a view that have defaults of their own.
    fn given_defaults(&self, row: &RelationRow) -> Vec<String> {
        let columns = self.found.columns.iter();
        let own = columns.filter(|column| column.relation == row.oid && column.default.is_some());
        own.map(|column| column.name.clone()).collect()
    }
}

/// The columns that a query of PostgreSQL's printing selects, if it has no query inside: the names of those that are nothing but columns.
fn shown_columns(definition: &str) -> Option<Vec<Option<String>>> {
    let sql = definition.as_bytes();
    let mut lexer = Lexer::new(sql);
    let mut tokens = Vec::new();
    while let Some(token) = lexer.next().ok()? {
        tokens.push(token);
    }
    let (first, rest) = tokens.split_first()?;
    let is = |token: &Token, word| token.is_word(sql, word);
    if !is(first, "select") || rest.iter().any(|token| is(token, "select")) {
        return None;
    }
    let (mut depth, mut start, mut items) = (0_usize, 0, Vec::new());
    for (at, token) in rest.iter().enumerate() {
        let ends = is(token, "from") || token.kind == TokenKind::Punct(b',');
        if matches!(token.kind, TokenKind::Punct(b'(' | b'[')) {
            depth += 1;
        } else if matches!(token.kind, TokenKind::Punct(b')' | b']')) {
            depth = depth.checked_sub(1)?;
        } else if ends && depth == 0 {
            items.push(column_of(rest.get(start..at)?, sql));
            start = at + 1;
            if is(token, "from") {
                return Some(items);
            }
        }
    }
    None
}

/// The column that an item of a list is, under whatever name.
fn column_of(item: &[Token], sql: &[u8]) -> Option<String> {
    let item = match item {
        [item @ .., word, _] if word.is_word(sql, "as") => item,
        item => item,
    };
    let column = match item {
        [column] => column,
        [_, dot, column] if dot.kind == TokenKind::Punct(b'.') => column,
        _ => return None,
    };
    sql::name(column, sql).map(std::borrow::Cow::into_owned)
}
