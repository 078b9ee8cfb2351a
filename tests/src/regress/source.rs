//! PostgreSQL's regression files, from the distribution's source package, and which of them are compared.

use std::path::{Path, PathBuf};

/// `src/test/regress` of PostgreSQL's source.
#[derive(Debug, Clone)]
pub struct Source {
    directory: PathBuf,
}

/// What is done with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// Every read is compared.
    Compared,
    /// Its writes run on both sides too, and what they store is compared.
    Written,
    /// It makes what others need; it runs, and nothing is compared.
    Prepares,
}

/// The files, in the order of PostgreSQL's own schedule.
const FILES: &str = include_str!("files.txt");

impl Source {
    /// Where `make regress` unpacks it, or none if it has not.
    pub fn unpacked() -> Option<Source> {
        let target = Path::new(env!("CARGO_MANIFEST_DIR"))
            .parent()?
            .join("target/regress/source");
        Source::at(&target)
    }

    /// A directory with `sql` and `data` in it.
    pub fn at(directory: &Path) -> Option<Source> {
        let directory = directory.canonicalize().ok()?;
        let complete =
            directory.join("sql/test_setup.sql").is_file() && directory.join("data").is_dir();
        complete.then_some(Source { directory })
    }

    /// The directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// A script.
    pub fn script(&self, name: &str) -> std::io::Result<String> {
        std::fs::read_to_string(self.directory.join("sql").join(format!("{name}.sql")))
    }

    /// The files to run for these, or all of them: what prepares comes along.
    pub fn files(chosen: &[String]) -> Vec<(&'static str, Use)> {
        let all = FILES
            .lines()
            .map(|line| line.split('#').next().unwrap_or_default().trim());
        all.filter(|line| !line.is_empty())
            .map(|line| match line.split_once(' ') {
                Some(("prepare", name)) => (name, Use::Prepares),
                Some((_write, name)) => (name, Use::Written),
                None => (line, Use::Compared),
            })
            .filter(|(name, usage)| {
                *usage == Use::Prepares
                    || chosen.is_empty()
                    || chosen.iter().any(|chosen| chosen == name)
            })
            .collect()
    }
}
