//! The commands of `stampede`: arguments, exit codes, and what a person reads.
//!
//! One file per command. Exit codes: 0 success, 1 something failed, 2 the command line is wrong.
//! Errors go to standard error as `error: what, where; what to do`; results to standard output.

#![allow(
    clippy::disallowed_methods,
    reason = "commands live in the real world: clocks, environment, files"
)]

mod addresses;
mod backup;
mod bench;
mod budget;
mod drill;
mod format;
mod image;
mod inspect;
mod recover;
mod restore;
mod sim;
mod size;
mod start;
mod version;

use std::fmt::Display;
use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::store::Damage;

/// A replicated transaction engine: durable, ordered, exactly once
#[derive(Debug, Parser)]
#[command(name = "stampede", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make the data directory of a replica
    Format(format::Arguments),
    /// Make the data directory of a replica again, after the former one was lost
    Recover(format::Arguments),
    /// Make the data directory of a replica of a new cluster, from an image
    Restore(restore::Arguments),
    /// Copy a consistent, verified image of a replica, running or not
    Backup(backup::Arguments),
    /// Run a replica
    Start(start::Arguments),
    /// Show what is in the files of a replica that is not running
    Inspect(inspect::Arguments),
    /// Generate load against a cluster and report what it did
    Bench(Box<stampede_bench::BenchArgs>),
    /// Run clusters in a simulated world where everything fails, and check what must hold
    Sim(sim::Arguments),
    /// Do something to a cluster under load, and look up every acknowledged transfer afterwards
    Drill(stampede_drill::DrillArgs),
    /// Say which release this is and, with --verbose, what this machine offers it
    Version(version::Arguments),
}

/// The end of a command that did not do what it was asked.
#[derive(Debug)]
pub(crate) struct Failure {
    code: u8,
    message: String,
}

impl Failure {
    /// Something went wrong.
    pub(crate) fn new(message: impl Display) -> Self {
        Self {
            code: 1,
            message: message.to_string(),
        }
    }

    /// A replica has stopped itself: its disk cannot be relied on.
    pub(crate) fn fenced(message: impl Display) -> Self {
        Self {
            code: 4,
            message: message.to_string(),
        }
    }

    /// The command line asks for something impossible.
    pub(crate) fn usage(message: impl Display) -> Self {
        Self {
            code: 2,
            message: message.to_string(),
        }
    }
}

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    panics_end_the_process();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version come this way too, with an exit code of 0. If nobody reads, so be it.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let result = Damage::catch(|| run(&cli.command));
    match result.unwrap_or_else(|damage| Err(Failure::new(damage))) {
        Ok(code) => code,
        Err(failure) => {
            let _ = writeln!(std::io::stderr(), "error: {}", failure.message);
            ExitCode::from(failure.code)
        }
    }
}

/// A thread that panics takes the process with it: the others would go on with half of what they need.
/// (The stack can be unwound all the same, for [`Damage`], which is no panic.)
fn panics_end_the_process() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        report(info);
        std::process::abort();
    }));
}

fn run(command: &Command) -> Result<ExitCode, Failure> {
    match command {
        Command::Format(arguments) => format::run(arguments),
        Command::Recover(arguments) => recover::run(arguments),
        Command::Restore(arguments) => restore::run(arguments),
        Command::Backup(arguments) => backup::run(arguments),
        Command::Start(arguments) => start::run(arguments),
        Command::Inspect(arguments) => inspect::run(arguments),
        Command::Bench(arguments) => return Ok(bench::run(arguments)),
        Command::Sim(arguments) => sim::run(arguments),
        Command::Drill(arguments) => return drill::run(arguments),
        Command::Version(arguments) => version::run(arguments),
    }?;
    Ok(ExitCode::SUCCESS)
}

/// Writes a result for the caller to read. A reader that has gone away ends the command quietly.
pub(crate) fn say(text: &str) -> Result<(), Failure> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(Failure::new(format!(
            "cannot write to standard output: {error}"
        ))),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn wrong_command_lines_exit_with_two() {
        for line in [
            "stampede dance",
            "stampede format",
            "stampede format --replica 3 --replica-count 3 --cluster 1 d",
            "stampede format --replica 0 --replica-count 7 --cluster 1 d",
            "stampede format --replica 0 --replica-count 1 --cluster 1 --journal-size 1MiB d",
            "stampede format --replica 4 --replica-count 3 --standby-count 1 --cluster 1 d",
            "stampede recover --replica 0 --replica-count 1 --cluster 1 d",
            "stampede restore --replica 0 --replica-count 1 --cluster 1 d",
            "stampede backup d",
            "stampede start --addresses d",
            "stampede start --addresses 1,,2 d",
            "stampede inspect --op 9..3 d",
            "stampede sim --seeds 9..3",
            "stampede sim --seed 1 --count 2",
        ] {
            let error = Cli::try_parse_from(line.split(' ')).map(|cli| match cli.command {
                Command::Format(arguments) => format::check(&arguments).map(|_| ()),
                Command::Recover(arguments) => recover::check(&arguments),
                Command::Restore(arguments) => restore::check(&arguments),
                Command::Start(_)
                | Command::Backup(_)
                | Command::Inspect(_)
                | Command::Bench(_)
                | Command::Sim(_)
                | Command::Drill(_)
                | Command::Version(_) => Ok(()),
            });
            let code = match error {
                Err(error) => error.exit_code(),
                Ok(Err(failure)) => i32::from(failure.code),
                Ok(Ok(())) => 0,
            };
            assert_eq!(code, 2, "{line}");
        }
    }
}
