//! Numbers that every shard makes by itself.

use std::collections::BTreeSet;
use std::thread::spawn;
use std::time::{SystemTime, UNIX_EPOCH};

use switchyard_tests::cluster::{ClusterSpec, Stop};
use switchyard_tests::{Bed, BedSpec, Client, Login, eventually};

/// 2024-01-01, in milliseconds of Unix.
const EPOCH: u128 = 1_704_067_200_000;

const TABLES: &str = "
[[databases.tables]]
name      = \"signals\"
shard_key = \"id\"
method    = \"hash\"

[[databases.tables]]
name      = \"memos\"
shard_key = \"who\"
method    = \"modulo\"
";

fn bed() -> Bed {
    Bed::start(BedSpec::of(ClusterSpec::for_tests(2, 0)).with_tables("", TABLES))
}

fn now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(now.as_millis() - EPOCH).unwrap()
}

fn ids(client: &mut Client, sql: &str) -> Vec<i64> {
    let rows = client.run(sql).succeeded().texts();
    rows.iter().map(|row| row[0].parse().unwrap()).collect()
}

#[test]
fn none_is_made_twice() {
    let bed = bed();
    let mut client = bed.client();
    client
        .run("SELECT create_snowflake_generator()")
        .succeeded();
    let said = client.notices.pop().unwrap();
    let expected = "\"s0\" makes numbers as shard 0, \"s1\" makes numbers as shard 1";
    assert_eq!(said.message(), expected);
    let default = "bigint DEFAULT switchyard.gen_snowflake_id()";
    client
        .run(&format!(
            "CREATE TABLE signals (id {default} PRIMARY KEY, word text)"
        ))
        .succeeded();
    client
        .run(&format!("CREATE TABLE memos (who int, id {default})"))
        .succeeded();
    let begun = now();
    let port = bed.router().port();
    let writers: Vec<_> = (0..4).map(|_| spawn(move || write(port))).collect();
    let mut all: Vec<i64> = writers
        .into_iter()
        .flat_map(|writer| writer.join().unwrap())
        .collect();
    all.extend(ids(&mut client, "SELECT id FROM memos"));
    let distinct: BTreeSet<i64> = all.iter().copied().collect();
    assert_eq!(distinct.len(), all.len());
    assert_eq!(all.len(), 4 * (20 * 3 + 1) + 4 * 4 * 20);
    let shards: BTreeSet<i64> = all.iter().map(|id| id >> 12 & 1023).collect();
    assert_eq!(shards, BTreeSet::from([0, 1]));
    let times = || all.iter().map(|id| id >> 22);
    assert!(times().min().unwrap() >= begun && times().max().unwrap() <= now() + 1);
    assert_eq!(
        ids(&mut client, "SELECT count(*) FROM signals"),
        [4 * 20 * 3]
    );
    // Each is where it is looked for.
    for id in ids(&mut client, "SELECT id FROM signals LIMIT 10") {
        let found = format!("SELECT count(*) FROM signals WHERE id = {id}");
        assert_eq!(ids(&mut client, &found), [1]);
    }
}

/// In all the ways rows come; the numbers that it has been told of.
fn write(port: u16) -> Vec<i64> {
    let mut client = Client::connect(&Login::new(port));
    let mut own = Vec::new();
    for _ in 0..20 {
        let listed = "INSERT INTO signals (word) VALUES ('a'), ('b') RETURNING id";
        own.extend(ids(&mut client, listed));
        let called = "INSERT INTO signals VALUES (switchyard.gen_snowflake_id(), 'c') RETURNING id";
        own.extend(ids(&mut client, called));
        client.run("INSERT INTO memos VALUES (1), (2)").succeeded();
        let copied = client.copy_in("COPY memos (who) FROM STDIN", b"1\n2\n");
        assert_eq!(copied.tag.as_deref(), Some("COPY 2"), "{copied:?}");
    }
    own.extend(ids(&mut client, "SELECT switchyard.gen_snowflake_id()"));
    let mut sorted = own.clone();
    sorted.sort_by_key(|id| (id >> 12 & 1023, *id));
    own.sort_by_key(|id| id >> 12 & 1023);
    assert_eq!(own, sorted, "a shard's grow");
    own
}

#[test]
fn a_shard_keeps_its_number_and_never_goes_back() {
    let bed = bed();
    let mut client = bed.client();
    client
        .run("SELECT create_snowflake_generator()")
        .succeeded();
    let second = bed.cluster().shard(1).primary.as_ref();
    let make = "SELECT switchyard.gen_snowflake_id()";
    let id = |sql: &str| {
        bed.cluster()
            .sql(second, sql)
            .unwrap()
            .parse::<i64>()
            .unwrap()
    };
    id(make);
    // As if the clock had gone back by an hour.
    let ahead = "SELECT setval('switchyard.snowflake', last_value + (3600000::int8 << 12)) FROM switchyard.snowflake";
    bed.cluster().superuser_sql(second, "shop", ahead).unwrap();
    let before = id(make);
    assert!(before >> 22 > now() + 3_000_000);
    assert_eq!(id(make), before + 1);
    client
        .run("SELECT create_snowflake_generator()")
        .succeeded();
    second.stop(Stop::Kill).unwrap();
    second.start().unwrap();
    eventually("it is back", || {
        bed.cluster().sql(second, "SELECT 1").is_ok()
    });
    assert!(id(make) > before + 1);
    // A copy of another shard is noticed.
    let same = "UPDATE switchyard.snowflake_shard SET number = 0";
    bed.cluster().superuser_sql(second, "shop", same).unwrap();
    eventually("it is refused", || {
        let reply = client.run("SELECT create_snowflake_generator()");
        let failure = reply.failure.as_ref().map(|failure| failure.message());
        failure == Some("two shards make numbers as shard 0")
    });
}

/// Whoever is cancelled holds up nobody.
#[test]
fn a_call_that_is_cancelled_leaves_no_lock() {
    let bed = bed();
    let mut client = bed.client();
    client
        .run("SELECT create_snowflake_generator()")
        .succeeded();
    client.run("SET statement_timeout = '20ms'").succeeded();
    let many = "SELECT count(switchyard.gen_snowflake_id()) FROM generate_series(1, 50000)";
    for _ in 0..30 {
        assert_eq!(client.run(many).sqlstate(), Some("57014"));
    }
    client.run("SET statement_timeout = 0").succeeded();
    let made = ids(&mut client, "SELECT switchyard.gen_snowflake_id()");
    assert_eq!(made.len(), 1);
    let locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'";
    for shard in bed.cluster().shards() {
        let left = bed.cluster().sql(shard.primary.as_ref(), locks).unwrap();
        assert_eq!(left, "0");
    }
}
