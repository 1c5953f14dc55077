//! The command `shardwell`: a local engine for development, and a look at lease tables and dead letters.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
