//! What initdb makes, kept beside the tests' programs and copied for their servers: that takes a fraction of the time.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::{Account, Error, Install};

/// Data directories that are kept, each with a system identifier of its own: the servers of one cluster, which take them in turn, do
/// not share one.
const IDENTITIES: usize = 12;

/// Data directories that no server has used, which have one superuser's password.
#[derive(Debug)]
pub(crate) struct Template {
    path: PathBuf,
    password: String,
}

impl Template {
    /// Beside this program, if cargo has built it as a test or a bench: others are not in a directory of that name. The
    /// password is `new` unless there is one already.
    pub(crate) fn beside_tests(install: &Install, new: &str) -> Result<Option<Template>, Error> {
        let program = std::env::current_exe().unwrap_or_default();
        let Some(parent) = program.parent().filter(|path| path.ends_with("deps")) else {
            return Ok(None);
        };
        let path = parent.join(format!("postgresql-{}", install.major()));
        std::fs::create_dir_all(&path).map_err(Error::io("make the directory", &path))?;
        let file = path.join("superuser.password");
        let failed = || Error::io("write", &file);
        let mut written = tempfile::NamedTempFile::new_in(&path).map_err(failed())?;
        written.write_all(new.as_bytes()).map_err(failed())?;
        // Whoever was first is right.
        if let Err(error) = written.persist_noclobber(&file)
            && !file.is_file()
        {
            return Err(failed()(error.error));
        }
        let password = std::fs::read_to_string(&file).map_err(Error::io("read", &file))?;
        Ok(Some(Template { path, password }))
    }

    /// The superuser's password in all of them.
    pub(crate) fn password(&self) -> &str {
        &self.password
    }

    /// Fills `data` with one of them, which belongs to the account then; by `make` if that one has not been made yet.
    pub(crate) fn fill(
        &self,
        data: &Path,
        account: &Account,
        make: impl FnOnce() -> Result<(), Error>,
    ) -> Result<(), Error> {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed) % IDENTITIES;
        let kept = self.path.join(format!("data-{number}"));
        if kept.is_dir() {
            return copy(&kept, data, &|path| account.own(path));
        }
        make()?;
        self.keep(data, &kept)
    }

    /// Complete from the moment it has its name. Of several who make it at a time the first is taken.
    fn keep(&self, data: &Path, kept: &Path) -> Result<(), Error> {
        let making = Error::io("make a directory in", &self.path);
        let made = tempfile::tempdir_in(&self.path).map_err(making)?;
        let whole = made.path().join("data");
        copy(data, &whole, &|_| Ok(()))?;
        match std::fs::rename(&whole, kept) {
            Err(error) if !kept.is_dir() => Err(Error::io("make", kept)(error)),
            _ => Ok(()),
        }
    }
}

/// Copies a directory, which only its owner may enter then, and gives each part away by `own`.
fn copy(from: &Path, to: &Path, own: &dyn Fn(&Path) -> Result<(), Error>) -> Result<(), Error> {
    std::fs::create_dir(to).map_err(Error::io("make the directory", to))?;
    std::fs::set_permissions(to, PermissionsExt::from_mode(0o700))
        .map_err(Error::io("close the directory", to))?;
    own(to)?;
    let failed = || Error::io("read the directory", from);
    for entry in std::fs::read_dir(from).map_err(failed())? {
        let entry = entry.map_err(failed())?;
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() {
            copy(&from, &to, own)?;
        } else {
            std::fs::copy(&from, &to).map_err(Error::io("copy", &from))?;
            own(&to)?;
        }
    }
    Ok(())
}
