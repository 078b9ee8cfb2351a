//! A client's stream before it has a session: what is read is bounded by what may come at that point.

use std::io;

use bytes::{Buf, Bytes, BytesMut};
use switchyard_wire::backend::encode;
use switchyard_wire::frontend::{self, tag};
use switchyard_wire::{frame, startup};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::Refusal;
use crate::stream::Stream;

/// Room made for one read. Most of what comes fits at once; for more the room grows with what has come.
const READ_SIZE: usize = 1024;

/// The stream with what has been read and not used, and what is to be written.
#[derive(Debug)]
pub(super) struct Channel<S> {
    pub(super) stream: Stream<S>,
    pub(super) input: BytesMut,
    pub(super) output: BytesMut,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Channel<S> {
    pub(super) fn new(stream: Stream<S>) -> Self {
        Self {
            stream,
            input: BytesMut::new(),
            output: BytesMut::new(),
        }
    }

    /// The first byte, which stays where it is.
    pub(super) async fn peek(&mut self) -> Result<u8, Refusal> {
        if self.input.is_empty() {
            self.fill().await?;
        }
        self.input.first().copied().ok_or(Refusal::Left)
    }

    /// The next startup packet, without its length word.
    pub(super) async fn packet(&mut self) -> Result<Bytes, Refusal> {
        loop {
            if let Some(len) = startup::packet_len(&self.input)?
                && self.input.len() >= len
            {
                let mut packet = self.input.split_to(len).freeze();
                packet.advance(4);
                return Ok(packet);
            }
            self.fill().await?;
        }
    }

    /// The body of the next message, which must be one of those that authenticate.
    pub(super) async fn password_message(
        &mut self,
        expected: &'static str,
    ) -> Result<Bytes, Refusal> {
        loop {
            if let Some(&found) = self.input.first()
                && found != tag::PASSWORD
            {
                return Err(Refusal::Unexpected { expected, found });
            }
            if let Some(header) = frame::header(&self.input).map_err(|_| Refusal::TooLarge)? {
                if header.len > frontend::MAX_PASSWORD_MESSAGE + 1 {
                    return Err(Refusal::TooLarge);
                }
                if self.input.len() >= header.len {
                    let mut message = self.input.split_to(header.len).freeze();
                    message.advance(frame::HEADER);
                    return Ok(message);
                }
            }
            self.fill().await?;
        }
    }

    async fn fill(&mut self) -> Result<(), Refusal> {
        self.input.reserve(READ_SIZE);
        match self.stream.read_buf(&mut self.input).await? {
            0 if self.input.is_empty() => Err(Refusal::Left),
            0 => Err(Refusal::Lost(io::ErrorKind::UnexpectedEof.into())),
            _ => Ok(()),
        }
    }

    /// Writes one byte, the answer to a request for encryption.
    pub(super) async fn answer(&mut self, answer: u8) -> Result<(), Refusal> {
        self.output.extend_from_slice(&[answer]);
        self.flush().await
    }

    pub(super) async fn flush(&mut self) -> Result<(), Refusal> {
        self.stream.write_all_buf(&mut self.output).await?;
        self.stream.flush().await?;
        Ok(())
    }

    /// Tells the client that it is not let in, if it is told, and ends the stream.
    pub(super) async fn refuse(&mut self, refusal: &Refusal) {
        if let Some(report) = refusal.report() {
            encode::error(&mut self.output, &report);
        }
        // There is nobody to tell that it could not be told.
        let _ = self.flush().await;
        let _ = self.stream.shutdown().await;
    }
}
