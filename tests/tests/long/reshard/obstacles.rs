//! What comes in the way: a full disk, clients that come past the routers.

use switchyard_tests::Asks;

use super::load::{ROWS, stand};
use super::steps::{APPLY, Hold, Steps};

/// Where a shard has a table.
const PLACE: &str =
    "SELECT current_setting('data_directory') || '/' || pg_relation_filepath('marks')";

/// What is written to this device there is no room for.
const FULL: &str = "/dev/full";

#[test]
fn the_disk_of_the_target_is_full() {
    let stand = stand();
    // The tables come to be there, and are empty again.
    stand.run(Asks::Three, &["apply", "--yes"]).succeeded();
    stand.run(Asks::Three, &["rollback", "--yes"]).succeeded();
    stand.superuser(2, "TRUNCATE marks");
    stand.superuser(2, "CHECKPOINT");
    let place = stand.superuser(2, PLACE);
    let aside = format!("{place}.aside");
    std::fs::rename(&place, &aside).unwrap();
    std::os::unix::fs::symlink(FULL, &place).unwrap();

    let outcome = stand.run(Asks::Three, &["apply", "--yes"]);
    assert!(!outcome.well, "{outcome:?}");
    for said in [
        "No space left on device",
        "free some there and run this again, or say `abort`",
    ] {
        assert!(outcome.log.contains(said), "{outcome:?}");
    }
    stand.run(Asks::Three, &["abort"]).succeeded();
    std::fs::remove_file(&place).unwrap();
    std::fs::rename(&aside, &place).unwrap();
    stand.is_clean(Asks::Three);
    assert_eq!(stand.superuser(2, "SELECT count(*) FROM marks"), "0");

    // There is room again.
    stand.run(Asks::Three, &["apply", "--yes"]).succeeded();
    stand.is_clean(Asks::Three);
    let all = stand.bed.client().run("SELECT count(*) FROM marks");
    assert_eq!(all.value(), ROWS.to_string());
}

/// The end of the first group.
const TABLES: Hold = Hold::Shard(0, "LOCK TABLE marks IN ACCESS SHARE MODE");
const SOME: &str =
    "SELECT string_agg(id::text, ' ') FROM (SELECT id FROM marks ORDER BY id LIMIT 40) AS few";

/// Those who are there when rows begin to move are ended. Who comes later may write, and loses nothing that he was told he has; what he puts where the rows
/// of its bucket are no longer is found.
#[test]
fn clients_come_past_the_routers() {
    let steps = Steps::new();
    let stand = &steps.stand;
    let direct = || stand.bed.node_client(stand.primary(0).1);
    let mut early = direct();
    early.run("SELECT FROM marks").succeeded();
    let (program, held) = steps.up_to(&APPLY, &[TABLES]);
    let ended = early.try_run("SELECT FROM marks");
    assert!(ended.is_none_or(|reply| reply.failure.is_some()));

    let mut late = direct();
    let (mut counted, mut cancelled) = (0, 0);
    for id in stand.superuser(0, SOME).split(' ') {
        let reply = late.run(&format!("UPDATE marks SET n = n + 1 WHERE id = {id}"));
        match reply.failure.as_ref().map(|failure| failure.sqlstate()) {
            None => counted += 1,
            Some("57014") => cancelled += 1,
            Some(_) => panic!("{reply:?}"),
        }
    }
    assert!(counted > 0 && cancelled > 0, "{counted} {cancelled}");
    held.release();
    let output = program.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    stand.is_clean(Asks::Three);
    let sum = stand.bed.client().run("SELECT sum(n) FROM marks");
    assert_eq!(sum.value(), counted.to_string());

    let moved = stand.superuser(2, "SELECT min(id) FROM marks");
    direct()
        .run(&format!("INSERT INTO marks VALUES ({moved}, 7)"))
        .succeeded();
    let verified = stand.run(Asks::Three, &["verify"]);
    assert!(!verified.well, "{verified:?}");
    stand.owner(0, "DELETE FROM marks WHERE n = 7");
    stand.is_clean(Asks::Three);
}
