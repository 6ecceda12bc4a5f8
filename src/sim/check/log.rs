//! One log: what any replica executes at an operation, every replica executes there.
//!
//! The reference is the first replica to execute an operation; since replicas execute in order and
//! restart from checkpoints of what they executed, the first executions come in order too. The hash
//! chain is checked on the way, and so is cluster time: the times of an operation's events come after those
//! of the operation before it.

use super::{Violation, hold};
use crate::message::{Header, Op};
use crate::protocol::ReplicaIndex;

/// What is remembered of an executed prepare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Executed {
    pub checksum: u128,
    pub request_checksum: u128,
    pub client: u128,
    pub request: u32,
}

/// See the module.
#[derive(Debug)]
pub struct OneLog {
    entries: Vec<Executed>,
    /// The last operation that each replica executed, or the checkpoint it started from.
    positions: Vec<Op>,
    parent: u128,
    /// Cluster time of the last event.
    timestamp: u64,
}

impl OneLog {
    /// `root` is what the first prepare names as its parent.
    pub fn new(member_count: u8, root: u128) -> Self {
        Self {
            entries: Vec::new(),
            positions: vec![0; usize::from(member_count)],
            parent: root,
            timestamp: 0,
        }
    }

    /// The last operation that any replica has executed.
    pub fn head(&self) -> Op {
        self.entries.len() as Op
    }

    pub fn entry(&self, op: Op) -> Option<&Executed> {
        self.entries.get(usize::try_from(op.checked_sub(1)?).ok()?)
    }

    /// A replica starts with the state of a checkpoint.
    pub fn on_start(&mut self, replica: ReplicaIndex, checkpoint: Op) -> Result<(), Violation> {
        hold!(
            checkpoint <= self.head(),
            "one log",
            "replica {replica} starts at op {checkpoint}, which nobody has executed"
        );
        self.positions[usize::from(replica)] = checkpoint;
        Ok(())
    }

    /// A replica executes a prepare; whether it is the first to.
    pub fn on_execute(
        &mut self,
        replica: ReplicaIndex,
        prepare: &Header,
    ) -> Result<bool, Violation> {
        let op = prepare.op;
        let position = &mut self.positions[usize::from(replica)];
        hold!(
            op == *position + 1,
            "one log",
            "replica {replica} executes op {op} after op {position}"
        );
        *position = op;
        let executed = Executed {
            checksum: prepare.checksum,
            request_checksum: prepare.request_checksum,
            client: prepare.client,
            request: prepare.request,
        };
        match self.entry(op) {
            Some(known) => {
                hold!(
                    *known == executed,
                    "one log",
                    "replica {replica} executes {executed:x?} at op {op}, where another one executed {known:x?}"
                );
                Ok(false)
            }
            None => {
                assert_eq!(op, self.head() + 1, "first executions come in order");
                hold!(
                    prepare.parent == self.parent,
                    "one log",
                    "op {op} does not continue the chain"
                );
                let first_event = prepare.timestamp.checked_sub(u64::from(prepare.events));
                hold!(
                    first_event > Some(self.timestamp),
                    "cluster time",
                    "op {op} is of {} and has {} events; the op before it is of {}",
                    prepare.timestamp,
                    prepare.events,
                    self.timestamp
                );
                self.timestamp = prepare.timestamp;
                self.parent = prepare.checksum;
                self.entries.push(executed);
                Ok(true)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Command;

    fn prepare(op: Op, checksum: u128, parent: u128) -> Header {
        let mut header = Header::new(Command::Prepare, 0, 0, 0);
        (header.op, header.checksum, header.parent) = (op, checksum, parent);
        header.timestamp = 10 * op;
        header
    }

    #[test]
    fn different_operations_at_one_place_are_found() {
        let mut log = OneLog::new(3, 7);
        assert_eq!(log.on_execute(0, &prepare(1, 11, 7)), Ok(true));
        assert_eq!(log.on_execute(1, &prepare(1, 11, 7)), Ok(false));
        assert!(log.on_execute(2, &prepare(1, 12, 7)).is_err());
    }

    #[test]
    fn gaps_repetitions_and_broken_chains_are_found() {
        let mut log = OneLog::new(3, 7);
        assert_eq!(log.on_execute(0, &prepare(1, 11, 7)), Ok(true));
        assert!(log.on_execute(0, &prepare(1, 11, 7)).is_err());
        assert!(log.on_execute(1, &prepare(2, 12, 11)).is_err());
        assert!(log.on_execute(0, &prepare(2, 12, 99)).is_err());
        assert!(log.on_start(1, 9).is_err());
        assert_eq!(log.on_start(2, 1), Ok(()));
    }

    #[test]
    fn time_that_goes_back_is_found() {
        let mut log = OneLog::new(3, 7);
        assert_eq!(log.on_execute(0, &prepare(1, 11, 7)), Ok(true));
        let mut next = prepare(2, 12, 11);
        next.events = 10;
        let violation = log.on_execute(0, &next).unwrap_err();
        assert_eq!(violation.property, "cluster time");
    }
}
