//! The words that scenarios are made of, besides those of [`Simulation`] itself: how clusters begin,
//! what is waited for, and how they end.

pub(crate) use stampede::sim::{
    Damage, FaultPlan, MILLISECOND, Options, Quality, SECOND, Simulation, Speed, Violation,
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
    let serves = cluster.run_until(SOON, |c| c.primary().is_some())?;
    assert!(serves, "a fresh cluster has a primary");
    Ok(cluster)
}

/// Small journals, which are cut soon, and disks whose writes take up to `write_max`.
pub(crate) fn small_journals(write_max: u64) -> Options {
    let mut options = Options {
        requests: 0,
        client_count: 8,
        think_max: 0,
        segment_size: 2 << 20,
        ..Options::CALM
    };
    options.speed.write_max = write_max;
    options
}

/// A cluster of them.
pub(crate) fn cluster_with_small_journals(write_max: u64) -> Result<Simulation, Violation> {
    let mut cluster = Simulation::new(small_journals(write_max), 7)?;
    assert!(cluster.run_until(SOON, |c| c.primary().is_some())?);
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

/// Another replica than this one takes requests soon.
pub(crate) fn another_serves(cluster: &mut Simulation, than: u8) -> Result<bool, Violation> {
    cluster.run_until(2 * SECOND, |c| c.primary().is_some_and(|p| p != than))
}

/// Power goes and comes back, everywhere at once.
pub(crate) fn all_lose_power(cluster: &mut Simulation, replica_count: u8) -> Scenario {
    for replica in 0..replica_count {
        cluster.crash(replica);
    }
    for replica in 0..replica_count {
        cluster.start(replica)?;
    }
    Ok(())
}

/// Primaries are replaced until this replica is one.
pub(crate) fn make_primary(cluster: &mut Simulation, replica: u8) -> Scenario {
    for _ in 0..6 {
        assert!(cluster.run_until(SOON, |c| c.primary().is_some())?);
        let primary = cluster.primary().expect("there is one");
        if primary == replica {
            return Ok(());
        }
        cluster.crash(primary);
        assert!(another_serves(cluster, primary)?);
        cluster.start(primary)?;
        assert!(cluster.run_until(SOON, |c| has_caught_up(c, primary))?);
    }
    panic!("replica {replica} never became the primary");
}

/// Work goes on until no journal reaches back to where `replica` stood.
pub(crate) fn leave_behind(cluster: &mut Simulation, replica: u8) -> Scenario {
    let stood = cluster.committed();
    cluster.crash(replica);
    for _ in 0..100 {
        assert!(answers(cluster, 50)?);
        if journals_are_cut(cluster, replica, stood) {
            return Ok(());
        }
    }
    panic!(
        "no journal was cut after {} operations",
        cluster.committed()
    );
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

/// A checkpoint of this replica waits for room on its disk.
pub(crate) fn is_full(cluster: &Simulation, replica: u8) -> bool {
    cluster.progress(replica).is_some_and(|p| p.full.is_some())
}

// ── how they end ────────────────────────────────────────────────────────────────────────────────

/// Faults are over; everybody catches up in time, and all that was promised holds.
pub(crate) fn ends_well(cluster: &mut Simulation) -> Scenario {
    cluster.finish().map(drop)
}
