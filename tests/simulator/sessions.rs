//! Sessions: a request takes effect once, whoever repeats it, and whatever happens in between.

use super::vocabulary::*;

/// Twelve clients, and places for four.
const SHORT_OF_PLACES: Options = Options {
    client_count: 12,
    sessions_max: 4,
    ..Options::CALM
};

/// Three replicas that have executed what the first client asks for, and whose reply to it is lost.
fn cluster_with_a_lost_reply() -> Result<Simulation, Violation> {
    let mut cluster = cluster(3)?;
    assert!(answers(&mut cluster, 5)?);
    cluster.deafen_client(0);
    work(&mut cluster, 1, 400 * MILLISECOND)?;
    assert!(!cluster.clients_done());
    Ok(cluster)
}

/// A replica is off until no journal reaches back to where it stood: others work on, and the first client
/// repeats the request whose reply is lost.
fn leave_behind_and_lose_a_reply(cluster: &mut Simulation, replica: u8) -> Scenario {
    assert!(answers(cluster, 5)?);
    let stood = cluster.committed();
    cluster.crash(replica);
    cluster.deafen_client(0);
    let cut = |c: &Simulation| journals_are_cut(c, replica, stood);
    ask_until(cluster, 50, 2 * SECOND, cut)
}

/// The client hears again, and is given the first result.
fn is_given_the_first_result(cluster: &mut Simulation, executed: u64) -> Scenario {
    cluster.heal();
    assert!(are_answered(cluster)?);
    assert_eq!(cluster.committed(), executed, "it was executed again");
    ends_well(cluster)
}

#[test]
fn more_clients_than_places_the_oldest_is_told_and_comes_again() -> Scenario {
    let mut cluster = Simulation::new(SHORT_OF_PLACES, 3)?;
    work(&mut cluster, 20, 20 * SECOND)?;
    ends_with(&mut cluster, |report| report.evictions > 0)
}

#[test]
fn a_reply_is_lost_and_then_dropped_its_client_is_told_and_comes_again() -> Scenario {
    // An eighth of the journal, 3 MiB here, is for replies; the latest ones of all clients are more.
    let mut options = full_batches(800_000);
    (options.client_count, options.segment_size) = (12, 2 << 20);
    let mut cluster = Simulation::new(options, 8)?;
    assert!(answers(&mut cluster, 1)?);
    cluster.deafen_client(0);
    ask_until(&mut cluster, 1, SECOND, |c| c.reply_is_dropped(0))?;
    cluster.heal();
    // It has asked for that reply all the while; the checkers know if it is executed again.
    assert!(are_answered(&mut cluster)?);
    ends_with(&mut cluster, |report| report.evictions == 1)
}

#[test]
fn a_reply_is_lost_and_the_primary_with_it_the_next_gives_the_first_result() -> Scenario {
    let mut cluster = cluster_with_a_lost_reply()?;
    let executed = cluster.committed();
    cluster.crash(0);
    assert!(another_serves(&mut cluster, 0)?);
    assert!(!cluster.clients_done());
    is_given_the_first_result(&mut cluster, executed)
}

#[test]
fn a_reply_is_lost_and_all_lose_power_the_first_result_is_given() -> Scenario {
    let mut cluster = cluster_with_a_lost_reply()?;
    let executed = cluster.committed();
    all_lose_power(&mut cluster, 3)?;
    somebody_serves(&mut cluster)?;
    is_given_the_first_result(&mut cluster, executed)
}

#[test]
fn a_reply_is_lost_before_a_checkpoint_is_fetched_who_fetched_it_gives_the_first_result() -> Scenario
{
    let mut cluster = cluster_with_small_journals(MILLISECOND / 3)?;
    leave_behind_and_lose_a_reply(&mut cluster, 2)?;
    cluster.start(2)?;
    catches_up(&mut cluster, 2, 20 * SECOND)?;
    make_primary(&mut cluster, 2)?;
    let replies = cluster.replies_to(0);
    cluster.heal();
    // The checkers know whether it is the first result, and whether it was executed again.
    assert!(cluster.run_until(MINUTE, |c| c.replies_to(0) > replies)?);
    ends_with(&mut cluster, |r| r.transfers > 0 && r.evictions == 0)
}

#[test]
fn registers_come_twice_while_places_are_short_none_takes_over_a_newer_session() -> Scenario {
    let mut options = SHORT_OF_PLACES;
    options.quality.duplication = 300_000;
    options.quality.loss = 30_000;
    let mut cluster = cluster_of(options)?;
    work(&mut cluster, 20, 20 * SECOND)?;
    ends_with(&mut cluster, |report| report.evictions > 0)
}

#[test]
fn requests_are_in_flight_when_the_primary_dies_each_is_answered_once() -> Scenario {
    for delay in 0..12 {
        let mut cluster = cluster(3)?;
        assert!(answers(&mut cluster, 2)?);
        work(&mut cluster, 2, MILLISECOND + delay * MILLISECOND / 5)?;
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
        work(&mut cluster, 2, MILLISECOND + delay * MILLISECOND / 5)?;
        all_lose_power(&mut cluster, 3)?;
        assert!(are_answered(&mut cluster)?);
        ends_well(&mut cluster)?;
    }
    Ok(())
}
