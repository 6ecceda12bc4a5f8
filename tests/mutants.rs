//! Does the simulator notice known mistakes? Each of [`Mutant::ALL`] is made on purpose, in a scenario
//! that gives it a chance, with one seed after the other until something is found.
//!
//! ```text
//!   mutant ──► its scenario, seeds 1, 2, 3 … ──► violation, or an assertion of the product: caught
//!                    │
//!                    └── the same seeds without a mutant: nothing may be found
//! ```
//!
//! A mutant that is not caught within the seeds of its scenario fails the test: a checker is missing, or
//! the scenario does not reach what it is about. What each mutant is says `src/mutant.rs`.

#![expect(
    clippy::print_stdout,
    reason = "the table of what was found is to be read"
)]

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::thread;

use stampede::mutant::Mutant;
use stampede::sim::{
    Damage, FaultPlan, MILLISECOND, Mixture, Options, Quality, SECOND, Simulation, Violation,
};

type Scenario = Result<(), Violation>;

/// A way to run a cluster, and how many seeds a mutant may survive in it.
#[derive(Clone, Copy)]
struct Trial {
    name: &'static str,
    run: fn(u64) -> Scenario,
    seeds: u64,
}

const fn trial(name: &'static str, run: fn(u64) -> Scenario, seeds: u64) -> Trial {
    Trial { name, run, seeds }
}

const STORM: Trial = trial("storm", storm, 300);
const DAMAGE: Trial = trial("damage", damage, 100);
const FORGETTING: Trial = trial("forgetting", forgetting, 100);
const REJOINS: Trial = trial("rejoins", rejoins, 100);
const JOIN: Trial = trial("forgotten join", forgotten_join, 60);
const POWER: Trial = trial("power losses", power_losses, 20);
const DEAD: Trial = trial("dead entries", dead_entries, 5);
const QUIET: Trial = trial("quiet", quiet, 2);
const DEAF: Trial = trial("deaf primary", deaf_primary, 2);
const CLOCKS: Trial = trial("clocks", clocks, 5);
const CROWD: Trial = trial("crowd", crowd, 2);
const AWAY: Trial = trial("away", away, 5);
const PLACES: Trial = trial("places", places, 2);
const REPLIES: Trial = trial("replies", kept_replies, 2);
const CHECKPOINTS: Trial = trial("checkpoints", checkpoints, 20);
const ALONE: Trial = trial("alone", alone, 3);
const TRANSFER: Trial = trial("transfer", transfer, 3);
const BAD_DONOR: Trial = trial("bad donor", bad_donor, 3);
const LOST_END: Trial = trial("lost end", lost_end, 3);
const STANDBY: Trial = trial("standby", standby, 3);
const SPOILED: Trial = trial("spoiled copies", spoiled_copies, 5);

const TRIALS: &[Trial] = &[
    STORM,
    DAMAGE,
    FORGETTING,
    REJOINS,
    JOIN,
    POWER,
    DEAD,
    QUIET,
    DEAF,
    CLOCKS,
    CROWD,
    AWAY,
    PLACES,
    REPLIES,
    CHECKPOINTS,
    ALONE,
    TRANSFER,
    BAD_DONOR,
    LOST_END,
    STANDBY,
    SPOILED,
];

/// Where a mutant is to be caught.
fn trial_of(mutant: Mutant) -> Trial {
    match mutant {
        Mutant::AcknowledgesTooEarly | Mutant::ResumesItsView | Mutant::ForgetsLogViewOp => POWER,
        Mutant::CommitsOneShort
        | Mutant::CommitsThePrepared
        | Mutant::BelievesCommitEarly
        | Mutant::TakesOldPrepares
        | Mutant::BeginsAlone
        | Mutant::LongestLogWins
        | Mutant::ForgetsInFlight
        | Mutant::ExecutesTwice => STORM,
        Mutant::TimeGoesBack | Mutant::ForgetsTimestamps | Mutant::PrimaryClockAlone => CLOCKS,
        Mutant::PipelineWithoutEnd => CROWD,
        Mutant::LeavesAlone | Mutant::WishesStay | Mutant::ForgetsHeartbeats => QUIET,
        Mutant::KeepsDeadSuffix | Mutant::KeepsDeadEntries => DEAD,
        Mutant::AcknowledgesOverHoles
        | Mutant::DamageIsANack
        | Mutant::NackQuorumShort
        | Mutant::RestoredCutsOff => DAMAGE,
        Mutant::VotesWhileRecovering | Mutant::IgnoresRollback => FORGETTING,
        Mutant::DeafPrimaryStays => DEAF,
        Mutant::AsksOnce => AWAY,
        Mutant::EvictsTheNewest => PLACES,
        Mutant::LosesSessions | Mutant::LosesReplies | Mutant::OnlyThePrimaryKeepsReplies => {
            REPLIES
        }
        Mutant::JoinsTooEarly => JOIN,
        Mutant::LogViewTooEarly => REJOINS,
        Mutant::SweepsTooEarly | Mutant::CapturesLate | Mutant::CheckpointNotSynced => CHECKPOINTS,
        Mutant::StartsTooLate => ALONE,
        Mutant::NeverBeyondReach | Mutant::TransferNotSynced => TRANSFER,
        Mutant::TransferNotVerified => BAD_DONOR,
        Mutant::UnsureIsTrusted => LOST_END,
        Mutant::StandbyCounts => STANDBY,
        Mutant::CopiesAtOnce | Mutant::SameHalfFirst => SPOILED,
    }
}

// ── the test ────────────────────────────────────────────────────────────────────────────────────

#[test]
fn every_mutant_is_caught_and_the_same_seeds_without_one_hold() {
    report_panics_quietly();
    let caught = in_parallel(Mutant::ALL, |mutant| {
        let trial = trial_of(*mutant);
        let found = (1..=trial.seeds).find_map(|seed| {
            let found = attempt(Some(*mutant), trial, seed).err()?;
            Some((seed, found))
        });
        (*mutant, trial, found)
    });
    println!("| mutant | scenario | seeds | caught by |\n| --- | --- | --- | --- |");
    for (mutant, trial, found) in &caught {
        let (seeds, by) = match found {
            Some((seed, by)) => (seed.to_string(), by.as_str()),
            None => (format!("> {}", trial.seeds), "**nothing**"),
        };
        println!("| {} | {} | {seeds} | {by} |", mutant.name(), trial.name);
    }
    // What the seeds above say is worth something only if they say nothing without a mutant.
    let needed = |trial: &Trial| {
        let of_trial = caught.iter().filter(|(_, of, _)| of.name == trial.name);
        let seeds = of_trial.map(|(_, _, found)| found.as_ref().map_or(trial.seeds, |f| f.0));
        seeds.max().unwrap_or(0)
    };
    let guard: Vec<(Trial, u64)> = TRIALS
        .iter()
        .flat_map(|trial| (1..=needed(trial)).map(|seed| (*trial, seed)))
        .collect();
    let held = in_parallel(&guard, |(trial, seed)| attempt(None, *trial, *seed));
    for ((trial, seed), result) in guard.iter().zip(held) {
        assert_eq!(
            result,
            Ok(()),
            "{}, seed {seed}, without a mutant",
            trial.name
        );
    }
    println!("{} runs without a mutant hold", guard.len());
    let survivors: Vec<&str> = caught
        .iter()
        .filter(|(_, _, found)| found.is_none())
        .map(|(mutant, _, _)| mutant.name())
        .collect();
    assert!(survivors.is_empty(), "not caught: {survivors:?}");
}

/// One run; what was found, if anything: the property, or the place of the assertion.
fn attempt(mutant: Option<Mutant>, trial: Trial, seed: u64) -> Result<(), String> {
    Mutant::switch(mutant);
    let result = catch_unwind(AssertUnwindSafe(|| (trial.run)(seed)));
    Mutant::switch(None);
    match result {
        Ok(Ok(())) => Ok(()),
        Ok(Err(violation)) if mutant.is_some() => Err(violation.property.to_owned()),
        Ok(Err(violation)) => Err(violation.to_string()),
        Err(_) => Err(PANIC.with_borrow_mut(|place| place.take().unwrap_or_default())),
    }
}

thread_local! {
    /// Where this thread has panicked.
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// A panic in a run is a finding like any other, not an end of the test.
fn report_panics_quietly() {
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        let is_worker = thread::current().name() == Some(WORKER);
        let Some(place) = info.location().filter(|_| is_worker) else {
            return default(info);
        };
        let file = place.file().trim_start_matches("src/");
        PANIC.set(Some(format!("assertion in `{file}`")));
    }));
}

const WORKER: &str = "simulation";

/// The results of `work` for all items, in their order, made on all cores. A run is one thread's.
fn in_parallel<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let queue = Mutex::new(items.iter().enumerate());
    let results = Mutex::new(Vec::with_capacity(items.len()));
    let next = || queue.lock().expect("nobody panics with it").next();
    let cores = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..cores {
            let worker = thread::Builder::new().name(WORKER.to_owned());
            let run = || {
                while let Some((index, item)) = next() {
                    let result = work(item);
                    results
                        .lock()
                        .expect("nobody panics with it")
                        .push((index, result));
                }
            };
            worker.spawn_scoped(scope, run).expect("a thread");
        }
    });
    let mut results = results.into_inner().expect("nobody panics with it");
    results.sort_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| result).collect()
}

// ── scenarios ───────────────────────────────────────────────────────────────────────────────────

/// What a scenario expects besides what the checkers watch.
fn expect(holds: bool, what: &str) -> Scenario {
    if holds {
        return Ok(());
    }
    Err(Violation::new("the scenario", what))
}

/// A time that differs from seed to seed and from round to round.
fn moment(seed: u64, round: u64, from: u64, to: u64) -> u64 {
    let mixed = (seed * 1_000_003 + round * 7_919).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
    from + mixed % (to - from)
}

/// Clients that ask when they are told to, without a pause.
const BUSY: Options = Options {
    requests: 0,
    think_max: 0,
    client_count: 8,
    segment_size: 2 << 20,
    calm_max: 20 * SECOND,
    ..Options::CALM
};

fn begin(options: Options, seed: u64) -> Result<Simulation, Violation> {
    let mut cluster = Simulation::new(options, seed)?;
    let serves = cluster.run_until(5 * SECOND, |c| c.primary().is_some())?;
    expect(serves, "a fresh cluster has a primary")?;
    Ok(cluster)
}

fn all_answered(cluster: &mut Simulation, requests: u64) -> Scenario {
    cluster.submit(requests);
    let answered = cluster.run_until(30 * SECOND, Simulation::clients_done)?;
    expect(answered, "everybody is answered")
}

fn highest_view(cluster: &Simulation) -> u32 {
    let views = (0..3).filter_map(|r| cluster.progress(r)).map(|p| p.view);
    views.max().unwrap_or(0)
}

/// Primaries are cut off and crash as soon as they serve, on disks that are slower than the network.
fn storm(seed: u64) -> Scenario {
    let mut options = Options {
        requests: 5_000,
        faults: FaultPlan {
            crash: 3,
            crash_primary: 5,
            isolate_primary: 10,
            partition: 3,
            one_way: 3,
            pause: 2,
            interval_max: 600 * MILLISECOND,
            duration_max: 1_500 * MILLISECOND,
            ..FaultPlan::NONE
        },
        faults_for: 8 * SECOND,
        mixture: Mixture {
            events_max: 2,
            full: 0,
            ..Mixture::ORDINARY
        },
        quality: Quality {
            delay_extra: 20 * MILLISECOND,
            ..Quality::GOOD
        },
        ..BUSY
    };
    options.speed.write_max = [5, 50, 150][(seed % 3) as usize] * MILLISECOND;
    Simulation::new(options, seed)?.run().map(drop)
}

/// Disks damage what journals hold, and so often that several replicas lack different entries while views
/// change and power fails.
fn damage(seed: u64) -> Scenario {
    let mut options = Options {
        requests: 5_000,
        faults: FaultPlan {
            rot: 10,
            latent: 5,
            lost_write: 10,
            misdirected: 3,
            crash: 8,
            crash_primary: 5,
            blackout: 3,
            isolate_primary: 5,
            interval_max: 300 * MILLISECOND,
            duration_max: 1_000 * MILLISECOND,
            ..FaultPlan::NONE
        },
        faults_for: 8 * SECOND,
        ..BUSY
    };
    options.mixture.events_max = 2;
    options.mixture.full = 0;
    options.speed.write_max = [2, 20, 80][(seed % 3) as usize] * MILLISECOND;
    Simulation::new(options, seed)?.run().map(drop)
}

/// Disks are lost, or set back to older copies, while views change.
fn forgetting(seed: u64) -> Scenario {
    let mut options = Options {
        requests: 5_000,
        faults: FaultPlan {
            set_back: 10,
            lost_disk: 10,
            crash: 3,
            isolate_primary: 10,
            partition: 5,
            one_way: 3,
            interval_max: 500 * MILLISECOND,
            duration_max: 1_000 * MILLISECOND,
            ..FaultPlan::NONE
        },
        faults_for: 8 * SECOND,
        ..BUSY
    };
    options.mixture.events_max = 2;
    options.mixture.full = 0;
    options.speed.write_max = [2, 20, 80][(seed % 3) as usize] * MILLISECOND;
    Simulation::new(options, seed)?.run().map(drop)
}

/// All machines lose power at once, again and again.
fn power_losses(seed: u64) -> Scenario {
    let mut options = BUSY;
    options.speed.write_max = 30 * MILLISECOND;
    let mut cluster = begin(options, seed)?;
    for round in 0..8 {
        cluster.submit(200);
        cluster.run_for(moment(seed, round, 300, 900) * MILLISECOND)?;
        for replica in 0..3 {
            cluster.crash(replica);
        }
        for replica in 0..3 {
            cluster.start(replica)?;
        }
    }
    cluster.finish().map(drop)
}

/// Nothing passes between a replica and the others, and no connection breaks.
fn cut_off(cluster: &mut Simulation, replica: u8) {
    for other in (0..3).filter(|r| *r != replica) {
        cluster.cut(replica, other);
        cluster.cut(other, replica);
    }
}

/// One primary after the other is cut off, comes back with entries that died, and crashes while it
/// takes over what has come into their places.
fn rejoins(seed: u64) -> Scenario {
    let mut options = BUSY;
    options.speed.write_max = 200 * MILLISECOND;
    let mut cluster = begin(options, seed)?;
    for round in 0..6 {
        cluster.submit(200);
        cluster.run_for(SECOND)?;
        let Some(primary) = cluster.primary() else {
            continue;
        };
        cut_off(&mut cluster, primary);
        cluster.run_for(1_500 * MILLISECOND)?;
        cluster.heal();
        cluster.run_for(moment(seed, round, 50, 500) * MILLISECOND)?;
        cluster.crash(primary);
        cluster.start(primary)?;
    }
    cluster.finish().map(drop)
}

/// A backup joins the next view, crashes before its disk knows, and is needed by the former primary.
fn forgotten_join(seed: u64) -> Scenario {
    let mut options = BUSY;
    options.speed.write_max = 300 * MILLISECOND;
    let mut cluster = begin(options, seed)?;
    for round in 0..8 {
        cluster.submit(200);
        cluster.run_for(1_500 * MILLISECOND)?;
        let Some(primary) = cluster.primary() else {
            continue;
        };
        let (next, other) = ((primary + 1) % 3, (primary + 2) % 3);
        cut_off(&mut cluster, primary);
        cluster.run_for(moment(seed, round, 205, 300) * MILLISECOND)?;
        cluster.crash(other);
        cluster.heal();
        cut_off(&mut cluster, next);
        cluster.start(other)?;
        cluster.run_for(1_500 * MILLISECOND)?;
        cluster.heal();
    }
    cluster.finish().map(drop)
}

/// A primary that was cut off has entries that died; it may restart before others take their places.
fn dead_entries(seed: u64) -> Scenario {
    let mut cluster = begin(BUSY, seed)?;
    all_answered(&mut cluster, 3)?;
    cut_off(&mut cluster, 0);
    cluster.submit(3);
    cluster.run_for(130 * MILLISECOND)?;
    let silence =
        |cluster: &mut Simulation| (0..8).for_each(|client| cluster.silence_client(client));
    silence(&mut cluster);
    let taken = cluster.run_until(5 * SECOND, |c| c.primary().is_some_and(|p| p != 0))?;
    expect(taken, "another takes over")?;
    cluster.heal();
    silence(&mut cluster);
    let joined = cluster.run_until(5 * SECOND, |c| {
        let progress = c.progress(0);
        progress.is_some_and(|p| p.view > 0 && p.executed == c.committed())
    })?;
    expect(joined, "it comes back")?;
    cluster.run_for(SECOND)?;
    if seed % 2 == 1 {
        cluster.crash(0);
        cluster.start(0)?;
        cluster.run_for(SECOND)?;
    }
    cluster.heal();
    cluster.finish().map(drop)
}

/// Nothing happens but that links fail for a moment: no reason for another view.
fn quiet(seed: u64) -> Scenario {
    let mut cluster = begin(BUSY, seed)?;
    all_answered(&mut cluster, 2)?;
    cluster.run_for(5 * SECOND)?;
    for _ in 0..3 {
        for backup in 1..3 {
            cluster.cut(0, backup);
            cluster.run_for(350 * MILLISECOND)?;
            cluster.heal();
            cluster.run_for(600 * MILLISECOND)?;
        }
    }
    expect(highest_view(&cluster) == 0, "the view stays")?;
    cluster.finish().map(drop)
}

/// A primary that can send and not hear is replaced.
fn deaf_primary(seed: u64) -> Scenario {
    let mut cluster = begin(BUSY, seed)?;
    all_answered(&mut cluster, 2)?;
    cluster.cut(1, 0);
    cluster.cut(2, 0);
    all_answered(&mut cluster, 5)?;
    expect(highest_view(&cluster) > 0, "another takes over")?;
    cluster.finish().map(drop)
}

/// The primary's clock is ahead by an hour; then by so much that it still agrees with one backup, and the
/// next primary's is behind by as much.
fn clocks(seed: u64) -> Scenario {
    const HOUR: i64 = 3_600_000_000_000;
    let mut cluster = begin(BUSY, seed)?;
    for replica in 1..3 {
        let ahead = i128::from(cluster.wall(0)) - i128::from(cluster.wall(replica));
        cluster.set_clock(replica, i64::try_from(ahead).expect("a second at most"));
    }
    cluster.run_for(SECOND)?;
    cluster.set_clock(0, HOUR);
    all_answered(&mut cluster, 20)?;
    let most = cluster.wall(1) + SECOND;
    let follows = cluster.timestamp(0).is_some_and(|time| time < most);
    expect(follows, "cluster time is within the others' clocks")?;
    for (replica, jump) in [(0, 450_000_000 - HOUR), (1, -280_000_000), (2, 150_000_000)] {
        cluster.set_clock(replica, jump);
    }
    cluster.submit(5_000);
    cluster.run_for(300 * MILLISECOND)?;
    cluster.crash(0);
    cluster.run_for(600 * MILLISECOND)?;
    cluster.finish().map(drop)
}

/// More clients than a pipeline has places, and slow disks.
fn crowd(seed: u64) -> Scenario {
    let mut options = Options {
        client_count: 100,
        sessions_max: 128,
        ..BUSY
    };
    options.speed.write_max = 200 * MILLISECOND;
    let mut cluster = begin(options, seed)?;
    all_answered(&mut cluster, 3)?;
    cluster.finish().map(drop)
}

/// A replica comes back over a network that loses a quarter of all messages.
fn away(seed: u64) -> Scenario {
    let options = Options {
        quality: Quality {
            loss: 250_000,
            ..Quality::GOOD
        },
        calm_max: 10 * SECOND,
        ..BUSY
    };
    let mut cluster = begin(options, seed)?;
    cluster.crash(2);
    cluster.submit(60);
    cluster.run_for(5 * SECOND)?;
    cluster.start(2)?;
    cluster.run_for(2 * SECOND)?;
    cluster.finish().map(drop)
}

/// Five clients and four places: who has asked last keeps its own.
fn places(seed: u64) -> Scenario {
    let options = Options {
        client_count: 5,
        sessions_max: 4,
        ..BUSY
    };
    let mut cluster = begin(options, seed)?;
    for client in [0, 1, 2, 3, 4, 3, 3] {
        cluster.submit_by(client, 1);
        let answered = cluster.run_until(20 * SECOND, Simulation::clients_done)?;
        expect(answered, "everybody is answered")?;
    }
    let report = cluster.finish()?;
    expect(report.evictions == 1, "only the oldest session goes")
}

/// Journals that are cut now and then.
const CHECKPOINTING: Options = Options {
    mixture: Mixture {
        events_max: 600,
        full: 0,
        ..Mixture::ORDINARY
    },
    ..BUSY
};

fn checkpoint(cluster: &Simulation, replica: u8) -> u64 {
    cluster.progress(replica).map_or(0, |p| p.checkpoint)
}

/// Work goes on until all replicas that are up have a later checkpoint than `op`.
fn work_until_checkpoint(cluster: &mut Simulation, op: u64) -> Scenario {
    for _ in 0..60 {
        cluster.submit(10);
        cluster.run_for(500 * MILLISECOND)?;
        let mut up = (0..3).filter(|r| cluster.progress(*r).is_some());
        if up.all(|r| checkpoint(cluster, r) > op) {
            return Ok(());
        }
    }
    expect(false, "there are checkpoints")
}

/// A client does not hear its reply before all machines restart from a checkpoint that has it.
fn kept_replies(seed: u64) -> Scenario {
    let mut cluster = begin(CHECKPOINTING, seed)?;
    all_answered(&mut cluster, 3)?;
    cluster.deafen_client(0);
    cluster.submit(1);
    cluster.run_for(SECOND)?;
    let asked = cluster.committed();
    work_until_checkpoint(&mut cluster, asked)?;
    for replica in 0..3 {
        cluster.crash(replica);
    }
    for replica in 0..3 {
        cluster.start(replica)?;
    }
    cluster.heal();
    let answered = cluster.run_until(30 * SECOND, Simulation::clients_done)?;
    expect(answered, "everybody is answered")?;
    let report = cluster.finish()?;
    expect(report.evictions == 0, "no session is lost")
}

/// Machines crash while checkpoints are written, on disks that are slow.
fn checkpoints(seed: u64) -> Scenario {
    let mut options = CHECKPOINTING;
    options.speed.write_max = 60 * MILLISECOND;
    options.speed.build_max = [20, 400][(seed % 2) as usize] * MILLISECOND;
    let mut cluster = begin(options, seed)?;
    for round in 0..9 {
        cluster.submit(40);
        cluster.run_for(moment(seed, round, 200, 900) * MILLISECOND)?;
        let replica = u8::try_from((seed + round) % 3).expect("below three");
        cluster.crash(replica);
        cluster.start(replica)?;
        let lost = cluster.progress(replica).is_some_and(|p| p.checkpoint_lost);
        expect(!lost, "the checkpoint is there")?;
    }
    cluster.finish().map(drop)
}

/// A single replica restarts behind a checkpoint: nobody else has what it leaves out.
fn alone(seed: u64) -> Scenario {
    let options = Options {
        replica_count: 1,
        ..CHECKPOINTING
    };
    let mut cluster = begin(options, seed)?;
    for _ in 0..3 {
        let stood = checkpoint(&cluster, 0);
        for _ in 0..60 {
            cluster.submit(10);
            cluster.run_for(500 * MILLISECOND)?;
            if checkpoint(&cluster, 0) > stood {
                break;
            }
        }
        expect(checkpoint(&cluster, 0) > stood, "there is a checkpoint")?;
        cluster.submit(20);
        cluster.run_for(100 * MILLISECOND)?;
        cluster.crash(0);
        cluster.start(0)?;
    }
    cluster.finish().map(drop)
}

/// A replica is off until no journal reaches back to where it stood.
fn leave_behind(cluster: &mut Simulation, replica: u8) -> Scenario {
    let stood = cluster.committed();
    cluster.crash(replica);
    for _ in 0..60 {
        cluster.submit(20);
        cluster.run_for(SECOND)?;
        let mut others = (0..3).filter(|r| *r != replica);
        if others.all(|r| cluster.trimmed(r) > Some(stood)) {
            let answered = cluster.run_until(30 * SECOND, Simulation::clients_done)?;
            return expect(answered, "everybody is answered");
        }
    }
    expect(false, "journals are cut")
}

/// It has taken over a checkpoint of another replica, and can use it.
fn takes_over(cluster: &mut Simulation, replica: u8) -> Scenario {
    let former = checkpoint(cluster, replica);
    let fetched = cluster.run_until(10 * SECOND, |c| checkpoint(c, replica) > former)?;
    expect(fetched, "a checkpoint is fetched")?;
    let lost = cluster.progress(replica).is_none_or(|p| p.checkpoint_lost);
    expect(!lost, "the fetched checkpoint is whole")
}

/// A replica fetches a checkpoint, and loses power as soon as it has it.
fn transfer(seed: u64) -> Scenario {
    let mut cluster = begin(CHECKPOINTING, seed)?;
    all_answered(&mut cluster, 3)?;
    leave_behind(&mut cluster, 2)?;
    cluster.start(2)?;
    takes_over(&mut cluster, 2)?;
    cluster.crash(2);
    cluster.start(2)?;
    let lost = cluster.progress(2).is_none_or(|p| p.checkpoint_lost);
    expect(!lost, "the fetched checkpoint is durable")?;
    cluster.finish().map(drop)
}

/// The replica that lends its checkpoint does not know that its disk has damaged it.
fn bad_donor(seed: u64) -> Scenario {
    let mut cluster = begin(CHECKPOINTING, seed)?;
    all_answered(&mut cluster, 3)?;
    leave_behind(&mut cluster, 2)?;
    let primary = cluster.primary();
    let donor = (0..2).find(|r| Some(*r) != primary).expect("a backup");
    cluster.damage_checkpoint(donor);
    cluster.start(2)?;
    takes_over(&mut cluster, 2)?;
    cluster.finish().map(drop)
}

/// Two replicas hold an operation that clients know of, and the disk of one of them loses it, without a
/// trace of what it was. It starts again together with the one that never had it, without the other one.
fn lost_end(seed: u64) -> Scenario {
    let mut cluster = begin(BUSY, seed)?;
    all_answered(&mut cluster, 3)?;
    let primary = cluster.primary().expect("it has answered");
    let (loser, other) = ((primary + 1) % 3, (primary + 2) % 3);
    cut_off(&mut cluster, other);
    all_answered(&mut cluster, 1)?;
    // Long enough for the journals to say how far they are durable.
    cluster.run_for(150 * MILLISECOND)?;
    let last = cluster.committed();
    cluster.crash(primary);
    cluster.crash(loser);
    let lost = cluster.damage_entry(loser, last, Damage::LostWrite);
    expect(lost, "the last entry may be damaged")?;
    cluster.heal();
    cluster.start(loser)?;
    cluster.submit(1);
    cluster.run_for(5 * SECOND)?;
    cluster.finish().map(drop)
}

/// The primary reaches no other replica, and a standby.
fn standby(seed: u64) -> Scenario {
    let options = Options {
        standby_count: 1,
        ..BUSY
    };
    let mut cluster = begin(options, seed)?;
    all_answered(&mut cluster, 3)?;
    let primary = cluster.primary().expect("it has answered");
    cut_off(&mut cluster, primary);
    cluster.submit(5);
    cluster.run_for(2 * SECOND)?;
    cluster.heal();
    cluster.finish().map(drop)
}

/// A crash spoils all copies of the superblock that are being written, and so does the next one, soon after
/// the start.
fn spoiled_copies(seed: u64) -> Scenario {
    let mut options = BUSY;
    options.faults.spoiled_copies = 1_000_000;
    options.speed.write_max = 30 * MILLISECOND;
    let mut cluster = begin(options, seed)?;
    for round in 0..10 {
        let replica = u8::try_from((seed + round) % 3).expect("below three");
        cluster.submit(5);
        for time in 0..4 {
            cluster.run_for(moment(seed, 4 * round + time, 1, 40) * MILLISECOND)?;
            cluster.crash(replica);
            cluster.start(replica)?;
        }
    }
    cluster.finish().map(drop)
}
