//! `stampede sim`: whole clusters in a simulated world, from seeds.
//!
//! ```text
//!   stampede sim                        fresh seeds, one minute, all cores
//!   stampede sim --seeds 0..2000        these
//!   stampede sim --seed 17              one, with the end of its trace to read
//!   stampede sim --mode light           how fast it is: three replicas that nothing disturbs
//! ```
//!
//! A violation is reported with the command that runs its seed again, and makes the exit code 1. The
//! last lines say how much was simulated, what was done to it, and how fast it was: simulated seconds per second that one core
//! spent on them, as the kernel counts it, so that other work on the machine does not matter.

mod swarm;

use std::io::Write;
use std::ops::Range;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::{Args, ValueEnum};

use super::{Failure, say};
use crate::sim::{Lines, Options, Simulation};

/// How long to look for violations when nobody says.
const DURATION_DEFAULT: Duration = Duration::from_secs(60);

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Run this seed alone, and show the end of its trace
    #[arg(long, value_name = "N", conflicts_with_all = ["seeds", "count", "duration"])]
    seed: Option<u64>,
    /// Lines of trace to show with --seed
    #[arg(long, value_name = "N", default_value_t = 200, requires = "seed")]
    lines: usize,
    /// Run these seeds
    #[arg(long, value_name = "FROM..TO", value_parser = parse_seeds, conflicts_with = "count")]
    seeds: Option<Range<u64>>,
    /// Run so many fresh seeds
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// Begin no more seeds after this long (30s, 10m, 2h) [default: 1m without --seeds or --count]
    #[arg(long = "for", value_name = "DURATION", value_parser = parse_duration)]
    duration: Option<Duration>,
    /// Run each seed twice; both runs must be the same, event for event
    #[arg(long)]
    twice: bool,
    /// Seeds at once, each on a thread of its own [default: one for each core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    jobs: Option<u16>,
    /// What is simulated
    #[arg(long, value_enum, default_value_t = Mode::Swarm)]
    mode: Mode,
}

/// What is simulated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Mode {
    /// Sizes, load and faults, all drawn from the seed
    Swarm,
    /// Three replicas under a light load, and nothing that fails
    Light,
    /// The same with answers that are spoiled: every seed must fail, and shows what that looks like
    Canary,
}

impl Mode {
    fn options(self, seed: u64) -> Options {
        match self {
            Self::Swarm => Options::random(seed),
            Self::Light => Options::LIGHT,
            Self::Canary => Options::CANARY,
        }
    }

    /// What a command line says to choose it.
    fn flags(self) -> &'static [&'static str] {
        match self {
            Self::Swarm => &[],
            Self::Light => &["--mode", "light"],
            Self::Canary => &["--mode", "canary"],
        }
    }
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    match arguments.seed {
        Some(seed) => replay(arguments, seed),
        None => explore(arguments),
    }
}

fn explore(arguments: &Arguments) -> Result<(), Failure> {
    let fresh = || {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        since.map_or(0, |since| since.as_secs()) << 16
    };
    let endless = arguments.seeds.is_none() && arguments.count.is_none();
    let seeds = arguments.seeds.clone().unwrap_or_else(|| {
        let first = fresh();
        first..first.saturating_add(arguments.count.unwrap_or(u64::MAX))
    });
    let unasked = if endless {
        DURATION_DEFAULT
    } else {
        Duration::MAX
    };
    let duration = arguments.duration.unwrap_or(unasked);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let plan = swarm::Plan {
        seeds,
        duration,
        jobs: arguments.jobs.map_or(cores, usize::from),
        twice: arguments.twice,
        mode: arguments.mode,
    };
    let totals = swarm::run(&plan)?;
    say(&format!("{totals}\n"))?;
    if arguments.mode == Mode::Swarm {
        say(&format!("{}\n", totals.details()))?;
    }
    if totals.failures > 0 {
        return Err(Failure::new(format!(
            "{} of {} seeds fail; run them again with --seed to read what happened",
            totals.failures, totals.seeds
        )));
    }
    Ok(())
}

/// One seed on this thread. The lines outlive a panic, which ends the process after they are shown.
fn replay(arguments: &Arguments, seed: u64) -> Result<(), Failure> {
    let options = arguments.mode.options(seed);
    say(&format!("{options:#?}\n"))?;
    let lines = Lines::keep(arguments.lines);
    let (kept, default) = (lines.clone(), std::panic::take_hook());
    std::panic::set_hook(Box::new(move |info| {
        let _ = std::io::stdout().write_all(kept.text().as_bytes());
        default(info);
    }));
    let run = |lines| {
        let simulation = Simulation::traced(options, seed, lines);
        let result = simulation.and_then(|mut simulation| simulation.run());
        result.map_err(|violation| Failure::new(format!("seed {seed}: {violation}")))
    };
    let result = run(lines.clone());
    say(&lines.text())?;
    let report = result?;
    say(&format!("{report:#?}\nfaults: {}\n", report.faults))?;
    if arguments.twice {
        let again = run(Lines::none())?;
        if again != report {
            let what = format!("seed {seed} is not deterministic: the second run was {again:#?}");
            return Err(Failure::new(what));
        }
    }
    Ok(())
}

fn parse_seeds(text: &str) -> Result<Range<u64>, String> {
    let seeds = text.split_once("..").and_then(|(from, to)| {
        let (from, to) = (from.trim().parse().ok()?, to.trim().parse().ok()?);
        (from < to).then_some(from..to)
    });
    seeds.ok_or_else(|| format!("`{text}` is not a range of seeds: write it like 0..2000"))
}

fn parse_duration(text: &str) -> Result<Duration, String> {
    let parsed = text.find(|c: char| !c.is_ascii_digit()).and_then(|digits| {
        let number: u64 = text[..digits].parse().ok()?;
        let unit = match &text[digits..] {
            "s" => 1,
            "m" => 60,
            "h" => 3_600,
            _ => return None,
        };
        Some(Duration::from_secs(number.checked_mul(unit)?))
    });
    parsed.ok_or_else(|| format!("`{text}` is not a duration: write it like 30s, 10m or 2h"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_and_durations_are_read() {
        assert_eq!(parse_seeds("3..5"), Ok(3..5));
        for text in ["3", "5..5", "5..3", "a..b", "..", "1..-2"] {
            assert!(parse_seeds(text).is_err(), "{text}");
        }
        assert_eq!(parse_duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_duration("2h"), Ok(Duration::from_secs(7_200)));
        for text in ["", "5", "m", "1.5m", "-1s", "99999999999999999999h"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }
}
