//! Disks: damage, failing writes, no room. What one disk has lost another one has.

use super::vocabulary::*;

/// Every replica lacks nothing.
fn all_are_whole(cluster: &Simulation) -> bool {
    (0..3).all(|replica| is_whole(cluster, replica))
}

/// An entry in the middle of a log of a hundred.
const ENTRY: u64 = 40;

/// Three replicas with some entries that all have.
fn cluster_with_entries() -> Result<Simulation, Violation> {
    let mut cluster = cluster(3)?;
    assert!(answers(&mut cluster, 30)?);
    assert!(cluster.run_until(SOON, all_are_whole)?);
    Ok(cluster)
}

/// A backup has damaged an entry in some way; a restart finds it, and it is fetched again.
fn heals(damage: Damage) -> Scenario {
    let mut cluster = cluster_with_entries()?;
    assert!(cluster.damage_entry(1, ENTRY, damage));
    restart(&mut cluster, 1)?;
    let missing = cluster.progress(1).map(|p| p.missing);
    assert!(missing > Some(0), "nobody has noticed");
    assert!(cluster.run_until(SOON, all_are_whole)?);
    assert!(answers(&mut cluster, 5)?);
    assert_eq!(cluster.latest_view(), 0);
    ends_well(&mut cluster)
}

#[test]
fn a_bit_of_an_entry_turns_over_it_is_fetched_again() -> Scenario {
    heals(Damage::Rot)
}

#[test]
fn a_sector_of_an_entry_cannot_be_read_it_is_fetched_again() -> Scenario {
    heals(Damage::Latent)
}

#[test]
fn a_write_of_an_entry_was_lost_it_is_fetched_again() -> Scenario {
    heals(Damage::LostWrite)
}

#[test]
fn a_write_of_an_entry_went_astray_both_places_are_fetched_again() -> Scenario {
    heals(Damage::Misdirected)
}

#[test]
fn different_entries_are_damaged_on_every_replica_all_start_again_and_heal() -> Scenario {
    let mut cluster = cluster_with_entries()?;
    for (replica, op) in [(0, ENTRY), (1, ENTRY + 7), (2, ENTRY + 1), (0, ENTRY + 9)] {
        assert!(cluster.damage_entry(replica, op, Damage::Rot));
    }
    all_lose_power(&mut cluster, 3)?;
    assert!(answers(&mut cluster, 5)?);
    assert!(cluster.run_until(SOON, all_are_whole)?);
    ends_well(&mut cluster)
}

#[test]
fn two_replicas_have_damaged_the_same_entry_the_third_gives_it_to_both() -> Scenario {
    let mut cluster = cluster_with_entries()?;
    assert!(cluster.damage_entry(0, ENTRY, Damage::Rot));
    assert!(cluster.damage_entry(2, ENTRY, Damage::Latent));
    // The last good copy is not to be had.
    assert!(!cluster.damage_entry(1, ENTRY, Damage::Rot));
    all_lose_power(&mut cluster, 3)?;
    assert!(cluster.run_until(SOON, all_are_whole)?);
    ends_well(&mut cluster)
}

#[test]
fn the_next_primary_has_damaged_entries_it_fetches_them_before_it_loses_any() -> Scenario {
    let mut cluster = cluster_with_entries()?;
    for op in ENTRY..ENTRY + 5 {
        assert!(cluster.damage_entry(1, op, Damage::Rot));
    }
    all_lose_power(&mut cluster, 3)?;
    cluster.crash(0);
    assert!(cluster.run_until(SOON, |c| c.primary() == Some(1))?);
    assert!(answers(&mut cluster, 5)?);
    assert_eq!(cluster.progress(1).map(|p| p.missing), Some(0));
    ends_well(&mut cluster)
}

#[test]
fn bits_turn_over_everywhere_all_the_time_everything_heals() -> Scenario {
    use Damage::{Latent, LostWrite, Rot, Superblock};
    let mut cluster = cluster_with_entries()?;
    let kinds = [Rot, Superblock, Latent, LostWrite].into_iter().cycle();
    let mut damaged = 0;
    for (round, damage) in (0u8..60).zip(kinds) {
        cluster.submit(3);
        damaged += u32::from(cluster.damage(round % 3, damage));
        cluster.run_for(50 * MILLISECOND)?;
        if round % 5 == 4 {
            is_off_for(&mut cluster, round % 3, 100 * MILLISECOND)?;
        }
    }
    assert!(damaged > 30, "only {damaged}");
    assert!(are_answered(&mut cluster)?);
    ends_well(&mut cluster)
}

#[test]
fn copies_of_the_superblock_rot_a_restart_reads_another() -> Scenario {
    let mut cluster = cluster_with_entries()?;
    assert!(cluster.damage(1, Damage::Superblock));
    assert!(cluster.damage(1, Damage::Superblock));
    all_lose_power(&mut cluster, 3)?;
    assert!(answers(&mut cluster, 5)?);
    ends_well(&mut cluster)
}

#[test]
fn many_entries_rot_on_each_replica_while_all_are_off_all_heal() -> Scenario {
    for seed in 40..45 {
        let mut cluster = Simulation::new(QUIET, seed)?;
        assert!(answers(&mut cluster, 60)?);
        cluster.run_for(300 * MILLISECOND)?;
        (0..3).for_each(|replica| cluster.crash(replica));
        let damaged = (0..15).filter(|round| cluster.damage(round % 3, Damage::Rot));
        assert!(damaged.count() > 5, "seed {seed}");
        all_lose_power(&mut cluster, 3)?;
        assert!(answers(&mut cluster, 20)?, "seed {seed}");
        ends_well(&mut cluster)?;
    }
    Ok(())
}

#[test]
fn it_rots_under_a_running_primary_who_was_away_catches_up_all_the_same() -> Scenario {
    let mut cluster = cluster_with_entries()?;
    cluster.crash(2);
    assert!(answers(&mut cluster, 50)?);
    cluster.run_for(300 * MILLISECOND)?;
    for _ in 0..10 {
        cluster.damage(0, Damage::Rot);
    }
    cluster.start(2)?;
    catches_up(&mut cluster, 2, 20 * SECOND)?;
    ends_well(&mut cluster)
}

/// A write of the primary does not go well: it stops itself, another takes over, and it comes back.
fn stops_itself(fault: WriteFault) -> Scenario {
    let mut cluster = cluster_with_entries()?;
    cluster.fail_write(0, fault);
    cluster.submit(20);
    assert!(another_serves(&mut cluster, 0)?);
    assert!(are_answered(&mut cluster)?);
    catches_up(&mut cluster, 0, SOON)?;
    ends_with(&mut cluster, |report| report.starts == 4)
}

#[test]
fn a_write_fails_the_replica_stops_itself_and_another_takes_over() -> Scenario {
    stops_itself(WriteFault::Error)
}

#[test]
fn a_write_ends_early_the_replica_stops_itself_and_another_takes_over() -> Scenario {
    stops_itself(WriteFault::Short)
}

#[test]
fn a_sync_fails_the_replica_stops_itself_and_another_takes_over() -> Scenario {
    stops_itself(WriteFault::Unsynced)
}

#[test]
fn a_checkpoint_cannot_be_written_its_replica_stops_itself_and_makes_it_after_a_restart() -> Scenario
{
    let mut cluster = cluster_with_small_journals(MILLISECOND / 3)?;
    cluster.fail_checkpoints(2, 3);
    work_until(&mut cluster, 10, |c| has_checkpoint(c, 2))?;
    ends_with(&mut cluster, |report| report.starts == 4)
}

#[test]
fn the_power_goes_while_superblocks_are_written_two_copies_are_spoiled_and_two_are_enough()
-> Scenario {
    let mut options = small_journals(20 * MILLISECOND);
    options.faults.spoiled_copies = 1_000_000;
    let mut cluster = cluster_of(options)?;
    for round in 0..30u8 {
        // As a start writes first of all.
        work(&mut cluster, 2, u64::from(round) * MILLISECOND)?;
        restart(&mut cluster, round % 3)?;
    }
    assert!(are_answered(&mut cluster)?);
    ends_well(&mut cluster)
}

/// Three replicas, of which this one is cut off and has all but the last entry.
fn cluster_without_the_last_entry(replica: u8) -> Result<Simulation, Violation> {
    let mut cluster = cluster(3)?;
    assert!(answers(&mut cluster, 3)?);
    cluster.partition(&[replica]);
    assert!(answers(&mut cluster, 1)?);
    cluster.run_for(150 * MILLISECOND)?;
    Ok(cluster)
}

#[test]
fn a_lost_end_and_a_log_that_never_had_it_begin_no_view_without_the_third() -> Scenario {
    let mut cluster = cluster_without_the_last_entry(2)?;
    let last = cluster.committed();
    crash_all(&mut cluster, &[0, 1]);
    assert!(cluster.damage_entry(1, last, Damage::LostWrite));
    cluster.heal();
    cluster.start(1)?;
    work(&mut cluster, 1, SOON)?;
    assert_eq!(cluster.committed(), last);
    cluster.start(0)?;
    assert!(are_answered(&mut cluster)?);
    ends_well(&mut cluster)
}

#[test]
fn disks_are_slow_and_only_the_backups_come_back_they_have_all_that_was_acknowledged() -> Scenario {
    let mut options = slow_disks(60 * MILLISECOND, QUIET);
    (options.client_count, options.think_max) = (8, 0);
    let mut cluster = cluster_of(options)?;
    for round in 0..20 {
        work(&mut cluster, 20, (200 + 13 * round) * MILLISECOND)?;
        let primary = cluster.primary().unwrap_or(0);
        all_lose_power(&mut cluster, 3)?;
        // One of them stays off: the one that had begun to write first.
        cluster.crash(primary);
        assert!(are_answered(&mut cluster)?);
        cluster.start(primary)?;
    }
    ends_well(&mut cluster)
}

/// Full batches, so that checkpoints come often; journals that hold all that a scenario writes.
fn cluster_with_checkpoints(replica_count: u8) -> Result<Simulation, Violation> {
    let options = Options {
        replica_count,
        client_count: 8,
        segment_count: 24,
        ..full_batches(400_000)
    };
    Simulation::new(options, 6)
}

/// The disks of these have no room for a checkpoint, ...
fn fill(cluster: &mut Simulation, replicas: &[u8]) {
    for replica in replicas {
        cluster.set_room(*replica, Some(1 << 20));
    }
}

/// ... and as much as they like again.
fn make_room(cluster: &mut Simulation, replicas: &[u8]) {
    for replica in replicas {
        cluster.set_room(*replica, None);
    }
}

#[test]
fn full_a_single_replica_refuses_writes_and_resumes_when_there_is_room() -> Scenario {
    let mut cluster = cluster_with_checkpoints(1)?;
    fill(&mut cluster, &[0]);
    assert!(!answers(&mut cluster, 40)?);
    assert!(is_full(&cluster, 0));
    let committed = cluster.committed();
    cluster.run_for(10 * SECOND)?;
    assert!(cluster.committed() <= committed + 8, "it takes new writes");
    make_room(&mut cluster, &[0]);
    assert!(are_answered(&mut cluster)?);
    assert!(!is_full(&cluster, 0));
    ends_well(&mut cluster)
}

#[test]
fn full_the_primary_hands_over_and_nobody_waits() -> Scenario {
    let mut cluster = cluster_with_checkpoints(3)?;
    assert!(answers(&mut cluster, 1)?);
    fill(&mut cluster, &[0]);
    cluster.submit(20);
    assert!(cluster.run_until(MINUTE, |c| is_full(c, 0))?);
    assert!(cluster.run_until(200 * MILLISECOND, |c| c.primary() == Some(1))?);
    assert!(are_answered(&mut cluster)?);
    assert!(is_full(&cluster, 0));
    make_room(&mut cluster, &[0]);
    assert!(cluster.run_until(20 * SECOND, |c| !is_full(c, 0) && has_caught_up(c, 0))?);
    ends_well(&mut cluster)
}

#[test]
fn full_the_next_primary_is_full_too_the_third_takes_over() -> Scenario {
    let mut cluster = cluster_with_checkpoints(3)?;
    fill(&mut cluster, &[0, 1]);
    cluster.submit(20);
    assert!(cluster.run_until(60 * SECOND, |c| c.primary() == Some(2))?);
    assert!(are_answered(&mut cluster)?);
    make_room(&mut cluster, &[0, 1]);
    ends_well(&mut cluster)
}

#[test]
fn full_on_every_replica_views_do_not_churn_and_all_resume() -> Scenario {
    let mut cluster = cluster_with_checkpoints(3)?;
    fill(&mut cluster, &[0, 1, 2]);
    cluster.submit(40);
    assert!(cluster.run_until(MINUTE, |c| (0..3).all(|r| is_full(c, r)))?);
    cluster.run_for(5 * SECOND)?;
    let view = cluster.progress(0).map(|p| p.view);
    cluster.run_for(30 * SECOND)?;
    assert_eq!(cluster.progress(0).map(|p| p.view), view);
    assert!(!cluster.clients_done());
    make_room(&mut cluster, &[0, 1, 2]);
    assert!(are_answered(&mut cluster)?);
    ends_well(&mut cluster)
}
