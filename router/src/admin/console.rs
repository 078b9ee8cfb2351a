//! The console's session: the simple and the extended query protocol over [`Command`]s.
//!
//! Invariant: a console holds no connection to a node and blocks nobody. Those may open it to whom the configuration gives rights; others
//! are refused before they see anything. What a command needs is [`Command::demands`], and it is looked at before each is run.

use std::collections::HashMap;
use std::io;

use bytes::{Buf, BytesMut};
use switchyard_wire::backend::{Column, ErrorReport, Severity, TransactionStatus, encode};
use switchyard_wire::frame;
use switchyard_wire::frontend::{self, Kind, Message};
use switchyard_wire::list::Format;
use switchyard_wire::sqlstate::SqlState;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::command::{Command, Topic, UnknownCommand};
use super::order::Order;
use super::show;
use super::system::System;
use super::table::{ColumnType, Table};
use super::view::View;
use crate::config::Rights;
use crate::listener::Drain;

/// What the console works on.
pub trait Office: Sync {
    /// The picture of this moment.
    fn view(&self) -> View;

    /// What the user may do, as of now.
    fn rights(&self, user: &str) -> Rights;

    /// Reads the configuration again and puts it in force; what is wrong with it, if it is not.
    fn reload(&self) -> impl Future<Output = Result<(), String>> + Send;

    /// The picture with what a topic needs besides.
    fn view_of(&self, topic: Topic) -> View {
        let mut view = self.view();
        if topic == Topic::Mem {
            view.system = System::with_memory();
        } else if topic == Topic::Fds {
            view.system = System::with_descriptors();
        }
        view
    }

    /// Gives a key of `[router]` another value; what is wrong with it, if it has not got it.
    fn set(&self, key: &str, value: &str) -> impl Future<Output = Result<(), String>> + Send;

    /// Does what an operator has ordered; why not, if it is not done.
    fn carry_out(&self, order: Order) -> impl Future<Output = Result<(), String>> + Send;
}

/// Who has logged in.
#[derive(Clone, Debug)]
pub struct Visitor {
    /// The user's name.
    pub user: String,
    /// The process number to report.
    pub pid: i32,
    /// The cancel secret to report.
    pub secret: Box<[u8]>,
}

/// A message may be this long: far longer than any command.
const MESSAGE_LIMIT: usize = 64 << 10;
/// Statements, and portals, that a session may keep.
const NAMES_LIMIT: usize = 100;

/// Serves the console to a client that has authenticated, until it leaves or the router drains.
///
/// # Errors
/// The stream's.
pub async fn serve<S, O>(
    stream: S,
    leftover: BytesMut,
    visitor: &Visitor,
    office: &O,
    mut drain: Drain,
) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
    O: Office,
{
    let mut console = Console {
        stream,
        input: leftover,
        output: BytesMut::new(),
        user: &visitor.user,
        office,
        statements: HashMap::new(),
        portals: HashMap::new(),
        skipping: false,
    };
    if office.rights(&visitor.user) == Rights::None {
        let message = "the admin console is open to users with admin = true or stats = true only";
        return console
            .farewell(SqlState::INSUFFICIENT_PRIVILEGE, message)
            .await;
    }
    console.greet(visitor);
    console.flush().await?;
    tokio::select! {
        outcome = console.converse() => return outcome,
        () = drain.requested() => {}
    }
    let message = "terminating connection due to administrator command";
    console.farewell(SqlState::ADMIN_SHUTDOWN, message).await
}

struct Console<'a, S, O> {
    stream: S,
    input: BytesMut,
    output: BytesMut,
    user: &'a str,
    office: &'a O,
    statements: HashMap<Box<[u8]>, Command>,
    portals: HashMap<Box<[u8]>, Portal>,
    /// After an error, until Sync.
    skipping: bool,
}

struct Portal {
    command: Command,
    formats: Vec<Format>,
    /// Rows yet to be sent, once it has been executed.
    rows: Option<std::vec::IntoIter<Vec<Option<String>>>>,
    sent: usize,
}

/// What a message did wrong.
enum Wrong {
    Denied,
    Command(UnknownCommand),
    Name(String),
    Limit,
    Reload(String),
    Setting(String),
    Order(String),
    Unsupported(&'static str),
}

impl From<UnknownCommand> for Wrong {
    fn from(error: UnknownCommand) -> Self {
        Self::Command(error)
    }
}

impl<S, O> Console<'_, S, O>
where
    S: AsyncRead + AsyncWrite + Unpin,
    O: Office,
{
    fn greet(&mut self, visitor: &Visitor) {
        let parameters = [
            (
                "server_version",
                concat!("15.0 (Switchyard ", env!("CARGO_PKG_VERSION"), ")"),
            ),
            ("server_encoding", "UTF8"),
            ("client_encoding", "UTF8"),
            ("application_name", ""),
            ("is_superuser", "off"),
            ("session_authorization", &visitor.user),
            ("DateStyle", "ISO, MDY"),
            ("IntervalStyle", "postgres"),
            ("TimeZone", "UTC"),
            ("integer_datetimes", "on"),
            ("standard_conforming_strings", "on"),
        ];
        for (name, value) in parameters {
            encode::parameter_status(&mut self.output, name.as_bytes(), value.as_bytes());
        }
        encode::backend_key_data(&mut self.output, visitor.pid, &visitor.secret);
        encode::ready_for_query(&mut self.output, TransactionStatus::Idle);
    }

    /// Handles messages until the client leaves.
    async fn converse(&mut self) -> io::Result<()> {
        while let Some(message) = self.next().await? {
            let [tag, ..] = *message else { continue };
            let body = message.get(frame::HEADER..).unwrap_or_default();
            let message = match frontend::decode(tag, body) {
                Ok(message) => message,
                Err(error) => {
                    return self
                        .farewell(SqlState::PROTOCOL_VIOLATION, &error.to_string())
                        .await;
                }
            };
            if matches!(message, Message::Terminate) {
                return Ok(());
            }
            self.handle(message).await?;
        }
        Ok(())
    }

    /// The next whole message; `None` when the client has left.
    async fn next(&mut self) -> io::Result<Option<BytesMut>> {
        loop {
            match frame::header(&self.input) {
                Err(error) => {
                    self.farewell(SqlState::PROTOCOL_VIOLATION, &error.to_string())
                        .await?;
                    return Ok(None);
                }
                Ok(Some(header)) if header.len > MESSAGE_LIMIT => {
                    let message = "message too long for the admin console";
                    self.farewell(SqlState::PROTOCOL_VIOLATION, message).await?;
                    return Ok(None);
                }
                Ok(Some(header)) if self.input.len() >= header.len => {
                    return Ok(Some(self.input.split_to(header.len)));
                }
                Ok(_) => {}
            }
            if self.stream.read_buf(&mut self.input).await? == 0 {
                return Ok(None);
            }
        }
    }

    async fn handle(&mut self, message: Message<'_>) -> io::Result<()> {
        if let Message::Query { sql } = message {
            self.skipping = false;
            self.query(&String::from_utf8_lossy(sql)).await;
            return self.ready().await;
        }
        if message == Message::Sync {
            self.skipping = false;
            self.portals.clear();
            return self.ready().await;
        }
        if message == Message::Flush {
            return self.flush().await;
        }
        if !self.skipping
            && let Err(wrong) = self.extended(message).await
        {
            self.report(&wrong);
            self.skipping = true;
        }
        Ok(())
    }

    /// A text of any number of commands; the first that fails ends it.
    async fn query(&mut self, text: &str) {
        let mut pieces: Vec<&str> = text.split(';').collect();
        pieces.retain(|piece| !piece.trim().is_empty());
        if pieces.is_empty() {
            encode::empty_query(&mut self.output);
            return;
        }
        for piece in pieces {
            if let Err(wrong) = self.simple(piece).await {
                self.report(&wrong);
                return;
            }
        }
    }

    async fn simple(&mut self, text: &str) -> Result<(), Wrong> {
        let command = Command::parse(text)?;
        let Some(table) = self.run(&command).await? else {
            return Ok(());
        };
        describe(&mut self.output, &table.columns, &[]);
        let count = table.rows.len();
        for row in table.rows {
            data_row(&mut self.output, &table.columns, &row, &[]);
        }
        complete(&mut self.output, &command, count);
        Ok(())
    }

    /// Runs a command. What has rows returns them; everything else is answered at once.
    async fn run(&mut self, command: &Command) -> Result<Option<Table>, Wrong> {
        // A reload may have taken the right away.
        if self.office.rights(self.user) < command.demands() {
            return Err(Wrong::Denied);
        }
        match command {
            Command::Show(topic) => {
                return Ok(Some(show::show(*topic, &self.office.view_of(*topic))));
            }
            Command::Reload => self.office.reload().await.map_err(Wrong::Reload)?,
            Command::Set { key, value } => {
                self.office.set(key, value).await.map_err(Wrong::Setting)?;
            }
            Command::Order(order) => {
                let done = self.office.carry_out(order.clone()).await;
                done.map_err(Wrong::Order)?;
            }
            Command::Ignored(_) => {}
            Command::Empty => {
                encode::empty_query(&mut self.output);
                return Ok(None);
            }
        }
        complete(&mut self.output, command, 0);
        Ok(None)
    }

    async fn extended(&mut self, message: Message<'_>) -> Result<(), Wrong> {
        match message {
            Message::Parse { name, sql, .. } => {
                let command = Command::parse(&String::from_utf8_lossy(sql))?;
                if !name.is_empty() && self.statements.contains_key(name) {
                    let name = String::from_utf8_lossy(name);
                    return Err(Wrong::Name(format!(
                        "prepared statement \"{name}\" already exists"
                    )));
                }
                insert(&mut self.statements, name, command)?;
                encode::parse_complete(&mut self.output);
            }
            Message::Bind(bind) => {
                let portal = Portal {
                    command: self.statement(bind.statement)?,
                    formats: bind.result_formats.iter().collect(),
                    rows: None,
                    sent: 0,
                };
                insert(&mut self.portals, bind.portal, portal)?;
                encode::bind_complete(&mut self.output);
            }
            Message::Describe { kind, name } => self.describe(kind, name)?,
            Message::Execute { portal, max_rows } => self.execute(portal, max_rows).await?,
            Message::Close { kind, name } => {
                match kind {
                    Kind::Statement => drop(self.statements.remove(name)),
                    Kind::Portal => drop(self.portals.remove(name)),
                }
                encode::close_complete(&mut self.output);
            }
            Message::CopyData(_) | Message::CopyDone | Message::CopyFail { .. } => {}
            Message::FunctionCall { .. } => return Err(Wrong::Unsupported("function calls")),
            Message::Password(_) => return Err(Wrong::Unsupported("further authentication")),
            Message::Query { .. } | Message::Sync | Message::Flush | Message::Terminate => {}
        }
        Ok(())
    }

    fn statement(&self, name: &[u8]) -> Result<Command, Wrong> {
        self.statements.get(name).cloned().ok_or_else(|| {
            let name = String::from_utf8_lossy(name);
            Wrong::Name(format!("prepared statement \"{name}\" does not exist"))
        })
    }

    fn describe(&mut self, kind: Kind, name: &[u8]) -> Result<(), Wrong> {
        let (command, formats) = match kind {
            Kind::Statement => (self.statement(name)?, Vec::new()),
            Kind::Portal => {
                let portal = self.portals.get(name).ok_or_else(|| no_portal(name))?;
                (portal.command.clone(), portal.formats.clone())
            }
        };
        if kind == Kind::Statement {
            encode::parameter_description(&mut self.output, &[]);
        }
        match command {
            Command::Show(topic) => {
                let columns = show::columns(topic, &self.office.view());
                describe(&mut self.output, &columns, &formats);
            }
            Command::Reload
            | Command::Order(_)
            | Command::Set { .. }
            | Command::Ignored(_)
            | Command::Empty => {
                encode::no_data(&mut self.output);
            }
        }
        Ok(())
    }

    async fn execute(&mut self, name: &[u8], max_rows: i32) -> Result<(), Wrong> {
        let portal = self.portals.get(name).ok_or_else(|| no_portal(name))?;
        let (command, begun) = (portal.command.clone(), portal.rows.is_some());
        if !begun {
            let Some(table) = self.run(&command).await? else {
                return Ok(());
            };
            let portal = self.portals.get_mut(name).ok_or_else(|| no_portal(name))?;
            portal.rows = Some(table.rows.into_iter());
        }
        let Command::Show(topic) = command else {
            return Ok(());
        };
        let columns = show::columns(topic, &self.office.view());
        let portal = self.portals.get_mut(name).ok_or_else(|| no_portal(name))?;
        let limit = usize::try_from(max_rows).ok().filter(|limit| *limit > 0);
        let rows = portal.rows.as_mut().into_iter().flatten();
        let mut count = 0;
        for row in rows.take(limit.unwrap_or(usize::MAX)) {
            data_row(&mut self.output, &columns, &row, &portal.formats);
            count += 1;
        }
        portal.sent += count;
        let left = portal.rows.as_ref().is_some_and(|rows| rows.len() > 0);
        if left {
            encode::portal_suspended(&mut self.output);
        } else {
            complete(&mut self.output, &command, portal.sent);
        }
        Ok(())
    }

    fn report(&mut self, wrong: &Wrong) {
        let (sqlstate, message, hint) = match wrong {
            Wrong::Denied => {
                let message = "admin access needed".to_owned();
                (SqlState::INSUFFICIENT_PRIVILEGE, message, None)
            }
            Wrong::Command(error) => (
                SqlState::SYNTAX_ERROR,
                error.to_string(),
                Some(UnknownCommand::HINT),
            ),
            Wrong::Name(message) => (SqlState::INVALID_SQL_STATEMENT_NAME, message.clone(), None),
            Wrong::Limit => {
                let message = "too many prepared statements or portals".to_owned();
                (SqlState::CONFIGURATION_LIMIT_EXCEEDED, message, None)
            }
            Wrong::Reload(message) => (SqlState::CONFIG_FILE_ERROR, message.clone(), None),
            Wrong::Setting(message) => (SqlState::INVALID_PARAMETER_VALUE, message.clone(), None),
            Wrong::Order(message) => {
                let sqlstate = SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE;
                (sqlstate, message.clone(), None)
            }
            Wrong::Unsupported(what) => {
                let message = format!("the admin console does not support {what}");
                (SqlState::FEATURE_NOT_SUPPORTED, message, None)
            }
        };
        let mut report = ErrorReport::new(Severity::Error, sqlstate, &message);
        report.hint = hint.map(Into::into);
        encode::error(&mut self.output, &report);
    }

    async fn ready(&mut self) -> io::Result<()> {
        encode::ready_for_query(&mut self.output, TransactionStatus::Idle);
        self.flush().await
    }

    /// The last words of a session.
    async fn farewell(&mut self, sqlstate: SqlState, message: &str) -> io::Result<()> {
        encode::error(
            &mut self.output,
            &ErrorReport::new(Severity::Fatal, sqlstate, message),
        );
        self.flush().await
    }

    async fn flush(&mut self) -> io::Result<()> {
        while self.output.has_remaining() {
            self.stream.write_buf(&mut self.output).await?;
        }
        self.stream.flush().await
    }
}

fn no_portal(name: &[u8]) -> Wrong {
    let name = String::from_utf8_lossy(name);
    Wrong::Name(format!("portal \"{name}\" does not exist"))
}

fn insert<T>(map: &mut HashMap<Box<[u8]>, T>, name: &[u8], value: T) -> Result<(), Wrong> {
    if map.len() >= NAMES_LIMIT && !map.contains_key(name) {
        return Err(Wrong::Limit);
    }
    map.insert(name.into(), value);
    Ok(())
}

/// The format of a column: one for all, or one for each, or text.
fn format_of(formats: &[Format], column: usize) -> Format {
    match formats {
        [] => Format::Text,
        [one] => *one,
        each => each.get(column).copied().unwrap_or(Format::Text),
    }
}

fn describe(output: &mut BytesMut, columns: &[(&'static str, ColumnType)], formats: &[Format]) {
    let columns: Vec<_> = columns
        .iter()
        .enumerate()
        .map(|(number, (name, column_type))| {
            // The numbers of PostgreSQL's own types.
            let (oid, size) = match column_type {
                ColumnType::Text => (25, -1),
                ColumnType::Int8 => (20, 8),
            };
            let mut column = Column::new(name.as_bytes(), oid, size);
            column.format = format_of(formats, number);
            column
        })
        .collect();
    encode::row_description(output, &columns);
}

fn data_row(
    output: &mut BytesMut,
    columns: &[(&'static str, ColumnType)],
    row: &[Option<String>],
    formats: &[Format],
) {
    let value =
        |(number, ((_, column_type), value)): (usize, (&(_, ColumnType), &Option<String>))| {
            let value = value.as_ref()?;
            match (column_type, format_of(formats, number)) {
                (ColumnType::Int8, Format::Binary) => Some(
                    value
                        .parse::<i64>()
                        .unwrap_or(i64::MAX)
                        .to_be_bytes()
                        .to_vec(),
                ),
                _ => Some(value.clone().into_bytes()),
            }
        };
    let values: Vec<_> = columns.iter().zip(row).enumerate().map(value).collect();
    encode::data_row(output, &values);
}

fn complete(output: &mut BytesMut, command: &Command, rows: usize) {
    let tag = match command {
        Command::Show(_) => format!("SELECT {rows}"),
        Command::Reload => "RELOAD".to_owned(),
        Command::Order(order) => order.tag().to_owned(),
        Command::Set { .. } => "SET".to_owned(),
        Command::Ignored(tag) => (*tag).to_owned(),
        Command::Empty => {
            encode::empty_query(output);
            return;
        }
    };
    encode::command_complete(output, tag.as_bytes());
}

#[cfg(test)]
mod tests;
