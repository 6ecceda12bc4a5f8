//! What the memory of a replica is for: printed at start, and divided where `--memory` says how much there is.

use super::Failure;
use super::size::Size;
use crate::limits::{checkpoint_bytes, log_entries_max};
use crate::machine::ledger::{
    ACCOUNT_SIZE, LedgerOptions, Part, RESOLUTIONS_SIZE, RowsMax, TIMEOUT_SIZE,
};
use crate::message::PoolConfig;
use crate::replica::open::session_limits;
use crate::replica::superblock::State;

/// Memory of an entry of the log, with where it is in the journal.
const LOG_ENTRY_SIZE: u64 = 80;

/// Log bytes of a transfer in a full batch.
const TRANSFER_LOG_SIZE: u64 = 128;

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
            ("replies kept for clients", replies),
            ("log", log_entries_max(journal) * LOG_ENTRY_SIZE),
        ];
        parts.extend(usual.bounded());
        let fixed: u64 = parts.iter().map(|(_, size)| size).sum();
        let ledger = match memory {
            None => usual,
            Some(memory) => usual
                .within(memory.saturating_sub(fixed), interval)
                .map_err(|least| too_little(memory, fixed + least, journal, &parts))?,
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
        let (max, usual) = (self.ledger.rows_max, RowsMax::INDEXED);
        let million = |size: u64| Size(size * 1_000_000);
        let unbounded = [
            (max.accounts == usual.accounts).then(|| {
                format!("{} for each million accounts (--accounts-max)", million(ACCOUNT_SIZE))
            }),
            (max.timeouts == usual.timeouts).then(|| {
                format!(
                    "{} for each million pending transfers with a timeout (--timeouts-max)",
                    million(TIMEOUT_SIZE)
                )
            }),
            (max.transfers == usual.transfers).then(|| {
                format!(
                    "{} for each hundred million transfers of a time when some were pending (--transfers-max)",
                    million(RESOLUTIONS_SIZE)
                )
            }),
        ];
        lines.push(format!("memory: up to {} in all", Size(self.total())));
        let unbounded = unbounded.into_iter().flatten();
        lines.extend(unbounded.map(|what| format!("memory: besides, {what}")));
        lines
    }
}

fn too_little(memory: u64, least: u64, journal: u64, parts: &[Part]) -> Failure {
    let bounded: Vec<&str> = parts[3..].iter().map(|(name, _)| *name).collect();
    Failure::usage(format!(
        "--memory {} is too little: with a journal of {}{} a replica takes {}MiB at least",
        Size(memory),
        Size(journal),
        if bounded.is_empty() {
            String::new()
        } else {
            format!(" and these {}", bounded.join(", "))
        },
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
            assert_eq!(budget.lines().len(), 11);
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
        let more = bounded.total() - budget(None).unwrap().total();
        assert_eq!(
            more,
            4_000_000 * ACCOUNT_SIZE + 200_000_000 + 1_000_000 * TIMEOUT_SIZE
        );
        let lines = bounded.lines();
        assert!(
            !lines.iter().any(|line| line.contains("besides")),
            "{lines:?}"
        );
        assert_eq!(lines.len(), 11);
        assert!(Budget::new(&state, Some(least + more - (2 << 20)), rows_max).is_err());
        let fits = Budget::new(&state, Some(least + more), rows_max).unwrap();
        assert!(fits.total() <= least + more);
    }
}
