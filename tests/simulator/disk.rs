//! Disks that rot, lie and fail: what one has damaged is fetched from another, and a replica whose
//! writes fail stops rather than promise.

use stampede::sim::{Damage, MILLISECOND, Options, SECOND, Simulation, Violation};

use super::{Scenario, answers, cluster, has_caught_up};

fn missing(cluster: &Simulation, replica: u8) -> u64 {
    cluster.progress(replica).map_or(0, |p| p.missing)
}

fn settled(requests: u64) -> Result<Simulation, Violation> {
    let mut cluster = cluster(3)?;
    assert!(answers(&mut cluster, requests)?);
    cluster.run_for(300 * MILLISECOND)?;
    Ok(cluster)
}

/// Power off, damage, power on; whatever was damaged must be whole again soon.
fn damaged_while_off(kind: Damage, replica: u8) -> Scenario {
    let mut cluster = settled(50)?;
    cluster.crash(replica);
    for _ in 0..5 {
        assert!(cluster.damage(replica, kind));
    }
    cluster.start(replica)?;
    let healed = cluster.run_until(5 * SECOND, |c| {
        missing(c, replica) == 0 && has_caught_up(c, replica)
    })?;
    assert!(healed, "{:?}", cluster.progress(replica));
    assert!(answers(&mut cluster, 20)?);
    cluster.finish().map(drop)
}

#[test]
fn disk_a_backups_journal_rots_while_it_is_off_it_is_mended() -> Scenario {
    damaged_while_off(Damage::Rot, 2)
}

#[test]
fn disk_the_primarys_journal_rots_while_it_is_off_it_is_mended() -> Scenario {
    damaged_while_off(Damage::Rot, 0)
}

#[test]
fn disk_sectors_cannot_be_read_any_more_the_entries_are_fetched_again() -> Scenario {
    damaged_while_off(Damage::Latent, 1)
}

#[test]
fn disk_writes_were_reported_and_never_done_the_chain_shows_it() -> Scenario {
    damaged_while_off(Damage::LostWrite, 2)
}

#[test]
fn disk_a_write_went_astray_neither_place_is_taken_for_right() -> Scenario {
    damaged_while_off(Damage::Misdirected, 2)
}

#[test]
fn disk_copies_of_the_superblock_rot_the_others_are_enough() -> Scenario {
    let mut cluster = settled(20)?;
    for replica in [0, 1, 2] {
        cluster.crash(replica);
        assert!(cluster.damage(replica, Damage::Superblock));
    }
    for replica in [0, 1, 2] {
        cluster.start(replica)?;
    }
    assert!(answers(&mut cluster, 20)?);
    cluster.finish().map(drop)
}

#[test]
fn disk_different_entries_rot_on_each_when_all_are_off_all_heal() -> Scenario {
    for seed in 0..5 {
        let options = Options {
            requests: 0,
            ..Options::CALM
        };
        let mut cluster = Simulation::new(options, 40 + seed)?;
        assert!(answers(&mut cluster, 60)?);
        cluster.run_for(300 * MILLISECOND)?;
        for replica in 0..3 {
            cluster.crash(replica);
        }
        for round in 0..15 {
            cluster.damage(round % 3, Damage::Rot);
        }
        for replica in 0..3 {
            cluster.start(replica)?;
        }
        assert!(answers(&mut cluster, 20)?, "seed {seed}");
        cluster.finish()?;
    }
    Ok(())
}

#[test]
fn disk_it_rots_under_a_running_replica_others_are_served_all_the_same() -> Scenario {
    let mut cluster = settled(50)?;
    cluster.crash(2);
    assert!(answers(&mut cluster, 50)?);
    cluster.run_for(300 * MILLISECOND)?;
    for _ in 0..10 {
        cluster.damage(0, Damage::Rot);
    }
    cluster.start(2)?;
    assert!(cluster.run_until(20 * SECOND, |c| has_caught_up(c, 2))?);
    cluster.finish().map(drop)
}
