//! Rows on their ways to their shards.

use bytes::{Buf, BufMut, BytesMut};
use switchyard_schema::{KeyError, ShardIndex};
use switchyard_wire::frame::HEADER;

use super::added::Added;
use super::{Extent, Field, Format, Found, KeyColumn, KeyPlace, LineEnd, Lines, binary, csv, text};

/// The longest row, in bytes.
const ROW_LIMIT: usize = 256 << 20;

/// Divides what a client sends among the shards.
#[derive(Debug)]
pub struct Distributor {
    /// How rows are found; `None`: every shard gets everything.
    rows: Option<Rows>,
    /// What has come and has not been passed on.
    pending: BytesMut,
    /// By shard.
    lanes: Vec<Lane>,
    /// So many lines of the input have been read.
    lines: u64,
    /// The shard that got a row last.
    latest: Option<ShardIndex>,
    state: State,
}

/// How far the input has been read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Reading,
    /// What comes now is ignored.
    Ended,
    /// A row was met whose shard is not known: PostgreSQL is to say why.
    Astray(Astray),
}

/// A row without a shard, or what is no row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Astray {
    /// Who is asked what is wrong with it.
    pub shard: ShardIndex,
    /// What the router thinks.
    pub reason: Reason,
}

/// Why a row has no shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Its key is a value whose meaning is not certain.
    NotExact,
    /// PostgreSQL is expected to refuse it.
    Wrong,
    /// It is too long.
    TooLong,
}

/// What goes to one shard.
#[derive(Debug, Default)]
pub struct Lane {
    /// Messages that are to be sent.
    pub output: BytesMut,
    /// The lines it has got.
    pub lines: Lines,
    /// It has got rows, or what is none.
    pub used: bool,
    /// It has got a line: it knows how lines end.
    began: bool,
    /// Where the message begins that bytes are added to.
    open: Option<usize>,
}

#[derive(Debug)]
struct Rows {
    reader: Reader,
    key: KeyColumn,
    /// Fields that are put in front of the client's.
    added: Option<Added>,
}

/// The state of reading one format.
#[derive(Debug, Clone)]
enum Reader {
    Text(text::Search, super::Text, Option<LineEnd>),
    Csv(csv::Search, super::Csv, Option<LineEnd>),
    Binary(binary::Search),
}

impl Rows {
    /// The shard of a row, which has these values in front.
    fn shard_of(
        &self,
        row: &[u8],
        extent: Extent,
        added: &[Option<Vec<u8>>],
    ) -> Result<ShardIndex, KeyError> {
        let binary = matches!(self.reader, Reader::Binary(_));
        let position = match self.key.place {
            KeyPlace::Sent(position) => position,
            KeyPlace::Added(position) => {
                let value = added.get(position).ok_or(KeyError::NotExact)?;
                return self.key.shard_of(value.as_deref(), binary);
            }
            KeyPlace::Nowhere => return self.key.shard_of(None, binary),
        };
        let content = row.get(..extent.content).unwrap_or_default();
        let field = self.reader.field(content, position, extent.plain);
        self.key
            .shard_of(field.ok_or(KeyError::Invalid)?.as_deref(), binary)
    }
}

impl Rows {
    /// What stands before a row, and how many of its own bytes go with it.
    fn before(&self, values: &[Option<Vec<u8>>], row: &[u8]) -> (Vec<u8>, usize) {
        match &self.added {
            Some(added) => added.row(values, row),
            None => (Vec::new(), 0),
        }
    }
}

impl Reader {
    /// What stands at the start of the input.
    fn next(&mut self, bytes: &[u8], last: bool) -> Found {
        let (found, header) = match self {
            Reader::Text(search, options, end) => {
                (search.row(bytes, last, end), &mut options.header)
            }
            Reader::Csv(search, options, end) => {
                (search.row(bytes, last, options, end), &mut options.header)
            }
            Reader::Binary(search) => return search.row(bytes, last),
        };
        if let Found::Row(extent) = found
            && std::mem::take(header)
        {
            return Found::Preamble(extent);
        }
        found
    }

    fn field<'a>(&self, row: &'a [u8], position: usize, plain: bool) -> Option<Field<'a>> {
        match self {
            Reader::Text(_, options, _) => text::field(row, position, options, plain),
            Reader::Csv(_, options, _) => csv::field(row, position, options, plain),
            Reader::Binary(_) => binary::field(row, position),
        }
    }
}

impl Distributor {
    /// Each row goes to one of so many shards.
    pub fn by_key(format: &Format, key: KeyColumn, shards: usize) -> Self {
        let reader = match format {
            Format::Text(options) => Reader::Text(text::Search::default(), options.clone(), None),
            Format::Csv(options) => Reader::Csv(csv::Search::default(), options.clone(), None),
            Format::Binary => Reader::Binary(binary::Search::default()),
        };
        let added = None;
        Self::new(Some(Rows { reader, key, added }), shards)
    }

    /// The same, with values of these columns in front of each row, which are [given](Self::give) as rows come.
    pub fn adding(mut self, format: &Format, names: Vec<String>) -> Self {
        if let Some(rows) = &mut self.rows {
            rows.added = Some(Added::new(format, names));
        }
        self
    }

    /// So many rows wait for values that are to be put in front of them.
    pub fn wants(&self, last: bool) -> usize {
        let Some((rows, added)) = self.rows.as_ref().zip(self.added()) else {
            return 0;
        };
        let (mut reader, mut rest, mut count) = (rows.reader.clone(), &*self.pending, 0_usize);
        loop {
            let (length, ends) = match reader.next(rest, last) {
                Found::Row(extent) => {
                    count += 1;
                    (extent.length, extent.ends)
                }
                Found::Preamble(extent) => (extent.length, false),
                Found::Wrong(_) => {
                    count += 1;
                    break;
                }
                Found::Incomplete | Found::End | Found::Trailer(_) => break,
            };
            if ends {
                break;
            }
            rest = rest.get(length..).unwrap_or_default();
        }
        count.saturating_sub(added.left())
    }

    fn added(&self) -> Option<&Added> {
        self.rows.as_ref()?.added.as_ref()
    }

    /// How many bytes of a line, as a server shows it, are not the client's.
    pub fn added_to(&self, line: &[u8]) -> usize {
        self.added().map_or(0, |added| added.shown(line))
    }

    /// Values that are put in front of one more row.
    pub fn give(&mut self, values: Vec<Option<Vec<u8>>>) {
        let rows = self.rows.as_mut();
        if let Some(added) = rows.and_then(|rows| rows.added.as_mut()) {
            added.give(values);
        }
    }

    /// Everything goes to each of so many shards.
    pub fn everywhere(shards: usize) -> Self {
        Self::new(None, shards)
    }

    fn new(rows: Option<Rows>, shards: usize) -> Self {
        Self {
            rows,
            pending: BytesMut::new(),
            lanes: std::iter::repeat_with(Lane::default).take(shards).collect(),
            lines: 0,
            latest: None,
            state: State::Reading,
        }
    }

    /// What goes to each shard.
    pub fn lanes(&mut self) -> &mut [Lane] {
        &mut self.lanes
    }

    /// So many lines of the input have been read.
    pub fn lines(&self) -> u64 {
        self.lines
    }

    /// The end has been met: what comes now is ignored.
    pub fn has_ended(&self) -> bool {
        self.state == State::Ended
    }

    /// So many lines have come of a row that has not come whole.
    pub fn lines_begun(&self) -> u64 {
        let count = |end: u8| self.pending.iter().filter(|byte| **byte == end).count();
        let lines = match count(b'\n') {
            0 => count(b'\r'),
            lines => lines,
        };
        lines as u64
    }

    /// Which line of the input the shard at this position has got as this one of its own, if that is still known.
    pub fn line_of(&self, position: usize, own: u64) -> Option<u64> {
        self.lanes.get(position)?.lines.line_of(own, self.lines)
    }

    /// A row was met whose shard is not known, and the shard that has got it.
    pub fn astray(&self) -> Option<Astray> {
        match self.state {
            State::Astray(astray) => Some(astray),
            State::Reading | State::Ended => None,
        }
    }

    /// Takes what the client has sent. What comes behind a row astray is dropped.
    pub fn add(&mut self, data: &[u8]) {
        if self.state == State::Reading {
            self.pending.extend_from_slice(data);
        }
    }

    /// Passes rows on as far as they have come; all, if nothing follows any more.
    pub fn divide(&mut self, last: bool) {
        let pending = std::mem::take(&mut self.pending);
        let taken = match self.rows.take() {
            Some(mut rows) => {
                let taken = self.divide_rows(&mut rows, &pending, last);
                self.rows = Some(rows);
                taken
            }
            None => {
                let lanes = self.lanes.iter_mut();
                lanes.for_each(|lane| lane.put(&pending));
                pending.len()
            }
        };
        self.pending = pending;
        match self.state {
            State::Reading => self.pending.advance(taken),
            State::Ended | State::Astray(_) => self.pending.clear(),
        }
        self.lanes.iter_mut().for_each(Lane::close);
    }

    /// Passes on the rows at the start of the input; their bytes.
    fn divide_rows(&mut self, rows: &mut Rows, input: &[u8], last: bool) -> usize {
        let mut rest = input;
        while self.state == State::Reading {
            let taken = match rows.reader.next(rest, last) {
                Found::Incomplete => {
                    if rest.len() > ROW_LIMIT {
                        self.stray((b"", rest), Reason::TooLong);
                    }
                    break;
                }
                Found::Row(extent) => {
                    let row = rest.get(..extent.length).unwrap_or_default();
                    let added = rows.added.as_mut().and_then(Added::take);
                    let values = added.as_deref().unwrap_or_default();
                    let shard = rows.shard_of(row, extent, values);
                    let (before, skipped) = rows.before(values, row);
                    let bytes = (&*before, row.get(skipped..).unwrap_or_default());
                    match rows.added.is_some() && added.is_none() {
                        true => self.stray(bytes, Reason::Wrong),
                        false => self.row(bytes, extent, shard),
                    }
                    extent.length
                }
                Found::Preamble(extent) => {
                    let preamble = rest.get(..extent.length).unwrap_or_default();
                    let before = rows.added.as_ref().map(Added::header);
                    for lane in &mut self.lanes {
                        lane.lines.add(self.lines, extent.lines);
                        lane.began = true;
                        lane.put(before.as_deref().unwrap_or_default());
                        lane.put(preamble);
                    }
                    self.lines += extent.lines;
                    extent.length
                }
                Found::End => {
                    self.state = State::Ended;
                    rest.len()
                }
                Found::Trailer(length) => {
                    let trailer = rest.get(..length).unwrap_or_default();
                    self.lanes.iter_mut().for_each(|lane| lane.put(trailer));
                    length
                }
                Found::Wrong(length) => {
                    let row = rest.get(..length).unwrap_or_default();
                    let added = rows.added.as_mut().and_then(Added::take);
                    let (before, skipped) = rows.before(added.as_deref().unwrap_or_default(), row);
                    let bytes = (&*before, row.get(skipped..).unwrap_or_default());
                    self.stray(bytes, Reason::Wrong);
                    length
                }
            };
            rest = rest.get(taken..).unwrap_or_default();
        }
        input.len() - rest.len()
    }

    fn row(&mut self, row: (&[u8], &[u8]), extent: Extent, shard: Result<ShardIndex, KeyError>) {
        if extent.ends {
            self.state = State::Ended;
        }
        match shard {
            Ok(shard) => {
                self.pass(shard, row, extent);
                self.latest = Some(shard);
            }
            Err(KeyError::Invalid) => self.stray(row, Reason::Wrong),
            Err(KeyError::NotExact) => self.stray(row, Reason::NotExact),
        }
    }

    fn pass(&mut self, shard: ShardIndex, (before, row): (&[u8], &[u8]), extent: Extent) {
        if let Some(lane) = self.lanes.get_mut(shard.position()) {
            if !lane.began {
                lane.lines.counts_first(extent.lines, extent.lines_as_first);
            }
            lane.lines.add(self.lines, extent.lines);
            lane.began = true;
            lane.used = true;
            lane.put(before);
            lane.put(row);
        }
        self.lines += extent.lines;
    }

    /// A shard that knows how lines end is to say what is wrong with these bytes.
    fn stray(&mut self, (before, bytes): (&[u8], &[u8]), reason: Reason) {
        let shard = self.latest.unwrap_or(ShardIndex::FIRST);
        if let Some(lane) = self.lanes.get_mut(shard.position())
            && reason != Reason::TooLong
        {
            lane.lines.add(self.lines, 1);
            lane.used = true;
            lane.put(before);
            lane.put(bytes);
        }
        self.lines += 1;
        self.state = State::Astray(Astray { shard, reason });
    }
}

impl Lane {
    /// Adds bytes to the message that is open, or begins one.
    fn put(&mut self, bytes: &[u8]) {
        if self.open.is_none() {
            self.open = Some(self.output.len());
            self.output.put_slice(&[b'd', 0, 0, 0, 0]);
        }
        self.output.extend_from_slice(bytes);
    }

    /// Ends the message that is open.
    fn close(&mut self) {
        let Some(start) = self.open.take() else {
            return;
        };
        // The length counts itself, and not the type.
        let length = u32::try_from(self.output.len() - start - 1).unwrap_or(u32::MAX);
        if let Some(place) = self.output.get_mut(start + 1..start + HEADER) {
            place.copy_from_slice(&length.to_be_bytes());
        }
    }
}
