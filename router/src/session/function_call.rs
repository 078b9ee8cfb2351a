//! The function call protocol, by which drivers work with large objects: it names a function by the number that it has in the
//! system catalogue, which is the first shard's.

use postgres_protocol::escape::escape_identifier;
use switchyard_schema::{ShardIndex, ShardSet};
use switchyard_wire::frame::HEADER;
use switchyard_wire::frontend::{Message, decode};

use super::Session;
use super::route::{Routed, Text};
use super::simple::{Ready, Sent};
use crate::execute::failure::Failure;
use crate::execute::relay::Trouble;
use crate::plan::Operator;

impl Session {
    /// Has the first shard call the function, if it could run there as a statement of its own.
    pub(super) async fn function_call(&mut self, message: &[u8]) -> Result<Ready, Trouble> {
        let body = message.get(HEADER..).unwrap_or_default();
        let decoded = decode(b'F', body).map_err(Failure::InvalidMessage)?;
        let Message::FunctionCall { function, args, .. } = decoded else {
            return Err(Trouble::Gone);
        };
        if self.call_of(function, args.len()).is_none() {
            self.learn_relations().await;
        }
        // PostgreSQL says that there is no such function.
        let call = self.call_of(function, args.len());
        let select = call.unwrap_or_else(|| "SELECT NULL".to_owned());
        let routed = self.routed_to_first(&select)?;
        let sent = Sent {
            message,
            alone: true,
        };
        Box::pin(self.statement(&routed, sent)).await
    }

    /// A statement that calls the function with so many arguments.
    fn call_of(&self, oid: u32, arguments: usize) -> Option<String> {
        let (name, function) = self.database.relations.function_of(oid)?;
        let (schema, name) = (escape_identifier(&function.schema), escape_identifier(name));
        let nulls = vec!["NULL"; arguments].join(", ");
        Some(format!("SELECT {schema}.{name}({nulls})"))
    }

    /// What the statement does, done on the first shard.
    fn routed_to_first(&mut self, select: &str) -> Result<Routed, Failure> {
        let Text::One(routed) = self.route_text(select.as_bytes())? else {
            return Err(unsupported());
        };
        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "all others run elsewhere, too"
        )]
        match &routed.plan.operator {
            Operator::PassThrough(_) => Ok(Routed {
                shards: ShardSet::one(ShardIndex::FIRST),
                ..routed
            }),
            Operator::Refuse(refusal) => Err(Failure::Refused(refusal.clone())),
            _ => Err(unsupported()),
        }
    }
}

fn unsupported() -> Failure {
    Failure::Unsupported {
        what: "the function call protocol for a function that the first shard alone cannot run"
            .into(),
        hint: "Call the function with SELECT.",
    }
}
