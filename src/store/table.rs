//! Rows of one fixed size, in order of arrival, in chunks.
//!
//! ```text
//!   chunk 0           chunk 1           chunk 2
//!   ├─ file map ──────┼─ memory, full ──┼─ memory ──── len ─ ─ ─ ─┤
//!                                  shared ▲ a snapshot reads the rows below, on another thread
//! ```
//!
//! A row is found by arithmetic: one table look-up for the chunk, then an offset. A chunk lives in
//! anonymous memory until a checkpoint has put it into a file; then [`Table::adopt`] or, for rows that are
//! packed there, [`Table::adopt_packed`] replaces the memory by the file. Rows in files are verified as they
//! are read, and read by value: [`Table::read`] works for all rows, [`Table::row`] for those in memory.
//!
//! Promises
//! - A row below `shared` is never written again, so a [`Shared`] may be read by another thread
//!   while this one appends. [`Table::truncate`] and [`Table::row_mut`] assert it.
//! - Rows of a table that is never shared may change in place ([`Table::row_mut`]); how such a table is
//!   captured is said in `changing`.
//!
//! Chunks are full-sized whatever they hold: memory is counted when it is touched.

use std::marker::PhantomData;
use std::ops::Range;
use std::sync::Arc;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::mapped::Mapped;
use super::packed::{Field, PackedChunk};
use super::pages::{Pages, prefetch};
use super::reserve::{Piece, Reserve};

/// Rows in a chunk, as a power of two: 8 MiB of 128-byte rows.
pub const CHUNK_ROWS_LOG2: u32 = 16;

/// What a row must be: plain bytes.
pub trait Plain: FromBytes + IntoBytes + Immutable + KnownLayout + Copy + 'static {}
impl<T: FromBytes + IntoBytes + Immutable + KnownLayout + Copy + 'static> Plain for T {}

/// Who owns the bytes of a chunk.
#[derive(Debug, Clone)]
enum Chunk<T> {
    Memory(#[expect(dead_code, reason = "keeps what the base leads to")] Arc<Piece>),
    File {
        mapped: Mapped,
        /// Of the first row.
        offset: usize,
    },
    Packed(Arc<PackedChunk<T>>),
}

/// See the module.
#[derive(Debug)]
pub struct Table<T> {
    /// First row of each chunk; the memory is `chunks`' at the same index.
    bases: Vec<*mut T>,
    chunks: Vec<Chunk<T>>,
    /// Where the base of chunks in files leads: zeros that nobody should read, and no memory until then.
    nowhere: Option<Pages>,
    reserve: Reserve,
    len: u32,
    shared: u32,
    chunk_rows_log2: u32,
}

// SAFETY: the pointers lead into memory that `chunks` owns; nothing is tied to a thread.
unsafe impl<T: Plain + Send> Send for Table<T> {}

impl<T: Plain> Table<T> {
    /// An empty table of chunks of `2^chunk_rows_log2` rows.
    pub fn new(chunk_rows_log2: u32) -> Self {
        let chunk_size = size_of::<T>() << chunk_rows_log2;
        assert!(chunk_rows_log2 < 32 && align_of::<T>() <= 4096 && chunk_size > 0);
        Self {
            bases: Vec::new(),
            chunks: Vec::new(),
            nowhere: None,
            reserve: Reserve::new(chunk_size),
            len: 0,
            shared: 0,
            chunk_rows_log2,
        }
    }

    /// Rows in the table.
    #[inline(always)]
    pub fn len(&self) -> u32 {
        self.len
    }

    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Where the memory of new chunks comes from, for whoever fills it ahead.
    pub fn reserve(&self) -> Reserve {
        self.reserve.clone()
    }

    /// Rows in a chunk.
    pub fn chunk_rows(&self) -> u32 {
        1 << self.chunk_rows_log2
    }

    /// Chunks that hold as many rows as they can.
    pub fn chunks_full(&self) -> u32 {
        self.len >> self.chunk_rows_log2
    }

    /// A row that is in memory.
    #[inline(always)]
    pub fn row(&self, row: u32) -> &T {
        assert!(row < self.len, "row {row} of {}", self.len);
        // SAFETY: below `len`, so initialised; see `pointer`. The table writes no row below `len`
        // without `&mut self`.
        unsafe { &*self.pointer(row) }
    }

    /// Any row.
    #[inline]
    pub fn read(&self, row: u32) -> T {
        match self.chunks.get((row >> self.chunk_rows_log2) as usize) {
            Some(Chunk::Packed(packed)) => packed.row(row & (self.chunk_rows() - 1)),
            Some(Chunk::File { mapped, offset }) => {
                let place = (row & (self.chunk_rows() - 1)) as usize * size_of::<T>();
                let bytes = mapped.bytes(offset + place..offset + place + size_of::<T>());
                T::read_from_bytes(bytes).expect("as many bytes as a row has")
            }
            Some(Chunk::Memory(_)) | None => *self.row(row),
        }
    }

    /// One field of a packed row; `None` for rows that are not packed.
    #[inline]
    pub fn packed_field(&self, row: u32, field: Field) -> Option<u128> {
        match self.chunks.get((row >> self.chunk_rows_log2) as usize) {
            Some(Chunk::Packed(packed)) => Some(packed.field(row & (self.chunk_rows() - 1), field)),
            Some(Chunk::Memory(_) | Chunk::File { .. }) | None => None,
        }
    }

    /// For tables that are never shared.
    #[inline(always)]
    pub fn row_mut(&mut self, row: u32) -> &mut T {
        assert!(row < self.len, "row {row} of {}", self.len);
        assert!(row >= self.shared, "row {row} belongs to a snapshot");
        // SAFETY: as for `row`, with `&mut self`; no snapshot sees it, as asserted.
        unsafe { &mut *self.pointer(row) }
    }

    /// Two different rows at once, for tables that are never shared.
    #[inline(always)]
    pub fn rows_mut(&mut self, first: u32, second: u32) -> (&mut T, &mut T) {
        assert!(first < self.len && second < self.len && first != second);
        assert!(
            first >= self.shared && second >= self.shared,
            "rows belong to a snapshot"
        );
        // SAFETY: as for `row_mut`; the rows are different, so they do not overlap.
        unsafe { (&mut *self.pointer(first), &mut *self.pointer(second)) }
    }

    pub fn last(&self) -> Option<T> {
        self.len.checked_sub(1).map(|row| self.read(row))
    }

    /// Fetches all lines of a row. Any number is harmless.
    #[inline(always)]
    pub fn prefetch(&self, row: u32) {
        if let Some(&base) = self.bases.get((row >> self.chunk_rows_log2) as usize) {
            let offset = (row & (self.chunk_rows() - 1)) as usize;
            let first = base.wrapping_add(offset).cast::<u8>();
            for line in (0..size_of::<T>()).step_by(64) {
                prefetch(first.wrapping_add(line));
            }
        }
    }

    /// Appends a row and returns its number.
    #[inline(always)]
    pub fn push(&mut self, value: &T) -> u32 {
        let row = self.len;
        assert!(row < u32::MAX, "a table holds less than 2^32 rows");
        if (row >> self.chunk_rows_log2) as usize == self.bases.len() {
            self.add_chunk();
        }
        // SAFETY: the chunk is there and in memory (only full chunks are adopted, and a chunk with
        // `row` is not full). Nobody else sees rows at or above `len`.
        unsafe { self.pointer(row).write(*value) };
        self.len += 1;
        row
    }

    /// Takes back the rows from `len` on.
    pub fn truncate(&mut self, len: u32) {
        assert!(len <= self.len);
        assert!(
            len >= self.shared,
            "rows below {} belong to a snapshot",
            self.shared
        );
        self.len = len;
    }

    /// The number of rows for which `before` holds; the rows are ordered by it.
    pub fn partition_point(&self, before: impl FnMut(&T) -> bool) -> u32 {
        self.partition_point_in(0..self.len, before)
    }

    /// The same among some of the rows: how many of the table lie before the place.
    pub fn partition_point_in(&self, rows: Range<u32>, mut before: impl FnMut(&T) -> bool) -> u32 {
        let (mut low, mut high) = (rows.start, rows.end);
        while low < high {
            let middle = low + (high - low) / 2;
            if before(&self.read(middle)) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    /// All rows of a table in memory, chunk by chunk.
    pub fn slices(&self) -> impl Iterator<Item = &[T]> {
        (0..self.len.div_ceil(self.chunk_rows())).map(|chunk| self.chunk(chunk))
    }

    /// All rows, in order.
    pub fn iter(&self) -> impl Iterator<Item = T> {
        (0..self.len).map(|row| self.read(row))
    }

    /// The rows of a chunk that has some, and is in memory.
    pub fn chunk(&self, chunk: u32) -> &[T] {
        assert!(self.is_in_memory(chunk));
        let start = chunk << self.chunk_rows_log2;
        assert!(start < self.len);
        let rows = (self.len - start).min(self.chunk_rows()) as usize;
        // SAFETY: these rows are below `len`, in one chunk, and `&self` keeps them unchanged.
        unsafe { std::slice::from_raw_parts(self.pointer(start), rows) }
    }

    /// A view of the rows of chunk `from` and later, for another thread. From here on, no row that
    /// exists now may change.
    pub fn share(&mut self, from: u32) -> Shared<T> {
        self.shared = self.len;
        self.view(from)
    }

    /// Appends many rows.
    pub fn append(&mut self, mut rows: &[T]) {
        while !rows.is_empty() {
            if (self.len >> self.chunk_rows_log2) as usize == self.bases.len() {
                self.add_chunk();
            }
            let room = self.chunk_rows() - (self.len & (self.chunk_rows() - 1));
            let count = rows.len().min(room as usize);
            let count_row = u32::try_from(count).expect("less than a chunk");
            let len = self
                .len
                .checked_add(count_row)
                .expect("a table holds less than 2^32 rows");
            // SAFETY: as for `push`: `count` rows from `len` on lie in one chunk.
            unsafe {
                self.pointer(self.len)
                    .copy_from_nonoverlapping(rows.as_ptr(), count)
            };
            self.len = len;
            rows = &rows[count..];
        }
    }

    fn view(&self, from: u32) -> Shared<T> {
        let from = (from as usize).min(self.bases.len());
        Shared {
            bases: self.bases[from..]
                .iter()
                .map(|base| base.cast_const())
                .collect(),
            _chunks: self.chunks[from..].to_vec(),
            first: u32::try_from(from).expect("chunks are fewer than rows") << self.chunk_rows_log2,
            len: self.len,
            chunk_rows_log2: self.chunk_rows_log2,
            rows: PhantomData,
        }
    }

    /// Replaces the memory of a full chunk that was shared by the same rows in a file, which begin
    /// at `offset`.
    pub fn adopt(&mut self, chunk: u32, mapped: Mapped, offset: usize) {
        let end = (u64::from(chunk) + 1) << self.chunk_rows_log2;
        assert!(
            end <= u64::from(self.shared),
            "only rows that never change go to files"
        );
        assert!(offset + (size_of::<T>() << self.chunk_rows_log2) <= mapped.len());
        self.bases[chunk as usize] = self.nowhere();
        // The memory goes back to the reserve, from here or from the last snapshot that reads it.
        self.chunks[chunk as usize] = Chunk::File { mapped, offset };
    }

    /// The same where the rows are packed in the file.
    pub fn adopt_packed(&mut self, chunk: u32, packed: PackedChunk<T>) {
        let end = (u64::from(chunk) + 1) << self.chunk_rows_log2;
        assert!(end <= u64::from(self.shared) && packed.rows() == self.chunk_rows());
        self.bases[chunk as usize] = self.nowhere();
        self.chunks[chunk as usize] = Chunk::Packed(Arc::new(packed));
    }

    /// Appends a whole chunk that is packed in a file; the table holds whole chunks so far.
    pub fn append_packed(&mut self, packed: PackedChunk<T>) {
        assert!(self.len.is_multiple_of(self.chunk_rows()) && packed.rows() == self.chunk_rows());
        assert_eq!(self.bases.len(), self.chunks_full() as usize);
        let base = self.nowhere();
        self.bases.push(base);
        self.chunks.push(Chunk::Packed(Arc::new(packed)));
        self.grow_by_a_chunk();
    }

    fn grow_by_a_chunk(&mut self) {
        self.len = self
            .len
            .checked_add(self.chunk_rows())
            .expect("less than 2^32 rows");
        self.shared = self.len;
    }

    fn nowhere(&mut self) -> *mut T {
        let size = size_of::<T>() << self.chunk_rows_log2;
        let nowhere = self.nowhere.get_or_insert_with(|| Pages::zeroed(size));
        nowhere.base().cast()
    }

    /// Appends a whole chunk that is in a file; the table holds whole chunks so far.
    pub fn append_file(&mut self, mapped: Mapped, offset: usize) {
        assert!(self.len.is_multiple_of(self.chunk_rows()));
        assert_eq!(self.bases.len(), self.chunks_full() as usize);
        assert!(offset + (size_of::<T>() << self.chunk_rows_log2) <= mapped.len());
        let base = self.nowhere();
        self.bases.push(base);
        self.chunks.push(Chunk::File { mapped, offset });
        self.grow_by_a_chunk();
    }

    /// Begins to read a row of a file, if that is where it is, so that reads of many rows overlap.
    /// For rows that are about to be read, and rarely: it is a system call. Any number is harmless.
    #[inline]
    pub fn fetch(&self, row: u32) {
        let chunk = (row >> self.chunk_rows_log2) as usize;
        let place = row & (self.chunk_rows() - 1);
        match self.chunks.get(chunk) {
            Some(Chunk::File { mapped, offset }) => {
                let start = offset + place as usize * size_of::<T>();
                mapped.will_need(start..start + size_of::<T>());
            }
            Some(Chunk::Packed(packed)) => packed.will_need(place..=place),
            Some(Chunk::Memory(_)) | None => {}
        }
    }

    /// Fetches rows that are about to be read: lines of those in memory; pages of those in files, so
    /// that the reads overlap. The rows are in order, up or down.
    pub fn fetch_rows(&self, rows: &[u32]) {
        let mask = self.chunk_rows() - 1;
        for run in rows.chunk_by(|a, b| a >> self.chunk_rows_log2 == b >> self.chunk_rows_log2) {
            let places = run.iter().map(|row| row & mask);
            match self.chunks.get((run[0] >> self.chunk_rows_log2) as usize) {
                Some(Chunk::File { mapped, offset }) => {
                    let start = |place: u32| offset + place as usize * size_of::<T>();
                    mapped.will_need_pieces(
                        places.map(|place| start(place)..start(place) + size_of::<T>()),
                    );
                }
                Some(Chunk::Packed(packed)) => {
                    packed.will_need_rows(places.clone());
                    places.for_each(|place| packed.prefetch(place));
                }
                Some(Chunk::Memory(_)) => run.iter().for_each(|&row| self.prefetch(row)),
                None => {}
            }
        }
    }

    /// Begins to read a chunk that is in a file.
    pub fn fetch_chunk(&self, chunk: u32) {
        match &self.chunks[chunk as usize] {
            Chunk::File { mapped, offset } => {
                mapped.will_need(*offset..*offset + (size_of::<T>() << self.chunk_rows_log2));
            }
            Chunk::Packed(packed) => packed.will_need(0..=self.chunk_rows() - 1),
            Chunk::Memory(_) => {}
        }
    }

    /// Whether the chunk is in memory rather than in a file.
    pub fn is_in_memory(&self, chunk: u32) -> bool {
        matches!(self.chunks[chunk as usize], Chunk::Memory(_))
    }

    #[cold]
    fn add_chunk(&mut self) {
        let pages = Arc::new(self.reserve.take());
        self.bases.push(pages.base().cast());
        self.chunks.push(Chunk::Memory(pages));
    }

    /// Where `row` lies; its chunk exists.
    #[inline(always)]
    fn pointer(&self, row: u32) -> *mut T {
        let chunk = (row >> self.chunk_rows_log2) as usize;
        debug_assert!(chunk < self.bases.len());
        // SAFETY: every caller has compared `row` with `len`, and a table has chunks for `len`
        // rows; `push` and `append` have added the chunk of the row at `len`.
        let base = unsafe { *self.bases.get_unchecked(chunk) };
        // SAFETY: a chunk holds `chunk_rows` rows, and the offset is below that.
        unsafe { base.add((row & (self.chunk_rows() - 1)) as usize) }
    }
}

/// Rows of a table as of one instant, readable on another thread.
#[derive(Debug)]
pub struct Shared<T> {
    bases: Vec<*const T>,
    /// Keeps the memory.
    _chunks: Vec<Chunk<T>>,
    /// Number of the first row in view.
    first: u32,
    /// Rows of the table at that instant.
    len: u32,
    chunk_rows_log2: u32,
    rows: PhantomData<T>,
}

// SAFETY: reads only rows that the table has promised not to write again (`Table::shared`), in
// memory that it co-owns.
unsafe impl<T: Plain + Send + Sync> Send for Shared<T> {}

impl<T: Plain> Shared<T> {
    /// Rows of the table at the instant, including those before the view.
    pub fn len(&self) -> u32 {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Rows of one chunk that is in view; the last one may be partial.
    pub fn chunk(&self, chunk: u32) -> &[T] {
        let start = chunk << self.chunk_rows_log2;
        assert!(start >= self.first && start < self.len);
        let rows = (self.len - start).min(1 << self.chunk_rows_log2) as usize;
        let base = self.bases[((start - self.first) >> self.chunk_rows_log2) as usize];
        // SAFETY: `rows` rows of this chunk were below the table's length when it was shared, so
        // they are initialised and never written again; the chunk is kept alive.
        unsafe { std::slice::from_raw_parts(base, rows) }
    }

    /// The chunks in view that hold rows, in order.
    pub fn slices(&self) -> impl Iterator<Item = &[T]> {
        let first = self.first >> self.chunk_rows_log2;
        let end = self.len.div_ceil(1 << self.chunk_rows_log2);
        (first..end).map(|chunk| self.chunk(chunk))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Damage, FileKind, FileName, MemoryStorage, SealedFile, SealedWriter};
    use super::*;

    #[test]
    fn rows_across_chunks() {
        let mut table = Table::<u128>::new(8);
        for row in 0..1000u32 {
            assert_eq!(table.push(&u128::from(row)), row);
        }
        assert_eq!(table.chunks_full(), 3);
        for row in 0..1000u32 {
            assert_eq!(*table.row(row), u128::from(row));
        }
        assert_eq!(table.partition_point(|&value| value < 700), 700);
        table.truncate(700);
        assert_eq!(table.last(), Some(699));
        table.append(&(700..1400).collect::<Vec<u128>>());
        assert_eq!(table.len(), 1400);
        assert_eq!(*table.row(1399), 1399);
        let (a, b) = table.rows_mut(3, 1300);
        std::mem::swap(a, b);
        assert_eq!((*table.row(3), *table.row(1300)), (1300, 3));
        table.prefetch(u32::MAX);
    }

    #[test]
    fn a_view_stays_as_it_was_while_the_table_grows() {
        let mut table = Table::<u128>::new(4);
        table.append(&(0..40).collect::<Vec<u128>>());
        let shared = table.share(1);
        table.append(&(40..100).collect::<Vec<u128>>());
        let seen: Vec<u128> = shared.slices().flatten().copied().collect();
        assert_eq!(seen, (16..40).collect::<Vec<u128>>());
        assert_eq!(shared.chunk(2).len(), 8);
    }

    #[test]
    #[should_panic(expected = "belong to a snapshot")]
    fn shared_rows_cannot_be_taken_back() {
        let mut table = Table::<u128>::new(4);
        table.append(&[1, 2, 3]);
        table.share(0);
        table.truncate(2);
    }

    #[test]
    fn files_take_the_place_of_memory() {
        let mut table = Table::<u128>::new(8);
        table.append(&(0..600).collect::<Vec<u128>>());
        let shared = table.share(0);
        let mut storage = MemoryStorage::default();
        let name = FileName::new(FileKind::FailedIds, 1);
        let mut writer = SealedWriter::create(&mut storage, name).unwrap();
        writer.section(1).unwrap();
        writer.write(&[0; 4096]).unwrap();
        writer.write(shared.chunk(1).as_bytes()).unwrap();
        let entry = writer.finish().unwrap();
        let open = |storage: &MemoryStorage| {
            let file = SealedFile::open(storage, entry).unwrap();
            Mapped::open(storage, &file).unwrap()
        };
        drop(shared);
        table.adopt(1, open(&storage), 4096);
        assert!(!table.is_in_memory(1));
        assert_eq!((table.read(300), table.read(255)), (300, 255));
        table.append(&(600..2000).collect::<Vec<u128>>());
        assert_eq!(*table.row(1999), 1999);
        let mut restored = Table::<u128>::new(8);
        restored.append_file(open(&storage), 4096);
        assert_eq!(restored.read(5), 261);
        assert_eq!(restored.push(&5), 256);
        // Rows that are not what was written are never seen.
        storage.damage(name, 4096 + 16);
        table.adopt(1, open(&storage), 4096);
        assert_eq!(Damage::catch(|| table.read(300)).unwrap_err().entry, entry);
        assert_eq!(table.read(255), 255);
    }
}
