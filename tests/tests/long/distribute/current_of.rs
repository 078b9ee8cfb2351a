//! WHERE CURRENT OF cursors, of one shard or of several, and a global unique index: kept statement by statement.

use switchyard_tests::{Client, Reply};

use super::unique::BEDS;

fn run(client: &mut Client, sql: &str, extended: bool) -> Reply {
    match extended {
        true => client.extended(sql, &[], 0),
        false => client.run(sql),
    }
}

#[test]
fn values_are_unique() {
    let (bed, _turn) = BEDS.take();
    let mut client = bed.client();
    for sql in [
        "CREATE TABLE letters (id int8 PRIMARY KEY, email text)",
        "SELECT create_distributed_table('letters', 'id')",
        "SELECT create_global_unique_index('letters', 'email')",
    ] {
        client.run(sql).succeeded();
    }
    for (query, extended) in [
        ("WHERE id = 3", false),
        ("WHERE id = 3", true),
        ("WHERE id < 4 ORDER BY id DESC", false),
        ("WHERE id < 4 ORDER BY id DESC", true),
    ] {
        client.run("DELETE FROM letters").succeeded();
        client
            .run("INSERT INTO letters SELECT n, 'mail' || n FROM generate_series(1, 9) AS n")
            .succeeded();
        for sql in [
            "BEGIN",
            &format!("DECLARE c CURSOR FOR SELECT id FROM letters {query} FOR UPDATE"),
            "MOVE c",
            "SAVEPOINT s",
        ] {
            client.run(sql).succeeded();
        }
        let same = "UPDATE letters SET email = 'mail8' WHERE CURRENT OF c";
        assert_eq!(
            run(&mut client, same, extended).sqlstate(),
            Some("23505"),
            "{query}"
        );
        client.run("ROLLBACK TO s").succeeded();
        let other = "UPDATE letters SET email = 'other' WHERE CURRENT OF c RETURNING id, email";
        assert_eq!(
            run(&mut client, other, extended).succeeded().texts(),
            [["3", "other"]]
        );
        client.run("COMMIT").succeeded();
        let insert = |id: u32, email: &str| format!("INSERT INTO letters VALUES ({id}, '{email}')");
        assert_eq!(
            client.run(&insert(20, "other")).sqlstate(),
            Some("23505"),
            "{query}"
        );
        client.run(&insert(21, "mail3")).succeeded();
    }
    client.run("DROP TABLE letters").succeeded();
}
