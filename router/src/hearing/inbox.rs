//! What has been heard for one session and not yet told to its client.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use switchyard_wire::frame::HEADER;

/// The most bytes of notifications that wait for one client.
pub(crate) const LIMIT: usize = 16 << 20;
/// How many bytes of a notification stand in front of its channel: the header and a process number.
const TO_CHANNEL: usize = HEADER + 4;

/// Notifications for one session, whole messages in the order of their commits.
#[derive(Debug, Default)]
pub(crate) struct Inbox(Mutex<Heard>);

#[derive(Debug, Default)]
struct Heard {
    messages: VecDeque<Bytes>,
    bytes: usize,
    closed: Option<Closed>,
    /// The session, when it waits.
    session: Option<Waker>,
}

/// Why nothing will be heard any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Closed {
    /// The ear was lost, and what has been said since.
    Lost,
    /// Too much waits for the client.
    Full,
}

impl Inbox {
    /// Puts a message in.
    pub(super) fn put(&self, message: &Bytes) {
        let mut heard = self.lock();
        if heard.closed.is_some() {
            return;
        }
        if heard.bytes + message.len() > LIMIT {
            return heard.close(Closed::Full);
        }
        heard.bytes += message.len();
        heard.messages.push_back(message.clone());
        heard.wake();
    }

    /// Nothing more will come.
    pub(super) fn lose(&self) {
        self.lock().close(Closed::Lost);
    }

    /// Whether nothing more will come, and why.
    pub(crate) fn closed(&self) -> Option<Closed> {
        self.lock().closed
    }

    /// Takes what is there, of these channels; what is of others the session does not listen to, any more or yet.
    pub(crate) fn take(&self, mut is_heard: impl FnMut(&str) -> bool, mut give: impl FnMut(&[u8])) {
        let messages = {
            let mut heard = self.lock();
            heard.bytes = 0;
            std::mem::take(&mut heard.messages)
        };
        for message in messages {
            if channel(&message).is_some_and(&mut is_heard) {
                give(&message);
            }
        }
    }

    /// Ready when it is closed, or when something is there and `asks` for that.
    pub(crate) fn poll(&self, asks: bool, context: &mut Context<'_>) -> Poll<()> {
        let mut heard = self.lock();
        if heard.closed.is_some() || asks && !heard.messages.is_empty() {
            return Poll::Ready(());
        }
        let is_known = |known: &Waker| known.will_wake(context.waker());
        if !heard.session.as_ref().is_some_and(is_known) {
            heard.session = Some(context.waker().clone());
        }
        Poll::Pending
    }

    fn lock(&self) -> MutexGuard<'_, Heard> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Heard {
    fn close(&mut self, why: Closed) {
        self.closed.get_or_insert(why);
        self.messages = VecDeque::new();
        self.bytes = 0;
        self.wake();
    }

    fn wake(&mut self) {
        if let Some(session) = self.session.take() {
            session.wake();
        }
    }
}

/// The channel of a NotificationResponse.
fn channel(message: &[u8]) -> Option<&str> {
    let rest = message.get(TO_CHANNEL..)?;
    let end = rest.iter().position(|byte| *byte == 0)?;
    std::str::from_utf8(rest.get(..end)?).ok()
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use switchyard_wire::backend::encode;

    use super::*;

    fn message(channel: &str, payload: &str) -> Bytes {
        let mut message = BytesMut::new();
        encode::notification_response(&mut message, 7, channel.as_bytes(), payload.as_bytes());
        message.freeze()
    }

    fn taken(inbox: &Inbox, channels: &[&str]) -> Vec<u8> {
        let mut all = Vec::new();
        inbox.take(
            |channel| channels.contains(&channel),
            |message| all.extend_from_slice(message),
        );
        all
    }

    #[test]
    fn what_is_heard_is_taken_in_order_and_once() {
        let inbox = Inbox::default();
        let (first, other, last) = (message("a", "1"), message("b", "2"), message("a", "3"));
        for message in [&first, &other, &last] {
            inbox.put(message);
        }
        assert_eq!(taken(&inbox, &["a"]), [first, last].concat());
        assert!(taken(&inbox, &["a", "b"]).is_empty());
    }

    #[test]
    fn nothing_is_taken_of_what_has_a_gap() {
        let (inbox, long) = (Inbox::default(), message("a", &"x".repeat(7_000)));
        let fits = LIMIT / long.len();
        for _ in 0..fits {
            inbox.put(&long);
        }
        assert_eq!(inbox.closed(), None);
        inbox.put(&long);
        assert_eq!(inbox.closed(), Some(Closed::Full));
        inbox.put(&message("a", "later"));
        assert!(taken(&inbox, &["a"]).is_empty());
        inbox.lose();
        assert_eq!(inbox.closed(), Some(Closed::Full));
    }
}
