//! The command line of Muster.

use std::process::ExitCode;

fn main() -> ExitCode {
    muster_coordinator::cli::main()
}
