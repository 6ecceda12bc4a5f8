//! Every reason to act without being asked, and how long each waits. Nanoseconds.
//!
//! A deadline is a point on the monotonic clock, compared on ticks; nothing here reads a clock.
//! Replicas wait differently long by their index, so that they seldom start the same thing at once.

/// A world ticks about this often.
pub const TICK_NS: u64 = 10_000_000;

/// The primary says that it lives.
pub const HEARTBEAT_NS: u64 = 50_000_000;

/// A backup that has not heard of the primary for this long wants another one. Eight heartbeats:
/// on a busy machine a process may not run for a hundred milliseconds.
pub const PRIMARY_SILENT_NS: u64 = 400_000_000;

/// Added for each step of the replica's index.
pub const STAGGER_NS: u64 = 40_000_000;

/// A wish to leave the view is repeated this often, and forgotten after `EXIT_VOTE_NS`.
pub const EXIT_RESEND_NS: u64 = 50_000_000;
pub const EXIT_VOTE_NS: u64 = 500_000_000;

/// A view change that takes longer than this is given up for the next one.
pub const VIEW_CHANGE_NS: u64 = 700_000_000;

/// An unanswered part of a view change or a repair is asked for again.
pub const JOIN_RESEND_NS: u64 = 100_000_000;
pub const REPAIR_RETRY_NS: u64 = 60_000_000;

/// A point in time at which something is due, or never.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadline(u64);

impl Deadline {
    pub const NEVER: Self = Self(u64::MAX);

    pub fn after(now: u64, wait: u64) -> Self {
        Self(now.saturating_add(wait))
    }

    pub fn due(self, now: u64) -> bool {
        now >= self.0
    }
}
