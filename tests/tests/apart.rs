//! Statements around queries of several shards' rows, where a plain server is no measure: what EXPLAIN says, how many cursors
//! there may be, and that nothing remains of them.

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use switchyard_tests::cluster::ClusterSpec;
use switchyard_tests::{Bed, BedSpec, Client, Reply};

static BED: OnceLock<Bed> = OnceLock::new();

/// Two primaries; each lends two workspaces, and nobody waits long.
fn bed() -> &'static Bed {
    BED.get_or_init(|| {
        let router = "workspace_sessions = 2\nquery_wait_timeout = \"300ms\"";
        Bed::start(BedSpec::of(ClusterSpec::for_tests(2, 0)).with_router(router))
    })
}

/// One test at a time: there are few workspaces.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn lines(reply: Reply) -> Vec<String> {
    let reply = reply.succeeded();
    assert_eq!(reply.tag.as_deref(), Some("EXPLAIN"));
    let columns = reply.columns.as_ref().unwrap();
    assert_eq!(columns.len(), 1);
    assert_eq!((&*columns[0].name, columns[0].type_oid), ("QUERY PLAN", 25));
    reply.texts().concat()
}

/// The lines with the names of shards as they are, and each block of what PostgreSQL says as its first line.
#[track_caller]
fn starts(lines: &[String], expected: &[&str]) {
    let found: Vec<&str> = lines.iter().map(String::as_str).collect();
    let mut at = 0;
    for line in expected {
        let rest = &found[at..];
        let position = rest.iter().position(|found| found.starts_with(line));
        let Some(position) = position else {
            panic!(
                "{line:?} is not where it should be in\n{}",
                found.join("\n")
            );
        };
        at += position + 1;
    }
}

#[test]
fn each_shard_explains_its_part_of_rows_that_are_appended() {
    let _turn = turn();
    let mut client = bed().client();
    let plan = lines(client.run("EXPLAIN (COSTS OFF) SELECT id FROM users WHERE name = 'x'"));
    starts(
        &plan,
        &[
            "Append of all shards (read)",
            "  Shard s0",
            "    Seq Scan on users",
            "      Filter: (name = 'x'::text)",
            "  Shard s1",
            "    Seq Scan on users",
        ],
    );
    assert_eq!(plan.len(), 7, "{plan:?}");
}

#[test]
fn each_shard_explains_the_text_made_for_it_where_rows_are_merged() {
    let _turn = turn();
    let mut client = bed().client();
    let sql =
        "EXPLAIN (COSTS OFF) SELECT country, avg(id) FROM users WHERE id > 7 GROUP BY country";
    let plan = lines(client.run(sql));
    starts(
        &plan,
        &[
            "Merge of the shards of users > 7 (read)",
            "  Merge by 1 character",
            "  One row of those with equal keys",
            "    2: average of sum 3 numeric and count 4",
            "  Text: SELECT country, avg(id), pg_catalog.sum(id)",
            "  Shard s0",
            "            Group Key: country",
            "  Shard s1",
        ],
    );
    let sql = "EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) SELECT id FROM users ORDER BY id LIMIT 3";
    starts(
        &lines(client.run(sql)),
        &[
            "Merge of all shards (read)",
            "  Shard s0",
            "    Limit (actual rows=3",
        ],
    );
}

#[test]
fn a_workspace_is_explained_without_rows() {
    let _turn = turn();
    let mut client = bed().client();
    client.run("SET switchyard.layer = 'workspace'").succeeded();
    let sql = "EXPLAIN (COSTS OFF) SELECT country, count(DISTINCT name) FROM users WHERE id > 7 GROUP BY country";
    let plan = lines(client.run(sql));
    starts(
        &plan,
        &[
            "Workspace (read)",
            "  Reason: ",
            "  Fetch users (",
            "    Shard s0",
            "      ",
            "    Shard s1",
            "  Statement",
            "    GroupAggregate",
        ],
    );
    assert!(plan.iter().any(|line| line.contains("id > 7")), "{plan:?}");
    assert!(
        !plan.iter().any(|line| line.contains("Fetched")),
        "{plan:?}"
    );
    // The same by the extended protocol, with a parameter.
    let sql = "EXPLAIN (COSTS OFF) SELECT country, count(DISTINCT name) FROM users WHERE id > $1 GROUP BY country";
    let extended = lines(client.extended(sql, &[Some("7")], 1));
    assert_eq!(extended.len(), plan.len());
    starts(
        &extended,
        &["Workspace (read)", "  Statement", "    GroupAggregate"],
    );
}

#[test]
fn analyze_tells_what_was_fetched() {
    let _turn = turn();
    let mut client = bed().client();
    client.run("SET switchyard.layer = 'workspace'").succeeded();
    let count = client
        .run("SELECT count(*) FROM users WHERE id > 7")
        .value();
    let sql = "EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) SELECT country, count(DISTINCT name) FROM users WHERE id > 7 GROUP BY country";
    let plan = lines(client.run(sql));
    let fetched = format!("    Fetched: {count} rows, ");
    starts(
        &plan,
        &[
            "  Fetch users (",
            &fetched,
            "    Shard s0",
            "  Statement",
            "    GroupAggregate (actual rows=",
        ],
    );
}

#[test]
fn of_rows_that_are_only_counted_those_that_are_alike_come_as_one() {
    let _turn = turn();
    let mut client = bed().client();
    client.run("SET switchyard.layer = 'workspace'").succeeded();
    let alike = |shard: &str| {
        let sql = "SELECT count(DISTINCT product_id) FROM order_items WHERE quantity > 1";
        let sql = format!("/* switchyard: shard={shard} */ {sql}");
        client.run(&sql).value().parse::<u32>().unwrap()
    };
    let rows: u32 = ["s0", "s1"].map(alike).iter().sum();
    let sql = "EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) SELECT u.id, count(i.line), sum(i.price) AS spent \
        FROM users u LEFT JOIN order_items i ON i.product_id = u.id AND i.quantity > 1 GROUP BY u.id";
    let plan = lines(client.run(sql));
    let fetched = format!("    Fetched: {rows} rows, ");
    let parts = r#"    If far fewer: one row for each product_id, with pg_catalog.count("line"), pg_catalog.sum("price")"#;
    starts(
        &plan,
        &[
            "Workspace (read)",
            "  Fetch order_items (",
            "    Only: quantity > 1",
            parts,
            &fetched,
            "    Shard s0",
            "      HashAggregate",
            "    Shard s1",
            "  Statement",
        ],
    );
}

#[test]
fn of_a_part_that_shards_do_its_rows_are_fetched() {
    let _turn = turn();
    let mut client = bed().client();
    let groups = |shard: &str| {
        let sql =
            format!("/* switchyard: shard={shard} */ SELECT count(DISTINCT country) FROM users");
        client.run(&sql).value().parse::<u32>().unwrap()
    };
    let rows: u32 = ["s0", "s1"].map(groups).iter().sum();
    let sql = "EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) \
        SELECT upper(country), 2 * count(*) FROM ONLY users GROUP BY country HAVING count(*) > 0";
    let plan = lines(client.run(sql));
    let fetched = format!("    Fetched: {rows} rows, ");
    starts(
        &plan,
        &[
            "Workspace (read)",
            "  Rows made by all shards",
            "    Text: ",
            "    Finished by: ",
            &fetched,
            "    Shard s0",
            "      HashAggregate",
            "    Shard s1",
            "  Statement",
            "    ",
        ],
    );
    // The sum of floating-point numbers depends on their order: the rows themselves are fetched.
    let sql = "EXPLAIN (COSTS OFF) SELECT sum(id::float8) + 1 FROM ONLY users";
    let plan = lines(client.run(sql));
    starts(
        &plan,
        &["Workspace (read)", "  Fetch ONLY users (", "  Statement"],
    );
    assert!(
        !plan.iter().any(|line| line.contains("Finished by")),
        "{plan:?}"
    );
}

#[test]
fn a_bind_join_is_explained_by_what_is_given_and_what_the_shards_then_do() {
    let _turn = turn();
    let mut client = bed().client();
    let query = "SELECT i.order_id, p.name FROM order_items i JOIN products p ON p.id = i.product_id WHERE i.user_id = 3";
    let fetch = "  Fetch order_items (order_id, product_id) from the shard of order_items = 3, to be given by product_id";
    let plan = lines(client.run(&format!("EXPLAIN (COSTS OFF) {query}")));
    starts(
        &plan,
        &[
            "Bind join (read)",
            "  Reason: joining \"order_items\" and \"products\" across shards",
            fetch,
            "    Only: user_id = 3",
            "    Shard s",
            "      Limit",
            "  Append of all shards (read)",
            "    Shard s0",
            "      ",
            "    Shard s1",
            "      ",
            "  Workspace instead, if ",
        ],
    );
    let items = client
        .run("SELECT count(*) FROM order_items WHERE user_id = 3")
        .value();
    let fetched = format!("    Fetched: {items} rows, ");
    let joins = "switchyard_bind_joins_total{database=\"shop\"} ";
    let before = bed().router().metric(joins);
    let sql = format!("EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) {query}");
    let plan = lines(client.run(&sql));
    starts(
        &plan,
        &[
            "Bind join (read)",
            fetch,
            &fetched,
            "    Shard s",
            "  Append of all shards (read)",
            "    Shard s0",
            "    Shard s1",
        ],
    );
    // Each shard is given the rows for its own products.
    let given = plan.iter().filter_map(|line| {
        let (_, rows) = line.split_once("Function Scan on given (actual rows=")?;
        rows.split(' ').next()?.parse::<usize>().ok()
    });
    let given: Vec<usize> = given.collect();
    assert_eq!(given.len(), 2, "{plan:#?}");
    assert_eq!(given.iter().sum::<usize>().to_string(), items, "{plan:#?}");
    // It is made once, and its rows are fetched once: what the shard says of them is what it would do.
    assert_eq!(bed().router().metric(joins), before + 1.0);
    let fetching = plan
        .iter()
        .take_while(|line| !line.contains("Append of"))
        .filter(|line| line.contains("actual"));
    assert_eq!(fetching.count(), 0, "{plan:#?}");
}

#[test]
fn what_is_given_and_finished_in_a_workspace_is_explained() {
    let _turn = turn();
    let mut client = bed().client();
    let query = "SELECT upper(p.name), 1 + count(*) FROM order_items i JOIN products p ON p.id = i.product_id \
                 WHERE i.user_id < $1 GROUP BY 1";
    for (options, fetched) in [
        ("COSTS OFF", "      Limit"),
        ("ANALYZE, TIMING OFF", "    Fetched: "),
    ] {
        let sql = format!("EXPLAIN ({options}) {query}");
        starts(
            &lines(client.extended(&sql, &[Some("3")], 1)),
            &[
                "Bind join (read)",
                "  Fetch order_items (product_id) from the shards of order_items < $1, to be given by product_id",
                "    Only: user_id < $1",
                fetched,
                "  Workspace (read)",
                "    Rows made by all shards",
                "      Text:  WITH \"order_items\" (",
                "      Finished by: SELECT",
                "      Shard s0",
                "      Shard s1",
                "    Statement",
                "      Subquery Scan on switchyard",
            ],
        );
    }
}

#[test]
fn a_bind_join_that_has_too_many_rows_is_explained_as_a_workspace() {
    let _turn = turn();
    let mut client = bed().client();
    client.run("SET switchyard.layer = 'bind join'").succeeded();
    client.run("BEGIN").succeeded();
    let many = "INSERT INTO products (id, sku, name, price) SELECT n, gen_random_uuid(), repeat('x', 1000), 1 FROM generate_series(100000, 101200) n";
    client
        .run(&format!("/* switchyard: shard=s0 */ {many}"))
        .succeeded();
    let sql = "EXPLAIN (ANALYZE, COSTS OFF) SELECT max(name), count(DISTINCT name) FROM products";
    let plan = lines(client.run(sql));
    starts(
        &plan,
        &[
            "Workspace (read)",
            "  Bind join, if few: products (about ",
            "  Fetch products (",
            "    Fetched: ",
            "  Statement",
        ],
    );
    client.run("ROLLBACK").succeeded();
}

#[test]
fn what_cannot_be_explained_is_an_error() {
    let _turn = turn();
    let mut client = bed().client();
    let wrong = client.run("EXPLAIN SELECT nope FROM users ORDER BY 1");
    assert_eq!(wrong.sqlstate(), Some("42703"));
    let json = client.run("EXPLAIN (FORMAT json) SELECT count(*) FROM users");
    assert_eq!(json.sqlstate(), Some("0A000"));
    let divided = client.run("EXPLAIN ANALYZE SELECT sum(1 / (id - 3)) FROM users");
    assert_eq!(divided.sqlstate(), Some("22012"));
    assert_eq!(client.run("SELECT 1").value(), "1");
    let changes = client.run("EXPLAIN INSERT INTO countries (code, name) VALUES ('xx', 'x')");
    starts(&lines(changes), &["Insert on countries"]);
}

/// Whether a workspace on any shard has left something.
fn remains(client: &mut Client) -> Vec<String> {
    let what = "SELECT count(*) FROM pg_class WHERE relpersistence = 't' AND relname IN ('users', 'orders')";
    let on = |shard: &str| format!("/* switchyard: shard={shard} */ {what}");
    ["s0", "s1"]
        .iter()
        .map(|shard| client.run(&on(shard)).value())
        .collect()
}

#[test]
fn cursors_are_bounded_and_leave_nothing() {
    // A session keeps to one shard for its workspaces.
    let _turn = turn();
    let mut client = bed().client();
    client.run("BEGIN").succeeded();
    let declare = |name: &str| {
        format!("DECLARE {name} CURSOR WITH HOLD FOR SELECT id FROM users ORDER BY id")
    };
    client.run(&declare("a")).succeeded();
    client.run(&declare("b")).succeeded();
    let third = client.run(&declare("c"));
    assert_eq!(third.sqlstate(), Some("53400"), "{third:?}");
    client.run("ROLLBACK").succeeded();
    client.run(&declare("a")).succeeded();
    client.run(&declare("b")).succeeded();
    let mut other = bed().client();
    assert_eq!(remains(&mut other), ["0", "0"]);
    let first = client.run("FETCH 1 FROM a").value();
    assert_eq!(client.run("FETCH 1 FROM b").value(), first);
    client.run("CLOSE a").succeeded();
    client.run(&declare("a")).succeeded();
    client.run("DISCARD ALL").succeeded();
    client.run(&declare("a")).succeeded();
    client.run(&declare("b")).succeeded();
    // Whose client leaves is no hindrance either.
    client.terminate();
    let mut again = bed().client();
    again.run(&declare("a")).succeeded();
    again.run(&declare("b")).succeeded();
    assert_eq!(again.run("FETCH 1 FROM b").value(), first);
}

/// A workspace of a session that keeps others off its tables would wait for that session.
#[test]
fn nobody_waits_for_himself() {
    let _turn = turn();
    let mut client = bed().client();
    let read = "SELECT count(*) FROM users u JOIN products p ON p.id = u.id";
    client.run("SET switchyard.layer = 'workspace'").succeeded();
    let before = client.run(read).succeeded().texts();
    let blocks = [
        "LOCK TABLE users IN ACCESS EXCLUSIVE MODE",
        "ALTER TABLE users ADD COLUMN nickname text",
    ];
    for change in blocks {
        client.run("BEGIN").succeeded();
        client.run(change).succeeded();
        let reply = client.run(read);
        let failure = reply.failure.clone();
        let failure = failure.unwrap_or_else(|| panic!("after {change}: {reply:?}"));
        assert_eq!(failure.sqlstate(), "0A000", "{failure:?}");
        client.run("ROLLBACK").succeeded();
        assert_eq!(client.run(read).succeeded().texts(), before);
    }
}
