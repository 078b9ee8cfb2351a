//! Where a primary's WAL was at each sample, and which of them a replay position has passed. Pure.

use std::collections::VecDeque;
use std::time::Instant;

/// A position in the WAL, PostgreSQL's `pg_lsn`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lsn(pub u64);

impl Lsn {
    /// Reads PostgreSQL's text form, `16/B374D848`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (high, low) = text.split_once('/')?;
        let high = u32::from_str_radix(high, 16).ok()?;
        let low = u32::from_str_radix(low, 16).ok()?;
        Some(Self(u64::from(high) << 32 | u64::from(low)))
    }

    /// The end of the record before an insert position.
    ///
    /// When the next record will begin a page, PostgreSQL reports the insert position after that page's header, which no
    /// replica reaches until there is a next record. The record before ended where the page begins.
    #[must_use]
    pub fn end_of_last_record(self, wal: WalLayout) -> Self {
        let in_page = self.0 % wal.block_size;
        let page = self.0 - in_page;
        let header = if page.is_multiple_of(wal.segment_size) {
            LONG_PAGE_HEADER
        } else {
            SHORT_PAGE_HEADER
        };
        if in_page == header { Self(page) } else { self }
    }
}

/// `SizeOfXLogShortPHD` and `SizeOfXLogLongPHD` of PostgreSQL's xlog_internal.h, the same on all 64-bit platforms.
const SHORT_PAGE_HEADER: u64 = 24;
const LONG_PAGE_HEADER: u64 = 40;

/// The sizes that say where page headers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WalLayout {
    /// `wal_block_size`
    pub block_size: u64,
    /// `wal_segment_size`
    pub segment_size: u64,
}

impl Default for WalLayout {
    fn default() -> Self {
        Self {
            block_size: 8 << 10,
            segment_size: 16 << 20,
        }
    }
}

/// One sample of a primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Its number.
    pub number: u64,
    /// The insert position, read after the sample began.
    pub position: Lsn,
    /// When it began.
    pub began: Instant,
}

/// Samples kept; a replica further behind is measured more coarsely.
const CAPACITY: usize = 2048;

/// The samples of one primary, oldest first; numbers and positions grow strictly.
#[derive(Debug, Default)]
pub struct History {
    samples: VecDeque<Sample>,
}

impl History {
    /// Adds a sample. One that is older than what is known is ignored; a position that went back is another
    /// timeline, of which nothing earlier is known.
    pub fn record(&mut self, sample: Sample) {
        if let Some(last) = self.samples.back_mut() {
            if sample.number <= last.number {
                return;
            }
            if sample.position == last.position {
                *last = sample;
                return;
            }
            if sample.position < last.position {
                self.samples.clear();
            }
        }
        self.samples.push_back(sample);
        if self.samples.len() > CAPACITY {
            self.thin_out();
        }
    }

    /// Forgets everything: the primary is another, or lived through a restart.
    pub fn clear(&mut self) {
        self.samples.clear();
    }

    /// The newest sample.
    #[must_use]
    pub fn newest(&self) -> Option<Sample> {
        self.samples.back().copied()
    }

    /// The newest sample whose position `replayed` has reached.
    #[must_use]
    pub fn passed(&self, replayed: Lsn) -> Option<Sample> {
        let reached = self
            .samples
            .partition_point(|sample| sample.position <= replayed);
        self.samples.get(reached.checked_sub(1)?).copied()
    }

    /// Drops every other one of the older half. What remains is still true.
    fn thin_out(&mut self) {
        let half = self.samples.len() / 2;
        let mut position = 0;
        self.samples.retain(|_| {
            position += 1;
            position > half || position % 2 == 0
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(number: u64, position: u64) -> Sample {
        Sample {
            number,
            position: Lsn(position),
            began: Instant::now(),
        }
    }

    #[test]
    fn reads_positions() {
        assert_eq!(Lsn::parse("16/B374D848"), Some(Lsn(0x16_B374_D848)));
        assert_eq!(Lsn::parse("0/0"), Some(Lsn(0)));
        assert_eq!(Lsn::parse("0"), None);
        assert_eq!(Lsn::parse("0/100000000"), None);
    }

    #[test]
    fn the_header_of_an_empty_page_is_no_data() {
        let wal = WalLayout::default();
        let end = |position| Lsn(position).end_of_last_record(wal).0;
        assert_eq!(end(0x0300_2018), 0x0300_2000);
        assert_eq!(end(0x0300_0028), 0x0300_0000);
        assert_eq!(end(0x0300_2028), 0x0300_2028);
        assert_eq!(end(0x0300_0018), 0x0300_0018);
        assert_eq!(end(0x0300_2000), 0x0300_2000);
    }

    #[test]
    fn passed_is_the_newest_reached() {
        let mut history = History::default();
        assert_eq!(history.passed(Lsn(99)), None);
        for (number, position) in [(1, 10), (2, 20), (3, 20), (5, 30)] {
            history.record(sample(number, position));
        }
        let passed = |position| history.passed(Lsn(position)).map(|sample| sample.number);
        assert_eq!(passed(9), None);
        assert_eq!(passed(10), Some(1));
        assert_eq!(passed(19), Some(1));
        assert_eq!(passed(20), Some(3));
        assert_eq!(passed(31), Some(5));
    }

    #[test]
    fn a_position_that_went_back_forgets_the_rest() {
        let mut history = History::default();
        history.record(sample(1, 10));
        history.record(sample(2, 20));
        history.record(sample(3, 15));
        assert_eq!(history.passed(Lsn(14)), None);
        assert_eq!(history.passed(Lsn(15)).map(|sample| sample.number), Some(3));
    }

    #[test]
    fn thinning_keeps_the_truth_and_the_newest() {
        let mut history = History::default();
        let count = 10 * CAPACITY as u64;
        for number in 1..=count {
            history.record(sample(number, number * 10));
        }
        assert!(history.samples.len() <= CAPACITY);
        assert_eq!(history.newest().map(|sample| sample.number), Some(count));
        for replayed in (0..count * 10).step_by(7) {
            if let Some(passed) = history.passed(Lsn(replayed)) {
                assert!(passed.number * 10 <= replayed);
            }
        }
    }
}
