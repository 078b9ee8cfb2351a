//! Servers as processes of this machine.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use crate::server::LocalNode;
use crate::template::Template;
use crate::{Account, Error, Install, Node, Port, Provider, Role, SUPERUSER, Settings, Stage};

/// A provider that runs the system's PostgreSQL binaries on loopback.
#[derive(Debug)]
pub struct Local {
    install: Install,
    account: Account,
    stage: Arc<Stage>,
    password: String,
    /// What new data is copied from.
    template: Option<Template>,
}

impl Local {
    /// In a temporary directory that is removed in the end.
    pub fn temporary() -> Result<Local, Error> {
        let install = Install::find(None)?;
        let account = Account::unprivileged()?;
        let stage = Stage::temporary(&account)?;
        let template = Template::beside_tests(&install, &random_password()?)?;
        Local::on(install, account, stage, template)
    }

    /// In a directory of the user's choice, where the data stays.
    pub fn kept(directory: &Path) -> Result<Local, Error> {
        let install = Install::find(None)?;
        let account = Account::unprivileged()?;
        let stage = Stage::kept(&account, directory)?;
        Local::on(install, account, stage, None)
    }

    fn on(
        install: Install,
        account: Account,
        stage: Stage,
        template: Option<Template>,
    ) -> Result<Local, Error> {
        account.can_reach(install.bin())?;
        let known = template.as_ref().map(Template::password);
        let password = password(&stage.path().join("superuser.password"), &account, known)?;
        Ok(Local {
            install,
            account,
            stage: Arc::new(stage),
            password,
            template,
        })
    }

    /// The directory all of it lives in.
    pub fn stage(&self) -> &Stage {
        &self.stage
    }

    /// The binaries in use.
    pub fn install(&self) -> &Install {
        &self.install
    }

    /// Makes the data by `fill` unless it is there, and starts the server.
    fn node(
        &self,
        name: &str,
        role: Role,
        settings: Settings,
        fill: impl Fn(&Path) -> Result<(), Error>,
    ) -> Result<Box<dyn Node>, Error> {
        let home = self.stage.path().join(name);
        let data = home.join("data");
        // Written after the data was made: without it, the making was interrupted.
        let made = home.join("port");
        let is_new = !made.is_file();
        if is_new {
            if home.exists() {
                std::fs::remove_dir_all(&home)
                    .map_err(Error::io("remove the unfinished", &home))?;
            }
            std::fs::create_dir(&home).map_err(Error::io("make the directory", &home))?;
            self.account.own(&home)?;
            fill(&data)?;
        }
        // Others may know found data by its port: a router's configuration or catalog.
        let former: Option<u16> = std::fs::read_to_string(&made)
            .ok()
            .and_then(|text| text.trim().parse().ok());
        let mut attempts = 3;
        loop {
            let port = former.map_or_else(Port::any, Port::exactly)?;
            std::fs::write(&made, port.number().to_string()).map_err(Error::io("write", &made))?;
            let node = LocalNode::new(self, name, role, settings.clone(), port, is_new);
            attempts -= 1;
            match node.start() {
                Ok(()) => return Ok(Box::new(node)),
                Err(Error::NotStarted { log, .. })
                    if log.contains("Address already in use") && attempts > 0 => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn initdb(&self, data: &Path, options: &[&str]) -> Result<(), Error> {
        let mut command = self.account.command(self.install.program("initdb"));
        command
            .arg("--pgdata")
            .arg(data)
            .arg("--pwfile")
            .arg(self.stage.path().join("superuser.password"))
            .args([
                "--username",
                SUPERUSER,
                "--auth",
                "scram-sha-256",
                "--encoding",
                "UTF8",
                "--locale",
                "C",
            ])
            .args(options);
        if !self.stage.is_kept() {
            command.arg("--no-sync");
        }
        run("initdb", command)?;
        let hba = data.join("pg_hba.conf");
        let rules = [
            "local all all",
            "host all all 127.0.0.1/32",
            "host replication all 127.0.0.1/32",
        ];
        let rules: String = rules.map(|rule| format!("{rule} scram-sha-256\n")).concat();
        self.account.write(&hba, &rules)
    }

    fn basebackup(&self, data: &Path, primary: &dyn Node, slot: &str) -> Result<(), Error> {
        let backup = |options: &[&str]| {
            let mut command = self.account.command(self.install.program("pg_basebackup"));
            command
                .env("PGPASSWORD", &self.password)
                .args([
                    "--host",
                    primary.host(),
                    "--port",
                    &primary.port().to_string(),
                    "--username",
                    SUPERUSER,
                ])
                .args([
                    "--checkpoint",
                    "fast",
                    "--wal-method",
                    "stream",
                    "--slot",
                    slot,
                ])
                .args(options)
                .args((!self.stage.is_kept()).then_some("--no-sync"))
                .arg("--pgdata")
                .arg(data);
            run("pg_basebackup", command)
        };
        match backup(&["--create-slot"]) {
            // By an earlier backup that was interrupted.
            Err(Error::Command { output, .. }) if output.contains("already exists") => backup(&[])?,
            done => done?,
        };
        self.account.write(&data.join("standby.signal"), "")
    }

    pub(crate) fn parts(&self) -> (Install, Account, Arc<Stage>) {
        (
            self.install.clone(),
            self.account.clone(),
            Arc::clone(&self.stage),
        )
    }
}

impl Provider for Local {
    fn primary(&self, name: &str, settings: &Settings) -> Result<Box<dyn Node>, Error> {
        self.node(name, Role::Primary, settings.clone(), |data| {
            match &self.template {
                Some(template) => template.fill(data, &self.account, || {
                    self.initdb(data, &["--wal-segsize", "1"])
                }),
                None => self.initdb(data, &[]),
            }
        })
    }

    fn replica(
        &self,
        name: &str,
        primary: &dyn Node,
        settings: &Settings,
    ) -> Result<Box<dyn Node>, Error> {
        let slot: String = name
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
            .collect();
        let upstream = format!(
            "host={} port={} user={SUPERUSER} password={} application_name={slot}",
            primary.host(),
            primary.port(),
            self.password
        );
        let settings = settings
            .clone()
            .with("primary_conninfo", &upstream)
            .with("primary_slot_name", &slot);
        self.node(name, Role::Replica, settings, |data| {
            self.basebackup(data, primary, &slot)
        })
    }

    fn superuser_password(&self) -> &str {
        &self.password
    }
}

/// Runs a program to its end; what it said becomes the error.
pub(crate) fn run(program: &str, mut command: Command) -> Result<String, Error> {
    let output = command
        .output()
        .map_err(Error::io("start", PathBuf::from(program)))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Err(Error::Command {
        program: program.to_owned(),
        output: format!("{}: {}", output.status, said.trim()),
    })
}

/// The superuser's password, made once per directory unless it is known, and readable by the servers' account only.
fn password(path: &Path, account: &Account, known: Option<&str>) -> Result<String, Error> {
    if let Ok(found) = std::fs::read_to_string(path) {
        return Ok(found.trim().to_owned());
    }
    let password = known.map_or_else(random_password, |known| Ok(known.to_owned()))?;
    account.write(path, &password)?;
    Ok(password)
}

fn random_password() -> Result<String, Error> {
    let mut bytes = [0; 16];
    let source = Path::new("/dev/urandom");
    std::fs::File::open(source)
        .and_then(|mut file| std::io::Read::read_exact(&mut file, &mut bytes))
        .map_err(Error::io("read", source))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
