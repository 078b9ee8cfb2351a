//! Portals of statements that make a table of rows of several shards: all is done when the portal is executed.

use std::sync::Arc;

use bytes::BytesMut;
use switchyard_wire::backend::encode;
use switchyard_wire::frame::HEADER;
use switchyard_wire::frontend::{self, Bind};

use crate::execute::failure::Failure;
use crate::execute::participants::Need;
use crate::execute::relay::Trouble;
use crate::plan::Operator;
use crate::plan::create_as::CreateAs;
use crate::session::Session;
use crate::session::statement::{Portal, SessionStatement};
use crate::session::workspace::create_as::Making;
use crate::session::workspace::fetch::Asked;

impl Session {
    /// Binds such a statement.
    pub(super) async fn bind_create_as(
        &mut self,
        prepared: Arc<SessionStatement>,
        bind: &Bind<'_>,
    ) -> Result<(), Trouble> {
        self.settle_before_bind(bind).await?;
        self.cancels_before();
        let mut message = BytesMut::new();
        frontend::encode::bind_like(&mut message, bind, b"");
        encode::bind_complete(&mut self.client.output);
        let portal = Portal::CreateAs {
            prepared,
            bind: message.freeze(),
        };
        self.portals.insert(bind.portal, portal);
        Ok(())
    }

    /// Executes it: what the batch has written becomes part of its transaction.
    pub(super) async fn execute_create_as(
        &mut self,
        prepared: &SessionStatement,
        bind: &[u8],
    ) -> Result<(), Trouble> {
        self.settle().await?;
        let Operator::Workspace(plan) = &prepared.plan.operator else {
            return Err(Failure::Retry.into());
        };
        let sql = prepared.statement.sql();
        let created = CreateAs::of(sql).ok_or(Failure::Retry)?;
        let bind = Bind::decode(bind.get(HEADER..).unwrap_or_default());
        let bind = bind.map_err(Failure::InvalidMessage)?;
        self.begin_in_batch()?;
        let fetches = self.fetches_of_bind(plan, prepared, &bind)?;
        let cancels = self.cancels_before();
        let asked = Asked {
            sql: &created.query(sql),
            need: Need::Primary,
            ..self.asked_by(prepared, &bind, cancels)
        };
        let making = Making {
            plan: &prepared.plan,
            fetches: &fetches,
            created: &created,
            sql,
        };
        let tag = self.make_table(&making, &asked).await?;
        self.batch.schema_changed |= !created.temporary;
        encode::command_complete(&mut self.client.output, tag.as_bytes());
        Ok(())
    }
}
