//! Fields in front of each row: values of columns that the client leaves out and the shards would each give otherwise.

use std::collections::VecDeque;

use super::{Csv, Format, Text};

/// The fields that rows are waiting for, and how they are written.
#[derive(Debug)]
pub(super) struct Added {
    format: Format,
    /// The columns' names.
    names: Vec<String>,
    /// What is to be put in front of the next rows.
    rows: VecDeque<Vec<Option<Vec<u8>>>>,
}

impl Added {
    pub(super) fn new(format: &Format, names: Vec<String>) -> Self {
        Self {
            format: format.clone(),
            names,
            rows: VecDeque::new(),
        }
    }

    /// So many rows can be passed on.
    pub(super) fn left(&self) -> usize {
        self.rows.len()
    }

    /// Values for one more row.
    pub(super) fn give(&mut self, row: Vec<Option<Vec<u8>>>) {
        self.rows.push_back(row);
    }

    /// The values for the next row.
    pub(super) fn take(&mut self) -> Option<Vec<Option<Vec<u8>>>> {
        self.rows.pop_front()
    }

    /// What stands before a line with the names of columns.
    pub(super) fn header(&self) -> Vec<u8> {
        let names = self.names.iter();
        let names: Vec<_> = names.map(|name| Some(name.clone().into_bytes())).collect();
        match &self.format {
            Format::Binary => Vec::new(),
            Format::Text(_) | Format::Csv(_) => self.row(&names, &[]).0,
        }
    }

    /// How many bytes of a line, as a server shows it, are not the client's.
    pub(super) fn shown(&self, line: &[u8]) -> usize {
        let mut at = 0;
        for _ in &self.names {
            let rest = line.get(at..).unwrap_or_default();
            let length = match &self.format {
                Format::Text(options) => text_length(rest, options),
                Format::Csv(options) => csv_length(rest, options),
                Format::Binary => None,
            };
            // It may be cut.
            let Some(length) = length else {
                return 0;
            };
            at += length + 1;
        }
        at
    }

    /// What stands before a row, and how many of its own bytes go with it.
    pub(super) fn row(&self, values: &[Option<Vec<u8>>], row: &[u8]) -> (Vec<u8>, usize) {
        let mut before = Vec::new();
        match &self.format {
            Format::Text(options) => {
                for value in values {
                    write_text(&mut before, value.as_deref(), options);
                    before.push(options.delimiter);
                }
                (before, 0)
            }
            Format::Csv(options) => {
                for value in values {
                    write_csv(&mut before, value.as_deref(), options);
                    before.push(options.delimiter);
                }
                (before, 0)
            }
            Format::Binary => {
                let Some(count) = row.first_chunk::<2>() else {
                    return (before, 0);
                };
                let more = u16::try_from(values.len()).unwrap_or(u16::MAX);
                let count = u16::from_be_bytes(*count);
                if i16::try_from(count).is_err() {
                    // It is no row.
                    return (before, 0);
                }
                let count = count.saturating_add(more);
                before.extend_from_slice(&count.to_be_bytes());
                for value in values {
                    write_binary(&mut before, value.as_deref());
                }
                (before, 2)
            }
        }
    }
}

fn write_text(output: &mut Vec<u8>, value: Option<&[u8]>, options: &Text) {
    let Some(value) = value else {
        return output.extend_from_slice(&options.null);
    };
    let start = output.len();
    for byte in value {
        match byte {
            b'\n' => output.extend_from_slice(b"\\n"),
            b'\r' => output.extend_from_slice(b"\\r"),
            b'\t' => output.extend_from_slice(b"\\t"),
            b'\\' => output.extend_from_slice(b"\\\\"),
            byte if *byte == options.delimiter => output.extend_from_slice(&[b'\\', *byte]),
            byte => output.push(*byte),
        }
    }
    // PostgreSQL compares what is written with the text for NULL, and not what it stands for.
    if output.get(start..) == Some(&*options.null)
        && let Some(first) = output.get(start).copied()
    {
        output.truncate(start);
        output.extend_from_slice(format!("\\x{first:02x}").as_bytes());
        output.extend_from_slice(value.get(1..).unwrap_or_default());
    }
}

fn write_csv(output: &mut Vec<u8>, value: Option<&[u8]>, options: &Csv) {
    let Some(value) = value else {
        return output.extend_from_slice(&options.null);
    };
    output.push(options.quote);
    for byte in value {
        if *byte == options.quote || *byte == options.escape {
            output.push(options.escape);
        }
        output.push(*byte);
    }
    output.push(options.quote);
}

/// The length of a field that is written by [`write_text`], up to its delimiter.
fn text_length(line: &[u8], options: &Text) -> Option<usize> {
    let mut escaped = false;
    line.iter().position(|byte| {
        let ends = !escaped && *byte == options.delimiter;
        escaped = !escaped && *byte == b'\\';
        ends
    })
}

/// The length of a field that is written by [`write_csv`], up to its delimiter.
fn csv_length(line: &[u8], options: &Csv) -> Option<usize> {
    if line.first() != Some(&options.quote) {
        return line.iter().position(|byte| *byte == options.delimiter);
    }
    let mut at = 1;
    loop {
        let (byte, next) = (*line.get(at)?, line.get(at + 1));
        let escapes = next.is_some_and(|next| *next == options.quote || *next == options.escape);
        if byte == options.escape && escapes {
            at += 2;
        } else if byte == options.quote {
            return (next == Some(&options.delimiter)).then_some(at + 1);
        } else {
            at += 1;
        }
    }
}

fn write_binary(output: &mut Vec<u8>, value: Option<&[u8]>) {
    let length = value.map_or(-1, |value| i32::try_from(value.len()).unwrap_or(-1));
    output.extend_from_slice(&length.to_be_bytes());
    output.extend_from_slice(value.unwrap_or_default());
}
