//! What a server answered to one statement, in the protocol's own terms.

use std::collections::BTreeMap;
use std::fmt;

use crate::Message;

/// A column of a result. The table's OID is left out: it is another one on every server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// The number of the table's column it comes from, or 0.
    pub attribute: i16,
    /// The type's OID.
    pub type_oid: u32,
    /// The type's size.
    pub size: i16,
    /// The type's modifier.
    pub modifier: i32,
    /// 0 is text, 1 binary.
    pub format: i16,
}

/// An ErrorResponse or NoticeResponse: its fields by their letters.
#[derive(Clone, PartialEq, Eq)]
pub struct Failure {
    fields: BTreeMap<char, String>,
}

/// The answer to one statement.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reply {
    /// What RowDescription said; none if there was none.
    pub columns: Option<Vec<Column>>,
    /// The rows; a NULL is none.
    pub rows: Vec<Vec<Option<Vec<u8>>>>,
    /// What came by COPY TO.
    pub copied: Vec<u8>,
    /// The command tag.
    pub tag: Option<String>,
    /// The error.
    pub failure: Option<Failure>,
    /// Whether EmptyQueryResponse came.
    pub empty: bool,
    /// Whether the row limit was reached.
    pub suspended: bool,
}

impl Reply {
    /// The error's SQLSTATE, if it failed.
    pub fn sqlstate(&self) -> Option<&str> {
        self.failure.as_ref().map(Failure::sqlstate)
    }

    /// Rows as text, NULL as `NULL`.
    pub fn texts(&self) -> Vec<Vec<String>> {
        let text = |value: &Option<Vec<u8>>| {
            value.as_ref().map_or("NULL".to_owned(), |bytes| {
                String::from_utf8_lossy(bytes).into_owned()
            })
        };
        self.rows
            .iter()
            .map(|row| row.iter().map(text).collect())
            .collect()
    }

    /// The first value of the first row as text.
    pub fn value(&self) -> String {
        match self
            .texts()
            .into_iter()
            .next()
            .and_then(|row| row.into_iter().next())
        {
            Some(value) => value,
            None => panic!("no value in {self:?}"),
        }
    }

    /// The same, or a failed test if it is an error.
    #[track_caller]
    pub fn succeeded(self) -> Reply {
        match &self.failure {
            Some(failure) => panic!("{failure:?}"),
            None => self,
        }
    }
}

impl Failure {
    /// From the body of an ErrorResponse or NoticeResponse.
    pub fn decode(body: &[u8]) -> Failure {
        let mut fields = BTreeMap::new();
        for field in body
            .split(|&byte| byte == 0)
            .filter(|field| !field.is_empty())
        {
            fields.insert(
                field[0].into(),
                String::from_utf8_lossy(&field[1..]).into_owned(),
            );
        }
        Failure { fields }
    }

    /// A field by its letter, empty if it is absent.
    pub fn field(&self, letter: char) -> &str {
        self.fields.get(&letter).map_or("", String::as_str)
    }

    /// The SQLSTATE.
    pub fn sqlstate(&self) -> &str {
        self.field('C')
    }

    /// ERROR, FATAL or PANIC.
    pub fn severity(&self) -> &str {
        self.field('V')
    }

    /// The message.
    pub fn message(&self) -> &str {
        self.field('M')
    }

    /// Forgets all fields but these.
    pub(crate) fn keep(&mut self, letters: &[char]) {
        self.fields.retain(|letter, _| letters.contains(letter));
    }

    /// All fields.
    pub fn fields(&self) -> &BTreeMap<char, String> {
        &self.fields
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {}: {}",
            self.severity(),
            self.sqlstate(),
            self.message()
        )?;
        for (letter, label) in [('D', "detail"), ('H', "hint"), ('W', "context")] {
            if let Some(text) = self.fields.get(&letter) {
                write!(f, "; {label}: {text}")?;
            }
        }
        Ok(())
    }
}

/// Takes messages until ReadyForQuery and makes replies of them.
#[derive(Debug, Default)]
pub(crate) struct Replies {
    done: Vec<Reply>,
    current: Reply,
    /// Whether `current` has anything in it.
    begun: bool,
}

impl Replies {
    /// Takes a message. Those that belong to no statement are ignored.
    pub(crate) fn take(&mut self, message: &Message) {
        let body = message.body.as_ref();
        self.begun |= matches!(
            message.tag,
            b'T' | b'D' | b'C' | b'E' | b'I' | b's' | b'd' | b'n'
        );
        match message.tag {
            b'T' => self.current.columns = Some(columns(body)),
            b'D' => self.current.rows.push(row(body)),
            b'd' => self.current.copied.extend_from_slice(body),
            b'C' => {
                self.current.tag = Some(text(body));
                self.finish();
            }
            b'I' => {
                self.current.empty = true;
                self.finish();
            }
            b's' => {
                self.current.suspended = true;
                self.finish();
            }
            b'E' => {
                self.current.failure = Some(Failure::decode(body));
                self.finish();
            }
            _ => {}
        }
    }

    fn finish(&mut self) {
        self.done.push(std::mem::take(&mut self.current));
        self.begun = false;
    }

    /// The replies, the last one even if it was not finished (a Describe alone).
    pub(crate) fn into_vec(mut self) -> Vec<Reply> {
        if self.begun {
            self.finish();
        }
        self.done
    }
}

/// The text before the NUL.
pub(crate) fn text(body: &[u8]) -> String {
    let end = body
        .iter()
        .position(|&byte| byte == 0)
        .unwrap_or(body.len());
    String::from_utf8_lossy(&body[..end]).into_owned()
}

fn columns(body: &[u8]) -> Vec<Column> {
    let mut read = Reader(body);
    (0..read.i16())
        .map(|_| {
            let name = text(read.0);
            read.0 = &read.0[name.len() + 1..];
            let _table = read.i32();
            Column {
                name,
                attribute: read.i16(),
                type_oid: read.i32() as u32,
                size: read.i16(),
                modifier: read.i32(),
                format: read.i16(),
            }
        })
        .collect()
}

fn row(body: &[u8]) -> Vec<Option<Vec<u8>>> {
    let mut read = Reader(body);
    (0..read.i16())
        .map(|_| {
            let length = usize::try_from(read.i32()).ok()?;
            Some(read.bytes(length).to_vec())
        })
        .collect()
}

/// Reads numbers off the front.
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn bytes(&mut self, count: usize) -> &'a [u8] {
        let (bytes, rest) = self.0.split_at(count);
        self.0 = rest;
        bytes
    }

    pub(crate) fn i16(&mut self) -> i16 {
        i16::from_be_bytes(self.bytes(2).try_into().unwrap())
    }

    pub(crate) fn i32(&mut self) -> i32 {
        i32::from_be_bytes(self.bytes(4).try_into().unwrap())
    }
}
