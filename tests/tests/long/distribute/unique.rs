//! Global unique indexes: beside a plain server that has a UNIQUE constraint, with several sessions at a time, and with a router that is
//! killed.

use std::sync::atomic::{AtomicU32, Ordering};

use switchyard_tests::cluster::ClusterSpec;
use switchyard_tests::random::chance::Chance;
use switchyard_tests::{Bed, BedSpec, Client, Failure, Login, Reply, Turns, eventually};

/// What is planned by one map of the tables begins anew by the next, which a block cannot: no test changes another's.
pub(super) static BEDS: Turns<3> = Turns::new(|| {
    Bed::start(BedSpec::of(
        ClusterSpec::for_tests(2, 0).with_catalog().with_oracle(),
    ))
});
static TABLES: AtomicU32 = AtomicU32::new(0);

/// The same table behind the router and on the plain server.
pub(super) struct Pair {
    bed: &'static Bed,
    pub(super) table: String,
    pub(super) router: Client,
    pub(super) oracle: Client,
}

impl Pair {
    /// A table of its own with an id, and a unique column `email`. `$T` in what is run is its name.
    pub(super) fn new(bed: &'static Bed, columns: &str) -> Pair {
        let number = TABLES.fetch_add(1, Ordering::Relaxed);
        let mut pair = Pair {
            table: format!("users{number}"),
            bed,
            router: bed.client(),
            oracle: bed.oracle(),
        };
        let create = pair.text(&format!("CREATE TABLE $T (id int8 PRIMARY KEY, {columns})"));
        for sql in [
            &*create,
            &*pair.text("SELECT create_distributed_table('$T', 'id')"),
            &*pair.text("SELECT create_global_unique_index('$T', 'email')"),
        ] {
            pair.router.run(sql).succeeded();
        }
        pair.oracle.run(&create).succeeded();
        let unique = pair.text("ALTER TABLE $T ADD UNIQUE (email)");
        pair.oracle.run(&unique).succeeded();
        pair
    }

    pub(super) fn text(&self, sql: &str) -> String {
        sql.replace("$T", &self.table)
    }

    /// Runs a statement on both sides: the same must come of it.
    #[track_caller]
    pub(super) fn run(&mut self, sql: &str) -> Reply {
        let sql = self.text(sql);
        let (router, oracle) = (self.router.run(&sql), self.oracle.run(&sql));
        alike(&sql, &router, &oracle);
        assert_eq!(self.router.status, self.oracle.status, "{sql}");
        router
    }

    /// The same by the extended protocol.
    #[track_caller]
    pub(super) fn extended(&mut self, sql: &str, parameters: &[Option<&str>]) -> Reply {
        let sql = self.text(sql);
        let router = self.router.extended(&sql, parameters, 0);
        let oracle = self.oracle.extended(&sql, parameters, 0);
        alike(&sql, &router, &oracle);
        assert_eq!(self.router.status, self.oracle.status, "{sql}");
        router
    }

    #[track_caller]
    fn copy(&mut self, sql: &str, data: &[u8]) -> Reply {
        let sql = self.text(sql);
        let (router, oracle) = (
            self.router.copy_in(&sql, data),
            self.oracle.copy_in(&sql, data),
        );
        alike(&sql, &router, &oracle);
        router
    }

    /// The statement succeeds on both sides.
    #[track_caller]
    pub(super) fn succeeds(&mut self, sql: &str) -> Reply {
        self.run(sql).succeeded()
    }

    /// It is a duplicate on both sides.
    #[track_caller]
    fn is_duplicate(&mut self, sql: &str) {
        assert_eq!(self.run(sql).sqlstate(), Some("23505"), "{sql}");
    }

    /// It is a duplicate behind the router, whatever the plain server has.
    #[track_caller]
    fn is_duplicate_here(&mut self, sql: &str) {
        let sql = self.text(sql);
        assert_eq!(self.router.run(&sql).sqlstate(), Some("23505"), "{sql}");
    }

    /// The same on both sides, unless the router refuses it outside of a block: then it is not run on the plain server.
    #[track_caller]
    fn run_or_refused(&mut self, sql: &str) -> Reply {
        let sql = self.text(sql);
        if self.router.status == b'I' {
            let router = self.router.run(&sql);
            if router.sqlstate() == Some("0A000") {
                return router;
            }
            let oracle = self.oracle.run(&sql);
            alike(&sql, &router, &oracle);
            return router;
        }
        let (router, oracle) = (self.router.run(&sql), self.oracle.run(&sql));
        if router.sqlstate() == Some("0A000") {
            self.succeeds("ROLLBACK");
            return router;
        }
        alike(&sql, &router, &oracle);
        router
    }

    /// An INSERT of a row that is on one shard, with a value that is on the other: it has not been run.
    pub(super) fn apart(&mut self, number: usize) -> String {
        for id in 1000 * (number + 1).. {
            let insert = self.text(&format!("INSERT INTO $T VALUES ({id}, 'v{id}')"));
            self.router.run(&insert).succeeded();
            let on = |sql: &str| {
                let shards = self.bed.cluster().shards().iter();
                let mut shards = shards
                    .map(|shard| self.bed.cluster().sql(shard.primary.as_ref(), sql).unwrap());
                shards.position(|count| count == "1")
            };
            let row = on(&self.text(&format!("SELECT count(*) FROM $T WHERE id = {id}")));
            let value = on(&self.text(&format!(
                "SELECT count(*) FROM $T_email_key WHERE id = {id}"
            )));
            let delete = self.text(&format!("DELETE FROM $T WHERE id = {id}"));
            self.router.run(&delete).succeeded();
            if row.is_some() && value.is_some() && row != value {
                return insert;
            }
        }
        unreachable!("some row is")
    }

    /// The rows are the same, and the index has just their values.
    #[track_caller]
    pub(super) fn check(&mut self) {
        self.run("SELECT * FROM $T ORDER BY id");
        self.check_index();
    }

    /// The index has just the values of the rows.
    #[track_caller]
    pub(super) fn check_index(&mut self) {
        let rows = self.text("SELECT email, id FROM $T WHERE email IS NOT NULL ORDER BY id");
        let index = self.text("SELECT email, id FROM $T_email_key ORDER BY id");
        assert_eq!(
            self.router.run(&index).succeeded().texts(),
            self.router.run(&rows).succeeded().texts()
        );
        let left = self.text("SELECT count(*) FROM $T_email_key_changes");
        for shard in self.bed.cluster().shards() {
            let left = self
                .bed
                .cluster()
                .sql(shard.primary.as_ref(), &left)
                .unwrap();
            assert_eq!(left, "0");
        }
    }
}

#[track_caller]
fn alike(sql: &str, router: &Reply, oracle: &Reply) {
    let failure = |reply: &Reply| {
        let fields = |failure: &Failure| {
            ['C', 'M', 'D', 's', 't', 'n'].map(|of| failure.field(of).to_owned())
        };
        reply.failure.as_ref().map(fields)
    };
    assert_eq!(failure(router), failure(oracle), "{sql}");
    let sorted = |reply: &Reply| {
        let mut rows = reply.texts();
        rows.sort();
        rows
    };
    if router.failure.is_none() {
        assert_eq!(sorted(router), sorted(oracle), "{sql}");
        assert_eq!(router.tag, oracle.tag, "{sql}");
    }
}

#[test]
fn every_write_keeps_it() {
    let (bed, _turn) = BEDS.take();
    let mut pair = Pair::new(bed, "email text, name text");
    let pair = &mut pair;
    pair.succeeds("INSERT INTO $T VALUES (1, 'a@x', 'A')");
    pair.succeeds(
        "INSERT INTO $T VALUES (2, 'b@x', 'B'), (3, 'c@x', 'C'), (4, NULL, 'D'), (5, NULL, 'E')",
    );
    for id in 10..20 {
        pair.is_duplicate(&format!("INSERT INTO $T VALUES ({id}, 'a@x', 'again')"));
    }
    pair.is_duplicate(
        "INSERT INTO $T VALUES (20, 'd@x', 'D'), (21, 'e@x', 'E'), (22, 'c@x', 'again')",
    );
    pair.check();
    assert_eq!(
        pair.succeeds("INSERT INTO $T VALUES (6, 'f@x', 'F') RETURNING id, email")
            .texts(),
        [["6", "f@x"]]
    );
    pair.is_duplicate("INSERT INTO $T VALUES (7, 'f@x', 'F') RETURNING id, email");
    pair.succeeds("UPDATE $T SET email = 'g@x' WHERE id = 6");
    pair.succeeds("INSERT INTO $T VALUES (7, 'f@x', 'F')");
    pair.is_duplicate("UPDATE $T SET email = 'f@x' WHERE id = 1");
    pair.is_duplicate("UPDATE $T SET email = 'same' WHERE id > 0");
    pair.succeeds("UPDATE $T SET email = upper(email), name = name || '!'");
    pair.succeeds("UPDATE $T SET name = 'x' WHERE id = 1");
    pair.succeeds("UPDATE $T SET email = NULL WHERE id IN (2, 3)");
    pair.check();
    pair.succeeds("DELETE FROM $T WHERE id = 1");
    pair.succeeds("INSERT INTO $T VALUES (30, 'A@X', 'new')");
    pair.succeeds("DELETE FROM $T WHERE name = 'new'");
    pair.succeeds("INSERT INTO $T SELECT n, 'mail' || n, 'n' FROM generate_series(100, 200) AS n");
    pair.is_duplicate(
        "INSERT INTO $T SELECT n, 'mail' || n - 1, 'n' FROM generate_series(201, 201) AS n",
    );
    pair.check();
    // The shard key changes: the row moves, and the value stays its own.
    pair.succeeds("UPDATE $T SET id = id + 1000 WHERE id BETWEEN 100 AND 120");
    pair.succeeds(
        "UPDATE $T SET id = id + 1000, email = email || '!' WHERE id BETWEEN 1100 AND 1105",
    );
    pair.check();
    pair.is_duplicate("UPDATE $T SET id = 5000, email = 'mail150' WHERE id = 1110");
    pair.check();
    pair.succeeds("MERGE INTO $T AS t USING (VALUES (150), (151)) AS v (id) ON t.id = v.id WHEN MATCHED AND t.id = 150 THEN DELETE WHEN MATCHED THEN UPDATE SET email = 'merged'");
    pair.check();
    pair.copy(
        "COPY $T FROM STDIN",
        b"300\tcopied\tx\n301\t\\N\tx\n302\tcopied2\tx\n\\.\n",
    )
    .succeeded();
    let reply = pair.copy(
        "COPY $T (id, email) FROM STDIN",
        b"310\tcopied3\n311\tcopied2\n\\.\n",
    );
    assert_eq!(reply.sqlstate(), Some("23505"));
    pair.check();
    pair.succeeds("TRUNCATE $T");
    pair.succeeds("INSERT INTO $T VALUES (1, 'merged', 'A'), (2, 'mail160', 'B')");
    pair.check();
}

/// One server looks at each row by itself.
#[test]
fn rows_that_take_each_others_values() {
    let (bed, _turn) = BEDS.take();
    let mut pair = Pair::new(bed, "email text, rank int");
    let pair = &mut pair;
    pair.succeeds("INSERT INTO $T SELECT n, 'mail' || n, n FROM generate_series(1, 20) AS n");
    for other in 2..20 {
        let swap = format!(
            "UPDATE $T SET email = CASE id WHEN 1 THEN 'mail{other}' ELSE 'mail1' END WHERE id IN (1, {other})"
        );
        for client in [&mut pair.router, &mut pair.oracle] {
            let swap = swap.replace("$T", &pair.table);
            assert_eq!(client.run(&swap).sqlstate(), Some("23505"), "{swap}");
        }
    }
    pair.check();
    // What has left in the same transaction may come again.
    pair.succeeds("BEGIN");
    pair.succeeds("UPDATE $T SET email = 'aside' WHERE id = 1");
    pair.succeeds("UPDATE $T SET email = 'mail1' WHERE id = 2");
    pair.succeeds("UPDATE $T SET email = 'mail2' WHERE id = 1");
    pair.succeeds("COMMIT");
    pair.check();
}

#[test]
fn by_the_extended_protocol_and_by_execute() {
    let (bed, _turn) = BEDS.take();
    let mut pair = Pair::new(bed, "email text, name text");
    let pair = &mut pair;
    let insert = "INSERT INTO $T VALUES ($1, $2, 'x')";
    pair.extended(insert, &[Some("1"), Some("a")]).succeeded();
    for id in 2..10 {
        let id = id.to_string();
        let reply = pair.extended(insert, &[Some(&id), Some("a")]);
        assert_eq!(reply.sqlstate(), Some("23505"));
    }
    let several = "INSERT INTO $T VALUES ($1, $2, 'x'), ($3, $4, 'y') RETURNING email";
    pair.extended(several, &[Some("2"), Some("b"), Some("3"), None])
        .succeeded();
    let reply = pair.extended(several, &[Some("4"), Some("c"), Some("5"), Some("b")]);
    assert_eq!(reply.sqlstate(), Some("23505"));
    let update = "UPDATE $T SET email = $1 WHERE id = $2 RETURNING email, name";
    pair.extended(update, &[Some("c"), Some("2")]).succeeded();
    pair.extended(update, &[Some("b"), Some("3")]).succeeded();
    let reply = pair.extended(update, &[Some("c"), Some("3")]);
    assert_eq!(reply.sqlstate(), Some("23505"));
    pair.extended("DELETE FROM $T WHERE email = $1", &[Some("b")])
        .succeeded();
    pair.extended(insert, &[Some("4"), Some("b")]).succeeded();
    pair.check();
    pair.extended("TRUNCATE $T", &[]).succeeded();
    pair.extended(insert, &[Some("5"), Some("b")]).succeeded();
    pair.check();
    pair.succeeds("PREPARE put (int8, text) AS INSERT INTO $T VALUES ($1, $2, 'p')");
    pair.succeeds("EXECUTE put (20, 'p')");
    pair.is_duplicate("EXECUTE put (21, 'p')");
    pair.is_duplicate("EXECUTE put (22, 'p')");
    pair.succeeds("BEGIN");
    pair.succeeds("EXECUTE put (23, 'q')");
    pair.extended(insert, &[Some("24"), Some("r")]).succeeded();
    pair.succeeds("COMMIT");
    pair.check();
}

#[test]
fn blocks_and_savepoints() {
    let (bed, _turn) = BEDS.take();
    let mut pair = Pair::new(bed, "email text");
    let pair = &mut pair;
    pair.succeeds("INSERT INTO $T VALUES (1, 'a'), (2, 'b')");
    pair.succeeds("BEGIN");
    pair.succeeds("INSERT INTO $T VALUES (3, 'c')");
    pair.succeeds("SAVEPOINT s");
    pair.is_duplicate("INSERT INTO $T VALUES (4, 'c')");
    assert_eq!(pair.run("SELECT 1").sqlstate(), Some("25P02"));
    pair.succeeds("ROLLBACK TO SAVEPOINT s");
    pair.succeeds("DELETE FROM $T WHERE id = 1");
    pair.succeeds("INSERT INTO $T VALUES (4, 'a')");
    pair.succeeds("ROLLBACK TO SAVEPOINT s");
    pair.is_duplicate("INSERT INTO $T VALUES (5, 'a')");
    pair.succeeds("ROLLBACK TO SAVEPOINT s");
    pair.succeeds("UPDATE $T SET email = 'z' WHERE id = 2");
    pair.succeeds("INSERT INTO $T VALUES (6, 'b')");
    pair.succeeds("COMMIT");
    pair.check();
    pair.succeeds("BEGIN");
    pair.succeeds("DELETE FROM $T");
    pair.succeeds("INSERT INTO $T VALUES (7, 'a'), (8, 'b')");
    pair.succeeds("ROLLBACK");
    pair.check();
    pair.is_duplicate("INSERT INTO $T VALUES (7, 'a')");
    // Several statements of one query are one transaction.
    let query = pair.text("INSERT INTO $T VALUES (8, 'h'); INSERT INTO $T VALUES (9, 'h')");
    let (router, oracle) = (pair.router.simple(&query), pair.oracle.simple(&query));
    let last = |replies: &[Reply]| replies.last().unwrap().sqlstate().map(str::to_owned);
    assert_eq!(last(&router), Some("23505".to_owned()));
    assert_eq!(last(&router), last(&oracle));
    pair.check();
}

/// Who comes second waits until the first has ended.
#[test]
fn sessions_that_want_the_same_value() {
    let (bed, _turn) = BEDS.take();
    let mut pair = Pair::new(bed, "email text");
    let table = pair.table.clone();
    for (end, id) in [("COMMIT", 10), ("ROLLBACK", 20)] {
        for other in 0..4 {
            let value = format!("{end}{other}");
            let (first, second) = (id + other, 1000 + id + other);
            pair.succeeds("BEGIN");
            pair.succeeds(&format!("INSERT INTO $T VALUES ({first}, '{value}')"));
            let sql = format!("INSERT INTO {table} VALUES ({second}, '{value}')");
            let waiting = [bed.client(), bed.oracle()].map(|mut client| {
                let sql = sql.clone();
                std::thread::spawn(move || (client.run(&sql), client))
            });
            let waits =
                "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'transactionid'";
            eventually("the second waits", || {
                let shards = bed.cluster().shards().iter();
                let mut shards =
                    shards.map(|shard| bed.cluster().sql(shard.primary.as_ref(), waits).unwrap());
                shards.any(|waiting| waiting != "0")
            });
            assert!(waiting.iter().all(|thread| !thread.is_finished()));
            pair.succeeds(end);
            let [router, oracle] = waiting.map(|thread| thread.join().unwrap().0);
            alike(&sql, &router, &oracle);
            let expected = (end == "COMMIT").then_some("23505");
            assert_eq!(router.sqlstate(), expected);
        }
    }
    pair.check();
}

const FILLED: &str = "SELECT count(*) FROM pg_class WHERE relname LIKE 'filled_email%'";

/// What every shard says.
#[track_caller]
fn on_shards(bed: &Bed, sql: &str, expected: &str) {
    for shard in bed.cluster().shards() {
        let said = bed.cluster().sql(shard.primary.as_ref(), sql).unwrap();
        assert_eq!(said, expected, "{sql}");
    }
}

#[test]
fn filled_tables() {
    let (bed, _turn) = BEDS.take();
    let mut client = bed.client();
    for sql in [
        "CREATE TABLE filled (id int8 PRIMARY KEY, email text)",
        "SELECT create_distributed_table('filled', 'id')",
        "INSERT INTO filled SELECT n, 'mail' || n % 500 FROM generate_series(1, 501) AS n",
    ] {
        client.run(sql).succeeded();
    }
    let create = "SELECT create_global_unique_index('filled', 'email')";
    let message = "could not create unique index \"filled_email_key\"";
    let failure = client.refused(create, "23505", message);
    assert_eq!(failure.field('D'), "Key (email)=(mail1) is duplicated.");
    on_shards(bed, FILLED, "0");
    client
        .run("UPDATE filled SET email = NULL WHERE id = 501")
        .succeeded();
    let message =
        "unique constraint \"filled_email_key\" of table \"filled\" cannot hold across shards";
    let unique = "ALTER TABLE filled ADD UNIQUE (email)";
    let failure = client.refused(unique, "0A000", message);
    let hint = failure.field('H');
    assert!(hint.contains(create), "{hint}");
    let reply = client.run(create);
    assert_eq!(reply.tag.as_deref(), Some("SELECT 1"), "{reply:?}");
    let count = client.run("SELECT count(*) FROM filled_email_key");
    assert_eq!(count.value(), "500");
    let duplicate = client.run("INSERT INTO filled VALUES (502, 'mail77')");
    assert_eq!(duplicate.sqlstate(), Some("23505"));
    client
        .run("SELECT drop_global_unique_index('filled_email_key')")
        .succeeded();
    client
        .run("INSERT INTO filled VALUES (502, 'mail77')")
        .succeeded();
    on_shards(bed, FILLED, "0");
    on_shards(bed, "SELECT count(*) FROM pg_prepared_xacts", "0");
}

#[test]
fn what_cannot_be() {
    let (bed, _turn) = BEDS.take();
    let mut client = bed.client();
    client
        .run("CREATE TABLE odd (id int8 PRIMARY KEY, email text, at timestamptz, j jsonb)")
        .succeeded();
    let create = "SELECT create_global_unique_index('odd', 'email')";
    let failure = client.refused(create, "42809", "table \"odd\" is not sharded");
    let hint = "A UNIQUE constraint of PostgreSQL's own holds there.";
    assert_eq!(failure.field('H'), hint);
    for sql in ["SELECT create_distributed_table('odd', 'id')", create] {
        client.run(sql).succeeded();
    }
    let has = "table \"odd\" has the global unique index \"odd_email_key\"";
    let of = |column: &str| format!("SELECT create_global_unique_index('odd', '{column}')");
    for (sql, sqlstate, message) in [
        (
            create,
            "42P07",
            "relation \"odd_email_key\" already exists (shard \"s0\")",
        ),
        (
            &*of("nosuch"),
            "42703",
            "column \"nosuch\" of relation \"odd\" does not exist",
        ),
        (
            &*of("id"),
            "42809",
            "column \"id\" is the shard key of table \"odd\"",
        ),
        (
            &*of("j"),
            "0A000",
            "column \"j\" of table \"odd\" cannot be unique across shards",
        ),
        (
            "SELECT drop_global_unique_index('odd')",
            "42809",
            "\"odd\" is not a global unique index",
        ),
        ("SELECT undistribute_table('odd')", "55000", has),
        ("SELECT undistribute_table('odd_email_key')", "55000", has),
    ] {
        client.refused(sql, sqlstate, message);
    }
}

/// The value in the error is in the session's form.
#[test]
fn values_that_depend_on_settings() {
    let (bed, _turn) = BEDS.take();
    let mut client = bed.client();
    for sql in [
        "CREATE TABLE timed (id int8 PRIMARY KEY, at timestamptz)",
        "SELECT create_distributed_table('timed', 'id')",
        "SELECT create_global_unique_index('timed', 'at', index_name => 'at_once')",
        "INSERT INTO timed VALUES (600, '2020-01-01 00:00Z')",
        "SET timezone = 'UTC'",
        "SET datestyle = 'German'",
    ] {
        client.run(sql).succeeded();
    }
    for id in 601..605 {
        let insert = format!("INSERT INTO timed VALUES ({id}, '2020-01-01 01:00+01')");
        let failure = client.run(&insert).failure.unwrap();
        let message = "duplicate key value violates unique constraint \"at_once\"";
        assert_eq!(failure.message(), message);
        let detail = "Key (at)=(01.01.2020 00:00:00 UTC) already exists.";
        assert_eq!(failure.field('D'), detail);
    }
}

/// Rows that go or change with others, and rows that code writes.
#[test]
fn cascades_and_code() {
    let (bed, _turn) = BEDS.take();
    let mut pair = Pair::new(bed, "email text, name text");
    let pair = &mut pair;
    let child = pair.text("CREATE TABLE $T_c (id int8 REFERENCES $T (id) ON DELETE CASCADE, code text, PRIMARY KEY (id, code))");
    let parent = pair.table.clone();
    {
        pair.router
            .run(&child.replace(&format!("REFERENCES {parent} (id) ON DELETE CASCADE"), ""))
            .succeeded();
        for sql in [
            "SELECT create_distributed_table('$T_c', 'id')",
            "SELECT create_global_unique_index('$T_c', 'code')",
            "ALTER TABLE $T_c ADD CONSTRAINT $T_c_id_fkey FOREIGN KEY (id) REFERENCES $T (id) ON DELETE CASCADE",
        ] {
            let sql = pair.text(sql);
            pair.router.run(&sql).succeeded();
        }
    }
    pair.oracle.run(&child).succeeded();
    let unique = pair.text("ALTER TABLE $T_c ADD UNIQUE (code)");
    pair.oracle.run(&unique).succeeded();
    pair.succeeds("INSERT INTO $T SELECT n, 'mail' || n, '' FROM generate_series(1, 10) AS n");
    pair.succeeds("INSERT INTO $T_c SELECT n, 'code' || n FROM generate_series(1, 10) AS n");
    pair.is_duplicate("INSERT INTO $T_c VALUES (1, 'code7')");
    pair.succeeds("DELETE FROM $T WHERE id = 7");
    pair.succeeds("INSERT INTO $T_c VALUES (1, 'code7')");
    pair.succeeds("DELETE FROM $T WHERE id > 5");
    pair.succeeds("INSERT INTO $T_c VALUES (1, 'code8'), (2, 'code9')");
    pair.check();
    // Code is not seen by the router: it is refused at the end, and nothing stays.
    let code = pair.text("DO $$ BEGIN INSERT INTO $T VALUES (50, 'done', 'x'); END $$");
    let hinted = format!("/* switchyard: shard=s0 */ {code}");
    let failure = pair.router.run(&hinted).failure.unwrap();
    assert_eq!(failure.sqlstate(), "55000", "{failure:?}");
    pair.check();
}

/// What would leave the index behind, or unkept.
#[test]
fn changes_of_the_table() {
    let (bed, _turn) = BEDS.take();
    let mut pair = Pair::new(bed, "email text, name text");
    let pair = &mut pair;
    pair.succeeds("INSERT INTO $T VALUES (1, 'a'), (2, 'b')");
    for change in [
        "ALTER TABLE $T RENAME COLUMN email TO mail",
        "ALTER TABLE $T DISABLE TRIGGER USER",
        "DROP TRIGGER \"switchyard_updates:$T_email_key\" ON $T",
    ] {
        let change = pair.text(change);
        let message = pair.text("global unique index \"$T_email_key\" would not be kept any more");
        pair.router.refused(&change, "0A000", &message);
    }
    pair.succeeds("ALTER TABLE $T ADD COLUMN more int");
    pair.is_duplicate("INSERT INTO $T VALUES (3, 'b')");
    let old = pair.table.clone();
    pair.succeeds("ALTER TABLE $T RENAME name TO label");
    pair.check();
    pair.succeeds("DROP TABLE $T");
    let left = format!(
        "SELECT (SELECT count(*) FROM pg_class WHERE relname ~ '^{old}_') + (SELECT count(*) FROM pg_proc WHERE proname ~ '^{old}_')"
    );
    for shard in bed.cluster().shards() {
        assert_eq!(
            bed.cluster().sql(shard.primary.as_ref(), &left).unwrap(),
            "0"
        );
    }
}

/// What the index has is the rows' values, and nobody else's to change.
#[test]
fn its_own_rows_are_the_routers() {
    let (bed, _turn) = BEDS.take();
    let mut pair = Pair::new(bed, "email text");
    let pair = &mut pair;
    pair.succeeds("INSERT INTO $T VALUES (1, 'a'), (2, 'b'), (3, 'c')");
    let index = pair.text("$T_email_key");
    let message = format!("cannot change global unique index \"{index}\"");
    for write in [
        "INSERT INTO $T_email_key VALUES ('z', 1)",
        "INSERT INTO public.$T_email_key SELECT 'z', 1",
        "UPDATE $T_email_key SET id = 7",
        "UPDATE ONLY public.$T_email_key SET id = 7 WHERE email = 'a'",
        "DELETE FROM ONLY \"$T_email_key\" WHERE email = 'a'",
        "WITH gone AS (DELETE FROM $T_email_key RETURNING *) SELECT * FROM gone",
        "TRUNCATE $T, $T_email_key",
        "DELETE FROM $T_email_key_changes",
        "MERGE INTO $T_email_key AS k USING (VALUES ('a')) AS v (email) ON k.email = v.email WHEN MATCHED THEN DELETE",
    ] {
        let write = pair.text(write);
        pair.router.refused(&write, "42809", &message);
        let failure = pair.router.extended(&write, &[], 0).failure.unwrap();
        assert_eq!(failure.sqlstate(), "42809", "{write}");
    }
    let copied = pair.text("COPY $T_email_key FROM STDIN");
    pair.router.refused(&copied, "42809", &message);
    let kept = pair.text("global unique index \"$T_email_key\" would not be kept any more");
    for change in [
        "DROP TABLE $T_email_key",
        "DROP TABLE $T_email_key_changes CASCADE",
        "ALTER TABLE $T_email_key_changes RENAME TO other",
    ] {
        let change = pair.text(change);
        pair.router.refused(&change, "0A000", &kept);
    }
    // It may be read, and its values be stored elsewhere.
    let create = "CREATE TABLE copied_$T (email text)";
    let copy = "INSERT INTO copied_$T SELECT email FROM $T_email_key";
    for sql in [create, copy, "DROP TABLE copied_$T"] {
        let sql = pair.text(sql);
        pair.router.run(&sql).succeeded();
    }
    pair.check();
}

/// Without triggers it would not be kept.
#[test]
fn not_without_its_triggers() {
    let (bed, _turn) = BEDS.take();
    let mut pair = Pair::new(bed, "email text");
    let grant = "GRANT SET ON PARAMETER session_replication_role TO app";
    for shard in bed.cluster().shards() {
        bed.cluster()
            .superuser_sql(shard.primary.as_ref(), "shop", grant)
            .unwrap();
    }
    let message = pair
        .text("writing table \"$T\" with session_replication_role = 'replica' is not supported");
    pair.succeeds("INSERT INTO $T VALUES (1, 'a')");
    let insert = pair.text("INSERT INTO $T VALUES (2, 'a')");
    let router = &mut pair.router;
    router
        .run("SET session_replication_role = replica")
        .succeeded();
    router.refused(&insert, "0A000", &message);
    router.run("BEGIN").succeeded();
    assert_eq!(router.run(&insert).sqlstate(), Some("0A000"));
    router.run("ROLLBACK").succeeded();
    router.run("RESET session_replication_role").succeeded();
    router.run("BEGIN").succeeded();
    router
        .run("SET LOCAL session_replication_role = 'replica'")
        .succeeded();
    assert_eq!(router.run(&insert).sqlstate(), Some("0A000"));
    router.run("ROLLBACK").succeeded();
    pair.check();
}

/// Other routers know of it within a second or so; until then they may refuse, and store nothing twice.
#[test]
fn another_router_and_another_user() {
    let (bed, _turn) = BEDS.take();
    let second = bed.another_router("", &|node| node.port());
    let mut other = Client::connect(&Login::new(second.port()));
    other.run("SELECT 1").succeeded();
    let mut pair = Pair::new(bed, "email text");
    pair.succeeds("INSERT INTO $T VALUES (1, 'a')");
    let insert = pair.text("INSERT INTO $T VALUES (2, 'a')");
    eventually("the other router knows", || {
        let sqlstate = other.run(&insert).failure.unwrap().sqlstate().to_owned();
        assert!(sqlstate == "23505" || sqlstate == "55000", "{sqlstate}");
        sqlstate == "23505"
    });
    other.run(&insert.replace("'a'", "'b'")).succeeded();
    pair.is_duplicate_here("INSERT INTO $T VALUES (3, 'b')");
    // Who may only write the table keeps its index, and cannot read it.
    let grant =
        pair.text("CREATE ROLE writer_$T; GRANT INSERT ON $T TO writer_$T; GRANT writer_$T TO app");
    for shard in bed.cluster().shards() {
        bed.cluster()
            .superuser_sql(shard.primary.as_ref(), "shop", &grant)
            .unwrap();
    }
    let router = &mut pair.router;
    router
        .run(&format!("SET ROLE writer_{}", pair.table))
        .succeeded();
    router
        .run(&insert.replace("(2, 'a')", "(4, 'd')"))
        .succeeded();
    let failure = router
        .run(&insert.replace("(2, 'a')", "(5, 'd')"))
        .failure
        .unwrap();
    assert_eq!(failure.sqlstate(), "23505", "{failure:?}");
    let read = router.run(&format!("SELECT * FROM {}_email_key", pair.table));
    assert_eq!(read.sqlstate(), Some("42501"));
}

/// Waits until nothing is prepared on any shard, and nobody is in a transaction.
#[track_caller]
fn all_has_ended(bed: &Bed) {
    let open = "SELECT (SELECT count(*) FROM pg_prepared_xacts) + (SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in%')";
    eventually("all has ended", || {
        let mut shards = bed.cluster().shards().iter();
        shards.all(|shard| bed.cluster().sql(shard.primary.as_ref(), open).unwrap() == "0")
    });
}

/// Killed while one shard is prepared and nothing is decided yet: neither the row is there nor its value.
#[test]
fn a_router_that_is_killed_before_the_decision() {
    let (bed, _turn) = BEDS.take();
    let mut pair = Pair::new(bed, "email text");
    let insert = pair.apart(1);
    let mut victim = bed.another_router("", &|node| node.port());
    let mut client = Client::connect(&Login::new(victim.port()));
    let first = bed.cluster().shard(0).primary.as_ref();
    let mut holder = bed.node_client(first);
    holder.run("BEGIN").succeeded();
    holder
        .run("LOCK switchyard.decisions IN EXCLUSIVE MODE")
        .succeeded();
    let told = std::thread::scope(|scope| {
        let inserting = scope.spawn(|| client.try_run(&insert));
        eventually("one shard is prepared", || {
            let prepared = "SELECT count(*) FROM pg_prepared_xacts";
            let second = bed.cluster().shard(1).primary.as_ref();
            bed.cluster().sql(second, prepared).unwrap() == "1"
        });
        victim.process().kill();
        inserting.join().unwrap()
    });
    assert!(told.is_none(), "{told:?}");
    holder.run("ROLLBACK").succeeded();
    all_has_ended(bed);
    pair.check_index();
    pair.router.run(&insert).succeeded();
    pair.check_index();
}

/// Killed at any time: what was acknowledged is there, and the index has the rows' values, and no others.
#[test]
fn routers_that_are_killed_while_they_write() {
    let (bed, _turn) = BEDS.take();
    let mut pair = Pair::new(bed, "email text");
    let table = pair.table.clone();
    for round in 0..4 {
        let mut victim = bed.another_router("", &|node| node.port());
        let mut client = Client::connect(&Login::new(victim.port()));
        let told = AtomicU32::new(0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for number in 0.. {
                    let id = round * 100_000 + number;
                    let insert = format!("INSERT INTO {table} VALUES ({id}, 'v{id}')");
                    match client.try_run(&insert) {
                        Some(reply) => drop(reply.succeeded()),
                        None => return,
                    }
                    told.fetch_add(1, Ordering::Relaxed);
                }
            });
            // Each time at another point of a statement.
            eventually("rows come", || told.load(Ordering::Relaxed) > 20 + round);
            victim.process().kill();
        });
        all_has_ended(bed);
        let least = round * 100_000;
        let count = pair.text(&format!("SELECT count(*) FROM $T WHERE id >= {least}"));
        let count: u32 = pair.router.run(&count).value().parse().unwrap();
        let told = told.load(Ordering::Relaxed);
        assert!(count == told || count == told + 1, "{count} {told}");
        pair.check_index();
    }
}

/// Statements made at random, by a few values: the same comes of them, and the same is stored.
#[test]
fn random_writes() {
    let (bed, _turn) = BEDS.take();
    let mut pair = Pair::new(bed, "email text, name text");
    let mut chance = Chance::of(1, 1);
    let mut failed = 0;
    for number in 0..200 {
        let (id, other) = (chance.below(12), chance.below(12));
        let (value, second) = (chance.below(15), chance.below(15));
        let sql = match chance.below(12) {
            0..=2 => format!(
                "INSERT INTO $T VALUES ({id}, 'v{value}', 'n{number}') ON CONFLICT (id) DO UPDATE SET email = excluded.email, name = 'again' RETURNING *"
            ),
            3 => format!(
                "INSERT INTO $T VALUES ({}, 'v{value}'), ({}, NULL)",
                100 + number,
                1000 + number
            ),
            4 | 5 => {
                format!("UPDATE $T SET email = 'v{value}' WHERE id = {id} RETURNING id, email")
            }
            6 => format!("UPDATE $T SET email = NULL, name = name || '.' WHERE email = 'v{value}'"),
            7 => format!("DELETE FROM $T WHERE id = {id} OR email = 'v{value}'"),
            8 => format!("UPDATE $T SET id = {} WHERE id = {id}", 20 + other),
            9 => format!(
                "MERGE INTO $T AS t USING (VALUES ({id}::int8)) AS v (id) ON t.id = v.id WHEN MATCHED THEN UPDATE SET email = 'v{value}' WHEN NOT MATCHED THEN INSERT VALUES (v.id, 'v{second}', 'm')"
            ),
            10 => format!("DELETE FROM $T WHERE email = 'v{value}' RETURNING *"),
            _ => match pair.router.status {
                b'I' => "BEGIN".to_owned(),
                b'E' => "ROLLBACK".to_owned(),
                _ if chance.percent(50) => "COMMIT".to_owned(),
                _ => "ROLLBACK".to_owned(),
            },
        };
        let reply = pair.run_or_refused(&sql);
        failed += usize::from(reply.sqlstate() == Some("23505"));
        if pair.router.status != b'E' {
            pair.check();
        }
        if pair.router.status == b'E' && chance.percent(60) {
            pair.succeeds("ROLLBACK");
        }
    }
    assert!(failed > 10, "{failed}");
}
