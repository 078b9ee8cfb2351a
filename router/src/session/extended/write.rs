//! Portals of statements that change rows of several shards. As in PostgreSQL, the first Execute changes all of them, whatever its
//! row limit; what they return waits for the next.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use switchyard_schema::ShardSet;
use switchyard_wire::Format;
use switchyard_wire::backend::encode;
use switchyard_wire::frame;
use switchyard_wire::frontend::{self, Bind};

use super::lossy;
use super::workspace::formatted;
use crate::backend::{Reply, Show};
use crate::execute::failure::Failure;
use crate::execute::participant::Participant;
use crate::execute::participants::Need;
use crate::execute::relay::Trouble;
use crate::plan::{Operator, Plan};
use crate::session::Session;
use crate::session::statement::{Portal, Returned, SessionStatement};
use crate::session::workspace::fetch::Asked;
use crate::session::write::Written;
use crate::session::write::insert::MOST_RETURNED;

impl Session {
    /// Binds on every shard, so that errors in the values are found at once; the first shard's answer is the client's.
    pub(super) async fn bind_written(
        &mut self,
        shards: ShardSet,
        prepared: &SessionStatement,
        bind: &Bind<'_>,
    ) -> Result<(), Trouble> {
        self.settle_before_bind(bind).await?;
        self.begin_in_batch()?;
        let Operator::Write(write) = &prepared.plan.operator else {
            return Err(Failure::Retry.into());
        };
        let cancels = self.cancels_before();
        let mut asked = Asked {
            need: Need::Primary,
            ..self.asked_by(prepared, bind, cancels)
        };
        let mut description = None;
        let changed = match self.goes_as_it_is(write) {
            false => {
                let described = self.describe_prepared(bind.statement, prepared).await?;
                description = described.map(|columns| formatted(&columns, bind));
                let plan = &prepared.plan;
                let text = self.changed_text(plan, write, &shards, &mut asked).await?;
                Some(text)
            }
            true => None,
        };
        for (position, shard) in shards.iter().enumerate() {
            let index = self.activate(shard, Need::Primary).await?;
            let show = match position {
                0 => Show::All,
                _ => Show::Errors,
            };
            self.prepare_state(index, &prepared.plan)?;
            let participant = self.participants.at(index)?;
            match &changed {
                None => participant.queue_bind(prepared, bind, false, show),
                Some(text) => queue_bind_of(participant, text, &asked, show),
            }
        }
        self.settle().await?;
        let portal = Portal::Written {
            shards,
            plan: Arc::clone(&prepared.plan),
            description,
            returned: None,
        };
        self.portals.insert(bind.portal, portal);
        Ok(())
    }

    /// Executes such a portal.
    pub(super) async fn execute_written(
        &mut self,
        name: &[u8],
        max_rows: i32,
    ) -> Result<(), Trouble> {
        self.settle().await?;
        let Some(Portal::Written {
            shards,
            plan,
            returned,
            ..
        }) = self.portals.get(name)
        else {
            return Err(Failure::NoSuchPortal(lossy(name)).into());
        };
        let most = usize::try_from(max_rows).ok().filter(|rows| *rows > 0);
        if returned.is_none() {
            let (shards, plan) = (shards.clone(), Arc::clone(plan));
            let Some(_) = most else {
                let tag = self.execute_parts(name, &shards, &plan).await?;
                encode::command_complete(&mut self.client.output, tag.as_bytes());
                return Ok(());
            };
            let kept = self.execute_and_keep(name, &shards, &plan).await?;
            if let Some(Portal::Written { returned, .. }) = self.portals.get_mut(name) {
                *returned = Some(kept);
            }
        }
        if let Some(Portal::Written {
            returned: Some(returned),
            ..
        }) = self.portals.get_mut(name)
        {
            returned.give(&mut self.client.output, most);
        }
        Ok(())
    }

    /// Executes it on one shard after the other: the tag of it all.
    async fn execute_parts(
        &mut self,
        name: &[u8],
        shards: &ShardSet,
        plan: &Plan,
    ) -> Result<String, Trouble> {
        let Operator::Write(write) = &plan.operator else {
            return Err(Failure::Retry.into());
        };
        let mut written = Written::of(write);
        for shard in shards.iter() {
            let index = self.activate_held(shard, name).await?;
            let participant = self.participants.at(index)?;
            participant.needs_sync = true;
            participant.note_run(plan);
            frontend::encode::execute(&mut participant.connection.output, name, 0);
            let reply = Reply::Part {
                describe: false,
                ready: false,
            };
            participant.connection.replies.expect(reply, written.show());
            self.settle().await?;
            let tag = self.participants.at(index)?.connection.replies.last_tag();
            written.add(tag, || self.shard_name(shard))?;
        }
        self.keep_unique(plan).await?;
        Ok(written.tag())
    }

    /// The same; what is returned is kept here.
    async fn execute_and_keep(
        &mut self,
        name: &[u8],
        shards: &ShardSet,
        plan: &Plan,
    ) -> Result<Returned, Trouble> {
        let before = self.client.hold();
        let outcome = self.execute_parts(name, shards, plan).await;
        let answer = self.client.unhold(before);
        let too_much = answer.len() > MOST_RETURNED;
        let rows = self.take_returned(answer);
        let tag = outcome?.into();
        if too_much {
            let limit = MOST_RETURNED as u64;
            return Err(Failure::ReturnedLimit { limit }.into());
        }
        Ok(Returned {
            tag,
            rows: rows.into(),
        })
    }

    /// Takes rows out of an answer; all else is the client's.
    fn take_returned(&mut self, answer: BytesMut) -> Vec<Bytes> {
        let mut rows = Vec::new();
        let mut answer = answer.freeze();
        while let Ok(Some(header)) = frame::header(&answer) {
            let message = answer.split_to(header.len.min(answer.len()));
            match header.tag {
                b'D' => rows.push(message),
                _ => self.client.output.extend_from_slice(&message),
            }
        }
        rows
    }
}

/// Queues the messages that bind a text of ours, with what is asked for, to the client's portal.
fn queue_bind_of(participant: &mut Participant, text: &[u8], asked: &Asked<'_>, show: Show) {
    let Some((_, bind)) = &asked.params else {
        return;
    };
    participant.needs_sync = true;
    let connection = &mut *participant.connection;
    connection.unnamed = None;
    let results: Vec<Format> = bind.result_formats.iter().collect();
    let shard = participant.shard;
    asked.encode_bind_for(shard, &mut connection.output, text, (bind.portal, &results));
    let parsed = Reply::Parse {
        statement: 0,
        named: false,
    };
    connection.replies.expect(parsed, Show::Errors);
    connection.replies.expect(Reply::Bind, show);
}

impl Returned {
    /// Gives the client so many of the rows, and the end behind the last.
    fn give(&mut self, output: &mut BytesMut, most: Option<usize>) {
        let given = self.rows.len().min(most.unwrap_or(usize::MAX));
        for row in self.rows.drain(..given) {
            output.extend_from_slice(&row);
        }
        match most == Some(given) {
            true => encode::portal_suspended(output),
            false => encode::command_complete(output, self.tag.as_bytes()),
        }
    }
}
