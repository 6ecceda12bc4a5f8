//! Upgrades: replicas of different releases do not talk, and say so; whoever makes a majority of one
//! release serves, and nothing that was acknowledged depends on which.

use super::vocabulary::*;

#[test]
fn a_backup_runs_another_release_it_is_refused_and_the_others_go_on() -> Scenario {
    let mut cluster = cluster(3)?;
    assert!(answers(&mut cluster, 5)?);
    cluster.change_release(2);
    cluster.start(2)?;
    assert!(answers(&mut cluster, 20)?);
    assert_eq!(cluster.latest_view(), 0);
    assert!(!has_caught_up(&cluster, 2));
    cluster.change_release(2);
    cluster.start(2)?;
    catches_up(&mut cluster, 2, SOON)?;
    ends_well(&mut cluster)
}

#[test]
fn the_primary_is_upgraded_first_the_others_replace_it() -> Scenario {
    let mut cluster = cluster(3)?;
    assert!(answers(&mut cluster, 5)?);
    cluster.change_release(0);
    cluster.start(0)?;
    assert!(another_serves(&mut cluster, 0)?);
    assert!(answers(&mut cluster, 5)?);
    ends_well(&mut cluster)
}

#[test]
fn one_replica_after_the_other_is_upgraded_what_is_acknowledged_stays() -> Scenario {
    let mut cluster = cluster(5)?;
    for replica in 0..5 {
        assert!(answers(&mut cluster, 10)?);
        cluster.change_release(replica);
        cluster.start(replica)?;
        cluster.run_for(300 * MILLISECOND)?;
    }
    assert!(answers(&mut cluster, 10)?);
    ends_well(&mut cluster)
}
