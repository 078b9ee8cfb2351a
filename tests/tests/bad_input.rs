//! Bad input: each gets the right SQLSTATE, or a closed connection where the protocol says so; other clients notice nothing,
//! nothing is leaked, and the router lives.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use switchyard_tests::cluster::ClusterSpec;
use switchyard_tests::{Bed, BedSpec, Client, Failure, Login, eventually};

/// How long a client may take to log in.
const LOGIN: Duration = Duration::from_secs(2);

static BED: OnceLock<Bed> = OnceLock::new();
/// Server connections are counted, so one test at a time.
static TURN: Mutex<()> = Mutex::new(());

/// The sockets that the router has open, by their inodes; and how many other descriptors.
fn descriptors(bed: &Bed) -> (BTreeSet<String>, usize) {
    let entries = std::fs::read_dir(format!("/proc/{}/fd", bed.router().id())).unwrap();
    let mut sockets = BTreeSet::new();
    let mut others = 0;
    for target in entries.flatten().flat_map(|entry| entry.path().read_link()) {
        let target = target.to_string_lossy();
        let inode = target.strip_prefix("socket:[");
        match inode.and_then(|rest| rest.strip_suffix(']')) {
            Some(inode) => drop(sockets.insert(inode.to_owned())),
            None => others += 1,
        }
    }
    (sockets, others)
}

/// How many connections of clients the router has open, whether or not the client is still there.
fn client_connections(bed: &Bed) -> usize {
    let (open, _) = descriptors(bed);
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let port = format!(":{:04X}", bed.router().port());
    let of_client = |line: &&str| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        const LISTENING: &str = "0A";
        columns[1].ends_with(&port) && columns[3] != LISTENING && open.contains(columns[9])
    };
    table.lines().skip(1).filter(of_client).count()
}

/// A bystander that worked before the misdeed, and must work after it.
struct Scene {
    bed: &'static Bed,
    bystander: Client,
    /// How many file descriptors the router had open besides sockets.
    others: usize,
    _turn: MutexGuard<'static, ()>,
}

impl Scene {
    fn new() -> Scene {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let spec = BedSpec::of(ClusterSpec::for_tests(2, 0)).with_router(&format!(
            "client_login_timeout = \"{}s\"\npool_size = 4",
            LOGIN.as_secs()
        ));
        let bed = BED.get_or_init(|| Bed::start(spec));
        let mut bystander = bed.client();
        bystander.run("BEGIN").succeeded();
        bystander
            .run("UPDATE users SET name = 'bystander' WHERE id = 1")
            .succeeded();
        let (_, others) = descriptors(bed);
        assert_eq!(client_connections(bed), 1, "the bystander's");
        Scene {
            bed,
            bystander,
            others,
            _turn: turn,
        }
    }

    /// The router lives, the bystander's transaction goes on, nobody's connection is lost or left in a transaction.
    #[track_caller]
    fn unharmed(mut self) {
        assert_eq!(
            self.bystander
                .run("SELECT name FROM users WHERE id = 1")
                .succeeded()
                .value(),
            "bystander"
        );
        assert_eq!(self.bystander.status, b'T');
        self.bystander.run("ROLLBACK").succeeded();
        let mut newcomer = self.bed.client();
        for id in 1..20 {
            newcomer
                .run(&format!("SELECT name FROM users WHERE id = {id}"))
                .succeeded();
        }
        newcomer.terminate();
        self.bystander.terminate();
        for shard in self.bed.cluster().shards() {
            let mut direct = self.bed.node_client(shard.primary.as_ref());
            let busy = "SELECT count(*) FROM pg_stat_activity \
                        WHERE datname = 'shop' AND pid <> pg_backend_pid() AND state <> 'idle'";
            eventually("no server connection is left busy", || {
                direct.run(busy).value() == "0"
            });
            let all = "SELECT count(*) FROM pg_stat_activity WHERE datname = 'shop' AND pid <> pg_backend_pid()";
            // The pool, and a few connections of the monitor.
            assert!(direct.run(all).value().parse::<u32>().unwrap() <= 4 + 4);
        }
        eventually("no client's connection is left open", || {
            client_connections(self.bed) == 0
        });
        assert_eq!(descriptors(self.bed).1, self.others);
        let (status, _) = self.bed.router().get("/healthz").unwrap();
        assert_eq!(status, 200);
    }

    fn raw(&self) -> TcpStream {
        let stream = TcpStream::connect(("127.0.0.1", self.bed.router().port())).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        stream
    }
}

/// Everything until the server closes; a failed test if it does not.
#[track_caller]
fn until_closed(stream: &mut TcpStream) -> Vec<u8> {
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {}
        Err(error) => panic!("the connection is not closed: {error}"),
    }
    answer
}

/// The only thing said before the connection was closed is a fatal error.
#[track_caller]
fn fatal(answer: &[u8], sqlstate: &str) {
    assert_eq!(
        answer.first(),
        Some(&b'E'),
        "{:?}",
        String::from_utf8_lossy(answer)
    );
    let text = String::from_utf8_lossy(answer);
    assert!(
        text.contains("FATAL") && text.contains(&format!("C{sqlstate}\0")),
        "{text:?}"
    );
}

#[track_caller]
fn closed_with(client: &mut Client, sqlstate: &str) {
    let message = client.receive();
    assert_eq!(message.tag, b'E', "{message:?}");
    let body = String::from_utf8_lossy(&message.body);
    assert!(
        body.contains("FATAL") && body.contains(&format!("C{sqlstate}\0")),
        "{body:?}"
    );
    assert_eq!(client.try_receive().unwrap(), None);
}

#[track_caller]
fn refused(login: &Login) -> Failure {
    match Client::try_connect(login) {
        Ok(_) => panic!("logged in"),
        Err(failure) => failure,
    }
}

#[test]
fn garbage_instead_of_a_startup_packet() {
    let scene = Scene::new();
    for garbage in [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".repeat(40),
        vec![0; 64],
        vec![0xff; 64],
        (0..=255).cycle().take(100_000).collect(),
    ] {
        let mut stream = scene.raw();
        // It may close before it has read everything.
        let _ = stream.write_all(&garbage);
        let answer = until_closed(&mut stream);
        assert!(
            answer.is_empty() || answer[0] == b'E',
            "{:?}",
            String::from_utf8_lossy(&answer)
        );
    }
    scene.unharmed();
}

#[test]
fn a_startup_packet_that_says_it_is_enormous() {
    let scene = Scene::new();
    let mut stream = scene.raw();
    stream.write_all(&0x7fff_ffff_u32.to_be_bytes()).unwrap();
    stream.write_all(&196_608_u32.to_be_bytes()).unwrap();
    let answer = until_closed(&mut stream);
    assert!(answer.is_empty() || answer[0] == b'E');
    scene.unharmed();
}

#[test]
fn half_a_startup_packet_and_silence() {
    let scene = Scene::new();
    let mut stream = scene.raw();
    let begin = Instant::now();
    stream
        .write_all(&[0, 0, 0, 80, 0, 3, 0, 0, b'u', b's', b'e'])
        .unwrap();
    until_closed(&mut stream);
    let took = begin.elapsed();
    assert!(
        took >= LOGIN - Duration::from_millis(200) && took < LOGIN + Duration::from_secs(3),
        "{took:?}"
    );
    scene.unharmed();
}

#[test]
fn silence_from_the_start_and_after_the_password_request() {
    let scene = Scene::new();
    let mut silent = scene.raw();
    let mut waiting = Client::open(scene.bed.router().port());
    waiting
        .send_raw(&startup(&[("user", "app"), ("database", "shop")]))
        .unwrap();
    assert_eq!(waiting.receive().tag, b'R');
    until_closed(&mut silent);
    while waiting.try_receive().unwrap().is_some() {}
    scene.unharmed();
}

#[test]
fn an_unknown_protocol_version() {
    let scene = Scene::new();
    let mut stream = scene.raw();
    let mut packet = startup(&[("user", "app"), ("database", "shop")]);
    packet[4..8].copy_from_slice(&(2_u32 << 16).to_be_bytes());
    stream.write_all(&packet).unwrap();
    fatal(&until_closed(&mut stream), "0A000");
    scene.unharmed();
}

#[test]
fn a_startup_packet_without_a_user() {
    let scene = Scene::new();
    let mut stream = scene.raw();
    stream.write_all(&startup(&[("database", "shop")])).unwrap();
    fatal(&until_closed(&mut stream), "28000");
    scene.unharmed();
}

#[test]
fn a_message_that_says_it_has_two_gigabytes() {
    let scene = Scene::new();
    let mut client = scene.bed.client();
    client.send_raw(b"Q\x7f\xff\xff\xffSELECT 1").unwrap();
    closed_with(&mut client, "08P01");

    // A length that does not even hold itself.
    let mut client = scene.bed.client();
    client.send_raw(b"Q\x00\x00\x00\x03").unwrap();
    closed_with(&mut client, "08P01");
    scene.unharmed();
}

#[test]
fn an_unknown_message() {
    let scene = Scene::new();
    let mut client = scene.bed.client();
    client.send_raw(b"!\x00\x00\x00\x08oops").unwrap();
    closed_with(&mut client, "08P01");
    scene.unharmed();
}

#[test]
fn messages_whose_bodies_are_wrong() {
    let scene = Scene::new();
    let primary = scene.bed.cluster().shard(0).primary.as_ref();
    let mut client = scene.bed.client();
    let mut server = scene.bed.node_client(primary);
    for both in [&mut client, &mut server] {
        both.extended("SELECT $1::int", &[Some("1")], 0).succeeded();
    }
    // A Query without its NUL, a Bind cut short, a Parse that promises more types than it has, a Describe of nothing, an
    // Execute that goes on, Binds with a format that is none and with more formats than parameters. As the length words are
    // right, PostgreSQL knows where the next message begins: it is an error like others.
    for (broken, sqlstate) in [
        (&b"Q\x00\x00\x00\x0cSELECT 1"[..], "08P01"),
        (b"B\x00\x00\x00\x06\x00\x00", "08P01"),
        (b"P\x00\x00\x00\x0b\x00S\x00\x7f\xff\x00\x00", "08P01"),
        (b"D\x00\x00\x00\x06?\x00", "08P01"),
        (b"E\x00\x00\x00\x0a\x00\x00\x00\x00\x00\x00", "08P01"),
        (
            b"B\x00\x00\x00\x13\x00\x00\x00\x01\x00\x02\x00\x01\x00\x00\x00\x011\x00\x00",
            "22023",
        ),
        (
            b"B\x00\x00\x00\x15\x00\x00\x00\x02\x00\x00\x00\x00\x00\x01\x00\x00\x00\x011\x00\x00",
            "08P01",
        ),
    ] {
        for both in [&mut client, &mut server] {
            both.send_raw(broken).unwrap();
            if broken[0] != b'Q' {
                // The second is skipped.
                both.send_raw(broken).unwrap();
                both.send_raw(b"S\x00\x00\x00\x04").unwrap();
            }
            let replies = both.replies(None);
            assert_eq!(replies.len(), 1, "{broken:?}: {replies:?}");
            let failure = replies[0].failure.as_ref().unwrap();
            let told = (failure.severity(), failure.sqlstate());
            assert_eq!(told, ("ERROR", sqlstate), "{broken:?}");
            assert_eq!(both.status, b'I');
        }
    }
    assert_eq!(client.run("SELECT 7").value(), "7");
    client.terminate();
    scene.unharmed();
}

#[test]
fn a_message_in_the_middle_of_which_the_client_leaves() {
    let scene = Scene::new();
    for _ in 0..20 {
        let mut client = scene.bed.client();
        client.send_raw(b"Q\x00\x00\x10\x00SELECT pg_sl").unwrap();
    }
    scene.unharmed();
}

#[test]
fn a_wrong_password() {
    let scene = Scene::new();
    let failure = refused(&Login {
        password: "wrong".to_owned(),
        ..scene.bed.login()
    });
    assert_eq!((failure.sqlstate(), failure.severity()), ("28P01", "FATAL"));
    assert_eq!(
        failure.message(),
        "password authentication failed for user \"app\""
    );
    scene.unharmed();
}

/// Whether a user exists cannot be told from the answers.
#[test]
fn an_unknown_user_fails_like_a_wrong_password() {
    let scene = Scene::new();
    let failure = refused(&Login {
        user: "nobody".to_owned(),
        ..scene.bed.login()
    });
    assert_eq!((failure.sqlstate(), failure.severity()), ("28P01", "FATAL"));
    assert_eq!(
        failure.message(),
        "password authentication failed for user \"nobody\""
    );
    scene.unharmed();
}

#[test]
fn an_unknown_database() {
    let scene = Scene::new();
    let failure = refused(&Login {
        database: "nowhere".to_owned(),
        ..scene.bed.login()
    });
    assert_eq!((failure.sqlstate(), failure.severity()), ("3D000", "FATAL"));
    assert_eq!(failure.message(), "database \"nowhere\" does not exist");
    scene.unharmed();
}

/// A statement that fails by both protocols, after which the connection works.
#[track_caller]
fn fails(sql: &str, sqlstate: &str) -> Failure {
    let scene = Scene::new();
    let mut client = scene.bed.client();
    let extended = client
        .extended(sql, &[], 0)
        .failure
        .unwrap_or_else(|| panic!("{sql} succeeds"));
    let failure = client
        .run(sql)
        .failure
        .unwrap_or_else(|| panic!("{sql} succeeds"));
    assert_eq!(
        (failure.sqlstate(), extended.sqlstate()),
        (sqlstate, sqlstate),
        "{failure:?} {extended:?}"
    );
    assert_eq!((failure.severity(), client.status), ("ERROR", b'I'));
    client.run("SELECT 1").succeeded();
    client
        .run("SELECT name FROM users WHERE id = 3")
        .succeeded();
    client.terminate();
    scene.unharmed();
    failure
}

#[test]
fn a_syntax_error() {
    let failure = fails("SELEC name FROM users WHERE id = 1", "42601");
    assert_eq!(failure.message(), "syntax error at or near \"SELEC\"");
    assert_eq!(failure.field('P'), "1");
}

#[test]
fn an_unknown_table() {
    let failure = fails("SELECT * FROM nowhere WHERE id = 1", "42P01");
    assert_eq!(failure.message(), "relation \"nowhere\" does not exist");
}

/// A NULL key has a place (product.md), so that PostgreSQL itself decides: here the primary key forbids it.
#[test]
fn a_null_shard_key() {
    let failure = fails(
        "INSERT INTO users (id, email, name, country) VALUES (NULL, 'x', 'x', 'no')",
        "23502",
    );
    assert!(
        failure.message().contains("null value in column \"id\""),
        "{failure:?}"
    );
}

#[test]
fn an_insert_without_the_shard_key() {
    let failure = fails(
        "INSERT INTO users (email, name, country) VALUES ('x', 'x', 'no')",
        "23502",
    );
    assert!(
        failure.message().contains("null value in column \"id\""),
        "{failure:?}"
    );
}

#[test]
fn text_that_is_not_utf8() {
    let scene = Scene::new();
    let mut client = scene.bed.client();
    client
        .send_raw(b"Q\x00\x00\x00\x10SELECT '\xff\xfe'\0")
        .unwrap();
    let replies = client.replies(None);
    assert_eq!(replies[0].sqlstate(), Some("22021"), "{replies:?}");
    client.run("SELECT 1").succeeded();
    client.terminate();
    scene.unharmed();
}

/// What cannot be answered exactly is refused, with a reason and a way out.
#[test]
fn what_is_for_a_later_day() {
    let scene = Scene::new();
    let mut client = scene.bed.client();
    for sql in [
        "COPY (INSERT INTO users (id, name) VALUES (9001, 'a'), (9002, 'b') RETURNING id) TO STDOUT",
        "WITH gone AS (DELETE FROM orders RETURNING id) SELECT count(*) FROM gone, users",
        "SELECT * FROM (SELECT * FROM users ORDER BY name LIMIT 3 FOR UPDATE) u",
    ] {
        let failure = client
            .run(sql)
            .failure
            .unwrap_or_else(|| panic!("{sql} is answered"));
        assert_eq!(failure.sqlstate(), "0A000", "{sql}: {failure:?}");
        assert!(
            !failure.field('H').is_empty() || !failure.field('D').is_empty(),
            "{sql}: no way out: {failure:?}"
        );
        assert_eq!(client.status, b'I');
    }
    client
        .run("SELECT name FROM users WHERE id = 3")
        .succeeded();
    client.terminate();
    scene.unharmed();
}

/// An error of PostgreSQL's has all that it says, and the shard's name besides.
#[test]
fn errors_of_postgresql_pass_untouched_with_the_shard_named() {
    let scene = Scene::new();
    let shard = scene.bed.cluster().shard(0);
    let mut node = scene.bed.node_client(shard.primary.as_ref());
    let user = node.run("SELECT min(id) FROM users").value();
    let mut client = scene.bed.client();
    for sql in [
        format!("INSERT INTO users (id, email, name, country) VALUES ({user}, 'x', 'x', 'no')"),
        format!(
            "INSERT INTO orders (user_id, id, ship_to, placed_at) VALUES ({user}, 1000, NULL, '2026-01-01')"
        ),
        format!("INSERT INTO orders (user_id, id, ship_to) VALUES ({user}, 1000, 'xx')"),
        format!("SELECT nam FROM users WHERE id = {user}"),
        format!("SELECT lower(id) FROM users WHERE id = {user}"),
        format!("SELECT name::integer FROM users WHERE id = {user}"),
        format!("SELECT ('[' || name)::json FROM users WHERE id = {user}"),
    ] {
        let mut told = [&mut node, &mut client].map(|asked| {
            let failure = asked.run(&sql).failure.unwrap();
            failure.fields().clone()
        });
        let context = told[1].remove(&'W').unwrap();
        let expected = told[0]
            .remove(&'W')
            .map(|own| own + "\n")
            .unwrap_or_default();
        assert_eq!(context, format!("{expected}shard \"s0\""), "{sql}");
        assert_eq!(told[1], told[0], "{sql}");
    }
    client.terminate();
    scene.unharmed();
}

/// Memory that the router has, in kB.
fn resident(bed: &Bed) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", bed.router().id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.unwrap()
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .unwrap()
}

/// They connect, say nothing, half of something, or nonsense, and are gone: nobody waits for that, and nothing is left of it.
#[test]
fn fifty_thousand_connects_in_a_burst() {
    const THREADS: usize = 4;
    const EACH: usize = 12_500;
    const AT_A_TIME: usize = 50;
    let mut scene = Scene::new();
    let before = resident(scene.bed);
    let port = scene.bed.router().port();
    let half = &startup(&[("user", "app"), ("database", "shop")])[..20];
    std::thread::scope(|scope| {
        let bursts: Vec<_> = (0..THREADS)
            .map(|_| {
                scope.spawn(|| {
                    let mut open = std::collections::VecDeque::new();
                    for number in 0..EACH {
                        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
                        // Its end is a reset, which leaves nothing behind in the system either.
                        let socket = socket2::SockRef::from(&stream);
                        socket.set_linger(Some(Duration::ZERO)).unwrap();
                        // It may have been turned away by now.
                        let _ = match number % 3 {
                            0 => Ok(()),
                            1 => (&stream).write_all(half),
                            _ => (&stream).write_all(b"\0\0\0\x08nonsense"),
                        };
                        open.push_back(stream);
                        if open.len() > AT_A_TIME {
                            open.pop_front();
                        }
                    }
                })
            })
            .collect();
        let mut slowest = Duration::ZERO;
        while !bursts.iter().all(|burst| burst.is_finished()) {
            let since = Instant::now();
            scene
                .bystander
                .run("SELECT name FROM users WHERE id = 1")
                .succeeded();
            slowest = slowest.max(since.elapsed());
        }
        assert!(slowest < Duration::from_secs(2), "{slowest:?}");
    });
    let grown = resident(scene.bed).saturating_sub(before);
    assert!(grown < 32 << 10, "{grown} kB");
    scene
        .bed
        .client()
        .run("SELECT name FROM users WHERE id = 2")
        .succeeded();
    scene.unharmed();
}

fn startup(parameters: &[(&str, &str)]) -> Vec<u8> {
    let mut body = 196_608_u32.to_be_bytes().to_vec();
    for (name, value) in parameters {
        for word in [name, value] {
            body.extend_from_slice(word.as_bytes());
            body.push(0);
        }
    }
    body.push(0);
    let length = u32::try_from(body.len() + 4).unwrap();
    [&length.to_be_bytes(), body.as_slice()].concat()
}
