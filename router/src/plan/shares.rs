//! Whether each shard can do its share of a statement that writes by itself, with all the common table expressions that write, too.
//!
//! Rows of several shards may meet nowhere: each part of the statement, a write or what is made of writes, has rows that are made of rows of one
//! shard. What a write returns is where the rows are that it has written.

use super::analyse::facts::ScopeId;
use super::analyse::{Analysis, Instance};
use super::decide;
use super::refusal::Refusal;

/// The mentions of sharded tables, and of what writes return, that each part of the statement has its rows from.
pub(super) struct Shares<'a> {
    /// Those of tables.
    pub(super) tables: Vec<&'a Instance>,
    /// Those of what is written.
    pub(super) returned: Vec<&'a Instance>,
}

impl<'a> Shares<'a> {
    /// Those of a statement; `Err` is why shards cannot do their shares.
    pub(super) fn of(analysis: &'a Analysis) -> Result<Self, Refusal> {
        let facts = &analysis.facts;
        let top: Option<ScopeId> = analysis.top.map(|top| facts.find(top));
        let written: Vec<ScopeId> = analysis.written.iter().map(|at| facts.find(*at)).collect();
        if written.iter().all(|scope| Some(*scope) == top) {
            return Ok(Self {
                tables: decide::parts(analysis)?,
                returned: Vec::new(),
            });
        }
        decide::in_one_place(analysis)?;
        if let (Some(refusal), false) = (&analysis.combines, is_among(top, &written)) {
            return Err(refusal.clone());
        }
        let mut found = Self {
            tables: Vec::new(),
            returned: Vec::new(),
        };
        for scope in written
            .iter()
            .copied()
            .chain(top.filter(|_| !is_among(top, &written)))
        {
            found.add(analysis, scope)?;
        }
        found.have_all(analysis)?;
        Ok(found)
    }

    /// Adds the part of the statement that has this scope.
    fn add(&mut self, analysis: &'a Analysis, scope: ScopeId) -> Result<(), Refusal> {
        let facts = &analysis.facts;
        let here = |of: &&'a Instance| facts.find(of.scope) == scope;
        let tables: Vec<&Instance> = analysis.instances.iter().filter(here).collect();
        let returned: Vec<&Instance> = analysis.returned.iter().filter(here).collect();
        let known = facts.known(scope);
        let mut all = tables.iter().chain(&returned);
        let Some(first) = all.next() else {
            return Err(Refusal::not_supported(
                "a statement that writes is not supported where a part of it is not made from rows of each shard",
            )
            .detail("Of a common table expression that writes, or of what is made of it, each shard would do all.")
            .hint("Do it in several statements of one transaction."));
        };
        if let Some(other) =
            all.find(|of| !known.same(of.key, first.key) || !of.map.colocated_with(&first.map))
        {
            return Err(decide::apart(first, other));
        }
        self.tables.extend(tables);
        self.returned.extend(returned);
        Ok(())
    }

    /// All other mentions are tied to those of the parts they stand in: what a write returns is tied to its table as well, wherever it is mentioned.
    fn have_all(&self, analysis: &Analysis) -> Result<(), Refusal> {
        let mut all = analysis.instances.iter().chain(&analysis.returned);
        let loose = all.find(|of| {
            let known = analysis.facts.known(of.scope);
            let anchors = self.tables.iter().chain(&self.returned);
            let mut anchors =
                anchors.filter(|anchor| analysis.facts.is_around(anchor.scope, of.scope));
            !anchors
                .any(|anchor| known.same(of.key, anchor.key) && of.map.colocated_with(&anchor.map))
        });
        match (loose, self.tables.first()) {
            (Some(loose), Some(first)) => Err(decide::apart(first, loose)),
            // What is returned twice is not known to be of the same row.
            _ if analysis.returned_twice => Err(Refusal::not_supported(
                "a common table expression that writes on several shards and is mentioned twice is not supported",
            )
            .hint("Do it in several statements of one transaction.")),
            _ => Ok(()),
        }
    }
}

fn is_among(top: Option<ScopeId>, written: &[ScopeId]) -> bool {
    top.is_some_and(|top| written.contains(&top))
}
