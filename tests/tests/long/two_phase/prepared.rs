//! Transactions that clients prepare and end themselves.

use std::time::{Duration, Instant};

use switchyard_tests::cluster::Stop;
use switchyard_tests::{Bed, Hold, Mode, Proxied, Reply, eventually};

use super::{AFTER, BEFORE, at_word, balances, bed, kill, nothing_is_prepared, transfer};

/// What becomes of a transaction that a client prepares or ends itself: the client finds it as it was before, prepared, or ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Left {
    Nothing,
    Prepared,
    Ended,
}

/// A statement, the point at which somebody dies, what has become of the transaction, and what the client is told where it is only the connection.
type ClientsPoint = (
    &'static str,
    (usize, &'static [u8], Hold),
    Left,
    Option<&'static str>,
);

const PREPARE: &str = "PREPARE TRANSACTION 'move'";
const COMMIT: &str = "COMMIT PREPARED 'move'";
const ROLLBACK: &str = "ROLLBACK PREPARED 'move'";

const CLIENTS_POINTS: [ClientsPoint; 13] = {
    const ROW: &[u8] = b"INSERT INTO switchyard.prepared";
    const PART: &[u8] = b"PREPARE TRANSACTION";
    const GONE: Option<&str> = Some("08006");
    [
        (PREPARE, (0, ROW, Hold::Before), Left::Nothing, GONE),
        (PREPARE, (0, ROW, Hold::After), Left::Nothing, GONE),
        (PREPARE, (1, PART, Hold::Before), Left::Nothing, GONE),
        (PREPARE, (1, PART, Hold::After), Left::Nothing, GONE),
        (PREPARE, (0, PART, Hold::Before), Left::Nothing, GONE),
        (PREPARE, (0, PART, Hold::After), Left::Prepared, None),
        (
            COMMIT,
            (0, b"COMMIT PREPARED", Hold::Before),
            Left::Ended,
            None,
        ),
        (
            COMMIT,
            (0, b"COMMIT PREPARED", Hold::After),
            Left::Ended,
            None,
        ),
        (
            COMMIT,
            (1, b"COMMIT PREPARED", Hold::Before),
            Left::Ended,
            None,
        ),
        (
            COMMIT,
            (1, b"COMMIT PREPARED", Hold::After),
            Left::Ended,
            None,
        ),
        (
            ROLLBACK,
            (0, b"ROLLBACK PREPARED", Hold::After),
            Left::Ended,
            None,
        ),
        (
            ROLLBACK,
            (1, b"ROLLBACK PREPARED", Hold::Before),
            Left::Ended,
            None,
        ),
        (
            ROLLBACK,
            (1, b"ROLLBACK PREPARED", Hold::After),
            Left::Ended,
            None,
        ),
    ]
};

/// Brings a client's transaction to a point through a router of its own, and says what the client was told.
fn at_clients_point(
    proxied: &mut Proxied,
    (sql, word, ..): ClientsPoint,
    act: impl FnOnce(&mut Proxied),
) -> Option<Reply> {
    let mut client = proxied.client();
    transfer(&mut client);
    if sql != PREPARE {
        client.run(PREPARE).succeeded();
    }
    at_word((proxied, client, sql), word, act)
}

/// It is as it should be, or comes to be so in a short time; nothing stays prepared in the end.
#[track_caller]
fn is_left(bed: &Bed, (sql, _, left, _): ClientsPoint) {
    let begin = Instant::now();
    let expected = match (left, sql) {
        (Left::Nothing | Left::Prepared, _) | (_, ROLLBACK) => BEFORE,
        (Left::Ended, _) => AFTER,
    };
    let mut client = bed.client();
    let listed = "SELECT count(*) FROM pg_prepared_xacts WHERE gid = 'move'";
    if left == Left::Prepared {
        eventually("the client's part is there", || {
            client.run(listed).value() == "1"
        });
        assert_eq!(balances(bed), BEFORE);
        client.run(COMMIT).succeeded();
        assert!(nothing_is_prepared(bed));
        assert_eq!(balances(bed), AFTER);
        return;
    }
    eventually("nothing stays prepared", || nothing_is_prepared(bed));
    assert!(
        begin.elapsed() < Duration::from_secs(5),
        "{:?}",
        begin.elapsed()
    );
    assert_eq!(balances(bed), expected);
    assert_eq!(client.run(COMMIT).sqlstate(), Some("42704"));
}

#[test]
fn a_router_that_is_killed_while_a_client_prepares() {
    // Those at which somebody else has something to do, or must not do anything.
    for point in [3, 4, 5, 7, 8, 11].map(|at| CLIENTS_POINTS[at]) {
        let (bed, _turn) = bed();
        let mut proxied = Proxied::new(bed, "");
        let told = at_clients_point(&mut proxied, point, kill);
        assert!(told.is_none(), "{point:?}: {told:?}");
        if point.2 == Left::Prepared {
            // Longer than what nobody has prepared stays.
            std::thread::sleep(Duration::from_secs(4));
        }
        println!("{point:?}");
        is_left(bed, point);
    }
}

#[test]
fn a_connection_that_is_lost_while_a_client_prepares() {
    // One of each kind.
    for point in [1, 3, 4, 5, 6, 7, 8, 10, 12].map(|at| CLIENTS_POINTS[at]) {
        let (bed, _turn) = bed();
        let mut proxied = Proxied::new(bed, "");
        let told = at_clients_point(&mut proxied, point, |proxied| {
            let proxy = proxied.of_shard(point.1.0);
            proxy.cut();
            proxy.set(Mode::Forward);
        })
        .unwrap();
        assert_eq!(told.sqlstate(), point.3, "{point:?}: {told:?}");
        println!("{point:?}");
        is_left(bed, point);
    }
}

/// What a client has prepared outlives servers, and may be ended while one of them is away.
#[test]
fn what_a_client_has_prepared_outlives_servers() {
    let (bed, _turn) = bed();
    let mut client = bed.client();
    transfer(&mut client);
    client.run(PREPARE).succeeded();
    let node = |shard: usize| bed.cluster().shard(shard).primary.as_ref();
    for shard in [0, 1] {
        node(shard).stop(Stop::Immediate).unwrap();
        node(shard).start().unwrap();
    }
    eventually("both are back", || {
        let mut client = bed.client();
        let both = client.run("SELECT count(*) FROM accounts");
        both.failure.is_none() && both.value() == "2"
    });
    node(1).stop(Stop::Immediate).unwrap();
    let mut client = bed.client();
    eventually("it is ended", || client.run(COMMIT).failure.is_none());
    node(1).start().unwrap();
    eventually("the other shard hears of it", || {
        nothing_is_prepared(bed) && balances(bed) == AFTER
    });
}
