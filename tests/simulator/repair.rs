//! Repair: what a replica lacks of the log comes from the others, while they serve.

use super::vocabulary::*;

#[test]
fn a_backup_was_away_it_catches_up_through_the_log() -> Scenario {
    let mut cluster = cluster(3)?;
    cluster.crash(1);
    assert!(answers(&mut cluster, 300)?);
    cluster.start(1)?;
    let caught_up = cluster.run_until(20 * SECOND, |c| {
        c.progress(1).is_some_and(|p| p.executed == c.committed())
    })?;
    assert!(caught_up, "{:?}", cluster.progress(1));
    ends_well(&mut cluster)
}

#[test]
fn messages_are_lost_doubled_and_late_gaps_are_filled_while_clients_ask() -> Scenario {
    let mut cluster = cluster_of(Options {
        quality: Quality {
            delay_extra: 20 * MILLISECOND,
            loss: 50_000,
            duplication: 50_000,
            ..Quality::GOOD
        },
        ..Options::CALM
    })?;
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
    assert!(cluster.run_until(SECOND, |c| has_caught_up(c, 2))?);
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
    assert!(cluster.run_until(SOON, |c| has_caught_up(c, 2))?);
    // The primary has read it, found it damaged, and has got it again, too.
    assert!(cluster.run_until(SOON, |c| is_whole(c, 0))?);
    ends_well(&mut cluster)
}
