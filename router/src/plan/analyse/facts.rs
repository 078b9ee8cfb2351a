//! What is known to hold where: scopes, columns, and the facts between them.
//!
//! A *scope* is a place in the statement whose rows all satisfy its *facts*: the main rows of a FROM, the nullable side of
//! an outer join, a subquery. A scope sees its own facts, those of the scopes around it, and those of subqueries whose rows
//! it takes in (*exports*); it does not see what holds in a nullable side inside it. So an ON predicate never restricts
//! the preserved side, and a fact of a subquery with LIMIT is known outside but outer facts do not reach into it.

use switchyard_schema::KeyFamily;

use crate::plan::route::KeySet;

/// A scope, by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(in crate::plan) struct ScopeId(usize);

/// A column whose type can be a key, by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(in crate::plan) struct ColumnId(usize);

/// Something that holds for every row of a scope.
#[derive(Debug, Clone)]
pub(in crate::plan) enum Fact {
    /// Two columns are equal and not NULL.
    Equal(ColumnId, ColumnId),
    /// A column's value is in the set.
    Keys(ColumnId, KeySet),
    /// An output column of a subquery is this column inside it: known outside, but not inside the subquery itself.
    Link {
        outer: ColumnId,
        inner: ColumnId,
        of: ScopeId,
    },
}

#[derive(Debug, Default)]
struct Scope {
    parent: Option<ScopeId>,
    /// The scope this one has become part of.
    merged: Option<ScopeId>,
    facts: Vec<Fact>,
    exports: Vec<ScopeId>,
}

#[derive(Debug)]
struct Column {
    family: KeyFamily,
    scope: ScopeId,
    /// Its values are constants that the statement has.
    constant: bool,
}

/// Scopes, columns and facts of one statement.
#[derive(Debug, Default)]
pub(in crate::plan) struct Facts {
    scopes: Vec<Scope>,
    columns: Vec<Column>,
}

impl Facts {
    /// A new scope inside another.
    pub(super) fn scope(&mut self, parent: Option<ScopeId>) -> ScopeId {
        self.scopes.push(Scope {
            parent,
            ..Scope::default()
        });
        ScopeId(self.scopes.len() - 1)
    }

    /// A new column that belongs to the rows of a scope.
    pub(super) fn column(&mut self, family: KeyFamily, scope: ScopeId) -> ColumnId {
        self.columns.push(Column {
            family,
            scope,
            constant: false,
        });
        ColumnId(self.columns.len() - 1)
    }

    /// The same, of constants, any of which may be NULL.
    pub(super) fn constant_column(
        &mut self,
        values: KeySet,
        family: KeyFamily,
        scope: ScopeId,
    ) -> ColumnId {
        let column = self.column(family, scope);
        self.columns[column.0].constant = true;
        self.add(scope, Fact::Keys(column, values));
        column
    }

    /// Whether the keys that are known of a column are constants, and not what it has been compared with: NULL is then one of them.
    pub(in crate::plan) fn is_constant(&self, column: ColumnId, known: &Known<'_>) -> bool {
        let mut members = (0..self.columns.len()).map(ColumnId);
        members.any(|member| self.columns[member.0].constant && known.same(member, column))
    }

    pub(in crate::plan) fn family(&self, column: ColumnId) -> KeyFamily {
        self.columns[column.0].family
    }

    /// The scope a scope is now part of.
    pub(in crate::plan) fn find(&self, scope: ScopeId) -> ScopeId {
        let mut at = scope;
        while let Some(merged) = self.scopes[at.0].merged {
            at = merged;
        }
        at
    }

    /// Makes a scope part of another: their rows are combined without conditions.
    pub(super) fn merge(&mut self, scope: ScopeId, into: ScopeId) {
        let (scope, into) = (self.find(scope), self.find(into));
        if scope == into {
            return;
        }
        let facts = std::mem::take(&mut self.scopes[scope.0].facts);
        let exports = std::mem::take(&mut self.scopes[scope.0].exports);
        self.scopes[into.0].facts.extend(facts);
        self.scopes[into.0].exports.extend(exports);
        self.scopes[scope.0].merged = Some(into);
    }

    /// Makes what holds in `inner` known in `outer`, whose rows are made of rows of `inner`.
    pub(super) fn export(&mut self, inner: ScopeId, outer: ScopeId) {
        let outer = self.find(outer);
        self.scopes[outer.0].exports.push(inner);
    }

    /// Adds a fact.
    pub(super) fn add(&mut self, scope: ScopeId, fact: Fact) {
        let scope = self.find(scope);
        self.scopes[scope.0].facts.push(fact);
    }

    /// Whether a fact of a scope is about rows the scope has: a predicate above an outer join says nothing of the rows
    /// of the nullable side, because it may hold for the NULLs in their place.
    fn sound(&self, fact: &Fact, chain: &[ScopeId]) -> bool {
        let sees = |column: ColumnId| chain.contains(&self.find(self.columns[column.0].scope));
        match fact {
            Fact::Equal(a, b) => sees(*a) && sees(*b) && self.family(*a) == self.family(*b),
            Fact::Keys(column, _) => sees(*column),
            Fact::Link { outer, inner, .. } => self.family(*outer) == self.family(*inner),
        }
    }

    /// The scope a column's rows belong to.
    pub(in crate::plan) fn home(&self, column: ColumnId) -> ScopeId {
        self.find(self.columns[column.0].scope)
    }

    /// Moves a column to the rows of another scope.
    pub(super) fn rehome(&mut self, column: ColumnId, scope: ScopeId) {
        self.columns[column.0].scope = scope;
    }

    /// Whether a scope is this one, or one around it.
    pub(in crate::plan) fn is_around(&self, outer: ScopeId, inner: ScopeId) -> bool {
        self.chain(inner).contains(&self.find(outer))
    }

    /// The scope and all around it.
    fn chain(&self, scope: ScopeId) -> Vec<ScopeId> {
        let mut chain = Vec::new();
        let mut at = Some(scope);
        while let Some(scope) = at {
            let scope = self.find(scope);
            if !chain.contains(&scope) {
                chain.push(scope);
            }
            at = self.scopes[scope.0].parent;
        }
        chain
    }

    /// Everything known in a scope, ready to be asked.
    pub(in crate::plan) fn known(&self, scope: ScopeId) -> Known<'_> {
        let chain = self.chain(scope);
        let mut known = Known {
            parents: (0..self.columns.len()).map(ColumnId).collect(),
            keys: Vec::new(),
        };
        let mut seen = Vec::new();
        for scope in &chain {
            self.collect(*scope, &chain, &mut seen, &mut known);
        }
        known
    }

    fn collect<'a>(
        &'a self,
        scope: ScopeId,
        chain: &[ScopeId],
        seen: &mut Vec<ScopeId>,
        known: &mut Known<'a>,
    ) {
        let scope = self.find(scope);
        if seen.contains(&scope) {
            return;
        }
        seen.push(scope);
        let around = self.chain(scope);
        for fact in self.scopes[scope.0]
            .facts
            .iter()
            .filter(|fact| self.sound(fact, &around))
        {
            match fact {
                Fact::Equal(a, b) => known.join(*a, *b),
                Fact::Keys(column, keys) => known.keys.push((*column, keys)),
                Fact::Link { of, .. } if chain.contains(&self.find(*of)) => {}
                Fact::Link { outer, inner, .. } => known.join(*outer, *inner),
            }
        }
        for export in &self.scopes[scope.0].exports {
            self.collect(*export, chain, seen, known);
        }
    }
}

/// Classes of equal columns, and the key sets of their members.
pub(in crate::plan) struct Known<'a> {
    /// Of each column another one that is equal; itself for one in each class.
    parents: Vec<ColumnId>,
    keys: Vec<(ColumnId, &'a KeySet)>,
}

impl Known<'_> {
    fn root(&self, column: ColumnId) -> ColumnId {
        let mut at = column;
        while self.parents[at.0] != at {
            at = self.parents[at.0];
        }
        at
    }

    fn join(&mut self, a: ColumnId, b: ColumnId) {
        let (a, b) = (self.root(a), self.root(b));
        self.parents[a.0] = b;
    }

    /// Whether two columns are known to be equal.
    pub(in crate::plan) fn same(&self, a: ColumnId, b: ColumnId) -> bool {
        self.root(a) == self.root(b)
    }

    /// What the column's value is known to be in.
    pub(in crate::plan) fn keys(&self, column: ColumnId) -> KeySet {
        let root = self.root(column);
        let mut sets: Vec<KeySet> = Vec::new();
        for (member, keys) in &self.keys {
            if self.root(*member) == root && !sets.contains(keys) {
                sets.push((*keys).clone());
            }
        }
        match sets.len() {
            0 => KeySet::Everything,
            1 => sets.swap_remove(0),
            _ => KeySet::Both(sets),
        }
    }
}
