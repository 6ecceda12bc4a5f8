//! The two clocks, read once for each round of the loop.
//!
//! Monotonic time counts from the start of the process and goes on while the machine sleeps, so that
//! timeouts mean what they say after a suspended virtual machine wakes up.

use crate::protocol::Time;

#[derive(Debug)]
pub(super) struct Clock {
    start: u64,
}

impl Clock {
    pub(super) fn new() -> Self {
        // One more than zero, so that no time is taken for "never".
        Self {
            start: nanoseconds(libc::CLOCK_BOOTTIME) - 1,
        }
    }

    pub(super) fn read(&self) -> Time {
        Time {
            monotonic: self.monotonic(),
            wall: nanoseconds(libc::CLOCK_REALTIME),
        }
    }

    pub(super) fn monotonic(&self) -> u64 {
        nanoseconds(libc::CLOCK_BOOTTIME) - self.start
    }
}

fn nanoseconds(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the kernel writes the structure it is given; both clocks exist since Linux 2.6.39.
    let result = unsafe { libc::clock_gettime(clock, &raw mut time) };
    assert_eq!(result, 0, "the clocks of Linux can be read");
    let seconds = u64::try_from(time.tv_sec).expect("the clock is set after 1970");
    let fraction = u64::try_from(time.tv_nsec).expect("below a second");
    seconds * 1_000_000_000 + fraction
}

#[cfg(test)]
mod tests {
    use super::Clock;

    #[test]
    fn time_passes() {
        let clock = Clock::new();
        let first = clock.read();
        assert!(first.monotonic > 0);
        // 2024-01-01
        assert!(first.wall > 1_704_067_200_000_000_000);
        let mut later = clock.read();
        while later.monotonic == first.monotonic {
            later = clock.read();
        }
        assert!(later.monotonic > first.monotonic);
    }
}
