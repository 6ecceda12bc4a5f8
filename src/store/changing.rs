//! A table whose rows change in place, and how it is captured without a pause.
//!
//! ```text
//!   capture ──► rows that are due: changed since the former capture, new, or whose turn it is
//!                │
//!                ├─ copied in slices, in order, between operations ────┐
//!                └─ copied by whoever is about to change one of them ──┴──► rows as of the capture
//! ```
//!
//! A capture does not hold the whole table, only what the former ones lack: [`TURNS`] captures, one after another, do.
//! Blocks of rows take turns, so that each is whole in one of them; all that has changed since is in the later ones.
//! What an earlier one says of a row counts for nothing then, and need not make sense without those before it.
//!
//! Promises
//! - [`Changing::capture`] takes as long as it takes to go over a bit for each row, and copies none.
//! - The rows of a capture are those at the instant when it began, whatever has changed since.
//! - Rows of a capture that has not been adopted are in the next one again.

use std::ops::{Deref, Range};
use std::sync::{Arc, OnceLock};

use super::table::{Plain, Table};
use crate::mutant::Mutant;

/// So many captures in a row hold every row.
pub const TURNS: u32 = 8;

/// Blocks in a chunk of the table, as a power of two: 4,096 rows of 65,536.
const CHUNK_BLOCKS_LOG2: u32 = 4;

/// See the module.
#[derive(Debug)]
pub struct Changing<T> {
    table: Table<T>,
    /// Rows that have changed since the last capture began.
    changed: Bits,
    /// Rows that changed before it, until it is adopted.
    captured: Bits,
    /// Rows of the capture under way that are yet to be copied.
    due: Bits,
    /// No row from here on is due: 0 while no capture is under way.
    due_end: u32,
    under_way: Option<UnderWay<T>>,
    /// The last capture, for the memory of its rows.
    last: Option<Arc<OnceLock<Rows<T>>>>,
    /// The last one that was adopted.
    adopted: Option<Turn>,
    /// What the last capture holds.
    latest: Option<Turn>,
    captures: u64,
}

#[derive(Debug)]
struct UnderWay<T> {
    rows: Rows<T>,
    left: u32,
    /// The first word of `due` that may not be zero.
    word: usize,
    slice: u32,
    to: Arc<OnceLock<Rows<T>>>,
}

/// What was copied.
#[derive(Debug)]
struct Rows<T> {
    /// In slices: ascending.
    swept: Numbered<T>,
    /// Before somebody changed them.
    saved: Numbered<T>,
}

/// Rows and their numbers.
#[derive(Debug)]
struct Numbered<T> {
    numbers: Vec<u32>,
    rows: Vec<T>,
}

/// Which rows a capture holds as a whole. Of others, what changes is enough: a former one has the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turn {
    /// Captures adopted before.
    pub number: u64,
    /// Rows of the table, now and when the former one that was adopted began.
    pub rows: u32,
    pub rows_before: u32,
    block_rows_log2: u32,
    /// Of this capture, adopted or not.
    serial: u64,
}

impl Turn {
    /// Whether the row is one of them.
    pub fn is_whole(&self, row: u32) -> bool {
        row >= self.rows_before || (row >> self.block_rows_log2) % TURNS == self.now()
    }

    /// How many they are.
    pub fn whole_count(&self) -> u32 {
        let blocks = self.blocks().map(|rows| rows.end - rows.start);
        blocks.sum::<u32>() + (self.rows - self.rows_before)
    }

    fn now(&self) -> u32 {
        #[expect(clippy::cast_possible_truncation, reason = "less than eight")]
        let now = (self.number % u64::from(TURNS)) as u32;
        now
    }

    /// The blocks whose turn it is, as far as their rows are not new.
    fn blocks(&self) -> impl Iterator<Item = Range<u32>> + use<> {
        let Self {
            rows_before,
            block_rows_log2,
            ..
        } = *self;
        let first = self.now() << block_rows_log2;
        let starts = (first..rows_before).step_by((TURNS << block_rows_log2) as usize);
        starts.map(move |start| start..rows_before.min(start.saturating_add(1 << block_rows_log2)))
    }
}

/// A capture, for another thread.
#[derive(Debug)]
pub struct Capture<T> {
    turn: Turn,
    count: u32,
    rows: Arc<OnceLock<Rows<T>>>,
}

impl<T: Plain> Capture<T> {
    pub fn turn(&self) -> Turn {
        self.turn
    }

    /// Rows in it.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// The rows in order. Panics while they are being copied: a capture is read when [`Changing::go_on`] has
    /// said that it is complete.
    pub fn rows(&self) -> OrderedRows<'_, T> {
        let rows = self.rows.get().expect("the capture is complete");
        let mut saved: Vec<(u32, u32)> = rows.saved.numbers.iter().copied().zip(0..).collect();
        saved.sort_unstable();
        OrderedRows { rows, saved }
    }
}

/// The rows of a capture, in order of their numbers.
#[derive(Debug)]
pub struct OrderedRows<'a, T> {
    rows: &'a Rows<T>,
    /// Of those that were saved, numbers and places.
    saved: Vec<(u32, u32)>,
}

impl<T> OrderedRows<'_, T> {
    /// The rows and their numbers.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        let Rows { swept, saved } = self.rows;
        let mut swept = swept.numbers.iter().copied().zip(&swept.rows).peekable();
        let saved_row = |&(number, place): &(u32, u32)| (number, &saved.rows[place as usize]);
        let mut saved = self.saved.iter().map(saved_row).peekable();
        std::iter::from_fn(move || match (swept.peek(), saved.peek()) {
            (Some((a, _)), Some((b, _))) if b < a => saved.next(),
            (Some(_), _) => swept.next(),
            (None, _) => saved.next(),
        })
    }
}

impl<T: Plain> Changing<T> {
    /// An empty table, see [`Table::new`].
    pub fn new(chunk_rows_log2: u32) -> Self {
        Self {
            table: Table::new(chunk_rows_log2),
            changed: Bits::default(),
            captured: Bits::default(),
            due: Bits::default(),
            due_end: 0,
            under_way: None,
            last: None,
            adopted: None,
            latest: None,
            captures: 0,
        }
    }

    /// The rows of an empty table, as captures have left them; `number` is that of the last one.
    pub fn restore(&mut self, rows: &[T], number: u64) {
        assert!(self.table.is_empty());
        self.table.append(rows);
        self.changed.grow(self.table.len());
        let turn = self.next_turn();
        self.adopted = Some(Turn { number, ..turn });
    }

    #[inline(always)]
    pub fn push(&mut self, value: &T) -> u32 {
        let row = self.table.push(value);
        if row.is_multiple_of(u64::BITS) {
            self.changed.grow(row + 1);
        }
        row
    }

    /// Takes back the rows from `len` on, which no capture has seen.
    pub fn truncate(&mut self, len: u32) {
        assert!(self.latest.is_none_or(|turn| turn.rows <= len));
        for row in len..self.table.len() {
            self.changed.clear(row);
        }
        self.table.truncate(len);
    }

    #[inline(always)]
    pub fn row_mut(&mut self, row: u32) -> &mut T {
        self.touch(row);
        self.table.row_mut(row)
    }

    /// Two different rows at once.
    #[inline(always)]
    pub fn rows_mut(&mut self, first: u32, second: u32) -> (&mut T, &mut T) {
        self.touch(first);
        self.touch(second);
        self.table.rows_mut(first, second)
    }

    #[inline(always)]
    fn touch(&mut self, row: u32) {
        self.changed.set(row);
        if row < self.due_end {
            self.save(row);
        }
    }

    /// The row is about to change; a capture may want it as it is.
    #[inline(never)]
    fn save(&mut self, row: u32) {
        if !Mutant::CapturesLate.is_on() && self.due.take(row) {
            let under_way = self.under_way.as_mut().expect("rows are due");
            under_way.rows.saved.add(row, self.table.row(row));
            under_way.left -= 1;
        }
    }

    fn next_turn(&self) -> Turn {
        Turn {
            number: self.adopted.map_or(0, |turn| turn.number + 1),
            rows: self.table.len(),
            rows_before: self.adopted.map_or(0, |turn| turn.rows),
            block_rows_log2: self
                .table
                .chunk_rows()
                .ilog2()
                .saturating_sub(CHUNK_BLOCKS_LOG2),
            serial: self.captures,
        }
    }

    /// Begins to capture the table as it is now. [`Changing::go_on`] does the copying. A former capture that
    /// is not complete never will be.
    pub fn capture(&mut self) -> Capture<T> {
        let turn = self.next_turn();
        self.captures += 1;
        self.captured.take_all(&mut self.changed);
        self.due.copy_from(&self.captured);
        for rows in turn.blocks() {
            self.due.set_all(rows);
        }
        self.due.set_all(turn.rows_before..turn.rows);
        let count = self.due.count();
        let mut rows = self.recycled();
        rows.swept.numbers.reserve(count as usize);
        rows.swept.rows.reserve(count as usize);
        let to = Arc::new(OnceLock::new());
        self.under_way = Some(UnderWay {
            rows,
            left: count,
            word: 0,
            slice: (count / SLICES).max(SLICE_ROWS_MIN),
            to: Arc::clone(&to),
        });
        self.due_end = turn.rows;
        self.last = Some(Arc::clone(&to));
        self.latest = Some(turn);
        Capture {
            turn,
            count,
            rows: to,
        }
    }

    /// Copies one slice of what is due. Whether that was all.
    pub fn go_on(&mut self) -> bool {
        let Some(under_way) = &mut self.under_way else {
            return true;
        };
        let end = under_way.left.saturating_sub(under_way.slice);
        while under_way.left > end {
            let word = under_way.word;
            let mut bits = std::mem::take(&mut self.due.0[word]);
            while bits != 0 {
                #[expect(
                    clippy::cast_possible_truncation,
                    reason = "rows are numbered by 32 bits"
                )]
                let row = word as u32 * u64::BITS + bits.trailing_zeros();
                bits &= bits - 1;
                under_way.rows.swept.add(row, self.table.row(row));
                under_way.left -= 1;
            }
            under_way.word += 1;
        }
        if end > 0 {
            return false;
        }
        self.due_end = 0;
        let UnderWay { rows, to, .. } = self.under_way.take().expect("it is there");
        to.set(rows).ok().expect("a capture is complete once");
        true
    }

    /// A capture is durable, and what comes later may build on it.
    pub fn adopt(&mut self, turn: Turn) {
        self.adopted = Some(turn);
        // Another may have begun since: it holds what this one does, and is the next one's number.
        if self.latest == Some(turn) {
            self.captured.clear_all();
        }
    }

    /// The memory of the last capture, if nobody reads it any more.
    fn recycled(&mut self) -> Rows<T> {
        let last = self.last.take().and_then(Arc::into_inner);
        let rows = last.and_then(OnceLock::into_inner);
        let mut rows = rows.unwrap_or_default();
        rows.swept.clear();
        rows.saved.clear();
        rows
    }
}

/// A capture is copied in so many slices, or fewer. More of them would end when the checkpoint should have been
/// written; with fewer, each would be felt.
const SLICES: u32 = 16;

/// Half a mebibyte of 128-byte rows: some tens of microseconds.
const SLICE_ROWS_MIN: u32 = if cfg!(test) { 64 } else { 4096 };

impl<T> Default for Rows<T> {
    fn default() -> Self {
        Self {
            swept: Numbered::default(),
            saved: Numbered::default(),
        }
    }
}

impl<T> Default for Numbered<T> {
    fn default() -> Self {
        Self {
            numbers: Vec::new(),
            rows: Vec::new(),
        }
    }
}

impl<T: Plain> Numbered<T> {
    fn add(&mut self, row: u32, value: &T) {
        self.numbers.push(row);
        self.rows.push(*value);
    }

    fn clear(&mut self) {
        self.numbers.clear();
        self.rows.clear();
    }
}

/// Rows are read as those of any table.
impl<T> Deref for Changing<T> {
    type Target = Table<T>;

    fn deref(&self) -> &Table<T> {
        &self.table
    }
}

/// A bit for each row.
#[derive(Debug, Default)]
struct Bits(Vec<u64>);

impl Bits {
    fn place(row: u32) -> (usize, u64) {
        ((row / u64::BITS) as usize, 1 << (row % u64::BITS))
    }

    /// Makes room for so many rows.
    fn grow(&mut self, rows: u32) {
        let words = rows.div_ceil(u64::BITS) as usize;
        if words > self.0.len() {
            self.0.resize(words, 0);
        }
    }

    #[inline(always)]
    fn set(&mut self, row: u32) {
        let (word, bit) = Self::place(row);
        self.0[word] |= bit;
    }

    fn clear(&mut self, row: u32) {
        let (word, bit) = Self::place(row);
        self.0[word] &= !bit;
    }

    /// Clears it; whether it was set.
    fn take(&mut self, row: u32) -> bool {
        let (word, bit) = Self::place(row);
        let was = self.0[word] & bit != 0;
        self.0[word] &= !bit;
        was
    }

    fn set_all(&mut self, rows: Range<u32>) {
        let mut row = rows.start;
        while row < rows.end {
            let (word, bit) = Self::place(row);
            let count = (u64::BITS - row % u64::BITS).min(rows.end - row);
            let ones = u64::MAX >> (u64::BITS - count);
            self.0[word] |= ones * bit;
            row += count;
        }
    }

    fn clear_all(&mut self) {
        self.0.fill(0);
    }

    /// Moves all bits of another set into this one.
    fn take_all(&mut self, other: &mut Self) {
        if self.0.len() < other.0.len() {
            self.0.resize(other.0.len(), 0);
        }
        for (to, from) in self.0.iter_mut().zip(&mut other.0) {
            *to |= std::mem::take(from);
        }
    }

    fn copy_from(&mut self, other: &Self) {
        self.0.clear();
        self.0.extend_from_slice(&other.0);
    }

    fn count(&self) -> u32 {
        self.0.iter().map(|word| word.count_ones()).sum()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Puts captures together, as a restart does.
    #[derive(Default)]
    struct Copy(Vec<Option<u128>>);

    impl Copy {
        fn of(captures: &[(Turn, Vec<(u32, u128)>)]) -> Vec<u128> {
            let mut rows = Self::default();
            for (turn, captured) in captures {
                rows.0.resize(turn.rows as usize, None);
                for &(row, value) in captured {
                    let known = &mut rows.0[row as usize];
                    if turn.is_whole(row) || known.is_some() {
                        *known = Some(value);
                    }
                }
            }
            rows.0
                .into_iter()
                .map(|row| row.expect("every row has had its turn"))
                .collect()
        }
    }

    fn complete(capture: &Capture<u128>) -> (Turn, Vec<(u32, u128)>) {
        let rows: Vec<(u32, u128)> = capture
            .rows()
            .iter()
            .map(|(row, value)| (row, *value))
            .collect();
        assert!(rows.is_sorted_by_key(|(row, _)| row));
        assert_eq!(rows.len(), capture.count() as usize);
        let whole = rows.iter().filter(|(row, _)| capture.turn().is_whole(*row));
        assert_eq!(whole.count(), capture.turn().whole_count() as usize);
        (capture.turn(), rows)
    }

    #[derive(Debug, Clone)]
    enum Step {
        Push(u8),
        Change(u32),
        Undo(u8),
        GoOn,
        /// Whether it is adopted.
        Finish(bool),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            2 => (1..60u8).prop_map(Step::Push),
            6 => any::<u32>().prop_map(Step::Change),
            1 => (1..20u8).prop_map(Step::Undo),
            2 => Just(Step::GoOn),
            2 => prop::bool::weighted(0.8).prop_map(Step::Finish),
        ]
    }

    proptest! {
        #[test]
        fn captures_hold_the_table_as_it_was(steps in prop::collection::vec(step(), 1..300)) {
            let mut table = Changing::<u128>::new(6);
            let mut adopted = Vec::new();
            let mut under_way: Option<(Capture<u128>, Vec<u128>)> = None;
            let mut value = 0;
            for step in steps {
                value += 1;
                match step {
                    Step::Push(count) => (0..count).for_each(|_| { table.push(&value); }),
                    Step::Change(row) if !table.is_empty() => {
                        let row = row % table.len();
                        *table.row_mut(row) = value;
                    }
                    Step::Undo(count) => {
                        let floor = under_way.as_ref().map_or(0, |(capture, _)| capture.turn().rows)
                            .max(table.latest.map_or(0, |turn| turn.rows));
                        let len = table.len().saturating_sub(count.into()).max(floor).min(table.len());
                        table.truncate(len);
                    }
                    Step::Change(_) => {}
                    Step::GoOn => { table.go_on(); }
                    Step::Finish(adopts) => {
                        if let Some((capture, expected)) = under_way.take() {
                            while !table.go_on() {}
                            let mut all = adopted.clone();
                            all.push(complete(&capture));
                            let first = all.len().saturating_sub(TURNS as usize);
                            prop_assert_eq!(Copy::of(&all[first..]), expected);
                            if adopts {
                                table.adopt(capture.turn());
                                adopted = all;
                            }
                        }
                        let expected = table.iter().collect();
                        under_way = Some((table.capture(), expected));
                    }
                }
            }
        }
    }

    #[test]
    fn what_is_copied_grows_with_what_has_changed() {
        let mut table = Changing::<u128>::new(16);
        let rows = 1 << 20;
        (0..rows).for_each(|row| {
            table.push(&u128::from(row));
        });
        let mut counts = Vec::new();
        for _ in 0..=TURNS {
            *table.row_mut(77) += 1;
            *table.row_mut(rows - 1) += 1;
            let capture = table.capture();
            let mut slices = 1;
            while !table.go_on() {
                slices += 1;
            }
            assert!(slices <= SLICES + 1, "{slices}");
            counts.push(capture.count());
            table.adopt(capture.turn());
        }
        assert_eq!(counts[0], rows);
        let turn = rows / TURNS;
        assert!(
            counts[1..]
                .iter()
                .all(|count| (turn..=turn + 2).contains(count)),
            "{counts:?}"
        );
    }
}
