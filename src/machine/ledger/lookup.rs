//! lookup_accounts and lookup_transfers: the records of ids, in the order asked.
//!
//! Ids that are not there, zero and the largest included, are skipped; an id asked twice is answered
//! twice. Ids that failed for good are no transfers.

use stampede_client::wire::multibatch::{self, Encoder};
use stampede_client::wire::operation::Operation;
use stampede_client::wire::{Account, Transfer};
use zerocopy::IntoBytes;

use super::batch::SUB_BATCH_EVENTS;
use super::books::{Books, Known, ROW_UNKNOWN};
use crate::store::{IdHash, ROW_NONE};

const ID_SIZE: usize = size_of::<u128>();

/// Answers each batch of ids or filters with what `find` writes; returns the reply's size.
pub(super) fn answer(
    operation: Operation,
    body: &[u8],
    reply: &mut [u8],
    mut find: impl FnMut(&[u8], &mut [u8]) -> usize,
) -> usize {
    if !operation.is_multi_batch() {
        return find(body, reply);
    }
    let batches = multibatch::decode(body, operation.event_size())
        .expect("the gateway admits only multi-batch bodies here");
    let mut encoder = Encoder::new(reply, operation.result_size());
    for batch in batches.iter() {
        let size = find(batch.elements, encoder.spare());
        encoder.end_batch(size);
    }
    encoder.finish()
}

fn ids_of(bytes: &[u8]) -> impl Iterator<Item = u128> {
    let (ids, rest) = bytes.as_chunks::<ID_SIZE>();
    assert!(rest.is_empty(), "the gateway admits whole ids");
    ids.iter().map(|id| u128::from_le_bytes(*id))
}

/// Records written one after another.
pub(super) struct Found<'a> {
    bytes: &'a mut [u8],
    size: usize,
}

impl<'a> Found<'a> {
    pub(super) fn new(bytes: &'a mut [u8]) -> Self {
        Self { bytes, size: 0 }
    }

    pub(super) fn size(&self) -> usize {
        self.size
    }

    pub(super) fn push(&mut self, record: &[u8]) {
        self.bytes[self.size..self.size + record.len()].copy_from_slice(record);
        self.size += record.len();
    }
}

impl Books {
    pub(super) fn lookup_accounts(&self, ids: &[u8], found: &mut [u8]) -> usize {
        let mut found = Found::new(found);
        for ids in ids.chunks(SUB_BATCH_EVENTS * ID_SIZE) {
            let mut candidates = [ROW_NONE; SUB_BATCH_EVENTS];
            ids_of(ids).for_each(|id| self.account_ids.prefetch(IdHash::of(id)));
            for (candidate, id) in candidates.iter_mut().zip(ids_of(ids)) {
                *candidate = self.account_ids.candidate(IdHash::of(id));
                self.accounts.prefetch(*candidate);
            }
            for (candidate, id) in candidates.into_iter().zip(ids_of(ids)) {
                let row = self.account_row(id, candidate);
                if row != ROW_NONE {
                    found.push(Account::as_bytes(&self.accounts.row(row).record()));
                }
            }
        }
        found.size
    }

    pub(super) fn lookup_transfers(&self, ids: &[u8], found: &mut [u8]) -> usize {
        let mut found = Found::new(found);
        for ids in ids.chunks(SUB_BATCH_EVENTS * ID_SIZE) {
            let mut in_runs = [false; SUB_BATCH_EVENTS];
            ids_of(ids).for_each(|id| self.transfer_ids.prefetch(id, IdHash::of(id)));
            for (in_runs, id) in in_runs.iter_mut().zip(ids_of(ids)) {
                let candidate = self.transfer_ids.candidate(id, IdHash::of(id));
                *in_runs = candidate == ROW_UNKNOWN;
                if *in_runs {
                    self.transfer_ids.ask_runs(id, IdHash::of(id));
                } else {
                    self.prefetch_transfer(candidate);
                }
            }
            for (_, id) in in_runs
                .into_iter()
                .zip(ids_of(ids))
                .filter(|(in_runs, _)| *in_runs)
            {
                self.fetch_from_runs(id, IdHash::of(id));
            }
            for id in ids_of(ids) {
                if let Known::Transfer(row) = self.transfer(id, IdHash::of(id)) {
                    found.push(Transfer::as_bytes(&self.transfer_row(row)));
                }
            }
        }
        found.size
    }
}
