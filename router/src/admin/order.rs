//! What operators can have done to databases and clients, by the console's commands, which are PgBouncer's.

/// A command that changes what the router does. `None` stands for all databases.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// `PAUSE [database]`: what has begun ends, what comes waits; done when no connection to a node is in use, and all are closed.
    Pause(Option<Box<str>>),
    /// `RESUME [database]`
    Resume(Option<Box<str>>),
    /// `KILL [database]`: clients and connections to nodes are dropped at once, and the database is paused.
    Kill(Option<Box<str>>),
    /// `RECONNECT [database]`: connections to nodes are closed as they come back.
    Reconnect(Option<Box<str>>),
    /// `WAIT_CLOSE [database]`: done when those that a RECONNECT was about are closed.
    WaitClose(Option<Box<str>>),
    /// `DISABLE database`: nobody may log in.
    Disable(Box<str>),
    /// `ENABLE database`
    Enable(Box<str>),
    /// `KILL_CLIENT id`, a number of SHOW CLIENTS.
    KillClient(u64),
    /// `SHUTDOWN [WAIT_FOR_SERVERS | WAIT_FOR_CLIENTS]`
    Shutdown(Until),
}

/// What a router waits for before it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// Nothing.
    Now,
    /// The end of transactions.
    Servers,
    /// That all clients have left by themselves; it accepts no others.
    Clients,
}

impl Order {
    /// The forms there are, for SHOW HELP.
    pub const FORMS: [&str; 10] = [
        "PAUSE [<database>]",
        "RESUME [<database>]",
        "KILL [<database>]",
        "RECONNECT [<database>]",
        "WAIT_CLOSE [<database>]",
        "DISABLE <database>",
        "ENABLE <database>",
        "KILL_CLIENT <id>",
        "SHUTDOWN [WAIT_FOR_SERVERS]",
        "SHUTDOWN [WAIT_FOR_CLIENTS]",
    ];

    /// Reads a command's words. `None`: they are no such command.
    pub(super) fn read(words: &[&str]) -> Option<Self> {
        let (command, argument) = match words {
            [command] => (command, None),
            [command, argument] => (command, Some(*argument)),
            _ => return None,
        };
        let name = || argument.map(|name| name.trim_matches('"').into());
        Some(match command.to_ascii_uppercase().as_str() {
            "PAUSE" => Self::Pause(name()),
            "RESUME" => Self::Resume(name()),
            "KILL" => Self::Kill(name()),
            "RECONNECT" => Self::Reconnect(name()),
            "WAIT_CLOSE" => Self::WaitClose(name()),
            "DISABLE" => Self::Disable(name()?),
            "ENABLE" => Self::Enable(name()?),
            "KILL_CLIENT" => Self::KillClient(argument?.parse().ok()?),
            "SHUTDOWN" => match argument {
                None => Self::Shutdown(Until::Now),
                Some(how) if how.eq_ignore_ascii_case("WAIT_FOR_SERVERS") => {
                    Self::Shutdown(Until::Servers)
                }
                Some(how) if how.eq_ignore_ascii_case("WAIT_FOR_CLIENTS") => {
                    Self::Shutdown(Until::Clients)
                }
                Some(_) => return None,
            },
            _ => return None,
        })
    }

    /// Its command tag.
    #[must_use]
    pub fn tag(&self) -> &'static str {
        match self {
            Self::Pause(_) => "PAUSE",
            Self::Resume(_) => "RESUME",
            Self::Kill(_) => "KILL",
            Self::Reconnect(_) => "RECONNECT",
            Self::WaitClose(_) => "WAIT_CLOSE",
            Self::Disable(_) => "DISABLE",
            Self::Enable(_) => "ENABLE",
            Self::KillClient(_) => "KILL_CLIENT",
            Self::Shutdown(_) => "SHUTDOWN",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Order, Until};

    #[test]
    fn forms_are_read() {
        let read = |words: &[&str]| Order::read(words);
        assert_eq!(read(&["pause"]), Some(Order::Pause(None)));
        assert_eq!(
            read(&["Pause", "\"Shop\""]),
            Some(Order::Pause(Some("Shop".into())))
        );
        assert_eq!(read(&["DISABLE"]), None);
        assert_eq!(read(&["KILL_CLIENT", "7"]), Some(Order::KillClient(7)));
        assert_eq!(read(&["KILL_CLIENT", "x"]), None);
        let waits = Order::Shutdown(Until::Servers);
        assert_eq!(read(&["SHUTDOWN", "wait_for_servers"]), Some(waits));
        assert_eq!(read(&["SHUTDOWN", "now"]), None);
        for form in Order::FORMS {
            let words = form.replace(['[', ']', '<', '>'], "").replace("id", "1");
            let words: Vec<&str> = words.split_whitespace().collect();
            let order = Order::read(&words).unwrap();
            assert_eq!(order.tag(), words[0]);
        }
    }
}
