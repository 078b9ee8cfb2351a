//! Outer joins: which of them are inner joins in effect, and which scope each item's rows belong to.

use sqlparser::ast::Expr;

use super::facts::{Fact, ScopeId};
use super::from::{On, Tree};
use super::{Analyser, Stop};
use crate::plan::refusal::Refusal;

impl<'a> Analyser<'a> {
    /// Turns outer joins whose NULL rows a condition above refuses into inner ones, until nothing changes.
    pub(super) fn reduce(
        &self,
        mut trees: Vec<Tree<'a>>,
        condition: Option<&Expr>,
    ) -> Vec<Tree<'a>> {
        if !trees.iter().any(Tree::has_outer) {
            return trees;
        }
        let refused = condition.map(|condition| self.refuses_null(condition));
        let mut refused = refused.unwrap_or_default();
        loop {
            let before = distinct(&mut refused);
            trees = trees
                .into_iter()
                .map(|tree| self.reduce_tree(tree, &mut refused))
                .collect();
            if distinct(&mut refused) == before {
                return trees;
            }
        }
    }

    fn reduce_tree(&self, tree: Tree<'a>, refused: &mut Vec<ScopeId>) -> Tree<'a> {
        let hit = |tree: &Tree<'_>, refused: &[ScopeId]| {
            tree.items()
                .iter()
                .any(|id| refused.contains(&self.analysis.facts.find(self.items[*id].scope)))
        };
        match tree {
            Tree::Leaf(item) => Tree::Leaf(item),
            Tree::Inner(left, right, on) => {
                refused.extend(self.refused_by(&on));
                let left = self.reduce_tree(*left, refused);
                let right = self.reduce_tree(*right, refused);
                Tree::Inner(Box::new(left), Box::new(right), on)
            }
            Tree::Left(left, right, on) if hit(&right, refused) => {
                self.reduce_tree(Tree::Inner(left, right, on), refused)
            }
            Tree::Left(left, right, on) => {
                let left = self.reduce_tree(*left, refused);
                let mut inside = refused.clone();
                inside.extend(self.refused_by(&on));
                let right = self.reduce_tree(*right, &mut inside);
                Tree::Left(Box::new(left), Box::new(right), on)
            }
            Tree::Full(left, right, on) => match (hit(&left, refused), hit(&right, refused)) {
                (true, true) => self.reduce_tree(Tree::Inner(left, right, on), refused),
                (true, false) => self.reduce_tree(Tree::Left(left, right, on), refused),
                (false, true) => self.reduce_tree(Tree::Left(right, left, on), refused),
                (false, false) => {
                    let left = self.reduce_tree(*left, &mut Vec::new());
                    let right = self.reduce_tree(*right, &mut Vec::new());
                    Tree::Full(Box::new(left), Box::new(right), on)
                }
            },
        }
    }

    fn refused_by(&self, on: &On<'_>) -> Vec<ScopeId> {
        match on {
            On::Condition(condition) => self.refuses_null(condition),
            On::Equal(pairs) => {
                let columns = pairs.iter().flat_map(|(a, b)| [*a, *b]);
                columns
                    .map(|column| self.analysis.facts.home(column))
                    .collect()
            }
            On::Nothing => Vec::new(),
        }
    }

    /// Gives every item its scope, adds what the joins' conditions say, and walks them.
    pub(super) fn assign(&mut self, tree: &Tree<'a>, scope: ScopeId) -> Result<(), Stop> {
        match tree {
            Tree::Leaf(item) => {
                let leaf = self.items[*item].scope;
                self.analysis.facts.merge(leaf, scope);
                Ok(())
            }
            Tree::Inner(left, right, on) => {
                self.assign(left, scope)?;
                self.assign(right, scope)?;
                self.condition(on, scope, true)
            }
            Tree::Left(left, right, on) => {
                let nullable = self.analysis.facts.scope(Some(scope));
                self.assign(left, scope)?;
                self.assign(right, nullable)?;
                self.condition(on, nullable, true)
            }
            Tree::Full(left, right, on) => {
                self.needs_merge(|| {
                    Refusal::not_supported("FULL JOIN is not supported across shards yet")
                });
                let sides = [
                    self.analysis.facts.scope(Some(scope)),
                    self.analysis.facts.scope(Some(scope)),
                ];
                self.assign(left, sides[0])?;
                self.assign(right, sides[1])?;
                // The condition restricts neither side.
                let pairs = self.analysis.facts.scope(Some(scope));
                self.condition(on, pairs, false)
            }
        }
    }

    fn condition(&mut self, on: &On<'a>, scope: ScopeId, holds: bool) -> Result<(), Stop> {
        match on {
            On::Condition(condition) => {
                if holds {
                    self.add_facts(condition, scope);
                }
                self.expr(condition, scope, holds)
            }
            On::Equal(pairs) => {
                if holds {
                    for (a, b) in pairs {
                        self.analysis.facts.add(scope, Fact::Equal(*a, *b));
                    }
                }
                Ok(())
            }
            On::Nothing => Ok(()),
        }
    }
}

fn distinct(scopes: &mut Vec<ScopeId>) -> usize {
    scopes.sort_unstable();
    scopes.dedup();
    scopes.len()
}
