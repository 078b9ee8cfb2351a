//! Portals of reads by a column with a global unique index: bound and run on the shard that the index names.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use switchyard_schema::ShardIndex;
use switchyard_wire::backend::encode;
use switchyard_wire::frame;
use switchyard_wire::frontend::{self, Bind, Kind};

use super::bind::BoundParams;
use crate::backend::{Reply, Show};
use crate::execute::participants::Need;
use crate::execute::relay::Trouble;
use crate::plan::{Lookup, Values};
use crate::session::Session;
use crate::session::read::located::{Next, Search};
use crate::session::statement::{Portal, SessionStatement};

/// Rows that are kept by the extended protocol, where the answer has to be known before the client asks for it.
const MOST: i32 = 1_000;

/// What a shard has given by the extended protocol.
#[derive(Default)]
struct Given {
    description: BytesMut,
    rows: Vec<Bytes>,
    /// There are more.
    suspended: bool,
}

impl Session {
    /// Binds a read by the extended protocol on the shard that the index names, and runs it. False: all shards have to be asked.
    pub(super) async fn bind_located(
        &mut self,
        prepared: &SessionStatement,
        bind: &Bind<'_>,
    ) -> Result<bool, Trouble> {
        // Outside a block what it is asked by would end what the batch is in.
        let is_open = self.block.is_none()
            && (self.batch.has_written() || self.portals.values().next().is_some());
        let Some(lookup) = lookup(prepared, bind).filter(|_| !is_open) else {
            return Ok(false);
        };
        self.settle().await?;
        let need = self.need(prepared.plan.access, prepared.hint);
        let mut search = Search::new(&lookup, &prepared.plan, need);
        let mut given = Given::default();
        loop {
            match self.search(&mut search).await? {
                Next::Ask(shard) => {
                    given = self.run_located((shard, need), prepared, bind).await?;
                }
                Next::All => return Ok(false),
                Next::Nothing => break,
            }
            if given.suspended {
                return Ok(false);
            }
            if !given.rows.is_empty() {
                break;
            }
        }
        encode::bind_complete(&mut self.client.output);
        let portal = Portal::Answered {
            plan: Arc::clone(&prepared.plan),
            description: given.description.freeze(),
            rows: given.rows.into(),
            tag: None,
        };
        self.portals.insert(bind.portal, portal);
        Ok(true)
    }

    /// Runs a bound statement on a shard, and closes its portal there: what it has given.
    async fn run_located(
        &mut self,
        (shard, need): (ShardIndex, Need),
        prepared: &SessionStatement,
        bind: &Bind<'_>,
    ) -> Result<Given, Trouble> {
        let index = self.activate(shard, need).await?;
        self.prepare_state(index, &prepared.plan)?;
        let unsent = self.take_unsent(bind.statement);
        let participant = self.participants.at(index)?;
        participant.queue_bind(prepared, bind, unsent, Show::All);
        let (mut describe, mut execute) = (BytesMut::new(), BytesMut::new());
        frontend::encode::describe(&mut describe, Kind::Portal, bind.portal);
        participant.queue_describe_portal(&describe);
        frontend::encode::execute(&mut execute, bind.portal, MOST);
        participant.queue_execute(&prepared.plan, &execute);
        let connection = &mut *participant.connection;
        frontend::encode::close(&mut connection.output, Kind::Portal, bind.portal);
        connection.replies.expect(Reply::Close, Show::Errors);
        let before = self.client.hold();
        let ran = self.settle().await;
        let said = self.client.unhold(before);
        match ran {
            Ok(()) => Ok(self.read_given(said)),
            Err(trouble) => {
                self.client.output.extend_from_slice(&said);
                Err(trouble)
            }
        }
    }

    /// Takes the answer of a shard apart. What is not about the portal is the client's.
    fn read_given(&mut self, answer: BytesMut) -> Given {
        let mut given = Given::default();
        let mut answer = answer.freeze();
        while let Ok(Some(header)) = frame::header(&answer) {
            let message = answer.split_to(header.len.min(answer.len()));
            match header.tag {
                b'2' | b'C' => {}
                b'T' | b'n' => given.description = message.into(),
                b'D' => given.rows.push(message),
                b's' => given.suspended = true,
                _ => self.client.output.extend_from_slice(&message),
            }
        }
        given
    }
}

fn lookup(prepared: &SessionStatement, bind: &Bind<'_>) -> Option<Lookup> {
    let located = prepared.plan.located.as_ref()?;
    located.lookup(&Values {
        sql: prepared.statement.sql(),
        literals: &prepared.literals,
        params: &BoundParams::new(bind, &prepared.statement),
    })
}
