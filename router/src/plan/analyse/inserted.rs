//! What is noted of the rows of an INSERT that is the whole statement and has a list of them: they are divided among the shards.

use postgres_protocol::escape::escape_identifier;
use sqlparser::ast::Expr;

use super::write::{WriteTarget, is_default};
use super::{Analyser, Inserted, KeyColumn, SequenceColumn};
use crate::plan::overriding::Overriding;
use crate::relations::{Column, DefaultValue};

impl Analyser<'_> {
    /// Takes note of the rows, if the statement is nothing but their INSERT.
    pub(super) fn inserted(
        &mut self,
        rows: &[&[Expr]],
        target: WriteTarget<'_>,
        listed: &[String],
        returns: bool,
    ) {
        let Some(folded) = self.folded else {
            return;
        };
        let mut inserted = inserted(rows, target, listed, self.overriding);
        inserted.returns = returns;
        inserted.calls = folded.calls();
        inserted.calls_sequences = self.analysis.sequence_values.is_some();
        inserted.takes_next |= inserted.calls_sequences;
        if inserted.calls_sequences && folded.is_shorter() {
            // Rows that are alike may name others.
            self.uses_unseen_sequences();
        }
        self.analysis.inserted = Some(inserted);
    }
}

/// What is known of rows for these columns.
fn inserted(
    rows: &[&[Expr]],
    target: WriteTarget<'_>,
    listed: &[String],
    overrides: Option<Overriding>,
) -> Inserted {
    let width = rows.first().map_or(0, |row| row.len());
    let all = target
        .relation
        .map_or(&[][..], |relation| &relation.columns);
    let is_short = match listed {
        [] => width > all.len(),
        listed => width != listed.len(),
    };
    let mut inserted = Inserted {
        returns: false,
        ragged: is_short || rows.iter().any(|row| row.len() != width),
        calls: false,
        overrides,
        added: Vec::new(),
        replaced: Vec::new(),
        columns: None,
        key: None,
        sequences: Vec::new(),
        takes_next: false,
        calls_sequences: false,
    };
    let key = target.sharding().map(|(_, sharding)| sharding.column);
    for (at, column) in all.iter().enumerate() {
        let position = match listed {
            [] => Some(at).filter(|at| *at < width),
            listed => listed.iter().position(|name| *name == column.name),
        };
        let stored = position.filter(|_| !Overriding::ignores(overrides, column));
        let takes_next = key.is_some() && takes_next(column, stored, rows);
        inserted.takes_next |= takes_next;
        if key == Some(at) {
            inserted.key = Some(KeyColumn {
                name: escape_identifier(&column.name),
                position,
                default: column.expression.clone(),
                is_identity: matches!(column.default, DefaultValue::Identity),
            });
            continue;
        }
        let Some(expression) = &column.expression else {
            continue;
        };
        if takes_next {
            inserted.sequences.push(SequenceColumn {
                name: escape_identifier(&column.name),
                position,
                next: expression.clone(),
                is_identity: column.default == DefaultValue::Identity,
            });
        }
        if column.default != DefaultValue::Moment {
            continue;
        }
        match position {
            Some(position) => inserted.replaced.push((position, expression.clone())),
            None => {
                let name = escape_identifier(&column.name);
                inserted.added.push((name, expression.clone()));
            }
        }
    }
    if listed.is_empty() {
        let given = all.iter().take(width);
        inserted.columns = Some(
            given
                .map(|column| escape_identifier(&column.name))
                .collect(),
        );
    }
    inserted
}

/// Whether the column, at this position of the rows, takes the next value of a sequence in some row.
fn takes_next(column: &Column, position: Option<usize>, rows: &[&[Expr]]) -> bool {
    let in_row = |row: &&[Expr]| match position.and_then(|position| row.get(position)) {
        Some(value) => is_default(value),
        None => true,
    };
    let from_sequence = matches!(
        column.default,
        DefaultValue::Sequence | DefaultValue::Identity
    );
    from_sequence && rows.iter().any(in_row)
}
