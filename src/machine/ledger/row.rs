//! Rows that are the ledger's own: an account with its mark, and an expiry that has happened.

use std::mem::offset_of;

use stampede_client::wire::{Account, Transfer};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, transmute};

use crate::store::Field;

const fn field(offset: usize, size: usize) -> Field {
    Field { offset, size }
}

/// A transfer's record, as it is packed in files.
pub(super) const TRANSFER_FIELDS: [Field; 13] = [
    TRANSFER_ID,
    field(offset_of!(Transfer, debit_account_id), 16),
    field(offset_of!(Transfer, credit_account_id), 16),
    field(offset_of!(Transfer, amount), 16),
    field(offset_of!(Transfer, pending_id), 16),
    field(offset_of!(Transfer, user_data_128), 16),
    field(offset_of!(Transfer, user_data_64), 8),
    field(offset_of!(Transfer, user_data_32), 4),
    field(offset_of!(Transfer, timeout), 4),
    field(offset_of!(Transfer, ledger), 4),
    field(offset_of!(Transfer, code), 2),
    field(offset_of!(Transfer, flags), 2),
    field(offset_of!(Transfer, timestamp), 8),
];
pub(super) const TRANSFER_ID: Field = field(offset_of!(Transfer, id), 16);

/// An account: the protocol's record, with a mark in the place of its reserved bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct AccountRow {
    pub(super) id: u128,
    pub(super) debits_pending: u128,
    pub(super) debits_posted: u128,
    pub(super) credits_pending: u128,
    pub(super) credits_posted: u128,
    pub(super) user_data_128: u128,
    pub(super) user_data_64: u64,
    pub(super) user_data_32: u32,
    /// One more than the latest period in which a balance changed, see [`super::history`]; 0: none did.
    pub(super) opened: u32,
    pub(super) ledger: u32,
    pub(super) code: u16,
    pub(super) flags: u16,
    pub(super) timestamp: u64,
}

const _: () = {
    assert!(size_of::<AccountRow>() == Account::SIZE);
    assert!(offset_of!(AccountRow, opened) == offset_of!(Account, reserved));
};

impl AccountRow {
    /// A new account.
    pub(super) fn new(event: &Account, timestamp: u64) -> Self {
        assert_eq!(event.reserved, 0, "checked before");
        transmute!(Account {
            timestamp,
            ..*event
        })
    }

    /// What clients see of it.
    pub(super) fn record(&self) -> Account {
        let row = Self { opened: 0, ..*self };
        transmute!(row)
    }
}

/// An expiry that has happened: what it did, without its pending transfer's row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Expired {
    /// Of the pending transfer.
    pub(super) amount: u128,
    pub(super) timestamp: u64,
    /// Transfers there were: it happened before the row with this number.
    pub(super) at: u32,
    /// Row of the pending transfer.
    pub(super) pending: u32,
    /// Rows of its accounts.
    pub(super) debit: u32,
    pub(super) credit: u32,
    /// Flags of the pending transfer.
    pub(super) flags: u16,
    pub(super) reserved: [u16; 3],
}

const _: () = assert!(size_of::<Expired>() == 48);

impl Expired {
    pub(super) fn new(
        pending: &Transfer,
        row: u32,
        (debit, credit): (u32, u32),
        timestamp: u64,
        at: u32,
    ) -> Self {
        Self {
            amount: pending.amount,
            timestamp,
            at,
            pending: row,
            debit,
            credit,
            flags: pending.flags,
            reserved: [0; 3],
        }
    }
}
