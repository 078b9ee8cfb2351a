//! Settings that statements change besides `SET`: by set_config. What is known of them when they are bound is taken from
//! there; the rest is asked of the backend that ran the statement.

use std::sync::Arc;

use postgres_protocol::escape::escape_literal;
use switchyard_schema::ShardIndex;

use super::Session;
use super::failure::Failure;
use super::route::Routed;
use super::simple::{Ready, Sent};
use crate::backend::{QueryError, Settings, set_config};
use crate::execute::participants::Need;
use crate::execute::relay::Trouble;
use crate::plan::{Argument, Plan};

/// A setting that a statement has changed.
struct Changed<'a> {
    name: &'a str,
    /// The new value; `None`: what the client started with.
    value: Option<&'a str>,
    /// Whether it ends with the transaction, if that is known.
    local: Option<bool>,
}

impl Session {
    /// Runs a statement that changes settings, whose end the client hears of when the session knows them.
    pub(super) async fn setting_statement(
        &mut self,
        routed: &Routed,
        sent: Sent<'_>,
    ) -> Result<Ready, Trouble> {
        let Some(shard) = routed.shards.only() else {
            return Err(settings_of_several().into());
        };
        let sent = Sent {
            alone: false,
            ..sent
        };
        let plan = &*routed.plan;
        self.has_servers_defaults(plan)?;
        let ready = self.pass_through(shard, routed, sent).await?;
        let need = self.need(plan.access, routed.hint);
        if let Some(index) = self.participants.position(shard, need)
            && self
                .participants
                .get(index)
                .is_some_and(|held| !held.failed)
        {
            self.learn_settings(index, plan).await?;
        }
        Ok(ready)
    }

    /// Takes note of the settings that a statement has changed on this participant.
    pub(super) async fn learn_settings(
        &mut self,
        index: usize,
        plan: &Plan,
    ) -> Result<(), Trouble> {
        let named = |argument: &'_ Argument| match argument {
            Argument::Text(name) => name.clone(),
            _ => String::new(),
        };
        let asked: Vec<String> = plan
            .settings
            .iter()
            .filter(|setting| setting.value.is_none())
            .map(|setting| named(&setting.name))
            .collect();
        let mut answers = self.ask_settings(index, &asked).await?.into_iter();
        for setting in &plan.settings {
            let value = match &setting.value {
                Some(Argument::Text(value)) => Some(value.clone()),
                Some(_) => None,
                None => match answers.next().flatten() {
                    // It does not exist: the call has not taken place.
                    None => continue,
                    value => value,
                },
            };
            let local = match setting.local {
                Some(Argument::Bool(local)) => Some(local),
                _ => None,
            };
            let changed = Changed {
                name: &named(&setting.name),
                value: value.as_deref(),
                local,
            };
            self.note_setting(index, &changed).await?;
        }
        Ok(())
    }

    /// A NULL is the default, in PostgreSQL the one the client started with: a pooled connection has another.
    pub(super) fn has_servers_defaults(&self, plan: &Plan) -> Result<(), Failure> {
        for setting in &plan.settings {
            if let (Argument::Text(name), Some(Argument::Null)) = (&setting.name, &setting.value)
                && self.settings.reset_sql(name, false).is_some()
            {
                return Err(Failure::Unsupported {
                    what: format!("set_config of {name} to NULL").into(),
                    hint: "Use RESET.",
                });
            }
        }
        Ok(())
    }

    /// The settings' present values on a participant.
    async fn ask_settings(
        &mut self,
        index: usize,
        names: &[String],
    ) -> Result<Vec<Option<String>>, Trouble> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let values: Vec<String> = names
            .iter()
            .map(|name| format!("pg_catalog.current_setting({}, true)", escape_literal(name)))
            .collect();
        let Some(participant) = self.participants.get_mut(index) else {
            return Err(Failure::Retry.into());
        };
        participant.connection.unnamed = None;
        let sql = format!("SELECT {}", values.join(", "));
        match participant.connection.simple_query(&sql).await {
            Ok(rows) => Ok(rows.into_iter().next().unwrap_or_default()),
            Err(QueryError::Server { sqlstate, message }) => Err(Failure::ShardRefused {
                shard: (&*participant.shard_name).into(),
                sqlstate,
                message: message.into(),
            }
            .into()),
            Err(QueryError::Io(_) | QueryError::Protocol(_)) => {
                let shard = (&*participant.shard_name).into();
                self.participants.close(&self.database, index);
                Err(Failure::ShardLost { shard }.into())
            }
        }
    }

    async fn note_setting(&mut self, index: usize, changed: &Changed<'_>) -> Result<(), Trouble> {
        let Changed { name, value, local } = *changed;
        let session = local == Some(false) || (local.is_none() && self.block.is_none());
        let sql = match value {
            Some(value) => set_config(name, value, !session),
            None => {
                let name = escape_literal(name);
                format!("SELECT pg_catalog.set_config({name}, NULL, {})", !session)
            }
        };
        let apply = |settings: &Settings| match value {
            Some(value) => settings.with(name, &sql, Some(value)),
            None => settings.without(name),
        };
        let Some(block) = &self.block else {
            if session {
                let settings = Arc::new(apply(&self.settings));
                if let Some(participant) = self.participants.get_mut(index) {
                    participant.connection.applied = Some(Arc::clone(&settings));
                }
                self.take_settings(settings);
            }
            return Ok(());
        };
        let effective = apply(block.effective());
        for other in 0..self.participants.len() {
            let joined = self
                .participants
                .get(other)
                .is_some_and(|held| held.in_block);
            if joined && other != index && self.run_on(other, &sql).await? {
                return Err(Trouble::Told);
            }
        }
        let teller = self.participants.get(index);
        let teller = teller.map(|held| (held.shard, held.is_primary));
        if let Some(block) = &mut self.block {
            block.add_setting(&sql, effective);
            if let (None, Some((shard, is_primary))) = (local, teller) {
                block.unsure.push((shard, is_primary, name.into()));
            }
        }
        if session {
            self.take_settings(Arc::new(apply(&self.settings)));
        } else {
            self.read_names();
        }
        Ok(())
    }

    /// A block has been committed: what is left of settings of which it was not known whether they end with it.
    pub(super) async fn learn_unsure(
        &mut self,
        unsure: Vec<(ShardIndex, bool, Box<str>)>,
    ) -> Result<(), Trouble> {
        for (shard, is_primary, name) in unsure {
            let need = if is_primary {
                Need::Primary
            } else {
                Need::Replica
            };
            let Some(index) = self.participants.position(shard, need) else {
                let shard = self.shard_name(shard);
                return Err(Failure::ShardLost { shard }.into());
            };
            let names = [name.into_string()];
            let values = self.ask_settings(index, &names).await?;
            for (name, value) in names.iter().zip(&values) {
                let changed = Changed {
                    name,
                    value: value.as_deref(),
                    local: Some(false),
                };
                if value.is_some() {
                    self.note_setting(index, &changed).await?;
                }
            }
        }
        Ok(())
    }
}

/// A statement on several shards would change settings on each of them, in an order of its own.
pub(super) fn settings_of_several() -> Failure {
    Failure::Unsupported {
        what: "changing settings by a statement that runs on several shards".into(),
        hint: "Use SET, or SELECT set_config(…) by itself.",
    }
}
