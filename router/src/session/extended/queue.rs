//! Messages of the extended protocol on their way to one backend, each with the reply it is owed.

use smallvec::SmallVec;
use switchyard_wire::frontend::{self, Kind};

use super::bind::Bind;
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
        frontend::encode::bind_like(
            &mut connection.output,
            bind.portal,
            backend_name(statement, named).as_bytes(),
            bind.param_formats,
            bind.params,
            bind.result_formats,
        );
        connection.replies.expect(Reply::Bind, show);
    }

    pub(super) fn queue_describe_portal(&mut self, name: &[u8]) {
        self.needs_sync = true;
        frontend::encode::describe(&mut self.connection.output, Kind::Portal, name);
        let reply = Reply::Describe {
            note_types_of: None,
        };
        self.connection.replies.expect(reply, Show::All);
    }

    pub(super) fn queue_execute(&mut self, plan: &Plan, name: &[u8], max_rows: i32) {
        self.needs_sync = true;
        self.note_run(plan);
        self.connection.dirty |= plan.effects.dirty;
        self.pins.extend(plan.effects.pins);
        frontend::encode::execute(&mut self.connection.output, name, max_rows);
        self.connection.replies.expect(Reply::Execute, Show::All);
    }
}
