//! Timeouts: which pending transfers expire when, and the pulse that expires them.
//!
//! A pending transfer with a timeout of `t` seconds expires at `timestamp + t * 10^9`. The pulse is
//! an operation of the log, made by the primary when [`Expiries::due`] has come; it expires what is
//! due in order of (expiry, timestamp), at most [`PULSE_EVENTS_MAX`] at a time. Until it runs, a
//! post or void at or after the expiry already fails.
//!
//! What waits is captured for a checkpoint in slices, in order, between operations. Whoever takes away what has
//! not been reached yet copies it first; what is new since the capture began is known by its row.

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};

use stampede_client::wire::Transfer;

use super::books::{Books, ROW_UNKNOWN};
use super::resolutions::Resolution;
use super::row::Expired;
use super::snapshot::ExpiryRow;

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
    capture: Option<Capture>,
}

#[derive(Debug)]
struct Capture {
    /// What comes before this has been copied.
    reached: (u64, u32),
    /// Transfers from here on are newer than the capture.
    rows_end: u32,
    copied: Vec<ExpiryRow>,
    to: Arc<OnceLock<Vec<ExpiryRow>>>,
}

/// Copied at once: some tens of microseconds.
const SLICE: usize = if cfg!(test) { 3 } else { 4096 };

/// What waited when a capture began, for another thread.
#[derive(Debug)]
pub(super) struct CapturedExpiries {
    count: usize,
    rows: Arc<OnceLock<Vec<ExpiryRow>>>,
}

impl CapturedExpiries {
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// In order. Panics while they are being copied.
    pub(super) fn rows(&self) -> Vec<ExpiryRow> {
        let mut rows = self.rows.get().expect("the capture is complete").clone();
        rows.sort_unstable_by_key(|row| (row.expires_at, row.row));
        // What was taken away and given back by an undo was copied twice.
        rows.dedup_by_key(|row| (row.expires_at, row.row));
        assert_eq!(rows.len(), self.count);
        rows
    }
}

impl Expiries {
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(super) fn insert(&mut self, expires_at: u64, row: u32) {
        let added = self.rows.insert((expires_at, row));
        assert!(added, "a transfer expires once");
    }

    pub(super) fn remove(&mut self, expires_at: u64, row: u32) {
        let removed = self.rows.remove(&(expires_at, row));
        assert!(removed, "an unresolved transfer with a timeout is waiting");
        self.save((expires_at, row));
    }

    /// It no longer waits; a capture may want it.
    fn save(&mut self, key: (u64, u32)) {
        if let Some(capture) = &mut self.capture
            && key >= capture.reached
        {
            capture.copy(key);
        }
    }

    /// Begins to capture what waits now, of so many transfers. [`Expiries::go_on`] does the copying. A former
    /// capture that is not complete never will be.
    pub(super) fn capture(&mut self, rows_end: u32) -> CapturedExpiries {
        let to = Arc::new(OnceLock::new());
        self.capture = Some(Capture {
            reached: (0, 0),
            rows_end,
            copied: Vec::with_capacity(self.rows.len()),
            to: Arc::clone(&to),
        });
        CapturedExpiries {
            count: self.rows.len(),
            rows: to,
        }
    }

    /// Copies one slice of what is to be captured. Whether that was all.
    pub(super) fn go_on(&mut self) -> bool {
        let Some(capture) = &mut self.capture else {
            return true;
        };
        let mut rows = self.rows.range(capture.reached..);
        rows.by_ref().take(SLICE).for_each(|&key| capture.copy(key));
        if let Some(&next) = rows.next() {
            capture.reached = next;
            return false;
        }
        let Capture { copied, to, .. } = self.capture.take().expect("it is there");
        to.set(copied).expect("a capture is complete once");
        true
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
        let key = self.rows.pop_first().expect("counted before");
        self.save(key);
        key.1
    }
}

impl Capture {
    fn copy(&mut self, (expires_at, row): (u64, u32)) {
        if row < self.rows_end {
            self.copied.push(ExpiryRow {
                expires_at,
                row,
                reserved: 0,
            });
        }
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
