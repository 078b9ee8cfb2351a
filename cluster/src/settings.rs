//! PostgreSQL settings of our servers.

use std::collections::BTreeMap;

/// Settings that go into a server's `postgresql.conf`, the later one winning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    values: BTreeMap<String, String>,
}

impl Settings {
    /// For tests: nothing is synced to disk, little memory, quick reactions.
    pub fn for_tests() -> Settings {
        Settings::shared()
            .with("fsync", "off")
            .with("full_page_writes", "off")
            .with("shared_buffers", "32MB")
    }

    /// For data that is kept: durable.
    pub fn durable() -> Settings {
        Settings::shared().with("shared_buffers", "64MB")
    }

    /// The same with one more setting.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Settings {
        self.set(name, value);
        self
    }

    /// Sets one setting.
    pub fn set(&mut self, name: &str, value: &str) {
        self.values.insert(name.to_owned(), value.to_owned());
    }

    /// Takes one setting back to the server's default.
    pub fn unset(&mut self, name: &str) {
        self.values.remove(name);
    }

    fn shared() -> Settings {
        let values = [
            ("listen_addresses", "127.0.0.1"),
            ("unix_socket_directories", ""), // no lock files outside our directory
            ("max_connections", "250"),
            ("max_prepared_transactions", "100"),
            ("wal_level", "logical"),
            ("max_wal_senders", "20"),
            ("max_replication_slots", "20"),
            ("wal_retrieve_retry_interval", "100ms"),
            ("min_wal_size", "64MB"),
            ("max_wal_size", "512MB"),
            ("timezone", "UTC"),
            ("log_timezone", "UTC"),
            ("datestyle", "iso, mdy"),
            ("password_encryption", "scram-sha-256"),
            ("log_line_prefix", "%m [%p] %q%u@%d "),
        ];
        Settings {
            values: values
                .into_iter()
                .map(|(k, v)| (k.to_owned(), v.to_owned()))
                .collect(),
        }
    }

    /// The text of a configuration file.
    pub(crate) fn to_file(&self) -> String {
        let mut text = String::from("# Written by switchyard at every start.\n");
        for (name, value) in &self.values {
            text.push_str(&format!("{name} = '{}'\n", value.replace('\'', "''")));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_quoted_and_the_later_one_wins() {
        let settings = Settings {
            values: BTreeMap::new(),
        }
        .with("a", "1")
        .with("a", "it's")
        .with("b", "");
        assert_eq!(
            settings.to_file().lines().skip(1).collect::<Vec<_>>(),
            ["a = 'it''s'", "b = ''"]
        );
    }
}
