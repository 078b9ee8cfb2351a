//! The protocol, message by message: the same bytes go to the oracle and to the router, and the same messages must come back.

#[path = "protocol/function_calls.rs"]
mod function_calls;
#[path = "protocol/oids.rs"]
mod oids;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use postgres_protocol::message::frontend;
use switchyard_tests::cluster::ClusterSpec;
use switchyard_tests::{Bed, BedSpec, Client, Message, bind};

static BED: OnceLock<Bed> = OnceLock::new();

fn bed() -> &'static Bed {
    let tables = (
        include_str!("../slt/tables.sql"),
        include_str!("../slt/tables.toml"),
    );
    BED.get_or_init(|| {
        Bed::start(
            BedSpec::of(ClusterSpec::for_tests(2, 0).with_oracle()).with_tables(tables.0, tables.1),
        )
    })
}

/// The same connection to both sides.
struct Pair {
    oracle: Client,
    router: Client,
}

impl Pair {
    fn new() -> Pair {
        Pair {
            oracle: bed().oracle(),
            router: bed().client(),
        }
    }

    /// Sends the same to both and compares all that comes up to the last of `syncs` ReadyForQuery.
    #[track_caller]
    fn same(&mut self, syncs: usize, write: impl Fn(&mut BytesMut)) {
        self.same_until(
            |seen| seen.iter().filter(|message| message.tag == b'Z').count() == syncs,
            write,
        );
    }

    #[track_caller]
    fn same_until(&mut self, done: impl Fn(&[Message]) -> bool, write: impl Fn(&mut BytesMut)) {
        let oracle = exchange(&mut self.oracle, &done, &write);
        let router = exchange(&mut self.router, &done, &write);
        let show = |messages: &[Message]| -> Vec<String> {
            let one = |message: &Message| {
                format!(
                    "{} {:?}",
                    char::from(message.tag),
                    String::from_utf8_lossy(&message.body)
                )
            };
            messages.iter().map(one).collect()
        };
        assert_eq!(
            show(&oracle),
            show(&router),
            "oracle on the left, router on the right"
        );
        assert_eq!(oracle, router, "bytes that are not text differ");
    }
}

fn exchange(
    client: &mut Client,
    done: &impl Fn(&[Message]) -> bool,
    write: &impl Fn(&mut BytesMut),
) -> Vec<Message> {
    client.send(write);
    let mut seen = Vec::new();
    while !done(&seen) {
        seen.push(comparable(client.receive()));
    }
    seen
}

/// A message without what is another on every server: OIDs of tables and of types that users made, places in PostgreSQL's source, and the context, to which
/// the router adds the shard.
fn comparable(message: Message) -> Message {
    match message.tag {
        b'T' => {
            let mut body = message.body.to_vec();
            let mut at = 2;
            while at < body.len() {
                at += body[at..].iter().position(|&byte| byte == 0).unwrap() + 1;
                body[at..at + 4].fill(0);
                let kind = u32::from_be_bytes(*body[at + 6..].first_chunk().unwrap());
                if kind >= 16_384 {
                    body[at + 6..at + 10].fill(0);
                }
                at += 18;
            }
            Message {
                body: body.into(),
                ..message
            }
        }
        b'E' | b'N' => {
            let fields = message.body.split(|&byte| byte == 0);
            let kept = fields.filter(|field| {
                field
                    .first()
                    .is_some_and(|letter| !b"WFLR".contains(letter))
            });
            Message {
                body: kept.collect::<Vec<_>>().join(&0).into(),
                ..message
            }
        }
        _ => message,
    }
}

fn parse(name: &str, sql: &str, buffer: &mut BytesMut) {
    frontend::parse(name, sql, [], buffer).unwrap();
}

fn execute(portal: &str, rows: i32, buffer: &mut BytesMut) {
    frontend::execute(portal, rows, buffer).unwrap();
}

const USER: &str = "SELECT id, name FROM users WHERE id = $1";

#[test]
fn parameters_reported_at_login() {
    let pair = Pair::new();
    assert_eq!(pair.oracle.parameters, pair.router.parameters);
    assert_eq!(pair.router.key.1.len(), 4);
    assert_eq!(pair.router.status, b'I');
}

#[test]
fn encryption_that_is_not_configured_is_declined() {
    for request in [80_877_103_u32, 80_877_104] {
        let mut stream = TcpStream::connect(("127.0.0.1", bed().router().port())).unwrap();
        stream
            .write_all(&[8_u32.to_be_bytes(), request.to_be_bytes()].concat())
            .unwrap();
        let mut answer = [0];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(answer, *b"N");
    }
}

#[test]
fn newer_protocols_and_unknown_options_are_negotiated_down() {
    let mut client = Client::open(bed().router().port());
    let mut body = (3_u32 << 16 | 9).to_be_bytes().to_vec();
    body.extend_from_slice(b"user\0app\0database\0shop\0_pq_.unheard_of\0on\0\0");
    let length = u32::try_from(body.len() + 4).unwrap();
    client
        .send_raw(&[&length.to_be_bytes(), body.as_slice()].concat())
        .unwrap();
    let message = client.receive();
    assert_eq!(message.tag, b'v', "{message:?}");
    assert!(
        message.body.ends_with(b"\0\0\0\x01_pq_.unheard_of\0"),
        "{message:?}"
    );
    assert_eq!(client.receive().tag, b'R');
}

#[test]
fn named_statements_are_used_again() {
    let mut pair = Pair::new();
    pair.same(1, |buffer| {
        parse("user", USER, buffer);
        frontend::describe(b'S', "user", buffer).unwrap();
        frontend::sync(buffer);
    });
    for id in ["1", "2", "3", "150", "9999"] {
        for format in [0, 1] {
            pair.same(1, |buffer| {
                bind("", "user", &[Some(id)], format, buffer);
                frontend::describe(b'P', "", buffer).unwrap();
                execute("", 0, buffer);
                frontend::sync(buffer);
            });
        }
    }
    // In a block, after an error, and after the block.
    for sql in ["BEGIN", "SELECT 1 / 0", "ROLLBACK"] {
        pair.same(1, |buffer| frontend::query(sql, buffer).unwrap());
        pair.same(1, |buffer| {
            bind("", "user", &[Some("5")], 0, buffer);
            execute("", 0, buffer);
            frontend::sync(buffer);
        });
    }
    pair.same(2, |buffer| {
        frontend::close(b'S', "user", buffer).unwrap();
        frontend::close(b'S', "never there", buffer).unwrap();
        frontend::close(b'P', "never there", buffer).unwrap();
        frontend::sync(buffer);
        bind("", "user", &[Some("5")], 0, buffer);
        frontend::sync(buffer);
    });
}

/// FETCH, MOVE and CLOSE of what the protocol has bound, for which PostgreSQL has one name space with cursors.
const OF_A_PORTAL: [&str; 4] = ["MOVE FORWARD 2 p", "FETCH 2 p", "FETCH 0 p", "CLOSE p"];

/// Binds a statement, and reads a row of it.
fn begin_portal(sql: &str, params: &[Option<&str>], buffer: &mut BytesMut) {
    parse("", sql, buffer);
    bind("p", "", params, 0, buffer);
    execute("p", 1, buffer);
    frontend::sync(buffer);
}

#[test]
fn portals_of_one_shard_are_cursors() {
    let mut pair = Pair::new();
    // The other shard takes part, too, and came first.
    pair.same(2, |buffer| {
        frontend::query("BEGIN", buffer).unwrap();
        frontend::query("SELECT count(*) FROM users", buffer).unwrap();
    });
    for user in ["1", "2", "3"] {
        let orders = "SELECT id FROM orders WHERE user_id = $1 ORDER BY id";
        pair.same(1, |buffer| begin_portal(orders, &[Some(user)], buffer));
        for sql in OF_A_PORTAL {
            pair.same(1, |buffer| frontend::query(sql, buffer).unwrap());
        }
    }
}

#[test]
fn portals_of_several_shards_are_no_cursors() {
    for sql in [
        "SELECT id, name FROM users",
        "SELECT id, name FROM users ORDER BY id",
        "SELECT count(*) FROM users u JOIN orders o ON o.id = u.id",
    ] {
        for word in OF_A_PORTAL {
            for simple in [true, false] {
                is_no_cursor(sql, word, simple);
            }
        }
    }
}

/// The word is refused, and the block has failed.
#[track_caller]
fn is_no_cursor(sql: &str, word: &str, simple: bool) {
    let mut client = bed().client();
    client.run("BEGIN").succeeded();
    let done = |seen: &[Message]| seen.last().is_some_and(|last| last.tag == b'Z');
    exchange(&mut client, &done, &|buffer: &mut BytesMut| {
        begin_portal(sql, &[], buffer);
    });
    let said = exchange(&mut client, &done, &|buffer: &mut BytesMut| {
        if simple {
            return frontend::query(word, buffer).unwrap();
        }
        parse("", word, buffer);
        bind("", "", &[], 0, buffer);
        execute("", 0, buffer);
        frontend::sync(buffer);
    });
    let error = said.iter().find(|message| message.tag == b'E');
    let error = error.unwrap_or_else(|| panic!("{word} of {sql} is answered"));
    let error = String::from_utf8_lossy(&error.body);
    assert!(error.contains("C0A000"), "{word} of {sql}: {error}");
    let after = exchange(&mut client, &done, &|buffer: &mut BytesMut| {
        execute("p", 1, buffer);
        frontend::sync(buffer);
    });
    let tags: Vec<u8> = after.iter().map(|message| message.tag).collect();
    assert_eq!(tags, b"EZ", "the block has failed");
    assert_eq!(*after[1].body, *b"E");
}

/// A client that has been told of two columns reads rows of two.
#[test]
fn statements_keep_the_columns_that_were_described_or_fail() {
    let mut pair = Pair::new();
    let both = |sql: &str| {
        bed().oracle().run(sql).succeeded();
        bed().client().run(sql).succeeded();
    };
    both("CREATE TYPE shade AS ENUM ('red')");
    both("CREATE TABLE plans (i int, t text, kind colour)");
    both("INSERT INTO plans VALUES (1, 'one', 'red')");
    both("CREATE TABLE held (i int)");
    pair.same(1, |buffer| {
        for (name, sql) in [("all", "SELECT * FROM plans"), ("i", "SELECT i FROM plans")] {
            parse(name, sql, buffer);
            frontend::describe(b'S', name, buffer).unwrap();
        }
        frontend::sync(buffer);
    });
    // The connection that has prepared them is somebody else's: the next one would prepare them as they are by then.
    let mut holder = bed().client();
    holder.run("BEGIN").succeeded();
    holder.run("SELECT * FROM held").succeeded();

    let execute_all = |pair: &mut Pair| {
        for name in ["all", "i"] {
            pair.same(1, |buffer| {
                bind("", name, &[], 0, buffer);
                execute("", 0, buffer);
                frontend::sync(buffer);
            });
        }
    };
    for change in [
        "ALTER COLUMN kind TYPE shade USING 'red'",
        "ALTER COLUMN kind TYPE colour USING 'red'",
        "ADD COLUMN more int",
        "DROP COLUMN more",
        "ALTER COLUMN t TYPE varchar(9)",
        "ALTER COLUMN t TYPE text",
        "RENAME COLUMN t TO u",
    ] {
        both(&format!("ALTER TABLE plans {change}"));
        execute_all(&mut pair);
        execute_all(&mut pair);
    }
    pair.same(1, |buffer| {
        frontend::close(b'S', "all", buffer).unwrap();
        parse("all", "SELECT * FROM plans", buffer);
        frontend::sync(buffer);
    });
    execute_all(&mut pair);
    holder.run("ROLLBACK").succeeded();
    both("DROP TABLE plans");
    both("DROP TYPE shade");
    pair.same(1, |buffer| {
        bind("", "all", &[], 0, buffer);
        execute("", 0, buffer);
        frontend::sync(buffer);
    });
}

#[test]
fn many_statements_on_many_connections_keep_their_names_apart() {
    let mut pairs: Vec<Pair> = (0..6).map(|_| Pair::new()).collect();
    for (number, pair) in pairs.iter_mut().enumerate() {
        pair.same(1, |buffer| {
            parse(
                "mine",
                &format!("SELECT {number}, name FROM users WHERE id = $1"),
                buffer,
            );
            frontend::sync(buffer);
        });
    }
    for id in 1..30 {
        for pair in &mut pairs {
            pair.same(1, |buffer| {
                bind("", "mine", &[Some(&id.to_string())], 0, buffer);
                execute("", 0, buffer);
                frontend::sync(buffer);
            });
        }
    }
}

#[test]
fn mistakes_with_names() {
    let mut pair = Pair::new();
    pair.same(1, |buffer| {
        parse("twice", "SELECT 1", buffer);
        parse("twice", "SELECT 2", buffer);
        frontend::sync(buffer);
    });
    for write in [
        |buffer: &mut BytesMut| bind("", "nobody", &[], 0, buffer),
        |buffer: &mut BytesMut| execute("nobody", 0, buffer),
        |buffer: &mut BytesMut| frontend::describe(b'S', "nobody", buffer).unwrap(),
        |buffer: &mut BytesMut| frontend::describe(b'P', "nobody", buffer).unwrap(),
        |buffer: &mut BytesMut| bind("", "twice", &[Some("1")], 0, buffer), // too many parameters
    ] {
        pair.same(1, |buffer| {
            write(buffer);
            frontend::sync(buffer);
        });
    }
    // A simple query forgets the unnamed statement.
    pair.same(3, |buffer| {
        parse("", "SELECT 3", buffer);
        frontend::sync(buffer);
        frontend::query("SELECT 4", buffer).unwrap();
        bind("", "", &[], 0, buffer);
        execute("", 0, buffer);
        frontend::sync(buffer);
    });
}

#[test]
fn after_an_error_everything_up_to_sync_is_skipped() {
    let mut pair = Pair::new();
    pair.same(2, |buffer| {
        parse("", "SELEC", buffer);
        bind("", "", &[], 0, buffer);
        execute("", 0, buffer);
        frontend::sync(buffer);
        parse("", USER, buffer);
        bind("", "", &[Some("3")], 0, buffer);
        execute("", 0, buffer);
        frontend::sync(buffer);
    });
    pair.same(1, |buffer| {
        parse("", USER, buffer);
        bind("", "", &[Some("not a number")], 0, buffer);
        frontend::describe(b'P', "", buffer).unwrap();
        execute("", 0, buffer);
        frontend::query("SELECT 'skipped too'", buffer).unwrap();
        frontend::sync(buffer);
    });
}

#[test]
fn pipelines() {
    let mut pair = Pair::new();
    // Many statements, one Sync.
    pair.same(1, |buffer| {
        for id in 1..=20 {
            parse("", USER, buffer);
            bind("", "", &[Some(&id.to_string())], 0, buffer);
            frontend::describe(b'P', "", buffer).unwrap();
            execute("", 0, buffer);
        }
        frontend::sync(buffer);
    });
    // Many statements, many Syncs, an error among them.
    pair.same(21, |buffer| {
        for id in 1..=20 {
            parse("", USER, buffer);
            bind("", "", &[Some(if id == 7 { "x" } else { "7" })], 0, buffer);
            execute("", 0, buffer);
            frontend::sync(buffer);
        }
        frontend::query("SELECT 1", buffer).unwrap();
    });
    // All between two Syncs is one transaction.
    let insert = "INSERT INTO orders (user_id, id, ship_to) VALUES (5, $1, 'no') RETURNING id";
    pair.same(2, |buffer| {
        parse("", insert, buffer);
        bind("", "", &[Some("70001")], 0, buffer);
        execute("", 0, buffer);
        bind("", "", &[Some("70001")], 0, buffer); // the key is taken
        execute("", 0, buffer);
        frontend::sync(buffer);
        frontend::query(
            "SELECT count(*) FROM orders WHERE user_id = 5 AND id = 70001",
            buffer,
        )
        .unwrap();
    });
    // BEGIN and COMMIT inside a pipeline.
    pair.same(2, |buffer| {
        for (sql, value) in [("BEGIN", None), (insert, Some("70002")), ("COMMIT", None)] {
            parse("", sql, buffer);
            bind("", "", value.map(Some).as_slice(), 0, buffer);
            execute("", 0, buffer);
        }
        frontend::sync(buffer);
        frontend::query(
            "DELETE FROM orders WHERE user_id = 5 AND id = 70002",
            buffer,
        )
        .unwrap();
    });
}

/// COMMIT and ROLLBACK without BEGIN end what the batch has done so far.
#[test]
fn a_batch_that_is_ended_by_words() {
    let mut pair = Pair::new();
    let one = "INSERT INTO orders (user_id, id, ship_to) VALUES (6, $1, 'no')";
    let several = "INSERT INTO orders (user_id, id, ship_to) SELECT g, 71000, 'no' FROM generate_series(1, $1::int) g";
    let failing = "SELECT 1 / (id - 6) FROM users WHERE id = 6";
    for first in [one, several] {
        for end in [
            "COMMIT",
            "ROLLBACK",
            "COMMIT AND CHAIN",
            "ROLLBACK AND CHAIN",
        ] {
            for last in [failing, "SELECT 1"] {
                pair.same(2, |buffer| {
                    for (sql, value) in [
                        (first, Some("8")),
                        (end, None),
                        (one, Some("71001")),
                        (last, None),
                    ] {
                        parse("", sql, buffer);
                        bind("", "", value.map(Some).as_slice(), 0, buffer);
                        execute("", 0, buffer);
                    }
                    frontend::sync(buffer);
                    let left = "DELETE FROM orders WHERE id IN (8, 71000, 71001)";
                    frontend::query(left, buffer).unwrap();
                });
            }
        }
    }
}

/// A batch fails once, wherever what it has written before lies.
#[test]
fn a_batch_that_fails_after_writes_of_several_shards() {
    let mut pair = Pair::new();
    let one = |id| format!("INSERT INTO orders (user_id, id, ship_to) VALUES ({id}, 72000, 'no')");
    let several = "INSERT INTO orders (user_id, id, ship_to) VALUES (1, 72001, 'no'), (2, 72001, 'no'), (3, 72001, 'no')";
    for id in 1..=6 {
        pair.same(2, |buffer| {
            for sql in [one(id), several.to_owned(), one(id)] {
                parse("", &sql, buffer);
                bind("", "", &[], 0, buffer);
                execute("", 0, buffer);
            }
            frontend::sync(buffer);
            let left = "SELECT count(*) FROM orders WHERE id >= 72000";
            frontend::query(left, buffer).unwrap();
        });
    }
}

/// A server that has met an error ignores all that comes before the Sync, what the router says of its own accord included.
#[test]
fn what_the_router_adds_behind_an_error_is_not_waited_for() {
    let mut pair = Pair::new();
    let one = |id, ship| {
        format!("INSERT INTO orders (user_id, id, ship_to) VALUES ({id}, 73000, {ship})")
    };
    for id in 1..=6 {
        for then in [
            one(id % 6 + 1, "'no'"),
            "CREATE TABLE never (id int)".to_owned(),
            "BEGIN".to_owned(),
        ] {
            pair.same(2, |buffer| {
                for sql in [&one(id, "(1 / 0)::text"), &then] {
                    parse("", sql, buffer);
                    bind("", "", &[], 0, buffer);
                    execute("", 0, buffer);
                }
                frontend::sync(buffer);
                frontend::query("SELECT 1", buffer).unwrap();
            });
        }
    }
    // Bound before either is executed.
    for id in 1..=6 {
        pair.same(2, |buffer| {
            let sql = [
                one(id, "(1 / (random() * 0)::int)::text"),
                one(id % 6 + 1, "'no'"),
            ];
            for (name, sql) in ["a", "b"].into_iter().zip(&sql) {
                parse("", sql, buffer);
                bind(name, "", &[], 0, buffer);
            }
            execute("a", 0, buffer);
            execute("b", 0, buffer);
            frontend::sync(buffer);
            frontend::query("SELECT 1", buffer).unwrap();
        });
    }
    // Others have taken values of sequences on the connection.
    let mut other = bed().client();
    other
        .run("CREATE TABLE taken (id serial, said text)")
        .succeeded();
    let mut oracle = bed().oracle();
    oracle
        .run("CREATE TABLE taken (id serial, said text)")
        .succeeded();
    other.send(|buffer| {
        frontend::query("COPY taken (said) FROM STDIN", buffer).unwrap();
        frontend::CopyData::new(&b"x\n"[..]).unwrap().write(buffer);
        frontend::copy_done(buffer);
    });
    other.replies(None).remove(0).succeeded();
    pair.same(3, |buffer| {
        frontend::query("BEGIN", buffer).unwrap();
        for sql in [
            "SELECT 1 / (count(*) * 0) FROM taken",
            "SELECT nextval('taken_id_seq')",
        ] {
            parse("", sql, buffer);
            bind("", "", &[], 0, buffer);
            execute("", 0, buffer);
        }
        frontend::sync(buffer);
        frontend::query("ROLLBACK", buffer).unwrap();
    });
    for client in [&mut other, &mut oracle] {
        client.run("DROP TABLE taken").succeeded();
    }
}

/// In a block that failed by an error no server has seen, nothing but its end is parsed.
#[test]
fn a_failed_block_parses_nothing() {
    let mut pair = Pair::new();
    for sql in ["BEGIN", "SELECT name FROM users WHERE id = 4"] {
        pair.same(1, |buffer| frontend::query(sql, buffer).unwrap());
    }
    pair.same(1, |buffer| {
        bind("", "nowhere", &[], 0, buffer);
        frontend::sync(buffer);
    });
    for describe in [false, true] {
        pair.same(1, |buffer| {
            parse("late", "SELECT name FROM users WHERE id = 4", buffer);
            if describe {
                frontend::describe(b'S', "late", buffer).unwrap();
            }
            frontend::sync(buffer);
        });
    }
    pair.same(1, |buffer| {
        parse("", "ROLLBACK", buffer);
        bind("", "", &[], 0, buffer);
        execute("", 0, buffer);
        frontend::sync(buffer);
    });
    pair.same(1, |buffer| {
        bind("", "late", &[], 0, buffer);
        frontend::sync(buffer);
    });
}

/// Nothing overtakes an answer, wherever it comes from.
#[test]
fn answers_keep_their_order() {
    let mut pair = Pair::new();
    pair.same(1, |buffer| {
        parse("a", "SELECT name FROM users WHERE id = 4", buffer);
        frontend::close(b'S', "nowhere", buffer).unwrap();
        parse("b", "SELECT name FROM users WHERE id = 4", buffer);
        frontend::close(b'P', "", buffer).unwrap();
        bind("", "b", &[], 0, buffer);
        execute("", 0, buffer);
        frontend::sync(buffer);
    });
    // A Parse between a portal's messages.
    pair.same(1, |buffer| {
        bind("", "b", &[], 0, buffer);
        parse("between", "SELECT name FROM users WHERE id = 4", buffer);
        frontend::describe(b'P', "", buffer).unwrap();
        parse("as well", "SELECT name FROM users WHERE id = 4", buffer);
        execute("", 0, buffer);
        frontend::sync(buffer);
    });
    // A query before the Sync.
    pair.same(1, |buffer| {
        parse("c", "SELECT 1", buffer);
        frontend::query("SELECT 2", buffer).unwrap();
    });
    // A query that an error skips.
    pair.same(1, |buffer| {
        parse("d", "SELECT nothing", buffer);
        frontend::query("SELECT 3", buffer).unwrap();
        frontend::sync(buffer);
    });
    pair.same(1, |buffer| {
        bind("", "c", &[], 0, buffer);
        execute("", 0, buffer);
        frontend::sync(buffer);
    });
}

#[test]
fn portals_with_a_row_limit() {
    let mut pair = Pair::new();
    let items = "SELECT order_id, line FROM order_items WHERE user_id = 20 ORDER BY 1, 2";
    pair.same(1, |buffer| {
        parse("", items, buffer);
        bind("", "", &[], 0, buffer);
        execute("", 2, buffer);
        execute("", 2, buffer);
        execute("", 0, buffer);
        execute("", 0, buffer);
        frontend::sync(buffer);
    });
    // Named portals live to the end of the transaction.
    pair.same(5, |buffer| {
        frontend::query("BEGIN", buffer).unwrap();
        parse("items", items, buffer);
        bind("one", "items", &[], 0, buffer);
        bind("two", "items", &[], 1, buffer);
        execute("one", 1, buffer);
        execute("two", 2, buffer);
        frontend::sync(buffer);
        execute("one", 1, buffer);
        execute("two", 1, buffer);
        frontend::close(b'P', "one", buffer).unwrap();
        frontend::sync(buffer);
        frontend::query("COMMIT", buffer).unwrap();
        execute("two", 1, buffer);
        frontend::sync(buffer);
    });
}

#[test]
fn portals_of_merged_rows_with_a_row_limit() {
    let mut pair = Pair::new();
    let ordered = "SELECT id, created_at FROM users ORDER BY created_at DESC, id LIMIT 9";
    let grouped = "SELECT country, count(*), avg(id) FROM users GROUP BY country ORDER BY 2, 1";
    for sql in [ordered, grouped] {
        for format in [0, 1] {
            pair.same(1, |buffer| {
                parse("", sql, buffer);
                bind("", "", &[], format, buffer);
                frontend::describe(b'P', "", buffer).unwrap();
                execute("", 2, buffer);
                execute("", 3, buffer);
                execute("", 0, buffer);
                execute("", 0, buffer);
                frontend::sync(buffer);
            });
        }
    }
    // Two at a time, on the same connections to the shards; one is closed before its end.
    pair.same(5, |buffer| {
        frontend::query("BEGIN", buffer).unwrap();
        parse("ordered", ordered, buffer);
        parse("grouped", grouped, buffer);
        bind("one", "ordered", &[], 0, buffer);
        bind("two", "grouped", &[], 1, buffer);
        execute("one", 1, buffer);
        execute("two", 2, buffer);
        frontend::sync(buffer);
        execute("one", 2, buffer);
        execute("two", 1, buffer);
        frontend::close(b'P', "two", buffer).unwrap();
        execute("one", 0, buffer);
        frontend::sync(buffer);
        frontend::query("COMMIT", buffer).unwrap();
        execute("one", 1, buffer);
        frontend::sync(buffer);
    });
    // What is left of it does not disturb what comes after.
    pair.same(1, |buffer| {
        parse("", ordered, buffer);
        bind("", "", &[], 0, buffer);
        execute("", 1, buffer);
        frontend::sync(buffer);
    });
    pair.same(1, |buffer| {
        frontend::query("SELECT count(*) FROM users", buffer).unwrap()
    });
}

#[test]
fn flush_brings_answers_before_sync() {
    let mut pair = Pair::new();
    pair.same_until(
        |seen| seen.last().is_some_and(|message| message.tag == b'C'),
        |buffer| {
            parse("", USER, buffer);
            bind("", "", &[Some("9")], 0, buffer);
            execute("", 0, buffer);
            frontend::flush(buffer);
        },
    );
    pair.same_until(
        |seen| seen.last().is_some_and(|message| message.tag == b'T'),
        |buffer| {
            frontend::describe(b'S', "", buffer).unwrap();
            frontend::flush(buffer);
        },
    );
    pair.same(1, frontend::sync);
    pair.same(3, |buffer| (0..3).for_each(|_| frontend::sync(buffer)));
}

#[test]
fn empty_and_several_statements() {
    let mut pair = Pair::new();
    for sql in [
        "",
        ";",
        " -- nothing\n",
        "SELECT 1;; SELECT 2;",
        "SELECT 1; SELEC 2; SELECT 3",
        "SELECT 1; SELECT 1 / 0; SELECT 3",
    ] {
        pair.same(1, |buffer| frontend::query(sql, buffer).unwrap());
    }
    for sql in ["", " ", "SELECT 1; SELECT 2"] {
        pair.same(1, |buffer| {
            parse("", sql, buffer);
            bind("", "", &[], 0, buffer);
            frontend::describe(b'P', "", buffer).unwrap();
            execute("", 0, buffer);
            frontend::sync(buffer);
        });
    }
}

#[test]
fn a_zero_within_a_query_is_no_text() {
    let mut pair = Pair::new();
    for sql in [
        &b"SELECT 1\0, 2\0"[..],
        b"SELECT 'a\0b'\0",
        b"SELECT '\0'; SELECT 2\0",
        b"\0\0",
    ] {
        pair.same(1, |buffer| {
            let length = u32::try_from(sql.len() + 4).unwrap();
            buffer.extend_from_slice(b"Q");
            buffer.extend_from_slice(&length.to_be_bytes());
            buffer.extend_from_slice(sql);
        });
    }
}

#[test]
fn describe_says_types_of_what_is_never_run() {
    let mut pair = Pair::new();
    for sql in [
        USER,
        "SELECT $1 || $2, $3::uuid, $4::numeric(8,3)",
        "INSERT INTO users (id, email, name, country) VALUES ($1, $2, $3, $4)",
        "UPDATE orders SET total = $1 WHERE user_id = $2 RETURNING total, placed_at",
        "SELECT id, name, price FROM products WHERE price > $1",
        "SELECT nothing FROM users WHERE id = $1",
        "BEGIN",
        "SHOW work_mem",
    ] {
        pair.same(1, |buffer| {
            parse("", sql, buffer);
            frontend::describe(b'S', "", buffer).unwrap();
            frontend::sync(buffer);
        });
    }
}

#[test]
fn copy_by_messages() {
    let mut pair = Pair::new();
    let copied = |write: &dyn Fn(&mut BytesMut)| {
        let mut buffer = BytesMut::new();
        write(&mut buffer);
        buffer
    };
    let data = |bytes: &'static [u8]| {
        move |buffer: &mut BytesMut| frontend::CopyData::new(bytes).unwrap().write(buffer)
    };
    let whole = copied(&|buffer| {
        data(b"1\tone\n2\tt")(buffer);
        data(b"wo\n")(buffer);
        frontend::copy_done(buffer);
    });
    let broken = copied(&|buffer| {
        data(b"x\tone\n")(buffer);
        frontend::copy_done(buffer);
    });
    let failed = copied(&|buffer| frontend::copy_fail("changed my mind", buffer).unwrap());
    for body in [&whole, &broken, &failed] {
        // The server says CopyInResponse first; sending everything at once is allowed.
        pair.same(1, |buffer| {
            frontend::query("COPY notes (id, body) FROM STDIN", buffer).unwrap();
            buffer.extend_from_slice(body);
        });
        pair.same(1, |buffer| {
            frontend::query("SELECT id, body FROM notes ORDER BY id", buffer).unwrap()
        });
        pair.same(1, |buffer| {
            frontend::query("DELETE FROM notes", buffer).unwrap()
        });
        pair.same(1, |buffer| {
            parse("", "COPY notes (id, body) FROM STDIN", buffer);
            bind("", "", &[], 0, buffer);
            frontend::describe(b'P', "", buffer).unwrap();
            execute("", 0, buffer);
            buffer.extend_from_slice(body);
            frontend::sync(buffer);
        });
        pair.same(1, |buffer| {
            frontend::query("DELETE FROM notes", buffer).unwrap()
        });
        // The Sync that stands right behind the Execute, as libpq sends it, is ignored. It is the first that the server hears of the block.
        pair.same(4, |buffer| {
            frontend::query("BEGIN", buffer).unwrap();
            parse("", "COPY notes (id, body) FROM STDIN", buffer);
            bind("", "", &[], 0, buffer);
            execute("", 0, buffer);
            frontend::sync(buffer);
            buffer.extend_from_slice(body);
            frontend::sync(buffer);
            frontend::query("SELECT count(*) FROM notes", buffer).unwrap();
            frontend::query("ROLLBACK", buffer).unwrap();
        });
    }
    // Messages of a COPY that is over are ignored.
    pair.same(1, |buffer| {
        buffer.extend_from_slice(&whole);
        frontend::query("SELECT 1", buffer).unwrap();
    });
    pair.same(1, |buffer| {
        frontend::query(
            "COPY (SELECT id, name FROM users WHERE id = 3) TO STDOUT",
            buffer,
        )
        .unwrap()
    });
    // Over several shards, too, the header of binary rows is in the message of the first one, which clients count on.
    for copy in [
        "COPY (SELECT 1, 'one' FROM users) TO STDOUT (FORMAT binary)",
        "COPY (SELECT id FROM users WHERE id < 0) TO STDOUT (FORMAT binary)",
    ] {
        pair.same(1, |buffer| frontend::query(copy, buffer).unwrap());
    }
}

#[test]
fn large_values_pass() {
    let mut pair = Pair::new();
    let large = "x".repeat(3_000_000);
    pair.same(1, |buffer| {
        parse("", "SELECT length($1), $1::text", buffer);
        bind("", "", &[Some(&large)], 0, buffer);
        execute("", 0, buffer);
        frontend::sync(buffer);
    });
    pair.same(1, |buffer| {
        frontend::query(
            &format!(
                "SELECT length('{large}'), repeat('y', 5000000), name FROM users WHERE id = 4"
            ),
            buffer,
        )
        .unwrap();
    });
}

/// A client that does not wait for answers is heard at any moment: while its query is read, sent on, worked on, answered.
#[test]
fn a_query_sent_ahead_is_answered_whenever_it_comes() {
    let mut client = bed().client();
    for delay in 0..500 {
        client.send(|buffer| frontend::query("SELECT 1", buffer).unwrap());
        for _ in 0..delay * 50 {
            std::hint::spin_loop();
        }
        client.send(|buffer| frontend::query("SELECT 2", buffer).unwrap());
        let mut values = Vec::new();
        let mut answered = 0;
        while answered < 2 {
            let message = client.receive();
            match message.tag {
                b'D' => values.extend(message.body.last().copied()),
                b'Z' => answered += 1,
                _ => {}
            }
        }
        assert_eq!(values, b"12", "after {delay}");
    }
}

/// PostgreSQL answers when its buffer is full, Sync or not, and stops reading when the answers are not taken. So does the
/// router, and holds little meanwhile.
#[test]
fn a_batch_without_end_is_bounded() {
    const MESSAGES: usize = 64 << 20;
    let mut client = bed().client();
    client.send(|buffer| {
        parse("named", "SELECT name FROM users WHERE id = $1", buffer);
        frontend::sync(buffer);
    });
    while client.receive().tag != b'Z' {}
    let mut executions = BytesMut::new();
    for _ in 0..1000 {
        bind("", "named", &[Some("5")], 0, &mut executions);
        execute("", 0, &mut executions);
    }
    // A second without progress: it is not reading any more.
    let patience = Duration::from_secs(1);
    client.stream().set_write_timeout(Some(patience)).unwrap();
    let mut sent = 0;
    while sent < MESSAGES {
        match client
            .stream()
            .write(&executions[sent % executions.len()..])
        {
            Ok(count) => sent += count,
            Err(_) => break,
        }
    }
    assert!(sent < MESSAGES, "all of it was read");
    drop(client);
    bed().client().run("SELECT 1").succeeded();
}

/// The work for a statement grows with its parameters, not with their square: other clients of the worker wait for it.
#[test]
fn many_parameters_are_read_once() {
    const MANY: usize = 30_000;
    let mut client = bed().client();
    let numbers: Vec<String> = (1..=MANY).map(|number| format!("${number}")).collect();
    let sql = format!("SELECT id FROM users WHERE id IN ({})", numbers.join(", "));
    let began = Instant::now();
    let reply = client.extended(&sql, &vec![Some("5"); MANY], 0);
    assert_eq!(reply.succeeded().value(), "5");
    let took = began.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[test]
fn notices_and_changed_parameters_are_passed_on() {
    let mut pair = Pair::new();
    for sql in [
        "SET client_min_messages = 'debug1'",
        "RESET client_min_messages",
        "DO $$ BEGIN RAISE NOTICE 'hello %', 1; END $$",
        "SET application_name = 'renamed'",
        "SET TimeZone = 'Asia/Seoul'",
        "SET datestyle = 'German'",
        "ROLLBACK",
        "BEGIN",
        "SET LOCAL TimeZone = 'UTC'",
        "COMMIT",
        "RESET ALL",
    ] {
        pair.same(1, |buffer| frontend::query(sql, buffer).unwrap());
    }
}
