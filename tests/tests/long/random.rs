//! The router answers statements made at random as one PostgreSQL does, on one, two and five shards: each statement by the
//! layer that the router chooses, without bind joins, by a bind join if that is possible, and in a workspace.
//!
//! `SWITCHYARD_SEED` sets the seed of the data and the statements, `SWITCHYARD_QUERIES` how many there are per layout,
//! `SWITCHYARD_FIRST` the number of the first, `SWITCHYARD_DIFFERENCES` after how many differences a run ends. With
//! `SWITCHYARD_VIEWS=0` statements read no views of sharded tables.

use std::sync::OnceLock;

use switchyard_tests::random::{Campaign, Report, Servers};

/// The most that may be refused, of a hundred: writes of several shards before the statement, and ONLY.
const REFUSED: usize = 6;

/// The layers of a router, by words of their plans; what goes to one shard has none.
const LAYERS: [&str; 5] = ["Append", "Merge", "Bind join", "Rows made by", "Workspace"];

static SERVERS: OnceLock<Servers> = OnceLock::new();

fn variable(name: &str, otherwise: u64) -> u64 {
    match std::env::var(name) {
        Ok(value) => value
            .parse()
            .unwrap_or_else(|_| panic!("{name} is {value:?}, which is no number")),
        Err(_) => otherwise,
    }
}

#[track_caller]
fn same(shards: usize) {
    let seed = variable("SWITCHYARD_SEED", 1);
    let campaign = Campaign {
        seed,
        first: variable("SWITCHYARD_FIRST", 0),
        statements: variable("SWITCHYARD_QUERIES", 300),
        shards,
        views: variable("SWITCHYARD_VIEWS", 1) > 0,
        differences: variable("SWITCHYARD_DIFFERENCES", 3) as usize,
    };
    let servers = SERVERS.get_or_init(|| Servers::start(seed));
    let report = campaign.run(servers);
    eprintln!("seed {seed}, {shards} shards: {report}");
    let Report {
        differences,
        slow,
        unstable,
        layers,
        bind_joins,
        ..
    } = &report;
    assert!(differences.is_empty(), "SWITCHYARD_SEED={seed}\n{report}");
    // What cannot be compared proves nothing; what is refused is to be little. A few statements alone may be anything.
    let few = |count: usize, share: usize| count <= 5 + report.total() * share / 100;
    assert!(
        few(report.refused(), REFUSED) && few(slow + unstable, 1),
        "SWITCHYARD_SEED={seed}\n{report}"
    );
    // No layer is left out.
    if shards > 1 && report.total() >= 100 {
        for layer in LAYERS {
            assert!(layers.contains_key(layer), "{layer}\n{report}");
        }
        // What plans say was done.
        assert!(*bind_joins >= layers["Bind join"] as u64, "{report}");
    }
}

#[test]
fn on_one_shard() {
    same(1);
}

#[test]
fn on_two_shards() {
    same(2);
}

#[test]
fn on_five_shards() {
    same(5);
}
