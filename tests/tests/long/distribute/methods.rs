//! Filled tables by modulo, range and list; arguments as parameters; tables that take the names of others.

use super::{bed, catalog, on_shards, value};

/// A table's key: its type, how it is distributed, and values, of which those that are NULL are written so.
struct Case {
    sql_type: &'static str,
    how: &'static str,
    values: &'static [&'static str],
}

const CASES: &[Case] = &[
    Case {
        sql_type: "smallint",
        how: "'modulo', shards => '[\"s1\", \"s0\", \"s1\"]'",
        values: &["-32768", "-1", "0", "1", "2", "3", "32767", "NULL"],
    },
    Case {
        sql_type: "bigint",
        how: "'modulo'",
        values: &[
            "-9223372036854775808",
            "-1",
            "0",
            "9223372036854775807",
            "NULL",
        ],
    },
    Case {
        sql_type: "integer",
        how: "'range', ranges => '[ { below = -5, shard = \"s1\" }, { below = 10, shard = \"s0\" }, { shard = \"s1\" } ]'",
        values: &["-6", "-5", "9", "10", "NULL"],
    },
    Case {
        sql_type: "text COLLATE \"C\"",
        how: "'range', ranges => '[ { below = \"it''s \\\\\", shard = \"s0\" }, { shard = \"s1\" } ]'",
        values: &["a", "it''s \\", "it''s ", "é", "NULL"],
    },
    Case {
        sql_type: "varchar(5)",
        how: "'list', lists => '[ { values = [\"a\", \"é\"], shard = \"s1\" }, { default = true, shard = \"s0\" } ]'",
        values: &["a", "A", "é", "a ", "NULL"],
    },
    Case {
        sql_type: "char(4) COLLATE \"C\"",
        how: "'range', ranges => '[ { below = \"b \", shard = \"s0\" }, { shard = \"s1\" } ]'",
        values: &["a", "b", "b!", "NULL"],
    },
    Case {
        sql_type: "uuid",
        how: "'list', lists => '[ { values = [\"6ba7b8109dad11d180b400c04fd430c8\"], shard = \"s1\" }, { default = true, shard = \"s0\" } ]'",
        values: &[
            "6ba7b810-9dad-11d1-80b4-00c04fd430c8",
            "6ba7b810-9dad-11d1-80b4-00c04fd430c9",
        ],
    },
    Case {
        sql_type: "bytea",
        how: "'range', ranges => '[ { below = ''\\x80'', shard = \"s0\" }, { shard = \"s1\" } ]'",
        values: &["\\x7f", "\\x80", "\\x", "NULL"],
    },
    Case {
        sql_type: "date",
        how: "'range', ranges => '[ { below = 2026-01-01, shard = \"s0\" }, { shard = \"s1\" } ]'",
        values: &["2025-12-31", "2026-01-01", "infinity", "-infinity"],
    },
    Case {
        sql_type: "timestamp",
        how: "'list', lists => '[ { values = [2026-01-01T12:00:00], shard = \"s1\" }, { default = true, shard = \"s0\" } ]'",
        values: &["2026-01-01 12:00:00", "2026-01-01 12:00:00.000001"],
    },
    Case {
        sql_type: "timestamptz",
        how: "'range', ranges => '[ { below = 2026-01-01T00:00:00, shard = \"s0\" }, { shard = \"s1\" } ]'",
        values: &[
            "2026-01-01 01:59:59.999999+02",
            "2026-01-01 02:00:00+02",
            "NULL",
        ],
    },
    Case {
        sql_type: "numeric",
        how: "'list', lists => '[ { values = [1.50, \"NaN\"], shard = \"s1\" }, { default = true, shard = \"s0\" } ]'",
        values: &["1.5", "1.500", "1.51", "NaN"],
    },
    Case {
        sql_type: "boolean",
        how: "'list', lists => '[ { values = [true], shard = \"s1\" }, { default = true, shard = \"s0\" } ]'",
        values: &["true", "false", "NULL"],
    },
];

/// Settings that change what constants mean do not change where rows go.
#[test]
fn rows_go_where_they_are_looked_for() {
    let bed = bed();
    let mut client = bed.client();
    for sql in ["SET timezone = 'Asia/Tokyo'", "SET datestyle = 'SQL, DMY'"] {
        client.run(sql).succeeded();
    }
    for (number, case) in CASES.iter().enumerate() {
        let table = format!("t{number}");
        let Case {
            sql_type,
            how,
            values,
        } = case;
        client
            .run(&format!("CREATE TABLE {table} (key {sql_type}, n int)"))
            .succeeded();
        let constant = |value: &&str| match *value {
            "NULL" => "NULL".to_owned(),
            value => format!("'{value}'"),
        };
        for (n, value) in values.iter().enumerate() {
            let insert = format!("INSERT INTO {table} VALUES ({}, {n})", constant(value));
            client.run(&insert).succeeded();
        }
        client
            .run(&format!(
                "SELECT create_distributed_table('{table}', 'key', {how})"
            ))
            .succeeded();
        let counts = on_shards(&bed, &format!("SELECT count(*) FROM {table}"));
        assert!(counts.iter().all(|count| count != "0"), "{how}: {counts:?}");
        assert_eq!(
            value(&mut client, &format!("SELECT count(*) FROM {table}")),
            values.len().to_string()
        );
        for (n, key) in values.iter().enumerate() {
            let condition = match *key {
                "NULL" => "key IS NULL".to_owned(),
                _ => format!("key = {}", constant(key)),
            };
            let found = client.run(&format!(
                "SELECT n FROM {table} WHERE {condition} AND n = {n}"
            ));
            assert_eq!(found.succeeded().value(), n.to_string(), "{sql_type} {key}");
            let plan = client.run(&format!(
                "EXPLAIN SELECT n FROM {table} WHERE {condition} AND n = {n}"
            ));
            let plan = plan.succeeded().value();
            assert!(
                *key == "NULL" || !plan.starts_with("Append"),
                "{sql_type} {key}: {plan}"
            );
        }
    }
}

#[test]
fn a_table_follows_another_by_whatever_method() {
    let bed = bed();
    let mut client = bed.client();
    for sql in [
        "CREATE TABLE a (id int PRIMARY KEY)",
        "CREATE TABLE b (id int, a bigint)",
        "INSERT INTO a SELECT generate_series(1, 20)",
        "INSERT INTO b SELECT n, n % 20 + 1 FROM generate_series(1, 100) AS n",
    ] {
        client.run(sql).succeeded();
    }
    let ranges = "[ { below = 8, shard = \"s1\" }, { shard = \"s0\" } ]";
    client
        .run(&format!(
            "SELECT create_distributed_table('a', 'id', 'range', ranges => '{ranges}')"
        ))
        .succeeded();
    let notice = client.notices.pop().unwrap();
    let entry = format!("shard_key = \"id\", method = \"range\", ranges = {ranges}");
    assert!(notice.message().ends_with(&entry), "{notice:?}");
    assert_eq!(on_shards(&bed, "SELECT count(*) FROM a"), ["13", "7"]);
    let wrong = "SELECT create_distributed_table('b', 'a', 'hash', colocate_with => 'a')";
    client.refused(wrong, "42804", "table \"a\" is distributed by range");
    client
        .run("SELECT create_distributed_table('b', 'a', colocate_with => 'a')")
        .succeeded();
    assert_eq!(on_shards(&bed, "SELECT count(*) FROM b"), ["65", "35"]);
    let joined = "SELECT count(*) FROM a JOIN b ON a = a.id";
    assert_eq!(value(&mut client, joined), "100");
    client.run("SELECT undistribute_table('b')").succeeded();
    assert_eq!(on_shards(&bed, "SELECT count(*) FROM b"), ["100", "0"]);
    for (how, message) in [
        ("'range'", "ranges is missing"),
        (
            "'list', lists => '[ { default = true, shard = \"nosuch\" } ]'",
            "lists[0].shard: there is no shard \"nosuch\"",
        ),
        (
            "'modulo', ranges => '[]'",
            "ranges: belongs to method range",
        ),
        (
            "'modulo', shards => '[]\nmore = 1'",
            "shards: must name at least one shard",
        ),
        (
            "'modulo', shards => '[\"s0\"]\nmore = 1'",
            "more: is not a key of this section",
        ),
        ("'range', ranges => '[{'", "ranges"),
    ] {
        let sql = format!("SELECT create_distributed_table('b', 'a', {how})");
        let failure = client.run(&sql).failure.unwrap();
        assert_eq!(failure.sqlstate(), "22023", "{failure:?}");
        assert!(
            message == "ranges" || failure.message() == message,
            "{failure:?}"
        );
    }
    let beyond = "SELECT create_distributed_table('b', 'id', 'list', lists => '[ { values = [99999999999], shard = \"s1\" }, { default = true, shard = \"s0\" } ]')";
    let failure = client.run(beyond).failure.unwrap();
    assert_eq!(failure.sqlstate(), "0A000", "{failure:?}");
    assert_eq!(on_shards(&bed, "SELECT count(*) FROM b"), ["100", "0"]);
}

#[test]
fn arguments_may_be_parameters() {
    let bed = bed();
    let mut client = bed.client();
    client
        .run("CREATE TABLE \"It's\" (id int, word text)")
        .succeeded();
    client
        .run("INSERT INTO \"It's\" SELECT n, 'x' FROM generate_series(1, 10) AS n")
        .succeeded();
    let sql =
        "SELECT create_distributed_table($1, $2, distribution_type => $3, colocate_with => $4)";
    assert_eq!(client.parameter_types(sql).unwrap(), [25, 25, 25, 25]);
    let parameters = [Some("\"It's\""), Some("id"), Some("modulo"), None];
    let reply = client.extended(sql, &parameters, 0);
    assert_eq!(reply.tag.as_deref(), Some("SELECT 1"), "{reply:?}");
    assert_eq!(on_shards(&bed, "SELECT count(*) FROM \"It's\""), ["5", "5"]);
    let reply = client.extended(sql, &parameters[..3], 0);
    assert_eq!(reply.sqlstate(), Some("08P01"), "{reply:?}");
    let reply = client.extended("SELECT undistribute_table($1)", &[None], 0);
    assert_eq!(reply.sqlstate(), Some("22004"), "{reply:?}");
    // Values in binary, too, where that is the text.
    let reply = client.extended("SELECT undistribute_table($1)", &[Some("\"It's\"")], 1);
    assert_eq!(reply.tag.as_deref(), Some("SELECT 1"), "{reply:?}");
    assert_eq!(
        on_shards(&bed, "SELECT count(*) FROM \"It's\""),
        ["10", "0"]
    );
}

/// A table that was made in the transaction that has dropped one of its name is as any new table.
#[test]
fn a_new_table_is_not_distributed_as_the_one_before() {
    let bed = bed();
    let mut client = bed.client();
    let entries = "SELECT count(*) FROM switchyard.tables WHERE name = 't'";
    client
        .run("CREATE TABLE t (id int PRIMARY KEY)")
        .succeeded();
    client
        .run("SELECT create_distributed_table('t', 'id')")
        .succeeded();
    assert_eq!(catalog(&bed, entries), "1");
    for reply in client.simple("BEGIN; DROP TABLE t; CREATE TABLE t (id int, word text); COMMIT") {
        reply.succeeded();
    }
    assert_eq!(catalog(&bed, entries), "0");
    client
        .run("INSERT INTO t SELECT generate_series(1, 9)")
        .succeeded();
    assert_eq!(on_shards(&bed, "SELECT count(*) FROM t"), ["9", "0"]);
    client.run("DROP TABLE t").succeeded();
    // Rows that it has got in that transaction are moved to the first shard.
    client
        .run("CREATE TABLE t (id int PRIMARY KEY)")
        .succeeded();
    client
        .run("SELECT create_distributed_table('t', 'id')")
        .succeeded();
    for sql in [
        "BEGIN",
        "DROP TABLE t",
        "CREATE TABLE t (word text, id int)",
        "INSERT INTO t VALUES ('a', 1), ('b', 2), ('c', 3), ('d', 4), ('e', 5)",
        "COMMIT",
    ] {
        client.run(sql).succeeded();
    }
    assert_eq!(catalog(&bed, entries), "0");
    assert_eq!(on_shards(&bed, "SELECT count(*) FROM t"), ["5", "0"]);
    assert_eq!(value(&mut client, "SELECT count(*) FROM t"), "5");
    // Until it commits it is planned by what the other was: it needs the column.
    client
        .run("SELECT create_distributed_table('t', 'id')")
        .succeeded();
    client.run("BEGIN").succeeded();
    client.run("DROP TABLE t").succeeded();
    let failure = client.run("CREATE TABLE t (other text)").failure.unwrap();
    assert_eq!(
        failure.message(),
        "table \"t\" has no column \"id\", which is its shard key"
    );
    client.run("ROLLBACK").succeeded();
    // One that is altered, or rolled back, stays distributed.
    for sql in [
        "BEGIN",
        "DROP TABLE t",
        "CREATE TABLE t (id int)",
        "ROLLBACK",
        "ALTER TABLE t ADD COLUMN more int",
    ] {
        client.run(sql).succeeded();
    }
    assert_eq!(catalog(&bed, entries), "1");
    assert_eq!(value(&mut client, "SELECT count(*) FROM t"), "5");
}
