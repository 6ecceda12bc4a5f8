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
        cluster.damage_segment(replica, replica.into());
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
