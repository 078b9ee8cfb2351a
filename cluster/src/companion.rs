//! Another program that must not outlive us, such as a router.

use std::io::Error as IoError;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::Error;
use crate::process::{LOOK_AGAIN, signal};

/// Waits for the end of its standard input, then kills process $1 and removes directory $2, if there is one. The word "done"
/// on standard input says that this has happened already.
const WATCH: &str = "trap '' HUP INT TERM QUIT
if read -r word && [ \"$word\" = done ]; then exit 0; fi
kill -KILL \"$1\"
[ -z \"${2:-}\" ] || rm -rf \"$2\"";

/// A child process that is killed when this value is dropped, and also when our process dies without dropping it.
#[derive(Debug)]
pub struct Companion {
    process: Child,
    /// A shell that waits for the end of its standard input, which is our end, and then kills the process.
    watch: Option<Child>,
}

impl Companion {
    /// Starts it, apart from our terminal's signals.
    pub fn start(command: &mut Command) -> Result<Companion, Error> {
        Companion::start_with(command, None)
    }

    /// The same with a directory that is removed when the process was killed because of our death.
    pub fn start_with(command: &mut Command, scratch: Option<&Path>) -> Result<Companion, Error> {
        let process = command
            .process_group(0)
            .spawn()
            .map_err(Error::io("start", command.get_program()))?;
        // From here on the process is killed if something fails.
        let mut companion = Companion {
            process,
            watch: None,
        };
        let mut watch = Command::new("/bin/sh");
        watch
            .args(["-c", WATCH, "watch"])
            .arg(companion.process.id().to_string())
            .args(scratch)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0);
        companion.watch = Some(watch.spawn().map_err(Error::io("start", "/bin/sh"))?);
        Ok(companion)
    }

    /// The process's number.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Its exit status, if it has ended.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>, IoError> {
        self.process.try_wait()
    }

    /// Asks it to end (SIGTERM).
    pub fn terminate(&self) {
        signal(self.process.id(), Signal::TERM);
    }

    /// Asks it to read its configuration again (SIGHUP).
    pub fn hang_up(&self) {
        signal(self.process.id(), Signal::HUP);
    }

    /// Stops it where it is, until [`Companion::resume`].
    pub fn pause(&self) {
        signal(self.process.id(), Signal::STOP);
    }

    /// Lets it go on.
    pub fn resume(&self) {
        signal(self.process.id(), Signal::CONT);
    }

    /// Interrupts it (SIGINT), as Ctrl-C does.
    pub fn interrupt(&self) {
        signal(self.process.id(), Signal::INT);
    }

    /// Kills it now and waits until it is gone.
    pub fn kill(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }

    /// Waits for its end; none if it does not come in time.
    pub fn wait(&mut self, patience: Duration) -> Result<Option<ExitStatus>, IoError> {
        let give_up = Instant::now() + patience;
        loop {
            match self.process.try_wait()? {
                None if Instant::now() < give_up => std::thread::sleep(LOOK_AGAIN),
                ended => return Ok(ended),
            }
        }
    }

    /// The pipe to its standard input, if it was asked for.
    pub fn stdin(&mut self) -> Option<std::process::ChildStdin> {
        self.process.stdin.take()
    }

    /// The pipe from its standard output, if it was asked for.
    pub fn stdout(&mut self) -> Option<std::process::ChildStdout> {
        self.process.stdout.take()
    }

    /// The pipe from its standard error, if it was asked for.
    pub fn stderr(&mut self) -> Option<std::process::ChildStderr> {
        self.process.stderr.take()
    }
}

impl Drop for Companion {
    fn drop(&mut self) {
        self.kill();
        if let Some(mut watch) = self.watch.take() {
            if let Some(mut pipe) = watch.stdin.take() {
                let _ = std::io::Write::write_all(&mut pipe, b"done\n");
            }
            let _ = watch.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_ends_with_the_value_and_by_signal() {
        let companion = Companion::start(Command::new("sleep").arg("1000")).unwrap();
        let process = std::path::PathBuf::from(format!("/proc/{}", companion.id()));
        assert!(process.exists());
        drop(companion);
        assert!(!process.exists());

        let mut companion = Companion::start(Command::new("sleep").arg("1000")).unwrap();
        assert!(companion.wait(Duration::from_millis(20)).unwrap().is_none());
        companion.terminate();
        assert!(
            companion
                .wait(Duration::from_secs(10))
                .unwrap()
                .is_some_and(|status| !status.success())
        );
    }
}
