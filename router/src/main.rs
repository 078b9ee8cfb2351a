//! The `switchyard` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    switchyard_router::cli::main()
}
