//! Who may enter, and how they prove it: the part of the configuration that startup needs, made ready.
//!
//! Invariant: an [`Access`] is a value; a reload makes another, and connections that are being judged go on with theirs.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use switchyard_schema::AuthMethod;
use switchyard_schema::hba::{ClientCert, HbaMethod, IdentMaps, Visit};
use switchyard_wire::scram::Verifier;
use zeroize::Zeroizing;

use super::Refusal;
use super::negotiate::Opening;
use super::tls::{ClientTls, TlsError};
use crate::config::{Password, Rights, Rules, Settings};
use crate::proven::Proven;

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
    rules: Rules,
    /// The map for [`AuthMethod::Cert`].
    cert_map: Option<String>,
    proven: Arc<Proven>,
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
    /// The configuration has the verifier only, not the password.
    pub(super) by_verifier: bool,
    /// What the admin console lets the user do.
    pub rights: Rights,
}

/// What is demanded of a client.
#[derive(Debug)]
pub(super) struct Demand<'a> {
    pub(super) method: HbaMethod,
    pub(super) certificate: Option<ClientCert>,
    /// By which certificates stand for users; without it by their names.
    pub(super) map: Option<&'a str>,
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
                    (Some(password), AuthMethod::ScramSha256 | AuthMethod::Hba) => {
                        verifier(password.reveal(), secret, &user.name)
                    }
                    _ => None,
                };
                let password = user.password.as_ref().map(Password::reveal);
                let user_here = AccessUser {
                    verifier,
                    by_verifier: password.is_some_and(Verifier::is_verifier),
                    rights: user.rights,
                };
                (user.name.to_string(), user_here)
            })
            .collect();
        Ok(Self {
            method,
            rules: settings.rules.clone(),
            cert_map: settings.file.auth.cert_map.clone(),
            proven: Arc::clone(settings.users.proven()),
            users,
            tls,
            login_timeout: router.timeouts.client_login,
            max_login_failures: router.max_login_failures,
            secret: secret.clone(),
        })
    }

    /// What is demanded of a client.
    pub(super) fn demand(
        &self,
        opening: &Opening,
        address: Option<IpAddr>,
        tls: bool,
    ) -> Result<Demand<'_>, Refusal> {
        let plain = |method| Demand {
            method,
            certificate: None,
            map: None,
        };
        let of_user = |map| Demand {
            method: HbaMethod::Cert,
            certificate: Some(ClientCert::OfUser),
            map,
        };
        Ok(match self.method {
            AuthMethod::Trust => plain(HbaMethod::Trust),
            AuthMethod::ScramSha256 => plain(HbaMethod::ScramSha256),
            AuthMethod::Cert => of_user(self.cert_map.as_deref()),
            AuthMethod::Hba => {
                let asked = [opening.database.as_str()];
                let visit = Visit {
                    // A rule for the console holds by whichever name it is asked for.
                    databases: match is_console(&opening.database) {
                        true => &CONSOLE,
                        false => &asked,
                    },
                    user: &opening.user,
                    address,
                    tls,
                };
                let rule = self.rules.hba.rule(visit);
                let rule = rule.ok_or_else(|| Refusal::NoRule(said(opening, address, tls)))?;
                match rule.method {
                    HbaMethod::Cert => of_user(rule.map.as_deref()),
                    method @ (HbaMethod::Trust | HbaMethod::Reject | HbaMethod::ScramSha256) => {
                        Demand {
                            certificate: rule.certificate,
                            ..plain(method)
                        }
                    }
                }
            }
        })
    }

    /// What a client is told that a rule keeps out.
    pub(super) fn rejected(
        &self,
        opening: &Opening,
        address: Option<IpAddr>,
        tls: bool,
    ) -> Refusal {
        Refusal::Rejected(said(opening, address, tls))
    }

    /// Whose certificates stand for whom.
    pub(super) fn maps(&self) -> &IdentMaps {
        &self.rules.maps
    }

    /// What users have proven.
    pub(super) fn proven(&self) -> &Proven {
        &self.proven
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

    /// The same of a password, or a verifier, that has been looked up.
    pub(super) fn verifier_of(&self, password: Option<&Password>, user: &str) -> Verifier {
        password
            .and_then(|password| verifier(password.reveal(), &self.secret, user))
            .unwrap_or_else(|| Verifier::mock(&self.secret.0, user.as_bytes()))
    }
}

/// How PostgreSQL calls a connection where it says that rules do not let it in.
fn said(opening: &Opening, address: Option<IpAddr>, tls: bool) -> String {
    let Opening { user, database, .. } = opening;
    let host = address.map_or("[local]".to_owned(), |address| {
        address.to_canonical().to_string()
    });
    let encryption = if tls {
        "SSL encryption"
    } else {
        "no encryption"
    };
    format!("host \"{host}\", user \"{user}\", database \"{database}\", {encryption}")
}

/// What a password is checked against, which may be written as PostgreSQL keeps it. None for what lets nobody in: no password, PostgreSQL's other kind
/// of hash, by which no exchange by SCRAM can be checked, and what only looks like a verifier.
fn verifier(password: &str, secret: &LoginSecret, user: &str) -> Option<Verifier> {
    match password {
        "" => None,
        hash if is_md5(hash) => None,
        kept if Verifier::is_verifier(kept) => Verifier::parse(kept).ok(),
        clear => Some(Verifier::of_user(clear, &secret.0, user.as_bytes())),
    }
}

/// Whether this is how PostgreSQL keeps a password by MD5 (`get_password_type`).
fn is_md5(text: &str) -> bool {
    let digits = text.strip_prefix("md5");
    digits.is_some_and(|digits| {
        digits.len() == 32 && digits.bytes().all(|digit| digit.is_ascii_hexdigit())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_postgresql_keeps_is_no_password_in_itself() {
        let secret = LoginSecret::random().unwrap();
        let kept = |text: &str| verifier(text, &secret, "app");
        assert!(kept("").is_none());
        assert!(kept("md55f4dcc3b5aa765d61d8327deb882cf99").is_none());
        assert!(kept("SCRAM-SHA-256$2000000:c2FsdA==$AAAA:BBBB").is_none());
        assert!(kept("md5 is old").is_some());
        let own = Verifier::of_user("secret", &secret.0, b"app").to_text();
        assert_eq!(kept(&own).map(|found| found.to_text()), Some(own));
    }
}
