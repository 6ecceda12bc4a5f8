//! Clusters of protocol cores under faults ([`cluster`]), and one core spoken to by hand ([`core`]).

mod cluster;
mod core;

use self::cluster::{CLUSTER, Cluster, Disk, Node, REGISTER, control};
use super::*;
use crate::message::Claim;

#[test]
fn normal_operation_commits_and_replies_for_every_cluster_size() {
    for replicas in 1..=6 {
        let mut cluster = Cluster::new(replicas, 1);
        cluster.run(2_000);
        assert!(
            cluster.done() > 100,
            "{replicas} replicas: {}",
            cluster.states()
        );
        cluster.heal_and_check();
    }
}

#[test]
fn a_dead_primary_is_replaced_and_comes_back_as_a_backup() {
    let mut cluster = Cluster::new(3, 2);
    cluster.run(500);
    cluster.crash(0);
    let before = cluster.done();
    cluster.run(2_000);
    assert!(cluster.done() > before, "{}", cluster.states());
    cluster.heal_and_check();
}

#[test]
fn a_restarted_primary_leaves_its_view_to_another() {
    let mut cluster = Cluster::new(3, 3);
    cluster.run(500);
    let view = cluster.nodes[0].vsr.as_ref().unwrap().view();
    cluster.crash(0);
    cluster.start(0);
    cluster.run(300);
    assert!(
        cluster.nodes[0].vsr.as_ref().unwrap().view() > view,
        "{}",
        cluster.states()
    );
    cluster.heal_and_check();
}

#[test]
fn all_replicas_at_once_come_back_from_disk() {
    let mut cluster = Cluster::new(3, 4);
    for _ in 0..5 {
        cluster.run(700);
        for index in 0..3 {
            cluster.crash(index);
        }
        for index in 0..3 {
            cluster.start(index);
        }
    }
    cluster.heal_and_check();
}

#[test]
fn a_deaf_backup_deposes_nobody() {
    let mut cluster = Cluster::new(3, 5);
    cluster.run(200);
    cluster.cut.insert((0, 2), true);
    cluster.run(3_000);
    assert_eq!(
        cluster.nodes[0].vsr.as_ref().unwrap().view(),
        0,
        "{}",
        cluster.states()
    );
    cluster.heal_and_check();
}

#[test]
fn random_faults_lose_nothing() {
    for seed in 0..60 {
        let replicas = [2, 3, 3, 3, 4, 5, 6][usize::try_from(seed % 7).unwrap()];
        let mut cluster = Cluster::new(replicas, 1000 + seed);
        cluster.lossy = true;
        for _ in 0..25 {
            let milliseconds = 20 + cluster.random.below(400);
            cluster.run(milliseconds);
            let index = usize::try_from(cluster.random.below(replicas.into())).unwrap();
            match cluster.random.below(6) {
                0 | 1 if cluster.nodes[index].vsr.is_some() => cluster.crash(index),
                0..=2 if cluster.nodes[index].vsr.is_none() => cluster.start(index),
                3 => {
                    for other in 0..usize::from(replicas) {
                        cluster.cut.insert((index, other), true);
                    }
                }
                4 => {
                    for other in 0..usize::from(replicas) {
                        cluster.cut.insert((other, index), true);
                    }
                }
                5 => cluster.cut.clear(),
                _ => {}
            }
        }
        cluster.heal_and_check();
    }
}

#[test]
fn entries_that_one_disk_has_damaged_are_fetched_again() {
    let mut cluster = Cluster::new(3, 7);
    cluster.run(1_000);
    for index in [0, 1, 2, 0, 1] {
        cluster.crash(index);
        cluster.damage(index, &[2, 3, 9, 30, 31, 32]);
        cluster.start(index);
        cluster.run(700);
        let vsr = cluster.nodes[index].vsr.as_ref().unwrap();
        assert_eq!(vsr.log().missing().count(), 0, "{}", cluster.states());
    }
    cluster.heal_and_check();
}

#[test]
fn different_entries_damaged_on_each_disk_heal_when_all_start_again() {
    for seed in 0..20 {
        let mut cluster = Cluster::new(3, 300 + seed);
        cluster.run(1_000);
        // At rest: everybody has everything.
        for client in &mut cluster.clients {
            client.last_sent = u64::MAX / 2;
        }
        cluster.run(300);
        for index in 0..3 {
            cluster.crash(index);
        }
        cluster.damage(0, &[1, 4, 5, 12, 13, 14]);
        cluster.damage(1, &[2, 6, 7, 15, 16, 17]);
        cluster.damage(2, &[3, 8, 9, 18, 19, 20]);
        for client in &mut cluster.clients {
            client.last_sent = 0;
        }
        cluster.heal_and_check();
        for node in &cluster.nodes {
            let missing = node.vsr.as_ref().unwrap().log().missing().count();
            assert_eq!(missing, 0, "seed {seed} {}", cluster.states());
        }
    }
}

#[test]
fn a_lost_end_of_one_log_loses_nothing() {
    for seed in 0..20 {
        let mut cluster = Cluster::new(3, 400 + seed);
        cluster.run(800);
        let victim = usize::try_from(seed % 3).unwrap();
        for index in 0..3 {
            cluster.crash(index);
        }
        cluster.damage(victim, &[0, 1, 2]);
        cluster.heal_and_check();
    }
}

#[test]
fn a_disk_that_was_set_back_does_not_vote_before_it_knows_what_it_said() {
    for seed in 0..20 {
        let mut cluster = Cluster::new(3, 500 + seed);
        cluster.run(500);
        let victim = usize::try_from(seed % 3).unwrap();
        let old = {
            let disk = &cluster.nodes[victim].disk;
            let mut old = disk.clone();
            old.frames.truncate(old.durable);
            old.promises.clear();
            old
        };
        cluster.run(600);
        cluster.crash(victim);
        cluster.nodes[victim].disk = old;
        cluster.start(victim);
        // Its peers know better.
        cluster.event(victim, Event::RolledBack);
        assert!(cluster.nodes[victim].vsr.as_ref().unwrap().is_recovering());
        for other in (0..3).filter(|other| *other != victim) {
            let view = cluster.nodes[other].vsr.as_ref().unwrap().view();
            let replica = u8::try_from(other).unwrap();
            cluster.event(victim, Event::Welcomed { replica, view });
        }
        cluster.heal_and_check();
        assert!(!cluster.nodes[victim].vsr.as_ref().unwrap().is_recovering());
    }
}

#[test]
fn a_lost_disk_comes_back_through_recovery() {
    for seed in 0..20 {
        let mut cluster = Cluster::new(3, 600 + seed);
        cluster.run(700);
        let victim = usize::try_from(seed % 3).unwrap();
        cluster.crash(victim);
        let promise = Promise {
            recovering: true,
            ..Promise::default()
        };
        cluster.nodes[victim].disk = Disk {
            promise,
            ..Disk::default()
        };
        cluster.run(100);
        cluster.start(victim);
        cluster.heal_and_check();
        assert!(!cluster.nodes[victim].vsr.as_ref().unwrap().is_recovering());
    }
}

#[test]
fn standbys_follow_and_never_count() {
    let mut cluster = Cluster::with_standbys(3, 2, 8);
    cluster.run(1_000);
    // Two replicas are down: however many standbys there are, nothing commits.
    cluster.crash(0);
    cluster.crash(1);
    cluster.run(1_000);
    let before = cluster.done();
    cluster.run(2_000);
    assert_eq!(cluster.done(), before);
    cluster.heal_and_check();
    cluster.run(500);
    let executed = |index: usize| cluster.nodes[index].vsr.as_ref().unwrap().executed();
    assert!(executed(4) + 20 > executed(0), "{}", cluster.states());
    // One replica and a standby: the replica is enough, whatever the standby does.
    let mut cluster = Cluster::with_standbys(1, 1, 9);
    cluster.run(300);
    cluster.crash(1);
    let before = cluster.done();
    cluster.run(500);
    assert!(cluster.done() > before);
    cluster.heal_and_check();
}

#[test]
fn requests_that_others_pass_on_leave_buffers_for_what_they_need_themselves() {
    let mut cluster = Cluster::new(3, 9);
    cluster.run(500);
    let now = cluster.time();
    let Node { vsr, pool, .. } = &mut cluster.nodes[0];
    let vsr = vsr.as_mut().unwrap();
    assert!(vsr.is_serving());
    // Most buffers are in use elsewhere: the queue could hold nearly all of the rest.
    let mut elsewhere = Vec::new();
    while pool.has_room(0, Claim::PassedOn) {
        elsewhere.push(pool.acquire(0).unwrap());
    }
    elsewhere.truncate(elsewhere.len() - 1_000);
    let (mut passed_on, queued) = (1_000, vsr.queue_len());
    while let Some(mut message) = pool.acquire(0) {
        let mut header = Header::new(Command::Request, CLUSTER, 1, 0);
        header.client = passed_on;
        header.operation = REGISTER;
        message.fill(header, &[]);
        let mut effects = Vec::new();
        vsr.on_event(Event::Message(message.freeze()), now, &mut effects);
        passed_on += 1;
        if passed_on == 100_000 {
            break;
        }
    }
    assert!(vsr.queue_len() > queued);
    assert!(pool.has_room(0, Claim::Behind), "{pool:?}");
}

#[test]
fn a_standby_follows_no_view_that_has_not_begun() {
    let mut cluster = Cluster::with_standbys(3, 1, 8);
    cluster.run(500);
    for command in [Command::ExitView, Command::JoinView] {
        cluster.event(3, Event::Message(control(command, 1, 9)));
    }
    assert_eq!(cluster.nodes[3].vsr.as_ref().unwrap().view(), 0);
    cluster.heal_and_check();
}

#[test]
fn one_that_recovers_in_a_later_view_calls_the_others_there() {
    for view in [4, 5, 6] {
        let mut cluster = Cluster::new(3, 8);
        cluster.run(500);
        cluster.crash(2);
        let promise = &mut cluster.nodes[2].disk.promise;
        (promise.view, promise.recovering) = (view, true);
        cluster.start(2);
        cluster.run(3_000);
        let vsr = cluster.nodes[2].vsr.as_ref().unwrap();
        assert!(
            !vsr.is_recovering() && vsr.view() >= view,
            "{}",
            cluster.states()
        );
        cluster.heal_and_check();
    }
}

#[test]
fn a_session_that_may_be_newer_than_what_was_executed_here_is_not_over() {
    let mut cluster = Cluster::new(3, 9);
    cluster.run(500);
    let now = cluster.time();
    let executed = cluster.nodes[0].vsr.as_ref().unwrap().executed();
    for (session, is_over) in [(executed, true), (executed + 1, false)] {
        let Node { vsr, pool, .. } = &mut cluster.nodes[0];
        let mut request = pool.acquire(0).unwrap();
        let mut header = Header::new(Command::Request, CLUSTER, 0, 0);
        (header.client, header.session, header.request) = (99, session, 1);
        request.fill(header, &[]);
        let mut effects = Vec::new();
        let vsr = vsr.as_mut().unwrap();
        let event = Event::Request(request);
        vsr.on_event(event, now, &mut effects);
        let evicts = |effect: &Effect| matches!(effect, Effect::Evict { .. });
        assert_eq!(effects.iter().any(evicts), is_over);
    }
}
