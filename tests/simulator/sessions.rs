//! Sessions: a request takes effect once, whoever repeats it, and whatever happens in between.

use super::vocabulary::*;

#[test]
fn more_clients_than_places_the_oldest_is_told_and_comes_again() -> Scenario {
    let options = Options {
        client_count: 12,
        sessions_max: 4,
        ..Options::CALM
    };
    let mut cluster = Simulation::new(options, 3)?;
    cluster.submit(20);
    cluster.run_for(20 * SECOND)?;
    let report = cluster.finish()?;
    assert!(report.evictions > 0, "{report:?}");
    Ok(())
}

#[test]
fn a_reply_is_lost_and_then_dropped_its_client_is_told_and_comes_again() -> Scenario {
    // An eighth of the journal, 3 MiB here, is for replies; the latest ones of all clients are more.
    let mut options = Options {
        client_count: 12,
        requests: 0,
        segment_size: 2 << 20,
        ..Options::CALM
    };
    options.mixture.full = 800_000;
    let mut cluster = Simulation::new(options, 8)?;
    assert!(answers(&mut cluster, 1)?);
    cluster.deafen_client(0);
    for _ in 0..20 {
        cluster.submit(1);
        cluster.run_for(SECOND)?;
        if cluster.reply_is_dropped(0) {
            break;
        }
    }
    assert!(cluster.reply_is_dropped(0));
    cluster.heal();
    // It has asked for that reply all the while; the checkers know if it is executed again.
    assert!(are_answered(&mut cluster)?);
    let report = cluster.finish()?;
    assert_eq!(report.evictions, 1, "{report:?}");
    Ok(())
}

#[test]
fn a_reply_is_lost_and_the_primary_with_it_the_next_gives_the_first_result() -> Scenario {
    let mut cluster = cluster(3)?;
    assert!(answers(&mut cluster, 5)?);
    cluster.deafen_client(0);
    cluster.submit(1);
    cluster.run_for(400 * MILLISECOND)?;
    let executed = cluster.committed();
    cluster.crash(0);
    assert!(another_serves(&mut cluster, 0)?);
    assert!(!cluster.clients_done());
    cluster.heal();
    assert!(are_answered(&mut cluster)?);
    assert_eq!(cluster.committed(), executed, "it was executed again");
    ends_well(&mut cluster)
}

#[test]
fn a_reply_is_lost_and_all_lose_power_the_first_result_is_given() -> Scenario {
    let mut cluster = cluster(3)?;
    assert!(answers(&mut cluster, 5)?);
    cluster.deafen_client(0);
    cluster.submit(1);
    cluster.run_for(400 * MILLISECOND)?;
    let executed = cluster.committed();
    all_lose_power(&mut cluster, 3)?;
    assert!(cluster.run_until(SOON, |c| c.primary().is_some())?);
    cluster.heal();
    assert!(are_answered(&mut cluster)?);
    assert_eq!(cluster.committed(), executed, "it was executed again");
    ends_well(&mut cluster)
}

#[test]
fn a_reply_is_lost_before_a_checkpoint_is_fetched_who_fetched_it_gives_the_first_result() -> Scenario
{
    let mut cluster = cluster_with_small_journals(MILLISECOND / 3)?;
    assert!(answers(&mut cluster, 5)?);
    let stood = cluster.committed();
    cluster.crash(2);
    cluster.deafen_client(0);
    for _ in 0..100 {
        // The others work on; the deaf one repeats its first request.
        cluster.submit(50);
        cluster.run_for(2 * SECOND)?;
        if journals_are_cut(&cluster, 2, stood) {
            break;
        }
    }
    cluster.start(2)?;
    assert!(cluster.run_until(20 * SECOND, |c| has_caught_up(c, 2))?);
    make_primary(&mut cluster, 2)?;
    let replies = cluster.replies_to(0);
    cluster.heal();
    // The checkers know whether it is the first result, and whether it was executed again.
    assert!(cluster.run_until(MINUTE, |c| c.replies_to(0) > replies)?);
    let report = cluster.finish()?;
    assert!(report.transfers > 0 && report.evictions == 0, "{report:?}");
    Ok(())
}

#[test]
fn registers_come_twice_while_places_are_short_none_takes_over_a_newer_session() -> Scenario {
    let mut cluster = cluster_of(Options {
        client_count: 12,
        sessions_max: 4,
        quality: Quality {
            duplication: 300_000,
            loss: 30_000,
            ..Quality::GOOD
        },
        ..Options::CALM
    })?;
    cluster.submit(20);
    cluster.run_for(20 * SECOND)?;
    assert!(cluster.finish()?.evictions > 0);
    Ok(())
}

#[test]
fn requests_are_in_flight_when_the_primary_dies_each_is_answered_once() -> Scenario {
    for delay in 0..12 {
        let mut cluster = cluster(3)?;
        assert!(answers(&mut cluster, 2)?);
        cluster.submit(2);
        cluster.run_for(MILLISECOND + delay * MILLISECOND / 5)?;
        let primary = cluster.primary().expect("it serves");
        cluster.crash(primary);
        assert!(are_answered(&mut cluster)?);
        ends_well(&mut cluster)?;
    }
    Ok(())
}

#[test]
fn requests_are_in_flight_when_all_lose_power_each_is_answered_once() -> Scenario {
    for delay in 0..12 {
        let mut cluster = cluster(3)?;
        assert!(answers(&mut cluster, 2)?);
        cluster.submit(2);
        cluster.run_for(MILLISECOND + delay * MILLISECOND / 5)?;
        all_lose_power(&mut cluster, 3)?;
        assert!(are_answered(&mut cluster)?);
        ends_well(&mut cluster)?;
    }
    Ok(())
}
