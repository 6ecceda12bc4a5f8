//! Checkpoints: the log is cut, restarts are short, and nobody notices that they are written.

use super::vocabulary::*;

#[test]
fn the_journal_is_cut_and_restarts_go_on_from_the_checkpoint() -> Scenario {
    let options = Options {
        client_count: 8,
        ..QUIET
    };
    let mut cluster = Simulation::new(options, 5)?;
    work_until(&mut cluster, 40, |c| {
        (0..3).all(|replica| has_checkpoint(c, replica))
    })?;
    all_lose_power(&mut cluster, 3)?;
    assert!(answers(&mut cluster, 10)?);
    ends_well(&mut cluster)
}

#[test]
fn the_smallest_journal_never_fills_up() -> Scenario {
    // As `format` divides it: eight segments.
    let options = Options {
        client_count: 8,
        segment_size: 8 << 20,
        segment_count: 8,
        // For full batches: small chunks would be thousands of files.
        chunk_rows_log2: 12,
        ..full_batches(400_000)
    };
    let mut cluster = Simulation::new(options, 6)?;
    for _ in 0..8 {
        assert!(answers(&mut cluster, 8)?, "{:?}", cluster.progress(0));
    }
    ends_well(&mut cluster)
}

#[test]
fn replicas_crash_at_any_moment_of_writing_one_the_former_one_is_good() -> Scenario {
    let mut options = small_journals(MILLISECOND / 3);
    options.speed.build_max = 500 * MILLISECOND;
    let mut cluster = cluster_of(options)?;
    for round in 0..12 {
        work(&mut cluster, 40, 700 * MILLISECOND)?;
        is_off_for(&mut cluster, round % 3, 200 * MILLISECOND)?;
    }
    assert!(are_answered(&mut cluster)?);
    ends_with(&mut cluster, |report| report.checkpoints > 2)
}

#[test]
fn building_takes_long_answers_go_on_all_the_while() -> Scenario {
    let mut options = small_journals(MILLISECOND / 3);
    options.think_max = 5 * MILLISECOND;
    // Half of the time (a quarter of 2,048 sectors of log, 2,300 a second) until execution would be a quarter
    // of the way to the next one ahead of it, and would have to wait: the simulated builder does all its
    // writes at the end.
    options.speed.build_max = 110 * MILLISECOND;
    let mut cluster = cluster_of(options)?;
    work(&mut cluster, 1_000_000, SECOND)?;
    for _ in 0..80 {
        let before = cluster.replies();
        cluster.run_for(100 * MILLISECOND)?;
        assert!(cluster.replies() > before, "all wait");
    }
    ends_with(&mut cluster, |report| report.checkpoints > 2)
}

#[test]
fn replicas_restart_in_turn_queries_find_what_they_have_always_found() -> Scenario {
    let mut options = small_journals(MILLISECOND / 3);
    options.mixture.queries = true;
    // Transfers of many full chunks, in files, before it is over.
    options.mixture.events_max = 100;
    let mut cluster = cluster_of(options)?;
    for round in 0..9 {
        assert!(answers(&mut cluster, 50)?);
        cluster.crash(round % 3);
        assert!(answers(&mut cluster, 20)?);
        cluster.start(round % 3)?;
    }
    ends_with(&mut cluster, |report| report.checkpoints > 2)
}
