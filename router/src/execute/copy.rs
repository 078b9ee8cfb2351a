//! COPY FROM STDIN: the client's data goes to the backend that asked for it.

use std::future::poll_fn;

use bytes::Buf;
use switchyard_wire::frame;
use switchyard_wire::frontend::encode;

use super::participant::Participant;
use super::relay::{NoteDescription, Trouble, broken, client_gone, relay_available, send};
use crate::execute::client::Client;

/// Forwards CopyData until the client ends the COPY or the backend does, by an error. What the client still sends after
/// the backend's error is dropped by the session, as PostgreSQL does.
pub(crate) async fn copy_in(
    client: &mut Client,
    participant: &mut Participant,
    notes: &mut impl NoteDescription,
) -> Result<(), Trouble> {
    // A Sync that was sent behind the Execute is ignored by a backend in COPY; the client sends another at the end.
    participant.connection.replies.forget_syncs();
    loop {
        let forwarded = next_part(client)?;
        match forwarded {
            Part::Data(length) => forward(client, participant, length, notes).await?,
            Part::End(length) => {
                forward(client, participant, length, notes).await?;
                if participant.connection.replies.awaits_flush() {
                    encode::flush(&mut participant.connection.output);
                    send(client, participant, &[], notes).await?;
                }
                return Ok(());
            }
            Part::Ignored(length) => client.input.advance(length),
            Part::Unexpected(tag) => {
                let reason = format!("unexpected message type 0x{tag:02X} during COPY from stdin");
                return Err(Trouble::Protocol(reason.into()));
            }
            Part::Incomplete => {
                if backend_spoke(client, participant, notes).await? {
                    return Ok(());
                }
            }
        }
    }
}

/// What stands at the start of the client's input.
enum Part {
    /// So many bytes of CopyData; whole messages.
    Data(usize),
    /// CopyDone or CopyFail.
    End(usize),
    /// Flush or Sync: meaningless here.
    Ignored(usize),
    /// A message that has no place here.
    Unexpected(u8),
    Incomplete,
}

/// The longest run of whole CopyData messages, or the one other message, at the start of the input.
fn next_part(client: &Client) -> Result<Part, Trouble> {
    let input = &client.input[..];
    let mut at = 0;
    loop {
        let rest = input.get(at..).unwrap_or_default();
        let header =
            frame::header(rest).map_err(|error| Trouble::Protocol(error.to_string().into()))?;
        let complete = header.filter(|header| rest.len() >= header.len);
        return Ok(match complete {
            Some(header) if header.tag == b'd' => {
                at += header.len;
                continue;
            }
            _ if at > 0 => Part::Data(at),
            None => Part::Incomplete,
            Some(header) => match header.tag {
                b'c' | b'f' => Part::End(header.len),
                b'H' | b'S' => Part::Ignored(header.len),
                tag => Part::Unexpected(tag),
            },
        });
    }
}

async fn forward(
    client: &mut Client,
    participant: &mut Participant,
    length: usize,
    notes: &mut impl NoteDescription,
) -> Result<(), Trouble> {
    let input = client.take_input();
    let bytes = input.get(..length).unwrap_or_default();
    let shown = participant.shown;
    let outcome = send(client, participant, bytes, notes).await;
    participant.shown |= shown;
    let mut input = input;
    input.advance(length);
    client.put_back(input);
    outcome
}

/// Waits for the client or the backend. True when the backend said something that ends the COPY.
async fn backend_spoke(
    client: &mut Client,
    participant: &mut Participant,
    notes: &mut impl NoteDescription,
) -> Result<bool, Trouble> {
    if !client.output.is_empty() {
        client.flush().await.map_err(client_gone)?;
    }
    let connection = &mut *participant.connection;
    let spoke = tokio::select! {
        read = client.read() => match read {
            Ok(true) => return Ok(false),
            Ok(false) | Err(_) => return Err(Trouble::Gone),
        },
        read = poll_fn(|context| connection.poll_receive(context)) => read,
    };
    match spoke {
        Ok(count) if count > 0 => {}
        Ok(_) | Err(_) => return Err(broken(connection)),
    }
    relay_available(client, participant, notes)?;
    client.flush().await.map_err(client_gone)?;
    Ok(participant.failed)
}
