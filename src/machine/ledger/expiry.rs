//! Timeouts: which pending transfers expire when, and the pulse that expires them.
//!
//! A pending transfer with a timeout of `t` seconds expires at `timestamp + t * 10^9`. The pulse is
//! an operation of the log, made by the primary when [`Expiries::due`] has come; it expires what is
//! due in order of (expiry, timestamp), at most [`PULSE_EVENTS_MAX`] at a time. Until it runs, a
//! post or void at or after the expiry already fails.

use std::collections::BTreeSet;

use stampede_client::wire::Transfer;

use super::books::{Books, ROW_UNKNOWN};
use super::resolutions::Resolution;
use super::row::Expired;

/// Most expiries of one pulse, and what a pulse adds to the cluster's time: each expiry has a
/// timestamp of its own.
pub const PULSE_EVENTS_MAX: u32 = 8190;

const NANOSECONDS_PER_SECOND: u64 = 1_000_000_000;

/// When a pending transfer expires; `None` if it never does. Saturates where the protocol's time
/// ends: such a transfer is refused when it is created.
pub(super) fn expires_at(pending: &Transfer) -> Option<u64> {
    let timeout = u64::from(pending.timeout) * NANOSECONDS_PER_SECOND;
    (timeout > 0).then(|| pending.timestamp.saturating_add(timeout))
}

/// Unresolved pending transfers with a timeout, by (expiry, row): rows ascend like timestamps.
#[derive(Debug, Default)]
pub(super) struct Expiries {
    rows: BTreeSet<(u64, u32)>,
}

impl Expiries {
    pub(super) fn insert(&mut self, expires_at: u64, row: u32) {
        let added = self.rows.insert((expires_at, row));
        assert!(added, "a transfer expires once");
    }

    pub(super) fn remove(&mut self, expires_at: u64, row: u32) {
        let removed = self.rows.remove(&(expires_at, row));
        assert!(removed, "an unresolved transfer with a timeout is waiting");
    }

    /// The first expiry; `u64::MAX` if nothing waits.
    pub(super) fn due(&self) -> u64 {
        self.rows
            .first()
            .map_or(u64::MAX, |&(expires_at, _)| expires_at)
    }

    pub(super) fn iter(&self) -> impl ExactSizeIterator<Item = (u64, u32)> {
        self.rows.iter().copied()
    }

    pub(super) fn contains(&self, expires_at: u64, row: u32) -> bool {
        self.rows.contains(&(expires_at, row))
    }

    /// How many a pulse at `timestamp` takes.
    fn count_due(&self, timestamp: u64) -> u64 {
        let due = self.rows.range(..=(timestamp, u32::MAX));
        due.take(PULSE_EVENTS_MAX as usize).count() as u64
    }

    fn pop(&mut self) -> u32 {
        let (_, row) = self.rows.pop_first().expect("counted before");
        row
    }
}

impl Books {
    /// The pulse: expires what is due at `timestamp`. No checks: it works on closed accounts too.
    pub(super) fn expire(&mut self, timestamp: u64) {
        let due = self.expiries.count_due(timestamp);
        // Each has a timestamp of its own, and the last one the pulse's.
        for timestamp in timestamp - due + 1..=timestamp {
            let row = self.expiries.pop();
            assert_eq!(self.resolutions.of(row), Resolution::None);
            let pending = self.transfer_row(row);
            let (debit, credit) = self.accounts_of(&pending, ROW_UNKNOWN, ROW_UNKNOWN);
            self.open_accounts(debit, credit);
            self.release_pending(&pending, debit, credit);
            self.reopen_closed(&pending, debit, credit);
            self.set_resolution(row, Resolution::Expired);
            let at = self.transfers.len();
            let expired = Expired::new(&pending, row, (debit, credit), timestamp, at);
            self.expired.push(&expired);
        }
    }
}
