//! The network: damage on the way, and partitions of every shape.

use super::vocabulary::*;

/// Nothing passes between two replicas; connections look well.
fn cut_both(cluster: &mut Simulation, a: u8, b: u8) {
    cluster.cut(a, b);
    cluster.cut(b, a);
}

#[test]
fn messages_of_replicas_are_damaged_their_connections_break_and_nothing_else() -> Scenario {
    let mut cluster = cluster(3)?;
    for round in 0..60 {
        cluster.submit(1);
        let from = round % 3;
        cluster.add_noise(from, (from + 1 + round / 30) % 3, 1);
        cluster.run_for(100 * MILLISECOND)?;
    }
    assert!(are_answered(&mut cluster)?);
    ends_well(&mut cluster)
}

#[test]
fn requests_are_damaged_they_are_never_executed_and_are_repeated() -> Scenario {
    let mut cluster = cluster(3)?;
    assert!(answers(&mut cluster, 1)?);
    for _ in 0..10 {
        for replica in 0..3 {
            cluster.add_noise_to_client(0, replica, 1);
        }
        assert!(answers(&mut cluster, 3)?);
    }
    ends_well(&mut cluster)
}

#[test]
fn every_message_is_late_all_are_answered_in_the_first_view() -> Scenario {
    let mut options = QUIET;
    options.quality.delay_min = 20 * MILLISECOND;
    options.quality.delay_extra = 30 * MILLISECOND;
    let mut cluster = cluster_of(options)?;
    assert!(answers(&mut cluster, 20)?);
    assert_eq!(cluster.latest_view(), 0);
    ends_well(&mut cluster)
}

#[test]
fn a_partition_moves_around_a_majority_always_answers() -> Scenario {
    let mut cluster = cluster(5)?;
    for round in 0..8 {
        cluster.partition(&[round % 5, (round + 2) % 5]);
        cluster.submit(5);
        assert!(are_answered(&mut cluster)?);
        cluster.heal();
        cluster.run_for(200 * MILLISECOND)?;
    }
    ends_well(&mut cluster)
}

#[test]
fn two_halves_share_one_bridge_it_makes_a_majority_with_either() -> Scenario {
    let mut cluster = cluster(5)?;
    for a in [0, 1] {
        for b in [3, 4] {
            cut_both(&mut cluster, a, b);
        }
    }
    assert!(answers(&mut cluster, 20)?);
    // The primary's half loses one more; the other half and the bridge go on.
    cluster.crash(1);
    assert!(answers(&mut cluster, 20)?);
    ends_well(&mut cluster)
}

#[test]
fn five_stand_in_a_ring_and_hear_their_neighbours_they_answer() -> Scenario {
    let mut cluster = cluster(5)?;
    for a in 0..5 {
        cut_both(&mut cluster, a, (a + 2) % 5);
    }
    assert!(answers(&mut cluster, 20)?);
    cluster.run_for(10 * SECOND)?;
    assert_eq!(cluster.latest_view(), 0);
    ends_well(&mut cluster)
}

#[test]
fn partitions_come_and_go_while_clients_ask_what_is_acknowledged_stays() -> Scenario {
    let mut cluster = cluster(5)?;
    for round in 0..10u8 {
        cluster.submit(10);
        cluster.partition(&[round % 5, (round + 1) % 5]);
        cluster.run_for(800 * MILLISECOND)?;
        cluster.heal();
        cluster.run_for(200 * MILLISECOND)?;
    }
    assert!(are_answered(&mut cluster)?);
    ends_well(&mut cluster)
}

#[test]
fn two_replicas_are_cut_off_from_one_another_they_wait_and_go_on() -> Scenario {
    let mut cluster = cluster(2)?;
    assert!(answers(&mut cluster, 5)?);
    cluster.partition(&[0]);
    nobody_is_answered(&mut cluster, 3 * SECOND)?;
    cluster.heal();
    assert!(are_answered(&mut cluster)?);
    ends_well(&mut cluster)
}

#[test]
fn a_minority_is_cut_off_it_neither_commits_nor_moves_the_majority() -> Scenario {
    let mut cluster = cluster(5)?;
    assert!(answers(&mut cluster, 5)?);
    cluster.partition(&[3, 4]);
    assert!(answers(&mut cluster, 30)?);
    cluster.run_for(5 * SECOND)?;
    cluster.heal();
    cluster.run_for(SECOND)?;
    assert_eq!(cluster.latest_view(), 0);
    ends_well(&mut cluster)
}
