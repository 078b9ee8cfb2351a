//! Portals of INSERTs whose rows belong to several shards, and of other statements that are done when the portal is first executed.

use std::sync::Arc;

use bytes::BytesMut;
use switchyard_wire::backend::encode;
use switchyard_wire::frame::HEADER;
use switchyard_wire::frontend::{self, Bind};

use super::bind::BoundParams;
use super::lossy;
use super::workspace::{formatted, parameter_types};
use crate::execute::failure::Failure;
use crate::execute::given_rows::GivenRows;
use crate::execute::relay::Trouble;
use crate::plan::{Command, Operator, Values};
use crate::session::Session;
use crate::session::statement::{Portal, SessionStatement};
use crate::session::workspace::columns;
use crate::session::write::insert::{Inserting, shards_of_rows};

impl Session {
    /// Binds such a statement.
    pub(super) async fn bind_insert(
        &mut self,
        prepared: Arc<SessionStatement>,
        bind: &Bind<'_>,
    ) -> Result<(), Trouble> {
        let returns = match &prepared.plan.operator {
            Operator::Insert(insert) => insert.returns,
            Operator::InsertQuery(from) => {
                from.clauses.as_ref().is_some_and(|clauses| clauses.returns)
            }
            Operator::Move(of) => of.returns,
            Operator::Steps(steps) => steps.returns,
            // Of a cursor: PostgreSQL knows.
            Operator::Session => true,
            _ => false,
        };
        // PostgreSQL parses the client's own text, once: it says what is wrong with it, and where.
        if prepared.statement.is_described() && !returns {
            self.local_parse_complete(bind.statement);
        }
        self.settle_before_bind(bind).await?;
        self.cancels_before();
        let shards = {
            let values = Values {
                sql: prepared.statement.sql(),
                literals: &prepared.literals,
                params: &BoundParams::new(bind, &prepared.statement),
            };
            shards_of_rows(&prepared.plan, &values)?
        };
        let description = match returns {
            true => self.describe_prepared(bind.statement, &prepared).await?,
            false => None,
        };
        let returned = description.as_deref().and_then(columns);
        let returned = returned.map_or(0, |columns| columns.len());
        let formats = bind.result_formats.len();
        if formats > 1 && formats != returned {
            let columns = returned;
            return Err(Failure::FormatCount { formats, columns }.into());
        }
        let mut message = BytesMut::new();
        frontend::encode::bind_like(&mut message, bind, b"");
        encode::bind_complete(&mut self.client.output);
        let described = match description {
            Some(of) => formatted(&of, bind),
            None => {
                let mut nothing = BytesMut::new();
                encode::no_data(&mut nothing);
                nothing.freeze()
            }
        };
        let portal = Portal::Insert {
            description: described,
            shards: shards.into(),
            prepared,
            bind: message.freeze(),
        };
        self.portals.insert(bind.portal, portal);
        Ok(())
    }

    /// Executes it: the portal then has what it returns.
    pub(super) async fn execute_insert(
        &mut self,
        name: &[u8],
        max_rows: i32,
    ) -> Result<(), Trouble> {
        self.settle().await?;
        let Some(Portal::Insert {
            prepared,
            bind,
            shards,
            description,
        }) = self.portals.get(name).cloned()
        else {
            return Err(Failure::NoSuchPortal(lossy(name)).into());
        };
        let bind = Bind::decode(bind.get(HEADER..).unwrap_or_default());
        let bind = bind.map_err(Failure::InvalidMessage)?;
        if let Command::OfCursor { .. } = prepared.plan.command {
            let portal = self.execute_current(&prepared, &bind, description).await?;
            self.portals.insert(name, portal);
            self.execute_answered(name, max_rows);
            return Ok(());
        }
        self.begin_in_batch()?;
        let types = parameter_types(&prepared.statement, prepared.plan.params);
        let inserting = Inserting {
            plan: &prepared.plan,
            sql: prepared.statement.sql(),
            shards: &shards,
            bound: Some((types, &bind)),
            cancels: self.cancels_before(),
            given: GivenRows::default(),
        };
        let inserted = self.insert_rows(&inserting).await?;
        let portal = Portal::Answered {
            plan: Arc::clone(&prepared.plan),
            description,
            tag: Some(inserted.tag().into()),
            rows: inserted.rows.into(),
        };
        self.portals.insert(name, portal);
        self.execute_answered(name, max_rows);
        Ok(())
    }
}
