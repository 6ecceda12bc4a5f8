//! kill -9 in the middle of load, again and again, and an account of every transfer at the end.

use std::time::Duration;

use super::cluster::Cluster;
use super::load::Load;

/// Longer than an election, a restart and a client's retries together, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

const THREADS: u64 = 4;

fn restart(cluster: &mut Cluster, indexes: &[usize]) {
    for index in indexes {
        cluster.launch(*index);
    }
    for index in indexes {
        cluster.wait_until_listening(*index);
    }
}

#[test]
fn a_single_replica_is_killed_again_and_again() {
    let mut cluster = Cluster::start("kill_single", 1);
    let load = Load::start(&cluster, THREADS);
    for _ in 0..10 {
        load.wait_for(30, PATIENCE);
        cluster.kill(0);
        restart(&mut cluster, &[0]);
    }
    load.wait_for(30, PATIENCE);
    assert!(load.finish(&cluster) > 300);
}

#[test]
fn one_replica_of_three_is_killed_whichever_it_is() {
    let mut cluster = Cluster::start("kill_one", 3);
    let load = Load::start(&cluster, THREADS);
    for round in 0..9 {
        load.wait_for(30, PATIENCE);
        cluster.kill(round % 3);
        // The others must go on without it.
        load.wait_for(20, PATIENCE);
        restart(&mut cluster, &[round % 3]);
    }
    load.wait_for(30, PATIENCE);
    assert!(load.finish(&cluster) > 300);
}

#[test]
fn two_replicas_of_three_are_killed_and_nothing_is_acknowledged_meanwhile() {
    let mut cluster = Cluster::start("kill_two", 3);
    let load = Load::start(&cluster, THREADS);
    for round in 0..5 {
        load.wait_for(30, PATIENCE);
        let killed = [round % 3, (round + 1) % 3];
        for index in killed {
            cluster.kill(index);
        }
        // What was committed before may still be told: one batch for each client. What a client
        // asks after that needs two replicas.
        let answered = load.answered();
        std::thread::sleep(Duration::from_millis(1_500));
        let told = load.answered() - answered;
        assert!(
            told <= THREADS,
            "one replica of three acknowledged {told} batches"
        );
        restart(&mut cluster, &killed);
    }
    load.wait_for(30, PATIENCE);
    assert!(load.finish(&cluster) > 200);
}

#[test]
fn all_three_replicas_are_killed_at_once() {
    let mut cluster = Cluster::start("kill_all", 3);
    let load = Load::start(&cluster, THREADS);
    for _ in 0..6 {
        load.wait_for(30, PATIENCE);
        for index in 0..3 {
            cluster.kill(index);
        }
        restart(&mut cluster, &[0, 1, 2]);
    }
    load.wait_for(30, PATIENCE);
    assert!(load.finish(&cluster) > 200);
}
