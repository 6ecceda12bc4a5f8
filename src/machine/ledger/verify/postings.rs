//! Whether the postings of a chunk are those of its rows.

use super::Verified;
use crate::store::{Blob, Postings};

/// The keys of a chunk's rows, column by column: what its postings should lead to.
#[derive(Debug)]
pub(super) struct ChunkKeys<const COLUMNS: usize> {
    table: &'static str,
    names: &'static [&'static str; COLUMNS],
    columns: [Vec<Option<u32>>; COLUMNS],
}

impl<const COLUMNS: usize> ChunkKeys<COLUMNS> {
    pub(super) fn new(table: &'static str, names: &'static [&'static str; COLUMNS]) -> Self {
        Self {
            table,
            names,
            columns: [const { Vec::new() }; COLUMNS],
        }
    }

    /// The next row.
    pub(super) fn push(&mut self, keys: [Option<u32>; COLUMNS]) {
        for (column, key) in self.columns.iter_mut().zip(keys) {
            column.push(key);
        }
    }

    pub(super) fn rows(&self) -> usize {
        self.columns.first().map_or(0, Vec::len)
    }

    /// That was the chunk's last row: compares, and begins the next chunk.
    pub(super) fn end_chunk(&mut self, chunk: u32, postings: Option<&Blob>, found: &mut Verified) {
        let table = self.table;
        for ((number, keys), name) in self.columns.iter_mut().enumerate().zip(self.names) {
            if !postings.is_some_and(|postings| Postings::of(postings).agree(number, keys)) {
                found.broken(|| {
                    format!(
                        "chunk {chunk} of {table}: its postings by {name} are not those of its rows"
                    )
                });
            }
            keys.clear();
        }
    }
}
