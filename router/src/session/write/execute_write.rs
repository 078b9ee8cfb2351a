//! EXECUTE of statements that change rows of several shards, where these are sent another text than the client's: with the time, with rows
//! of other shards, or with what the session remembers of sequences.

use bytes::BytesMut;
use switchyard_wire::Format;

use crate::execute::given_rows::GivenRows;
use crate::execute::participants::Need;
use crate::execute::relay::Trouble;
use crate::plan::Write;
use crate::session::Session;
use crate::session::prepare::arguments::Arguments;
use crate::session::route::Routed;
use crate::session::simple::{Ready, Sent};
use crate::session::statement::SessionStatement;
use crate::session::workspace::fetch::Asked;

impl Session {
    /// Whether the shards are sent another text than has been prepared.
    pub(in crate::session) fn writes_otherwise(&self, write: &Write, routed: &Routed) -> bool {
        let remembers = self.gives_remembered(write) && !self.has_own_sequences();
        let asks = routed.shards.only().is_none() && !write.moments.is_empty();
        !write.is_plain() || remembers || asks
    }

    /// Executes it with these arguments.
    pub(in crate::session) async fn execute_write(
        &mut self,
        write: &Write,
        (name, prepared): (&str, &SessionStatement),
        routed: &Routed,
        (arguments, sent): (&Arguments, Sent<'_>),
    ) -> Result<Ready, Trouble> {
        let cancels = self.cancel.slot().requests();
        let bound = self.bound(name, prepared, arguments).await?;
        let (types, bind) = bound.params()?;
        let implicit = self.begin_implicit();
        let mut asked = Asked {
            sql: prepared.statement.sql(),
            params: Some((types, &bind)),
            given: GivenRows::default(),
            need: Need::Primary,
            cancels,
        };
        let text = self
            .changed_text(&routed.plan, write, &routed.shards, &mut asked)
            .await?;
        let message = |shard| {
            let mut message = BytesMut::new();
            asked.encode_for(shard, &mut message, &text, &[Format::Text]);
            message
        };
        let messages = routed.shards.iter().map(message).collect();
        self.client.output.extend_from_slice(&bound.columns);
        self.write_and_tell(write, routed, sent, (Some(messages), implicit))
            .await
    }
}
