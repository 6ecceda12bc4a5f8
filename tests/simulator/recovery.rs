//! Recovery: disks that are lost, or set back to an older copy, have forgotten what they promised.

use super::vocabulary::*;

#[test]
fn a_disk_is_lost_its_replica_follows_and_then_votes_again() -> Scenario {
    let mut cluster = cluster(3)?;
    assert!(answers(&mut cluster, 30)?);
    assert!(cluster.lose_disk(2));
    cluster.start(2)?;
    assert!(is_recovering(&cluster, 2));
    becomes_whole(&mut cluster, 2, SOON)?;
    // The others can do without one of the two that had it all.
    cluster.crash(0);
    assert!(answers(&mut cluster, 10)?);
    ends_well(&mut cluster)
}

#[test]
fn a_disk_is_lost_and_another_replica_is_down_nothing_is_acknowledged() -> Scenario {
    let mut cluster = cluster(3)?;
    assert!(answers(&mut cluster, 30)?);
    assert!(cluster.lose_disk(2));
    cluster.crash(1);
    cluster.start(2)?;
    nobody_is_answered(&mut cluster, SOON)?;
    // It might have acknowledged something to the one that is down.
    assert!(is_recovering(&cluster, 2));
    cluster.start(1)?;
    assert!(are_answered(&mut cluster)?);
    assert!(cluster.run_until(SOON, |c| !is_recovering(c, 2))?);
    ends_well(&mut cluster)
}

#[test]
fn one_disk_after_the_other_is_lost_nothing_is_gone() -> Scenario {
    let mut cluster = cluster(3)?;
    for replica in [1, 0, 2, 0] {
        assert!(answers(&mut cluster, 10)?);
        assert!(cluster.lose_disk(replica));
        cluster.run_for(SECOND)?;
        cluster.start(replica)?;
        becomes_whole(&mut cluster, replica, SOON)?;
    }
    assert!(answers(&mut cluster, 10)?);
    ends_with(&mut cluster, |report| report.lost_disks == 4)
}

#[test]
fn a_disk_is_lost_after_the_log_was_cut_a_checkpoint_is_fetched() -> Scenario {
    let mut cluster = cluster_with_small_journals(MILLISECOND / 3)?;
    leave_behind(&mut cluster, 2)?;
    cluster.start(2)?;
    becomes_whole(&mut cluster, 2, 20 * SECOND)?;
    assert!(cluster.lose_disk(1));
    cluster.start(1)?;
    becomes_whole(&mut cluster, 1, 20 * SECOND)?;
    ends_with(&mut cluster, |report| report.transfers == 2)
}

#[test]
fn a_recovering_replica_loses_power_again_and_again_it_still_does_not_vote() -> Scenario {
    let mut cluster = cluster(3)?;
    assert!(answers(&mut cluster, 100)?);
    assert!(cluster.lose_disk(2));
    for _ in 0..5 {
        cluster.start(2)?;
        cluster.run_for(10 * MILLISECOND)?;
        assert!(is_recovering(&cluster, 2));
        cluster.crash(2);
    }
    cluster.start(2)?;
    becomes_whole(&mut cluster, 2, SOON)?;
    ends_well(&mut cluster)
}

/// An older copy of a replica's disk is put back: it is told, does not vote, and catches up.
fn is_noticed(replica: u8) -> Scenario {
    let mut cluster = cluster(3)?;
    assert!(answers(&mut cluster, 10)?);
    cluster.copy_disk(replica);
    cluster.start(replica)?;
    assert!(answers(&mut cluster, 30)?);
    becomes_whole(&mut cluster, replica, SOON)?;
    assert!(cluster.set_back(replica));
    cluster.start(replica)?;
    assert!(cluster.run_until(SOON, |c| is_recovering(c, replica))?);
    becomes_whole(&mut cluster, replica, SOON)?;
    assert!(answers(&mut cluster, 10)?);
    ends_with(&mut cluster, |report| report.set_back == 1)
}

#[test]
fn a_backup_is_set_back_it_is_told_and_catches_up() -> Scenario {
    is_noticed(1)
}

#[test]
fn the_primary_is_set_back_it_is_told_and_catches_up() -> Scenario {
    is_noticed(0)
}

#[test]
fn a_replica_is_set_back_to_before_its_own_view_it_does_not_begin_it_again() -> Scenario {
    let mut cluster = cluster(3)?;
    assert!(answers(&mut cluster, 10)?);
    cluster.copy_disk(1);
    cluster.start(1)?;
    make_primary(&mut cluster, 1)?;
    assert!(answers(&mut cluster, 10)?);
    let view = cluster.latest_view();
    assert!(cluster.set_back(1));
    cluster.start(1)?;
    assert!(answers(&mut cluster, 10)?);
    becomes_whole(&mut cluster, 1, SOON)?;
    assert!(cluster.latest_view() > view);
    ends_well(&mut cluster)
}

#[test]
fn two_of_five_lose_their_disks_the_others_go_on_and_make_them_whole() -> Scenario {
    let mut cluster = cluster(5)?;
    assert!(answers(&mut cluster, 20)?);
    assert!(cluster.lose_disk(3) && cluster.lose_disk(4));
    // Three are a quorum; one less would be none.
    assert!(!cluster.lose_disk(0));
    assert!(answers(&mut cluster, 20)?);
    start_all(&mut cluster, &[3, 4])?;
    becomes_whole(&mut cluster, 3, SOON)?;
    becomes_whole(&mut cluster, 4, SOON)?;
    ends_well(&mut cluster)
}

#[test]
fn the_disk_of_the_primary_is_lost_another_serves_meanwhile() -> Scenario {
    let mut cluster = cluster(3)?;
    assert!(answers(&mut cluster, 20)?);
    cluster.run_for(300 * MILLISECOND)?;
    assert!(cluster.lose_disk(0));
    assert!(answers(&mut cluster, 20)?);
    cluster.start(0)?;
    becomes_whole(&mut cluster, 0, SOON)?;
    ends_well(&mut cluster)
}

#[test]
fn a_replica_is_set_back_to_before_the_log_was_cut_it_fetches_a_checkpoint() -> Scenario {
    let mut cluster = cluster_with_small_journals(MILLISECOND / 3)?;
    assert!(answers(&mut cluster, 10)?);
    cluster.copy_disk(2);
    cluster.start(2)?;
    becomes_whole(&mut cluster, 2, SOON)?;
    leave_behind(&mut cluster, 2)?;
    cluster.run_for(300 * MILLISECOND)?;
    assert!(cluster.set_back(2));
    cluster.start(2)?;
    becomes_whole(&mut cluster, 2, 20 * SECOND)?;
    ends_with(&mut cluster, |report| report.transfers == 1)
}
