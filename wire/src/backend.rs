//! Messages a server sends after startup.

pub mod encode;
mod report;
mod rows;

use std::fmt;

use bytes::BytesMut;

use crate::body::{DecodeError, Reader};
use crate::list::{Format, Formats, Oids, Values};
use crate::startup::ProtocolVersion;

pub use report::{Constraint, ErrorReport, Fields, Severity};
pub use rows::{Column, Columns};

/// Tags of backend messages.
pub mod tag {
    #![expect(
        missing_docs,
        reason = "each constant is the message it is named after"
    )]
    pub const AUTHENTICATION: u8 = b'R';
    pub const BACKEND_KEY_DATA: u8 = b'K';
    pub const BIND_COMPLETE: u8 = b'2';
    pub const CLOSE_COMPLETE: u8 = b'3';
    pub const COMMAND_COMPLETE: u8 = b'C';
    pub const COPY_BOTH_RESPONSE: u8 = b'W';
    pub const COPY_DATA: u8 = b'd';
    pub const COPY_DONE: u8 = b'c';
    pub const COPY_IN_RESPONSE: u8 = b'G';
    pub const COPY_OUT_RESPONSE: u8 = b'H';
    pub const DATA_ROW: u8 = b'D';
    pub const EMPTY_QUERY_RESPONSE: u8 = b'I';
    pub const ERROR_RESPONSE: u8 = b'E';
    pub const FUNCTION_CALL_RESPONSE: u8 = b'V';
    pub const NEGOTIATE_PROTOCOL_VERSION: u8 = b'v';
    pub const NO_DATA: u8 = b'n';
    pub const NOTICE_RESPONSE: u8 = b'N';
    pub const NOTIFICATION_RESPONSE: u8 = b'A';
    pub const PARAMETER_DESCRIPTION: u8 = b't';
    pub const PARAMETER_STATUS: u8 = b'S';
    pub const PARSE_COMPLETE: u8 = b'1';
    pub const PORTAL_SUSPENDED: u8 = b's';
    pub const READY_FOR_QUERY: u8 = b'Z';
    pub const ROW_DESCRIPTION: u8 = b'T';
}

/// A step of authentication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Authentication<'a> {
    /// Done.
    Ok,
    /// Kerberos V5; no server sends it any more.
    KerberosV5,
    /// Send the password.
    CleartextPassword,
    /// Send the password's MD5 form.
    Md5Password {
        /// What to mix in.
        salt: [u8; 4],
    },
    /// SCM credentials; no server sends it any more.
    ScmCredential,
    /// Begin GSSAPI.
    Gss,
    /// More GSSAPI or SSPI data.
    GssContinue(&'a [u8]),
    /// Begin SSPI.
    Sspi,
    /// Choose a SASL mechanism.
    Sasl(Mechanisms<'a>),
    /// A challenge of the mechanism.
    SaslContinue(&'a [u8]),
    /// The mechanism's last word.
    SaslFinal(&'a [u8]),
}

/// Names of SASL mechanisms, the server's favourite first.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Mechanisms<'a>(&'a [u8]);

impl<'a> Mechanisms<'a> {
    /// All of them in order.
    pub fn iter(self) -> impl Iterator<Item = &'a [u8]> {
        self.0.split(|&b| b == 0).filter(|name| !name.is_empty())
    }

    fn read(body: &mut Reader<'a>) -> Result<Mechanisms<'a>, DecodeError> {
        let start = body.0;
        while !body.cstr()?.is_empty() {}
        let used = start.len() - body.0.len();
        Ok(Mechanisms(&start[..used - 1]))
    }
}

impl fmt::Debug for Mechanisms<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.iter().map(String::from_utf8_lossy))
            .finish()
    }
}

/// How the columns of a COPY are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyResponse<'a> {
    /// The format of the whole.
    pub format: Format,
    /// The format of each column.
    pub columns: Formats<'a>,
}

impl<'a> CopyResponse<'a> {
    fn read(body: &mut Reader<'a>) -> Result<CopyResponse<'a>, DecodeError> {
        Ok(CopyResponse {
            format: Format::from_code(i16::from(body.u8()?))?,
            columns: Formats::read(body)?,
        })
    }
}

/// Where a session stands between queries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TransactionStatus {
    /// In no transaction block.
    Idle,
    /// In one.
    InBlock,
    /// In one that failed and must be rolled back.
    Failed,
}

impl TransactionStatus {
    /// The protocol's byte for it.
    pub fn code(self) -> u8 {
        match self {
            TransactionStatus::Idle => b'I',
            TransactionStatus::InBlock => b'T',
            TransactionStatus::Failed => b'E',
        }
    }

    fn from_code(code: u8) -> Result<TransactionStatus, DecodeError> {
        match code {
            b'I' => Ok(TransactionStatus::Idle),
            b'T' => Ok(TransactionStatus::InBlock),
            b'E' => Ok(TransactionStatus::Failed),
            _ => Err(DecodeError::Invalid("transaction status")),
        }
    }
}

/// Names of protocol options the server does not know.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct OptionNames<'a> {
    count: u32,
    bytes: &'a [u8],
}

impl<'a> OptionNames<'a> {
    /// How many there are.
    pub fn len(self) -> usize {
        self.count as usize
    }

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.count == 0
    }

    /// All of them in order.
    pub fn iter(self) -> impl Iterator<Item = &'a [u8]> {
        self.bytes.split(|&b| b == 0).take(self.len())
    }

    fn read(body: &mut Reader<'a>) -> Result<OptionNames<'a>, DecodeError> {
        let count = body.u32()?;
        let start = body.0;
        for _ in 0..count {
            body.cstr()?;
        }
        let bytes = &start[..start.len() - body.0.len()];
        Ok(OptionNames { count, bytes })
    }
}

impl fmt::Debug for OptionNames<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.iter().map(String::from_utf8_lossy))
            .finish()
    }
}

/// A message from a server. Texts are without their NUL, in the client's encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// A step of authentication.
    Authentication(Authentication<'a>),
    /// What a cancel request must know.
    BackendKeyData {
        /// The backend's process.
        pid: i32,
        /// Its secret: 4 bytes under 3.0, up to 256 under 3.2.
        secret: &'a [u8],
    },
    /// Bind succeeded.
    BindComplete,
    /// Close succeeded.
    CloseComplete,
    /// A statement succeeded.
    CommandComplete {
        /// The command tag.
        tag: &'a [u8],
    },
    /// The server waits for COPY input.
    CopyInResponse(CopyResponse<'a>),
    /// COPY output follows.
    CopyOutResponse(CopyResponse<'a>),
    /// COPY in both directions: replication.
    CopyBothResponse(CopyResponse<'a>),
    /// A piece of COPY output.
    CopyData(&'a [u8]),
    /// End of COPY output.
    CopyDone,
    /// A row.
    DataRow(Values<'a>),
    /// The text had no statement in it.
    EmptyQueryResponse,
    /// A statement, or the connection, failed.
    ErrorResponse(Fields<'a>),
    /// The result of a function call, `None` for NULL.
    FunctionCallResponse(Option<&'a [u8]>),
    /// The server speaks an older protocol or lacks options asked for.
    NegotiateProtocolVersion {
        /// The newest version it speaks.
        version: ProtocolVersion,
        /// The options it does not know.
        unknown_options: OptionNames<'a>,
    },
    /// What was described returns no rows.
    NoData,
    /// A warning or remark.
    NoticeResponse(Fields<'a>),
    /// A NOTIFY.
    NotificationResponse {
        /// Who notified.
        pid: i32,
        /// The channel.
        channel: &'a [u8],
        /// What was said.
        payload: &'a [u8],
    },
    /// Types of a statement's parameters.
    ParameterDescription(Oids<'a>),
    /// A setting's value, at startup and when it changes.
    ParameterStatus {
        /// The setting.
        name: &'a [u8],
        /// Its value.
        value: &'a [u8],
    },
    /// Parse succeeded.
    ParseComplete,
    /// A portal has more rows than were asked for.
    PortalSuspended,
    /// The next query may come.
    ReadyForQuery(TransactionStatus),
    /// The columns of the rows that follow.
    RowDescription(Columns<'a>),
}

/// Decodes the body of a message.
pub fn decode(tag: u8, body: &[u8]) -> Result<Message<'_>, DecodeError> {
    let mut body = Reader(body);
    let message = match tag {
        tag::DATA_ROW => Message::DataRow(Values::read(&mut body)?),
        tag::COMMAND_COMPLETE => Message::CommandComplete { tag: body.cstr()? },
        tag::READY_FOR_QUERY => Message::ReadyForQuery(TransactionStatus::from_code(body.u8()?)?),
        tag::ROW_DESCRIPTION => Message::RowDescription(Columns::read(&mut body)?),
        tag::PARSE_COMPLETE => Message::ParseComplete,
        tag::BIND_COMPLETE => Message::BindComplete,
        tag::CLOSE_COMPLETE => Message::CloseComplete,
        tag::NO_DATA => Message::NoData,
        tag::PORTAL_SUSPENDED => Message::PortalSuspended,
        tag::EMPTY_QUERY_RESPONSE => Message::EmptyQueryResponse,
        tag::ERROR_RESPONSE => Message::ErrorResponse(Fields::read(&mut body)?),
        tag::NOTICE_RESPONSE => Message::NoticeResponse(Fields::read(&mut body)?),
        tag::PARAMETER_STATUS => Message::ParameterStatus {
            name: body.cstr()?,
            value: body.cstr()?,
        },
        tag::PARAMETER_DESCRIPTION => Message::ParameterDescription(Oids::read(&mut body)?),
        tag::COPY_DATA => Message::CopyData(body.rest()),
        tag::COPY_DONE => Message::CopyDone,
        tag::COPY_IN_RESPONSE => Message::CopyInResponse(CopyResponse::read(&mut body)?),
        tag::COPY_OUT_RESPONSE => Message::CopyOutResponse(CopyResponse::read(&mut body)?),
        tag::COPY_BOTH_RESPONSE => Message::CopyBothResponse(CopyResponse::read(&mut body)?),
        tag::NOTIFICATION_RESPONSE => Message::NotificationResponse {
            pid: body.i32()?,
            channel: body.cstr()?,
            payload: body.cstr()?,
        },
        tag::FUNCTION_CALL_RESPONSE => Message::FunctionCallResponse(optional(&mut body)?),
        tag::BACKEND_KEY_DATA => key_data(&mut body)?,
        tag::AUTHENTICATION => Message::Authentication(authentication(&mut body)?),
        tag::NEGOTIATE_PROTOCOL_VERSION => Message::NegotiateProtocolVersion {
            version: ProtocolVersion::from_word(body.u32()?),
            unknown_options: OptionNames::read(&mut body)?,
        },
        other => return Err(DecodeError::UnknownTag(other)),
    };
    body.end()?;
    Ok(message)
}

fn optional<'a>(body: &mut Reader<'a>) -> Result<Option<&'a [u8]>, DecodeError> {
    match body.i32()? {
        -1 => Ok(None),
        len => body
            .take(usize::try_from(len).map_err(|_| DecodeError::Truncated)?)
            .map(Some),
    }
}

fn key_data<'a>(body: &mut Reader<'a>) -> Result<Message<'a>, DecodeError> {
    let pid = body.i32()?;
    let secret = body.rest();
    if !crate::startup::is_cancel_secret(secret) {
        return Err(DecodeError::Invalid("cancel key"));
    }
    Ok(Message::BackendKeyData { pid, secret })
}

fn authentication<'a>(body: &mut Reader<'a>) -> Result<Authentication<'a>, DecodeError> {
    Ok(match body.i32()? {
        0 => Authentication::Ok,
        2 => Authentication::KerberosV5,
        3 => Authentication::CleartextPassword,
        5 => Authentication::Md5Password {
            salt: body.array()?,
        },
        6 => Authentication::ScmCredential,
        7 => Authentication::Gss,
        8 => Authentication::GssContinue(body.rest()),
        9 => Authentication::Sspi,
        10 => Authentication::Sasl(Mechanisms::read(body)?),
        11 => Authentication::SaslContinue(body.rest()),
        12 => Authentication::SaslFinal(body.rest()),
        _ => return Err(DecodeError::Invalid("authentication request")),
    })
}

impl Message<'_> {
    /// Appends the message.
    pub fn encode(&self, dst: &mut BytesMut) {
        match *self {
            Message::Authentication(step) => encode::authentication(dst, step),
            Message::BackendKeyData { pid, secret } => encode::backend_key_data(dst, pid, secret),
            Message::BindComplete => encode::bind_complete(dst),
            Message::CloseComplete => encode::close_complete(dst),
            Message::CommandComplete { tag } => encode::command_complete(dst, tag),
            Message::CopyInResponse(copy) => {
                encode::copy_response_like(dst, tag::COPY_IN_RESPONSE, copy)
            }
            Message::CopyOutResponse(copy) => {
                encode::copy_response_like(dst, tag::COPY_OUT_RESPONSE, copy)
            }
            Message::CopyBothResponse(copy) => {
                encode::copy_response_like(dst, tag::COPY_BOTH_RESPONSE, copy)
            }
            Message::CopyData(data) => encode::copy_data(dst, data),
            Message::CopyDone => encode::copy_done(dst),
            Message::DataRow(values) => encode::data_row_like(dst, values),
            Message::EmptyQueryResponse => encode::empty_query(dst),
            Message::ErrorResponse(fields) => {
                encode::fields(dst, tag::ERROR_RESPONSE, fields.iter())
            }
            Message::NoticeResponse(fields) => {
                encode::fields(dst, tag::NOTICE_RESPONSE, fields.iter())
            }
            Message::FunctionCallResponse(value) => encode::function_call_response(dst, value),
            Message::NegotiateProtocolVersion {
                version,
                unknown_options,
            } => {
                encode::negotiate_protocol_version_like(
                    dst,
                    version,
                    unknown_options.count,
                    unknown_options.iter(),
                );
            }
            Message::NoData => encode::no_data(dst),
            Message::NotificationResponse {
                pid,
                channel,
                payload,
            } => {
                encode::notification_response(dst, pid, channel, payload);
            }
            Message::ParameterDescription(oids) => encode::parameter_description_like(dst, oids),
            Message::ParameterStatus { name, value } => encode::parameter_status(dst, name, value),
            Message::ParseComplete => encode::parse_complete(dst),
            Message::PortalSuspended => encode::portal_suspended(dst),
            Message::ReadyForQuery(status) => encode::ready_for_query(dst, status),
            Message::RowDescription(columns) => encode::row_description_like(dst, columns),
        }
    }
}
