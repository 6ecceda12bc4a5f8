//! One primary in each view: whoever speaks for a view as its primary is the same replica all along,
//! and the same start of it; and it makes one prepare for each place in the log.
//!
//! Looks at what replicas send, heartbeats and prepares, whether or not they arrive: two primaries that
//! never reach anybody at the same time are two primaries. A primary that restarts must not go on in its
//! view, because prepares of its former life may still be under way: the view would have two different
//! ones at one place. Only a replica that has neither peers nor standbys does, for nobody hears it.
//!
//! The owner asks only for replicas whose disks have forgotten nothing. One that was set back may speak
//! once more in a view that it has led; nobody listens, as it has introduced itself in an earlier life
//! than they know, and `log` would see it if they did.

use std::collections::BTreeMap;

use super::{Violation, hold};
use crate::message::{Command, Header, Op, View};
use crate::protocol::ReplicaIndex;

/// Prepares that are remembered: more than are under way at once, in all views that overlap.
const PREPARES_KEPT: usize = 4096;

/// See the module.
#[derive(Debug)]
pub struct OnePrimary {
    /// There is only one member: its restarts go on in its view.
    alone: bool,
    /// By view: who leads it, and in which start.
    primaries: BTreeMap<View, (ReplicaIndex, u32)>,
    /// By view and operation: the checksum of the prepare. The first are forgotten first.
    prepares: BTreeMap<(View, Op), u128>,
}

impl OnePrimary {
    pub fn new(member_count: u8) -> Self {
        Self {
            alone: member_count == 1,
            primaries: BTreeMap::new(),
            prepares: BTreeMap::new(),
        }
    }

    /// A replica, in its `life`th start, sends a message.
    pub fn on_send(
        &mut self,
        replica: ReplicaIndex,
        life: u32,
        header: &Header,
    ) -> Result<(), Violation> {
        match header.command() {
            Some(Command::Commit) => {
                let life = if self.alone { 0 } else { life };
                let (leader, since) = *self.primaries.entry(header.view).or_insert((replica, life));
                hold!(
                    (leader, since) == (replica, life),
                    "one primary",
                    "in view {}, replica {replica} leads in its start {life}, and replica {leader} did in its start {since}",
                    header.view
                );
            }
            Some(Command::Prepare) => {
                let known = *self
                    .prepares
                    .entry((header.view, header.op))
                    .or_insert(header.checksum);
                hold!(
                    known == header.checksum,
                    "one primary",
                    "view {} has two prepares at op {}: replica {replica} sends {:x}, {known:x} was sent before",
                    header.view,
                    header.op,
                    header.checksum
                );
                if self.prepares.len() > PREPARES_KEPT {
                    self.prepares.pop_first();
                }
            }
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heartbeat(view: View) -> Header {
        Header::new(Command::Commit, 0, 0, view)
    }

    #[test]
    fn two_replicas_or_two_lives_that_lead_one_view_are_found() {
        let mut check = OnePrimary::new(3);
        assert_eq!(check.on_send(0, 1, &heartbeat(0)), Ok(()));
        assert_eq!(check.on_send(0, 1, &heartbeat(0)), Ok(()));
        assert_eq!(check.on_send(1, 1, &heartbeat(1)), Ok(()));
        assert!(check.on_send(2, 1, &heartbeat(1)).is_err());
        assert!(check.on_send(0, 2, &heartbeat(0)).is_err());
        let mut alone = OnePrimary::new(1);
        assert_eq!(alone.on_send(0, 1, &heartbeat(0)), Ok(()));
        assert_eq!(alone.on_send(0, 2, &heartbeat(0)), Ok(()));
    }

    #[test]
    fn two_prepares_at_one_place_of_one_view_are_found() {
        let mut check = OnePrimary::new(3);
        let prepare = |view, checksum| {
            let mut header = Header::new(Command::Prepare, 0, 0, view);
            (header.op, header.checksum) = (7, checksum);
            header
        };
        assert_eq!(check.on_send(0, 1, &prepare(3, 11)), Ok(()));
        assert_eq!(check.on_send(1, 1, &prepare(3, 11)), Ok(()));
        assert_eq!(check.on_send(1, 1, &prepare(4, 12)), Ok(()));
        assert!(check.on_send(2, 5, &prepare(3, 12)).is_err());
    }
}
