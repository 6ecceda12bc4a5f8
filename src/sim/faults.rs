//! What goes wrong, and when: drawn from a stream of its own, one fault after the other.
//!
//! A plan is a list of weights; zero means never. Faults last a while and end by themselves, so that
//! several overlap. Any number of replicas may be down at once: durability does not depend on who is
//! up, only progress does.

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
    };

    /// Each kind of fault at random: none of it, a little, or much. What interferes with what is not
    /// known beforehand, and a kind that is always there hides what the others do without it.
    pub(crate) fn swarm(random: &mut Random) -> Self {
        let mut weight = || *random.pick(&[0, 1, 3, 10]);
        Self {
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
            interval_max: *random.pick(&[50, 200, 1_000, 5_000]) * MILLISECOND,
            duration_max: *random.pick(&[100, 1_000, 3_000, 6_000]) * MILLISECOND,
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
        self.weights().iter().map(|weight| u64::from(*weight)).sum()
    }

    fn weights(&self) -> [u32; 10] {
        let plan = &self.plan;
        // Alone there is nobody to be cut off from.
        let others = u32::from(self.replica_count > 1);
        [
            plan.crash,
            plan.blackout,
            plan.partition * others,
            plan.one_way * others,
            plan.deaf * others,
            plan.pause,
            plan.clock,
            plan.slow,
            plan.crash_primary,
            plan.isolate_primary * others,
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
        let mut kind = 0;
        for (index, weight) in self.weights().into_iter().enumerate() {
            kind = index;
            if point < u64::from(weight) {
                break;
            }
            point -= u64::from(weight);
        }
        let duration = self.duration();
        let replica = self.replica();
        match kind {
            0 => Fault::Crash {
                replica,
                down: duration,
            },
            1 => Fault::Blackout { down_max: duration },
            2 => {
                let all = (1u64 << self.replica_count) - 1;
                let group = u8::try_from(self.random.between(1, all - 1)).expect("six bits");
                Fault::Partition { group, duration }
            }
            3 => {
                let step = 1 + self.random.below(u64::from(self.replica_count) - 1);
                let to = (u64::from(replica) + step) % u64::from(self.replica_count);
                let to = u8::try_from(to).expect("below a replica count");
                Fault::OneWay {
                    from: replica,
                    to,
                    duration,
                }
            }
            4 => Fault::Deaf { replica, duration },
            5 => Fault::Pause { replica, duration },
            6 => {
                let range = 5_000_000_000;
                let jump = i64::try_from(self.random.below(range)).expect("five seconds");
                let jump = if self.random.below(2) == 0 {
                    jump
                } else {
                    -jump
                };
                Fault::Clock { replica, jump }
            }
            8 => Fault::CrashPrimary { down: duration },
            9 => Fault::IsolatePrimary { duration },
            _ => {
                let factor = self.random.between(2, 200);
                Fault::Slow {
                    replica,
                    factor,
                    duration,
                }
            }
        }
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
        for _ in 0..2_000 {
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
                | Fault::Slow { replica, .. } => assert!(replica < 3),
                Fault::Blackout { .. }
                | Fault::CrashPrimary { .. }
                | Fault::IsolatePrimary { .. } => {}
            }
        }
        assert_eq!(kinds.len(), 10, "{kinds:?}");
    }

    #[test]
    fn a_single_replica_is_never_cut_off_and_no_plan_draws_nothing() {
        let random = Random::new(1, Stream::Faults, 0);
        let mut faults = Faults::new(FaultPlan::ALL, 1, random.clone());
        for _ in 0..500 {
            let fault = faults.draw();
            assert!(!matches!(
                fault,
                Fault::Partition { .. } | Fault::OneWay { .. } | Fault::Deaf { .. }
            ));
        }
        assert_eq!(Faults::new(FaultPlan::NONE, 3, random).wait(), None);
    }
}
