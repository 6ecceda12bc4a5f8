//! State transfer: a replica that the log cannot help fetches a checkpoint.

use super::vocabulary::*;

/// A replica has fetched some of a checkpoint, and not all.
fn is_in_the_middle(cluster: &Simulation, replica: u8) -> bool {
    let transfer = cluster.progress(replica).and_then(|p| p.transfer);
    transfer.is_some_and(|t| t.done > t.total / 4 && t.done < t.total * 3 / 4)
}

/// Slow disks, and a replica that has fetched some of a checkpoint and not all.
fn cluster_in_the_middle(replica: u8) -> Result<Simulation, Violation> {
    let mut cluster = cluster_with_small_journals(30 * MILLISECOND)?;
    leave_behind(&mut cluster, replica)?;
    cluster.start(replica)?;
    assert!(cluster.run_until(MINUTE, |c| is_in_the_middle(c, replica))?);
    Ok(cluster)
}

/// Each replica has so many sealed segments in its checkpoint.
fn have_segments(cluster: &Simulation, count: usize) -> bool {
    (0..3).all(|replica| cluster.segments(replica) >= count)
}

/// Every replica has a damaged file: they mend each other in time, and are good for a restart.
fn all_mend(cluster: &mut Simulation, time: u64) -> Scenario {
    assert!((0..3).all(|replica| !cluster.has_whole_files(replica)));
    let whole = |c: &Simulation| (0..3).all(|replica| c.has_whole_files(replica));
    assert!(cluster.run_until(time, whole)?, "they do not mend");
    assert!(answers(cluster, 20)?);
    all_lose_power(cluster, 3)?;
    assert!(answers(cluster, 20)?);
    ends_well(cluster)
}

#[test]
fn a_backup_was_away_for_longer_than_the_journal_reaches_it_fetches_a_checkpoint() -> Scenario {
    let mut cluster = cluster_with_small_journals(MILLISECOND / 3)?;
    assert!(answers(&mut cluster, 10)?);
    leave_behind(&mut cluster, 2)?;
    cluster.start(2)?;
    catches_up(&mut cluster, 2, 10 * SECOND)?;
    ends_with(&mut cluster, |report| report.transfers == 1)
}

#[test]
fn while_clients_ask_the_cluster_serves_and_the_backup_catches_up() -> Scenario {
    let mut cluster = cluster_with_small_journals(MILLISECOND / 3)?;
    leave_behind(&mut cluster, 1)?;
    cluster.start(1)?;
    cluster.submit(200);
    assert!(are_answered(&mut cluster)?);
    catches_up(&mut cluster, 1, 10 * SECOND)?;
    ends_well(&mut cluster)
}

#[test]
fn the_fetching_replica_crashes_in_the_middle_it_goes_on_with_what_it_has() -> Scenario {
    let mut cluster = cluster_in_the_middle(2)?;
    for _ in 0..3 {
        assert!(cluster.run_until(MINUTE, |c| is_in_the_middle(c, 2))?);
        is_off_for(&mut cluster, 2, SECOND)?;
    }
    catches_up(&mut cluster, 2, MINUTE)?;
    ends_well(&mut cluster)
}

#[test]
fn the_donor_crashes_in_the_middle_another_one_goes_on() -> Scenario {
    let mut cluster = cluster_in_the_middle(2)?;
    let transfer = cluster.progress(2).and_then(|p| p.transfer);
    let donor = transfer.and_then(|t| t.donor).expect("somebody lends");
    cluster.crash(donor);
    catches_up(&mut cluster, 2, MINUTE)?;
    ends_well(&mut cluster)
}

#[test]
fn the_checkpoint_of_a_backup_is_damaged_it_fetches_what_is_damaged() -> Scenario {
    let mut cluster = cluster_with_small_journals(MILLISECOND / 3)?;
    leave_behind(&mut cluster, 2)?;
    cluster.crash(1);
    cluster.damage_checkpoint(1);
    start_all(&mut cluster, &[2, 1])?;
    catches_up(&mut cluster, 1, 20 * SECOND)?;
    assert!(answers(&mut cluster, 20)?);
    ends_well(&mut cluster)
}

#[test]
fn the_checkpoint_of_the_primary_is_damaged_another_serves() -> Scenario {
    let mut cluster = cluster_with_small_journals(MILLISECOND / 3)?;
    leave_behind(&mut cluster, 2)?;
    cluster.start(2)?;
    catches_up(&mut cluster, 2, 20 * SECOND)?;
    let primary = cluster.primary().expect("it serves");
    cluster.crash(primary);
    cluster.damage_checkpoint(primary);
    cluster.start(primary)?;
    assert!(answers(&mut cluster, 20)?);
    catches_up(&mut cluster, primary, 20 * SECOND)?;
    ends_well(&mut cluster)
}

#[test]
fn segments_are_damaged_on_all_replicas_they_mend_each_other() -> Scenario {
    let mut cluster = cluster_with_small_journals(MILLISECOND / 3)?;
    work_until(&mut cluster, 50, |c| have_segments(c, 3))?;
    for replica in 0..3 {
        assert!(cluster.damage_segment(replica, replica.into(), 0));
    }
    all_mend(&mut cluster, 20 * SECOND)
}

#[test]
fn a_list_of_files_is_damaged_the_next_checkpoint_is_made_all_the_same() -> Scenario {
    let mut cluster = cluster_with_small_journals(MILLISECOND / 3)?;
    work_until(&mut cluster, 50, |c| c.damage_manifest(1))?;
    assert!(!cluster.has_whole_files(1));
    work_until(&mut cluster, 50, |c| c.has_whole_files(1))?;
    ends_well(&mut cluster)
}

#[test]
fn runs_of_ids_are_damaged_on_all_replicas_they_mend_each_other() -> Scenario {
    let mut options = small_journals(MILLISECOND / 3);
    options.chunk_rows_log2 = 6;
    options.mixture.full = 0;
    let mut cluster = cluster_that_cuts(options)?;
    // Sixteen segments make a run.
    work_until(&mut cluster, 50, |c| have_segments(c, 3 * 16))?;
    for replica in 0..3 {
        assert!(cluster.damage_run(replica, replica.into(), 1));
    }
    // The scrub may just have passed these.
    all_mend(&mut cluster, 180 * SECOND)
}

#[test]
fn files_of_accounts_are_damaged_on_all_replicas_they_mend_each_other() -> Scenario {
    let mut cluster = cluster_with_small_journals(MILLISECOND / 3)?;
    work_until(&mut cluster, 50, |c| have_segments(c, 12))?;
    // Nobody asks, so that none is outlived.
    for (replica, number) in [(0, 2), (1, 0), (2, 1)] {
        assert!(cluster.damage_accounts(replica, number));
    }
    all_mend(&mut cluster, 20 * SECOND)
}

/// Three replicas with segments of many pages each. This one has just been started, has read few of them, and
/// would find others damaged.
fn cluster_with_damaged_segments(replica: u8) -> Result<Simulation, Violation> {
    let mut options = small_journals(MILLISECOND / 3);
    options.chunk_rows_log2 = 11;
    options.mixture.queries = true;
    options.mixture.full = 50_000;
    let mut cluster = cluster_that_cuts(options)?;
    work_until(&mut cluster, 50, |c| have_segments(c, 4))?;
    is_off_for(&mut cluster, replica, SECOND)?;
    for segment in 0..cluster.segments(replica) as u64 {
        let pages = (0..).take_while(|page| cluster.damage_segment(replica, segment, *page));
        assert!(pages.count() > 3);
    }
    Ok(cluster)
}

fn is_halted(cluster: &Simulation, replica: u8) -> bool {
    cluster.progress(replica).is_some_and(|p| p.halted)
}

/// Until execution has met the damage, and until nothing is left of it.
fn halts_and_heals(cluster: &mut Simulation, replica: u8) -> Scenario {
    cluster.submit(400);
    assert!(cluster.run_until(MINUTE, |c| is_halted(c, replica))?);
    assert!(cluster.run_until(MINUTE, |c| !is_halted(c, replica) && is_whole(c, replica))?);
    assert!(are_answered(cluster)?);
    catches_up(cluster, replica, MINUTE)?;
    assert!(cluster.has_whole_files(replica));
    ends_well(cluster)
}

#[test]
fn a_backup_executes_into_a_damaged_segment_it_heals_and_goes_on() -> Scenario {
    let mut cluster = cluster_with_damaged_segments(2)?;
    assert_ne!(cluster.primary(), Some(2));
    halts_and_heals(&mut cluster, 2)
}

#[test]
fn who_has_damaged_segments_becomes_the_primary_another_serves() -> Scenario {
    let mut cluster = cluster_with_damaged_segments(2)?;
    make_primary(&mut cluster, 2)?;
    halts_and_heals(&mut cluster, 2)
}

#[test]
fn everybody_loses_power_in_the_middle_it_goes_on() -> Scenario {
    let mut cluster = cluster_in_the_middle(2)?;
    all_lose_power(&mut cluster, 3)?;
    catches_up(&mut cluster, 2, MINUTE)?;
    assert!(answers(&mut cluster, 10)?);
    ends_well(&mut cluster)
}
