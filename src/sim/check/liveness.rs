//! Progress: once faults stop, every request is answered and every replica has executed everything
//! within a bound. Before that, nothing is promised.

use super::super::queue::Instant;
use super::{Violation, hold};

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
            "{} ms after the last fault: {lacking}",
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
