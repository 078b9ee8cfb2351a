//! Settings that statements change besides `SET`: by set_config. What is known of them when they are bound is taken from
//! there; the rest is asked of the backend that ran the statement.

use std::sync::Arc;

use postgres_protocol::escape::escape_literal;
use switchyard_schema::ShardIndex;

use super::Session;
use super::route::Routed;
use super::simple::{Ready, Sent};
use crate::backend::{QueryError, Settings, set_config};
use crate::execute::failure::Failure;
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
        let asked: Vec<&str> = plan
            .settings
            .iter()
            .filter(|setting| setting.value.is_none())
            .map(|setting| text(&setting.name))
            .collect();
        let mut answers = self.ask_settings(index, &asked).await?.into_iter();
        for setting in &plan.settings {
            let name = text(&setting.name);
            let local = match setting.local {
                Some(Argument::Bool(local)) => Some(local),
                _ => None,
            };
            let value = match &setting.value {
                Some(Argument::Text(value)) => Some(value.clone()),
                Some(_) => None,
                None => match answers
                    .next()
                    .and_then(|answer| self.news(name, answer, local))
                {
                    Some(value) => value,
                    None => continue,
                },
            };
            let changed = Changed {
                name,
                value: value.as_deref(),
                local,
            };
            self.note_setting(index, &changed).await?;
        }
        Ok(())
    }

    /// What an answer means: nothing, or a setting's new value, `None` for what the client started with.
    fn news(&self, name: &str, answer: Answer, local: Option<bool>) -> Option<Option<String>> {
        // One that does not exist has not been set.
        let value = answer.value?;
        let settings = match &self.block {
            Some(block) => block.effective(),
            None => &self.settings,
        };
        let by_code = local.is_none();
        let is_default = answer.is_default && settings.reset_sql(name, false).is_none();
        match by_code && is_default {
            // Code may set what has been set before, or nothing: only what differs is to be applied elsewhere.
            true if settings.value_of(name).is_none() => None,
            true => Some(None),
            false => Some(Some(value)),
        }
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
    async fn ask_settings(&mut self, index: usize, names: &[&str]) -> Result<Vec<Answer>, Trouble> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let values: Vec<String> = names.iter().map(|name| asking(name)).collect();
        let Some(participant) = self.participants.get_mut(index) else {
            return Err(Failure::Retry.into());
        };
        participant.connection.unnamed = None;
        let sql = format!("SELECT {}", values.join(", "));
        match participant.connection.simple_query(&sql).await {
            Ok(rows) => Ok(answers(rows.into_iter().next().unwrap_or_default())),
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
            let Some(index) = self.participants.position_of(shard, is_primary) else {
                let shard = self.shard_name(shard);
                return Err(Failure::ShardLost { shard }.into());
            };
            let answer = self.ask_settings(index, &[&name]).await?.pop();
            let Some(value) = answer.and_then(|answer| self.news(&name, answer, None)) else {
                continue;
            };
            let changed = Changed {
                name: &name,
                value: value.as_deref(),
                local: Some(false),
            };
            self.note_setting(index, &changed).await?;
        }
        Ok(())
    }
}

/// What a server says of a setting.
struct Answer {
    /// Its value; `None` if it does not exist.
    value: Option<String>,
    /// It is as on a fresh connection.
    is_default: bool,
}

/// Two columns: a setting's value, and whether a fresh connection has the same. Those that only sessions know are not in
/// pg_settings; once known they cannot be less than empty.
fn asking(name: &str) -> String {
    let name = escape_literal(name);
    format!(
        "pg_catalog.current_setting({name}, true), coalesce((SELECT setting IS NOT DISTINCT FROM reset_val FROM \
         pg_catalog.pg_settings WHERE pg_catalog.lower(name) = {name}), pg_catalog.current_setting({name}, true) = '')"
    )
}

fn answers(row: Vec<Option<String>>) -> Vec<Answer> {
    let mut answers = Vec::new();
    let mut columns = row.into_iter();
    while let (Some(value), Some(is_default)) = (columns.next(), columns.next()) {
        let is_default = is_default.as_deref() == Some("t");
        answers.push(Answer { value, is_default });
    }
    answers
}

/// A bound argument's text.
fn text(argument: &Argument) -> &str {
    match argument {
        Argument::Text(text) => text,
        Argument::Slot(_) | Argument::Param(_) | Argument::Bool(_) | Argument::Null => "",
    }
}

/// A statement on several shards would change settings on each of them, in an order of its own.
pub(super) fn settings_of_several() -> Failure {
    Failure::Unsupported {
        what: "changing settings by a statement that runs on several shards".into(),
        hint: "Use SET, or SELECT set_config(…) by itself.",
    }
}
