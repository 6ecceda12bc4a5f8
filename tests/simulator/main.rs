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
mod repair;
mod restart;
mod sessions;
mod standby;
mod transcripts;
mod transfer;
mod view_change;
mod vocabulary;

use std::time::{SystemTime, UNIX_EPOCH};

use stampede::sim::{Options, Report, Simulation};

/// Seeds that are run every time, and what each is for. "Finds" names a mistake that was made on
/// purpose, once, to see that this seed notices it.
const SEEDS: &[(u64, &str)] = &[
    (
        5,
        "finds a restarted primary that resumes its view, and a forgotten start of a view",
    ),
    (7, "checkpoints; a replica is left behind"),
    (
        8,
        "finds the best log chosen by its length instead of its view",
    ),
    (
        9,
        "finds a commit point that is believed before the log is known; checkpoints",
    ),
    (10, "finds a commit without a quorum"),
    (22, "more clients than sessions; checkpoints"),
    (25, "finds an acknowledgement of what is not durable"),
    (29, "more than twenty views"),
    (
        46,
        "finds prepares of former views that are taken unchecked",
    ),
    (66, "finds a view that one replica changes alone"),
];

/// Prints how to run a seed again if the test fails, by whatever way it fails.
struct Replay(u64);

impl Drop for Replay {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let seed = self.0;
            eprintln!("\nrun it again:\ncargo run --release -- sim --seed {seed}\n");
        }
    }
}

fn run(seed: u64) -> Report {
    let _replay = Replay(seed);
    let run = Simulation::new(Options::random(seed), seed).and_then(|mut s| s.run());
    run.unwrap_or_else(|violation| panic!("seed {seed}: {violation}"))
}

#[test]
fn fixed_seeds_hold_and_run_the_same_twice() {
    for (seed, what) in SEEDS {
        let (first, second) = (run(*seed), run(*seed));
        assert_eq!(first, second, "seed {seed} ({what}) is not deterministic");
    }
}

#[test]
fn a_fresh_seed_holds() {
    let clock = SystemTime::now().duration_since(UNIX_EPOCH);
    let seed = clock.expect("after 1970").as_secs();
    println!("seed {seed}: {:?}", run(seed));
}
