//! What runs in no transaction block: on one shard after the other, to be called again after a failure.

use switchyard_tests::cluster::ClusterSpec;
use switchyard_tests::{Bed, BedSpec, Client};

const DDL: &str = "CREATE TABLE people (id int, name text, city int);
    CREATE TABLE notes (id int PRIMARY KEY)";
const TABLES: &str = "
[[databases.tables]]
name      = \"people\"
shard_key = \"id\"
method    = \"hash\"
";

fn bed() -> Bed {
    Bed::start(BedSpec::of(ClusterSpec::for_tests(2, 0)).with_tables(DDL, TABLES))
}

fn each(bed: &Bed, sql: &str) -> Vec<String> {
    let shards = bed.cluster().shards().iter();
    shards
        .map(|shard| bed.cluster().sql(shard.primary.as_ref(), sql).unwrap())
        .collect()
}

const INDEXES: &str =
    "SELECT coalesce(string_agg(indexrelid::regclass || ' ' || indisvalid, ', ' ORDER BY 1), '')
    FROM pg_index WHERE indrelid = 'people'::regclass";

/// Statements, with the SQLSTATE and the message of each.
const REFUSED: &[(&str, &str, &str)] = &[
    (
        "CREATE INDEX CONCURRENTLY ON people (name)",
        "0A000",
        "CREATE INDEX CONCURRENTLY without a name is not supported",
    ),
    (
        "CREATE UNIQUE INDEX CONCURRENTLY u ON people (name)",
        "0A000",
        "unique constraint \"u\" of table \"people\" cannot hold across shards",
    ),
    (
        "CREATE UNIQUE INDEX CONCURRENTLY u ON people (abs(id), id(people))",
        "0A000",
        "unique constraint \"u\" of table \"people\" cannot hold across shards",
    ),
    (
        "CREATE INDEX CONCURRENTLY x ON nosuch (name)",
        "42P01",
        "relation \"nosuch\" does not exist",
    ),
    (
        "CREATE DATABASE other",
        "0A000",
        "CREATE DATABASE cannot run on all shards together",
    ),
];

#[test]
fn indexes_are_made_and_removed_on_every_shard() {
    let bed = bed();
    let mut client = bed.client();
    let reply = client.run("CREATE INDEX CONCURRENTLY by_name ON people (name)");
    assert_eq!(reply.tag.as_deref(), Some("CREATE INDEX"), "{reply:?}");
    let reply = client.extended(
        "CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS one ON public.people USING btree (name, id DESC)",
        &[],
        0,
    );
    assert_eq!(reply.tag.as_deref(), Some("CREATE INDEX"), "{reply:?}");
    assert_eq!(
        each(&bed, INDEXES),
        ["by_name true, one true", "by_name true, one true"]
    );
    // PostgreSQL's own answers where nothing is to be done.
    assert_eq!(
        client
            .run("CREATE INDEX CONCURRENTLY by_name ON people (name)")
            .sqlstate(),
        Some("42P07")
    );
    client
        .run("CREATE INDEX CONCURRENTLY IF NOT EXISTS by_name ON people (name)")
        .succeeded();
    for (sql, sqlstate, message) in REFUSED {
        let failure = client.run(sql).failure.unwrap();
        assert_eq!(
            (failure.sqlstate(), failure.message()),
            (*sqlstate, *message),
            "{sql}"
        );
    }
    for sql in [
        "CREATE INDEX CONCURRENTLY x ON people (name)",
        "VACUUM people",
        "DROP INDEX CONCURRENTLY one",
    ] {
        client.run("BEGIN").succeeded();
        assert_eq!(client.run(sql).sqlstate(), Some("25001"), "{sql}");
        client.run("ROLLBACK").succeeded();
    }
    bed.cluster()
        .sql(bed.cluster().shard(0).primary.as_ref(), "DROP INDEX one")
        .unwrap();
    client.run("DROP INDEX CONCURRENTLY one").succeeded();
    assert_eq!(each(&bed, INDEXES), ["by_name true", "by_name true"]);
    assert_eq!(
        client.run("DROP INDEX CONCURRENTLY one").sqlstate(),
        Some("42704")
    );
    client
        .run("DROP INDEX CONCURRENTLY IF EXISTS one")
        .succeeded();
    let files = "SELECT relfilenode FROM pg_class WHERE relname = 'by_name'";
    let before = each(&bed, files);
    client.run("REINDEX TABLE CONCURRENTLY people").succeeded();
    let after = each(&bed, files);
    assert!(
        before[0] != after[0] && before[1] != after[1],
        "{before:?} {after:?}"
    );
    client.extended("VACUUM (FULL) people", &[], 0).succeeded();
    let full = each(&bed, files);
    assert!(
        full[0] != after[0] && full[1] != after[1],
        "{full:?} {after:?}"
    );
    client.run("VACUUM").succeeded();
    are_told_apart_by_their_definitions(&bed, &mut client);
}

/// One of another definition is not the one that is asked for.
fn are_told_apart_by_their_definitions(bed: &Bed, client: &mut Client) {
    let second = bed.cluster().shard(1).primary.as_ref();
    bed.cluster()
        .sql(second, "CREATE INDEX other ON people (name)")
        .unwrap();
    let other = "CREATE INDEX CONCURRENTLY other ON people (city)";
    assert_eq!(client.run(other).sqlstate(), Some("42P07"));
    bed.cluster().sql(second, "DROP INDEX other").unwrap();
    client.run(other).succeeded();
}

#[test]
fn a_failure_says_how_far_it_has_come_and_is_gone_on_from() {
    let bed = bed();
    let mut client = bed.client();
    let second = bed.cluster().shard(1).primary.as_ref();
    let twice = "INSERT INTO people VALUES (1, 'a'), (1, 'b')";
    bed.cluster().sql(second, twice).unwrap();
    let create = "CREATE UNIQUE INDEX CONCURRENTLY one ON people (id)";
    for extended in [false, true] {
        let failure = match extended {
            false => client.run(create).failure.unwrap(),
            true => client.extended(create, &[], 0).failure.unwrap(),
        };
        let removal = "/* switchyard: shard=s1 */ DROP INDEX CONCURRENTLY one";
        assert!(failure.field('H').contains(removal), "{failure:?}");
        match extended {
            false => {
                assert_eq!(failure.sqlstate(), "23505", "{failure:?}");
                assert_eq!(
                    failure.field('D'),
                    "Key (id)=(1) is duplicated.\nDone on \"s0\". Failed on \"s1\"."
                );
            }
            // What is left has to be removed first.
            true => {
                assert_eq!(failure.sqlstate(), "55000", "{failure:?}");
                assert_eq!(
                    failure.message(),
                    "index \"one\" on shard \"s1\" is invalid"
                );
            }
        }
        assert_eq!(each(&bed, INDEXES), ["one true", "one false"]);
    }
    client
        .run("/* switchyard: shard=s1 */ DROP INDEX CONCURRENTLY one")
        .succeeded();
    bed.cluster().sql(second, "DELETE FROM people").unwrap();
    let number = "SELECT oid FROM pg_class WHERE relname = 'one'";
    let before = bed
        .cluster()
        .sql(bed.cluster().shard(0).primary.as_ref(), number)
        .unwrap();
    client.run(create).succeeded();
    assert_eq!(each(&bed, INDEXES), ["one true", "one true"]);
    assert_eq!(each(&bed, number)[0], before);
    // Not begun is said, too.
    let first = bed.cluster().shard(0).primary.as_ref();
    bed.cluster()
        .sql(first, "INSERT INTO people VALUES (2, 'a'), (3, 'a')")
        .unwrap();
    let failure = client
        .run("CREATE UNIQUE INDEX CONCURRENTLY two ON people (name, (id * 0), id) WHERE 1 / (id - 2) > 0")
        .failure
        .unwrap();
    assert_eq!(failure.sqlstate(), "22012", "{failure:?}");
    assert_eq!(failure.field('D'), "Failed on \"s0\". Not begun on \"s1\".");
}

/// PostgreSQL runs it in a block since its version 12.
#[test]
fn a_value_more_of_an_enum_is_there_everywhere_or_nowhere() {
    let bed = bed();
    let mut client = bed.client();
    client.run("CREATE TYPE mood AS ENUM ('sad')").succeeded();
    client.run("ALTER TYPE mood ADD VALUE 'glad'").succeeded();
    let second = bed.cluster().shard(1).primary.as_ref();
    bed.cluster()
        .sql(second, "ALTER TYPE mood ADD VALUE 'mad'")
        .unwrap();
    assert_eq!(
        client.run("ALTER TYPE mood ADD VALUE 'mad'").sqlstate(),
        Some("42710")
    );
    let values = "SELECT string_agg(enumlabel, ' ' ORDER BY enumsortorder) FROM pg_enum";
    assert_eq!(each(&bed, values), ["sad glad", "sad glad mad"]);
}
