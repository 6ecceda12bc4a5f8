//! Elements of bodies: accounts, transfers, filters and results, exactly as they lie on the wire.
//!
//! No implicit padding anywhere and every bit pattern is a value, so reading is a cast. Native integers, sixteen-byte
//! alignment where a `u128` is inside: a payload is read in place with `<[Account]>::ref_from_bytes(payload)`, which
//! gives an error (not a panic) for a length that does not divide or an address that is not aligned.
//!
//! Whether a value makes sense (reserved bits, ranges) is the ledger's business, not the layout's.

use super::status::{CreateAccountStatus, CreateTransferStatus};
use core::mem::{align_of, size_of};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

macro_rules! records {
    ($($(#[$doc:meta])* $name:ident: $size:literal { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
        #[repr(C)]
        pub struct $name {
            $($(#[$field_doc])* pub $field: $type,)*
        }

        impl $name {
            pub const SIZE: usize = $size;
        }

        impl Default for $name {
            fn default() -> $name {
                $name::new_zeroed()
            }
        }

        const _: () = assert!(size_of::<$name>() == $size);
        const _: () = assert!(align_of::<$name>() <= 16);
    )*};
}

records! {
    /// A ledger account; the four balances are the server's.
    Account: 128 {
        id: u128,
        debits_pending: u128,
        debits_posted: u128,
        credits_pending: u128,
        credits_posted: u128,
        user_data_128: u128,
        user_data_64: u64,
        user_data_32: u32,
        reserved: u32,
        ledger: u32,
        code: u16,
        flags: u16,
        timestamp: u64,
    }

    /// A movement between two accounts, or the post or void of a pending one.
    Transfer: 128 {
        id: u128,
        debit_account_id: u128,
        credit_account_id: u128,
        amount: u128,
        pending_id: u128,
        user_data_128: u128,
        user_data_64: u64,
        user_data_32: u32,
        /// Seconds; for pending transfers only.
        timeout: u32,
        ledger: u32,
        code: u16,
        flags: u16,
        timestamp: u64,
    }

    /// Outcome of one create event (operations 146 and 147): one for each event, in order.
    CreateResult: 16 {
        timestamp: u64,
        /// A code of `CreateAccountStatus` or `CreateTransferStatus`.
        status: u32,
        reserved: u32,
    }

    /// Outcome of one failed create event (operations 129, 130, 138, 139): none for success.
    SparseResult: 8 {
        /// Position of the event in its batch.
        index: u32,
        status: u32,
    }

    /// Balances of an account right after the transfer with this timestamp.
    AccountBalance: 128 {
        debits_pending: u128,
        debits_posted: u128,
        credits_pending: u128,
        credits_posted: u128,
        timestamp: u64,
        reserved: [u8; 56],
    }

    /// Which transfers or balances of one account to return.
    AccountFilter: 128 {
        account_id: u128,
        user_data_128: u128,
        user_data_64: u64,
        user_data_32: u32,
        code: u16,
        reserved: [u8; 58],
        timestamp_min: u64,
        timestamp_max: u64,
        limit: u32,
        flags: u32,
    }

    /// Which accounts or transfers to return.
    QueryFilter: 64 {
        user_data_128: u128,
        user_data_64: u64,
        user_data_32: u32,
        ledger: u32,
        code: u16,
        reserved: [u8; 6],
        timestamp_min: u64,
        timestamp_max: u64,
        limit: u32,
        flags: u32,
    }

    /// Which change events to return.
    ChangeEventsFilter: 64 {
        timestamp_min: u64,
        timestamp_max: u64,
        limit: u32,
        reserved: [u8; 44],
    }

    /// One transfer or expiry with both accounts right after it.
    ChangeEvent: 384 {
        transfer_id: u128,
        transfer_amount: u128,
        transfer_pending_id: u128,
        transfer_user_data_128: u128,
        transfer_user_data_64: u64,
        transfer_user_data_32: u32,
        transfer_timeout: u32,
        transfer_code: u16,
        transfer_flags: u16,
        ledger: u32,
        /// A constant of `change_event_type`.
        kind: u8,
        reserved: [u8; 39],
        debit_account_id: u128,
        debit_account_debits_pending: u128,
        debit_account_debits_posted: u128,
        debit_account_credits_pending: u128,
        debit_account_credits_posted: u128,
        debit_account_user_data_128: u128,
        debit_account_user_data_64: u64,
        debit_account_user_data_32: u32,
        debit_account_code: u16,
        debit_account_flags: u16,
        credit_account_id: u128,
        credit_account_debits_pending: u128,
        credit_account_debits_posted: u128,
        credit_account_credits_pending: u128,
        credit_account_credits_posted: u128,
        credit_account_user_data_128: u128,
        credit_account_user_data_64: u64,
        credit_account_user_data_32: u32,
        credit_account_code: u16,
        credit_account_flags: u16,
        timestamp: u64,
        transfer_timestamp: u64,
        debit_account_timestamp: u64,
        credit_account_timestamp: u64,
    }

    /// Body of a register request.
    RegisterRequest: 256 {
        batch_size_limit: u32,
        reserved: [u8; 252],
    }

    /// Body of a register reply.
    RegisterResult: 64 {
        /// Largest request body the server takes, trailer included.
        batch_size_limit: u32,
        reserved: [u8; 60],
    }
}

impl CreateResult {
    pub const fn account(timestamp: u64, status: CreateAccountStatus) -> CreateResult {
        CreateResult {
            timestamp,
            status: status as u32,
            reserved: 0,
        }
    }

    pub const fn transfer(timestamp: u64, status: CreateTransferStatus) -> CreateResult {
        CreateResult {
            timestamp,
            status: status as u32,
            reserved: 0,
        }
    }

    /// Whether the event took effect.
    pub const fn is_created(&self) -> bool {
        self.status == CreateAccountStatus::Created as u32
    }

    /// The status of a create_accounts event; `None` for a code this crate does not know.
    pub const fn account_status(&self) -> Option<CreateAccountStatus> {
        CreateAccountStatus::from_code(self.status)
    }

    /// The status of a create_transfers event; `None` for a code this crate does not know.
    pub const fn transfer_status(&self) -> Option<CreateTransferStatus> {
        CreateTransferStatus::from_code(self.status)
    }
}

/// Bits of `Account::flags`.
pub mod account_flags {
    pub const LINKED: u16 = 1 << 0;
    pub const DEBITS_MUST_NOT_EXCEED_CREDITS: u16 = 1 << 1;
    pub const CREDITS_MUST_NOT_EXCEED_DEBITS: u16 = 1 << 2;
    pub const HISTORY: u16 = 1 << 3;
    pub const IMPORTED: u16 = 1 << 4;
    pub const CLOSED: u16 = 1 << 5;
    pub const RESERVED: u16 = !0x3f;
}

/// Bits of `Transfer::flags`.
pub mod transfer_flags {
    pub const LINKED: u16 = 1 << 0;
    pub const PENDING: u16 = 1 << 1;
    pub const POST_PENDING_TRANSFER: u16 = 1 << 2;
    pub const VOID_PENDING_TRANSFER: u16 = 1 << 3;
    pub const BALANCING_DEBIT: u16 = 1 << 4;
    pub const BALANCING_CREDIT: u16 = 1 << 5;
    pub const CLOSING_DEBIT: u16 = 1 << 6;
    pub const CLOSING_CREDIT: u16 = 1 << 7;
    pub const IMPORTED: u16 = 1 << 8;
    pub const RESERVED: u16 = !0x1ff;
}

/// Bits of `AccountFilter::flags`.
pub mod account_filter_flags {
    pub const DEBITS: u32 = 1 << 0;
    pub const CREDITS: u32 = 1 << 1;
    pub const REVERSED: u32 = 1 << 2;
    pub const RESERVED: u32 = !0x7;
}

/// Bits of `QueryFilter::flags`.
pub mod query_filter_flags {
    pub const REVERSED: u32 = 1 << 0;
    pub const RESERVED: u32 = !0x1;
}

/// Values of `ChangeEvent::kind` (the field `type` of the protocol).
pub mod change_event_type {
    pub const SINGLE_PHASE: u8 = 0;
    pub const TWO_PHASE_PENDING: u8 = 1;
    pub const TWO_PHASE_POSTED: u8 = 2;
    pub const TWO_PHASE_VOIDED: u8 = 3;
    pub const TWO_PHASE_EXPIRED: u8 = 4;
}

// Offsets that the server's documents name; a field moved by accident does not compile.
const _: () = {
    use core::mem::offset_of;
    assert!(offset_of!(Account, user_data_64) == 96);
    assert!(offset_of!(Account, reserved) == 108);
    assert!(offset_of!(Account, flags) == 118);
    assert!(offset_of!(Transfer, timeout) == 108);
    assert!(offset_of!(Transfer, flags) == 118);
    assert!(offset_of!(AccountBalance, timestamp) == 64);
    assert!(offset_of!(AccountFilter, timestamp_min) == 104);
    assert!(offset_of!(AccountFilter, limit) == 120);
    assert!(offset_of!(QueryFilter, code) == 32);
    assert!(offset_of!(QueryFilter, timestamp_min) == 40);
    assert!(offset_of!(QueryFilter, limit) == 56);
    assert!(offset_of!(ChangeEventsFilter, limit) == 16);
    assert!(offset_of!(ChangeEvent, transfer_code) == 80);
    assert!(offset_of!(ChangeEvent, kind) == 88);
    assert!(offset_of!(ChangeEvent, debit_account_id) == 128);
    assert!(offset_of!(ChangeEvent, debit_account_flags) == 238);
    assert!(offset_of!(ChangeEvent, credit_account_id) == 240);
    assert!(offset_of!(ChangeEvent, credit_account_flags) == 350);
    assert!(offset_of!(ChangeEvent, timestamp) == 352);
    assert!(offset_of!(ChangeEvent, credit_account_timestamp) == 376);
};
