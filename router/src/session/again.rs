//! Requests that are run again, since rows have been moved under them (ADR 0024).
//!
//! Whoever moves rows cancels what waits for them: it would find them gone. While that may happen, what a request has to say is kept until its
//! end. If it was cancelled so, or met another placement than it was planned for, nothing of it has happened: outside of a transaction block the client
//! hears nothing, and the request is handled anew by the placement that holds then. In a block it is a serialization failure.

use std::time::Duration;

use bytes::BytesMut;
use switchyard_wire::SqlState;
use switchyard_wire::backend::Message;
use switchyard_wire::frame::{self, HEADER, Header};
use tokio::time::{Instant, sleep};

use super::Session;
use crate::execute::failure::Failure;
use crate::execute::relay::{Trouble, client_gone, decode_message};
use crate::execute::report;

/// The longest that a request is run again and again.
const PATIENCE: Duration = Duration::from_secs(30);
/// The longest that the new placement is waited for: it may be in force, or never come.
const SOON: Duration = Duration::from_millis(50);
/// Between two looks for it.
const PAUSE: Duration = Duration::from_millis(2);

/// What a session notes so that it can tell why a request has failed.
#[derive(Debug, Default)]
pub(super) struct Again {
    /// A request has failed since rows are elsewhere than it was planned for.
    pub(super) met_a_move: bool,
    /// So many times the session has cancelled itself what shards still did for a statement that had failed.
    pub(super) own_cancels: u64,
}

impl Session {
    /// Handles a request while rows may be on their way from shard to shard.
    pub(super) async fn request_while_moving(&mut self, header: Header) -> Result<(), Trouble> {
        match self.whole_request(header) {
            Some(length) => self.replayable(header, length).await,
            None => self.request(header).await,
        }
    }

    /// Handles a request of `length` bytes, time after time until nothing is moved under it.
    async fn replayable(&mut self, header: Header, length: usize) -> Result<(), Trouble> {
        let begins = self.block.is_none() && self.batch.is_empty();
        let mut later = self.client.input.split_off(length);
        let request = self.client.input.clone();
        let began = Instant::now();
        loop {
            let cancels = self.others_cancels();
            self.again.met_a_move = false;
            self.client.keep();
            let outcome = self.request_to_its_end(header).await;
            // What has been read ahead comes behind what had come before.
            later.extend_from_slice(&self.client.take_input());
            let Some(said) = self.client.take_kept() else {
                self.client.put_back(later);
                return outcome;
            };
            let cancelled = self.others_cancels() == cancels && is_cancelled(&said);
            let moved = outcome.is_ok() && (self.again.met_a_move || cancelled);
            let may_again = begins && self.block.is_none() && began.elapsed() < PATIENCE;
            if moved && may_again && !is_done(&said) {
                self.await_placement().await;
                self.forget_parsed(&request);
                self.client.input = request.clone();
                continue;
            }
            match moved && cancelled {
                true => as_serialization_failure(&mut self.client.output, &said),
                false => self.client.output.extend_from_slice(&said),
            }
            self.client.put_back(later);
            outcome?;
            return self.client.flush().await.map_err(client_gone);
        }
    }

    /// Handles a request that has come whole; of a batch that fails, the rest, too, which is skipped.
    async fn request_to_its_end(&mut self, first: Header) -> Result<(), Trouble> {
        let mut next = Some(first);
        while let Some(header) = next {
            self.request(header).await?;
            next = match self.batch.is_empty() {
                true => None,
                false => self.client.peek().ok().flatten(),
            };
        }
        Ok(())
    }

    /// Requests to cancel what the session does, but for its own.
    pub(super) fn others_cancels(&self) -> u64 {
        self.cancel.slot().requests() - self.again.own_cancels
    }

    /// How long the request is that begins with this message, if it can be run again: a query, or a batch up to its Sync, that has come whole.
    fn whole_request(&self, first: Header) -> Option<usize> {
        if first.tag == b'Q' {
            return Some(first.len);
        }
        let mut length = 0;
        loop {
            let rest = self.client.input.get(length..)?;
            let header = frame::header(rest).ok()??;
            rest.get(..header.len)?;
            length += header.len;
            match header.tag {
                b'S' => return Some(length),
                b'P' | b'B' | b'D' | b'E' | b'C' => {}
                _ => return None,
            }
        }
    }

    /// Waits until rows are elsewhere than the last attempt took them to be.
    async fn await_placement(&mut self) {
        let began = Instant::now();
        let published = self.worker.services.topology.clone();
        while began.elapsed() < SOON {
            match published.load().database(&self.database.name) {
                Some(now) if now.places_like(&self.database) => {}
                Some(_) | None => return,
            }
            sleep(PAUSE).await;
        }
    }

    /// Statements that a request has given names can be given them once more.
    fn forget_parsed(&mut self, request: &[u8]) {
        let mut rest = request;
        while let Ok(Some(header)) = frame::header(rest) {
            let Some((message, after)) = rest.split_at_checked(header.len) else {
                return;
            };
            if header.tag == b'P'
                && let Some(name) = message
                    .get(HEADER..)
                    .and_then(|body| body.split(|byte| *byte == 0).next())
            {
                self.statements.remove(name);
            }
            rest = after;
        }
    }
}

/// The messages of what is said.
fn messages(said: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = said;
    std::iter::from_fn(move || {
        let header = frame::header(rest).ok()??;
        let (message, after) = rest.split_at_checked(header.len)?;
        rest = after;
        Some(message)
    })
}

/// Whether it is an error that says that the statement has been cancelled, be it for a deadlock: whoever moves rows may have been a part of it.
fn is_cancellation(message: &[u8]) -> bool {
    let Ok(Message::ErrorResponse(fields)) = decode_message(message) else {
        return false;
    };
    let code = fields.get(b'C');
    [SqlState::QUERY_CANCELED, SqlState::DEADLOCK_DETECTED]
        .iter()
        .any(|cancelled| code == Some(cancelled.as_bytes()))
}

fn is_cancelled(said: &[u8]) -> bool {
    messages(said).any(is_cancellation)
}

/// Whether a statement has come to its end: it may have been COMMIT.
fn is_done(said: &[u8]) -> bool {
    messages(said).any(|message| message.first() == Some(&b'C'))
}

/// The same with what PostgreSQL says of rows that have moved in the place of the cancellation.
fn as_serialization_failure(output: &mut BytesMut, said: &[u8]) {
    for message in messages(said) {
        match is_cancellation(message) {
            true => report::error(output, &Failure::Retry),
            false => output.extend_from_slice(message),
        }
    }
}
