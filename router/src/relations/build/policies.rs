//! What row security policies touch, by the words of their conditions.

use std::collections::HashSet;

use super::Builder;
use crate::relations::code::{calls, words};
use crate::relations::{Placement, Policies, Relation, Volatility, is_momentary, is_own};

impl Builder<'_> {
    pub(super) fn policies(&mut self) {
        for policy in &self.found.policies {
            let Some(relation) = self.relations.get(&policy.relation) else {
                continue;
            };
            let found = self.policy(relation, &policy.conditions);
            if let Some(relation) = self.relations.get_mut(&policy.relation) {
                let known = &mut relation.policies;
                known.elsewhere = known.elsewhere.take().or(found.elsewhere);
                known.varying = known.varying.take().or(found.varying);
            }
        }
    }

    /// What a table's policy with these conditions may touch.
    fn policy(&self, relation: &Relation, conditions: &str) -> Policies {
        let mentioned: HashSet<String> = words(conditions).collect();
        let called: HashSet<String> = calls(conditions).collect();
        let is_here = matches!(relation.placement, Placement::Unsharded);
        let others = mentioned.iter().filter_map(|word| self.named.get(word));
        let mut others = others.flatten().filter_map(|oid| self.relations.get(oid));
        let table = others.find(|other| match &other.placement {
            Placement::Unsharded => !is_here,
            Placement::Sharded(_) | Placement::Broken(_) | Placement::ReadsSharded(_) => {
                other.name != relation.name
            }
            Placement::Reference | Placement::Catalog => false,
        });
        let code = called.iter().find(|name| {
            let touched = self.touched_by_name.get(*name);
            // Whoever looks at a row takes a lock for it on the row's shard: that is the same lock for all.
            let first = touched.is_some_and(|touched| touched.tables || touched.beyond_locks);
            let unseen = touched.is_some_and(|touched| touched.dynamic);
            let mut functions = self.found.functions.iter();
            let mut reads =
                || functions.any(|row| row.name == **name && self.reads.contains_key(&row.oid));
            first && !is_here || unseen || self.is_kept_by_the_first(name) && !is_here || reads()
        });
        let varies = |name: &&String| {
            is_momentary(name)
                || self.word_volatility(name) == Volatility::Volatile && !is_own(name)
        };
        Policies {
            elsewhere: table
                .map(|table| table.name.to_string())
                .or_else(|| code.map(|name| format!("{name}()"))),
            varying: called.iter().find(varies).cloned(),
        }
    }
}
