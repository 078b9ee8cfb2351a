//! The program, and whoever it works with, is killed at each of its steps: it waits there for what somebody holds.

use std::process::{Child, Output};

use switchyard_cluster::{Node, Stop};
use switchyard_tests::{Asks, Client, Login, Reshard, Router, eventually};

use super::load::{ROWS, stand};

/// A superuser, whom nobody takes for a client that has come past the routers.
const HOLDER: &str = "CREATE ROLE holder SUPERUSER LOGIN PASSWORD 'secret'";

/// What the program waits for at a step.
#[derive(Debug, Clone, Copy)]
pub(super) enum Hold {
    /// What a transaction on a shard has locked.
    Shard(usize, &'static str),
    /// What a transaction on the catalog has locked.
    Catalog(&'static str),
    /// A replica that there is not, for a shard's commits.
    Commits(usize),
    /// A router that stands still.
    Router,
}

/// Who is killed there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    Program,
    Catalog,
    Source,
    Target,
}

const MOVEMENT: Hold = Hold::Catalog("LOCK TABLE switchyard.movements IN SHARE MODE");
const EPOCH: Hold = Hold::Catalog("LOCK TABLE switchyard.bucket_maps IN SHARE MODE");
pub(super) const DECISION: Hold = Hold::Catalog("LOCK TABLE switchyard.decisions IN SHARE MODE");
const FINISH: Hold = Hold::Catalog("LOCK TABLE switchyard.shards IN SHARE MODE");
const REMEMBERED: Hold = Hold::Shard(0, "LOCK TABLE pg_db_role_setting IN SHARE MODE");
const DEFINITIONS: Hold = Hold::Shard(0, "LOCK TABLE marks IN ACCESS EXCLUSIVE MODE");
pub(super) const REFERENCES: Hold = Hold::Shard(0, "LOCK TABLE countries IN ACCESS SHARE MODE");
pub(super) const INDEX: Hold = Hold::Shard(0, "LOCK TABLE marks IN ROW EXCLUSIVE MODE");
pub(super) const ROWS_ON_THEIR_WAY: Hold = Hold::Shard(0, "SELECT FROM marks FOR UPDATE");
const TABLES: Hold = Hold::Shard(2, "LOCK TABLE marks IN ACCESS SHARE MODE");

pub(super) const APPLY: [&str; 4] = ["apply", "--yes", "--group-rows", "300"];

/// The bed, and a router that may stand still.
pub(super) struct Steps {
    pub(super) stand: Reshard,
    router: Router,
}

/// A step that the program does not get past.
pub(super) struct Held<'a> {
    hold: Hold,
    steps: &'a Steps,
    client: Client,
}

impl Steps {
    pub(super) fn new() -> Steps {
        Steps::of(stand())
    }

    pub(super) fn of(stand: Reshard) -> Steps {
        for shard in 0..3 {
            stand.superuser(shard, HOLDER);
        }
        let cluster = stand.bed.cluster();
        let catalog = cluster.catalog().unwrap();
        cluster
            .superuser_sql(catalog, "switchyard", HOLDER)
            .unwrap();
        let router = stand.bed.another_router("", &|node| node.port());
        Steps { stand, router }
    }

    /// A node, and the database there.
    fn place(&self, hold: Hold) -> (&dyn Node, &'static str) {
        match hold {
            Hold::Shard(shard, _) | Hold::Commits(shard) => (self.stand.primary(shard).1, "shop"),
            Hold::Catalog(_) | Hold::Router => {
                (self.stand.bed.cluster().catalog().unwrap(), "switchyard")
            }
        }
    }

    fn client(&self, hold: Hold) -> Client {
        let (node, database) = self.place(hold);
        Client::connect(&Login {
            user: "holder".to_owned(),
            database: database.to_owned(),
            ..Login::new(node.port())
        })
    }

    fn hold(&self, hold: Hold) -> Held<'_> {
        let mut client = self.client(hold);
        match hold {
            Hold::Shard(_, sql) | Hold::Catalog(sql) => {
                client.run("BEGIN").succeeded();
                client.run(sql).succeeded();
            }
            Hold::Commits(_) => {
                for sql in [
                    "ALTER SYSTEM SET synchronous_commit = on",
                    "ALTER SYSTEM SET synchronous_standby_names = 'nobody'",
                    "SELECT pg_reload_conf()",
                ] {
                    client.run(sql).succeeded();
                }
                let is_set = "SELECT count(*) FROM pg_settings WHERE name = 'synchronous_standby_names' AND setting = 'nobody'";
                eventually("it is in force", || client.run(is_set).value() == "1");
            }
            Hold::Router => self.signal("STOP"),
        }
        let steps = self;
        Held {
            hold,
            steps,
            client,
        }
    }

    fn signal(&self, signal: &str) {
        let id = self.router.id().to_string();
        let sent = std::process::Command::new("kill")
            .args(["-s", signal, &id])
            .status();
        assert!(sent.unwrap().success());
    }

    /// Runs the program up to where it waits for the last of these, each of which is held until the next one is.
    pub(super) fn up_to(&self, arguments: &[&str], holds: &[Hold]) -> (Child, Held<'_>) {
        let mut holds = holds.iter().copied();
        let mut held = self.hold(holds.next().unwrap());
        let mut program = self.stand.spawn(Asks::Three, arguments);
        loop {
            eventually(&format!("it waits: {:?}", held.hold), || {
                assert!(
                    program.try_wait().unwrap().is_none(),
                    "{:?}: {}",
                    held.hold,
                    std::io::read_to_string(program.stderr.take().unwrap()).unwrap()
                );
                held.is_awaited()
            });
            match holds.next() {
                Some(next) => {
                    let next = self.hold(next);
                    held.release();
                    held = next;
                }
                None => return (program, held),
            }
        }
    }

    fn kill(&self, victim: Victim, program: &mut Child) {
        let restart = |node: &dyn Node| {
            node.stop(Stop::Kill).unwrap();
            node.start().unwrap();
        };
        match victim {
            Victim::Program => program.kill().unwrap(),
            Victim::Catalog => restart(self.stand.bed.cluster().catalog().unwrap()),
            Victim::Source => restart(self.stand.primary(0).1),
            Victim::Target => restart(self.stand.primary(2).1),
        }
    }

    /// Kills somebody at a step; what the program says of it.
    fn killed_at(&self, arguments: &[&str], holds: &[Hold], victim: Victim) -> Output {
        let (mut program, held) = self.up_to(arguments, holds);
        self.kill(victim, &mut program);
        held.release();
        program.wait_with_output().unwrap()
    }

    /// What was left prepared is ended by the routers, and all answer again.
    fn is_settled(&self) {
        let prepared = "SELECT count(*) FROM pg_prepared_xacts";
        eventually("what was prepared is ended", || {
            self.stand.on_all(prepared) == ["0"; 3]
        });
        eventually("all servers are back", || {
            let client = Client::try_connect(&self.stand.bed.login());
            client.is_ok_and(|mut client| client.run("SELECT FROM marks").failure.is_none())
        });
    }

    /// All rows are there, once, and where they belong.
    #[track_caller]
    fn is_well(&self) {
        self.stand.is_clean(Asks::Three);
        let all = "SELECT count(*), count(DISTINCT id), sum(n) FROM marks";
        let seen = self.stand.bed.client().run(all).succeeded().texts();
        let rows = ROWS.to_string();
        assert_eq!(seen, [[rows.clone(), rows, "0".to_owned()]]);
    }
}

impl Held<'_> {
    /// Whether the program waits for it. Nobody else does: there are no clients.
    fn is_awaited(&mut self) -> bool {
        let ask = match self.hold {
            Hold::Shard(..) | Hold::Catalog(_) => format!(
                "SELECT count(*) FROM pg_stat_activity WHERE {} = ANY (pg_blocking_pids(pid))",
                self.client.key.0
            ),
            Hold::Commits(_) => "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND query LIKE 'COMMIT PREPARED%'".to_owned(),
            // It is decided, and this one has not said that it works by that.
            Hold::Router => format!(
                "SELECT count(*) FROM switchyard.decisions AS d, pg_stat_activity AS a WHERE d.committed AND d.decided_at > a.backend_start AND a.pid = {}",
                self.client.key.0
            ),
        };
        let mut watch = self.steps.client(self.hold);
        watch.run(&ask).value() != "0"
    }

    pub(super) fn release(mut self) {
        match self.hold {
            // The server may have been killed.
            Hold::Shard(..) | Hold::Catalog(_) => drop(self.client.try_run("ROLLBACK")),
            Hold::Commits(_) => {
                let mut client = self.steps.client(self.hold);
                for sql in [
                    "ALTER SYSTEM RESET synchronous_commit",
                    "ALTER SYSTEM RESET synchronous_standby_names",
                    "SELECT pg_reload_conf()",
                ] {
                    client.run(sql).succeeded();
                }
            }
            Hold::Router => self.steps.signal("CONT"),
        }
    }
}

/// Each time the same command goes on from where the last one died.
#[test]
fn the_program_is_killed_at_each_step() {
    let steps = Steps::new();
    let killed = |holds: &[Hold]| {
        steps.killed_at(&APPLY, holds, Victim::Program);
        steps.is_settled();
    };
    // A new shard. What is prepared there nobody knows of but who goes on, or leaves it.
    killed(&[MOVEMENT]);
    killed(&[EPOCH]);
    killed(&[REMEMBERED]);
    killed(&[DEFINITIONS]);
    killed(&[REFERENCES]);
    for goes_on in [false, true] {
        steps.killed_at(&APPLY, &[DECISION], Victim::Program);
        match goes_on {
            false => drop(steps.stand.run(Asks::Three, &["abort"]).succeeded()),
            true => drop(steps.killed_at(&APPLY, &[REFERENCES], Victim::Program)),
        };
        steps.is_settled();
    }
    // Rows.
    killed(&[INDEX]);
    killed(&[ROWS_ON_THEIR_WAY]);
    killed(&[TABLES]);
    killed(&[ROWS_ON_THEIR_WAY, DECISION]);
    killed(&[ROWS_ON_THEIR_WAY, Hold::Router]);
    killed(&[ROWS_ON_THEIR_WAY, DECISION, Hold::Commits(2)]);
    killed(&[ROWS_ON_THEIR_WAY, REMEMBERED]);
    let status = steps.stand.run(Asks::Three, &["status"]).succeeded();
    assert!(status.contains("`apply` goes on"), "{status}");
    steps.stand.run(Asks::Three, &APPLY).succeeded();
    steps.is_well();
    // The end.
    steps
        .stand
        .owner(0, "CREATE INDEX switchyard_bucket_left ON marks (n)");
    killed(&[INDEX]);
    steps.stand.run(Asks::Three, &APPLY).succeeded();
    steps.is_well();
    steps.killed_at(&["finish"], &[FINISH], Victim::Program);
    steps.stand.run(Asks::Three, &["finish"]).succeeded();
    steps.is_well();
}

/// The same command goes on, or what was begun is undone.
#[test]
fn servers_are_killed_at_each_step() {
    let steps = Steps::new();
    // So many groups that the source has rows left for each.
    let small = ["apply", "--yes", "--group-rows", "60"];
    let kills: [(&[Hold], &[Victim]); 5] = [
        (&[REFERENCES], &[Victim::Source, Victim::Target]),
        (&[ROWS_ON_THEIR_WAY], &[Victim::Source, Victim::Target]),
        (&[TABLES], &[Victim::Target]),
        (
            &[ROWS_ON_THEIR_WAY, DECISION],
            &[Victim::Source, Victim::Target, Victim::Catalog],
        ),
        (
            &[ROWS_ON_THEIR_WAY, DECISION, Hold::Commits(2)],
            &[Victim::Catalog, Victim::Target],
        ),
    ];
    for (holds, victims) in kills {
        for &victim in victims {
            let output = steps.killed_at(&small, holds, victim);
            steps.is_settled();
            // It may have gone on by itself.
            if output.status.success() {
                let back = ["rollback", "--yes"];
                steps.stand.run(Asks::Three, &back).succeeded();
            }
        }
    }
    steps.stand.run(Asks::Three, &["abort"]).succeeded();
    steps.is_well();
    steps.stand.run(Asks::Three, &APPLY).succeeded();
    steps.is_well();
}

/// `rollback` that was killed goes on when it is said again, and `apply` turns round.
#[test]
fn the_way_back_is_gone_on_with() {
    let steps = Steps::new();
    let stand = &steps.stand;
    stand.run(Asks::Three, &["apply", "--yes"]).succeeded();
    let back = ["rollback", "--yes", "--group-rows", "100"];
    let mut console = stand.bed.router().console();
    let left = |console: &mut Client| console.run("SHOW MIGRATIONS").succeeded().texts();
    assert_eq!(left(&mut console)[0][1], "moved");
    // In the midst of it.
    let on_third = Hold::Shard(2, "LOCK TABLE pg_db_role_setting IN SHARE MODE");
    let rows = Hold::Shard(2, "SELECT FROM marks FOR UPDATE");
    let epochs = Hold::Catalog("LOCK TABLE switchyard.bucket_maps IN SHARE MODE");
    steps.killed_at(&back, &[rows, on_third, epochs], Victim::Program);
    steps.is_settled();
    let status = left(&mut console).remove(0);
    assert_eq!((&*status[0], &*status[1]), ("shop", "moving"), "{status:?}");
    let numbers: Vec<usize> = status[2..4]
        .iter()
        .map(|number| number.parse().unwrap())
        .collect();
    assert!(0 < numbers[1] && numbers[1] < numbers[0], "{status:?}");
    assert!(
        stand
            .bed
            .router()
            .metric("switchyard_movement_buckets_left{database=\"shop\"}")
            > 0.0
    );
    steps.killed_at(&APPLY, &[ROWS_ON_THEIR_WAY], Victim::Program);
    steps.killed_at(&back, &[rows], Victim::Program);
    stand.run(Asks::Three, &back).succeeded();
    steps.is_well();
    assert_eq!(stand.superuser(2, "SELECT count(*) FROM marks"), "0");
}
