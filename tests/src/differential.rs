//! The differential runner: every statement of a sqllogictest file goes to the oracle and to the router, and the answers must
//! be the same: columns with their types, rows, command tag, error, notices, and the transaction status after it.
//!
//! Files use sqllogictest's own grammar. What a server answers is not written in them; the oracle knows it.
//!
//! ```text
//! statement ok                      must succeed on the oracle (guards against typing errors in the file)
//! INSERT INTO users …
//!
//! statement error 23505             must fail there with this SQLSTATE
//! …
//!
//! query I rowsort                   rows in any order; without a sort mode the order must be the same
//! SELECT …                          (the type letters are ignored: types are compared)
//!
//! # params 42 | NULL | some text    a comment before a record: values for $1, $2, …
//!
//! connection two                    the next record runs on another connection of that name
//!
//! # simple                          a comment: this record, by the simple protocol only (several statements; COPY)
//!
//! # same code                       a comment: of an error only severity and SQLSTATE must be the same
//! ```
//!
//! Each file runs once per [`Protocol`], on tables that were filled anew.

use std::collections::BTreeMap;
use std::path::Path;

use postgres_protocol::message::frontend;
use sqllogictest::{
    Connection, DefaultColumnType, ExpectedError, QueryExpect, Record, SortMode, StatementExpect,
};

use crate::{Client, Failure, Reply};

/// How statements are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Query messages; parameters become quoted literals.
    Simple,
    /// Parse, Bind, Describe, Execute; results in text.
    ExtendedText,
    /// The same; results in binary, parameters too where their type is known here.
    ExtendedBinary,
}

impl Protocol {
    /// All of them.
    pub const ALL: [Protocol; 3] = [
        Protocol::Simple,
        Protocol::ExtendedText,
        Protocol::ExtendedBinary,
    ];
}

/// Where connections come from.
pub trait Sides {
    /// A new connection to the plain server.
    fn oracle(&self) -> Client;
    /// A new connection to the router.
    fn router(&self) -> Client;
}

/// One statement of a file.
#[derive(Debug)]
struct Step {
    line: u32,
    connection: String,
    sql: String,
    ordered: bool,
    /// None: it succeeds. Some: the SQLSTATE it fails with; empty is any.
    fails: Option<String>,
    parameters: Vec<Option<String>>,
    simple_only: bool,
    code_only: bool,
}

/// Runs a file; every difference is reported, and any is a failed test.
#[track_caller]
pub fn run(path: &Path, protocol: Protocol, sides: &dyn Sides) {
    let mut pairs: BTreeMap<String, Pair> = BTreeMap::new();
    let mut differences = Vec::new();
    for step in steps(path) {
        let pair = pairs
            .entry(step.connection.clone())
            .or_insert_with(|| Pair::connect(sides));
        differences.extend(pair.run(&step, protocol).err().map(|difference| {
            format!(
                "{}:{} ({protocol:?})\n{}\n{difference}\n",
                path.display(),
                step.line,
                step.sql
            )
        }));
        // One difference leads to others: the first few tell all.
        if differences.len() >= 5 {
            break;
        }
    }
    assert!(differences.is_empty(), "\n{}", differences.join("\n"));
}

/// The statements of a file.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "whatever the grammar has besides is refused"
)]
fn steps(path: &Path) -> Vec<Step> {
    let records = sqllogictest::parse_file::<DefaultColumnType>(path)
        .unwrap_or_else(|error| panic!("{error}"));
    let mut notes: Vec<String> = Vec::new();
    let mut steps = Vec::new();
    for record in records {
        let (loc, connection, sql, fails, ordered) = match record {
            Record::Comment(lines) => {
                notes.extend(lines.iter().map(|line| line.trim().to_owned()));
                continue;
            }
            Record::Newline | Record::Connection(_) => continue,
            Record::Halt { .. } => break,
            Record::Statement {
                loc,
                connection,
                sql,
                expected,
                ..
            } => {
                let fails = match expected {
                    StatementExpect::Ok => None,
                    StatementExpect::Error(error) => Some(code_of(&error)),
                    StatementExpect::Count(_) => {
                        panic!("{loc}: tags are compared, no count is needed")
                    }
                };
                (loc, connection, sql, fails, true)
            }
            Record::Query {
                loc,
                connection,
                sql,
                expected,
                ..
            } => match expected {
                QueryExpect::Error(error) => (loc, connection, sql, Some(code_of(&error)), true),
                QueryExpect::Results { sort_mode, .. } => {
                    let ordered = matches!(sort_mode, None | Some(SortMode::NoSort));
                    (loc, connection, sql, None, ordered)
                }
            },
            other => panic!("{}: {other:?} is not for this runner", path.display()),
        };
        let connection = match connection {
            Connection::Default => String::new(),
            Connection::Named(name) => name,
        };
        let noted = |word: &str| notes.iter().any(|note| note == word);
        let (simple_only, code_only) = (noted("simple"), noted("same code"));
        let parameters = notes
            .iter()
            .find_map(|note| note.strip_prefix("params "))
            .map(parameters)
            .unwrap_or_default();
        let line = loc.line();
        steps.push(Step {
            line,
            connection,
            sql,
            ordered,
            fails,
            parameters,
            simple_only,
            code_only,
        });
        notes.clear();
    }
    steps
}

fn code_of(error: &ExpectedError) -> String {
    let text = error.to_string();
    text.trim().trim_start_matches("(regex)").trim().to_owned()
}

fn parameters(text: &str) -> Vec<Option<String>> {
    let value = |value: &str| (value.trim() != "NULL").then(|| value.trim().to_owned());
    text.split('|').map(value).collect()
}

/// The same connection on both sides.
struct Pair {
    oracle: Client,
    router: Client,
}

impl Pair {
    fn connect(sides: &dyn Sides) -> Pair {
        Pair {
            oracle: sides.oracle(),
            router: sides.router(),
        }
    }

    fn run(&mut self, step: &Step, protocol: Protocol) -> Result<(), String> {
        let expected = answers(&mut self.oracle, step, protocol);
        let found = answers(&mut self.router, step, protocol);
        let failure = expected.iter().find_map(|reply| reply.failure.as_ref());
        match (&step.fails, failure) {
            (None, Some(failure)) => {
                return Err(format!(
                    "the file says that this succeeds; the oracle: {failure:?}"
                ));
            }
            (Some(code), None) => return Err(format!("the file says {code}; the oracle succeeds")),
            (Some(code), Some(failure)) if !code.is_empty() && failure.sqlstate() != code => {
                return Err(format!("the file says {code}; the oracle: {failure:?}"));
            }
            _ => {}
        }
        compare(step, &expected, &found)?;
        let (expected, found) = (notices(&mut self.oracle), notices(&mut self.router));
        // Which rows a statement has come to before it fails, is not determined.
        if step.fails.is_none() && expected != found {
            return Err(format!("notices: oracle {expected:?}, router {found:?}"));
        }
        let status = |client: &Client| char::from(client.status);
        if status(&self.oracle) != status(&self.router) {
            let (expected, found) = (status(&self.oracle), status(&self.router));
            return Err(format!(
                "transaction status: oracle {expected}, router {found}"
            ));
        }
        Ok(())
    }
}

/// What a server has said besides its answers since this was last asked, in no order: rows may be come to in any.
fn notices(client: &mut Client) -> Vec<[String; 3]> {
    let notices = std::mem::take(&mut client.notices);
    let said = |notice: &Failure| {
        let parts = [notice.severity(), notice.sqlstate(), notice.message()];
        parts.map(str::to_owned)
    };
    let mut said: Vec<[String; 3]> = notices.iter().map(said).collect();
    said.sort();
    said
}

fn answers(client: &mut Client, step: &Step, protocol: Protocol) -> Vec<Reply> {
    if protocol == Protocol::Simple || step.simple_only {
        return client.simple(&with_literals(&step.sql, &step.parameters));
    }
    vec![answer(client, &step.sql, &step.parameters, protocol)]
}

/// The answer to one statement.
pub(crate) fn answer(
    client: &mut Client,
    sql: &str,
    parameters: &[Option<String>],
    protocol: Protocol,
) -> Reply {
    match protocol {
        Protocol::Simple => client.run(&with_literals(sql, parameters)),
        Protocol::ExtendedText => extended(client, sql, parameters, 0),
        Protocol::ExtendedBinary => extended(client, sql, parameters, 1),
    }
}

/// The statement with quoted literals for its parameters.
pub(crate) fn with_literals(sql: &str, parameters: &[Option<String>]) -> String {
    let mut sql = sql.to_owned();
    // From the last: $1 is the beginning of $10.
    for (index, value) in parameters.iter().enumerate().rev() {
        let literal = value.as_ref().map_or("NULL".to_owned(), |text| {
            format!("'{}'", text.replace('\'', "''"))
        });
        sql = sql.replace(&format!("${}", index + 1), &literal);
    }
    sql
}

fn extended(client: &mut Client, sql: &str, parameters: &[Option<String>], format: i16) -> Reply {
    // In binary, parameters are encoded by the types the server says; where it has an error to say, that comes again.
    let types = if format == 1 && !parameters.is_empty() {
        client.parameter_types(sql).unwrap_or_default()
    } else {
        Vec::new()
    };
    let encoded: Vec<(i16, Option<Vec<u8>>)> = parameters
        .iter()
        .enumerate()
        .map(|(index, value)| match value {
            Some(text) => {
                let type_oid = types.get(index).copied().unwrap_or_default();
                match sent_by_server(client, text, type_oid) {
                    Some(bytes) => (1, Some(bytes)),
                    None => encode(text, type_oid),
                }
            }
            None => (0, None),
        })
        .collect();
    client.send(|buffer| {
        frontend::parse("", sql, [], buffer).unwrap();
        let bound = frontend::bind(
            "",
            "",
            encoded.iter().map(|(format, _)| *format),
            &encoded,
            |(_, value), buffer| {
                let Some(bytes) = value else {
                    return Ok(postgres_protocol::IsNull::Yes);
                };
                buffer.extend_from_slice(bytes);
                Ok(postgres_protocol::IsNull::No)
            },
            [format],
            buffer,
        );
        assert!(bound.is_ok(), "too many parameters");
        frontend::describe(b'P', "", buffer).unwrap();
        frontend::execute("", 0, buffer).unwrap();
        frontend::sync(buffer);
    });
    let mut replies = client.replies_to(None, true);
    assert!(replies.len() <= 1, "{sql}: {replies:?}");
    replies.pop().unwrap_or_default()
}

/// The binary form of a number or time, which the server itself makes. None in a failed transaction, or if it is none.
fn sent_by_server(client: &mut Client, text: &str, type_oid: u32) -> Option<Vec<u8>> {
    let name = match type_oid {
        1114 => "timestamp",
        1700 => "numeric",
        _ => return None,
    };
    if client.status != b'I' {
        return None;
    }
    let text = text.replace('\'', "''");
    let reply = client.run(&format!("SELECT encode({name}_send('{text}'), 'hex')"));
    let hex = reply.failure.is_none().then(|| reply.value())?;
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    hex.as_bytes().chunks(2).map(byte).collect()
}

/// A parameter in binary if its type is one of the few known here, else in text.
fn encode(text: &str, type_oid: u32) -> (i16, Option<Vec<u8>>) {
    let bytes = match type_oid {
        16 => Some(vec![u8::from(matches!(text, "t" | "true"))]),
        20 => text
            .parse::<i64>()
            .ok()
            .map(|number| number.to_be_bytes().to_vec()),
        21 => text
            .parse::<i16>()
            .ok()
            .map(|number| number.to_be_bytes().to_vec()),
        23 => text
            .parse::<i32>()
            .ok()
            .map(|number| number.to_be_bytes().to_vec()),
        25 | 1042 | 1043 => Some(text.as_bytes().to_vec()),
        2950 => uuid(text),
        _ => None,
    };
    match bytes {
        Some(bytes) => (1, Some(bytes)),
        None => (0, Some(text.as_bytes().to_vec())),
    }
}

fn uuid(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b'-').collect();
    let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    digits.chunks(2).map(pair).collect()
}

/// OIDs from here on belong to objects of users, and are others on every server.
pub(crate) const FIRST_USER_OID: u32 = 16_384;

fn compare(step: &Step, expected: &[Reply], found: &[Reply]) -> Result<(), String> {
    if expected.len() != found.len() {
        return Err(format!(
            "{} replies; router: {} replies: {found:?}",
            expected.len(),
            found.len()
        ));
    }
    for (expected, found) in expected.iter().zip(found) {
        let (expected, found) = (normal(expected, step), normal(found, step));
        let check = |what: &str, same: bool| if same { Ok(()) } else { Err(what.to_owned()) };
        check("failure", expected.failure == found.failure)
            .and_then(|()| check("columns", expected.columns == found.columns))
            .and_then(|()| check("tag", expected.tag == found.tag))
            .and_then(|()| {
                check(
                    "rows",
                    expected.rows == found.rows && expected.copied == found.copied,
                )
            })
            .and_then(|()| check("reply", expected == found))
            .map_err(|what| {
                format!(
                    "{what} differ\noracle: {}\nrouter: {}",
                    show(&expected),
                    show(&found)
                )
            })?;
    }
    Ok(())
}

/// A reply without what may differ: the order of unordered rows, user OIDs, and of errors what names places in the server.
fn normal(reply: &Reply, step: &Step) -> Reply {
    let mut reply = reply.clone();
    if !step.ordered {
        reply.rows.sort();
        let mut lines: Vec<&[u8]> = reply
            .copied
            .split_inclusive(|byte| *byte == b'\n')
            .collect();
        lines.sort_unstable();
        reply.copied = lines.concat();
    }
    for column in reply.columns.iter_mut().flatten() {
        column.type_oid = column.type_oid.min(FIRST_USER_OID);
    }
    if let Some(failure) = &mut reply.failure {
        // The router adds the shard to the context (W). File, line and routine are of PostgreSQL's source.
        let kept: &[char] = if step.code_only {
            &['S', 'V', 'C']
        } else {
            &['S', 'V', 'C', 'M', 'D', 'H', 'P', 's', 't', 'c', 'd', 'n']
        };
        failure.keep(kept);
    }
    reply
}

fn show(reply: &Reply) -> String {
    let mut lines = Vec::new();
    if let Some(failure) = &reply.failure {
        lines.push(format!("{failure:?} {:?}", failure.fields()));
    }
    if let Some(columns) = &reply.columns {
        lines.push(format!("{columns:?}"));
    }
    lines.push(format!("tag {:?}, {} rows", reply.tag, reply.rows.len()));
    lines.extend(reply.texts().iter().take(20).map(|row| row.join(" | ")));
    if !reply.copied.is_empty() {
        lines.push(String::from_utf8_lossy(&reply.copied).into_owned());
    }
    lines.join("\n  ")
}
