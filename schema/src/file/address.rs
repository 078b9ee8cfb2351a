//! Addresses and URLs as the file has them. Nothing is resolved here.

use crate::model::{Address, SslMode};

/// What an address looks like, for messages.
pub(super) const FORM: &str = "host:port, like \"127.0.0.1:6432\" or \"[::1]:6432\"";

/// `host:port`, an IPv6 address in brackets.
pub(super) fn parse(text: &str) -> Option<Address> {
    let (host, port) = text.rsplit_once(':')?;
    let host = match host.strip_prefix('[') {
        Some(inner) => inner.strip_suffix(']')?,
        None if host.contains(':') => return None,
        None => host,
    };
    let digits = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    Some(Address {
        host: Some(host).filter(|host| is_host(host))?.to_owned(),
        port: port.parse().ok().filter(|_| digits)?,
    })
}

/// Whether this can be a host: no blanks, no port, no path.
pub(super) fn is_host(text: &str) -> bool {
    let fits = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '%');
    !text.is_empty() && text.chars().all(fits)
}

/// The parts of a `postgres://` URL.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Url {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) user: String,
    pub(super) database: String,
    pub(super) password: Option<String>,
}

/// What such a URL looks like, for messages.
pub(super) const URL_FORM: &str = "postgres://user@host:port/database";

/// Reads `postgres://user[:password]@host[:port]/database`, with percent encoding; options have keys of their own.
pub(super) fn parse_url(text: &str) -> Result<Url, String> {
    let rest = ["postgres://", "postgresql://"]
        .iter()
        .find_map(|scheme| text.strip_prefix(scheme))
        .ok_or("does not begin with postgres://")?;
    if rest.contains(['?', '#']) {
        return Err("options in the URL are not read; sslmode and sslrootcert are keys".into());
    }
    let (authority, database) = rest.split_once('/').ok_or("names no database")?;
    let (login, server) = authority.rsplit_once('@').ok_or("names no user")?;
    let (user, password) = match login.split_once(':') {
        Some((user, password)) => (user, Some(decode(password)?)),
        None => (login, None),
    };
    let address = match parse(server) {
        Some(address) => address,
        None => parse(&format!("{server}:5432")).ok_or("names no valid host and port")?,
    };
    let part = |text: &str, missing: &str| match decode(text) {
        Ok(part) if part.is_empty() => Err(missing.to_owned()),
        part => part,
    };
    Ok(Url {
        user: part(user, "names no user")?,
        database: part(database, "names no database")?,
        password: password.filter(|password| !password.is_empty()),
        host: address.host,
        port: Some(address.port)
            .filter(|port| *port != 0)
            .ok_or("port 0 is no port")?,
    })
}

/// Takes percent encoding off.
fn decode(text: &str) -> Result<String, String> {
    let wrong = || "has a % that is not followed by two hexadecimal digits".to_owned();
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || char::from(rest.next()?).to_digit(16);
        let (high, low) = (digit().ok_or_else(wrong)?, digit().ok_or_else(wrong)?);
        bytes.push((high << 4 | low) as u8);
    }
    String::from_utf8(bytes).map_err(|_| "is not UTF-8".to_owned())
}

/// The words of `sslmode`.
pub(super) const SSL_MODES: [(&str, SslMode); 5] = [
    ("disable", SslMode::Disable),
    ("prefer", SslMode::Prefer),
    ("require", SslMode::Require),
    ("verify-ca", SslMode::VerifyCa),
    ("verify-full", SslMode::VerifyFull),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let address = |host: &str, port| {
            Some(Address {
                host: host.into(),
                port,
            })
        };
        assert_eq!(parse("127.0.0.1:6432"), address("127.0.0.1", 6432));
        assert_eq!(parse("[::1]:0"), address("::1", 0));
        assert_eq!(parse("db-1.example_x:5"), address("db-1.example_x", 5));
        for text in [
            "", "6432", ":6432", "a:", "a:+5", "a:65536", "::1:5", "[::1:5", "a b:5", "/x:5",
        ] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn an_address_prints_as_it_is_read() {
        for text in ["127.0.0.1:6432", "[::1]:6432", "db.example:5432"] {
            assert_eq!(parse(text).map(|a| a.to_string()).as_deref(), Some(text));
        }
    }

    #[test]
    fn urls() {
        let url = parse_url("postgres://switch%40yard:p%3A%2Fs@[::1]:6500/my%20db").unwrap();
        let expected = Url {
            host: "::1".into(),
            port: 6500,
            user: "switch@yard".into(),
            database: "my db".into(),
            password: Some("p:/s".into()),
        };
        assert_eq!(url, expected);
        assert_eq!(parse_url("postgresql://u@db/d").unwrap().port, 5432);
        for text in [
            "",
            "http://u@h/d",
            "postgres://h/d",
            "postgres://u@h",
            "postgres://u@h/",
            "postgres://@h/d",
            "postgres://u@h:x/d",
            "postgres://u@h:0/d",
            "postgres://u@h/d?sslmode=require",
            "postgres://u%4@h/d",
        ] {
            assert!(parse_url(text).is_err(), "{text:?}");
        }
    }
}
