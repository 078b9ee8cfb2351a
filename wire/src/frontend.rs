//! Messages a client sends after startup.

pub mod encode;

use bytes::BytesMut;

use crate::body::{DecodeError, Reader};
use crate::frame::MAX_MESSAGE;
use crate::list::{Format, Formats, Oids, Values};

/// Tags of frontend messages.
pub mod tag {
    #![expect(
        missing_docs,
        reason = "each constant is the message it is named after"
    )]
    pub const BIND: u8 = b'B';
    pub const CLOSE: u8 = b'C';
    pub const COPY_DATA: u8 = b'd';
    pub const COPY_DONE: u8 = b'c';
    pub const COPY_FAIL: u8 = b'f';
    pub const DESCRIBE: u8 = b'D';
    pub const EXECUTE: u8 = b'E';
    pub const FLUSH: u8 = b'H';
    pub const FUNCTION_CALL: u8 = b'F';
    pub const PARSE: u8 = b'P';
    pub const PASSWORD: u8 = b'p';
    pub const QUERY: u8 = b'Q';
    pub const SYNC: u8 = b'S';
    pub const TERMINATE: u8 = b'X';
}

/// What a Describe or Close names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A prepared statement.
    Statement,
    /// A portal.
    Portal,
}

impl Kind {
    fn code(self) -> u8 {
        match self {
            Kind::Statement => b'S',
            Kind::Portal => b'P',
        }
    }
}

/// A message from a client. Texts are without their NUL, in the client's encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// Run a text of any number of statements.
    Query {
        /// The text.
        sql: &'a [u8],
    },
    /// Prepare a statement.
    Parse {
        /// Its name, empty for the unnamed one.
        name: &'a [u8],
        /// Its text.
        sql: &'a [u8],
        /// Types of its first parameters; 0 leaves one to the server.
        param_types: Oids<'a>,
    },
    /// Give a statement its parameters.
    Bind(Bind<'a>),
    /// Ask for the shape of a statement or portal.
    Describe {
        /// Which of the two.
        kind: Kind,
        /// Its name.
        name: &'a [u8],
    },
    /// Drop a statement or portal.
    Close {
        /// Which of the two.
        kind: Kind,
        /// Its name.
        name: &'a [u8],
    },
    /// Run a portal.
    Execute {
        /// Its name.
        portal: &'a [u8],
        /// Stop after so many rows; 0 or less for no limit.
        max_rows: i32,
    },
    /// End of a series of extended messages.
    Sync,
    /// Send what you have.
    Flush,
    /// A piece of COPY input.
    CopyData(&'a [u8]),
    /// End of COPY input.
    CopyDone,
    /// COPY input cannot be completed.
    CopyFail {
        /// Why.
        reason: &'a [u8],
    },
    /// Call a function by its id.
    FunctionCall {
        /// The function's id.
        function: u32,
        /// How the arguments are written.
        arg_formats: Formats<'a>,
        /// The arguments.
        args: Values<'a>,
        /// How the result shall be written.
        result_format: Format,
    },
    /// Anything said in the course of authentication; see [`password`], [`SaslInitialResponse`].
    Password(&'a [u8]),
    /// Good-bye.
    Terminate,
}

/// The body of a Bind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bind<'a> {
    /// The portal to make, empty for the unnamed one.
    pub portal: &'a [u8],
    /// The statement.
    pub statement: &'a [u8],
    /// How the parameters are written.
    pub param_formats: Formats<'a>,
    /// The parameters.
    pub params: Values<'a>,
    /// How the columns of the result shall be written.
    pub result_formats: Formats<'a>,
    /// All that follows the names, as it stands in the message.
    values: &'a [u8],
}

impl<'a> Bind<'a> {
    /// Decodes the body of a Bind.
    #[inline]
    pub fn decode(body: &'a [u8]) -> Result<Bind<'a>, DecodeError> {
        let mut body = Reader(body);
        let portal = body.cstr()?;
        let statement = body.cstr()?;
        let values = body.0;
        let param_formats = Formats::read(&mut body)?;
        let params = Values::read(&mut body)?;
        param_formats.check_count(params.len())?;
        let result_formats = Formats::read(&mut body)?;
        body.end()?;
        Ok(Bind {
            portal,
            statement,
            param_formats,
            params,
            result_formats,
            values,
        })
    }
}

/// The largest length word PostgreSQL accepts for messages that carry no data of the user.
pub const MAX_SMALL_MESSAGE: usize = 10_000;

/// The largest length word PostgreSQL accepts for this tag; `None` if there is no such message. PostgreSQL closes the
/// connection when it is exceeded.
pub fn max_length(tag: u8) -> Option<usize> {
    match tag {
        tag::QUERY | tag::PARSE | tag::BIND | tag::FUNCTION_CALL | tag::COPY_DATA => {
            Some(MAX_MESSAGE)
        }
        tag::PASSWORD => Some(MAX_PASSWORD_MESSAGE),
        tag::CLOSE
        | tag::DESCRIBE
        | tag::EXECUTE
        | tag::FLUSH
        | tag::SYNC
        | tag::TERMINATE
        | tag::COPY_DONE
        | tag::COPY_FAIL => Some(MAX_SMALL_MESSAGE),
        _ => None,
    }
}

/// The largest length word PostgreSQL accepts while it authenticates (`PG_MAX_AUTH_TOKEN_LENGTH`).
pub const MAX_PASSWORD_MESSAGE: usize = 65_535;

/// Decodes the body of a message.
pub fn decode(tag: u8, body: &[u8]) -> Result<Message<'_>, DecodeError> {
    let mut body = Reader(body);
    let message = match tag {
        tag::QUERY => Message::Query { sql: body.cstr()? },
        tag::PARSE => Message::Parse {
            name: body.cstr()?,
            sql: body.cstr()?,
            param_types: Oids::read(&mut body)?,
        },
        tag::BIND => Message::Bind(Bind::decode(body.rest())?),
        tag::DESCRIBE => Message::Describe {
            kind: kind(&mut body)?,
            name: body.cstr()?,
        },
        tag::CLOSE => Message::Close {
            kind: kind(&mut body)?,
            name: body.cstr()?,
        },
        tag::EXECUTE => Message::Execute {
            portal: body.cstr()?,
            max_rows: body.i32()?,
        },
        tag::SYNC => Message::Sync,
        tag::FLUSH => Message::Flush,
        tag::COPY_DATA => Message::CopyData(body.rest()),
        tag::COPY_DONE => Message::CopyDone,
        tag::COPY_FAIL => Message::CopyFail {
            reason: body.cstr()?,
        },
        tag::FUNCTION_CALL => function_call(&mut body)?,
        tag::PASSWORD => Message::Password(body.rest()),
        tag::TERMINATE => Message::Terminate,
        other => return Err(DecodeError::UnknownTag(other)),
    };
    body.end()?;
    Ok(message)
}

fn kind(body: &mut Reader<'_>) -> Result<Kind, DecodeError> {
    match body.u8()? {
        b'S' => Ok(Kind::Statement),
        b'P' => Ok(Kind::Portal),
        _ => Err(DecodeError::Invalid("object kind")),
    }
}

fn function_call<'a>(body: &mut Reader<'a>) -> Result<Message<'a>, DecodeError> {
    let function = body.u32()?;
    let arg_formats = Formats::read(body)?;
    let args = Values::read(body)?;
    arg_formats.check_count(args.len())?;
    Ok(Message::FunctionCall {
        function,
        arg_formats,
        args,
        result_format: Format::from_code(body.i16()?)?,
    })
}

impl Message<'_> {
    /// Appends the message.
    pub fn encode(&self, dst: &mut BytesMut) {
        match *self {
            Message::Query { sql } => encode::query(dst, sql),
            Message::Parse {
                name,
                sql,
                param_types,
            } => encode::parse_like(dst, name, sql, param_types),
            Message::Bind(bind) => encode::bind_like(dst, &bind, bind.statement),
            Message::Describe { kind, name } => encode::describe(dst, kind, name),
            Message::Close { kind, name } => encode::close(dst, kind, name),
            Message::Execute { portal, max_rows } => encode::execute(dst, portal, max_rows),
            Message::Sync => encode::sync(dst),
            Message::Flush => encode::flush(dst),
            Message::CopyData(data) => encode::copy_data(dst, data),
            Message::CopyDone => encode::copy_done(dst),
            Message::CopyFail { reason } => encode::copy_fail(dst, reason),
            Message::FunctionCall {
                function,
                arg_formats,
                args,
                result_format,
            } => encode::function_call_like(dst, function, arg_formats, args, result_format),
            Message::Password(data) => encode::sasl_response(dst, data),
            Message::Terminate => encode::terminate(dst),
        }
    }
}

/// Reads the body of a Password message as a password.
pub fn password(body: &[u8]) -> Result<&[u8], DecodeError> {
    let mut body = Reader(body);
    let password = body.cstr()?;
    body.end()?;
    Ok(password)
}

/// A client's choice of SASL mechanism, in the body of a Password message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SaslInitialResponse<'a> {
    /// The mechanism.
    pub mechanism: &'a [u8],
    /// What the mechanism says first, if anything.
    pub response: Option<&'a [u8]>,
}

impl<'a> SaslInitialResponse<'a> {
    /// Reads the body of a Password message.
    pub fn decode(body: &'a [u8]) -> Result<SaslInitialResponse<'a>, DecodeError> {
        let mut body = Reader(body);
        let mechanism = body.cstr()?;
        let response = match body.i32()? {
            -1 => None,
            len => Some(body.take(usize::try_from(len).map_err(|_| DecodeError::Truncated)?)?),
        };
        body.end()?;
        Ok(SaslInitialResponse {
            mechanism,
            response,
        })
    }
}
