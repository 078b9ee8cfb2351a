//! Rows that a workspace answers with, on their way into a table of a shard.

use std::future::poll_fn;

use bytes::{Buf, Bytes, BytesMut};
use switchyard_wire::frame::{self, HEADER};
use switchyard_wire::frontend::encode;

use super::client::Client;
use super::failure::Failure;
use super::messages::{Said, next, next_now, violation};
use super::participant::Participant;
use super::participants::Participants;
use super::relay::{Trouble, broken, client_gone, fill};
use super::workspace::{CHUNK, COPY_END, COPY_HEADER, Workspace, take_part, write_all};
use crate::backend::{CommandTag, Connection, Show};
use crate::startup::cancel::CancelReason;

/// Copies the rows of a query, which these messages ask the workspace for in binary, into a table by this COPY; their number. Whether
/// they are wanted no more is asked when the COPY has begun, which from then on hears of it by itself.
pub(crate) async fn load(
    client: &mut Client,
    workspace: &mut Workspace,
    messages: impl FnOnce(&mut BytesMut),
    target: &mut Participant,
    copy: &str,
    cancelled: impl FnOnce() -> Option<CancelReason>,
) -> Result<u64, Trouble> {
    begin(client, target, copy).await?;
    let asked = match cancelled() {
        None => workspace.ask(client, messages).await,
        Some(reason) => Err(Failure::Cancelled(reason).into()),
    };
    let poured = match asked {
        Ok(()) => pour(client, workspace, target).await,
        Err(trouble) => Err(trouble),
    };
    let output = &mut target.connection.output;
    let show = match &poured {
        Ok(_) => {
            encode::copy_data(output, &COPY_END);
            encode::copy_done(output);
            Show::Notices
        }
        // The client hears of the trouble there was before.
        Err(_) => {
            encode::copy_fail(output, b"the rows could not be read");
            Show::Nothing
        }
    };
    write_all(client, &mut target.connection).await?;
    let ended = end(client, target, show).await;
    let rows = poured?;
    ended.map(|_| rows)
}

/// Divides the rows that a workspace answers with, up to ReadyForQuery, among participants that have begun a binary COPY.
pub(crate) async fn divide(
    client: &mut Client,
    workspace: &mut Workspace,
    participants: &mut Participants,
    place: impl Fn(&[u8]) -> Result<usize, Failure>,
) -> Result<(), Trouble> {
    while let Some(message) = next_row(client, workspace).await? {
        let target = participants.at(place(&message)?)?;
        let output = &mut target.connection.output;
        encode::copy_data(output, message.get(HEADER..).unwrap_or_default());
        if output.len() >= CHUNK {
            deliver(client, target).await?;
        }
    }
    Ok(())
}

/// Takes the rows that a workspace answers with, up to ReadyForQuery, each a whole message.
pub(crate) async fn take_all(
    client: &mut Client,
    workspace: &mut Workspace,
    mut take: impl FnMut(&[u8]) -> Result<(), Failure>,
) -> Result<(), Trouble> {
    while let Some(message) = next_row(client, workspace).await? {
        take(&message)?;
    }
    Ok(())
}

/// The next row that a workspace answers with, a whole message; `None` at ReadyForQuery.
async fn next_row(
    client: &mut Client,
    workspace: &mut Workspace,
) -> Result<Option<BytesMut>, Trouble> {
    // Behind an error come no rows.
    let mut failed = false;
    loop {
        match next(client, &mut workspace.backend, Show::Notices).await? {
            Said::Message(header) => {
                let input = &mut workspace.backend.connection.input;
                let message = input.split_to(header.len);
                if header.tag == b'D' {
                    return Ok(Some(message));
                }
            }
            Said::Error => failed = true,
            Said::Ready => {
                workspace.answer_noted();
                return match failed {
                    true => Err(Trouble::Told),
                    false => Ok(None),
                };
            }
        }
    }
}

/// Stores rows in a table by this COPY, each of them the body of a row in binary; how many are stored.
pub(crate) async fn store(
    client: &mut Client,
    target: &mut Participant,
    copy: &str,
    rows: &[Bytes],
    show: Show,
) -> Result<u64, Trouble> {
    begin(client, target, copy).await?;
    for row in rows {
        encode::copy_data(&mut target.connection.output, row);
        if target.connection.output.len() >= CHUNK {
            write_all(client, &mut target.connection).await?;
        }
    }
    finish(client, target, Some(show)).await
}

/// Ends the COPY of a participant: well, the client seeing this of what is said, or because of trouble that it hears of. The number of rows that
/// are stored: triggers may have left some out.
pub(crate) async fn finish(
    client: &mut Client,
    target: &mut Participant,
    well: Option<Show>,
) -> Result<u64, Trouble> {
    let output = &mut target.connection.output;
    let show = match well {
        Some(show) => {
            encode::copy_data(output, &COPY_END);
            encode::copy_done(output);
            show
        }
        None => {
            encode::copy_fail(output, b"the rows could not be read");
            Show::Nothing
        }
    };
    write_all(client, &mut target.connection).await?;
    end(client, target, show).await
}

/// Begins a binary COPY into a table.
pub(crate) async fn begin(
    client: &mut Client,
    target: &mut Participant,
    copy: &str,
) -> Result<(), Trouble> {
    encode::query(&mut target.connection.output, copy.as_bytes());
    target.connection.unnamed = None;
    target.unread = true;
    write_all(client, &mut target.connection).await?;
    match next(client, target, Show::Errors).await? {
        Said::Message(header) if header.tag == b'G' => {
            target.connection.input.advance(header.len);
            encode::copy_data(&mut target.connection.output, COPY_HEADER);
            Ok(())
        }
        Said::Error => match end(client, target, Show::Errors).await {
            Ok(_) => Err(Trouble::Told),
            Err(trouble) => Err(trouble),
        },
        Said::Message(header) => Err(violation(target, Some(header.tag))),
        Said::Ready => Err(violation(target, Some(b'Z'))),
    }
}

/// Passes rows on as they come, up to ReadyForQuery; their number. A row of a result and one of a binary COPY are the same bytes.
async fn pour(
    client: &mut Client,
    workspace: &mut Workspace,
    target: &mut Participant,
) -> Result<u64, Trouble> {
    let (mut rows, mut failed) = (0, false);
    // Of a row that is passed on in parts, so many bytes are still to come.
    let mut rest = 0;
    loop {
        let source = &mut workspace.backend;
        let said = match rest {
            0 => next_now(client, source, Show::Notices)?,
            _ => None,
        };
        let output = &mut target.connection.output;
        match said {
            Some(Said::Message(header)) => {
                let message = source.connection.input.split_to(header.len);
                if header.tag == b'D' {
                    encode::copy_data(output, message.get(HEADER..).unwrap_or_default());
                    rows += 1;
                }
            }
            Some(Said::Error) => failed = true,
            Some(Said::Ready) => {
                workspace.answer_noted();
                return match failed {
                    true => Err(Trouble::Told),
                    false => Ok(rows),
                };
            }
            None => {
                let began = rest == 0;
                rest = match take_part(&mut source.connection.input, rest) {
                    Some((piece, rest)) => {
                        encode::copy_data(output, &piece);
                        rows += u64::from(began);
                        rest
                    }
                    None => 0,
                };
                if began || rest > 0 {
                    // What has come is on its way while more is waited for.
                    deliver(client, target).await?;
                    fill_unless_failed(client, source, target).await?;
                }
            }
        }
        if target.connection.output.len() >= CHUNK {
            deliver(client, target).await?;
        }
    }
}

/// Writes what a target is owed. The client gets what its triggers have said so far; all else waits for the end of the COPY.
async fn deliver(client: &mut Client, target: &mut Participant) -> Result<(), Trouble> {
    write_all(client, &mut target.connection).await?;
    let input = &mut target.connection.input;
    while let Ok(Some(header)) = frame::header(input)
        && header.tag == b'N'
        && input.len() >= header.len
    {
        client.output.extend_from_slice(&input.split_to(header.len));
    }
    client.flush().await.map_err(client_gone)
}

/// Waits for more rows, while it is watched whether the COPY that takes them has failed: it may do so by a row, or because it was
/// cancelled before the source was at work.
async fn fill_unless_failed(
    client: &mut Client,
    source: &mut Participant,
    target: &mut Participant,
) -> Result<(), Trouble> {
    // It may have been heard while rows were written.
    not_failed(client, target)?;
    tokio::select! {
        biased;
        spoke = spoken(&mut target.connection) => spoke?,
        filled = fill(client, source) => return filled,
    }
    not_failed(client, target)
}

/// Looks at what a target has said: it takes rows until it says that it does not.
fn not_failed(client: &mut Client, target: &mut Participant) -> Result<(), Trouble> {
    match next_now(client, target, Show::Notices)? {
        Some(Said::Error) => Err(Trouble::Told),
        Some(Said::Message(header)) => Err(violation(target, Some(header.tag))),
        Some(Said::Ready) => Err(violation(target, Some(b'Z'))),
        None => Ok(()),
    }
}

/// Waits until the backend has said something.
async fn spoken(connection: &mut Connection) -> Result<(), Trouble> {
    match poll_fn(|context| connection.poll_receive(context)).await {
        Ok(count) if count > 0 => Ok(()),
        _ => Err(broken(connection)),
    }
}

/// Reads to the end of the COPY; how many rows it has stored.
async fn end(client: &mut Client, target: &mut Participant, show: Show) -> Result<u64, Trouble> {
    let (mut rows, mut failed) = (0, false);
    loop {
        match next(client, target, show).await? {
            Said::Message(header) => {
                let message = target.connection.input.split_to(header.len);
                if header.tag == b'C' {
                    rows = CommandTag::of(message.get(HEADER..).unwrap_or_default()).rows();
                }
            }
            Said::Error => failed = true,
            Said::Ready => {
                target.unread = false;
                return match failed {
                    true => Err(Trouble::Told),
                    false => Ok(rows),
                };
            }
        }
    }
}
