//! Every reason to act without being asked, and how long each waits. Nanoseconds.
//!
//! A deadline is a point on the monotonic clock, compared on ticks; nothing here reads a clock.
//! Replicas wait differently long by their index, so that they seldom start the same thing at once.

/// A world ticks about this often.
pub const TICK_NS: u64 = 10_000_000;

/// The primary says that it lives.
pub const HEARTBEAT_NS: u64 = 25_000_000;

/// A backup that has not heard of the primary for this long wants another one: eight heartbeats. Time
/// in which this replica itself did not run (its ticks came late) does not count, so that a busy
/// machine does not depose primaries.
pub const PRIMARY_SILENT_NS: u64 = 200_000_000;

/// Added for each step from the primary to this replica: the next one asks first.
pub const STAGGER_NS: u64 = 10_000_000;

/// A primary that has not heard a replication quorum for this long wants to be replaced: it may be
/// the only one who cannot hear. Longer than the silence that backups bear, so that a cut in both
/// directions is theirs to settle.
pub const PRIMARY_DEAF_NS: u64 = 300_000_000;

/// A wish to leave the view is repeated this often, and forgotten after `EXIT_VOTE_NS`: soon, because
/// a broken connection is reason enough for a wish, and most of them are restored.
pub const EXIT_RESEND_NS: u64 = 40_000_000;
pub const EXIT_VOTE_NS: u64 = 150_000_000;

/// A view change that takes longer than this is given up for the next one.
pub const VIEW_CHANGE_NS: u64 = 500_000_000;

/// A replica that has started votes when all others have taken note of its new life, or after this:
/// those that are there answer within a round trip and a write of their superblock.
pub const ARRIVAL_NS: u64 = 150_000_000;

/// An unanswered part of a view change or a repair is asked for again.
pub const JOIN_RESEND_NS: u64 = 50_000_000;
pub const REPAIR_RETRY_NS: u64 = 60_000_000;

/// A point in time at which something is due, or never.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Deadline(u64);

impl Deadline {
    pub const NEVER: Self = Self(u64::MAX);

    pub fn after(now: u64, wait: u64) -> Self {
        Self(now.saturating_add(wait))
    }

    pub fn due(self, now: u64) -> bool {
        now >= self.0
    }

    /// So much later.
    #[must_use]
    pub fn postponed(self, by: u64) -> Self {
        Self(self.0.saturating_add(by))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_at_the_end_of_time_does_not_wrap() {
        let late = u64::MAX - TICK_NS;
        for deadline in [
            Deadline::after(late, PRIMARY_SILENT_NS),
            Deadline::after(late, 1).postponed(PRIMARY_SILENT_NS),
            Deadline::NEVER.postponed(PRIMARY_SILENT_NS),
        ] {
            assert!(!deadline.due(0) && !deadline.due(u64::MAX - 1));
        }
        assert!(Deadline::after(0, TICK_NS).due(TICK_NS));
    }
}
