//! The router's program as a process.

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use switchyard_cluster::{Companion, Port};
use tempfile::TempDir;

use crate::{Client, Login, eventually};

/// A running router. Dropping it kills it; so does the death of this process.
#[derive(Debug)]
pub struct Router {
    program: Companion,
    port: Port,
    http: Port,
    directory: TempDir,
}

/// The ports a router will listen on, chosen before its configuration is written.
#[derive(Debug)]
pub struct RouterPorts {
    port: Port,
    http: Port,
}

impl RouterPorts {
    /// Two free ports, held.
    pub fn choose() -> RouterPorts {
        RouterPorts {
            port: Port::any().unwrap(),
            http: Port::any().unwrap(),
        }
    }

    /// For PostgreSQL clients.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// For http.
    pub fn http(&self) -> u16 {
        self.http.number()
    }
}

impl Router {
    /// Starts a router on a configuration that names these ports, and waits until it says that it is ready.
    #[track_caller]
    pub fn start(configuration: &str, ports: RouterPorts) -> Router {
        let mut router = Router::start_unready(configuration, ports);
        eventually("the router is ready", || {
            if let Ok(Some(status)) = router.program.ended() {
                panic!(
                    "the router ended with {status}:\n{}\n{configuration}",
                    router.log()
                );
            }
            router
                .get("/readyz")
                .is_some_and(|(status, _)| status == 200)
        });
        router
    }

    /// Starts a router and does not wait for anything.
    pub fn start_unready(configuration: &str, ports: RouterPorts) -> Router {
        let directory = tempfile::Builder::new()
            .prefix("switchyard-router-")
            .tempdir()
            .unwrap();
        let file = directory.path().join("switchyard.toml");
        std::fs::write(&file, configuration).unwrap();
        let log = File::create(directory.path().join("log")).unwrap();
        let mut command = Command::new(Router::binary());
        command.arg("run").arg("--config").arg(&file);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        let program = Companion::start_with(&mut command, Some(directory.path())).unwrap();
        Router {
            program,
            port: ports.port,
            http: ports.http,
            directory,
        }
    }

    /// The program, built by cargo together with this package's tests.
    pub fn binary() -> PathBuf {
        program("switchyard-under-test")
    }

    /// A client of its console.
    #[track_caller]
    pub fn console(&self) -> Client {
        Client::connect(&Login {
            database: "switchyard".to_owned(),
            ..Login::new(self.port())
        })
    }

    /// The port for PostgreSQL clients.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// The port for http.
    pub fn http(&self) -> u16 {
        self.http.number()
    }

    /// What `/metrics` says of this counter, labels included.
    pub fn metric(&self, name: &str) -> f64 {
        let (_, page) = self.get("/metrics").expect("the router answers by http");
        let value = page
            .lines()
            .find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
        value.unwrap_or_else(|| panic!("there is no {name} in\n{page}"))
    }

    /// Its configuration file.
    pub fn config_file(&self) -> PathBuf {
        self.directory.path().join("switchyard.toml")
    }

    /// The process's number.
    pub fn id(&self) -> u32 {
        self.program.id()
    }

    /// The process, for signals.
    pub fn process(&mut self) -> &mut Companion {
        &mut self.program
    }

    /// Everything it has logged.
    pub fn log(&self) -> String {
        let bytes = std::fs::read(self.directory.path().join("log")).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// An http request: status and body; none if there was no answer.
    pub fn get(&self, path: &str) -> Option<(u16, String)> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.http())).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        )
        .ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        let status = head.split_whitespace().nth(1)?.parse().ok()?;
        Some((status, body.to_owned()))
    }

    /// Whether the process is alive.
    pub fn is_alive(&mut self) -> bool {
        matches!(self.program.ended(), Ok(None))
    }
}

/// A program of the project, built by cargo together with this package's tests.
pub(crate) fn program(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let directories = test.ancestors().skip(1).take(2);
    let mut found = directories.map(|directory| directory.join(name));
    found
        .find(|path| path.is_file())
        .expect("cargo builds the programs beside the tests")
}

/// Runs another of the router's commands on a configuration: exit code, standard output, standard error.
pub fn command(arguments: &[&str], configuration: &Path) -> (Option<i32>, String, String) {
    let output = Command::new(Router::binary())
        .args(arguments)
        .arg("--config")
        .arg(configuration)
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}
