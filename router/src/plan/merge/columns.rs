//! What the shards' rows contain besides the columns of the result.

use super::clauses::{Clauses, Run};
use crate::merge::{Combine, Group, SortKey};
use crate::plan::analyse::root::{Aggregate, Partial, Root, RootKey};
use crate::plan::types::Typed;
use crate::sql::TokenKind;

/// A column of ours: what is made of an expression of the client's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Extra {
    pub(super) run: Run,
    pub(super) made: Made,
}

/// What is made of an expression.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Made {
    /// Nothing.
    Itself,
    /// A call of this function of PostgreSQL's.
    Call(&'static str),
    /// The same bytes, compared as such.
    Collated,
    /// Of a call, the call of this function of PostgreSQL's instead.
    Instead(&'static str),
}

/// A column that the shards order by.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ordered {
    /// How its values are compared here.
    pub(super) key: SortKey,
    /// What they order by: the position, from 1.
    pub(super) ordinal: u16,
}

/// The columns of the shards' rows.
#[derive(Debug)]
pub(super) struct Columns<'a> {
    root: &'a Root,
    clauses: &'a Clauses<'a>,
    extras: Vec<Extra>,
    combine: Vec<(u16, Combine)>,
}

impl<'a> Columns<'a> {
    pub(super) fn new(root: &'a Root, clauses: &'a Clauses<'a>) -> Columns<'a> {
        Columns {
            root,
            clauses,
            extras: Vec::new(),
            combine: Vec::new(),
        }
    }

    /// The columns of the result.
    pub(super) fn shown(&self) -> u16 {
        u16::try_from(self.root.columns.len()).unwrap_or(u16::MAX)
    }

    /// How many columns there are besides.
    pub(super) fn extras_len(&self) -> u16 {
        u16::try_from(self.extras.len()).unwrap_or(u16::MAX)
    }

    pub(super) fn extras(&self) -> &[Extra] {
        &self.extras
    }

    pub(super) fn group(&self) -> Group {
        Group {
            combine: self.combine.clone(),
        }
    }

    /// The column of an extra, added if it is not there.
    fn extra(&mut self, run: Run, made: Made) -> Option<u16> {
        let extra = Extra { run, made };
        let known = self.extras.iter().position(|known| *known == extra);
        let at = known.unwrap_or(self.extras.len());
        if known.is_none() {
            self.extras.push(extra);
        }
        // PostgreSQL takes 1,664 columns.
        let column = self.root.columns.len() + at;
        u16::try_from(column).ok().filter(|column| *column < 1_600)
    }

    /// A key of ORDER BY, by its position.
    pub(super) fn by_order(&mut self, at: usize) -> Option<Ordered> {
        let key = self.root.order.get(at)?;
        let run = self.clauses.order.get(at)?.clone();
        if !key.typed?.is_ordered() {
            return None;
        }
        self.ordered(key, run)
    }

    /// The column of a key of ORDER BY whatever its type.
    pub(super) fn position(&mut self, at: usize) -> Option<u16> {
        let key = self.root.order.get(at)?;
        match key.column {
            Some(column) => u16::try_from(column).ok(),
            None if key.selectable => self.extra(self.clauses.order.get(at)?.clone(), Made::Itself),
            None => None,
        }
    }

    /// A key of GROUP BY, by its position.
    pub(super) fn by_group(&mut self, at: usize) -> Option<Ordered> {
        let key = self.root.group.get(at)?;
        let run = self.clauses.group.get(at)?.clone();
        key.typed?.is_grouped().then(|| self.ordered(key, run))?
    }

    /// A column of the result, by its position.
    pub(super) fn by_column(&mut self, at: usize) -> Option<Ordered> {
        let column = self.root.columns.get(at)?;
        let key = RootKey {
            column: Some(at),
            selectable: false,
            input: column.output.column,
            typed: column.output.typed,
            partial: column.partial,
            descending: false,
            nulls_first: false,
        };
        key.typed?.is_grouped().then(|| self.ordered(&key, 0..0))?
    }

    /// A column by which equal values are found, in PostgreSQL's order if it has one the router knows.
    fn ordered(&mut self, key: &RootKey, own: Run) -> Option<Ordered> {
        let typed = key.typed?;
        let position = |column: usize| u16::try_from(column).ok();
        let source = self.source(key, own);
        let (column, ordinal, sent) = if !typed.is_ordered() {
            let extra = self.extra(source.clone()?, Made::Collated)?;
            (extra, extra, false)
        } else {
            let plain = match key.column {
                Some(column) => position(column)?,
                None => self.extra(source.clone()?, Made::Itself)?,
            };
            match typed.send() {
                None => (plain, plain, false),
                Some(send) => (self.extra(source.clone()?, Made::Call(send))?, plain, true),
            }
        };
        if key.column.is_none()
            && let Some(partial) = key.partial
        {
            self.combine(ordinal, partial, source?)?;
        }
        Some(Ordered {
            key: SortKey {
                column,
                kind: typed.kind(),
                sent,
                descending: key.descending,
                nulls_first: key.nulls_first,
            },
            ordinal: ordinal + 1,
        })
    }

    /// The text that computes a key, in the select list.
    fn source(&self, key: &RootKey, own: Run) -> Option<Run> {
        if key.selectable {
            return Some(own);
        }
        let column = self.root.columns.get(key.column?)?;
        let item = self.clauses.items.get(column.item)?;
        (!column.wildcard).then(|| item.clone())
    }

    /// Combines every column of the result that is an aggregate; the others must be the same in all of a group.
    pub(super) fn combine_all(&mut self) -> Option<()> {
        for (at, column) in self.root.columns.iter().enumerate() {
            match column.partial {
                Some(partial) => {
                    let run = self.clauses.items.get(column.item)?.clone();
                    self.combine(u16::try_from(at).ok()?, partial, run)?;
                }
                // A function might make several rows of one, or compute on an aggregate.
                None if !column.plain && !self.is_grouped_by(at) => return None,
                None => {}
            }
        }
        Some(())
    }

    fn is_grouped_by(&self, at: usize) -> bool {
        self.root.group.iter().any(|key| key.column == Some(at))
    }

    /// Combines a column of partial results, which the call at `run` computes.
    fn combine(&mut self, column: u16, partial: Partial, run: Run) -> Option<()> {
        if self.combine.iter().any(|(known, _)| *known == column) {
            return Some(());
        }
        let Partial { function, typed } = partial;
        let combine = match function {
            Aggregate::Count => Combine::SumInt8,
            Aggregate::Sum if typed == Typed::INT8 => Combine::SumInt8,
            Aggregate::Sum => Combine::SumNumeric,
            Aggregate::Average(whole) => {
                self.is_call(&run)?;
                Combine::Average {
                    sum: self.extra(run.clone(), Made::Instead("sum"))?,
                    whole,
                    count: self.extra(run, Made::Instead("count"))?,
                }
            }
            Aggregate::Least | Aggregate::Greatest => {
                let sent = match typed.send() {
                    Some(send) => Some(self.extra(run, Made::Call(send))?),
                    None => None,
                };
                let first = Combine::First(SortKey {
                    column: sent.unwrap_or(column),
                    kind: typed.kind(),
                    sent: sent.is_some(),
                    descending: function == Aggregate::Greatest,
                    nulls_first: false,
                });
                self.combine.extend(sent.map(|sent| (sent, first)));
                first
            }
            Aggregate::And => Combine::And,
            Aggregate::Or => Combine::Or,
            Aggregate::BitAnd => Combine::BitAnd(typed.kind()),
            Aggregate::BitOr => Combine::BitOr(typed.kind()),
            Aggregate::BitXor => Combine::BitXor(typed.kind()),
        };
        self.combine.push((column, combine));
        Some(())
    }

    /// Whether a run is a call and nothing around it, so that another name can stand before its parenthesis.
    fn is_call(&self, run: &Run) -> Option<()> {
        let tokens = self.clauses.tokens.get(run.clone())?;
        let is_open = |kind: TokenKind| kind == TokenKind::Punct(b'(');
        (!is_open(tokens.first()?.kind)).then_some(())
    }
}
