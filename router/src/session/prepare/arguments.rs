//! The arguments of an EXECUTE: constants are read here, anything else PostgreSQL evaluates, once.

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use postgres_protocol::escape::escape_literal;
use switchyard_wire::backend::Message;
use switchyard_wire::frame::HEADER;
use switchyard_wire::frontend::{self, Bind};

use crate::backend::Show;
use crate::execute::block::FailedOn;
use crate::execute::failure::Failure;
use crate::execute::messages::{Said, next};
use crate::execute::relay::{Trouble, decode_message};
use crate::plan::{Param, Params};
use crate::session::Session;
use crate::session::extended::portable;
use crate::session::statement::SessionStatement;
use crate::sql::{LiteralKind, Scan};

/// The name of a statement of ours that has a client's parameters. No client's is the same: it would have to be that of a router's statement.
const EVALUATED: &str = "switchyard evaluates";

impl Session {
    /// The arguments, as values of parameters of these types. A participant computes them, as EXECUTE does, from statement
    /// parameters that are its only columns.
    pub(in crate::session) async fn evaluate(
        &mut self,
        index: usize,
        arguments: &Arguments,
        types: &[u32],
    ) -> Result<Arguments, Trouble> {
        let numbers: Vec<String> = (1..=types.len()).map(|at| format!("${at}")).collect();
        let select = format!("SELECT {}", numbers.join(", "));
        let (client, participant, _) = self.exchanging(index)?;
        let output = &mut participant.connection.output;
        frontend::encode::parse(output, EVALUATED.as_bytes(), select.as_bytes(), types);
        frontend::encode::sync(output);
        let call = format!("EXECUTE \"{EVALUATED}\"{}", arguments.text);
        frontend::encode::query(output, call.as_bytes());
        frontend::encode::close(output, frontend::Kind::Statement, EVALUATED.as_bytes());
        frontend::encode::sync(output);
        participant.connection.unnamed = None;
        participant.unread = true;
        if participant.connection.flush().await.is_err() {
            return Err(Trouble::Lost);
        }
        let (mut values, mut failed, mut left) = (None, false, 3);
        while left > 0 {
            match next(client, participant, Show::Errors).await? {
                Said::Message(header) => {
                    let message = participant.connection.input.split_to(header.len);
                    if let Ok(Message::DataRow(row)) = decode_message(&message) {
                        let owned = row.iter().map(|value| value.map(<[u8]>::to_vec));
                        values = Some(owned.collect());
                    }
                }
                Said::Error => failed = true,
                Said::Ready => left -= 1,
            }
        }
        participant.unread = false;
        if failed {
            let shard = participant.shard;
            if let Some(block) = &mut self.block {
                block.failed.get_or_insert(FailedOn::Shard(shard));
            }
            return Err(Trouble::Told);
        }
        Ok(Arguments::of(values.ok_or(Failure::Retry)?))
    }

    /// What a backend says of a statement prepared by SQL, and the arguments as a Bind has them.
    pub(in crate::session) async fn bound(
        &mut self,
        name: &str,
        prepared: &SessionStatement,
        arguments: &Arguments,
    ) -> Result<Bound, Trouble> {
        let described = self.describe_held(prepared).await?;
        let arguments = arguments.clone();
        let arguments = self.computed(name, prepared, &described, arguments).await?;
        let values = arguments.as_params(&described.params);
        let values = values.ok_or(Failure::Retry)?;
        let mut message = BytesMut::new();
        frontend::encode::bind(&mut message, b"", b"", &[], &values, &[]);
        Ok(Bound {
            types: described.params.into_iter().map(portable).collect(),
            message,
            columns: described.columns.unwrap_or_default(),
        })
    }
}

/// An EXECUTE, as the extended query protocol would have it.
pub(in crate::session) struct Bound {
    types: Vec<u32>,
    message: BytesMut,
    /// The RowDescription of its result; empty if it has none.
    pub(in crate::session) columns: Bytes,
}

impl Bound {
    /// Its parameters: their types, as any server knows them, and the message they are in.
    pub(in crate::session) fn params(&self) -> Result<(Vec<u32>, Bind<'_>), Failure> {
        let bind = Bind::decode(self.message.get(HEADER..).unwrap_or_default());
        Ok((self.types.clone(), bind.map_err(Failure::InvalidMessage)?))
    }
}

/// The arguments of an EXECUTE, as far as they are plain constants.
#[derive(Clone)]
pub(in crate::session) struct Arguments {
    /// As they can be written, with parentheses; empty if there are none.
    pub(in crate::session) text: String,
    values: Vec<Option<Argument>>,
    /// They are not as the client wrote them.
    pub(in crate::session) computed: bool,
}

#[derive(Debug, Clone)]
enum Argument {
    Null,
    Value { text: Vec<u8>, oid: u32 },
}

impl Argument {
    fn as_param(&self, of: u32) -> Option<Option<&[u8]>> {
        let Argument::Value { text, oid } = self else {
            return Some(None);
        };
        let same = match *oid {
            INT8 => NUMBERS.contains(&of),
            NUMERIC => INEXACT.contains(&of),
            BOOL => of == BOOL,
            _ => true,
        };
        same.then_some(Some(text.as_slice()))
    }
}

const BOOL: u32 = 16;
const INT8: u32 = 20;
const NUMERIC: u32 = 1700;
/// The types of floating point, and numeric.
const INEXACT: [u32; 3] = [700, 701, NUMERIC];
/// All types of numbers.
const NUMBERS: [u32; 6] = [21, 23, INT8, 700, 701, NUMERIC];

impl Arguments {
    /// As they are written.
    pub(in crate::session) fn read(sql: &[u8], ranges: &[Range<u32>]) -> Self {
        let texts: Vec<&[u8]> = ranges
            .iter()
            .map(|range| {
                sql.get(range.start as usize..range.end as usize)
                    .unwrap_or_default()
            })
            .collect();
        let text = match texts.is_empty() {
            true => String::new(),
            false => format!("({})", String::from_utf8_lossy(&texts.join(&b", "[..]))),
        };
        Self {
            text,
            values: texts.into_iter().map(constant).collect(),
            computed: false,
        }
    }

    /// Values that are known, as the texts of their types.
    fn of(values: Vec<Option<Vec<u8>>>) -> Self {
        let written = values.iter().map(|value| match value {
            Some(text) => escape_literal(&String::from_utf8_lossy(text)),
            None => "NULL".to_owned(),
        });
        let text = format!("({})", written.collect::<Vec<_>>().join(", "));
        let known = |value| match value {
            Some(text) => Argument::Value { text, oid: 0 },
            None => Argument::Null,
        };
        Self {
            text,
            values: values.into_iter().map(|value| Some(known(value))).collect(),
            computed: true,
        }
    }

    /// How many there are.
    pub(in crate::session) fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether all of them are constants.
    pub(in crate::session) fn are_constant(&self) -> bool {
        self.values.iter().all(Option::is_some)
    }
}

/// The value of an argument that is one constant; anything else cannot be evaluated here.
fn constant(text: &[u8]) -> Option<Argument> {
    let text = text.trim_ascii();
    if text.eq_ignore_ascii_case(b"null") {
        return Some(Argument::Null);
    }
    if let Some(word) = ["true", "false"]
        .into_iter()
        .find(|word| text.eq_ignore_ascii_case(word.as_bytes()))
    {
        return Some(Argument::Value {
            text: word.as_bytes().to_vec(),
            oid: BOOL,
        });
    }
    let (negative, unsigned) = match text.strip_prefix(b"-") {
        Some(unsigned) => (true, unsigned),
        None => (false, text),
    };
    let mut scan = Scan::new();
    scan.scan(unsigned).ok()?;
    let [literal] = scan.literals.as_slice() else {
        return None;
    };
    if literal.span != (0..u32::try_from(unsigned.len()).ok()?) {
        return None;
    }
    match literal.kind {
        LiteralKind::String if negative => None,
        LiteralKind::String => {
            let inner = unsigned.get(1..unsigned.len().checked_sub(1)?)?;
            let unescaped = String::from_utf8_lossy(inner).replace("''", "'");
            Some(Argument::Value {
                text: unescaped.into_bytes(),
                oid: 0,
            })
        }
        LiteralKind::Integer => Some(Argument::Value {
            text: text.to_vec(),
            oid: INT8,
        }),
        LiteralKind::Decimal => Some(Argument::Value {
            text: text.to_vec(),
            oid: NUMERIC,
        }),
    }
}

impl Arguments {
    /// As parameters of these types, in text; `None` if they are not constants, or if the constants of an EXECUTE and the
    /// texts of parameters would not mean the same.
    pub(in crate::session) fn as_params(&self, types: &[u32]) -> Option<Vec<Option<&[u8]>>> {
        self.values
            .iter()
            .zip(types)
            .map(|(argument, of)| argument.as_ref()?.as_param(*of))
            .collect()
    }
}

impl Params for Arguments {
    fn param(&self, number: u16) -> Option<Param<'_>> {
        let index = usize::from(number).checked_sub(1)?;
        let (value, oid) = match self.values.get(index)?.as_ref()? {
            Argument::Null => (None, 0),
            Argument::Value { text, oid } => (Some(text.as_slice()), *oid),
        };
        Some(Param {
            value,
            binary: false,
            oid,
        })
    }
}
