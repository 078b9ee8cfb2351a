//! Portals of statements whose rows are found and then locked: all of them when the portal is first executed.

use std::sync::Arc;

use bytes::BytesMut;
use switchyard_wire::Format;
use switchyard_wire::backend::encode;
use switchyard_wire::frame::HEADER;
use switchyard_wire::frontend::{self, Bind, Kind};

use super::bind::BoundParams;
use super::lossy;
use super::workspace::parameter_types;
use crate::execute::failure::Failure;
use crate::execute::relay::Trouble;
use crate::plan::{Operator, Values};
use crate::session::Session;
use crate::session::read::lock::Locking;
use crate::session::statement::{Portal, SessionStatement};

/// The name of a statement and a portal of ours. No client's is the same: it would have to be that of a router's portal.
const OURS: &[u8] = b"switchyard candidates";

impl Session {
    /// Binds a statement whose rows are locked when it is executed.
    pub(super) async fn bind_locked(
        &mut self,
        prepared: Arc<SessionStatement>,
        bind: &Bind<'_>,
    ) -> Result<(), Trouble> {
        self.settle_before_bind(bind).await?;
        self.begin_in_batch()?;
        let cancels = self.cancels_before();
        let locking = locking(&prepared, bind, cancels)?;
        let description = self.probe_locked(&locking).await?;
        let mut message = BytesMut::new();
        frontend::encode::bind_like(&mut message, bind, b"");
        encode::bind_complete(&mut self.client.output);
        let portal = Portal::Locked {
            prepared,
            bind: message.freeze(),
            description,
        };
        self.portals.insert(bind.portal, portal);
        Ok(())
    }

    /// Executes such a statement: the portal then has its rows.
    pub(super) async fn execute_locked(
        &mut self,
        name: &[u8],
        max_rows: i32,
    ) -> Result<(), Trouble> {
        self.settle().await?;
        let Some(Portal::Locked {
            prepared,
            bind,
            description,
        }) = self.portals.get(name).cloned()
        else {
            return Err(Failure::NoSuchPortal(lossy(name)).into());
        };
        let bind = Bind::decode(bind.get(HEADER..).unwrap_or_default());
        let bind = bind.map_err(Failure::InvalidMessage)?;
        let cancels = self.cancels_before();
        let locking = locking(&prepared, &bind, cancels)?;
        let rows = Box::pin(self.lock_rows(&locking)).await?;
        let portal = Portal::Answered {
            plan: Arc::clone(&prepared.plan),
            description,
            rows: rows.into(),
            tag: None,
        };
        self.portals.insert(name, portal);
        self.execute_answered(name, max_rows);
        Ok(())
    }

    /// Runs a statement of ours with the client's parameters and formats; the last columns are not the client's.
    pub(in crate::session) async fn run_bound(
        &mut self,
        text: &[u8],
        types: &[u32],
        bind: &Bind<'_>,
        extras: usize,
    ) -> Result<(), Trouble> {
        let prepared = self.prepare(text, types)?.ok_or(Failure::Retry)?;
        self.statements.insert(OURS, Arc::new(prepared));
        let outcome = self.run_ours(bind, extras).await;
        self.statements.remove(OURS);
        outcome
    }

    async fn run_ours(&mut self, bind: &Bind<'_>, extras: usize) -> Result<(), Trouble> {
        let params: Vec<Option<&[u8]>> = bind.params.iter().collect();
        let param_formats: Vec<Format> = bind.param_formats.iter().collect();
        let mut results: Vec<Format> = bind.result_formats.iter().collect();
        if results.len() > 1 {
            results.extend(std::iter::repeat_n(Format::Text, extras));
        }
        let mut message = BytesMut::new();
        frontend::encode::bind(&mut message, OURS, OURS, &param_formats, &params, &results);
        let body = message.get(HEADER..).unwrap_or_default();
        let bind = Bind::decode(body).map_err(Failure::InvalidMessage)?;
        self.bind_portal(&bind).await?;
        self.describe_portal(OURS).await?;
        self.execute(OURS, 0).await?;
        self.close(Kind::Portal, OURS).await?;
        self.settle().await
    }
}

/// What is asked by a Bind message.
fn locking<'a>(
    prepared: &'a SessionStatement,
    bind: &'a Bind<'a>,
    cancels: u64,
) -> Result<Locking<'a>, Failure> {
    let (plan, sql) = (&*prepared.plan, prepared.statement.sql());
    let Operator::Lock(lock) = &plan.operator else {
        return Err(Failure::Retry);
    };
    let values = Values {
        sql,
        literals: &prepared.literals,
        params: &BoundParams::new(bind, &prepared.statement),
    };
    let limit = lock.limit(&values).map_err(Failure::Refused)?;
    Ok(Locking {
        plan,
        lock,
        sql,
        limit: limit.unwrap_or_default(),
        hint: prepared.hint,
        bound: Some((parameter_types(&prepared.statement, plan.params), bind)),
        cancels,
    })
}
