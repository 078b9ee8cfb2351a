//! Who may connect, and how they prove who they are: `[auth]` and `[[users]]`.

use std::path::PathBuf;

use crate::model::Secret;

/// `[auth]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Auth {
    /// How clients prove who they are.
    pub method: AuthMethod,
    /// Rules in the form of `pg_hba.conf`, for [`AuthMethod::Hba`].
    pub hba_file: Option<PathBuf>,
    /// Whose certificates stand for which users, in the form of `pg_ident.conf`.
    pub ident_file: Option<PathBuf>,
    /// The map of `ident_file` for [`AuthMethod::Cert`].
    pub cert_map: Option<String>,
    /// How users are found that are not in the file.
    pub lookup: Option<UserLookup>,
}

/// How users are found that are not in the file: PgBouncer's `auth_user`, `auth_query`, `auth_dbname`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserLookup {
    /// As whom: a user of the file.
    pub user: String,
    /// The query: `$1` is the name; it returns a name and a password.
    pub query: String,
    /// Where; none: in the database that the client asks for.
    pub database: Option<String>,
}

impl UserLookup {
    /// What is asked where the file does not say: nothing in it depends on `search_path`, and a password is good until
    /// `rolvaliduntil`, for roles that may log in.
    pub const QUERY: &str = "\
SELECT r.rolname, CASE WHEN r.rolvaliduntil IS NULL OR r.rolvaliduntil OPERATOR(pg_catalog.>) pg_catalog.now() THEN r.rolpassword END
  FROM pg_catalog.pg_authid AS r WHERE r.rolname OPERATOR(pg_catalog.=) $1 AND r.rolcanlogin";
}

/// How clients prove who they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthMethod {
    /// Not at all.
    Trust,
    /// By password, SCRAM-SHA-256.
    ScramSha256,
    /// By a TLS certificate whose common name is the user.
    Cert,
    /// As rules say, by where they come from.
    Hba,
}

/// `[[users]]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// The user's name, here and on the nodes.
    pub name: String,
    /// What the client proves to the router and the router to the nodes.
    pub password: Option<Secret>,
    /// Whether the user may use the admin console.
    pub admin: bool,
    /// Whether the user may look at what the admin console shows.
    pub stats: bool,
}
