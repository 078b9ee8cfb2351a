//! Who waits for whom, over all shards.

use std::collections::{BTreeMap, BTreeSet};

use crate::topology::NodeId;

/// A backend: its node and its process there.
pub(super) type Backend = (NodeId, u32);

/// A transaction, as far as it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Transaction {
    /// One on several shards, by the number that its router gave it.
    Several(u32),
    /// A backend of which nothing else is known.
    One(Backend),
}

/// A wait: the backend that waits and the one that it waits for, on the same node.
pub(super) type Wait = (Backend, Backend);

/// All waits, and whose the backends are.
#[derive(Debug, Default)]
pub(super) struct Graph {
    owners: BTreeMap<Backend, u32>,
    waits: BTreeMap<Transaction, BTreeSet<(Transaction, Wait)>>,
}

impl Graph {
    /// This backend works for a transaction on several shards.
    pub(super) fn own(&mut self, backend: Backend, transaction: u32) {
        self.owners.insert(backend, transaction);
    }

    /// One backend waits for another. To be said after all that is known of their owners.
    pub(super) fn wait(&mut self, wait: Wait) {
        let (waiter, blocker) = (self.transaction(wait.0), self.transaction(wait.1));
        if waiter != blocker {
            self.waits
                .entry(waiter)
                .or_default()
                .insert((blocker, wait));
        }
    }

    /// Whose a backend is.
    pub(super) fn transaction(&self, backend: Backend) -> Transaction {
        let owner = self.owners.get(&backend);
        owner.map_or(Transaction::One(backend), |owner| {
            Transaction::Several(*owner)
        })
    }

    /// The cycles over more than one node, each by its waits; those on one node PostgreSQL itself finds. Not all that there
    /// may be, but one for each set of transactions that hold each other up.
    pub(super) fn cycles(&self) -> Vec<Vec<Wait>> {
        let mut done = BTreeSet::new();
        let mut cycles = Vec::new();
        for start in self.waits.keys() {
            let mut path = Vec::new();
            if !done.contains(start)
                && let Some(mut cycle) = self.cycle_from(*start, &mut path, &mut done)
            {
                done.extend(cycle.iter().map(|(waiter, _)| self.transaction(*waiter)));
                // However it was found, it is the same.
                cycle.sort_unstable();
                let nodes: BTreeSet<NodeId> = cycle.iter().map(|((node, _), _)| *node).collect();
                if nodes.len() > 1 {
                    cycles.push(cycle);
                }
            }
        }
        cycles
    }

    /// Follows the waits in depth; `path` is how it came here.
    fn cycle_from(
        &self,
        at: Transaction,
        path: &mut Vec<(Transaction, Wait)>,
        done: &mut BTreeSet<Transaction>,
    ) -> Option<Vec<Wait>> {
        for (next, wait) in self.waits.get(&at).into_iter().flatten() {
            if let Some(begin) = path.iter().position(|(passed, _)| passed == next) {
                let waits = path[begin..].iter().map(|(_, wait)| *wait);
                return Some(waits.chain([*wait]).collect());
            }
            if *next == at || done.contains(next) {
                continue;
            }
            path.push((at, *wait));
            let found = self.cycle_from(*next, path, done);
            path.pop();
            if found.is_some() {
                return found;
            }
        }
        done.insert(at);
        None
    }

    /// Whom to cancel to break a cycle: of its transactions on several shards the one with the highest number, so that all who
    /// see it choose the same.
    pub(super) fn victim(&self, cycle: &[Wait]) -> Option<u32> {
        let owners = cycle
            .iter()
            .filter_map(|(waiter, _)| self.owners.get(waiter));
        owners.max().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::{Graph, Transaction};
    use crate::topology::NodeId;

    const A: NodeId = NodeId(0);
    const B: NodeId = NodeId(1);

    /// Transactions on several shards by their backends on A and B.
    fn graph(transactions: &[(u32, u32, u32)], waits: &[(NodeId, u32, u32)]) -> Graph {
        let mut graph = Graph::default();
        for (number, on_a, on_b) in transactions {
            graph.own((A, *on_a), *number);
            graph.own((B, *on_b), *number);
        }
        for (node, waiter, blocker) in waits {
            graph.wait(((*node, *waiter), (*node, *blocker)));
        }
        graph
    }

    #[test]
    fn two_that_wait_for_each_other_on_different_nodes() {
        let graph = graph(&[(1, 11, 12), (2, 21, 22)], &[(A, 11, 21), (B, 22, 12)]);
        let cycles = graph.cycles();
        assert_eq!(cycles.len(), 1);
        assert_eq!(graph.victim(&cycles[0]), Some(2));
    }

    #[test]
    fn one_that_only_waits_is_no_part_of_it() {
        let waits = [
            (A, 11, 21),
            (B, 22, 32),
            (A, 31, 11),
            (A, 91, 11),
            (B, 92, 22),
        ];
        let graph = graph(
            &[(1, 11, 12), (2, 21, 22), (3, 31, 32), (9, 91, 92)],
            &waits,
        );
        let cycles = graph.cycles();
        assert_eq!(cycles.len(), 1);
        assert_eq!(cycles[0].len(), 3);
        assert_eq!(graph.victim(&cycles[0]), Some(3));
    }

    #[test]
    fn a_chain_or_a_cycle_on_one_node_is_none() {
        let chain = graph(&[(1, 11, 12), (2, 21, 22)], &[(A, 11, 21), (B, 12, 22)]);
        assert!(chain.cycles().is_empty());
        let within = graph(&[(1, 11, 12), (2, 21, 22)], &[(A, 11, 21), (A, 21, 11)]);
        assert!(within.cycles().is_empty());
    }

    #[test]
    fn a_backend_of_nobody_may_be_in_between() {
        let waits = [(A, 11, 7), (A, 7, 21), (B, 22, 12)];
        let graph = graph(&[(1, 11, 12), (2, 21, 22)], &waits);
        assert_eq!(graph.transaction((A, 7)), Transaction::One((A, 7)));
        assert_eq!(graph.cycles().len(), 1);
    }
}
