//! `[auth]` and `[[users]]`.

use super::pool;
use super::reader::{Item, Section};
use crate::access::{Auth, AuthMethod, User, UserLookup};
use crate::model::{RouterConfig, Secret};
use crate::pooling::Pooling;

/// `[auth]`
pub(super) fn auth(item: Option<Item<'_>>, router: Option<&RouterConfig>) -> Option<Auth> {
    let mut auth = Auth {
        method: AuthMethod::ScramSha256,
        hba_file: None,
        ident_file: None,
        cert_map: None,
        lookup: None,
    };
    let Some(item) = item else {
        return Some(auth);
    };
    let mut section = item.section()?;
    let methods = [
        ("trust", AuthMethod::Trust),
        ("scram-sha-256", AuthMethod::ScramSha256),
        ("cert", AuthMethod::Cert),
        ("hba", AuthMethod::Hba),
    ];
    let method = section.get("method");
    if let Some(chosen) = method.as_ref().and_then(|item| item.choice(&methods)) {
        auth.method = chosen;
    }
    let file = |item: Option<Item<'_>>| item.and_then(|item| item.path());
    let hba_file = section.get("hba_file");
    auth.hba_file = file(hba_file.clone());
    auth.ident_file = file(section.get("ident_file"));
    let cert_map = section.get("cert_map");
    auth.cert_map = cert_map
        .as_ref()
        .and_then(|item| item.text().map(str::to_owned));
    auth.lookup = lookup(&mut section);
    match (auth.method, &hba_file, &method) {
        (AuthMethod::Hba, None, Some(method)) => {
            method.problem(
                "needs rules",
                Some("set hba_file to a file in the form of pg_hba.conf"),
            );
        }
        (AuthMethod::Trust | AuthMethod::ScramSha256 | AuthMethod::Cert, Some(file), _) => {
            file.problem("is for method = \"hba\" only", None);
        }
        _ => {}
    }
    if let (Some(map), None) = (&cert_map, &auth.ident_file) {
        map.problem(
            "needs a file of maps",
            Some("set ident_file to a file in the form of pg_ident.conf"),
        );
    }
    let tls = router.and_then(|router| router.tls.as_ref());
    let checks_clients = tls.is_some_and(|tls| tls.client_ca.is_some());
    if let (AuthMethod::Cert, false, Some(method)) = (auth.method, checks_clients, method) {
        method.problem(
            "needs client certificates that can be checked",
            Some("set cert, key and client_ca in [router.tls]"),
        );
    }
    section.finish();
    Some(auth)
}

/// `auth_user`, `auth_query` and `auth_dbname`; nobody is looked up without the first.
fn lookup(section: &mut Section<'_>) -> Option<UserLookup> {
    let user = section.get("auth_user");
    let query = section.get("auth_query");
    let database = section.get("auth_dbname");
    if let (None, Some(item)) = (&user, query.as_ref().or(database.as_ref())) {
        item.problem(
            "needs auth_user",
            Some("a user of [[users]], as whom the router asks"),
        );
    }
    let query = match query {
        Some(item) => item.text()?,
        None => UserLookup::QUERY,
    };
    Some(UserLookup {
        user: user?.name()?.to_owned(),
        query: query.to_owned(),
        database: match database {
            Some(item) => Some(item.name()?.to_owned()),
            None => None,
        },
    })
}

/// `[[users]]`
pub(super) fn users(
    root: &mut Section<'_>,
    auth: Option<&Auth>,
    pooling: &mut Pooling,
) -> Vec<User> {
    let mut users: Vec<User> = Vec::new();
    let sections = root.sections("users");
    if sections.is_empty() {
        root.problem("there is no [[users]]: nobody could connect", None);
    }
    for mut section in sections {
        let name = section.require("name", "a role's name");
        let password = secret(&mut section);
        let mut is = |key| section.get(key).and_then(|item| item.boolean());
        let (admin, stats) = (is("admin"), is("stats"));
        let scram = auth.is_some_and(|auth| auth.method == AuthMethod::ScramSha256);
        if let (true, Password::Absent) = (scram, &password) {
            section.problem(
                "the user has no password, and auth.method is scram-sha-256",
                Some("set password, password_env or password_file"),
            );
        }
        let rules = pool::rules(
            &mut section,
            "max_user_connections",
            "max_user_client_connections",
        );
        section.finish();
        let Some((item, name)) = name.and_then(|item| item.name().map(|name| (item.clone(), name)))
        else {
            continue;
        };
        if users.iter().any(|user| user.name == name) {
            item.problem(format!("user {name:?} is there twice"), None);
        }
        pooling.users.insert(name.to_owned(), rules);
        users.push(User {
            name: name.to_owned(),
            password: password.into_secret(),
            admin: admin.unwrap_or(false),
            stats: stats.unwrap_or(false),
        });
    }
    let asks = auth.and_then(|auth| auth.lookup.as_ref());
    if let Some(asks) = asks.filter(|asks| users.iter().all(|user| user.name != asks.user)) {
        root.problem(
            format!("auth.auth_user {:?} is not among [[users]]", asks.user),
            None,
        );
    }
    users
}

/// What a section says of a password.
pub(super) enum Password {
    Absent,
    /// Reported.
    Wrong,
    Given(Secret),
}

impl Password {
    pub(super) fn into_secret(self) -> Option<Secret> {
        match self {
            Password::Given(secret) => Some(secret),
            Password::Absent | Password::Wrong => None,
        }
    }
}

/// `password`, `password_env` or `password_file`, at most one of them.
pub(super) fn secret(section: &mut Section<'_>) -> Password {
    let inline = section.get("password");
    let variable = section.get("password_env");
    let file = section.get("password_file");
    let mut given = [&inline, &variable, &file].into_iter().flatten();
    if let (Some(_), Some(second)) = (given.next(), given.next()) {
        second.problem(
            "there is more than one password",
            Some("set one of password, password_env and password_file"),
        );
        return Password::Wrong;
    }
    let secret = if let Some(item) = &inline {
        item.text().map(|text| Secret::Inline(text.to_owned()))
    } else if let Some(item) = &variable {
        item.text().map(|name| Secret::Env(name.to_owned()))
    } else if let Some(item) = &file {
        item.path().map(Secret::File)
    } else {
        return Password::Absent;
    };
    secret.map_or(Password::Wrong, Password::Given)
}
