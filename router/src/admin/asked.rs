//! What a server has been asked and has not begun to answer: whoever changes where rows are waits for what was planned by the former map (ADR 0024).

use std::sync::atomic::{AtomicU64, Ordering};

/// What others need to know of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Asked {
    /// The snapshot by which it was planned.
    pub(crate) generation: u64,
    /// It goes where it goes because of where rows are.
    pub(crate) by_rows: bool,
    /// The server has been asked nothing else that it may be at.
    pub(crate) fresh: bool,
    /// It is a transaction of its own: whatever is locked, it has locked.
    pub(crate) alone: bool,
}

const THERE: u64 = 1;
const BY_ROWS: u64 = 2;
const FRESH: u64 = 4;
const ALONE: u64 = 8;
const FLAGS: u32 = 4;

/// Where it is noted, for all threads.
#[derive(Debug, Default)]
pub(crate) struct Unanswered(AtomicU64);

impl Unanswered {
    /// Something is about to be asked. To be noted before looking whether its snapshot is the newest.
    pub(crate) fn note(&self, asked: Asked) {
        let flag = |is: bool, flag| if is { flag } else { 0 };
        let flags = flag(asked.by_rows, BY_ROWS)
            | flag(asked.fresh, FRESH)
            | flag(asked.alone, ALONE)
            | THERE;
        self.0
            .store(asked.generation << FLAGS | flags, Ordering::SeqCst);
    }

    /// It does not go by where rows are.
    pub(crate) fn goes_anywhere(&self) {
        let noted = self.0.load(Ordering::Relaxed);
        self.0.store(noted & !BY_ROWS, Ordering::Release);
    }

    /// The answer has begun, or nothing has been asked.
    pub(crate) fn forget(&self) {
        if self.0.load(Ordering::Relaxed) != 0 {
            self.0.store(0, Ordering::Release);
        }
    }

    /// What is not answered.
    pub(crate) fn get(&self) -> Option<Asked> {
        let noted = self.0.load(Ordering::SeqCst);
        (noted != 0).then_some(Asked {
            generation: noted >> FLAGS,
            by_rows: noted & BY_ROWS != 0,
            fresh: noted & FRESH != 0,
            alone: noted & ALONE != 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_noted_is_there_until_it_is_answered() {
        let (unanswered, asked) = (
            Unanswered::default(),
            Asked {
                generation: 0,
                by_rows: true,
                fresh: false,
                alone: true,
            },
        );
        assert_eq!(unanswered.get(), None);
        unanswered.note(asked);
        assert_eq!(unanswered.get(), Some(asked));
        unanswered.goes_anywhere();
        let by_rows = false;
        assert_eq!(unanswered.get(), Some(Asked { by_rows, ..asked }));
        unanswered.forget();
        assert_eq!(unanswered.get(), None);
    }
}
