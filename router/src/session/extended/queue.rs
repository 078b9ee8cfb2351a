//! Messages of the extended protocol on their way to one backend, each with the reply it is owed.

use smallvec::SmallVec;
use switchyard_wire::frontend::{self, Bind};

use super::statements::{backend_name, hold_statement};
use crate::backend::{Reply, Show};
use crate::execute::participant::Participant;
use crate::plan::Plan;
use crate::session::statement::SessionStatement;

impl Participant {
    /// Queues a Bind, and the Parse it needs: `unsent` if the client awaits ParseComplete.
    pub(super) fn queue_bind(
        &mut self,
        prepared: &SessionStatement,
        bind: &Bind<'_>,
        unsent: bool,
        show: Show,
    ) {
        let named = !bind.statement.is_empty();
        let statement = &*prepared.statement;
        self.needs_sync = true;
        let connection = &mut *self.connection;
        hold_statement(connection, statement, named, unsent);
        if self.bound.0 != statement.number || *self.bound.1 != *bind.statement {
            self.bound = (statement.number, SmallVec::from_slice(bind.statement));
        }
        let name = backend_name(statement, named);
        let begins = connection.output.len();
        frontend::encode::bind_like(&mut connection.output, bind, name.as_bytes());
        connection.renumber_bind(begins, |number| statement.parameter_type(number));
        connection.replies.expect(Reply::Bind, show);
    }

    /// Queues the Describe of a portal, a whole message: here portals have the client's names.
    pub(super) fn queue_describe_portal(&mut self, message: &[u8]) {
        self.needs_sync = true;
        self.connection.output.extend_from_slice(message);
        let reply = Reply::Describe { noted_of: None };
        self.connection.replies.expect(reply, Show::All);
    }

    /// Queues the Execute of a portal with this plan, a whole message.
    pub(super) fn queue_execute(&mut self, plan: &Plan, message: &[u8]) {
        self.needs_sync = true;
        self.note_run(plan);
        self.connection.dirty |= plan.effects.dirty;
        self.note_pins(plan);
        self.connection.output.extend_from_slice(message);
        self.connection.replies.expect(Reply::Execute, Show::All);
    }
}
