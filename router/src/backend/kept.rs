//! Texts of the router's own that a connection has prepared, since they come again and again.
//!
//! PostgreSQL analyses and plans what it is sent each time, and what is prepared once. A text is prepared when it comes for the third time,
//! each soon after the one before. Invariants: the text means now what it meant then, for it has the same settings and the same schema; and a
//! plan is never older than [`SOON`], for tables grow, and one that was made for a few rows must not meet many.

use std::sync::Arc;
use std::time::Duration;

use super::Settings;
use crate::metrics::clock::Tick;

/// What comes again within that comes often, and what has been prepared for longer is prepared anew.
const SOON: Duration = Duration::from_secs(1);
/// It is prepared when it has come so many times.
const OFTEN: u32 = 3;
/// So many texts are watched.
const MOST: usize = 32;

/// The texts that come often.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    watched: Vec<Watched>,
    /// The last number given.
    last: u64,
    /// Those that are prepared, but will not be used any more.
    unwanted: Vec<u64>,
}

/// What a text is to a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Meaning<'a> {
    pub(crate) text: &'a [u8],
    /// The types of its parameters, as declared.
    pub(crate) types: &'a [u32],
    /// What holds on the connection.
    pub(crate) settings: &'a Arc<Settings>,
    /// The schema's, see [`crate::topology::DatabaseTopology::generation`].
    pub(crate) generation: u64,
}

#[derive(Debug)]
struct Watched {
    text: Box<[u8]>,
    types: Box<[u32]>,
    settings: Arc<Settings>,
    generation: u64,
    /// So many times it has come, each soon after the one before.
    times: u32,
    met: Tick,
    prepared: Option<(u64, Tick)>,
}

/// How a text is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Meeting {
    /// As it is.
    Seldom,
    /// It is to be prepared under this number.
    Prepare(u64),
    /// It is prepared.
    Prepared(u64),
}

impl Watched {
    fn is(&self, meaning: &Meaning<'_>) -> bool {
        *self.text == *meaning.text
            && *self.types == *meaning.types
            && self.generation == meaning.generation
            && self.settings == *meaning.settings
    }
}

impl Kept {
    /// The name of what has this number.
    pub(crate) fn name(number: u64) -> String {
        format!("sy_own_{number}")
    }

    /// Takes note that a text is to be run.
    pub(crate) fn meet(&mut self, meaning: &Meaning<'_>, now: Tick) -> Meeting {
        let Some(known) = self.watched.iter_mut().find(|known| known.is(meaning)) else {
            self.watch(meaning, now);
            return Meeting::Seldom;
        };
        let soon = now.since(known.met) < SOON;
        known.met = now;
        known.times = if soon {
            known.times.saturating_add(1)
        } else {
            1
        };
        if let Some((number, at)) = known.prepared
            && now.since(at) < SOON
        {
            return Meeting::Prepared(number);
        }
        if known.times < OFTEN {
            return Meeting::Seldom;
        }
        self.last += 1;
        let before = known.prepared.replace((self.last, now));
        self.unwanted.extend(before.map(|(number, _)| number));
        Meeting::Prepare(self.last)
    }

    fn watch(&mut self, meaning: &Meaning<'_>, now: Tick) {
        if self.watched.len() >= MOST {
            let all = self.watched.iter().enumerate();
            let longest = all.max_by_key(|(_, known)| now.since(known.met));
            let longest = longest.map_or(0, |(at, _)| at);
            let known = self.watched.swap_remove(longest);
            let number = known.prepared.map(|(number, _)| number);
            self.unwanted.extend(number);
        }
        self.watched.push(Watched {
            text: meaning.text.into(),
            types: meaning.types.into(),
            settings: Arc::clone(meaning.settings),
            generation: meaning.generation,
            times: 1,
            met: now,
            prepared: None,
        });
    }

    /// Whether what has this number is prepared.
    pub(crate) fn has(&self, number: u64) -> bool {
        let prepared = |known: &Watched| known.prepared.is_some_and(|(own, _)| own == number);
        self.watched.iter().any(prepared)
    }

    /// What has this number could not be prepared.
    pub(crate) fn remove(&mut self, number: u64) {
        for known in &mut self.watched {
            known.prepared = known.prepared.filter(|(own, _)| *own != number);
        }
    }

    /// The server has other columns for one of them than when it was prepared.
    pub(crate) fn distrust(&mut self) {
        let all = self.watched.drain(..);
        let numbers = all.filter_map(|known| known.prepared);
        self.unwanted.extend(numbers.map(|(number, _)| number));
    }

    /// Those to be closed.
    pub(crate) fn take_unwanted(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.unwanted)
    }

    /// The server has none of them any more.
    pub(crate) fn clear(&mut self) {
        self.watched.clear();
        self.unwanted.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::{Kept, MOST, Meaning, Meeting, OFTEN, SOON};
    use crate::backend::Settings;
    use crate::metrics::clock::Tick;

    const A_WHILE: Duration = Duration::from_millis(100);

    fn meaning<'a>(text: &'a [u8], settings: &'a Arc<Settings>) -> Meaning<'a> {
        Meaning {
            text,
            types: &[],
            settings,
            generation: 1,
        }
    }

    #[test]
    fn what_comes_often_is_prepared_and_before_long_anew() {
        let (mut kept, settings) = (Kept::default(), Arc::default());
        let text = meaning(b"SELECT 1", &settings);
        let begun = Tick::now();
        let mut meet = |after| kept.meet(&text, begun.later(after));
        assert_eq!(meet(Duration::ZERO), Meeting::Seldom);
        assert_eq!(meet(A_WHILE), Meeting::Seldom);
        assert_eq!(meet(A_WHILE), Meeting::Prepare(1));
        assert_eq!(meet(A_WHILE * 2), Meeting::Prepared(1));
        assert_eq!(meet(A_WHILE * 11), Meeting::Prepare(2));
        assert_eq!(meet(A_WHILE * 12), Meeting::Prepared(2));
        // It has become rare.
        assert_eq!(meet(A_WHILE * 12 + SOON), Meeting::Seldom);
        assert_eq!(kept.take_unwanted(), [1]);
    }

    #[test]
    fn with_other_settings_or_another_schema_it_is_another_text() {
        let (mut kept, now) = (Kept::default(), Tick::now());
        let settings = Arc::default();
        let text = meaning(b"SELECT 1", &settings);
        for _ in 0..OFTEN {
            kept.meet(&text, now);
        }
        assert_eq!(kept.meet(&text, now), Meeting::Prepared(1));
        let set = Arc::new(Settings::default().with("search_path", "SET search_path = s", None));
        assert_eq!(kept.meet(&meaning(b"SELECT 1", &set), now), Meeting::Seldom);
        let changed = Meaning {
            generation: 2,
            ..text
        };
        assert_eq!(kept.meet(&changed, now), Meeting::Seldom);
        let of_a_parameter = Meaning {
            types: &[25],
            ..text
        };
        assert_eq!(kept.meet(&of_a_parameter, now), Meeting::Seldom);
        assert_eq!(kept.meet(&text, now), Meeting::Prepared(1));
    }

    #[test]
    fn what_has_not_come_for_longest_makes_room_and_is_closed() {
        let (mut kept, settings) = (Kept::default(), Arc::default());
        let begun = Tick::now();
        for _ in 0..OFTEN {
            kept.meet(&meaning(b"first", &settings), begun);
        }
        assert!(kept.has(1));
        for number in 0..MOST {
            let text = format!("text {number}");
            kept.meet(&meaning(text.as_bytes(), &settings), begun.later(A_WHILE));
        }
        assert!(!kept.has(1));
        assert_eq!(kept.take_unwanted(), [1]);
    }

    #[test]
    fn what_the_server_has_not_is_prepared_anew() {
        let (mut kept, settings, now) = (Kept::default(), Arc::default(), Tick::now());
        let text = meaning(b"SELECT 1", &settings);
        let often = |kept: &mut Kept| {
            let meetings = (0..OFTEN).map(|_| kept.meet(&text, now));
            meetings.last()
        };
        assert_eq!(often(&mut kept), Some(Meeting::Prepare(1)));
        kept.remove(1);
        assert_eq!(often(&mut kept), Some(Meeting::Prepared(2)));
        kept.distrust();
        assert_eq!(often(&mut kept), Some(Meeting::Prepare(3)));
        assert_eq!(kept.take_unwanted(), [2]);
    }
}
