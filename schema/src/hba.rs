//! Rules in the form of `pg_hba.conf`, and maps in the form of `pg_ident.conf`.
//!
//! What a rule of PostgreSQL's may say and this reader does not know is an error, never passed over: a rule that is left out would let
//! in whom it was to keep out. Not known are names of hosts, groups (`+role`), files (`@file`), regular expressions, and methods
//! other than `trust`, `reject`, `scram-sha-256` (also called `md5`, as PostgreSQL lets either be) and `cert`.

use core::net::IpAddr;

/// The rules of a file; the first that fits decides.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hba(Vec<HbaRule>);

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HbaRule {
    connection: Connection,
    databases: Vec<Name>,
    users: Vec<Name>,
    /// Not of `local`.
    addresses: Option<Network>,
    /// What is demanded.
    pub method: HbaMethod,
    /// A certificate that can be checked is demanded besides (`clientcert`), and with `verify-full` one of the user's.
    pub certificate: Option<ClientCert>,
    /// The map by which certificates stand for users.
    pub map: Option<String>,
}

/// What a rule demands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HbaMethod {
    /// Nothing.
    Trust,
    /// Nobody is let in.
    Reject,
    /// A password.
    ScramSha256,
    /// A certificate of the user's.
    Cert,
}

/// `clientcert`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientCert {
    /// `verify-ca`
    Any,
    /// `verify-full`
    OfUser,
}

/// The first word of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Connection {
    Local,
    Host,
    HostSsl,
    HostNoSsl,
}

/// A name of a database or a user, or a word that stands for some.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Name {
    All,
    /// `sameuser`, of databases.
    SameUser,
    Is(String),
}

/// Addresses that begin alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Network {
    All,
    /// The bits of the address, and of the mask.
    V4(u32, u32),
    V6(u128, u128),
}

/// Who wants to come in.
#[derive(Debug, Clone, Copy)]
pub struct Visit<'a> {
    /// The names of the database that is asked for, one but for the admin console.
    pub databases: &'a [&'a str],
    /// The user.
    pub user: &'a str,
    /// The address; none for a Unix socket.
    pub address: Option<IpAddr>,
    /// Whether the connection is encrypted.
    pub tls: bool,
}

/// What is wrong with a line.
pub type LineError = (usize, String);

impl Hba {
    /// Reads the rules.
    ///
    /// # Errors
    /// Every line that is wrong, from 1.
    pub fn parse(text: &str) -> Result<Self, Vec<LineError>> {
        each_line(text, rule).map(Self)
    }

    /// The rule for who wants to come in; with none nobody does.
    #[must_use]
    pub fn rule(&self, visit: Visit<'_>) -> Option<&HbaRule> {
        self.0.iter().find(|rule| rule.fits(visit))
    }

    /// Whether a rule demands certificates.
    #[must_use]
    pub fn wants_certificates(&self) -> bool {
        let wants = |rule: &HbaRule| rule.method == HbaMethod::Cert || rule.certificate.is_some();
        self.0.iter().any(wants)
    }

    /// The maps that rules name.
    pub fn maps(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|rule| rule.map.as_deref())
    }
}

impl HbaRule {
    fn fits(&self, visit: Visit<'_>) -> bool {
        let arrives = match (self.connection, visit.address) {
            (Connection::Local, address) => address.is_none(),
            (_, None) => false,
            (Connection::Host, Some(_)) => true,
            (Connection::HostSsl, Some(_)) => visit.tls,
            (Connection::HostNoSsl, Some(_)) => !visit.tls,
        };
        let comes_from = match (self.addresses, visit.address) {
            (Some(network), Some(address)) => network.contains(address),
            (None, None) => true,
            _ => false,
        };
        let is = |names: &[Name], own: &str| {
            names.iter().any(|name| match name {
                Name::All => true,
                Name::SameUser => own == visit.user,
                Name::Is(name) => name == own,
            })
        };
        let mut databases = visit.databases.iter();
        arrives
            && comes_from
            && databases.any(|name| is(&self.databases, name))
            && is(&self.users, visit.user)
    }
}

impl Network {
    fn contains(self, address: IpAddr) -> bool {
        match (self, address.to_canonical()) {
            (Self::All, _) => true,
            (Self::V4(bits, mask), IpAddr::V4(address)) => address.to_bits() & mask == bits,
            (Self::V6(bits, mask), IpAddr::V6(address)) => address.to_bits() & mask == bits,
            _ => false,
        }
    }

    /// `address/length`, or an address and a mask.
    fn read(text: &str, mask: Option<&str>) -> Option<Self> {
        let (address, length) = match text.split_once('/') {
            Some((address, length)) if mask.is_none() => (address, Some(length.parse().ok()?)),
            Some(_) => return None,
            None => (text, None),
        };
        let address: IpAddr = address.parse().ok()?;
        let mask: Option<IpAddr> = mask.map(str::parse).transpose().ok()?;
        match (address, length, mask) {
            (IpAddr::V4(address), Some(length @ 0..=32), _) => {
                let mask = u32::MAX.checked_shl(32 - length).unwrap_or(0);
                Some(Self::V4(address.to_bits() & mask, mask))
            }
            (IpAddr::V6(address), Some(length @ 0..=128), _) => {
                let mask = u128::MAX.checked_shl(128 - length).unwrap_or(0);
                Some(Self::V6(address.to_bits() & mask, mask))
            }
            (IpAddr::V4(address), None, Some(IpAddr::V4(mask))) => {
                Some(Self::V4(address.to_bits() & mask.to_bits(), mask.to_bits()))
            }
            (IpAddr::V6(address), None, Some(IpAddr::V6(mask))) => {
                Some(Self::V6(address.to_bits() & mask.to_bits(), mask.to_bits()))
            }
            _ => None,
        }
    }
}

/// Whose certificates stand for which users.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IdentMaps(Vec<[String; 3]>);

impl IdentMaps {
    /// Reads the maps: a line each of map, name in the certificate, user.
    ///
    /// # Errors
    /// Every line that is wrong, from 1.
    pub fn parse(text: &str) -> Result<Self, Vec<LineError>> {
        let entry = |fields: Vec<Field>| {
            let names = fields.into_iter().map(|field| match field.as_slice() {
                [word] if word.text.starts_with('/') => {
                    Err("regular expressions are not supported".to_owned())
                }
                [word]
                    if !word.quoted
                        && (word.text == "all" || word.text.starts_with(['+', '@'])) =>
                {
                    Err(format!(
                        "{:?} is not supported: names are, one by one",
                        word.text
                    ))
                }
                [word] => Ok(word.text.clone()),
                _ => Err("a list has no meaning here".to_owned()),
            });
            let names: Vec<String> = names.collect::<Result<_, _>>()?;
            let form = |_| "must have a map, a name in the certificate and a user".to_owned();
            names.try_into().map_err(form)
        };
        each_line(text, entry).map(Self)
    }

    /// Whether a certificate of `name` stands for `user` by this map.
    #[must_use]
    pub fn allows(&self, map: &str, name: &str, user: &str) -> bool {
        self.0.iter().any(|entry| *entry == [map, name, user])
    }

    /// Whether there is a map of this name.
    #[must_use]
    pub fn has(&self, map: &str) -> bool {
        self.0.iter().any(|[name, ..]| name == map)
    }
}

/// A word, and whether it stood in quotes, where words have no meaning but themselves.
struct Word {
    text: String,
    quoted: bool,
}

/// What stands between blanks: words with commas between them.
type Field = Vec<Word>;

fn each_line<T>(
    text: &str,
    read: impl Fn(Vec<Field>) -> Result<T, String>,
) -> Result<Vec<T>, Vec<LineError>> {
    let (mut read_lines, mut errors) = (Vec::new(), Vec::new());
    for (index, line) in text.lines().enumerate() {
        let outcome = match fields(line) {
            // PostgreSQL joins lines before it looks for comments.
            _ if line.ends_with('\\') => {
                Err("a line that goes on in the next is not supported".to_owned())
            }
            Ok(fields) if fields.is_empty() => continue,
            Ok(fields) => read(fields),
            Err(error) => Err(error),
        };
        match outcome {
            Ok(line) => read_lines.push(line),
            Err(error) => errors.push((index + 1, error)),
        }
    }
    match errors.is_empty() {
        true => Ok(read_lines),
        false => Err(errors),
    }
}

/// The fields of a line, without its comment.
fn fields(line: &str) -> Result<Vec<Field>, String> {
    let mut fields: Vec<Field> = Vec::new();
    let mut rest = line.trim_start_matches(is_blank);
    // A comma goes on with the field before it.
    let mut goes_on = false;
    while let Some(first) = rest.chars().next() {
        if first == '#' {
            break;
        }
        if first == ',' {
            goes_on = true;
            rest = rest[1..].trim_start_matches(is_blank);
            continue;
        }
        let (word, after) = word(rest)?;
        match fields.last_mut().filter(|_| goes_on) {
            Some(field) => field.push(word),
            None => fields.push(vec![word]),
        }
        goes_on = false;
        rest = after.trim_start_matches(is_blank);
    }
    Ok(fields)
}

/// What PostgreSQL takes for a blank; all else may be part of a name.
fn is_blank(character: char) -> bool {
    matches!(character, ' ' | '\t' | '\r')
}

fn word(text: &str) -> Result<(Word, &str), String> {
    let mut word = Word {
        text: String::new(),
        quoted: text.starts_with('"'),
    };
    let (mut in_quotes, mut has_closed) = (false, false);
    for (at, character) in text.char_indices() {
        let ends = is_blank(character) || matches!(character, ',' | '#');
        match character {
            '"' => {
                // Two of them within quotes are one that belongs to the name.
                if has_closed {
                    word.text.push('"');
                }
                has_closed = in_quotes;
                in_quotes = !in_quotes;
                continue;
            }
            _ if ends && !in_quotes => return Ok((word, &text[at..])),
            _ => word.text.push(character),
        }
        has_closed = false;
    }
    match in_quotes {
        true => Err("a quote is not closed".to_owned()),
        false => Ok((word, "")),
    }
}

fn rule(fields: Vec<Field>) -> Result<HbaRule, String> {
    let mut fields = fields.into_iter();
    let mut next = |what: &str| fields.next().ok_or_else(|| format!("{what} is missing"));
    let kind = single(&next("the type")?)?;
    let connection = match kind.as_str() {
        "local" => Connection::Local,
        "host" | "hostnogssenc" => Connection::Host,
        "hostssl" => Connection::HostSsl,
        "hostnossl" => Connection::HostNoSsl,
        _ => {
            return Err(format!(
                "{kind:?} is not known here (allowed are local, host, hostssl, hostnossl, hostnogssenc)"
            ));
        }
    };
    let databases = names(&next("the database")?, &["sameuser"])?;
    let users = names(&next("the user")?, &[])?;
    let addresses = match connection {
        Connection::Local => None,
        Connection::Host | Connection::HostSsl | Connection::HostNoSsl => {
            let address = single(&next("the address")?)?;
            Some(match address.as_str() {
                "all" => Network::All,
                written if written.contains('/') => {
                    Network::read(written, None).ok_or_else(|| no_address(written))?
                }
                written => {
                    let mask = single(&next("the mask, or its length after a slash,")?)?;
                    Network::read(written, Some(&mask)).ok_or_else(|| no_address(written))?
                }
            })
        }
    };
    let method = method(&single(&next("the method")?)?)?;
    let mut rule = HbaRule {
        connection,
        databases,
        users,
        addresses,
        method,
        certificate: None,
        map: None,
    };
    for field in fields {
        option(&single(&field)?, &mut rule)?;
    }
    let by_certificate = rule.method == HbaMethod::Cert || rule.certificate.is_some();
    if by_certificate && connection != Connection::HostSsl {
        return Err("certificates are shown by hostssl only".to_owned());
    }
    Ok(rule)
}

fn no_address(written: &str) -> String {
    format!(
        "{written:?} is no address (allowed are all, address/length, address and mask; names of hosts are not)"
    )
}

fn method(word: &str) -> Result<HbaMethod, String> {
    Ok(match word {
        "trust" => HbaMethod::Trust,
        "reject" => HbaMethod::Reject,
        "scram-sha-256" | "md5" => HbaMethod::ScramSha256,
        "cert" => HbaMethod::Cert,
        _ => {
            return Err(format!(
                "method {word:?} is not known here (allowed are trust, reject, scram-sha-256, md5, cert)"
            ));
        }
    })
}

fn option(text: &str, rule: &mut HbaRule) -> Result<(), String> {
    match text.split_once('=') {
        Some(("map", map)) if rule.method == HbaMethod::Cert => rule.map = Some(map.to_owned()),
        Some(("clientcert", "verify-ca")) if rule.method != HbaMethod::Cert => {
            rule.certificate = Some(ClientCert::Any);
        }
        Some(("clientcert", "verify-full")) => rule.certificate = Some(ClientCert::OfUser),
        _ => {
            return Err(format!(
                "option {text:?} is not known here (allowed are clientcert=verify-ca, clientcert=verify-full, and map=… of cert)"
            ));
        }
    }
    Ok(())
}

fn single(field: &Field) -> Result<String, String> {
    match field.as_slice() {
        [word] => Ok(word.text.clone()),
        _ => Err("a list has no meaning here".to_owned()),
    }
}

fn names(field: &Field, words: &[&str]) -> Result<Vec<Name>, String> {
    let name = |word: &Word| {
        let text = word.text.as_str();
        let unsupported =
            || format!("{text:?} is not supported: groups, files and regular expressions are not");
        // These are what they are in quotes, too.
        if text.starts_with('/') {
            return Err(unsupported());
        }
        if word.quoted {
            return Ok(Some(Name::Is(text.to_owned())));
        }
        match text {
            "all" => Ok(Some(Name::All)),
            "sameuser" if words.contains(&text) => Ok(Some(Name::SameUser)),
            // There are no replication connections.
            "replication" if words.contains(&"sameuser") => Ok(None),
            "samerole" | "samegroup" if words.contains(&"sameuser") => Err(format!(
                "{text} is not supported: the router knows no groups"
            )),
            _ if text.starts_with(['+', '@']) => Err(unsupported()),
            _ => Ok(Some(Name::Is(text.to_owned()))),
        }
    };
    let names: Vec<Option<Name>> = field.iter().map(name).collect::<Result<_, _>>()?;
    Ok(names.into_iter().flatten().collect())
}

#[cfg(test)]
mod tests;
