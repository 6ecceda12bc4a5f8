//! The clocks of one machine: each starts somewhere else and runs at a slightly different speed.
//!
//! Promises: monotonic time never goes back while the machine is up; wall time may be set, forward
//! or back, at any moment. Arithmetic is in whole numbers, so that runs are repeatable.

use super::queue::Instant;
use crate::protocol::Time;

/// When simulations begin, in nanoseconds since 1970: far enough from zero to be set back.
pub(crate) const EPOCH: u64 = 1_700_000_000_000_000_000;

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct Clock {
    /// Parts per million faster (or slower) than simulated time.
    drift_ppm: i64,
    /// What has to be added to simulated time, drift aside, for the monotonic clock.
    monotonic_offset: i64,
    /// The same for the wall clock, from the epoch on.
    wall_offset: i64,
}

impl Clock {
    pub(crate) fn new(drift_ppm: i64, monotonic_start: u64, wall_offset: i64) -> Self {
        assert!(drift_ppm.abs() < 100_000, "a clock, not a random number");
        Self {
            drift_ppm,
            monotonic_offset: i64::try_from(monotonic_start).expect("less than centuries"),
            wall_offset,
        }
    }

    /// Sets the wall clock forward, or back.
    pub(crate) fn jump(&mut self, nanoseconds: i64) {
        self.wall_offset += nanoseconds;
    }

    /// From now on it runs at another speed; what it shows does not jump.
    pub(crate) fn set_drift(&mut self, drift_ppm: i64, now: Instant) {
        let before = self.at(now).monotonic;
        self.drift_ppm = drift_ppm;
        let jumped = i128::from(before) - i128::from(self.at(now).monotonic);
        let jumped = i64::try_from(jumped).expect("less than centuries");
        self.monotonic_offset += jumped;
        self.wall_offset += jumped;
    }

    pub(crate) fn at(&self, now: Instant) -> Time {
        // One product and one division: it never goes back, whatever the sign of the drift.
        let drifted = i128::from(now) * i128::from(1_000_000 + self.drift_ppm) / 1_000_000;
        let drifted = u64::try_from(drifted).expect("runs are shorter than 500 years");
        Time {
            monotonic: drifted.saturating_add_signed(self.monotonic_offset),
            wall: (EPOCH + drifted).saturating_add_signed(self.wall_offset),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_clock_still_goes_forward() {
        let clock = Clock::new(-99_999, 0, 0);
        let mut before = clock.at(0).monotonic;
        for now in (0..3_000_000).step_by(7) {
            let monotonic = clock.at(now).monotonic;
            assert!(monotonic >= before);
            before = monotonic;
        }
    }

    #[test]
    fn a_clock_changes_its_speed_without_a_jump() {
        let mut clock = Clock::new(100, 77, -5);
        let before = clock.at(1_000_000_000);
        clock.set_drift(-50_000, 1_000_000_000);
        assert_eq!(clock.at(1_000_000_000), before);
        let later = clock.at(2_000_000_000);
        assert_eq!(later.monotonic - before.monotonic, 950_000_000);
        assert_eq!(later.wall - before.wall, 950_000_000);
    }

    #[test]
    fn clocks_drift_and_jump_but_monotonic_time_does_not() {
        let mut clock = Clock::new(100, 77, -5);
        let second = clock.at(1_000_000_000);
        assert_eq!(second.monotonic, 77 + 1_000_100_000);
        assert_eq!(second.wall, EPOCH + 1_000_100_000 - 5);
        clock.jump(-2_000_000_000);
        let later = clock.at(1_000_000_001);
        assert!(later.wall < second.wall);
        assert!(later.monotonic > second.monotonic);
    }
}
