//! Nothing acknowledged is lost: a reply names the operation that holds its request, for ever.
//!
//! The log's reference never changes (`log` sees to that), so it is enough that each reply points to
//! the right place in it, and that in the end every replica has executed all that was acknowledged.
//! Real time is respected too: a request that was sent after somebody had been told of an operation
//! comes after that operation in the log.

use super::{OneLog, Violation, hold};
use crate::message::Op;
use crate::protocol::ReplicaIndex;

/// See the module.
#[derive(Debug, Default)]
pub struct Acknowledged {
    highest: Op,
    pub count: u64,
}

impl Acknowledged {
    /// The last operation that any client was told of.
    pub fn highest(&self) -> Op {
        self.highest
    }

    /// A client has got a reply. When it first sent its request, somebody had been told of `after`.
    pub fn on_reply(
        &mut self,
        log: &OneLog,
        op: Op,
        client: u128,
        request_checksum: u128,
        after: Op,
    ) -> Result<(), Violation> {
        let matches =
            |e: &super::log::Executed| e.client == client && e.request_checksum == request_checksum;
        hold!(
            log.entry(op).is_some_and(matches),
            "acknowledged",
            "client {client:x} was told that its request is op {op}, where the log has {:x?}",
            log.entry(op)
        );
        hold!(
            op > after,
            "acknowledged",
            "client {client:x} is answered with op {op}, but somebody knew of op {after} before it asked"
        );
        self.highest = self.highest.max(op);
        self.count += 1;
        Ok(())
    }

    /// Faults are over, and everybody had time to catch up.
    pub fn at_rest(&self, replica: ReplicaIndex, executed: Op) -> Result<(), Violation> {
        hold!(
            executed >= self.highest,
            "acknowledged",
            "replica {replica} ends at op {executed}, op {} was acknowledged",
            self.highest
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Command, Header};

    #[test]
    fn replies_for_what_is_not_in_the_log_are_found() {
        let mut log = OneLog::new(1, 0);
        let mut prepare = Header::new(Command::Prepare, 0, 0, 0);
        (prepare.op, prepare.client, prepare.request_checksum) = (1, 5, 55);
        prepare.timestamp = 1;
        log.on_execute(0, &prepare).unwrap();
        let mut check = Acknowledged::default();
        assert_eq!(check.on_reply(&log, 1, 5, 55, 0), Ok(()));
        assert!(check.on_reply(&log, 1, 5, 56, 0).is_err());
        assert!(check.on_reply(&log, 2, 5, 55, 0).is_err());
        assert!(check.on_reply(&log, 1, 5, 55, 1).is_err());
        assert_eq!(check.at_rest(0, 1), Ok(()));
        assert!(check.at_rest(0, 0).is_err());
    }
}
