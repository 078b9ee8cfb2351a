//! LIMIT and OFFSET.

/// How many rows are passed over, and how many are given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limit {
    /// Rows passed over first.
    pub offset: u64,
    /// Rows given at most; `None`: all.
    pub rows: Option<u64>,
}

/// What happens to a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    PassOver,
    Give,
    /// As many as asked for have been given.
    Enough,
}

impl Limit {
    /// What happens to the next row.
    pub(super) fn next(&mut self) -> Verdict {
        if self.offset > 0 {
            self.offset -= 1;
            return Verdict::PassOver;
        }
        match &mut self.rows {
            None => Verdict::Give,
            Some(0) => Verdict::Enough,
            Some(left) => {
                *left -= 1;
                Verdict::Give
            }
        }
    }

    /// Whether every further row is one too many.
    pub(super) fn is_reached(&self) -> bool {
        self.offset == 0 && self.rows == Some(0)
    }

    /// How many rows may matter, those passed over included; `None`: all.
    pub fn reach(&self) -> Option<u64> {
        self.rows.map(|rows| rows.saturating_add(self.offset))
    }
}
