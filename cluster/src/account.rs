//! The account that servers run as: our own, or an unprivileged one when we are root.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use crate::Error;

/// The system user that is made (as root only) to run servers.
const OWN_USER: &str = "switchyard";

/// Who runs the servers and owns their files.
#[derive(Debug, Clone)]
pub struct Account {
    name: String,
    /// None: the account of this process.
    switch: Option<(u32, u32)>,
}

impl Account {
    /// The account to use: this process's own, unless that is root; then the system user `switchyard`, made if it is
    /// missing, else `nobody`.
    pub fn unprivileged() -> Result<Account, Error> {
        if !rustix::process::geteuid().is_root() {
            return Ok(Account {
                name: "yourself".to_owned(),
                switch: None,
            });
        }
        if lookup(OWN_USER).is_none() {
            make_own_user();
        }
        for name in [OWN_USER, "nobody"] {
            if let Some(switch) = lookup(name) {
                return Ok(Account {
                    name: name.to_owned(),
                    switch: Some(switch),
                });
            }
        }
        Err(Error::Account(
            "neither the user \"switchyard\" could be made nor is there \"nobody\"".to_owned(),
        ))
    }

    /// The account's name, for messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A command that runs as this account, apart from our terminal's signals.
    pub(crate) fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new(program.as_ref());
        if let Some((uid, gid)) = self.switch {
            command.uid(uid).gid(gid);
        }
        // The directory we are in may be closed to the account; the locale must not change what programs print.
        command
            .current_dir("/")
            .env("LC_ALL", "C")
            .env_remove("PGDATA")
            .process_group(0);
        command
    }

    /// Gives a file or directory of ours to the account.
    pub(crate) fn own(&self, path: &Path) -> Result<(), Error> {
        match self.switch {
            Some((uid, gid)) => std::os::unix::fs::chown(path, Some(uid), Some(gid))
                .map_err(Error::io("change the owner of", path)),
            None => Ok(()),
        }
    }

    /// Writes a file that the account owns and nobody else reads.
    pub(crate) fn write(&self, path: &Path, text: &str) -> Result<(), Error> {
        let mut file = std::fs::File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(path)
            .map_err(Error::io("open", path))?;
        file.write_all(text.as_bytes())
            .map_err(Error::io("write", path))?;
        self.own(path)
    }

    /// An error unless the account can enter `path`.
    pub(crate) fn can_reach(&self, path: &Path) -> Result<(), Error> {
        let reached = self
            .command("/bin/sh")
            .arg("-c")
            .arg("cd \"$1\"")
            .arg("sh")
            .arg(path)
            .output();
        match reached {
            Ok(output) if output.status.success() => Ok(()),
            _ => Err(Error::Unreachable {
                path: path.to_path_buf(),
                account: self.name.clone(),
            }),
        }
    }

    /// The numeric user id that owns the files made by this account.
    pub(crate) fn uid(&self) -> u32 {
        self.switch
            .map_or_else(|| rustix::process::geteuid().as_raw(), |(uid, _)| uid)
    }
}

/// Makes the user, one process of ours at a time. A failure is not the end: `nobody` is tried then.
fn make_own_user() {
    let users = std::fs::File::open("/etc/passwd");
    let _locked = users.as_ref().map(std::fs::File::lock);
    if lookup(OWN_USER).is_none() {
        let _ = Command::new("useradd")
            .args([
                "--system",
                "--no-create-home",
                "--shell",
                "/usr/sbin/nologin",
                OWN_USER,
            ])
            .output();
    }
}

/// User and group id of a user, as the system's databases have it.
fn lookup(name: &str) -> Option<(u32, u32)> {
    let id = |flag: &str| -> Option<u32> {
        let output = Command::new("id")
            .args([flag, name])
            .output()
            .ok()
            .filter(|output| output.status.success())?;
        String::from_utf8_lossy(&output.stdout).trim().parse().ok()
    };
    Some((id("-u")?, id("-g")?))
}
