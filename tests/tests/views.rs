//! Views of sharded tables, compared with one PostgreSQL: whose parts are on the shards, whose are not, and what a role may
//! read by them.

use std::sync::OnceLock;

use switchyard_tests::cluster::ClusterSpec;
use switchyard_tests::{Bed, BedSpec, Client};

static BED: OnceLock<Bed> = OnceLock::new();

/// `reader` may read the views and not the tables. `marked` is printed by PostgreSQL as it does not read it again.
const DDL: &str = "\
CREATE TABLE people (id bigint PRIMARY KEY, name text, boss bigint);
CREATE TABLE sales (id bigint PRIMARY KEY, person bigint, amount numeric(8,2));
CREATE TABLE cards (person bigint PRIMARY KEY, number text);
CREATE TABLE former (left_on date) INHERITS (people);
CREATE VIEW bosses AS SELECT id, name FROM people WHERE boss IS NULL;
CREATE VIEW card_holders AS SELECT p.id, p.name, c.number FROM people p JOIN cards c ON c.person = p.id;
CREATE VIEW boss_cards AS SELECT bosses.name, h.number FROM bosses JOIN card_holders h USING (id);
CREATE VIEW totals AS SELECT person, sum(amount) AS total FROM sales GROUP BY person;
CREATE VIEW sold AS SELECT p.name, t.total FROM bosses p JOIN totals t ON t.person = p.id;
CREATE VIEW staff_names AS SELECT string_agg(name, ',' ORDER BY name) AS names, count(*) FROM ONLY people;
CREATE VIEW first_names AS SELECT name FROM people ORDER BY name LIMIT 3;
CREATE VIEW marked AS WITH RECURSIVE up (id, boss) AS (
    SELECT id, boss FROM people WHERE id = 7 UNION ALL SELECT p.id, p.boss FROM up JOIN people p ON p.id = up.boss
  ) CYCLE id SET again TO 'Y' DEFAULT 'N' USING path SELECT id, boss, again FROM up;
CREATE FUNCTION opens_cursor() RETURNS void LANGUAGE sql AS 'DECLARE opened CURSOR WITH HOLD FOR SELECT id FROM people';
CREATE VIEW names AS SELECT name, boss FROM people;
CREATE VIEW dated AS SELECT id, name FROM people WHERE now() > '2000-01-01';
CREATE VIEW led AS SELECT id, name FROM people p WHERE EXISTS (SELECT FROM people b WHERE b.id = p.boss);
CREATE VIEW watched AS SELECT id, name FROM people;
CREATE FUNCTION watch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TRIGGER watch INSTEAD OF INSERT ON watched FOR EACH ROW EXECUTE FUNCTION watch();
CREATE VIEW ruled AS SELECT id, name FROM people;
CREATE RULE ruled AS ON DELETE TO ruled DO INSTEAD NOTHING;
CREATE MATERIALIZED VIEW kept AS SELECT id, name FROM people WHERE id > 3 WITH NO DATA;
CREATE MATERIALIZED VIEW kept_total AS SELECT count(*) FROM people WITH NO DATA;
";

const ROLE: &str = "\
CREATE ROLE reader;
GRANT reader TO app;
GRANT INSERT, UPDATE, DELETE ON bosses TO reader;
GRANT SELECT ON bosses, card_holders, boss_cards, totals TO reader;
";

const TABLES: &str = r#"
[[databases.tables]]
name = "people"
method = "hash"
shard_key = "id"

[[databases.tables]]
name = "sales"
method = "hash"
shard_key = "id"

[[databases.tables]]
name = "cards"
method = "hash"
shard_key = "person"
"#;

fn bed() -> &'static Bed {
    BED.get_or_init(|| {
        let cluster = ClusterSpec::for_tests(2, 0).with_oracle();
        let bed = Bed::start(BedSpec::of(cluster).with_tables(DDL, TABLES));
        for mut client in [bed.oracle(), bed.client()] {
            for id in 0..12 {
                let boss = ["NULL", "1", "2"][id % 3];
                for insert in [
                    format!("people (id, name, boss) VALUES ({id}, 'p{id}', {boss})"),
                    format!(
                        "sales (id, person, amount) VALUES ({id}, {}, {id}.5)",
                        11 - id
                    ),
                    format!("cards (person, number) VALUES ({id}, 'c{id}')"),
                ] {
                    client.run(&format!("INSERT INTO {insert}")).succeeded();
                }
            }
            for id in 20..26 {
                let insert = format!("INSERT INTO former (id, name) VALUES ({id}, 'f{id}')");
                client.run(&insert).succeeded();
            }
        }
        let primaries = bed.cluster().shards().iter();
        let primaries = primaries.map(|shard| shard.primary.as_ref());
        for server in primaries.chain(bed.cluster().oracle()) {
            let sql = format!("{ROLE} REFRESH MATERIALIZED VIEW kept");
            bed.cluster().superuser_sql(server, "shop", &sql).unwrap();
        }
        bed
    })
}

/// The rows in no order, or the SQLSTATE.
fn answer(client: &mut Client, sql: &str) -> Result<Vec<Vec<String>>, String> {
    let reply = client.run(sql);
    if let Some(state) = reply.sqlstate() {
        return Err(state.to_owned());
    }
    let mut rows = reply.texts();
    rows.sort();
    Ok(rows)
}

#[track_caller]
fn same(role: &str, sql: &str) {
    let [expected, found] = [bed().oracle(), bed().client()].map(|mut client| {
        client.run(&format!("SET ROLE {role}")).succeeded();
        answer(&mut client, sql)
    });
    assert_eq!(found, expected, "{role}: {sql}");
}

#[track_caller]
fn refused(role: &str, sql: &str, because: &str) {
    let [mut oracle, mut router] = [bed().oracle(), bed().client()];
    for client in [&mut oracle, &mut router] {
        client.run(&format!("SET ROLE {role}")).succeeded();
    }
    oracle.run(sql).succeeded();
    let failure = router.run(sql).failure.expect("it is refused");
    assert_eq!(failure.sqlstate(), "0A000", "{failure:?}");
    assert!(failure.message().contains(because), "{failure:?}");
    assert_eq!(router.run("SELECT 1").succeeded().value(), "1");
}

#[test]
fn views_are_read_as_on_one_server() {
    for sql in [
        "SELECT * FROM bosses",
        "SELECT count(*), max(number) FROM card_holders WHERE name > 'p3'",
        "SELECT * FROM boss_cards",
        "SELECT * FROM totals",
        "SELECT * FROM sold ORDER BY total",
        "SELECT * FROM first_names",
        "SELECT b.name, s.amount FROM bosses b JOIN sales s ON s.person = b.id",
        "SELECT * FROM public.bosses AS b (a) WHERE a IN (SELECT person FROM totals WHERE total > 3)",
    ] {
        same("none", sql);
    }
}

#[test]
fn what_inherits_is_read_or_not() {
    for sql in [
        "SELECT count(*), max(name) FROM people",
        "SELECT string_agg(name, ' ' ORDER BY id) FROM ONLY people WHERE id > 2",
        "SELECT string_agg(name, ' ' ORDER BY people.id) FROM ONLY (public.people), ONLY public.cards WHERE cards.person < people.id",
        "SELECT relname, people.* FROM people, pg_class WHERE people.tableoid = pg_class.oid",
        "SELECT * FROM staff_names",
        "SELECT f.name, s.names FROM former f, staff_names s",
    ] {
        same("none", sql);
    }
    let both = "SELECT count(*) FROM ONLY people a, people b WHERE a.id + 13 = b.id";
    refused("none", both, "not supported across shards yet");
}

#[test]
fn what_a_view_shows_needs_no_right_to_its_tables() {
    for sql in [
        "SELECT * FROM bosses",
        "SELECT * FROM card_holders WHERE id < 5",
        "SELECT * FROM boss_cards",
        "SELECT b.name, c.number FROM bosses b JOIN card_holders c USING (id)",
        // Not theirs to read.
        "SELECT * FROM people",
        "SELECT * FROM sold",
        "SELECT * FROM first_names",
    ] {
        same("reader", sql);
    }
}

#[test]
fn what_cannot_be_made_anew_is_refused() {
    let reason = "whose tables this role may not read";
    refused("reader", "SELECT * FROM totals", reason);
    refused("none", "SELECT * FROM marked", "the view \"marked\"");
    // The cursor would be one of another session.
    refused("none", "SELECT opens_cursor()", "function \"opens_cursor\"");
}

/// Simple views are written through, see `views.slt`; these would need rows, or know of keys, of other shards.
#[test]
fn what_is_not_written_through() {
    let reason = "through the view";
    for sql in [
        "UPDATE names SET boss = boss",
        "DELETE FROM dated WHERE id = 1000",
        "UPDATE led SET name = name WHERE id = 1",
        "INSERT INTO watched VALUES (1000, 'x')",
    ] {
        refused("none", sql, reason);
    }
    refused("none", "DELETE FROM ruled WHERE id = 1", "it has rules");
    let moves = "UPDATE bosses SET id = id + 1000 WHERE id = 1000";
    refused("none", moves, "changing the shard key");
}

/// Each server judges the rights of the view's owner and of whom the view belongs to.
#[test]
fn who_may_write_a_view_needs_no_right_to_its_table() {
    let mut sides = [bed().oracle(), bed().client()];
    for client in &mut sides {
        client.run("SET ROLE reader").succeeded();
        client.run("BEGIN").succeeded();
    }
    for sql in [
        "INSERT INTO bosses VALUES (2000, 'x'), (2001, 'y'), (2002, 'z')",
        "UPDATE bosses SET name = name || '!' WHERE id > 1999",
        "DELETE FROM bosses WHERE id = 2001 RETURNING name",
        "SELECT * FROM bosses WHERE id > 1999",
        "DELETE FROM bosses WHERE id > 2000 RETURNING name",
        "INSERT INTO people VALUES (2000, 'x')",
        "UPDATE people SET name = 'x'",
        "SELECT * FROM bosses",
    ] {
        let [expected, found] = sides.each_mut().map(|client| {
            client.run("SAVEPOINT before").succeeded();
            let answer = answer(client, sql);
            if answer.is_err() {
                client.run("ROLLBACK TO before").succeeded();
            }
            answer
        });
        assert_eq!(found, expected, "{sql}");
    }
}

#[test]
fn stored_rows_of_a_view_are_read_where_they_are() {
    same("none", "SELECT * FROM kept");
    same("none", "SELECT count(*), min(name) FROM kept WHERE id <> 5");
    let mut router = bed().client();
    let failure = router.run("SELECT * FROM kept_total").failure;
    assert_eq!(
        failure.expect("each shard counts its own").sqlstate(),
        "0A000"
    );
}
