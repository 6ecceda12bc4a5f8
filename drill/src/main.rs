//! The drills as a command of their own, for any build of the server; `stampede drill` is the same for
//! its own build.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use stampede_drill::DrillArgs;

/// Drills on live clusters
#[derive(Parser)]
#[command(name = "stampede-drill", version)]
struct Command {
    /// The `stampede` to drill
    #[arg(long, value_name = "FILE", default_value = "target/release/stampede")]
    program: PathBuf,
    #[command(flatten)]
    drill: DrillArgs,
}

fn main() -> ExitCode {
    let command = Command::parse();
    stampede_drill::run(&command.drill, &command.program)
}
