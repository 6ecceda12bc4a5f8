//! Drills: a real cluster of real processes on real disks is put under load, something is done to it,
//! and afterwards every acknowledged transfer is looked up.
//!
//! ```text
//!   args ──► catalog ──► scenario ───────► scene ──► cluster: processes, directories, logs
//!            names,      one function      verbs     load:    clients that keep books
//!            aims        for each drill      │
//!                                            │             guests:  clients that are evicted
//!                                            └─ marks, windows ─┐
//!                          books, as found ──► verdict ◄────────┘ ──► report (text, JSON, HTML)
//! ```
//!
//! This crate knows the server as its operators and clients do: as a program with options, directories
//! and log lines, and by its client protocol. It may not know how the server is made; where a drill
//! damages files, it does so as a disk would, without understanding them.
//!
//! Promises: no process of a drill outlives it, however it ends; every drill ends in bounded time; a
//! drill that failed leaves its data and says where. And a verdict can be bad: the tests of `verdict`
//! feed it a lost, a repeated, a stale and a forbidden acknowledgement, and it must find each.

#![allow(
    clippy::disallowed_methods,
    reason = "drills live in the real world: clocks, processes, files"
)]

mod args;
mod books;
mod catalog;
mod cluster;
mod disks;
mod guests;
mod links;
mod load;
mod namespaces;
mod process;
mod relay;
mod report;
mod scenario;
mod scene;
mod signal;
mod trouble;
mod verdict;

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

pub use args::DrillArgs;
use args::Settings;
use catalog::Drill;
use report::{Outcome, Report};
use scene::Scene;

/// All drills were green, or were skipped for a reason that was said.
const GREEN: u8 = 0;
/// A drill failed.
const RED: u8 = 1;
/// The command line cannot be followed.
const USAGE: u8 = 2;

/// Runs the drills that are asked for with `program`.
pub fn run(args: &DrillArgs, program: &Path) -> ExitCode {
    if args.is_list() {
        say(&catalog::text());
        return ExitCode::from(GREEN);
    }
    let settings = match args.settings(program) {
        Ok(settings) => settings,
        Err(error) => {
            complain(&format!("error: {error}\n"));
            return ExitCode::from(USAGE);
        }
    };
    signal::install();
    let mut report = Report::new(&settings);
    for drill in &settings.drills {
        let outcome = drill_once(drill, &settings);
        say(&report::text::lines(&outcome));
        let over = outcome.interrupted;
        report.drills.push(outcome);
        if over {
            break;
        }
    }
    if report.drills.len() > 1 {
        say(&report::text::table(&report));
    }
    let written = report.write(args.json.as_deref(), args.html.as_deref());
    if let Err(error) = &written {
        complain(&format!("error: {error}\n"));
    }
    let green = report.is_green() && written.is_ok();
    ExitCode::from(if green { GREEN } else { RED })
}

/// One drill from an empty directory to its verdict.
fn drill_once(drill: &'static Drill, settings: &Settings) -> Outcome {
    complain(&format!("{}: {}\n", drill.name, drill.summary));
    let mut scene = match Scene::new(drill, settings) {
        Ok(scene) => scene,
        Err(trouble) => return Outcome::not_begun(drill, &trouble),
    };
    let played = (drill.play)(&mut scene);
    let outcome = scene.judge(played);
    if outcome.is_green() && !settings.keep {
        scene.remove();
    }
    outcome
}

/// A result for the caller to read; if nobody does, the files and the exit status remain.
fn say(text: &str) {
    let mut out = std::io::stdout();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// What is going on, for a person who waits.
fn complain(text: &str) {
    let _ = std::io::stderr().write_all(text.as_bytes());
}
