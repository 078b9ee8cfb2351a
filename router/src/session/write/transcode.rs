//! Rows of a COPY in another encoding than the servers': converted before they are divided.
//!
//! PostgreSQL does it, on a connection apart, whole lines at a time: no encoding has the bytes that end lines within a character. Invariant:
//! what comes out is what a server would have made of the input; of what it cannot convert the line is known, and the rows before are kept.

use bytes::BytesMut;
use switchyard_wire::Format;
use switchyard_wire::backend::{Message, decode, encode};
use switchyard_wire::frame::{self, HEADER};
use switchyard_wire::frontend::{self, Kind};

use crate::execute::failure::Failure;
use crate::execute::relay::Trouble;
use crate::execute::workspace::Workspace;
use crate::plan::CopyIn;
use crate::session::Session;

const BYTEA: u32 = 17;

/// Where rows are converted.
pub(in crate::session) struct Transcoding {
    workspace: Workspace,
    query: String,
    /// What has come and has not been converted.
    raw: BytesMut,
}

/// What has been converted.
#[derive(Debug, Default)]
pub(in crate::session) struct Converted {
    pub(in crate::session) rows: Vec<u8>,
    /// What PostgreSQL says of the line behind.
    pub(in crate::session) wrong: Option<BytesMut>,
}

impl Transcoding {
    /// Takes what the client has sent.
    pub(in crate::session) fn add(&mut self, data: &[u8]) {
        self.raw.extend_from_slice(data);
    }

    /// The bytes that can be converted: whole lines; all, if nothing follows any more.
    fn take(&mut self, last: bool) -> BytesMut {
        let ends = |byte: &u8| matches!(byte, b'\n' | b'\r');
        match (last, self.raw.iter().rposition(ends)) {
            (true, _) => self.raw.split(),
            (false, Some(at)) => self.raw.split_to(at + 1),
            (false, None) => BytesMut::new(),
        }
    }
}

impl Session {
    /// Opens what converts the rows of this COPY, if they need it.
    pub(in crate::session) async fn open_transcoding(
        &mut self,
        copy: &CopyIn,
        cancels: u64,
    ) -> Result<Option<Transcoding>, Trouble> {
        let Some(encoding) = &copy.encoding else {
            return Ok(None);
        };
        let backend = self.take_workspace(self.any_shard()).await?;
        let mut workspace = Workspace::new(backend, 0);
        let opened = self.open_workspace(&mut workspace, &[], "").await;
        match opened.and_then(|_| self.not_cancelled(cancels)) {
            Ok(()) => Ok(Some(Transcoding {
                workspace,
                query: format!("SELECT pg_catalog.convert_from($1, '{encoding}')"),
                raw: BytesMut::new(),
            })),
            Err(trouble) => self.leave_workspace(workspace, Err(trouble)).await,
        }
    }

    /// Converts what has come.
    pub(in crate::session) async fn transcode(
        &mut self,
        transcoding: &mut Transcoding,
        last: bool,
    ) -> Result<Converted, Trouble> {
        let raw = transcoding.take(last);
        let mut converted = Converted::default();
        if raw.is_empty() {
            return Ok(converted);
        }
        let Err(wrong) = self.convert(transcoding, &raw, &mut converted).await? else {
            return Ok(converted);
        };
        // It is about the first line that is wrong, which is found by halving.
        let mut rest = &*raw;
        loop {
            let (first, second) = rest.split_at(middle(rest));
            if first.is_empty() {
                converted.wrong = Some(wrong);
                return Ok(converted);
            }
            let outcome = self.convert(transcoding, first, &mut converted).await?;
            rest = if outcome.is_ok() { second } else { first };
        }
    }

    /// Converts some lines, or has what PostgreSQL says of them.
    async fn convert(
        &mut self,
        transcoding: &mut Transcoding,
        lines: &[u8],
        converted: &mut Converted,
    ) -> Result<Result<(), BytesMut>, Trouble> {
        let Transcoding {
            workspace, query, ..
        } = transcoding;
        workspace.run_ahead("SAVEPOINT line");
        let messages = |output: &mut BytesMut| {
            let (formats, values) = ([Format::Binary], [Some(lines)]);
            frontend::encode::parse(output, b"", query.as_bytes(), &[BYTEA]);
            frontend::encode::bind(output, b"", b"", &formats, &values, &[Format::Text]);
            frontend::encode::describe(output, Kind::Portal, b"");
            frontend::encode::execute(output, b"", 0);
            frontend::encode::sync(output);
        };
        let before = self.client.hold();
        let rows = workspace.rows(&mut self.client, messages).await;
        let said = self.client.unhold(before);
        match rows {
            Ok(rows) => {
                let text = rows.into_iter().flatten().flatten();
                text.for_each(|text| converted.rows.extend_from_slice(&text));
                Ok(Ok(()))
            }
            Err(Trouble::Told) => {
                let undo = "ROLLBACK TO SAVEPOINT line";
                workspace.run(&mut self.client, undo).await?;
                Ok(Err(said))
            }
            Err(Trouble::Lost) => Err(self.lost_with_rows(Some(&workspace.backend)).into()),
            Err(other) => Err(other),
        }
    }

    /// Nothing more is to be converted.
    pub(in crate::session) async fn close_transcoding(&mut self, transcoding: Transcoding) {
        self.give_back_workspace(transcoding.workspace).await;
    }
}

/// The end of a line, with about as many bytes before as behind; 0 if there is only one line.
fn middle(lines: &[u8]) -> usize {
    let inside = lines
        .get(..lines.len().saturating_sub(1))
        .unwrap_or_default();
    let ends = |byte: &u8| matches!(byte, b'\n' | b'\r');
    let half = inside.len() / 2;
    let (first, second) = inside.split_at(half);
    match (first.iter().rposition(ends), second.iter().position(ends)) {
        (Some(at), _) => at + 1,
        (None, Some(at)) => half + at + 1,
        (None, None) => 0,
    }
}

/// What PostgreSQL says of a line, as an error of the COPY into this table.
pub(in crate::session) fn in_line(
    said: &[u8],
    table: &str,
    line: u64,
) -> Result<BytesMut, Failure> {
    let mut rest = said;
    while let Ok(Some(header)) = frame::header(rest) {
        let (message, after) = rest.split_at_checked(header.len).ok_or(Failure::Retry)?;
        let body = message.get(HEADER..).unwrap_or_default();
        if let (b'E', Ok(Message::ErrorResponse(fields))) = (header.tag, decode(header.tag, body)) {
            let context = format!("COPY {table}, line {line}");
            let others = fields
                .iter()
                .filter(|(code, _)| !matches!(code, b'W' | b'P'));
            let mut error = BytesMut::new();
            let all = others.chain([(b'W', context.as_bytes())]);
            encode::fields(&mut error, b'E', all);
            return Ok(error);
        }
        rest = after;
    }
    Err(Failure::Retry)
}

#[cfg(test)]
mod tests {
    use super::middle;

    #[test]
    fn lines_are_halved() {
        assert_eq!(middle(b"ab\ncd\nef\n"), 3);
        assert_eq!(middle(b"abcdefgh\ni\n"), 9);
        assert_eq!(middle(b"abcdefgh\n"), 0);
        assert_eq!(middle(b"abc"), 0);
        assert_eq!(middle(b""), 0);
    }
}
