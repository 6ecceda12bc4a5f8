//! How a run is made up, and what it did.

use super::check::SETTLES_WITHIN;
use super::faults::{FaultPlan, Tally};
use super::host::Speed;
use super::network::Quality;
use super::queue::{Instant, MILLISECOND, SECOND};
use super::random::{Random, Stream};
use super::trace::Fingerprint;
use super::workload::Mixture;
use crate::protocol::ReplicaIndex;

/// How a run is made up.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    pub replica_count: u8,
    /// Members that follow without voting; they are not clients' business.
    pub standby_count: u8,
    pub client_count: u32,
    /// Made by each client.
    pub requests: u64,
    /// Between an answer and the next request, at most.
    pub think_max: Instant,
    pub sessions_max: u32,
    pub segment_size: u64,
    pub segment_count: u32,
    /// Of the ledger: small, so that files fill and are sealed within a short run.
    pub chunk_rows_log2: u32,
    pub mixture: Mixture,
    pub quality: Quality,
    /// Of every machine, when nothing makes it slow.
    pub speed: Speed,
    pub faults: FaultPlan,
    /// Faults go on for this long; then everything must become well.
    pub faults_for: Instant,
    /// How long it may take to become well.
    pub calm_max: Instant,
    /// When all is well, as many as may fail go off, from this one on, until the others have answered.
    pub off_at_the_end: Option<ReplicaIndex>,
    /// Replies are spoiled on their way: a run that does not find that finds nothing.
    pub canary: bool,
}

impl Options {
    /// Replicas and standbys.
    pub fn member_count(&self) -> u8 {
        self.replica_count + self.standby_count
    }

    /// Three replicas and nothing that fails.
    pub const CALM: Self = Self {
        replica_count: 3,
        standby_count: 0,
        client_count: 4,
        requests: 100,
        think_max: 20 * MILLISECOND,
        sessions_max: 16,
        segment_size: 4 << 20,
        segment_count: 12,
        chunk_rows_log2: 8,
        mixture: Mixture::ORDINARY,
        quality: Quality::GOOD,
        speed: Speed::GOOD,
        faults: FaultPlan::NONE,
        faults_for: 0,
        calm_max: SETTLES_WITHIN,
        off_at_the_end: None,
        canary: false,
    };

    /// What most clusters do most of the time, for a minute or so. Says how fast the simulator is.
    pub const LIGHT: Self = Self {
        requests: 600,
        think_max: 200 * MILLISECOND,
        ..Self::CALM
    };

    /// A light load whose answers are spoiled: every run must fail.
    pub const CANARY: Self = Self {
        canary: true,
        ..Self::LIGHT
    };

    /// A mixture of everything, drawn from the seed; every other one is a storm.
    pub fn random(seed: u64) -> Self {
        let mut random = Random::new(seed, Stream::Options, 0);
        let options = if random.below(2) == 0 {
            Self::storm(&mut random)
        } else {
            Self::varied(&mut random)
        };
        let faults = options.faults.with_more(&mut random);
        let standby_count = *random.pick(&[0, 0, 0, 0, 1, 2]);
        let mixture = Mixture {
            // From a stream of its own: what else a seed draws does not depend on it.
            queries: Random::new(seed, Stream::Options, 1).below(2) == 0,
            ..options.mixture
        };
        let mut end = Random::new(seed, Stream::Options, 2);
        let off = end.below(u64::from(options.replica_count));
        let off = u8::try_from(off).expect("a replica");
        let reorder = *Random::new(seed, Stream::Options, 3).pick(&[0, 0, 1_000, 50_000]);
        Self {
            quality: Quality {
                reorder,
                ..options.quality
            },
            off_at_the_end: Some(off).filter(|_| end.below(2) == 0),
            faults,
            standby_count,
            mixture,
            ..options
        }
    }

    /// Views change faster than logs agree: primaries are cut off and crash as soon as they serve, with
    /// many requests in flight, on disks that are slower than the network. Mistakes in consensus need
    /// several such accidents in a row.
    fn storm(random: &mut Random) -> Self {
        Self {
            replica_count: *random.pick(&[3, 3, 3, 4, 5]),
            client_count: *random.pick(&[8, 24]),
            requests: 5_000,
            think_max: 0,
            sessions_max: 32,
            mixture: Mixture {
                events_max: 2,
                full: 0,
                ..Mixture::ORDINARY
            },
            quality: Quality {
                delay_extra: *random.pick(&[MILLISECOND, 20 * MILLISECOND]),
                ..Quality::GOOD
            },
            speed: Speed {
                write_max: *random.pick(&[5, 50, 150]) * MILLISECOND,
                ..Speed::GOOD
            },
            faults: FaultPlan {
                crash_primary: *random.pick(&[0, 3, 10]),
                isolate_primary: 10,
                interval_max: *random.pick(&[300, 1_000, 2_000]) * MILLISECOND,
                duration_max: *random.pick(&[700, 2_000]) * MILLISECOND,
                ..FaultPlan::swarm(random)
            },
            faults_for: random.between(5, 15) * SECOND,
            segment_size: 2 << 20,
            ..Self::CALM
        }
    }

    fn varied(random: &mut Random) -> Self {
        let lossy = random.below(3) == 0;
        let crowded = random.below(8) == 0;
        let requests = *random.pick(&[100, 400, 3_000]);
        let full = *random.pick(&[0, 0, 1_000, 30_000]);
        // A journal must hold what is kept for others, what may come before a checkpoint is over, and
        // the waste at the ends of segments, which depends on the largest entry.
        let (segment_size, segment_count) = if full == 0 {
            (2 << 20, 12)
        } else {
            (4 << 20, *random.pick(&[12, 20]))
        };
        let small = |number| u32::try_from(number).expect("a small number");
        Self {
            replica_count: *random.pick(&[1, 2, 3, 3, 3, 3, 4, 5, 6]),
            client_count: small(random.between(1, if crowded { 24 } else { 8 })),
            requests: 20 + random.skewed(requests),
            think_max: *random.pick(&[0, MILLISECOND, 20 * MILLISECOND, 200 * MILLISECOND]),
            mixture: Mixture {
                accounts: *random.pick(&[2, 40, 1_000]),
                events_max: *random.pick(&[1, 12, 200, 1_000]),
                full,
                ..Mixture::ORDINARY
            },
            quality: Quality {
                delay_extra: *random.pick(&[MILLISECOND / 2, 5 * MILLISECOND, 50 * MILLISECOND]),
                loss: if lossy {
                    small(random.skewed(60_000))
                } else {
                    0
                },
                duplication: if lossy {
                    small(random.skewed(60_000))
                } else {
                    0
                },
                ..Quality::GOOD
            },
            sessions_max: if crowded { 6 } else { 16 },
            segment_size,
            segment_count,
            speed: Speed {
                write_max: *random.pick(&[MILLISECOND / 3, 3 * MILLISECOND, 50 * MILLISECOND]),
                build_max: *random.pick(&[20, 500]) * MILLISECOND,
                ..Speed::GOOD
            },
            faults: FaultPlan::swarm(random),
            faults_for: random.between(2, 20) * SECOND,
            ..Self::CALM
        }
    }
}

/// What a run did. Equal for equal seeds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    pub fingerprint: Fingerprint,
    pub simulated: Instant,
    pub committed: u64,
    pub acknowledged: u64,
    /// The last view that began.
    pub views: u32,
    pub starts: u64,
    /// Different checkpoints that replicas referred to.
    pub checkpoints: u64,
    pub digests_compared: u64,
    /// From the last fault until everybody had caught up and all clients had been answered.
    pub settled: Instant,
    pub faults: Tally,
    /// Frames and copies of superblocks.
    pub damaged: u64,
    /// Disks that were replaced by older copies.
    pub set_back: u64,
    pub lost_disks: u64,
    pub evictions: u64,
    /// Checkpoints that replicas took over from others.
    pub transfers: u64,
}
