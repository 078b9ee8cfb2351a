//! The same text, another meaning: prepared statements under another search path or role, compared with one PostgreSQL.
//! The tables of one name are placed differently, so a plan made for one of them would miss the other's rows.

use std::sync::{Mutex, OnceLock, PoisonError};

use switchyard_tests::cluster::ClusterSpec;
use switchyard_tests::dialogue::{Batch, query, run, step};
use switchyard_tests::{Bed, BedSpec, Client};

static BED: OnceLock<Bed> = OnceLock::new();

const DDL: &str = "\
CREATE SCHEMA one;
CREATE SCHEMA two;
CREATE TABLE one.things (id bigint PRIMARY KEY, owner bigint, what text);
CREATE TABLE two.things (id bigint, owner bigint PRIMARY KEY, what text);
";

/// A role with the name of a schema, which the clients' user may take.
const ROLE: &str = "\
CREATE ROLE two;
GRANT two TO app;
GRANT USAGE ON SCHEMA one, two TO two;
GRANT SELECT ON one.things, two.things TO two;
";

const TABLES: &str = r#"
[[databases.tables]]
name   = "one.things"
method = "hash"
shard_key = "id"

[[databases.tables]]
name   = "two.things"
method = "hash"
shard_key = "owner"
"#;

fn bed() -> &'static Bed {
    BED.get_or_init(|| {
        let cluster = ClusterSpec::for_tests(2, 0).with_oracle();
        let spec = BedSpec::of(cluster)
            .with_router("pool_size = 1")
            .with_tables(DDL, TABLES);
        let bed = Bed::start(spec);
        let primaries = bed.cluster().shards().iter();
        let primaries = primaries.map(|shard| shard.primary.as_ref());
        for server in primaries.chain(bed.cluster().oracle()) {
            bed.cluster().superuser_sql(server, "shop", ROLE).unwrap();
        }
        for mut client in [bed.oracle(), bed.client()] {
            for id in 0..16 {
                for schema in ["one", "two"] {
                    let owner = 15 - id;
                    let insert = format!(
                        "INSERT INTO {schema}.things (id, owner, what) VALUES ({id}, {owner}, '{schema} {id}')"
                    );
                    client.run(&insert).succeeded();
                }
            }
        }
        bed
    })
}

/// Two clients take turns, on the oracle and through the router.
#[track_caller]
fn same(steps: Vec<(usize, Batch)>) {
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let pair = |connect: &dyn Fn() -> Client| [connect(), connect()];
    let mut oracle = pair(&|| bed().oracle());
    let mut router = pair(&|| bed().client());
    for (number, (client, batch)) in steps.iter().enumerate() {
        let expected = step(&mut oracle[*client], batch, b'Z');
        assert_eq!(
            expected,
            step(&mut router[*client], batch, b'Z'),
            "step {number}, client {client}; oracle on the left, router on the right"
        );
    }
}

/// For every id once, so that both shards are met.
fn each(make: impl Fn(&str) -> (usize, Batch)) -> Vec<(usize, Batch)> {
    (0..16).map(|id: i32| make(&id.to_string())).collect()
}

/// What the clients say between: one leaves the other's path, then the first takes it.
fn with_paths(prepare: Batch, execute: impl Fn(&str) -> Batch) -> Vec<(usize, Batch)> {
    let path = |client, path: &str| (client, query(&format!("SET search_path = {path}")));
    let mut steps = vec![path(0, "one"), path(1, "two")];
    let both = |steps: &mut Vec<_>| {
        for client in [0, 1] {
            steps.extend(each(|id| (client, execute(id))));
        }
    };
    steps.extend([(0, prepare.clone()), (1, prepare)]);
    both(&mut steps);
    // PostgreSQL analyses a prepared statement again when the path has changed.
    steps.push(path(0, "two"));
    both(&mut steps);
    steps.push(path(0, "one"));
    both(&mut steps);
    steps.extend([
        (0, query("BEGIN")),
        (0, query("SET LOCAL search_path = two")),
        (0, execute("3")),
        (0, execute("4")),
        (0, query("COMMIT")),
    ]);
    both(&mut steps);
    // By the role's name, too.
    steps.push(path(0, "\"$user\", one"));
    steps.extend(each(|id| (0, execute(id))));
    steps.push((0, query("SET ROLE two")));
    steps.extend(each(|id| (0, execute(id))));
    steps.push((0, query("RESET ROLE")));
    both(&mut steps);
    steps
}

const THING: &str = "SELECT what FROM things WHERE id = $1";
const OWNED: &str = "SELECT what FROM things WHERE owner = $1";

#[test]
fn named_statements_of_the_protocol() {
    for sql in [THING, OWNED] {
        same(with_paths(Batch::default().parse("s", sql).sync(), |id| {
            Batch::default().bind("", "s", &[id]).execute("", 0).sync()
        }));
    }
}

#[test]
fn unnamed_statements() {
    for sql in [THING, OWNED] {
        same(with_paths(query("SELECT 1"), |id| run(sql, &[id]).sync()));
    }
}

#[test]
fn an_unnamed_statement_kept_while_the_path_changes() {
    let set = |path: &str| run(&format!("SET search_path = {path}"), &[]).sync();
    let named = |path: &str| {
        Batch::default()
            .parse("path", &format!("SET search_path = {path}"))
            .bind("", "path", &[])
            .execute("", 0)
            .sync()
    };
    let bound = || Batch::default().bind("", "", &["3"]).execute("", 0).sync();
    same(vec![
        (0, set("one")),
        (1, set("two")),
        (0, Batch::default().parse("", OWNED).sync()),
        (0, bound()),
        (0, named("two")),
        (1, run(OWNED, &["3"]).sync()),
        (0, bound()),
    ]);
}

#[test]
fn statements_prepared_by_sql() {
    let prepare = query("PREPARE s AS SELECT what FROM things WHERE id = $1 AND owner = $2");
    same(with_paths(prepare, |id| {
        let owner = 15 - id.parse::<i32>().unwrap();
        query(&format!("EXECUTE s ({id}, {owner})"))
    }));
}

#[test]
fn plain_queries() {
    for sql in [THING, OWNED] {
        same(with_paths(query("SELECT 1"), |id| {
            query(&sql.replace("$1", id))
        }));
    }
}

#[test]
fn a_role_s_own_search_path_is_the_client_s() {
    let cluster = ClusterSpec::for_tests(2, 0).with_oracle();
    let bed = Bed::start(BedSpec::of(cluster).with_tables(DDL, TABLES));
    let primaries = bed.cluster().shards().iter();
    let primaries = primaries.map(|shard| shard.primary.as_ref());
    for server in primaries.chain(bed.cluster().oracle()) {
        let alter = "ALTER ROLE app SET search_path = two";
        bed.cluster().superuser_sql(server, "shop", alter).unwrap();
    }
    let mut clients = [bed.oracle(), bed.client()];
    for owner in 0..8 {
        let insert = format!(
            "INSERT INTO things (id, owner, what) VALUES ({owner}, {}, 'two')",
            7 - owner
        );
        for client in &mut clients {
            client.run(&insert).succeeded();
        }
    }
    let things = "SELECT id, what FROM things WHERE owner = 5";
    for sql in [
        things,
        "SET search_path = one",
        things,
        "RESET search_path",
        things,
        "DISCARD ALL",
        things,
    ] {
        let [expected, answer] = clients.each_mut().map(|client| client.run(sql));
        assert_eq!(answer.sqlstate(), expected.sqlstate(), "{sql}");
        assert_eq!(answer.rows, expected.rows, "{sql}");
    }
}
