//! The configuration as the process uses it: the file, read and validated, with its secrets at hand.
//!
//! Invariant: this is the only place that reads the configuration's files and environment. [`Settings`] is a value that is
//! passed on; a reload makes another. Collaborators: [`switchyard_schema`] parses and validates.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::proven::Proven;
use switchyard_schema::hba::{Hba, IdentMaps, LineError};
use switchyard_schema::{Config, Diagnostic, Secret};
use switchyard_wire::scram::Verifier;
use zeroize::Zeroizing;

/// Keys of `[router]` that are read when a router starts.
pub const AT_START: [&str; 7] = [
    "listen",
    "http",
    "unix_socket_dir",
    "workers",
    "tls",
    "so_reuseport",
    "peer_id",
];

/// Everything the router runs by.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where it was read from.
    pub path: PathBuf,
    /// The file, its paths resolved.
    pub file: Config,
    /// Who may log in.
    pub users: Users,
    /// By what rules, and whose certificates stand for whom.
    pub rules: Rules,
    /// The catalog's password, if it has one.
    pub catalog_password: Option<Password>,
}

/// A password: never printed, and wiped from memory when nobody has it any more.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(Arc<Zeroizing<String>>);

impl Password {
    /// A password in the clear.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self::from(text.to_owned())
    }

    /// The password, to prove or to check it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl From<String> for Password {
    fn from(text: String) -> Self {
        Self(Arc::new(Zeroizing::new(text)))
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Password(..)")
    }
}

/// A user of the configuration, with the password.
#[derive(Clone, Debug)]
pub struct User {
    /// The name, here and on the nodes.
    pub name: Arc<str>,
    /// The password, if one is configured.
    pub password: Option<Password>,
    /// What it has proven by logging in.
    pub proven: Arc<Proven>,
    /// What the admin console lets the user do.
    pub rights: Rights,
}

/// What somebody may do on the admin console.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rights {
    /// Nothing: it is closed.
    #[default]
    None,
    /// Look: `stats = true`.
    Show,
    /// All that can be done: `admin = true`.
    All,
}

impl Rights {
    fn of(user: &switchyard_schema::User) -> Self {
        match (user.admin, user.stats) {
            (true, _) => Self::All,
            (false, true) => Self::Show,
            (false, false) => Self::None,
        }
    }
}

/// `hba_file` and `ident_file`, read.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// The rules.
    pub hba: Hba,
    /// The maps they name.
    pub maps: IdentMaps,
}

/// The users by name.
#[derive(Clone, Debug, Default)]
pub struct Users {
    listed: BTreeMap<Arc<str>, User>,
    /// What users have proven, for as long as the process lasts.
    proven: Arc<Proven>,
}

impl Users {
    /// The user of that name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&User> {
        self.listed.get(name)
    }

    /// The user of that name as nodes of the database are told: one of the configuration, or one that was looked up and has logged in.
    #[must_use]
    pub fn known(&self, database: &str, name: &str) -> Option<User> {
        let found = || {
            self.proven.of(database, name).map(|_| User {
                name: name.into(),
                password: None,
                proven: Arc::clone(&self.proven),
                rights: Rights::None,
            })
        };
        self.get(name).cloned().or_else(found)
    }

    /// What users have proven.
    #[must_use]
    pub fn proven(&self) -> &Arc<Proven> {
        &self.proven
    }

    /// Takes over what has been proven under the settings before these.
    pub fn go_on_from(&mut self, proven: Arc<Proven>) {
        for user in self.listed.values_mut() {
            user.proven = Arc::clone(&proven);
        }
        self.proven = proven;
    }

    /// All users, by name.
    pub fn iter(&self) -> impl Iterator<Item = &User> {
        self.listed.values()
    }
}

impl FromIterator<User> for Users {
    fn from_iter<I: IntoIterator<Item = User>>(users: I) -> Self {
        let by_name = |user: User| (Arc::clone(&user.name), user);
        let mut listed = Self {
            listed: users.into_iter().map(by_name).collect(),
            proven: Arc::default(),
        };
        listed.go_on_from(Arc::default());
        listed
    }
}

/// Why the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: {source}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file is wrong; one line per problem.
    #[error("{}", lines(.path, .problems))]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problems: Vec<Diagnostic>,
    },
    /// A file of rules does not fit the rest.
    #[error("{}: {reason}", .path.display())]
    Rules {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A secret is not where the file says it is.
    #[error("{}: password of {owner}: {reason}", .path.display())]
    Secret {
        /// The configuration file.
        path: PathBuf,
        /// Whose password.
        owner: String,
        /// Why it could not be had.
        reason: String,
    },
}

impl Rules {
    fn load(file: &Config) -> Result<Self, ConfigError> {
        let auth = &file.auth;
        let hba = auth.hba_file.as_deref();
        let maps = auth.ident_file.as_deref();
        let rules = Self {
            hba: hba.map_or(Ok(Hba::default()), |path| read_rules(path, Hba::parse))?,
            maps: maps.map_or(Ok(IdentMaps::default()), |path| {
                read_rules(path, IdentMaps::parse)
            })?,
        };
        let unknown = {
            let mut named = rules.hba.maps().chain(auth.cert_map.as_deref());
            named.find(|map| !rules.maps.has(map)).map(str::to_owned)
        };
        let tls = file.router.tls.as_ref();
        let checks = tls.is_some_and(|tls| tls.client_ca.is_some());
        let reason = match unknown {
            Some(map) => format!("there is no map \"{map}\" in ident_file"),
            None if rules.hba.wants_certificates() && !checks => {
                "certificates need cert, key and client_ca in [router.tls]".to_owned()
            }
            None => return Ok(rules),
        };
        let path = hba.or(maps).unwrap_or(Path::new("")).to_owned();
        Err(ConfigError::Rules { path, reason })
    }
}

fn read_rules<T>(
    path: &Path,
    parse: impl Fn(&str) -> Result<T, Vec<LineError>>,
) -> Result<T, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
        path: path.to_owned(),
        source,
    })?;
    parse(&text).map_err(|errors| {
        let problem = |(line, message)| Diagnostic {
            line,
            column: 1,
            key: String::new(),
            message,
            hint: None,
        };
        ConfigError::Invalid {
            path: path.to_owned(),
            problems: errors.into_iter().map(problem).collect(),
        }
    })
}

fn lines(path: &Path, problems: &[Diagnostic]) -> String {
    let line = |problem: &Diagnostic| {
        let Diagnostic {
            line,
            column,
            key,
            message,
            hint,
        } = problem;
        let key = if key.is_empty() {
            String::new()
        } else {
            format!("{key}: ")
        };
        let hint = hint
            .as_ref()
            .map_or(String::new(), |hint| format!(" ({hint})"));
        format!("{}:{line}:{column}: {key}{message}{hint}", path.display())
    };
    problems.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// Where variables of the environment are looked up: the process's, or a test's.
pub trait Environment {
    /// The variable's value, if it is set.
    fn variable(&self, name: &str) -> Option<String>;
}

/// The environment of the process.
#[derive(Clone, Copy, Debug)]
pub struct ProcessEnvironment;

impl Environment for ProcessEnvironment {
    fn variable(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }
}

impl Settings {
    /// Reads, validates and completes the configuration in `path`.
    ///
    /// # Errors
    /// [`ConfigError`], with every problem of the file at once.
    pub fn load(path: &Path, environment: &impl Environment) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
        Self::parse(&text, path, environment)
    }

    /// The same from text; `path` is what relative paths are relative to and what problems are reported for.
    ///
    /// # Errors
    /// [`ConfigError`], with every problem of the file at once.
    pub fn parse(
        text: &str,
        path: &Path,
        environment: &impl Environment,
    ) -> Result<Self, ConfigError> {
        let mut file = Config::parse(text).map_err(|problems| ConfigError::Invalid {
            path: path.to_owned(),
            problems,
        })?;
        file.resolve_paths(path.parent().unwrap_or(Path::new("")));
        let reveal = |owner: String, secret: Option<&Secret>| {
            let Some(secret) = secret else {
                return Ok(None);
            };
            match read_secret(secret, environment) {
                // PostgreSQL lets nobody in by that.
                Ok(password) if password.reveal().is_empty() => Err(ConfigError::Secret {
                    path: path.to_owned(),
                    owner,
                    reason: "it is empty".to_owned(),
                }),
                Ok(password) => Ok(Some(password)),
                Err(reason) => Err(ConfigError::Secret {
                    path: path.to_owned(),
                    owner,
                    reason,
                }),
            }
        };
        let users = file
            .users
            .iter()
            .map(|user| {
                Ok(User {
                    name: user.name.as_str().into(),
                    password: reveal(format!("user \"{}\"", user.name), user.password.as_ref())?,
                    proven: Arc::default(),
                    rights: Rights::of(user),
                })
            })
            .collect::<Result<Users, ConfigError>>()?;
        if let Some(asks) = file.auth.lookup.as_ref().map(|lookup| &*lookup.user)
            && let Some(password) = users.get(asks).and_then(|user| user.password.as_ref())
            && Verifier::is_verifier(password.reveal())
        {
            return Err(ConfigError::Secret {
                path: path.to_owned(),
                owner: format!("user \"{asks}\""),
                reason: "auth_user has to log in to nodes: it needs a password, not a verifier"
                    .to_owned(),
            });
        }
        let catalog = file
            .catalog
            .as_ref()
            .and_then(|catalog| catalog.password.as_ref());
        let catalog_password = reveal("the catalog".to_owned(), catalog)?;
        let rules = Rules::load(&file)?;
        Ok(Self {
            path: path.to_owned(),
            users,
            rules,
            catalog_password,
            file,
        })
    }

    /// Where the catalog is and who the router is there; none if none is configured.
    #[must_use]
    pub fn catalog_credentials(&self) -> Option<switchyard_catalog::Credentials> {
        let password = self.catalog_password.as_ref().map(Password::reveal);
        let catalog = self.file.catalog.as_ref()?;
        Some(switchyard_catalog::Credentials::new(catalog, password))
    }

    /// Whom the router is when it looks after nodes itself: the first user that is an admin, else the first.
    #[must_use]
    pub fn monitor_user(&self) -> Option<&User> {
        let users = &self.file.users;
        let chosen = users.iter().find(|user| user.admin).or(users.first())?;
        self.users.get(&chosen.name)
    }
}

fn read_secret(secret: &Secret, environment: &impl Environment) -> Result<Password, String> {
    match secret {
        Secret::Inline(text) => Ok(Password::new(text)),
        Secret::Env(name) => environment
            .variable(name)
            .map(Password::from)
            .ok_or_else(|| format!("the environment variable {name} is not set")),
        Secret::File(path) => {
            let text = std::fs::read_to_string(path)
                .map(Zeroizing::new)
                .map_err(|error| format!("{}: {error}", path.display()))?;
            let text = text.strip_suffix('\n').unwrap_or(&text);
            Ok(Password::new(text.strip_suffix('\r').unwrap_or(text)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Variables(&'static [(&'static str, &'static str)]);

    impl Environment for Variables {
        fn variable(&self, name: &str) -> Option<String> {
            let found = self.0.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        }
    }

    fn config(users: &str) -> String {
        format!(
            "[router]\nlisten = \"127.0.0.1:6432\"\n{users}\n[[databases]]\nname = \"shop\"\n\
             [[databases.shards]]\nname = \"s0\"\nnodes = [ {{ host = \"a\", role = \"primary\" }} ]\n"
        )
    }

    fn parse(users: &str, path: &Path) -> Result<Settings, ConfigError> {
        let variables = Variables(&[("APP_PASSWORD", "from environment")]);
        Settings::parse(&config(users), path, &variables)
    }

    #[test]
    fn secrets_come_from_where_the_file_says() {
        let directory = tempfile::TempDir::new().unwrap();
        std::fs::write(directory.path().join("secret"), "from file\n").unwrap();
        let users = "[[users]]\nname = \"one\"\npassword = \"inline\"\n\
                     [[users]]\nname = \"two\"\npassword_env = \"APP_PASSWORD\"\n\
                     [[users]]\nname = \"three\"\npassword_file = \"secret\"\nadmin = true\n";
        let settings = parse(users, &directory.path().join("switchyard.toml")).unwrap();
        let password = |user| {
            settings
                .users
                .get(user)
                .and_then(|user| user.password.clone())
        };
        assert_eq!(password("one"), Some(Password::new("inline")));
        assert_eq!(password("two"), Some(Password::new("from environment")));
        assert_eq!(password("three"), Some(Password::new("from file")));
        assert_eq!(&*settings.monitor_user().unwrap().name, "three");
        assert!(!format!("{settings:?}").contains("from file"));
    }

    #[test]
    fn a_missing_secret_is_named_and_not_shown() {
        let path = Path::new("switchyard.toml");
        let env = "[[users]]\nname = \"app\"\npassword_env = \"NOSUCH\"\n";
        let error = parse(env, path).unwrap_err().to_string();
        assert!(
            error.contains("user \"app\"") && error.contains("NOSUCH"),
            "{error}"
        );
        let file = "[[users]]\nname = \"app\"\npassword_file = \"/nosuch/file\"\n";
        let error = parse(file, path).unwrap_err().to_string();
        assert!(error.contains("/nosuch/file"), "{error}");
    }

    #[test]
    fn who_looks_users_up_has_a_password() {
        let file = |password: &str| {
            let text = config(&format!(
                "[[users]]\nname = \"door\"\npassword = \"{password}\"\n"
            ));
            let text = format!("{text}[auth]\nauth_user = \"door\"\n");
            Settings::parse(&text, Path::new("x.toml"), &Variables(&[])).map(drop)
        };
        assert!(file("secret").is_ok());
        let error = file("SCRAM-SHA-256$4096:c2FsdA==$AAAA:BBBB").unwrap_err();
        assert!(error.to_string().contains("not a verifier"), "{error}");
    }

    #[test]
    fn every_problem_has_its_line() {
        let text = "[router]\nlisten = 5\nnosuch = 1\n";
        let error = Settings::parse(text, Path::new("x.toml"), &Variables(&[])).unwrap_err();
        let lines: Vec<_> = error.to_string().lines().map(str::to_owned).collect();
        assert!(
            lines.iter().any(|line| line.starts_with("x.toml:2:")),
            "{lines:?}"
        );
        assert!(
            lines.iter().any(|line| line.starts_with("x.toml:3:")),
            "{lines:?}"
        );
    }
}
