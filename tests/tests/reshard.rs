//! Buckets that move while clients work: from two shards to three, back, and at every kill.

use switchyard_tests::{Asks, Client, Login, Reshard};

/// What a client sees of the shop.
fn seen(client: &mut Client) -> String {
    client
        .run(
            "SELECT (SELECT count(*) || ' ' || sum(id) FROM users), (SELECT count(*) || ' ' || sum(user_id) FROM orders),
                    (SELECT count(*) || ' ' || sum(quantity) FROM order_items), (SELECT count(*) FROM products),
                    (SELECT count(*) FROM events), (SELECT count(*) FROM countries)",
        )
        .succeeded()
        .texts()
        .concat()
        .join("; ")
}

#[test]
fn two_shards_become_three_and_two_again() {
    let stand = Reshard::start("", "");
    let mut client = stand.bed.client();
    let other = stand.bed.another_router("", &|node| node.port());
    let mut second = Client::connect(&Login::new(other.port()));
    let before = seen(&mut client);

    let report = stand
        .run(Asks::Three, &["apply", "--yes", "--group-rows", "1000"])
        .succeeded();
    assert!(report.contains(" buckets with "), "{report}");
    stand.is_clean(Asks::Three);
    assert_eq!(seen(&mut client), before);
    assert_eq!(seen(&mut second), before);
    let users = stand.on_all("SELECT count(*) FROM users");
    assert!(
        users
            .iter()
            .all(|count| (60..140).contains(&count.parse().unwrap())),
        "{users:?}"
    );
    assert_eq!(
        stand.on_all("SELECT count(*) FROM countries")[2],
        stand.on_all("SELECT count(*) FROM countries")[0]
    );
    let status = stand.run(Asks::Three, &["status"]).succeeded();
    assert!(
        status.contains("have moved; `finish` accepts it"),
        "{status}"
    );

    // There and back.
    stand.run(Asks::Three, &["rollback", "--yes"]).succeeded();
    stand.is_clean(Asks::Three);
    assert_eq!(stand.superuser(2, "SELECT count(*) FROM users"), "0");
    assert_eq!(seen(&mut second), before);
    stand.run(Asks::Three, &["rollback", "--yes"]).succeeded();
    stand.run(Asks::Three, &["finish"]).succeeded();
    let status = stand.run(Asks::Three, &["status"]).succeeded();
    assert!(status.contains("nothing is moving"), "{status}");
    client
        .run("INSERT INTO countries VALUES ('zz', 'Nowhere')")
        .succeeded();
    assert_eq!(
        stand.on_all("SELECT name FROM countries WHERE code = 'zz'"),
        ["Nowhere"; 3]
    );
    client
        .run("DELETE FROM countries WHERE code = 'zz'")
        .succeeded();

    // And without the third again.
    stand.run(Asks::Two, &["apply", "--yes"]).succeeded();
    stand.is_clean(Asks::Two);
    stand.run(Asks::Two, &["finish"]).succeeded();
    assert_eq!(stand.superuser(2, "SELECT count(*) FROM users"), "0");
    assert_eq!(seen(&mut client), before);
    assert_eq!(seen(&mut second), before);
}
