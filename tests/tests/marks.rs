//! Many clients on few connections, whose statements, settings, errors, notices and notifications carry marks of their own, while they leave, cancel and
//! fail at random: no mark ever reaches another client.
//!
//! `SWITCHYARD_OPERATIONS=1000000 cargo test --release -p switchyard-tests --test marks` is the same at length; `SWITCHYARD_SEED` chooses another course.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use postgres_protocol::message::frontend;
use switchyard_tests::cluster::ClusterSpec;
use switchyard_tests::random::chance::Chance;
use switchyard_tests::{Bed, BedSpec, Client, Failure, Login, Message, Proxied, Proxy, bind};

/// Clients at a time.
const CLIENTS: usize = 12;
/// So many listen, at most.
const LISTENERS: usize = 8;
/// The router's connections to each server.
const ROUTER: &str = "pool_size = 6\nmax_prepared_statements = 7";
/// The longest that an answer may take.
const SILENCE: Duration = Duration::from_secs(30);
/// Users of the shop whose rows lie on both shards.
const USERS: usize = 20;

const DDL: &str = "CREATE TABLE marked (id bigint PRIMARY KEY, mark text NOT NULL);";
const TABLES: &str =
    "\n[[databases.tables]]\nname = \"marked\"\nshard_key = \"id\"\nmethod = \"hash\"\n";

/// What all of them share.
struct Scene<'a> {
    proxied: &'a Proxied,
    seed: u64,
    /// Operations that are still to be begun.
    left: AtomicUsize,
    /// Every client that ever was has a number.
    numbers: AtomicU64,
    /// Those who listen.
    listeners: Mutex<Vec<u64>>,
    /// Keys of clients that have left.
    old_keys: Mutex<Vec<(i32, Vec<u8>)>>,
    /// Whether connections to servers are broken, too.
    cuts: AtomicBool,
}

/// One client, from its login until it leaves.
struct Subject<'a> {
    scene: &'a Scene<'a>,
    chance: &'a mut Chance,
    number: u64,
    client: Client,
    marks: u64,
    /// What it has set, and to what.
    settings: BTreeMap<&'static str, String>,
    /// The marks in what it has prepared, by name.
    parsed: BTreeMap<String, String>,
    prepared: BTreeMap<String, String>,
    listens: bool,
    /// The mark in its temporary table.
    temporary: Option<String>,
    /// It has just given up what it kept a connection for, and the router asks whether that is all.
    unpinned: bool,
    /// Why the router has ended the session.
    last_words: Option<Failure>,
    /// The queries it has run, for who looks for a fault.
    history: Vec<String>,
}

/// The connection has ended.
struct Gone;

/// What came until ReadyForQuery.
#[derive(Debug, Default)]
struct Answer {
    /// First values of rows, and COPY data.
    values: Vec<String>,
    failure: Option<Failure>,
}

impl Answer {
    fn sqlstate(&self) -> Option<&str> {
        self.failure.as_ref().map(Failure::sqlstate)
    }
}

/// Operations, and how often each is chosen.
const OPERATIONS: [(usize, Operation); 18] = [
    (12, |subject| subject.simple()),
    (12, |subject| subject.unnamed()),
    (10, |subject| subject.parse()),
    (12, |subject| subject.execute()),
    (6, |subject| subject.prepare_by_sql()),
    (6, |subject| subject.execute_by_sql()),
    (8, |subject| subject.set()),
    (8, |subject| subject.show()),
    (6, |subject| subject.fail()),
    (4, |subject| subject.notice()),
    (6, |subject| subject.block()),
    (6, |subject| subject.pipeline()),
    (5, |subject| subject.cancel()),
    (3, |subject| subject.listen()),
    (5, |subject| subject.notify()),
    (4, |subject| subject.copy()),
    (6, |subject| subject.write()),
    (2, |subject| subject.temporary()),
];

type Operation = fn(&mut Subject<'_>) -> Result<(), Gone>;

/// Names of settings, of the server's and of the client's own.
const SETTINGS: [&str; 3] = ["application_name", "marks.own", "search_path"];

impl Scene<'_> {
    /// Logs in, again and again while the router takes a server that was cut off a few times for dead.
    fn connect(&self, login: &Login) -> Client {
        loop {
            match Client::try_connect(login) {
                Ok(client) => return client,
                Err(failure) => {
                    let cuts = self.cuts.load(Ordering::Relaxed);
                    assert!(cuts && failure.sqlstate() == "08006", "{failure:?}");
                }
            }
        }
    }
}

impl<'a> Subject<'a> {
    fn enter(scene: &'a Scene<'a>, chance: &'a mut Chance) -> Subject<'a> {
        let number = scene.numbers.fetch_add(1, Ordering::Relaxed) + 1;
        let name = mark(number, 0);
        let login = Login::new(scene.proxied.router().port()).with("application_name", &name);
        Subject {
            scene,
            chance,
            number,
            client: scene.connect(&login),
            marks: 0,
            settings: BTreeMap::from([("application_name", name)]),
            parsed: BTreeMap::new(),
            prepared: BTreeMap::new(),
            listens: false,
            temporary: None,
            unpinned: false,
            last_words: None,
            history: Vec::new(),
        }
    }

    /// Works until everything has been done or it leaves.
    fn work(mut self) {
        loop {
            let left = &self.scene.left;
            let taken = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                left.checked_sub(1)
            });
            if taken.is_err() || self.chance.below(100) == 0 && self.leave().is_err() {
                break;
            }
            let operation = self.chance.weighted(&OPERATIONS);
            if operation(&mut self).is_err() {
                break;
            }
        }
        self.scene
            .old_keys
            .lock()
            .unwrap()
            .push(self.client.key.clone());
        self.scene
            .listeners
            .lock()
            .unwrap()
            .retain(|number| *number != self.number);
    }

    fn mark(&mut self) -> String {
        self.marks += 1;
        mark(self.number, self.marks)
    }

    fn user(&mut self) -> usize {
        self.chance.between(1, USERS)
    }

    /// What may come instead of an answer while servers are cut off.
    fn is_cut(&self, answer: &Answer) -> bool {
        let cut = matches!(
            answer.sqlstate(),
            Some("08006" | "08007" | "25P02" | "40003" | "57P01")
        );
        cut && self.scene.cuts.load(Ordering::Relaxed)
    }

    /// The next message, in which there is nobody else's mark.
    fn receive(&mut self) -> Result<Message, Gone> {
        let message = self.client.try_receive();
        let Ok(Some(message)) = message else {
            let cuts = self.scene.cuts.load(Ordering::Relaxed);
            let keeps = self.listens || self.temporary.is_some() || self.unpinned;
            let may_end = cuts && keeps;
            assert!(
                may_end,
                "client {} has lost its connection: {message:?} {:?} after {:#?}",
                self.number, self.last_words, self.history
            );
            return Err(Gone);
        };
        for number in numbers_of(&message.body) {
            assert_eq!(number, self.number, "another client's mark in {message:?}");
        }
        if message.tag == b'A' {
            assert!(
                self.listens,
                "client {} hears what it has not asked for",
                self.number
            );
        }
        Ok(message)
    }

    /// Everything up to so many ReadyForQuery.
    fn answer(&mut self, syncs: usize) -> Result<Answer, Gone> {
        let mut answer = Answer::default();
        let mut seen = 0;
        while seen < syncs {
            let message = self.receive()?;
            match message.tag {
                b'D' => {
                    let length = i32::from_be_bytes(message.body[2..6].try_into().unwrap());
                    let value = &message.body[6..6 + usize::try_from(length).unwrap_or(0)];
                    answer
                        .values
                        .push(String::from_utf8_lossy(value).into_owned());
                }
                b'd' => answer
                    .values
                    .push(String::from_utf8_lossy(&message.body).trim().to_owned()),
                b'E' => {
                    let failure = Failure::decode(&message.body);
                    if failure.severity() == "FATAL" {
                        assert_eq!(failure.sqlstate(), "08006", "{failure:?}");
                        self.last_words = Some(failure);
                        continue;
                    }
                    answer.failure.get_or_insert(failure);
                }
                b'Z' => seen += 1,
                _ => {}
            }
        }
        self.unpinned = false;
        Ok(answer)
    }

    fn run(&mut self, sql: &str) -> Result<Answer, Gone> {
        self.history.push(sql.to_owned());
        self.client
            .send(|buffer| frontend::query(sql, buffer).unwrap());
        self.answer(1)
    }

    fn send(&mut self, what: &str, encode: impl FnOnce(&mut BytesMut)) {
        self.history.push(what.to_owned());
        self.client.send(encode);
    }

    /// A query has this for its only value.
    fn gives(&mut self, sql: &str, value: &str) -> Result<(), Gone> {
        let answer = self.run(sql)?;
        self.is(&answer, value, sql);
        Ok(())
    }

    fn is(&mut self, answer: &Answer, value: &str, what: &str) {
        if self.is_cut(answer) {
            return;
        }
        assert_eq!(
            answer.values,
            [value],
            "client {}, {what}: {answer:?}",
            self.number
        );
    }

    fn succeeds(&mut self, sql: &str) -> Result<bool, Gone> {
        let answer = self.run(sql)?;
        assert!(
            answer.failure.is_none() || self.is_cut(&answer),
            "{sql}: {answer:?}"
        );
        Ok(answer.failure.is_none())
    }

    fn simple(&mut self) -> Result<(), Gone> {
        let (mark, user) = (self.mark(), self.user());
        self.gives(
            &format!("SELECT '{mark}' FROM users WHERE id = {user}"),
            &mark,
        )
    }

    fn unnamed(&mut self) -> Result<(), Gone> {
        let (mark, user) = (self.mark(), self.user().to_string());
        let sql = "SELECT $1::text FROM users WHERE id = $2";
        self.send("unnamed", |buffer| {
            frontend::parse("", sql, [], buffer).unwrap();
            bind("", "", &[Some(&mark), Some(&user)], 0, buffer);
            execute_and_sync(buffer);
        });
        let answer = self.answer(1)?;
        self.is(&answer, &mark, sql);
        Ok(())
    }

    fn parse(&mut self) -> Result<(), Gone> {
        let (mark, name) = (self.mark(), format!("p{}", self.chance.below(4)));
        let sql = format!("SELECT '{mark}', $1::text FROM users WHERE id = $2");
        self.send("parse", |buffer| {
            frontend::close(b'S', &name, buffer).unwrap();
            frontend::parse(&name, &sql, [], buffer).unwrap();
            frontend::sync(buffer);
        });
        let answer = self.answer(1)?;
        assert!(
            answer.failure.is_none() || self.is_cut(&answer),
            "{answer:?}"
        );
        match answer.failure {
            None => self.parsed.insert(name, mark),
            Some(_) => self.parsed.remove(&name),
        };
        Ok(())
    }

    fn execute(&mut self) -> Result<(), Gone> {
        let (mark, user) = (self.mark(), self.user().to_string());
        let known: Vec<(String, String)> = self.parsed.clone().into_iter().collect();
        if known.is_empty() {
            return Ok(());
        }
        let (name, own) = self.chance.pick(&known).clone();
        self.send("execute", |buffer| {
            bind("", &name, &[Some(&mark), Some(&user)], 0, buffer);
            execute_and_sync(buffer);
        });
        let answer = self.answer(1)?;
        self.is(&answer, &own, &name);
        Ok(())
    }

    fn prepare_by_sql(&mut self) -> Result<(), Gone> {
        let (mark, name) = (self.mark(), format!("s{}", self.chance.below(3)));
        if self.prepared.remove(&name).is_some() && !self.succeeds(&format!("DEALLOCATE {name}"))? {
            return Err(Gone);
        }
        let sql = format!("PREPARE {name} (int) AS SELECT '{mark}' FROM users WHERE id = $1");
        if self.succeeds(&sql)? {
            self.prepared.insert(name, mark);
        }
        Ok(())
    }

    fn execute_by_sql(&mut self) -> Result<(), Gone> {
        let known: Vec<(String, String)> = self.prepared.clone().into_iter().collect();
        if known.is_empty() {
            return Ok(());
        }
        let (name, own) = self.chance.pick(&known).clone();
        let user = self.user();
        self.gives(&format!("EXECUTE {name}({user})"), &own)
    }

    fn set(&mut self) -> Result<(), Gone> {
        let mark = self.mark();
        let name = *self.chance.pick(&SETTINGS);
        let value = match name {
            "search_path" => format!("public, {mark}"),
            _ => mark,
        };
        let sql = match (name, self.chance.percent(50)) {
            ("search_path", _) | (_, true) => {
                format!("SELECT set_config('{name}', '{value}', false)")
            }
            _ => format!("SET {name} = '{value}'"),
        };
        if self.succeeds(&sql)? {
            self.settings.insert(name, value);
        }
        Ok(())
    }

    fn show(&mut self) -> Result<(), Gone> {
        let (name, user) = (*self.chance.pick(&SETTINGS), self.user());
        let Some(value) = self.settings.get(name).cloned() else {
            return Ok(());
        };
        let sql = format!("SELECT current_setting('{name}', true) FROM users WHERE id = {user}");
        self.gives(&sql, &value)
    }

    /// PostgreSQL's own words have the mark in them.
    fn fail(&mut self) -> Result<(), Gone> {
        let (mark, user) = (self.mark(), self.user());
        let sql = format!("SELECT ('{mark}' || id)::int FROM users WHERE id = {user}");
        let answer = self.run(&sql)?;
        let failure = answer.failure.as_ref().expect("that is no number");
        assert!(
            failure.message().contains(&mark) || self.is_cut(&answer),
            "{failure:?}"
        );
        Ok(())
    }

    fn notice(&mut self) -> Result<(), Gone> {
        let mark = self.mark();
        self.client.notices.clear();
        if self.succeeds(&format!("DO $$ BEGIN RAISE NOTICE '{mark}'; END $$"))? {
            let said: Vec<&str> = self.client.notices.iter().map(Failure::message).collect();
            assert_eq!(said, [mark]);
        }
        Ok(())
    }

    /// A block with a setting and a cursor of its own, in either shard's transaction.
    fn block(&mut self) -> Result<(), Gone> {
        let (mark, user) = (self.mark(), self.user());
        let ends = ["COMMIT", "ROLLBACK"];
        let end = *self.chance.pick(&ends);
        for (sql, value) in [
            ("BEGIN".to_owned(), None),
            (format!("SET LOCAL marks.own = '{mark}'"), None),
            (
                format!("DECLARE c CURSOR FOR SELECT '{mark}' FROM users WHERE id = {user}"),
                None,
            ),
            (
                format!("SELECT current_setting('marks.own') FROM users WHERE id = {user}"),
                Some(&mark),
            ),
            ("FETCH c".to_owned(), Some(&mark)),
        ] {
            let answer = self.run(&sql)?;
            if self.is_cut(&answer) {
                break;
            }
            assert!(answer.failure.is_none(), "{sql}: {answer:?}");
            if let Some(value) = value {
                self.is(&answer, value, &sql);
            }
        }
        self.run(end)?;
        assert_eq!(self.client.status, b'I');
        Ok(())
    }

    /// Many statements at a time, of which one may fail; what follows it is skipped up to Sync.
    fn pipeline(&mut self) -> Result<(), Gone> {
        let count = self.chance.between(2, 12);
        let fails = self.chance.below(2 * count);
        let marks: Vec<String> = (0..count).map(|_| self.mark()).collect();
        let users: Vec<String> = (0..count).map(|_| self.user().to_string()).collect();
        self.send("pipeline", |buffer| {
            for (number, (mark, user)) in marks.iter().zip(&users).enumerate() {
                let sql = match number == fails {
                    true => "SELECT ($1 || 'x')::int::text FROM users WHERE id = $2",
                    false => "SELECT $1::text FROM users WHERE id = $2",
                };
                frontend::parse("", sql, [], buffer).unwrap();
                bind("", "", &[Some(mark), Some(user)], 0, buffer);
                frontend::execute("", 0, buffer).unwrap();
            }
            frontend::sync(buffer);
        });
        let answer = self.answer(1)?;
        if !self.is_cut(&answer) {
            assert_eq!(answer.values, marks[..fails.min(count)], "{answer:?}");
            assert_eq!(answer.failure.is_some(), fails < count);
        }
        Ok(())
    }

    /// Its own statement is cancelled, or has ended before; nobody else's, and not its next one. Keys of those who have left cancel nothing.
    fn cancel(&mut self) -> Result<(), Gone> {
        let port = self.scene.proxied.router().port();
        let old = {
            let keys = self.scene.old_keys.lock().unwrap();
            (!keys.is_empty()).then(|| self.chance.pick(&keys).clone())
        };
        if let Some(old) = old {
            Client::cancel(&old, port);
        }
        let (mark, user) = (self.mark(), self.user());
        let seconds = *self.chance.pick(&["0", "0.002", "30"]);
        let sql = format!("SELECT '{mark}', pg_sleep({seconds}) FROM users WHERE id = {user}");
        self.send(&sql, |buffer| frontend::query(&sql, buffer).unwrap());
        Client::cancel(&self.client.key, port);
        if seconds == "30" {
            self.cancel_for_certain(port);
        }
        let answer = self.answer(1)?;
        if answer.sqlstate() != Some("57014") {
            self.is(&answer, &mark, &sql);
        }
        Ok(())
    }

    /// A request may come before its statement has: it is said again until there is an answer.
    fn cancel_for_certain(&self, port: u16) {
        let stream = self.client.stream();
        stream
            .set_read_timeout(Some(Duration::from_millis(50)))
            .unwrap();
        while stream.peek(&mut [0]).is_err() {
            Client::cancel(&self.client.key, port);
        }
        stream.set_read_timeout(Some(SILENCE)).unwrap();
    }

    fn listen(&mut self) -> Result<(), Gone> {
        if self.listens {
            self.scene
                .listeners
                .lock()
                .unwrap()
                .retain(|number| *number != self.number);
            self.succeeds("UNLISTEN *")?;
            // What was on its way comes with that, at the latest.
            self.listens = false;
            self.unpinned = true;
            return Ok(());
        }
        {
            let mut listeners = self.scene.listeners.lock().unwrap();
            if listeners.len() >= LISTENERS {
                return Ok(());
            }
            listeners.push(self.number);
        }
        self.listens = true;
        let sql = format!("LISTEN channel_{}", self.number);
        self.succeeds(&sql)?;
        Ok(())
    }

    /// To another one, on the channel that is its alone.
    fn notify(&mut self) -> Result<(), Gone> {
        let listener = {
            let listeners = self.scene.listeners.lock().unwrap();
            (!listeners.is_empty()).then(|| *self.chance.pick(&listeners))
        };
        if let Some(listener) = listener {
            // Not a statement of this client's, as its errors would have the other one's mark.
            let payload = mark(listener, 0);
            let sql = format!("NOTIFY channel_{listener}, '{payload}'");
            self.succeeds(&sql)?;
        }
        Ok(())
    }

    fn copy(&mut self) -> Result<(), Gone> {
        let (mark, user) = (self.mark(), self.user());
        let sql = format!("COPY (SELECT '{mark}' FROM users WHERE id = {user}) TO STDOUT");
        self.gives(&sql, &mark)
    }

    /// A row of its own, written and read, by COPY or INSERT.
    fn write(&mut self) -> Result<(), Gone> {
        let mark = self.mark();
        let id = self.number * 1_000_000 + self.marks;
        let written = if self.chance.percent(50) {
            self.succeeds(&format!("INSERT INTO marked VALUES ({id}, '{mark}')"))?
        } else {
            let data = format!("{id}\t{mark}\n");
            self.send("copy in", |buffer| {
                frontend::query("COPY marked FROM STDIN", buffer).unwrap();
                frontend::CopyData::new(data.as_bytes())
                    .unwrap()
                    .write(buffer);
                frontend::copy_done(buffer);
            });
            let answer = self.answer(1)?;
            assert!(
                answer.failure.is_none() || self.is_cut(&answer),
                "{answer:?}"
            );
            answer.failure.is_none()
        };
        match written {
            true => self.gives(&format!("SELECT mark FROM marked WHERE id = {id}"), &mark),
            false => Ok(()),
        }
    }

    /// A table that only this client has; the others have none of the name.
    fn temporary(&mut self) -> Result<(), Gone> {
        match self.temporary.clone() {
            Some(mark) => {
                self.gives("SELECT mark FROM mine", &mark)?;
                self.succeeds("DROP TABLE mine")?;
                self.temporary = None;
                self.unpinned = true;
            }
            None => {
                let answer = self.run("SELECT mark FROM mine")?;
                assert!(
                    answer.sqlstate() == Some("42P01") || self.is_cut(&answer),
                    "{answer:?}"
                );
                if self.chance.percent(30) {
                    let mark = self.mark();
                    // It may have been made although its connection is lost then: the session ends with it.
                    self.temporary = Some(mark.clone());
                    let sql =
                        format!("CREATE TEMPORARY TABLE mine AS SELECT '{mark}'::text AS mark");
                    if !self.succeeds(&sql)? {
                        self.temporary = None;
                    }
                }
            }
        }
        Ok(())
    }

    /// Leaves in the middle of something.
    fn leave(&mut self) -> Result<(), Gone> {
        let (mark, user) = (self.mark(), self.user());
        let query = format!(
            "SELECT '{mark}', pg_sleep(0.001) FROM users, generate_series(1, 50) WHERE id = {user}"
        );
        let way = self.chance.below(6);
        self.client.send(|buffer| match way {
            0 => frontend::terminate(buffer),
            1 => frontend::query(&query, buffer).unwrap(),
            2 => {
                let begin = format!("BEGIN; INSERT INTO marked VALUES (-{user}, '{mark}')");
                frontend::query(&begin, buffer).unwrap();
            }
            3 => {
                frontend::query("COPY marked FROM STDIN", buffer).unwrap();
                frontend::CopyData::new(&b"1\tunfinished"[..])
                    .unwrap()
                    .write(buffer);
            }
            4 => {
                frontend::parse("", &query, [], buffer).unwrap();
                bind("", "", &[], 0, buffer);
                frontend::execute("", 0, buffer).unwrap();
                frontend::flush(buffer);
            }
            _ => {
                frontend::query(&query, buffer).unwrap();
                buffer.truncate(buffer.len() / 2);
            }
        });
        Err(Gone)
    }
}

fn execute_and_sync(buffer: &mut BytesMut) {
    frontend::execute("", 0, buffer).unwrap();
    frontend::sync(buffer);
}

/// The mark with this number of a client.
fn mark(client: u64, number: u64) -> String {
    format!("mark{client}x{number}x")
}

/// The numbers of the clients whose marks are in it.
fn numbers_of(bytes: &[u8]) -> Vec<u64> {
    let mut numbers = Vec::new();
    let mut rest = bytes;
    while let Some(at) = rest.windows(4).position(|window| window == b"mark") {
        rest = &rest[at + 4..];
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let number = std::str::from_utf8(&rest[..digits]).unwrap().parse::<u64>();
        numbers.extend(number.ok());
    }
    numbers
}

fn number(name: &str, otherwise: usize) -> usize {
    let given = std::env::var(name).ok();
    given.map_or(otherwise, |given| given.parse().unwrap())
}

/// So many operations, with or without connections to servers that break meanwhile.
fn run(proxied: &Proxied, operations: usize, cuts: bool) {
    let scene = Scene {
        proxied,
        seed: number("SWITCHYARD_SEED", 6) as u64,
        left: AtomicUsize::new(operations),
        numbers: AtomicU64::new(u64::from(cuts) * 1_000_000),
        listeners: Mutex::default(),
        old_keys: Mutex::default(),
        cuts: AtomicBool::new(cuts),
    };
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let scene = &scene;
            scope.spawn(move || {
                let mut chance = Chance::of(scene.seed, client as u64);
                while scene.left.load(Ordering::Relaxed) > 0 {
                    Subject::enter(scene, &mut chance).work();
                }
            });
        }
        if cuts {
            scope.spawn(|| {
                let mut chance = Chance::of(scene.seed, CLIENTS as u64);
                while scene.left.load(Ordering::Relaxed) > 0 {
                    // How often is a matter of chance anyway.
                    std::thread::sleep(Duration::from_millis(chance.between(50, 300) as u64));
                    let proxies: Vec<&Proxy> = proxied.proxies().collect();
                    chance.pick(&proxies).cut();
                }
            });
        }
    });
}

#[test]
fn no_mark_reaches_another_client() {
    let bed = Bed::start(BedSpec::of(ClusterSpec::for_tests(2, 0)).with_tables(DDL, TABLES));
    let proxied = Proxied::new(&bed, ROUTER);
    let operations = number("SWITCHYARD_OPERATIONS", 6_000);
    run(&proxied, operations / 2, false);
    run(&proxied, operations / 2, true);
    // Whoever comes next finds nothing of anybody.
    let mut client = proxied.client();
    let rest = client.run("SELECT count(*) FROM marked WHERE id < 0 OR mark = 'unfinished'");
    assert_eq!(rest.succeeded().value(), "0");
}
