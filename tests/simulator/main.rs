//! Whole clusters under a simulated clock, network and disk.
//!
//! Four kinds of test:
//! - **named scenarios**, one file for each area, `area::situation_outcome`, in a small vocabulary
//!   (crash, start, partition, cut, pause, damage, submit, run_until);
//! - **conversations**, kept as text, to learn the protocol from (`transcripts`);
//! - **fixed seeds**, each run twice: every property holds, and both runs are the same, event for event;
//! - **one fresh seed**, printed, so that every run of the tests looks somewhere new.
//!
//! A seed that fails prints the command that runs it again and shows the last lines of its trace
//! (`stampede sim --seed N`); `scripts/soak.sh` looks for failing seeds as long as one likes.
//!
//! What the simulator does not model is listed at the top of `src/sim/mod.rs`.

#![expect(
    clippy::disallowed_methods,
    reason = "a fresh seed comes from the clock"
)]
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a failing seed says how to run it again"
)]

mod checkpoint;
mod clock;
mod disk;
mod harness;
mod network;
mod normal;
mod recovery;
mod release;
mod repair;
mod restart;
mod sessions;
mod standby;
mod transcripts;
mod transfer;
mod view_change;
mod vocabulary;

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use stampede::sim::{Lines, Options, Report, Simulation};

/// What a run must have shown.
type Shown = fn(&Report) -> bool;

/// Seeds that are run every time, and what each is kept for. What a seed draws changes with every kind
/// of fault that is added; then this says so, and another one is to be chosen. Which mistakes seeds find
/// is another question: `tests/mutants.rs`.
const SEEDS: &[(u64, &str, Shown)] = &[
    (5, "a storm of views", |r| r.views > 5),
    (22, "more clients than sessions", |r| r.evictions > 0),
    (25, "damage, and a storm of views", |r| {
        r.damaged > 0 && r.views > 5
    }),
    (47, "disks that are set back, and lost", |r| {
        r.set_back > 0 && r.lost_disks > 0
    }),
    (54, "disks that are lost, one after the other", |r| {
        r.lost_disks > 1
    }),
    (56, "much damage", |r| r.damaged > 20),
    (61, "many checkpoints; replicas are left behind", |r| {
        r.checkpoints > 5 && r.transfers > 0
    }),
    (
        117_697_056_998_132,
        "checkpoint files that rot, on a disk that is set back",
        |r| r.set_back > 0 && r.checkpoints > 0,
    ),
];

/// Everybody waits for them.
const FIXED_SEEDS_MAX: Duration = Duration::from_secs(240);

/// Prints how to run a seed again if the test fails, by whatever way it fails.
struct Replay(u64);

impl Drop for Replay {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let seed = self.0;
            eprintln!("\nrun it again:\ncargo run -- sim --seed {seed}\n");
        }
    }
}

fn run(seed: u64) -> Report {
    let _replay = Replay(seed);
    let run = |lines| Simulation::traced(Options::random(seed), seed, lines)?.run();
    run(Lines::none()).unwrap_or_else(|violation| {
        let lines = Lines::keep(60);
        let _ = run(lines.clone());
        panic!("{}seed {seed}: {violation}", lines.text())
    })
}

#[test]
fn fixed_seeds_hold_and_run_the_same_twice() {
    let begun = Instant::now();
    for (seed, what, shown) in SEEDS {
        let (first, second) = (run(*seed), run(*seed));
        assert_eq!(first, second, "seed {seed} ({what}) is not deterministic");
        assert!(
            shown(&first),
            "seed {seed} is not {what} any more: {first:?}"
        );
    }
    let took = begun.elapsed();
    println!("{} seeds, twice each: {took:?}", SEEDS.len());
    assert!(
        took < FIXED_SEEDS_MAX,
        "{took:?} is too long for every change"
    );
}

#[test]
fn a_fresh_seed_holds() {
    let clock = SystemTime::now().duration_since(UNIX_EPOCH);
    let seed = clock.expect("after 1970").as_secs();
    let (first, second) = (run(seed), run(seed));
    assert_eq!(first, second, "seed {seed} is not deterministic");
    println!("seed {seed}: {first:?}");
}
