//! Unix sockets: clients come by one, and nodes are reached by one.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "test code fails by panicking"
)]

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;

use switchyard_tests::cluster::{APP_USER, ClusterSpec, Install};
use switchyard_tests::{Bed, BedSpec, Client, Login, Router, RouterPorts, eventually};
use tempfile::TempDir;

static BED: OnceLock<Bed> = OnceLock::new();

fn bed() -> &'static Bed {
    BED.get_or_init(|| Bed::start(BedSpec::of(ClusterSpec::for_tests(2, 0))))
}

/// A directory for sockets, open to the servers' account.
fn directory() -> TempDir {
    let directory = tempfile::Builder::new().prefix("sy-").tempdir().unwrap();
    std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o777)).unwrap();
    directory
}

fn psql(directory: &Path, port: u16, password: &str, sql: &str) -> Command {
    let mut psql = Command::new(Install::find(None).unwrap().client("psql"));
    psql.args(["-X", "-A", "-t", "-v", "VERBOSITY=verbose", "-h"])
        .arg(directory)
        .args(["-p", &port.to_string(), "-U", APP_USER, "-d", "shop", "-c"])
        .arg(sql)
        .env("PGPASSWORD", password)
        .stdin(Stdio::null());
    psql
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim().to_owned()
}

/// What psql prints; a failed test if it fails.
#[track_caller]
fn printed(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    text(&output.stdout)
}

fn interrupt(child: &Child) {
    let killed = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status();
    assert!(killed.unwrap().success());
}

fn socket(directory: &Path, router: &Router) -> PathBuf {
    directory.join(format!(".s.PGSQL.{}", router.port()))
}

#[test]
fn clients_come_by_a_unix_socket() {
    let bed = bed();
    let directory = directory();
    let directory = directory.path();
    let mut router = bed.another_router(&format!("unix_socket_dir = {directory:?}"), &|node| {
        node.port()
    });
    let run = |password: &str, sql: &str| {
        psql(directory, router.port(), password, sql)
            .output()
            .unwrap()
    };
    let expected = bed.client().run("SELECT name FROM users WHERE id = 1");
    let found = run("secret", "SELECT name FROM users WHERE id = 1");
    assert_eq!(printed(&found), expected.succeeded().value());
    // Who cannot prove its name stays outside here, too.
    let refused = run("wrong", "SELECT 1");
    let said = text(&refused.stderr);
    assert!(said.contains("password authentication failed"), "{said}");

    // A cancel request comes by the same way.
    let mut sleeping = psql(directory, router.port(), "secret", "SELECT pg_sleep(60)");
    let sleeping = sleeping.stderr(Stdio::piped()).spawn().unwrap();
    let mut console = router.console();
    eventually("it runs", || {
        let clients = console.run("SHOW CLIENTS").succeeded().texts();
        clients.iter().any(|client| {
            let has = |value: &str| client.iter().any(|cell| cell == value);
            has("active") && has("unix")
        })
    });
    // One that comes before the statement does nothing, as with PostgreSQL.
    eventually("it sleeps", || {
        let sleeps = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
        let sleeps = |node| bed.cluster().sql(node, sleeps).unwrap() != "0";
        bed.cluster().nodes().any(sleeps)
    });
    interrupt(&sleeping);
    let said = text(&sleeping.wait_with_output().unwrap().stderr);
    assert!(said.contains("57014"), "{said}");

    // The file goes with the router.
    let file = socket(directory, &router);
    assert!(file.exists());
    router.process().terminate();
    eventually("the router has ended", || !router.is_alive());
    assert!(!file.exists());
}

#[test]
fn a_socket_left_behind_is_replaced_and_one_in_use_is_not() {
    let bed = bed();
    let directory = directory();
    let directory = directory.path();
    let template = std::fs::read_to_string(bed.router().config_file()).unwrap();
    let on = |ports: &RouterPorts| {
        let listen = format!(
            "listen = \"127.0.0.1:{}\"\nunix_socket_dir = {directory:?}",
            ports.port()
        );
        template
            .replace(
                &format!("listen = \"127.0.0.1:{}\"", bed.router().port()),
                &listen,
            )
            .replace(
                &format!(":{}\"", bed.router().http()),
                &format!(":{}\"", ports.http()),
            )
    };

    let ports = RouterPorts::choose();
    let file = directory.join(format!(".s.PGSQL.{}", ports.port()));
    drop(UnixListener::bind(&file).unwrap());
    let router = Router::start(&on(&ports), ports);
    let found = psql(directory, router.port(), "secret", "SELECT 1").output();
    assert_eq!(printed(&found.unwrap()), "1");

    let ports = RouterPorts::choose();
    let file = directory.join(format!(".s.PGSQL.{}", ports.port()));
    let _other = UnixListener::bind(&file).unwrap();
    let mut router = Router::start_unready(&on(&ports), ports);
    eventually("the router has ended", || !router.is_alive());
    let log = router.log();
    let expected = format!("cannot listen on {}", file.display());
    assert!(log.contains(&expected), "{log}");
    UnixStream::connect(&file).unwrap();
}

#[test]
fn nodes_are_reached_by_a_unix_socket() {
    let directory = directory();
    let path = directory.path().to_str().unwrap();
    let mut spec = ClusterSpec::for_tests(2, 1);
    spec.settings.set("unix_socket_directories", path);
    let bed = Bed::start(BedSpec::of(spec));
    let template = std::fs::read_to_string(bed.router().config_file()).unwrap();
    let ports = RouterPorts::choose();
    let configuration = template
        .replace(
            &format!(":{}\"", bed.router().port()),
            &format!(":{}\"", ports.port()),
        )
        .replace(
            &format!(":{}\"", bed.router().http()),
            &format!(":{}\"", ports.http()),
        )
        .replace("host = \"127.0.0.1\"", &format!("host = {path:?}"));
    let router = Router::start(&configuration, ports);
    let mut client = Client::connect(&Login::new(router.port()));
    let users = client.run("SELECT id FROM users").succeeded().rows.len();
    assert_eq!(users, bed.client().run("SELECT id FROM users").rows.len());
    let way = client.run("SELECT inet_server_addr() IS NULL").succeeded();
    assert_eq!(way.value(), "t", "not by TCP");

    // A cancel request finds the server by its socket.
    client.send(|buffer| {
        postgres_protocol::message::frontend::query("SELECT pg_sleep(60)", buffer).unwrap();
    });
    let running = "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(60)'";
    eventually("it runs", || {
        bed.cluster()
            .nodes()
            .any(|node| bed.cluster().sql(node, running).unwrap() != "0")
    });
    Client::cancel(&client.key, router.port());
    let failure = client.replies(None).remove(0).failure.unwrap();
    assert_eq!(failure.sqlstate(), "57014");

    let (code, out, err) = switchyard_tests::command(&["check"], &router.config_file());
    assert_eq!(code, Some(0), "{out}{err}");
}
