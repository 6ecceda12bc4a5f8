//! View changes: who leaves a view and who does not, and what becomes of the log.

use super::vocabulary::*;

#[test]
fn the_primary_crashes_another_takes_over() -> Scenario {
    let mut cluster = cluster(3)?;
    work(&mut cluster, 200, 500 * MILLISECOND)?;
    cluster.crash(0);
    assert!(another_serves(&mut cluster, 0)?);
    assert!(are_answered(&mut cluster)?);
    ends_well(&mut cluster)
}

#[test]
fn one_primary_after_the_other_crashes_work_goes_on() -> Scenario {
    let mut cluster = cluster(5)?;
    for _ in 0..12 {
        work(&mut cluster, 10, 300 * MILLISECOND)?;
        if let Some(primary) = cluster.primary() {
            is_off_for(&mut cluster, primary, 700 * MILLISECOND)?;
        }
    }
    assert!(are_answered(&mut cluster)?);
    ends_with(&mut cluster, |report| report.views >= 6)
}

#[test]
fn a_primary_is_cut_off_it_commits_nothing_and_comes_back() -> Scenario {
    let mut cluster = cluster(3)?;
    assert!(answers(&mut cluster, 5)?);
    cluster.partition(&[0]);
    assert!(cluster.run_until(SOON, |c| c.primary().is_some_and(|p| p != 0))?);
    assert!(answers(&mut cluster, 20)?, "the majority answers");
    let commit = cluster.progress(0).map(|p| p.commit);
    cluster.run_for(SECOND)?;
    assert_eq!(cluster.progress(0).map(|p| p.commit), commit);
    cluster.heal();
    becomes_whole(&mut cluster, 0, SOON)?;
    ends_well(&mut cluster)
}

#[test]
fn a_deaf_backup_deposes_nobody() -> Scenario {
    let mut cluster = cluster(3)?;
    cluster.cut(0, 2);
    cluster.cut(1, 2);
    assert!(answers(&mut cluster, 50)?);
    cluster.run_for(10 * SECOND)?;
    assert_eq!(cluster.progress(0).map(|p| p.view), Some(0));
    ends_well(&mut cluster)
}

#[test]
fn one_link_is_cut_in_one_direction_views_do_not_churn() -> Scenario {
    let mut cluster = cluster(3)?;
    cluster.cut(0, 1);
    assert!(answers(&mut cluster, 50)?);
    cluster.run_for(20 * SECOND)?;
    let views = (0..3)
        .filter_map(|r| cluster.progress(r))
        .map(|p| p.view)
        .max();
    assert!(views <= Some(1), "{views:?}");
    ends_well(&mut cluster)
}

#[test]
fn a_primary_that_pauses_is_replaced_and_joins_again() -> Scenario {
    let mut cluster = cluster(3)?;
    work(&mut cluster, 40, 300 * MILLISECOND)?;
    cluster.pause(0, 3 * SECOND);
    assert!(another_serves(&mut cluster, 0)?);
    assert!(are_answered(&mut cluster)?);
    ends_well(&mut cluster)
}

#[test]
fn the_primary_hears_nobody_it_steps_down() -> Scenario {
    let mut cluster = cluster(3)?;
    assert!(answers(&mut cluster, 5)?);
    cluster.deafen(0);
    assert!(cluster.run_until(SECOND, |c| c.primary() == Some(1))?);
    assert!(answers(&mut cluster, 20)?);
    ends_well(&mut cluster)
}

#[test]
fn the_next_primary_is_down_too_the_third_takes_over() -> Scenario {
    let mut cluster = cluster(5)?;
    work(&mut cluster, 50, 300 * MILLISECOND)?;
    crash_all(&mut cluster, &[0, 1]);
    assert!(cluster.run_until(3 * SECOND, |c| c.primary() == Some(2))?);
    assert!(are_answered(&mut cluster)?);
    ends_well(&mut cluster)
}

#[test]
fn connections_break_one_after_the_other_views_do_not_churn() -> Scenario {
    // Each is a reason for one backup to leave the view, and forgotten before the other has one.
    let mut cluster = cluster(3)?;
    for round in 0..50 {
        cluster.submit(2);
        cluster.break_connections(0, 1 + round % 2);
        cluster.run_for(300 * MILLISECOND)?;
    }
    assert!(are_answered(&mut cluster)?);
    assert_eq!(cluster.latest_view(), 0);
    ends_well(&mut cluster)
}

#[test]
fn a_link_flaps_in_one_direction_views_do_not_churn() -> Scenario {
    let mut cluster = cluster(3)?;
    for _ in 0..20 {
        cluster.submit(2);
        cluster.cut(0, 1);
        cluster.run_for(400 * MILLISECOND)?;
        cluster.heal();
        cluster.run_for(200 * MILLISECOND)?;
    }
    assert!(are_answered(&mut cluster)?);
    assert!(cluster.latest_view() <= 1, "{}", cluster.latest_view());
    ends_well(&mut cluster)
}

#[test]
fn links_of_the_primary_are_slow_views_do_not_churn() -> Scenario {
    let mut cluster = cluster(3)?;
    for backup in 1..3 {
        cluster.slow_link(0, backup, 150 * MILLISECOND);
    }
    assert!(answers(&mut cluster, 20)?);
    cluster.run_for(10 * SECOND)?;
    assert_eq!(cluster.latest_view(), 0);
    ends_well(&mut cluster)
}

#[test]
fn all_processes_pause_at_once_nobody_is_deposed() -> Scenario {
    // A machine that was suspended: time in which a replica did not run says nothing of the others.
    let mut cluster = cluster(3)?;
    assert!(answers(&mut cluster, 5)?);
    for replica in 0..3 {
        cluster.pause(replica, 3 * SECOND);
    }
    cluster.run_for(5 * SECOND)?;
    assert!(answers(&mut cluster, 5)?);
    assert_eq!(cluster.latest_view(), 0);
    ends_well(&mut cluster)
}

#[test]
fn two_of_three_cannot_hear_each_other_the_third_keeps_the_view() -> Scenario {
    let mut cluster = cluster(3)?;
    cluster.cut(0, 1);
    cluster.cut(1, 0);
    assert!(answers(&mut cluster, 50)?);
    cluster.run_for(20 * SECOND)?;
    assert_eq!(cluster.latest_view(), 0);
    ends_well(&mut cluster)
}

/// What a primary of three prepares reaches nobody.
fn prepares_alone(cluster: &mut Simulation, primary: u8) -> Scenario {
    cluster.cut(primary, (primary + 1) % 3);
    cluster.cut(primary, (primary + 2) % 3);
    let committed = cluster.committed();
    cluster.submit(1);
    let alone = |c: &Simulation| c.progress(primary).is_some_and(|p| p.head > committed);
    assert!(cluster.run_until(SECOND, alone)?);
    Ok(())
}

#[test]
fn requests_die_with_their_view_clients_are_answered_by_the_next() -> Scenario {
    let mut cluster = cluster(3)?;
    assert!(answers(&mut cluster, 5)?);
    prepares_alone(&mut cluster, 0)?;
    assert!(another_serves(&mut cluster, 0)?);
    assert!(are_answered(&mut cluster)?);
    cluster.heal();
    // The former primary forgets what died, and serves the same clients again.
    make_primary(&mut cluster, 0)?;
    assert!(answers(&mut cluster, 5)?);
    ends_well(&mut cluster)
}

#[test]
fn a_replica_that_was_behind_joins_the_next_view_its_short_log_does_not_win() -> Scenario {
    let mut cluster = cluster(3)?;
    cluster.partition(&[2]);
    assert!(answers(&mut cluster, 30)?);
    // It hears of the next view, and loses power before it has the log of that view.
    cluster.heal();
    cluster.slow_link(1, 2, 50 * MILLISECOND);
    leaves_view_without(&mut cluster, 2, 0)?;
    assert!(!has_caught_up(&cluster, 2));
    crash_all(&mut cluster, &[1, 2]);
    // Now it decides with one that has all, and is in an earlier view.
    start_all(&mut cluster, &[2, 0])?;
    somebody_serves(&mut cluster)?;
    assert!(answers(&mut cluster, 5)?);
    ends_well(&mut cluster)
}

#[test]
fn nobody_hears_anybody_for_long_timers_alone_bring_the_next_view() -> Scenario {
    let mut cluster = cluster(3)?;
    assert!(answers(&mut cluster, 5)?);
    cluster.partition(&[0]);
    cluster.partition(&[1]);
    cluster.run_for(MINUTE)?;
    let before = cluster.replies();
    cluster.heal();
    cluster.submit(5);
    assert!(cluster.run_until(3 * SECOND, |c| c.replies() > before)?);
    assert!(are_answered(&mut cluster)?);
    ends_well(&mut cluster)
}

#[test]
fn the_new_primary_dies_before_its_view_begins_nothing_is_lost() -> Scenario {
    for microseconds in [100, 300, 600, 900, 1_200, 2_000] {
        let mut cluster = cluster(5)?;
        work(&mut cluster, 30, 200 * MILLISECOND)?;
        cluster.crash(0);
        cluster.run_for(microseconds * MILLISECOND / 1_000)?;
        cluster.crash(1);
        assert!(are_answered(&mut cluster)?);
        ends_well(&mut cluster)?;
    }
    Ok(())
}

#[test]
fn all_machines_are_slow_nobody_is_deposed() -> Scenario {
    let mut cluster = cluster(3)?;
    for replica in 0..3 {
        cluster.slow_down(replica, 50);
    }
    assert!(answers(&mut cluster, 30)?);
    assert_eq!(cluster.latest_view(), 0);
    ends_well(&mut cluster)
}
