//! A backend's answer, message by message, for what is read here instead of being passed on.

use bytes::Buf;
use switchyard_wire::backend::{Message, TransactionStatus};
use switchyard_wire::frame::{self, HEADER, Header};

use super::client::Client;
use super::participant::Participant;
use super::relay::{Trouble, decode_message, error, fill};
use crate::backend::Show;
use crate::execute::failure::Failure;

/// What a backend says next.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Said {
    /// A message of its answer, whole, at the start of its input: whoever reads it takes it off.
    Message(Header),
    /// An error, which the client has been told unless it is not to be shown. More may follow.
    Error,
    /// ReadyForQuery.
    Ready,
}

/// Waits for the next message of a backend's answer, while the client is watched. Notices are passed on, settings noted.
pub(crate) async fn next(
    client: &mut Client,
    participant: &mut Participant,
    show: Show,
) -> Result<Said, Trouble> {
    loop {
        if let Some(said) = next_now(client, participant, show)? {
            return Ok(said);
        }
        fill(client, participant).await?;
    }
}

/// The same, of what has arrived; `None` if no whole message has.
pub(crate) fn next_now(
    client: &mut Client,
    participant: &mut Participant,
    show: Show,
) -> Result<Option<Said>, Trouble> {
    loop {
        let input = &participant.connection.input;
        let header = match frame::header(input) {
            Ok(Some(header)) if input.len() >= header.len => header,
            Ok(_) => return Ok(None),
            Err(_) => return Err(violation(participant, input.first().copied())),
        };
        match header.tag {
            b'N' => {
                let message = participant.connection.input.split_to(header.len);
                if show.has_notices() {
                    client.output.extend_from_slice(&message);
                }
            }
            // Code has listened here, of which nobody knows who is to hear it.
            b'A' => {
                participant.connection.input.advance(header.len);
                participant.connection.dirty = true;
            }
            b'S' => {
                let message = participant.connection.input.split_to(header.len);
                if let Ok(Message::ParameterStatus { name, value }) = decode_message(&message) {
                    participant.connection.note_parameter(name, value);
                    client.untold = true;
                }
            }
            b'E' => {
                error(client, participant, header.len, show)?;
                return Ok(Some(Said::Error));
            }
            b'Z' => {
                let status = match participant.connection.input.get(HEADER) {
                    Some(b'I') => TransactionStatus::Idle,
                    Some(b'T') => TransactionStatus::InBlock,
                    Some(b'E') => TransactionStatus::Failed,
                    _ => return Err(violation(participant, Some(b'Z'))),
                };
                participant.connection.input.advance(header.len);
                participant.connection.replies.set_status(status);
                return Ok(Some(Said::Ready));
            }
            _ => {
                participant.connection.has_answered();
                return Ok(Some(Said::Message(header)));
            }
        }
    }
}

/// Reads an answer whose rows are lines of text, up to ReadyForQuery.
pub(crate) async fn lines(
    client: &mut Client,
    participant: &mut Participant,
) -> Result<Vec<String>, Trouble> {
    let (mut lines, mut failed) = (Vec::new(), false);
    loop {
        match next(client, participant, Show::Errors).await? {
            Said::Message(header) => {
                let message = participant.connection.input.split_to(header.len);
                if let Ok(Message::DataRow(row)) = decode_message(&message) {
                    let line = row.iter().next().flatten().unwrap_or_default();
                    lines.push(String::from_utf8_lossy(line).into_owned());
                }
            }
            Said::Error => failed = true,
            Said::Ready if failed => return Err(Trouble::Told),
            Said::Ready => return Ok(lines),
        }
    }
}

/// Reads an answer's rows, up to ReadyForQuery.
pub(crate) async fn rows(
    client: &mut Client,
    participant: &mut Participant,
) -> Result<Vec<Vec<Option<Vec<u8>>>>, Trouble> {
    let (mut rows, mut failed) = (Vec::new(), false);
    loop {
        match next(client, participant, Show::Errors).await? {
            Said::Message(header) => {
                let message = participant.connection.input.split_to(header.len);
                if let Ok(Message::DataRow(row)) = decode_message(&message) {
                    rows.push(row.iter().map(|value| value.map(<[u8]>::to_vec)).collect());
                }
            }
            Said::Error => failed = true,
            Said::Ready if failed => return Err(Trouble::Told),
            Said::Ready => return Ok(rows),
        }
    }
}

/// The backend has said something that the protocol does not allow here.
pub(crate) fn violation(participant: &mut Participant, tag: Option<u8>) -> Trouble {
    participant.connection.broken = true;
    let tag = tag.unwrap_or_default();
    tracing::error!(shard = %participant.shard_name, tag = %tag.escape_ascii(), "unexpected message from a node");
    Failure::ShardBrokeProtocol {
        shard: (&*participant.shard_name).into(),
    }
    .into()
}
