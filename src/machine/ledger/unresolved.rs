//! Pending transfers that still wait when their chunk leaves memory.
//!
//! Resolving a pending transfer needs its row, and must not wait for the disk: a batch of posts
//! would read thousands of pages. So before a chunk's memory is given up, the rows of its
//! unresolved pending transfers are copied here, and looked for here first.
//!
//! ```text
//!   chunk in memory ── counts its unresolved ──┬─ none: nothing to do
//!                                              └─ some: kept here ── the last is resolved ──► gone
//! ```
//!
//! Memory is bounded by [`super::LedgerOptions::waiting_rows`]; what does not fit is read from its file, and
//! so is what was restored from a checkpoint. It is a matter of speed alone: rows are equal wherever they are
//! read.

use stampede_client::wire::Transfer;
use stampede_client::wire::record::transfer_flags;

use super::resolutions::{Resolution, Resolutions};

/// See the module.
#[derive(Debug)]
pub(super) struct Unresolved {
    chunks: Vec<Chunk>,
    chunk_rows_log2: u32,
    rows_max: usize,
    rows_kept: usize,
    /// Chunks whose last kept transfer was resolved by the operation that is being applied. They
    /// stay until it is over: a chain that breaks may take the resolution back.
    finished: Vec<u32>,
}

#[derive(Debug)]
enum Chunk {
    /// In memory, with this many unresolved pending transfers.
    Memory(u32),
    /// In a file, with copies of the `left` that were unresolved, and of others resolved since.
    Kept {
        left: u32,
        rows: Vec<(u32, Transfer)>,
    },
    /// In a file, without copies.
    File,
}

impl Unresolved {
    pub(super) fn new(chunk_rows_log2: u32, rows_max: u32) -> Self {
        Self {
            chunks: Vec::new(),
            chunk_rows_log2,
            rows_max: rows_max as usize,
            rows_kept: 0,
            finished: Vec::new(),
        }
    }

    /// A pending transfer was created, or its resolution taken back.
    pub(super) fn add(&mut self, row: u32) {
        match self.chunk_of(row) {
            Chunk::Memory(count)
            | Chunk::Kept {
                left: count,
                rows: _,
            } => *count += 1,
            Chunk::File => {}
        }
    }

    /// A pending transfer was resolved, or its creation taken back.
    pub(super) fn remove(&mut self, row: u32) {
        let number = row >> self.chunk_rows_log2;
        match self.chunk_of(row) {
            Chunk::Memory(count) => *count -= 1,
            Chunk::Kept { left, rows: _ } => {
                *left -= 1;
                if *left == 0 {
                    self.finished.push(number);
                }
            }
            Chunk::File => {}
        }
    }

    /// The chunks below `count` were restored from files.
    pub(super) fn restore_files(&mut self, count: u32) {
        assert!(self.chunks.is_empty());
        self.chunks.resize_with(count as usize, || Chunk::File);
    }

    /// The chunk's rows are about to leave memory: copies those that are unresolved.
    pub(super) fn keep(&mut self, number: u32, rows: &[Transfer], resolutions: &Resolutions) {
        let first = number << self.chunk_rows_log2;
        let Chunk::Memory(count) = *self.chunk_of(first) else {
            unreachable!("a chunk leaves memory once");
        };
        let fits = self.rows_kept + count as usize <= self.rows_max;
        if count == 0 || !fits {
            *self.chunk_of(first) = Chunk::File;
            return;
        }
        let mut kept = Vec::with_capacity(count as usize);
        for (row, transfer) in (first..).zip(rows) {
            if transfer.flags & transfer_flags::PENDING != 0
                && resolutions.of(row) == Resolution::None
            {
                kept.push((row, *transfer));
            }
        }
        assert_eq!(
            kept.len(),
            count as usize,
            "unresolved transfers are counted"
        );
        self.rows_kept += kept.len();
        *self.chunk_of(first) = Chunk::Kept {
            left: count,
            rows: kept,
        };
    }

    /// The copy of a row, if there is one.
    pub(super) fn row(&self, row: u32) -> Option<&Transfer> {
        let chunk = self.chunks.get((row >> self.chunk_rows_log2) as usize)?;
        let Chunk::Kept { left: _, rows } = chunk else {
            return None;
        };
        let found = rows.binary_search_by_key(&row, |(row, _)| *row).ok()?;
        Some(&rows[found].1)
    }

    /// An operation is over: gives up chunks that nobody waits for any more.
    pub(super) fn settle(&mut self) {
        while let Some(number) = self.finished.pop() {
            let chunk = &mut self.chunks[number as usize];
            if let Chunk::Kept { left: 0, rows } = chunk {
                self.rows_kept -= rows.len();
                *chunk = Chunk::File;
            }
        }
    }

    #[cfg(test)]
    pub(super) fn rows_kept(&self) -> usize {
        self.rows_kept
    }

    fn chunk_of(&mut self, row: u32) -> &mut Chunk {
        let number = (row >> self.chunk_rows_log2) as usize;
        if number >= self.chunks.len() {
            self.chunks.resize_with(number + 1, || Chunk::Memory(0));
        }
        &mut self.chunks[number]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_until_the_last_is_resolved() {
        let mut unresolved = Unresolved::new(4, 1 << 20);
        let mut resolutions = Resolutions::new(4);
        let rows: Vec<Transfer> = (0..16u16)
            .map(|row| Transfer {
                id: row.into(),
                flags: if row % 2 == 0 {
                    transfer_flags::PENDING
                } else {
                    0
                },
                ..Transfer::default()
            })
            .collect();
        (0..16).step_by(2).for_each(|row| unresolved.add(row));
        for row in [0, 2, 4, 6, 8] {
            unresolved.remove(row);
            resolutions.set(row, Resolution::Posted);
        }
        unresolved.keep(0, &rows, &resolutions);
        assert_eq!(unresolved.rows_kept(), 3);
        assert_eq!(unresolved.row(12).map(|transfer| transfer.id), Some(12));
        assert_eq!(
            (unresolved.row(8), unresolved.row(11), unresolved.row(40)),
            (None, None, None)
        );
        [10, 12, 14]
            .into_iter()
            .for_each(|row| unresolved.remove(row));
        // Taken back, then done again.
        unresolved.add(14);
        unresolved.settle();
        assert!(unresolved.row(14).is_some());
        unresolved.remove(14);
        unresolved.settle();
        assert_eq!((unresolved.row(14), unresolved.rows_kept()), (None, 0));
        // Chunks without unresolved transfers cost nothing.
        unresolved.keep(1, &rows, &resolutions);
        unresolved.remove(3);
        assert_eq!(unresolved.rows_kept(), 0);
    }
}
