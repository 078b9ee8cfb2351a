//! Statements that change rows of several shards, where each row's change depends on rows of its own shard only.
//!
//! Purpose: [`Write`] says which shards such an UPDATE, DELETE, MERGE or INSERT … SELECT goes to; each runs the client's text on its own rows, all in
//! one transaction. Invariants: together the shards do what one server would do with all the rows; what a shard would compute by
//! itself, and one server only once, is not among it. Collaborators: `decide` says where rows are; `session::write` runs it.

use sqlparser::ast::{Insert, SetExpr, Statement};

use super::analyse::{Analysis, Instance, StoredKeys};
use super::apart::{Understood, several};
use super::decide;
use super::moment::Moments;
use super::refusal::Refusal;
use super::route::{KeyRoute, Target};
use super::{Broadcast, Operator, Plan, Planner};
use crate::sql::Token;

/// A statement that changes rows of several shards.
#[derive(Debug, Clone)]
pub struct Write {
    /// The shards that may have rows it changes.
    pub target: Target,
    /// What it calls the present.
    pub moments: Moments,
    /// Every shard has a copy of the rows, and must report the same number of them.
    pub copies: bool,
}

impl Write {
    /// The parameters that binding looks at.
    pub(super) fn params(&self) -> Vec<u16> {
        match &self.target {
            Target::Keys(route) => route.params(),
            Target::AnyShard | Target::Shard(_) | Target::AllShards => Vec::new(),
        }
    }

    /// Bytes on the heap, about.
    pub(super) fn size(&self) -> usize {
        match &self.target {
            Target::Keys(route) => route.size(),
            Target::AnyShard | Target::Shard(_) | Target::AllShards => 0,
        }
    }
}

impl Planner<'_> {
    /// Plans a write of several shards, where it is one or may turn out to be.
    pub(super) fn written(&self, plan: &mut Plan, (analysis, statement, tokens): Understood<'_>) {
        let changes = matches!(
            statement,
            Statement::Update(_) | Statement::Delete(_) | Statement::Merge(_)
        );
        let changes = changes || matches!(statement, Statement::Insert(of) if is_of_rows(of));
        match &mut plan.operator {
            operator @ Operator::Broadcast(Broadcast::Reference) if analysis.moments => {
                *operator = match self.moments_of(analysis, tokens) {
                    Ok(moments) => Operator::Write(Box::new(Write {
                        target: Target::AllShards,
                        moments,
                        copies: true,
                    })),
                    Err(refusal) => Operator::Refuse(Box::new(refusal)),
                };
            }
            Operator::Refuse(refusal) if changes && analysis.writes_reference.is_none() => {
                match self.write(analysis, tokens) {
                    Ok(write) => plan.operator = Operator::Write(Box::new(write)),
                    Err(why) => **refusal = why,
                }
            }
            Operator::PassThrough(Target::Keys(KeyRoute {
                several: Some(refusal),
                ..
            })) if changes => match self.write(analysis, tokens) {
                Ok(write) => plan.several = several(plan, Operator::Write(Box::new(write))),
                Err(why) => **refusal = why,
            },
            Operator::PassThrough(_)
            | Operator::Append(_)
            | Operator::Merge(_)
            | Operator::Broadcast(_)
            | Operator::Session
            | Operator::Workspace(_)
            | Operator::Lock(_)
            | Operator::Write(_)
            | Operator::Insert(_)
            | Operator::InsertQuery(_)
            | Operator::CopyIn(_)
            | Operator::Refuse(_) => {}
        }
    }

    fn write(&self, analysis: &Analysis, tokens: &[Token]) -> Result<Write, Refusal> {
        let target = target(analysis)?;
        Ok(Write {
            target,
            moments: self.moments_of(analysis, tokens)?,
            copies: false,
        })
    }

    /// What the statement calls the present.
    fn moments_of(&self, analysis: &Analysis, tokens: &[Token]) -> Result<Moments, Refusal> {
        if !analysis.moments {
            return Ok(Moments::default());
        }
        self.moments(tokens).ok_or_else(|| {
            let refusal = analysis.varies.clone();
            refusal.unwrap_or_else(|| Refusal::not_supported("the time in this statement"))
        })
    }
}

/// Whether it inserts what a query returns, in whatever order.
fn is_of_rows(insert: &Insert) -> bool {
    let Some(query) = insert.source.as_deref() else {
        return false;
    };
    let is_ordered = query.order_by.is_some() && insert.returning.is_some();
    !matches!(&*query.body, SetExpr::Values(_)) && !is_ordered
}

/// The shards of a write of which each shard can do its part; `Err` is why they cannot.
fn target(analysis: &Analysis) -> Result<Target, Refusal> {
    let facts = &analysis.facts;
    let top = analysis.top.map(|top| facts.find(top));
    let inside = analysis
        .written
        .iter()
        .find(|scope| Some(facts.find(**scope)) != top);
    if inside.is_some() {
        return Err(Refusal::not_supported(
            "a common table expression that writes, in a statement over several shards, is not supported yet",
        ));
    }
    let anchors = decide::parts(analysis)?;
    for stored in &analysis.stored {
        let stays = match &stored.keys {
            StoredKeys::Column(column, scope) => {
                let known = facts.known(*scope);
                let same = |anchor: &&Instance| {
                    known.same(*column, anchor.key) && anchor.map.colocated_with(&stored.map)
                };
                anchors.iter().any(same) && decide::is_stored_as_it_is(analysis, stored, *column)
            }
            StoredKeys::Values(_) => false,
        };
        if !stays {
            return Err(Refusal::not_supported(format!(
                "storing rows of table \"{}\" with other shard keys than those of the rows they are made of is not supported across shards",
                stored.name
            ))
            .detail("The rows may have to move to another shard.")
            .hint("Delete the rows and insert them with the new keys."));
        }
    }
    Ok(decide::targets(analysis, &anchors))
}
