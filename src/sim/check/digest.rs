//! Equal state at equal operations: replicas that have executed up to one operation hold the same
//! rows, files and counters, as far as the machine's digest sees them.
//!
//! A digest looks at everything, so digests are taken at every so many operations, and less often
//! later on, when there is more to look at; `due` says where.

use std::collections::BTreeMap;

use super::{Violation, hold};
use crate::message::Op;
use crate::protocol::ReplicaIndex;

/// Digests that are kept for replicas that are behind.
const KEPT_MAX: usize = 4096;

/// See the module.
#[derive(Debug)]
pub struct Digests {
    interval: u64,
    known: BTreeMap<Op, (u128, ReplicaIndex)>,
    pub compared: u64,
}

impl Digests {
    /// Looks at operations that are multiples of `interval`, later at every sixteenth of those.
    pub fn new(interval: u64) -> Self {
        assert!(interval > 0);
        Self {
            interval,
            known: BTreeMap::new(),
            compared: 0,
        }
    }

    pub fn due(&self, op: Op) -> bool {
        const EARLY: u64 = 32;
        let seldom = if op <= EARLY * self.interval { 1 } else { 16 };
        op.is_multiple_of(self.interval * seldom)
    }

    /// A replica's state right after `op`.
    pub fn on_state(
        &mut self,
        replica: ReplicaIndex,
        op: Op,
        digest: u128,
    ) -> Result<(), Violation> {
        if let Some((known, first)) = self.known.get(&op) {
            hold!(
                *known == digest,
                "digest",
                "after op {op}, replica {replica} is in another state than replica {first}"
            );
            self.compared += 1;
            return Ok(());
        }
        self.known.insert(op, (digest, replica));
        if self.known.len() > KEPT_MAX {
            self.known.pop_first();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn different_states_are_found() {
        let mut check = Digests::new(4);
        assert!(check.due(8) && !check.due(9));
        assert!(check.due(128) && !check.due(132) && check.due(192));
        assert_eq!(check.on_state(0, 8, 1), Ok(()));
        assert_eq!(check.on_state(1, 8, 1), Ok(()));
        assert!(check.on_state(2, 8, 2).is_err());
        assert_eq!(check.compared, 1);
    }
}
