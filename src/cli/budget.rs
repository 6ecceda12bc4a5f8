//! What the memory of a replica is for: printed at start, and divided where `--memory` says how much there is.

use super::Failure;
use super::size::Size;
use crate::limits::{checkpoint_bytes, log_entries_max};
use crate::machine::ledger::{Growing, LedgerOptions, Part, RowsMax};
use crate::message::PoolConfig;
use crate::replica::library::LIBRARY_MEMORY;
use crate::replica::open::session_limits;
use crate::replica::superblock::State;

/// Memory of an entry of the log, with where it is in the journal.
const LOG_ENTRY_SIZE: u64 = 80;

/// Log bytes of a transfer in a full batch.
const TRANSFER_LOG_SIZE: u64 = 128;

/// What bounds each part that grows, in the ledger's order.
const FLAGS: [&str; 3] = ["--accounts-max", "--timeouts-max", "--transfers-max"];

/// The parts, in order of printing.
#[derive(Debug)]
pub(super) struct Budget {
    parts: Vec<Part>,
    pub(super) ledger: LedgerOptions,
}

impl Budget {
    /// For `memory` bytes, or with the ledger's usual settings.
    pub(super) fn new(
        state: &State,
        memory: Option<u64>,
        rows_max: RowsMax,
    ) -> Result<Self, Failure> {
        let journal = state.segment_size * u64::from(state.segment_count);
        let interval = checkpoint_bytes(journal) / TRANSFER_LOG_SIZE;
        // Replies are encoded once more for a checkpoint.
        let replies = 2 * session_limits(state).reply_bytes as u64;
        let usual = LedgerOptions {
            rows_max,
            ..LedgerOptions::default()
        };
        let mut parts = vec![
            ("messages", PoolConfig::REPLICA.size()),
            ("files fetched from other replicas", LIBRARY_MEMORY),
            ("replies kept for clients", replies),
            ("log", log_entries_max(journal) * LOG_ENTRY_SIZE),
        ];
        parts.extend(usual.growing().iter().filter_map(Growing::part));
        let fixed: u64 = parts.iter().map(|(_, size)| size).sum();
        let ledger = match memory {
            None => usual,
            Some(memory) => usual
                .within(memory.saturating_sub(fixed), interval)
                .map_err(|least| too_little(memory, fixed + least))?,
        };
        parts.extend(ledger.memory(interval));
        Ok(Self { parts, ledger })
    }

    fn total(&self) -> u64 {
        self.parts.iter().map(|(_, size)| size).sum()
    }

    /// One line for each part, their sum, and what comes on top of it.
    pub(super) fn lines(&self) -> Vec<String> {
        let part = |(name, size): &Part| format!("memory: up to {} for {name}", Size(*size));
        let mut lines: Vec<String> = self.parts.iter().map(part).collect();
        lines.push(format!("memory: up to {} in all", Size(self.total())));
        for (growing, flag) in self.ledger.growing().iter().zip(FLAGS) {
            let Growing { what, million, max } = *growing;
            if max.is_none() {
                let million = Size(million);
                lines.push(format!(
                    "memory: besides, {million} for each million {what} ({flag})"
                ));
            }
        }
        lines
    }
}

fn too_little(memory: u64, least: u64) -> Failure {
    Failure::usage(format!(
        "--memory {} is too little: with this journal, and what --accounts-max, --timeouts-max and --transfers-max \
         allow, a replica takes {}MiB at least",
        Size(memory),
        least.div_ceil(1 << 20)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replica::superblock::Identity;

    #[test]
    fn a_budget_is_kept_and_one_too_small_names_the_least() {
        let state = State::format(&Identity {
            cluster: 7,
            replica: 0,
            replica_count: 1,
            standby_count: 0,
            sessions_max: 1024,
            segment_size: 1 << 26,
            segment_count: 16,
            recovering: false,
            journal_id: 99,
        });
        let budget = |memory| Budget::new(&state, memory, RowsMax::INDEXED);
        let failure = budget(Some(1 << 20)).unwrap_err();
        assert_eq!(failure.code, 2);
        let least = failure.message.split("takes ").nth(1).unwrap();
        let least = least.split(" at least").next().unwrap();
        assert!(failure.message.contains("--memory 1 MiB is too little"));
        let least = crate::cli::size::parse(least).unwrap();
        assert!(budget(Some(least - (1 << 20))).is_err());
        for memory in [least, 4 << 30, 64 << 30] {
            let budget = budget(Some(memory)).unwrap();
            assert!(budget.total() <= memory);
            assert_eq!(budget.lines().len(), 12);
        }
        assert!(budget(None).unwrap().total() < 3 << 30);

        // What the limits bound is a part of it, and has to fit.
        let rows_max = RowsMax {
            accounts: 4_000_000,
            transfers: 400_000_000,
            timeouts: 1_000_000,
            ..RowsMax::INDEXED
        };
        let bounded = Budget::new(&state, None, rows_max).unwrap();
        let [accounts, timeouts, transfers] = LedgerOptions::default().growing();
        let more = bounded.total() - budget(None).unwrap().total();
        assert_eq!(
            more,
            4 * accounts.million + timeouts.million + 400 * transfers.million
        );
        let lines = bounded.lines();
        assert!(
            !lines.iter().any(|line| line.contains("besides")),
            "{lines:?}"
        );
        assert_eq!(lines.len(), 12);
        assert!(Budget::new(&state, Some(least + more - (2 << 20)), rows_max).is_err());
        let fits = Budget::new(&state, Some(least + more), rows_max).unwrap();
        assert!(fits.total() <= least + more);
    }
}
