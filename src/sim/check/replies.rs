//! Replies are those of a sequential execution: the model executes the log as it is agreed upon, and
//! every reply that a client gets must be, byte for byte, what the model says.
//!
//! Together with real time (a request is sent before its reply comes, and its operation is new when
//! it is executed) this makes histories linearizable. The model also keeps the books: what all
//! accounts were debited is what all were credited.

use super::super::model::Model;
use super::{Violation, hold};
use crate::message::{Header, Op, checksum};

/// See the module.
#[derive(Debug, Default)]
pub struct Replies {
    model: Model,
    /// By op - 1: the checksum and the size of the reply's body.
    expected: Vec<(u128, u32)>,
}

impl Replies {
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// An operation is executed for the first time, in log order.
    pub fn on_execute(&mut self, prepare: &Header, body: &[u8]) {
        let reply = self.model.apply(prepare.operation, prepare.timestamp, body);
        let size = u32::try_from(reply.len()).expect("a reply fits a message");
        self.expected.push((checksum(&reply), size));
        assert_eq!(self.expected.len() as Op, prepare.op);
    }

    /// A client has got a reply other than to a register.
    pub fn on_reply(&self, op: Op, body: &[u8]) -> Result<(), Violation> {
        let expected = usize::try_from(op - 1)
            .ok()
            .and_then(|i| self.expected.get(i));
        let Some((expected, size)) = expected else {
            return Err(Violation::new(
                "replies",
                format!("op {op} was never executed"),
            ));
        };
        hold!(
            checksum(body) == *expected,
            "replies",
            "the reply to op {op} ({} bytes) is not what the model says ({size} bytes)",
            body.len()
        );
        Ok(())
    }

    /// What all accounts were debited is what all were credited, posted and pending.
    pub fn check_books(&self) -> Result<(), Violation> {
        let sum = |field: fn(&stampede_client::wire::Account) -> u128| -> u128 {
            self.model.accounts().map(field).sum()
        };
        let (debits, credits) = (sum(|a| a.debits_posted), sum(|a| a.credits_posted));
        hold!(
            debits == credits,
            "replies",
            "posted: {debits} debited, {credits} credited"
        );
        let (debits, credits) = (sum(|a| a.debits_pending), sum(|a| a.credits_pending));
        hold!(
            debits == credits,
            "replies",
            "pending: {debits} debited, {credits} credited"
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Command;

    #[test]
    fn another_reply_is_found() {
        let mut check = Replies::default();
        let mut pulse = Header::new(Command::Prepare, 0, 0, 0);
        (pulse.op, pulse.operation, pulse.timestamp) = (1, 128, 9);
        check.on_execute(&pulse, &[]);
        assert_eq!(check.on_reply(1, &[]), Ok(()));
        assert!(check.on_reply(1, &[0]).is_err());
        assert!(check.on_reply(2, &[]).is_err());
        assert_eq!(check.check_books(), Ok(()));
    }
}
