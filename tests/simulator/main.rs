//! Whole clusters under a simulated clock, network and disk.
//!
//! Three kinds of test:
//! - **named scenarios**, "area: situation: outcome", in a small vocabulary (crash, start, partition,
//!   cut, pause, submit, run_until);
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

mod disk;
mod network;
mod recovery;
mod transcripts;

use std::time::{SystemTime, UNIX_EPOCH};

use stampede::sim::{
    FaultPlan, MILLISECOND, Options, Report, SECOND, Simulation, Speed, Violation,
};
use stampede::vsr::clock::Agreement;

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

// ── scenarios ───────────────────────────────────────────────────────────────────────────────────

type Scenario = Result<(), Violation>;

/// Long enough for a view change and a restart, several times over.
const SOON: u64 = 5 * SECOND;

/// A quiet cluster that the test itself disturbs.
fn cluster(replica_count: u8) -> Result<Simulation, Violation> {
    let options = Options {
        replica_count,
        requests: 0,
        ..Options::CALM
    };
    let mut cluster = Simulation::new(options, 1)?;
    let serves = cluster.run_until(SOON, |c| c.primary().is_some())?;
    assert!(serves, "a fresh cluster has a primary");
    Ok(cluster)
}

/// All clients ask, and all are answered.
fn answers(cluster: &mut Simulation, requests: u64) -> Result<bool, Violation> {
    cluster.submit(requests);
    cluster.run_until(60 * SECOND, Simulation::clients_done)
}

#[test]
fn normal_every_number_of_replicas_answers() -> Scenario {
    for replica_count in 1..=6 {
        let mut cluster = cluster(replica_count)?;
        assert!(answers(&mut cluster, 20)?, "{replica_count} replicas");
        let report = cluster.finish()?;
        // Four clients register, ask, and look at the end.
        assert_eq!(report.acknowledged, 4 * (1 + 20 + 1));
    }
    Ok(())
}

#[test]
fn normal_a_minority_is_down_nobody_notices() -> Scenario {
    let mut cluster = cluster(3)?;
    cluster.crash(2);
    assert!(answers(&mut cluster, 50)?);
    assert_eq!(cluster.progress(0).map(|p| p.view), Some(0));
    cluster.finish().map(drop)
}

#[test]
fn normal_a_majority_is_down_nothing_is_acknowledged() -> Scenario {
    let mut cluster = cluster(3)?;
    assert!(answers(&mut cluster, 5)?);
    cluster.crash(1);
    cluster.crash(2);
    let before = cluster.replies();
    cluster.submit(5);
    cluster.run_for(3 * SECOND)?;
    assert_eq!(cluster.replies(), before);
    cluster.start(1)?;
    assert!(cluster.run_until(60 * SECOND, Simulation::clients_done)?);
    cluster.finish().map(drop)
}

#[test]
fn view_change_the_primary_crashes_another_takes_over() -> Scenario {
    let mut cluster = cluster(3)?;
    cluster.submit(200);
    cluster.run_for(500 * MILLISECOND)?;
    cluster.crash(0);
    let taken = cluster.run_until(2 * SECOND, |c| c.primary().is_some_and(|p| p != 0))?;
    assert!(taken, "no new primary after two seconds");
    assert!(cluster.run_until(60 * SECOND, Simulation::clients_done)?);
    cluster.finish().map(drop)
}

#[test]
fn view_change_one_primary_after_the_other_crashes_work_goes_on() -> Scenario {
    let mut cluster = cluster(5)?;
    for _ in 0..12 {
        cluster.submit(10);
        cluster.run_for(300 * MILLISECOND)?;
        if let Some(primary) = cluster.primary() {
            cluster.crash(primary);
            cluster.run_for(700 * MILLISECOND)?;
            cluster.start(primary)?;
        }
    }
    assert!(cluster.run_until(60 * SECOND, Simulation::clients_done)?);
    let report = cluster.finish()?;
    assert!(report.views >= 6, "{report:?}");
    Ok(())
}

#[test]
fn view_change_a_primary_is_cut_off_it_commits_nothing_and_comes_back() -> Scenario {
    let mut cluster = cluster(3)?;
    assert!(answers(&mut cluster, 5)?);
    cluster.partition(&[0]);
    let taken = cluster.run_until(SOON, |c| c.primary().is_some_and(|p| p != 0))?;
    assert!(taken);
    assert!(answers(&mut cluster, 20)?, "the majority answers");
    let commit = cluster.progress(0).map(|p| p.commit);
    cluster.run_for(SECOND)?;
    assert_eq!(cluster.progress(0).map(|p| p.commit), commit);
    cluster.heal();
    let rejoined = cluster.run_until(SOON, |c| {
        c.progress(0)
            .is_some_and(|p| p.view > 0 && p.executed == c.committed())
    })?;
    assert!(rejoined, "{:?}", cluster.progress(0));
    cluster.finish().map(drop)
}

#[test]
fn view_change_a_deaf_backup_deposes_nobody() -> Scenario {
    let mut cluster = cluster(3)?;
    cluster.cut(0, 2);
    cluster.cut(1, 2);
    assert!(answers(&mut cluster, 50)?);
    cluster.run_for(10 * SECOND)?;
    assert_eq!(cluster.progress(0).map(|p| p.view), Some(0));
    cluster.finish().map(drop)
}

#[test]
fn view_change_one_link_is_cut_in_one_direction_views_do_not_churn() -> Scenario {
    let mut cluster = cluster(3)?;
    cluster.cut(0, 1);
    assert!(answers(&mut cluster, 50)?);
    cluster.run_for(20 * SECOND)?;
    let views = (0..3)
        .filter_map(|r| cluster.progress(r))
        .map(|p| p.view)
        .max();
    assert!(views <= Some(1), "{views:?}");
    cluster.finish().map(drop)
}

#[test]
fn view_change_a_primary_that_pauses_is_replaced_and_joins_again() -> Scenario {
    let mut cluster = cluster(3)?;
    cluster.submit(40);
    cluster.run_for(300 * MILLISECOND)?;
    cluster.pause(0, 3 * SECOND);
    assert!(cluster.run_until(2 * SECOND, |c| c.primary().is_some_and(|p| p != 0))?);
    assert!(cluster.run_until(60 * SECOND, Simulation::clients_done)?);
    cluster.finish().map(drop)
}

#[test]
fn restart_all_lose_power_at_once_everything_acknowledged_is_there() -> Scenario {
    let mut cluster = cluster(3)?;
    for _ in 0..20 {
        cluster.submit(10);
        cluster.run_for(150 * MILLISECOND)?;
        for replica in 0..3 {
            cluster.crash(replica);
        }
        for replica in 0..3 {
            cluster.start(replica)?;
        }
    }
    assert!(cluster.run_until(60 * SECOND, Simulation::clients_done)?);
    cluster.finish().map(drop)
}

#[test]
fn restart_a_single_replica_again_and_again_nothing_is_lost() -> Scenario {
    let mut cluster = cluster(1)?;
    for _ in 0..50 {
        cluster.submit(3);
        cluster.run_for(70 * MILLISECOND)?;
        cluster.crash(0);
        cluster.start(0)?;
    }
    assert!(cluster.run_until(60 * SECOND, Simulation::clients_done)?);
    cluster.finish().map(drop)
}

#[test]
fn restart_one_after_the_other_work_goes_on() -> Scenario {
    let mut cluster = cluster(3)?;
    for round in 0..9 {
        cluster.submit(10);
        cluster.crash(round % 3);
        cluster.run_for(SECOND)?;
        cluster.start(round % 3)?;
        cluster.run_for(SECOND)?;
    }
    assert!(cluster.run_until(60 * SECOND, Simulation::clients_done)?);
    cluster.finish().map(drop)
}

#[test]
fn repair_a_backup_was_away_it_catches_up_through_the_log() -> Scenario {
    let mut cluster = cluster(3)?;
    cluster.crash(1);
    assert!(answers(&mut cluster, 300)?);
    cluster.start(1)?;
    let caught_up = cluster.run_until(20 * SECOND, |c| {
        c.progress(1).is_some_and(|p| p.executed == c.committed())
    })?;
    assert!(caught_up, "{:?}", cluster.progress(1));
    cluster.finish().map(drop)
}

/// A cluster with a small journal and, where it matters, slow machines.
fn cluster_with_small_journal(write_max: u64) -> Result<Simulation, Violation> {
    let mut options = Options {
        requests: 0,
        client_count: 8,
        think_max: 0,
        segment_size: 2 << 20,
        ..Options::CALM
    };
    options.speed.write_max = write_max;
    let mut cluster = Simulation::new(options, 7)?;
    assert!(cluster.run_until(SOON, |c| c.primary().is_some())?);
    Ok(cluster)
}

/// Work goes on until no journal reaches back to where `replica` stood.
fn leave_behind(cluster: &mut Simulation, replica: u8) -> Scenario {
    let stood = cluster.committed();
    cluster.crash(replica);
    for _ in 0..100 {
        assert!(answers(cluster, 50)?);
        let others = (0..3).filter(|r| *r != replica);
        if others.into_iter().all(|r| cluster.trimmed(r) > Some(stood)) {
            return Ok(());
        }
    }
    panic!(
        "no journal was cut after {} operations",
        cluster.committed()
    );
}

fn has_caught_up(cluster: &Simulation, replica: u8) -> bool {
    let progress = cluster.progress(replica);
    progress.is_some_and(|p| p.executed == cluster.committed() && !p.checkpoint_lost)
}

/// A replica has fetched some of a checkpoint, and not all.
fn is_in_the_middle(cluster: &Simulation, replica: u8) -> bool {
    let transfer = cluster.progress(replica).and_then(|p| p.transfer);
    transfer.is_some_and(|t| t.done > t.total / 4 && t.done < t.total * 3 / 4)
}

#[test]
fn transfer_a_backup_was_away_for_longer_than_the_journal_reaches_it_fetches_a_checkpoint()
-> Scenario {
    let mut cluster = cluster_with_small_journal(MILLISECOND / 3)?;
    assert!(answers(&mut cluster, 10)?);
    leave_behind(&mut cluster, 2)?;
    cluster.start(2)?;
    assert!(
        cluster.run_until(10 * SECOND, |c| has_caught_up(c, 2))?,
        "{:?}",
        cluster.progress(2)
    );
    assert_eq!(cluster.finish()?.transfers, 1);
    Ok(())
}

#[test]
fn transfer_while_clients_ask_the_cluster_serves_and_the_backup_catches_up() -> Scenario {
    let mut cluster = cluster_with_small_journal(MILLISECOND / 3)?;
    leave_behind(&mut cluster, 1)?;
    cluster.start(1)?;
    cluster.submit(200);
    assert!(cluster.run_until(60 * SECOND, Simulation::clients_done)?);
    assert!(cluster.run_until(10 * SECOND, |c| has_caught_up(c, 1))?);
    cluster.finish().map(drop)
}

#[test]
fn transfer_the_fetching_replica_crashes_in_the_middle_it_goes_on_with_what_it_has() -> Scenario {
    let mut cluster = cluster_with_small_journal(30 * MILLISECOND)?;
    leave_behind(&mut cluster, 2)?;
    cluster.start(2)?;
    for _ in 0..3 {
        assert!(cluster.run_until(60 * SECOND, |c| is_in_the_middle(c, 2))?);
        cluster.crash(2);
        cluster.run_for(SECOND)?;
        cluster.start(2)?;
    }
    assert!(cluster.run_until(60 * SECOND, |c| has_caught_up(c, 2))?);
    cluster.finish().map(drop)
}

#[test]
fn transfer_the_donor_crashes_in_the_middle_another_one_goes_on() -> Scenario {
    let mut cluster = cluster_with_small_journal(30 * MILLISECOND)?;
    leave_behind(&mut cluster, 2)?;
    cluster.start(2)?;
    assert!(cluster.run_until(60 * SECOND, |c| is_in_the_middle(c, 2))?);
    let donor = cluster
        .progress(2)
        .and_then(|p| p.transfer)
        .and_then(|t| t.donor);
    let donor = donor.expect("somebody lends");
    cluster.crash(donor);
    assert!(
        cluster.run_until(60 * SECOND, |c| has_caught_up(c, 2))?,
        "{:?}",
        cluster.progress(2)
    );
    cluster.finish().map(drop)
}

#[test]
fn transfer_the_checkpoint_of_a_backup_is_damaged_it_fetches_what_is_damaged() -> Scenario {
    let mut cluster = cluster_with_small_journal(MILLISECOND / 3)?;
    leave_behind(&mut cluster, 2)?;
    cluster.crash(1);
    cluster.damage_checkpoint(1);
    cluster.start(2)?;
    cluster.start(1)?;
    assert!(
        cluster.run_until(20 * SECOND, |c| has_caught_up(c, 1))?,
        "{:?}",
        cluster.progress(1)
    );
    assert!(answers(&mut cluster, 20)?);
    cluster.finish().map(drop)
}

#[test]
fn transfer_the_checkpoint_of_the_primary_is_damaged_another_serves() -> Scenario {
    let mut cluster = cluster_with_small_journal(MILLISECOND / 3)?;
    leave_behind(&mut cluster, 2)?;
    cluster.start(2)?;
    assert!(cluster.run_until(20 * SECOND, |c| has_caught_up(c, 2))?);
    let primary = cluster.primary().expect("it serves");
    cluster.crash(primary);
    cluster.damage_checkpoint(primary);
    cluster.start(primary)?;
    assert!(answers(&mut cluster, 20)?);
    assert!(cluster.run_until(20 * SECOND, |c| has_caught_up(c, primary))?);
    cluster.finish().map(drop)
}

#[test]
fn sessions_more_clients_than_places_the_oldest_is_told_and_comes_again() -> Scenario {
    let options = Options {
        client_count: 12,
        sessions_max: 4,
        ..Options::CALM
    };
    let mut cluster = Simulation::new(options, 3)?;
    cluster.submit(20);
    cluster.run_for(20 * SECOND)?;
    let report = cluster.finish()?;
    assert!(report.evictions > 0, "{report:?}");
    Ok(())
}

#[test]
fn sessions_a_reply_is_lost_and_then_dropped_its_client_is_told_and_comes_again() -> Scenario {
    // An eighth of the journal, 3 MiB here, is for replies; the latest ones of all clients are more.
    let mut options = Options {
        client_count: 12,
        requests: 0,
        segment_size: 2 << 20,
        ..Options::CALM
    };
    options.mixture.full = 800_000;
    let mut cluster = Simulation::new(options, 8)?;
    assert!(answers(&mut cluster, 1)?);
    cluster.deafen(0);
    for _ in 0..20 {
        cluster.submit(1);
        cluster.run_for(SECOND)?;
        if cluster.reply_is_dropped(0) {
            break;
        }
    }
    assert!(cluster.reply_is_dropped(0));
    cluster.heal();
    // It has asked for that reply all the while; the checkers know if it is executed again.
    assert!(cluster.run_until(60 * SECOND, Simulation::clients_done)?);
    let report = cluster.finish()?;
    assert_eq!(report.evictions, 1, "{report:?}");
    Ok(())
}

#[test]
fn clock_a_primary_sets_its_clock_back_timestamps_still_grow() -> Scenario {
    let mut cluster = cluster(3)?;
    assert!(answers(&mut cluster, 20)?);
    cluster.set_clock(0, -3_600_000_000_000);
    // The model's results hold every timestamp: replies would not match if one went back.
    assert!(answers(&mut cluster, 20)?);
    cluster.finish().map(drop)
}

const HOUR: i64 = 3_600_000_000_000;

/// Three replicas whose clocks show the same.
fn cluster_with_right_clocks() -> Result<Simulation, Violation> {
    let mut cluster = cluster(3)?;
    for replica in 1..3 {
        let ahead = i128::from(cluster.wall(0)) - i128::from(cluster.wall(replica));
        cluster.set_clock(replica, i64::try_from(ahead).expect("a second at most"));
    }
    // Samples of before are forgotten at once: they contradict the new ones.
    cluster.run_for(SECOND)?;
    Ok(cluster)
}

/// All are answered, at cluster times that these clocks showed meanwhile, give or take a round trip.
fn timestamps_follow(cluster: &mut Simulation, clocks: [u8; 2]) -> Scenario {
    const ROUND_TRIP: u64 = 10 * MILLISECOND;
    let [first, second] = clocks;
    let both = |cluster: &Simulation| [cluster.wall(first), cluster.wall(second)];
    let from = both(cluster).into_iter().min().expect("two clocks") - ROUND_TRIP;
    assert!(answers(cluster, 20)?);
    let to = both(cluster).into_iter().max().expect("two clocks") + ROUND_TRIP;
    let primary = cluster.primary().expect("it has answered");
    let timestamp = cluster.timestamp(primary).expect("it is up");
    assert!(
        (from..=to).contains(&timestamp),
        "{timestamp} is not in {from}..={to}"
    );
    Ok(())
}

#[test]
fn clock_the_primary_is_an_hour_ahead_timestamps_stay_within_the_others_clocks() -> Scenario {
    let mut cluster = cluster_with_right_clocks()?;
    timestamps_follow(&mut cluster, [0, 1])?;
    cluster.set_clock(0, HOUR);
    timestamps_follow(&mut cluster, [1, 2])?;
    let clock = cluster.progress(0).expect("it is up").clock;
    assert!(
        matches!(clock, Agreement::Agreed { ahead } if (ahead - HOUR).abs() < 1_000_000_000),
        "{clock:?}"
    );
    cluster.finish().map(drop)
}

#[test]
fn clock_the_primary_is_an_hour_behind_timestamps_stay_within_the_others_clocks() -> Scenario {
    let mut cluster = cluster_with_right_clocks()?;
    cluster.set_clock(0, -HOUR);
    timestamps_follow(&mut cluster, [1, 2])?;
    cluster.finish().map(drop)
}

#[test]
fn clock_a_backup_is_wrong_timestamps_do_not_care() -> Scenario {
    let mut cluster = cluster_with_right_clocks()?;
    for jump in [HOUR, -3 * HOUR, 2 * HOUR + 3_000_000_000] {
        cluster.set_clock(2, jump);
        timestamps_follow(&mut cluster, [0, 1])?;
        assert_eq!(
            cluster.progress(0).map(|p| p.clock),
            Some(Agreement::Agreed { ahead: 0 })
        );
    }
    cluster.finish().map(drop)
}

#[test]
fn clock_the_primary_drifts_timestamps_stay_within_the_others_clocks() -> Scenario {
    let mut cluster = cluster_with_right_clocks()?;
    cluster.set_drift(0, 50_000);
    cluster.run_for(60 * SECOND)?;
    assert!(cluster.wall(0) > cluster.wall(1) + 2 * SECOND);
    timestamps_follow(&mut cluster, [1, 2])?;
    cluster.finish().map(drop)
}

#[test]
fn clock_a_new_primary_that_nobody_agrees_with_goes_on_from_the_one_before() -> Scenario {
    let mut cluster = cluster_with_right_clocks()?;
    timestamps_follow(&mut cluster, [0, 1])?;
    cluster.set_clock(1, HOUR);
    cluster.crash(0);
    assert!(cluster.run_until(SOON, |c| c.primary() == Some(1))?);
    timestamps_follow(&mut cluster, [0, 2])?;
    cluster.start(0)?;
    timestamps_follow(&mut cluster, [0, 2])?;
    cluster.finish().map(drop)
}

#[test]
fn clock_no_two_replicas_agree_work_goes_on() -> Scenario {
    for replica_count in [2, 3] {
        let mut cluster = cluster(replica_count)?;
        for replica in 0..replica_count {
            cluster.set_clock(replica, (i64::from(replica) - 1) * HOUR);
        }
        assert!(answers(&mut cluster, 20)?);
        cluster.crash(0);
        cluster.start(0)?;
        assert!(answers(&mut cluster, 20)?);
        cluster.finish()?;
    }
    Ok(())
}

#[test]
fn checkpoint_the_journal_is_cut_and_restarts_go_on_from_the_checkpoint() -> Scenario {
    let options = Options {
        requests: 0,
        client_count: 8,
        ..Options::CALM
    };
    let mut cluster = Simulation::new(options, 5)?;
    let mut cut = false;
    for _ in 0..40 {
        assert!(answers(&mut cluster, 100)?);
        cut = (0..3).all(|r| cluster.progress(r).is_some_and(|p| p.checkpoint > 0));
        if cut {
            break;
        }
    }
    assert!(
        cut,
        "no checkpoint after {} operations",
        cluster.committed()
    );
    for replica in 0..3 {
        cluster.crash(replica);
    }
    for replica in 0..3 {
        cluster.start(replica)?;
    }
    assert!(answers(&mut cluster, 10)?);
    cluster.finish().map(drop)
}

#[test]
fn harness_a_canary_a_reply_that_the_model_does_not_expect_is_found() -> Scenario {
    // Queries have no indexes yet and are answered with nothing; the model has them. A harness that
    // does not find this finds nothing.
    let mut options = Options {
        faults: FaultPlan::NONE,
        ..Options::CALM
    };
    options.mixture.queries = true;
    let violation = Simulation::new(options, 1)?
        .run()
        .expect_err("the canary must fail");
    assert_eq!(violation.property, "replies");
    Ok(())
}

/// Full batches, so that checkpoints come often; journals that hold all that a scenario writes.
fn cluster_with_checkpoints(replica_count: u8) -> Result<Simulation, Violation> {
    let mut options = Options {
        replica_count,
        requests: 0,
        client_count: 8,
        segment_count: 24,
        ..Options::CALM
    };
    options.mixture.full = 400_000;
    Simulation::new(options, 6)
}

fn is_full(cluster: &Simulation, replica: u8) -> bool {
    cluster.progress(replica).is_some_and(|p| p.full.is_some())
}

#[test]
fn disk_full_a_single_replica_refuses_writes_and_resumes_when_there_is_room() -> Scenario {
    let mut cluster = cluster_with_checkpoints(1)?;
    cluster.set_room(0, Some(1 << 20));
    cluster.submit(40);
    assert!(!cluster.run_until(60 * SECOND, Simulation::clients_done)?);
    assert!(is_full(&cluster, 0));
    let committed = cluster.committed();
    cluster.run_for(10 * SECOND)?;
    assert!(cluster.committed() <= committed + 8, "it takes new writes");
    cluster.set_room(0, None);
    assert!(cluster.run_until(60 * SECOND, Simulation::clients_done)?);
    assert!(!is_full(&cluster, 0));
    cluster.finish().map(drop)
}

#[test]
fn disk_full_the_primary_hands_over_and_nobody_waits() -> Scenario {
    let mut cluster = cluster_with_checkpoints(3)?;
    assert!(answers(&mut cluster, 1)?);
    cluster.set_room(0, Some(1 << 20));
    cluster.submit(20);
    let full = cluster.run_until(60 * SECOND, |c| is_full(c, 0))?;
    assert!(full, "{:?}", cluster.progress(0));
    let taken = cluster.run_until(200 * MILLISECOND, |c| c.primary() == Some(1))?;
    assert!(taken, "{:?}", cluster.progress(1));
    assert!(cluster.run_until(60 * SECOND, Simulation::clients_done)?);
    assert!(is_full(&cluster, 0));
    cluster.set_room(0, None);
    let resumed = cluster.run_until(20 * SECOND, |c| {
        !is_full(c, 0) && c.progress(0).is_some_and(|p| p.executed == c.committed())
    })?;
    assert!(resumed, "{:?}", cluster.progress(0));
    cluster.finish().map(drop)
}

#[test]
fn disk_full_the_next_primary_is_full_too_the_third_takes_over() -> Scenario {
    let mut cluster = cluster_with_checkpoints(3)?;
    cluster.set_room(0, Some(1 << 20));
    cluster.set_room(1, Some(1 << 20));
    cluster.submit(20);
    assert!(cluster.run_until(60 * SECOND, |c| c.primary() == Some(2))?);
    assert!(cluster.run_until(60 * SECOND, Simulation::clients_done)?);
    cluster.set_room(0, None);
    cluster.set_room(1, None);
    cluster.finish().map(drop)
}

#[test]
fn disk_full_on_every_replica_views_do_not_churn_and_all_resume() -> Scenario {
    let mut cluster = cluster_with_checkpoints(3)?;
    for replica in 0..3 {
        cluster.set_room(replica, Some(1 << 20));
    }
    cluster.submit(40);
    let full = cluster.run_until(60 * SECOND, |c| (0..3).all(|r| is_full(c, r)))?;
    assert!(full);
    cluster.run_for(5 * SECOND)?;
    let view = cluster.progress(0).map(|p| p.view);
    cluster.run_for(30 * SECOND)?;
    assert_eq!(cluster.progress(0).map(|p| p.view), view);
    assert!(!cluster.clients_done());
    for replica in 0..3 {
        cluster.set_room(replica, None);
    }
    assert!(cluster.run_until(60 * SECOND, Simulation::clients_done)?);
    cluster.finish().map(drop)
}

/// How a backup is slow.
#[derive(Debug, Clone, Copy)]
enum Slow {
    No,
    /// Its disk, its executor and its links take a hundred times longer.
    Machine,
    /// Its process runs for ten milliseconds of each second.
    Process,
}

/// The 99th percentile of what clients wait for their answers.
fn p99_with_backup(slow: Slow, full: u32) -> Result<u64, Violation> {
    let mut options = Options {
        requests: 0,
        client_count: 24,
        sessions_max: 32,
        segment_count: 40,
        // Checkpoints come often here; what they cost is not the question.
        speed: Speed {
            build_max: MILLISECOND,
            ..Speed::GOOD
        },
        ..Options::CALM
    };
    options.mixture.full = full;
    let mut cluster = Simulation::new(options, 8)?;
    cluster.run_for(SECOND)?;
    if matches!(slow, Slow::Machine) {
        cluster.slow_down(2, 100);
    }
    cluster.submit(40);
    while !cluster.clients_done() {
        if matches!(slow, Slow::Process) {
            cluster.pause(2, 990 * MILLISECOND);
        }
        cluster.run_until(SECOND, Simulation::clients_done)?;
        assert!(
            cluster.now() < 60 * SECOND,
            "{slow:?}: clients wait for ever"
        );
    }
    let latencies = cluster.latencies();
    let p99 = latencies[latencies.len() * 99 / 100];
    println!(
        "{slow:?}, {full} ppm full batches: p50 {} us, p99 {} us",
        latencies[latencies.len() / 2] / 1_000,
        p99 / 1_000,
    );
    Ok(p99)
}

#[test]
fn slow_backup_a_hundred_times_slower_costs_others_at_most_half_of_the_p99() -> Scenario {
    for full in [0, 150_000] {
        let usual = p99_with_backup(Slow::No, full)?;
        for slow in [Slow::Machine, Slow::Process] {
            let slowed = p99_with_backup(slow, full)?;
            assert!(
                2 * slowed <= 3 * usual,
                "{slow:?}: {slowed} ns instead of {usual} ns"
            );
        }
    }
    Ok(())
}

#[test]
fn checkpoint_the_smallest_journal_never_fills_up() -> Scenario {
    // As `format` divides it: eight segments.
    let mut options = Options {
        requests: 0,
        client_count: 8,
        segment_size: 8 << 20,
        segment_count: 8,
        ..Options::CALM
    };
    options.mixture.full = 400_000;
    let mut cluster = Simulation::new(options, 6)?;
    for _ in 0..8 {
        assert!(answers(&mut cluster, 8)?, "{:?}", cluster.progress(0));
    }
    cluster.finish().map(drop)
}
