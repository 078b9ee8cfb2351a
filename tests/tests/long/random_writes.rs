//! Writes made at random, inside and outside of transaction blocks, on one, two and five shards: after each the session sees what one
//! PostgreSQL's would see, and after each transaction the shards together have what one PostgreSQL would have.
//!
//! `SWITCHYARD_SEED` sets the seed of the data and the scripts, `SWITCHYARD_SCRIPTS` how many there are per layout, `SWITCHYARD_FIRST`
//! the number of the first.

use std::sync::{Mutex, OnceLock, PoisonError};

use switchyard_tests::random::{Scripts, Servers};

/// The most statements that may be refused, of a hundred.
const REFUSED: usize = 8;

static SERVERS: OnceLock<Servers> = OnceLock::new();
/// They all write the plain server's tables.
static TURN: Mutex<()> = Mutex::new(());

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
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let seed = variable("SWITCHYARD_SEED", 1);
    let scripts = Scripts {
        seed,
        first: variable("SWITCHYARD_FIRST", 0),
        count: variable("SWITCHYARD_SCRIPTS", 150),
        shards,
    };
    let servers = SERVERS.get_or_init(|| Servers::start(seed));
    let written = scripts.run(servers);
    eprintln!("seed {seed}, {shards} shards: {written}");
    assert!(
        written.difference.is_none(),
        "SWITCHYARD_SEED={seed}\n{written}"
    );
    // What is not run proves nothing. A few scripts alone may be anything.
    let few = |count: usize, of: usize, share: usize| count <= 5 + of * share / 100;
    let (scripts, statements) = (written.same + written.undecided, written.statements);
    assert!(few(written.undecided, scripts, 10), "{written}");
    assert!(
        few(written.refused(), statements + written.refused(), REFUSED),
        "{written}"
    );
    assert!(scripts < 100 || written.changes > scripts, "{written}");
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
