//! One PostgreSQL as a child process of ours.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::local::{Local, run};
use crate::process::{LOOK_AGAIN, children, signal, signal_tree};
use crate::provider::PATIENCE;
use crate::{Account, Error, Install, Node, Port, Role, Settings, Stage, Stop};

/// So long an immediate stop may take: four times what PostgreSQL gives its own processes.
const RECALCITRANT: Duration = Duration::from_secs(20);

/// A server below a [`Stage`]: `NAME/data` is its data, `NAME/log` its log.
#[derive(Debug)]
pub(crate) struct LocalNode {
    name: String,
    port: Port,
    is_new: bool,
    install: Install,
    account: Account,
    stage: Arc<Stage>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    role: Role,
    settings: Settings,
    process: Option<Child>,
    paused: bool,
}

impl LocalNode {
    pub(crate) fn new(
        local: &Local,
        name: &str,
        role: Role,
        settings: Settings,
        port: Port,
        is_new: bool,
    ) -> LocalNode {
        let (install, account, stage) = local.parts();
        let state = Mutex::new(State {
            role,
            settings,
            process: None,
            paused: false,
        });
        LocalNode {
            name: name.to_owned(),
            port,
            is_new,
            install,
            account,
            stage,
            state,
        }
    }

    fn home(&self) -> PathBuf {
        self.stage.path().join(&self.name)
    }

    fn data(&self) -> PathBuf {
        self.home().join("data")
    }

    /// A thread that panicked while it held the lock left a state that is still true: each change is one assignment.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_settings(&self, settings: &Settings) -> Result<(), Error> {
        let path = self.data().join("postgresql.conf");
        let settings = settings
            .clone()
            .with("port", &self.port.number().to_string());
        self.account.write(&path, &settings.to_file())
    }

    fn spawn(&self) -> Result<Child, Error> {
        let path = self.home().join("log");
        let log = File::options()
            .create(true)
            .append(true)
            .open(&path)
            .map_err(Error::io("open", &path))?;
        let errors = log.try_clone().map_err(Error::io("open", &path))?;
        self.account
            .command(self.install.program("postgres"))
            .arg("-D")
            .arg(self.data())
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .spawn()
            .map_err(Error::io("start", self.install.program("postgres")))
    }

    /// Waits until the server says in its lock file that it takes connections.
    fn wait_ready(&self, process: &mut Child) -> Result<(), Error> {
        let give_up = Instant::now() + PATIENCE;
        loop {
            if let Ok(Some(_)) = process.try_wait() {
                return Err(Error::NotStarted {
                    name: self.name.clone(),
                    log: self.log_tail(),
                });
            }
            if self.says_ready(process.id()) {
                return Ok(());
            }
            if Instant::now() > give_up {
                return Err(self.timed_out("ready"));
            }
            std::thread::sleep(LOOK_AGAIN);
        }
    }

    /// The lock file's first line is the process, its eighth the state ("Line 8" of PostgreSQL's pidfile.h).
    fn says_ready(&self, pid: u32) -> bool {
        let text = std::fs::read_to_string(self.data().join("postmaster.pid")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        lines.first() == Some(&pid.to_string().as_str()) && lines.get(7) == Some(&"ready")
    }

    fn wait_gone(&self, process: &mut Child, patience: Duration) -> Result<(), Error> {
        let give_up = Instant::now() + patience;
        loop {
            match process.try_wait() {
                Ok(None) if Instant::now() > give_up => return Err(self.timed_out("stopped")),
                Ok(None) => std::thread::sleep(LOOK_AGAIN),
                Ok(Some(_)) | Err(_) => return Ok(()),
            }
        }
    }

    /// SIGKILL to all processes of the server, and the removal of what only a clean end removes.
    fn kill(&self, process: &mut Child) {
        let mut family = children(process.id());
        signal(process.id(), Signal::KILL);
        let _ = process.wait();
        // Children made between the look and the kill have noticed their parent's death by now, or will.
        family.extend(children(process.id()));
        for &child in &family {
            signal(child, Signal::KILL);
        }
        let give_up = Instant::now() + PATIENCE;
        while family.iter().any(|child| is_server_process(*child)) && Instant::now() < give_up {
            std::thread::sleep(LOOK_AGAIN);
        }
    }

    /// Removes the shared memory segment that a killed server leaves (a start would have recycled it).
    fn remove_shared_memory(&self) {
        let text = std::fs::read_to_string(self.data().join("postmaster.pid")).unwrap_or_default();
        // The seventh line: key and identifier of the segment.
        if let Some(id) = text
            .lines()
            .nth(6)
            .and_then(|line| line.split_whitespace().nth(1))
        {
            let _ = Command::new("ipcrm")
                .args(["-m", id])
                .stderr(Stdio::null())
                .status();
        }
    }

    fn stop_with(&self, state: &mut State, how: Stop) -> Result<(), Error> {
        let Some(mut process) = state.process.take() else {
            return Ok(());
        };
        if state.paused && how != Stop::Kill {
            signal_tree(process.id(), Signal::CONT);
        }
        state.paused = false;
        match how {
            Stop::Fast => signal(process.id(), Signal::INT),
            Stop::Immediate => {
                signal(process.id(), Signal::QUIT);
                // Its main process has once stayed although it had killed all others: it is no more than a crash either way.
                if self.wait_gone(&mut process, RECALCITRANT).is_err() {
                    self.kill(&mut process);
                }
            }
            Stop::Kill => self.kill(&mut process),
        }
        self.wait_gone(&mut process, PATIENCE)
            .inspect_err(|_| self.kill(&mut process))
    }

    fn log_tail(&self) -> String {
        let log = self.log().unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }

    fn timed_out(&self, state: &'static str) -> Error {
        Error::TimedOut {
            name: self.name.clone(),
            state,
            seconds: PATIENCE.as_secs(),
            log: self.log_tail(),
        }
    }

    fn wrong_state(&self, state: &'static str) -> Error {
        Error::WrongState {
            name: self.name.clone(),
            state,
        }
    }
}

impl Node for LocalNode {
    fn name(&self) -> &str {
        &self.name
    }

    fn host(&self) -> &str {
        "127.0.0.1"
    }

    fn port(&self) -> u16 {
        self.port.number()
    }

    fn role(&self) -> Role {
        self.state().role
    }

    fn is_new(&self) -> bool {
        self.is_new
    }

    fn start(&self) -> Result<(), Error> {
        let mut state = self.state();
        if state.process.is_some() {
            return Err(self.wrong_state("already started"));
        }
        self.write_settings(&state.settings)?;
        let mut process = self.spawn()?;
        let ready = self.wait_ready(&mut process);
        state.process = Some(process);
        ready.inspect_err(|_| drop(self.stop_with(&mut state, Stop::Kill)))
    }

    fn stop(&self, how: Stop) -> Result<(), Error> {
        self.stop_with(&mut self.state(), how)
    }

    fn pause(&self) -> Result<(), Error> {
        let mut state = self.state();
        let process = state
            .process
            .as_ref()
            .ok_or_else(|| self.wrong_state("not started"))?;
        signal_tree(process.id(), Signal::STOP);
        state.paused = true;
        Ok(())
    }

    fn resume(&self) -> Result<(), Error> {
        let mut state = self.state();
        let process = state
            .process
            .as_ref()
            .ok_or_else(|| self.wrong_state("not started"))?;
        signal_tree(process.id(), Signal::CONT);
        state.paused = false;
        Ok(())
    }

    fn promote(&self) -> Result<(), Error> {
        let mut state = self.state();
        let mut command = self.account.command(self.install.program("pg_ctl"));
        command
            .args([
                "promote",
                "--wait",
                "--timeout",
                &PATIENCE.as_secs().to_string(),
                "--pgdata",
            ])
            .arg(self.data());
        run("pg_ctl promote", command)?;
        state.role = Role::Primary;
        state.settings.unset("primary_conninfo");
        state.settings.unset("primary_slot_name");
        Ok(())
    }

    fn configure(&self, changes: &[(&str, Option<&str>)]) -> Result<(), Error> {
        let mut state = self.state();
        for (name, value) in changes {
            match value {
                Some(value) => state.settings.set(name, value),
                None => state.settings.unset(name),
            }
        }
        self.write_settings(&state.settings)?;
        if let Some(process) = &state.process {
            signal(process.id(), Signal::HUP);
        }
        Ok(())
    }

    fn log(&self) -> Result<String, Error> {
        let path = self.home().join("log");
        let bytes = std::fs::read(&path).map_err(Error::io("read", path))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

impl Drop for LocalNode {
    fn drop(&mut self) {
        let how = if self.stage.is_kept() {
            Stop::Fast
        } else {
            Stop::Immediate
        };
        let stopped = self.stop(how);
        // After a clean stop the file is gone, and so is the segment.
        self.remove_shared_memory();
        drop(stopped); // a server that did not stop was killed; there is nobody to tell
    }
}

/// Whether a process is there and not merely waiting for its parent to notice its end.
fn is_server_process(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')')
        .is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}
