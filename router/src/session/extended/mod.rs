//! The extended query protocol: Parse, Bind, Describe, Execute, Close, Flush, Sync.
//!
//! The messages between two Syncs are a *batch*. Each is routed as it comes and queued for one backend at a time (the
//! *active* one); replies come back in the order of the messages because the active backend's are relayed before
//! another one becomes active. A Parse waits until the next message tells which backend it is for. After an error all
//! is skipped up to the Sync, as PostgreSQL does.
//!
//! Nearly all messages need nothing to be waited for: they are handled by the `_now` functions, without a future, and only
//! the Sync waits for the backend. What does have to wait (another backend, an unknown type) has functions of its own.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "the other frontend messages do not belong to the extended protocol"
)]

mod ahead;
pub(in crate::session) mod bind;
mod bind_portal;
mod create_as;
pub(super) mod declare;
mod executed;
mod insert;
mod located;
mod lock;
pub(in crate::session) mod merge;
mod of_cursor;
mod own;
mod portals;
mod queue;
mod several;
mod statements;
mod sync;
pub(super) mod workspace;
mod write;

use std::sync::Arc;

use bytes::{Buf, BytesMut};
use switchyard_schema::ShardIndex;
use switchyard_wire::frame::{self, HEADER};
use switchyard_wire::frontend::{self, Bind, Kind, Message};

use super::Session;
use super::statement::Statement;
use crate::execute::failure::Failure;
use crate::execute::relay::{Trouble, client_gone};
use crate::metrics::clock::Tick;
pub(super) use workspace::{OpenWorkspace, portable, queue_execute};

/// What has happened since the last Sync.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// An error has been reported: everything up to the Sync is skipped.
    skipping: bool,
    /// The error was the router's own, so no backend knows of it.
    failed_here: bool,
    /// The participant whose replies come next.
    active: Option<usize>,
    /// The statement whose Parse has not been sent yet.
    unsent: Option<Box<[u8]>>,
    /// The names of statements whose Parse has been sent or answered, in order.
    parsed: Vec<Box<[u8]>>,
    /// The shard this batch has written to, outside a block.
    writer: Option<ShardIndex>,
    schema_changed: bool,
    /// A COPY from the client that has been executed: it takes what the client sends next.
    copy: Option<Arc<Statement>>,
    /// Cancel requests that came before a statement of it first asked.
    cancels: Option<u64>,
    /// The client has been waited for since it began, with what is queued.
    waited: bool,
    /// Bytes of its messages since the last Sync or Flush.
    queued: usize,
    /// When its first message came.
    began: Option<Tick>,
}

/// Where the handling of a batch's messages stops.
enum Stop<'a> {
    /// At a message for which something has to be waited for.
    Waits(Message<'a>),
    /// Behind a Sync or Flush, whose tag it is, or where no more of the batch has come.
    End(Option<u8>),
}

/// A client that sends so much without Sync or Flush gets what it is owed before more is read: while it does not take that,
/// it cannot send on. PostgreSQL, too, answers before the Sync when its buffer is full.
const QUEUE_LIMIT: usize = 256 << 10;

impl Batch {
    /// Its first message may have come.
    fn begin(&mut self) {
        self.began.get_or_insert_with(Tick::now);
    }

    /// Nothing has happened since the last Sync.
    pub(super) fn is_empty(&self) -> bool {
        self.began.is_none()
    }

    /// It has changed the schema, which the session hears of at its end.
    pub(super) fn has_changed_schema(&self) -> bool {
        self.schema_changed
    }

    /// It has written, and will commit at its end.
    pub(super) fn has_written(&self) -> bool {
        self.writer.is_some()
    }

    /// The client is waited for.
    pub(super) fn waits(&mut self) {
        self.waited |= !self.is_empty();
    }

    /// An error has happened, if there is a batch, that no backend of the batch knows of.
    pub(super) fn fail_elsewhere(&mut self) {
        self.failed_here = !self.is_empty();
    }

    /// An error has happened, so nothing but a Sync is of interest.
    pub(super) fn is_skipping(&self) -> bool {
        self.skipping
    }
}

/// A portal's name that no client can use: executing it fails, which makes a backend give up its implicit transaction.
const NO_PORTAL: &[u8] = b"sy no such portal";

impl Session {
    /// Handles the messages of the extended protocol at the start of the input, up to and including a Sync or Flush.
    pub(super) async fn extended(&mut self) -> Result<(), Trouble> {
        if self.batch.is_empty() && self.block.is_none() {
            self.refresh();
        }
        if self.batch.is_empty()
            && self
                .block
                .as_ref()
                .is_some_and(|block| block.relations_are_old)
        {
            Box::pin(self.know_the_blocks()).await?;
        }
        let mut input = self.client.take_input();
        let mut handled = 0;
        let outcome = loop {
            match self.messages_now(&input, &mut handled) {
                Ok(Stop::Waits(message)) => {
                    if let Err(trouble) = Box::pin(self.message(message)).await {
                        break Err(trouble);
                    }
                    // What follows is for the COPY.
                    if self.batch.copy.is_some() {
                        break Ok(None);
                    }
                }
                Ok(Stop::End(last)) => break Ok(last),
                Err(trouble) => break Err(trouble),
            }
        };
        if handled == input.len() {
            input.clear();
        } else {
            input.advance(handled);
        }
        self.client.put_back(input);
        if let Some(statement) = self.batch.copy.take() {
            return match Box::pin(self.execute_copy_in(&statement)).await {
                Ok(()) => Ok(()),
                Err(trouble) => Box::pin(self.batch_trouble(trouble)).await,
            };
        }
        match outcome {
            Ok(Some(b'S')) => self.end_of_batch().await,
            Ok(Some(_)) => Box::pin(self.flush()).await,
            Ok(None) if self.batch.queued > QUEUE_LIMIT => Box::pin(self.answer()).await,
            Ok(None) => Ok(()),
            Err(trouble) => Box::pin(self.batch_trouble(trouble)).await,
        }
    }

    /// Handles messages at `handled` in the input as far as nothing has to be waited for.
    fn messages_now<'a>(
        &mut self,
        input: &'a [u8],
        handled: &mut usize,
    ) -> Result<Stop<'a>, Trouble> {
        while self.batch.queued <= QUEUE_LIMIT {
            let rest = input.get(*handled..).unwrap_or_default();
            let Ok(Some(header)) = frame::header(rest) else {
                break;
            };
            let Some(message) = rest.get(..header.len) else {
                break;
            };
            match header.tag {
                b'P' | b'B' | b'D' | b'E' | b'C' => {
                    *handled += header.len;
                    self.batch.queued += header.len;
                    if let Some(message) = self.message_now(header.tag, message)? {
                        return Ok(Stop::Waits(message));
                    }
                }
                // What follows may be data for a COPY that begins now, so none of the input may be held back.
                b'S' | b'H' => {
                    *handled += header.len;
                    return Ok(Stop::End(Some(header.tag)));
                }
                _ => break,
            }
        }
        Ok(Stop::End(None))
    }

    /// Handles a message for which nothing has to be waited for, as mostly. Others are returned, nothing done.
    fn message_now<'a>(
        &mut self,
        tag: u8,
        message: &'a [u8],
    ) -> Result<Option<Message<'a>>, Trouble> {
        let body = message.get(HEADER..).unwrap_or_default();
        if self.batch.skipping {
            return Ok(None);
        }
        let done = match (tag, body) {
            (b'B', _) => {
                let bind = Bind::decode(body).map_err(Failure::InvalidMessage)?;
                self.batch.begin();
                if !self.bind_now(&bind)? {
                    return Ok(Some(Message::Bind(bind)));
                }
                true
            }
            // No portal has a name with a zero in it, so what is found here is well formed.
            (b'D', [b'P', name @ .., 0]) => self.describe_portal_now(name, message),
            (b'E', [name @ .., 0, _, _, _, _]) => self.execute_now(name, message)?,
            _ => false,
        };
        if done {
            return Ok(None);
        }
        let message = frontend::decode(tag, body).map_err(Failure::InvalidMessage)?;
        self.batch.begin();
        Ok(Some(message))
    }

    async fn message(&mut self, message: Message<'_>) -> Result<(), Trouble> {
        match message {
            Message::Parse {
                name,
                sql,
                param_types,
            } => {
                let declared: Vec<u32> = param_types.iter().collect();
                self.parse(name, sql, &declared).await
            }
            Message::Bind(bind) => self.bind_asked(&bind).await,
            Message::Describe {
                kind: Kind::Statement,
                name,
            } => self.describe_statement(name).await,
            Message::Describe {
                kind: Kind::Portal,
                name,
            } => {
                self.send_unsent().await?;
                self.describe_portal(name).await
            }
            Message::Execute { portal, max_rows } => {
                self.send_unsent().await?;
                self.execute(portal, max_rows).await
            }
            Message::Close { kind, name } => self.close(kind, name).await,
            _ => Err(Trouble::Protocol(
                "unexpected message in the extended protocol".into(),
            )),
        }
    }

    /// Handles a Flush.
    pub(super) async fn flush(&mut self) -> Result<(), Trouble> {
        if self.batch.skipping {
            return Ok(());
        }
        self.batch.begin();
        match self.send_unsent().await {
            Ok(()) => self.answer().await,
            Err(trouble) => self.batch_trouble(trouble).await,
        }
    }

    /// Sends what is queued, and gives the client the answers.
    async fn answer(&mut self) -> Result<(), Trouble> {
        self.batch.queued = 0;
        if self.batch.skipping {
            return Ok(());
        }
        match self.settle().await {
            Ok(()) => {
                // They have all taken place: no error can undo them any more.
                self.batch.parsed.clear();
                self.client.flush().await.map_err(client_gone)
            }
            Err(trouble) => self.batch_trouble(trouble).await,
        }
    }

    /// Reports an error within a batch, which goes on after the next Sync.
    async fn batch_trouble(&mut self, trouble: Trouble) -> Result<(), Trouble> {
        match trouble {
            Trouble::Failure(failure) => self.fail_batch(&failure).await,
            Trouble::Told => {
                self.batch.skipping = true;
                Ok(())
            }
            Trouble::Lost => {
                let failure = self.lost_unawares();
                self.fail_batch(&failure).await
            }
            other => Err(other),
        }
    }

    /// COPY data outside a COPY: it may be for an Execute that still waits to be sent. Otherwise a backend has ended its
    /// COPY by an error, and what the client sends until it learns of that is dropped.
    pub(super) async fn copy_data(&mut self, length: usize) -> Result<(), Trouble> {
        let active = self.batch.active;
        let waits = active
            .and_then(|active| self.participants.get(active))
            .is_some_and(|active| !active.connection.replies.is_settled());
        if !waits || self.batch.skipping {
            self.client.input.advance(length);
            return Ok(());
        }
        match self.settle().await {
            Ok(()) => Ok(()),
            Err(trouble) => Box::pin(self.batch_trouble(trouble)).await,
        }
    }

    /// Reports an error of the router's own within a batch.
    async fn fail_batch(&mut self, failure: &Failure) -> Result<(), Trouble> {
        // PostgreSQL would have parsed the statement before it met this error.
        let parsed = match self.batch.unsent {
            Some(_) => self.send_unsent().await,
            None => Ok(()),
        };
        let settled = match parsed {
            Ok(()) => self.settle().await,
            Err(trouble) => Err(trouble),
        };
        match settled {
            Ok(()) => {
                self.report(failure);
                self.batch.failed_here = true;
            }
            // An earlier message of the batch failed first: that is the error the client gets.
            Err(Trouble::Told) => {}
            Err(Trouble::Failure(earlier)) => {
                self.report(&earlier);
                self.batch.failed_here = true;
            }
            Err(trouble) => return Err(trouble),
        }
        self.batch.skipping = true;
        Ok(())
    }

    /// Puts a message of ours behind the replies still owed.
    fn reply(&mut self, encode: impl FnOnce(&mut BytesMut)) {
        let active = self
            .batch
            .active
            .and_then(|active| self.participants.get_mut(active));
        match active {
            Some(participant) if !participant.connection.replies.is_settled() => {
                let mut bytes = BytesMut::new();
                encode(&mut bytes);
                participant.connection.replies.put(bytes.freeze());
            }
            _ => encode(&mut self.client.output),
        }
    }
}

fn lossy(name: &[u8]) -> Box<str> {
    String::from_utf8_lossy(name).into()
}
