//! Cluster time: it grows, whatever clocks do, and stays within what a majority of them shows.

use super::vocabulary::*;

const HOUR: i64 = 3_600_000_000_000;

/// Three replicas whose clocks show the same.
fn cluster_with_right_clocks() -> Result<Simulation, Violation> {
    let mut cluster = cluster(3)?;
    for replica in 1..3 {
        let ahead = i128::from(cluster.wall(0)) - i128::from(cluster.wall(replica));
        cluster.set_clock(replica, i64::try_from(ahead).expect("a second at most"));
    }
    // Samples of before are forgotten at once: they contradict the new ones.
    cluster.run_for(SECOND)?;
    Ok(cluster)
}

/// All are answered, at cluster times that these clocks showed meanwhile, give or take a round trip.
fn timestamps_follow(cluster: &mut Simulation, clocks: [u8; 2]) -> Scenario {
    const ROUND_TRIP: u64 = 10 * MILLISECOND;
    let [first, second] = clocks;
    let both = |cluster: &Simulation| [cluster.wall(first), cluster.wall(second)];
    let from = both(cluster).into_iter().min().expect("two clocks") - ROUND_TRIP;
    assert!(answers(cluster, 20)?);
    let to = both(cluster).into_iter().max().expect("two clocks") + ROUND_TRIP;
    let primary = cluster.primary().expect("it has answered");
    let timestamp = cluster.timestamp(primary).expect("it is up");
    assert!(
        (from..=to).contains(&timestamp),
        "{timestamp} is not in {from}..={to}"
    );
    Ok(())
}

#[test]
fn a_primary_sets_its_clock_back_timestamps_still_grow() -> Scenario {
    let mut cluster = cluster(3)?;
    assert!(answers(&mut cluster, 20)?);
    cluster.set_clock(0, -3_600_000_000_000);
    // The model's results hold every timestamp: replies would not match if one went back.
    assert!(answers(&mut cluster, 20)?);
    ends_well(&mut cluster)
}

#[test]
fn the_primary_is_an_hour_ahead_timestamps_stay_within_the_others_clocks() -> Scenario {
    let mut cluster = cluster_with_right_clocks()?;
    timestamps_follow(&mut cluster, [0, 1])?;
    cluster.set_clock(0, HOUR);
    timestamps_follow(&mut cluster, [1, 2])?;
    let clock = cluster.progress(0).expect("it is up").clock;
    assert!(
        matches!(clock, Agreement::Agreed { ahead } if (ahead - HOUR).abs() < 1_000_000_000),
        "{clock:?}"
    );
    ends_well(&mut cluster)
}

#[test]
fn the_primary_is_an_hour_behind_timestamps_stay_within_the_others_clocks() -> Scenario {
    let mut cluster = cluster_with_right_clocks()?;
    cluster.set_clock(0, -HOUR);
    timestamps_follow(&mut cluster, [1, 2])?;
    ends_well(&mut cluster)
}

#[test]
fn a_backup_is_wrong_timestamps_do_not_care() -> Scenario {
    let mut cluster = cluster_with_right_clocks()?;
    for jump in [HOUR, -3 * HOUR, 2 * HOUR + 3_000_000_000] {
        cluster.set_clock(2, jump);
        timestamps_follow(&mut cluster, [0, 1])?;
        assert_eq!(
            cluster.progress(0).map(|p| p.clock),
            Some(Agreement::Agreed { ahead: 0 })
        );
    }
    ends_well(&mut cluster)
}

#[test]
fn the_primary_drifts_timestamps_stay_within_the_others_clocks() -> Scenario {
    let mut cluster = cluster_with_right_clocks()?;
    cluster.set_drift(0, 50_000);
    cluster.run_for(60 * SECOND)?;
    assert!(cluster.wall(0) > cluster.wall(1) + 2 * SECOND);
    timestamps_follow(&mut cluster, [1, 2])?;
    ends_well(&mut cluster)
}

#[test]
fn a_new_primary_that_nobody_agrees_with_goes_on_from_the_one_before() -> Scenario {
    let mut cluster = cluster_with_right_clocks()?;
    timestamps_follow(&mut cluster, [0, 1])?;
    cluster.set_clock(1, HOUR);
    cluster.crash(0);
    assert!(cluster.run_until(SOON, |c| c.primary() == Some(1))?);
    timestamps_follow(&mut cluster, [0, 2])?;
    cluster.start(0)?;
    timestamps_follow(&mut cluster, [0, 2])?;
    ends_well(&mut cluster)
}

#[test]
fn no_two_replicas_agree_work_goes_on() -> Scenario {
    for replica_count in [2, 3] {
        let mut cluster = cluster(replica_count)?;
        for replica in 0..replica_count {
            cluster.set_clock(replica, (i64::from(replica) - 1) * HOUR);
        }
        assert!(answers(&mut cluster, 20)?);
        restart(&mut cluster, 0)?;
        assert!(answers(&mut cluster, 20)?);
        cluster.finish()?;
    }
    Ok(())
}
