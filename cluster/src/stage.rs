//! The directory a provider works in: locked while in use, cleaned up whatever happens.

use std::fs::{File, TryLockError};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::guard::{After, Guard};
use crate::{Account, Error};

/// Start of the names of our temporary directories; a dot before it while one is being made.
const PREFIX: &str = "switchyard-";
/// The file whose lock says that somebody uses the directory. The lock ends with its holder, so that none is left over.
const LOCK: &str = "lock";

/// A directory of our own, with the lock on it and the guard that outlives us.
#[derive(Debug)]
pub struct Stage {
    path: PathBuf,
    after: After,
    guard: Option<Guard>,
    leftovers: Vec<PathBuf>,
    _lock: File,
}

impl Stage {
    /// A new directory below the system's temporary one; it is removed in the end. What earlier processes may have left
    /// behind is removed first.
    pub fn temporary(account: &Account) -> Result<Stage, Error> {
        let parent = std::env::temp_dir();
        let leftovers = sweep(account, &parent);
        let made = tempfile::Builder::new()
            .prefix(&format!(".{PREFIX}"))
            .tempdir_in(&parent)
            .map_err(Error::io("make a directory in", &parent))?
            .keep();
        let lock = lock(&made)?;
        // Only now the name by which leftovers are recognised: it is locked from its first moment on.
        let name = made.file_name().unwrap_or_default().to_string_lossy();
        let path = parent.join(name.trim_start_matches('.'));
        std::fs::rename(&made, &path).map_err(Error::io("rename", &made))?;
        account.own(&path)?;
        Stage::guarded(account, path, After::Remove, lock, leftovers)
    }

    /// A directory the user chose; it stays. An existing one must be empty or one of ours.
    pub fn kept(account: &Account, path: &Path) -> Result<Stage, Error> {
        std::fs::create_dir_all(path).map_err(Error::io("make the directory", path))?;
        let path = path.canonicalize().map_err(Error::io("find", path))?;
        let mut entries =
            std::fs::read_dir(&path).map_err(Error::io("read the directory", &path))?;
        let ours = path.join(LOCK).is_file();
        if entries.next().is_some() && !ours {
            return Err(Error::NotOurs { path });
        }
        let lock = lock(&path)?;
        if !ours {
            account.own(&path)?;
        }
        account.can_reach(&path)?;
        // Servers whose demo and guard were both killed: nobody else can own them, for we have the lock.
        Guard::start(account, &path, After::Keep)?.clean_up();
        Stage::guarded(account, path, After::Keep, lock, Vec::new())
    }

    fn guarded(
        account: &Account,
        path: PathBuf,
        after: After,
        lock: File,
        leftovers: Vec<PathBuf>,
    ) -> Result<Stage, Error> {
        let guard = Some(Guard::start(account, &path, after)?);
        let stage = Stage {
            path,
            after,
            guard,
            leftovers,
            _lock: lock,
        };
        account.can_reach(&stage.path)?;
        Ok(stage)
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the directory stays when this value goes.
    pub fn is_kept(&self) -> bool {
        self.after == After::Keep
    }

    /// Directories of dead processes that were found and removed.
    pub fn leftovers(&self) -> &[PathBuf] {
        &self.leftovers
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let removed = self.after == After::Remove && std::fs::remove_dir_all(&self.path).is_ok();
        if let Some(guard) = self.guard.take() {
            match removed {
                true => guard.dismiss(),
                false => guard.clean_up(),
            }
        }
    }
}

/// Takes the lock of a directory and writes our process number into it, for the message another one will print.
fn lock(directory: &Path) -> Result<File, Error> {
    let path = directory.join(LOCK);
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(Error::io("open", &path))?;
    match file.try_lock() {
        Ok(()) => {
            std::fs::write(&path, std::process::id().to_string())
                .map_err(Error::io("write", &path))?;
            Ok(file)
        }
        Err(TryLockError::WouldBlock) => {
            let holder = std::fs::read_to_string(&path).unwrap_or_default();
            Err(Error::InUse {
                path: directory.to_path_buf(),
                holder: format!("process {}", holder.trim()),
            })
        }
        Err(TryLockError::Error(source)) => Err(Error::Io {
            action: "lock",
            path,
            source,
        }),
    }
}

/// Stops what runs in directories whose processes are dead, and removes them.
fn sweep(account: &Account, parent: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(parent) else {
        return Vec::new();
    };
    let mut swept = Vec::new();
    for entry in entries.flatten() {
        let ours = entry.file_name().to_string_lossy().starts_with(PREFIX)
            && entry
                .metadata()
                .is_ok_and(|data| data.is_dir() && data.uid() == account.uid())
            && entry.path().join(LOCK).is_file();
        // The lock is held until the directory is gone.
        let Some(_lock) = ours.then(|| lock(&entry.path()).ok()).flatten() else {
            continue;
        };
        if let Ok(guard) = Guard::start(account, &entry.path(), After::Remove) {
            guard.clean_up();
            swept.push(entry.path());
        }
    }
    swept
}
