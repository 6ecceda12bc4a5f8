//! Disks that are lost, or set back to an older copy: their replicas follow without voting until they
//! know again what they had promised.

use stampede::sim::{MILLISECOND, Options, SECOND, Simulation, Violation};
use stampede::vsr::Status;

use super::{
    SOON, Scenario, answers, cluster, cluster_with_small_journal, has_caught_up, leave_behind,
};

fn votes(cluster: &Simulation, replica: u8) -> bool {
    let progress = cluster.progress(replica);
    progress.is_some_and(|p| p.status == Status::Normal && !p.recovering)
}

/// At rest: everybody has everything, so that one of them may forget.
fn settled(replica_count: u8, requests: u64) -> Result<Simulation, Violation> {
    let mut cluster = cluster(replica_count)?;
    assert!(answers(&mut cluster, requests)?);
    cluster.run_for(300 * MILLISECOND)?;
    Ok(cluster)
}

fn comes_back(cluster: &mut Simulation, replica: u8) -> Scenario {
    let back = cluster.run_until(SOON, |c| votes(c, replica) && has_caught_up(c, replica))?;
    assert!(back, "{:?}", cluster.progress(replica));
    Ok(())
}

#[test]
fn recovery_a_backups_disk_is_lost_it_comes_back_and_votes_again() -> Scenario {
    let mut cluster = settled(3, 20)?;
    assert!(cluster.lose_disk(2));
    cluster.start(2)?;
    comes_back(&mut cluster, 2)?;
    // It counts again: with another one down, two of three are enough.
    cluster.crash(1);
    assert!(answers(&mut cluster, 20)?);
    cluster.finish().map(drop)
}

#[test]
fn recovery_the_primarys_disk_is_lost_another_serves_meanwhile() -> Scenario {
    let mut cluster = settled(3, 20)?;
    assert!(cluster.lose_disk(0));
    assert!(answers(&mut cluster, 20)?);
    cluster.start(0)?;
    comes_back(&mut cluster, 0)?;
    cluster.finish().map(drop)
}

#[test]
fn recovery_a_disk_is_lost_while_clients_ask_nothing_is_lost() -> Scenario {
    let mut cluster = settled(5, 10)?;
    cluster.submit(200);
    cluster.run_for(300 * MILLISECOND)?;
    if cluster.lose_disk(3) {
        cluster.run_for(100 * MILLISECOND)?;
        cluster.start(3)?;
    }
    assert!(cluster.run_until(60 * SECOND, Simulation::clients_done)?);
    cluster.finish().map(drop)
}

#[test]
fn recovery_another_one_is_down_the_recovering_one_does_not_count() -> Scenario {
    let mut cluster = settled(3, 20)?;
    assert!(cluster.lose_disk(2));
    cluster.crash(1);
    cluster.start(2)?;
    let before = cluster.replies();
    cluster.submit(5);
    cluster.run_for(5 * SECOND)?;
    assert_eq!(cluster.replies(), before, "one replica is no quorum");
    assert!(!votes(&cluster, 2));
    cluster.start(1)?;
    comes_back(&mut cluster, 2)?;
    assert!(cluster.run_until(60 * SECOND, Simulation::clients_done)?);
    cluster.finish().map(drop)
}

#[test]
fn recovery_two_of_five_disks_are_lost_one_after_the_other_both_come_back() -> Scenario {
    let mut cluster = settled(5, 20)?;
    for replica in [4, 3] {
        assert!(cluster.lose_disk(replica));
        cluster.start(replica)?;
        comes_back(&mut cluster, replica)?;
        assert!(answers(&mut cluster, 10)?);
        cluster.run_for(300 * MILLISECOND)?;
    }
    cluster.finish().map(drop)
}

#[test]
fn recovery_it_loses_power_before_it_is_done_it_goes_on_recovering() -> Scenario {
    let mut cluster = settled(3, 100)?;
    assert!(cluster.lose_disk(1));
    for _ in 0..3 {
        cluster.start(1)?;
        cluster.run_for(3 * MILLISECOND)?;
        cluster.crash(1);
    }
    cluster.start(1)?;
    comes_back(&mut cluster, 1)?;
    cluster.finish().map(drop)
}

#[test]
fn recovery_a_lost_disk_beyond_the_journals_fetches_a_checkpoint_first() -> Scenario {
    let mut cluster = cluster_with_small_journal(MILLISECOND / 3)?;
    leave_behind(&mut cluster, 2)?;
    cluster.run_for(300 * MILLISECOND)?;
    assert!(cluster.lose_disk(2));
    cluster.start(2)?;
    comes_back(&mut cluster, 2)?;
    cluster.finish().map(drop)
}

#[test]
fn recovery_a_backup_is_set_back_its_peers_notice_and_it_votes_again_later() -> Scenario {
    let mut cluster = settled(3, 10)?;
    cluster.copy_disk(2);
    cluster.start(2)?;
    assert!(answers(&mut cluster, 20)?);
    cluster.run_for(300 * MILLISECOND)?;
    assert!(cluster.set_back(2));
    cluster.start(2)?;
    let noticed = cluster.run_until(SECOND, |c| c.progress(2).is_some_and(|p| p.recovering))?;
    assert!(noticed, "{:?}", cluster.progress(2));
    comes_back(&mut cluster, 2)?;
    cluster.finish().map(drop)
}

#[test]
fn recovery_the_primary_is_set_back_it_does_not_serve_on_what_it_remembers() -> Scenario {
    let mut cluster = settled(3, 10)?;
    cluster.copy_disk(0);
    cluster.start(0)?;
    assert!(answers(&mut cluster, 30)?);
    cluster.run_for(300 * MILLISECOND)?;
    assert!(cluster.set_back(0));
    cluster.start(0)?;
    assert!(answers(&mut cluster, 10)?);
    comes_back(&mut cluster, 0)?;
    cluster.finish().map(drop)
}

#[test]
fn recovery_a_replica_is_set_back_far_it_fetches_a_checkpoint() -> Scenario {
    let mut cluster = cluster_with_small_journal(MILLISECOND / 3)?;
    assert!(answers(&mut cluster, 10)?);
    cluster.run_for(300 * MILLISECOND)?;
    cluster.copy_disk(2);
    cluster.start(2)?;
    cluster.run_for(300 * MILLISECOND)?;
    leave_behind(&mut cluster, 2)?;
    cluster.run_for(300 * MILLISECOND)?;
    assert!(cluster.set_back(2));
    cluster.start(2)?;
    comes_back(&mut cluster, 2)?;
    cluster.finish().map(drop)
}

// ── standbys ────────────────────────────────────────────────────────────────────────────────────

fn with_standbys(standby_count: u8) -> Result<Simulation, Violation> {
    let options = Options {
        standby_count,
        requests: 0,
        ..Options::CALM
    };
    let mut cluster = Simulation::new(options, 1)?;
    assert!(cluster.run_until(SOON, |c| c.primary().is_some())?);
    Ok(cluster)
}

#[test]
fn standby_follows_and_has_everything() -> Scenario {
    let mut cluster = with_standbys(2)?;
    assert!(answers(&mut cluster, 50)?);
    assert!(cluster.run_until(SECOND, |c| has_caught_up(c, 3) && has_caught_up(c, 4))?);
    cluster.finish().map(drop)
}

#[test]
fn standby_does_not_count_when_a_majority_is_down() -> Scenario {
    let mut cluster = with_standbys(3)?;
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
fn standby_follows_the_next_primary_too() -> Scenario {
    let mut cluster = with_standbys(1)?;
    assert!(answers(&mut cluster, 5)?);
    cluster.crash(0);
    assert!(answers(&mut cluster, 20)?);
    assert!(cluster.run_until(2 * SECOND, |c| has_caught_up(c, 3))?);
    cluster.finish().map(drop)
}

#[test]
fn standby_was_away_it_catches_up() -> Scenario {
    let mut cluster = with_standbys(1)?;
    cluster.crash(3);
    assert!(answers(&mut cluster, 200)?);
    cluster.start(3)?;
    assert!(cluster.run_until(10 * SECOND, |c| has_caught_up(c, 3))?);
    cluster.finish().map(drop)
}
