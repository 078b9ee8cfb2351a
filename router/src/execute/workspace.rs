//! A workspace: a session on one PostgreSQL, apart from those that take part in what the client does, where rows of several
//! shards meet in temporary tables.
//!
//! All of it is one transaction that is rolled back at the end, so that nothing remains. Rows are streamed: what has come
//! from a shard is sent on before more is read. Invariant: a workspace that is not back at rest is closed.

use std::future::poll_fn;
use std::io::ErrorKind;
use std::pin::Pin;
use std::task::Poll;

use bytes::{Buf, BytesMut};
use switchyard_wire::backend::Message;
use switchyard_wire::frame::{self, HEADER};
use switchyard_wire::frontend::encode;
use tokio::io::AsyncWrite;

use super::client::Client;
use super::failure::Failure;
use super::messages::{Said, lines, next, next_now, rows, violation};
use super::participant::Participant;
use super::relay::{NoteDescription, Trouble, broken, decode_message, exchange, fill};
use crate::backend::{Connection, Show};

/// So much is gathered before it is written.
pub(super) const CHUNK: usize = 64 << 10;

/// Undoes all that was done. Prepared statements and held cursors outlive the transaction, and functions remember plans, which may be
/// about the tables that were here.
const UNDO: &[u8] = b"ROLLBACK; CLOSE ALL; DEALLOCATE ALL; DISCARD PLANS";

/// What a binary COPY begins with: the signature, flags, and the length of an extension that there is none of.
pub(crate) const COPY_HEADER: &[u8; 19] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";

/// What a binary COPY ends with, in the place of a row's number of columns.
pub(crate) const COPY_END: [u8; 2] = [0xff, 0xff];

/// A workspace that is in use.
#[derive(Debug)]
pub(crate) struct Workspace {
    pub(crate) backend: Participant,
    /// Bytes of rows that it may still be given.
    left: u64,
    limit: u64,
    /// It owes an answer, or waits for rows.
    busy: bool,
    /// It waits for rows.
    copies: bool,
    /// The query for the rows that come, or came last, was planned without an error.
    rows_planned: bool,
    /// So many queries of ours have been sent ahead, whose answers come before the next.
    ahead: u8,
    /// What undoes all has been sent behind the statement.
    undoing: bool,
    /// The sequences of which it takes values, as expressions in SQL.
    pub(crate) sequences: Vec<Box<str>>,
}

impl Workspace {
    /// On a connection that is in no transaction. It may be given `limit` bytes of rows.
    pub(crate) fn new(backend: Participant, limit: u64) -> Self {
        Self {
            backend,
            left: limit,
            limit,
            busy: false,
            copies: false,
            rows_planned: false,
            ahead: 0,
            undoing: false,
            sequences: Vec::new(),
        }
    }

    /// Whether an error among the rows that came last is one of running their query, and not of the query itself.
    pub(crate) fn failed_running(&self) -> bool {
        self.rows_planned
    }

    /// Nothing is owed, either way.
    pub(crate) fn is_at_rest(&self) -> bool {
        let connection = &self.backend.connection;
        !self.busy && connection.replies.is_settled() && connection.output.is_empty()
    }

    /// Its connection is of no further use.
    pub(crate) fn is_lost(&self) -> bool {
        self.backend.connection.broken
    }

    /// Runs statements of ours, whose answers nobody sees unless it is an error.
    pub(crate) async fn run(&mut self, client: &mut Client, sql: &str) -> Result<(), Trouble> {
        self.send(client, |output| encode::query(output, sql.as_bytes()))
            .await
            .map(drop)
    }

    /// Runs statements of ours along with what is sent next: an error among their answers is that one's.
    pub(crate) fn run_ahead(&mut self, sql: &str) {
        encode::query(&mut self.backend.connection.output, sql.as_bytes());
        self.ahead += 1;
        self.busy = true;
    }

    /// Sends a query, or messages up to a Sync, whose answers nobody sees unless it is an error: the RowDescription among
    /// them, nothing if there is none.
    pub(crate) async fn send(
        &mut self,
        client: &mut Client,
        messages: impl FnOnce(&mut BytesMut),
    ) -> Result<BytesMut, Trouble> {
        self.ask(client, messages).await?;
        self.answered(client, Show::Errors).await
    }

    /// The same, where they carry out what the client asks for: it sees notices, too.
    pub(crate) async fn carry_out(
        &mut self,
        client: &mut Client,
        messages: impl FnOnce(&mut BytesMut),
    ) -> Result<(), Trouble> {
        self.ask(client, messages).await?;
        self.answered(client, Show::Notices).await.map(drop)
    }

    /// Sends a query, or messages up to a Sync, whose answer is read elsewhere.
    pub(crate) async fn ask(
        &mut self,
        client: &mut Client,
        messages: impl FnOnce(&mut BytesMut),
    ) -> Result<(), Trouble> {
        messages(&mut self.backend.connection.output);
        self.sent(client).await
    }

    /// Sends a statement as the last one of this workspace, along with what undoes all. Its answer is read elsewhere.
    pub(crate) async fn ask_at_last(
        &mut self,
        client: &mut Client,
        messages: impl FnOnce(&mut BytesMut),
    ) -> Result<(), Trouble> {
        messages(&mut self.backend.connection.output);
        encode::query(&mut self.backend.connection.output, UNDO);
        self.undoing = true;
        self.sent(client).await
    }

    /// Writes what is to be sent, and reads the answers to what was sent ahead.
    async fn sent(&mut self, client: &mut Client) -> Result<(), Trouble> {
        self.backend.connection.unnamed = None;
        self.busy = true;
        self.flush(client).await?;
        while self.ahead > 0 {
            self.answered(client, Show::Errors).await?;
            self.ahead -= 1;
            self.busy = true;
        }
        Ok(())
    }

    /// They have been answered, or the answer is noted as owed in the connection's replies.
    pub(crate) fn answer_noted(&mut self) {
        self.busy = false;
    }

    /// Reads up to ReadyForQuery: the RowDescription among the messages, nothing if there is none.
    async fn answered(&mut self, client: &mut Client, show: Show) -> Result<BytesMut, Trouble> {
        let mut description = BytesMut::new();
        let mut failed = false;
        loop {
            match next(client, &mut self.backend, show).await? {
                Said::Message(header) => {
                    let message = self.backend.connection.input.split_to(header.len);
                    if header.tag == b'T' {
                        description = message;
                    }
                }
                Said::Error => failed = true,
                Said::Ready => {
                    self.busy = false;
                    return match failed {
                        true => Err(Trouble::Told),
                        false => Ok(description),
                    };
                }
            }
        }
    }

    /// Reads what it owes for what has been sent, to the end. One that waits for rows ends with its connection.
    pub(crate) async fn drop_answers(
        &mut self,
        client: &mut Client,
        notes: &mut impl NoteDescription,
    ) {
        if !self.busy {
            self.backend.connection.replies.hide_all();
            let exchanged = exchange(client, &mut self.backend, &[], notes).await;
            self.backend.connection.broken |= exchanged.is_err();
        }
        while self.busy && !self.copies {
            match self.answered(client, Show::Nothing).await {
                Ok(_) | Err(Trouble::Told) if self.ahead == 0 => return,
                Ok(_) | Err(Trouble::Told) => {
                    self.ahead -= 1;
                    self.busy = true;
                }
                Err(_) => return,
            }
        }
    }

    /// Begins a binary COPY into a table here.
    pub(crate) async fn begin_copy(
        &mut self,
        client: &mut Client,
        sql: &str,
    ) -> Result<(), Trouble> {
        self.ask(client, |output| encode::query(output, sql.as_bytes()))
            .await?;
        let mut failed = false;
        loop {
            match next(client, &mut self.backend, Show::Errors).await? {
                Said::Message(header) if header.tag == b'G' => {
                    self.backend.connection.input.advance(header.len);
                    break;
                }
                Said::Message(header) => {
                    return Err(violation(&mut self.backend, Some(header.tag)));
                }
                Said::Error => failed = true,
                Said::Ready if failed => {
                    self.busy = false;
                    return Err(Trouble::Told);
                }
                Said::Ready => return Err(violation(&mut self.backend, Some(b'Z'))),
            }
        }
        encode::copy_data(&mut self.backend.connection.output, COPY_HEADER);
        self.copies = true;
        Ok(())
    }

    /// Ends a binary COPY.
    pub(crate) async fn end_copy(&mut self, client: &mut Client) -> Result<(), Trouble> {
        let output = &mut self.backend.connection.output;
        encode::copy_data(output, &COPY_END);
        encode::copy_done(output);
        self.flush(client).await?;
        self.copies = false;
        self.answered(client, Show::Errors).await.map(drop)
    }

    /// Passes rows that a shard sends in binary on, as they come, up to its ReadyForQuery; their number. A row of a result and
    /// one of a binary COPY are the same bytes.
    pub(crate) async fn pour(
        &mut self,
        client: &mut Client,
        source: &mut Participant,
    ) -> Result<u64, Trouble> {
        let (mut rows, mut failed, left) = (0, false, self.left);
        self.rows_planned = false;
        // Of a row that is passed on in parts, so many bytes are still to come.
        let mut rest = 0;
        loop {
            let said = match rest {
                0 => next_now(client, source, Show::All)?,
                _ => None,
            };
            match said {
                Some(Said::Message(header)) => {
                    if header.tag == b'D' {
                        let row = source.connection.input.get(HEADER..header.len);
                        self.give(row.unwrap_or_default())?;
                        rows += 1;
                    } else if header.tag == b'2' {
                        self.rows_planned = true;
                    } else if !matches!(header.tag, b'1' | b'T' | b'C') {
                        return Err(violation(source, Some(header.tag)));
                    }
                    source.connection.input.advance(header.len);
                }
                Some(Said::Error) => failed = true,
                Some(Said::Ready) => {
                    source.unread = false;
                    client.counters.fetched(rows, left - self.left);
                    return if failed { Err(Trouble::Told) } else { Ok(rows) };
                }
                None => {
                    let began = rest == 0;
                    rest = self.give_part(source, rest)?;
                    rows += u64::from(began && rest > 0);
                    if began || rest > 0 {
                        // What has come is on its way while more is waited for.
                        self.flush(client).await?;
                        fill(client, source).await?;
                    }
                }
            }
            if self.backend.connection.output.len() >= CHUNK {
                self.flush(client).await?;
            }
        }
    }

    /// Takes what has come of a large row, of which `rest` bytes are still to come, or of which not all has come yet. How many
    /// are to come now: the whole of a row may be more than memory.
    fn give_part(&mut self, source: &mut Participant, rest: usize) -> Result<usize, Trouble> {
        let Some((piece, rest)) = take_part(&mut source.connection.input, rest) else {
            return Ok(0);
        };
        self.give(&piece)?;
        Ok(rest)
    }

    /// The first column of the first row that a query of ours has.
    pub(crate) async fn value(
        &mut self,
        client: &mut Client,
        sql: &str,
    ) -> Result<Option<String>, Trouble> {
        self.ask(client, |output| encode::query(output, sql.as_bytes()))
            .await?;
        let (mut value, mut failed) = (None, false);
        loop {
            match next(client, &mut self.backend, Show::Errors).await? {
                Said::Message(header) => {
                    let message = self.backend.connection.input.split_to(header.len);
                    if let Ok(Message::DataRow(row)) = decode_message(&message) {
                        let first = row.iter().next().flatten();
                        value = first.map(|value| String::from_utf8_lossy(value).into_owned());
                    }
                }
                Said::Error => failed = true,
                Said::Ready => {
                    self.busy = false;
                    return if failed {
                        Err(Trouble::Told)
                    } else {
                        Ok(value)
                    };
                }
            }
        }
    }

    /// The first columns of the rows that a query of ours has.
    pub(crate) async fn lines(
        &mut self,
        client: &mut Client,
        sql: &str,
    ) -> Result<Vec<String>, Trouble> {
        self.ask(client, |output| encode::query(output, sql.as_bytes()))
            .await?;
        let lines = lines(client, &mut self.backend).await;
        self.busy = !matches!(lines, Ok(_) | Err(Trouble::Told));
        lines
    }

    /// The rows that messages of ours up to a Sync ask for.
    pub(crate) async fn rows(
        &mut self,
        client: &mut Client,
        messages: impl FnOnce(&mut BytesMut),
    ) -> Result<Vec<Vec<Option<Vec<u8>>>>, Trouble> {
        self.ask(client, messages).await?;
        let rows = rows(client, &mut self.backend).await;
        self.busy = !matches!(rows, Ok(_) | Err(Trouble::Told));
        rows
    }

    /// Bytes of rows it has been given.
    pub(crate) fn given(&self) -> u64 {
        self.limit - self.left
    }

    /// Takes a row to be sent, within the limit.
    pub(crate) fn give(&mut self, row: &[u8]) -> Result<(), Trouble> {
        let limit = self.limit;
        let left = self.left.checked_sub(row.len() as u64);
        self.left = left.ok_or(Failure::FetchLimit { limit })?;
        encode::copy_data(&mut self.backend.connection.output, row);
        Ok(())
    }

    /// Writes all that is gathered, while the client is watched.
    pub(crate) async fn flush(&mut self, client: &mut Client) -> Result<(), Trouble> {
        write_all(client, &mut self.backend.connection).await
    }

    /// Undoes all that was done here; afterwards the connection can be lent again. The client has its answer: what goes wrong
    /// now is not shown.
    pub(crate) async fn clean(&mut self, client: &mut Client) -> Result<(), Trouble> {
        if !self.undoing {
            encode::query(&mut self.backend.connection.output, UNDO);
            self.flush(client).await?;
        }
        self.busy = true;
        self.answered(client, Show::Nothing).await.map(drop)
    }
}

/// Writes all that is gathered for a backend, while the client is watched.
pub(super) async fn write_all(
    client: &mut Client,
    connection: &mut Connection,
) -> Result<(), Trouble> {
    let written = poll_fn(|context| {
        while connection.output.has_remaining() {
            let stream = Pin::new(&mut connection.stream);
            match stream.poll_write(context, &connection.output) {
                Poll::Ready(Ok(count)) => {
                    connection.output.advance(count);
                    continue;
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Some(Err(error))),
                Poll::Pending => {}
            }
            // It may have more to say of what it takes, such as notices, than there is room for, and take nothing until it is read.
            match connection.poll_receive(context) {
                Poll::Ready(Ok(count)) if count > 0 => {}
                Poll::Ready(Ok(_)) => {
                    return Poll::Ready(Some(Err(ErrorKind::UnexpectedEof.into())));
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Some(Err(error))),
                Poll::Pending => return client.poll_gone(context).map(|()| None),
            }
        }
        Pin::new(&mut connection.stream)
            .poll_flush(context)
            .map(Some)
    })
    .await;
    match written {
        Some(Ok(())) => Ok(()),
        Some(Err(_)) => Err(broken(connection)),
        None => Err(Trouble::Gone),
    }
}

/// What has come of a large row, of which `rest` bytes are still to come, or of which not all has come yet, and how many are to come
/// then. `None`: what comes is no such row.
pub(super) fn take_part(input: &mut BytesMut, mut rest: usize) -> Option<(BytesMut, usize)> {
    if rest == 0 {
        match frame::header(input) {
            Ok(Some(header)) if header.tag == b'D' && header.len > CHUNK => {
                input.advance(HEADER);
                rest = header.len - HEADER;
            }
            _ => return None,
        }
    }
    let piece = input.split_to(rest.min(input.len()));
    let rest = rest - piece.len();
    Some((piece, rest))
}
