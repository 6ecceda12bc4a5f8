//! Restarts from the own disk: of one, of all, at bad moments.

use super::vocabulary::*;

#[test]
fn all_lose_power_at_once_everything_acknowledged_is_there() -> Scenario {
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
    assert!(are_answered(&mut cluster)?);
    ends_well(&mut cluster)
}

#[test]
fn a_single_replica_again_and_again_nothing_is_lost() -> Scenario {
    let mut cluster = cluster(1)?;
    for _ in 0..50 {
        cluster.submit(3);
        cluster.run_for(70 * MILLISECOND)?;
        cluster.crash(0);
        cluster.start(0)?;
    }
    assert!(are_answered(&mut cluster)?);
    ends_well(&mut cluster)
}

#[test]
fn one_after_the_other_work_goes_on() -> Scenario {
    let mut cluster = cluster(3)?;
    for round in 0..9 {
        cluster.submit(10);
        cluster.crash(round % 3);
        cluster.run_for(SECOND)?;
        cluster.start(round % 3)?;
        cluster.run_for(SECOND)?;
    }
    assert!(are_answered(&mut cluster)?);
    ends_well(&mut cluster)
}

#[test]
fn disks_are_slow_all_lose_power_with_writes_in_flight_nothing_acknowledged_is_lost() -> Scenario {
    let mut options = Options {
        think_max: 0,
        ..Options::CALM
    };
    options.speed.write_max = 60 * MILLISECOND;
    let mut cluster = cluster_of(options)?;
    for round in 0..30 {
        cluster.submit(5);
        cluster.run_for((400 + 17 * round) * MILLISECOND)?;
        all_lose_power(&mut cluster, 3)?;
    }
    assert!(are_answered(&mut cluster)?);
    ends_well(&mut cluster)
}

#[test]
fn the_next_primary_loses_power_in_the_middle_of_a_view_change_it_keeps_its_word() -> Scenario {
    let mut cluster = cluster(3)?;
    for _ in 0..6 {
        cluster.submit(10);
        cluster.run_for(300 * MILLISECOND)?;
        let Some(primary) = cluster.primary() else {
            continue;
        };
        let (next, view) = ((primary + 1) % 3, cluster.latest_view());
        cluster.crash(primary);
        let left = |c: &Simulation| c.progress(next).is_some_and(|p| p.view > view);
        assert!(cluster.run_until(SOON, left)?);
        cluster.crash(next);
        cluster.start(next)?;
        cluster.start(primary)?;
        assert!(cluster.run_until(SOON, |c| c.primary().is_some())?);
    }
    assert!(are_answered(&mut cluster)?);
    ends_well(&mut cluster)
}

#[test]
fn a_backup_loses_power_while_it_catches_up_again_and_again_it_arrives() -> Scenario {
    let mut cluster = cluster(3)?;
    cluster.crash(2);
    assert!(answers(&mut cluster, 300)?);
    for round in 1..=5 {
        cluster.start(2)?;
        let further = |c: &Simulation| c.progress(2).is_some_and(|p| p.head > round * 60);
        assert!(cluster.run_until(SOON, further)?);
        assert!(!has_caught_up(&cluster, 2));
        cluster.crash(2);
    }
    cluster.start(2)?;
    assert!(cluster.run_until(20 * SECOND, |c| has_caught_up(c, 2))?);
    ends_well(&mut cluster)
}

#[test]
fn a_majority_of_five_loses_power_what_the_others_have_is_served_again() -> Scenario {
    let mut cluster = cluster(5)?;
    for _ in 0..6 {
        cluster.submit(10);
        cluster.run_for(200 * MILLISECOND)?;
        for replica in [0, 1, 2] {
            cluster.crash(replica);
        }
        cluster.run_for(SECOND)?;
        for replica in [2, 0, 1] {
            cluster.start(replica)?;
        }
        assert!(are_answered(&mut cluster)?);
    }
    ends_well(&mut cluster)
}
