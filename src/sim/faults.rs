//! What goes wrong, and when: drawn from a stream of its own, one fault after the other.
//!
//! A plan is a list of weights; zero means never. Faults last a while and end by themselves, so that
//! several overlap. Any number of replicas may be down at once: durability does not depend on who is
//! up, only progress does.

use std::fmt;

use super::host::WriteFault;
use super::queue::{Instant, MILLISECOND};
use super::random::{MILLION, Random};
use crate::protocol::ReplicaIndex;

/// How often each fault is drawn, in relation to the others, and how far apart faults are.
#[derive(Debug, Clone, Copy)]
pub struct FaultPlan {
    /// Between one fault and the next, at most.
    pub interval_max: Instant,
    /// How long a fault lasts, at most; mostly much less.
    pub duration_max: Instant,
    pub crash: u16,
    /// The replica that takes requests loses power.
    pub crash_primary: u16,
    /// The replica that takes requests cannot reach the others; clients still reach it.
    pub isolate_primary: u16,
    /// All machines lose power within a moment.
    pub blackout: u16,
    /// A group of replicas cannot reach the others.
    pub partition: u16,
    /// One replica's messages to one other vanish.
    pub one_way: u16,
    /// One replica hears nothing, but is heard.
    pub deaf: u16,
    /// A process does not run for a while.
    pub pause: u16,
    /// Somebody sets a wall clock.
    pub clock: u16,
    /// One machine becomes slow: disk, executor and all.
    pub slow: u16,
    /// A bit of a journal entry turns over.
    pub rot: u16,
    /// A sector of a journal entry cannot be read any more.
    pub latent: u16,
    /// A write of a journal entry was reported done and never was.
    pub lost_write: u16,
    /// A write of a journal entry went over another one.
    pub misdirected: u16,
    /// A bit of a checkpoint's file turns over.
    pub checkpoint: u16,
    /// A bit of a copy of the superblock turns over.
    pub superblock: u16,
    /// A write of the journal or the superblock fails.
    pub write_error: u16,
    /// A write of the journal or the superblock ends early.
    pub short_write: u16,
    /// There is no room for checkpoint files for a while.
    pub full: u16,
    /// An older copy of a disk is put back.
    pub set_back: u16,
    /// A disk is lost; a new one comes into its place.
    pub lost_disk: u16,
    /// Two groups cannot reach each other; one member reaches both.
    pub bridge: u16,
    /// Some pairs of members cannot reach each other.
    pub partial: u16,
    /// Messages from one member to another pass and vanish by turns.
    pub flap: u16,
    /// Messages from one member to another take longer, and those back do not.
    pub delay: u16,
    /// Bits of messages turn over on the way from one member to another.
    pub noise: u16,
    /// The same, of messages from a client.
    pub client_noise: u16,
    /// A write of the journal or the superblock is there, and the disk cannot say that it is.
    pub failed_sync: u16,
    /// From some write on, the disk refuses those of checkpoints.
    pub checkpoint_error: u16,
    /// A replica restarts with another release, or with the former one again.
    pub release: u16,
    /// Not a weight: of each copy of the superblock that is being written when the power goes, so many
    /// parts per million are spoiled, all of the sector.
    pub spoiled_copies: u32,
}

impl FaultPlan {
    pub const NONE: Self = Self {
        interval_max: 0,
        duration_max: 1,
        crash: 0,
        crash_primary: 0,
        isolate_primary: 0,
        blackout: 0,
        partition: 0,
        one_way: 0,
        deaf: 0,
        pause: 0,
        clock: 0,
        slow: 0,
        rot: 0,
        latent: 0,
        lost_write: 0,
        misdirected: 0,
        checkpoint: 0,
        superblock: 0,
        write_error: 0,
        short_write: 0,
        full: 0,
        set_back: 0,
        lost_disk: 0,
        bridge: 0,
        partial: 0,
        flap: 0,
        delay: 0,
        noise: 0,
        client_noise: 0,
        failed_sync: 0,
        checkpoint_error: 0,
        release: 0,
        spoiled_copies: 0,
    };

    /// Each kind of fault at random: none of it, a little, or much. What interferes with what is not
    /// known beforehand, and a kind that is always there hides what the others do without it.
    pub(crate) fn swarm(random: &mut Random) -> Self {
        let mut weight = || *random.pick(&[0, 1, 3, 10]);
        let plan = Self {
            crash: weight(),
            crash_primary: weight(),
            isolate_primary: weight(),
            blackout: weight() / 3,
            partition: weight(),
            one_way: weight(),
            deaf: weight() / 3,
            pause: weight(),
            clock: weight() / 3,
            slow: weight(),
            ..Self::NONE
        };
        Self {
            interval_max: *random.pick(&[50, 200, 1_000, 5_000]) * MILLISECOND,
            duration_max: *random.pick(&[100, 1_000, 3_000, 6_000]) * MILLISECOND,
            ..plan.with_disks(random)
        }
    }

    /// What disks do, in two runs of three.
    fn with_disks(self, random: &mut Random) -> Self {
        if random.below(3) == 0 {
            return self;
        }
        let mut weight = || *random.pick(&[0, 0, 1, 3, 10]);
        Self {
            rot: weight(),
            latent: weight(),
            lost_write: weight(),
            misdirected: weight(),
            checkpoint: weight(),
            superblock: weight(),
            write_error: weight(),
            short_write: weight(),
            full: weight() / 3,
            set_back: weight() / 3,
            lost_disk: weight() / 3,
            ..self
        }
    }

    /// What was added to the vocabulary later, in one run of two: more shapes of bad links, disks that
    /// fail in other ways, upgrades. Drawn after everything else, so that runs without any of it stay what
    /// they were.
    pub(crate) fn with_more(self, random: &mut Random) -> Self {
        if random.below(2) == 0 {
            return self;
        }
        let mut weight = || *random.pick(&[0, 0, 1, 3, 10]);
        Self {
            bridge: weight(),
            partial: weight(),
            flap: weight(),
            delay: weight(),
            noise: weight(),
            client_noise: weight() / 3,
            failed_sync: weight(),
            checkpoint_error: weight() / 3,
            release: weight() / 3,
            spoiled_copies: *random.pick(&[0, 300_000, MILLION]),
            ..self
        }
    }

    /// Everything, often.
    pub const ALL: Self = Self {
        interval_max: 3_000 * MILLISECOND,
        duration_max: 4_000 * MILLISECOND,
        crash: 10,
        crash_primary: 4,
        isolate_primary: 4,
        blackout: 2,
        partition: 6,
        one_way: 4,
        deaf: 2,
        pause: 5,
        clock: 2,
        slow: 3,
        rot: 3,
        latent: 2,
        lost_write: 2,
        misdirected: 2,
        checkpoint: 1,
        superblock: 2,
        write_error: 1,
        short_write: 1,
        full: 1,
        set_back: 1,
        lost_disk: 1,
        bridge: 3,
        partial: 3,
        flap: 3,
        delay: 3,
        noise: 3,
        client_noise: 1,
        failed_sync: 1,
        checkpoint_error: 1,
        release: 1,
        spoiled_copies: MILLION / 2,
    };

    fn weight(&self, kind: Kind) -> u16 {
        match kind {
            Kind::Crash => self.crash,
            Kind::CrashPrimary => self.crash_primary,
            Kind::IsolatePrimary => self.isolate_primary,
            Kind::Blackout => self.blackout,
            Kind::Partition => self.partition,
            Kind::OneWay => self.one_way,
            Kind::Deaf => self.deaf,
            Kind::Pause => self.pause,
            Kind::Clock => self.clock,
            Kind::Slow => self.slow,
            Kind::Damage(Damage::Rot) => self.rot,
            Kind::Damage(Damage::Latent) => self.latent,
            Kind::Damage(Damage::LostWrite) => self.lost_write,
            Kind::Damage(Damage::Misdirected) => self.misdirected,
            Kind::Damage(Damage::Checkpoint) => self.checkpoint,
            Kind::Damage(Damage::Superblock) => self.superblock,
            Kind::Write(WriteFault::Error) => self.write_error,
            Kind::Write(WriteFault::Short) => self.short_write,
            Kind::Full => self.full,
            Kind::SetBack => self.set_back,
            Kind::LostDisk => self.lost_disk,
            Kind::Bridge => self.bridge,
            Kind::Partial => self.partial,
            Kind::Flap => self.flap,
            Kind::Delay => self.delay,
            Kind::Noise => self.noise,
            Kind::ClientNoise => self.client_noise,
            Kind::Write(WriteFault::Unsynced) => self.failed_sync,
            Kind::CheckpointError => self.checkpoint_error,
            Kind::Release => self.release,
        }
    }
}

/// One fault. Durations are how long it lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    Crash {
        replica: ReplicaIndex,
        down: Instant,
    },
    CrashPrimary {
        down: Instant,
    },
    IsolatePrimary {
        duration: Instant,
    },
    Blackout {
        down_max: Instant,
    },
    /// One bit for each member that is cut off from those without a bit.
    Partition {
        group: u16,
        duration: Instant,
    },
    OneWay {
        from: ReplicaIndex,
        to: ReplicaIndex,
        duration: Instant,
    },
    Deaf {
        replica: ReplicaIndex,
        duration: Instant,
    },
    Pause {
        replica: ReplicaIndex,
        duration: Instant,
    },
    Clock {
        replica: ReplicaIndex,
        jump: i64,
    },
    Slow {
        replica: ReplicaIndex,
        factor: u64,
        duration: Instant,
    },
    /// What the disk holds of a journal entry or of the superblock is damaged.
    Damage {
        replica: ReplicaIndex,
        damage: Damage,
    },
    Write {
        replica: ReplicaIndex,
        fault: WriteFault,
    },
    Full {
        replica: ReplicaIndex,
        duration: Instant,
    },
    /// A copy is made now, with the machine off, and put back much later.
    SetBack {
        replica: ReplicaIndex,
        duration: Instant,
    },
    LostDisk {
        replica: ReplicaIndex,
        down: Instant,
    },
    /// A partition across which one member reaches both sides.
    Bridge {
        bridge: ReplicaIndex,
        group: u16,
        duration: Instant,
    },
    /// One bit for each pair of members that cannot reach each other: 0 and 1, 0 and 2, 1 and 2, ...
    Partial {
        pairs: u128,
        duration: Instant,
    },
    /// Passes for a period, vanishes for a period, and so on.
    Flap {
        from: ReplicaIndex,
        to: ReplicaIndex,
        period: Instant,
        duration: Instant,
    },
    Delay {
        from: ReplicaIndex,
        to: ReplicaIndex,
        longer: Instant,
        duration: Instant,
    },
    Noise {
        from: ReplicaIndex,
        to: ReplicaIndex,
        messages: u32,
    },
    /// Of some client.
    ClientNoise {
        to: ReplicaIndex,
        messages: u32,
    },
    /// All writes of checkpoints fail but the next few.
    CheckpointError {
        replica: ReplicaIndex,
        after: u64,
    },
    Release {
        replica: ReplicaIndex,
        down: Instant,
    },
}

/// See [`FaultPlan`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Damage {
    Rot,
    Latent,
    LostWrite,
    Misdirected,
    Checkpoint,
    Superblock,
}

/// What a plan gives weights to.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Crash,
    CrashPrimary,
    IsolatePrimary,
    Blackout,
    Partition,
    OneWay,
    Deaf,
    Pause,
    Clock,
    Slow,
    Damage(Damage),
    Write(WriteFault),
    Full,
    SetBack,
    LostDisk,
    Bridge,
    Partial,
    Flap,
    Delay,
    Noise,
    ClientNoise,
    CheckpointError,
    Release,
}

const KINDS: usize = 30;

impl Kind {
    /// All of them, and what people call them.
    const ALL: [(Self, &str); KINDS] = [
        (Self::Crash, "crash"),
        (Self::CrashPrimary, "crash of the primary"),
        (Self::IsolatePrimary, "isolated primary"),
        (Self::Blackout, "blackout"),
        (Self::Partition, "partition"),
        (Self::OneWay, "one-way cut"),
        (Self::Deaf, "deaf replica"),
        (Self::Pause, "pause"),
        (Self::Clock, "clock set"),
        (Self::Slow, "slow machine"),
        (Self::Damage(Damage::Rot), "rot"),
        (Self::Damage(Damage::Latent), "unreadable sector"),
        (Self::Damage(Damage::LostWrite), "lost write"),
        (Self::Damage(Damage::Misdirected), "misdirected write"),
        (Self::Damage(Damage::Checkpoint), "rot of a checkpoint"),
        (Self::Damage(Damage::Superblock), "rot of a superblock"),
        (Self::Write(WriteFault::Error), "failed write"),
        (Self::Write(WriteFault::Short), "short write"),
        (Self::Full, "full disk"),
        (Self::SetBack, "disk set back"),
        (Self::LostDisk, "lost disk"),
        (Self::Bridge, "bridged partition"),
        (Self::Partial, "partial partition"),
        (Self::Flap, "flapping link"),
        (Self::Delay, "delay one way"),
        (Self::Noise, "damaged message"),
        (Self::ClientNoise, "damaged request"),
        (Self::Write(WriteFault::Unsynced), "failed sync"),
        (Self::CheckpointError, "failed checkpoint write"),
        (Self::Release, "other release"),
    ];

    /// Members that there must be: alone there is nobody to be cut off from, and nobody who has what is
    /// lost.
    fn members_min(self) -> u8 {
        match self {
            Self::Crash
            | Self::CrashPrimary
            | Self::Blackout
            | Self::Pause
            | Self::Clock
            | Self::Slow
            | Self::Damage(Damage::Superblock)
            | Self::Write(_)
            | Self::Full
            | Self::ClientNoise
            | Self::CheckpointError => 1,
            Self::IsolatePrimary
            | Self::Partition
            | Self::OneWay
            | Self::Deaf
            | Self::Damage(_)
            | Self::SetBack
            | Self::LostDisk
            | Self::Partial
            | Self::Flap
            | Self::Delay
            | Self::Noise
            | Self::Release => 2,
            Self::Bridge => 3,
        }
    }
}

/// How many faults of each kind there were.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally([u64; KINDS]);

impl Tally {
    pub fn add(&mut self, other: &Self) {
        for (mine, theirs) in self.0.iter_mut().zip(&other.0) {
            *mine += theirs;
        }
    }

    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = Kind::ALL.iter().zip(&self.0);
        for (index, ((_, name), count)) in counts.enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{name} {count}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.total())
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Faults {
    plan: FaultPlan,
    member_count: u8,
    random: Random,
    pub tally: Tally,
}

impl Faults {
    pub(crate) fn new(plan: FaultPlan, member_count: u8, random: Random) -> Self {
        Self {
            plan,
            member_count,
            random,
            tally: Tally::default(),
        }
    }

    /// How long until the next fault; `None` for a plan without any.
    pub(crate) fn wait(&mut self) -> Option<Instant> {
        let interval = self.plan.interval_max;
        (self.weight() > 0 && interval > 0).then(|| self.random.below(interval))
    }

    fn weight(&self) -> u64 {
        self.weights().iter().sum()
    }

    fn weights(&self) -> [u64; KINDS] {
        Kind::ALL.map(|(kind, _)| {
            let possible = self.member_count >= kind.members_min();
            u64::from(possible) * u64::from(self.plan.weight(kind))
        })
    }

    fn duration(&mut self) -> Instant {
        MILLISECOND + self.random.skewed(self.plan.duration_max)
    }

    fn replica(&mut self) -> ReplicaIndex {
        let index = self.random.below(u64::from(self.member_count));
        u8::try_from(index).expect("below a member count")
    }

    /// The next fault.
    ///
    /// # Panics
    /// For a plan without any.
    pub(crate) fn draw(&mut self) -> Fault {
        let mut point = self.random.below(self.weight());
        let weights = self.weights();
        let drawn = weights.iter().position(|weight| {
            let here = point < *weight;
            point = point.wrapping_sub(*weight);
            here
        });
        let drawn = drawn.expect("the point is below their sum");
        self.tally.0[drawn] += 1;
        let (drawn, _) = Kind::ALL[drawn];
        let duration = self.duration();
        let replica = self.replica();
        match drawn {
            Kind::Crash => Fault::Crash {
                replica,
                down: duration,
            },
            Kind::CrashPrimary => Fault::CrashPrimary { down: duration },
            Kind::IsolatePrimary => Fault::IsolatePrimary { duration },
            Kind::Blackout => Fault::Blackout { down_max: duration },
            Kind::Partition => {
                let group = self.group();
                Fault::Partition { group, duration }
            }
            Kind::OneWay => Fault::OneWay {
                from: replica,
                to: self.other(replica),
                duration,
            },
            Kind::Deaf => Fault::Deaf { replica, duration },
            Kind::Pause => Fault::Pause { replica, duration },
            Kind::Clock => {
                let range = 5_000_000_000;
                let jump = i64::try_from(self.random.below(range)).expect("five seconds");
                let jump = if self.random.below(2) == 0 {
                    jump
                } else {
                    -jump
                };
                Fault::Clock { replica, jump }
            }
            Kind::Slow => Fault::Slow {
                replica,
                factor: self.random.between(2, 200),
                duration,
            },
            Kind::Damage(damage) => Fault::Damage { replica, damage },
            Kind::Write(fault) => Fault::Write { replica, fault },
            Kind::Full => Fault::Full { replica, duration },
            Kind::SetBack => Fault::SetBack { replica, duration },
            Kind::LostDisk => Fault::LostDisk {
                replica,
                down: duration,
            },
            Kind::Bridge => Fault::Bridge {
                bridge: replica,
                group: self.group(),
                duration,
            },
            Kind::Partial => Fault::Partial {
                pairs: u128::from(self.random.next()) << 64 | u128::from(self.random.next()),
                duration,
            },
            Kind::Flap => Fault::Flap {
                from: replica,
                to: self.other(replica),
                period: self.random.between(1, 400) * MILLISECOND,
                duration,
            },
            Kind::Delay => Fault::Delay {
                from: replica,
                to: self.other(replica),
                longer: self.random.skewed(600) * MILLISECOND,
                duration,
            },
            Kind::Noise => Fault::Noise {
                from: replica,
                to: self.other(replica),
                messages: self.messages(),
            },
            Kind::ClientNoise => Fault::ClientNoise {
                to: replica,
                messages: self.messages(),
            },
            Kind::CheckpointError => Fault::CheckpointError {
                replica,
                after: self.random.skewed(40),
            },
            Kind::Release => Fault::Release {
                replica,
                down: duration,
            },
        }
    }

    /// One bit for each of some members: neither none nor all.
    fn group(&mut self) -> u16 {
        let all = (1u64 << self.member_count) - 1;
        u16::try_from(self.random.between(1, all - 1)).expect("twelve bits")
    }

    /// Mostly one or two, sometimes so many that a connection does not last.
    fn messages(&mut self) -> u32 {
        u32::try_from(1 + self.random.skewed(20)).expect("a small number")
    }

    fn other(&mut self, replica: ReplicaIndex) -> ReplicaIndex {
        let count = u64::from(self.member_count);
        let step = 1 + self.random.below(count - 1);
        u8::try_from((u64::from(replica) + step) % count).expect("below a member count")
    }
}

#[cfg(test)]
mod tests {
    use super::super::random::Stream;
    use super::*;

    #[test]
    fn every_fault_is_drawn_and_concerns_replicas_that_exist() {
        let random = Random::new(1, Stream::Faults, 0);
        let mut faults = Faults::new(FaultPlan::ALL, 3, random);
        let mut kinds = std::collections::BTreeSet::new();
        for _ in 0..10_000 {
            assert!(faults.wait().unwrap() < FaultPlan::ALL.interval_max);
            let fault = faults.draw();
            let name = format!("{fault:?}").split(' ').next().unwrap().to_owned();
            kinds.extend(Some(name).filter(|name| name != "Damage" && name != "Write"));
            match fault {
                Fault::Partition { group, .. } => assert!((1..7).contains(&group)),
                Fault::Bridge { bridge, group, .. } => {
                    assert!(bridge < 3 && (1..7).contains(&group));
                }
                Fault::OneWay { from, to, .. }
                | Fault::Flap { from, to, .. }
                | Fault::Delay { from, to, .. }
                | Fault::Noise { from, to, .. } => assert!(from != to && from < 3 && to < 3),
                Fault::Crash { replica, .. }
                | Fault::Deaf { replica, .. }
                | Fault::Pause { replica, .. }
                | Fault::Clock { replica, .. }
                | Fault::Slow { replica, .. }
                | Fault::CheckpointError { replica, .. }
                | Fault::Release { replica, .. }
                | Fault::ClientNoise { to: replica, .. }
                | Fault::Full { replica, .. }
                | Fault::SetBack { replica, .. }
                | Fault::LostDisk { replica, .. } => assert!(replica < 3),
                Fault::Damage { replica, damage } => {
                    assert!(replica < 3);
                    kinds.insert(format!("{damage:?}"));
                }
                Fault::Write { replica, fault } => {
                    assert!(replica < 3);
                    kinds.insert(format!("{fault:?}"));
                }
                Fault::Partial { .. }
                | Fault::Blackout { .. }
                | Fault::CrashPrimary { .. }
                | Fault::IsolatePrimary { .. } => {}
            }
        }
        assert_eq!(kinds.len(), KINDS, "{kinds:?}");
        assert_eq!(faults.tally.total(), 10_000);
        assert!(faults.tally.0.iter().all(|count| *count > 0));
    }

    #[test]
    fn a_single_replica_is_never_cut_off_and_no_plan_draws_nothing() {
        let random = Random::new(1, Stream::Faults, 0);
        let mut faults = Faults::new(FaultPlan::ALL, 1, random.clone());
        for _ in 0..500 {
            let fault = faults.draw();
            assert!(!matches!(
                fault,
                Fault::Partition { .. }
                    | Fault::OneWay { .. }
                    | Fault::Deaf { .. }
                    | Fault::Bridge { .. }
                    | Fault::Partial { .. }
                    | Fault::LostDisk { .. }
            ));
        }
        assert_eq!(Faults::new(FaultPlan::NONE, 3, random).wait(), None);
    }
}
