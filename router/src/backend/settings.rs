//! What has been SET: the run-time parameters a client's session has changed, as replayable SQL.
//!
//! A session keeps one immutable [`Settings`]; every backend connection remembers the one last applied to it. Equal
//! values need no round trip; different ones are made equal by [`Settings::preamble`], sent ahead of the client's
//! own message. Order is kept, for parameters can depend on each other (`role` and `session_authorization`).

use std::fmt::Write;

use postgres_protocol::escape::escape_literal;

/// The router's own setting: where a session's reads go.
pub(crate) const ROUTE: &str = "switchyard.route";

/// The one that says what may answer a read, see [`crate::plan::Layer`].
pub(crate) const LAYER: &str = "switchyard.layer";

/// The one that says whether reads of several shards are of one cut.
pub(crate) const CONSISTENT_READ: &str = "switchyard.consistent_read";

/// The parameters a session has set, in order, each as the statement that sets it again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Settings {
    startup: Vec<Setting>,
    session: Vec<Setting>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Setting {
    name: Box<str>,
    sql: Box<str>,
    /// The value in the form of a configuration file, for the settings the router itself must understand.
    value: Option<Box<str>>,
}

impl Settings {
    /// The settings a client asks for in its startup packet: (name, value) pairs in the form of a configuration
    /// file. They are the session's defaults: `RESET` goes back to them.
    pub fn from_startup<'a>(parameters: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let startup = parameters
            .into_iter()
            .map(|(name, value)| Setting {
                name: name.to_ascii_lowercase().into(),
                sql: set_config(name, value, false).into(),
                value: Some(value.into()),
            })
            .collect();
        Self {
            startup,
            session: Vec::new(),
        }
    }

    /// These settings for a session whose role or database has a default that its startup packet says nothing of.
    pub(crate) fn with_default(&self, name: &str, value: &str) -> Self {
        let mut settings = self.clone();
        if self.value_of(name).is_none() {
            let default = Self::from_startup([(name, value)]);
            settings.startup.extend(default.startup);
        }
        settings
    }

    /// These settings after `sql`, a statement that sets `name` for the session to `value`, where that matters to us.
    pub fn with(&self, name: &str, sql: &str, value: Option<&str>) -> Self {
        let mut settings = self.without(name);
        settings.session.push(Setting {
            name: name.into(),
            sql: sql.trim().trim_end_matches(';').into(),
            value: value.map(Into::into),
        });
        settings
    }

    /// These settings after `RESET name`.
    pub fn without(&self, name: &str) -> Self {
        // With another session's user comes that user's own role.
        let gone = |known: &str| known == name || (name == USER && known == ROLE);
        let mut settings = self.clone();
        settings.session.retain(|setting| !gone(&setting.name));
        settings
    }

    /// These settings after `RESET ALL`, which leaves the role and the session's user as they are.
    pub fn reset_all(&self) -> Self {
        let mut settings = self.clone();
        settings.session.retain(Setting::is_identity);
        settings
    }

    /// These settings after `DISCARD ALL`: only what the startup packet asked for.
    pub fn discarded(&self) -> Self {
        Self {
            startup: self.startup.clone(),
            session: Vec::new(),
        }
    }

    /// The statement that does on a pooled connection what `RESET name` would do on one of the client's own: PostgreSQL
    /// goes back to what the connection was started with. `None`: the startup packet did not say, so `RESET` does it.
    pub fn reset_sql(&self, name: &str, local: bool) -> Option<String> {
        let mut startup = self.startup.iter().rev();
        let setting = startup.find(|setting| &*setting.name == name)?;
        Some(set_config(name, setting.value.as_deref()?, local))
    }

    /// The same for `RESET ALL`.
    pub fn reset_all_sql(&self) -> Option<String> {
        let startup = self.startup.iter().filter(|setting| !setting.is_identity());
        let mut sql = String::from("RESET ALL");
        let mut any = false;
        for setting in startup {
            let _ = write!(sql, "; {}", setting.sql);
            any = true;
        }
        any.then_some(sql)
    }

    /// The value of `name`, in the form of a configuration file, if it has been set and noted.
    pub fn value_of(&self, name: &str) -> Option<&str> {
        let mut settings = self.session.iter().rev().chain(self.startup.iter().rev());
        settings
            .find(|setting| &*setting.name == name)?
            .value
            .as_deref()
    }

    /// The settings by which PostgreSQL reads the literals of a statement when it parses it.
    pub(crate) fn reading(&self) -> String {
        let settings = self.startup.iter().chain(&self.session);
        let reading = settings.filter(|setting| READING.contains(&&*setting.name));
        reading.map(|setting| format!("{};", setting.sql)).collect()
    }

    /// Whether a setting that is on or off is on.
    pub(crate) fn is_on(&self, name: &str) -> bool {
        self.value_of(name).and_then(boolean) == Some(true)
    }

    /// True when nothing was ever set, as on a fresh connection.
    pub fn is_empty(&self) -> bool {
        self.startup.is_empty() && self.session.is_empty()
    }

    /// The SQL that turns a connection on which `applied` holds into one on which `self` holds. `None`: it is not known
    /// what holds.
    pub fn preamble(&self, applied: Option<&Settings>) -> String {
        let mut sql = String::new();
        let mut settings = applied
            .into_iter()
            .flat_map(|applied| applied.startup.iter().chain(&applied.session));
        if applied.is_none() || settings.any(Setting::is_identity) {
            sql.push_str("RESET SESSION AUTHORIZATION; RESET ROLE; ");
        }
        if applied.is_none_or(|applied| !applied.is_empty()) {
            sql.push_str("RESET ALL");
        }
        for setting in self.startup.iter().chain(&self.session) {
            let separator = if sql.is_empty() { "" } else { "; " };
            let _ = write!(sql, "{separator}{}", setting.sql);
        }
        sql
    }
}

/// The settings that decide what a literal or an operator means to the parser. Functions that input values of types of
/// extensions and users may go by others; none is known.
const READING: [&str; 7] = [
    "array_nulls",
    "datestyle",
    "intervalstyle",
    "lc_monetary",
    "timezone",
    "transform_null_equals",
    "xmloption",
];

const ROLE: &str = "role";
const USER: &str = "session_authorization";

impl Setting {
    /// The role and the session's user are no run-time parameters: `RESET ALL` does not touch them.
    fn is_identity(&self) -> bool {
        matches!(&*self.name, ROLE | USER)
    }
}

/// The statement that sets `name`. set_config takes the configuration file's form, as the startup packet does; SET would
/// read a list such as search_path as one name.
pub fn set_config(name: &str, value: &str, local: bool) -> String {
    format!(
        "SELECT pg_catalog.set_config({}, {}, {local})",
        escape_literal(name),
        escape_literal(value)
    )
}

/// A value of a setting that is on or off, as PostgreSQL reads it.
pub(crate) fn boolean(value: &str) -> Option<bool> {
    let value = value.to_ascii_lowercase();
    let begins = |word: &str| !value.is_empty() && word.starts_with(&value);
    match value.as_str() {
        "on" | "1" => Some(true),
        "off" | "of" | "0" => Some(false),
        _ if begins("true") || begins("yes") => Some(true),
        _ if begins("false") || begins("no") => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::Settings;

    #[test]
    fn equal_settings_compare_equal_whatever_their_history() {
        let a = Settings::default()
            .with("timezone", "SET timezone = 'UTC'", None)
            .with("timezone", "SET timezone TO 'Asia/Seoul';", None);
        let b = Settings::default().with("timezone", "SET timezone TO 'Asia/Seoul'", None);
        assert_eq!(a, b);
        assert_eq!(a.without("timezone"), Settings::default());
    }

    #[test]
    fn a_fresh_connection_needs_no_reset() {
        let settings = Settings::from_startup([("application_name", "it's")]);
        assert_eq!(
            settings.preamble(Some(&Settings::default())),
            "SELECT pg_catalog.set_config('application_name', 'it''s', false)"
        );
    }

    #[test]
    fn a_used_connection_is_reset_first() {
        let before = Settings::default().with("role", "SET ROLE bob", None);
        let after = Settings::default().with("datestyle", "SET datestyle = 'ISO'", None);
        assert_eq!(
            after.preamble(Some(&before)),
            "RESET SESSION AUTHORIZATION; RESET ROLE; RESET ALL; SET datestyle = 'ISO'"
        );
    }

    #[test]
    fn a_connection_in_an_unknown_state_is_reset_whole() {
        assert_eq!(
            Settings::default().preamble(None),
            "RESET SESSION AUTHORIZATION; RESET ROLE; RESET ALL"
        );
        let as_bob = Settings::from_startup([("role", "bob")]);
        assert_eq!(
            Settings::default().preamble(Some(&as_bob)),
            "RESET SESSION AUTHORIZATION; RESET ROLE; RESET ALL"
        );
    }

    #[test]
    fn reset_goes_back_to_the_startup_packet() {
        let settings = Settings::from_startup([("TimeZone", "UTC"), ("role", "bob")]);
        assert_eq!(
            settings.reset_sql("timezone", true).unwrap(),
            "SELECT pg_catalog.set_config('timezone', 'UTC', true)"
        );
        assert_eq!(settings.reset_sql("work_mem", false), None);
        assert_eq!(
            settings.reset_all_sql().unwrap(),
            "RESET ALL; SELECT pg_catalog.set_config('TimeZone', 'UTC', false)"
        );
        assert_eq!(Settings::default().reset_all_sql(), None);
    }

    #[test]
    fn with_another_user_the_role_ends() {
        let settings = Settings::default().with("role", "SET ROLE bob", Some("bob"));
        assert_eq!(
            settings.without("session_authorization"),
            Settings::default()
        );
    }

    #[test]
    fn reset_all_keeps_the_role_and_the_startup_values() {
        let settings = Settings::from_startup([("client_encoding", "UTF8")])
            .with("role", "SET ROLE bob", None)
            .with("work_mem", "SET work_mem = '1MB'", None);
        let expected = Settings::from_startup([("client_encoding", "UTF8")]).with(
            "role",
            "SET ROLE bob",
            None,
        );
        assert_eq!(settings.reset_all(), expected);
    }
}
