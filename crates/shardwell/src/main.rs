//! The command `shardwell`: a local engine for development, and a look at lease tables, fleets and dead letters.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
