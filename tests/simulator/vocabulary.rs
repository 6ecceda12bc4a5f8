//! The words that scenarios are made of, besides those of [`Simulation`] itself: how clusters begin,
//! what is waited for, and how they end.

pub(crate) use stampede::sim::{
    Damage, FaultPlan, MILLISECOND, Options, Report, SECOND, Simulation, Speed, Violation,
    WriteFault,
};
pub(crate) use stampede::vsr::clock::Agreement;

/// What every scenario gives: the first property that did not hold, if any.
pub(crate) type Scenario = Result<(), Violation>;

/// Long enough for a view change and a restart, several times over.
pub(crate) const SOON: u64 = 5 * SECOND;

/// Long enough for anything that will be at all.
pub(crate) const MINUTE: u64 = 60 * SECOND;

// ── how clusters begin ──────────────────────────────────────────────────────────────────────────

/// A quiet cluster that the test itself disturbs.
pub(crate) fn cluster(replica_count: u8) -> Result<Simulation, Violation> {
    cluster_of(Options {
        replica_count,
        ..Options::CALM
    })
}

/// The same, with other options. Clients ask when they are told to.
pub(crate) fn cluster_of(options: Options) -> Result<Simulation, Violation> {
    let options = Options {
        requests: 0,
        ..options
    };
    let mut cluster = Simulation::new(options, 1)?;
    somebody_serves(&mut cluster)?;
    Ok(cluster)
}

/// Disks whose writes take up to so long, with these options.
pub(crate) fn slow_disks(write_max: u64, mut options: Options) -> Options {
    options.speed.write_max = write_max;
    options
}

/// Clients that ask when they are told to.
pub(crate) const QUIET: Options = Options {
    requests: 0,
    ..Options::CALM
};

/// The same; so many of a million batches are full.
pub(crate) fn full_batches(full: u32) -> Options {
    let mut options = QUIET;
    options.mixture.full = full;
    options
}

/// Small journals, which are cut soon, and disks whose writes take up to `write_max`.
pub(crate) fn small_journals(write_max: u64) -> Options {
    let options = Options {
        client_count: 8,
        think_max: 0,
        segment_size: 2 << 20,
        ..QUIET
    };
    slow_disks(write_max, options)
}

/// A cluster of them.
pub(crate) fn cluster_with_small_journals(write_max: u64) -> Result<Simulation, Violation> {
    cluster_that_cuts(small_journals(write_max))
}

/// The same, with other options besides.
pub(crate) fn cluster_that_cuts(options: Options) -> Result<Simulation, Violation> {
    let mut cluster = Simulation::new(options, 7)?;
    somebody_serves(&mut cluster)?;
    Ok(cluster)
}

// ── what happens ────────────────────────────────────────────────────────────────────────────────

/// All clients ask, and all are answered.
pub(crate) fn answers(cluster: &mut Simulation, requests: u64) -> Result<bool, Violation> {
    cluster.submit(requests);
    are_answered(cluster)
}

/// Clients that have asked are answered.
pub(crate) fn are_answered(cluster: &mut Simulation) -> Result<bool, Violation> {
    cluster.run_until(MINUTE, Simulation::clients_done)
}

/// All clients ask, and so much time passes.
pub(crate) fn work(cluster: &mut Simulation, requests: u64, time: u64) -> Scenario {
    cluster.submit(requests);
    cluster.run_for(time)
}

/// Clients ask and are answered, so many requests at a time, until something is so.
pub(crate) fn work_until(
    cluster: &mut Simulation,
    requests: u64,
    mut wanted: impl FnMut(&mut Simulation) -> bool,
) -> Scenario {
    for _ in 0..100 {
        assert!(answers(cluster, requests)?, "{:?}", cluster.progress(0));
        if wanted(cluster) {
            return Ok(());
        }
    }
    panic!("not after {} operations", cluster.committed());
}

/// The same where one of them waits all the while: so many requests in each stretch of time.
pub(crate) fn ask_until(
    cluster: &mut Simulation,
    requests: u64,
    time: u64,
    wanted: impl Fn(&Simulation) -> bool,
) -> Scenario {
    for _ in 0..100 {
        work(cluster, requests, time)?;
        if wanted(cluster) {
            return Ok(());
        }
    }
    panic!("not after {} operations", cluster.committed());
}

/// Clients ask, and nobody is answered for so long.
pub(crate) fn nobody_is_answered(cluster: &mut Simulation, time: u64) -> Scenario {
    let before = cluster.replies();
    work(cluster, 5, time)?;
    assert_eq!(cluster.replies(), before);
    Ok(())
}

/// Some replica takes requests soon.
pub(crate) fn somebody_serves(cluster: &mut Simulation) -> Scenario {
    let serves = cluster.run_until(SOON, |c| c.primary().is_some())?;
    assert!(serves, "there is no primary");
    Ok(())
}

/// A replica has executed all there is, in time.
pub(crate) fn catches_up(cluster: &mut Simulation, replica: u8, time: u64) -> Scenario {
    let there = cluster.run_until(time, |c| has_caught_up(c, replica))?;
    assert!(there, "{:?}", cluster.progress(replica));
    Ok(())
}

/// It votes as well, and lacks nothing.
pub(crate) fn becomes_whole(cluster: &mut Simulation, replica: u8, time: u64) -> Scenario {
    let there = cluster.run_until(time, |c| is_whole(c, replica))?;
    assert!(there, "{:?}", cluster.progress(replica));
    Ok(())
}

/// A replica leaves the view of a primary that crashes.
pub(crate) fn leaves_view_without(cluster: &mut Simulation, replica: u8, primary: u8) -> Scenario {
    let view = cluster.latest_view();
    cluster.crash(primary);
    let left = |c: &Simulation| c.progress(replica).is_some_and(|p| p.view > view);
    assert!(cluster.run_until(SOON, left)?);
    Ok(())
}

/// Another replica than this one takes requests soon.
pub(crate) fn another_serves(cluster: &mut Simulation, than: u8) -> Result<bool, Violation> {
    cluster.run_until(2 * SECOND, |c| c.primary().is_some_and(|p| p != than))
}

/// Power goes at some replicas at once.
pub(crate) fn crash_all(cluster: &mut Simulation, replicas: &[u8]) {
    replicas.iter().for_each(|replica| cluster.crash(*replica));
}

/// They are started in this order.
pub(crate) fn start_all(cluster: &mut Simulation, replicas: &[u8]) -> Scenario {
    replicas
        .iter()
        .try_for_each(|replica| cluster.start(*replica))
}

/// Power goes and comes back, everywhere at once.
pub(crate) fn all_lose_power(cluster: &mut Simulation, replica_count: u8) -> Scenario {
    (0..replica_count).for_each(|replica| cluster.crash(replica));
    (0..replica_count).try_for_each(|replica| cluster.start(replica))
}

/// A replica is off for so long.
pub(crate) fn is_off_for(cluster: &mut Simulation, replica: u8, time: u64) -> Scenario {
    cluster.crash(replica);
    cluster.run_for(time)?;
    cluster.start(replica)
}

/// Power goes and comes back at one replica.
pub(crate) fn restart(cluster: &mut Simulation, replica: u8) -> Scenario {
    cluster.crash(replica);
    cluster.start(replica)
}

/// Primaries are replaced until this replica is one.
pub(crate) fn make_primary(cluster: &mut Simulation, replica: u8) -> Scenario {
    for _ in 0..6 {
        somebody_serves(cluster)?;
        let primary = cluster.primary().expect("there is one");
        if primary == replica {
            return Ok(());
        }
        cluster.crash(primary);
        assert!(another_serves(cluster, primary)?);
        cluster.start(primary)?;
        catches_up(cluster, primary, SOON)?;
    }
    panic!("replica {replica} never became the primary");
}

/// Work goes on until no journal reaches back to where `replica` stood.
pub(crate) fn leave_behind(cluster: &mut Simulation, replica: u8) -> Scenario {
    let stood = cluster.committed();
    cluster.crash(replica);
    work_until(cluster, 50, |c| journals_are_cut(c, replica, stood))
}

/// Whether no journal of the three replicas, other than this one's, reaches back to an operation.
pub(crate) fn journals_are_cut(cluster: &Simulation, than: u8, op: u64) -> bool {
    let mut others = (0..3).filter(|r| *r != than);
    others.all(|r| cluster.trimmed(r) > Some(op))
}

// ── how things stand ────────────────────────────────────────────────────────────────────────────

/// A replica has executed all there is, from a state of its own.
pub(crate) fn has_caught_up(cluster: &Simulation, replica: u8) -> bool {
    let progress = cluster.progress(replica);
    progress.is_some_and(|p| p.executed == cluster.committed() && !p.checkpoint_lost)
}

/// It votes, and lacks nothing of its log.
pub(crate) fn is_whole(cluster: &Simulation, replica: u8) -> bool {
    let progress = cluster.progress(replica);
    has_caught_up(cluster, replica)
        && progress
            .is_some_and(|p| !p.recovering && p.missing == 0 && p.view == cluster.latest_view())
}

/// It knows that it has forgotten what it promised.
pub(crate) fn is_recovering(cluster: &Simulation, replica: u8) -> bool {
    cluster.progress(replica).is_some_and(|p| p.recovering)
}

/// It has written a checkpoint.
pub(crate) fn has_checkpoint(cluster: &Simulation, replica: u8) -> bool {
    cluster.progress(replica).is_some_and(|p| p.checkpoint > 0)
}

/// A checkpoint of this replica waits for room on its disk.
pub(crate) fn is_full(cluster: &Simulation, replica: u8) -> bool {
    cluster.progress(replica).is_some_and(|p| p.full.is_some())
}

// ── how they end ────────────────────────────────────────────────────────────────────────────────

/// Faults are over; everybody catches up in time, and all that was promised holds.
pub(crate) fn ends_well(cluster: &mut Simulation) -> Scenario {
    cluster.finish().map(drop)
}

/// The same, and this is what the run has shown.
pub(crate) fn ends_with(cluster: &mut Simulation, shown: impl FnOnce(&Report) -> bool) -> Scenario {
    let report = cluster.finish()?;
    assert!(shown(&report), "{report:?}");
    Ok(())
}
