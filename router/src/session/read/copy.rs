//! COPY TO STDOUT of rows of several shards, each of which copies its own: the parts are passed on as one COPY.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "of troubles only a lost connection needs a name"
)]

use bytes::{Buf, BytesMut};
use switchyard_wire::backend::encode;
use switchyard_wire::frame::HEADER;
use switchyard_wire::frontend;

use crate::backend::Show;
use crate::execute::messages::{Said, next, next_now, violation};
use crate::execute::relay::{Trouble, client_gone, exchange};
use crate::execute::workspace::{COPY_END, COPY_HEADER};
use crate::plan::{Access, copy_has_header};
use crate::session::Session;
use crate::session::route::Routed;
use crate::session::simple::{Ready, Sent};

/// So much is gathered before the client is sent it.
const CHUNK: usize = 64 << 10;

/// The parts of one COPY, as far as they have come.
#[derive(Debug)]
struct Parts {
    /// A line of names comes before the rows of each.
    header: bool,
    /// Once the first has begun: whether they are binary.
    binary: Option<bool>,
    /// The header of binary rows has been passed on: with the first of them, as PostgreSQL does, which clients rely on.
    begun: bool,
    /// What comes before the rows of this part has been passed on already, and is still to come.
    skips: bool,
    rows: u64,
}

impl Session {
    /// Copies from one shard after the other. They all work at a time, as far as their sockets take what they send.
    pub(in crate::session) async fn copy_parts(
        &mut self,
        routed: &Routed,
        sent: Sent<'_>,
    ) -> Result<Ready, Trouble> {
        let plan = &*routed.plan;
        let need = self.need(plan.access, routed.hint);
        let writes = plan.access == Access::Write;
        let implicit = writes && self.begin_implicit();
        let mut sources = Vec::with_capacity(routed.shards.len());
        for shard in routed.shards.iter() {
            sources.push(self.join(shard, need).await?);
        }
        let mut parts = Parts {
            header: copy_has_header(sent.sql()),
            binary: None,
            begun: false,
            skips: false,
            rows: 0,
        };
        let copied = match writes {
            true => {
                self.write_parts_of(&mut parts, &sources, routed, sent)
                    .await
            }
            false => self.copy_each(&mut parts, &sources, sent).await,
        };
        if let Err(trouble) = copied {
            let trouble = match trouble {
                Trouble::Lost => self.lost_with_rows(None).into(),
                trouble => trouble,
            };
            self.abandon_rows(None).await;
            return Err(trouble);
        }
        for index in sources {
            if let Some(after) = self.note_statement(index, plan) {
                self.after_statement(after).await?;
            }
        }
        if parts.binary == Some(true) {
            parts.binary_rows(&COPY_END, &mut self.client.output);
        }
        encode::copy_done(&mut self.client.output);
        if implicit {
            self.commit_implicit().await?;
        }
        self.complete(&format!("COPY {}", parts.rows))
    }

    async fn copy_each(
        &mut self,
        parts: &mut Parts,
        sources: &[usize],
        sent: Sent<'_>,
    ) -> Result<(), Trouble> {
        for index in sources {
            self.ask_for_rows(*index, sent.sql()).await?;
        }
        self.await_beginnings(sources).await?;
        for index in sources {
            self.copy_part(parts, *index).await?;
        }
        Ok(())
    }

    /// The same of rows that a write returns: one shard after the other writes, as everybody's statements do.
    async fn write_parts_of(
        &mut self,
        parts: &mut Parts,
        sources: &[usize],
        routed: &Routed,
        sent: Sent<'_>,
    ) -> Result<(), Trouble> {
        for index in sources {
            self.prepare_state(*index, &routed.plan)?;
            self.participants.at(*index)?.note_run(&routed.plan);
            self.ask_for_rows(*index, sent.sql()).await?;
            self.copy_part(parts, *index).await?;
        }
        Ok(())
    }

    /// Asks a shard for its rows.
    async fn ask_for_rows(&mut self, index: usize, copy: &[u8]) -> Result<(), Trouble> {
        let (client, source, described) = self.exchanging(index)?;
        // What was queued when it joined is answered first.
        if exchange(client, source, &[], described).await? {
            return Err(Trouble::Told);
        }
        frontend::encode::query(&mut source.connection.output, copy);
        source.connection.unnamed = None;
        source.unread = true;
        match source.connection.flush().await {
            Ok(()) => Ok(()),
            Err(_) => Err(Trouble::Lost),
        }
    }

    /// Passes one shard's rows on.
    async fn copy_part(&mut self, parts: &mut Parts, index: usize) -> Result<(), Trouble> {
        let (client, source, _) = self.exchanging(index)?;
        let mut failed = false;
        loop {
            let said = match next_now(client, source, Show::All)? {
                Some(said) => said,
                None => {
                    client.flush().await.map_err(client_gone)?;
                    next(client, source, Show::All).await?
                }
            };
            match said {
                Said::Message(header) => {
                    let input = &source.connection.input;
                    let message = input.get(..header.len).unwrap_or_default();
                    if !parts.take(header.tag, message, &mut client.output) {
                        return Err(violation(source, Some(header.tag)));
                    }
                    source.connection.input.advance(header.len);
                }
                Said::Error => failed = true,
                Said::Ready => break,
            }
            if client.output.len() >= CHUNK {
                client.flush().await.map_err(client_gone)?;
            }
        }
        source.unread = false;
        match failed {
            true => Err(Trouble::Told),
            false => Ok(()),
        }
    }
}

impl Parts {
    /// Takes a message of a part; what the client is to get of it is added to `output`. False if it is not what PostgreSQL
    /// sends.
    fn take(&mut self, tag: u8, message: &[u8], output: &mut BytesMut) -> bool {
        let body = message.get(HEADER..).unwrap_or_default();
        match (tag, self.binary) {
            (b'H', None) => {
                let binary = body.first() == Some(&1);
                self.binary = Some(binary);
                self.skips = binary;
                output.extend_from_slice(message);
            }
            (b'H', Some(binary)) => self.skips = binary || self.header,
            (b'd', Some(true)) => {
                let rows = match self.skips {
                    true => body.strip_prefix(COPY_HEADER.as_slice()),
                    false => Some(body),
                };
                self.skips = false;
                match rows {
                    None => return false,
                    Some(b"") => {}
                    Some(rows) if rows == COPY_END => {}
                    Some(rows) => self.binary_rows(rows, output),
                }
            }
            (b'd', Some(false)) if self.skips => self.skips = false,
            (b'd', Some(false)) => output.extend_from_slice(message),
            (b'c', Some(_)) => {}
            (b'C', Some(_)) => self.rows += rows_of(body),
            _ => return false,
        }
        true
    }

    fn binary_rows(&mut self, rows: &[u8], output: &mut BytesMut) {
        match self.begun {
            true => encode::copy_data(output, rows),
            false => encode::copy_data(output, &[COPY_HEADER.as_slice(), rows].concat()),
        }
        self.begun = true;
    }
}

/// The number in the body of a CommandComplete.
pub(in crate::session) fn rows_of(body: &[u8]) -> u64 {
    let tag = body.strip_suffix(b"\0").unwrap_or(body);
    let count = tag.strip_prefix(b"COPY ").unwrap_or_default();
    std::str::from_utf8(count)
        .ok()
        .and_then(|count| count.parse().ok())
        .unwrap_or(0)
}
