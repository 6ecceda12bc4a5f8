//! Postings: which rows of a chunk have a value, as sorted positions, for several columns at once.
//!
//! ```text
//!   words of four bytes
//!   ├ rows ┼ columns ┼ directory, 5 for each column ┼ column ┼ column ┤
//!                      keys, words, at, first key, last key
//!
//!   a column    ├ key × keys, ascending ┼ end × keys ┼ positions, two bytes each ┤
//!
//!   a key's positions end at `end` and begin where those of the key before end
//!     none                                 every row of the chunk has it
//!     fewer than one for sixteen rows      a list, ascending
//!     exactly one for sixteen rows         a bitmap: bit `position % 16` of word `position / 16`
//! ```
//!
//! Positions and not copies: two bytes for each row and value, nothing for a value that all rows have,
//! a bit for each row for one that most have. A row that is not posted in a column costs nothing there.
//!
//! Keys have 32 bits, and the store does not know what they mean: values that are longer are hashed by
//! the caller, who then asks the row itself. Equal rows give equal bytes.
//!
//! Building is a radix sort of one chunk: a slice of work, not a task. It must fit between two
//! operations.

use std::cmp::Ordering;

use zerocopy::IntoBytes;

use super::blob::Blob;
use super::positions::Positions;
use super::span::Span;

/// A position has 16 bits.
pub const POSTINGS_ROWS_LOG2_MAX: u32 = 16;

const WORD_SIZE: usize = size_of::<u32>();
const HEAD_WORDS: usize = 2;
const ENTRY_WORDS: usize = 5;
/// Rows for each word of a bitmap.
const BITMAP_ROWS: u32 = u16::BITS;

/// Makes postings; kept for its memory.
#[derive(Debug, Default)]
pub struct PostingsBuilder {
    rows: u32,
    out: Vec<u32>,
    column: usize,
    /// `key << 16 | position`.
    items: Vec<u64>,
    sorted: Vec<u64>,
    counts: Vec<u32>,
    keys: Vec<u32>,
    ends: Vec<u32>,
    positions: Vec<u16>,
}

impl PostingsBuilder {
    /// Begins the postings of a chunk.
    pub fn begin(&mut self, rows: u32, columns: u32) {
        assert!(rows > 0 && rows <= 1 << POSTINGS_ROWS_LOG2_MAX);
        self.rows = rows;
        self.column = 0;
        self.out.clear();
        self.out.extend([rows, columns]);
        let directory = columns as usize * ENTRY_WORDS;
        self.out.resize(HEAD_WORDS + directory, 0);
    }

    /// The next column: the key of each row, in order; a row without one is not posted.
    pub fn column(&mut self, keys: impl Iterator<Item = Option<u32>>) {
        self.items.clear();
        let items = (0u64..).zip(keys);
        self.items
            .extend(items.filter_map(|(position, key)| Some(u64::from(key?) << 16 | position)));
        self.sort();
        self.encode();
    }

    /// The next column: every row has a key. Best where keys are small numbers, as those of rows are:
    /// one pass counts, another puts every position where it belongs.
    pub fn column_of_all(&mut self, keys: impl Iterator<Item = u32> + Clone) {
        /// Counters stay in the second-level cache.
        const COUNTED_MAX: u32 = 1 << 16;
        let last = keys.clone().fold(0, u32::max);
        if last >= COUNTED_MAX {
            return self.column(keys.map(Some));
        }
        self.counts.clear();
        self.counts.resize(last as usize + 1, 0);
        keys.clone().for_each(|key| self.counts[key as usize] += 1);
        let most = self.counts.iter().fold(0, |most, count| most.max(*count));
        if most >= self.bitmap_words() {
            return self.column(keys.map(Some));
        }
        self.clear();
        let mut before = 0;
        for (key, count) in (0..).zip(&mut self.counts) {
            if *count > 0 {
                let end = before + *count;
                self.keys.push(key);
                self.ends.push(end);
                (*count, before) = (before, end);
            }
        }
        self.positions.resize(self.rows as usize, 0);
        for (position, key) in (0..=u16::MAX).zip(keys) {
            let place = &mut self.counts[key as usize];
            self.positions[*place as usize] = position;
            *place += 1;
        }
        self.append();
    }

    /// The next column: all rows have the same key, or none.
    pub fn column_of_one(&mut self, key: Option<u32>) {
        self.clear();
        if let Some(key) = key {
            self.keys.push(key);
            self.ends.push(0);
        }
        self.append();
    }

    /// Ends the postings.
    pub fn finish(&mut self) -> Blob {
        let columns = self.out[1] as usize;
        assert_eq!(self.column, columns, "every column was given");
        Blob::of_words(self.out.clone())
    }

    /// Orders the items by key; those of one key stay in order.
    fn sort(&mut self) {
        /// Counters of a pass stay in the second-level cache.
        const DIGIT_BITS_MAX: u32 = 14;
        let keys = self.items.iter().fold(0, |bits, item| bits | item >> 16);
        let bits = u64::BITS - keys.leading_zeros();
        if bits == 0 {
            return;
        }
        let passes = bits.div_ceil(DIGIT_BITS_MAX);
        let digit_bits = bits.div_ceil(passes);
        let mask = (1u64 << digit_bits) - 1;
        self.sorted.resize(self.items.len(), 0);
        for pass in 0..passes {
            let shift = 16 + pass * digit_bits;
            let digit = |item: u64| index(item >> shift & mask);
            self.counts.clear();
            self.counts.resize(1 << digit_bits, 0);
            self.items
                .iter()
                .for_each(|item| self.counts[digit(*item)] += 1);
            let mut before = 0;
            for count in &mut self.counts {
                (*count, before) = (before, before + *count);
            }
            for item in &self.items {
                let place = &mut self.counts[digit(*item)];
                self.sorted[*place as usize] = *item;
                *place += 1;
            }
            std::mem::swap(&mut self.items, &mut self.sorted);
        }
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "an item is a key of 32 bits and a position of 16"
    )]
    fn encode(&mut self) {
        self.clear();
        let bitmap = self.bitmap_words() as usize;
        for run in self.items.chunk_by(|a, b| a >> 16 == b >> 16) {
            if run.len() == self.rows as usize {
                // Every row: nothing to say.
            } else if run.len() < bitmap {
                self.positions.extend(run.iter().map(|item| *item as u16));
            } else {
                let first = self.positions.len();
                self.positions.resize(first + bitmap, 0);
                for item in run {
                    let position = *item as u16;
                    let word = first + (position / BITMAP_ROWS as u16) as usize;
                    self.positions[word] |= 1 << (position % BITMAP_ROWS as u16);
                }
            }
            self.keys.push((run[0] >> 16) as u32);
            self.ends.push(count(self.positions.len()));
        }
        self.append();
    }

    fn clear(&mut self) {
        self.keys.clear();
        self.ends.clear();
        self.positions.clear();
    }

    fn bitmap_words(&self) -> u32 {
        self.rows.div_ceil(BITMAP_ROWS)
    }

    fn append(&mut self) {
        let at = count(self.out.len());
        self.out.extend_from_slice(&self.keys);
        self.out.extend_from_slice(&self.ends);
        let words = self.out.len();
        self.out.resize(words + self.positions.len().div_ceil(2), 0);
        let bytes = self.positions.as_bytes();
        self.out[words..].as_mut_bytes()[..bytes.len()].copy_from_slice(bytes);
        let entry = [
            count(self.keys.len()),
            count(self.positions.len()),
            at,
            self.keys.first().copied().unwrap_or(0),
            self.keys.last().copied().unwrap_or(0),
        ];
        let place = HEAD_WORDS + self.column * ENTRY_WORDS;
        self.out[place..place + ENTRY_WORDS].copy_from_slice(&entry);
        self.column += 1;
    }
}

fn count(count: usize) -> u32 {
    u32::try_from(count).expect("a chunk has at most 65,536 rows")
}

fn index(digit: u64) -> usize {
    usize::try_from(digit).expect("a digit is narrow")
}

/// Postings where they lie.
#[derive(Debug, Clone, Copy)]
pub struct Postings<'a> {
    words: Span<'a>,
}

struct Column<'a> {
    rows: u32,
    keys: Span<'a>,
    ends: Span<'a>,
    positions: Span<'a>,
    count: usize,
    first: u32,
    last: u32,
}

/// What is read was written by this module, and is verified by its checksums when it is in a file. So
/// what makes no sense was written so: a bug, which ends the process, and nothing else comes of it.
const SENSELESS: &str = "postings make no sense though their checksums hold: \
    look at the checkpoint with `stampede inspect verify`, and do not trust this release with it";

impl<'a> Postings<'a> {
    pub fn of(blob: &'a Blob) -> Self {
        Self { words: blob.span() }
    }

    /// Whether these are postings of a chunk of so many rows, with so many columns, each within what
    /// is there: for what comes from a file.
    pub fn is_plausible(&self, rows: u32, columns: u32) -> bool {
        let head = self.words.elements::<u32>(0..HEAD_WORDS);
        head.is_some_and(|head| *head == [rows, columns])
            && (0..columns as usize).all(|column| self.get(column).is_some())
    }

    /// The rows that have this key in this column.
    pub fn find(&self, column: usize, key: u32) -> Positions<'a> {
        let column = self.get(column).expect(SENSELESS);
        match column.search(key) {
            None => Positions::NONE,
            Some(found) => column.positions(found).expect(SENSELESS),
        }
    }

    /// Every key of a column with its rows, ascending.
    pub fn keys(&self, column: usize) -> impl Iterator<Item = (u32, Positions<'a>)> + use<'a> {
        let column = self.get(column).expect(SENSELESS);
        (0..column.count).map(move |at| (column.key(at), column.positions(at).expect(SENSELESS)))
    }

    /// Whether a search of this column finds for each key exactly the rows that have it, in order: `keys` are
    /// those of the rows. Reads the whole column, and believes nothing of it.
    pub fn agree(&self, column: usize, keys: &[Option<u32>]) -> bool {
        let rows = self.words.element::<u32>(0);
        let Some(column) = self.get(column) else {
            return false;
        };
        if rows.is_none_or(|rows| *rows as usize != keys.len()) {
            return false;
        }
        let (mut former, mut found) = (None, 0);
        for at in 0..column.count {
            let key = Some(column.key(at));
            let Some(positions) = column.positions(at) else {
                return false;
            };
            let mut last = None;
            let mut agree = former < key && column.search(column.key(at)) == Some(at);
            positions.for_each(|position| {
                let position = position as usize;
                agree &= last < Some(position) && keys.get(position) == Some(&key);
                last = Some(position);
            });
            if !agree {
                return false;
            }
            former = key;
            found += positions.count();
        }
        // None was found twice: each has one key, and keys and positions ascend.
        found == keys.iter().flatten().count()
    }

    fn get(&self, column: usize) -> Option<Column<'a>> {
        let place = HEAD_WORDS + column * ENTRY_WORDS;
        let entry = self.words.elements::<u32>(place..place + ENTRY_WORDS)?;
        let &[count, positions, at, first, last] = entry else {
            return None;
        };
        let rows = *self.words.element::<u32>(0)?;
        let keys = at as usize * WORD_SIZE;
        let ends = keys + count as usize * WORD_SIZE;
        let data = ends + count as usize * WORD_SIZE;
        let end = data + positions as usize * size_of::<u16>();
        Some(Column {
            rows,
            keys: self.words.part(keys..ends)?,
            ends: self.words.part(ends..data)?,
            positions: self.words.part(data..end)?,
            count: count as usize,
            first,
            last,
        })
    }
}

impl<'a> Column<'a> {
    fn key(&self, at: usize) -> u32 {
        *self.keys.element(at).expect("below the count")
    }

    fn positions(&self, at: usize) -> Option<Positions<'a>> {
        let end = |at: usize| self.ends.element::<u32>(at).copied();
        let start = at.checked_sub(1).map_or(Some(0), end)?;
        let range = start as usize..end(at)? as usize;
        let positions = self.positions.elements(range)?;
        if positions.is_empty() {
            return Some(Positions::All(self.rows));
        }
        let is_bitmap = positions.len() == self.rows.div_ceil(BITMAP_ROWS) as usize;
        Some(if is_bitmap {
            Positions::Bitmap(positions)
        } else {
            Positions::List(positions)
        })
    }

    /// Where the key is. Keys are numbers of rows or hashes, so where one is can be guessed: a search
    /// in a file then reads one page of them and not five.
    fn search(&self, key: u32) -> Option<usize> {
        const GUESSES: u32 = 3;
        if self.count == 0 || key < self.first || key > self.last {
            return None;
        }
        let (mut low, mut high) = (0, self.count);
        let (mut first, mut last) = (self.first, self.last);
        for _ in 0..GUESSES {
            if low >= high || key < first || key > last {
                return None;
            }
            let (part, whole) = (u64::from(key - first), u64::from(last - first).max(1));
            let guess = low + index(part * (high - low - 1) as u64 / whole);
            let found = self.key(guess);
            match found.cmp(&key) {
                Ordering::Equal => return Some(guess),
                Ordering::Less => (low, first) = (guess + 1, found + 1),
                Ordering::Greater => (high, last) = (guess, found - 1),
            }
        }
        while low < high {
            let middle = low + (high - low) / 2;
            match self.key(middle).cmp(&key) {
                Ordering::Equal => return Some(middle),
                Ordering::Less => low = middle + 1,
                Ordering::Greater => high = middle,
            }
        }
        None
    }
}
