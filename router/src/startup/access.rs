//! Who may enter, and how they prove it: the part of the configuration that startup needs, made ready.
//!
//! Invariant: an [`Access`] is a value; a reload makes another, and connections that are being judged go on with theirs.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use switchyard_schema::AuthMethod;
use switchyard_wire::scram::Verifier;
use zeroize::Zeroizing;

use super::tls::{ClientTls, TlsError};
use crate::config::Settings;

/// Names of the admin console's database.
const CONSOLE: [&str; 2] = ["switchyard", "pgbouncer"];

/// Whether a database is the admin console.
#[must_use]
pub fn is_console(database: &str) -> bool {
    CONSOLE.contains(&database)
}

/// Who may enter, and how they prove it.
#[derive(Debug)]
pub struct Access {
    method: AuthMethod,
    users: HashMap<String, AccessUser>,
    tls: Option<ClientTls>,
    login_timeout: Duration,
    max_login_failures: u32,
    secret: LoginSecret,
}

/// A user who may enter.
#[derive(Debug)]
pub struct AccessUser {
    verifier: Option<Verifier>,
    /// Whether the admin console is open to the user.
    pub admin: bool,
}

/// What salts are made of, so that users who do not exist have one, too, and always the same. It must last as long as
/// the process, or a reload would tell who exists.
#[derive(Clone)]
pub struct LoginSecret(Zeroizing<[u8; 32]>);

impl LoginSecret {
    /// A random one.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub fn random() -> Result<Self, getrandom::Error> {
        let mut secret = Zeroizing::new([0; 32]);
        getrandom::fill(&mut *secret)?;
        Ok(Self(secret))
    }
}

impl fmt::Debug for LoginSecret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("LoginSecret(..)")
    }
}

impl Access {
    /// Makes the configuration ready: reads certificates and derives what passwords are checked against, which costs
    /// milliseconds for each user.
    ///
    /// # Errors
    /// [`TlsError`]: certificate or key cannot be used.
    pub fn new(settings: &Settings, secret: &LoginSecret) -> Result<Self, TlsError> {
        let router = &settings.file.router;
        let method = settings.file.auth.method;
        let tls = router
            .tls
            .as_ref()
            .map(|tls| ClientTls::load(tls, method == AuthMethod::Cert))
            .transpose()?;
        let users = settings
            .users
            .iter()
            .map(|user| {
                let verifier = match (&user.password, method) {
                    (Some(password), AuthMethod::ScramSha256) => {
                        Some(verifier(password.reveal(), secret, &user.name))
                    }
                    _ => None,
                };
                let admin = user.admin;
                (user.name.to_string(), AccessUser { verifier, admin })
            })
            .collect();
        Ok(Self {
            method,
            users,
            tls,
            login_timeout: router.timeouts.client_login,
            max_login_failures: router.max_login_failures,
            secret: secret.clone(),
        })
    }

    /// How clients prove who they are.
    #[must_use]
    pub fn method(&self) -> AuthMethod {
        self.method
    }

    /// TLS, if it is configured.
    #[must_use]
    pub fn tls(&self) -> Option<&ClientTls> {
        self.tls.as_ref()
    }

    /// How long a client may take to enter.
    #[must_use]
    pub fn login_timeout(&self) -> Duration {
        self.login_timeout
    }

    /// How many logins from one address may fail per minute; 0 for any number.
    #[must_use]
    pub fn max_login_failures(&self) -> u32 {
        self.max_login_failures
    }

    /// The user of that name.
    #[must_use]
    pub fn user(&self, name: &str) -> Option<&AccessUser> {
        self.users.get(name)
    }

    /// What the user's password is checked against; for users without one, something that lets nobody in and does not
    /// show.
    #[must_use]
    pub fn verifier(&self, user: &str) -> Verifier {
        self.user(user)
            .and_then(|user| user.verifier.clone())
            .unwrap_or_else(|| Verifier::mock(&self.secret.0, user.as_bytes()))
    }
}

/// A password may be configured as PostgreSQL keeps it, too.
fn verifier(password: &str, secret: &LoginSecret, user: &str) -> Verifier {
    Verifier::parse(password)
        .unwrap_or_else(|_| Verifier::of_user(password, &secret.0, user.as_bytes()))
}
