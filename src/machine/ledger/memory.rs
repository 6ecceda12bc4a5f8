//! How much memory a ledger takes, part by part, and how a given amount is divided.
//!
//! Accounts, pending transfers with a timeout and what became of pending transfers are in memory whatever there is of
//! them ([`Growing`]): a part of the whole where the ledger's limits bound them, and apart from it otherwise.

use stampede_client::wire::Transfer;

use super::row::AccountRow;
use super::{LedgerOptions, RowsMax};
use crate::store::INDEX_ENTRY_SIZE_MAX;

/// An account in memory: its row, the row's copy while a checkpoint is written, its entry in the index.
const ACCOUNT_SIZE: u64 = 2 * size_of::<AccountRow>() as u64 + INDEX_ENTRY_SIZE_MAX;

/// A pending transfer with a timeout that waits: its entry in order of expiry, and as much while a checkpoint is
/// captured.
const TIMEOUT_SIZE: u64 = 2 * 64;

/// Transfers of which it takes a byte to say what became of them, if they were pending: two bits each, and their copy
/// while a checkpoint is written.
const RESOLVED_PER_BYTE: u64 = 2;

/// Something in memory, and its bytes at most.
pub type Part = (&'static str, u64);

/// What is in memory whatever there is of it.
#[derive(Debug, Clone, Copy)]
pub struct Growing {
    pub what: &'static str,
    /// Bytes at most for each million.
    pub million: u64,
    /// How many there may be; `None` for as many as rows have numbers.
    pub max: Option<u32>,
}

impl Growing {
    /// What it takes, if that is bounded.
    pub fn part(&self) -> Option<Part> {
        let size = |max: u32| u64::from(max) * self.million / 1_000_000;
        self.max.map(|max| (self.what, size(max)))
    }
}

/// Chunks that are touched ahead, see [`super::Ledger`]'s `prepare`.
pub(super) const CHUNKS_AHEAD: u32 = 4;

/// Postings and openings of a chunk, before they are in a file: with a million accounts that are used evenly.
const CHUNK_PARTS_SIZE: u64 = 3 << 20;

/// A waiting pending transfer: its row and its number.
const WAITING_SIZE: u64 = size_of::<(u32, Transfer)>() as u64;

/// A hash of an id that waits for a run.
const HASH_SIZE: u64 = size_of::<u64>() as u64;

const FILTER_SIZE_MIN: u64 = 8 << 20;
const FILTER_SIZE_MAX: u64 = 4 << 30;
const WAITING_ROWS_MIN: u32 = 1 << 16;
const RESIDENT_CHUNKS_MAX: u32 = 1 << 14;

impl LedgerOptions {
    fn chunk_rows(&self) -> u64 {
        1 << self.chunk_rows_log2
    }

    fn chunk_size(&self) -> u64 {
        self.chunk_rows() * size_of::<Transfer>() as u64
    }

    /// What memory is for, if there is a checkpoint after each `interval` transfers at the latest: while one is
    /// written, those of the next come in.
    pub fn memory(&self, interval: u64) -> [Part; 4] {
        let unpublished = 2 * interval.div_ceil(self.chunk_rows()) + 1;
        let chunks = unpublished + u64::from(self.resident_chunks);
        let transfers = chunks * (self.chunk_size() + CHUNK_PARTS_SIZE)
            + u64::from(CHUNKS_AHEAD) * self.chunk_size();
        // Of transfers, and as many that failed. A sweep takes as long as a quarter of them.
        let run = self.chunk_rows() << self.run_chunks_log2;
        let recent = (2 * run + unpublished * self.chunk_rows()) * 5 / 4;
        // The former filter is in use while one of twice the size is made.
        let filter = self.filter_size + self.filter_size / 2;
        [
            ("recent transfers", transfers),
            ("recent ids", recent * (INDEX_ENTRY_SIZE_MAX + HASH_SIZE)),
            ("filter of old ids", filter),
            (
                "pending transfers that wait",
                u64::from(self.waiting_rows) * WAITING_SIZE,
            ),
        ]
    }

    /// What grows with what the ledger holds: accounts, timeouts, transfers.
    pub fn growing(&self) -> [Growing; 3] {
        let (max, usual) = (self.rows_max, RowsMax::INDEXED);
        let growing = |what, million, max: u32, usual: u32| Growing {
            what,
            million,
            max: (max < usual).then_some(max),
        };
        let million = 1_000_000;
        [
            growing(
                "accounts",
                million * ACCOUNT_SIZE,
                max.accounts,
                usual.accounts,
            ),
            growing(
                "pending transfers with a timeout",
                million * TIMEOUT_SIZE,
                max.timeouts,
                usual.timeouts,
            ),
            growing(
                "transfers, among them resolved ones",
                million / RESOLVED_PER_BYTE,
                max.transfers,
                usual.transfers,
            ),
        ]
    }

    /// The same settings for so many bytes: a quarter each for the filter and for what waits, the rest for recent
    /// transfers.
    ///
    /// # Errors
    /// How many bytes it takes at least.
    pub fn within(self, bytes: u64, interval: u64) -> Result<Self, u64> {
        let total =
            |options: &Self| -> u64 { options.memory(interval).iter().map(|(_, size)| size).sum() };
        let mut options = Self {
            resident_chunks: 0,
            filter_size: FILTER_SIZE_MIN,
            waiting_rows: WAITING_ROWS_MIN,
            ..self
        };
        let least = total(&options);
        let share = bytes.checked_sub(least).ok_or(least)? / 4;
        let filter = share / 3 * 2;
        while options.filter_size * 2 <= filter.min(FILTER_SIZE_MAX) {
            options.filter_size *= 2;
        }
        let waiting = u32::try_from(share / WAITING_SIZE).unwrap_or(u32::MAX);
        options.waiting_rows =
            waiting.clamp(WAITING_ROWS_MIN, LedgerOptions::default().waiting_rows);
        let left = bytes.saturating_sub(total(&options));
        let resident = left / (self.chunk_size() + CHUNK_PARTS_SIZE);
        options.resident_chunks = u32::try_from(resident)
            .unwrap_or(u32::MAX)
            .min(RESIDENT_CHUNKS_MAX);
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_is_enough_and_is_used() {
        const INTERVAL: u64 = 1 << 20;
        let total = |options: LedgerOptions| -> u64 {
            options.memory(INTERVAL).iter().map(|(_, size)| size).sum()
        };
        let least = LedgerOptions::default().within(0, INTERVAL).unwrap_err();
        assert!(
            LedgerOptions::default()
                .within(least - 1, INTERVAL)
                .is_err()
        );
        let mut before = LedgerOptions::default().within(least, INTERVAL).unwrap();
        for more in (0..64).map(|step| step * (100 << 20)) {
            let options = LedgerOptions::default()
                .within(least + more, INTERVAL)
                .unwrap();
            let used = total(options);
            assert!(used <= least + more, "{used} {least} {more}");
            // Half of what is left may be too little for a filter of twice the size, or for another chunk.
            assert!(used >= least + more - (12 << 20), "{used} {least} {more}");
            assert!(options.filter_size >= before.filter_size);
            before = options;
        }
        assert!(before.resident_chunks > 100 && before.filter_size >= 256 << 20);
    }
}
