//! A run: the ids of a stretch of rows, by hash, in a file.
//!
//! ```text
//!   section 1  head        least and greatest id, how many rows
//!           2  directory   u32 × (buckets + 1): where each bucket's entries begin
//!           3  entries     48 bits each, in their bucket in order of the rows
//!           4  filter      one byte for each id, in lines of 64
//!
//!   hash, 40 bits  ├ bucket ─┼ rest ──────────┤    about 256 entries in a bucket
//!   entry, 48 bits           ├ rest ──────────┼ row ──────────┤
//! ```
//!
//! An id that is there costs a line of the filter, a part of a page of entries, and its row, whose id is the final
//! check. One that is not there costs nothing where ids ascend with time (it is outside of the range of this
//! run's), and otherwise a line of the filter.
//!
//! A run holds ids of rows that are in files already, is written once, and never merged: see
//! `docs/decisions/0013-runs-of-ids.md`.
//!
//! Promises: equal ids give equal bytes; whatever is in the file, nothing is read out of bounds and no row named
//! that the run does not have.

use std::ops::Range;
use std::sync::Arc;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::blob::Blob;
use super::error::StoreError;
use super::filter::{FilterBytes, LINE_SIZE, file_may_hold};
use super::id_hash::{IdHash, RUN_HASH_BITS, RunHash};
use super::mapped::Mapped;
use super::sealed::{FileEntry, SealedFile, SealedWriter};
use super::storage::{FileName, Storage};

const SECTION_HEAD: u32 = 1;
const SECTION_DIRECTORY: u32 = 2;
const SECTION_ENTRIES: u32 = 3;
const SECTION_FILTER: u32 = 4;

const ENTRY_SIZE: usize = 6;
const BUCKET_ROWS_LOG2: u32 = 8;

/// Rows of a run at most, as a power of two: what an entry has room for, if the buckets are as full as meant.
pub const RUN_ROWS_LOG2_MAX: u32 = 24;

const _: () = assert!((RUN_HASH_BITS + BUCKET_ROWS_LOG2) as usize <= ENTRY_SIZE * 8);

#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct RunHead {
    id_least: u128,
    id_greatest: u128,
    rows_log2: u32,
    reserved: [u32; 3],
}

const _: () = assert!(size_of::<RunHead>() == 48);

/// How a run of so many rows is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Shape {
    rows_log2: u32,
}

impl Shape {
    fn rows(self) -> usize {
        1 << self.rows_log2
    }

    fn buckets_log2(self) -> u32 {
        self.rows_log2.saturating_sub(BUCKET_ROWS_LOG2)
    }

    fn buckets(self) -> usize {
        1 << self.buckets_log2()
    }

    fn filter_lines(self) -> usize {
        self.rows().div_ceil(LINE_SIZE)
    }

    fn rest_bits(self) -> u32 {
        RUN_HASH_BITS - self.buckets_log2()
    }

    fn bucket(self, hash: RunHash) -> usize {
        usize::try_from(hash.0 >> self.rest_bits()).expect("below 2^16")
    }

    /// What is left of the hash in its bucket.
    fn rest(self, hash: RunHash) -> u64 {
        hash.0 & ((1 << self.rest_bits()) - 1)
    }

    fn entry(self, hash: RunHash, row: u32) -> u64 {
        self.rest(hash) << self.rows_log2 | u64::from(row)
    }

    fn hash_of(self, bucket: usize, entry: u64) -> RunHash {
        // In a small run an entry has bits to spare, and who knows what a damaged one has there.
        let rest = entry >> self.rows_log2 & ((1 << self.rest_bits()) - 1);
        RunHash((bucket as u64) << self.rest_bits() | rest)
    }

    fn row_of(self, entry: u64) -> u32 {
        u32::try_from(entry & ((1 << self.rows_log2) - 1)).expect("below 2^24")
    }
}

/// The ids of some rows: all that a run needs to know of them.
#[derive(Debug)]
pub struct RunIds {
    /// The hash and, below it, the number of the row among these: by bucket, then by row. So the work of a run is
    /// done chunk by chunk, as the chunks come, and little is left when it is due.
    ids: Vec<u64>,
    shape: Shape,
    least: u128,
    greatest: u128,
}

/// Bits of a row's number in [`RunIds`].
const ROW_BITS: u32 = u64::BITS - RUN_HASH_BITS;

const _: () = assert!(RUN_ROWS_LOG2_MAX <= ROW_BITS);

impl RunIds {
    /// For a run of so many rows as this power of two.
    pub fn of(ids: impl Iterator<Item = u128>, rows_log2: u32) -> Self {
        assert!(rows_log2 <= RUN_ROWS_LOG2_MAX);
        let shape = Shape { rows_log2 };
        let (mut least, mut greatest) = (u128::MAX, 0);
        let ids = (0u64..).zip(ids).map(|(row, id)| {
            least = least.min(id);
            greatest = greatest.max(id);
            IdHash::of(id).for_runs().0 << ROW_BITS | row
        });
        let ids = sorted(ids.collect(), shape.buckets_log2());
        assert!(ids.len() <= shape.rows());
        Self {
            ids,
            shape,
            least,
            greatest,
        }
    }
}

/// By so many of the uppermost bits; what has them in common stays in its order. Two passes of a radix sort.
fn sorted(mut ids: Vec<u64>, bits: u32) -> Vec<u64> {
    let low = bits / 2;
    let mut other = vec![0; ids.len()];
    for (shift, bits) in [
        (u64::BITS - bits, low),
        (u64::BITS - bits + low, bits - low),
    ] {
        let digit = |id: u64| {
            let digit = id.checked_shr(shift).unwrap_or(0) & ((1 << bits) - 1);
            usize::try_from(digit).expect("a few bits")
        };
        let mut next = vec![0; 1 << bits];
        ids.iter().for_each(|id| next[digit(*id)] += 1);
        let mut sum = 0;
        for place in &mut next {
            sum += std::mem::replace(place, sum);
        }
        for id in &ids {
            let place = &mut next[digit(*id)];
            other[*place] = *id;
            *place += 1;
        }
        std::mem::swap(&mut ids, &mut other);
    }
    ids
}

/// About how many bytes a run of so many rows has.
pub fn run_size(rows: u64) -> u64 {
    rows * (ENTRY_SIZE as u64 + 1)
}

/// Writes the run of all rows in `parts`, which were made for so many.
pub fn write_run(
    storage: &mut dyn Storage,
    name: FileName,
    parts: &[Arc<RunIds>],
) -> Result<FileEntry, StoreError> {
    let rows: usize = parts.iter().map(|part| part.ids.len()).sum();
    let shape = parts.first().expect("a run has rows").shape;
    assert!(rows == shape.rows() && parts.iter().all(|part| part.shape == shape));
    let head = RunHead {
        id_least: parts
            .iter()
            .map(|part| part.least)
            .fold(u128::MAX, u128::min),
        id_greatest: parts.iter().map(|part| part.greatest).fold(0, u128::max),
        rows_log2: shape.rows_log2,
        reserved: [0; 3],
    };

    let mut file = SealedWriter::create(storage, name)?;
    file.section(SECTION_HEAD)?;
    file.write(head.as_bytes())?;
    file.section(SECTION_DIRECTORY)?;
    file.write(directory(shape, parts).as_bytes())?;
    file.section(SECTION_ENTRIES)?;
    let mut filter = FilterBytes::new(shape.filter_lines());
    let mut bytes = Vec::with_capacity((2 * ENTRY_SIZE) << BUCKET_ROWS_LOG2);
    let mut rests: Vec<(u32, &[u64])> = Vec::with_capacity(parts.len());
    let mut first = 0;
    for part in parts {
        rests.push((first, &part.ids));
        first += u32::try_from(part.ids.len()).expect("at most 2^24 rows");
    }
    for bucket in 0..shape.buckets() {
        bytes.clear();
        for (first, rest) in &mut rests {
            while let Some((id, behind)) = rest.split_first() {
                let hash = RunHash(id >> ROW_BITS);
                if shape.bucket(hash) != bucket {
                    break;
                }
                *rest = behind;
                let entry = shape.entry(hash, *first + row_of(*id));
                bytes.extend_from_slice(&entry.to_le_bytes()[..ENTRY_SIZE]);
                filter.add(hash);
            }
        }
        file.write(&bytes)?;
    }
    file.section(SECTION_FILTER)?;
    file.write(&filter.to_bytes())?;
    file.finish()
}

/// Which row of its part an id of [`RunIds`] is of.
fn row_of(id: u64) -> u32 {
    u32::try_from(id & ((1 << ROW_BITS) - 1)).expect("below 2^24")
}

/// Where each bucket begins.
fn directory(shape: Shape, parts: &[Arc<RunIds>]) -> Vec<u32> {
    let mut directory = vec![0u32; shape.buckets() + 1];
    for id in parts.iter().flat_map(|part| &part.ids) {
        directory[shape.bucket(RunHash(id >> ROW_BITS)) + 1] += 1;
    }
    let mut sum = 0;
    for begin in &mut directory {
        sum += *begin;
        *begin = sum;
    }
    directory
}

/// A run in its file, mapped.
#[derive(Debug)]
pub struct Run {
    shape: Shape,
    /// Of the run's first row, in the numbers that [`Run::find`] gives.
    first: u32,
    id_least: u128,
    id_greatest: u128,
    /// In memory: a 64th of the entries' size.
    directory: Vec<u32>,
    entries: Blob,
    filter: Blob,
}

impl Run {
    /// Opens a run of `2^rows_log2` rows from `first` on. Reads the head and the directory; the rest is read when it
    /// is looked at, and all of it is verified.
    pub fn open(
        storage: &dyn Storage,
        entry: FileEntry,
        first: u32,
        rows_log2: u32,
    ) -> Result<Self, StoreError> {
        let mut file = SealedFile::open(storage, entry)?;
        let head = file.read_rows::<RunHead>(storage, SECTION_HEAD)?;
        let &[head] = head.as_slice() else {
            return Err(file.damaged(0, "there is not one head of the run"));
        };
        if head.rows_log2 != rows_log2 || rows_log2 > RUN_ROWS_LOG2_MAX {
            return Err(file.damaged(0, "the run is not of as many rows as the ledger says"));
        }
        let shape = Shape { rows_log2 };
        let directory = file.read_rows::<u32>(storage, SECTION_DIRECTORY)?;
        if directory.len() != shape.buckets() + 1
            || directory.first() != Some(&0)
            || !directory.is_sorted()
            || directory.last().map(|end| *end as usize) != Some(shape.rows())
        {
            return Err(file.damaged(0, "the run's directory is not that of its entries"));
        }
        let mapped = Mapped::open(storage, &file)?;
        let filter_size = shape.filter_lines() * LINE_SIZE;
        let entries = section(&file, &mapped, SECTION_ENTRIES, shape.rows() * ENTRY_SIZE)?;
        let filter = section(&file, &mapped, SECTION_FILTER, filter_size)?;
        Ok(Self {
            shape,
            first,
            id_least: head.id_least,
            id_greatest: head.id_greatest,
            directory,
            entries,
            filter,
        })
    }

    /// Its rows, in the numbers that [`Run::find`] gives.
    pub fn rows(&self) -> Range<u32> {
        self.first..self.first + (1 << self.shape.rows_log2)
    }

    /// No id in it is greater.
    pub fn id_greatest(&self) -> u128 {
        self.id_greatest
    }

    /// Whether the id may be in it. False is certain.
    pub fn may_hold(&self, id: u128, hash: IdHash) -> bool {
        (self.id_least..=self.id_greatest).contains(&id)
            && file_may_hold(self.filter.span(), hash.for_runs())
    }

    /// Begins to read what [`Run::find`] will look at, so that the reads of many ids overlap.
    pub fn will_need(&self, hash: IdHash) {
        let entries = self.bucket(hash);
        self.entries
            .will_need_range(entries.start * ENTRY_SIZE..entries.end * ENTRY_SIZE);
    }

    /// Begins to read the filter: what is asked of every run.
    pub fn will_need_filter(&self) {
        self.filter.will_need();
    }

    /// The row for which `is_it` agrees, among those whose hash does.
    pub fn find(&self, hash: IdHash, mut is_it: impl FnMut(u32) -> bool) -> Option<u32> {
        let entries = self.entries_at(self.bucket(hash));
        let wanted = self.shape.rest(hash.for_runs());
        for entry in entries {
            let entry = load(entry);
            if entry >> self.shape.rows_log2 != wanted {
                continue;
            }
            let row = self.first + self.shape.row_of(entry);
            if is_it(row) {
                return Some(row);
            }
        }
        None
    }

    /// Buckets that its hashes are in.
    pub(super) fn buckets(&self) -> usize {
        self.shape.buckets()
    }

    /// The hashes in some buckets, those of each together.
    pub(super) fn hashes(&self, buckets: Range<usize>) -> impl Iterator<Item = RunHash> {
        buckets.flat_map(move |bucket| {
            let range = self.directory[bucket] as usize..self.directory[bucket + 1] as usize;
            let entries = self.entries_at(range).iter();
            entries.map(move |entry| self.shape.hash_of(bucket, load(entry)))
        })
    }

    /// Begins to read the entries of these buckets.
    pub(super) fn will_need_buckets(&self, buckets: Range<usize>) {
        self.entries.will_need_range(self.bytes_of(buckets));
    }

    /// The entries of these buckets will hardly be looked at again soon.
    pub(super) fn release_buckets(&self, buckets: Range<usize>) {
        self.entries.release_range(self.bytes_of(buckets));
    }

    /// Verified as they are read.
    fn entries_at(&self, range: Range<usize>) -> &[[u8; ENTRY_SIZE]] {
        let entries = self.entries.span().elements(range);
        entries.expect("the directory was checked")
    }

    fn bytes_of(&self, buckets: Range<usize>) -> Range<usize> {
        let (begin, end) = (self.directory[buckets.start], self.directory[buckets.end]);
        begin as usize * ENTRY_SIZE..end as usize * ENTRY_SIZE
    }

    /// Which entries can be those of the hash. The directory was checked: it is within bounds.
    fn bucket(&self, hash: IdHash) -> Range<usize> {
        let bucket = self.shape.bucket(hash.for_runs());
        self.directory[bucket] as usize..self.directory[bucket + 1] as usize
    }
}

#[inline]
fn load(entry: &[u8; ENTRY_SIZE]) -> u64 {
    let mut bytes = [0; 8];
    bytes[..ENTRY_SIZE].copy_from_slice(entry);
    u64::from_le_bytes(bytes)
}

fn section(file: &SealedFile, mapped: &Mapped, kind: u32, size: usize) -> Result<Blob, StoreError> {
    let section = file.section(kind)?;
    let blob = Blob::of_file(mapped, section.offset, section.size);
    let blob = blob.filter(|blob| blob.len() == size);
    blob.ok_or_else(|| {
        file.damaged(
            section.offset,
            "the run's sections are not those of its rows",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Damage, FileKind, Manifest, MemoryStorage};
    use proptest::prelude::*;

    const NAME: FileName = FileName::new(FileKind::TransferRun, 0);

    fn parts(ids: &[u128], part: usize) -> Vec<Arc<RunIds>> {
        let parts = ids.chunks(part);
        parts
            .map(|part| Arc::new(RunIds::of(part.iter().copied(), ids.len().ilog2())))
            .collect()
    }

    /// A run of these ids, from row 1000 on.
    fn run_of(ids: &[u128]) -> (MemoryStorage, FileEntry, Run) {
        let mut storage = MemoryStorage::default();
        let entry = write_run(&mut storage, NAME, &parts(ids, 64)).unwrap();
        let run = Run::open(&storage, entry, 1000, ids.len().ilog2()).unwrap();
        (storage, entry, run)
    }

    fn check(ids: &[u128]) {
        let (_, _, run) = run_of(ids);
        for (row, id) in (1000u32..).zip(ids) {
            let hash = IdHash::of(*id);
            assert!(run.may_hold(*id, hash));
            run.will_need(hash);
            assert_eq!(run.find(hash, |found| found == row), Some(row));
        }
        assert_eq!(run.id_greatest(), *ids.iter().max().unwrap());
        let mut hashes: Vec<_> = ids.iter().map(|id| IdHash::of(*id).for_runs()).collect();
        hashes.sort_unstable();
        run.will_need_buckets(0..run.buckets());
        let mut found: Vec<_> = run.hashes(0..run.buckets()).collect();
        found.sort_unstable();
        assert_eq!(found, hashes);
        run.release_buckets(0..run.buckets());
    }

    #[test]
    fn every_id_is_found_whatever_the_size() {
        for rows_log2 in [1, 2, 5, 8, 9, 13, 17] {
            let random = |row: u128| row.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
            check(&(1..=1u128 << rows_log2).map(random).collect::<Vec<_>>());
            check(&(1..=1u128 << rows_log2).collect::<Vec<_>>());
        }
    }

    #[test]
    fn others_are_hardly_ever_looked_for() {
        let ids: Vec<u128> = (0..1 << 16).map(|row| row << 64 | 99).collect();
        let (_, _, run) = run_of(&ids);
        let others = (0..1 << 16).map(|row: u128| row << 64 | 7 << 32);
        let (mut maybe, mut found) = (0, 0);
        for id in others {
            let hash = IdHash::of(id);
            maybe += usize::from(run.may_hold(id, hash));
            found += usize::from(run.find(hash, |_| true).is_some());
        }
        assert!(maybe < 2500 && found == 0, "{maybe} {found}");
        // Outside of the range nothing is.
        assert!(!run.may_hold(98, IdHash::of(98)) && !run.may_hold(1 << 80, IdHash::of(1 << 80)));
    }

    #[test]
    fn equal_hashes_are_told_apart_by_their_rows() {
        // As if two ids had one hash: the same id twice.
        let mut ids: Vec<u128> = (1..=512).collect();
        ids[400] = 77;
        let (_, _, run) = run_of(&ids);
        let mut rows = Vec::new();
        let none = run.find(IdHash::of(77), |row| {
            rows.push(row);
            false
        });
        assert_eq!((none, rows), (None, vec![1076, 1400]));
    }

    #[test]
    fn what_is_damaged_is_told_or_harmless() {
        let ids: Vec<u128> = (1..=1024).collect();
        let (mut storage, entry, _) = run_of(&ids);
        let size = usize::try_from(entry.size).unwrap();
        for offset in (0..size).step_by(97) {
            storage.damage(NAME, offset);
            if let Ok(run) = Run::open(&storage, entry, 1000, 10) {
                let found = Damage::catch(|| {
                    for (row, id) in (1000..).zip(&ids) {
                        let hash = IdHash::of(*id);
                        assert!(run.may_hold(*id, hash));
                        assert_eq!(run.find(hash, |found| found == row), Some(row));
                    }
                });
                assert_eq!(found.unwrap_err().entry, entry);
            }
            storage.damage(NAME, offset);
        }
        for rows_log2 in [9, 11, 99] {
            assert!(Run::open(&storage, entry, 0, rows_log2).is_err());
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn equal_ids_give_equal_bytes(seed in any::<u128>(), part in 1usize..200) {
            let ids: Vec<u128> = (0..256).map(|row| seed.wrapping_mul(row * 2 + 1)).collect();
            let mut storage = MemoryStorage::default();
            let entry = write_run(&mut storage, NAME, &parts(&ids, part)).unwrap();
            let other = write_run(&mut storage, NAME, &parts(&ids, 256)).unwrap();
            prop_assert_eq!(entry, other);
            let manifest = Manifest { op: 1, files: vec![entry] };
            prop_assert!(manifest.verify(&storage).is_ok());
        }
    }
}
