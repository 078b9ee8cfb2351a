//! LISTEN and NOTIFY: many clients hear by one connection what each would hear by a server process of its own, and when.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::BytesMut;
use postgres_protocol::message::frontend;
use switchyard_tests::{Client, Failure, Message, Router, eventually};

use super::{bed, client, router};

/// Steps for clients that a plain server and the router are led through. `a: SQL` has a client run it, `a<` has it say nothing until something
/// comes.
const SCRIPTS: [&str; 15] = [
    // Idle, told by others and by itself.
    "a: LISTEN x; b: NOTIFY x, 'one'; a<; a: NOTIFY x, 'own'; b: SELECT pg_notify('x', 'two'); a<; a: SELECT pg_notify('x', 'mine')",
    // As soon as others have notified, the next answer says so.
    "a: LISTEN x; b: NOTIFY x, '1'; b: NOTIFY x, '2'; a: SELECT 1; a: SELECT 2",
    // Channels, and who listens to them.
    "a: LISTEN x; b: LISTEN y; c: LISTEN x; c: LISTEN y; c: LISTEN y; c: NOTIFY x; c: NOTIFY y; a<; b<; a: UNLISTEN x; c: UNLISTEN *; b: NOTIFY x; b: NOTIFY y; a: SELECT 1; c: SELECT 1",
    // LISTEN takes effect with its transaction, and not before.
    "a: BEGIN; a: LISTEN x; b: NOTIFY x, 'early'; a: COMMIT; b: NOTIFY x, 'late'; a<",
    "a: BEGIN; a: LISTEN x; a: ROLLBACK; b: NOTIFY x; a: SELECT 1; a: LISTEN x; a: BEGIN; a: UNLISTEN x; a: ROLLBACK; b: NOTIFY x, 'still'; a<",
    "a: BEGIN; a: SAVEPOINT s; a: LISTEN x; a: ROLLBACK TO s; a: LISTEN y; a: SAVEPOINT t; a: LISTEN z; a: RELEASE t; a: COMMIT; b: NOTIFY x; b: NOTIFY y; a<; b: NOTIFY z; a<; b: NOTIFY x; a: SELECT 1",
    "a: BEGIN; a: LISTEN x; a: SELECT 1 / 0; a: LISTEN y; a: COMMIT; b: NOTIFY x; b: NOTIFY y; a: SELECT 1",
    // Nobody is told within a transaction; all of it comes at its end, and in order.
    "a: LISTEN x; a: BEGIN; a: SELECT 1; b: NOTIFY x, '1'; a: SELECT 2; b: BEGIN; b: NOTIFY x, '2'; b: NOTIFY x, '3'; b: COMMIT; a: SELECT 3; a: COMMIT; b: NOTIFY x, '4'; a<",
    "a: LISTEN x; a: BEGIN; b: NOTIFY x, '1'; a: COMMIT AND CHAIN; b: NOTIFY x, '2'; a: ROLLBACK",
    "a: LISTEN x; a: BEGIN; b: NOTIFY x, 'not any more'; a: UNLISTEN x; a: COMMIT; a: SELECT 1",
    // The same twice in one transaction is one; what is rolled back never was.
    "a: LISTEN x; b: BEGIN; b: NOTIFY x, '1'; b: NOTIFY x, '1'; b: NOTIFY x, '2'; b: NOTIFY x; b: NOTIFY x, ''; b: COMMIT; a<; a<; a<; b: BEGIN; b: NOTIFY x, 'never'; b: ROLLBACK; b: BEGIN; b: SAVEPOINT s; b: NOTIFY x, 'nor this'; b: ROLLBACK TO s; b: NOTIFY x, '3'; b: COMMIT; a<",
    // A transaction that listens hears itself.
    "a: BEGIN; a: LISTEN x; a: NOTIFY x, 'self'; a: COMMIT; a: BEGIN; a: NOTIFY x, 'again'; a: ROLLBACK; a: SELECT 1",
    "a: LISTEN x; a: DISCARD ALL; b: NOTIFY x; a: SELECT 1; a: UNLISTEN x; a: UNLISTEN nobody; a: LISTEN x; b: NOTIFY x; a<",
    // Names, and what is none.
    "a: LISTEN \"Mixed\"; b: NOTIFY Mixed; b: NOTIFY \"Mixed\", 'yes'; a<; a: LISTEN MIXED; b: NOTIFY mixed, 'this, too'; a<; a: LISTEN select; a: LISTEN; a: LISTEN a b; a: UNLISTEN * x; a: LISTEN \"select\"; a: LISTEN begin; b: NOTIFY \"select\"; a<; b: NOTIFY begin; a<; a: LISTEN \"o\"\"dd\"; b: NOTIFY \"o\"\"dd\"; a<",
    "a: BEGIN; a: LISTEN x; a: PREPARE TRANSACTION 'listens'; b: NOTIFY x; a: SELECT 1",
];

/// Scripts of which a step is several statements, parts of one query.
const TOGETHER: [&str; 3] = [
    "a: LISTEN x|NOTIFY x, 'self'; b: NOTIFY x, 'other'; a<",
    "a: LISTEN x|SELECT 1 / 0; b: NOTIFY x; a: SELECT 1; a: BEGIN|LISTEN x|COMMIT|LISTEN y|ROLLBACK; b: NOTIFY x, '2'; a<; b: NOTIFY y; a: SELECT 1",
    "a: SELECT 1|LISTEN x|UNLISTEN x|LISTEN y; b: NOTIFY x; b: NOTIFY y; a<",
];

/// How statements are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Simple,
    Extended,
}

/// What clients say to one server, and what it says to them.
struct Play<'a> {
    connect: &'a dyn Fn() -> Client,
    by: By,
    clients: BTreeMap<String, Client>,
    said: Vec<String>,
}

impl Play<'_> {
    fn run(connect: &dyn Fn() -> Client, script: &str, by: By) -> Vec<String> {
        let mut play = Play {
            connect,
            by,
            clients: BTreeMap::new(),
            said: Vec::new(),
        };
        // All are there from the beginning, so that each number means one of them.
        for name in ["a", "b", "c"] {
            play.clients.insert(name.to_owned(), (play.connect)());
        }
        for step in script.split("; ") {
            play.said.push(step.to_owned());
            match step.split_once(": ") {
                Some((name, sql)) => play.say(name, sql),
                None => play.wait(step.trim_end_matches('<')),
            }
        }
        play.said
    }

    fn client(&mut self, name: &str) -> &mut Client {
        self.clients.get_mut(name).unwrap()
    }

    fn receive(&mut self, name: &str) -> Message {
        match self.client(name).try_receive() {
            Ok(Some(message)) => message,
            other => panic!("{:?}: {other:?} after {:#?}", self.by, self.said),
        }
    }

    /// What is heard is told apart from the answer: between which messages of it that comes depends on who is faster.
    fn say(&mut self, name: &str, sql: &str) {
        let by = self.by;
        let client = self.client(name);
        client.send(|buffer| match by {
            By::Simple => frontend::query(&sql.replace('|', "; "), buffer).unwrap(),
            By::Extended => extended(sql, buffer),
        });
        let (mut answer, mut heard) = (Vec::new(), Vec::new());
        loop {
            let message = self.receive(name);
            match message.tag {
                b'A' => heard.push(self.told(&message)),
                b'E' => answer.push(Failure::decode(&message.body).sqlstate().to_owned()),
                // The statement's own, and those about transactions that there are none of.
                b'C' | b'N' => answer.push(format!("{}", message.tag as char)),
                b'Z' => break answer.push(format!("{:?}", message.body)),
                _ => {}
            }
        }
        self.said.extend(answer);
        self.said.extend(heard);
    }

    fn wait(&mut self, name: &str) {
        let message = self.receive(name);
        let told = self.told(&message);
        self.said.push(told);
    }

    /// What a notification says, and which client says it.
    fn told(&self, message: &Message) -> String {
        assert_eq!(message.tag, b'A', "{message:?} after {:#?}", self.said);
        let (number, rest) = message.body.split_at(4);
        let number = i32::from_be_bytes(number.try_into().unwrap());
        let of = self
            .clients
            .iter()
            .find(|(_, client)| client.key.0 == number);
        let of = of.map_or("nobody", |(name, _)| name);
        let rest = String::from_utf8_lossy(rest).replace('\0', " ");
        format!("{of} says {rest}")
    }
}

fn extended(sql: &str, buffer: &mut BytesMut) {
    frontend::parse("", sql, [], buffer).unwrap();
    switchyard_tests::bind("", "", &[], 0, buffer);
    frontend::execute("", 0, buffer).unwrap();
    frontend::sync(buffer);
}

/// The tests use the same channels of the same servers, and count the connections there: one after the other.
static TURN: Mutex<()> = Mutex::new(());

fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn clients_hear_what_they_would_hear_of_a_plain_server() {
    let _turn = turn();
    // To the router's clients nothing comes from the second shard.
    let plain = || bed().node_client(bed().cluster().shard(1).primary.as_ref());
    for lines in ["pool_size = 2", "pool_mode = \"session\""] {
        let router = router(lines);
        let both = SCRIPTS
            .iter()
            .flat_map(|script| [(script, By::Simple), (script, By::Extended)]);
        for (script, by) in both.chain(TOGETHER.iter().map(|script| (script, By::Simple))) {
            let plain = Play::run(&plain, script, by);
            let routed = Play::run(&|| client(&router), script, by);
            assert_eq!(routed, plain, "{by:?}, {lines}");
        }
    }
}

/// The connections that listen for routers.
const EARS: &str = "FROM pg_stat_activity WHERE query LIKE '-- switchyard listens%'";

/// A client of the first shard's own.
fn node() -> Client {
    bed().node_client(bed().cluster().shard(0).primary.as_ref())
}

fn ears(node: &mut Client) -> String {
    node.run(&format!("SELECT count(*) {EARS}"))
        .succeeded()
        .value()
}

fn hears(client: &mut Client, payload: &str) {
    let heard = client.receive();
    assert_eq!(heard.tag, b'A', "{heard:?}");
    assert!(
        heard.body.ends_with(format!("\0{payload}\0").as_bytes()),
        "{heard:?}"
    );
}

/// The clients that listen, as the router counts them.
fn listeners(router: &Router) -> f64 {
    router.metric("switchyard_listening_clients{database=\"shop\"}")
}

#[test]
fn many_listen_by_one_connection() {
    let _turn = turn();
    let router = router("pool_size = 1\nread_policy = \"primary\"");
    let mut clients: Vec<Client> = (0..50).map(|_| client(&router)).collect();
    for client in &mut clients {
        client.run("LISTEN everybody").succeeded();
    }
    assert_eq!(listeners(&router), 50.0);
    assert_eq!(ears(&mut node()), "1");
    let mut speaker = client(&router);
    for round in ["one", "two"] {
        speaker
            .run(&format!("NOTIFY everybody, '{round}'"))
            .succeeded();
        for client in &mut clients {
            hears(client, round);
        }
    }
    // There is one connection for statements, and no one keeps it.
    for client in &mut clients {
        client
            .run("SELECT name FROM users WHERE id = 1")
            .succeeded();
    }
    let mut console = router.console();
    let servers = console.run("SHOW SERVERS").succeeded();
    let users = servers
        .texts()
        .into_iter()
        .filter(|row| row.iter().any(|cell| cell == "app"));
    assert!(users.count() <= 2, "{servers:?}");
    // PAUSE waits for nobody who listens, and RECONNECT ends no session.
    for order in ["PAUSE shop", "RESUME shop", "RECONNECT shop", "RELOAD"] {
        console.run(order).succeeded();
    }
    speaker.run("NOTIFY everybody, 'three'").succeeded();
    for client in &mut clients {
        hears(client, "three");
    }
    drop(clients);
    eventually("all have left", || listeners(&router) == 0.0);
}

/// Nobody listens for those who have left, by whatever way.
#[test]
fn the_connection_ends_with_who_listens() {
    let _turn = turn();
    let (router, mut node) = (router(""), node());
    eventually("nobody listens yet", || ears(&mut node) == "0");
    for end in [
        "UNLISTEN *",
        "UNLISTEN any_one",
        "DISCARD ALL",
        "BEGIN; LISTEN more",
        "leaves",
        "is cut",
    ] {
        let mut client = client(&router);
        client.run("LISTEN any_one").succeeded();
        assert_eq!(ears(&mut node), "1", "{end}");
        match end {
            "leaves" => client.terminate(),
            "is cut" => drop(client),
            "BEGIN; LISTEN more" => {
                client.simple(end);
                drop(client);
            }
            end => drop(client.run(end).succeeded()),
        }
        eventually(end, || ears(&mut node) == "0" && listeners(&router) == 0.0);
    }
    // A transaction that is rolled back, or fails, leaves none.
    let mut client = client(&router);
    for script in [
        "BEGIN; LISTEN any_one; ROLLBACK",
        "BEGIN; LISTEN any_one; SELECT 1 / 0; COMMIT",
    ] {
        client.simple(script);
        client.simple("ROLLBACK");
        eventually(script, || ears(&mut node) == "0");
    }
}

/// Who would go on would not hear.
#[test]
fn sessions_that_listen_end_with_the_connection() {
    let _turn = turn();
    let (router, mut node) = (router(""), node());
    let (mut idle, mut busy, mut other) = (client(&router), client(&router), client(&router));
    idle.run("LISTEN lost").succeeded();
    busy.run("LISTEN lost").succeeded();
    busy.run("BEGIN").succeeded();
    busy.run("SELECT 1").succeeded();
    other.run("LISTEN lost").succeeded();
    other.run("UNLISTEN *").succeeded();
    let end = format!("SELECT count(pg_terminate_backend(pid)) {EARS}");
    assert_eq!(node.run(&end).succeeded().value(), "1");
    for client in [&mut idle, &mut busy] {
        let said = client.receive();
        assert_eq!(said.tag, b'E', "{said:?}");
        let failure = Failure::decode(&said.body);
        assert_eq!((failure.severity(), failure.sqlstate()), ("FATAL", "08006"));
        assert!(client.try_receive().is_ok_and(|next| next.is_none()));
    }
    // Others go on, and a new one listens by a new connection.
    other.run("LISTEN lost").succeeded();
    node.run("NOTIFY lost, 'found'").succeeded();
    hears(&mut other, "found");
}

/// A client's number in what it notifies, whichever server process has run that; a process's own where code has.
#[test]
fn who_notifies_has_its_clients_number() {
    let _turn = turn();
    let router = router("pool_size = 1");
    let (mut listener, mut speaker) = (client(&router), client(&router));
    let number = |message: &Message| i32::from_be_bytes(message.body[..4].try_into().unwrap());
    listener.run("LISTEN numbers").succeeded();
    for sql in [
        "NOTIFY numbers",
        "SELECT pg_notify('numbers', 'a')",
        "BEGIN; NOTIFY numbers; COMMIT",
        "BEGIN; NOTIFY numbers; ROLLBACK; NOTIFY numbers, 'b'",
    ] {
        speaker.simple(sql);
        assert_eq!(number(&listener.receive()), speaker.key.0, "{sql}");
    }
    speaker
        .extended("SELECT pg_notify('numbers', $1)", &[Some("c")], 0)
        .succeeded();
    assert_eq!(number(&listener.receive()), speaker.key.0);
    let process = speaker.run("SELECT pg_backend_pid()").value();
    speaker.run("DO $$BEGIN NOTIFY numbers; END$$").succeeded();
    assert_eq!(number(&listener.receive()).to_string(), process);
}

/// What no client listens to that its connection has been made to listen to by code reaches nobody.
#[test]
fn what_code_listens_to_reaches_nobody() {
    let _turn = turn();
    let router = router("pool_size = 1");
    let (mut one, mut two) = (client(&router), client(&router));
    one.run("DO $$BEGIN LISTEN hidden; END$$").succeeded();
    for client in [&mut two, &mut one] {
        let mut heard = 0;
        client.send(|buffer| {
            frontend::query("BEGIN; NOTIFY hidden; COMMIT; SELECT 1", buffer).unwrap()
        });
        loop {
            match client.receive().tag {
                b'A' => heard += 1,
                b'Z' => break,
                _ => {}
            }
        }
        assert_eq!(heard, 0);
    }
}

/// Its connection does not know what a session listens to.
#[test]
fn what_a_session_listens_to_is_not_told_wrongly() {
    let _turn = turn();
    let router = router("");
    let mut client = client(&router);
    let asks = "SELECT count(*) FROM pg_listening_channels()";
    assert_eq!(client.run(asks).succeeded().value(), "0");
    client.run("LISTEN told").succeeded();
    let message = "pg_listening_channels() in a session that listens is not supported";
    client.refused(asks, "0A000", message);
    client.run("UNLISTEN *").succeeded();
    assert_eq!(client.run(asks).succeeded().value(), "0");
}

/// A client that does not end its transaction does not make the router grow.
#[test]
fn too_much_to_be_heard_ends_the_session() {
    let _turn = turn();
    let router = router("");
    let (mut listener, mut speaker) = (client(&router), client(&router));
    listener.run("LISTEN much").succeeded();
    listener.run("BEGIN").succeeded();
    let much =
        "SELECT count(pg_notify('much', n || repeat('x', 7900))) FROM generate_series(1, 2200) n";
    speaker.run(much).succeeded();
    let said = listener.receive();
    let failure = Failure::decode(&said.body);
    assert_eq!(
        (failure.severity(), failure.sqlstate()),
        ("FATAL", "53400"),
        "{said:?}"
    );
}
