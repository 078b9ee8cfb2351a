//! Processors that do not sleep: a process for each of them, which runs whenever nothing else wants to.
//!
//! A virtual processor without work is given back to the host, and takes tens of microseconds to come again. A statement that goes from
//! process to process waits for that at each step, by whatever is in between, and more often the more processes there are.

use std::process::{Command, Stdio};

use switchyard_cluster::Companion;

use crate::Error;

/// Keeps all processors awake until it is dropped.
#[derive(Debug)]
pub(crate) struct Awake {
    _processes: Vec<Companion>,
}

impl Awake {
    /// Starts the processes.
    pub(crate) fn start() -> Result<Awake, Error> {
        let own = std::env::current_exe().map_err(Error::io("find this program"))?;
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let process = |_| {
            let mut command = Command::new("chrt");
            command
                .args(["--idle", "0"])
                .arg(&own)
                .arg("awake")
                .stdin(Stdio::null())
                .stdout(Stdio::null());
            Companion::start(&mut command)
        };
        let processes: Result<Vec<_>, _> = (0..processors).map(process).collect();
        Ok(Awake {
            _processes: processes?,
        })
    }
}

/// Does nothing until the process is killed.
pub(crate) fn spin() -> ! {
    loop {
        std::hint::spin_loop();
    }
}
