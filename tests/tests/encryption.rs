//! TLS with a real client on one side and a real server on the other: what is configured is what is on the wire.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use switchyard_tests::cluster::{Cluster, ClusterSpec, Install, Node, RouterFile};
use switchyard_tests::{Client, Login, Router, RouterPorts, eventually};
use tempfile::TempDir;

/// An authority, and a directory for what it signs.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    directory: TempDir,
}

impl Authority {
    fn new(name: &str) -> Authority {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let directory = TempDir::new().unwrap();
        let certificate = params.self_signed(&key).unwrap().pem();
        std::fs::write(directory.path().join("ca.crt"), certificate).unwrap();
        Authority {
            issuer: Issuer::new(params, key),
            directory,
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A certificate for a common name, good for the loopback address, and its key: in PEM, and in files of that name.
    fn sign(&self, name: &str) -> [String; 2] {
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let pair = [certificate.pem(), key.serialize_pem()];
        for (ending, text) in ["crt", "key"].iter().zip(&pair) {
            let path = self.file(&format!("{name}.{ending}"));
            std::fs::write(&path, text).unwrap();
            // libpq uses no key that others can read.
            let closed = std::os::unix::fs::PermissionsExt::from_mode(0o600);
            std::fs::set_permissions(&path, closed).unwrap();
        }
        pair
    }
}

/// Gives a server a certificate. The server writes the files itself: only its own account may read the key.
fn encrypt(cluster: &Cluster, node: &dyn Node, pair: &[String; 2]) {
    for (name, text) in ["server.crt", "server.key"].iter().zip(pair) {
        let sql = format!(
            "COPY (SELECT unnest(string_to_array('{}', E'\\n'))) TO PROGRAM 'umask 077; cat >{name}'",
            text.trim_end()
        );
        cluster.superuser_sql(node, "shop", &sql).unwrap();
    }
    let settings = [
        ("ssl_cert_file", Some("server.crt")),
        ("ssl_key_file", Some("server.key")),
        ("ssl", Some("on")),
    ];
    node.configure(&settings).unwrap();
    eventually("the server encrypts", || {
        cluster.sql(node, "SHOW ssl").unwrap() == "on"
    });
}

/// A certificate of version 1 for `localhost` until 2126, and its key: `openssl req -new …`, `openssl x509 -req -signkey …`.
fn version_1() -> [String; 2] {
    [
        include_str!("encryption/version1.crt").to_owned(),
        include_str!("encryption/version1.key").to_owned(),
    ]
}

#[test]
fn a_certificate_of_version_1_will_do() {
    let cluster = cluster();
    let directory = tempfile::tempdir().unwrap();
    let [cert, key] = ["own.crt", "own.key"].map(|name| directory.path().join(name));
    let [certificate, private] = version_1();
    std::fs::write(&cert, certificate).unwrap();
    std::fs::write(&key, private).unwrap();
    let lines = format!("[router.tls]\ncert = {cert:?}\nkey = {key:?}");
    let (text, ports) = router(&cluster, &lines, "", "trust");
    let served = Router::start(&text, ports);
    assert_eq!(
        printed(&psql(served.port(), "sslmode=require", "SELECT 1")),
        "1"
    );
    // Another's key is noticed.
    let [_, other] = Authority::new("authority").sign("other");
    std::fs::write(&key, other).unwrap();
    let failure = served.console().run("RELOAD").failure.unwrap();
    assert!(failure.message().contains("own.crt"), "{failure:?}");
}

/// A router on these servers: more lines for `[router]`, for the database, and the method of authentication.
fn router(cluster: &Cluster, lines: &str, database: &str, auth: &str) -> (String, RouterPorts) {
    let ports = RouterPorts::choose();
    let file = RouterFile {
        listen: ports.port(),
        http: ports.http(),
        auth,
        router: lines,
        tables: "\n[[databases.tables]]\nname = \"users\"\nshard_key = \"id\"\nmethod = \"hash\"\n",
    };
    let text = cluster
        .router_file(&file)
        .replace("[[databases]]\n", &format!("[[databases]]\n{database}\n"));
    (text, ports)
}

/// Four rows on two shards.
fn cluster() -> Cluster {
    let cluster = Cluster::start(ClusterSpec::for_tests(2, 0)).unwrap();
    for shard in cluster.shards() {
        let ddl = "CREATE TABLE users (id int8 PRIMARY KEY)";
        cluster.sql(shard.primary.as_ref(), ddl).unwrap();
    }
    cluster
}

fn psql(port: u16, options: &str, sql: &str) -> Output {
    Command::new(Install::find(None).unwrap().client("psql"))
        .env("PGPASSWORD", "secret")
        .args(["-X", "-A", "-t", "-c", sql, "-d"])
        .arg(format!(
            "host=127.0.0.1 port={port} user=app dbname=shop {options}"
        ))
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

#[track_caller]
fn printed(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

#[track_caller]
fn complaint(output: &Output) -> String {
    assert!(!output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn clients_are_encrypted_as_configured() {
    let (cluster, authority) = (cluster(), Authority::new("authority"));
    for name in ["router", "app", "stranger"] {
        authority.sign(name);
    }
    let path = |name: &str| authority.file(name).to_str().unwrap().to_owned();
    let tls = format!(
        "\n[router.tls]\ncert = {:?}\nkey = {:?}\nclient_ca = {:?}",
        path("router.crt"),
        path("router.key"),
        path("ca.crt")
    );
    let verify = format!("sslmode=verify-full sslrootcert={}", path("ca.crt"));
    let insert =
        "INSERT INTO users VALUES (7) ON CONFLICT DO NOTHING; SELECT id FROM users WHERE id = 7";

    // libpq asks for channel binding only where SCRAM runs inside of TLS.
    let (text, ports) = router(&cluster, &tls, "", "scram-sha-256");
    let served = Router::start(&text, ports);
    let bound = format!("{verify} channel_binding=require");
    assert!(printed(&psql(served.port(), &bound, insert)).ends_with('7'));
    assert!(printed(&psql(served.port(), "sslmode=disable", insert)).ends_with('7'));
    let elsewhere = Authority::new("elsewhere").directory;
    let other = format!(
        "sslmode=verify-ca sslrootcert={}",
        elsewhere.path().join("ca.crt").display()
    );
    complaint(&psql(served.port(), &other, insert));
    drop(served);

    let (text, ports) = router(
        &cluster,
        &format!("{tls}\nrequired = true"),
        "",
        "scram-sha-256",
    );
    let served = Router::start(&text, ports);
    let said = complaint(&psql(served.port(), "sslmode=disable", insert));
    assert!(said.contains("FATAL"), "{said}");
    assert!(printed(&psql(served.port(), &verify, insert)).ends_with('7'));
    drop(served);

    // Who the client is, its certificate says.
    let (text, ports) = router(&cluster, &tls, "", "cert");
    let served = Router::start(&text, ports);
    let certificate = |name: &str| {
        let (cert, key) = (path(&format!("{name}.crt")), path(&format!("{name}.key")));
        format!("{verify} sslcert={cert} sslkey={key}")
    };
    let authenticated = psql(served.port(), &certificate("app"), insert);
    assert!(printed(&authenticated).ends_with('7'));
    let said = complaint(&psql(served.port(), &certificate("stranger"), insert));
    assert!(said.contains("certificate authentication failed"), "{said}");
    complaint(&psql(served.port(), &verify, insert));
}

#[test]
fn a_reload_takes_new_certificates_and_rules() {
    let (cluster, old, new) = (cluster(), Authority::new("old"), Authority::new("new"));
    for authority in [&old, &new] {
        authority.sign("router");
    }
    let tls = |authority: &Authority, more: &str| {
        let [cert, key] = ["router.crt", "router.key"].map(|name| authority.file(name));
        format!("\n[router.tls]\ncert = {cert:?}\nkey = {key:?}\n{more}")
    };
    let (before, after) = (tls(&old, ""), tls(&new, "required = true"));
    let (text, ports) = router(&cluster, &before, "", "scram-sha-256");
    let mut served = Router::start(&text, ports);
    let port = served.port();
    let verified = |authority: &Authority| {
        let root = authority.file("ca.crt");
        let options = format!("sslmode=verify-full sslrootcert={}", root.display());
        psql(port, &options, "SELECT 1")
    };
    assert_eq!(printed(&verified(&old)), "1");
    assert_eq!(printed(&psql(port, "sslmode=disable", "SELECT 1")), "1");

    std::fs::write(served.config_file(), text.replace(&before, &after)).unwrap();
    served.process().hang_up();
    eventually("the reload is logged", || {
        served.log().contains("configuration reloaded")
    });
    assert_eq!(printed(&verified(&new)), "1");
    complaint(&verified(&old));
    let said = complaint(&psql(port, "sslmode=disable", "SELECT 1"));
    assert!(said.contains("SSL connection is required"), "{said}");
}

#[test]
fn nodes_are_encrypted_as_configured() {
    let (cluster, authority) = (cluster(), Authority::new("authority"));
    let path = |name: &str| authority.file(name).to_str().unwrap().to_owned();
    let pair = authority.sign("node");
    for shard in cluster.shards() {
        encrypt(&cluster, shard.primary.as_ref(), &pair);
    }
    let is_encrypted = |client: &mut Client| {
        let sql = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
        let found = ["s0", "s1"].map(|shard| {
            let sql = format!("/* switchyard: shard={shard} */ {sql}");
            client.run(&sql).succeeded().value()
        });
        assert_eq!(found[0], found[1]);
        found[0] == "t"
    };
    let encrypts = |mode: &str| {
        let (text, ports) = router(&cluster, "", mode, "trust");
        let served = Router::start(&text, ports);
        is_encrypted(&mut Client::connect(&Login::new(served.port())))
    };
    let authorities = format!("sslrootcert = {:?}", path("ca.crt"));
    assert!(encrypts(&format!(
        "sslmode = \"verify-full\"\n{authorities}"
    )));
    assert!(encrypts(""), "the default prefers it");

    // A reload ends what is connected otherwise.
    let (text, ports) = router(&cluster, "", "sslmode = \"disable\"", "trust");
    let served = Router::start(&text, ports);
    let mut client = Client::connect(&Login::new(served.port()));
    assert!(!is_encrypted(&mut client));
    let text = text.replace("\"disable\"", "\"require\"");
    std::fs::write(served.config_file(), text).unwrap();
    served.console().run("RELOAD").succeeded();
    assert!(is_encrypted(&mut client));

    // Certificates of version 1 are what PostgreSQL's manual has one make.
    for shard in cluster.shards() {
        encrypt(&cluster, shard.primary.as_ref(), &version_1());
    }
    assert!(encrypts(""), "a certificate of version 1");

    // Servers of an unknown authority are not talked to.
    let elsewhere = Authority::new("elsewhere");
    let authorities = elsewhere.file("ca.crt").to_str().unwrap().to_owned();
    let mode = format!("sslmode = \"verify-ca\"\nsslrootcert = {authorities:?}");
    let (text, ports) = router(&cluster, "", &mode, "trust");
    let served = Router::start_unready(&text, ports);
    eventually("the log says why", || served.log().contains("certificate"));
    assert_eq!(served.get("/readyz").map(|(status, _)| status), Some(503));
}
