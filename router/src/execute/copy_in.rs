//! Rows on their ways to several backends that take them by COPY, and the lines of the input in what the backends say of them.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use bytes::{Buf, BytesMut};
use switchyard_wire::backend::{Fields, Message, encode};
use switchyard_wire::frame;
use tokio::io::AsyncWrite;

use super::client::Client;
use super::participants::Participants;
use super::relay::{Trouble, decode_message};
use crate::backend::Connection;
use crate::buffers::reclaim;
use crate::copy_in::{Distributor, Lane};

/// So much is gathered for a backend while the client goes on sending.
const CHUNK: usize = 64 << 10;

/// Why [`flow`] has returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Woken {
    /// The client has sent something.
    Client,
    /// The backend at this position has said something, or is lost.
    Shard(usize),
    /// A backend has taken some of its rows.
    Written,
}

/// Moves what is to be sent to backends, each at its position, until something comes. `wants_input`: more of the client, too.
pub(crate) async fn flow(
    client: &mut Client,
    participants: &mut Participants,
    (indexes, lanes): (&[Option<usize>], &mut [Lane]),
    wants_input: bool,
) -> Result<Woken, Trouble> {
    if !wants_input {
        return poll_fn(
            |context| match poll_backends(participants, (indexes, lanes), context) {
                (Some(position), _) => Poll::Ready(Ok(Woken::Shard(position))),
                (None, true) => Poll::Ready(Ok(Woken::Written)),
                (None, false) => client.poll_gone(context).map(|()| Err(Trouble::Gone)),
            },
        )
        .await;
    }
    let mut read = pin!(client.read());
    poll_fn(|context| {
        let full = lanes.iter().any(|lane| lane.output.len() >= CHUNK);
        let read = read.as_mut().poll(context);
        if full || read.is_pending() {
            let (said, _) = poll_backends(participants, (indexes, &mut *lanes), context);
            // What the client has sent is looked at next.
            if let Some(position) = said {
                return Poll::Ready(Ok(Woken::Shard(position)));
            }
        }
        read.map(|read| match read {
            Ok(true) => Ok(Woken::Client),
            Ok(false) | Err(_) => Err(Trouble::Gone),
        })
    })
    .await
}

/// Writes and reads what can be at once: the position of a backend that has said something, and whether one has taken anything.
fn poll_backends(
    participants: &mut Participants,
    (indexes, lanes): (&[Option<usize>], &mut [Lane]),
    context: &mut Context<'_>,
) -> (Option<usize>, bool) {
    let mut written = false;
    for (position, (index, lane)) in indexes.iter().zip(lanes).enumerate() {
        let held = index.and_then(|index| participants.get_mut(index));
        let Some(connection) = held.map(|held| &mut *held.connection) else {
            continue;
        };
        if connection.broken {
            return (Some(position), written);
        }
        let taken = poll_write(connection, &mut lane.output, context);
        let heard = poll_read(connection, context);
        written |= matches!(taken, Poll::Ready(Ok(())));
        connection.broken |= matches!(taken, Poll::Ready(Err(_)));
        connection.broken |= matches!(heard, Poll::Ready(Err(_)));
        if connection.broken || heard.is_ready() {
            return (Some(position), written);
        }
    }
    (None, written)
}

/// Ready when something has been written.
fn poll_write(
    connection: &mut Connection,
    output: &mut BytesMut,
    context: &mut Context<'_>,
) -> Poll<io::Result<()>> {
    let mut any = false;
    while output.has_remaining() {
        match Pin::new(&mut connection.stream).poll_write(context, output) {
            Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            Poll::Ready(Ok(count)) => output.advance(count),
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Pending => break,
        }
        any = true;
    }
    if let Poll::Ready(Err(error)) = Pin::new(&mut connection.stream).poll_flush(context) {
        return Poll::Ready(Err(error));
    }
    match any {
        true => Poll::Ready(Ok(())),
        false => Poll::Pending,
    }
}

/// Ready when something has been read.
fn poll_read(connection: &mut Connection, context: &mut Context<'_>) -> Poll<io::Result<()>> {
    if connection.stream.poll_readable(context).is_pending() {
        return Poll::Pending;
    }
    match connection.poll_receive(context) {
        Poll::Ready(Ok(0)) => Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
        Poll::Ready(read) => Poll::Ready(read.map(|_| ())),
        Poll::Pending => {
            reclaim(&mut connection.input);
            Poll::Pending
        }
    }
}

/// A message for the client, with the line of its input that it is about.
pub(crate) struct Told {
    pub(crate) message: BytesMut,
    pub(crate) line: Option<u64>,
}

/// The messages in `said`, by the backend at this position that copies into `table`, the lines it names made those of the client's input.
pub(crate) fn copied_lines(
    said: &[u8],
    table: &str,
    rows: &Distributor,
    position: usize,
) -> Vec<Told> {
    let mut rest = said;
    let mut told = Vec::new();
    while let Ok(Some(header)) = frame::header(rest) {
        let Some((message, after)) = rest.split_at_checked(header.len) else {
            break;
        };
        rest = after;
        told.push(renumbered(message, table, rows, position).unwrap_or(Told {
            message: message.into(),
            line: None,
        }));
    }
    told
}

/// Whether it is an ErrorResponse.
pub(crate) fn is_error(message: &[u8]) -> bool {
    message.first() == Some(&b'E')
}

fn renumbered(message: &[u8], table: &str, rows: &Distributor, position: usize) -> Option<Told> {
    let fields: Fields<'_> = match decode_message(message) {
        Ok(Message::ErrorResponse(fields) | Message::NoticeResponse(fields)) => fields,
        Ok(_) | Err(_) => return None,
    };
    let context = std::str::from_utf8(fields.get(b'W')?).ok()?;
    let (start, end) = line_number(context, table)?;
    let own: u64 = context.get(start..end)?.parse().ok()?;
    let line = rows.line_of(position, own);
    let number = line.map_or_else(|| "?".to_owned(), |line| line.to_string());
    let (before, mut after, mut between) = (context.get(..start)?, context.get(end..)?, "");
    // Then the line itself.
    if let Some(shown) = after.strip_prefix(": \"") {
        (between, after) = (": \"", shown.get(rows.added_to(shown.as_bytes())..)?);
    }
    let context = [before, &number, between, after].concat();
    let fields = fields.iter().map(|(code, value)| match code {
        b'W' => (code, context.as_bytes()),
        _ => (code, value),
    });
    let mut message_now = BytesMut::new();
    encode::fields(&mut message_now, *message.first()?, fields);
    Some(Told {
        message: message_now,
        line,
    })
}

/// Where the number is in `COPY table, line 5, …`, in whatever language, at the start of a line.
fn line_number(context: &str, table: &str) -> Option<(usize, usize)> {
    let head = format!("COPY {table}, ");
    let starts = context.match_indices(&head).map(|(at, _)| at);
    let at_start = |at: &usize| *at == 0 || context.as_bytes().get(at - 1) == Some(&b'\n');
    let after = starts.into_iter().find(at_start)? + head.len();
    let rest = context.get(after..)?;
    let begin = rest.find(|letter: char| letter.is_ascii_digit())?;
    // The word for "line" alone is in between.
    if rest
        .get(..begin)?
        .chars()
        .any(|letter| matches!(letter, ',' | ':' | '"' | '\n'))
    {
        return None;
    }
    let digits = rest
        .get(begin..)?
        .bytes()
        .take_while(u8::is_ascii_digit)
        .count();
    Some((after + begin, after + begin + digits))
}

#[cfg(test)]
mod tests {
    use super::line_number;

    #[test]
    fn the_line_is_found_in_its_context() {
        let found = |context: &'static str| {
            line_number(context, "orders").map(|(start, end)| &context[start..end])
        };
        assert_eq!(found("COPY orders, line 15, column id: \"x\""), Some("15"));
        assert_eq!(found("COPY orders, Zeile 7"), Some("7"));
        assert_eq!(
            found("SQL function \"f\"\nCOPY orders, line 2: \"COPY orders, line 9\""),
            Some("2")
        );
        assert_eq!(found("COPY others, line 2"), None);
        assert_eq!(found("text COPY orders, line 2"), None);
        assert_eq!(found("COPY orders, column id, line 2"), None);
    }
}
