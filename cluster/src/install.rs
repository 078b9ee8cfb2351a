//! Finding PostgreSQL's server binaries.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Error;

/// One installation of PostgreSQL: the directory with its programs, and its major version.
#[derive(Debug, Clone)]
pub struct Install {
    bin: PathBuf,
    major: u32,
}

impl Install {
    /// The installation to use: `PG_BINDIR` if set, else the newest (or the wanted major version) of those in the
    /// distribution's directories and on `PATH`.
    pub fn find(wanted: Option<u32>) -> Result<Install, Error> {
        let directories = match std::env::var_os("PG_BINDIR") {
            Some(directory) => vec![PathBuf::from(directory)],
            None => candidates(),
        };
        let looked = || {
            directories
                .iter()
                .map(|d| d.display().to_string())
                .collect::<Vec<_>>()
                .join(", ")
        };
        directories
            .iter()
            .filter_map(|directory| Install::at(directory))
            .filter(|install| wanted.is_none_or(|major| install.major == major))
            .max_by_key(|install| install.major)
            .ok_or_else(|| Error::NoBinaries {
                wanted,
                looked: looked(),
            })
    }

    /// The installation in this directory, if there is a complete one.
    fn at(bin: &Path) -> Option<Install> {
        // Where the programs are links, the directory they lead to has all of them.
        let postgres = bin.join("postgres").canonicalize().ok()?;
        let bin = postgres.parent()?;
        if !bin.join("initdb").is_file() {
            return None;
        }
        let output = Command::new(bin.join("postgres"))
            .arg("--version")
            .output()
            .ok()?;
        let major = major_version(&String::from_utf8_lossy(&output.stdout))?;
        Some(Install {
            bin: bin.to_path_buf(),
            major,
        })
    }

    /// The path of one of its programs.
    pub fn program(&self, name: &str) -> PathBuf {
        self.bin.join(name)
    }

    /// The path of a client program. Packages with the server alone lack them; then whichever is on `PATH` will do.
    pub fn client(&self, name: &str) -> PathBuf {
        Some(self.program(name))
            .filter(|path| path.is_file())
            .unwrap_or_else(|| PathBuf::from(name))
    }

    /// The directory of its programs.
    pub fn bin(&self) -> &Path {
        &self.bin
    }

    /// The major version, such as 15.
    pub fn major(&self) -> u32 {
        self.major
    }
}

/// Every directory in which a distribution or a user may have put server binaries.
fn candidates() -> Vec<PathBuf> {
    let below = |base: &str, tail: &str| -> Vec<PathBuf> {
        let entries = std::fs::read_dir(base).into_iter().flatten().flatten();
        entries.map(|entry| entry.path().join(tail)).collect()
    };
    let mut found = below("/usr/lib/postgresql", "bin"); // Debian, Ubuntu
    let named = |base: &str, part: &'static str| {
        below(base, "bin")
            .into_iter()
            .filter(move |path| path.to_string_lossy().contains(part))
    };
    found.extend(named("/usr", "/pgsql-")); // PGDG on Red Hat
    found.extend(named("/opt/homebrew/opt", "/postgresql"));
    found.extend(
        std::env::var_os("PATH")
            .iter()
            .flat_map(std::env::split_paths),
    );
    found.retain(|directory| directory.join("initdb").is_file());
    found
}

/// `postgres (PostgreSQL) 15.18 (Debian …)` → 15; also `17beta1`, `18devel`.
fn major_version(text: &str) -> Option<u32> {
    let version = text
        .split_whitespace()
        .find(|word| word.starts_with(|c: char| c.is_ascii_digit()))?;
    let digits: String = version.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_major_version_is_read_from_what_postgres_says() {
        assert_eq!(
            major_version("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n"),
            Some(15)
        );
        assert_eq!(major_version("postgres (PostgreSQL) 18beta1"), Some(18));
        assert_eq!(major_version("postgres (PostgreSQL) devel"), None);
    }

    #[test]
    fn an_unknown_version_is_said_to_be_missing() {
        let error = Install::find(Some(4)).unwrap_err().to_string();
        assert!(error.contains("of version 4"), "{error}");
        assert!(error.contains("PG_BINDIR"), "{error}");
    }
}
