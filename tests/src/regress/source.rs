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
            .filter_map(|line| match line.strip_prefix("prepare ") {
                Some(name) => Some((name.trim(), Use::Prepares)),
                None => {
                    let wanted = chosen.is_empty() || chosen.iter().any(|name| name == line);
                    wanted.then_some((line, Use::Compared))
                }
            })
            .collect()
    }
}
