//! The k-way merge: one row of each shard is at hand, and the first of them comes next.

use std::collections::VecDeque;

use super::order::{Keys, Row, compare};
use super::recipe::SortKey;

/// A row and the values of its sort keys.
pub(super) type Keyed = (Row, Keys);

/// The rows at hand, one of each source that has not ended.
#[derive(Debug)]
pub(super) struct Interleave {
    /// The sources that have a row at hand, by the order of their rows; equal rows by source.
    heads: VecDeque<(usize, Keyed)>,
    /// The sources whose next row is needed.
    missing: VecDeque<usize>,
}

/// What comes next.
pub(super) enum Next {
    Row(Keyed),
    /// This source's next row, or its end, has to be known first.
    Need(usize),
    End,
}

impl Interleave {
    pub(super) fn new(sources: usize) -> Interleave {
        Interleave {
            heads: VecDeque::with_capacity(sources),
            missing: (0..sources).collect(),
        }
    }

    /// Takes the row that was needed.
    pub(super) fn feed(&mut self, keyed: Keyed, order: &[SortKey]) {
        let Some(source) = self.missing.pop_front() else {
            return;
        };
        let before = |head: &(usize, Keyed)| {
            let ordering = compare(order, &head.1.1, &keyed.1);
            ordering.then(head.0.cmp(&source)).is_lt()
        };
        let at = self.heads.partition_point(before);
        self.heads.insert(at, (source, keyed));
    }

    /// The source whose row was needed has ended.
    pub(super) fn end(&mut self) {
        self.missing.pop_front();
    }

    /// The next row of all. Where there is no order, the sources follow each other.
    pub(super) fn next(&mut self, order: &[SortKey]) -> Next {
        let waits = match (self.missing.front(), self.heads.front()) {
            (Some(missing), Some((head, _))) => !order.is_empty() || missing < head,
            (Some(_), None) => true,
            (None, _) => false,
        };
        if waits && let Some(source) = self.missing.front() {
            return Next::Need(*source);
        }
        let Some((source, keyed)) = self.heads.pop_front() else {
            return Next::End;
        };
        self.missing.push_front(source);
        Next::Row(keyed)
    }
}
