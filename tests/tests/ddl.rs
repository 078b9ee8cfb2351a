//! Changes of the schema: on all shards or on none, and what cannot hold across shards is refused.

use switchyard_tests::cluster::ClusterSpec;
use switchyard_tests::{Bed, BedSpec, Client};

/// Configured, and made by the tests.
const TABLES: &str = "
[[databases.tables]]
name      = \"people\"
shard_key = \"id\"
method    = \"hash\"

[[databases.tables]]
name          = \"letters\"
shard_key     = \"person\"
method        = \"hash\"
colocate_with = \"people\"

[[databases.tables]]
name      = \"shelves\"
shard_key = \"id\"
method    = \"modulo\"

[[databases.tables]]
name   = \"cities\"
method = \"reference\"

[[databases.tables]]
name   = \"numbers\"
method = \"reference\"
";

fn bed() -> Bed {
    Bed::start(BedSpec::of(ClusterSpec::for_tests(2, 0)).with_tables("", TABLES))
}

fn each(bed: &Bed, sql: &str) -> Vec<String> {
    let shards = bed.cluster().shards().iter();
    shards
        .map(|shard| bed.cluster().sql(shard.primary.as_ref(), sql).unwrap())
        .collect()
}

/// By both protocols it is refused with these words, in a block too, and leaves nothing.
#[track_caller]
fn refused(client: &mut Client, sql: &str, message: &str, detail: &str) {
    let failure = client.refused(sql, "0A000", message);
    assert_eq!(failure.field('D'), detail, "{sql}");
    assert!(!failure.field('H').is_empty(), "{sql}");
    client.run("BEGIN").succeeded();
    assert!(client.run(sql).failure.is_some(), "{sql}");
    assert_eq!(client.status, b'E', "{sql}");
    client.run("ROLLBACK").succeeded();
}

const COULD_EXCLUDE: &str = "It does not contain the shard key \"id\", so that rows that exclude each other could be on different shards.";

#[test]
fn what_cannot_hold_across_shards_is_refused() {
    let bed = bed();
    let mut client = bed.client();
    let unique = |name: &str| {
        format!("unique constraint \"{name}\" of table \"people\" cannot hold across shards")
    };
    for sql in [
        "CREATE TABLE people (id int, email text UNIQUE)",
        "CREATE TABLE people (id int, email text CONSTRAINT people_email_key PRIMARY KEY)",
    ] {
        refused(&mut client, sql, &unique("people_email_key"), COULD_EXCLUDE);
    }
    let missing = client
        .run("CREATE TABLE people (number int)")
        .failure
        .unwrap();
    assert_eq!(
        missing.message(),
        "table \"people\" has no column \"id\", which is its shard key"
    );
    // What holds is made.
    for sql in [
        "CREATE TABLE cities (name text PRIMARY KEY, mayor text UNIQUE)",
        "CREATE TABLE people (id int PRIMARY KEY, email text, city text REFERENCES cities, UNIQUE (email, id))",
        "CREATE TABLE letters (person int REFERENCES people, number int, PRIMARY KEY (person, number), UNIQUE (number, person))",
        "CREATE TABLE shelves (id int PRIMARY KEY, owner int)",
        "CREATE TABLE numbers (id int PRIMARY KEY)",
        "ALTER TABLE letters ADD FOREIGN KEY (person, number) REFERENCES letters ON DELETE SET NULL (number)",
        "CREATE TABLE notes (id int PRIMARY KEY, note text UNIQUE, city text REFERENCES cities)",
        "CREATE INDEX ON people (email)",
        "ALTER TABLE people ADD CHECK (id > 0), ADD COLUMN born date",
    ] {
        client.run(sql).succeeded();
    }
    refused(
        &mut client,
        "CREATE UNIQUE INDEX mail ON people (email)",
        &unique("mail"),
        COULD_EXCLUDE,
    );
    refused(
        &mut client,
        "ALTER TABLE people ADD CONSTRAINT mail UNIQUE (email)",
        &unique("mail"),
        COULD_EXCLUDE,
    );
    refused(
        &mut client,
        "ALTER TABLE people ADD CONSTRAINT apart EXCLUDE USING btree (email WITH =)",
        "exclusion constraint \"apart\" of table \"people\" cannot hold across shards",
        COULD_EXCLUDE,
    );
    foreign_keys_are_refused(&mut client);
    let constraints = each(
        &bed,
        "SELECT count(*) FROM pg_constraint WHERE conname IN ('f', 'mail', 'apart')",
    );
    assert_eq!(constraints, ["0", "0"]);
    // What was there before, past the router, is not held against another change.
    each(&bed, "CREATE UNIQUE INDEX mail ON people (email)");
    client
        .run("ALTER TABLE people ADD COLUMN died date")
        .succeeded();
}

const FOLLOWS: &str = "It changes the shard key \"person\" of rows that refer to another when that is changed or deleted, and they would have to move.";

fn foreign_keys_are_refused(client: &mut Client) {
    let foreign =
        |table: &str| format!("foreign key \"f\" of table \"{table}\" cannot hold across shards");
    for (sql, table, detail) in [
        (
            "ALTER TABLE letters ADD CONSTRAINT f FOREIGN KEY (number) REFERENCES people",
            "letters",
            "Rows of \"people\" that it refers to could be on other shards.",
        ),
        (
            "ALTER TABLE shelves ADD CONSTRAINT f FOREIGN KEY (id) REFERENCES people",
            "shelves",
            "Rows of \"people\" that it refers to could be on other shards.",
        ),
        (
            "ALTER TABLE people ADD CONSTRAINT f FOREIGN KEY (id) REFERENCES notes",
            "people",
            "Table \"notes\" is not sharded: its rows are on the first shard only.",
        ),
        (
            "ALTER TABLE notes ADD CONSTRAINT f FOREIGN KEY (id) REFERENCES people",
            "notes",
            "\"notes\" is whole on a shard, and the rows of \"people\" are not.",
        ),
        (
            "ALTER TABLE letters ADD CONSTRAINT f FOREIGN KEY (person) REFERENCES people ON DELETE SET NULL",
            "letters",
            FOLLOWS,
        ),
        (
            "ALTER TABLE letters ADD CONSTRAINT f FOREIGN KEY (person) REFERENCES people ON UPDATE SET DEFAULT",
            "letters",
            FOLLOWS,
        ),
        (
            "ALTER TABLE people ADD CONSTRAINT f FOREIGN KEY (id) REFERENCES numbers ON UPDATE CASCADE",
            "people",
            "It changes the shard key \"id\" of rows that refer to another when that is changed or deleted, and they would have to move.",
        ),
        (
            "ALTER TABLE cities ADD COLUMN chief int CONSTRAINT f REFERENCES people",
            "cities",
            "\"cities\" is whole on a shard, and the rows of \"people\" are not.",
        ),
    ] {
        refused(client, sql, &foreign(table), detail);
    }
}

/// A change that the second shard refuses is on none.
#[test]
fn a_change_that_fails_on_the_second_shard() {
    let bed = bed();
    let mut client = bed.client();
    let second = bed.cluster().shard(1).primary.as_ref();
    bed.cluster()
        .sql(second, "CREATE TABLE things (a int)")
        .unwrap();
    let there = "SELECT count(*) FROM pg_class WHERE relname IN ('things', 'others')";
    let failure = client.run("CREATE TABLE things (a int)").failure.unwrap();
    assert_eq!(failure.sqlstate(), "42P07", "{failure:?}");
    assert_eq!(each(&bed, there), ["0", "1"]);
    let replies = client.simple("CREATE TABLE others (a int); CREATE TABLE things (a int)");
    assert_eq!(replies.last().unwrap().sqlstate(), Some("42P07"));
    assert_eq!(each(&bed, there), ["0", "1"]);
    client.run("BEGIN").succeeded();
    client.run("CREATE TABLE others (a int)").succeeded();
    client.run("SAVEPOINT a").succeeded();
    assert!(client.run("CREATE TABLE things (a int)").failure.is_some());
    client.run("ROLLBACK TO a").succeeded();
    client.run("COMMIT").succeeded();
    assert_eq!(each(&bed, there), ["1", "2"]);
    assert_eq!(
        each(&bed, "SELECT count(*) FROM pg_prepared_xacts"),
        ["0", "0"]
    );
}

/// They are the server's, or the database's, not a table's.
#[test]
fn roles_grants_and_extensions_are_on_all_shards() {
    let bed = bed();
    for shard in bed.cluster().shards() {
        let allow = "ALTER ROLE app CREATEROLE";
        let done = bed
            .cluster()
            .superuser_sql(shard.primary.as_ref(), "shop", allow);
        done.unwrap();
    }
    let mut client = bed.client();
    for sql in [
        "CREATE TABLE people (id int PRIMARY KEY, email text)",
        "CREATE EXTENSION citext",
        "ALTER TABLE people ALTER email TYPE citext",
        "INSERT INTO people SELECT n, 'P' || n || '@Example.com' FROM generate_series(1, 40) AS n",
        "CREATE ROLE clerks",
        "CREATE ROLE clerk LOGIN PASSWORD 'secret' IN ROLE clerks",
        "ALTER ROLE clerk SET work_mem = '5MB'",
        "GRANT SELECT (id), UPDATE ON people TO clerks",
    ] {
        client.run(sql).succeeded();
    }
    let found = "SELECT count(*) FROM people WHERE email LIKE 'p%@example.com'";
    assert_eq!(client.run(found).succeeded().value(), "40");
    let granted = "SELECT extname || ' ' || pg_has_role('clerk', 'clerks', 'member') || has_column_privilege('clerk', 'people', 'id', 'select')
                       || has_table_privilege('clerk', 'people', 'select') || has_table_privilege('clerk', 'people', 'update')
                   FROM pg_extension WHERE extname = 'citext'";
    assert_eq!(each(&bed, granted), ["citext truetruefalsetrue"; 2]);
    // What is there already, and a role that one shard alone does not know: nothing is done.
    assert_eq!(client.run("CREATE ROLE clerk").sqlstate(), Some("42710"));
    assert_eq!(
        client.run("CREATE EXTENSION citext").sqlstate(),
        Some("42710")
    );
    let second = bed.cluster().shard(1).primary.as_ref();
    let renamed = "ALTER ROLE clerks RENAME TO others";
    let renamed = bed.cluster().superuser_sql(second, "shop", renamed);
    renamed.unwrap();
    let failed = client.run("REVOKE UPDATE ON people FROM clerks");
    assert_eq!(failed.sqlstate(), Some("42704"));
    let still = "SELECT has_table_privilege('clerk', 'people', 'update')";
    assert_eq!(each(&bed, still), ["t", "t"]);
    for sql in ["DROP EXTENSION citext CASCADE", "DROP ROLE clerk"] {
        client.run(sql).succeeded();
    }
    let left = "SELECT (SELECT count(*) FROM pg_roles WHERE rolname = 'clerk') + (SELECT count(*) FROM pg_extension WHERE extname = 'citext')";
    assert_eq!(each(&bed, left), ["0", "0"]);
}
