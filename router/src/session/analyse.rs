//! What PostgreSQL says of a text on a connection apart, where it may fail without failing what the session does.

use bytes::BytesMut;
use switchyard_wire::frontend::{self, Kind};

use super::Session;
use crate::execute::failure::Failure;
use crate::execute::relay::Trouble;
use crate::execute::workspace::Workspace;
use crate::plan::code::Code;
use crate::session::read::part::{error_field, place_error};
use crate::session::workspace::fetch::Asked;
use crate::session::workspace::is_placed;

impl Session {
    /// What PostgreSQL says of a text's result, or what is wrong with it.
    pub(super) async fn analyse_apart(
        &mut self,
        text: &[u8],
        asked: &Asked<'_>,
    ) -> Result<Result<BytesMut, BytesMut>, Trouble> {
        let backend = self.take_workspace(self.any_shard()).await?;
        let mut workspace = Workspace::new(backend, 0);
        let opened = self.open_workspace(&mut workspace, &[], "").await;
        if opened.is_err() {
            self.leave_workspace(workspace, opened).await?;
            return Ok(Err(BytesMut::new()));
        }
        let types = asked.types();
        let messages = |output: &mut BytesMut| {
            frontend::encode::parse(output, b"", text, &types);
            frontend::encode::describe(output, Kind::Statement, b"");
            frontend::encode::sync(output);
        };
        let before = self.client.hold();
        let description = workspace.send(&mut self.client, messages).await;
        let said = self.client.unhold(before);
        let outcome = match description {
            Ok(description) => Ok(Ok(description)),
            Err(Trouble::Told) => Ok(Err(said)),
            Err(other) => Err(other),
        };
        self.leave_workspace(workspace, outcome).await
    }

    /// Lets PostgreSQL analyse a statement that is refused otherwise, the code of a DO, too. True if it found an error, which the client has been
    /// shown.
    pub(super) async fn analyse_refused(&mut self, sql: &[u8]) -> Result<bool, Trouble> {
        if self.analyse(sql).await? {
            return Ok(true);
        }
        let Some(code) = Code::of(sql) else {
            return Ok(false);
        };
        let backend = self.take_workspace(self.any_shard()).await?;
        let mut workspace = Workspace::new(backend, 0);
        let before = self.client.hold();
        let made = match self.open_workspace(&mut workspace, &[], "").await {
            Ok(_) => workspace.run(&mut self.client, &code.text).await,
            Err(trouble) => Err(trouble),
        };
        let mut said = self.client.unhold(before);
        let wrong =
            matches!(made, Err(Trouble::Told)) && error_field(&said, b'C') == Some(b"42601");
        let made = match made {
            Err(Trouble::Told) => Ok(()),
            other => other,
        };
        self.leave_workspace(workspace, made).await?;
        if wrong {
            place_error(&mut said, 0, |position| code.origin(position));
            self.client.output.extend_from_slice(&said);
            self.abandon_rows(None).await;
        }
        Ok(wrong)
    }

    /// Tells the client what has been said meanwhile. Another text of its plan was analysed as a whole, of this one parts only:
    /// where there is an error in one, PostgreSQL says what is wrong with the text.
    pub(super) async fn tell<T>(
        &mut self,
        outcome: Result<T, Trouble>,
        mut said: BytesMut,
        asked: &Asked<'_>,
    ) -> Result<T, Trouble> {
        if matches!(outcome, Err(Trouble::Told)) && is_placed(&said) {
            match Box::pin(self.analyse_apart(asked.sql, asked)).await? {
                // Nothing is: the tables are not what they were when it was planned.
                Ok(_) => return Err(Failure::Retry.into()),
                Err(own) if !own.is_empty() => said = own,
                Err(_) => place_error(&mut said, 0, |_| None),
            }
        }
        self.client.output.extend_from_slice(&said);
        outcome
    }
}
