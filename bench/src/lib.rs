//! A load generator for servers of the ledger client protocol, and reports that can be trusted.
//!
//! ```text
//!   args ──► workload ──► books ──► phase ──► engine ──► sockets
//!            accounts,    what was  accounts,  sessions,
//!            ids, events  accepted  load,      one epoll
//!                                   verify     loop
//!                                     │
//!                                     └──► figures ──► report (text, JSON, HTML)
//! ```
//!
//! It is a client like any other: it knows the protocol of `stampede-client` and nothing of the server,
//! and runs against any server of that protocol. It promises that latency in the open loop counts from
//! the instant at which a request was due, that every result of every event is looked at, and that a run
//! ends with the balances of all accounts being compared with a replay, unless it is told not to.

pub mod args;
pub mod failure;
pub mod random;
pub mod workload;
pub mod pace;
pub mod figures;
pub mod books;
pub mod engine;
pub mod phase;
pub mod queries;
pub mod progress;
pub mod disk;
pub mod machine;
pub mod report;
mod course;

use std::io::Write;
use std::process::ExitCode;

pub use args::BenchArgs;
use args::{BenchCommand, LoadArgs, QueriesArgs, ReportArgs};
pub use course::load;
use failure::{Exit, Failure};
use report::RunReport;

/// Runs the command; everything it has to say goes to standard output and standard error.
pub fn run(args: &BenchArgs) -> ExitCode {
    let outcome = match &args.command {
        None => run_load(&args.load),
        Some(BenchCommand::Report(args)) => run_report(args),
        Some(BenchCommand::Queries(args)) => run_queries(args),
    };
    match outcome {
        Ok(exit) => exit.into(),
        Err(failure) => {
            // A closed standard error leaves the exit status to speak.
            let _ = writeln!(std::io::stderr(), "error: {failure}");
            failure.exit.into()
        }
    }
}

fn run_load(args: &LoadArgs) -> Result<Exit, Failure> {
    let settings = args.settings()?;
    let report = load(&settings, !args.quiet && !args.no_progress)?;
    if !args.quiet {
        say(&report::text::run(&report));
    }
    if let Some(path) = &args.json {
        report.write_json(path)?;
    }
    if let Some(path) = &args.html {
        report::write(path, &report::html::page(std::slice::from_ref(&report)))?;
    }
    Ok(if report.is_good() {
        Exit::Good
    } else {
        Exit::WrongResults
    })
}

fn run_queries(args: &QueriesArgs) -> Result<Exit, Failure> {
    let measured = queries::measure(args, &args.servers()?)?;
    say(&measured.text());
    if let Some(path) = &args.json {
        let json = serde_json::to_string_pretty(&measured).expect("a report is plain data");
        report::write(path, &(json + "\n"))?;
    }
    Ok(if measured.is_good() {
        Exit::Good
    } else {
        Exit::WrongResults
    })
}

fn run_report(args: &ReportArgs) -> Result<Exit, Failure> {
    let reports: Vec<RunReport> = args
        .runs
        .iter()
        .map(|path| RunReport::read_json(path))
        .collect::<Result<_, _>>()?;
    say(&report::text::runs(&reports));
    if let Some(path) = &args.html {
        report::write(path, &report::html::page(&reports))?;
    }
    let good = reports.iter().all(RunReport::is_good);
    Ok(if good { Exit::Good } else { Exit::WrongResults })
}

fn say(text: &str) {
    // Nobody listens any more, for example `| head`: the files and the exit status remain.
    let _ = std::io::stdout().write_all(text.as_bytes());
}
