//! Rows on their way from one node's table to another's: a COPY of each, whose data is passed on as it comes.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "the messages listed are those that matter to a COPY"
)]

use std::io;

use switchyard_wire::backend::Message;
use switchyard_wire::frame;
use switchyard_wire::frontend::encode;

use super::Connection;
use super::connection::{QueryError, decode, server_error};

/// So much is passed on at a time.
const CHUNK: usize = 64 << 10;

/// Which side of a transfer failed.
#[derive(Debug)]
pub enum TransferError {
    /// The one with the rows.
    Source(QueryError),
    /// The one that stores them.
    Target(QueryError),
}

/// What has been copied.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Transferred {
    /// How many rows.
    pub rows: u64,
    /// The bytes of their data, as they went.
    pub bytes: u64,
}

/// Why passing on stops for a moment.
enum Pause {
    /// Enough is to be written.
    Full,
    /// All that has come has been passed on.
    Empty,
    /// What comes next is no data.
    Over,
}

/// Copies what `copy_out` gives on one connection by `copy_in` on the other. After an error both connections are of no
/// further use.
pub async fn transfer(
    (source, copy_out): (&mut Connection, &str),
    (target, copy_in): (&mut Connection, &str),
) -> Result<Transferred, TransferError> {
    let into = TransferError::Target;
    begin(target, copy_in, b'G').await.map_err(into)?;
    let from = TransferError::Source;
    begin(source, copy_out, b'H').await.map_err(from)?;
    let mut bytes = 0;
    loop {
        let waiting = target.output.len();
        let paused = pass_on(source, target);
        bytes += (target.output.len() - waiting) as u64;
        match paused.map_err(|error| from(error.into()))? {
            Pause::Empty => source.fill().await.map_err(|error| from(error.into()))?,
            Pause::Over => break,
            Pause::Full => {}
        }
        if target.output.len() >= CHUNK {
            target.flush().await.map_err(|error| into(error.into()))?;
        }
    }
    let sent = finished(source).await.map_err(from)?;
    encode::copy_done(&mut target.output);
    target.flush().await.map_err(|error| into(error.into()))?;
    let stored = finished(target).await.map_err(into)?;
    match sent == stored {
        true => Ok(Transferred {
            rows: stored,
            bytes,
        }),
        false => Err(into(QueryError::Protocol(format!(
            "{stored} of {sent} rows were stored"
        )))),
    }
}

/// Starts a COPY, up to the message that says it has begun.
async fn begin(connection: &mut Connection, copy: &str, begun: u8) -> Result<(), QueryError> {
    connection.send_query(copy).await?;
    loop {
        let message = connection.read_control_message().await?;
        if message.first() == Some(&begun) {
            return Ok(());
        }
        match decode(&message)? {
            Message::ErrorResponse(fields) => return Err(server_error(&fields)),
            Message::NoticeResponse(_) | Message::ParameterStatus { .. } => {}
            _ => return Err(QueryError::Protocol("no COPY has begun".into())),
        }
    }
}

/// Moves what has arrived of the data to the other connection's output.
fn pass_on(source: &mut Connection, target: &mut Connection) -> io::Result<Pause> {
    while target.output.len() < CHUNK {
        let header = frame::header(&source.input).map_err(io::Error::other)?;
        match header {
            Some(header) if header.tag != b'd' => return Ok(Pause::Over),
            Some(header) if source.input.len() >= header.len => {
                let message = source.input.split_to(header.len);
                target.output.extend_from_slice(&message);
            }
            Some(_) | None => return Ok(Pause::Empty),
        }
    }
    Ok(Pause::Full)
}

/// Reads to the end of a COPY: how many rows it says.
async fn finished(connection: &mut Connection) -> Result<u64, QueryError> {
    let mut rows = 0;
    loop {
        let message = connection.read_control_message().await?;
        match decode(&message)? {
            Message::CommandComplete { tag } => {
                let tag = String::from_utf8_lossy(tag);
                let count = tag.strip_prefix("COPY ");
                rows = count.and_then(|count| count.parse().ok()).unwrap_or(0);
            }
            Message::ErrorResponse(fields) => return Err(server_error(&fields)),
            Message::ReadyForQuery(status) => {
                connection.replies.set_status(status);
                connection.broken = false;
                return Ok(rows);
            }
            _ => {}
        }
    }
}
