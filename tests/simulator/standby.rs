//! Standbys: members that follow, have everything, and never count.

use super::vocabulary::*;

/// The first standby of three replicas.
const STANDBY: u8 = 3;

fn with_standbys(standby_count: u8) -> Result<Simulation, Violation> {
    cluster_of(Options {
        standby_count,
        ..Options::CALM
    })
}

#[test]
fn clients_ask_it_has_everything_that_replicas_have() -> Scenario {
    let mut cluster = with_standbys(2)?;
    assert!(answers(&mut cluster, 50)?);
    for standby in [STANDBY, STANDBY + 1] {
        catches_up(&mut cluster, standby, SECOND)?;
    }
    ends_well(&mut cluster)
}

#[test]
fn a_majority_of_replicas_is_down_standbys_do_not_count() -> Scenario {
    let mut cluster = with_standbys(3)?;
    assert!(answers(&mut cluster, 5)?);
    crash_all(&mut cluster, &[1, 2]);
    nobody_is_answered(&mut cluster, SOON)?;
    cluster.start(2)?;
    assert!(are_answered(&mut cluster)?);
    ends_well(&mut cluster)
}

#[test]
fn a_single_replica_loses_what_its_standby_has_both_go_on_with_one_log() -> Scenario {
    let mut options = slow_disks(20 * MILLISECOND, QUIET);
    (options.replica_count, options.standby_count) = (1, 1);
    let mut cluster = cluster_of(options)?;
    for _ in 0..20 {
        // Long enough for the standby to have it, not for the disk.
        work(&mut cluster, 1, 3 * MILLISECOND)?;
        restart(&mut cluster, 0)?;
        assert!(answers(&mut cluster, 2)?);
        catches_up(&mut cluster, 1, SECOND)?;
    }
    ends_well(&mut cluster)
}

#[test]
fn it_is_down_and_another_is_slow_nobody_waits() -> Scenario {
    let mut cluster = with_standbys(2)?;
    cluster.crash(STANDBY);
    cluster.slow_down(STANDBY + 1, 200);
    cluster.submit(50);
    assert!(cluster.run_until(SOON, Simulation::clients_done)?);
    assert_eq!(cluster.latest_view(), 0);
    ends_well(&mut cluster)
}

#[test]
fn the_primary_dies_it_follows_the_next_one() -> Scenario {
    let mut cluster = with_standbys(1)?;
    assert!(answers(&mut cluster, 5)?);
    for _ in 0..4 {
        let primary = cluster.primary().expect("it has answered");
        cluster.crash(primary);
        assert!(another_serves(&mut cluster, primary)?);
        assert!(answers(&mut cluster, 5)?);
        catches_up(&mut cluster, STANDBY, SECOND)?;
        cluster.start(primary)?;
    }
    ends_well(&mut cluster)
}

#[test]
fn it_was_away_for_longer_than_journals_reach_it_fetches_a_checkpoint() -> Scenario {
    let mut cluster = cluster_of(Options {
        standby_count: 1,
        ..small_journals(MILLISECOND / 3)
    })?;
    leave_behind(&mut cluster, STANDBY)?;
    cluster.start(STANDBY)?;
    catches_up(&mut cluster, STANDBY, 20 * SECOND)?;
    ends_with(&mut cluster, |report| report.transfers == 1)
}

#[test]
fn its_disk_is_lost_it_has_everything_again() -> Scenario {
    let mut cluster = with_standbys(1)?;
    assert!(answers(&mut cluster, 20)?);
    assert!(cluster.lose_disk(STANDBY));
    cluster.start(STANDBY)?;
    assert!(answers(&mut cluster, 20)?);
    catches_up(&mut cluster, STANDBY, SOON)?;
    ends_well(&mut cluster)
}

#[test]
fn it_was_away_it_catches_up() -> Scenario {
    let mut cluster = with_standbys(1)?;
    cluster.crash(STANDBY);
    assert!(answers(&mut cluster, 200)?);
    cluster.start(STANDBY)?;
    catches_up(&mut cluster, STANDBY, 10 * SECOND)?;
    ends_well(&mut cluster)
}
