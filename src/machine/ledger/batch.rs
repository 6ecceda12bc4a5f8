//! What both creates share: the order of a batch's events, chains, imported batches, results.
//!
//! ```text
//!   event  linked  linked    -     linked   -       linked (last)
//!          └───── a chain ───┘     └─ chain ┘       └─ chain_open: nothing can close it
//! ```
//!
//! A chain takes effect whole or not at all. The event that breaks it keeps its own status, the
//! others become `linked_event_failed`; a batch's last event with the linked flag is always
//! `linked_event_chain_open`. Either all events of a batch are imported, or none is.
//!
//! [`Batch`] knows positions and flags; it does not know what an event does, nor how to undo it: the
//! caller gives a mark when a chain opens, and gets it back when the chain breaks.

use std::ops::Range;

use stampede_client::wire::{
    CreateAccountStatus, CreateResult, CreateTransferStatus, TIMESTAMP_MAX,
};

/// Events in one round of hash, probe, apply: their hashes and rows stay in the first-level cache.
pub(super) const SUB_BATCH_EVENTS: usize = 128;

/// A status of `created`: the same for accounts and transfers.
pub(super) const CREATED: u32 = CreateTransferStatus::Created as u32;

/// The order of events in one batch; see the module.
#[derive(Debug)]
pub(super) struct Batch {
    index_last: usize,
    timestamp_last: u64,
    imported: bool,
    chain: Option<Chain>,
}

#[derive(Debug)]
struct Chain {
    index_first: usize,
    /// Rows in the table when the chain was opened.
    mark: u32,
    broken: bool,
}

/// What breaks: these events become failed, and the table goes back to the mark.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Broken {
    pub(super) failed: Range<usize>,
    pub(super) mark: u32,
}

/// Why an event is refused before its own checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    LinkedEventFailed,
    LinkedEventChainOpen,
    ImportedEventExpected,
    ImportedEventNotExpected,
    ImportedEventTimestampOutOfRange,
    ImportedEventTimestampMustNotAdvance,
    TimestampMustBeZero,
}

impl Batch {
    /// `count` events, the first of which is given `timestamp_first`.
    pub(super) fn new(count: usize, timestamp_first: u64, imported: bool) -> Self {
        assert!(count > 0);
        Self {
            index_last: count - 1,
            timestamp_last: timestamp_first + count as u64 - 1,
            imported,
            chain: None,
        }
    }

    /// Whether an event with neither flag needs nothing of this module.
    #[inline(always)]
    pub(super) fn is_ordinary(&self) -> bool {
        self.chain.is_none() && !self.imported
    }

    /// Begins an event: opens a chain if it asks for one, and makes the checks that come before all
    /// others. `mark` is the present number of rows.
    pub(super) fn begin(
        &mut self,
        index: usize,
        linked: bool,
        imported: bool,
        timestamp: u64,
        mark: u32,
    ) -> Result<(), Refusal> {
        if linked && self.chain.is_none() {
            self.chain = Some(Chain {
                index_first: index,
                mark,
                broken: false,
            });
        }
        if linked && index == self.index_last {
            return Err(Refusal::LinkedEventChainOpen);
        }
        if self.chain.as_ref().is_some_and(|chain| chain.broken) {
            return Err(Refusal::LinkedEventFailed);
        }
        if imported != self.imported {
            return Err(if imported {
                Refusal::ImportedEventNotExpected
            } else {
                Refusal::ImportedEventExpected
            });
        }
        if imported {
            if timestamp == 0 || timestamp > TIMESTAMP_MAX {
                return Err(Refusal::ImportedEventTimestampOutOfRange);
            }
            if timestamp >= self.timestamp_last {
                return Err(Refusal::ImportedEventTimestampMustNotAdvance);
            }
        } else if timestamp != 0 {
            return Err(Refusal::TimestampMustBeZero);
        }
        Ok(())
    }

    /// The event at `index` was not created. If that breaks a chain, says what to take back.
    pub(super) fn fail(&mut self, index: usize) -> Option<Broken> {
        let chain = self.chain.as_mut().filter(|chain| !chain.broken)?;
        chain.broken = true;
        Some(Broken {
            failed: chain.index_first..index,
            mark: chain.mark,
        })
    }

    /// Ends an event: one that is not linked is the last of its chain.
    pub(super) fn end(&mut self, linked: bool) {
        if !linked {
            self.chain = None;
        }
    }
}

/// The results of one batch: 16 bytes for each event, at whatever address.
#[derive(Debug)]
pub(super) struct Results<'a> {
    bytes: &'a mut [u8],
}

impl<'a> Results<'a> {
    pub(super) fn new(bytes: &'a mut [u8]) -> Self {
        assert!(bytes.len().is_multiple_of(CreateResult::SIZE));
        Self { bytes }
    }

    #[inline(always)]
    pub(super) fn set(&mut self, index: usize, timestamp: u64, status: u32) {
        let at = index * CreateResult::SIZE;
        let bytes: &mut [u8; CreateResult::SIZE] = (&mut self.bytes[at..at + CreateResult::SIZE])
            .try_into()
            .expect("the slice has this size");
        let result = u128::from(timestamp) | u128::from(status) << 64;
        *bytes = result.to_le_bytes();
    }

    /// The events of a broken chain keep the timestamps they were given.
    pub(super) fn fail_linked(&mut self, failed: Range<usize>) {
        const STATUS_OFFSET: usize = 8;
        for index in failed {
            let at = index * CreateResult::SIZE + STATUS_OFFSET;
            let status = CreateTransferStatus::LinkedEventFailed as u32;
            self.bytes[at..at + 4].copy_from_slice(&status.to_le_bytes());
        }
    }
}

// `fail_linked` and `CREATED` are used for both kinds.
const _: () = {
    assert!(CreateAccountStatus::Created as u32 == CREATED);
    assert!(
        CreateAccountStatus::LinkedEventFailed as u32
            == CreateTransferStatus::LinkedEventFailed as u32
    );
};

impl From<Refusal> for CreateAccountStatus {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::LinkedEventFailed => Self::LinkedEventFailed,
            Refusal::LinkedEventChainOpen => Self::LinkedEventChainOpen,
            Refusal::ImportedEventExpected => Self::ImportedEventExpected,
            Refusal::ImportedEventNotExpected => Self::ImportedEventNotExpected,
            Refusal::ImportedEventTimestampOutOfRange => Self::ImportedEventTimestampOutOfRange,
            Refusal::ImportedEventTimestampMustNotAdvance => {
                Self::ImportedEventTimestampMustNotAdvance
            }
            Refusal::TimestampMustBeZero => Self::TimestampMustBeZero,
        }
    }
}

impl From<Refusal> for CreateTransferStatus {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::LinkedEventFailed => Self::LinkedEventFailed,
            Refusal::LinkedEventChainOpen => Self::LinkedEventChainOpen,
            Refusal::ImportedEventExpected => Self::ImportedEventExpected,
            Refusal::ImportedEventNotExpected => Self::ImportedEventNotExpected,
            Refusal::ImportedEventTimestampOutOfRange => Self::ImportedEventTimestampOutOfRange,
            Refusal::ImportedEventTimestampMustNotAdvance => {
                Self::ImportedEventTimestampMustNotAdvance
            }
            Refusal::TimestampMustBeZero => Self::TimestampMustBeZero,
        }
    }
}
