//! Progress: once faults stop, every request is answered and every replica has executed everything
//! within a bound. Before that, nothing is promised.
//!
//! The bound is counted in election timeouts, the time that a backup bears the silence of its primary
//! ([`SETTLES_WITHIN`]). Half of all clusters take two of them: one to notice that there is no primary,
//! one to replace it. Those that take long have to do things one after the other: connections are dialled
//! again (up to 100 ms each way), several views fail because those who should lead them still wait for
//! what their disks have lost, clients that had no answer for long ask again only every few seconds, and
//! what a replica has slept through is fetched, executed and made a checkpoint of. In 4,000 runs of the
//! swarm, 99 of 100 took less than 57; the few that took more than 100 waited for work that a slow machine
//! had begun before faults ended, which is over with them now (`cluster::rest`).

use super::super::queue::Instant;
use super::{Violation, hold};
use crate::vsr::timeout::PRIMARY_SILENT_NS;

/// Longer than any cluster may take to be well again.
pub const SETTLES_WITHIN: Instant = 150 * PRIMARY_SILENT_NS;

/// See the module.
#[derive(Debug, Clone, Copy)]
pub struct Liveness {
    bound: Instant,
    /// When the last fault ended.
    calm_since: Instant,
}

impl Liveness {
    pub fn new(bound: Instant, calm_since: Instant) -> Self {
        Self { bound, calm_since }
    }

    /// Looks at the cluster: `lacking` says what is still to be done, if anything is.
    pub fn at(&self, now: Instant, lacking: Option<&str>) -> Result<(), Violation> {
        let Some(lacking) = lacking else {
            return Ok(());
        };
        hold!(
            now - self.calm_since <= self.bound,
            "liveness",
            "{} election timeouts ({} ms) after the last fault: {lacking}",
            (now - self.calm_since) / PRIMARY_SILENT_NS,
            (now - self.calm_since) / 1_000_000
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn standing_still_is_found_after_the_bound_only() {
        let check = Liveness::new(10, 100);
        assert_eq!(check.at(110, Some("client 1 waits")), Ok(()));
        assert_eq!(check.at(500, None), Ok(()));
        assert!(check.at(111, Some("client 1 waits")).is_err());
    }
}
