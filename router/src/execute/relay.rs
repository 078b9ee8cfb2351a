//! Moves bytes between a client and one backend.
//!
//! The hot path of the router: a reply that passes as it is goes from the read buffer to the client's socket without
//! being copied, in as few writes as reads. What has arrived is written before more is waited for, as PostgreSQL
//! itself would have flushed it. While a backend works the client's socket is watched, so that a client that leaves is
//! noticed and one that sends ahead never blocks us.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "the events listed are the ones with something to do here"
)]

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::Poll;

use bytes::{Buf, Bytes};
use switchyard_wire::SqlState;
use switchyard_wire::backend::{Message, decode};
use switchyard_wire::frame;
use tokio::io::AsyncWrite;

use super::copy::copy_in;
use super::participant::Participant;
use super::participants::Participants;
use crate::backend::{Connection, Event, Show, Undone};
use crate::buffers::reclaim;
use crate::execute::client::{Client, ClientError};
use crate::execute::failure::Failure;
use crate::execute::report;
use crate::metrics::ErrorClass;
use crate::stream::Stream;

/// Why a request cannot go on.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// The client is told, and the session goes on.
    Failure(Failure),
    /// A participant's connection is lost; whoever sent the statement knows what that means for it.
    Lost,
    /// The client has left, or its stream failed, or the rest of a message it has the start of is lost, so that nothing can
    /// be said to it any more: the session ends.
    Gone,
    /// An error has been shown: the statement is over.
    Told,
    /// The client broke the protocol: it is told, and the session ends.
    Protocol(Box<str>),
    /// The client was idle in its transaction for too long: it is told, and the session ends.
    Overdue,
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

impl From<ClientError> for Trouble {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Io(_) => Self::Gone,
            ClientError::Frame(error) => Self::Protocol(error.to_string().into()),
        }
    }
}

/// The client's own stream failed while writing to it.
pub(crate) fn client_gone(_: io::Error) -> Trouble {
    Trouble::Gone
}

/// How far the replies have come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    Settled,
    NeedInput,
    CopyIn,
}

/// Takes note of how the backend has described a statement, by its number: the types of its parameters, then the columns of
/// its result, a whole message.
pub(crate) trait NoteDescription {
    fn note_types(&mut self, statement: u64, types: &[u32]);
    fn note_columns(&mut self, statement: u64, columns: Bytes);
}

/// Sends what is queued for the backend, then `bytes`, and relays until nothing is owed any more. True if an error was
/// among the replies.
pub(crate) async fn exchange(
    client: &mut Client,
    participant: &mut Participant,
    bytes: &[u8],
    notes: &mut impl NoteDescription,
) -> Result<bool, Trouble> {
    if !send_now(participant, bytes)? {
        Box::pin(send_rest(client, participant, notes)).await?;
    }
    participant.failed = false;
    // Messages of ours alone wait for the backend's first, as PostgreSQL's own wait for the Sync.
    let mut answered = !client.output.is_empty();
    loop {
        if participant.copying {
            participant.copying = false;
            Box::pin(async {
                client.release();
                client.flush().await.map_err(client_gone)?;
                copy_in(client, participant, notes).await
            })
            .await?;
        }
        match relay_available(client, participant, notes)? {
            Progress::Settled => return Ok(participant.failed),
            Progress::CopyIn => participant.copying = true,
            Progress::NeedInput => {
                if answered && !client.output.is_empty() {
                    Box::pin(client.flush()).await.map_err(client_gone)?;
                }
                fill(client, participant).await?;
                answered = true;
            }
        }
    }
}

/// Relays what has arrived, without waiting for anything: what the client does not take at once it is owed.
pub(crate) fn relay_available(
    client: &mut Client,
    participant: &mut Participant,
    notes: &mut impl NoteDescription,
) -> Result<Progress, Trouble> {
    loop {
        let connection = &mut *participant.connection;
        if connection.input.is_empty() && connection.replies.awaits_input() {
            return Ok(Progress::NeedInput);
        }
        let readies = connection.replies.readies();
        let scanned = connection.replies.scan(&connection.input);
        if scanned.forward > 0 {
            participant.shown = true;
            // A notice may come of reading the statement.
            if connection.replies.is_at_last() && connection.input.first() != Some(&b'N') {
                connection.has_answered();
            }
            let bytes = connection.input.get(..scanned.forward).unwrap_or_default();
            match scanned.event {
                Event::NeedInput => client.write_now(bytes).map_err(client_gone)?,
                // ReadyForQuery ends the request; other replies are gathered with what follows.
                Event::Settled if connection.replies.readies() != readies => {
                    client.write_now(bytes).map_err(client_gone)?;
                }
                _ => client.output.extend_from_slice(bytes),
            }
            // Emptying a buffer keeps its room; advancing over all of it does not.
            if scanned.forward == connection.input.len() {
                connection.input.clear();
                reclaim(&mut connection.input);
            } else {
                connection.input.advance(scanned.forward);
            }
        }
        match scanned.event {
            Event::Settled => return Ok(Progress::Settled),
            Event::NeedInput => return Ok(Progress::NeedInput),
            Event::CopyIn(length) => {
                pass(client, participant, length);
                return Ok(Progress::CopyIn);
            }
            event => handle(client, participant, notes, event)?,
        }
    }
}

/// What cannot simply be passed on.
fn handle(
    client: &mut Client,
    participant: &mut Participant,
    notes: &mut impl NoteDescription,
    event: Event,
) -> Result<(), Trouble> {
    match event {
        Event::Hidden(length) => participant.connection.input.advance(length),
        // Code has listened here, of which nobody knows who is to hear it.
        Event::Notification(length) => {
            participant.connection.input.advance(length);
            participant.connection.dirty = true;
        }
        Event::Ours => {
            participant.shown = true;
            let bytes = participant.connection.replies.take_ours();
            client.output.extend_from_slice(&bytes);
        }
        Event::Parameter { length, tell } => {
            let message = participant.connection.input.split_to(length);
            if let Ok(Message::ParameterStatus { name, value }) = decode_message(&message) {
                participant.connection.note_parameter(name, value);
                if tell {
                    client.tell(name, value);
                } else {
                    client.untold = true;
                }
            }
        }
        Event::Description(length, statement, show) => {
            let message = participant.connection.input.split_to(length);
            if let Ok(Message::ParameterDescription(types)) = decode_message(&message) {
                let types: Vec<u32> = types.iter().collect();
                notes.note_types(statement, &types);
            } else {
                notes.note_columns(statement, Bytes::copy_from_slice(&message));
                participant.connection.replies.description_noted();
            }
            if show == Show::All {
                client.output.extend_from_slice(&message);
            }
        }
        Event::Error(length, show) => error(client, participant, length, show)?,
        Event::Violation(tag) => {
            participant.connection.broken = true;
            tracing::error!(shard = %participant.shard_name, tag = %tag.escape_ascii(), "unexpected message from a node");
            return Err(Failure::ShardBrokeProtocol {
                shard: (&*participant.shard_name).into(),
            }
            .into());
        }
        Event::Settled | Event::NeedInput | Event::CopyIn(_) => {}
    }
    Ok(())
}

/// An ErrorResponse: shown with the shard's name, unless it says that the server is closing the connection.
pub(super) fn error(
    client: &mut Client,
    participant: &mut Participant,
    length: usize,
    show: Show,
) -> Result<(), Trouble> {
    let message = participant.connection.input.split_to(length);
    let Ok(Message::ErrorResponse(fields)) = decode_message(&message) else {
        participant.connection.broken = true;
        return Err(Trouble::Lost);
    };
    // 'V' is the severity untranslated. FATAL and PANIC close this backend, which is not the client's connection.
    if matches!(
        fields.get(b'V').or(fields.get(b'S')),
        Some(b"FATAL" | b"PANIC")
    ) {
        let sqlstate = SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT;
        client.overdue |= fields.get(b'C') == Some(sqlstate.as_bytes());
        participant.connection.broken = true;
        return Err(Trouble::Lost);
    }
    let connection = &mut *participant.connection;
    let skipped = connection.replies.skip_to_sync();
    participant.unparsed = skipped.shown;
    for undone in skipped.undone {
        match undone {
            Undone::Parse {
                statement,
                named: true,
            } => connection.prepared.remove(statement),
            Undone::Parse { named: false, .. } => connection.unnamed = None,
            Undone::Keep { number } => connection.kept.remove(number),
            Undone::Evict { statement } => connection.prepared.put_back(statement),
        }
    }
    if show != Show::Nothing {
        client.counters.error(ErrorClass::Server);
        participant.failed = true;
        participant.shown = true;
        report::error_of_shard(
            &mut client.output,
            &fields,
            &participant.shard_name,
            &participant.bound,
            participant.connection.target.reason(),
        );
    }
    Ok(())
}

pub(crate) fn decode_message(message: &[u8]) -> Result<Message<'_>, Trouble> {
    let (head, body) = message
        .split_at_checked(frame::HEADER)
        .ok_or(Trouble::Lost)?;
    decode(head[0], body).map_err(|_| Trouble::Lost)
}

/// Moves a whole message from the backend's input to what the client is owed.
fn pass(client: &mut Client, participant: &mut Participant, length: usize) {
    participant.shown = true;
    participant.connection.has_answered();
    let message = participant.connection.input.split_to(length);
    client.output.extend_from_slice(&message);
}

/// Waits for more of the backend's reply, watching the client meanwhile.
pub(crate) async fn fill(
    client: &mut Client,
    participant: &mut Participant,
) -> Result<(), Trouble> {
    let connection = &mut *participant.connection;
    let mut asked = false;
    let outcome = poll_fn(|context| {
        // There is nothing to read, at first, mostly; woken, there is.
        if !asked && connection.stream.poll_readable(context).is_pending() {
            asked = true;
            return client.poll_gone(context).map(|()| None);
        }
        match connection.poll_receive(context) {
            Poll::Ready(outcome) => Poll::Ready(Some(outcome)),
            Poll::Pending => {
                reclaim(&mut connection.input);
                client.poll_gone(context).map(|()| None)
            }
        }
    })
    .await;
    match outcome {
        Some(Ok(count)) if count > 0 => Ok(()),
        Some(_) => Err(broken(connection)),
        None => Err(Trouble::Gone),
    }
}

/// Waits for more from any of these participants, watching the client meanwhile. One whose connection is lost is marked as
/// broken.
pub(crate) async fn fill_any(
    client: &mut Client,
    participants: &mut Participants,
    indexes: &[usize],
) -> Result<(), Trouble> {
    let is_here = poll_fn(|context| {
        for index in indexes {
            let Some(participant) = participants.get_mut(*index) else {
                continue;
            };
            let connection = &mut *participant.connection;
            if let Poll::Ready(read) = connection.poll_receive(context) {
                connection.broken |= !read.is_ok_and(|count| count > 0);
                return Poll::Ready(true);
            }
        }
        client.poll_gone(context).map(|()| false)
    })
    .await;
    match is_here {
        true => Ok(()),
        false => Err(Trouble::Gone),
    }
}

/// Sends what is queued for the backend, then `bytes`. A backend that will not read before its own replies are read
/// gets them read: they are relayed meanwhile.
pub(crate) async fn send(
    client: &mut Client,
    participant: &mut Participant,
    bytes: &[u8],
    notes: &mut impl NoteDescription,
) -> Result<(), Trouble> {
    if send_now(participant, bytes)? {
        return Ok(());
    }
    send_rest(client, participant, notes).await
}

/// Sends what is queued for the backend, then `bytes`, as far as the socket takes them at once; the rest is queued.
/// True if there is no rest.
fn send_now(participant: &mut Participant, bytes: &[u8]) -> Result<bool, Trouble> {
    let connection = &mut *participant.connection;
    if connection.output.is_empty() && bytes.is_empty() {
        return Ok(true);
    }
    participant.shown = false;
    if connection.output.is_empty() {
        let taken = try_write(&connection.stream, bytes);
        let taken = taken.map_err(|_| broken(connection))?;
        let rest = bytes.get(taken..).unwrap_or_default();
        connection.output.extend_from_slice(rest);
    } else {
        connection.output.extend_from_slice(bytes);
        let taken = try_write(&connection.stream, &connection.output);
        let taken = taken.map_err(|_| broken(connection))?;
        if taken == connection.output.len() {
            connection.output.clear();
        } else {
            connection.output.advance(taken);
        }
    }
    Ok(connection.output.is_empty())
}

/// The backend's connection is lost. Where the client has a part of a message from it, an error would be taken for the rest.
pub(super) fn broken(connection: &mut Connection) -> Trouble {
    connection.broken = true;
    if connection.replies.is_within_message() {
        Trouble::Gone
    } else {
        Trouble::Lost
    }
}

/// Writes as much of `bytes` as the socket takes at once.
fn try_write(stream: &Stream, bytes: &[u8]) -> io::Result<usize> {
    match stream.try_write(bytes) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        outcome => outcome,
    }
}

/// Sends what is queued for the backend, waiting for it.
async fn send_rest(
    client: &mut Client,
    participant: &mut Participant,
    notes: &mut impl NoteDescription,
) -> Result<(), Trouble> {
    while !participant.connection.output.is_empty() {
        match write_or_read(participant).await? {
            Moved::Written => {}
            Moved::Read => {
                if relay_available(client, participant, notes)? == Progress::CopyIn {
                    participant.copying = true;
                }
                client.flush().await.map_err(client_gone)?;
            }
        }
    }
    Ok(())
}

async fn flush_stream(connection: &mut Connection) -> Result<(), Trouble> {
    let flushed = poll_fn(|context| Pin::new(&mut connection.stream).poll_flush(context)).await;
    flushed.map_err(|_| broken(connection))
}

enum Moved {
    Written,
    Read,
}

async fn write_or_read(participant: &mut Participant) -> Result<Moved, Trouble> {
    let connection = &mut *participant.connection;
    let copying = participant.copying;
    let outcome = poll_fn(|context| {
        if let Poll::Ready(written) =
            Pin::new(&mut connection.stream).poll_write(context, &connection.output)
        {
            return Poll::Ready(written.map(|count| {
                connection.output.advance(count);
                Moved::Written
            }));
        }
        // A backend in COPY reads whatever we send; its further replies can wait.
        if copying {
            return Poll::Pending;
        }
        match connection.poll_receive(context) {
            Poll::Ready(Ok(0)) => Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
            Poll::Ready(Ok(_)) => Poll::Ready(Ok(Moved::Read)),
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => Poll::Pending,
        }
    })
    .await;
    match outcome {
        Ok(moved) => flush_stream(connection).await.map(|()| moved),
        Err(_) => Err(broken(connection)),
    }
}
