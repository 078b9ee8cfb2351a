//! Portals of UPDATE and DELETE … WHERE CURRENT OF a cursor in a workspace, or of a table with a global unique index: which shard has the row is known when the portal is first
//! executed, and all is done then.

use std::sync::Arc;

use bytes::Bytes;
use switchyard_schema::ShardIndex;
use switchyard_wire::frame;
use switchyard_wire::frontend::{Bind, Kind};

use crate::execute::failure::Failure;
use crate::execute::relay::Trouble;
use crate::session::Session;
use crate::session::cursor::tag_of;
use crate::session::statement::{Portal, SessionStatement};

/// The name of a portal of ours. No client's is the same: it would have to be that of a router's portal.
const OURS: &[u8] = b"switchyard current";

impl Session {
    /// Executes such a statement, which is bound by this message: the portal that then has what it returns.
    pub(super) async fn execute_current(
        &mut self,
        prepared: &Arc<SessionStatement>,
        bind: &Bind<'_>,
        description: Bytes,
    ) -> Result<Portal, Trouble> {
        let plan = &prepared.plan;
        let standing = self.stand(plan, None).await?;
        let before = self.client.hold();
        let run = self.run_current(standing.shard, prepared, bind).await;
        let mut answer = self.client.unhold(before);
        let (mut rows, mut tag) = (Vec::new(), None);
        while let Ok(Some(header)) = frame::header(&answer) {
            let message = answer.split_to(header.len.min(answer.len()));
            match header.tag {
                b'E' | b'N' | b'A' | b'S' => self.client.output.extend_from_slice(&message),
                b'D' => rows.push(message.freeze()),
                b'C' => tag = Some(tag_of(&message)),
                _ => {}
            }
        }
        run?;
        self.leave_row(&standing, plan).await?;
        Ok(Portal::Answered {
            plan: Arc::clone(plan),
            description,
            tag: Some(tag.ok_or(Failure::Retry)?.into()),
            rows: rows.into(),
        })
    }

    async fn run_current(
        &mut self,
        shard: ShardIndex,
        prepared: &SessionStatement,
        bind: &Bind<'_>,
    ) -> Result<(), Trouble> {
        let mut own = *bind;
        (own.portal, own.statement) = (OURS, OURS);
        self.bind_one(shard, prepared, &own).await?;
        self.execute(OURS, 0).await?;
        self.close(Kind::Portal, OURS).await?;
        self.settle().await
    }
}
