//! The packets that open a connection. They have a length but no tag.

use crate::body::{DecodeError, Reader};

pub mod encode;

/// The largest startup packet PostgreSQL accepts, its length word not counted.
pub const MAX_STARTUP_PACKET: usize = 10_000;

/// The longest cancel key of protocol 3.2.
pub const MAX_CANCEL_SECRET: usize = 256;

const CANCEL_REQUEST: u32 = 80_877_102;
const SSL_REQUEST: u32 = 80_877_103;
const GSS_ENC_REQUEST: u32 = 80_877_104;

/// Whether these bytes can be the secret of a cancel key: four under 3.0, up to 256 under 3.2.
pub fn is_cancel_secret(secret: &[u8]) -> bool {
    (1..=MAX_CANCEL_SECRET).contains(&secret.len())
}

/// A version of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProtocolVersion {
    /// 3, always.
    pub major: u16,
    /// 0 or 2; there is no 1.
    pub minor: u16,
}

impl ProtocolVersion {
    /// What PostgreSQL has spoken since 7.4.
    pub const V3_0: ProtocolVersion = ProtocolVersion { major: 3, minor: 0 };
    /// What PostgreSQL 18 added: long cancel keys.
    pub const V3_2: ProtocolVersion = ProtocolVersion { major: 3, minor: 2 };

    /// The version as one word.
    pub fn word(self) -> u32 {
        u32::from(self.major) << 16 | u32::from(self.minor)
    }

    /// The version in a word.
    pub fn from_word(word: u32) -> ProtocolVersion {
        let [a, b, c, d] = word.to_be_bytes();
        ProtocolVersion {
            major: u16::from_be_bytes([a, b]),
            minor: u16::from_be_bytes([c, d]),
        }
    }
}

impl std::fmt::Display for ProtocolVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// The first packet, or one of the first, of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartupPacket<'a> {
    /// May we speak TLS?
    Ssl,
    /// May we speak GSSAPI encryption?
    GssEnc,
    /// Cancel what another connection runs. Nothing follows.
    Cancel {
        /// The process, as BackendKeyData had it.
        pid: i32,
        /// The secret, as BackendKeyData had it.
        secret: &'a [u8],
    },
    /// Begin a session. The version may be any: the caller negotiates or refuses.
    Startup {
        /// The version asked for.
        version: ProtocolVersion,
        /// User, database, settings and `_pq_.` options.
        params: Params<'a>,
    },
}

/// Names and values of a startup packet.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Params<'a>(&'a [u8]);

impl<'a> Params<'a> {
    /// All of them in order.
    pub fn iter(self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        let mut body = Reader(self.0);
        std::iter::from_fn(move || Some((body.cstr().ok()?, body.cstr().ok()?)))
    }

    /// The last value under this name, which is the one that counts.
    pub fn get(self, name: &str) -> Option<&'a [u8]> {
        self.iter()
            .filter_map(|(found, value)| (found == name.as_bytes()).then_some(value))
            .last()
    }

    /// Names of protocol extensions asked for.
    pub fn protocol_options(self) -> impl Iterator<Item = &'a [u8]> {
        self.iter()
            .map(|(name, _)| name)
            .filter(|name| name.starts_with(b"_pq_."))
    }

    fn read(body: &mut Reader<'a>) -> Result<Params<'a>, DecodeError> {
        let start = body.0;
        loop {
            // PostgreSQL takes a missing terminator, and bytes after it, for one and the same fault.
            let name = body
                .cstr()
                .map_err(|_| DecodeError::Invalid("startup packet layout"))?;
            if name.is_empty() {
                break;
            }
            body.cstr()
                .map_err(|_| DecodeError::Invalid("startup packet layout"))?;
        }
        if !body.0.is_empty() {
            return Err(DecodeError::Invalid("startup packet layout"));
        }
        Ok(Params(&start[..start.len() - 1]))
    }
}

impl std::fmt::Debug for Params<'_> {
    /// Names only: values may be secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list()
            .entries(self.iter().map(|(name, _)| String::from_utf8_lossy(name)))
            .finish()
    }
}

/// Why a startup packet could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StartupError {
    /// The length word is out of bounds. PostgreSQL closes the connection without a word.
    #[error("invalid length of startup packet: {0}")]
    Length(u32),
    /// A cancel request of the wrong size. PostgreSQL closes the connection without a word.
    #[error("invalid length of cancel request packet")]
    CancelLength,
    /// Names and values do not end as they should: 08P01.
    #[error("invalid startup packet layout: expected terminator as last byte")]
    Layout,
}

/// Bytes of the whole packet at the start of `buf`, length word included; `None` if fewer than four are there.
pub fn packet_len(buf: &[u8]) -> Result<Option<usize>, StartupError> {
    let Some((word, _)) = buf.split_first_chunk::<4>() else {
        return Ok(None);
    };
    let length = u32::from_be_bytes(*word);
    // The length word counts itself; a version word must follow.
    if length < 8 || length as usize > MAX_STARTUP_PACKET + 4 {
        return Err(StartupError::Length(length));
    }
    Ok(Some(length as usize))
}

/// Decodes what follows the length word.
pub fn decode_startup(body: &[u8]) -> Result<StartupPacket<'_>, StartupError> {
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
    if body.len() > MAX_STARTUP_PACKET {
        return Err(StartupError::Length(length));
    }
    let mut body = Reader(body);
    let word = body.u32().map_err(|_| StartupError::Length(length))?;
    match word {
        SSL_REQUEST => Ok(StartupPacket::Ssl),
        GSS_ENC_REQUEST => Ok(StartupPacket::GssEnc),
        CANCEL_REQUEST => {
            let pid = body.i32().map_err(|_| StartupError::CancelLength)?;
            let secret = body.rest();
            if !is_cancel_secret(secret) {
                return Err(StartupError::CancelLength);
            }
            Ok(StartupPacket::Cancel { pid, secret })
        }
        word => {
            let version = ProtocolVersion::from_word(word);
            // What another major version puts here is not known; the caller refuses it by its number.
            let params = match version.major {
                3 => Params::read(&mut body).map_err(|_| StartupError::Layout)?,
                _ => Params(&[]),
            };
            Ok(StartupPacket::Startup { version, params })
        }
    }
}
