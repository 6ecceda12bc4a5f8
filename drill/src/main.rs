//! The drills as a command of their own, which is quickly built; `stampede drill` is the same for its
//! own build.

use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use stampede_drill::DrillArgs;

/// What is drilled unless the command line says otherwise.
const PROGRAM: &str = "target/release/stampede";

/// Drills on live clusters
#[derive(Parser)]
#[command(name = "stampede-drill", version)]
struct Command {
    #[command(flatten)]
    drill: DrillArgs,
}

fn main() -> ExitCode {
    stampede_drill::run(&Command::parse().drill, Path::new(PROGRAM))
}
