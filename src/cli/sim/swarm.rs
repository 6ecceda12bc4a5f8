//! Many seeds on several threads, one seed on one thread.
//!
//! ```text
//!   next seed ──► worker ──► Finding: report, violation or panic, and what it cost ──► totals
//! ```
//!
//! A panic is a finding like a violation. A release build aborts the process on one, as soon as the
//! hook returns; so the hook reports it and never returns: its thread sleeps until the process ends,
//! and another thread takes its place. [`FAILURES_MAX`] bounds how many.

use std::cell::Cell;
use std::fmt;
use std::ops::Range;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use super::super::{Failure, say};
use super::Mode;
use crate::sim::{MILLISECOND, Report, SECOND, Simulation, Tally};

/// After so many failing seeds it is time to look at one of them.
const FAILURES_MAX: u64 = 32;

/// How often progress is shown.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(10);

/// Lines of trace that are shown of a seed that fails.
const TRACE_LINES: usize = 20;

/// What is said of a seed that takes too long.
const ENDLESS: &str = "the run does not end";

/// A seed takes seconds. One that takes this long does not end.
const SEED_MAX: Duration = Duration::from_secs(600);

thread_local! {
    /// The seed that this thread is running.
    static RUNNING: Cell<Option<u64>> = const { Cell::new(None) };
}

/// What is to be done.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub seeds: Range<u64>,
    /// Seeds are begun for this long.
    pub duration: Duration,
    pub jobs: usize,
    pub twice: bool,
    pub mode: Mode,
}

/// What has been done.
#[derive(Debug, Default)]
pub(super) struct Totals {
    pub seeds: u64,
    pub failures: u64,
    committed: u64,
    faults: Tally,
    /// How long each cluster took to be well again, and of which seed it was.
    settled: Vec<(u64, u64)>,
    simulated: u64,
    core: Duration,
    what: String,
}

enum Finding {
    Began {
        seed: u64,
    },
    Ended {
        seed: u64,
        result: Box<Result<Report, String>>,
        core: Duration,
    },
    /// The thread is lost.
    Panicked {
        seed: u64,
        what: String,
    },
    /// A worker finds nothing more to do.
    Idle,
}

/// Runs the plan; says what fails as soon as it does.
pub(super) fn run(plan: &Plan) -> Result<Totals, Failure> {
    keep_memory();
    let (sender, findings) = channel();
    report_panics(sender.clone());
    let build = if cfg!(debug_assertions) {
        "a debug build"
    } else {
        "a release build"
    };
    let what = match plan.mode {
        Mode::Swarm => "swarm",
        Mode::Light => "three replicas, light load, no faults",
        Mode::Canary => "three replicas, light load, spoiled answers",
    };
    let mut totals = Totals {
        what: format!("{what}; {} threads of {build}", plan.jobs),
        ..Totals::default()
    };
    let next = Arc::new(AtomicU64::new(plan.seeds.start));
    let begun = Instant::now();
    for _ in 0..plan.jobs {
        spawn(plan, &next, begun, &sender)?;
    }
    gather(plan, &findings, &mut totals, || {
        spawn(plan, &next, begun, &sender)
    })?;
    Ok(totals)
}

/// Takes findings until all workers are idle, or enough has failed.
fn gather(
    plan: &Plan,
    findings: &Receiver<Finding>,
    totals: &mut Totals,
    mut replace: impl FnMut() -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut workers = plan.jobs;
    let mut running: Vec<(u64, Instant)> = Vec::new();
    let mut shown = Instant::now();
    while workers > 0 && totals.failures < FAILURES_MAX {
        match findings.recv_timeout(PROGRESS_INTERVAL) {
            Ok(Finding::Began { seed }) => running.push((seed, Instant::now())),
            Ok(Finding::Ended { seed, result, core }) => {
                running.retain(|(other, _)| *other != seed);
                totals.seeds += 1;
                totals.core += core;
                match *result {
                    Ok(report) => totals.add(seed, &report),
                    Err(what) => fail(totals, plan, seed, &what)?,
                }
            }
            Ok(Finding::Panicked { seed, what }) => {
                running.retain(|(other, _)| *other != seed);
                totals.seeds += 1;
                fail(totals, plan, seed, &what)?;
                replace()?;
            }
            Ok(Finding::Idle) => workers -= 1,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => unreachable!("the hook keeps a sender"),
        }
        if let Some(index) = running.iter().position(|(_, at)| at.elapsed() > SEED_MAX) {
            let (seed, _) = running.remove(index);
            totals.seeds += 1;
            fail(totals, plan, seed, ENDLESS)?;
            replace()?;
        }
        if shown.elapsed() >= PROGRESS_INTERVAL {
            shown = Instant::now();
            say(&format!("  {totals}\n"))?;
        }
    }
    Ok(())
}

fn fail(totals: &mut Totals, plan: &Plan, seed: u64, what: &str) -> Result<(), Failure> {
    totals.failures += 1;
    let seed = seed.to_string();
    let mut replay = vec!["sim"];
    replay.extend(plan.mode.flags());
    replay.extend(plan.twice.then_some("--twice"));
    replay.extend(["--seed", &seed]);
    let trace = if what == ENDLESS {
        String::new()
    } else {
        end_of_trace(&replay)
    };
    say(&format!(
        "{trace}seed {seed} fails: {what}\n  run it again: stampede {}\n",
        replay.join(" ")
    ))
}

/// The last lines of a run. It has failed once, perhaps by a panic: another process runs it again.
fn end_of_trace(replay: &[&str]) -> String {
    let program = std::env::current_exe().unwrap_or_else(|_| "stampede".into());
    let output = Command::new(program).args(replay).output();
    let Ok(output) = output else {
        return String::new();
    };
    let text = String::from_utf8_lossy(&output.stdout);
    let lines: Vec<&str> = text.lines().collect();
    let last = &lines[lines.len().saturating_sub(TRACE_LINES)..];
    last.iter().map(|line| format!("  {line}\n")).collect()
}

fn spawn(
    plan: &Plan,
    next: &Arc<AtomicU64>,
    begun: Instant,
    findings: &Sender<Finding>,
) -> Result<(), Failure> {
    let (plan, next, findings) = (plan.clone(), Arc::clone(next), findings.clone());
    let work = move || {
        while begun.elapsed() < plan.duration {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= plan.seeds.end {
                break;
            }
            let _ = findings.send(Finding::Began { seed });
            RUNNING.set(Some(seed));
            let before = core_time();
            let result = Box::new(run_seed(&plan, seed));
            let core = core_time().saturating_sub(before);
            RUNNING.set(None);
            let _ = findings.send(Finding::Ended { seed, result, core });
        }
        let _ = findings.send(Finding::Idle);
    };
    std::thread::Builder::new()
        .name("seed".to_owned())
        .spawn(work)
        .map(drop)
        .map_err(|error| Failure::new(format!("cannot start a thread: {error}")))
}

fn run_seed(plan: &Plan, seed: u64) -> Result<Report, String> {
    let once = || {
        Simulation::new(plan.mode.options(seed), seed)
            .and_then(|mut simulation| simulation.run())
            .map_err(|violation| violation.to_string())
    };
    let first = once()?;
    if plan.twice {
        let second = once()?;
        if first != second {
            return Err(format!("not deterministic: {first:?}, then {second:?}"));
        }
    }
    Ok(first)
}

fn report_panics(findings: Sender<Finding>) {
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        let Some(seed) = RUNNING.get() else {
            return default(info);
        };
        let what = info.to_string();
        let _ = findings.send(Finding::Panicked { seed, what });
        loop {
            std::thread::park();
        }
    }));
}

/// Every start of a replica takes some mebibytes and gives them back. Asking the kernel for them each
/// time, zeroed page by page, costs more than what is done with them.
fn keep_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: sets parameters of the allocator; no thread of the swarm runs yet.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 32 << 20);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 1 << 30);
    }
}

/// What this thread has used of a core so far.
fn core_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

impl Totals {
    fn add(&mut self, seed: u64, report: &Report) {
        self.settled.push((report.settled, seed));
        self.committed += report.committed;
        self.faults.add(&report.faults);
        self.simulated += report.simulated;
    }
}

impl Totals {
    /// How long clusters took to be well again, and how often each kind of fault was made.
    pub(super) fn details(&self) -> String {
        let mut settled = self.settled.clone();
        settled.sort_unstable();
        let percentile = |percent: usize| {
            let place = (settled.len() * percent / 100).min(settled.len().saturating_sub(1));
            settled.get(place).copied().unwrap_or_default()
        };
        let [(half, _), (most, _), (longest, seed)] = [50, 99, 100].map(percentile);
        format!(
            "well again after the last fault: half in {} ms, 99 % in {} ms, all in {} ms (seed {seed})\nfaults: {}",
            half / MILLISECOND,
            most / MILLISECOND,
            longest / MILLISECOND,
            self.faults
        )
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.simulated as f64 / SECOND as f64;
        let speed = seconds / self.core.as_secs_f64().max(1e-9);
        write!(
            f,
            "{} seeds, {} failing; {:.2} simulated hours, {} operations, {} faults; \
             {speed:.0} simulated seconds per second of one core ({})",
            self.seeds,
            self.failures,
            seconds / 3_600.0,
            self.committed,
            self.faults.total(),
            self.what,
        )
    }
}
