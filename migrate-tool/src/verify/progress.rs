//! How much is looked at by one statement, and how often; and, in a file, how far that has come: whoever was ended goes on there.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde::{Deserialize, Serialize};

/// How rows are looked at.
#[derive(Debug, Clone, Args)]
pub(crate) struct Manner {
    /// Which part of the time servers look at rows, in percent
    #[arg(long, value_name = "PERCENT", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100))]
    busy: u32,
    /// Note in this file what has been looked at; with it the same command goes on where an earlier one was ended
    #[arg(long, value_name = "FILE")]
    resume: Option<PathBuf>,
    /// So many pages of a table are looked at by one statement, where there are breaks or notes
    #[arg(long, value_name = "PAGES", default_value_t = 16_384, value_parser = clap::value_parser!(u64).range(1..))]
    piece_pages: u64,
}

/// The rows of a table on one server, by the positions of their owners.
pub(super) type Owners = BTreeMap<u16, u64>;

/// What has been seen of one table on one server.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Seen {
    /// What rows were compared with.
    rule: u64,
    /// Pages from the first on.
    pub(super) pages: u64,
    /// That was all of them.
    pub(super) all: bool,
    /// What they have.
    pub(super) owners: Owners,
}

/// How far it has come.
#[derive(Debug)]
pub(crate) struct Progress {
    manner: Manner,
    seen: RefCell<BTreeMap<String, Seen>>,
}

impl Progress {
    /// As the file says, if there is one.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(crate) fn load(manner: &Manner) -> io::Result<Progress> {
        let text = match &manner.resume {
            Some(file) if file.exists() => std::fs::read_to_string(file)?,
            Some(_) | None => "{}".to_owned(),
        };
        Ok(Progress {
            manner: manner.clone(),
            seen: RefCell::new(serde_json::from_str(&text)?),
        })
    }

    /// How many pages are looked at by one statement; `None`: all.
    pub(super) fn piece(&self) -> Option<u64> {
        let Manner { busy, resume, .. } = &self.manner;
        (*busy < 100 || resume.is_some()).then_some(self.manner.piece_pages)
    }

    /// How long servers have a rest after what has taken so long.
    pub(super) fn rest(&self, took: Duration) -> Duration {
        took * (100 - self.manner.busy) / self.manner.busy
    }

    /// What has been seen of a table by the same rule.
    pub(super) fn of(&self, table: &str, rule: &str) -> Seen {
        let mut hasher = DefaultHasher::new();
        rule.hash(&mut hasher);
        let rule = hasher.finish();
        let seen = self.seen.borrow().get(table).cloned();
        seen.filter(|seen| seen.rule == rule).unwrap_or(Seen {
            rule,
            ..Seen::default()
        })
    }

    /// Notes what has been seen by now.
    pub(super) fn note(&self, table: &str, seen: &Seen) -> io::Result<()> {
        self.seen
            .borrow_mut()
            .insert(table.to_owned(), seen.clone());
        let Some(file) = &self.manner.resume else {
            return Ok(());
        };
        let text = serde_json::to_vec(&*self.seen.borrow())?;
        let new = file.with_extension("new");
        std::fs::write(&new, text)?;
        std::fs::rename(&new, file)
    }

    /// All has been looked at: whoever comes next begins anew.
    ///
    /// # Errors
    /// The file cannot be removed.
    pub(crate) fn finish(&self) -> io::Result<()> {
        match &self.manner.resume {
            Some(file) if file.exists() => std::fs::remove_file(file),
            Some(_) | None => Ok(()),
        }
    }
}
