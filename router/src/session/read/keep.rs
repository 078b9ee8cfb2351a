//! Texts of ours that servers keep, since the session sends them again and again: see [`crate::backend::Kept`].
//!
//! Only what means the same whenever it is analysed is kept ([`Steady`]), and only outside transaction blocks, which what goes wrong with it would
//! fail. The client hears nothing of either: where a text cannot be prepared, or is not any more what has been prepared, it is sent as it is.

use switchyard_wire::SqlState;
use switchyard_wire::frontend::{self, Kind};

use crate::backend::{Kept, Meaning, Meeting, Reply, Show};
use crate::execute::given_rows::GivenRows;
use crate::execute::participant::Participant;
use crate::metrics::clock::Tick;
use crate::plan::Plan;
use crate::session::Session;
use crate::session::read::part::error_field;

/// The longest text that is kept.
const LONGEST: usize = 4 << 10;
/// Most bytes of rows given with it. PostgreSQL plans for a hundred rows where it does not know how many come.
const MOST_GIVEN: usize = 4 << 10;

/// A text that means the same whenever it is analysed.
pub(in crate::session) struct Steady<'a> {
    text: &'a [u8],
    /// The types of its parameters, as declared.
    types: Vec<u32>,
}

impl<'a> Steady<'a> {
    /// The text of a plan, if it is one, with these rows given.
    pub(in crate::session) fn of(
        plan: &Plan,
        text: &'a [u8],
        types: Vec<u32>,
        given: &GivenRows,
    ) -> Option<Self> {
        let few = text.len() <= LONGEST && given.size() <= MOST_GIVEN;
        (plan.steady && few && !has_strings(text)).then_some(Self { text, types })
    }
}

/// Whether a text may have a string: what it stands for may depend on the moment, as `'now'` does, or on the catalogue, as the name of a table.
fn has_strings(text: &[u8]) -> bool {
    let mut quotes = memchr::memchr2_iter(b'\'', b'$', text);
    quotes.any(|at| {
        let next = text.get(at + 1);
        text.get(at) == Some(&b'\'') || !next.is_some_and(u8::is_ascii_digit)
    })
}

impl Session {
    /// Queues what prepares a text on a server, if it is to be. The number that it is kept under, unless that fails.
    pub(in crate::session) fn keep(&mut self, index: usize, steady: &Steady<'_>) -> Option<u64> {
        if self.block.is_some() {
            return None;
        }
        let generation = self.database.generation;
        self.participants.get_mut(index)?.keep(steady, generation)
    }

    /// What servers have kept is not what the texts are: they are prepared anew when they come often again.
    pub(in crate::session) fn distrust_kept(&mut self) {
        for held in self.participants.iter_mut() {
            held.connection.kept.distrust();
        }
    }
}

/// Whether an error says that a text is not what a server has kept: its columns have other types.
pub(in crate::session) fn is_outdated(said: &[u8]) -> bool {
    error_field(said, b'C') == Some(SqlState::FEATURE_NOT_SUPPORTED.as_bytes())
        && error_field(said, b'R') == Some(b"RevalidateCachedQuery")
}

impl Participant {
    fn keep(&mut self, steady: &Steady<'_>, generation: u64) -> Option<u64> {
        let is_plain = self.pins.is_empty() && !self.connection.dirty;
        if self.in_block || self.needs_sync || !is_plain {
            return None;
        }
        let connection = &mut *self.connection;
        let meaning = Meaning {
            text: steady.text,
            types: &steady.types,
            settings: connection.applied.as_ref()?,
            generation,
        };
        let number = match connection.kept.meet(&meaning, Tick::now()) {
            Meeting::Seldom => return None,
            Meeting::Prepared(number) => return Some(number),
            Meeting::Prepare(number) => number,
        };
        for unwanted in connection.kept.take_unwanted() {
            let name = Kept::name(unwanted);
            frontend::encode::close(&mut connection.output, Kind::Statement, name.as_bytes());
            connection.replies.expect(Reply::Close, Show::Nothing);
        }
        let name = Kept::name(number);
        let output = &mut connection.output;
        frontend::encode::parse(output, name.as_bytes(), steady.text, &steady.types);
        frontend::encode::sync(output);
        connection
            .replies
            .expect(Reply::Keep { number }, Show::Nothing);
        let ready = Reply::Query { show_ready: false };
        connection.replies.expect(ready, Show::Nothing);
        Some(number)
    }

    /// The name under which the server keeps what was to be kept under this number.
    pub(in crate::session) fn kept(&self, number: Option<u64>) -> Option<String> {
        let held = number.filter(|number| self.connection.kept.has(*number));
        held.map(Kept::name)
    }
}

#[cfg(test)]
mod tests {
    use super::has_strings;

    #[test]
    fn strings_are_found_and_parameters_are_none() {
        for text in [
            "SELECT 'now'",
            "SELECT $$now$$",
            "SELECT $a$now$a$",
            "SELECT a$b",
            "SELECT $",
        ] {
            assert!(has_strings(text.as_bytes()), "{text}");
        }
        for text in ["SELECT 1", "SELECT $1, $12::int4[] FROM \"a b\""] {
            assert!(!has_strings(text.as_bytes()), "{text}");
        }
    }
}
