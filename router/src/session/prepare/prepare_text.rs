//! From the text that prepares a statement on a backend back to the client's PREPARE.

use std::ops::Range;

use crate::session::statement::Statement;

/// Where the parts of a PREPARE are in the client's text, in characters.
pub(in crate::session) struct Places {
    /// The declared types: where each begins, and its length.
    types: Vec<(usize, usize)>,
    statement: usize,
}

impl Places {
    pub(in crate::session) fn new(
        sql: &[u8],
        types: &[Range<u32>],
        statement: &Range<u32>,
    ) -> Self {
        let count = |bytes: Option<&[u8]>| {
            String::from_utf8_lossy(bytes.unwrap_or_default())
                .chars()
                .count()
        };
        let before = |offset: u32| count(sql.get(..offset as usize));
        let place = |range: &Range<u32>| {
            let start = before(range.start);
            (start, before(range.end) - start)
        };
        Self {
            types: types.iter().map(place).collect(),
            statement: before(statement.start),
        }
    }

    /// The position in the client's text of one in the text that prepares it on a backend; both count from 1.
    pub(in crate::session) fn origin(
        &self,
        statement: &Statement,
        position: usize,
    ) -> Option<usize> {
        // `PREPARE name (type, type) AS statement`
        let mut at = "PREPARE ".len() + statement.backend_name().len() + 1;
        for (at_most, (start, length)) in self.types.iter().enumerate() {
            at += if at_most == 0 { " (".len() } else { ", ".len() };
            if (at..at + length).contains(&position) {
                return Some(start + 1 + position - at);
            }
            at += length;
        }
        at += usize::from(!self.types.is_empty()) + " AS ".len();
        Some(self.statement + 1 + position.checked_sub(at)?)
    }
}
