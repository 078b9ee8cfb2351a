//! COPY FROM STDIN into tables of several shards: the same rows, and the same errors at the same lines, as one PostgreSQL has.

use bytes::BytesMut;
use postgres_protocol::message::frontend;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use switchyard_tests::cluster::ClusterSpec;
use switchyard_tests::{Bed, BedSpec, Client, Failure, Reply, eventually};

const DDL: &str = "
CREATE TABLE items (id int PRIMARY KEY, name text, note varchar(8) CHECK (note <> 'bad'));
CREATE TABLE named (label text PRIMARY KEY, n int);
CREATE TABLE days (n int, day date, twice int GENERATED ALWAYS AS (n * 2) STORED);
CREATE TABLE deferred (id int, twin int, UNIQUE (id, twin) DEFERRABLE INITIALLY DEFERRED);
CREATE TABLE parts (id int NOT NULL, at int NOT NULL) PARTITION BY RANGE (at);
CREATE TABLE parts_low PARTITION OF parts FOR VALUES FROM (0) TO (100);
CREATE TABLE parts_high PARTITION OF parts FOR VALUES FROM (100) TO (200);
CREATE TABLE places (code text PRIMARY KEY, name text, seen timestamptz DEFAULT now());
";

const TABLES: &str = "
[[databases.tables]]
name      = \"items\"
shard_key = \"id\"
method    = \"hash\"

[[databases.tables]]
name      = \"named\"
shard_key = \"label\"
method    = \"hash\"

[[databases.tables]]
name      = \"days\"
shard_key = \"day\"
method    = \"range\"
ranges    = [{ below = \"2026-01-01\", shard = \"s0\" }, { shard = \"s1\" }]

[[databases.tables]]
name      = \"deferred\"
shard_key = \"id\"
method    = \"modulo\"

[[databases.tables]]
name      = \"parts\"
shard_key = \"id\"
method    = \"modulo\"

[[databases.tables]]
name   = \"places\"
method = \"reference\"
";

static BED: OnceLock<Bed> = OnceLock::new();
static TURN: Mutex<()> = Mutex::new(());

fn bed() -> (&'static Bed, MutexGuard<'static, ()>) {
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let bed = BED.get_or_init(|| {
        let spec = BedSpec::of(ClusterSpec::for_tests(2, 0).with_oracle());
        Bed::start(spec.with_tables(DDL, TABLES))
    });
    (bed, turn)
}

/// How the client sends a COPY.
#[derive(Debug, Clone, Copy)]
struct Way {
    extended: bool,
    /// Bytes of a CopyData.
    piece: usize,
}

const WAYS: [Way; 4] = [
    Way {
        extended: false,
        piece: usize::MAX,
    },
    Way {
        extended: false,
        piece: 1,
    },
    Way {
        extended: true,
        piece: 7,
    },
    Way {
        extended: true,
        piece: usize::MAX,
    },
];

/// Runs a COPY FROM STDIN with this data.
fn copy(client: &mut Client, way: Way, sql: &str, data: &[u8]) -> Reply {
    client.send(|buffer| {
        if way.extended {
            frontend::parse("", sql, [], buffer).unwrap();
            switchyard_tests::bind("", "", &[], 0, buffer);
            frontend::execute("", 0, buffer).unwrap();
            frontend::sync(buffer);
        } else {
            frontend::query(sql, buffer).unwrap();
        }
    });
    let mut reply = Reply::default();
    loop {
        let message = client.receive();
        match message.tag {
            b'G' => client.send(|buffer| {
                send_data(buffer, way, data);
                frontend::copy_done(buffer);
                if way.extended {
                    frontend::sync(buffer);
                }
            }),
            b'C' => {
                let tag = String::from_utf8_lossy(&message.body);
                reply.tag = Some(tag.trim_end_matches('\0').to_owned());
            }
            b'E' => {
                assert!(reply.failure.is_none());
                reply.failure = Some(Failure::decode(&message.body));
            }
            b'Z' => return reply,
            _ => {}
        }
    }
}

fn send_data(buffer: &mut BytesMut, way: Way, data: &[u8]) {
    for piece in data.chunks(way.piece.min(data.len().max(1))) {
        frontend::CopyData::new(piece).unwrap().write(buffer);
    }
}

/// What an error says, the shard's name left out of its context.
fn said(reply: &Reply) -> Option<[String; 5]> {
    let failure = reply.failure.as_ref()?;
    let context = failure.field('W');
    let context = match context.rsplit_once('\n') {
        Some((context, shard)) if shard.starts_with("shard ") => context,
        _ if context.starts_with("shard ") => "",
        _ => context,
    };
    let [code, message, detail, hint] = ['C', 'M', 'D', 'H'].map(|field| failure.field(field));
    Some([code, message, detail, hint, context].map(str::to_owned))
}

fn rows(client: &mut Client, table: &str) -> Vec<Vec<String>> {
    let all = format!("SELECT * FROM {table} ORDER BY 1, 2");
    client.run(&all).succeeded().texts()
}

/// The same COPY on both sides: the same answer, and the same rows after it. Returns the error's code, if there was one.
#[track_caller]
fn same(bed: &Bed, table: &str, sql: &str, data: &[u8]) -> Option<String> {
    let (mut plain, mut router) = (bed.oracle(), bed.client());
    let mut code = None;
    for way in WAYS {
        let expected = copy(&mut plain, way, sql, data);
        let answer = copy(&mut router, way, sql, data);
        let what = format!("{way:?} {sql}: {:?}", String::from_utf8_lossy(data));
        assert_eq!(answer.tag, expected.tag, "{answer:?} {what}");
        assert_eq!(said(&answer), said(&expected), "{what}");
        assert_eq!(rows(&mut router, table), rows(&mut plain, table), "{what}");
        assert_eq!(router.status, b'I');
        code = expected.sqlstate().map(str::to_owned);
        for client in [&mut plain, &mut router] {
            client.run(&format!("TRUNCATE {table}")).succeeded();
        }
    }
    code
}

/// It succeeds on both sides.
#[track_caller]
fn copies(bed: &Bed, table: &str, sql: &str, data: &[u8]) {
    assert_eq!(same(bed, table, sql, data), None);
}

/// It fails on both sides with this SQLSTATE.
#[track_caller]
fn fails(bed: &Bed, table: &str, sql: &str, data: &[u8], code: &str) {
    assert_eq!(same(bed, table, sql, data).as_deref(), Some(code));
}

/// Numbered rows of `items`, with something done to some of them.
fn items(count: usize, change: impl Fn(usize, String) -> String) -> Vec<u8> {
    let row = |id| change(id, format!("{id}\tname {id}\tn{id}\n"));
    (1..=count).map(row).collect::<String>().into_bytes()
}

#[test]
fn text() {
    let (bed, _turn) = bed();
    let copies = |sql: &str, data: &[u8]| copies(bed, "items", sql, data);
    copies("COPY items FROM STDIN", b"");
    copies("COPY items FROM STDIN", b"\\.\n");
    copies("COPY items FROM STDIN", &items(500, |_, row| row));
    copies("COPY items FROM STDIN", b"1\ta\tb\n2\tc\\\nd\te\n3\t\\N\tf");
    copies(
        "COPY items FROM STDIN",
        b"1\ta\tb\r\n2\tc\td\r\n3\te\tf\r\n",
    );
    copies("COPY items FROM STDIN", b"1\ta\tb\r2\tc\td\r3\te\tf\r");
    copies("COPY items FROM STDIN", b"1\ta\tb\n2\tc\td\\.\nno row\n");
    copies("COPY items FROM STDIN", b"1\ta\tb\n2\tc\td\n\\.\nno row\n");
    copies(
        "COPY items FROM STDIN",
        b"1\ta\tb\r\n2\tc\td\r\n\\.\r\nno row\r\n",
    );
    copies(
        "COPY items (note, id) FROM STDIN",
        b"\\\\x\t7\ny\t 8 \nz\t\\x39\nq\t\\061\\060\n",
    );
    copies(
        "COPY items (name, id) FROM STDIN DELIMITER '|' NULL 'none'",
        b"none|1\na\\|b|2\nc\\\n|3\n",
    );
    copies(
        "COPY items (name, id) FROM STDIN WITH (DELIMITER E'\\x01', NULL '')",
        b"a\x011\n\x012\n",
    );
    copies(
        "COPY items FROM STDIN (HEADER)",
        b"what\tever\n1\ta\tb\n2\tc\td\n3\te\tf\n",
    );
    copies(
        "COPY items FROM STDIN (HEADER match)",
        b"id\tname\tnote\n1\ta\tb\n2\tc\td\n",
    );
    copies(
        "COPY items FROM STDIN WHERE id > 2 AND name <> 'c'",
        b"1\ta\tb\n2\tb\td\n3\tc\tf\n4\td\tf\n",
    );
    let labels = "a\t1\nä\t2\n\\t\t3\nwith blank \t4\n\\\\N\t5\n\t6\n";
    self::copies(bed, "named", "COPY named FROM STDIN", labels.as_bytes());
}

#[test]
fn csv() {
    let (bed, _turn) = bed();
    let copies = |sql: &str, data: &[u8]| copies(bed, "items", sql, data);
    let csv = "COPY items FROM STDIN CSV";
    copies(csv, b"1,a,b\n2,\"c\nd\",e\n\"3\",,\"\"\n");
    copies(csv, b"1,a,b\r\n2,\"c\r\nd\",e\r\n");
    copies(csv, b"1,a,b\n\\.\nno row\n");
    copies(csv, b"1,\\.,b\n2,a,\\.\n");
    copies(
        "COPY items FROM STDIN (FORMAT csv, HEADER)",
        b"\"a\nheader\",b,c\n1,a,b\n2,c,d\n3,e,f\n",
    );
    copies(
        "COPY items FROM STDIN (FORMAT csv, HEADER match)",
        b"id,name,note\n1,a,b\n2,c,d\n3,e,f\n",
    );
    copies(
        "COPY items (name, id) FROM STDIN (FORMAT csv)",
        b"\"a,\"\"b\",1\n\"x\r\ny\",2\nplain \"quoted, \",3\n",
    );
    copies(
        "COPY items (name, id) FROM STDIN (FORMAT csv, QUOTE '''', ESCAPE '\\', DELIMITER ';')",
        b"'a;\\'b';1\n'\\\\';2\n\\,;'3'\n",
    );
    let named = |options: &str, data: &[u8]| {
        let sql = format!("COPY named FROM STDIN ({options})");
        self::copies(bed, "named", &sql, data);
    };
    named("FORMAT csv", b"a,1\n\\.b,2\n\"\\.\",3\n\"\",4\n\"N\",5\n");
    named("FORMAT csv, FORCE_NOT_NULL (label)", b",1\nb,2\n");
    named(
        "FORMAT csv, FORCE_NOT_NULL (label), FORCE_NULL (n), NULL 'x'",
        b"x,\"x\"\nb,2\n",
    );
    let days = "COPY days FROM STDIN (FORMAT csv, FORCE_NULL (day))";
    self::copies(
        bed,
        "days",
        days,
        b"1,\"\"\n2,2025-12-31\n3,2026-01-01\n4,\n",
    );
    fails(
        bed,
        "named",
        "COPY named FROM STDIN CSV",
        b"a,1\n,2\n",
        "23502",
    );
}

#[test]
fn errors_are_told_with_the_line_of_the_input() {
    let (bed, _turn) = bed();
    let copy = "COPY items FROM STDIN";
    let fails = |sql: &str, data: &[u8], code: &str| fails(bed, "items", sql, data, code);
    let at = |line: usize, what: &'static str| {
        items(
            700,
            move |id, row| if id == line { what.to_owned() } else { row },
        )
    };
    for line in [1, 2, 199] {
        fails(copy, &at(line, "x7\ta\tb\n"), "22P02");
        fails(copy, &at(line, "\\N\ta\tb\n"), "23502");
        fails(copy, &at(line, "99999999999\ta\tb\n"), "22003");
        fails(copy, &at(line, "1000\ta\n"), "22P04");
        fails(copy, &at(line, "1000\ta\tb\tc\n"), "22P04");
        fails(copy, &at(line, "\n"), "22P02");
        fails(copy, &at(line, "1000\ta\tmuch too long\n"), "22001");
        fails(copy, &at(line, "1000\ta\tbad\n"), "23514");
        fails(copy, &at(line, "1000\ta\t\\xff\n"), "22021");
        fails(copy, &at(line, "1000\ta\\.b\n"), "22P04");
    }
    for line in [2, 199] {
        fails(copy, &at(line, "1\ta\tb\n"), "23505");
        fails(copy, &at(line, "1000\ta\tb\r\n"), "22P04");
    }
    let csv = "COPY items FROM STDIN CSV";
    let lines = b"1,\"a\nb\",c\n2,\"d\ne\nf\",g\n3,a,b\n4,\"\n\n\",x\n5x,a,b\n";
    fails(csv, lines, "22P02");
    fails(csv, b"1,a,b\n2,\"d\n\",g\n3,\"a,b\n4,x,y\n", "22P04");
    fails(csv, b"1,a,b\n2,a,b\n3,a,much too long\n", "22001");
    let header = "COPY items FROM STDIN (FORMAT csv, HEADER)";
    fails(header, b"a,b\n1,a,b\n2,a,b\n3,a,much too long\n", "22001");
    let matching = "COPY items FROM STDIN (FORMAT csv, HEADER match)";
    fails(matching, b"id,nome,note\n1,a,b\n", "22P04");
}

#[test]
fn statements_that_postgresql_refuses() {
    let (bed, _turn) = bed();
    for (sql, code) in [
        ("COPY items (id, nope) FROM STDIN", "42703"),
        ("COPY items FROM STDIN (DELIMITER 'ab')", "0A000"),
        ("COPY items FROM STDIN (FORMAT nope)", "22023"),
        ("COPY items FROM STDIN (nope)", "42601"),
        ("COPY items FROM STDIN (FORMAT csv, QUOTE 'ab')", "0A000"),
        (
            "COPY items FROM STDIN (FORMAT csv, DELIMITER '\"')",
            "22023",
        ),
        ("COPY items FROM STDIN (NULL E'\\n')", "22023"),
        ("COPY items (id, id) FROM STDIN", "42701"),
        ("COPY items FROM STDIN WHERE nope", "42703"),
        ("COPY items FROM nowhere", "42601"),
    ] {
        fails(bed, "items", sql, b"", code);
    }
}

#[test]
fn tables_of_all_kinds() {
    let (bed, _turn) = bed();
    let days = b"1\t2025-12-31\n2\t2026-01-01\n3\t\\N\n4\tinfinity\n";
    copies(bed, "days", "COPY days FROM STDIN", days);
    let deferred = "COPY deferred FROM STDIN";
    copies(bed, "deferred", deferred, b"1\t1\n2\t2\n3\t3\n\\N\t4\n");
    fails(
        bed,
        "deferred",
        deferred,
        b"1\t1\n2\t2\n3\t3\n2\t2\n",
        "23505",
    );
    copies(
        bed,
        "parts",
        "COPY parts FROM STDIN",
        b"1\t1\n2\t120\n3\t99\n4\t199\n",
    );
    fails(
        bed,
        "parts",
        "COPY parts FROM STDIN",
        b"1\t1\n2\t120\n3\t200\n4\t199\n",
        "23514",
    );
    copies(
        bed,
        "parts_low",
        "COPY parts_low FROM STDIN",
        b"1\t1\n2\t20\n",
    );
    let places = "COPY places FROM STDIN";
    copies(
        bed,
        "places",
        places,
        b"kr\tKorea\t2026-01-01 00:00:00+00\njp\tJapan\t\\N\n",
    );
    fails(
        bed,
        "places",
        places,
        b"kr\tKorea\t\\N\njp\tJapan\t\\N\nkr\tagain\t\\N\n",
        "23505",
    );
}

/// Each row is where the router looks for it, and reference tables are the same everywhere.
#[test]
fn rows_are_on_their_shards() {
    let (bed, _turn) = bed();
    let mut client = bed.client();
    client
        .copy_in("COPY items FROM STDIN", &items(200, |_, row| row))
        .succeeded();
    client
        .copy_in(
            "COPY places FROM STDIN",
            b"kr\tKorea\t\\N\njp\tJapan\t\\N\n",
        )
        .succeeded();
    let on = |shard: usize, sql: &str| -> usize {
        let primary = bed.cluster().shard(shard).primary.as_ref();
        bed.cluster().sql(primary, sql).unwrap().parse().unwrap()
    };
    let counts = [0, 1].map(|shard| on(shard, "SELECT count(*) FROM items"));
    assert!(
        counts[0] > 50 && counts[1] > 50 && counts[0] + counts[1] == 200,
        "{counts:?}"
    );
    assert_eq!(
        [0, 1].map(|shard| on(shard, "SELECT count(*) FROM places")),
        [2, 2]
    );
    for id in 1..=200 {
        let name = client.run(&format!("SELECT name FROM items WHERE id = {id}"));
        assert_eq!(name.succeeded().value(), format!("name {id}"));
    }
    client.run("TRUNCATE items, places").succeeded();
}

/// Begins a COPY; the client is to send rows.
#[track_caller]
fn begin(client: &mut Client, sql: &str) {
    client.send(|buffer| frontend::query(sql, buffer).unwrap());
    let message = client.receive();
    assert_eq!(message.tag, b'G', "{message:?}");
}

fn send_rows(client: &mut Client, data: &[u8]) {
    client.send(|buffer| frontend::CopyData::new(data).unwrap().write(buffer));
}

fn count(client: &mut Client, table: &str) -> String {
    let count = format!("SELECT count(*) FROM {table}");
    client.run(&count).succeeded().value()
}

/// Backends of the shards that are in the middle of something.
fn busy(bed: &Bed) -> Vec<String> {
    let shards = bed.cluster().shards().iter();
    shards
        .map(|shard| {
            let busy = "SELECT count(*) FROM pg_stat_activity WHERE datname = 'shop' AND backend_type = 'client backend' \
                        AND pid <> pg_backend_pid() AND state <> 'idle'";
            bed.cluster().superuser_sql(shard.primary.as_ref(), "shop", busy).unwrap()
        })
        .collect()
}

#[test]
fn binary() {
    let (bed, _turn) = bed();
    let mut plain = bed.oracle();
    let select = "COPY (SELECT 'name ' || n AS name, n AS id FROM generate_series(1, 300) AS n) TO STDOUT (FORMAT binary)";
    let data = plain.run(select).succeeded().copied;
    let sql = "COPY items (name, id) FROM STDIN (FORMAT binary)";
    copies(bed, "items", sql, &data);
    copies(
        bed,
        "items",
        "COPY BINARY items (name, id) FROM STDIN",
        &data,
    );
    // Without the trailer, cut in a row, with more behind it, of another form.
    copies(bed, "items", sql, &data[..data.len() - 2]);
    fails(bed, "items", sql, &data[..data.len() - 5], "22P04");
    fails(bed, "items", sql, &[&data[..], b"x"].concat(), "22P04");
    fails(bed, "items", sql, b"PGCOPY, not", "22P04");
    fails(
        bed,
        "items",
        "COPY items FROM STDIN (FORMAT binary)",
        &data,
        "22P04",
    );
    let texts = "COPY (SELECT 'a' || n, n FROM generate_series(1, 50) AS n UNION ALL SELECT NULL, 0) TO STDOUT (FORMAT binary)";
    let texts = plain.run(texts).succeeded().copied;
    fails(
        bed,
        "named",
        "COPY named FROM STDIN (FORMAT binary)",
        &texts,
        "23502",
    );
    let big = "COPY (SELECT n::bigint AS id, 'x'::text FROM generate_series(1, 9) AS n) TO STDOUT (FORMAT binary)";
    let big = plain.run(big).succeeded().copied;
    fails(
        bed,
        "items",
        "COPY items (id, name) FROM STDIN (FORMAT binary)",
        &big,
        "22P03",
    );
}

#[test]
fn blocks_and_savepoints() {
    let (bed, _turn) = bed();
    for mut client in [bed.oracle(), bed.client()] {
        client.run("BEGIN").succeeded();
        let copy = "COPY items FROM STDIN";
        client.copy_in(copy, &items(20, |_, row| row)).succeeded();
        client.run("SAVEPOINT before").succeeded();
        let again = client.copy_in(copy, &items(7, |_, row| row));
        assert_eq!(again.sqlstate(), Some("23505"));
        assert_eq!(client.status, b'E');
        assert_eq!(client.run("SELECT 1").sqlstate(), Some("25P02"));
        client.run("ROLLBACK TO before").succeeded();
        client
            .copy_in(copy, b"31\ta\tb\n32\ta\tb\n33\ta\tb\n")
            .succeeded();
        assert_eq!(count(&mut client, "items"), "23");
        client.run("COMMIT").succeeded();
        assert_eq!(count(&mut client, "items"), "23");
        let several = "BEGIN; COPY items FROM STDIN; COMMIT; SELECT count(*) FROM items";
        client.send(|buffer| frontend::query(several, buffer).unwrap());
        let replies = client.replies(Some(b"41\ta\tb\n42\ta\tb\n43\ta\tb\n"));
        assert_eq!(replies[3].value(), "26");
        client.run("TRUNCATE items").succeeded();
    }
}

#[test]
fn a_client_that_gives_up() {
    let (bed, _turn) = bed();
    let said = [bed.oracle(), bed.client()].map(|mut client| {
        begin(&mut client, "COPY items FROM STDIN");
        send_rows(&mut client, &items(100, |_, row| row));
        client.send(|buffer| frontend::copy_fail("enough", buffer).unwrap());
        let reply = client.replies(None).remove(0);
        assert_eq!(client.status, b'I');
        assert_eq!(count(&mut client, "items"), "0");
        said(&reply)
    });
    assert_eq!(said[0], said[1]);
    assert_eq!(said[1].as_ref().unwrap()[0], "57014");
}

#[test]
fn a_client_that_leaves() {
    let (bed, _turn) = bed();
    for block in [false, true] {
        let mut client = bed.client();
        if block {
            client.run("BEGIN").succeeded();
        }
        begin(&mut client, "COPY items FROM STDIN");
        send_rows(&mut client, &items(5000, |_, row| row));
        drop(client);
        eventually("nothing is left", || busy(bed) == ["0", "0"]);
        assert_eq!(count(&mut bed.client(), "items"), "0");
    }
}

#[test]
fn a_shard_that_is_lost() {
    let (bed, _turn) = bed();
    for shard in [0, 1] {
        let mut client = bed.client();
        begin(&mut client, "COPY items FROM STDIN");
        send_rows(&mut client, &items(5000, |_, row| row));
        let kill = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE query LIKE 'COPY items%' AND state = 'active'";
        let primary = bed.cluster().shard(shard).primary.as_ref();
        eventually("it is terminated", || {
            bed.cluster().superuser_sql(primary, "shop", kill).unwrap() == "1"
        });
        let reply = client.replies(None).remove(0);
        assert_eq!(reply.sqlstate(), Some("08006"), "{reply:?}");
        // What the client sends before it knows is dropped.
        send_rows(&mut client, b"6000\ta\tb\n");
        client.send(frontend::copy_done);
        assert_eq!(count(&mut client, "items"), "0");
        eventually("nothing is left", || busy(bed) == ["0", "0"]);
    }
}

#[test]
fn a_copy_that_is_cancelled() {
    let (bed, _turn) = bed();
    let mut client = bed.client();
    begin(&mut client, "COPY items FROM STDIN");
    send_rows(&mut client, &items(5000, |_, row| row));
    eventually("both shards copy", || busy(bed) == ["1", "1"]);
    Client::cancel(&client.key, bed.router().port());
    // PostgreSQL looks for it when it has got something.
    let mut id = 10_000;
    let reply = loop {
        let rows: String = (id..id + 1000).map(|id| format!("{id}\ta\tb\n")).collect();
        id += 1000;
        send_rows(&mut client, rows.as_bytes());
        client.stream().set_nonblocking(true).unwrap();
        let spoke = client.stream().peek(&mut [0]).is_ok();
        client.stream().set_nonblocking(false).unwrap();
        if spoke {
            break client.replies(None).remove(0);
        }
    };
    assert_eq!(reply.sqlstate(), Some("57014"), "{reply:?}");
    assert_eq!(count(&mut client, "items"), "0");
}

#[test]
fn what_is_refused() {
    let (bed, _turn) = bed();
    let mut client = bed.client();
    let days = client.copy_in(
        "COPY days FROM STDIN",
        b"1\t2025-12-31\n2\ttoday\n3\t2026-01-01\n",
    );
    assert_eq!(days.sqlstate(), Some("0A000"));
    let failure = days.failure.unwrap();
    assert_eq!(failure.field('D'), "It is in line 2 of the input.");
    assert_eq!(count(&mut client, "days"), "0");
    for sql in [
        "COPY items FROM STDIN (ENCODING 'LATIN1')",
        "COPY places (code, name) FROM STDIN",
    ] {
        assert_eq!(
            client.copy_in(sql, b"1\ta\tb\n").sqlstate(),
            Some("0A000"),
            "{sql}"
        );
        assert_eq!(client.status, b'I');
    }
    assert_eq!(count(&mut client, "items"), "0");
}
