//! Why a client is not let in, and what it is told.

use std::io;

use switchyard_wire::backend::ErrorReport;
use switchyard_wire::scram::ServerError;
use switchyard_wire::startup::{ProtocolVersion, StartupError};
use switchyard_wire::{DecodeError, SqlState};

/// Why a client is not let in. Texts are PostgreSQL's where it has one.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The client went away, or its network did.
    #[error("the connection was lost: {0}")]
    Lost(#[from] io::Error),
    /// The client has left without a word: a probe of a load balancer, or of somebody else.
    #[error("the client left")]
    Left,
    /// `client_login_timeout` is over.
    #[error("canceling authentication due to timeout")]
    Timeout,
    /// The first packet is none.
    #[error(transparent)]
    Packet(#[from] StartupError),
    /// A message during authentication is none.
    #[error(transparent)]
    Message(#[from] DecodeError),
    /// The client says something else than what is due.
    #[error("expected {expected}, got message type {found}")]
    Unexpected {
        /// What is due.
        expected: &'static str,
        /// The tag of what came.
        found: u8,
    },
    /// A message during authentication is too large.
    #[error("invalid message length")]
    TooLarge,
    /// The client spoke on before the answer to its request for encryption.
    #[error("received unencrypted data after {0} request")]
    EarlyData(&'static str),
    /// TLS without being asked whether we do, and we do not.
    #[error("direct SSL connection was not accepted")]
    DirectTls,
    /// TLS without being asked whether we do, for another protocol than PostgreSQL's.
    #[error("received direct SSL connection request without ALPN protocol negotiation extension")]
    NoAlpn,
    /// The TLS handshake failed.
    #[error("could not accept SSL connection: {0}")]
    Handshake(#[source] io::Error),
    /// A version of the protocol that is not spoken here.
    #[error("unsupported frontend protocol {0}: server supports 3.0 to {max}", max = ProtocolVersion::V3_2)]
    Version(ProtocolVersion),
    /// No user in the startup packet.
    #[error("no PostgreSQL user name specified in startup packet")]
    NoUser,
    /// A name or value of the startup packet is no text.
    #[error("invalid byte sequence for encoding \"UTF8\" in startup packet")]
    Encoding,
    /// A switch inside `options` that is no setting.
    #[error("invalid command-line argument for server process: {0}")]
    Option(String),
    /// A replication connection.
    #[error("replication connections are not supported")]
    Replication,
    /// The configuration demands TLS.
    #[error("SSL connection is required")]
    TlsRequired,
    /// No room.
    #[error("sorry, too many clients already")]
    TooManyClients,
    /// The router is about to end.
    #[error("the database system is shutting down")]
    ShuttingDown,
    /// The exchange failed in another way than by a wrong password.
    #[error(transparent)]
    Scram(ServerError),
    /// The password is wrong, or there is no such user: nobody shall know which.
    #[error("password authentication failed for user \"{0}\"")]
    Password(String),
    /// So many logins from this address have failed that this one would wait too long.
    #[error("too many failed logins from this address")]
    TooManyFailures,
    /// No certificate where one is demanded.
    #[error("connection requires a valid client certificate")]
    NoCertificate,
    /// The certificate is somebody else's.
    #[error("certificate authentication failed for user \"{0}\"")]
    Certificate(String),
    /// No rule is for it. In PostgreSQL's words.
    #[error("no pg_hba.conf entry for {0}")]
    NoRule(String),
    /// A rule keeps it out. In PostgreSQL's words.
    #[error("pg_hba.conf rejects connection for {0}")]
    Rejected(String),
    /// Whether there is such a user could not be asked.
    #[error("the user could not be looked up")]
    Lookup,
    /// No such user, among those that need prove nothing or have proved their name.
    #[error("role \"{0}\" does not exist")]
    NoRole(String),
    /// The admin console is not for this user.
    #[error("permission denied for database \"{0}\"")]
    Console(String),
    /// The system has no random numbers.
    #[error("could not generate random cancel key")]
    Random(getrandom::Error),
}

impl Refusal {
    /// The code the client is told; `None` if it is told nothing.
    #[must_use]
    pub fn sqlstate(&self) -> Option<SqlState> {
        Some(match self {
            Self::Lost(_)
            | Self::Left
            | Self::Packet(StartupError::Length(_) | StartupError::CancelLength)
            | Self::DirectTls
            | Self::NoAlpn
            | Self::Handshake(_) => return None,
            Self::Timeout => SqlState::QUERY_CANCELED,
            Self::Packet(StartupError::Layout)
            | Self::Unexpected { .. }
            | Self::TooLarge
            | Self::EarlyData(_) => SqlState::PROTOCOL_VIOLATION,
            Self::Message(error) => error.sqlstate(),
            Self::Version(_) | Self::Replication => SqlState::FEATURE_NOT_SUPPORTED,
            Self::Encoding => SqlState::CHARACTER_NOT_IN_REPERTOIRE,
            Self::Option(_) => SqlState::SYNTAX_ERROR,
            Self::Lookup => SqlState::CANNOT_CONNECT_NOW,
            Self::TooManyClients => SqlState::TOO_MANY_CONNECTIONS,
            Self::ShuttingDown => SqlState::CANNOT_CONNECT_NOW,
            Self::Scram(error) => error.sqlstate(),
            Self::Password(_) => SqlState::INVALID_PASSWORD,
            Self::NoUser
            | Self::TlsRequired
            | Self::TooManyFailures
            | Self::NoCertificate
            | Self::Certificate(_)
            | Self::NoRule(_)
            | Self::Rejected(_)
            | Self::NoRole(_) => SqlState::INVALID_AUTHORIZATION_SPECIFICATION,
            Self::Console(_) => SqlState::INSUFFICIENT_PRIVILEGE,
            Self::Random(_) => SqlState::INTERNAL_ERROR,
        })
    }

    /// What the client is told; `None` if nothing.
    #[must_use]
    pub fn report(&self) -> Option<ErrorReport<'static>> {
        let mut report = ErrorReport::fatal(self.sqlstate()?, self.to_string());
        report.detail = self.detail().map(Into::into);
        if matches!(self, Self::Replication) {
            report =
                report.hint("Connect to the PostgreSQL servers of the shards for replication.");
        }
        Some(report)
    }

    fn detail(&self) -> Option<String> {
        if let Self::Scram(error) = self {
            return error.detail();
        }
        let text = if matches!(self, Self::EarlyData(_)) {
            "This could be either a client-software bug or evidence of an attempted man-in-the-middle attack."
        } else if matches!(self, Self::Console(_)) {
            "User does not have CONNECT privilege."
        } else {
            return None;
        };
        Some(text.to_owned())
    }
}
