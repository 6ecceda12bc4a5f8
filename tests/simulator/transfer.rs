//! State transfer: a replica that the log cannot help fetches a checkpoint.

use super::vocabulary::*;

/// A replica has fetched some of a checkpoint, and not all.
fn is_in_the_middle(cluster: &Simulation, replica: u8) -> bool {
    let transfer = cluster.progress(replica).and_then(|p| p.transfer);
    transfer.is_some_and(|t| t.done > t.total / 4 && t.done < t.total * 3 / 4)
}

#[test]
fn a_backup_was_away_for_longer_than_the_journal_reaches_it_fetches_a_checkpoint() -> Scenario {
    let mut cluster = cluster_with_small_journals(MILLISECOND / 3)?;
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
fn while_clients_ask_the_cluster_serves_and_the_backup_catches_up() -> Scenario {
    let mut cluster = cluster_with_small_journals(MILLISECOND / 3)?;
    leave_behind(&mut cluster, 1)?;
    cluster.start(1)?;
    cluster.submit(200);
    assert!(are_answered(&mut cluster)?);
    assert!(cluster.run_until(10 * SECOND, |c| has_caught_up(c, 1))?);
    ends_well(&mut cluster)
}

#[test]
fn the_fetching_replica_crashes_in_the_middle_it_goes_on_with_what_it_has() -> Scenario {
    let mut cluster = cluster_with_small_journals(30 * MILLISECOND)?;
    leave_behind(&mut cluster, 2)?;
    cluster.start(2)?;
    for _ in 0..3 {
        assert!(cluster.run_until(60 * SECOND, |c| is_in_the_middle(c, 2))?);
        cluster.crash(2);
        cluster.run_for(SECOND)?;
        cluster.start(2)?;
    }
    assert!(cluster.run_until(60 * SECOND, |c| has_caught_up(c, 2))?);
    ends_well(&mut cluster)
}

#[test]
fn the_donor_crashes_in_the_middle_another_one_goes_on() -> Scenario {
    let mut cluster = cluster_with_small_journals(30 * MILLISECOND)?;
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
    ends_well(&mut cluster)
}

#[test]
fn the_checkpoint_of_a_backup_is_damaged_it_fetches_what_is_damaged() -> Scenario {
    let mut cluster = cluster_with_small_journals(MILLISECOND / 3)?;
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
    ends_well(&mut cluster)
}

#[test]
fn the_checkpoint_of_the_primary_is_damaged_another_serves() -> Scenario {
    let mut cluster = cluster_with_small_journals(MILLISECOND / 3)?;
    leave_behind(&mut cluster, 2)?;
    cluster.start(2)?;
    assert!(cluster.run_until(20 * SECOND, |c| has_caught_up(c, 2))?);
    let primary = cluster.primary().expect("it serves");
    cluster.crash(primary);
    cluster.damage_checkpoint(primary);
    cluster.start(primary)?;
    assert!(answers(&mut cluster, 20)?);
    assert!(cluster.run_until(20 * SECOND, |c| has_caught_up(c, primary))?);
    ends_well(&mut cluster)
}

#[test]
fn segments_are_damaged_on_all_replicas_they_mend_each_other() -> Scenario {
    let mut cluster = cluster_with_small_journals(MILLISECOND / 3)?;
    for _ in 0..100 {
        assert!(answers(&mut cluster, 50)?);
        if (0..3).all(|replica| cluster.segments(replica) >= 3) {
            break;
        }
    }
    for replica in 0..3 {
        assert!(cluster.damage_segment(replica, replica.into(), 0));
        assert!(!cluster.has_whole_files(replica));
    }
    let all_whole = |c: &Simulation| (0..3).all(|replica| c.has_whole_files(replica));
    assert!(cluster.run_until(20 * SECOND, all_whole)?);
    assert!(answers(&mut cluster, 20)?);
    all_lose_power(&mut cluster, 3)?;
    assert!(answers(&mut cluster, 20)?);
    ends_well(&mut cluster)
}

#[test]
fn a_list_of_files_is_damaged_the_next_checkpoint_is_made_all_the_same() -> Scenario {
    let mut cluster = cluster_with_small_journals(MILLISECOND / 3)?;
    while !cluster.damage_manifest(1) {
        assert!(answers(&mut cluster, 50)?);
    }
    assert!(!cluster.has_whole_files(1));
    for _ in 0..100 {
        assert!(answers(&mut cluster, 50)?);
        if cluster.has_whole_files(1) {
            break;
        }
    }
    assert!(cluster.has_whole_files(1));
    ends_well(&mut cluster)
}

#[test]
fn runs_of_ids_are_damaged_on_all_replicas_they_mend_each_other() -> Scenario {
    let mut options = small_journals(MILLISECOND / 3);
    options.chunk_rows_log2 = 6;
    options.mixture.full = 0;
    let mut cluster = Simulation::new(options, 7)?;
    assert!(cluster.run_until(SOON, |c| c.primary().is_some())?);
    // Sixteen segments make a run.
    let mut rounds = 0..100;
    while (0..3).any(|replica| cluster.segments(replica) < 3 * 16) {
        assert!(rounds.next().is_some() && answers(&mut cluster, 50)?);
    }
    for replica in 0..3 {
        assert!(cluster.damage_run(replica, replica.into(), 1));
        assert!(!cluster.has_whole_files(replica));
    }
    // The scrub may just have passed these.
    let mut seconds = 0..180;
    while !(0..3).all(|replica| cluster.has_whole_files(replica)) {
        assert!(seconds.next().is_some(), "they do not mend");
        cluster.run_for(SECOND)?;
    }
    all_lose_power(&mut cluster, 3)?;
    assert!(answers(&mut cluster, 20)?);
    ends_well(&mut cluster)
}

#[test]
fn files_of_accounts_are_damaged_on_all_replicas_they_mend_each_other() -> Scenario {
    let mut cluster = cluster_with_small_journals(MILLISECOND / 3)?;
    let mut rounds = 0..100;
    while (0..3).any(|replica| cluster.segments(replica) < 12) {
        assert!(rounds.next().is_some() && answers(&mut cluster, 50)?);
    }
    // Nobody asks, so that none is outlived.
    for (replica, number) in [(0, 2), (1, 0), (2, 1)] {
        assert!(cluster.damage_accounts(replica, number));
        assert!(!cluster.has_whole_files(replica));
    }
    let all_whole = |c: &Simulation| (0..3).all(|replica| c.has_whole_files(replica));
    assert!(cluster.run_until(20 * SECOND, all_whole)?);
    all_lose_power(&mut cluster, 3)?;
    assert!(answers(&mut cluster, 20)?);
    ends_well(&mut cluster)
}

/// Three replicas with segments of many pages each. This one has just been started, has read few of them, and
/// would find others damaged.
fn cluster_with_damaged_segments(replica: u8) -> Result<Simulation, Violation> {
    let mut options = small_journals(MILLISECOND / 3);
    options.chunk_rows_log2 = 11;
    options.mixture.queries = true;
    options.mixture.full = 50_000;
    let mut cluster = Simulation::new(options, 7)?;
    assert!(cluster.run_until(SOON, |c| c.primary().is_some())?);
    while (0..3).any(|replica| cluster.segments(replica) < 4) {
        assert!(answers(&mut cluster, 50)?);
    }
    cluster.crash(replica);
    cluster.run_for(SECOND)?;
    cluster.start(replica)?;
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
    assert!(cluster.run_until(MINUTE, |c| has_caught_up(c, replica))?);
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
    let mut cluster = cluster_with_small_journals(30 * MILLISECOND)?;
    leave_behind(&mut cluster, 2)?;
    cluster.start(2)?;
    assert!(cluster.run_until(MINUTE, |c| is_in_the_middle(c, 2))?);
    all_lose_power(&mut cluster, 3)?;
    assert!(cluster.run_until(MINUTE, |c| has_caught_up(c, 2))?);
    assert!(answers(&mut cluster, 10)?);
    ends_well(&mut cluster)
}
