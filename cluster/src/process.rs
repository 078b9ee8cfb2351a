//! Signals to whole servers. Every PostgreSQL process is a session leader, so that no process group reaches them all.

use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

/// How often states of processes and files are looked at while waiting for them.
pub(crate) const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Sends a signal; a process that is gone is no error.
pub(crate) fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}

/// The processes whose parent is `pid`.
pub(crate) fn children(pid: u32) -> Vec<u32> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter(|&child| parent(child) == Some(pid))
        .collect()
}

/// The parent of a process, from `/proc/PID/stat` (the name in parentheses may hold anything).
fn parent(pid: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?
        .1
        .split_whitespace()
        .nth(1)?
        .parse()
        .ok()
}

/// A signal to the server's parent process first, so that it makes no new children, then to all of them.
pub(crate) fn signal_tree(postmaster: u32, what: Signal) {
    signal(postmaster, what);
    for child in children(postmaster) {
        signal(child, what);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn children_are_found_by_their_parent() {
        let mut child = Command::new("cat")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        assert!(children(std::process::id()).contains(&child.id()));
        signal(child.id(), Signal::KILL);
        child.wait().unwrap();
        assert!(!children(std::process::id()).contains(&child.id()));
    }
}
