//! The configuration file: from text to the model, or to everything that is wrong with it.
//!
//! `reader` walks the TOML document and reports; the other modules each read one part of the file. A part that is wrong is
//! reported and left out, so that one reading finds every problem. `docs/configuration.md` describes the form.

mod access;
mod address;
mod database;
mod duration;
mod method;
mod pool;
mod reader;
mod router;
mod size;
mod tables;

use toml::de::DeTable;

use crate::diagnostic::Diagnostic;
use crate::model::{Config, Database};
use crate::pooling::Pooling;
use reader::{Report, Section};

impl Config {
    /// Reads a configuration. Problems come all at once, in the order of the text.
    pub fn parse(text: &str) -> Result<Config, Vec<Diagnostic>> {
        let report = Report::new(text);
        let (document, errors) = DeTable::parse_recoverable(text);
        if !errors.is_empty() {
            for error in errors {
                let at = error.span().map_or(0, |span| span.start);
                report.add(at, "", error.message(), None);
            }
            return Err(report.into_diagnostics());
        }
        let config = read(Section::root(&document, &report));
        let problems = report.into_diagnostics();
        match config {
            Some(config) if problems.is_empty() => Ok(config),
            _ => Err(problems),
        }
    }
}

/// Reads the document; `None` only after a problem was reported.
fn read(mut root: Section<'_>) -> Option<Config> {
    let router = router::router(root.get("router"));
    let log = router::log(root.get("log"));
    let auth = access::auth(root.get("auth"), router.as_ref());
    let mut pooling = Pooling::default();
    let users = access::users(&mut root, auth.as_ref(), &mut pooling);
    let databases = database::databases(&mut root, &mut pooling);
    let peers = router::peers(&mut root);
    let has_own_names = databases.iter().any(Database::is_called_otherwise);
    let catalog = match root.get("catalog") {
        Some(item) if has_own_names => {
            let hint = Some("the catalog has one name for each database");
            item.problem("there is a database with dbname", hint);
            None
        }
        Some(item) => router::catalog(&item).map(Some),
        None => Some(None),
    };
    root.finish();
    Some(Config {
        router: router?,
        log: log?,
        auth: auth?,
        users,
        databases,
        peers,
        pooling,
        catalog: catalog?,
    })
}

#[cfg(test)]
mod tests;
