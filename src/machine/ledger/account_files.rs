//! Accounts in the files of a checkpoint.
//!
//! ```text
//!   accounts-<op>   rows: new since the checkpoint before, or of the blocks whose turn it is
//!                   changes: what may change of an account, for all others that have changed
//! ```
//!
//! The last eight of these files hold every account (`store::changing`), so a checkpoint lists eight. What one writes
//! grows with what has changed, and an eighth of all accounts.

use stampede_client::wire::Account;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::books::Books;
use super::row::AccountRow;
use super::snapshot::Counts;
use crate::store::{
    Capture, FileEntry, FileKind, FileName, Plain, SealedFile, SealedWriter, Storage, StoreError,
    TURNS,
};

const SECTION_HEAD: u32 = 1;
const SECTION_NUMBERS: u32 = 2;
const SECTION_ROWS: u32 = 3;
const SECTION_CHANGES: u32 = 4;

/// What a file says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct AccountsHead {
    /// One more than that of the checkpoint before.
    number: u64,
    /// Accounts there are.
    accounts: u32,
    reserved: u32,
}

/// What operations may change of an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct AccountChange {
    row: u32,
    opened: u32,
    flags: u16,
    reserved: [u8; 6],
    debits_pending: u128,
    debits_posted: u128,
    credits_pending: u128,
    credits_posted: u128,
}

impl AccountChange {
    fn of(row: u32, account: &AccountRow) -> Self {
        Self {
            row,
            opened: account.opened,
            flags: account.flags,
            reserved: [0; 6],
            debits_pending: account.debits_pending,
            debits_posted: account.debits_posted,
            credits_pending: account.credits_pending,
            credits_posted: account.credits_posted,
        }
    }

    fn apply(&self, account: &mut AccountRow) {
        let Self {
            row: _,
            opened,
            flags,
            reserved: _,
            debits_pending,
            debits_posted,
            credits_pending,
            credits_posted,
        } = *self;
        *account = AccountRow {
            opened,
            flags,
            debits_pending,
            debits_posted,
            credits_pending,
            credits_posted,
            ..*account
        };
    }
}

/// About how many bytes the file will have.
pub(super) fn size(accounts: &Capture<AccountRow>) -> u64 {
    let whole = u64::from(accounts.turn().whole_count());
    let row = size_of::<(u32, AccountRow)>() as u64;
    whole * row + (u64::from(accounts.count()) - whole) * size_of::<AccountChange>() as u64
}

/// Rows that are written at once.
const ROWS_AT_ONCE: usize = 512;

/// Writes what has been captured; gives the files of this checkpoint, of which `former` are the last ones of
/// the checkpoint before. If that one is of the same operation it has all there is: nothing is written.
pub(super) fn write(
    storage: &mut dyn Storage,
    op: u64,
    accounts: &Capture<AccountRow>,
    former: &[FileEntry],
) -> Result<Vec<FileEntry>, StoreError> {
    if former.last().is_some_and(|last| last.name.number == op) {
        return Ok(former.to_vec());
    }
    let turn = accounts.turn();
    let rows = accounts.rows();
    let whole = || rows.iter().filter(|(row, _)| turn.is_whole(*row));
    let changed = rows.iter().filter(|(row, _)| !turn.is_whole(*row));
    let mut file = SealedWriter::create(storage, FileName::new(FileKind::Accounts, op))?;
    file.section(SECTION_HEAD)?;
    let head = AccountsHead {
        number: turn.number,
        accounts: turn.rows,
        reserved: 0,
    };
    file.write(head.as_bytes())?;
    file.section(SECTION_NUMBERS)?;
    write_rows(&mut file, whole().map(|(row, _)| row))?;
    file.section(SECTION_ROWS)?;
    write_rows(&mut file, whole().map(|(_, account)| *account))?;
    file.section(SECTION_CHANGES)?;
    let changes = changed.map(|(row, account)| AccountChange::of(row, account));
    write_rows(&mut file, changes)?;
    let kept = (former.len() + 1).saturating_sub(FILES_MAX);
    let mut files = former[kept..].to_vec();
    files.push(file.finish()?);
    Ok(files)
}

fn write_rows<T: Plain>(
    file: &mut SealedWriter,
    mut rows: impl Iterator<Item = T>,
) -> Result<(), StoreError> {
    let mut some = Vec::with_capacity(ROWS_AT_ONCE);
    loop {
        some.extend(rows.by_ref().take(ROWS_AT_ONCE));
        if some.is_empty() {
            return Ok(());
        }
        file.write(some.as_bytes())?;
        some.clear();
    }
}

const FILES_MAX: usize = TURNS as usize;

/// How many accounts these files can hold, as each is in one of them as a whole: memory for more is not asked for.
pub(super) fn accounts_max(entries: &[FileEntry]) -> u64 {
    let of_accounts = entries
        .iter()
        .filter(|entry| entry.name.kind == FileKind::Accounts);
    let bytes = of_accounts.fold(0, |bytes: u64, entry| bytes.saturating_add(entry.data_size));
    bytes / size_of::<AccountRow>() as u64
}

/// Puts the accounts together; gives their files, as [`write`] has.
pub(super) fn restore(
    books: &mut Books,
    storage: &dyn Storage,
    entries: &[FileEntry],
    op: u64,
    counts: Counts,
) -> Result<Vec<FileEntry>, StoreError> {
    let of_accounts = |entry: &&FileEntry| entry.name.kind == FileKind::Accounts;
    let mut files: Vec<FileEntry> = entries.iter().filter(of_accounts).copied().collect();
    files.sort_unstable_by_key(|entry| entry.name);
    if files.len() > FILES_MAX || files.last().is_none_or(|last| last.name.number != op) {
        let name = FileName::new(FileKind::Accounts, op);
        let what = "the manifest does not list the last files of accounts";
        return Err(StoreError::damaged(name, 0, what));
    }
    for file in &files {
        storage.will_read(file.name, 0, file.size);
    }
    // No account has the timestamp zero: such a row has not been seen.
    let mut accounts = vec![AccountRow::new(&Account::default(), 0); counts.accounts as usize];
    let mut number = None;
    for &entry in &files {
        let mut file = SealedFile::open(storage, entry)?;
        let heads = file.read_rows::<AccountsHead>(storage, SECTION_HEAD)?;
        let &[head] = heads.as_slice() else {
            return Err(file.damaged(0, "there is not one head of accounts"));
        };
        let follows = number.is_none_or(|former: u64| former.checked_add(1) == Some(head.number));
        if !follows || head.number == u64::MAX || head.accounts > counts.accounts {
            return Err(file.damaged(0, "it does not follow the file of accounts before it"));
        }
        number = Some(head.number);
        let numbers = file.read_rows::<u32>(storage, SECTION_NUMBERS)?;
        let rows = file.read_rows::<AccountRow>(storage, SECTION_ROWS)?;
        if numbers.len() != rows.len() || numbers.iter().any(|row| *row >= head.accounts) {
            return Err(file.damaged(0, "the numbers are not those of the accounts"));
        }
        for (row, account) in numbers.into_iter().zip(rows) {
            accounts[row as usize] = account;
        }
        for change in file.read_rows::<AccountChange>(storage, SECTION_CHANGES)? {
            if change.row >= head.accounts {
                return Err(file.damaged(0, "an account has changed that is not there"));
            }
            let account = &mut accounts[change.row as usize];
            // If it has not been seen, a later file has all of it.
            if account.timestamp != 0 {
                change.apply(account);
            }
        }
        if entry.name.number == op && head.accounts != counts.accounts {
            return Err(file.damaged(0, "the accounts are not as many as counted"));
        }
    }
    if accounts.iter().any(|account| account.timestamp == 0) {
        let name = FileName::new(FileKind::Accounts, op);
        return Err(StoreError::damaged(
            name,
            0,
            "an account is in none of the files of accounts",
        ));
    }
    let ids: Vec<u128> = accounts.iter().map(|account| account.id).collect();
    books.account_ids.extend(&ids, 0);
    books
        .accounts
        .restore(&accounts, number.expect("there is a file"));
    books.indexes.settle_accounts(&books.accounts);
    Ok(files)
}
