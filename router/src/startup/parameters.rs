//! Names and values of a startup packet.

use switchyard_wire::startup::{Params, ProtocolVersion};

use super::Refusal;
use super::negotiate::Opening;

/// Reads what a client says of itself. The settings keep PostgreSQL's order of force: those inside `options` come first, so
/// that those of the packet itself prevail.
pub(super) fn read(params: Params<'_>, version: ProtocolVersion) -> Result<Opening, Refusal> {
    let mut user = "";
    let mut database = "";
    let mut settings = Vec::new();
    let mut own = Vec::new();
    for (name, value) in params.iter() {
        let (name, value) = (text(name)?, text(value)?);
        match name {
            "user" => user = value,
            "database" => database = value,
            "replication" => no_replication(value)?,
            "options" => settings.extend(switches(value)?),
            name if name.starts_with("_pq_.") => {}
            name => own.push((name.to_owned(), value.to_owned())),
        }
    }
    if user.is_empty() {
        return Err(Refusal::NoUser);
    }
    if database.is_empty() {
        database = user;
    }
    settings.append(&mut own);
    Ok(Opening {
        user: user.to_owned(),
        database: database.to_owned(),
        settings,
        version,
    })
}

fn text(bytes: &[u8]) -> Result<&str, Refusal> {
    std::str::from_utf8(bytes).map_err(|_| Refusal::Encoding)
}

/// PostgreSQL takes any way to write a boolean, and `database`.
fn no_replication(value: &str) -> Result<(), Refusal> {
    match value.to_ascii_lowercase().as_str() {
        "" | "0" | "f" | "fa" | "fal" | "fals" | "false" | "n" | "no" | "of" | "off" => Ok(()),
        _ => Err(Refusal::Replication),
    }
}

/// The settings inside `options`: `-c name=value` and `--name=value`, of all the switches a server process takes.
fn switches(options: &str) -> Result<Vec<(String, String)>, Refusal> {
    let mut settings = Vec::new();
    let mut arguments = split(options).into_iter();
    while let Some(argument) = arguments.next() {
        let assignment = if let Some(rest) = argument.strip_prefix("--") {
            rest.to_owned()
        } else if argument == "-c" {
            arguments
                .next()
                .ok_or_else(|| Refusal::Option(argument.clone()))?
        } else if let Some(rest) = argument.strip_prefix("-c") {
            rest.to_owned()
        } else {
            return Err(Refusal::Option(argument));
        };
        match assignment.split_once('=') {
            Some((name, value)) if !name.is_empty() => {
                settings.push((name.replace('-', "_"), value.to_owned()));
            }
            _ => return Err(Refusal::Option(argument)),
        }
    }
    Ok(settings)
}

/// Splits at white space; a backslash takes the next character as it is.
fn split(options: &str) -> Vec<String> {
    let mut arguments = Vec::new();
    let mut current: Option<String> = None;
    let mut characters = options.chars();
    while let Some(character) = characters.next() {
        match character {
            ' ' | '\t' | '\n' | '\r' | '\x0b' | '\x0c' => arguments.extend(current.take()),
            '\\' => current.get_or_insert_default().extend(characters.next()),
            other => current.get_or_insert_default().push(other),
        }
    }
    arguments.extend(current);
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;
    use switchyard_wire::startup::{StartupPacket, decode_startup};

    fn opening(pairs: &[(&str, &str)]) -> Result<Opening, Refusal> {
        let mut packet = vec![0, 3, 0, 0];
        for (name, value) in pairs {
            packet.extend(format!("{name}\0{value}\0").into_bytes());
        }
        packet.push(0);
        match decode_startup(&packet) {
            Ok(StartupPacket::Startup { params, version }) => read(params, version),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_database_is_named_like_its_user_unless_said() {
        let both = opening(&[("user", "app"), ("database", "shop")]).unwrap();
        assert_eq!((&*both.user, &*both.database), ("app", "shop"));
        for packet in [&[("user", "app")][..], &[("user", "app"), ("database", "")]] {
            assert_eq!(opening(packet).unwrap().database, "app");
        }
        assert!(matches!(
            opening(&[("database", "shop")]),
            Err(Refusal::NoUser)
        ));
        assert!(matches!(opening(&[("user", "")]), Err(Refusal::NoUser)));
    }

    #[test]
    fn settings_of_the_packet_prevail_over_its_options() {
        let opening = opening(&[
            ("user", "app"),
            ("application_name", "psql"),
            (
                "options",
                "-c geqo=off --search-path=a\\ b -cDateStyle=ISO,\\\\x",
            ),
            ("_pq_.x", "y"),
            ("replication", "off"),
        ])
        .unwrap();
        let settings: Vec<(&str, &str)> = opening
            .settings
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        assert_eq!(
            settings,
            [
                ("geqo", "off"),
                ("search_path", "a b"),
                ("DateStyle", "ISO,\\x"),
                ("application_name", "psql"),
            ]
        );
    }

    #[test]
    fn what_is_no_setting_is_refused() {
        for options in [
            "-d 5", "-c", "-c geqo", "--geqo", "-c =x", "geqo=off", "-", "\\-x",
        ] {
            let result = opening(&[("user", "app"), ("options", options)]);
            assert!(matches!(result, Err(Refusal::Option(_))), "{options}");
        }
        assert!(
            opening(&[("user", "app"), ("options", "  \t ")])
                .unwrap()
                .settings
                .is_empty()
        );
        for value in ["true", "database", "1", "on"] {
            let result = opening(&[("user", "app"), ("replication", value)]);
            assert!(matches!(result, Err(Refusal::Replication)));
        }
    }
}
