//! The load generator as a command of its own; the `stampede` command has the same as `stampede bench`.

use std::process::ExitCode;

use clap::Parser;
use stampede_bench::BenchArgs;

/// A load generator for servers of the ledger client protocol
#[derive(Parser)]
#[command(name = "stampede-bench", version)]
struct Command {
    #[command(flatten)]
    bench: BenchArgs,
}

fn main() -> ExitCode {
    stampede_bench::run(&Command::parse().bench)
}
