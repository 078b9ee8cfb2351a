//! Code on the servers that reaches beyond the rows of its shard: triggers, defaults, policies and conditions that use other rows, or what the
//! first shard alone has, are refused unless what they do is what one PostgreSQL would do.

use switchyard_tests::cluster::ClusterSpec;
use switchyard_tests::{Bed, BedSpec, Client};

/// Configured; even keys are on the first shard.
const TABLES: &str = "
[[databases.tables]]
name      = \"items\"
shard_key = \"id\"
method    = \"modulo\"

[[databases.tables]]
name      = \"notes\"
shard_key = \"id\"
method    = \"modulo\"

[[databases.tables]]
name      = \"places\"
method    = \"reference\"

[[databases.tables]]
name      = \"tags\"
method    = \"reference\"
";

const MADE: &str = "CREATE TABLE items (id int PRIMARY KEY, word text, n bigint);
    CREATE TABLE notes (id int, word text);
    CREATE TABLE places (id int PRIMARY KEY, word text);
    CREATE TABLE tags (id serial PRIMARY KEY, word text UNIQUE, n int, made timestamptz DEFAULT clock_timestamp(), at timestamptz DEFAULT now(),
        token uuid DEFAULT gen_random_uuid());
    CREATE TABLE words (id int PRIMARY KEY, word text);
    INSERT INTO words VALUES (1, 'x');
    CREATE SEQUENCE numbers;
    CREATE FUNCTION word_of(i int) RETURNS text LANGUAGE sql STABLE AS $$ SELECT word FROM words WHERE id = i $$;
    CREATE FUNCTION next_number() RETURNS bigint LANGUAGE plpgsql AS $$ BEGIN RETURN nextval('num' || 'bers'); END $$";

fn bed() -> Bed {
    Bed::start(BedSpec::of(ClusterSpec::for_tests(2, 0)).with_tables(MADE, TABLES))
}

#[track_caller]
fn refused(client: &mut Client, sql: &str, message: &str) {
    client.refused(sql, "0A000", message);
}

fn done(client: &mut Client, statements: &[&str]) {
    for sql in statements {
        client.run(sql).succeeded();
    }
}

/// Replaces the function of the trigger of notes.
fn runs(client: &mut Client, body: &str) {
    let function = format!(
        "CREATE OR REPLACE FUNCTION runs() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} END $$"
    );
    client.run(&function).succeeded();
}

const BOTH: &str = "the statement needs the first shard and another one together";

#[test]
fn triggers_that_reach_other_rows() {
    let bed = bed();
    let mut client = bed.client();
    runs(&mut client, "RETURN NEW;");
    done(
        &mut client,
        &[
            "INSERT INTO items SELECT n, 'a', 0 FROM generate_series(1, 4) n",
            "CREATE TRIGGER runs BEFORE INSERT ON notes FOR EACH ROW EXECUTE FUNCTION runs()",
        ],
    );
    let uses = "writing table \"notes\" is not supported: a trigger of it may use rows with other shard keys";
    for body in [
        "IF EXISTS (SELECT FROM notes WHERE word = NEW.word) THEN RAISE 'again'; END IF; RETURN NEW;",
        "UPDATE items SET n = n + 1 WHERE id = NEW.id + 1; RETURN NEW;",
        "INSERT INTO items VALUES (NEW.id + 1001, 'x'); RETURN NEW;",
    ] {
        runs(&mut client, body);
        refused(&mut client, "INSERT INTO notes VALUES (1, 'a')", uses);
        refused(
            &mut client,
            "INSERT INTO notes VALUES (1, 'a'), (2, 'b')",
            uses,
        );
        let copied = client.copy_in("COPY notes FROM STDIN", b"1\ta\n");
        assert!(copied.failure.is_some(), "{body}");
    }
    // Rows with the same key are on the same shard.
    runs(
        &mut client,
        "UPDATE items SET n = n + 1 WHERE id = NEW.id AND word = 'a'; RETURN NEW;",
    );
    client
        .run("INSERT INTO notes VALUES (1, 'a'), (2, 'b'), (3, 'c')")
        .succeeded();
    runs(
        &mut client,
        "INSERT INTO items (id, n) VALUES (NEW.id, 10); RETURN NEW;",
    );
    client
        .run("INSERT INTO notes VALUES (5, 'a'), (6, 'b')")
        .succeeded();
    let found = client
        .run("SELECT id, n FROM items WHERE n > 0 ORDER BY id")
        .succeeded();
    assert_eq!(
        found.texts(),
        [["1", "1"], ["2", "1"], ["3", "1"], ["5", "10"], ["6", "10"]]
    );
}

#[test]
fn triggers_whose_code_calls_other_code() {
    let bed = bed();
    let mut client = bed.client();
    client
        .run("INSERT INTO items VALUES (1, 'x'), (2, 'x')")
        .succeeded();
    let trigger = |condition: &str| {
        format!(
            "CREATE TRIGGER runs BEFORE INSERT ON notes FOR EACH ROW {condition} EXECUTE FUNCTION runs()"
        )
    };
    for (body, condition) in [
        (
            "IF NEW.word = word_of(1) THEN RETURN NULL; END IF; RETURN NEW;",
            "",
        ),
        ("NEW.word := next_number(); RETURN NEW;", ""),
        ("NEW.word := nextval('num' || 'bers'); RETURN NEW;", ""),
        ("RETURN NULL;", "WHEN (NEW.word = word_of(1))"),
    ] {
        runs(&mut client, body);
        client.run(&trigger(condition)).succeeded();
        refused(&mut client, "INSERT INTO notes VALUES (1, 'x')", BOTH);
        client.run("INSERT INTO notes VALUES (2, 'x')").succeeded();
        client.run("DROP TRIGGER runs ON notes").succeeded();
    }
    // What a trigger writes has triggers, too, and so has what foreign keys delete.
    runs(
        &mut client,
        "DELETE FROM items WHERE id = NEW.id; RETURN NEW;",
    );
    done(
        &mut client,
        &[
            "CREATE FUNCTION counts() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO words VALUES (OLD.id + 10); RETURN OLD; END $$",
            "CREATE TRIGGER counts AFTER DELETE ON items FOR EACH ROW EXECUTE FUNCTION counts()",
            &trigger(""),
        ],
    );
    refused(&mut client, "INSERT INTO notes VALUES (1, 'x')", BOTH);
    done(
        &mut client,
        &[
            "DROP TRIGGER runs ON notes",
            "TRUNCATE notes",
            "ALTER TABLE notes ADD PRIMARY KEY (id)",
            "INSERT INTO notes VALUES (1, 'x'), (2, 'x')",
            "ALTER TABLE items ADD FOREIGN KEY (id) REFERENCES notes ON DELETE CASCADE",
        ],
    );
    refused(&mut client, "DELETE FROM notes WHERE id = 1", BOTH);
    client.run("DELETE FROM notes WHERE id = 2").succeeded();
    let counted = client.run("SELECT id FROM words ORDER BY id").succeeded();
    assert_eq!(counted.texts(), [["1"], ["12"]]);
}

#[test]
fn triggers_of_truncate() {
    let bed = bed();
    let mut client = bed.client();
    runs(
        &mut client,
        "INSERT INTO words VALUES (5000, 'x'); RETURN NULL;",
    );
    done(
        &mut client,
        &[
            "CREATE TRIGGER runs BEFORE TRUNCATE ON notes FOR EACH STATEMENT EXECUTE FUNCTION runs()",
            "INSERT INTO notes VALUES (1, 'a'), (2, 'b')",
            "UPDATE notes SET word = 'c'",
        ],
    );
    let message = "writing table \"notes\" is not supported: a trigger of it runs function \"runs\" once for a statement, and would run it once on each shard";
    refused(&mut client, "TRUNCATE notes", message);
    done(
        &mut client,
        &["DROP TRIGGER runs ON notes", "TRUNCATE notes"],
    );
    // Of a table that is on the first shard alone it is PostgreSQL's own affair.
    done(
        &mut client,
        &[
            "CREATE TABLE here (id int)",
            "CREATE TRIGGER runs BEFORE TRUNCATE ON here FOR EACH STATEMENT EXECUTE FUNCTION runs()",
            "TRUNCATE here",
        ],
    );
    for (shard, count) in bed.cluster().shards().iter().zip(["1", "0"]) {
        let sql = "SELECT count(*) FROM words WHERE id = 5000";
        assert_eq!(
            bed.cluster().sql(shard.primary.as_ref(), sql).unwrap(),
            count
        );
    }
}

#[test]
fn defaults_made_by_code() {
    let bed = bed();
    let mut client = bed.client();
    done(
        &mut client,
        &[
            "ALTER TABLE items ALTER n SET DEFAULT next_number()",
            "INSERT INTO items (id) VALUES (1)",
            "INSERT INTO items (id) VALUES (2), (3)",
            "INSERT INTO items (id) SELECT n FROM generate_series(4, 5) n",
        ],
    );
    client
        .copy_in("COPY items (id) FROM STDIN", b"6\n7\n")
        .succeeded();
    let numbers = client.run("SELECT n FROM items ORDER BY n").succeeded();
    assert_eq!(
        numbers.texts(),
        [["1"], ["2"], ["3"], ["4"], ["5"], ["6"], ["7"]]
    );
    let update = client.run("UPDATE items SET n = DEFAULT WHERE id = 1");
    assert_eq!(update.failure.unwrap().sqlstate(), "0A000");
    refused(
        &mut client,
        "INSERT INTO items VALUES (11, 'x', next_number())",
        BOTH,
    );
    client
        .run("ALTER TABLE items ALTER word SET DEFAULT word_of(1)")
        .succeeded();
    let message = "the default of column \"word\" of table \"items\" is not supported";
    refused(&mut client, "INSERT INTO items (id) VALUES (11)", message);
    refused(
        &mut client,
        "UPDATE items SET word = DEFAULT WHERE id = 1",
        message,
    );
    let copied = client.copy_in("COPY items (id) FROM STDIN", b"11\n");
    assert_eq!(copied.failure.unwrap().sqlstate(), "0A000");
    client
        .run("INSERT INTO items (id, word) VALUES (11, 'x')")
        .succeeded();
}

#[test]
fn policies() {
    let bed = bed();
    let mut client = bed.client();
    done(
        &mut client,
        &[
            "INSERT INTO notes VALUES (1, 'x'), (2, 'y'), (3, 'x')",
            "CREATE POLICY here ON notes USING (EXISTS (SELECT FROM words WHERE words.word = notes.word))",
            "SELECT * FROM notes",
            "ALTER TABLE notes ENABLE ROW LEVEL SECURITY",
        ],
    );
    let message =
        "table \"notes\" is not supported: its row security policies use \"public.words\"";
    let message = message.replace("public.", "");
    for sql in [
        "SELECT count(*) FROM notes",
        "SELECT * FROM notes WHERE id = 2",
        "UPDATE notes SET word = 'z'",
        "DELETE FROM notes WHERE id = 1",
        "INSERT INTO notes VALUES (4, 'x')",
        "COPY notes TO STDOUT",
        "SELECT * FROM items JOIN notes USING (word)",
    ] {
        refused(&mut client, sql, &message);
    }
    done(
        &mut client,
        &[
            "DROP POLICY here ON notes",
            "CREATE POLICY here ON notes USING (word_of(1) = word)",
        ],
    );
    let message = message.replace("words", "word_of()");
    refused(&mut client, "SELECT count(*) FROM notes", &message);
    // Reference tables are whole everywhere.
    done(
        &mut client,
        &[
            "INSERT INTO places VALUES (1, 'x')",
            "DROP POLICY here ON notes",
            "CREATE POLICY here ON notes USING (EXISTS (SELECT FROM places WHERE places.word = notes.word))",
            "ALTER TABLE notes FORCE ROW LEVEL SECURITY",
        ],
    );
    let seen = client.run("SELECT id FROM notes ORDER BY id").succeeded();
    assert_eq!(seen.texts(), [["1"], ["3"]]);
}

#[test]
fn conditions_of_copies() {
    let bed = bed();
    let mut client = bed.client();
    for (condition, function) in [
        ("word = word_of(1)", "word_of"),
        ("nextval('numbers') <= 2", "nextval"),
        ("now() > '2020-01-01'", "now"),
    ] {
        let sql = format!("COPY notes FROM STDIN WHERE {condition}");
        let copied = client.copy_in(&sql, b"1\tx\n2\tx\n");
        let message = format!(
            "function \"{function}\" in the WHERE of a COPY is not supported across shards"
        );
        assert_eq!(copied.failure.expect(&sql).message(), message);
    }
    let copied = client.copy_in(
        "COPY notes FROM STDIN WHERE upper(word) = 'X' AND random() >= 0",
        b"1\tx\n2\ty\n3\tx\n",
    );
    assert_eq!(copied.succeeded().tag.as_deref(), Some("COPY 2"));
}

#[test]
fn new_columns() {
    let bed = bed();
    let mut client = bed.client();
    client
        .run("INSERT INTO items SELECT n, 'a', 0 FROM generate_series(1, 4) n")
        .succeeded();
    for (change, function) in [
        ("ADD COLUMN t timestamptz DEFAULT now()", "now"),
        (
            "ADD COLUMN t timestamptz DEFAULT CURRENT_TIMESTAMP",
            "current_timestamp",
        ),
        ("ADD COLUMN w text DEFAULT word_of(1)", "word_of"),
        ("ALTER COLUMN n TYPE text USING word_of(1)", "word_of"),
        ("ADD CHECK (word <> word_of(2))", "word_of"),
    ] {
        let message = format!(
            "this change of the sharded table \"items\" is not supported: it computes \"{function}\" for the rows that are there"
        );
        refused(
            &mut client,
            &format!("ALTER TABLE items {change}"),
            &message,
        );
    }
    done(
        &mut client,
        &[
            "ALTER TABLE items ADD COLUMN t timestamptz",
            "UPDATE items SET t = now()",
            "ALTER TABLE items ALTER COLUMN t SET DEFAULT now()",
            "ALTER TABLE items ADD COLUMN token uuid DEFAULT gen_random_uuid(), ALTER COLUMN n TYPE text USING n + 1",
        ],
    );
    let counts = client
        .run("SELECT count(DISTINCT t), count(DISTINCT token), min(n) FROM items")
        .succeeded();
    assert_eq!(counts.texts(), [["1", "4", "1"]]);
}

/// What a block has made or replaced is known to its own statements.
#[test]
fn definitions_of_the_same_block() {
    let bed = bed();
    let mut client = bed.client();
    done(
        &mut client,
        &[
            "INSERT INTO items SELECT n, 'a', 0 FROM generate_series(1, 4) n",
            "CREATE FUNCTION of(i bigint) RETURNS bigint LANGUAGE sql IMMUTABLE AS 'SELECT i + 1'",
        ],
    );
    runs(&mut client, "RETURN NEW;");
    client
        .run("CREATE TRIGGER runs BEFORE INSERT ON notes FOR EACH ROW EXECUTE FUNCTION runs()")
        .succeeded();
    // A view that shows the rows of one table is read as that, by what every shard has made of it.
    for extended in [false, true] {
        client.run("BEGIN").succeeded();
        client
            .run("CREATE VIEW shown AS SELECT * FROM items")
            .succeeded();
        let count = "SELECT count(*) FROM shown";
        let reply = match extended {
            false => client.run(count),
            true => client.extended(count, &[], 0),
        };
        assert_eq!(reply.succeeded().value(), "4");
        client.run("ROLLBACK").succeeded();
    }
    for (made, used) in [
        (
            "CREATE VIEW seen AS SELECT DISTINCT id FROM items",
            "SELECT count(*) FROM seen",
        ),
        (
            "CREATE FUNCTION counted() RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM items'",
            "SELECT counted()",
        ),
        (
            "CREATE OR REPLACE FUNCTION of(i bigint) RETURNS bigint LANGUAGE sql VOLATILE AS 'SELECT count(*) FROM items'",
            "UPDATE items SET n = of(n)",
        ),
        (
            "CREATE OR REPLACE FUNCTION runs() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO words VALUES (NEW.id + 10); RETURN NEW; END $$",
            "INSERT INTO notes VALUES (1), (2), (3)",
        ),
    ] {
        for extended in [false, true] {
            client.run("BEGIN").succeeded();
            client.run(made).succeeded();
            let reply = match extended {
                false => client.run(used),
                true => client.extended(used, &[], 0),
            };
            assert_eq!(reply.failure.expect(used).sqlstate(), "0A000", "{used}");
            client.run("ROLLBACK").succeeded();
        }
    }
    // What has been taken back is not known any more, and a search path stays.
    done(
        &mut client,
        &[
            "BEGIN",
            "SAVEPOINT before",
            "CREATE OR REPLACE FUNCTION of(i bigint) RETURNS bigint LANGUAGE sql VOLATILE AS 'SELECT count(*) FROM items'",
            "SELECT 1",
            "ROLLBACK TO SAVEPOINT before",
            "UPDATE items SET n = of(n)",
            "COMMIT",
            "INSERT INTO notes VALUES (1), (2), (3)",
        ],
    );
    let numbers = client.run("SELECT DISTINCT n FROM items").succeeded();
    assert_eq!(numbers.value(), "1");
}

/// Fills `places` with three rows that lie in another order on the second shard.
fn fill_in_other_orders(bed: &Bed, client: &mut Client) {
    done(
        client,
        &[
            "DELETE FROM places",
            "INSERT INTO places VALUES (1, 'a'), (2, 'b'), (3, 'c')",
            "DELETE FROM places WHERE id = 1",
        ],
    );
    let second = bed.cluster().shard(1).primary.as_ref();
    bed.cluster().sql(second, "VACUUM places").unwrap();
    client.run("INSERT INTO places VALUES (4, 'd')").succeeded();
}

/// The rows of `places`, which are the same on both shards.
#[track_caller]
fn places(bed: &Bed) -> String {
    let sql = "SELECT string_agg(id || word, ' ' ORDER BY id) FROM places";
    let of = |shard: usize| {
        let node = bed.cluster().shard(shard).primary.as_ref();
        bed.cluster().sql(node, sql).unwrap()
    };
    assert_eq!(of(0), of(1));
    of(0)
}

/// The rows of each copy of a reference table are in an order of their own.
#[test]
fn copies_that_could_differ() {
    let bed = bed();
    let mut client = bed.client();
    // Which row it is, is computed once.
    for (sql, deleted) in [
        (
            "DELETE FROM places WHERE id = (SELECT id FROM places LIMIT 1)",
            1,
        ),
        (
            "DELETE FROM places WHERE id IN (SELECT DISTINCT ON (word > 'a') id FROM places)",
            1,
        ),
        (
            "DELETE FROM places USING (SELECT id FROM places FETCH FIRST ROW ONLY) x WHERE x.id = places.id",
            1,
        ),
        (
            "WITH x AS (SELECT id FROM places OFFSET 1) DELETE FROM places USING x WHERE x.id = places.id",
            2,
        ),
    ] {
        fill_in_other_orders(&bed, &mut client);
        let reply = client.run(sql).succeeded();
        assert_eq!(reply.tag, Some(format!("DELETE {deleted}")), "{sql}");
        assert_eq!(places(&bed).split(' ').count(), 3 - deleted, "{sql}");
    }
    fill_in_other_orders(&bed, &mut client);
    let all = "UPDATE places SET word = (SELECT ARRAY(SELECT id FROM places)::text)";
    assert_eq!(client.run(all).succeeded().tag.as_deref(), Some("UPDATE 3"));
    places(&bed);
    fill_in_other_orders(&bed, &mut client);
    let message = "this write of the reference table \"places\" is not supported";
    for sql in [
        "UPDATE places SET word = x.word FROM places x WHERE x.id <> places.id",
        "UPDATE places SET word = 'now'::timestamptz",
        "UPDATE places SET word = current_setting('port')",
    ] {
        refused(&mut client, sql, message);
    }
    done(
        &mut client,
        &[
            "UPDATE places SET word = x.word FROM places x WHERE x.id = 4 AND places.id = 3",
            "DELETE FROM places WHERE id = (SELECT id FROM places ORDER BY id LIMIT 1)",
        ],
    );
    assert_eq!(places(&bed), "3d 4d");
}

/// What each copy would compute for itself is computed once.
#[test]
fn copies_of_rows_that_are_computed() {
    let bed = bed();
    let mut client = bed.client();
    client
        .run("INSERT INTO items SELECT n, 'item ' || n, 0 FROM generate_series(1, 6) n")
        .succeeded();
    let same = |rows: &str| {
        let all = "SELECT count(*) || ' ' || md5(string_agg(t::text, ' ' ORDER BY id)) FROM tags t";
        let of = |shard: usize| {
            let node = bed.cluster().shards()[shard].primary.as_ref();
            bed.cluster().sql(node, all).unwrap()
        };
        assert_eq!(of(0), of(1));
        assert_eq!(of(0).split(' ').next(), Some(rows));
    };
    let texts = |reply: switchyard_tests::Reply| reply.succeeded().texts().concat();
    let one = client.run("INSERT INTO tags (word) VALUES ('one') RETURNING id, at = now()");
    assert_eq!(texts(one), ["1", "t"]);
    same("1");
    let two = "INSERT INTO tags (word, n) VALUES ($1, $2::int), ($1 || '!', 7) RETURNING id, word";
    let two = client.extended(two, &[Some("two"), Some("2")], 0);
    assert_eq!(texts(two), ["2", "two", "3", "two!"]);
    same("3");
    let kept = client.run("SELECT currval('tags_id_seq'), lastval()");
    assert_eq!(texts(kept), ["3", "3"]);
    done(
        &mut client,
        &[
            "INSERT INTO tags (word) SELECT word FROM items WHERE id < 4 ORDER BY id",
            "INSERT INTO tags (id, word, n, at) SELECT 100 + id, 'of ' || word, n, now() FROM items",
            "WITH few AS (SELECT max(id) AS n FROM items) INSERT INTO tags (word, n) SELECT 'most', n FROM few",
        ],
    );
    same("13");
    let again = "INSERT INTO tags (word, n) VALUES ('one', 5), ('new', (SELECT max(id) FROM items))
         ON CONFLICT (word) DO UPDATE SET n = excluded.n, at = now() RETURNING word, n, at = now()";
    let again = client.run(again);
    assert_eq!(texts(again), ["one", "5", "t", "new", "6", "t"]);
    same("14");
    for sql in [
        "INSERT INTO tags (word) VALUES ('nine'), ('one')",
        "INSERT INTO tags (word) SELECT 'one' FROM items WHERE id = 2",
    ] {
        assert_eq!(client.run(sql).sqlstate(), Some("23505"));
        same("14");
    }
    done(
        &mut client,
        &[
            "BEGIN",
            "INSERT INTO tags (word) VALUES ('gone')",
            "ROLLBACK",
        ],
    );
    same("14");
    clauses_that_would_differ(&mut client);
    same("14");
}

fn clauses_that_would_differ(client: &mut Client) {
    for clause in [
        "n = random()",
        "token = gen_random_uuid()",
        "made = DEFAULT",
        "at = 'now'",
        "n = (SELECT count(*) FROM places)",
    ] {
        let sql = format!(
            "INSERT INTO tags (word) VALUES ('one') ON CONFLICT (word) DO UPDATE SET {clause}"
        );
        refused(
            client,
            &sql,
            "this write of the reference table \"tags\" is not supported",
        );
    }
}
