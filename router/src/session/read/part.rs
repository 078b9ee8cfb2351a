//! One shard's part of a merged result, message by message.

use bytes::{Buf, Bytes, BytesMut};
use switchyard_wire::backend::{Column, Message, decode, encode};
use switchyard_wire::frame::{self, HEADER};

use crate::backend::Show;
use crate::execute::client::Client;
use crate::execute::failure::Failure;
use crate::execute::messages::{Said, next_now, violation};
use crate::execute::participant::Participant;
use crate::execute::relay::{Trouble, client_gone, fill};
use crate::session::workspace::columns;

/// What a shard sends next.
pub(in crate::session) enum Part {
    Row(Bytes),
    End,
    /// As many rows as asked for have come.
    Paused,
    /// What is said of it begins here in what the client is owed.
    Failed(usize),
}

/// PostgreSQL gathers so many bytes before it sends them.
const SENT_AT_ONCE: usize = 8 << 10;

/// Whether the client is owed what PostgreSQL would have sent by now: as many rows as it sends at once, or what it sends as it comes, such
/// as a notice. A client that is woken for less waits again, on a processor that the other shards could use.
pub(in crate::session) fn is_worth_sending(mut output: &[u8]) -> bool {
    if output.len() >= SENT_AT_ONCE {
        return true;
    }
    while let Ok(Some(header)) = frame::header(output) {
        if !matches!(header.tag, b'1' | b'2' | b'T' | b'D') {
            return true;
        }
        output = output.get(header.len..).unwrap_or_default();
    }
    !output.is_empty()
}

/// The type of the first message that is about rows, or their end, if that much has come.
pub(in crate::session) fn opens_with(mut input: &[u8]) -> Option<u8> {
    while let Ok(Some(header)) = frame::header(input) {
        match header.tag {
            b'1' | b'2' | b'T' | b'N' | b'S' | b'A' => input = input.get(header.len..)?,
            tag => return Some(tag),
        }
    }
    // What is not a message at all is found out by whoever takes it.
    frame::header(input).is_err().then_some(0)
}

/// Waits for what a shard sends next; what ends its rows stays in its input. `shown`: what of its rows' description is for the client.
pub(in crate::session) async fn next_part(
    client: &mut Client,
    participant: &mut Participant,
    shown: Option<Shown<'_>>,
) -> Result<Part, Trouble> {
    participant.failed = false;
    loop {
        let said_at = client.output.len();
        let Some(said) = next_now(client, participant, Show::All)? else {
            if is_worth_sending(&client.output) {
                client.flush().await.map_err(client_gone)?;
            }
            fill(client, participant).await?;
            continue;
        };
        let header = match said {
            Said::Message(header) => header,
            Said::Error => return Ok(Part::Failed(said_at)),
            Said::Ready => return Err(violation(participant, Some(b'Z'))),
        };
        let input = &mut participant.connection.input;
        match header.tag {
            b'T' => {
                let message = input.split_to(header.len);
                if let Some(shown) = shown {
                    describe(&mut client.output, &message, shown).ok_or(Failure::Retry)?;
                }
            }
            b'D' => {
                let mut row = input.split_to(header.len);
                row.advance(HEADER);
                return Ok(Part::Row(row.freeze()));
            }
            // Of Parse and Bind, where the statement came with parameters.
            b'1' | b'2' => input.advance(header.len),
            b'C' => return Ok(Part::End),
            b's' => return Ok(Part::Paused),
            tag => return Err(violation(participant, Some(tag))),
        }
    }
}

/// Makes an error, which is among the messages from there on, speak of places in the client's own text.
pub(in crate::session) fn place_error(
    output: &mut BytesMut,
    from: usize,
    origin: impl Fn(usize) -> Option<usize>,
) {
    let mut at = from;
    while let Some(Ok(Some(header))) = output.get(at..).map(frame::header) {
        let end = at + header.len;
        if header.tag == b'E'
            && let Some(body) = output.get(at + HEADER..end)
            && let Ok(Message::ErrorResponse(fields)) = decode(b'E', body)
            && let Some(position) = fields.get(b'P')
        {
            let position = std::str::from_utf8(position).ok();
            let position = position.and_then(|position| position.parse().ok());
            let position = position
                .and_then(origin)
                .map(|position| position.to_string());
            let mut placed = BytesMut::new();
            let others = fields.iter().filter(|(code, _)| *code != b'P');
            let place = position.iter().map(|position| (b'P', position.as_bytes()));
            encode::fields(&mut placed, b'E', others.chain(place));
            let after = output.split_off(end);
            output.truncate(at);
            output.unsplit(placed);
            output.unsplit(after);
            return;
        }
        at = end;
    }
}

/// What of a RowDescription is shown.
#[derive(Debug, Clone, Copy)]
pub(in crate::session) struct Shown<'a> {
    /// So many of its columns, the first ones,
    pub(in crate::session) columns: usize,
    /// of which there are so many more, which are ours,
    pub(in crate::session) extras: usize,
    /// as columns of the tables that this one says they are of, if there is one.
    pub(in crate::session) tables: Option<&'a [u8]>,
}

/// Writes what is shown of a RowDescription; `None` if it is none, or has not so many columns: a table has changed.
pub(in crate::session) fn describe(
    output: &mut BytesMut,
    message: &[u8],
    shown: Shown<'_>,
) -> Option<()> {
    let own = columns(message).filter(|own| own.len() == shown.columns + shown.extras)?;
    let mut described: Vec<Column<'_>> = own.iter().take(shown.columns).collect();
    if let Some(tables) = shown.tables {
        let tables = columns(tables).filter(|tables| tables.len() == shown.columns)?;
        for (column, of_table) in described.iter_mut().zip(tables.iter()) {
            column.table = of_table.table;
            column.attribute = of_table.attribute;
        }
    }
    encode::row_description(output, &described);
    Some(())
}

/// The place that the first error in these messages names.
pub(in crate::session) fn error_position(messages: &[u8]) -> Option<usize> {
    let position = error_field(messages, b'P')?;
    std::str::from_utf8(position).ok()?.parse().ok()
}

/// A field of the first error in these messages.
pub(in crate::session) fn error_field(mut messages: &[u8], field: u8) -> Option<&[u8]> {
    while let Ok(Some(header)) = frame::header(messages) {
        let body = messages.get(HEADER..header.len)?;
        if header.tag == b'E' {
            let Ok(Message::ErrorResponse(fields)) = decode(b'E', body) else {
                return None;
            };
            return fields.get(field);
        }
        messages = messages.get(header.len..)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use switchyard_wire::backend::encode;

    use super::{SENT_AT_ONCE, is_worth_sending};

    #[test]
    fn rows_are_gathered_as_postgresql_gathers_them() {
        let mut output = BytesMut::new();
        assert!(!is_worth_sending(&output));
        encode::bind_complete(&mut output);
        encode::row_description(&mut output, &[]);
        while output.len() < SENT_AT_ONCE {
            assert!(!is_worth_sending(&output));
            output.extend_from_slice(b"D\0\0\0\x0a\0\x01\0\0\0\0");
        }
        assert!(is_worth_sending(&output));
    }

    #[test]
    fn what_is_no_row_does_not_wait() {
        let mut output = BytesMut::new();
        encode::row_description(&mut output, &[]);
        encode::command_complete(&mut output, b"SELECT 0");
        assert!(is_worth_sending(&output));
    }
}
