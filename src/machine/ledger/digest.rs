//! A checksum of everything that later operations can depend on.
//!
//! Computed from rows and tables, not from files or memory layout: it is equal on replicas that
//! agree, whatever checkpoints they have taken, and different otherwise.

use xxhash_rust::xxh3::Xxh3;
use zerocopy::IntoBytes;

use super::books::Books;
use super::indexes::Indexes;
use crate::store::{Plain, Table};

impl Books {
    pub(super) fn digest(&self) -> u128 {
        let mut hash = Xxh3::new();
        add_table(&mut hash, &self.accounts);
        add_table(&mut hash, &self.transfers);
        add_table(&mut hash, &self.failed);
        add_table(&mut hash, &self.expired);
        for (chunk, resolutions) in self.resolutions.chunks() {
            hash.update(chunk.as_bytes());
            resolutions.for_each(|piece| hash.update(piece));
        }
        for (expires_at, row) in self.expiries.iter() {
            hash.update(expires_at.as_bytes());
            hash.update(row.as_bytes());
        }
        let Indexes {
            transfers,
            accounts,
            expired,
            ..
        } = &self.indexes;
        for postings in transfers.iter().chain(accounts).chain(expired) {
            hash.update(postings.bytes());
        }
        for period in &self.history.periods {
            hash.update(period.end.transfers.as_bytes());
            hash.update(period.end.expired.as_bytes());
            hash.update(period.openings.encoded().bytes());
        }
        hash.update(self.history.encode_open().as_bytes());
        hash.digest128()
    }
}

fn add_table<T: Plain>(hash: &mut Xxh3, table: &Table<T>) {
    hash.update(table.len().as_bytes());
    for row in table.iter() {
        hash.update(row.as_bytes());
    }
}
