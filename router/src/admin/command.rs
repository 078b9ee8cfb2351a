//! The console's commands.

use std::fmt;

use super::order::Order;
use crate::config::Rights;

/// A command of the console.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// `SHOW` something.
    Show(Topic),
    /// Read the configuration again.
    Reload,
    /// Something is to be done.
    Order(Order),
    /// A key of `[router]` gets another value, until the configuration is read again.
    Set {
        /// The key.
        key: Box<str>,
        /// The value, without quotes.
        value: Box<str>,
    },
    /// Something that drivers say by themselves, and that has no meaning here: its command tag.
    Ignored(&'static str),
    /// Nothing but blanks and comments.
    Empty,
}

/// What can be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topic {
    /// The commands there are.
    Help,
    /// The version.
    Version,
    /// The configuration in force.
    Config,
    /// Databases.
    Databases,
    /// Shards.
    Shards,
    /// Nodes.
    Nodes,
    /// Sharded and reference tables.
    Tables,
    /// Buckets by shard.
    Buckets,
    /// Movements of rows between shards.
    Migrations,
    /// Pools, by database and user.
    Pools,
    /// Pools, by node.
    NodePools,
    /// Clients.
    Clients,
    /// Connections to nodes.
    Servers,
    /// Counters by database.
    Stats,
    /// Those that only grow.
    StatsTotals,
    /// Their sums over all databases.
    Totals,
    /// How many there are of what is shown.
    Lists,
    /// Who may log in.
    Users,
    /// Whether anything is paused.
    State,
    /// Clients and connections to nodes.
    Sockets,
    /// Those that are at work.
    ActiveSockets,
    /// The memory of the process.
    Mem,
    /// What the process has open.
    Fds,
    /// Routers that share an address.
    Peers,
}

impl Topic {
    /// All of them, as HELP lists them.
    pub const ALL: [Self; 24] = [
        Self::Help,
        Self::Version,
        Self::Config,
        Self::Databases,
        Self::Shards,
        Self::Nodes,
        Self::Tables,
        Self::Buckets,
        Self::Migrations,
        Self::Pools,
        Self::NodePools,
        Self::Clients,
        Self::Servers,
        Self::Stats,
        Self::StatsTotals,
        Self::Totals,
        Self::Lists,
        Self::Users,
        Self::State,
        Self::Sockets,
        Self::ActiveSockets,
        Self::Mem,
        Self::Fds,
        Self::Peers,
    ];

    /// The word after SHOW.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Help => "HELP",
            Self::Version => "VERSION",
            Self::Config => "CONFIG",
            Self::Databases => "DATABASES",
            Self::Shards => "SHARDS",
            Self::Nodes => "NODES",
            Self::Tables => "TABLES",
            Self::Buckets => "BUCKETS",
            Self::Migrations => "MIGRATIONS",
            Self::Pools => "POOLS",
            Self::NodePools => "NODE_POOLS",
            Self::Clients => "CLIENTS",
            Self::Servers => "SERVERS",
            Self::Stats => "STATS",
            Self::StatsTotals => "STATS_TOTALS",
            Self::Totals => "TOTALS",
            Self::Lists => "LISTS",
            Self::Users => "USERS",
            Self::State => "STATE",
            Self::Sockets => "SOCKETS",
            Self::ActiveSockets => "ACTIVE_SOCKETS",
            Self::Mem => "MEM",
            Self::Fds => "FDS",
            Self::Peers => "PEERS",
        }
    }
}

/// What a client sent is no command of the console: 42601.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownCommand(String);

impl UnknownCommand {
    /// A way out.
    pub const HINT: &'static str = "Use SHOW HELP to see the commands of the admin console.";
}

impl fmt::Display for UnknownCommand {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "unknown admin command \"{}\"", self.0)
    }
}

impl std::error::Error for UnknownCommand {}

/// At most this much of an unknown command is repeated in the error.
const ECHO: usize = 60;

impl Command {
    /// What it takes to run it. Whoever adds a command says here what it needs; all that is not shown needs all.
    #[must_use]
    pub fn demands(&self) -> Rights {
        match self {
            // As with PgBouncer: they lead to what others say.
            Self::Show(Topic::Fds) => Rights::All,
            Self::Show(_) | Self::Ignored(_) | Self::Empty => Rights::Show,
            Self::Reload | Self::Order(_) | Self::Set { .. } => Rights::All,
        }
    }

    /// Reads one statement.
    ///
    /// # Errors
    /// [`UnknownCommand`].
    pub fn parse(sql: &str) -> Result<Self, UnknownCommand> {
        let text = strip(sql);
        let written: Vec<&str> = text.split_whitespace().collect();
        if let Some(order) = Order::read(&written) {
            return Ok(Self::Order(order));
        }
        let words: Vec<String> = written
            .iter()
            .map(|word| word.to_ascii_uppercase())
            .collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        match words.as_slice() {
            [] => Ok(Self::Empty),
            ["RELOAD"] => Ok(Self::Reload),
            ["HELP"] => Ok(Self::Show(Topic::Help)),
            ["SHOW", word] => {
                let topic = Topic::ALL.into_iter().find(|topic| topic.word() == *word);
                topic.map(Self::Show).ok_or_else(|| unknown(text))
            }
            // What drivers and psql send when they connect.
            ["SET", ..] => set(text),
            ["RESET", ..] => Ok(Self::Ignored("RESET")),
            ["DISCARD", "ALL"] => Ok(Self::Ignored("DISCARD ALL")),
            ["BEGIN"] | ["START", "TRANSACTION"] => Ok(Self::Ignored("BEGIN")),
            ["COMMIT"] | ["END"] => Ok(Self::Ignored("COMMIT")),
            ["ROLLBACK"] => Ok(Self::Ignored("ROLLBACK")),
            _ => Err(unknown(text)),
        }
    }
}

/// Settings of PostgreSQL that drivers and psql make when they connect. They have no meaning here.
const OF_SESSIONS: [&str; 12] = [
    "application_name",
    "bytea_output",
    "client_encoding",
    "client_min_messages",
    "datestyle",
    "extra_float_digits",
    "intervalstyle",
    "search_path",
    "session",
    "standard_conforming_strings",
    "statement_timeout",
    "timezone",
];

/// `SET key = value`, or `SET key TO value`.
fn set(text: &str) -> Result<Command, UnknownCommand> {
    let rest = text.get("SET".len()..).unwrap_or_default().trim_start();
    let end = rest.find(|end: char| end == '=' || end.is_whitespace());
    let (key, rest) = rest.split_at(end.unwrap_or(rest.len()));
    if OF_SESSIONS.iter().any(|own| own.eq_ignore_ascii_case(key)) {
        return Ok(Command::Ignored("SET"));
    }
    let rest = rest.trim_start();
    let value = match (rest.strip_prefix('='), rest.split_once(char::is_whitespace)) {
        (Some(value), _) => value.trim(),
        (None, Some((to, value))) if to.eq_ignore_ascii_case("to") => value.trim(),
        _ => return Err(unknown(text)),
    };
    let inside = value
        .strip_prefix('\'')
        .and_then(|value| value.strip_suffix('\''));
    Ok(Command::Set {
        key: key.to_ascii_lowercase().into(),
        value: inside.unwrap_or(value).into(),
    })
}

fn unknown(text: &str) -> UnknownCommand {
    let echo = match text.char_indices().nth(ECHO) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    };
    UnknownCommand(echo)
}

/// A statement without blanks, semicolons and comments around it.
fn strip(sql: &str) -> &str {
    let mut text = sql.trim();
    loop {
        let rest = if let Some(comment) = text.strip_prefix("--") {
            comment.split_once('\n').map_or("", |(_, rest)| rest)
        } else if let Some(comment) = text.strip_prefix("/*") {
            comment.split_once("*/").map_or("", |(_, rest)| rest)
        } else {
            return text.trim_end_matches(|end: char| end == ';' || end.is_whitespace());
        };
        text = rest.trim_start();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_commands() {
        let parse = |sql: &str| Command::parse(sql).unwrap();
        assert_eq!(parse("show pools;"), Command::Show(Topic::Pools));
        assert_eq!(
            parse("-- x\n /* y */ SHOW\n Clients ; "),
            Command::Show(Topic::Clients)
        );
        assert_eq!(parse(" ; "), Command::Empty);
        assert_eq!(parse("/* never closed"), Command::Empty);
        assert_eq!(parse("reload"), Command::Reload);
        assert_eq!(parse("SET extra_float_digits = 3"), Command::Ignored("SET"));
        for sql in [
            "SET pool_size=5",
            "set POOL_SIZE to '5'",
            "SET pool_size  =  5",
        ] {
            let (key, value) = ("pool_size".into(), "5".into());
            assert_eq!(parse(sql), Command::Set { key, value });
        }
        assert!(Command::parse("SET pool_size").is_err());
        assert_eq!(
            parse("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY"),
            Command::Ignored("SET")
        );
        for topic in Topic::ALL {
            assert_eq!(
                parse(&format!("SHOW {}", topic.word())),
                Command::Show(topic)
            );
        }
    }

    #[test]
    fn says_what_it_does_not_know() {
        let error = Command::parse("SELECT 1").unwrap_err();
        assert_eq!(error.to_string(), "unknown admin command \"SELECT 1\"");
        assert!(Command::parse("SHOW POOLS EXTENDED").is_err());
        let long = Command::parse(&"é".repeat(1000)).unwrap_err();
        assert!(long.to_string().len() < 200);
    }
}
