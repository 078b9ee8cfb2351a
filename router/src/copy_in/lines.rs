//! Which line of the input a line of a shard's part is.

use std::collections::VecDeque;

/// Memory of runs that are further back than a shard can be, in bytes: what is on its way to a shard is a few megabytes, and
/// PostgreSQL stores rows a thousand at a time.
const LIMIT: usize = 4 << 20;

/// The lines that a shard has got, as runs of lines that follow each other in the input.
///
/// An error of a shard's is about a line that it has got lately: of the oldest runs no more is kept than how many lines they
/// were.
#[derive(Debug, Default)]
pub struct Lines {
    /// Of each run but the last: how many of the input's lines come before it since the run before, and how many it has. Each number in
    /// groups of seven bits, the lowest first, the eighth bit set in all but the last.
    runs: VecDeque<u8>,
    /// The shard's lines, and the input's, before those runs.
    forgotten: (u64, u64),
    /// The shard's lines, and the input's, before the last run.
    before: (u64, u64),
    /// Lines skipped before the last run, and its lines.
    last: (u64, u64),
    /// The shard counts so many lines more in its first row than are counted in the input.
    more: i64,
}

impl Lines {
    /// The shard gets so many lines of the input, from `start` (from 0).
    pub fn add(&mut self, start: u64, lines: u64) {
        let (own_end, end) = self.end();
        let skipped = start.saturating_sub(end);
        if skipped == 0 {
            self.last.1 += lines;
            return;
        }
        self.close();
        self.before = (own_end, end);
        self.last = (skipped, lines);
    }

    /// The shard counts so many lines in its first row that has others in the input.
    pub fn counts_first(&mut self, lines: u64, own: u64) {
        self.more = own.cast_signed() - lines.cast_signed();
    }

    /// The shard's lines so far, and the input's up to the last of them.
    fn end(&self) -> (u64, u64) {
        (
            self.before.0 + self.last.1,
            self.before.1 + self.last.0 + self.last.1,
        )
    }

    /// The input's line that is the shard's line of this number, both from 1. `all`: so many lines of the input have been read. What is beyond
    /// a shard's lines is beyond the input's. `None`: it is too far back.
    pub fn line_of(&self, own: u64, all: u64) -> Option<u64> {
        let own = own.saturating_add_signed(-self.more).max(1);
        let (own_end, _) = self.end();
        if own > own_end {
            return Some(all + (own - own_end));
        }
        if own > self.before.0 {
            return Some(self.before.1 + self.last.0 + (own - self.before.0));
        }
        let (mut at, mut input) = self.forgotten;
        let mut bytes = self.runs.iter().copied();
        while let (Some(skipped), Some(lines)) = (number(&mut bytes), number(&mut bytes)) {
            input += skipped;
            if (at + 1..=at + lines).contains(&own) {
                return Some(input + (own - at));
            }
            at += lines;
            input += lines;
        }
        None
    }

    /// The last run is over.
    fn close(&mut self) {
        if self.last == (0, 0) {
            return;
        }
        push(&mut self.runs, self.last.0);
        push(&mut self.runs, self.last.1);
        while self.runs.len() > LIMIT {
            let skipped = take(&mut self.runs);
            let lines = take(&mut self.runs);
            self.forgotten.0 += lines;
            self.forgotten.1 += skipped + lines;
        }
    }
}

fn push(runs: &mut VecDeque<u8>, mut number: u64) {
    while number >= 0x80 {
        runs.push_back(number as u8 | 0x80);
        number >>= 7;
    }
    runs.push_back(number as u8);
}

fn take(runs: &mut VecDeque<u8>) -> u64 {
    let mut bytes = std::iter::from_fn(|| runs.pop_front());
    number(&mut bytes).unwrap_or(0)
}

fn number(bytes: &mut impl Iterator<Item = u8>) -> Option<u64> {
    let (mut value, mut shift) = (0, 0);
    loop {
        let byte = bytes.next()?;
        value |= u64::from(byte & 0x7F) << shift;
        shift += 7;
        if byte < 0x80 {
            return Some(value);
        }
    }
}
