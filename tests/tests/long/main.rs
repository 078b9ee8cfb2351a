//! The tests that take longest, by subject. Cargo runs one program after the other: what waits for much, or lasts a minute by design, is
//! in one, where the others work meanwhile. They start in the order of their names.

mod bank;
mod distribute;
mod merge_failures;
mod random;
mod random_writes;
mod reshard;
mod two_phase;
mod workspace;
