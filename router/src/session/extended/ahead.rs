//! Queries of ours that run as the client's own would, by a portal, and whose rows are given to another statement.

use std::pin::Pin;
use std::sync::Arc;

use bytes::BytesMut;
use switchyard_wire::Format;
use switchyard_wire::frame::HEADER;
use switchyard_wire::frontend::{self, Bind, Kind};

use crate::execute::failure::Failure;
use crate::execute::relay::Trouble;
use crate::session::Session;
use crate::session::workspace::fetch::{Asked, parameters};
use crate::session::write::ahead::Taking;

/// The name of the statement and the portal. No client's is the same: it would have to be that of a router's portal.
const OURS: &[u8] = b"switchyard ahead";

/// So many rows are asked for at a time.
const AT_A_TIME: i32 = 1_000;

impl Session {
    /// Runs a query in the session's block, with the client's parameters as far as it mentions them, and takes its rows in these formats.
    pub(in crate::session) fn run_ahead<'s>(
        &'s mut self,
        text: &'s [u8],
        asked: &'s Asked<'_>,
        results: &'s [Format],
    ) -> Pin<Box<dyn Future<Output = Result<Taking, Trouble>> + Send + 's>> {
        // It may be a statement inside of a statement, of any kind: the futures would contain each other.
        Box::pin(self.take_ahead(text, asked, results))
    }

    async fn take_ahead(
        &mut self,
        text: &[u8],
        asked: &Asked<'_>,
        results: &[Format],
    ) -> Result<Taking, Trouble> {
        let typed = asked.with_types_in(text);
        let prepared = self.prepare(text, &typed.types())?.ok_or(Failure::Retry)?;
        self.statements.insert(OURS, Arc::new(prepared));
        let outcome = self.take_portal(text, &typed, results).await;
        self.statements.remove(OURS);
        if asked.params.is_none() {
            // A statement of the simple protocol is in no batch.
            let ended = self.close_batch().await;
            return outcome.and_then(|taking| ended.map(|()| taking));
        }
        outcome
    }

    async fn take_portal(
        &mut self,
        text: &[u8],
        asked: &Asked<'_>,
        results: &[Format],
    ) -> Result<Taking, Trouble> {
        let mentioned = parameters(text);
        let (mut values, mut formats) = (Vec::new(), Vec::new());
        if let Some((_, bind)) = &asked.params {
            for (at, value) in bind.params.iter().enumerate() {
                let used = mentioned.binary_search(&(at + 1)).is_ok();
                values.push(value.filter(|_| used));
                formats.push(bind.param_formats.format(at));
            }
        }
        let mut message = BytesMut::new();
        frontend::encode::bind(&mut message, OURS, OURS, &formats, &values, results);
        let body = message.get(HEADER..).unwrap_or_default();
        let bind = Bind::decode(body).map_err(Failure::InvalidMessage)?;
        let mut taking = Taking::of(results);
        let before = self.client.hold();
        let bound = self.bind_and_describe(&bind).await;
        let said = self.client.unhold(before);
        self.take_said(said, &mut taking);
        bound?;
        while taking.goes_on() {
            let before = self.client.hold();
            let executed = self.execute_some().await;
            let said = self.client.unhold(before);
            self.take_said(said, &mut taking);
            executed?;
        }
        let before = self.client.hold();
        let closed = self.close_ours().await;
        let said = self.client.unhold(before);
        self.take_said(said, &mut taking);
        closed.map(|()| taking)
    }

    async fn bind_and_describe(&mut self, bind: &Bind<'_>) -> Result<(), Trouble> {
        self.bind_portal(bind).await?;
        self.describe_portal(OURS).await?;
        self.settle().await
    }

    async fn execute_some(&mut self) -> Result<(), Trouble> {
        self.execute(OURS, AT_A_TIME).await?;
        self.settle().await
    }

    async fn close_ours(&mut self) -> Result<(), Trouble> {
        self.close(Kind::Portal, OURS).await?;
        self.settle().await
    }
}
