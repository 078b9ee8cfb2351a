//! The `migrate-tool` program.

fn main() {}
