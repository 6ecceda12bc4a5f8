//! Normal operation: requests are answered, by any number of replicas, and nobody waits for the slowest.

use super::vocabulary::*;

#[test]
fn every_number_of_replicas_answers() -> Scenario {
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
fn queries_are_answered_as_the_model_says() -> Scenario {
    let mut options = Options {
        faults: FaultPlan::NONE,
        ..Options::CALM
    };
    options.mixture.queries = true;
    Simulation::new(options, 1)?.run()?;
    Ok(())
}

#[test]
fn a_minority_is_down_nobody_notices() -> Scenario {
    let mut cluster = cluster(3)?;
    cluster.crash(2);
    assert!(answers(&mut cluster, 50)?);
    assert_eq!(cluster.progress(0).map(|p| p.view), Some(0));
    ends_well(&mut cluster)
}

#[test]
fn a_majority_is_down_nothing_is_acknowledged() -> Scenario {
    let mut cluster = cluster(3)?;
    assert!(answers(&mut cluster, 5)?);
    crash_all(&mut cluster, &[1, 2]);
    nobody_is_answered(&mut cluster, 3 * SECOND)?;
    cluster.start(1)?;
    assert!(are_answered(&mut cluster)?);
    ends_well(&mut cluster)
}

#[test]
fn two_replicas_have_a_full_pipeline_it_does_not_wait_for_itself() -> Scenario {
    // More clients than operations that may be in flight.
    let mut cluster = cluster_of(Options {
        replica_count: 2,
        client_count: 80,
        sessions_max: 128,
        think_max: 0,
        ..Options::CALM
    })?;
    assert!(answers(&mut cluster, 20)?);
    ends_well(&mut cluster)
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
        // For full batches: small chunks would be thousands of files.
        chunk_rows_log2: 12,
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
fn a_backup_is_a_hundred_times_slower_it_costs_others_at_most_half_of_the_p99() -> Scenario {
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
fn half_of_six_are_down_the_rest_commits() -> Scenario {
    let mut cluster = cluster(6)?;
    for replica in [3, 4, 5] {
        cluster.crash(replica);
    }
    assert!(answers(&mut cluster, 30)?);
    ends_well(&mut cluster)
}

#[test]
fn half_of_four_are_down_two_are_enough_as_long_as_the_primary_lives() -> Scenario {
    let mut cluster = cluster(4)?;
    cluster.crash(2);
    cluster.crash(3);
    assert!(answers(&mut cluster, 30)?);
    assert_eq!(cluster.latest_view(), 0);
    ends_well(&mut cluster)
}
