//! What goes wrong, and when: drawn from a stream of its own, one fault after the other.
//!
//! A plan is a list of weights; zero means never. Faults last a while and end by themselves, so that
//! several overlap. Any number of replicas may be down at once: durability does not depend on who is
//! up, only progress does.

use super::host::WriteFault;
use super::queue::{Instant, MILLISECOND};
use super::random::Random;
use crate::protocol::ReplicaIndex;

/// How often each fault is drawn, in relation to the others, and how far apart faults are.
#[derive(Debug, Clone, Copy)]
pub struct FaultPlan {
    /// Between one fault and the next, at most.
    pub interval_max: Instant,
    /// How long a fault lasts, at most; mostly much less.
    pub duration_max: Instant,
    pub crash: u32,
    /// The replica that takes requests loses power.
    pub crash_primary: u32,
    /// The replica that takes requests cannot reach the others; clients still reach it.
    pub isolate_primary: u32,
    /// All machines lose power within a moment.
    pub blackout: u32,
    /// A group of replicas cannot reach the others.
    pub partition: u32,
    /// One replica's messages to one other vanish.
    pub one_way: u32,
    /// One replica hears nothing, but is heard.
    pub deaf: u32,
    /// A process does not run for a while.
    pub pause: u32,
    /// Somebody sets a wall clock.
    pub clock: u32,
    /// One machine becomes slow: disk, executor and all.
    pub slow: u32,
    /// A bit of a journal entry turns over.
    pub rot: u32,
    /// A sector of a journal entry cannot be read any more.
    pub latent: u32,
    /// A write of a journal entry was reported done and never was.
    pub lost_write: u32,
    /// A write of a journal entry went over another one.
    pub misdirected: u32,
    /// A bit of a checkpoint's file turns over.
    pub checkpoint: u32,
    /// A bit of a copy of the superblock turns over.
    pub superblock: u32,
    /// A write of the journal or the superblock fails.
    pub write_error: u32,
    /// A write of the journal or the superblock ends early.
    pub short_write: u32,
    /// There is no room for checkpoint files for a while.
    pub full: u32,
    /// An older copy of a disk is put back.
    pub set_back: u32,
    /// A disk is lost; a new one comes into its place.
    pub lost_disk: u32,
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
    };
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
    /// One bit for each replica that is cut off from those without a bit.
    Partition {
        group: u8,
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

/// The kinds, in the order of their weights.
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
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Faults {
    plan: FaultPlan,
    replica_count: u8,
    random: Random,
}

impl Faults {
    pub(crate) fn new(plan: FaultPlan, replica_count: u8, random: Random) -> Self {
        Self {
            plan,
            replica_count,
            random,
        }
    }

    /// How long until the next fault; `None` for a plan without any.
    pub(crate) fn wait(&mut self) -> Option<Instant> {
        let interval = self.plan.interval_max;
        (self.weight() > 0 && interval > 0).then(|| self.random.below(interval))
    }

    fn weight(&self) -> u64 {
        self.weights()
            .iter()
            .map(|(_, weight)| u64::from(*weight))
            .sum()
    }

    fn weights(&self) -> [(Kind, u32); 21] {
        let plan = &self.plan;
        // Alone there is nobody to be cut off from, and nobody who has what is lost.
        let others = u32::from(self.replica_count > 1);
        [
            (Kind::Crash, plan.crash),
            (Kind::CrashPrimary, plan.crash_primary),
            (Kind::IsolatePrimary, plan.isolate_primary * others),
            (Kind::Blackout, plan.blackout),
            (Kind::Partition, plan.partition * others),
            (Kind::OneWay, plan.one_way * others),
            (Kind::Deaf, plan.deaf * others),
            (Kind::Pause, plan.pause),
            (Kind::Clock, plan.clock),
            (Kind::Slow, plan.slow),
            (Kind::Damage(Damage::Rot), plan.rot * others),
            (Kind::Damage(Damage::Latent), plan.latent * others),
            (Kind::Damage(Damage::LostWrite), plan.lost_write * others),
            (Kind::Damage(Damage::Misdirected), plan.misdirected * others),
            (Kind::Damage(Damage::Checkpoint), plan.checkpoint * others),
            (Kind::Damage(Damage::Superblock), plan.superblock),
            (Kind::Write(WriteFault::Error), plan.write_error),
            (Kind::Write(WriteFault::Short), plan.short_write),
            (Kind::Full, plan.full),
            (Kind::SetBack, plan.set_back * others),
            (Kind::LostDisk, plan.lost_disk * others),
        ]
    }

    fn duration(&mut self) -> Instant {
        MILLISECOND + self.random.skewed(self.plan.duration_max)
    }

    fn replica(&mut self) -> ReplicaIndex {
        let index = self.random.below(u64::from(self.replica_count));
        u8::try_from(index).expect("below a replica count")
    }

    /// The next fault.
    ///
    /// # Panics
    /// For a plan without any.
    pub(crate) fn draw(&mut self) -> Fault {
        let mut point = self.random.below(self.weight());
        let mut drawn = Kind::Crash;
        for (kind, weight) in self.weights() {
            drawn = kind;
            if point < u64::from(weight) {
                break;
            }
            point -= u64::from(weight);
        }
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
                let all = (1u64 << self.replica_count) - 1;
                let group = u8::try_from(self.random.between(1, all - 1)).expect("six bits");
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
        }
    }

    fn other(&mut self, replica: ReplicaIndex) -> ReplicaIndex {
        let count = u64::from(self.replica_count);
        let step = 1 + self.random.below(count - 1);
        u8::try_from((u64::from(replica) + step) % count).expect("below a replica count")
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
        for _ in 0..5_000 {
            assert!(faults.wait().unwrap() < FaultPlan::ALL.interval_max);
            let fault = faults.draw();
            kinds.insert(format!("{fault:?}").split(' ').next().unwrap().to_owned());
            match fault {
                Fault::Partition { group, .. } => assert!((1..7).contains(&group)),
                Fault::OneWay { from, to, .. } => assert!(from != to && from < 3 && to < 3),
                Fault::Crash { replica, .. }
                | Fault::Deaf { replica, .. }
                | Fault::Pause { replica, .. }
                | Fault::Clock { replica, .. }
                | Fault::Slow { replica, .. }
                | Fault::Write { replica, .. }
                | Fault::Full { replica, .. }
                | Fault::SetBack { replica, .. }
                | Fault::LostDisk { replica, .. } => assert!(replica < 3),
                Fault::Damage { replica, damage } => {
                    assert!(replica < 3);
                    kinds.insert(format!("{damage:?}"));
                }
                Fault::Blackout { .. }
                | Fault::CrashPrimary { .. }
                | Fault::IsolatePrimary { .. } => {}
            }
        }
        assert_eq!(kinds.len(), 21, "{kinds:?}");
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
                    | Fault::LostDisk { .. }
            ));
        }
        assert_eq!(Faults::new(FaultPlan::NONE, 3, random).wait(), None);
    }
}
