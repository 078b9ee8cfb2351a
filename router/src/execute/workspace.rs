//! A workspace: a session on one PostgreSQL, apart from those that take part in what the client does, where rows of several
//! shards meet in temporary tables.
//!
//! All of it is one transaction that is rolled back at the end, so that nothing remains. Rows are streamed: what has come
//! from a shard is sent on before more is read. Invariant: a workspace that is not back at rest is closed.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;

use bytes::{Buf, BufMut, BytesMut};
use switchyard_wire::frame::HEADER;
use switchyard_wire::frontend::encode;
use tokio::io::AsyncWrite;

use super::client::Client;
use super::failure::Failure;
use super::messages::{Said, next, next_now, violation};
use super::participant::Participant;
use super::relay::{Trouble, broken};
use crate::backend::Show;

/// So much is gathered before it is written.
const CHUNK: usize = 64 << 10;

/// What every binary COPY begins with: the signature, flags, and the length of an extension that there is none of.
const COPY_HEADER: &[u8; 19] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";

/// The number of columns in a row that is none: the end of a binary COPY.
const COPY_END: [u8; 2] = [0xff, 0xff];

/// A workspace that is in use.
#[derive(Debug)]
pub(crate) struct Workspace {
    pub(crate) backend: Participant,
    /// Bytes of rows that it may still be given.
    left: u64,
    limit: u64,
    /// It owes an answer, or waits for rows.
    busy: bool,
}

impl Workspace {
    /// On a connection that is in no transaction. It may be given `limit` bytes of rows.
    pub(crate) fn new(backend: Participant, limit: u64) -> Self {
        Self {
            backend,
            left: limit,
            limit,
            busy: false,
        }
    }

    /// Nothing is owed, either way.
    pub(crate) fn is_at_rest(&self) -> bool {
        let connection = &self.backend.connection;
        !self.busy && connection.replies.is_settled() && connection.output.is_empty()
    }

    /// Runs statements of ours, whose answers nobody sees unless it is an error.
    pub(crate) async fn run(&mut self, client: &mut Client, sql: &str) -> Result<(), Trouble> {
        encode::query(&mut self.backend.connection.output, sql.as_bytes());
        self.backend.connection.unnamed = None;
        self.busy = true;
        self.flush(client).await?;
        self.answered(client).await
    }

    /// Messages up to a Sync are on their way: [`Workspace::answered`] reads what they are answered.
    pub(crate) fn answer_awaited(&mut self) {
        self.busy = true;
    }

    /// Reads up to ReadyForQuery.
    pub(crate) async fn answered(&mut self, client: &mut Client) -> Result<(), Trouble> {
        self.described(client).await.map(drop)
    }

    /// Reads up to ReadyForQuery: the RowDescription among the messages, nothing if there is none.
    pub(crate) async fn described(&mut self, client: &mut Client) -> Result<BytesMut, Trouble> {
        let mut description = BytesMut::new();
        let mut failed = false;
        loop {
            match next(client, &mut self.backend, Show::Errors).await? {
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

    /// Begins a binary COPY into a table here.
    pub(crate) async fn begin_copy(
        &mut self,
        client: &mut Client,
        sql: &str,
    ) -> Result<(), Trouble> {
        encode::query(&mut self.backend.connection.output, sql.as_bytes());
        self.busy = true;
        self.flush(client).await?;
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
        Ok(())
    }

    /// Ends a binary COPY.
    pub(crate) async fn end_copy(&mut self, client: &mut Client) -> Result<(), Trouble> {
        let output = &mut self.backend.connection.output;
        encode::copy_data(output, &COPY_END);
        encode::copy_done(output);
        self.flush(client).await?;
        self.answered(client).await
    }

    /// Passes the rows of a shard's binary COPY on, as they come, up to its ReadyForQuery.
    pub(crate) async fn pour(
        &mut self,
        client: &mut Client,
        source: &mut Participant,
    ) -> Result<(), Trouble> {
        let mut rows = CopiedRows::default();
        let mut failed = false;
        loop {
            let said = match next_now(client, source, Show::All)? {
                Some(said) => said,
                None => {
                    // What has come is on its way while more is waited for.
                    self.flush(client).await?;
                    next(client, source, Show::All).await?
                }
            };
            match said {
                Said::Message(header) => match header.tag {
                    b'd' => {
                        let message = source.connection.input.get(HEADER..header.len);
                        let row = rows.next(message.unwrap_or_default());
                        match row {
                            Some(row) => self.give(row)?,
                            None => return Err(violation(source, Some(b'd'))),
                        }
                        source.connection.input.advance(header.len);
                    }
                    b'H' | b'c' | b'C' => source.connection.input.advance(header.len),
                    tag => return Err(violation(source, Some(tag))),
                },
                Said::Error => failed = true,
                Said::Ready if failed => return Err(Trouble::Told),
                Said::Ready if rows.ended => break,
                Said::Ready => return Err(violation(source, Some(b'Z'))),
            }
            if self.backend.connection.output.len() >= CHUNK {
                self.flush(client).await?;
            }
        }
        Ok(())
    }

    /// Takes rows to be sent, within the limit.
    fn give(&mut self, rows: &[u8]) -> Result<(), Trouble> {
        if rows.is_empty() {
            return Ok(());
        }
        let limit = self.limit;
        let left = self.left.checked_sub(rows.len() as u64);
        self.left = left.ok_or(Failure::FetchLimit { limit })?;
        put_copy_data(&mut self.backend.connection.output, rows);
        Ok(())
    }

    /// Writes all that is gathered, while the client is watched.
    pub(crate) async fn flush(&mut self, client: &mut Client) -> Result<(), Trouble> {
        let connection = &mut *self.backend.connection;
        let written = poll_fn(|context| {
            while connection.output.has_remaining() {
                let stream = Pin::new(&mut connection.stream);
                match stream.poll_write(context, &connection.output) {
                    Poll::Ready(Ok(count)) => connection.output.advance(count),
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

    /// Undoes all that was done here; afterwards the connection can be lent again.
    pub(crate) async fn clean(&mut self, client: &mut Client) -> Result<(), Trouble> {
        // Functions remember plans, which may be about the tables that were here.
        self.run(client, "ROLLBACK; DISCARD PLANS").await
    }
}

fn put_copy_data(output: &mut BytesMut, rows: &[u8]) {
    // CopyData: the tag, and a length that counts itself.
    output.put_u8(b'd');
    output.put_u32(u32::try_from(rows.len() + 4).unwrap_or(u32::MAX));
    output.extend_from_slice(rows);
}

/// The rows in the messages of one binary COPY, without its header and its end. PostgreSQL sends each row as a message, the
/// header with the first and the end as the last.
#[derive(Debug, Default)]
struct CopiedRows {
    began: bool,
    ended: bool,
}

impl CopiedRows {
    /// The row in a message, empty at the end; `None` if this is not what PostgreSQL sends.
    fn next<'a>(&mut self, message: &'a [u8]) -> Option<&'a [u8]> {
        if self.ended {
            return None;
        }
        let mut row = message;
        if !self.began {
            row = row.strip_prefix(COPY_HEADER.as_slice())?;
            self.began = true;
        }
        if row == COPY_END {
            self.ended = true;
            return Some(&[]);
        }
        (!row.starts_with(&COPY_END)).then_some(row)
    }
}

#[cfg(test)]
mod tests {
    use super::{COPY_END, COPY_HEADER, CopiedRows};

    #[test]
    fn header_and_end_are_taken_off() {
        let mut rows = CopiedRows::default();
        let first = [COPY_HEADER.as_slice(), b"\0\x01\0\0\0\x01a"].concat();
        assert_eq!(rows.next(&first), Some(&b"\0\x01\0\0\0\x01a"[..]));
        assert_eq!(
            rows.next(b"\0\x01\xff\xff\xff\xff"),
            Some(&b"\0\x01\xff\xff\xff\xff"[..])
        );
        assert_eq!(rows.next(&COPY_END), Some(&[][..]));
        assert!(rows.ended);
        assert_eq!(rows.next(b"\0\x01"), None);
    }

    #[test]
    fn nothing_at_all_is_a_header_and_an_end() {
        let mut rows = CopiedRows::default();
        let only = [COPY_HEADER.as_slice(), &COPY_END].concat();
        assert_eq!(rows.next(&only), Some(&[][..]));
        assert!(rows.ended);
    }

    #[test]
    fn text_is_refused() {
        assert_eq!(CopiedRows::default().next(b"1\ta\n"), None);
    }
}
