//! At most once: no request number of a client's session is executed twice.
//!
//! A register may be in the log twice (a client repeats it before it knows its session; the table
//! keeps the first), so it is not counted.

use std::collections::BTreeMap;

use super::{Violation, hold};
use crate::message::{Header, Op};

/// See the module.
#[derive(Debug, Default)]
pub struct AtMostOnce {
    /// By client and session: the latest request executed, and where.
    latest: BTreeMap<(u128, u64), (u32, Op)>,
}

impl AtMostOnce {
    /// An operation is executed for the first time, in log order.
    pub fn on_execute(&mut self, prepare: &Header) -> Result<(), Violation> {
        let (client, session, request) = (prepare.client, prepare.session, prepare.request);
        if client == 0 || request == 0 {
            return Ok(());
        }
        let latest = self.latest.insert((client, session), (request, prepare.op));
        let (before, at) = latest.unwrap_or_default();
        hold!(
            request == before + 1,
            "at most once",
            "op {} is request {request} of client {client:x}, session {session}; op {at} was its request {before}",
            prepare.op
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Command;

    #[test]
    fn a_request_executed_twice_is_found() {
        let mut check = AtMostOnce::default();
        let prepare = |op, request| {
            let mut header = Header::new(Command::Prepare, 0, 0, 0);
            (header.op, header.client, header.session, header.request) = (op, 5, 1, request);
            header
        };
        assert_eq!(check.on_execute(&prepare(1, 0)), Ok(()));
        assert_eq!(check.on_execute(&prepare(2, 0)), Ok(()));
        assert_eq!(check.on_execute(&prepare(3, 1)), Ok(()));
        assert!(check.on_execute(&prepare(4, 1)).is_err());
    }
}
