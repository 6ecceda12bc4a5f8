//! Repair: what a replica lacks of the log comes from the others, while they serve.

use super::vocabulary::*;

#[test]
fn a_backup_was_away_it_catches_up_through_the_log() -> Scenario {
    let mut cluster = cluster(3)?;
    cluster.crash(1);
    assert!(answers(&mut cluster, 300)?);
    cluster.start(1)?;
    catches_up(&mut cluster, 1, 20 * SECOND)?;
    ends_well(&mut cluster)
}

#[test]
fn messages_are_lost_doubled_and_late_gaps_are_filled_while_clients_ask() -> Scenario {
    let mut options = QUIET;
    options.quality.delay_extra = 20 * MILLISECOND;
    options.quality.loss = 50_000;
    options.quality.duplication = 50_000;
    let mut cluster = cluster_of(options)?;
    assert!(answers(&mut cluster, 100)?);
    ends_well(&mut cluster)
}

#[test]
fn one_backup_misses_every_other_moment_it_keeps_up() -> Scenario {
    let mut cluster = cluster(3)?;
    for _ in 0..20 {
        cluster.submit(5);
        cluster.cut(0, 2);
        cluster.run_for(100 * MILLISECOND)?;
        cluster.heal();
        cluster.run_for(100 * MILLISECOND)?;
    }
    assert!(are_answered(&mut cluster)?);
    catches_up(&mut cluster, 2, SECOND)?;
    ends_well(&mut cluster)
}

#[test]
fn the_primary_has_damaged_what_a_backup_asks_for_the_backup_gets_it_elsewhere() -> Scenario {
    let mut cluster = cluster(3)?;
    cluster.crash(2);
    assert!(answers(&mut cluster, 30)?);
    let (missed, head) = (20, cluster.committed());
    assert!(missed < head && cluster.damage_entry(0, missed, Damage::Rot));
    cluster.start(2)?;
    catches_up(&mut cluster, 2, SOON)?;
    // The primary has read it, found it damaged, and has got it again, too.
    becomes_whole(&mut cluster, 0, SOON)?;
    ends_well(&mut cluster)
}
