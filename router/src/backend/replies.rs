//! What a backend still owes us, and how far its bytes can be passed on unread.
//!
//! Every message sent that has a reply adds an [`Owed`] entry. [`Replies::scan`] walks the bytes received, message
//! header by message header, checks them against the entries in order, and says how many bytes can go to the client
//! as they are and what happens next. It is pure: no bytes are copied or moved here. A reply that does not fit its
//! entry is a [`Event::Violation`]: the connection cannot be trusted any longer.

use std::collections::VecDeque;

use bytes::Bytes;
use switchyard_wire::backend::TransactionStatus;
use switchyard_wire::frame::{self, Header};

use super::command_tag::CommandTag;

/// The reply owed for one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reply {
    /// ParseComplete, for the router's statement number; named or unnamed.
    Parse { statement: u64, named: bool },
    /// ParseComplete, for a text of ours that is kept under this number.
    Keep { number: u64 },
    /// BindComplete.
    Bind,
    /// (ParameterDescription and) RowDescription or NoData. The number: of which statement they are to be noted.
    Describe { noted_of: Option<u64> },
    /// CloseComplete.
    Close,
    /// The same, of a statement of this number that makes room for another.
    Evict { statement: u64 },
    /// Rows, then CommandComplete, EmptyQueryResponse or PortalSuspended.
    Execute,
    /// Anything, then ReadyForQuery, which is shown as the rest is or not at all.
    Query { show_ready: bool },
    /// As [`Reply::Query`] (`ready`) or [`Reply::Execute`], but one part of a result that is appended to others: rows
    /// are shown, their description if `describe`, their end is not. Before those that are `ready`, Parse and Bind may be completed, which
    /// is not shown.
    Part { describe: bool, ready: bool },
    /// ReadyForQuery.
    Sync,
    /// Nothing: bytes of ours come at this place, see [`Replies::put`].
    Ours,
}

/// Who gets to see a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Show {
    /// The client.
    All,
    /// The client, if it is an error: the message was ours, but the client's statement depends on it.
    Errors,
    /// The client, if it is an error or a notice: the message was ours, and carries out what the client's statement asks for, as a
    /// COMMIT that runs deferred triggers does.
    Notices,
    /// Nobody.
    Nothing,
}

impl Show {
    /// Whether the client sees what a server says besides its answer.
    pub(crate) fn has_notices(self) -> bool {
        matches!(self, Self::All | Self::Notices)
    }
}

#[derive(Debug, Clone, Copy)]
struct Owed {
    reply: Reply,
    show: Show,
}

/// The result of a [`Replies::scan`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Scanned {
    /// So many bytes from the start of the input go to the client as they are.
    pub(crate) forward: usize,
    /// What comes after them.
    pub(crate) event: Event,
}

/// What follows the bytes that can be passed on. Lengths are of a whole message, which is complete in the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// All that is owed has come.
    Settled,
    /// More bytes are needed.
    NeedInput,
    /// The next message is not for the client.
    Hidden(usize),
    /// A notification.
    Notification(usize),
    /// Bytes of ours take their place here: see [`Replies::take_ours`].
    Ours,
    /// ErrorResponse.
    Error(usize, Show),
    /// ParameterStatus; to be told at once if the ReadyForQuery behind it is the client's.
    Parameter { length: usize, tell: bool },
    /// ParameterDescription, RowDescription or NoData, which is to be noted for the statement.
    Description(usize, u64, Show),
    /// CopyInResponse: the backend now waits for the client's data.
    CopyIn(usize),
    /// The backend sent what it must not send here.
    Violation(u8),
}

/// What an error in the extended protocol left undone.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Skipped {
    /// What did not take place, the latest first.
    pub(crate) undone: Vec<Undone>,
    /// So many ParseComplete messages the client was waiting for will not come.
    pub(crate) shown: usize,
}

/// A change of the statements that a connection holds which did not take place.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Undone {
    /// This one was not prepared.
    Parse { statement: u64, named: bool },
    /// This text of ours was not.
    Keep { number: u64 },
    /// This one is still there.
    Evict { statement: u64 },
}

/// The replies a connection owes, oldest first.
#[derive(Debug)]
pub(crate) struct Replies {
    owed: VecDeque<Owed>,
    /// The bytes for each [`Reply::Ours`] among them.
    ours: VecDeque<Bytes>,
    /// Of a message passed on while incomplete, so many bytes are still to come.
    body_left: usize,
    status: TransactionStatus,
    /// ReadyForQuery messages seen, modulo 2^32.
    readies: u32,
    /// So many of them have answered a Sync of the batch.
    syncs: u32,
    last_tag: CommandTag,
    suspended: bool,
    /// An error has come, and no ReadyForQuery since.
    skipping: bool,
}

impl Default for Replies {
    fn default() -> Self {
        Self {
            owed: VecDeque::new(),
            ours: VecDeque::new(),
            body_left: 0,
            status: TransactionStatus::Idle,
            readies: 0,
            syncs: 0,
            last_tag: CommandTag::default(),
            suspended: false,
            skipping: false,
        }
    }
}

impl Replies {
    /// Notes that a message has been sent whose reply is `reply`.
    pub(crate) fn expect(&mut self, reply: Reply, show: Show) {
        self.owed.push_back(Owed { reply, show });
    }

    /// Puts a message of ours behind the replies owed so far.
    pub(crate) fn put(&mut self, bytes: Bytes) {
        self.ours.push_back(bytes);
        self.expect(Reply::Ours, Show::All);
    }

    /// The bytes of ours that an [`Event::Ours`] was about.
    pub(crate) fn take_ours(&mut self) -> Bytes {
        self.ours.pop_front().unwrap_or_default()
    }

    /// Whether the backend is to speak next.
    pub(crate) fn awaits_input(&self) -> bool {
        let front = self.owed.front();
        front.is_some_and(|owed| owed.reply != Reply::Ours)
    }

    /// True when nothing is owed.
    pub(crate) fn is_settled(&self) -> bool {
        self.owed.is_empty()
    }

    /// Whether nothing but the end is owed behind what is being answered.
    pub(crate) fn is_at_last(&self) -> bool {
        let behind = self.owed.iter().skip(1);
        behind.into_iter().all(|owed| owed.reply == Reply::Sync)
    }

    /// What the last ReadyForQuery said.
    pub(crate) fn status(&self) -> TransactionStatus {
        self.status
    }

    /// The last [`Event::Description`] of a statement has been noted: that of its result.
    pub(crate) fn description_noted(&mut self) {
        self.owed.pop_front();
    }

    /// Takes note of a ReadyForQuery that did not pass through [`Replies::scan`].
    pub(crate) fn set_status(&mut self, status: TransactionStatus) {
        self.status = status;
        self.skipping = false;
    }

    /// Whether messages of the extended protocol are ignored up to the next Sync, because of an error.
    pub(crate) fn is_skipping(&self) -> bool {
        self.skipping
    }

    /// Whether a part of a message has been passed on and the rest has not come.
    pub(crate) fn is_within_message(&self) -> bool {
        self.body_left > 0
    }

    /// How many ReadyForQuery messages have come, to be compared before and after.
    pub(crate) fn readies(&self) -> u32 {
        self.readies
    }

    /// How many Sync messages have been answered.
    pub(crate) fn syncs(&self) -> u32 {
        self.syncs
    }

    /// After an error in the extended protocol the backend skips to the next Sync; so do we.
    pub(crate) fn skip_to_sync(&mut self) -> Skipped {
        let mut skipped = Skipped::default();
        self.skipping = true;
        while let Some(&Owed { reply, show }) = self.owed.front() {
            match reply {
                Reply::Query { .. } | Reply::Sync | Reply::Part { ready: true, .. } => break,
                Reply::Parse { statement, named } => {
                    skipped.undone.push(Undone::Parse { statement, named });
                    skipped.shown += usize::from(show == Show::All);
                }
                Reply::Keep { number } => skipped.undone.push(Undone::Keep { number }),
                Reply::Evict { statement } => skipped.undone.push(Undone::Evict { statement }),
                Reply::Ours => {
                    let ours = self.ours.pop_front();
                    let is_parse_complete = ours.is_some_and(|ours| ours.first() == Some(&b'1'));
                    skipped.shown += usize::from(is_parse_complete);
                }
                Reply::Part { ready: false, .. }
                | Reply::Bind
                | Reply::Describe { .. }
                | Reply::Close
                | Reply::Execute => {}
            }
            self.owed.pop_front();
        }
        skipped.undone.reverse();
        skipped
    }

    /// The tag of the last CommandComplete.
    pub(crate) fn last_tag(&self) -> CommandTag {
        self.last_tag
    }

    /// Whether the last execution stopped at its row limit.
    pub(crate) fn is_suspended(&self) -> bool {
        self.suspended
    }

    /// Nobody sees what is still owed.
    pub(crate) fn hide_all(&mut self) {
        for owed in &mut self.owed {
            owed.show = Show::Nothing;
        }
    }

    /// Whether what is answered now was asked by the extended protocol, whose replies a backend sends at a Flush or Sync.
    pub(crate) fn awaits_flush(&self) -> bool {
        matches!(
            self.owed.front(),
            Some(Owed {
                reply: Reply::Execute,
                ..
            })
        )
    }

    /// A backend that waits for COPY data ignores the Sync messages it meets: forget those already sent.
    pub(crate) fn forget_syncs(&mut self) {
        self.owed.retain(|owed| owed.reply != Reply::Sync);
    }

    /// Walks `input` as far as it can be passed on.
    pub(crate) fn scan(&mut self, input: &[u8]) -> Scanned {
        let mut forward = self.body_left.min(input.len());
        self.body_left -= forward;
        if self.body_left > 0 {
            let event = Event::NeedInput;
            return Scanned { forward, event };
        }
        loop {
            let rest = self.pass(input.get(forward..).unwrap_or_default());
            forward = input.len() - rest.len();
            match self.step(rest) {
                Step::Pass(length) => forward += length,
                Step::PassPart(length) => {
                    self.body_left = length - rest.len();
                    let (forward, event) = (input.len(), Event::NeedInput);
                    return Scanned { forward, event };
                }
                Step::Stop(event) => return Scanned { forward, event },
            }
        }
    }

    /// Walks over whole messages that are shown and simply a part of what is owed. Returns what follows them.
    fn pass<'a>(&mut self, mut input: &'a [u8]) -> &'a [u8] {
        while let Some(&Owed { reply, show }) = self.owed.front()
            && show == Show::All
            && let Ok(Some(message)) = frame::split(input)
            && self.is_part(reply, message.tag, message.body)
        {
            input = message.rest;
        }
        input
    }

    /// Whether a message is simply a part of the oldest reply, of which it is then taken note.
    #[inline]
    fn is_part(&mut self, reply: Reply, tag: u8, body: &[u8]) -> bool {
        let Some(ends) = reply.ends_with(tag) else {
            return false;
        };
        if matches!(tag, b'C' | b'I' | b's') {
            self.note_end(tag, body);
        }
        if ends {
            self.owed.pop_front();
        }
        true
    }

    /// What is to be done about the start of `input`.
    fn step(&mut self, input: &[u8]) -> Step {
        let Some(&front) = self.owed.front() else {
            return Step::Stop(Event::Settled);
        };
        if front.reply == Reply::Ours {
            self.owed.pop_front();
            return Step::Stop(Event::Ours);
        }
        match (frame::header(input), front.show, front.reply) {
            (Ok(Some(header)), ..) if header.len <= input.len() => {
                self.special(front, header, input)
            }
            // Rows and COPY data may be larger than any buffer: they pass in parts.
            (
                Ok(Some(Header {
                    tag: b'D' | b'd',
                    len,
                })),
                Show::All,
                Reply::Execute | Reply::Query { .. } | Reply::Part { .. },
            ) => Step::PassPart(len),
            (Ok(_), ..) => Step::Stop(Event::NeedInput),
            (Err(error), ..) => Step::Stop(Event::Violation(error.tag)),
        }
    }

    /// Checks one whole message against the oldest entry: it is not shown, or not simply a part of it.
    fn special(&mut self, front: Owed, header: Header, message: &[u8]) -> Step {
        let Owed { reply, show } = front;
        let shown = show == Show::All;
        let body = message.get(frame::HEADER..header.len).unwrap_or_default();
        if self.is_part(reply, header.tag, body) {
            return pass_or_hide(shown, header.len);
        }
        match (header.tag, reply) {
            (b'D', Reply::Part { .. }) => pass_or_hide(shown, header.len),
            (b'1' | b'2' | b'n', Reply::Part { ready: true, .. }) => {
                pass_or_hide(false, header.len)
            }
            (b'T', Reply::Part { describe, .. }) => pass_or_hide(describe && shown, header.len),
            (b'C' | b'I' | b's', Reply::Part { ready, .. }) => {
                self.note_end(header.tag, body);
                if !ready {
                    self.owed.pop_front();
                }
                pass_or_hide(false, header.len)
            }
            (b't' | b'T' | b'n', Reply::Describe { noted_of }) => match noted_of {
                Some(statement) => Step::Stop(Event::Description(header.len, statement, show)),
                None => pass_or_hide(shown, header.len),
            },
            (b'Z', Reply::Query { .. } | Reply::Part { ready: true, .. } | Reply::Sync) => {
                self.skipping = false;
                self.readies = self.readies.wrapping_add(1);
                self.syncs = self.syncs.wrapping_add(u32::from(reply == Reply::Sync));
                self.status = match body.first() {
                    Some(b'I') => TransactionStatus::Idle,
                    Some(b'T') => TransactionStatus::InBlock,
                    Some(b'E') => TransactionStatus::Failed,
                    _ => return Step::Stop(Event::Violation(b'Z')),
                };
                self.owed.pop_front();
                pass_or_hide(shown && reply.shows_ready(), header.len)
            }
            (b'N', _) => pass_or_hide(show.has_notices(), header.len),
            (b'A', _) => Step::Stop(Event::Notification(header.len)),
            (b'S', _) => Step::Stop(Event::Parameter {
                length: header.len,
                tell: shown && reply.shows_ready(),
            }),
            (b'E', _) => Step::Stop(Event::Error(header.len, show)),
            (b'G', Reply::Execute | Reply::Query { .. }) => Step::Stop(Event::CopyIn(header.len)),
            (tag, _) => Step::Stop(Event::Violation(tag)),
        }
    }

    /// A statement is over, or as many of its rows as were asked for have come.
    fn note_end(&mut self, tag: u8, body: &[u8]) {
        self.suspended = tag == b's';
        if tag == b'C' {
            self.last_tag.read(body);
        }
    }
}

impl Reply {
    /// Whether a message of this tag, which is shown as all of the reply is, ends it. `None`: there is more to it, or it has
    /// no place here.
    #[inline]
    fn ends_with(self, tag: u8) -> Option<bool> {
        let ends = match (self, tag) {
            (Self::Execute, b'D' | b'd' | b'c' | b'H') => false,
            (Self::Execute, b'C' | b'I' | b's') => true,
            (Self::Query { .. }, b'D' | b'd' | b'c' | b'H' | b'T' | b'V' | b'C' | b'I') => false,
            (Self::Parse { .. } | Self::Keep { .. }, b'1') | (Self::Bind, b'2') => true,
            (Self::Close | Self::Evict { .. }, b'3') => true,
            (Self::Describe { noted_of: None }, b'T' | b'n') => true,
            _ => return None,
        };
        Some(ends)
    }

    /// Whether the ReadyForQuery at its end is the client's, if it sees any of it.
    fn shows_ready(self) -> bool {
        matches!(self, Self::Query { show_ready: true } | Self::Sync)
    }
}

enum Step {
    /// A whole message of this length goes to the client.
    Pass(usize),
    /// What there is of a message of this length goes to the client.
    PassPart(usize),
    Stop(Event),
}

fn pass_or_hide(pass: bool, length: usize) -> Step {
    match pass {
        true => Step::Pass(length),
        false => Step::Stop(Event::Hidden(length)),
    }
}

#[cfg(test)]
mod tests {
    use super::{Event, Replies, Reply, Show, Undone};
    use switchyard_wire::backend::TransactionStatus;

    fn message(tag: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).unwrap();
        [&[tag][..], &length.to_be_bytes(), body].concat()
    }

    fn select_reply() -> Vec<u8> {
        [
            message(b'T', b"\0\0"),
            message(b'D', b"\0\0"),
            message(b'D', &[0; 100]),
            message(b'C', b"SELECT 2\0"),
            message(b'Z', b"T"),
        ]
        .concat()
    }

    #[test]
    fn a_simple_query_s_reply_passes_whole() {
        let input = select_reply();
        let mut replies = Replies::default();
        replies.expect(Reply::Query { show_ready: true }, Show::All);
        let scanned = replies.scan(&input);
        assert_eq!(
            (scanned.forward, scanned.event),
            (input.len(), Event::Settled)
        );
        assert_eq!(replies.status(), TransactionStatus::InBlock);
    }

    #[test]
    fn however_the_bytes_arrive_they_pass_once_and_in_order() {
        let input = select_reply();
        for size in 1..input.len() {
            let mut replies = Replies::default();
            replies.expect(Reply::Query { show_ready: true }, Show::All);
            let mut buffer = Vec::new();
            let mut passed = Vec::new();
            let mut settled = false;
            for chunk in input.chunks(size) {
                buffer.extend_from_slice(chunk);
                let scanned = replies.scan(&buffer);
                passed.extend(buffer.drain(..scanned.forward));
                settled = scanned.event == Event::Settled;
                assert!(settled || scanned.event == Event::NeedInput);
            }
            assert!(settled, "chunks of {size}");
            assert_eq!(passed, input, "chunks of {size}");
        }
    }

    #[test]
    fn our_own_messages_are_hidden_and_ours_come_in_their_place() {
        let mut replies = Replies::default();
        replies.expect(Reply::Query { show_ready: true }, Show::Errors);
        replies.put(bytes::Bytes::from_static(b"ours"));
        replies.expect(Reply::Bind, Show::All);
        let begin = [message(b'C', b"BEGIN\0"), message(b'Z', b"T")].concat();
        let complete = message(b'C', b"BEGIN\0").len();
        let input = [begin.clone(), message(b'2', b"")].concat();
        assert_eq!(replies.scan(&input).event, Event::Hidden(complete));
        assert_eq!(replies.scan(&input[complete..]).event, Event::Hidden(6));
        let rest = &input[begin.len()..];
        assert_eq!(replies.scan(rest).event, Event::Ours);
        assert_eq!(&replies.take_ours()[..], b"ours");
        let scanned = replies.scan(rest);
        assert_eq!((scanned.forward, scanned.event), (5, Event::Settled));
    }

    #[test]
    fn a_reply_out_of_place_is_a_violation() {
        let mut replies = Replies::default();
        replies.expect(Reply::Bind, Show::All);
        assert_eq!(
            replies.scan(&message(b'1', b"")).event,
            Event::Violation(b'1')
        );
    }

    #[test]
    fn an_error_in_a_batch_cancels_what_was_sent_up_to_the_sync() {
        let mut replies = Replies::default();
        let parse = Reply::Parse {
            statement: 7,
            named: true,
        };
        replies.expect(parse, Show::All);
        replies.expect(Reply::Evict { statement: 3 }, Show::Nothing);
        replies.expect(Reply::Bind, Show::All);
        replies.expect(Reply::Execute, Show::All);
        replies.expect(Reply::Sync, Show::All);
        let error = message(b'E', b"SERROR\0C42601\0Mno\0\0");
        assert_eq!(
            replies.scan(&error).event,
            Event::Error(error.len(), Show::All)
        );
        let skipped = replies.skip_to_sync();
        let undone = [
            Undone::Evict { statement: 3 },
            Undone::Parse {
                statement: 7,
                named: true,
            },
        ];
        assert_eq!((&skipped.undone[..], skipped.shown), (&undone[..], 1));
        let scanned = replies.scan(&message(b'Z', b"I"));
        assert_eq!((scanned.forward, scanned.event), (6, Event::Settled));
    }
}
