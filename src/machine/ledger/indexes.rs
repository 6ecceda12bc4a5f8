//! Where transfers and accounts are that have a value: the postings of every full chunk.
//!
//! ```text
//!   transfers   user_data_128  user_data_64  user_data_32  ledger  code  debit account  credit account
//!   accounts    user_data_128  user_data_64  user_data_32  ledger  code
//!   expiries                                                            debit account  credit account
//! ```
//!
//! Zero is not posted: no filter asks for it. The key of an account is the number of its row; of
//! `user_data_128` and `user_data_64`, the low half of XXH3-64 of its bytes; of the rest, the value. So
//! postings give candidates, and the row decides.
//!
//! A chunk is posted when an operation has filled it, and the chunk that is not yet full is scanned. The
//! accounts of its transfers are kept as row numbers, so that nothing is looked up twice.

use stampede_client::wire::{AccountFilter, QueryFilter, Transfer};
use xxhash_rust::xxh3::xxh3_64;

use super::row::{AccountRow, Expired};
use crate::store::{Blob, Plain, PostingsBuilder, Table};

/// Columns of the fields that filters ask for; the first ones of transfers, all of accounts.
const FIELDS: usize = 5;
/// Columns of transfers.
pub(super) const TRANSFER_DEBIT: usize = FIELDS;
pub(super) const TRANSFER_CREDIT: usize = FIELDS + 1;
pub(super) const TRANSFER_COLUMNS: u32 = 7;
pub(super) const ACCOUNT_COLUMNS: u32 = 5;
/// Columns of expiries.
pub(super) const EXPIRED_DEBIT: usize = 0;
pub(super) const EXPIRED_CREDIT: usize = 1;
pub(super) const EXPIRED_COLUMNS: u32 = 2;

/// What the columns are called.
pub(super) const TRANSFER_KEYS: [&str; 7] = [
    "user_data_128",
    "user_data_64",
    "user_data_32",
    "ledger",
    "code",
    "debit account",
    "credit account",
];
pub(super) const ACCOUNT_KEYS: [&str; FIELDS] = [
    "user_data_128",
    "user_data_64",
    "user_data_32",
    "ledger",
    "code",
];
pub(super) const EXPIRED_KEYS: [&str; 2] = ["debit account", "credit account"];

/// The fields that filters ask for: what a record has, or what a filter wants of it (zero: anything).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Fields {
    pub(super) user_data_128: u128,
    pub(super) user_data_64: u64,
    pub(super) user_data_32: u32,
    pub(super) ledger: u32,
    pub(super) code: u16,
}

/// The key of each field, in the order of the columns; `None` for zero.
type Keys = [Option<u32>; FIELDS];

impl Fields {
    /// Whether a record that `has` these is wanted.
    pub(super) fn are_met_by(&self, has: &Self) -> bool {
        (self.user_data_128 == 0 || self.user_data_128 == has.user_data_128)
            && (self.user_data_64 == 0 || self.user_data_64 == has.user_data_64)
            && (self.user_data_32 == 0 || self.user_data_32 == has.user_data_32)
            && (self.ledger == 0 || self.ledger == has.ledger)
            && (self.code == 0 || self.code == has.code)
    }

    /// These differences, and those of the rows to `first`: not zero where a field differs.
    fn and_differences<T: Plain>(mut self, first: &Self, rows: &[T]) -> Self
    where
        Self: for<'a> From<&'a T>,
    {
        for row in rows {
            let row = Self::from(row);
            self.user_data_128 |= row.user_data_128 ^ first.user_data_128;
            self.user_data_64 |= row.user_data_64 ^ first.user_data_64;
            self.user_data_32 |= row.user_data_32 ^ first.user_data_32;
            self.ledger |= row.ledger ^ first.ledger;
            self.code |= row.code ^ first.code;
        }
        self
    }

    pub(super) fn keys(&self) -> Keys {
        [
            key_128(self.user_data_128),
            key_64(self.user_data_64),
            key(self.user_data_32),
            key(self.ledger),
            key(self.code.into()),
        ]
    }
}

fn key(value: u32) -> Option<u32> {
    (value != 0).then_some(value)
}

fn key_64(value: u64) -> Option<u32> {
    (value != 0).then(|| low(xxh3_64(&value.to_le_bytes())))
}

fn key_128(value: u128) -> Option<u32> {
    (value != 0).then(|| low(xxh3_64(&value.to_le_bytes())))
}

#[expect(clippy::cast_possible_truncation, reason = "takes the low half")]
fn low(hash: u64) -> u32 {
    hash as u32
}

macro_rules! fields_of {
    ($($type:ident)*) => {$(
        impl From<&$type> for Fields {
            #[inline(always)]
            fn from(record: &$type) -> Self {
                let &$type { user_data_128, user_data_64, user_data_32, ledger, code, .. } = record;
                Self { user_data_128, user_data_64, user_data_32, ledger, code }
            }
        }
    )*};
}

fields_of! { Transfer AccountRow QueryFilter }

impl From<&AccountFilter> for Fields {
    fn from(filter: &AccountFilter) -> Self {
        Self {
            user_data_128: filter.user_data_128,
            user_data_64: filter.user_data_64,
            user_data_32: filter.user_data_32,
            ledger: 0,
            code: filter.code,
        }
    }
}

/// An expiry is asked for by its accounts only.
impl From<&Expired> for Fields {
    fn from(_: &Expired) -> Self {
        Self::default()
    }
}

/// The debit and the credit account of a transfer, as rows.
pub(super) type Parties = [u32; 2];

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Indexes {
    /// By chunk, as far as chunks are full.
    pub(super) transfers: Vec<Blob>,
    pub(super) accounts: Vec<Blob>,
    pub(super) expired: Vec<Blob>,
    /// The timestamp of the first transfer of each chunk that is posted.
    pub(super) first_timestamps: Vec<u64>,
    /// The same of expiries.
    pub(super) first_expired: Vec<u64>,
    /// Of the transfers that are not yet posted.
    pub(super) parties: Vec<Parties>,
    /// Of the chunks that are not yet posted.
    varying: Vec<Varying>,
    /// Transfers that are counted in `varying`, or posted.
    seen: u32,
    builder: PostingsBuilder,
}

/// Which fields differ at all among the transfers of a chunk: usually few. Transfers that were taken back
/// count too: then a field is looked at for nothing.
#[derive(Debug)]
struct Varying {
    first: Fields,
    differs: Fields,
}

impl Indexes {
    /// An operation is over: posts the chunks that are full.
    #[inline]
    pub(super) fn settle(
        &mut self,
        transfers: &Table<Transfer>,
        accounts: &Table<AccountRow>,
        expired: &Table<Expired>,
    ) {
        self.observe(transfers);
        while self.transfers.len() < transfers.chunks_full() as usize {
            self.post_transfers(transfers.chunk(next(&self.transfers)));
        }
        while self.expired.len() < expired.chunks_full() as usize {
            let rows = expired.chunk(next(&self.expired));
            begin(&mut self.builder, rows, EXPIRED_COLUMNS);
            let debits = rows.iter().map(|row| row.debit);
            self.builder.column_of_all(debits);
            let credits = rows.iter().map(|row| row.credit);
            self.builder.column_of_all(credits);
            self.expired.push(self.builder.finish());
            self.first_expired.push(rows[0].timestamp);
        }
        self.settle_accounts(accounts);
    }

    fn post_transfers(&mut self, rows: &[Transfer]) {
        let parties = &self.parties[..rows.len()];
        let builder = &mut self.builder;
        begin(builder, rows, TRANSFER_COLUMNS);
        post_fields(builder, rows, &self.varying.remove(0).differs);
        builder.column_of_all(parties.iter().map(|[debit, _]| *debit));
        builder.column_of_all(parties.iter().map(|[_, credit]| *credit));
        self.transfers.push(builder.finish());
        self.first_timestamps.push(rows[0].timestamp);
        self.parties.drain(..rows.len());
    }

    /// Looks at the transfers that are new, while they are still in the cache.
    #[inline]
    pub(super) fn observe(&mut self, transfers: &Table<Transfer>) {
        while self.seen < transfers.len() {
            let chunk = self.seen / transfers.chunk_rows();
            let rows = transfers.chunk(chunk);
            let new = &rows[(self.seen - chunk * transfers.chunk_rows()) as usize..];
            let number = (chunk - next(&self.transfers)) as usize;
            if number == self.varying.len() {
                self.varying.push(Varying {
                    first: Fields::from(&rows[0]),
                    differs: Fields::default(),
                });
            }
            let Varying { first, differs } = &mut self.varying[number];
            *differs = differs.and_differences(first, new);
            self.seen += u32::try_from(new.len()).expect("a chunk's rows");
        }
    }

    /// Transfers from `mark` on are taken back.
    pub(super) fn undo(&mut self, mark: u32, posted: u32) {
        self.parties.truncate((mark - posted) as usize);
        self.seen = self.seen.min(mark);
    }

    /// The transfers so far are posted, in files.
    pub(super) fn restore_files(&mut self, transfers: u32) {
        self.seen = transfers;
    }

    pub(super) fn settle_accounts(&mut self, accounts: &Table<AccountRow>) {
        while self.accounts.len() < accounts.chunks_full() as usize {
            let rows = accounts.chunk(next(&self.accounts));
            begin(&mut self.builder, rows, ACCOUNT_COLUMNS);
            let first = Fields::from(&rows[0]);
            let differs = Fields::default().and_differences(&first, rows);
            post_fields(&mut self.builder, rows, &differs);
            self.accounts.push(self.builder.finish());
        }
    }
}

fn next(chunks: &[Blob]) -> u32 {
    u32::try_from(chunks.len()).expect("chunks are fewer than rows")
}

fn begin<T>(builder: &mut PostingsBuilder, rows: &[T], columns: u32) {
    let count = u32::try_from(rows.len()).expect("a chunk's rows");
    builder.begin(count, columns);
}

/// The columns of the fields, of which those that `differs` says differ among the rows.
fn post_fields<T: Plain>(builder: &mut PostingsBuilder, rows: &[T], differs: &Fields)
where
    Fields: for<'a> From<&'a T>,
{
    let differs = differs.keys().map(|key| key.is_some());
    let of_all = Fields::from(&rows[0]).keys();
    macro_rules! column {
        ($number:literal, $key:expr) => {
            if differs[$number] {
                builder.column(rows.iter().map(|row| $key(Fields::from(row))));
            } else {
                builder.column_of_one(of_all[$number]);
            }
        };
    }
    column!(0, |row: Fields| key_128(row.user_data_128));
    column!(1, |row: Fields| key_64(row.user_data_64));
    column!(2, |row: Fields| key(row.user_data_32));
    column!(3, |row: Fields| key(row.ledger));
    column!(4, |row: Fields| key(row.code.into()));
}
