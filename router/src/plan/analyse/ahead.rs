//! Queries whose rows are given in their places, because they are computed ahead of the statement.

use sqlparser::ast::{Query, SetExpr};

use super::facts::ScopeId;
use super::names::{Found, Frame, Output};
use super::query::Features;
use super::{Analyser, Analysis, Instance, Stop};
use crate::plan::ahead::{Divided, Instead};
use crate::plan::parse::offset;

/// The columns of rows, whether there may be more, and whether it is not known which is the n-th.
type Columns = (Vec<Output>, bool, bool);

impl<'a> Analyser<'a> {
    /// What is known of a query whose rows are given; `None` if they are not, or it depends on what is around it.
    pub(super) fn given_instead(
        &mut self,
        query: &'a Query,
        scope: ScopeId,
    ) -> Option<(Vec<Output>, bool, Features)> {
        let known = !self.context.ahead.is_empty();
        let start = known.then(|| begins(query)).flatten()?;
        let (columns, open) = self.given_at(start, scope, |own, top| {
            let (columns, open, features) = own.query(query, top)?;
            Ok((columns, open, features.ragged))
        })?;
        Some((columns, open, Features::default()))
    }

    /// The same of what begins here in the text and is walked so.
    pub(super) fn given_at(
        &mut self,
        start: u32,
        scope: ScopeId,
        walk: impl FnOnce(&mut Self, ScopeId) -> Result<Columns, Stop>,
    ) -> Option<(Vec<Output>, bool)> {
        let all = self.context.ahead;
        let instead = all.iter().find(|instead| instead.start == start)?;
        if self.around.is_some() {
            return None;
        }
        let (mut columns, open, ragged) = self.by_itself(walk)?;
        for output in &mut columns {
            output.column = None;
        }
        let Instead { start, divided } = instead;
        if let Some(divided) = divided {
            self.divided(divided, (&mut columns, ragged), scope)?;
        }
        self.analysis.ahead.push(*start);
        Some((columns, open))
    }

    /// Each shard is given the rows of its own keys: they are as those of a table that is sharded so.
    fn divided(
        &mut self,
        divided: &Divided,
        (columns, ragged): (&mut [Output], bool),
        scope: ScopeId,
    ) -> Option<()> {
        let map = divided.map();
        let by = columns.get_mut(divided.column).filter(|_| !ragged)?;
        let key = self.analysis.facts.column(map.key_type().family(), scope);
        by.column = Some(key);
        self.analysis.instances.push(Instance {
            name: "the rows that are given".into(),
            map: map.clone(),
            key,
            scope,
            unique: Vec::new(),
        });
        Some(())
    }

    /// Walks a query as if it were all there is; `None` if it is not understood, or names something around it.
    fn by_itself(
        &mut self,
        walk: impl FnOnce(&mut Self, ScopeId) -> Result<Columns, Stop>,
    ) -> Option<Columns> {
        let own = Analysis {
            names_own_tables: self.analysis.names_own_tables,
            ..Analysis::default()
        };
        let analysis = std::mem::replace(&mut self.analysis, own);
        let frames = std::mem::take(&mut self.frames);
        let blocks = std::mem::take(&mut self.blocks);
        let ctes = self.ctes.clone();
        let outermost = self.outermost.take();
        let (outward, depth, in_from) = (self.outward, self.depth, self.in_from);
        self.around = Some(frames);
        self.strays = false;
        let top = self.analysis.facts.scope(None);
        let walked = walk(self, top);
        let frames = self.around.take();
        let own = std::mem::replace(&mut self.analysis, analysis);
        self.frames = frames.unwrap_or_default();
        self.blocks = blocks;
        self.outermost = outermost;
        (self.outward, self.depth, self.in_from) = (outward, depth, in_from);
        let used = self.ctes.iter().map(|cte| cte.used).collect::<Vec<_>>();
        self.ctes = ctes;
        for (cte, used) in self.ctes.iter_mut().zip(used) {
            cte.used |= used;
        }
        self.analysis.guards.extend(own.guards);
        walked.ok().filter(|_| !self.strays)
    }

    /// Takes note of a name that nothing in a query has which is walked by itself: it may be of what is around.
    pub(super) fn may_stray(&mut self, qualifier: Option<&str>, name: &str, found: Found) {
        let (Some(around), Found::Unknown) = (&self.around, found) else {
            return;
        };
        let items = around.iter().flat_map(|Frame { items, .. }| items);
        let has = |id: &usize| {
            let item = &self.items[*id];
            let named = |output: &Output| output.name.as_deref() == Some(name);
            match qualifier {
                Some(qualifier) => item.alias.as_deref() == Some(qualifier),
                None => {
                    item.open
                        || item.alias.as_deref() == Some(name)
                        || item.columns.iter().any(named)
                }
            }
        };
        self.strays |= items.into_iter().any(has);
    }
}

/// Where a query begins in the text, if the first word of it is its own; of VALUES, where its first row does.
fn begins(query: &Query) -> Option<u32> {
    if let Some(with) = &query.with {
        return Some(offset(with.with_token.0.span.start));
    }
    let mut body = &*query.body;
    while let SetExpr::SetOperation { left, .. } = body {
        body = left;
    }
    match body {
        SetExpr::Select(select) => Some(offset(select.select_token.0.span.start)),
        SetExpr::Values(values) => {
            // It has no place for the word itself.
            let first = values.rows.first()?;
            Some(offset(first.opening_token.0.span.start))
        }
        SetExpr::Query(_)
        | SetExpr::SetOperation { .. }
        | SetExpr::Insert(_)
        | SetExpr::Update(_)
        | SetExpr::Delete(_)
        | SetExpr::Merge(_)
        | SetExpr::Table(_) => None,
    }
}
