//! Links that lose, flap, or pass in one direction only.

use stampede::sim::{MILLISECOND, Options, Quality, SECOND, Simulation};

use super::{SOON, Scenario, answers, cluster};

fn view_max(cluster: &Simulation, replicas: u8) -> u32 {
    let views = (0..replicas).filter_map(|r| cluster.progress(r));
    views.map(|p| p.view).max().unwrap_or(0)
}

#[test]
fn network_messages_are_lost_and_doubled_every_request_is_answered_once() -> Scenario {
    let options = Options {
        requests: 0,
        quality: Quality {
            loss: 50_000,
            duplication: 50_000,
            ..Quality::GOOD
        },
        ..Options::CALM
    };
    let mut cluster = Simulation::new(options, 11)?;
    assert!(answers(&mut cluster, 50)?);
    cluster.finish().map(drop)
}

#[test]
fn network_the_link_of_one_backup_flaps_views_do_not_churn() -> Scenario {
    let mut cluster = cluster(3)?;
    cluster.submit(100);
    for _ in 0..100 {
        cluster.break_connections(0, 2);
        cluster.run_for(130 * MILLISECOND)?;
    }
    assert!(cluster.run_until(60 * SECOND, Simulation::clients_done)?);
    assert_eq!(view_max(&cluster, 3), 0);
    cluster.finish().map(drop)
}

#[test]
fn network_one_replica_sees_all_and_the_others_are_split_work_goes_on() -> Scenario {
    // 0 and 1 on one side, 3 and 4 on the other; 2 hears both.
    let mut cluster = cluster(5)?;
    for a in [0, 1] {
        for b in [3, 4] {
            cluster.cut(a, b);
            cluster.cut(b, a);
        }
    }
    assert!(answers(&mut cluster, 30)?);
    assert!(view_max(&cluster, 5) <= 1, "{}", view_max(&cluster, 5));
    cluster.heal();
    cluster.finish().map(drop)
}

#[test]
fn network_partitions_come_and_go_what_is_acknowledged_stays() -> Scenario {
    let mut cluster = cluster(5)?;
    for round in 0..10u8 {
        cluster.submit(10);
        cluster.partition(&[round % 5, (round + 1) % 5]);
        cluster.run_for(800 * MILLISECOND)?;
        cluster.heal();
        cluster.run_for(200 * MILLISECOND)?;
    }
    assert!(cluster.run_until(60 * SECOND, Simulation::clients_done)?);
    cluster.finish().map(drop)
}

#[test]
fn network_two_replicas_are_cut_off_from_one_another_they_wait_and_go_on() -> Scenario {
    let mut cluster = cluster(2)?;
    assert!(answers(&mut cluster, 5)?);
    cluster.partition(&[0]);
    let before = cluster.replies();
    cluster.submit(5);
    cluster.run_for(3 * SECOND)?;
    assert_eq!(cluster.replies(), before);
    cluster.heal();
    assert!(cluster.run_until(60 * SECOND, Simulation::clients_done)?);
    cluster.finish().map(drop)
}

#[test]
fn network_a_minority_is_cut_off_it_neither_commits_nor_moves_the_majority() -> Scenario {
    let mut cluster = cluster(5)?;
    assert!(answers(&mut cluster, 5)?);
    cluster.partition(&[3, 4]);
    assert!(answers(&mut cluster, 30)?);
    cluster.run_for(5 * SECOND)?;
    cluster.heal();
    cluster.run_for(SECOND)?;
    assert_eq!(view_max(&cluster, 5), 0);
    cluster.finish().map(drop)
}

// ── more of view changes ────────────────────────────────────────────────────────────────────────

#[test]
fn view_change_a_primary_that_hears_nobody_steps_down() -> Scenario {
    let mut cluster = cluster(3)?;
    assert!(answers(&mut cluster, 5)?);
    cluster.cut(1, 0);
    cluster.cut(2, 0);
    let taken = cluster.run_until(SECOND, |c| c.primary() == Some(1))?;
    assert!(taken, "{:?}", cluster.primary());
    assert!(answers(&mut cluster, 20)?);
    cluster.heal();
    cluster.finish().map(drop)
}

#[test]
fn view_change_the_next_primary_is_down_as_well_the_one_after_takes_over() -> Scenario {
    let mut cluster = cluster(5)?;
    cluster.submit(50);
    cluster.run_for(200 * MILLISECOND)?;
    cluster.crash(1);
    cluster.crash(0);
    let taken = cluster.run_until(SOON, |c| c.primary() == Some(2))?;
    assert!(taken, "{:?}", cluster.primary());
    assert!(cluster.run_until(60 * SECOND, Simulation::clients_done)?);
    cluster.finish().map(drop)
}

#[test]
fn view_change_the_new_primary_dies_before_its_view_begins_nothing_is_lost() -> Scenario {
    for microseconds in [100, 300, 600, 900, 1_200, 2_000] {
        let mut cluster = cluster(5)?;
        cluster.submit(30);
        cluster.run_for(200 * MILLISECOND)?;
        cluster.crash(0);
        cluster.run_for(microseconds * MILLISECOND / 1_000)?;
        cluster.crash(1);
        assert!(cluster.run_until(60 * SECOND, Simulation::clients_done)?);
        cluster.finish()?;
    }
    Ok(())
}

#[test]
fn view_change_machines_are_slow_nobody_is_deposed() -> Scenario {
    let mut cluster = cluster(3)?;
    for replica in 0..3 {
        cluster.slow_down(replica, 50);
    }
    assert!(answers(&mut cluster, 30)?);
    assert_eq!(view_max(&cluster, 3), 0);
    cluster.finish().map(drop)
}

#[test]
fn normal_three_of_six_backups_are_down_the_rest_commits() -> Scenario {
    let mut cluster = cluster(6)?;
    for replica in [3, 4, 5] {
        cluster.crash(replica);
    }
    assert!(answers(&mut cluster, 30)?);
    cluster.finish().map(drop)
}

#[test]
fn normal_four_replicas_two_are_enough_as_long_as_the_primary_lives() -> Scenario {
    let mut cluster = cluster(4)?;
    cluster.crash(2);
    cluster.crash(3);
    assert!(answers(&mut cluster, 30)?);
    assert_eq!(view_max(&cluster, 4), 0);
    cluster.finish().map(drop)
}

// ── more of sessions ────────────────────────────────────────────────────────────────────────────

#[test]
fn sessions_a_request_is_in_flight_when_the_primary_dies_it_is_answered_once() -> Scenario {
    for delay in 0..12 {
        let mut cluster = cluster(3)?;
        assert!(answers(&mut cluster, 2)?);
        cluster.submit(2);
        cluster.run_for(MILLISECOND + delay * MILLISECOND / 5)?;
        let primary = cluster.primary().expect("it serves");
        cluster.crash(primary);
        assert!(cluster.run_until(60 * SECOND, Simulation::clients_done)?);
        cluster.finish()?;
    }
    Ok(())
}

#[test]
fn sessions_a_request_is_in_flight_when_all_lose_power_it_is_answered_once() -> Scenario {
    for delay in 0..12 {
        let mut cluster = cluster(3)?;
        assert!(answers(&mut cluster, 2)?);
        cluster.submit(2);
        cluster.run_for(MILLISECOND + delay * MILLISECOND / 5)?;
        for replica in 0..3 {
            cluster.crash(replica);
        }
        for replica in 0..3 {
            cluster.start(replica)?;
        }
        assert!(cluster.run_until(60 * SECOND, Simulation::clients_done)?);
        cluster.finish()?;
    }
    Ok(())
}

#[test]
fn sessions_survive_a_state_transfer_and_a_failover_to_who_fetched_them() -> Scenario {
    let mut cluster = super::cluster_with_small_journal(MILLISECOND / 3)?;
    super::leave_behind(&mut cluster, 1)?;
    cluster.start(1)?;
    assert!(cluster.run_until(10 * SECOND, |c| super::has_caught_up(c, 1))?);
    cluster.submit(10);
    cluster.crash(0);
    assert!(cluster.run_until(60 * SECOND, Simulation::clients_done)?);
    cluster.finish().map(drop)
}
