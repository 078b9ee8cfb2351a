//! EXECUTE by the extended protocol: what SQL has prepared is bound with the arguments, as if the client had bound it.

use std::sync::Arc;

use bytes::BytesMut;
use switchyard_wire::Format;
use switchyard_wire::frame::HEADER;
use switchyard_wire::frontend::{self, Bind};

use crate::execute::failure::Failure;
use crate::execute::relay::Trouble;
use crate::plan::Command;
use crate::session::Session;
use crate::session::prepare::arguments::Arguments;
use crate::session::prepare::sql_prepared::Described;
use crate::session::statement::SessionStatement;

use super::bind::has_parameters;
use super::workspace::{formatted, portable};

/// The name of a statement of ours. No client's is the same: it would have to be that of a router's statement.
const EXECUTED: &[u8] = b"switchyard executes";

impl Session {
    /// Binds an EXECUTE.
    pub(super) async fn bind_execute(
        &mut self,
        execute: &SessionStatement,
        bind: &Bind<'_>,
    ) -> Result<(), Trouble> {
        // It has no parameters, whatever its arguments are.
        has_parameters(bind, Some(0))?;
        let Command::Execute { name, arguments } = &execute.plan.command else {
            return Err(Failure::Retry.into());
        };
        let prepared = self.statement_known(name.as_bytes()).await?;
        let described = self.describe_executed(&prepared).await?;
        let arguments = Arguments::read(execute.statement.sql(), arguments);
        let before = self.client.hold();
        let arguments = self.computed(name, &prepared, &described, arguments).await;
        let said = self.client.unhold(before);
        if let Err(Trouble::Told) = arguments {
            // An error in the arguments is one of executing it.
            let columns = described.columns.map(|of| formatted(&of, bind));
            self.bind_failed(execute, bind, columns, said.freeze());
            return Ok(());
        }
        self.client.output.extend_from_slice(&said);
        let message = self.bind_of(&prepared, &described.params, &arguments?, bind)?;
        let bound = match Bind::decode(message.get(HEADER..).unwrap_or_default()) {
            Ok(bind) => Box::pin(self.bind_portal(&bind)).await,
            Err(error) => Err(Failure::InvalidMessage(error).into()),
        };
        self.statements.remove(EXECUTED);
        bound
    }

    /// The Bind message that does the same: its statement is there until it has been bound.
    fn bind_of(
        &mut self,
        prepared: &SessionStatement,
        types: &[u32],
        arguments: &Arguments,
        bind: &Bind<'_>,
    ) -> Result<BytesMut, Failure> {
        let values = arguments.as_params(types).ok_or(Failure::Retry)?;
        let types: Vec<u32> = types.iter().copied().map(portable).collect();
        if types.contains(&0) {
            return Err(Failure::Unsupported {
                what: "EXECUTE by the extended query protocol, with parameters of types that users made,".into(),
                hint: "Bind the prepared statement itself, or use the simple query protocol.",
            });
        }
        let own = self.prepare(prepared.statement.sql(), &types)?;
        self.statements
            .insert(EXECUTED, Arc::new(own.ok_or(Failure::Retry)?));
        let results: Vec<Format> = bind.result_formats.iter().collect();
        let mut message = BytesMut::new();
        frontend::encode::bind(&mut message, bind.portal, EXECUTED, &[], &values, &results);
        Ok(message)
    }

    /// What PostgreSQL says of what an EXECUTE runs. It is asked by messages of ours, which would commit what the batch has written.
    pub(super) async fn describe_executed(
        &mut self,
        prepared: &SessionStatement,
    ) -> Result<Described, Trouble> {
        if self.block_has_failed() {
            return Err(Failure::InFailedTransaction.into());
        }
        self.settle().await?;
        self.keep_writes()?;
        self.describe_held(prepared).await
    }
}
