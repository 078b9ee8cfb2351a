//! Servers, the catalog and routers that are killed while rows move: the same command goes on.

use std::time::Duration;

use switchyard_cluster::{Node, Stop};
use switchyard_tests::{Asks, Client, Reshard, eventually};

use super::load::{ROWS, stand};

/// Who is killed.
#[derive(Debug, Clone, Copy)]
enum Victim {
    Catalog,
    Source,
    Target,
    Router,
}

const VICTIMS: [Victim; 4] = [
    Victim::Catalog,
    Victim::Source,
    Victim::Target,
    Victim::Router,
];

/// What is there, whatever moves.
const ALL: &str = "SELECT count(*), count(DISTINCT id), sum(n) FROM marks";

impl Victim {
    fn kill(self, stand: &Reshard) {
        let restart = |node: &dyn Node| {
            node.stop(Stop::Kill).unwrap();
            node.start().unwrap();
        };
        match self {
            Victim::Catalog => restart(stand.bed.cluster().catalog().unwrap()),
            Victim::Source => restart(stand.primary(0).1),
            Victim::Target => restart(stand.primary(2).1),
            Victim::Router => {
                let mut other = stand.bed.another_router("", &|node| node.port());
                other.process().kill();
            }
        }
    }
}

#[test]
fn whoever_is_killed_while_rows_move() {
    let rounds: usize = std::env::var("SWITCHYARD_KILLS").map_or(4, |kills| kills.parse().unwrap());
    let stand = stand();
    stand.run(Asks::Three, &["apply", "--yes"]).succeeded();
    for (round, victim) in VICTIMS.into_iter().cycle().take(rounds).enumerate() {
        // Back and forth, and the kill comes at another moment each time.
        let command = ["rollback", "--yes", "--group-rows", "200"];
        let mut program = stand.spawn(Asks::Three, &command);
        std::thread::sleep(Duration::from_millis(1000 + 300 * (round % 7) as u64));
        victim.kill(&stand);
        let first = program.wait().unwrap();
        eventually("shards and catalog are back", || {
            stand.run(Asks::Three, &["status"]).well
                && Client::try_connect(&stand.bed.login())
                    .is_ok_and(|mut client| client.run(ALL).failure.is_none())
        });
        if !first.success() {
            // What is on its way goes on by the same command.
            stand.run(Asks::Three, &command).succeeded();
        }
        stand.is_clean(Asks::Three);
        let seen = stand.bed.client().run(ALL).succeeded().texts();
        let rows = ROWS.to_string();
        assert_eq!(seen, [[rows.clone(), rows, "0".to_owned()]], "{victim:?}");
    }
}
