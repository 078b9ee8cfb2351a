//! Statements the session handles itself: above all transaction blocks. Participants hear of a block when they join it;
//! its end goes to all of them.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "the commands listed are the session's own; all others run on a shard"
)]

use std::sync::Arc;

use postgres_protocol::escape::escape_identifier;
use switchyard_schema::ShardIndex;
use switchyard_wire::SqlState;
use switchyard_wire::backend::encode;

use crate::backend::Show;
use crate::execute::block::Block;
use crate::execute::failure::Failure;
use crate::execute::relay::Trouble;
use crate::execute::report;
use crate::plan::{Access, Command, Discard, Isolation, Plan, TransactionModes};
use crate::session::Session;
use crate::session::simple::{Ready, Sent};

impl Session {
    /// Handles a statement that no plan sends to a shard.
    pub(in crate::session) async fn control(
        &mut self,
        plan: &Plan,
        sent: Sent<'_>,
    ) -> Result<Ready, Trouble> {
        match &plan.command {
            Command::Begin(modes) => self.begin(modes, sent).await,
            Command::Commit { chain } => self.commit(*chain).await,
            Command::Rollback { chain } => self.rollback(*chain).await,
            Command::PrepareTransaction(name) => {
                Box::pin(self.prepare_transaction(name, sent)).await
            }
            Command::EndPrepared { name, commit } => {
                Box::pin(self.end_prepared_transaction(name, *commit, sent)).await
            }
            Command::Savepoint(name) => self.savepoint(name).await,
            Command::Release(name) => self.release_savepoint(name).await,
            Command::RollbackTo(name) => self.rollback_to(name).await,
            Command::SetTransaction(modes) => self.set_transaction(modes, plan, sent).await,
            Command::Set { name, value, local } => {
                self.set(name, value.as_ref(), *local, plan, sent).await
            }
            Command::Reset(name) => self.reset(name.as_deref(), plan, sent).await,
            Command::SetSessionCharacteristics(modes) => {
                self.set_characteristics(modes, plan, sent).await
            }
            Command::SetConstraints if self.block.is_some() => self.set_constraints(sent).await,
            Command::Discard(what) => self.discard(*what).await,
            Command::Prepare {
                name,
                types,
                statement,
            } => self.sql_prepare(name, types, statement, sent).await,
            Command::Execute { name, arguments } => self.sql_execute(name, arguments, sent).await,
            Command::Deallocate(name) => self.sql_deallocate(name.as_deref()).await,
            Command::Distribute => Box::pin(self.distribute_simple(sent.sql())).await,
            Command::Listen(channel) => Box::pin(self.listen(channel)).await,
            Command::Unlisten(channel) => Box::pin(self.unlisten(channel.as_deref())).await,
            Command::Empty => {
                encode::empty_query(&mut self.client.output);
                Ok(Ready::ToBeSaid)
            }
            Command::Declare { .. } => Box::pin(self.declare_locked(plan, sent)).await,
            Command::CloseCursor(None) => {
                self.run_on_all("CLOSE ALL").await?;
                self.close_all_cursors().await;
                self.cursors.clear();
                self.complete("CLOSE CURSOR ALL")
            }
            Command::Fetch { name } if let Some(at) = self.cursor_apart(name) => {
                self.fetch_apart(at, sent).await
            }
            Command::OfCursor { name, .. }
                if self.cursor_apart(name).is_some() || plan.unique.is_some() =>
            {
                Box::pin(self.write_current(plan, sent)).await
            }
            Command::CloseCursor(Some(name)) if let Some(at) = self.cursor_apart(name) => {
                self.close_cursor(at).await
            }
            command => {
                self.meant_portal_is_whole(command)?;
                let shard = self.shard_held_for(command).unwrap_or(ShardIndex::FIRST);
                self.at(shard, plan, sent).await
            }
        }
    }

    pub(in crate::session) fn complete(&mut self, tag: &str) -> Result<Ready, Trouble> {
        encode::command_complete(&mut self.client.output, tag.as_bytes());
        Ok(Ready::ToBeSaid)
    }

    async fn begin(&mut self, modes: &TransactionModes, sent: Sent<'_>) -> Result<Ready, Trouble> {
        let start = sent
            .sql()
            .trim_ascii_start()
            .first()
            .is_some_and(|byte| byte.eq_ignore_ascii_case(&b's'));
        let tag = if start { "START TRANSACTION" } else { "BEGIN" };
        if self.refuses_blocks {
            return Err(Failure::BlockInStatementMode.into());
        }
        match &mut self.block {
            Some(block) if block.explicit => {
                report::warning(
                    &mut self.client.output,
                    SqlState::ACTIVE_SQL_TRANSACTION,
                    "there is already a transaction in progress",
                );
                // PostgreSQL warns, and gives the block the modes nevertheless.
                if let Some(words) = begin_sql(modes).strip_prefix("BEGIN ") {
                    self.give_modes(modes, &format!("SET TRANSACTION {words}"))
                        .await?;
                }
            }
            // BEGIN inside a query string makes the implicit block an explicit one.
            Some(block) => {
                block.explicit = true;
                let begin = begin_sql(modes);
                let joined = self.participants.iter().any(|held| held.in_block);
                block.read_only = is_read_only(modes) && !joined;
                block.set_begin(&begin);
                block.set_isolation(modes.isolation);
                if let (true, Some(modes)) = (joined, begin.strip_prefix("BEGIN ")) {
                    self.run_on_all(&format!("SET TRANSACTION {modes}")).await?;
                }
            }
            None => {
                let begin = begin_sql(modes);
                let mut block = Block::explicit(&begin, is_read_only(modes), &self.settings);
                block.set_isolation(modes.isolation);
                self.block = Some(block);
            }
        }
        self.complete(tag)
    }

    async fn commit(&mut self, chain: bool) -> Result<Ready, Trouble> {
        let chained = |block: &&Block| block.explicit || !chain;
        let Some(block) = self.block.as_ref().filter(chained) else {
            return self.no_transaction("COMMIT", chain);
        };
        let (explicit, failed) = (block.explicit, block.failed.is_some());
        let ended = chain.then(|| block.clone());
        if !explicit {
            self.warn_no_transaction();
        }
        let tag = if failed {
            self.rollback_block().await?;
            "ROLLBACK"
        } else {
            self.commit_block().await?;
            "COMMIT"
        };
        self.block = ended.map(|ended| ended.next(!failed, &self.settings));
        self.complete(tag)
    }

    async fn rollback(&mut self, chain: bool) -> Result<Ready, Trouble> {
        let chained = |block: &&Block| block.explicit || !chain;
        let Some(block) = self.block.as_ref().filter(chained) else {
            return self.no_transaction("ROLLBACK", chain);
        };
        let explicit = block.explicit;
        let ended = chain.then(|| block.clone());
        if !explicit {
            self.warn_no_transaction();
        }
        self.rollback_block().await?;
        self.block = ended.map(|ended| ended.next(false, &self.settings));
        self.complete("ROLLBACK")
    }

    fn no_transaction(&mut self, tag: &'static str, chain: bool) -> Result<Ready, Trouble> {
        if chain {
            let what = if tag == "COMMIT" {
                "COMMIT AND CHAIN"
            } else {
                "ROLLBACK AND CHAIN"
            };
            return Err(Failure::NoBlock(what).into());
        }
        self.warn_no_transaction();
        self.complete(tag)
    }

    pub(in crate::session) fn warn_no_transaction(&mut self) {
        report::warning(
            &mut self.client.output,
            SqlState::NO_ACTIVE_SQL_TRANSACTION,
            "there is no transaction in progress",
        );
    }

    /// Rolls the block back everywhere; the session's settings are again what they were before it.
    pub(in crate::session) async fn rollback_block(&mut self) -> Result<(), Trouble> {
        self.rollback_participants().await?;
        let Some(block) = self.block.take() else {
            return Ok(());
        };
        self.take_settings(Arc::clone(block.settings_before()));
        self.before_ddl = None;
        if block.changed_temporary {
            Box::pin(self.learn_temporary()).await;
        }
        Ok(())
    }

    /// Rolls back every participant that has joined the block. One that cannot is closed, which rolls back as well.
    pub(in crate::session) async fn rollback_participants(&mut self) -> Result<(), Trouble> {
        if !self.cursors_apart.is_empty() {
            Box::pin(self.end_cursors_since(0)).await;
        }
        self.cursors.retain(|cursor| !cursor.is_new);
        // One that is on its way to a participant is about what has failed, and would meet the ROLLBACK.
        self.hear_cancels().await;
        for index in 0..self.participants.len() {
            let Some(participant) = self.participants.get_mut(index) else {
                continue;
            };
            if !participant.in_block || participant.connection.broken {
                continue;
            }
            participant.in_block = false;
            match self.run_on(index, "ROLLBACK").await {
                Ok(_) | Err(Trouble::Lost) => {}
                Err(other) => return Err(other),
            }
        }
        self.participants.close_broken(&self.database);
        self.participants.forget_lost();
        Ok(())
    }

    /// Commits the block around the statements of a query string or of a batch.
    pub(in crate::session) async fn commit_implicit(&mut self) -> Result<(), Trouble> {
        if self.block.as_ref().is_some_and(|block| !block.explicit) {
            self.commit_block().await?;
        }
        Ok(())
    }

    /// Rolls back the block around the statements of a query string or of a batch.
    pub(in crate::session) async fn abort_implicit(&mut self) -> Result<(), Trouble> {
        if self.block.as_ref().is_some_and(|block| !block.explicit) {
            self.rollback_block().await?;
        }
        Ok(())
    }

    async fn savepoint(&mut self, name: &str) -> Result<Ready, Trouble> {
        self.in_explicit_block("SAVEPOINT")?;
        let sql = format!("SAVEPOINT {}", quoted(name));
        self.run_on_all(&sql).await?;
        if let Some(block) = &mut self.block {
            block.add_savepoint(name, &self.settings);
        }
        self.complete("SAVEPOINT")
    }

    async fn release_savepoint(&mut self, name: &str) -> Result<Ready, Trouble> {
        self.known_savepoint("RELEASE SAVEPOINT", name)?;
        self.run_on_all(&format!("RELEASE SAVEPOINT {}", quoted(name)))
            .await?;
        if let Some(block) = &mut self.block {
            let steps = block.steps_to(name);
            block.release_savepoint(name);
            self.cursors_outlive_savepoint(steps - 1);
        }
        self.complete("RELEASE")
    }

    async fn rollback_to(&mut self, name: &str) -> Result<Ready, Trouble> {
        self.known_savepoint("ROLLBACK TO SAVEPOINT", name)?;
        // What the block did there before the savepoint is gone as well.
        if let Some(shard) = self.participants.lost() {
            let shard = shard.into();
            return Err(Failure::ShardLost { shard }.into());
        }
        self.run_on_all(&format!("ROLLBACK TO SAVEPOINT {}", quoted(name)))
            .await?;
        if let Some(block) = &mut self.block {
            let steps = block.steps_to(name);
            let settings = block.rollback_to_savepoint(name);
            let changed_temporary = block.changed_temporary;
            block.relations_are_old = block.changed_schema;
            if let Some(settings) = settings {
                self.take_settings(settings);
            }
            self.end_cursors_since(steps).await;
            if changed_temporary {
                Box::pin(self.learn_temporary()).await;
            }
        }
        self.complete("ROLLBACK")
    }

    /// `SET CONSTRAINTS` in a block: for the shards that are in it, and those that come to it later. There has to be one: it knows the
    /// names.
    async fn set_constraints(&mut self, sent: Sent<'_>) -> Result<Ready, Trouble> {
        if !self.participants.iter().any(|held| held.in_block) {
            let need = self.need(Access::Read, None);
            self.join_for_all(self.any_shard(), need).await?;
        }
        let sql = String::from_utf8_lossy(sent.sql()).into_owned();
        self.run_shown_on_all(&sql, Show::Notices).await?;
        if let Some(block) = &mut self.block {
            block.add_constraints(&sql);
        }
        self.complete("SET CONSTRAINTS")
    }

    fn in_explicit_block(&self, what: &'static str) -> Result<(), Failure> {
        match &self.block {
            Some(block) if block.explicit => Ok(()),
            _ => Err(Failure::NoBlock(what)),
        }
    }

    fn known_savepoint(&self, what: &'static str, name: &str) -> Result<(), Failure> {
        self.in_explicit_block(what)?;
        match &self.block {
            Some(block) if block.has_savepoint(name) => Ok(()),
            _ => Err(Failure::NoSuchSavepoint(name.into())),
        }
    }

    async fn set_transaction(
        &mut self,
        modes: &TransactionModes,
        plan: &Plan,
        sent: Sent<'_>,
    ) -> Result<Ready, Trouble> {
        if self.block.as_ref().is_some_and(|block| block.explicit) {
            let sql = String::from_utf8_lossy(sent.sql()).into_owned();
            self.give_modes(modes, &sql).await?;
            return self.complete("SET");
        }
        // Outside a block PostgreSQL warns.
        self.everywhere_or_anywhere("SET", plan, sent).await
    }

    /// Gives the block other modes, by this statement. PostgreSQL refuses some after the first query or a savepoint: let it.
    async fn give_modes(&mut self, modes: &TransactionModes, sql: &str) -> Result<(), Trouble> {
        let has_savepoints = self.block.as_ref().is_some_and(Block::has_savepoints);
        let mut joined = self.participants.iter().any(|held| held.in_block);
        if has_savepoints && !joined {
            let need = self.need(Access::Read, None);
            self.join_for_all(self.any_shard(), need).await?;
            joined = true;
        }
        self.run_on_all(sql).await?;
        if let Some(block) = &mut self.block {
            block.add_modes(sql);
            block.set_isolation(modes.isolation);
            if let (Some(read_only), false) = (modes.read_only, joined) {
                block.read_only = read_only && modes.isolation != Some(Isolation::Serializable);
            }
        }
        Ok(())
    }

    async fn discard(&mut self, what: Discard) -> Result<Ready, Trouble> {
        match what {
            Discard::All => {
                if self.block.is_some() {
                    return Err(Failure::NotInBlock("DISCARD ALL").into());
                }
                self.close_all_cursors().await;
                self.statements.clear();
                self.portals.clear();
                self.temporary.clear();
                self.cursors.clear();
                self.participants.reset_all(&self.database).await;
                self.unlisten_all();
                self.forget_sequences();
                self.take_settings(Arc::new(self.settings.discarded()));
                self.client.untold = true;
                self.complete("DISCARD ALL")
            }
            Discard::Plans => self.complete("DISCARD PLANS"),
            Discard::Sequences => {
                self.run_on_all("DISCARD SEQUENCES").await?;
                self.forget_sequences();
                self.complete("DISCARD SEQUENCES")
            }
            Discard::Temp => {
                self.run_on_all("DISCARD TEMP").await?;
                self.temporary.clear();
                self.context = None;
                self.complete("DISCARD TEMP")
            }
        }
    }

    /// In a block: on every participant; otherwise on any one backend.
    pub(in crate::session) async fn everywhere_or_anywhere(
        &mut self,
        tag: &str,
        plan: &Plan,
        sent: Sent<'_>,
    ) -> Result<Ready, Trouble> {
        let joined = self
            .participants
            .iter()
            .filter(|held| held.in_block)
            .count();
        if self.block.is_some() && joined > 1 {
            let sql = String::from_utf8_lossy(sent.sql()).into_owned();
            self.run_on_all(&sql).await?;
            return self.complete(tag);
        }
        self.anywhere(plan, sent).await
    }

    /// Any backend's answer will do.
    async fn anywhere(&mut self, plan: &Plan, sent: Sent<'_>) -> Result<Ready, Trouble> {
        self.at(self.any_shard(), plan, sent).await
    }

    pub(in crate::session) async fn at(
        &mut self,
        shard: ShardIndex,
        plan: &Plan,
        sent: Sent<'_>,
    ) -> Result<Ready, Trouble> {
        let routed = crate::session::route::Routed {
            plan: Arc::new(plan.clone()),
            shards: switchyard_schema::ShardSet::one(shard),
            fetches: Vec::new(),
            rows: Vec::new(),
            limit: crate::merge::Limit::default(),
            hint: None,
            lookup: None,
        };
        self.pass_through(shard, &routed, sent).await
    }
}

/// The statement that opens a block with these modes.
fn begin_sql(modes: &TransactionModes) -> String {
    let isolation = modes.isolation;
    let isolation = isolation.map(|level| format!(" ISOLATION LEVEL {}", level.name()));
    let access = modes
        .read_only
        .map(|only| if only { " READ ONLY" } else { " READ WRITE" });
    let deferrable = modes.deferrable.map(|can| {
        if can {
            " DEFERRABLE"
        } else {
            " NOT DEFERRABLE"
        }
    });
    let mut sql = String::from("BEGIN");
    sql.extend(isolation);
    sql.extend([access, deferrable].into_iter().flatten());
    sql
}

/// Whether replicas may take part: a standby has no serializable transactions.
fn is_read_only(modes: &TransactionModes) -> bool {
    modes.read_only == Some(true) && modes.isolation != Some(Isolation::Serializable)
}

fn quoted(name: &str) -> String {
    escape_identifier(name)
}
