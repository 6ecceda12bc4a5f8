//! Restarts from the own disk: of one, of all, at bad moments.

use super::vocabulary::*;

#[test]
fn all_lose_power_at_once_everything_acknowledged_is_there() -> Scenario {
    let mut cluster = cluster(3)?;
    for _ in 0..20 {
        work(&mut cluster, 10, 150 * MILLISECOND)?;
        all_lose_power(&mut cluster, 3)?;
    }
    assert!(are_answered(&mut cluster)?);
    ends_well(&mut cluster)
}

#[test]
fn a_single_replica_again_and_again_nothing_is_lost() -> Scenario {
    let mut cluster = cluster(1)?;
    for _ in 0..50 {
        work(&mut cluster, 3, 70 * MILLISECOND)?;
        restart(&mut cluster, 0)?;
    }
    assert!(are_answered(&mut cluster)?);
    ends_well(&mut cluster)
}

#[test]
fn one_after_the_other_work_goes_on() -> Scenario {
    let mut cluster = cluster(3)?;
    for round in 0..9 {
        cluster.submit(10);
        is_off_for(&mut cluster, round % 3, SECOND)?;
        cluster.run_for(SECOND)?;
    }
    assert!(are_answered(&mut cluster)?);
    ends_well(&mut cluster)
}

#[test]
fn disks_are_slow_all_lose_power_with_writes_in_flight_nothing_acknowledged_is_lost() -> Scenario {
    let mut options = slow_disks(60 * MILLISECOND, QUIET);
    options.think_max = 0;
    let mut cluster = cluster_of(options)?;
    for round in 0..30 {
        work(&mut cluster, 5, (400 + 17 * round) * MILLISECOND)?;
        all_lose_power(&mut cluster, 3)?;
    }
    assert!(are_answered(&mut cluster)?);
    ends_well(&mut cluster)
}

#[test]
fn the_next_primary_loses_power_in_the_middle_of_a_view_change_it_keeps_its_word() -> Scenario {
    let mut cluster = cluster(3)?;
    for _ in 0..6 {
        work(&mut cluster, 10, 300 * MILLISECOND)?;
        let Some(primary) = cluster.primary() else {
            continue;
        };
        let next = (primary + 1) % 3;
        leaves_view_without(&mut cluster, next, primary)?;
        cluster.crash(next);
        start_all(&mut cluster, &[next, primary])?;
        somebody_serves(&mut cluster)?;
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
    catches_up(&mut cluster, 2, 20 * SECOND)?;
    ends_well(&mut cluster)
}

#[test]
fn a_majority_of_five_loses_power_what_the_others_have_is_served_again() -> Scenario {
    let mut cluster = cluster(5)?;
    for _ in 0..6 {
        work(&mut cluster, 10, 200 * MILLISECOND)?;
        crash_all(&mut cluster, &[0, 1, 2]);
        cluster.run_for(SECOND)?;
        start_all(&mut cluster, &[2, 0, 1])?;
        assert!(are_answered(&mut cluster)?);
    }
    ends_well(&mut cluster)
}
