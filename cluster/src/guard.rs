//! The guard: a small process that cleans up when ours could not.

use std::io::Write;
use std::path::Path;
use std::process::{Child, Stdio};

use crate::{Account, Error};

/// What the guard does with the directory after it stopped the servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum After {
    /// The directory is removed.
    Remove,
    /// It stays.
    Keep,
}

/// A process that reads from a pipe of ours. When we die, even by SIGKILL, the pipe ends, and the guard stops the servers.
#[derive(Debug)]
pub(crate) struct Guard {
    process: Child,
}

impl Guard {
    pub(crate) fn start(account: &Account, base: &Path, after: After) -> Result<Guard, Error> {
        let after = match after {
            After::Remove => "remove",
            After::Keep => "keep",
        };
        let process = account
            .command("/bin/sh")
            .args(["-c", include_str!("guard.sh"), "switchyard-guard"])
            .arg(base)
            .arg(after)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(Error::io("start the guard with", "/bin/sh"))?;
        Ok(Guard { process })
    }

    /// Lets it clean up now and waits for it.
    pub(crate) fn clean_up(mut self) {
        drop(self.process.stdin.take());
        let _ = self.process.wait();
    }

    /// Tells it that there is nothing left to do.
    pub(crate) fn dismiss(mut self) {
        if let Some(pipe) = &mut self.process.stdin {
            let _ = pipe.write_all(b"done\n");
        }
        self.clean_up();
    }
}
