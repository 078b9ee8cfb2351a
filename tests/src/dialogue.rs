//! What is said on a connection and what comes back, message by message, to be compared between two servers.

use bytes::BytesMut;
use postgres_protocol::IsNull;
use postgres_protocol::message::frontend;

use crate::reply::text;
use crate::{Client, Failure, Message};

/// Messages of a client, one after the other.
#[derive(Debug, Default, Clone)]
pub struct Batch(BytesMut);

impl Batch {
    /// Parse, without types.
    #[must_use]
    pub fn parse(mut self, name: &str, sql: &str) -> Batch {
        frontend::parse(name, sql, [], &mut self.0).unwrap();
        self
    }

    /// Bind with values in text.
    #[must_use]
    pub fn bind(mut self, portal: &str, statement: &str, values: &[&str]) -> Batch {
        let values = values.iter();
        let write = |value: &&str, buffer: &mut BytesMut| {
            buffer.extend_from_slice(value.as_bytes());
            Ok(IsNull::No)
        };
        let bound = frontend::bind(portal, statement, [], values, write, [], &mut self.0);
        assert!(bound.is_ok());
        self
    }

    /// Describe, of a statement (`S`) or a portal (`P`).
    #[must_use]
    pub fn describe(mut self, kind: u8, name: &str) -> Batch {
        frontend::describe(kind, name, &mut self.0).unwrap();
        self
    }

    /// Execute.
    #[must_use]
    pub fn execute(mut self, portal: &str, rows: i32) -> Batch {
        frontend::execute(portal, rows, &mut self.0).unwrap();
        self
    }

    /// Close of a portal.
    #[must_use]
    pub fn close_portal(mut self, portal: &str) -> Batch {
        frontend::close(b'P', portal, &mut self.0).unwrap();
        self
    }

    /// Close of a statement.
    #[must_use]
    pub fn close_statement(mut self, name: &str) -> Batch {
        frontend::close(b'S', name, &mut self.0).unwrap();
        self
    }

    /// Query.
    #[must_use]
    pub fn query(mut self, sql: &str) -> Batch {
        frontend::query(sql, &mut self.0).unwrap();
        self
    }

    /// CopyData and CopyDone.
    #[must_use]
    pub fn copy(mut self, data: &str) -> Batch {
        frontend::CopyData::new(data.as_bytes())
            .unwrap()
            .write(&mut self.0);
        frontend::copy_done(&mut self.0);
        self
    }

    /// Flush.
    #[must_use]
    pub fn flush(mut self) -> Batch {
        self.0.extend_from_slice(b"H\0\0\0\x04");
        self
    }

    /// Sync.
    #[must_use]
    pub fn sync(mut self) -> Batch {
        frontend::sync(&mut self.0);
        self
    }
}

/// A statement, parsed, bound and executed, all unnamed.
#[must_use]
pub fn run(sql: &str, values: &[&str]) -> Batch {
    Batch::default()
        .parse("", sql)
        .bind("", "", values)
        .execute("", 0)
}

/// One query of the simple protocol.
#[must_use]
pub fn query(sql: &str) -> Batch {
    Batch::default().query(sql)
}

/// Sends a step and reads to the message `last`.
#[track_caller]
pub fn step(client: &mut Client, batch: &Batch, last: u8) -> Vec<String> {
    client.send_raw(&batch.0).unwrap();
    let mut seen = Vec::new();
    loop {
        let message = client.receive();
        seen.push(show(&message));
        if message.tag == last {
            break;
        }
    }
    // Servers report several settings at once in an order of their own.
    for reports in seen.chunk_by_mut(|a, b| a.starts_with("S ") && b.starts_with("S ")) {
        reports.sort();
    }
    seen
}

/// What a message says, without what is another on every server.
fn show(message: &Message) -> String {
    let tag = char::from(message.tag);
    match message.tag {
        b'E' | b'N' => {
            let failure = Failure::decode(&message.body);
            format!("{tag} {} {}", failure.sqlstate(), failure.message())
        }
        b'S' => {
            let name = text(&message.body);
            let value = text(&message.body[name.len() + 1..]);
            format!("S {name}={value}")
        }
        b'T' => tag.to_string(),
        _ => format!("{tag} {:?}", String::from_utf8_lossy(&message.body)),
    }
}
