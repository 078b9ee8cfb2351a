//! A row is never stored on a shard that does not own it: where something on the server would give a row another shard key than the router
//! sees, or make another statement of the client's, the statement is refused.

use switchyard_tests::cluster::ClusterSpec;
use switchyard_tests::{Bed, BedSpec, Client};

/// Configured, and made by the tests.
const TABLES: &str = "
[[databases.tables]]
name      = \"items\"
shard_key = \"id\"
method    = \"modulo\"

[[databases.tables]]
name      = \"lists\"
shard_key = \"id\"
method    = \"modulo\"
";

const MADE: &str = "CREATE DOMAIN odd AS int DEFAULT 7;
    CREATE TABLE items (id odd, word text, PRIMARY KEY (id)) PARTITION BY RANGE (id);
    CREATE TABLE items_low PARTITION OF items FOR VALUES FROM (MINVALUE) TO (100);
    CREATE TABLE items_high PARTITION OF items FOR VALUES FROM (100) TO (MAXVALUE);
    CREATE TABLE lists (id int, word text);
    CREATE TABLE audit (id int, word text)";

fn bed() -> Bed {
    Bed::start(BedSpec::of(ClusterSpec::for_tests(2, 0)).with_tables(MADE, TABLES))
}

#[track_caller]
fn refused(client: &mut Client, sql: &str, message: &str) {
    client.refused(sql, "0A000", message);
}

/// The ids on each shard; all are where they belong.
#[track_caller]
fn ids(bed: &Bed) -> Vec<String> {
    let shards = bed.cluster().shards().iter().zip(0..);
    let on = |(shard, number): (&switchyard_tests::cluster::Shard, i32)| {
        let sql = |sql: &str| bed.cluster().sql(shard.primary.as_ref(), sql).unwrap();
        let wrong = sql(&format!(
            "SELECT count(*) FROM items WHERE id % 2 <> {number}"
        ));
        assert_eq!(wrong, "0", "shard {number}");
        sql("SELECT string_agg(id::text, ' ' ORDER BY id) FROM items")
    };
    shards.map(on).collect()
}

const CHANGES: &str =
    "writing table \"items\" is not supported: a trigger of it may change the shard key";

/// What stores rows, with the keys 1 to 4.
const INSERTS: [&str; 3] = [
    "INSERT INTO items VALUES (1, 'a')",
    "INSERT INTO items VALUES (1, 'a'), (2, 'b'), (3, 'c')",
    "INSERT INTO items SELECT n, 'x' FROM generate_series(1, 4) n",
];

fn copy(client: &mut Client, table: &str) -> Option<String> {
    let reply = client.copy_in(&format!("COPY {table} FROM STDIN"), b"1\ta\n2\tb\n");
    reply.failure.map(|failure| failure.message().to_owned())
}

#[test]
fn triggers_that_change_the_key() {
    let bed = bed();
    let mut client = bed.client();
    client
        .run("INSERT INTO items VALUES (11, 'a'), (12, 'b')")
        .succeeded();
    for (body, table) in [
        ("NEW.id := NEW.id + 1; RETURN NEW;", "items"),
        ("SELECT 5 INTO NEW.id; RETURN NEW;", "items"),
        ("RETURN ROW(5, 'x');", "items"),
        ("new.id = 5; RETURN NEW;", "items_low"),
    ] {
        let function = format!(
            "CREATE FUNCTION moves() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} END $$"
        );
        client.run(&function).succeeded();
        for (event, table) in [
            ("INSERT OR UPDATE", table),
            ("INSERT", table),
            ("UPDATE", table),
        ] {
            let trigger = format!(
                "CREATE TRIGGER moves BEFORE {event} ON {table} FOR EACH ROW EXECUTE FUNCTION moves()"
            );
            client.run(&trigger).succeeded();
            if event.contains("INSERT") {
                INSERTS
                    .iter()
                    .for_each(|sql| refused(&mut client, sql, CHANGES));
                assert_eq!(copy(&mut client, "items").as_deref(), Some(CHANGES));
            }
            if event.contains("UPDATE") {
                for sql in [
                    "UPDATE items SET word = 'x' WHERE id = 11",
                    "UPDATE items SET word = 'x'",
                    "INSERT INTO items VALUES (11, 'a') ON CONFLICT (id) DO UPDATE SET word = 'x'",
                ] {
                    refused(&mut client, sql, CHANGES);
                }
            } else {
                client.run("UPDATE items SET word = 'x'").succeeded();
            }
            if event == "UPDATE" {
                client
                    .run("INSERT INTO items VALUES (13, 'a'), (14, 'b')")
                    .succeeded();
                client
                    .run("DELETE FROM items WHERE id IN (13, 14)")
                    .succeeded();
            }
            client
                .run(&format!("DROP TRIGGER moves ON {table}"))
                .succeeded();
        }
        client.run("DROP FUNCTION moves").succeeded();
        assert_eq!(ids(&bed), ["12", "11"]);
    }
}

#[test]
fn triggers_that_leave_the_key() {
    let bed = bed();
    let mut client = bed.client();
    for sql in [
        "CREATE FUNCTION shouts() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             IF NEW.id = 3 THEN RETURN NULL; END IF; NEW.word := upper(NEW.word) || NEW.id; RETURN NEW; END $$",
        "CREATE TRIGGER shouts BEFORE INSERT OR UPDATE ON items FOR EACH ROW EXECUTE FUNCTION shouts()",
    ] {
        client.run(sql).succeeded();
    }
    for (sql, tag) in INSERTS
        .iter()
        .zip(["INSERT 0 1", "INSERT 0 2", "INSERT 0 3"])
    {
        assert_eq!(
            client.run(sql).succeeded().tag.as_deref(),
            Some(tag),
            "{sql}"
        );
        client.run("DELETE FROM items").succeeded();
    }
    assert_eq!(copy(&mut client, "items"), None);
    client
        .run("UPDATE items SET word = word || 'y'")
        .succeeded();
    let words = client.run("SELECT word FROM items ORDER BY id").succeeded();
    assert_eq!(words.texts(), [["A1Y1"], ["B2Y2"]]);
    assert_eq!(ids(&bed), ["2", "1"]);
}

/// A key that is left out has the default of its type.
#[test]
fn the_default_of_a_domain() {
    let bed = bed();
    let mut client = bed.client();
    client
        .run("INSERT INTO items (word) VALUES ('a')")
        .succeeded();
    client
        .run("INSERT INTO items VALUES (DEFAULT, 'b'), (4, 'c') ON CONFLICT (id) DO NOTHING")
        .succeeded();
    assert_eq!(ids(&bed), ["4", "7"]);
    client.run("DELETE FROM items WHERE id = 7").succeeded();
    client
        .run("UPDATE items SET id = DEFAULT, word = DEFAULT")
        .succeeded();
    assert_eq!(ids(&bed), ["", "7"]);
    client.run("INSERT INTO items VALUES (4, 'c')").succeeded();
    assert!(
        client
            .copy_in("COPY items (word) FROM STDIN", b"a\n")
            .failure
            .is_some()
    );
    assert_eq!(ids(&bed), ["4", "7"]);
}

#[test]
fn rules() {
    let bed = bed();
    let mut client = bed.client();
    let rules = |name: &str| {
        format!("writing \"{name}\" is not supported: it has rules for statements that write it")
    };
    for (rule, table) in [
        (
            "ON INSERT TO items DO INSTEAD INSERT INTO audit VALUES (NEW.id, NEW.word)",
            "items",
        ),
        (
            "ON UPDATE TO items DO ALSO INSERT INTO items VALUES (NEW.id + 1, 'x')",
            "items",
        ),
    ] {
        client
            .run(&format!("CREATE RULE other AS {rule}"))
            .succeeded();
        for sql in INSERTS
            .iter()
            .chain(&["UPDATE items SET word = 'x'", "DELETE FROM items"])
        {
            refused(&mut client, sql, &rules("items"));
        }
        // COPY applies no rules.
        assert_eq!(copy(&mut client, "items"), None);
        client
            .run(&format!("DROP RULE other ON {table}"))
            .succeeded();
        assert_eq!(ids(&bed), ["2", "1"]);
        client.run("DELETE FROM items").succeeded();
    }
    // Where everything is on the first shard they are PostgreSQL's own affair.
    for sql in [
        "CREATE TABLE copies (id int)",
        "CREATE RULE other AS ON INSERT TO audit DO ALSO INSERT INTO copies VALUES (NEW.id)",
        "INSERT INTO audit VALUES (5, 'x')",
    ] {
        client.run(sql).succeeded();
    }
    assert_eq!(client.run("SELECT id FROM copies").succeeded().value(), "5");
}

/// What a trigger's code stores, and finds, is on the shard of the row that fires it.
#[test]
fn code_of_triggers() {
    let bed = bed();
    let mut client = bed.client();
    let strays = "writing table \"items\" is not supported: a trigger of it may use rows with other shard keys";
    for (body, stays) in [
        ("INSERT INTO lists VALUES (NEW.id, NEW.word);", true),
        (
            "INSERT INTO lists (word, id) SELECT word, NEW.id FROM lists WHERE id = NEW.id;",
            true,
        ),
        (
            "IF NOT EXISTS (SELECT FROM lists l WHERE l.id = NEW.id) THEN NEW.word := 'first'; END IF;",
            true,
        ),
        ("INSERT INTO lists VALUES (NEW.id + 1, NEW.word);", false),
        ("INSERT INTO lists VALUES (n, NEW.word);", false),
        ("UPDATE lists SET word = 'x';", false),
        ("DELETE FROM lists WHERE word = NEW.word;", false),
        ("SELECT count(*) INTO n FROM lists; NEW.word := n;", false),
        (
            "IF (SELECT max(id) FROM items) > 5 THEN RAISE 'full'; END IF;",
            false,
        ),
        ("n := (SELECT count(*) FROM items);", false),
        ("FOR n IN SELECT id FROM lists LOOP NULL; END LOOP;", false),
    ] {
        for sql in [
            format!(
                "CREATE FUNCTION does() RETURNS trigger LANGUAGE plpgsql AS $$ DECLARE n int := 5; BEGIN {body} RETURN NEW; END $$"
            ),
            "CREATE TRIGGER does BEFORE INSERT ON items FOR EACH ROW EXECUTE FUNCTION does()"
                .to_owned(),
        ] {
            client.run(&sql).succeeded();
        }
        match stays {
            true => {
                client.run(INSERTS[0]).succeeded();
                client.run("DELETE FROM items").succeeded();
                assert_eq!(copy(&mut client, "items"), None, "{body}");
            }
            false => {
                for sql in INSERTS {
                    refused(&mut client, sql, strays);
                }
                assert_eq!(
                    copy(&mut client, "items").as_deref(),
                    Some(strays),
                    "{body}"
                );
            }
        }
        client.run("DROP FUNCTION does CASCADE").succeeded();
        client.run("DELETE FROM items").succeeded();
    }
    let lists = bed.cluster().shards().iter().map(|shard| {
        let ids = "SELECT string_agg(DISTINCT id::text, ' ') FROM lists";
        bed.cluster().sql(shard.primary.as_ref(), ids).unwrap()
    });
    assert_eq!(lists.collect::<Vec<_>>(), ["2", "1"]);
}
