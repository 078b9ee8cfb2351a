//! `SET` and `RESET`: the session's settings, and what the client is told of them.
//!
//! Backends are lent with the session's settings applied. A block's participants begin with the settings from before the
//! block and are told of every change since, so that whatever ends the block leaves all of them alike.

use std::sync::Arc;
use std::time::Duration;

use postgres_protocol::escape::escape_identifier;
use switchyard_schema::ShardIndex;

use super::Session;
use super::simple::{Ready, Sent};
use crate::backend::{CONSISTENT_READ, LAYER, ROUTE, Settings, boolean};
use crate::execute::failure::Failure;
use crate::execute::participant::Participant;
use crate::execute::participants::Need;
use crate::execute::relay::Trouble;
use crate::plan::{Access, Isolation, Layer, Plan, SetValue, TransactionModes};
use crate::relations::SearchPath;
use crate::sql::HintNode;

/// A statement that changes settings.
struct Change<'a> {
    /// What it is answered with.
    tag: &'static str,
    what: What<'a>,
    /// It ends with the transaction.
    local: bool,
    /// What runs in the place of the client's statement.
    instead: Option<String>,
}

/// What it changes.
enum What<'a> {
    /// One setting, to a value.
    Set(&'a str, Option<String>),
    /// The modes that transactions have by default, each a setting of its own.
    Characteristics(&'a TransactionModes),
    /// One setting, back to what the client started with.
    Reset(&'a str),
    /// All of them.
    ResetAll,
}

impl What<'_> {
    /// The settings that hold after `sql` has changed those that held.
    fn apply(&self, settings: &Settings, sql: &str) -> Settings {
        match self {
            Self::Set(name, value) => settings.with(name, sql, value.as_deref()),
            Self::Characteristics(modes) => {
                defaults_of(modes)
                    .into_iter()
                    .fold(settings.clone(), |settings, (name, value)| {
                        settings.with(name, &format!("SET {name} = '{value}'"), Some(value))
                    })
            }
            Self::Reset(name) => settings.without(name),
            Self::ResetAll => settings.reset_all(),
        }
    }
}

impl Session {
    pub(super) async fn set(
        &mut self,
        name: &str,
        value: Option<&SetValue>,
        local: bool,
        plan: &Plan,
        sent: Sent<'_>,
    ) -> Result<Ready, Trouble> {
        let text = value.and_then(|value| value.items.first());
        let text = text.map(String::as_str);
        match name {
            ROUTE => drop(route_hint(text)?),
            LAYER => drop(layer(text)?),
            CONSISTENT_READ => self.set_consistent_read(text)?,
            _ => {}
        }
        let (what, instead) = match value {
            Some(value) => {
                let value = match name {
                    "search_path" => quoted_list(&value.items),
                    _ => value.items.join(", "),
                };
                (What::Set(name, Some(value)), None)
            }
            None => (What::Reset(name), self.settings.reset_sql(name, local)),
        };
        let change = Change {
            tag: "SET",
            what,
            local,
            instead,
        };
        self.change_settings(change, plan, sent).await
    }

    /// `SET switchyard.consistent_read`: within a block only while it has done nothing.
    fn set_consistent_read(&mut self, value: Option<&str>) -> Result<(), Failure> {
        let on = consistent_read(value)?;
        let has_begun = self.participants.iter().any(|held| held.in_block);
        match &mut self.block {
            Some(block) if has_begun || block.steps() > 0 => Err(Failure::TooLateForCut),
            Some(block) => {
                block.consistent = on.unwrap_or(block.consistent);
                Ok(())
            }
            None => Ok(()),
        }
    }

    pub(super) async fn set_characteristics(
        &mut self,
        modes: &TransactionModes,
        plan: &Plan,
        sent: Sent<'_>,
    ) -> Result<Ready, Trouble> {
        let change = Change {
            tag: "SET",
            what: What::Characteristics(modes),
            local: false,
            instead: None,
        };
        self.change_settings(change, plan, sent).await
    }

    pub(super) async fn reset(
        &mut self,
        name: Option<&str>,
        plan: &Plan,
        sent: Sent<'_>,
    ) -> Result<Ready, Trouble> {
        let (what, instead) = match name {
            Some(name) => (What::Reset(name), self.settings.reset_sql(name, false)),
            None => (What::ResetAll, self.settings.reset_all_sql()),
        };
        let change = Change {
            tag: "RESET",
            what,
            local: false,
            instead,
        };
        self.change_settings(change, plan, sent).await
    }

    /// Runs a statement that changes the session's settings where the session is, and takes note of the change if it
    /// succeeded.
    async fn change_settings(
        &mut self,
        change: Change<'_>,
        plan: &Plan,
        sent: Sent<'_>,
    ) -> Result<Ready, Trouble> {
        for participant in self.participants.iter_mut() {
            participant.failed = false;
        }
        let (shard, need) = (self.any_shard(), self.need(Access::Read, None));
        let (ready, sql) = match change.instead {
            Some(sql) => {
                self.run_instead(shard, need, &sql).await?;
                (self.complete(change.tag)?, sql)
            }
            None => {
                let sql = String::from_utf8_lossy(sent.sql()).into_owned();
                let ready = self.everywhere_or_anywhere(change.tag, plan, sent).await?;
                (ready, sql)
            }
        };
        if self.participants.iter().any(|held| held.failed) {
            return Ok(ready);
        }
        let after = change.what.apply(&self.settings, &sql);
        match &mut self.block {
            Some(block) => block.add_setting(&sql, change.what.apply(block.effective(), &sql)),
            None if change.local => return Ok(ready),
            None => {
                // Others that are held have not run it: they are made equal when they serve again.
                let held = self.participants.position(shard, need);
                if let Some(held) = held.and_then(|held| self.participants.get_mut(held)) {
                    held.connection.applied = Some(Arc::new(after.clone()));
                }
            }
        }
        if change.local {
            self.read_names();
        } else {
            self.take_settings(Arc::new(after));
        }
        Ok(ready)
    }

    /// Runs a statement of ours that changes settings: on every participant of the block, else on the one for `shard`.
    async fn run_instead(
        &mut self,
        shard: ShardIndex,
        need: Need,
        sql: &str,
    ) -> Result<(), Trouble> {
        let index = self.join_for_all(shard, need).await?;
        if self.block.is_some() {
            self.run_on_all(sql).await
        } else if self.run_on(index, sql).await? {
            Err(Trouble::Told)
        } else {
            Ok(())
        }
    }

    /// The session's settings are these now.
    pub(super) fn take_settings(&mut self, settings: Arc<Settings>) {
        self.settings = settings;
        self.read_names();
    }

    /// Takes what the router goes by from the settings that hold: where reads go, and what decides the meaning of names, the
    /// role and the search path.
    pub(super) fn read_names(&mut self) {
        let settings = match &self.block {
            Some(block) => block.effective(),
            None => &self.settings,
        };
        // What is no route has been refused where it was set.
        self.route_hint = route_hint(settings.value_of(ROUTE)).unwrap_or_default();
        let layer = layer(settings.value_of(LAYER)).unwrap_or_default();
        self.consistent_read = match &self.block {
            Some(block) => block.consistent,
            None => settings.is_on(CONSISTENT_READ),
        };
        if self.layer != layer {
            self.layer = layer;
            self.context = None;
        }
        let settings = match &self.block {
            Some(block) => block.effective(),
            None => &self.settings,
        };
        let name = settings.value_of("application_name").unwrap_or_default();
        self.entry.set_application_name(name);
        let limit = settings.value_of("idle_in_transaction_session_timeout");
        self.entry.set_idle_transaction(limit.and_then(duration));
        let role = match settings.value_of("role") {
            None | Some("none" | "") => settings.value_of("session_authorization"),
            role => role,
        };
        let role = match role {
            Some(role) if *self.role == *role => Arc::clone(&self.role),
            Some(role) => role.into(),
            None => Arc::clone(&self.user),
        };
        let path = settings
            .value_of("search_path")
            .unwrap_or(&self.default_path);
        let path = SearchPath::parse(path, &role).unwrap_or_default();
        let reading = settings.reading();
        if *self.reading != *reading {
            self.reading = reading.into();
        }
        if self.role != role || self.search_path != path {
            self.role = role;
            self.search_path = path;
            self.context = None;
            self.rename_sequences();
        }
    }

    /// Tells the client of reported settings that may have changed since it was told last.
    pub(super) async fn tell_settings(&mut self) {
        let in_block = self.block.is_some();
        let joined = |held: &Participant| held.in_block;
        let alike = |held: &Participant| held.connection.applied.as_ref() == Some(&self.settings);
        let source = self.participants.iter().position(joined);
        let source = source.or_else(|| self.participants.iter().position(alike));
        if let Some(source) = source.and_then(|source| self.participants.get(source)) {
            for (name, value) in source.connection.parameters() {
                // It is the server's, not the session's.
                if name != "in_hot_standby" {
                    self.client.tell(name.as_bytes(), value.as_bytes());
                }
            }
        } else if in_block {
            // A participant that joins, or the block's end, will show.
            return;
        } else {
            match self.reported_parameters().await {
                Ok(reported) => self.client.tell_all(&reported),
                // The client's next statement meets the same, and says so.
                Err(error) => {
                    tracing::debug!(%error, "the session's settings could not be reported");
                    return;
                }
            }
        }
        self.client.untold = false;
    }
}

/// The settings that `SET SESSION CHARACTERISTICS` sets, with their values.
fn defaults_of(modes: &TransactionModes) -> Vec<(&'static str, &'static str)> {
    let on = |on: bool| if on { "on" } else { "off" };
    let level = modes.isolation.map(Isolation::name);
    let defaults = [
        ("default_transaction_isolation", level),
        ("default_transaction_read_only", modes.read_only.map(on)),
        ("default_transaction_deferrable", modes.deferrable.map(on)),
    ];
    let given = |(name, value): (_, Option<_>)| value.map(|value| (name, value));
    defaults.into_iter().filter_map(given).collect()
}

/// A time as PostgreSQL reads it: of milliseconds, if it does not say.
fn duration(value: &str) -> Option<Duration> {
    let value = value.trim();
    let is_digit = |c: char| c.is_ascii_digit() || c == '.';
    let end = value.find(|c| !is_digit(c)).unwrap_or(value.len());
    let (number, unit) = value.split_at(end);
    let ms = match unit.trim() {
        "" | "ms" => 1.0,
        "us" => 0.001,
        "s" => 1e3,
        "min" => 60e3,
        "h" => 3_600e3,
        "d" => 86_400e3,
        _ => return None,
    };
    let ms = number.parse::<f64>().ok()? * ms;
    Duration::try_from_secs_f64(ms / 1e3).ok()
}

/// A list of names as a configuration file would have it.
fn quoted_list(items: &[String]) -> String {
    let quoted: Vec<String> = items.iter().map(|item| escape_identifier(item)).collect();
    quoted.join(", ")
}

/// Where the session's reads go, by the value of [`ROUTE`].
pub(super) fn route_hint(value: Option<&str>) -> Result<Option<HintNode>, Failure> {
    match value {
        None | Some("" | "default") => Ok(None),
        Some("primary") => Ok(Some(HintNode::Primary)),
        Some("replica") => Ok(Some(HintNode::Replica)),
        Some(other) => Err(Failure::BadRoute(other.into())),
    }
}

/// What may answer a read, by the value of [`LAYER`].
pub(super) fn layer(value: Option<&str>) -> Result<Layer, Failure> {
    match value {
        None | Some("" | "auto") => Ok(Layer::Auto),
        Some("merge") => Ok(Layer::Merge),
        Some("bind join") => Ok(Layer::BindJoin),
        Some("workspace") => Ok(Layer::Workspace),
        Some(other) => Err(Failure::BadLayer(other.into())),
    }
}

/// The value of [`CONSISTENT_READ`]; `None` is the default.
pub(super) fn consistent_read(value: Option<&str>) -> Result<Option<bool>, Failure> {
    match value {
        None | Some("") => Ok(None),
        Some(value) => boolean(value).map(Some).ok_or(Failure::BadConsistentRead),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::duration;

    #[test]
    fn times_are_read_as_postgresql_reads_them() {
        for (value, ms) in [
            ("1500", Some(1500)),
            ("0", Some(0)),
            (" 2 s", Some(2000)),
            ("1.5s", Some(1500)),
            ("1min", Some(60_000)),
            ("1 d", Some(86_400_000)),
            ("-1", None),
            ("soon", None),
        ] {
            assert_eq!(duration(value), ms.map(Duration::from_millis), "{value}");
        }
    }
}
